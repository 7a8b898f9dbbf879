"""Limits on the number of running turns: in all (``server.max_turns``) and of one key
(``server.max_turns_per_key``).

Background turns and turns over WebSocket count as all others do; warm-ups do not, since they call no
provider, nor do requests that join a running turn.  Without authentication all clients count as one key.
"""

from __future__ import annotations

from typing import Callable, Dict, Optional

from ..config.schema import Key, Server
from ..errors import ApiError
from .quota import Quotas

PAUSE = 2.0  # seconds after which a client may try again


class RunningTurns:
    """The turns of one process.

    :param server: has the limits, which may change while turns run; 0: none
    :param quotas: the quotas of the keys
    """

    def __init__(self, server: Server, quotas: Quotas) -> None:
        self.limits = server
        self._quotas = quotas
        self._running: Dict[str, int] = {}  # by owner

    def begin(self, key: Optional[Key]) -> Callable[[], None]:
        """Count a turn.

        :param key: the client's; None: authentication is off
        :returns: a function to call once, when the turn has ended
        :raises ApiError: 429, a limit is reached, or the quota of the key is used up; the turn does not count
        """
        owner = key.owner if key is not None else ""
        server, running = self.limits, self._running
        for limit, count, whose, name in (
            (server.max_turns, sum(running.values()), "This proxy", "max_turns"),
            (server.max_turns_per_key, running.get(owner, 0), "Your API key", "max_turns_per_key"),
        ):
            if 0 < limit <= count:
                raise ApiError(
                    429,
                    f"{whose} has {count} turns running, which is the limit (server.{name}). "
                    "Try again when one of them has ended.",
                    type="rate_limit_error",
                    code="rate_limit_exceeded",
                    retry_after=PAUSE,
                )
        self._quotas.begin_turn(key)
        running[owner] = running.get(owner, 0) + 1
        return lambda: self._end(owner)

    def _end(self, owner: str) -> None:
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
