"""``GET /health`` and ``GET /ready``: probes for supervisors and load balancers.  Both are public, also while
the server drains, and name no provider and no model.
"""

from __future__ import annotations

from typing import Mapping, Optional

from .http import HttpHandler

WHY: Mapping[str, str] = {
    "draining": "This process is stopping; send new requests to another one.",
    "store": "The store cannot be reached; the log of this process says why.",
    "providers": "All providers of a model have failed and cool down; the log of this process says why.",
}


class HealthHandler(HttpHandler):
    """``/health``: this process is alive."""

    public = True

    async def report(self) -> None:
        await self.put_json({"status": "ok"})

    verbs = {"GET": report, "HEAD": report}


class ReadyHandler(HttpHandler):
    """``/ready``: new turns would succeed; 503 with the reason if not.  With ``?for=balancer`` only a
    stopping process is not ready: otherwise a provider that is down would take every backend out of a
    balancer.
    """

    public = True

    async def report(self) -> None:
        obstacle = await self._obstacle()
        if obstacle is None:
            await self.put_json({"status": "ok"})
        else:
            self.set_status(503)
            await self.put_json({"status": obstacle, "message": WHY[obstacle]})

    async def _obstacle(self) -> Optional[str]:
        if self.state.stopping:
            return "draining"
        if self.query().get("for") == "balancer":
            return None
        return await self.state.service.obstacle()

    verbs = {"GET": report, "HEAD": report}
