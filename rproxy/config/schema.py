"""The sections of the configuration and their keys.

Each section is a frozen dataclass whose fields are the table of its keys: type, default, one line of
documentation (see :mod:`rproxy.config.checks`).  ``etc/config.yaml`` shows them all.  Secret values appear
neither in a repr nor in a message.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, List, Mapping, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from ..convert.profile import EFFORTS, MODALITIES, FieldError, Profile
from ..convert.request.rewrite import Rule
from ..errors import ConfigError
from ..log import LEVELS
from ..providers.profiles import choose_profile, default_wire, row_name, row_of_host
from . import addresses
from . import checks as c
from .addresses import is_loopback, split_address
from .checks import REQUIRED, Place, key, secret
from .rewrite_rules import rewrite_rules
from .routes import Routes

# What Codex loses when tool_type_allowlist does not name a type of tools.
_LOST = {
    "function": "the shell and every other function",
    "custom": "apply_patch, its way to edit files",
    "namespace": "the tools of MCP servers and its subagents",
    "tool_search": "the tools that it loads when it needs them",
}
# Names of headers and query parameters whose values are secret.
_CREDENTIAL = re.compile("auth|key|token|secret|cookie|pass|credential", re.I)


def _profile_name(place: Place) -> str:
    try:
        return row_name(c.text(place))
    except ConfigError as error:
        raise place.error(str(error)) from None


def _overrides(place: Place) -> Mapping[str, Any]:
    try:
        Profile().override(c.any_mapping(place))
    except FieldError as error:
        raise place._replace(path=place.path + error.path).error(error.text, key=error.unknown) from None
    data: Mapping[str, Any] = place.value
    return data


def _allowlist(place: Place) -> Tuple[str, ...]:
    kinds = c.list_of(c.text, "a list of tool types")(place)
    lost = [f"{kind} ({what})" for kind, what in _LOST.items() if kind not in kinds]
    if lost:
        place.warn(
            f"rproxy translates the types of this list only, and Codex needs others: {', '.join(lost)}"
        )
    return kinds


def _auth(place: Place) -> Auth:
    auth = c.section(Auth)(place)
    if auth.enabled and not auth.keys:
        raise place.error("is enabled, but 'keys' is empty, so that every request would be refused")
    return auth


def _store(place: Place) -> Store:
    store = c.section(Store)(place)
    for name, kind in (("path", "sqlite"), ("url", "redis")):
        if store.kind == kind and not getattr(store, name):
            raise place.error(f"kind {kind} needs {name!r}")
        if store.kind != kind and getattr(store, name):
            raise place.step(name).error(f"{name!r} is for kind {kind}, but kind is {store.kind}", key=True)
    return store


@dataclass(frozen=True)
class Auth:
    """Who may use rproxy."""

    enabled: bool = key(c.boolean, False, 'clients must send one of the keys as "Authorization: Bearer KEY"')
    keys: Tuple[str, ...] = secret(
        c.list_of(c.header_value, "a list of keys"), (), "the keys; $VAR takes one from the environment"
    )


@dataclass(frozen=True)
class Server:
    """The side of the clients. Times are in seconds, sizes in bytes."""

    listen_addr: str = key(
        addresses.listen_addr,
        "127.0.0.1:3000",
        "HOST:PORT; beyond this machine only with auth (or --insecure)",
    )
    request_timeout: float = key(
        c.seconds(), 300.0, "longest silence of a provider, in seconds; any byte restarts it"
    )
    connect_timeout: float = key(c.seconds(), 10.0, "seconds for connecting to a provider")
    first_byte_timeout: float = key(c.seconds(), 600.0, "seconds for the beginning of a provider's answer")
    heartbeat_interval: float = key(
        c.seconds(zero=True), 15.0, "send an event after so many seconds without one; 0: never"
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
    max_queue: int = key(c.whole(1), 64, "turns that may wait on one WebSocket")
    allowed_origins: Tuple[str, ...] = key(
        c.list_of(c.text, "a list of origins"), (), 'other sites whose pages may use rproxy; "*": all'
    )
    retries: int = key(c.whole(0), 2, "further attempts while the client has received nothing")
    drain_timeout: float = key(
        c.seconds(zero=True), 30.0, "seconds that running turns may go on when rproxy stops"
    )
    websocket_max_age: float = key(
        c.seconds(), 3600.0, "a WebSocket older than so many seconds accepts no further turns"
    )
    seal_key: str = secret(
        c.seal_key,
        "",
        "what protects encrypted_content: 64 hex digits; default: made once and kept with the store",
    )
    accept_unsealed: bool = key(
        c.boolean, False, "also take encrypted_content of rproxy 0.1, which has no seal; for one release"
    )

    @property
    def is_open(self) -> bool:
        """Can another machine use it without a key?"""
        return not self.auth.enabled and not is_loopback(split_address(self.listen_addr)[0])


def _server(place: Place) -> Server:
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


@dataclass(frozen=True)
class Store:
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
    ttl: float = key(c.seconds(), 86_400.0, "... or after so many seconds")


@dataclass(frozen=True)
class Usage:
    """How tokens are reported to the client."""

    cached_tokens: str = key(
        c.one_of("hit", "sum"),
        "hit",
        "hit: tokens from the cache; sum: hits and misses, as in responses-proxy",
    )


@dataclass(frozen=True)
class Provider:
    """A base_url and a key.

    ``profile``: how this kind of provider behaves for the model; set by :meth:`Model.resolved`.
    ``group``: only its members share turns; set for the providers that several keys become.
    """

    base_url: str = key(
        addresses.base_url,
        REQUIRED,
        "the address before /chat/completions, with /v1 if the provider uses it; or $VAR",
    )
    name: str = key(c.text, "", "its name in messages and metrics; default: from the address")
    api_key: Optional[str] = secret(
        c.header_value, None, "the key, preferably $VAR; leave it out for a server without keys"
    )
    api_keys: Tuple[str, ...] = secret(
        c.list_of(c.header_value, "a list of keys"),
        (),
        "several keys instead of api_key; they share the turns",
    )
    api_key_file: Optional[str] = key(c.file_path, None, "a file with the key, instead of api_key")
    profile_name: Optional[str] = key(
        _profile_name, None, "the kind of provider; default: by address, then by model name", name="profile"
    )
    headers: Mapping[str, str] = secret(
        c.text_map(header_names=True), {}, "further request headers; $VAR works"
    )
    query: Mapping[str, str] = secret(
        c.text_map(header_names=False), {}, "further query parameters; $VAR works"
    )
    ca_file: Optional[str] = key(c.existing_file, None, "certificates to trust (PEM); default: the system's")
    client_cert: Optional[str] = key(c.existing_file, None, "our own certificate (PEM)")
    client_key: Optional[str] = key(c.existing_file, None, "its key (PEM), if that is in a file of its own")
    http_proxy: Optional[str] = secret(
        addresses.proxy, None, 'http://HOST:PORT; "": none; default: HTTPS_PROXY, HTTP_PROXY, NO_PROXY'
    )
    weight: Optional[int] = key(c.whole(1), None, "its share of the turns; without weights, the order counts")
    wire: str = key(
        c.one_of("chat", "responses"),
        "chat",
        "its API: chat (Chat Completions) or responses; default: by the address",
    )
    override: Mapping[str, Any] = key(_overrides, {}, "profile fields for this provider")
    rewrite: Tuple[Rule, ...] = key(
        rewrite_rules, (), "changes to the request before it is sent: set, remove, rename, replace"
    )
    group: str = ""
    profile: Profile = field(default_factory=Profile)

    @cached_property
    def secrets(self) -> Tuple[str, ...]:
        """What no message and no log may contain: the key, and credentials in headers and the query."""
        named = {**self.headers, **self.query}
        extra = [
            value.split()[-1] for name, value in named.items() if value.strip() and _CREDENTIAL.search(name)
        ]
        return tuple(filter(None, (self.api_key, *extra)))


def _provider(place: Place) -> Provider:
    values = c.values_of(Provider, place)
    named = [name for name in ("api_key", "api_keys", "api_key_file") if name in values]
    if len(named) > 1:
        raise place.step(named[1]).error(f"{named[0]!r} is set as well; keep one of them", key=True)
    if "api_key_file" in values:
        values["api_key"] = _key_from(place.step("api_key_file"))
    if "client_key" in values and "client_cert" not in values:
        raise place.step("client_key").error("'client_key' needs 'client_cert'", key=True)
    parts = urlsplit(values["base_url"])
    values["base_url"] = urlunsplit(parts._replace(query=""))
    values["query"] = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **values.get("query", {})}
    values.setdefault("name", row_of_host(values["base_url"]) or addresses.server_name(values["base_url"]))
    values.setdefault("wire", default_wire(values["base_url"]))
    if parts.scheme == "http" and "api_key" in values and addresses.is_public(parts.hostname or ""):
        place.step("base_url").warn("the key travels unencrypted; use https://")
    return Provider(**values)


def _key_from(place: Place) -> str:
    """The key in a file; warns if every user of the machine can read it."""
    try:
        found = c.read_file(place).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise place.error("the file is not text") from None
    if not found:
        raise place.error("the file is empty")
    name = c.file_path(place)
    if os.name == "posix" and os.stat(name).st_mode & stat.S_IROTH:
        place.warn(f"every user of this machine can read this key; to prevent that: chmod o-r {name}")
    return c.sendable(found, place)


def _prompt_file(place: Place) -> str:
    """The path of a file that is not empty: Codex has no substitute for an empty prompt."""
    if not c.read_file(place).strip():
        raise place.error("the file is empty, and would leave the model without a prompt")
    return c.file_path(place)


def _providers(place: Place) -> Tuple[Provider, ...]:
    providers = (
        c.list_of(_provider, at_least=1)(place) if isinstance(place.value, list) else (_provider(place),)
    )
    return tuple(one for provider in providers for one in _by_key(provider))


def _by_key(provider: Provider) -> List[Provider]:
    """A provider with several keys as several providers with one: each key has limits of its own."""
    return [
        replace(
            provider,
            name=f"{provider.name}#{i}",
            api_key=found,
            api_keys=(),
            weight=provider.weight or 1,
            group="" if provider.weight else provider.name,
        )
        for i, found in enumerate(provider.api_keys, 1)
    ] or [provider]


@dataclass(frozen=True)
class Model:
    """What clients ask for, and who answers.

    ``model`` may be a glob (``*`` stands for any text).  :meth:`Config.route` returns such a model with
    ``downstream_model`` filled in; ``model`` is still the glob.  What the file does not say about the model's
    abilities comes from the first provider's profile.
    """

    model: str = key(
        c.text, REQUIRED, 'the name that clients send; "*" or "gpt-*" answers for every name that matches'
    )
    providers: Tuple[Provider, ...] = key(
        _providers, REQUIRED, "who answers: one provider, or a list of them", name="provider"
    )
    downstream_model: str = key(
        c.text, "", "the provider's name for it; default: the name that the client sends"
    )
    display_name: str = key(c.text, "", "the name in menus; default: the model's")
    description: str = key(c.text, "", "one line for menus")
    context_window: Optional[int] = key(
        c.whole(1), None, "tokens; Codex compacts its history in time; default: the profile's"
    )
    max_output_tokens: Optional[int] = key(
        c.whole(1), None, "limit when the client sends none, or a higher one"
    )
    modalities: Tuple[str, ...] = key(
        c.list_of(c.one_of(*MODALITIES)), (), "what it reads; default: the profile's"
    )
    efforts: Tuple[str, ...] = key(
        c.list_of(c.one_of(*EFFORTS)), (), "the reasoning efforts to choose from; default: the profile's"
    )
    instructions_file: Optional[str] = key(_prompt_file, None, "Codex's base prompt; default: rproxy's own")
    override: Mapping[str, Any] = key(_overrides, {}, "profile fields for this model")
    rewrite: Tuple[Rule, ...] = key(
        rewrite_rules, (), "changes to the request for this model, after those of the provider"
    )

    @property
    def is_glob(self) -> bool:
        return "*" in self.model

    def resolved(self, requested: str) -> Model:
        """This model for requests that name ``requested``: with downstream name, profiles, and what follows
        from them.
        """
        downstream = self.downstream_model or requested
        own = {name: getattr(self, name) for name in ("modalities", "context_window") if getattr(self, name)}

        def resolved_provider(p: Provider) -> Provider:
            overrides = (p.override, self.override, own)
            profile = choose_profile(p.profile_name, p.base_url, downstream, *overrides, wire=p.wire)
            return replace(p, rewrite=p.rewrite + self.rewrite, profile=profile)

        providers = tuple(map(resolved_provider, self.providers))
        profile = providers[0].profile
        return replace(
            self,
            providers=providers,
            downstream_model=downstream,
            display_name=self.display_name or requested,
            context_window=profile.context_window,
            modalities=profile.modalities,
            rewrite=(),
        )


def _model(place: Place) -> Model:
    model = Model(**c.values_of(Model, place))
    return model if model.is_glob else model.resolved(model.model)


def _models(place: Place) -> Tuple[Model, ...]:
    models = c.list_of(_model, "a list of models", at_least=1)(place)
    for i, model in enumerate(models):
        first = [m.model for m in models].index(model.model)
        if first != i:
            line = place.document.place(place.path + (first, "model"))[0]
            text = (
                f"the model {model.model!r} is in line {line} already; for several providers, give one model "
            )
            raise place.step(i).step("model").error(text + "a list under 'provider'")
    return models


@dataclass(frozen=True)
class Config:
    """A whole configuration.

    ``path``: of its file, if there is one.  ``warnings``: for the user, at the start.
    """

    models: Tuple[Model, ...] = key(_models, REQUIRED, "the models, at least one")
    server: Server = key(_server, Server(), "the side of the clients")
    store: Store = key(_store, Store(), "where responses are kept for previous_response_id")
    usage: Usage = key(c.section(Usage), Usage(), "how tokens are reported to the client")
    path: Optional[str] = None
    warnings: Tuple[str, ...] = ()

    @property
    def secrets(self) -> Tuple[str, ...]:
        """What the log must not contain: the keys of clients, of providers and of rproxy itself."""
        own = (self.server.seal_key,) if self.server.seal_key else ()
        return (
            *self.server.auth.keys,
            *own,
            *(s for m in self.models for p in m.providers for s in p.secrets),
        )

    @cached_property
    def _routes(self) -> Routes:
        return Routes(self.models)

    def route(self, name: str) -> Optional[Model]:
        """The model that answers for ``name``, or None; see :mod:`rproxy.config.routes`."""
        return self._routes.find(name)
