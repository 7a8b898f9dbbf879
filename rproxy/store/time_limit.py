"""How long work waits for the store: two seconds in all, however often it asks.

A request may ask the store many times: for each link of a chain, or for its history and later to keep its
answer.  With a limit for each of these, their delays would add up.  So :func:`limit_store_time` gives a
request one limit, and :func:`within_limit` takes from it what is spent.  Only waiting for the store is
counted, not the work with what it gave.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Awaitable, Callable, Iterator, Optional, TypeVar

T = TypeVar("T")

PATIENCE = 2.0  # seconds that a request waits for the store
WRITE_LIMIT = 10.0  # seconds that the writes get for which no request waits any more
# An answer that takes no longer costs nothing: on a busy event loop, hundreds of quick ones would use up the
# limit, though the store is well.
QUICK = 0.02  # seconds


class _Limit:
    """What is left of the time."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds


_current: ContextVar[Optional[_Limit]] = ContextVar("rproxy_store_time", default=None)


def limit_store_time(seconds: Optional[float] = None) -> None:
    """From now on, this task and those that it starts wait for the store this long in all.

    Without a limit, each wait has one of ``PATIENCE``.

    :param seconds: None: ``PATIENCE``
    """
    _current.set(_Limit(PATIENCE if seconds is None else seconds))


async def within_limit(work: Awaitable[T], error: Callable[[], Exception]) -> T:
    """Wait for the store, and cancel ``work`` when the time is up.

    :param error: makes what is raised then
    """
    limit = _current.get() or _Limit(PATIENCE)
    with _spending(limit):
        try:
            return await asyncio.wait_for(work, limit.left)
        except asyncio.TimeoutError:
            raise error() from None


async def done_within_limit(task: asyncio.Task[T]) -> bool:
    """Wait for a task that goes on when the time is up.

    :returns: whether it has ended
    """
    limit = _current.get() or _Limit(PATIENCE)
    with _spending(limit):
        await asyncio.wait({task}, timeout=limit.left)
    return task.done()


@contextmanager
def _spending(limit: _Limit) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        spent = time.monotonic() - began
        if spent > QUICK:
            limit.left = max(0.0, limit.left - spent)
