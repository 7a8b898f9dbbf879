"""The addresses in a configuration: of rproxy itself, of providers and of proxies."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from functools import lru_cache
from typing import Mapping, NamedTuple, Tuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from ..log import LONG
from . import checks as c
from .checks import Place

UNIX = "unix:"
MAX_SOCKET_PATH = 103  # bytes; Linux has four more
_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291, section 2.4: what is on the internet of IPv6
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 addresses behind a translator
_ENDPOINTS = ("/chat/completions", "/responses")  # which are not part of a base URL
_HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^:\[\]\s/]*)):(?P<port>[0-9]{1,5})")


class ListenAddress(NamedTuple):
    """Where rproxy listens: a host and a port, or the path of a Unix socket.

    ``host`` is "" for all interfaces.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_local(self) -> bool:
        """Can only this machine reach it?  A Unix socket is protected by the mode of its file."""
        return bool(self.path) or is_loopback(self.host)

    @property
    def is_wildcard(self) -> bool:
        """Does it listen on all interfaces of the machine?"""
        return not self.path and self.host in ("", "0.0.0.0", "::")

    def url(self, tls: bool) -> str:
        """The base URL, as a client on this machine would write it; of a Unix socket, its address."""
        if self.path:
            return str(self)
        local = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{'https' if tls else 'http'}://{self._replace(host=local)}"

    def __str__(self) -> str:
        if self.path:
            return UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host or '*'}:{self.port}"


def parse_listen_address(text: str) -> ListenAddress:
    """Read ``HOST:PORT``, ``:PORT`` (all interfaces, like ``*:PORT``) or ``unix:PATH``.

    :param text: with an IPv6 address in brackets
    :raises ValueError: it has another form; the message completes "the address ..."
    """
    text = text.strip()
    if text.startswith(UNIX):
        return ListenAddress(path=_socket_path(text[len(UNIX) :]))
    match = _HOST_AND_PORT.fullmatch(text)
    if match and int(match["port"]) <= 65535:
        host = match["v6"] or match["host"]
        return ListenAddress("" if host == "*" else host, int(match["port"]))
    if text.isdigit():
        raise ValueError(
            f"has no host; write 127.0.0.1:{text} (this machine only) or 0.0.0.0:{text} (all interfaces)"
        )
    if "://" in text:
        raise ValueError("must be HOST:PORT without http://, for example 127.0.0.1:3000")
    if text.count(":") > 1 and "[" not in text:
        raise ValueError('needs brackets around an IPv6 address, for example "[::1]:3000"')
    raise ValueError("must be HOST:PORT with a port from 0 to 65535, for example 127.0.0.1:3000")


def _socket_path(path: str) -> str:
    if not os.path.isabs(path):
        raise ValueError(
            "must name a Unix socket by an absolute path, for example unix:/run/rproxy/rproxy.sock"
        )
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(f"is longer than the path of a Unix socket may be ({MAX_SOCKET_PATH} bytes)")
    return path


def network(place: Place) -> str:
    """An address, a CIDR block, or ``unix`` for the peers of a Unix socket."""
    text = c.text(place).strip()
    if text != "unix":
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise place.error(
                f"{text!r} is not an address; write for example 127.0.0.1, 10.0.0.0/8, or unix for those who "
                "connect through a Unix socket"
            ) from None
    return text


@lru_cache(maxsize=16)  # few, because clients choose the names
def is_loopback(host: str) -> bool:
    """Is this a name or an address of this machine only?"""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def listen_addresses(place: Place) -> Tuple[ListenAddress, ...]:
    """One address, or a list of distinct ones."""
    if not isinstance(place.value, list):
        return (_listen_address(place),)
    addresses = c.list_of(_listen_address, "an address or a list of them", at_least=1)(place)
    for i, address in enumerate(addresses):
        if address in addresses[:i] and (address.path or address.port):
            raise place.step(i).error(f"{address} is in the list already")
    return addresses


def _listen_address(place: Place) -> ListenAddress:
    text = str(place.value) if type(place.value) is int else c.text(place).strip()
    if text.startswith(UNIX):
        text = UNIX + c.file_path(place._replace(value=text[len(UNIX) :]))
    else:
        text = c.reference(place._replace(value=text))
    try:
        return parse_listen_address(text)
    except ValueError as error:
        raise place.error(str(error)) from None


