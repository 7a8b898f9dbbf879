"""A store whose writes do not delay the turn.

Each write is a task of its own.  The caller waits at most ``PATIENCE`` seconds for it, because the terminal
event of a turn waits for the caller; after that, the write goes on by itself.  Until it is done, its record
counts as stored in this process.  Writes to the same id happen in their order.  A failed write
is a warning, because an answer is worth more than its record.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Dict, NamedTuple, Optional

from ..convert.json_steps import MANY
from ..types import Json
from . import Change, Store

log = logging.getLogger("rproxy.store")

PATIENCE = 2.0  # seconds that a caller waits for its write
MAX_PENDING = 1000  # writes under way; further ones are refused
CLOSE_TIMEOUT = 5.0  # seconds for the writes under way when the process ends


class _Write(NamedTuple):
    record: Json
    task: asyncio.Task[None]


class WriteBehindStore:
    """Writes to ``store`` in the background.

    :param patience: seconds that :meth:`keep` waits for a write
    """

    def __init__(self, store: Store, patience: float = PATIENCE) -> None:
        self._store = store
        self._patience = patience
        self._pending: Dict[str, _Write] = {}  # the last write to each id

    async def get(self, record_id: str) -> Optional[Json]:
        """Look up a record; see :meth:`rproxy.store.Store.get`."""
        pending = self._pending.get(record_id)
        return pending.record if pending is not None else await self._store.get(record_id)

    async def keep(self, record_id: str, record: Json) -> Optional[str]:
        """Store a record; never raises.

        :returns: a warning, when the write has failed or is not done yet
        """
        if self._store.instant and record_id not in self._pending and len(record.get("input", ())) <= MANY:
            try:
                await self._store.put(record_id, record)
            except Exception as error:
                return _not_stored(error)
            return None
        if len(self._pending) >= MAX_PENDING:
            return f"not stored: {MAX_PENDING} earlier responses still wait for the store"
        task = asyncio.ensure_future(self._write(record_id, record, self._pending.get(record_id)))
        task.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # even if the caller is gone
        self._pending[record_id] = _Write(record, task)
        await asyncio.wait({task}, timeout=self._patience)
        if not task.done():
            task.add_done_callback(lambda done: _log_failure(record_id, done))
            return "not stored yet: the store is slow"
        failure = task.exception()
        return None if failure is None else _not_stored(failure)

    async def update(self, record_id: str, change: Change) -> Optional[Json]:
        """Change a record after all writes to it; see :meth:`rproxy.store.Store.update`."""
        await self._written(record_id)
        return await self._store.update(record_id, change)

    async def delete(self, record_id: str) -> bool:
        """Delete a record after all writes to it; see :meth:`rproxy.store.Store.delete`."""
        await self._written(record_id)
        return await self._store.delete(record_id)

    async def close(self) -> None:
        """Wait up to ``CLOSE_TIMEOUT`` for the writes under way; who opened the store itself closes it."""
        if self._pending:
            await asyncio.wait({write.task for write in self._pending.values()}, timeout=CLOSE_TIMEOUT)

    async def _write(self, record_id: str, record: Json, former: Optional[_Write]) -> None:
        try:
            if former is not None:
                await asyncio.wait({former.task})
            await self._store.put(record_id, record)
        finally:
            if self._pending[record_id].record is record:
                del self._pending[record_id]

    async def _written(self, record_id: str) -> None:
        pending = self._pending.get(record_id)
        if pending is not None:
            await asyncio.wait({pending.task})


def _not_stored(error: BaseException) -> str:
    return f"not stored: {error}"


def _log_failure(record_id: str, done: asyncio.Task[None]) -> None:
    if not done.cancelled() and done.exception() is not None:
        log.warning("%s was not stored: %s", record_id, done.exception())
