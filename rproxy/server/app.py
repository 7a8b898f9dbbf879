"""The server: routes, listening, signals, and a shutdown that lets answers end.

SIGTERM or SIGINT stop accepting connections; idle WebSockets are closed with 1012 ("restart"), new requests
on open connections get 503, running turns may end within ``server.drain_timeout`` seconds.  What then still
runs is cancelled, which ends every stream with ``response.failed`` and every socket with 1012.  A second
signal skips the waiting, a third one finds Python's own handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List, Optional

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.routing import Matcher, PathMatches, Rule
from tornado.web import Application

from ..config.addresses import is_loopback, split_address
from ..config.schema import Config
from ..errors import ConfigError
from ..service.service import Service
from ..store import open_store
from ..upstream.client import Upstream
from .access import Access
from .base import AppState
from .chat import ChatHandler
from .conversations import (
    ConversationHandler,
    ConversationItemHandler,
    ConversationItemsHandler,
    ConversationsHandler,
)
from .health import HealthHandler
from .http import NotFoundHandler, has_body
from .models import ModelHandler, ModelsHandler
from .responses import (
    CancelHandler,
    CompactHandler,
    InputItemsHandler,
    InputTokensHandler,
    ResponsesHandler,
    StoredResponseHandler,
)
from .tornado_patches import NoDelayServer, speed_up
from .websocket import PING_INTERVAL, ResponsesSocket

log = logging.getLogger("rproxy.app")

BACKLOG = 1024
HEADER_TIMEOUT = 300.0  # seconds a connection may stay idle between requests
LAST_WORDS = 2.0  # seconds for terminal events and close frames after the grace period
HEADROOM = 1 << 20  # a stream's buffer must hold the largest message and its frame header

ROUTES = (
    (r"(?:/v1)?/responses/?", ResponsesHandler),
    (r"(?:/v1)?/responses/compact/?", CompactHandler),
    (r"(?:/v1)?/responses/input_tokens/?", InputTokensHandler),
    (r"(?:/v1)?/responses/([^/]+)/?", StoredResponseHandler),
    (r"(?:/v1)?/responses/([^/]+)/input_items/?", InputItemsHandler),
    (r"(?:/v1)?/responses/([^/]+)/cancel/?", CancelHandler),
    (r"(?:/v1)?/conversations/?", ConversationsHandler),
    (r"(?:/v1)?/conversations/([^/]+)/?", ConversationHandler),
    (r"(?:/v1)?/conversations/([^/]+)/items/?", ConversationItemsHandler),
    (r"(?:/v1)?/conversations/([^/]+)/items/([^/]+)/?", ConversationItemHandler),
    (r"(?:/v1)?/chat/completions/?", ChatHandler),
    (r"(?:/v1)?/models/?", ModelsHandler),
    (r"(?:/v1)?/models/(.+)", ModelHandler),
    (r"(?:/v1)?/health/?", HealthHandler),
)

# errno -> why the address cannot be listened on, and what to do
BIND_REASONS: Dict[int, str] = {
    errno.EADDRINUSE: "another program uses this port; stop it, or choose another one with --listen",
    errno.EACCES: "ports below 1024 need privileges; choose a higher one with --listen",
    errno.EADDRNOTAVAIL: "this machine has no such address; use 127.0.0.1, or the address of one of its interfaces",
}


class Upgrade(Matcher):
    """Matches a WebSocket handshake on the path ``pattern``; not one with a body, for which nobody would wait
    with a limit."""

    def __init__(self, pattern: str) -> None:
        self._path = PathMatches(pattern)

    def match(self, request: HTTPServerRequest) -> Optional[Dict[str, Any]]:
        if (
            request.method != "GET"
            or request.headers.get("Upgrade", "").strip().lower() != "websocket"
            or has_body(request.headers)
        ):
            return None
        return self._path.match(request)


def make_app(config: Config, service: Service) -> Application:
    """The Tornado application.

    ``settings["state"]`` is the :class:`rproxy.server.base.AppState` that its handlers share.
    """
    server = config.server
    host, _ = split_address(server.listen_addr)
    speed_up()
    return Application(
        [Rule(Upgrade(ROUTES[0][0]), ResponsesSocket), *ROUTES],
        default_handler_class=NotFoundHandler,
        state=AppState(
            config,
            service,
            Access(server.auth.keys if server.auth.enabled else None, server.allowed_origins, host),
        ),
        log_function=lambda handler: None,  # the service logs one line a turn, the handlers log refusals
        cross_origin_protection=False,  # Access does it, on every version of Tornado
        websocket_max_message_size=server.max_message_size,
        websocket_ping_interval=PING_INTERVAL,
        # A healthy client that uploads a large message answers late: pings keep the path open, only TCP says
        # that a peer is dead.
        websocket_ping_timeout=0,
    )


def check_exposure(config: Config, insecure: bool) -> None:
    """Refuse to give the provider's key to a network.  Raises ConfigError."""
    host, port = split_address(config.server.listen_addr)
    if config.server.auth.enabled or insecure or is_loopback(host):
        return
    raise ConfigError(
        f"server.listen_addr is {config.server.listen_addr}: whoever reaches this address would use your provider's key, for "
        f"authentication is off. Set server.auth (enabled: true, keys: [...]), or listen on 127.0.0.1:{port}, or start with "
        "--insecure if the network itself keeps strangers out."
    )


