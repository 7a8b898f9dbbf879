"""All MCP servers of a process: their connections, and the lists of their tools.

A connection is kept for the next call.  Over HTTP every owner has one of their own, because a server may keep
state in its session; all share the one connection to a process.  A list of tools is shared by all who have
the same credentials, for as long as the server says.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Dict, Iterator, Optional, Sequence, Set, Tuple

from ...config.mcp_schema import McpServer
from ...log import LONG, clean, mask_known
from ...types import Json
from ...upstream.client import Upstream
from .connection import McpConnection
from .http import Endpoint, HttpConnection
from .messages import McpError
from .process import ProcessConnection, ServerCommand
from .protocol import Peer
from .results import ToolResult, read_result

LIST_TIMEOUT = 30.0  # seconds
MAX_ANSWER = 1 << 20  # bytes, unless results may be longer
IDLE = 300.0  # seconds that a connection is kept
MAX_CONNECTIONS = 256  # those in use are never closed
MAX_LISTS = 256
MAX_RESULT = 102_400  # bytes


class McpServers:
    """The connections to all MCP servers of a process.

    :param upstream: sends the requests over HTTP
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._servers: Dict[str, McpServer] = {}
        self._max_result = MAX_RESULT
        self._connections: OrderedDict[str, _Kept] = OrderedDict()  # the last used at the end
        self._lists: OrderedDict[str, Tuple[float, Sequence[Json]]] = OrderedDict()
        self._legacy: OrderedDict[str, None] = OrderedDict()  # URLs of servers of the legacy era
        self._closing: Set[asyncio.Task[None]] = set()
        self._sweeper: Optional[asyncio.TimerHandle] = None

    def configure(self, servers: Sequence[McpServer], max_result: int = MAX_RESULT) -> None:
        """Use these servers from now on, and end the processes of others.

        :param max_result: bytes of a result's text
        """
        self._servers = {server.name: server for server in servers}
        self._max_result = max_result
        wanted = {_identity(server) for server in servers}
        for key, kept in list(self._connections.items()):
            if kept.is_process and kept.identity not in wanted:
                del self._connections[key]
                kept.retired = True
                self._close_unused(kept)

    def get(self, name: str) -> Optional[McpServer]:
        """The server of this name in the configuration."""
        return self._servers.get(name)

    @property
    def names(self) -> Sequence[str]:
        """The names in the configuration."""
        return tuple(self._servers)

    async def tools(self, server: McpServer, owner: str) -> Sequence[Json]:
        """The tools of a server, as it describes them, perhaps in an earlier answer.

        :raises McpError: there is no list
        """
        identity = _identity(server)
        until, listed = self._lists.get(identity, (0.0, ()))
        if until > time.monotonic():
            self._lists.move_to_end(identity)
            return listed
        with self._connection(server, owner) as connection, _clean_errors(server):
            found = await connection.tools(LIST_TIMEOUT)
        listed = _without(_long_secrets(server), found.tools)
        if found.ttl:
            self._lists[identity] = time.monotonic() + found.ttl, listed
            self._lists.move_to_end(identity)
            while len(self._lists) > MAX_LISTS:
                self._lists.popitem(last=False)
        return listed

    async def call(self, server: McpServer, owner: str, tool: Json, arguments: Json) -> ToolResult:
        """Call a tool of the server's list, once.

        :raises McpError: there is no result
        """
        with self._connection(server, owner) as connection, _clean_errors(server):
            answer = await connection.call(tool, arguments, server.timeout)
        result = read_result(answer, self._max_result)
        return result._replace(text=mask_known(result.text, _long_secrets(server)))

    async def close(self) -> None:
        """Close all connections, and end all processes."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        connections = [kept.connection.close() for kept in self._connections.values()]
        self._connections.clear()
        await asyncio.gather(*connections, *self._closing, return_exceptions=True)

    # ---- Connections
    @contextmanager
    def _connection(self, server: McpServer, owner: str) -> Iterator[McpConnection]:
        identity = _identity(server)
        key = identity if server.command else f"{identity} {owner}"
        kept = self._connections.get(key)
        if kept is None:
            kept = self._connections[key] = _Kept(self._connect(server), identity, bool(server.command))
        self._connections.move_to_end(key)
        kept.users += 1
        try:
            yield kept.connection
        finally:
            kept.users -= 1
            kept.last_used = time.monotonic()
            if kept.connection.peer.era == "legacy":
                self._legacy[server.url] = None
                while len(self._legacy) > MAX_LISTS:
                    self._legacy.popitem(last=False)
            self._close_unused(kept)
            self._sweep_later()

    def _connect(self, server: McpServer) -> McpConnection:
        max_bytes = max(MAX_ANSWER, 2 * self._max_result)
        if server.command:
            command = ServerCommand(server.command, server.env, server.cwd, server.secrets)
            return ProcessConnection(server.name, command, max_bytes)
        endpoint = Endpoint(server.url, server.headers, server.public, server.secrets, max_bytes)
        return HttpConnection(Peer(legacy_first=server.url in self._legacy), endpoint, self._upstream)

    def _close_unused(self, kept: _Kept) -> None:
        if kept.retired and not kept.users:
            kept.retired = False
            task = asyncio.ensure_future(kept.connection.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _sweep_later(self) -> None:
        if self._sweeper is None and any(not kept.is_process for kept in self._connections.values()):
            self._sweeper = asyncio.get_running_loop().call_later(IDLE / 4, self._sweep)
        if len(self._connections) > MAX_CONNECTIONS:
            self._sweep_idle(len(self._connections) - MAX_CONNECTIONS, 0.0)

    def _sweep(self) -> None:
        self._sweeper = None
        self._sweep_idle(len(self._connections), IDLE)
        self._sweep_later()

    def _sweep_idle(self, most: int, seconds: float) -> None:
        """Close at most ``most`` connections that have been idle for some seconds, the oldest first."""
        before = time.monotonic() - seconds
        idle = [
            key
            for key, kept in self._connections.items()
            if not kept.users and not kept.is_process and kept.last_used <= before
        ]
        for key in idle[:most]:
            kept = self._connections.pop(key)
            kept.retired = True
            self._close_unused(kept)


class _Kept:
    """A connection that is kept.

    ``retired``: it is closed as soon as it is not in use.
    """

    def __init__(self, connection: McpConnection, identity: str, is_process: bool) -> None:
        self.connection, self.identity, self.is_process = connection, identity, is_process
        self.users, self.last_used = 0, time.monotonic()
        self.retired = False


def _identity(server: McpServer) -> str:
    """A digest of everything that distinguishes a server, credentials included."""
    maps = [sorted(server.headers.items()), sorted(server.env.items())]
    parts = [server.url, server.public, server.command, server.cwd, *maps]
    return sha256(json.dumps(parts).encode()).hexdigest()


def _long_secrets(server: McpServer) -> Sequence[str]:
    """The secrets that are too long to be common words."""
    return [secret for secret in server.secrets if len(secret) >= LONG]


def _without(secrets: Sequence[str], tools: Sequence[Json]) -> Sequence[Json]:
    """The tools with ``***`` in place of secrets that a server repeats in their descriptions."""
    text = json.dumps(tools, ensure_ascii=False)
    if mask_known(text, secrets) == text:
        return tools
    masked: Sequence[Json] = _masked(secrets, list(tools))
    return masked


def _masked(secrets: Sequence[str], value: Any) -> Any:
    if isinstance(value, str):
        return mask_known(value, secrets)
    if isinstance(value, list):
        return [_masked(secrets, inner) for inner in value]
    if isinstance(value, dict):
        return {mask_known(key, secrets): _masked(secrets, inner) for key, inner in value.items()}
    return value


@contextmanager
def _clean_errors(server: McpServer) -> Iterator[None]:
    """Mask the credentials in errors, which may quote the server."""
    try:
        yield
    except McpError as error:
        text = clean(str(error), server.secrets)
        raise McpError(error.kind, error.code, text, answered=error.answered) from None
