"""Responses in Redis, shared by any number of machines.

Each response is one key, ``rproxy:response:ID``, with a time to live.  Limits of number and bytes are Redis'
own (``maxmemory`` and its policy).  The package ``redis`` is optional and loaded when it is needed.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Optional

from ..errors import ConfigError, StoreError
from ..log import without_login
from ..types import Json
from . import Change, decode, encode, encode_cooperatively, valid_id

PREFIX, SHARED = "rproxy:response:", "rproxy:"
TIMEOUT = 5.0  # seconds for a connection, and for an answer
TRIES = 100  # of an update while others write the same record
# Sets KEYS[1] if it was not changed. ARGV: old value, new value, milliseconds to live.
SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
CONNECTIONS = 20  # of one process; further work waits for a free one


class RedisStore:
    """The store of ``kind: redis``; it connects at the first use.

    :param url: ``redis://``, ``rediss://`` or ``unix://``
    :param ttl: seconds that a record is kept
    :raises ConfigError: the package is missing, or the URL is not one
    """

    instant = False

    def __init__(self, url: str, ttl: float) -> None:
        try:
            import redis.asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError as error:
            raise ConfigError("store.kind redis needs the Python package redis: pip install redis") from error
        self._failures = (RedisError, OSError, asyncio.TimeoutError)
        self._name = without_login(url)
        self._ttl = max(1, math.ceil(ttl * 1000))  # milliseconds
        try:
            # The retry is for a kept connection that Redis has closed; waiting for Redis to come up would
            # delay the turn.
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=TIMEOUT,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(NoBackoff(), 1),
            )
            self._redis: Any = redis.Redis.from_pool(pool)
        except ValueError as error:
            raise ConfigError(f"store.url: {self._name} is not a Redis URL: {error}") from error

    async def get(self, record_id: str) -> Optional[Json]:
        blob = await self._ask("GET", record_id) if valid_id(record_id) else None
        return None if blob is None else decode(record_id, blob)

    async def put(self, record_id: str, record: Json) -> None:
        await self._ask("SET", record_id, await encode_cooperatively(record_id, record), "PX", self._ttl)

    async def update(self, record_id: str, change: Change) -> Optional[Json]:
        if not valid_id(record_id):
            return None
        for _ in range(TRIES):
            blob = await self._ask("GET", record_id)
            if blob is None:
                return None
            record = change(decode(record_id, blob))
            if await self._ask("EVAL", record_id, blob, encode(record_id, record), self._ttl):
                return record
        raise StoreError(f"redis store {self._name}: too many updates of {record_id} at the same time")

    async def delete(self, record_id: str) -> bool:
        return valid_id(record_id) and bool(await self._ask("DEL", record_id))

    async def shared_value(self, name: str, value: str) -> str:
        """A text that all processes share for ever: the one that is there, else ``value``."""
        try:
            await self._redis.execute_command("SET", SHARED + name, value, "NX")
            return str((await self._redis.execute_command("GET", SHARED + name)).decode("utf-8", "replace"))
        except self._failures as error:
            raise StoreError(f"redis store {self._name}: {error}") from error

    async def close(self) -> None:
        await self._redis.aclose()

    async def _ask(self, command: str, record_id: str, *values: Any) -> Any:
        try:
            script = (SWAP, 1) if command == "EVAL" else ()
            return await self._redis.execute_command(command, *script, PREFIX + record_id, *values)
        except self._failures as error:
            raise StoreError(f"redis store {self._name}: {error}") from error
