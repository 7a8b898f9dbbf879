"""Approved calls, each of which runs once, however often a client sends its approval.

Clients repeat approvals: SDKs when a connection breaks, some in every later turn, and two requests may come
at the same time.  The first request runs the call; all others get its outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Awaitable, Callable, Optional, Tuple

from ..errors import ApiError
from .kind import Outcome

log = logging.getLogger("rproxy.hosted")

MAX_KNOWN = 50_000  # approvals
MAX_BYTES = 16 << 20  # of their outcomes
STOP_TIMEOUT = 5.0  # seconds that a call gets to end when nobody waits for it any more


class Approvals:
    """The approved calls of one process; ``claim`` tells which of them another process has run.

    :param max_bytes: of all outcomes; the oldest are forgotten, but not that the calls were run
    """

    def __init__(self, max_known: int = MAX_KNOWN, max_bytes: int = MAX_BYTES) -> None:
        self._max_known, self._max_bytes = max_known, max_bytes
        self._known: OrderedDict[Tuple[str, str], _Run] = OrderedDict()
        self._bytes = 0

    def outcome(self, owner: str, approval_id: str) -> Optional[Outcome]:
        """The outcome of an approved call, if it is known."""
        run = self._known.get((owner, approval_id))
        return None if run is None else run.outcome

    async def run(
        self,
        owner: str,
        approval_id: str,
        claim: Callable[[], Awaitable[bool]],
        work: Callable[[], Awaitable[Outcome]],
        lost: Outcome,
    ) -> Outcome:
        """Run an approved call, or wait for its outcome.

        :param claim: notes that the call is being run; returns False if that was noted before
        :param lost: the outcome of a call that was run, if its own is not known
        :raises ApiError: the call could not be claimed, and was not run
        """
        key = owner, approval_id
        run = self._known.get(key)
        if run is None:
            run = self._known[key] = _Run(asyncio.ensure_future(_once(claim, work, lost)))
        run.waiting += 1
        try:
            if not run.task.done():
                await asyncio.wait({run.task})
        finally:
            run.waiting -= 1
            if not run.waiting and not run.task.done():
                run.task.cancel()
                await asyncio.wait({run.task}, timeout=STOP_TIMEOUT)
            self._settle(key, run, lost)
        if not run.task.cancelled() and isinstance(run.task.exception(), ApiError):
            run.task.result()
        return run.outcome or lost

    def _settle(self, key: Tuple[str, str], run: _Run, lost: Outcome) -> None:
        """Keep the outcome of a call that has ended."""
        if run.settled or not run.task.done():
            return
        run.settled = True
        error = None if run.task.cancelled() else run.task.exception()
        if isinstance(error, ApiError):
            self._known.pop(key, None)  # it may be tried again
            return
        if error is not None:
            log.error("the approved call %.80r failed", key[1], exc_info=error)
        run.outcome = lost if run.task.cancelled() or error is not None else run.task.result()
        self._bytes += run.size
        for other in list(self._known.values()):
            if self._bytes <= self._max_bytes:
                break
            if other.settled and other.outcome is not None:
                self._bytes -= other.size
                other.outcome = None
        while len(self._known) > self._max_known:
            _, oldest = self._known.popitem(last=False)
            self._bytes -= oldest.size


class _Run:
    """``waiting``: how many wait for it.  ``settled``: it has ended; ``outcome`` may be forgotten since."""

    def __init__(self, task: asyncio.Task[Outcome]) -> None:
        self.task = task
        self.waiting = 0
        self.settled = False
        self.outcome: Optional[Outcome] = None

    @property
    def size(self) -> int:
        return 0 if self.outcome is None else 2 * len(self.outcome.text)


async def _once(
    claim: Callable[[], Awaitable[bool]], work: Callable[[], Awaitable[Outcome]], lost: Outcome
) -> Outcome:
    return await work() if await claim() else lost
