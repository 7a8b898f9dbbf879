"""How long work waits for the store: two seconds in all, however often it calls it.

A request may call the store many times: for each link of a chain, or for its history and later to keep its
answer.  With a limit for each of these, their delays would add up.  So :func:`limit_store_time` gives a
request one :class:`StoreTime`, from which all its waits for the store are taken.  Only the waiting for the
store counts, neither the work with the results nor a busy event loop.

A record of a hundred megabytes may take longer than that.  It is read and written in pieces, and with each of
them the time of those who wait for it, or behind it, starts again.
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
LONGEST = 10.0  # seconds that a wait may take while large records are moving
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
    def waiting(self, moved: Callable[[], float]) -> Iterator[None]:
        """A context in which the time runs.

        :param moved: see :func:`done_within_limit`
        """
        if not self._waits:
            self._since = time.monotonic()
        self._waits += 1
        try:
            yield
        finally:
            self.restart(moved())
            spent = self.spent
            self._waits -= 1
            if not self._waits:
                self._spent = spent

    def restart(self, moved: float) -> bool:
        """Do not count the time before a piece of a large record moved.

        :returns: whether any did in the time that counts
        """
        later = self._since < moved
        self._since = max(self._since, moved)
        return later

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


def never() -> float:
    """When a piece moved last in a store that has no large records."""
    return 0.0


async def within_limit(
    work: Awaitable[T], error: Callable[[], Exception], moved: Callable[[], float] = never
) -> T:
    """Wait for the store, and cancel ``work`` when the time is up.

    Unlike ``asyncio.wait_for``, this does not wait for the cancelled work, which may take its time.

    :param error: makes the exception for that case
    :param moved: see :func:`done_within_limit`
    """
    task = asyncio.ensure_future(work)
    try:
        if await done_within_limit(task, moved):
            return task.result()
    finally:
        task.cancel()
    task.add_done_callback(retrieve)
    raise error()


def retrieve(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task that is not awaited, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


async def done_within_limit(task: asyncio.Future[T], moved: Callable[[], float] = never) -> bool:
    """Wait for a task that continues when the time is up.

    :param moved: returns when a piece of a large record moved last, in monotonic seconds
    :returns: whether it has ended
    """
    spending, end = store_time(), time.monotonic() + LONGEST
    left = spending.left
    with spending.waiting(moved):
        while True:
            await asyncio.wait({task}, timeout=left)
            for _ in range(LATE):
                if not task.done():
                    await asyncio.sleep(0)
            if task.done() or not spending.restart(moved()) or time.monotonic() > end:
                return task.done()
            left = spending.left
