"""The keys of a provider; see :mod:`rproxy.config.schema`."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import field, replace
from functools import cached_property
from typing import Any, List, Mapping, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from ..convert.profile import FieldError, Profile
from ..convert.request.rewrite import Rule
from ..errors import ConfigError
from ..log import LONG, names_credential
from ..providers.profiles import default_wire, row_name, row_of_host
from ..types import light_dataclass
from . import addresses
from . import checks as c
from .addresses import url_secrets
from .checks import REQUIRED, Place, key, secret

WIRES = ("chat", "responses")  # the APIs that providers speak
# Headers and query parameters whose values are not secret.
_PUBLIC = frozenset(
    (
        "accept", "accept-language", "api-version", "cache-control", "connection", "content-type",
        "copilot-integration-id", "editor-plugin-version", "editor-version", "http-referer", "openai-intent",
        "origin", "referer", "user-agent", "x-initiator", "x-title", "anthropic-version", "anthropic-beta",
        "openai-beta",
    )
)  # fmt: skip
_DUMMIES = ("lm-studio", "not-needed", "no-key-needed", "dummy-key")  # keys for servers without keys


def _profile_name(place: Place) -> str:
    try:
        return row_name(c.text(place))
    except ConfigError as error:
        raise place.error(str(error)) from None


def read_overrides(place: Place) -> Mapping[str, Any]:
    try:
        Profile().override(c.any_mapping(place))
    except FieldError as error:
        raise place._replace(path=place.path + error.path).error(error.text, key=error.unknown) from None
    data: Mapping[str, Any] = place.value
    return data


@light_dataclass(frozen=True)
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
        c.one_of(*WIRES), "chat", "its API: chat (Chat Completions) or responses; default: by the address"
    )
    override: Mapping[str, Any] = key(read_overrides, {}, "profile fields for this provider")
    rewrite: Tuple[Rule, ...] = key(
        c.later("rewrite_rules", "rewrite_rules"),
        (),
        "changes to the request before it is sent: set, remove, rename, replace",
    )
    group: str = ""
    profile: Profile = field(default_factory=Profile)

    @cached_property
    def secrets(self) -> Tuple[str, ...]:
        """Texts that no message and no log may contain: the key, the values of headers and of the query
        unless they are public, and the credentials of the proxy.
        """
        profile = self.profile
        named = {
            name: value
            for name, value in {**profile.headers, **profile.query}.items()
            if names_credential(name)
        }
        named.update({**self.headers, **self.query})
        values = [form for name, value in named.items() for form in secret_forms(name, value)]
        found = filter(None, (self.api_key, *values, *url_secrets(self.http_proxy or "")))
        return tuple(secret for secret in dict.fromkeys(found) if secret not in (self.name, *_DUMMIES))


def secret_forms(name: str, value: str) -> List[str]:
    """The secret forms of a header or a query parameter: its value, and parts that work as credentials by
    themselves, such as a token without its scheme and the values of cookies.
    """
    if name.lower() in _PUBLIC or not value.strip():
        return []
    forms, least = [value.strip(), value.rsplit(maxsplit=1)[-1]], LONG
    if names_credential(name):
        forms += [part for part in re.split(r"[\s;,=&]+", value) if len(part) >= LONG]
        least = 0
    return [form for form in forms if len(form) >= least]


def _provider(place: Place) -> Provider:
    mistakes, file_key = c.Mistakes(), {}
    with mistakes.collected():
        values = c.values_of(Provider, place)
    with mistakes.collected():
        _check_combination(place)
        if isinstance(place.value, dict) and place.value.get("api_key_file") is not None:
            file_key = {"api_key": _key_from(place.step("api_key_file"))}
    mistakes.check()
    values.update(file_key)
    parts = urlsplit(values["base_url"])
    values["base_url"] = urlunsplit(parts._replace(query=""))
    values["query"] = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **values.get("query", {})}
    values.setdefault("name", row_of_host(values["base_url"]) or addresses.server_name(values["base_url"]))
    values.setdefault("wire", default_wire(values["base_url"]))
    if parts.scheme == "http" and "api_key" in values and addresses.is_public(parts.hostname or ""):
        place.step("base_url").warn("the key travels unencrypted; use https://")
    return Provider(**values)


def _check_combination(place: Place) -> None:
    """:raises ConfigError: if keys exclude each other, or one needs another"""
    entries = place.value if isinstance(place.value, dict) else {}
    given = [name for name, value in entries.items() if value is not None]
    named = [name for name in ("api_key", "api_keys", "api_key_file") if name in given]
    if len(named) > 1:
        raise place.step(named[1]).error(f"{named[0]!r} is set as well; keep one of them", key=True)
    if "client_key" in given and "client_cert" not in given:
        raise place.step("client_key").error("'client_key' needs 'client_cert'", key=True)


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


def read_providers(place: Place) -> Tuple[Provider, ...]:
    providers = (
        c.list_of(_provider, at_least=1)(place) if isinstance(place.value, list) else (_provider(place),)
    )
    return tuple(one for provider in providers for one in _by_key(provider))


def _by_key(provider: Provider) -> List[Provider]:
    """A provider with several keys as several providers with one key each: each key has its own limits."""
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
