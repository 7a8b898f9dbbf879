"""The connection pool: keep-alive connections by route, the most recently used first.

A connection belongs to the pool from :meth:`ConnectionPool.open` until it is closed.  Whoever takes one out
runs one exchange on it, after which it comes back by itself.  A connection that stays idle is closed after a
while: providers and load balancers close theirs, too, and a request on a connection that is just being closed
has to be sent again.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import socket
import time
from typing import Deque, Dict, Optional, Tuple

from .connect import ConnectTimeout, Route, dial
from .connection import Connection, State
from .os_errors import OUT_OF_DESCRIPTORS
from .transport import TransportError

IDLE_TTL = 45.0  # seconds; providers and load balancers close idle connections after 60 or more
MAX_IDLE = 32  # connections kept per route
UNLIMITED = 1 << 30
NEXT_LOOK = 0.1  # seconds between attempts to find room


class ConnectionPool:
    """The connections of one client.

    :param max_idle: idle connections kept per route
    :param idle_ttl: seconds that an idle connection is kept
    :param max_open: connections to all providers together
    """

    def __init__(
        self, max_idle: int = MAX_IDLE, idle_ttl: float = IDLE_TTL, max_open: int = UNLIMITED
    ) -> None:
        self._max_idle, self._idle_ttl, self._max_open = max_idle, idle_ttl, max_open
        self._dialing = 0  # connections that are being opened
        self._routes: Dict[Connection, Route] = {}  # of every open connection
        self._idle: Dict[Route, Deque[Connection]] = {}
        self._idle_since: Dict[Connection, float] = {}  # monotonic time
        self._sweeper: Optional[asyncio.TimerHandle] = None
        self._closed = False

    def __repr__(self) -> str:
        idle = len(self._idle_since)
        return f"<{type(self).__name__}: {len(self._routes) - idle} busy, {idle} idle>"

    def count(self, route: Route) -> Tuple[int, int]:
        """How many connections of this route are busy, and how many are idle."""
        idle = len(self._idle.get(route, ()))
        return sum(one == route for one in self._routes.values()) - idle, idle

    def take(self, route: Route) -> Optional[Connection]:
        """An idle connection of this route, which is not in the pool any more, or None."""
        idle = self._idle.get(route)
        if not idle:
            return None
        connection = idle.pop()
        del self._idle_since[connection]
        return connection

    async def open(self, route: Route, connect_timeout: float) -> Connection:
        """A new connection, which is not in the pool yet.

        :param connect_timeout: seconds, 0 for no limit
        :raises TransportError: it cannot be opened
        """
        try:
            sock = await self._dial(route, connect_timeout)
        except ConnectTimeout as error:
            raise TransportError("timeout", str(error), real_error=error) from None
        except OSError as error:
            # with a proxy, the text must say which of the two could not be reached
            raise TransportError(
                "connect", f"cannot connect to {route}: {error}", real_error=None if route.proxy else error
            ) from error
        connection = Connection(sock, self._on_state)
        self._routes[connection] = route
        if self._closed:
            connection.close()
            raise TransportError("connect", "the HTTP client is closed")
        return connection

    async def _dial(self, route: Route, timeout: float) -> socket.socket:
        """A new socket.  When there are too many, or no file descriptor is left, the connection that has been
        idle longest makes room; if there is none, wait for one to end, but no longer than ``timeout``.
        """
        end = time.monotonic() + timeout
        while True:
            error = OSError(errno.EMFILE, f"{self._max_open} connections to providers are open")
            if len(self._routes) + self._dialing < self._max_open:
                self._dialing += 1
                try:
                    return await dial(route, timeout)
                except OSError as failure:
                    if failure.errno not in OUT_OF_DESCRIPTORS:
                        raise
                    error = failure
                finally:
                    self._dialing -= 1
            if self._idle_since:
                next(iter(self._idle_since)).close()
            elif time.monotonic() >= end:
                raise error
            else:
                await asyncio.sleep(NEXT_LOOK)

    async def preconnect(self, route: Route, connect_timeout: float) -> None:
        """Make sure that an idle connection is waiting.

        :raises TransportError: it cannot be opened
        """
        if not self._idle.get(route):
            self._on_state(await self.open(route, connect_timeout))

    def close(self) -> None:
        """Close all connections, and those that are being opened as soon as they are."""
        self._closed = True
        for connection in list(self._routes):
            connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _on_state(self, connection: Connection) -> None:
        """The connection has become idle or was closed."""
        route = self._routes[connection]
        if connection.state is State.CLOSED:
            del self._routes[connection]
            if self._idle_since.pop(connection, None) is not None:
                self._idle[route].remove(connection)
            if route in self._idle and not self._idle[route]:
                del self._idle[route]
            return
        idle = self._idle.setdefault(route, collections.deque())
        if len(idle) >= self._max_idle:
            return connection.close()
        idle.append(connection)
        self._idle_since[connection] = time.monotonic()
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._idle_ttl, self._sweep)

    def _sweep(self) -> None:
        """Close connections that have been idle for too long.  One timer serves all; it is set for the
        oldest.
        """
        self._sweeper = None
        now = time.monotonic()
        for connection, since in list(self._idle_since.items()):
            if since + self._idle_ttl <= now + 0.001:
                connection.close()
        if self._idle_since:
            left = min(self._idle_since.values()) + self._idle_ttl - now
            self._sweeper = asyncio.get_running_loop().call_later(left, self._sweep)
