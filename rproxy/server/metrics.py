"""``GET /metrics``: the metrics for Prometheus.

With ``server.metrics: auto`` it is for clients on this machine, and for those with a key.
"""

from __future__ import annotations

from ..errors import not_found
from ..telemetry.exposition import CONTENT_TYPE, gauge
from .http import ROUTES_HINT, HttpHandler


class MetricsHandler(HttpHandler):
    """``/metrics`` in Prometheus' text format"""

    def admit(self) -> None:
        """:raises ApiError: 401, 403 or 404: see ``server.metrics``"""
        mode = self.state.config.server.metrics
        if mode == "off":
            raise not_found("Path", self.request.path, hint=ROUTES_HINT)
        if mode == "auto" and not self.is_local:
            if not self.state.config.server.auth.enabled:
                raise not_found("Path", self.request.path, hint=ROUTES_HINT)
            super().admit()

    async def show(self) -> None:
        state = self.state
        now = [
            *await state.service.gauges(),
            gauge("rproxy_turns_running", "Turns under way.", len(state.turns)),
            gauge("rproxy_websockets_open", "Open WebSocket connections.", len(state.sessions)),
            gauge(
                "rproxy_event_loop_lag_seconds",
                "How late the event loop was, at worst in the last minute.",
                state.lag.worst,
            ),
        ]
        self.set_header("Content-Type", CONTENT_TYPE)
        await self.finish(state.service.telemetry.metrics.text(now))

    verbs = {"GET": show, "HEAD": show}
