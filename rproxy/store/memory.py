"""Responses in the memory of this process, within limits of number, bytes and age.

Two ordered dicts have the same ids: ``_blobs`` in the order of use, whose first entry is evicted when there
is too much; ``_born`` in the order of writing, whose first entry is evicted when it is too old.  Every
operation touches only their ends.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Callable, Optional, Sequence, Tuple

from . import Store
from .encoding import check_size


class MemoryStore(Store):
    """The store of ``kind: memory``; the arguments are those of :func:`rproxy.store.open_store`."""

    name = "memory store"
    instant = True

    def __init__(self, max_responses: int, max_bytes: int, ttl: float, now: Callable[[], float]) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._now = now
        self._blobs: OrderedDict[str, bytes] = OrderedDict()
        self._born: OrderedDict[str, float] = OrderedDict()
        self._bytes = 0

    async def _read(self, record_id: str) -> Optional[bytes]:
        self._drop_old()
        blob = self._blobs.get(record_id)
        if blob is not None:
            self._blobs.move_to_end(record_id)
        return blob

    async def _write(self, record_id: str, blob: bytes) -> None:
        self._keep(record_id, blob)

    async def _swap(self, record_id: str, old: bytes, new: bytes) -> bool:
        self._drop_old()
        if self._blobs.get(record_id) != old:
            return False
        self._keep(record_id, new)
        return True

    async def _delete(self, record_id: str) -> bool:
        self._drop_old()
        return self._drop(record_id)

    async def _count(self, ids: Sequence[str]) -> int:
        self._drop_old()
        there = [record_id for record_id in ids if record_id in self._blobs]
        for record_id in there:
            self._blobs.move_to_end(record_id)
        return len(there)

    async def _size(self) -> Tuple[int, int]:
        self._drop_old()
        return len(self._blobs), self._bytes

    async def close(self) -> None:
        self._blobs.clear()
        self._born.clear()
        self._bytes = 0

    def _keep(self, record_id: str, blob: bytes) -> None:
        check_size(record_id, blob, self._max_bytes)
        self._drop(record_id)
        self._blobs[record_id] = blob
        self._born[record_id] = self._now()
        self._bytes += len(blob)
        self._drop_old()
        while len(self._blobs) > self._max_responses or self._bytes > self._max_bytes:
            self._drop(next(iter(self._blobs)))

    def _drop_old(self) -> None:
        oldest = self._now() - self._ttl
        while self._born:
            record_id, born = next(iter(self._born.items()))
            if born > oldest:
                return
            self._drop(record_id)

    def _drop(self, record_id: str) -> bool:
        blob = self._blobs.pop(record_id, None)
        if blob is None:
            return False
        del self._born[record_id]
        self._bytes -= len(blob)
        return True
