"""Opens the socket of an HTTP connection: TCP or Unix, directly or through a proxy's tunnel, with or without
TLS.

Sockets are plain and non-blocking, because one rule is easier to keep for them than for streams: whoever
holds a socket closes it when an exception, or a cancellation, comes through.  Tornado's ``TCPClient`` follows
that rule only since 6.6.  Several addresses of a host are tried as in RFC 8305 ("happy eyeballs"): address
families alternate, and the next attempt starts when the one before fails or has taken ``STAGGER`` seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple, Type, cast

from tornado.ioloop import IOLoop

from ..config.addresses import is_public_address
from .parser import ProtocolError, ResponseParser
from .proxy import Proxy, connect_request, refusal
from .transport import PrivateAddress

STAGGER = 0.3  # seconds
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 4))  # seconds, seconds, probes

Address = Tuple[int, int, int, str, Any]  # as socket.getaddrinfo gives them


class Route(NamedTuple):
    """Where a connection leads, and how.

    Requests of the same route can use the same connection: this is the key of the connection pool.
    ``public``: connect to addresses on the internet only.
    """

    scheme: str
    host: str
    port: int
    unix_path: Optional[str] = None
    tls: Optional[ssl.SSLContext] = None
    proxy: Optional[Proxy] = None
    public: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        via = f" through the proxy {self.proxy}" if self.proxy else ""
        return self.unix_path or f"{host}:{self.port}{via}"


class TunnelError(OSError):
    """The proxy did not open the tunnel."""


class ConnectTimeout(TimeoutError):
    """There was no connection in time; a TimeoutError, and therefore an OSError, too."""


async def dial(route: Route, timeout: float = 0) -> socket.socket:
    """Connect.

    :param timeout: seconds for name resolution, TCP, tunnel and TLS together; 0 for no limit
    :returns: a non-blocking socket, its TLS handshake done
    :raises ConnectTimeout: it took too long
    :raises OSError: it failed; ssl.SSLError is one
    """
    with _Deadline(timeout, f"no connection to {route} within {timeout:g} s"):
        return await _dial(route)


class _Deadline:
    """A time limit for a block of code.

    ``with _Deadline(10, text):`` cancels what is awaited inside after 10 s (0: never), and raises a
    ConnectTimeout.

    asyncio.timeout came with Python 3.11, and wait_for of older ones can lose a cancellation, and with it a
    socket.
    """

    def __init__(self, seconds: float, text: str) -> None:
        self._seconds, self._text = seconds, text
        self._expired = False
        self._timer: Optional[asyncio.TimerHandle] = None

    def __enter__(self) -> None:
        if self._seconds:
            task = cast("asyncio.Task[Any]", asyncio.current_task())
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire, task)

    def _expire(self, task: asyncio.Task[Any]) -> None:
        self._expired = True
        task.cancel()

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._expired and kind is asyncio.CancelledError:
            raise ConnectTimeout(self._text) from None


async def _dial(route: Route) -> socket.socket:
    if route.unix_path is not None:
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("Python has no Unix sockets on this system")
        return await _connect((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", route.unix_path))
    if route.proxy is None:
        sock = await _open_tcp(route.host, route.port, route.public)
    else:
        sock = await _open_tcp(route.proxy.host, route.proxy.port)
    try:
        _tune(sock)
        if route.tls is None:
            return sock
        if route.proxy is not None:
            await _tunnel(sock, route, route.proxy)
        # the new socket takes over the file descriptor, so from here on that one has to be closed
        sock = route.tls.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=route.host)
        await _handshake(sock)
        return sock
    except BaseException:
        sock.close()
        raise


def _tune(sock: socket.socket) -> None:
    """Send small requests at once, and notice when the peer vanishes during minutes of silence.

    The probes also keep NAT entries alive.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _open_tcp(host: str, port: int, public: bool = False) -> socket.socket:
    addresses = _alternate(await _resolve(host, port))
    if public and not all(is_public_address(str(address[4][0])) for address in addresses):
        # These very addresses are connected to below; the name is not resolved again.
        raise PrivateAddress(f"{host} is not on the internet")
    if len(addresses) == 1:
        return await _connect(addresses[0])
    return await _race(addresses)


async def _race(addresses: List[Address]) -> socket.socket:
    """The first connection that succeeds; no other one stays open."""
    tasks: List[asyncio.Task[socket.socket]] = []
    running: Set[asyncio.Task[socket.socket]] = set()
    waiting = list(addresses)
    try:
        while waiting or running:
            if waiting:
                tasks.append(asyncio.ensure_future(_connect(waiting.pop(0))))
                running.add(tasks[-1])
            done, running = await asyncio.wait(
                running, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if task.exception() is None:
                    tasks.remove(task)
                    return task.result()
        error = tasks[0].exception()  # the preferred address is the most informative
        assert error is not None
        raise error
    finally:
        for task in tasks:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                task.result().close()  # it was connected, too, but a moment later


async def _resolve(host: str, port: int) -> List[Address]:
    try:  # a literal address needs no thread
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except socket.gaierror:
        return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _alternate(addresses: List[Address]) -> List[Address]:
    families: Dict[int, List[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    rounds = itertools.zip_longest(*families.values())
    return [address for one_of_each in rounds for address in one_of_each if address is not None]


async def _connect(address: Address) -> socket.socket:
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, target)
        return sock
    except BaseException:
        sock.close()
        raise


async def _tunnel(sock: socket.socket, route: Route, proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, connect_request(route.host, route.port, proxy))
    parser = ResponseParser("CONNECT")
    while parser.head is None:
        data = await loop.sock_recv(sock, 4096)
        if not data:
            raise TunnelError(f"the proxy {proxy} closed the connection instead of opening the tunnel")
        try:
            parser.feed(data)
        except ProtocolError as error:
            raise TunnelError(f"the proxy {proxy} does not speak HTTP: {error}") from None
    if not 200 <= parser.head.status < 300:
        raise TunnelError(refusal(parser.head.status, parser.head.reason, proxy))


async def _handshake(sock: ssl.SSLSocket) -> None:
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(sock, IOLoop.READ)
        except ssl.SSLWantWriteError:
            await _ready(sock, IOLoop.WRITE)


async def _ready(sock: socket.socket, event: int) -> None:
    """Wait until the socket can be read or written.  Tornado's loop can do that on Windows, too."""
    io_loop = IOLoop.current()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    io_loop.add_handler(sock, lambda *_: None if future.done() else future.set_result(None), event)
    try:
        await future
    finally:
        io_loop.remove_handler(sock)
