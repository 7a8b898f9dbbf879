"""Where finished responses are kept for ``previous_response_id``: in memory, in an sqlite file, or in Redis.

A record (:data:`~rproxy.types.Record`) is a JSON object under an id.  All stores keep it as encoded JSON, so
what is read is a copy, its size is known, and a record means the same in each store.  A store is a
:class:`Store` with six methods for encoded records; everything else is the same for all, and here.

**Failures.**  A store that cannot do its work within its time (:mod:`.time_limit`) raises
:class:`~rproxy.errors.StoreError`.  A stored value that is not a record, because it is damaged or was written
by another program, counts as missing, with a warning.  A text that is not an id (see :func:`valid_id`) is
never looked up, so nothing from a client becomes part of a key or a file name unchecked.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Awaitable, Callable, Optional, Sequence, Tuple, TypeVar

from ..convert.json_steps import LONG
from ..cooperative import in_thread_if
from ..errors import ConfigError, StoreError
from ..types import AnyRecord, Record
from .encoding import decode, encode, encode_cooperatively, valid_id
from .time_limit import within_limit

__all__ = ["Store", "encode", "open_store", "valid_id"]

log = logging.getLogger("rproxy.store")

T = TypeVar("T")
Change = Callable[[AnyRecord], Record]
TRIES = 100  # of an update while other processes write the same record


class Store:
    """A response store.

    A missing or expired record is not an error.

    :raises StoreError: from every method, when the store cannot do its work
    """

    name = "store"
    """Its name in messages."""
    instant = False
    """Do its methods never wait?"""
    moved = 0.0
    """When a piece of a large record was last read or written, in monotonic seconds."""

    async def get(self, record_id: str) -> Optional[AnyRecord]:
        """Look up a record.

        :returns: a copy of it, or None
        """
        return await self._look_up(record_id, brief=False)

    async def get_brief(self, record_id: str) -> Optional[AnyRecord]:
        """The same without most of what a response repeats of its request; see :mod:`.encoding`."""
        return await self._look_up(record_id, brief=True)

    async def _look_up(self, record_id: str, brief: bool) -> Optional[AnyRecord]:
        blob = await self._limited(self._read(record_id)) if valid_id(record_id) else None
        return None if blob is None else await decode(record_id, blob, brief)

    async def put(self, record_id: str, record: Record, small: bool = False) -> None:
        """Keep a record, in place of an earlier one.

        When this returns, :meth:`get` finds it, with sqlite even after a ``kill -9``.

        :param small: the record is known to be small
        :raises StoreError: also for a record that is too large, or is no JSON
        """
        blob = await encode_cooperatively(record_id, record, small)
        await self._limited(self._write(record_id, blob))

    async def update(self, record_id: str, change: Change) -> Optional[Record]:
        """Replace a record by the result of ``change``, atomically.

        :param change: a plain function; it is called again if the record was written in between, and in a
            thread if the record is large.  If it raises something, the record stays as it is
        :returns: the new record; None if there was none
        """
        if not valid_id(record_id):
            return None
        for _ in range(TRIES):
            old = await self._limited(self._read(record_id))
            stored = None if old is None else await decode(record_id, old)
            if old is None or stored is None:
                return None
            record = await in_thread_if(len(old) > LONG, partial(change, stored))
            blob = await encode_cooperatively(record_id, record)
            if await self._limited(self._swap(record_id, old, blob)):
                return record
        raise StoreError(f"{self.name}: too many updates of {record_id} at the same time")

    async def delete(self, record_id: str) -> bool:
        """Forget a record.

        :returns: whether it was there
        """
        return valid_id(record_id) and await self._limited(self._delete(record_id))

    async def has(self, ids: Sequence[str]) -> bool:
        """Are there records under all these ids?

        One request for all of them, which reads none of them; it counts as a use.

        :param ids: distinct ones
        """
        if not ids or not all(map(valid_id, ids)):
            return not ids
        return await self._limited(self._count(ids)) == len(ids)

    async def size(self) -> Tuple[int, int]:
        """How many records there are, and how many bytes they take; with Redis, of the whole server."""
        return await self._limited(self._size())

    async def close(self) -> None:
        """Free files, threads and connections; no other method may be called afterwards."""
        raise NotImplementedError

    # ---- What each kind of store implements; ``record_id`` is valid
    async def _read(self, record_id: str) -> Optional[bytes]:
        raise NotImplementedError

    async def _write(self, record_id: str, blob: bytes) -> None:
        raise NotImplementedError

    async def _swap(self, record_id: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` if the record is still ``old``, in one step.

        :returns: whether it was
        """
        raise NotImplementedError

    async def _delete(self, record_id: str) -> bool:
        raise NotImplementedError

    async def _count(self, ids: Sequence[str]) -> int:
        """How many of these records are there."""
        raise NotImplementedError

    async def _size(self) -> Tuple[int, int]:
        raise NotImplementedError

    async def _limited(self, work: Awaitable[T]) -> T:
        return await (work if self.instant else within_limit(work, self._too_slow, lambda: self.moved))

    def _too_slow(self) -> StoreError:
        return StoreError(f"{self.name}: it did not answer in time")


def open_store(
    kind: str,
    path: Optional[str] = None,
    url: Optional[str] = None,
    *,
    max_responses: int,
    max_bytes: int,
    ttl: float,
    now: Optional[Callable[[], float]] = None,
) -> Store:
    """Open a store.

    :param kind: memory, sqlite or redis
    :param path: of the file, for sqlite
    :param url: of the server, for redis
    :param max_responses: the oldest records go when there are more; Redis has limits of its own
    :param max_bytes: the same for the size of all records
    :param ttl: seconds that a record is kept
    :param now: the clock that measures the age of a record, in seconds: for sqlite since the epoch (default:
        the system's time), for memory since any time (default: a clock that is never set)
    :raises ConfigError: the kind is unknown, a package is missing, or the file or the URL cannot be used
    """
    if kind == "memory":
        from .memory import MemoryStore

        return MemoryStore(max_responses, max_bytes, ttl, now or time.monotonic)
    if kind == "sqlite" and path:
        from .sqlite import SqliteStore

        return SqliteStore(path, max_responses, max_bytes, ttl, now or time.time)
    if kind == "redis" and url:
        from .redis import RedisStore

        return RedisStore(url, ttl)
    raise ConfigError(f"store: kind must be memory, sqlite (with path) or redis (with url), not {kind!r}")
