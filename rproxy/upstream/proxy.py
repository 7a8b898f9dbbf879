"""Which HTTP proxy to use for a URL, and how to ask it for a tunnel.  No I/O here; see :mod:`.connect`.

The variables are those on which curl, Python's urllib and Go agree: ``https_proxy``/``HTTPS_PROXY`` for
https, ``http_proxy``/``HTTP_PROXY`` for http, ``all_proxy``/``ALL_PROXY`` for both.  Lower case wins.
``no_proxy``/``NO_PROXY`` lists hosts that are reached directly.  As in Go, loopback addresses never go
through a proxy of the environment: that is never meant for a local model server.  HTTP_PROXY in upper case is
ignored where a CGI gateway could have set it from a ``Proxy:`` request header (httpoxy.org).
"""

from __future__ import annotations

import ipaddress
from typing import Mapping, NamedTuple, Optional, Union
from urllib.parse import unquote, urlsplit

from ..config.addresses import basic_credentials, is_loopback
from ..errors import ConfigError

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_BY_SCHEME = {"https": ("https_proxy", "all_proxy"), "http": ("http_proxy", "all_proxy")}
_DEFAULT_PORTS = {"https": 443, "http": 80}


class Proxy(NamedTuple):
    """An HTTP proxy.  ``username`` is None if it needs no credentials."""

    host: str
    port: int
    username: Optional[str] = None
    password: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def authorization(self) -> Mapping[str, str]:
        """The header with the credentials or no header."""
        if self.username is None:
            return {}
        return {"Proxy-Authorization": basic_auth(self.username, self.password)}


def basic_auth(username: str, password: str) -> str:
    """The value of an Authorization header for basic authentication (RFC 7617)."""
    return "Basic " + basic_credentials(username, password)


def find_proxy(url: str, environ: Mapping[str, str], explicit: Optional[str] = None) -> Optional[Proxy]:
    """The proxy for a request to ``url``, or None to go directly.

    :param explicit: the configured proxy URL, which takes precedence over the environment and NO_PROXY;
        ``""`` for no proxy at all
    :raises ConfigError: the proxy URL cannot be used; the text names the variable
    """
    if explicit is not None:
        return parse_proxy(explicit, "http_proxy") if explicit else None
    target = urlsplit(url)
    host, port = (target.hostname or "").rstrip("."), target.port or _DEFAULT_PORTS.get(target.scheme, 0)
    if target.scheme not in _BY_SCHEME or is_loopback(host):
        return None
    for name in _BY_SCHEME[target.scheme]:
        value = _variable(environ, name)
        if value:
            return (
                None
                if bypasses(_variable(environ, "no_proxy"), host, port)
                else parse_proxy(value, name.upper())
            )
    return None


def _variable(environ: Mapping[str, str], name: str) -> str:
    if name in environ:
        return environ[name].strip()
    forged = name == "http_proxy" and "REQUEST_METHOD" in environ
    return "" if forged else environ.get(name.upper(), "").strip()


def parse_proxy(value: str, source: str) -> Proxy:
    """Read ``[http://][user:password@]host[:port]``.

    :param source: what to call it in an error
    :raises ConfigError: it cannot be used; the text shows no credentials
    """
    try:
        parts = urlsplit(value if "://" in value else "http://" + value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{source}: not a proxy URL; use http://host:port") from None
    if parts.scheme != "http" or not host:
        raise ConfigError(f"{source}: {parts.scheme}:// is not supported for a proxy; use http://host:port")
    username = None if parts.username is None else unquote(parts.username)
    return Proxy(host, port or 80, username, unquote(parts.password or ""))


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Is this host in the list ``no_proxy``?

    Entries are separated by commas or spaces.  An entry is ``*``, a host (for itself and every name below it,
    with or without a leading ``.`` or ``*.``), an IP address, or a network in CIDR notation.  A host or an
    address may end in ``:port``.
    """
    address = _address(host)
    entries = no_proxy.lower().replace(",", " ").split()
    return any(_matches(entry, host.lower(), address, port) for entry in entries)


def _matches(entry: str, host: str, address: Optional[IPAddress], port: int) -> bool:
    if entry == "*":
        return True
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name = entry
    # [::1]:443, host:443 or [::1]; an IPv6 address without brackets has no port
    if entry.startswith("[") or entry.count(":") == 1:
        name, _, wanted = entry.rpartition(":") if not entry.endswith("]") else (entry, "", "")
        if wanted and wanted != str(port):
            return False
        name = name.strip("[]")
    if address is not None:
        return _address(name) == address
    name = (name[1:] if name.startswith("*.") else name).strip(".")
    return bool(name) and (host == name or host.endswith("." + name))


def _address(host: str) -> Optional[IPAddress]:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def connect_request(host: str, port: int, proxy: Proxy) -> bytes:
    """The CONNECT request (RFC 9110 section 9.3.6) that asks ``proxy`` for a tunnel to ``host``:``port``."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = {"Host": target, **proxy.authorization()}
    lines = [f"CONNECT {target} HTTP/1.1"] + [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines + ["", ""]).encode("ascii")


def refusal(status: int, reason: str, proxy: Proxy) -> str:
    """Why the proxy did not open the tunnel, and what to do about it."""
    text = f"the proxy {proxy} refused the tunnel: {status} {reason}"
    if status == 407:
        text += "; it needs a user name and a password: write http://user:password@host:port"
    return text
