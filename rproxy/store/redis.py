"""Responses in Redis, shared by any number of machines.

Each response is one key, ``rproxy:response:ID``, with a time to live.  Limits of number and bytes are Redis'
own (``maxmemory`` and its policy).  The package ``redis`` is optional and loaded when it is needed.

A large record is sent and received in pieces, between which the event loop does other work.  A new one grows
under a temporary key (``rproxy:response:ID:HEX``, which expires soon) and is renamed when it is complete;
while one is read, ``WATCH`` shows whether it has changed.

Reads and writes have connections of their own, so waiting writes do not hold up reads.  A command whose
connection breaks is sent once more: Redis may have been restarted, or have closed an idle connection.  A swap
is not repeated, because it may have happened.  When a server no longer takes writes, after a failover, its
connections are closed, and the next ones go where its name leads now.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from io import BytesIO
from typing import Any, AsyncIterator, Awaitable, Callable, Optional, Sequence, Tuple, TypeVar

from ..errors import ConfigError, StoreError
from ..log import without_login
from . import Store, log
from .time_limit import REQUEST_LIMIT, WRITE_LIMIT, store_time

T = TypeVar("T")

PREFIX, SHARED_PREFIX = "rproxy:response:", "rproxy:"
PIECE = 1 << 20  # bytes of a record that are sent or received at once
UNFINISHED = 30_000  # milliseconds that an unfinished record is kept
TRIES = 5  # to read a large record that changes meanwhile, before it is read at once
# Sets KEYS[1] if it was not changed. ARGV: old value, new value, milliseconds to live.
SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
MAX_CONNECTIONS = 10  # of one process for reads, and as many for writes; further work waits for a free one


class RedisStore(Store):
    """The store of ``kind: redis``; it connects at the first use.

    :param url: ``redis://``, ``rediss://`` or ``unix://``
    :param ttl: seconds that a record is kept
    :raises ConfigError: the package is missing, or the URL is not one
    """

    def __init__(self, url: str, ttl: float) -> None:
        try:
            import redis.asyncio as redis
            from redis import exceptions
        except ImportError as error:
            raise ConfigError("store.kind redis needs the Python package redis: pip install redis") from error
        self._errors: Any = exceptions
        self._failures = (exceptions.RedisError, OSError, asyncio.TimeoutError)
        self.name = f"redis store {without_login(url)}"
        self._ttl = max(1, math.ceil(ttl * 1000))  # milliseconds
        try:
            self._reads: Any = redis.Redis.from_pool(_pool(url, REQUEST_LIMIT))
            self._writes: Any = redis.Redis.from_pool(_pool(url, WRITE_LIMIT))
        except ValueError as error:
            raise ConfigError(f"store.url: {without_login(url)} is not a Redis URL: {error}") from error

    async def shared_value(self, name: str, value: str) -> str:
        """A text that all processes share, and that never expires: the existing one, or else ``value``."""
        await self._ask(self._writes, "SET", SHARED_PREFIX + name, value, "NX")
        kept: bytes = await self._ask(self._reads, "GET", SHARED_PREFIX + name)
        return kept.decode("utf-8", "replace")

    async def close(self) -> None:
        await self._reads.aclose()
        await self._writes.aclose()

    async def _read(self, record_id: str) -> Optional[bytes]:
        # A change that no request waits for has more time, for its reads as well.
        client = self._writes if store_time().left > REQUEST_LIMIT else self._reads
        key = PREFIX + record_id
        try:
            blob: bytes = await self._ask(client, "GETRANGE", key, 0, PIECE - 1)
            if len(blob) == PIECE:
                return await self._try(client, lambda: self._read_large(client, key))
        except StoreError as error:
            if "WRONGTYPE" not in str(error):
                raise
            log.warning("%s: %s%s is not ours and counts as missing", self.name, PREFIX, record_id)
            return None
        return blob or None

    async def _write(self, record_id: str, blob: bytes) -> None:
        key = PREFIX + record_id
        if len(blob) > PIECE:
            await self._try(self._writes, lambda: self._write_large(key, blob))
        else:
            await self._ask(self._writes, "SET", key, blob, "PX", self._ttl)

    async def _swap(self, record_id: str, old: bytes, new: bytes) -> bool:
        key = PREFIX + record_id
        if max(len(old), len(new)) > PIECE:
            return await self._try(self._writes, lambda: self._swap_large(key, old, new), again=False)
        swap = ("EVAL", SWAP, 1, key, old, new, self._ttl)
        return bool(await self._ask(self._writes, *swap, again=False))

    async def _delete(self, record_id: str) -> bool:
        return bool(await self._ask(self._writes, "DEL", PREFIX + record_id))

    async def _count(self, ids: Sequence[str]) -> int:
        # unlike EXISTS, TOUCH also marks the keys as used, for a Redis that evicts keys
        return int(await self._ask(self._reads, "TOUCH", *(PREFIX + record_id for record_id in ids)))

    async def _size(self) -> Tuple[int, int]:
        memory = await self._ask(self._reads, "INFO", "memory")
        return int(await self._ask(self._reads, "DBSIZE")), int(memory["used_memory"])

    async def _ask(self, client: Any, *command: Any, again: bool = True) -> Any:
        """:param again: may the command be sent twice?"""
        return await self._try(client, lambda: client.execute_command(*command), again)

    async def _try(self, client: Any, work: Callable[[], Awaitable[T]], again: bool = True) -> T:
        """:param again: may the work be done twice?"""
        try:
            return await work()
        except (self._errors.ConnectionError, self._errors.ReadOnlyError) as error:
            await client.connection_pool.disconnect(inuse_connections=False)
            if again:
                return await self._try(client, work, again=False)
            raise StoreError(f"{self.name}: {error}") from error
        except self._failures as error:
            raise StoreError(f"{self.name}: {error}") from error

    # ---- Large records
    async def _read_large(self, client: Any, key: str) -> Optional[bytes]:
        for _ in range(TRIES):
            whole = BytesIO()
            try:
                async with client.pipeline() as watching:
                    await watching.watch(key)
                    async for piece in _pieces(watching, key):
                        self.moved = time.monotonic()
                        whole.write(piece)
                    watching.multi()
                    watching.strlen(key)
                    (size,) = await watching.execute()
            except self._errors.WatchError:
                continue
            return whole.getvalue() if size and whole.tell() == size else None  # it may have expired
        blob: Optional[bytes] = await client.get(key)
        return blob

    async def _write_large(self, key: str, blob: bytes) -> None:
        unfinished = await self._upload(key, blob)
        async with self._writes.pipeline() as both:
            await self._finish(both, unfinished, key)

    async def _swap_large(self, key: str, old: bytes, new: bytes) -> bool:
        unfinished = ""
        try:
            async with self._writes.pipeline() as watching:
                await watching.watch(key)
                at = 0
                async for piece in _pieces(watching, key):
                    self.moved = time.monotonic()
                    if piece != old[at : at + PIECE]:
                        return False
                    at += len(piece)
                if at != len(old):
                    return False
                unfinished = await self._upload(key, new)
                watching.multi()
                await self._finish(watching, unfinished, key)
        except self._errors.WatchError as error:  # another has changed it, or the connection is broken
            if not unfinished or not await self._writes.delete(unfinished):  # it may have been done
                raise StoreError(f"{self.name}: {error}") from error
            return False
        return True

    async def _upload(self, key: str, blob: bytes) -> str:
        """:returns: the name under which all of it is, for a while"""
        name = f"{key}:{secrets.token_hex(8)}"
        await self._writes.set(name, blob[:PIECE], px=UNFINISHED)
        for begin in range(PIECE, len(blob), PIECE):
            piece = blob[begin : begin + PIECE]
            if await self._writes.append(name, piece) != begin + len(piece):
                await self._writes.delete(name)
                raise StoreError(f"{self.name}: {name} has expired before it was whole, or was evicted")
            self.moved = time.monotonic()
        return name

    async def _finish(self, pipeline: Any, unfinished: str, key: str) -> None:
        pipeline.pexpire(unfinished, self._ttl)
        pipeline.rename(unfinished, key)
        await pipeline.execute()


async def _pieces(client: Any, key: str) -> AsyncIterator[bytes]:
    begin = 0
    while True:
        piece: bytes = await client.getrange(key, begin, begin + PIECE - 1)
        yield piece
        begin += len(piece)
        if len(piece) < PIECE:
            return


def _pool(url: str, seconds: float) -> Any:
    """:param seconds: for an answer, and until a connection is free"""
    import redis.asyncio as redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return redis.BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=REQUEST_LIMIT,
        retry=Retry(NoBackoff(), 0),
    )
