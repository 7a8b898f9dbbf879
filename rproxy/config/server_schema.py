"""The keys of the sections ``server``, ``store`` and ``usage``; see :mod:`rproxy.config.schema`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Tuple

from ..log import LEVELS
from ..types import light_dataclass
from . import addresses
from . import checks as c
from .addresses import ListenAddress
from .checks import Check, Place, key, secret
from .keys import Key, read_keys

if TYPE_CHECKING:
    from .tls import Tls

# What Codex loses when tool_type_allowlist does not name a type of tools.
_LOST = {
    "function": "the shell and every other function",
    "custom": "apply_patch, its way to edit files",
    "namespace": "the tools of MCP servers and its subagents",
    "tool_search": "the tools that it loads when it needs them",
}


def _allowlist(place: Place) -> Tuple[str, ...]:
    kinds = c.list_of(c.text, "a list of tool types")(place)
    lost = [f"{kind} ({what})" for kind, what in _LOST.items() if kind not in kinds]
    if lost:
        place.warn(
            f"rproxy translates the types of this list only, and Codex needs others: {', '.join(lost)}"
        )
    return kinds


def _auth(place: Place) -> Auth:
    values = c.values_of(Auth, place)
    auth = Auth(**{"enabled": bool(values.get("keys")), **values})
    if auth.enabled and not auth.keys:
        raise place.error("is enabled, but 'keys' is empty, so that every request would be refused")
    if auth.keys and not auth.enabled:
        place.step("enabled").warn("is false, so that 'keys' has no effect and nobody is asked for a key")
    return auth


def read_store(place: Place) -> StoreConfig:
    store = c.section(StoreConfig)(place)
    for name, kind in (("path", "sqlite"), ("url", "redis")):
        if store.kind == kind and not getattr(store, name):
            raise place.error(f"kind {kind} needs {name!r}")
        if store.kind != kind and getattr(store, name):
            raise place.step(name).error(f"{name!r} is for kind {kind}, but kind is {store.kind}", key=True)
    return store


def switch(*choices: str) -> Check[str]:
    """One of some words; YAML reads ``on`` and ``off`` as true and false."""

    def check(place: Place) -> str:
        if isinstance(place.value, bool):
            return "on" if place.value else "off"
        return c.one_of(*choices)(place)

    return check


@light_dataclass(frozen=True)
class Auth:
    """Who may use rproxy."""

    enabled: bool = key(
        c.boolean,
        False,
        'clients must send one of the keys as "Authorization: Bearer KEY"; default: with keys',
    )
    keys: Tuple[Key, ...] = key(
        read_keys, (), "the keys; $VAR takes one from the environment, a mapping gives it a name and limits"
    )


@light_dataclass(frozen=True)
class Server:
    """The side of the clients. Times are in seconds, sizes in bytes."""

    listen_addr: Tuple[ListenAddress, ...] = key(
        addresses.listen_addresses,
        (ListenAddress("127.0.0.1", 3000),),
        "HOST:PORT, unix:PATH, or a list; beyond this machine only with auth (or --insecure)",
    )
    tls: Optional[Tls] = key(
        c.later("tls", "read_tls"), None, "the certificate; with it, TCP addresses speak HTTPS"
    )
    socket_mode: int = key(addresses.socket_mode, 0o600, "the mode of Unix sockets")
    request_timeout: float = key(
        c.seconds(), 300.0, "longest silence of a provider, in seconds; any byte restarts it"
    )
    connect_timeout: float = key(c.seconds(), 10.0, "seconds for connecting to a provider")
    first_byte_timeout: float = key(c.seconds(), 600.0, "seconds for the beginning of a provider's answer")
    content_timeout: float = key(
        c.seconds(zero=True), 600.0, "longest time without content in a provider's answer; 0: no limit"
    )
    idle_timeout: float = key(
        c.seconds(), 75.0, "seconds that an HTTP connection is kept when no request is under way"
    )
    write_timeout: float = key(
        c.seconds(), 120.0, "seconds after which a client that does not read its answer is disconnected"
    )
    heartbeat_interval: float = key(
        c.seconds(zero=True), 15.0, "send an event after this many seconds without one; 0: never"
    )
    log_level: str = key(c.one_of(*LEVELS), "info", "trace, debug, info, warn or error")
    log_format: str = key(c.one_of("text", "json"), "text", "text or json (one object per line)")
    auth: Auth = key(_auth, Auth(), "who may use rproxy")
    tool_type_allowlist: Optional[Tuple[str, ...]] = key(
        _allowlist, None, "the types of tools that rproxy translates; default: all that it can"
    )
    reasoning: str = key(
        c.one_of("auto", "summary", "content"),
        "auto",
        "where thinking goes: summary, content, or auto (by the client)",
    )
    errors: str = key(
        c.one_of("auto", "openai", "codex"),
        "auto",
        "the form of errors: openai, codex, or auto (by the client)",
    )
    max_body_size: int = key(c.size, 128 << 20, "largest request")
    max_message_size: int = key(c.size, 128 << 20, "largest WebSocket message")
    max_connections: Optional[int] = key(
        c.whole(1), None, "clients that may be connected; default: by the limit on open files (ulimit -n)"
    )
    max_queue: int = key(c.whole(1), 64, "turns that may wait on one WebSocket")
    max_pending_bytes: int = key(
        c.size, 64 << 20, "memory of messages that may wait on one WebSocket; four times as much in all"
    )
    max_turns: int = key(c.whole(0), 0, "turns that may run at the same time; 0: no limit")
    max_turns_per_key: int = key(c.whole(0), 0, "... of one key; 0: no limit")
    allowed_origins: Tuple[str, ...] = key(
        c.list_of(c.text, "a list of origins"), (), 'other sites whose pages may use rproxy; "*": all'
    )
    trusted_proxies: Tuple[str, ...] = key(
        c.list_of(addresses.network, "a list of addresses"),
        (),
        'reverse proxies whose X-Forwarded-For is believed: addresses, CIDR blocks, "unix"',
    )
    metrics: str = key(
        switch("auto", "on", "off"),
        "auto",
        "GET /metrics: auto (for this machine, and with a key), on (for everybody) or off",
    )
    inspector: str = key(
        switch("on", "off", "content"),
        "on",
        "the page at /: on, off, or content (it also shows requests and answers, kept in memory)",
    )
    retries: int = key(c.whole(0), 2, "further attempts while the client has received nothing")
    drain_delay: float = key(
        c.seconds(zero=True),
        0.0,
        "seconds that a stopping rproxy still accepts turns, while /ready is already 503",
    )
    drain_timeout: float = key(
        c.seconds(zero=True), 30.0, "seconds for running turns to finish when rproxy stops"
    )
    pid_file: Optional[str] = key(
        c.file_path, None, "a file with the process id; default: in $XDG_RUNTIME_DIR/rproxy"
    )
    websocket_max_age: float = key(
        c.seconds(), 3600.0, "a WebSocket older than this many seconds accepts no further turns"
    )
    seal_key: str = secret(
        c.seal_key,
        "",
        "the key that protects encrypted_content: 64 hex digits; default: made once and kept with the store",
    )
    accept_unsealed: bool = key(
        c.boolean, False, "also accept encrypted_content of rproxy 0.1, which has no seal; for one release"
    )

    @property
    def is_open(self) -> bool:
        """Can another machine use it without a key?"""
        return not self.auth.enabled and not all(address.is_local for address in self.listen_addr)


def read_server(place: Place) -> Server:
    """A section ``server``, with a clear error for the former key ``http_client``."""
    if isinstance(place.value, dict) and "http_client" in place.value:
        if str(place.value["http_client"] or "pooled").lower() != "pooled":
            raise place.step("http_client").error(
                "rproxy has one HTTP client for providers now; remove this line. For a proxy, set "
                "provider.http_proxy; for a certificate authority, provider.ca_file"
            )
        kept = {name: value for name, value in place.value.items() if name != "http_client"}
        place = place._replace(value=kept)
    return c.section(Server)(place)


@light_dataclass(frozen=True)
class StoreConfig:
    """Where responses are kept for previous_response_id."""

    kind: str = key(
        c.one_of("memory", "sqlite", "redis"),
        "memory",
        "memory, sqlite (one machine) or redis (many machines)",
    )
    path: Optional[str] = key(c.file_path, None, "sqlite: the file")
    url: Optional[str] = secret(c.reference, None, "redis: redis://HOST:PORT/DB, or $VAR")
    max_responses: int = key(c.whole(1), 10_000, "the oldest responses go when there are more")
    max_bytes: int = key(c.size, 256 << 20, "... or when they take more bytes")
    ttl: float = key(c.seconds(), 86_400.0, "... or after this many seconds")


@light_dataclass(frozen=True)
class UsageConfig:
    """How tokens are reported, and where they are recorded."""

    cached_tokens: str = key(
        c.one_of("hit", "sum"),
        "hit",
        "hit: tokens from the cache; sum: hits and misses, as in responses-proxy",
    )
    path: Optional[str] = key(
        c.file_path, None, "an sqlite file that gets a row for each turn, for rproxy usage; default: none"
    )
    keep_days: int = key(c.whole(1), 400, "days that its rows are kept")
