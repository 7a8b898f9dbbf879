"""Approved calls, each of which runs once, however often a client sends its approval.

Clients repeat approvals: SDKs when a connection breaks, some in every later turn, and two requests may come
at the same time.  The first request runs the call; all others get its outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from typing import Awaitable, Callable, Dict, Optional

from ..errors import ApiError
from .kind import Outcome

log = logging.getLogger("rproxy.hosted")

MAX_KNOWN = 50_000  # calls that were run
MAX_BYTES = 16 << 20  # of their outcomes, in all
STOP_TIMEOUT = 5.0  # seconds for a call to end when no request waits for it any more


class Approvals:
    """The approved calls of one process; ``claim`` finds out which of them another process has run.

    :param max_bytes: of all outcomes; the oldest are forgotten, but not that the calls were run
    """

    def __init__(self, max_known: int = MAX_KNOWN, max_bytes: int = MAX_BYTES) -> None:
        self._max_known, self._max_bytes = max_known, max_bytes
        self._owners: Dict[str, _Calls] = {}

    def outcome(self, owner: str, approval_id: str) -> Optional[Outcome]:
        """The outcome of an approved call, if it is known."""
        calls = self._owners.get(owner)
        return None if calls is None else calls.outcomes.get(approval_id)

    async def run(
        self,
        owner: str,
        approval_id: str,
        claim: Callable[[], Awaitable[bool]],
        work: Callable[[], Awaitable[Outcome]],
        lost: Outcome,
    ) -> Outcome:
        """Run an approved call, or wait for its outcome.

        :param claim: records that the call is being run; returns False if that was recorded before
        :param lost: the outcome of a call that was run, if its own is not known
        :raises ApiError: the call could not be claimed, and was not run
        """
        calls = self._owners.setdefault(owner, _Calls())
        if approval_id in calls.outcomes or approval_id in calls.forgotten:
            return calls.outcomes.get(approval_id, lost)
        run = calls.running.get(approval_id)
        if run is None:
            run = calls.running[approval_id] = _Run(asyncio.ensure_future(_once(claim, work, lost)))
            run.task.add_done_callback(partial(self._keep_outcome, owner, approval_id, lost))
        run.waiting += 1
        try:
            await asyncio.wait({run.task})
        finally:
            run.waiting -= 1
            if not run.waiting and not run.task.done():
                run.task.cancel()
                await asyncio.wait({run.task}, timeout=STOP_TIMEOUT)
        return _outcome(run.task, lost)

    def _keep_outcome(self, owner: str, approval_id: str, lost: Outcome, task: asyncio.Task[Outcome]) -> None:
        """Keep the outcome of a call that has ended, unless it may be tried again."""
        calls = self._owners[owner]
        del calls.running[approval_id]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ApiError):
            log.error("the approved call %.80r failed", approval_id, exc_info=error)
        with suppress(ApiError):
            outcome = calls.outcomes[approval_id] = _outcome(task, lost)
            calls.bytes += _size(outcome)
        owners = self._owners.values()
        while sum(calls.bytes for calls in owners) > self._max_bytes:
            max(owners, key=lambda calls: calls.bytes).forget_outcome()
        while sum(map(len, owners)) > self._max_known:
            max(owners, key=len).forget()
        if not calls.running and not len(calls):
            del self._owners[owner]


class _Run:
    """An approved call that is running.

    ``waiting``: the number of requests that wait for it.
    """

    def __init__(self, task: asyncio.Task[Outcome]) -> None:
        self.task = task
        self.waiting = 0


class _Calls:
    """The approved calls of one owner; ``len`` counts those that have been run.

    ``outcomes`` has their outcomes, ``forgotten`` the calls without one any more, both oldest first.
    ``bytes``: the size of the outcomes.
    """

    def __init__(self) -> None:
        self.running: Dict[str, _Run] = {}
        self.outcomes: OrderedDict[str, Outcome] = OrderedDict()
        self.forgotten: OrderedDict[str, None] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.outcomes) + len(self.forgotten)

    def forget_outcome(self) -> None:
        approval_id, outcome = self.outcomes.popitem(last=False)
        self.bytes -= _size(outcome)
        self.forgotten[approval_id] = None

    def forget(self) -> None:
        if not self.forgotten:
            self.forget_outcome()
        self.forgotten.popitem(last=False)


def _size(outcome: Outcome) -> int:
    return 2 * len(outcome.text)


def _outcome(task: asyncio.Task[Outcome], lost: Outcome) -> Outcome:
    """:raises ApiError: the call was not run"""
    if not task.done() or task.cancelled():
        return lost
    error = task.exception()
    if isinstance(error, ApiError):
        raise error
    return lost if error is not None else task.result()


async def _once(
    claim: Callable[[], Awaitable[bool]], work: Callable[[], Awaitable[Outcome]], lost: Outcome
) -> Outcome:
    return await work() if await claim() else lost
