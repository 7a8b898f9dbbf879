"""Responses in the memory of this process, bounded by number, bytes and age.

Theory of operation.  Two ordered dicts over the same ids: ``_used`` in the order of the last use (the first
goes when there is too much), ``_born`` in the order of writing (the first goes when it is too old).  Every
operation touches the ends only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Callable, Optional

from ..errors import StoreError
from ..types import Json
from . import Change, decode, encode_gently


class MemoryStore:
    """``max_responses`` records of together ``max_bytes`` encoded bytes, for ``ttl`` seconds each; ``now`` in
    seconds."""

    instant = True

    def __init__(self, max_responses: int, max_bytes: int, ttl: float, now: Callable[[], float]) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._now = now
        self._used: OrderedDict[str, bytes] = OrderedDict()
        self._born: OrderedDict[str, float] = OrderedDict()
        self._bytes = 0

    async def get(self, record_id: str) -> Optional[Json]:
        """The record, or None; it counts as used now."""
        self._expire()
        blob = self._used.get(record_id)
        if blob is None:
            return None
        self._used.move_to_end(record_id)
        return decode(record_id, blob)

    async def put(self, record_id: str, record: Json) -> None:
        """:raises StoreError: the record alone is over the limit of all"""
        blob = await encode_gently(record_id, record)
        if len(blob) > self._max_bytes:
            raise StoreError(
                f"response {record_id} has {len(blob)} bytes, more than store.max_bytes ({self._max_bytes})"
            )
        self._drop(record_id)
        self._used[record_id] = blob
        self._born[record_id] = self._now()
        self._bytes += len(blob)
        await self.sweep()

    async def update(self, record_id: str, change: Change) -> Optional[Json]:
        """:returns: the new record, None when there was none"""
        record = await self.get(record_id)
        if record is not None:
            record = change(record)
            await self.put(record_id, record)
        return record

    async def delete(self, record_id: str) -> bool:
        """:returns: was it there?"""
        self._expire()
        return self._drop(record_id)

    async def sweep(self) -> int:
        """:returns: how many records were too old or too much"""
        dropped = self._expire()
        while len(self._used) > self._max_responses or self._bytes > self._max_bytes:
            dropped += self._drop(next(iter(self._used)))
        return dropped

    async def close(self) -> None:
        """Forgets everything."""
        self._used.clear()
        self._born.clear()
        self._bytes = 0

    def _expire(self) -> int:
        dropped = 0
        oldest = self._now() - self._ttl
        while self._born:
            record_id, born = next(iter(self._born.items()))
            if born > oldest:
                break
            dropped += self._drop(record_id)
        return dropped

    def _drop(self, record_id: str) -> bool:
        blob = self._used.pop(record_id, None)
        if blob is None:
            return False
        del self._born[record_id]
        self._bytes -= len(blob)
        return True