def listen(address: str, reuse_port: bool = False) -> List[socket.socket]:
    """Sockets that listen on ``HOST:PORT``; port 0 takes a free one.  Raises ConfigError that says what to
    do.

    ``reuse_port``: several processes may listen there, if all say so; the kernel deals the connections out.
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError(
            "--reuse-port: this system cannot share a port between processes; give each its own with --listen."
        )
    host, port = split_address(address)
    try:
        return bind_sockets(port, host or None, backlog=BACKLOG, reuse_port=reuse_port)
    except socket.gaierror as error:
        raise ConfigError(
            f"server.listen_addr: the host of {address!r} cannot be resolved ({error.strerror})."
        ) from error
    except OSError as error:
        reason = BIND_REASONS.get(error.errno or 0, error.strerror)
        raise ConfigError(f"server.listen_addr: cannot listen on {address}: {reason}.") from error


def url_of(sockets: List[socket.socket]) -> str:
    """The base URL of the first socket, as a client on this machine would write it."""
    host, port = sockets[0].getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(config: Config, app: Application) -> HTTPServer:
    """The HTTP server for ``app``, with the limits of the configuration."""
    server = config.server
    return NoDelayServer(
        app,
        max_buffer_size=max(server.max_body_size, server.max_message_size) + HEADROOM,
        idle_connection_timeout=HEADER_TIMEOUT,
    )


@contextlib.contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on the event loop for the first two of SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    former = {number: signal.getsignal(number) for number in numbers}
    count = 0

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def received(number: int, frame: object) -> None:
        nonlocal count
        count += 1
        if count >= 2:
            restore()
        loop.call_soon_threadsafe(stop)

    for number in numbers:
        signal.signal(number, received)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(
            signal.SIGPIPE, signal.SIG_IGN
        )  # a client that went away is an error of its socket only
    try:
        yield
    finally:
        restore()


async def drain(state: AppState, hurry: asyncio.Event) -> None:
    """Let turns end, for ``server.drain_timeout`` seconds or until ``hurry``; then cancel them.

    Closes the WebSockets.
    """
    state.draining = True
    for session in list(state.sessions):
        session.shut_down()
    if state.turns:
        log.info(
            "waiting up to %g s for %d running turns", state.config.server.drain_timeout, len(state.turns)
        )
    deadline = asyncio.get_running_loop().time() + state.config.server.drain_timeout
    waiting = asyncio.ensure_future(hurry.wait())
    while state.turns and not hurry.is_set():
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            break
        await asyncio.wait({waiting, *state.turns}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # so that finished tasks leave the table
    waiting.cancel()
    for turn in list(state.turns.values()):
        if turn is not None:
            turn.cancel()
    if state.turns:
        await asyncio.wait(set(state.turns), timeout=LAST_WORDS)
    if state.sessions:  # their clients answer the close frame with one of their own
        await asyncio.wait({session.closed for session in state.sessions}, timeout=LAST_WORDS)


async def run(
    config: Config,
    service: Service,
    *,
    reuse_port: bool = False,
    ready: Optional[Callable[[str], None]] = None,
) -> None:
    """Serve until a signal; returns after a clean shutdown.

    ``ready`` gets the base URL once the port is open.
    """
    app = make_app(config, service)
    state: AppState = app.settings["state"]
    sockets = listen(config.server.listen_addr, reuse_port)
    server = make_server(config, app)
    server.add_sockets(sockets)
    stop, hurry = asyncio.Event(), asyncio.Event()
    with stop_signals(lambda: hurry.set() if stop.is_set() else stop.set()):
        if ready is not None:
            ready(url_of(sockets))
        await stop.wait()
        server.stop()
        await drain(state, hurry)
        await server.close_all_connections()


async def serve(
    config: Config,
    *,
    insecure: bool = False,
    reuse_port: bool = False,
    ready: Optional[Callable[[str], None]] = None,
) -> None:
    """Put the parts together and serve until a signal; returns after a clean shutdown.

    ``insecure``: listen beyond loopback without authentication.  ``reuse_port``: other processes listen
    there, too. Raises ConfigError when the address is unsafe or not available.
    """
    check_exposure(config, insecure)
    async with open_service(config) as service:
        await run(config, service, reuse_port=reuse_port, ready=ready)


@contextlib.asynccontextmanager
async def open_service(config: Config) -> AsyncIterator[Service]:
    """The service with its store and its provider client, which are closed in the end."""
    server, kept = config.server, config.store
    store = open_store(
        kept.kind,
        kept.path,
        kept.url,
        max_responses=kept.max_responses,
        max_bytes=kept.max_bytes,
        ttl=kept.ttl,
    )
    upstream = Upstream(
        connect_timeout=server.connect_timeout,
        first_byte_timeout=server.first_byte_timeout,
        idle_timeout=server.request_timeout,
        http_client=server.http_client,
    )
    try:
        yield Service(config, upstream, store)
    finally:
        upstream.close()
        await store.close()


@contextlib.asynccontextmanager
async def embedded(config: Config) -> AsyncIterator[str]:
    """Serve on the configured address as long as the context lasts; gives the base URL.

    Signals are the caller's business.
    """
    async with open_service(config) as service:
        app = make_app(config, service)
        sockets = listen(config.server.listen_addr)
        server = make_server(config, app)
        server.add_sockets(sockets)
        hurry = asyncio.Event()
        hurry.set()  # whoever talked to this server is gone
        try:
            yield url_of(sockets)
        finally:
            server.stop()
            await drain(app.settings["state"], hurry)
            await server.close_all_connections()
