"""Whether new turns would succeed (``GET /ready``), and the states of the providers.

``/ready`` is public, so it must be cheap: the store is probed at most once in ``PROBE_INTERVAL`` seconds,
however many requests there are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from ..config.schema import Model
from ..errors import StoreError
from ..log import without_login
from ..store import Store
from ..types import Json
from ..upstream.failover import Failover

log = logging.getLogger("rproxy.ready")

PROBE_INTERVAL = 1.0  # seconds
PROBE_ID = "ready"  # an id that no record has


class Readiness:
    """Finds what keeps this process from being ready.

    :param now: monotonic seconds
    """

    def __init__(self, store: Store, failover: Failover, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._failover = failover
        self._now = now
        self._probe: Optional[asyncio.Task[bool]] = None
        self._probed = 0.0
        self._reachable = True  # at the last probe

    async def obstacle(self, models: Sequence[Model]) -> Optional[str]:
        """Why new turns would fail.

        :returns: ``store``: it does not answer; ``providers``: all providers of some model cool down; else
            None
        """
        if not await self._store_answers():
            return "store"
        for model in models:
            if all(map(self._failover.cools_down, model.providers)):
                return "providers"
        return None

    async def _store_answers(self) -> bool:
        if self._store.instant:
            return True
        if self._probe is None or (self._probe.done() and self._now() - self._probed >= PROBE_INTERVAL):
            self._probe = asyncio.ensure_future(self._ask_store())
        return await asyncio.shield(self._probe)  # a client that leaves must not cancel it for the others

    async def _ask_store(self) -> bool:
        try:
            await self._store.get(PROBE_ID)
        except StoreError as error:
            if self._reachable:
                log.warning("not ready: the store cannot be reached: %s", error)
            self._reachable = False
        else:
            if not self._reachable:
                log.info("ready again: the store answers")
            self._reachable = True
        self._probed = self._now()
        return self._reachable


def provider_states(models: Sequence[Model], failover: Failover, now: float) -> List[Json]:
    """The states of the endpoints of some models: each provider, and each of its keys, once.

    ``state`` is ``up``, ``cooling`` until the time ``until``, or ``probing`` (it has failed, and the next
    turn tries it).

    :param now: seconds since the epoch
    """
    found: Dict[Tuple[str, ...], Json] = {}
    for model in models:
        for provider in model.providers:
            key = (provider.name, provider.base_url, provider.api_key or "")
            if key not in found:
                left, tried = failover.cool_down_left(provider), failover.is_tried(provider)
                found[key] = {
                    "name": provider.name,
                    "base_url": without_login(provider.base_url.partition("?")[0]),
                    "profile": provider.profile.name,
                    "wire": provider.wire,
                    "models": [],
                    "state": "cooling" if left else "probing" if tried else "up",
                    "until": round(now + left) if left else None,
                }
            found[key]["models"].append(model.model)
    return list(found.values())
