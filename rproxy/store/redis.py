"""Responses in Redis, shared by any number of machines.

Each response is one key, ``rproxy:response:ID``, with a time to live.  Limits of number and bytes are Redis'
own (``maxmemory`` and its policy).  The package ``redis`` is optional and loaded when it is needed.

Reads and writes have connections of their own, so waiting writes do not hold up reads.  A command whose
connection breaks is sent once more: Redis may have been restarted, or have closed an idle connection.  Only a
swap is not, because it may have happened.  When a server no longer takes writes, after a failover, its
connections are closed, and the next ones go where its name leads now.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Optional, Sequence, Tuple

from ..errors import ConfigError, StoreError
from ..log import without_login
from . import Store, log
from .time_limit import REQUEST_LIMIT, WRITE_LIMIT, store_time

PREFIX, SHARED_PREFIX = "rproxy:response:", "rproxy:"
# Sets KEYS[1] if it was not changed. ARGV: old value, new value, milliseconds to live.
SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
CONNECTIONS = 10  # of one process for reads, and as many for writes; further work waits for a free one


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
            self._reads = redis.Redis.from_pool(_pool(url, REQUEST_LIMIT))
            self._writes = redis.Redis.from_pool(_pool(url, WRITE_LIMIT))
        except ValueError as error:
            raise ConfigError(f"store.url: {without_login(url)} is not a Redis URL: {error}") from error

    async def shared_value(self, name: str, value: str) -> str:
        """A text that all processes share, and that never expires: the one that is there, else ``value``."""
        await self._ask(self._writes, "SET", SHARED_PREFIX + name, value, "NX")
        kept: bytes = await self._ask(self._reads, "GET", SHARED_PREFIX + name)
        return kept.decode("utf-8", "replace")

    async def close(self) -> None:
        await self._reads.aclose()
        await self._writes.aclose()

    async def _read(self, record_id: str) -> Optional[bytes]:
        # A change that no request waits for has more time, for what it reads as well.
        client = self._writes if store_time().left > REQUEST_LIMIT else self._reads
        try:
            blob: Optional[bytes] = await self._ask(client, "GET", PREFIX + record_id)
        except StoreError as error:
            if "WRONGTYPE" not in str(error):
                raise
            log.warning("%s: %s%s is not ours and counts as missing", self.name, PREFIX, record_id)
            return None
        return blob

    async def _write(self, record_id: str, blob: bytes) -> None:
        await self._ask(self._writes, "SET", PREFIX + record_id, blob, "PX", self._ttl)

    async def _swap(self, record_id: str, old: bytes, new: bytes) -> bool:
        swap = ("EVAL", SWAP, 1, PREFIX + record_id, old, new, self._ttl)
        return bool(await self._ask(self._writes, *swap, again=False))

    async def _delete(self, record_id: str) -> bool:
        return bool(await self._ask(self._writes, "DEL", PREFIX + record_id))

    async def _count(self, ids: Sequence[str]) -> int:
        # unlike EXISTS, TOUCH tells a Redis that evicts keys that they are in use
        return int(await self._ask(self._reads, "TOUCH", *(PREFIX + record_id for record_id in ids)))

    async def _size(self) -> Tuple[int, int]:
        memory = await self._ask(self._reads, "INFO", "memory")
        return int(await self._ask(self._reads, "DBSIZE")), int(memory["used_memory"])

    async def _ask(self, client: Any, *command: Any, again: bool = True) -> Any:
        """:param again: may the command be sent twice?"""
        try:
            return await client.execute_command(*command)
        except (self._errors.ConnectionError, self._errors.ReadOnlyError) as error:
            await client.connection_pool.disconnect(inuse_connections=False)
            if again:
                return await self._ask(client, *command, again=False)
            raise StoreError(f"{self.name}: {error}") from error
        except self._failures as error:
            raise StoreError(f"{self.name}: {error}") from error


def _pool(url: str, seconds: float) -> Any:
    """:param seconds: for an answer, and until a connection is free"""
    import redis.asyncio as redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return redis.BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=REQUEST_LIMIT,
        retry=Retry(NoBackoff(), 0),
    )
