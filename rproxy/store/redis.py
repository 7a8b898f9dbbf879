"""Responses in Redis, shared by any number of machines.

Theory of operation.  One key per response, ``rproxy:response:ID``, with the time to live that Redis itself
watches; limits of number and bytes are Redis's too (``maxmemory`` and its policy).  The ``redis`` package is
optional and loaded when it is needed.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Optional

from ..errors import ConfigError, StoreError
from ..log import without_login
from ..types import Json
from . import Change, decode, encode, encode_gently, valid_id

PREFIX = "rproxy:response:"
TIMEOUT = 5.0  # seconds for a connection, and for an answer
TRIES = 100  # of an update that others come in between
# Sets the key, unless somebody has changed it: KEYS[1], ARGV: old value, new value, milliseconds to live.
SWAP = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1"
CONNECTIONS = 20  # of one process; further work waits for a free one


class RedisStore:
    """The store at ``url`` (``redis://``, ``rediss://`` or ``unix://``); it connects at the first use.

    :raises ConfigError: the package is missing or the URL is none
    """

    instant = False

    def __init__(self, url: str, ttl: float, prefix: str = PREFIX) -> None:
        try:
            import redis.asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError as error:
            raise ConfigError("store.kind redis needs the Python package redis: pip install redis") from error
        self._failures = (RedisError, OSError, asyncio.TimeoutError)
        self._name = without_login(url)
        self._prefix = prefix
        self._ttl = max(1, math.ceil(ttl * 1000))  # milliseconds
        try:
            # One more try is for a kept connection that Redis has closed; waiting for Redis to come up would
            # hold up the turn.
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
        """The record, or None."""
        blob = await self._ask("GET", record_id) if valid_id(record_id) else None
        return None if blob is None else decode(record_id, blob)

    async def put(self, record_id: str, record: Json) -> None:
        """Returns when Redis has it."""
        await self._ask("SET", record_id, await encode_gently(record_id, record), "PX", self._ttl)

    async def update(self, record_id: str, change: Change) -> Optional[Json]:
        """:returns: the new record, None when there was none.

        :raises StoreError: too many others change it at the same time
        """
        for _ in range(TRIES if valid_id(record_id) else 0):
            blob = await self._ask("GET", record_id)
            if blob is None:
                return None
            record = change(decode(record_id, blob))
            if await self._ask("EVAL", record_id, blob, encode(record_id, record), self._ttl):
                return record
        if not valid_id(record_id):
            return None
        raise StoreError(f"redis store {self._name}: {record_id} is changed by too many at once")

    async def delete(self, record_id: str) -> bool:
        """:returns: was it there?"""
        return valid_id(record_id) and bool(await self._ask("DEL", record_id))

    async def sweep(self) -> int:
        """Nothing to do: Redis forgets by itself."""
        return 0

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()

    async def _ask(self, command: str, record_id: str, *values: Any) -> Any:
        try:
            script = (SWAP, 1) if command == "EVAL" else ()
            return await self._redis.execute_command(command, *script, self._prefix + record_id, *values)
        except self._failures as error:
            raise StoreError(f"redis store {self._name}: {error}") from error
