"""``GET /health``: what load balancers ask."""

from __future__ import annotations

from .http import HttpHandler


class HealthHandler(HttpHandler):
    """``/health``: 200 while requests are welcome, 503 while the server drains.  Open to everybody."""

    public = True

    def report(self) -> None:
        if self.state.draining:
            self.set_status(503)
            self.put_json({"status": "draining"})
        else:
            self.put_json(self.state.service.health())

    verbs = {"GET": report, "HEAD": report}
