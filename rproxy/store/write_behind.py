"""A store whose writes do not delay the turn, and whose work on one record has an order.

**Order.**  All work of this process on the same record goes through one line (:class:`_Line`), so writes
happen in the order in which they were asked for, changes do not get in each other's way, and a read finds
what was written before it.

**Operations that a client asked for** (:meth:`WriteBehindStore.put`, ``get``, ``update``, ``delete``) succeed
within the time limit, or are given up with a :class:`~rproxy.errors.StoreError`.

**Writes that a turn leaves behind** (:meth:`WriteBehindStore.keep`, ``keep_changed``) are tasks of their own.
The turn waits for such a write within its time limit, because its terminal event waits for the turn; after
that, the write continues by itself for up to ``WRITE_LIMIT`` seconds.  Until it is done, its record counts as
stored in this process.  A failed write is a warning, because an answer is worth more than its record.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import AsyncIterator, Awaitable, Callable, Coroutine, Dict, List, Optional, Sequence, Set, Tuple

from ..convert.json_steps import MANY, is_large
from ..errors import StoreError
from ..types import AnyRecord, Record
from . import Change, Store
from .time_limit import (
    WRITE_LIMIT,
    StoreTime,
    done_within_limit,
    limit_store_time,
    retrieve,
    store_time,
    using,
)

log = logging.getLogger("rproxy.store")

MAX_PENDING = 1000  # writes under way; further ones are refused
MAX_PENDING_BYTES = 256 << 20  # of their records, about
FEW = 8  # writes under way that need not be measured
COUNTED = 1 << 20  # bytes; a smaller record counts as this
CLOSE_TIMEOUT = 5.0  # seconds for the writes under way when the process ends


@dataclass(frozen=True, eq=False)
class _Work:
    """One piece of work in a line.

    ``behind``: it is a write that a turn left behind.  ``record``: what it writes, if that is known already.
    """

    behind: bool = False
    record: Optional[Record] = None


class _Line:
    """The work on one record: one piece is under way, the others wait."""

    def __init__(self) -> None:
        self.work: List[_Work] = []
        self._lock = asyncio.Lock()
        self._head: Optional[StoreTime] = None  # of the work under way
        self._waited = 0.0  # seconds that earlier work has waited for the store, less those before it began

    @property
    def writes(self) -> bool:
        """Will the record exist, because a turn left a write of it behind?"""
        left = [work for work in self.work if work.behind]
        return bool(left) and left[-1].record is not None

    @asynccontextmanager
    async def entered(self, limited: bool) -> AsyncIterator[None]:
        """A context: wait in line, then be the only one that works on the record.

        :param limited: give up when the store keeps earlier work waiting too long
        :raises StoreError: it did
        """
        mine = store_time()
        if limited and self._lock.locked():
            if not await mine.acquire(self._lock, self._store_waits):
                raise StoreError("the store is slow: earlier work on the same record has not ended in time")
        else:
            await self._lock.acquire()
        self._head, self._waited = mine, self._waited - mine.spent
        try:
            with using(mine):
                yield
        finally:
            self._head, self._waited = None, self._waited + mine.spent
            self._lock.release()

    def _store_waits(self) -> float:
        return self._waited + (self._head.spent if self._head is not None else 0.0)


class WriteBehindStore:
    """A store whose writes do not delay the turn.

    :param store: its opener closes it
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: Dict[str, _Line] = {}
        self._tasks: Set[asyncio.Task[None]] = set()
        self._bytes = 0  # of their records, as far as they were counted

    # ---- What a client asked for
    async def get(self, record_id: str) -> Optional[AnyRecord]:
        """Look up a record; see :meth:`rproxy.store.Store.get`."""
        return await self._look_up(record_id, self._store.get)

    async def get_brief(self, record_id: str) -> Optional[AnyRecord]:
        """The same for a chain; see :meth:`rproxy.store.Store.get_brief`."""
        return await self._look_up(record_id, self._store.get_brief)

    async def _look_up(
        self, record_id: str, get: Callable[[str], Awaitable[Optional[AnyRecord]]]
    ) -> Optional[AnyRecord]:
        line = self._lines.get(record_id)
        left = [work for work in line.work if work.behind] if line is not None else []
        if not left:  # it is as if the operations of other clients happened after this one
            return await get(record_id)
        if left[-1].record is not None:
            return left[-1].record
        async with self._in_line(record_id):
            return await get(record_id)

    async def has(self, ids: Sequence[str]) -> bool:
        """Are there records under all these ids? See :meth:`rproxy.store.Store.has`."""
        lines = self._lines
        pending = {name for name in ids if name in lines and lines[name].writes}
        return await self._store.has([name for name in ids if name not in pending] if pending else ids)

    async def put(self, record_id: str, record: Record) -> None:
        """Keep a record; see :meth:`rproxy.store.Store.put`."""
        async with self._in_line(record_id):
            await self._store.put(record_id, record)

    async def update(self, record_id: str, change: Change) -> Optional[Record]:
        """Change a record; see :meth:`rproxy.store.Store.update`."""
        async with self._in_line(record_id):
            return await self._store.update(record_id, change)

    async def delete(self, record_id: str) -> bool:
        """Delete a record; see :meth:`rproxy.store.Store.delete`."""
        async with self._in_line(record_id):
            return await self._store.delete(record_id)

    async def size(self) -> Tuple[int, int]:
        """See :meth:`rproxy.store.Store.size`."""
        return await self._store.size()

    # ---- What a turn leaves behind
    async def keep(self, record_id: str, record: Record, small: bool = False) -> Optional[str]:
        """Store a record; never raises.

        :param small: the record is known to be small
        :returns: a warning, when the write has failed or is not done yet
        """
        if self._store.instant and record_id not in self._lines and _is_small(record):
            try:
                await self._store.put(record_id, record, small)
            except Exception as error:
                return _not_stored(error)
            return None
        size = _size(record) if len(self._tasks) >= FEW else 0
        return await self._behind(record_id, self._write(record_id, record), size)

    async def keep_changed(self, record_id: str, change: Change) -> Optional[str]:
        """Change a record; never raises.

        :returns: a warning, when that has failed or is not done yet, or there is no record
        """
        return await self._behind(record_id, self._change(record_id, change))

    async def close(self) -> None:
        """Wait up to ``CLOSE_TIMEOUT`` for the writes under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT)

    async def _behind(
        self, record_id: str, work: Coroutine[None, None, None], size: int = 0
    ) -> Optional[str]:
        """:param size: of the record, about, where that counts"""
        count = len(self._tasks)
        if count >= MAX_PENDING or size and self._bytes + size > MAX_PENDING_BYTES:
            work.close()
            return f"not stored: {count} earlier responses still wait for the store"
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        self._bytes += size
        task.add_done_callback(partial(self._over, size))
        task.add_done_callback(retrieve)  # even if the caller has gone
        if not await done_within_limit(task):
            task.add_done_callback(lambda done: _log_failure(record_id, done))
            return "not stored yet: the store is slow"
        failure = task.exception()
        return None if failure is None else _not_stored(failure)

    def _over(self, size: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._bytes -= size

    async def _write(self, record_id: str, record: Record) -> None:
        limit_store_time(WRITE_LIMIT)
        async with self._in_line(record_id, _Work(behind=True, record=record)):
            await self._store.put(record_id, record)

    async def _change(self, record_id: str, change: Change) -> None:
        limit_store_time(WRITE_LIMIT)
        async with self._in_line(record_id, _Work(behind=True)):
            if await self._store.update(record_id, change) is None:
                raise StoreError(f"{record_id} does not exist any more")

    # ---- Order
    @asynccontextmanager
    async def _in_line(self, record_id: str, work: Optional[_Work] = None) -> AsyncIterator[None]:
        """Inside, nothing else in this process works on the record.

        :raises StoreError: earlier work takes too long
        """
        line, work = self._lines.setdefault(record_id, _Line()), work or _Work()
        line.work.append(work)
        try:
            async with line.entered(limited=not self._store.instant):
                yield
        finally:
            line.work.remove(work)
            if not line.work:
                del self._lines[record_id]


def _size(record: Record) -> int:
    """About how many bytes a record has: at most four times as many."""
    size = COUNTED
    while size < MAX_PENDING_BYTES and is_large(record, size):
        size *= 4
    return size


def _is_small(record: AnyRecord) -> bool:
    return len(record.get("input", ())) <= MANY


def _not_stored(error: BaseException) -> str:
    return f"not stored: {error}"


def _log_failure(record_id: str, done: asyncio.Task[None]) -> None:
    if not done.cancelled() and done.exception() is not None:
        log.warning("%s was not stored: %s", record_id, done.exception())
