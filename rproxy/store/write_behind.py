"""A store that nobody has to wait for.

Theory of operation.  A put is a task of its own.  The caller waits for it ``PATIENCE`` seconds at most,
because the terminal event of a turn waits with it; after that the put goes on by itself.  Until it is done
its record counts as stored for everybody in this process. What is written to one id is written in order.
Failures are told as warnings, for an answer is worth more than its record.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Dict, NamedTuple, Optional

from ..convert.json_steps import MANY
from ..types import Json
from . import Change, Store

log = logging.getLogger("rproxy.store")

PATIENCE = 2.0  # seconds
MOST = 1000  # puts that may be under way; further ones are refused
LAST_WORDS = 5.0  # seconds for what is under way when the process ends


class _Put(NamedTuple):
    record: Json
    task: asyncio.Task[None]


class WriteBehindStore:
    """``store``, written behind the back of the callers. :arg patience: seconds"""

    def __init__(self, store: Store, patience: float = PATIENCE) -> None:
        self._store = store
        self._patience = patience
        self._puts: Dict[str, _Put] = {}

    async def get(self, record_id: str) -> Optional[Json]:
        """The record, or None. :raises StoreError:"""
        put = self._puts.get(record_id)
        return put.record if put is not None else await self._store.get(record_id)

    async def keep(self, record_id: str, record: Json) -> Optional[str]:
        """Store the record. :returns: a warning, when that failed or is not done yet; it never raises"""
        if self._store.instant and record_id not in self._puts and len(record.get("input", ())) <= MANY:
            try:
                await self._store.put(record_id, record)
            except Exception as reason:
                return _not_stored(reason)
            return None
        former = self._puts.get(record_id)
        if len(self._puts) >= MOST:
            return f"not stored: {MOST} earlier responses still wait for the store"
        task = asyncio.ensure_future(self._write(record_id, record, former))
        task.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # seen, even if the caller is gone
        self._puts[record_id] = _Put(record, task)
        await asyncio.wait({task}, timeout=self._patience)
        if not task.done():
            task.add_done_callback(lambda done: _complain(record_id, done))
            return "not stored yet: the store is slow"
        error = task.exception()
        return None if error is None else _not_stored(error)

    async def update(self, record_id: str, change: Change) -> Optional[Json]:
        """:returns: the new record, None when there was none. :raises StoreError:"""
        await self._settled(record_id)
        return await self._store.update(record_id, change)

    async def delete(self, record_id: str) -> bool:
        """:returns: was it there? :raises StoreError:"""
        await self._settled(record_id)
        return await self._store.delete(record_id)

    async def close(self) -> None:
        """Wait for what is under way, for a while. The store itself is closed by whoever opened it."""
        if self._puts:
            await asyncio.wait({put.task for put in self._puts.values()}, timeout=LAST_WORDS)

    async def _write(self, record_id: str, record: Json, former: Optional[_Put]) -> None:
        try:
            if former is not None:
                await asyncio.wait({former.task})
            await self._store.put(record_id, record)
        finally:
            if self._puts[record_id].record is record:
                del self._puts[record_id]

    async def _settled(self, record_id: str) -> None:
        put = self._puts.get(record_id)
        if put is not None:
            await asyncio.wait({put.task})


def _not_stored(error: BaseException) -> str:
    return f"not stored: {error}"


def _complain(record_id: str, done: asyncio.Task[None]) -> None:
    if not done.cancelled() and done.exception() is not None:
        log.warning("%s was not stored: %s", record_id, done.exception())
