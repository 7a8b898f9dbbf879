"""The addresses in a configuration: of rproxy itself, of providers and of proxies."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Tuple
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import ConfigError
from . import checks as c
from .checks import Place


def split_address(address: str) -> Tuple[str, int]:
    """The host and the port of ``HOST:PORT``; the host is "" for all interfaces.

    :param address: with an IPv6 address in brackets
    :raises ConfigError: it has another form
    """
    host, colon, port = address.strip().rpartition(":")
    host = host.strip("[]") if host.startswith("[") else host
    if not colon or not port.isdigit() or int(port) > 65535 or (":" in host and "[" not in address):
        raise ConfigError(
            f"server.listen_addr: {address!r} is not HOST:PORT; write for example 127.0.0.1:3000, [::1]:3000 "
            "or 0.0.0.0:3000"
        )
    return ("" if host == "*" else host), int(port)


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


def listen_addr(place: Place) -> str:
    value = str(place.value) if type(place.value) is int else c.reference(place)
    try:
        if split_address(value)[0] or value.startswith("*"):
            return value
    except ConfigError:
        pass  # explained below
    port = re.fullmatch(r":?(\d{1,5})", value)
    if port:
        raise place.error(
            f"has no host; write 127.0.0.1:{port[1]} (this machine only) or 0.0.0.0:{port[1]} "
            "(all interfaces)"
        )
    if "://" in value:
        raise place.error("must be HOST:PORT without http://, for example 127.0.0.1:3000")
    if value.count(":") > 1 and "[" not in value:
        raise place.error('needs brackets around an IPv6 address, for example "[::1]:3000"')
    raise place.error("must be HOST:PORT with a port from 0 to 65535, for example 127.0.0.1:3000")


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
    return urlunsplit(
        (
            parts.scheme,
            parts.netloc,
            re.sub(r"(/+chat/completions|/+responses|/)*$", "", parts.path),
            parts.query,
            "",
        )
    )


def proxy(place: Place) -> str:
    if place.value == "":
        return ""
    value = c.sendable(c.reference(place), place)
    if not re.fullmatch(r"http://([^\s/@]+@)?(\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+):\d{1,5}/?", value):
        raise place.error("must be http://HOST:PORT (or http://USER:PASSWORD@HOST:PORT)")
    return value


def server_name(url: str) -> str:
    """The default name of a provider: its host and port, or the path of its socket."""
    return unquote(urlsplit(url).netloc)


def is_public(host: str) -> bool:
    """Is this host on the internet? Judged by its address, or by the form of its name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return "." in host and not re.search(r"\.(local|localhost|internal|lan|home|test|svc|cluster)$", host)
