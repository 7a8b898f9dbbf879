"""Which HTTP proxy leads to a URL, and how to ask it for a tunnel. Text and bytes only; ``dial`` moves them.

The variables are those that curl, Python's urllib and Go agree on: ``https_proxy``/``HTTPS_PROXY`` for https,
``http_proxy``/ ``HTTP_PROXY`` for http, ``all_proxy``/``ALL_PROXY`` for both; the lower case name wins.
``no_proxy``/``NO_PROXY`` lists hosts that are reached directly.  As in Go, loopback addresses never go
through a proxy of the environment: nobody means that for a local model server.  HTTP_PROXY in capitals is
ignored where a CGI gateway could have set it from a ``Proxy:`` request header (httpoxy.org).
"""

from __future__ import annotations

import base64
import ipaddress
from typing import Mapping, NamedTuple, Optional, Union
from urllib.parse import unquote, urlsplit

from ..config.addresses import is_loopback
from ..errors import ConfigError

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_BY_SCHEME = {"https": ("https_proxy", "all_proxy"), "http": ("http_proxy", "all_proxy")}
_DEFAULT_PORTS = {"https": 443, "http": 80}


class Proxy(NamedTuple):
    """An HTTP proxy: its address, and the credentials it wants or None."""

    host: str
    port: int
    username: Optional[str] = None
    password: str = ""

    def authorization(self) -> Mapping[str, str]:
        """The header that logs in to the proxy or no header."""
        if self.username is None:
            return {}
        return {"Proxy-Authorization": basic_auth(self.username, self.password)}


def basic_auth(username: str, password: str) -> str:
    """The value of an Authorization header for basic authentication (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def find_proxy(url: str, environ: Mapping[str, str], explicit: Optional[str] = None) -> Optional[Proxy]:
    """The proxy for a request to ``url``, or None to go directly.

    :arg explicit: the configured proxy URL, which beats the environment and NO_PROXY; ``""`` means no proxy
        at all.
    :raises ConfigError: the proxy URL cannot be used; the text names the variable.
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

    :raises ConfigError: naming ``source``, never showing credentials
    """
    try:
        parts = urlsplit(value if "://" in value else "http://" + value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{source}: not a proxy URL; use http://host:port") from None
    if parts.scheme != "http" or not host:
        raise ConfigError(
            "{}: a proxy of the kind {!r} is not supported; use http://host:port".format(
                source, parts.scheme + "://"
            )
        )
    username = None if parts.username is None else unquote(parts.username)
    return Proxy(host, port or 80, username, unquote(parts.password or ""))


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Does the list ``no_proxy`` name this host?

    Entries are separated by commas or blanks: ``*``, a host (it and every name below it, with or without a
    leading ``.`` or ``*.``), an IP address, a network in CIDR form; a host or address may end in ``:port``.
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
    if (
        entry.startswith("[") or entry.count(":") == 1
    ):  # [::1]:443, host:443, [::1]; a bare IPv6 address has no port
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
    lines = [f"CONNECT {target} HTTP/1.1"] + ["{}: {}".format(*header) for header in headers.items()]
    return "\r\n".join(lines + ["", ""]).encode("ascii")


def refusal(status: int, reason: str, proxy: Proxy) -> str:
    """Says in one sentence that the proxy did not open the tunnel, and what to do about it."""
    text = f"the proxy {proxy.host}:{proxy.port} refused the tunnel: {status} {reason}"
    if status == 407:
        text += "; it wants a user name and a password: write http://user:password@host:port"
    return text