def socket_mode(place: Place) -> int:
    """The mode of a Unix socket: octal digits.

    YAML reads 0660 as the number 432, and 660 as 660.  Both mean the same here, because the owner must be
    able to read and write, and such modes look different in the two forms.
    """
    digits = f"{place.value:o}" if type(place.value) is int and place.value <= 0o777 else str(place.value)
    if isinstance(place.value, bool) or not re.fullmatch("(0o?)?[67][0-7]{2}", digits):
        raise place.error('must be a mode in which the owner may read and write, for example "0660"')
    return int(digits[-3:], 8)


def base_url(place: Place) -> str:
    """The address without a final slash, ``/chat/completions`` or ``/responses``.

    ``/v1`` is never added, because some providers do not use it.
    """
    value = c.sendable(c.reference(place), place)
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 -- raises for a wrong one
    except ValueError as error:
        raise place.error(f"is not a URL: {error}") from None
    if parts.scheme == "http+unix":
        if not re.fullmatch(r"%2[Ff][^\s/?#@:\[\]]+", parts.netloc):
            raise place.error(
                "must name the socket with %2F for each slash, for example http+unix://%2Frun%2Fllm.sock/v1"
            )
    elif parts.scheme not in ("http", "https") or not parts.hostname or " " in value:
        raise place.error(
            "must be a URL such as https://api.example.com/v1 (with http:// or https://, and with a host)"
        )
    if parts.username is not None or parts.fragment:
        raise place.error("must not have a user, a password or a #; the key belongs in api_key")
    path = parts.path.rstrip("/")
    while path.endswith(_ENDPOINTS):
        endpoint = next(one for one in _ENDPOINTS if path.endswith(one))
        path = path[: -len(endpoint)].rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def proxy(place: Place) -> str:
    if place.value == "":
        return ""
    value = c.sendable(c.reference(place), place)
    if not re.fullmatch(r"http://([^\s/@]+@)?(\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+):\d{1,5}/?", value):
        raise place.error("must be http://HOST:PORT (or http://USER:PASSWORD@HOST:PORT)")
    return value


PROXY_VARIABLES = ("https_proxy", "http_proxy", "all_proxy")  # also in upper case


def basic_credentials(username: str, password: str) -> str:
    """User name and password as basic authentication sends them (RFC 7617)."""
    return base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def url_secrets(url: str) -> Tuple[str, ...]:
    """The credentials in the URL of a proxy or a store, in every form in which others may repeat them."""
    try:
        parts = urlsplit(url if "://" in url else "http://" + url)
        given = (parts.username or "", parts.password or "")
    except ValueError:
        return ()
    username, password = map(unquote, given)
    options = dict(parse_qsl(parts.query))
    names = [name for name in (given[0], username, options.get("username", "")) if len(name) >= LONG]
    basic = basic_credentials(username, password) if any(given) else ""
    return tuple(filter(None, (given[1], password, options.get("password"), basic, *names)))


def proxy_secrets(environ: Mapping[str, str]) -> Tuple[str, ...]:
    """The credentials of the proxies that the environment names."""
    names = [form for name in PROXY_VARIABLES for form in (name, name.upper())]
    return tuple(secret for name in names for secret in url_secrets(environ.get(name, "")))


def server_name(url: str) -> str:
    """The default name of a provider: its host and port, or the path of its socket."""
    return unquote(urlsplit(url).netloc)


def is_public_address(text: str) -> bool:
    """Is this address on the internet?  An IPv6 address that embeds an IPv4 address counts as that one.

    :raises ValueError: it is not an address
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public_address(str(inner))
        if address not in _UNICAST:
            return False  # site-local and IPv4-compatible addresses count as global elsewhere
    return address.is_global and not address.is_multicast


def is_public(host: str) -> bool:
    """Is this host on the internet, judging by its address or by the form of its name?"""
    try:
        return is_public_address(host)
    except ValueError:
        return "." in host and not re.search(r"\.(local|localhost|internal|lan|home|test|svc|cluster)$", host)
