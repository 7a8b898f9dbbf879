"""How long work waits for the store: two seconds in all, however often it calls it.

A request may call the store many times: for each link of a chain, or for its history and later to keep its
answer.  With a limit for each of these, their delays would add up.  So :func:`limit_store_time` gives a
request one :class:`StoreTime`, from which all its waits for the store are taken.  Only the waiting for the
store counts, neither the work with the results nor a busy event loop.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Awaitable, Callable, Iterator, Optional, TypeVar

T = TypeVar("T")

REQUEST_LIMIT = 2.0  # seconds that a request waits for the store
WRITE_LIMIT = 10.0  # seconds for a write for which no request waits any more
# An answer that takes no longer costs nothing: on a busy event loop, hundreds of quick ones would use up the
# limit, although the store is healthy.
QUICK = 0.02  # seconds
# On a busy event loop an answer may be there when the time is up, and only has to pass through this many
# rounds of the loop: a future, a task, and its waiter.
LATE = 5


class StoreTime:
    """The time that one request, or one write for which no request waits, may wait for the store.

    :param limit: seconds
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._spent = 0.0
        self._waits = 0  # under way
        self._since = 0.0  # when the first of them began

    @property
    def spent(self) -> float:
        """Seconds so far."""
        current = time.monotonic() - self._since if self._waits else 0.0
        return self._spent + (current if current > QUICK else 0.0)

    @property
    def left(self) -> float:
        """Seconds that remain."""
        return max(0.0, self._limit - self.spent)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A context in which the time runs."""
        if not self._waits:
            self._since = time.monotonic()
        self._waits += 1
        try:
            yield
        finally:
            spent = self.spent
            self._waits -= 1
            if not self._waits:
                self._spent = spent

    async def acquire(self, lock: asyncio.Lock, others: Callable[[], float]) -> bool:
        """Wait for a lock, as long as earlier holders do not wait for the store too long.

        :param others: the seconds that they have waited for it so far
        :returns: whether the lock was acquired
        """
        task, before = asyncio.ensure_future(lock.acquire()), others()
        try:
            while not task.done() and others() - before < self.left:
                await asyncio.wait({task}, timeout=self.left - (others() - before))
        except asyncio.CancelledError:
            if task.done():
                lock.release()
            raise
        finally:
            self._spent += others() - before
            task.cancel()
        return task.done()


_current: ContextVar[Optional[StoreTime]] = ContextVar("rproxy_store_time", default=None)


def limit_store_time(seconds: Optional[float] = None) -> None:
    """From now on, this task and the tasks that it starts wait for the store this long in all.

    Without a limit, each wait has one of ``REQUEST_LIMIT``.

    :param seconds: None: ``REQUEST_LIMIT``
    """
    _current.set(StoreTime(REQUEST_LIMIT if seconds is None else seconds))


def store_time() -> StoreTime:
    """The time of the running task."""
    return _current.get() or StoreTime(REQUEST_LIMIT)


@contextmanager
def using(spending: StoreTime) -> Iterator[None]:
    """A context whose waits are charged to this time."""
    token = _current.set(spending)
    try:
        yield
    finally:
        _current.reset(token)


async def within_limit(work: Awaitable[T], error: Callable[[], Exception]) -> T:
    """Wait for the store, and cancel ``work`` when the time is up.

    Unlike ``asyncio.wait_for``, this does not wait for the cancelled work, which may take its time.

    :param error: makes the exception for that case
    """
    task = asyncio.ensure_future(work)
    try:
        if await done_within_limit(task):
            return task.result()
    finally:
        task.cancel()
    task.add_done_callback(retrieve)
    raise error()


def retrieve(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task that nobody awaits, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


async def done_within_limit(task: asyncio.Future[T]) -> bool:
    """Wait for a task that goes on when the time is up.

    :returns: whether it has ended
    """
    spending = store_time()
    left = spending.left
    with spending.waiting():
        await asyncio.wait({task}, timeout=left)
        for _ in range(LATE):
            if not task.done():
                await asyncio.sleep(0)
    return task.done()
