"""Where finished responses are kept for ``previous_response_id``: in memory, in an sqlite file, or in Redis.

A record is a JSON object under an id.  All stores keep it as encoded JSON, so what is read is a copy, its
size is known, and a record means the same in each store.  A store that cannot do its work raises
:class:`~rproxy.errors.StoreError`; the service makes a warning of it, because an answer is worth more than
its record.  What is not an id (see :func:`valid_id`) is never looked up, so nothing from a client becomes
part of a key or a file name unchecked.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from typing import Callable, Iterator, Optional, Protocol

from ..convert.json_steps import encode_steps
from ..cooperative import run_cooperatively
from ..errors import ConfigError, StoreError
from ..types import Json

Change = Callable[[Json], Json]
ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


class Store(Protocol):
    """A response store.

    A missing or expired record is no error.

    :raises StoreError: from every method, when the store cannot do its work
    """

    instant: bool
    """Does no method ever wait for anything?"""

    async def get(self, record_id: str) -> Optional[Json]:
        """Look up a record.

        :returns: a copy of it, or None
        """

    async def put(self, record_id: str, record: Json) -> None:
        """Keep a record, in place of an earlier one.

        When this returns, :meth:`get` finds it, with sqlite even after a ``kill -9``.

        :raises StoreError: also for a record that is too large, or is no JSON
        """

    async def update(self, record_id: str, change: Change) -> Optional[Json]:
        """Replace a record by what ``change`` makes of it; no process writes it in between.

        :param change: a plain function; it may be called more than once, and in another thread
        :returns: the new record; None when there was none
        """

    async def delete(self, record_id: str) -> bool:
        """Forget a record.

        :returns: whether it was there
        """

    async def close(self) -> None:
        """Free files, threads and connections; no other method may be called afterwards."""


def valid_id(record_id: str) -> bool:
    """Can this be an id? Letters, digits, ``_`` and ``-``, at most 128 of them."""
    return ID.match(record_id) is not None


def encode(record_id: str, record: Json) -> bytes:
    """The stored form of a record.

    :raises StoreError: the id is not one, or the record is no JSON
    """
    with _refusing(record_id):
        return _json(record)


async def encode_cooperatively(record_id: str, record: Json) -> bytes:
    """:func:`encode` in slices that let other work run."""
    with _refusing(record_id):
        return await run_cooperatively(encode_steps(record, _json))


def _json(value: object) -> bytes:
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
    """The record of a stored form.

    :raises StoreError: it is damaged, or was written by another program
    """
    try:
        record = json.loads(blob.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"the stored response {record_id} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise StoreError(f"the stored response {record_id} is damaged: it is not an object")
    return record


def open_store(
    kind: str,
    path: Optional[str] = None,
    url: Optional[str] = None,
    *,
    max_responses: int,
    max_bytes: int,
    ttl: float,
    now: Callable[[], float] = time.time,
) -> Store:
    """Open a store.

    :param kind: memory, sqlite or redis
    :param path: of the file, for sqlite
    :param url: of the server, for redis
    :param max_responses: the oldest records go when there are more; Redis has limits of its own
    :param max_bytes: the same for the size of all records
    :param ttl: seconds that a record is kept
    :param now: the clock, in seconds since the epoch
    :raises ConfigError: the kind is unknown, a package is missing, or the file or the URL cannot be used
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
    raise ConfigError(f"store: kind must be memory, sqlite (with path) or redis (with url), not {kind!r}")
