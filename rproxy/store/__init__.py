"""Where finished responses are kept for ``previous_response_id``: in memory, in an sqlite file, or in Redis.

Theory of operation.  A record is a JSON object under an id.  All three stores keep it as encoded JSON: what
is read is a copy, its size is known without another walk, and a record means the same in each store.  A store
that cannot do its work raises :class:`~rproxy.errors.StoreError`; the service makes a warning of it, for an
answer is worth more than its record.  What is not an id (see :func:`valid_id`) is never looked up, so nothing
from a client becomes part of a key or a file name unchecked.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, Protocol

from ..convert.json_steps import encode_steps
from ..cooperative import run_cooperatively
from ..errors import ConfigError, StoreError
from ..types import Json

__all__ = ["Change", "Json", "Store", "decode", "encode", "encode_gently", "open_store", "valid_id"]

Change = Callable[[Json], Json]
ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
MAX_RESPONSES = 10_000
MAX_BYTES = 256 << 20
TTL = 86_400.0  # seconds


class Store(Protocol):
    """The interface of a response store.

    Every method may raise StoreError; a missing or expired record is no error.
    """

    instant: bool
    """Nothing here ever waits for anything."""

    async def get(self, record_id: str) -> Optional[Json]:
        """The record, or None."""

    async def put(self, record_id: str, record: Json) -> None:
        """Keeps the record, in place of an earlier one; when this returns, get finds it (sqlite: even after a
        kill -9)."""

    async def delete(self, record_id: str) -> bool:
        """Forgets the record. :returns: was it there?"""

    async def update(self, record_id: str, change: Change) -> Optional[Json]:
        """Replaces the record by what ``change`` makes of it; nobody else, in whatever process, writes it in
        between.

        :arg change: a plain function; it may be called several times, and in another thread
        :returns: the new record, None when there was none
        """

    async def sweep(self) -> int:
        """Forgets what is too old or too much.

        :returns: the number of records that went. Stores also sweep by themselves.
        """

    async def close(self) -> None:
        """Frees files, threads and connections; nothing else may be called afterwards."""


def valid_id(record_id: str) -> bool:
    """May this be an id at all? Letters, digits, ``_`` and ``-``, at most 128 of them."""
    return ID.match(record_id) is not None


def encode(record_id: str, record: Json) -> bytes:
    """The stored form. :raises StoreError: the id is none, or the record is no JSON object"""
    with _refusing(record_id):
        return _json(record)


async def encode_gently(record_id: str, record: Json) -> bytes:
    """:func:`encode`, with turns for others in between."""
    with _refusing(record_id):
        return await run_cooperatively(encode_steps(record, _json))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


@contextmanager
def _refusing(record_id: str) -> Iterator[None]:
    if not valid_id(record_id):
        raise StoreError(f"'{record_id:.40}' is not an id of a response")
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"response {record_id} cannot be written as JSON: {error}") from error


def decode(record_id: str, blob: bytes) -> Json:
    """The record. :raises StoreError: somebody else wrote it, or it was damaged"""
    try:
        record = json.loads(blob.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"the stored response {record_id} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise StoreError(f"the stored response {record_id} is damaged: it is no object")
    return record


def open_store(
    kind: str = "memory",
    path: Optional[str] = None,
    url: Optional[str] = None,
    *,
    max_responses: int = MAX_RESPONSES,
    max_bytes: int = MAX_BYTES,
    ttl: float = TTL,
    now: Callable[[], float] = time.time,
) -> Store:
    """A store of a kind. ``path`` is for sqlite, ``url`` for redis, ``ttl`` in seconds, ``now`` gives Unix
    time.

    :raises ConfigError: the kind is unknown, a package is missing, the file or the URL cannot be used
    """
    if kind == "memory":
        from .memory import MemoryStore

        return MemoryStore(max_responses, max_bytes, ttl, now)
    if kind == "sqlite" and path:
        from .sqlite import SqliteStore

        return SqliteStore(path, max_responses, max_bytes, ttl, now)
    if kind == "redis" and url:
        from .redis import RedisStore

        return RedisStore(url, ttl)
    raise ConfigError(f"store: kind must be memory, sqlite (with path) or redis (with url); it is {kind!r}")
