"""The server: its routes, and its life from the open port to a clean shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
from dataclasses import replace
from typing import TYPE_CHECKING, AsyncIterator, Callable, Mapping, NamedTuple, Optional, Sequence

from tornado.web import Application

from ..config.addresses import ListenAddress
from ..config.schema import Config, Server, UsageConfig
from ..service.quota import DAY, Quotas
from ..service.seal_key import load_seal_key
from ..service.service import Service
from ..store import open_store
from ..telemetry.telemetry import Telemetry
from ..upstream.client import Upstream
from .base import AppState
from .connections import ClientServer, Limits
from .descriptors import limit, max_connections, max_provider_connections, raise_limit
from .http import NotFoundHandler
from .listen import Listener, check_exposure, listener_of, open_listeners
from .pid_file import pid_file
from .reload import Reload, hangup_signal
from .routes import App
from .shutdown import drain, stop_being_ready, stop_signals
from .speedups import mapped_blocks, quick_switches, tuned_gc
from .systemd import Notifier, take_sockets
from .tornado_patches import apply_patches

log = logging.getLogger("rproxy.app")

if TYPE_CHECKING:
    from ..telemetry.ledger import Ledger
    from ..telemetry.recorder import Recorder

HEADROOM = 1 << 20  # however small the limits are, a stream's buffer must hold a message and the next read

PING_INTERVAL = 30.0  # seconds; keeps the connection alive in middle boxes that drop idle ones


# ---- The application
def make_app(config: Config, service: Service, addresses: Sequence[ListenAddress]) -> Application:
    """The Tornado application.

    ``settings["state"]`` is the :class:`rproxy.server.base.AppState` that its handlers share.

    :param addresses: those that the server listens on, with their actual ports
    """
    apply_patches()
    return App(
        default_handler_class=NotFoundHandler,
        state=AppState(config, service, addresses),
        log_function=lambda handler: None,  # the service logs each turn, the handlers log refusals
        cross_origin_protection=False,  # Access does it, on every version of Tornado
        websocket_max_message_size=config.server.max_message_size,
        websocket_ping_interval=PING_INTERVAL,
        # A healthy client answers late while it uploads a large message: pings keep the path open, and only
        # TCP decides that a peer is dead.
        websocket_ping_timeout=0,
    )


def make_server(config: Config, app: Application) -> ClientServer:
    """The HTTP server for ``app``, with the limits of the configuration."""
    tls = tls_context(config.server)
    return ClientServer(app, limits=limits_of(config), tls=tls, max_buffer_size=buffer_size(config))


def tls_context(server: Server) -> Optional[ssl.SSLContext]:
    """The certificate for new connections, if there is one.

    :raises ConfigError: it cannot be used
    """
    return server.tls.context() if server.tls is not None else None


def limits_of(config: Config) -> Limits:
    """The limits of connections."""
    server = config.server
    connections = server.max_connections or max_connections(limit())
    return Limits(connections, idle=server.idle_timeout, write=server.write_timeout)


def buffer_size(config: Config) -> int:
    """The buffer size of a connection, in bytes."""
    return max(config.server.max_body_size, config.server.max_message_size) + HEADROOM


# ---- The server's life
@contextlib.asynccontextmanager
async def open_service(config: Config, recorders: Sequence[Recorder] = ()) -> AsyncIterator[Service]:
    """The service with its store and its provider client; all are closed at the end, the service first.

    :param recorders: get a recording of each turn
    """
    server, kept = config.server, config.store
    async with contextlib.AsyncExitStack() as opened:
        store = open_store(
            kept.kind,
            kept.path,
            kept.url,
            max_responses=kept.max_responses,
            max_bytes=kept.max_bytes,
            ttl=kept.ttl,
        )
        opened.push_async_callback(store.close)
        telemetry = Telemetry(open_ledger(config.usage))
        opened.push_async_callback(telemetry.close)
        telemetry.recorders += recorders
        clients = server.max_connections or max_connections(limit())
        upstream = Upstream(
            max_open=max_provider_connections(limit(), clients),
            connect_timeout=server.connect_timeout,
            first_byte_timeout=server.first_byte_timeout,
            idle_timeout=server.request_timeout,
        )
        opened.callback(upstream.close)
        service = Service(
            config,
            upstream,
            store,
            telemetry=telemetry,
            seal_key=await load_seal_key(config, store),
            quotas=quotas_of_today(config),
        )
        opened.push_async_callback(service.close)
        yield service


def quotas_of_today(config: Config) -> Quotas:
    """The quotas of the keys; the ledger, if there is one, has what they have used today."""
    quotas, keys = Quotas(time.time), config.server.auth.keys
    if config.usage.path is not None and any(key.tokens_per_day is not None for key in keys):
        from ..telemetry.usage import tokens_by_key

        now = time.time()
        try:
            quotas.restore(keys, tokens_by_key(config.usage.path, now - now % DAY))
        except OSError as error:
            log.warning(
                "cannot read the usage ledger %s: %s; tokens_per_day starts at 0", config.usage.path, error
            )
    return quotas


def open_ledger(usage: UsageConfig) -> Optional[Ledger]:
    """The usage ledger, if one is configured.

    :raises ConfigError: its file cannot be used
    """
    if usage.path is None:
        return None
    from ..telemetry.ledger import Ledger  # sqlite3 is loaded only where it is used

    return Ledger(usage.path, usage.keep_days * DAY, time.time)


class Serving(NamedTuple):
    """A server that answers."""

    listeners: Sequence[Listener]
    app: Application
    http: ClientServer

    def configure(self, config: Config) -> None:
        """Load the certificate again, and change the limits that Tornado keeps; see
        :class:`rproxy.server.reload.Reload`.  Open connections stay as they are.

        :raises ConfigError: the certificate cannot be used
        """
        self.http.tls = tls_context(config.server)
        self.app.settings["websocket_max_message_size"] = config.server.max_message_size
        self.http.limits, self.http.max_buffer_size = limits_of(config), buffer_size(config)


@contextlib.asynccontextmanager
async def serving(
    config: Config,
    service: Service,
    hurry: asyncio.Event,
    *,
    reuse_port: bool = False,
    inherited: Sequence[Listener] = (),
) -> AsyncIterator[Serving]:
    """Answer requests while the context lasts, then drain.

    :param hurry: when it is set, running turns get no time to finish
    :param inherited: listeners that are open already, instead of those of the configuration
    :raises ConfigError: an address cannot be used
    """
    with contextlib.ExitStack() as opened:
        listeners = opened.enter_context(open_listeners(config.server, reuse_port, inherited))
        app = make_app(config, service, [one.address for one in listeners])
        state: AppState = app.settings["state"]
        http = make_server(config, app)
        http.add_sockets([one.socket for one in listeners])
        state.lag.start()
        try:
            yield Serving(listeners, app, http)
        except BaseException:
            hurry.set()
            raise
        finally:
            await stop_being_ready(state, hurry)
            http.stop()
            opened.close()  # a Unix socket's file makes room for the next process before the drain
            await drain(state, hurry)
            state.lag.stop()
            await http.close_all_connections()


@contextlib.asynccontextmanager
async def embedded(config: Config) -> AsyncIterator[str]:
    """Serve in a running event loop while the context lasts; yields the base URL.  The caller handles
    signals, and all clients have gone at the end.
    """
    hurry = asyncio.Event()
    hurry.set()
    async with open_service(config) as service, serving(config, service, hurry) as running:
        yield running.listeners[0].address.url(config.server.tls is not None)


async def run(
    config: Config,
    service: Service,
    *,
    load: Callable[[], Config],
    reuse_port: bool = False,
    inherited: Sequence[Listener] = (),
    ready: Optional[Callable[[Sequence[Listener]], None]] = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Serve until a signal; returns after a clean shutdown.

    :param load: reads the configuration again
    :param inherited: listeners that are open already, instead of those of the configuration
    :param ready: called with the listeners once they are open
    :param environ: names the service manager, if there is one
    """
    stop, hurry, manager = asyncio.Event(), asyncio.Event(), Notifier(environ)
    listening = serving(config, service, hurry, reuse_port=reuse_port, inherited=inherited)
    with stop_signals(lambda: hurry.set() if stop.is_set() else stop.set()), manager.watchdog():
        async with listening as running:
            state: AppState = running.app.settings["state"]
            reload = Reload(state, load, running.configure)

            def reload_and_notify() -> None:
                manager.reloading()
                reload()
                manager.ready()

            with contextlib.ExitStack() as opened:
                opened.enter_context(hangup_signal(reload_and_notify, stop.set))
                opened.enter_context(pid_file(config.server.pid_file))
                for speedup in (tuned_gc, quick_switches, mapped_blocks):
                    opened.enter_context(speedup())
                if ready is not None:
                    ready(running.listeners)
                manager.ready()
                await stop.wait()
            server = state.config.server
            manager.stopping(server.drain_delay + server.drain_timeout)


