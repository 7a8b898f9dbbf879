"""The connections of clients: how many there may be, and how long each may keep the server waiting.

**Accepting** stops while there are ``server.max_connections``, and for a second when the system has no file
descriptor left; new connections wait in the kernel's queue meanwhile.  While they wait, connections that have
been idle longest make room for them: those without a request, with a part of its headers only, and with a
body to come that nobody reads.

**Time limits** are kept by one sweep over all connections, a few times within the shortest limit, because a
timer for each would cost every request.  The sweep looks at what a connection is waiting for:

* the client reads nothing of what is queued for it (``server.write_timeout``); a WebSocket, too
* a request has begun, but its headers are not whole (``HEADER_TIMEOUT``)
* the body of a request has not arrived (``ClientStream.body_due``)
* no request is under way (``server.idle_timeout``); a WebSocket is not concerned, it may be idle for minutes

When the time is up, the connection is closed; to the handler it is as if the client had left, and a turn that
no other client follows is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import sys
import time
from collections import defaultdict, deque
from importlib import import_module
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Set, Tuple

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream

from ..log import LineLimit
from .remote import UNIX
from .tornado_patches import NoDelayServer

log = logging.getLogger("rproxy.connections")

NEVER = float("inf")
AF_UNIX = getattr(socket, "AF_UNIX", None)
HEADER_TIMEOUT = 10.0  # seconds from the first byte of a request to the end of its headers
SWEEP_INTERVAL = 1.0  # seconds
PAUSE = 1.0  # seconds without accepting when there is no file descriptor left
HEAD_READ = 1 << 12  # bytes of one read of a request's head; Tornado clears the whole buffer before
MAX_DISCARDED = 1 << 20  # bytes after a malformed head
MAX_DIGITS = 10  # of a Content-Length that may fit into the bytes read with a head
BODY_READ = 1 << 16  # ... of a body, and of WebSocket messages
RECLAIM_INTERVAL = 0.25  # seconds between sweeps while new connections wait
RECLAIM_AFTER = 0.5  # seconds that a connection must have been idle to make room for another one
WARN_INTERVAL = 60.0  # seconds between warnings of one kind
ACCEPTS = 128  # connections accepted before other work of the event loop
# What accept() reports for a connection that has gone already; any other error concerns the system.
GONE = frozenset(
    getattr(errno, name, 0)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "EPERM", "ETIMEDOUT"),
    )
)


class Limits(NamedTuple):
    """The limits of client connections.

    ``connections``: the maximum number.  Times are in seconds.
    """

    connections: int
    idle: float
    write: float
    header: float = HEADER_TIMEOUT

    @property
    def interval(self) -> float:
        """Seconds between sweeps."""
        return min(SWEEP_INTERVAL, self.idle / 4, self.write / 4, self.header / 4)


def unacknowledged(sock: socket.socket) -> int:
    """The number of bytes that the system still holds for the peer; 0 where this is unknown.  It may take a
    megabyte before a socket becomes writable again, which is minutes for a slow client.
    """
    with contextlib.suppress(ImportError, OSError):
        fcntl, termios = import_module("fcntl"), import_module("termios")
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0


class ClientStream(IOStream):
    """The socket of one client.

    ``awaiting`` is the HTTP connection whose request has not come; None while a request is under way, and for
    a WebSocket.  ``whole``: the body of the request came with its head.  ``body_due``: when the body must
    have arrived, in monotonic seconds; ``body_wanted``: until then, will anybody read it?  ``peer``: the
    address of the other end; ``unix`` for a Unix socket.

    :param address: of the other end, as accept() says it
    :param on_close: called when the socket is closed
    """

    # IOStream has about thirty attributes; with more of them, the dict of an object takes twice the memory.
    __slots__ = (
        "_on_closed",
        "_seen",
        "_since",
        "_written",
        "awaiting",
        "body_due",
        "body_wanted",
        "peer",
        "whole",
    )

    def __init__(
        self, sock: socket.socket, address: Any, on_close: Callable[[ClientStream], None], **options: Any
    ) -> None:
        super().__init__(sock, **options)
        self.awaiting: Optional[HTTP1Connection] = None
        self.whole = False
        self.body_due = NEVER
        self.body_wanted = False
        self.peer = address[0].partition("%")[0] if isinstance(address, tuple) else UNIX
        self._on_closed = on_close
        self._written = 0  # bytes that were queued and have left
        self._seen: object = None  # what the connection was waiting for at the last sweep
        self._since = 0.0  # monotonic time of the sweep that saw it first

    def await_request(self, connection: HTTP1Connection) -> None:
        """The next request has not come yet."""
        self.awaiting, self.read_chunk_size = connection, HEAD_READ

    def request_came(self, headers: Mapping[str, str]) -> None:
        """The head of the request is there, perhaps with its body."""
        self.awaiting = None
        length = headers.get("Content-Length", "0")
        self.whole = (
            length.isdecimal()
            and len(length) < MAX_DIGITS
            and int(length) <= len(self._read_buffer)
            and "Transfer-Encoding" not in headers
            and "Expect" not in headers
        )
        if not self.whole or "Upgrade" in headers:
            self.read_chunk_size = BODY_READ

    def reading(self) -> bool:
        """Is the stream waiting for data?  Between a head and the handler of its request it is not, but if
        Tornado noticed, it would take the socket out of the event loop and put it back at once: two system
        calls.
        """
        return super().reading() or self.awaiting is not None and len(self._read_buffer) < BODY_READ

    def write_to_fd(self, data: memoryview) -> int:
        sent = super().write_to_fd(data)
        self._written += sent
        return sent

    def close_fd(self) -> None:
        if self.awaiting is not None:
            self._discard()
        super().close_fd()
        # Break the cycle of references, because an error refers to its frames: no need for the garbage
        # collector.
        self.awaiting = self._seen = None
        if self.error is not None:
            self.error.__traceback__ = None
        self._on_closed(self)

    def _discard(self) -> None:
        """Read what has arrived: unread bytes at the close reset the connection, and the client would not get
        the error for a malformed head.
        """
        with contextlib.suppress(OSError):  # there are no more bytes
            for _ in range(MAX_DISCARDED // BODY_READ):
                if not self.socket.recv(BODY_READ):
                    return

    @property
    def idle(self) -> bool:
        """Does no request need the connection, and is the last answer written out completely?"""
        unread = self.body_due < NEVER and not self.body_wanted
        return (self.awaiting is not None or unread) and not self.writing()

    def was_reset(self) -> bool:
        """Has the client reset the connection after its request?

        The event loop says so, but uvloop (0.23) only once when the reset comes with the request; Tornado
        takes that for the request alone, and the turn would continue without a client.
        """
        if self.awaiting is not None or self.closed():
            return False
        try:
            socket.socket.recv(self.socket, 1, socket.MSG_PEEK)  # a TLS socket's own recv() takes no flags
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        return False

    def waits(self, now: float, limits: Limits) -> Tuple[float, float]:
        """How long this connection has been waiting for the same thing, and how long it may; for the sweep.
        Nothing is recorded between sweeps: another request, or bytes that have left, change the state.
        """
        state: object
        if self.writing():
            state, limit = (self._written, unacknowledged(self.socket)), limits.write
        elif self.awaiting is None:
            state, limit = self.body_due, NEVER
        else:
            begun = len(self._read_buffer) > 0
            state, limit = (begun, self.awaiting), limits.header if begun else limits.idle
        if state != self._seen:
            self._seen, self._since = state, now
        return now - self._since, limit


def _is_no_handshake(record: logging.LogRecord) -> bool:
    """Everybody who reaches the port can make handshakes fail, and Tornado warns of each."""
    return not str(record.msg).startswith("SSL Error on")


class TlsStream(ClientStream, SSLIOStream):
    """The socket of a client that speaks TLS."""


class ClientServer(NoDelayServer):
    """An HTTP server that keeps :class:`Limits`.

    ``tls``: the TLS context for new TCP connections.  Unix sockets never leave the machine, and speak HTTP.
    """

    def initialize(  # type: ignore[override]
        self, *args: Any, limits: Limits, tls: Optional[ssl.SSLContext] = None, **kwargs: Any
    ) -> None:
        super().initialize(*args, **kwargs)
        self.tls = tls
        if tls is not None:
            logging.getLogger("tornado.general").addFilter(_is_no_handshake)
        self.conn_params.header_timeout = None  # the sweep does this
        self.limits = limits
        self.streams: Set[ClientStream] = set()
        self._listening: List[socket.socket] = []
        self._accepting = False
        self._paused_until = 0.0  # no file descriptor was left
        self._spare: Deque[ClientStream] = deque()  # idle at the last sweep, the longest first
        self._sweeper: Optional[asyncio.TimerHandle] = None
        self._warned: Dict[str, LineLimit] = defaultdict(lambda: LineLimit(1, WARN_INTERVAL))

    # ---- Accepting
    def add_sockets(self, sockets: Any) -> None:
        self._accept_more(False)
        self._listening += sockets
        self._accept_more(True)

    def stop(self) -> None:
        self._accept_more(False)
        for sock in self._listening:
            sock.close()
        self._listening = []

    def _accept_more(self, wanted: bool) -> None:
        """Watch the listening sockets, or let new connections wait."""
        if wanted is self._accepting:
            return
        self._accepting = wanted
        loop = IOLoop.current()
        for sock in self._listening:
            if wanted:
                loop.add_handler(sock, self._accept, IOLoop.READ)
            else:
                loop.remove_handler(sock)
        if not wanted:
            self._schedule()

    def _accept(self, sock: socket.socket, events: int) -> None:
        for _ in range(ACCEPTS):
            if len(self.streams) >= self.limits.connections and not self._make_room():
                count = self.limits.connections
                self._warn("full", f"{count} connections are open (server.max_connections): new ones wait")
                self._accept_more(False)
                return
            try:
                connection, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in GONE:
                    continue
                self._pause(error)
                return
            self._begin(connection, address)

    def _begin(self, connection: socket.socket, address: Any) -> None:
        kind, tls = ClientStream, self.tls
        if tls is not None and connection.family != AF_UNIX:
            try:
                connection = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            except OSError:
                connection.close()  # the client has already left
                return
            kind = TlsStream
        stream = kind(
            connection,
            address,
            self._closed,
            max_buffer_size=self.max_buffer_size,
            read_chunk_size=self.read_chunk_size,
        )
        self.streams.add(stream)
        self._schedule()
        self.handle_stream(stream, address)

    def _pause(self, error: OSError) -> None:
        self._warn(
            "paused",
            f"cannot accept connections for a moment: {error.strerror}. If this is about open files, raise "
            "their limit (ulimit -n, LimitNOFILE in systemd), or lower server.max_connections",
        )
        self._paused_until = time.monotonic() + PAUSE
        self._accept_more(False)

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest, if there is one."""
        while self._spare:
            stream = self._spare.popleft()
            if stream in self.streams and stream.idle:
                stream.close()
                return True
        return False

    def _warn(self, kind: str, text: str) -> None:
        """Warn, but at most once a minute for each kind."""
        if self._warned[kind].admits():
            log.warning("%s", text)

    # ---- The life of a connection
    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        assert isinstance(request_conn, HTTP1Connection)
        stream = request_conn.stream
        if isinstance(stream, ClientStream) and not stream.closed():
            stream.await_request(request_conn)
        return super().start_request(server_conn, request_conn)

    def _closed(self, stream: ClientStream) -> None:
        self.streams.discard(stream)
        if self._listening and not self._paused_until:
            self._accept_more(True)

    # ---- Time limits
    def _schedule(self) -> None:
        """Schedule the next sweep, an early one when new connections wait."""
        soon = bool(self._listening) and not self._accepting
        if self._sweeper is not None:
            if not soon:
                return
            self._sweeper.cancel()
        interval = min(self.limits.interval, RECLAIM_INTERVAL) if soon else self.limits.interval
        self._sweeper = asyncio.get_running_loop().call_later(interval, self._sweep)

    def _sweep(self) -> None:
        """Close the connections that have waited too long, and accept new ones if possible."""
        self._sweeper = None
        now = time.monotonic()
        idle: List[Tuple[float, ClientStream]] = []
        crowded = len(self.streams) >= self.limits.connections
        for stream in list(self.streams):
            waited, limit = stream.waits(now, self.limits)
            if waited >= limit or now >= stream.body_due:
                if waited >= limit and stream.writing():
                    log.info("a client has read nothing for %g s; its connection is closed", waited)
                stream.close()
            elif stream.was_reset():
                stream.close()
            elif crowded and waited >= RECLAIM_AFTER and stream.idle:
                idle.append((waited, stream))
        idle.sort(key=lambda one: -one[0])
        self._spare = deque(stream for _, stream in idle)
        if self._listening and now >= self._paused_until:
            self._paused_until = 0.0
            self._accept_more(bool(self._spare) or len(self.streams) < self.limits.connections)
        if self.streams or self._listening and not self._accepting:
            self._schedule()