async def serve(
    config: Config,
    *,
    load: Callable[[], Config],
    insecure: bool = False,
    reuse_port: bool = False,
    ready: Optional[Callable[[Sequence[Listener]], None]] = None,
    recorders: Sequence[Recorder] = (),
) -> None:
    """Put the parts together and serve until a signal; returns after a clean shutdown.

    :param load: reads the configuration again, for a reload
    :param insecure: listen beyond loopback even without authentication
    :param reuse_port: share the port with other processes
    :param ready: called with the listeners once they are open
    :param recorders: get a recording of each turn
    :raises ConfigError: the address is unsafe or cannot be used
    """
    inherited = [listener_of(sock) for sock in take_sockets(os.environ)]

    def checked(found: Config) -> Config:
        if inherited:
            server = replace(found.server, listen_addr=tuple(one.address for one in inherited))
            found = replace(found, server=server)
        check_exposure(found, insecure)
        return found

    config = checked(config)
    raise_limit()
    stopped = asyncio.Event()
    # While the store opens, and while it writes its last records, a signal must not end the process abruptly.
    with stop_signals(stopped.set):
        async with open_service(config, recorders) as service:
            if not stopped.is_set():
                await run(
                    config,
                    service,
                    load=lambda: checked(load()),
                    reuse_port=reuse_port,
                    inherited=inherited,
                    ready=ready,
                )
