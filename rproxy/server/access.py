"""Who may use the proxy: API keys, browser origins, host names.

Three questions, asked about every request before its body is read, and about every WebSocket handshake:

* Is the key right?  Only when authentication is on.  Its digest is compared with that of every configured key
  in constant time, so that timing reveals nothing.
* Does the request come from a foreign web page?  Browsers say so in ``Origin``.  A page must not be able to
  spend the provider's key through a proxy on the visitor's own machine, so a request that changes something
  needs an origin that is loopback, this very host, or listed.
* Is the host name one of the proxy's own?  A page can point a name of its own at 127.0.0.1 (DNS rebinding)
  and then counts as the same host.  So without keys, a request on a local address (loopback, or a Unix
  socket) is answered only for loopback names and listed hosts.  With authentication the page would need a
  key, and a reverse proxy on the same machine may send any ``Host``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Callable, FrozenSet, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ..config.addresses import ListenAddress, is_loopback
from ..config.schema import Key
from ..errors import forbidden, unauthorized

MAX_HOST = 270  # characters; no name and address, with a port, is longer
KEY_HEADERS = ("api-key", "x-api-key")  # of SDKs for Azure, and for other APIs
_SEPARATOR = re.compile(r"[\s,]+")  # Tornado joins repeated headers with commas; RFC 6454 has spaces


def _netloc_of(origin: str) -> str:
    """The host and port of an origin."""
    _, found, netloc = origin.partition("//")
    return netloc if found else origin


@lru_cache(maxsize=256)
def hostname(netloc: str) -> str:
    """The host in ``HOST`` or ``HOST:PORT``, in lower case; "" if there is none."""
    if len(netloc) > MAX_HOST:
        return ""
    try:
        return urlsplit("//" + netloc).hostname or ""
    except ValueError:
        return ""


class Access:
    """The rules of one server.

    :param keys: the accepted API keys, or None when authentication is off
    :param origins: listed origins (``https://chat.example.com``), host names, or ``*``
    :param addresses: those that the server listens on, with their actual ports
    :param now: seconds since the epoch
    """

    def __init__(
        self,
        keys: Optional[Sequence[Key]],
        origins: Sequence[str],
        addresses: Sequence[ListenAddress],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys: Optional[List[Tuple[bytes, Key]]] = None
        if keys is not None:
            self._keys = [(bytes.fromhex(key.digest), key) for key in keys]
        self._now = now
        self._origins: FrozenSet[str] = frozenset(origin.lower().rstrip("/") for origin in origins)
        names = [hostname(origin.rpartition("//")[2]) for origin in self._origins]
        names += [address.host.lower() for address in addresses]
        self._hosts = frozenset(name for name in names if name)
        self._guard_host = self._keys is None and "*" not in self._origins
        self._open_ports = frozenset(address.port for address in addresses if address.is_wildcard)

    def key(self, headers: Mapping[str, str]) -> Optional[Key]:
        """The key of a request, from ``Authorization: Bearer`` or one of :data:`KEY_HEADERS`.

        :param headers: those of the request, whose names are looked up in any case
        :returns: the client's key, or None when authentication is off
        :raises ApiError: 401
        """
        if self._keys is None:
            return None
        scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
        tokens = [
            token if scheme.lower() == "bearer" else "",
            *(headers.get(name, "") for name in KEY_HEADERS),
        ]
        token = next((one.strip() for one in tokens if one.strip()), "")
        if not token:
            raise unauthorized(
                "This proxy requires an API key: send the header 'Authorization: Bearer KEY' "
                "with one of the keys in server.auth.keys."
            )
        given = hashlib.sha256(token.encode("latin-1", "replace")).digest()  # Tornado decodes them as Latin-1
        found = [key for digest, key in self._keys if hmac.compare_digest(digest, given)]
        if not found:
            raise unauthorized("The API key is not one of this proxy's keys (server.auth.keys).")
        if found[0].expires is not None and found[0].expires <= self._now():
            end = datetime.fromtimestamp(found[0].expires, timezone.utc)
            raise unauthorized(
                f"The API key '{found[0].name}' expired at {end:%Y-%m-%d %H:%M} UTC. Ask whoever runs this "
                "proxy for a new one."
            )
        return found[0]

    def listed(self, origin: str) -> bool:
        """Does the configuration list this origin?  Its pages get CORS headers."""
        origin = origin.lower()
        return (
            "*" in self._origins or origin in self._origins or hostname(_netloc_of(origin)) in self._origins
        )

    def check_origin(self, origin: Optional[str], host: str) -> None:
        """Refuse a foreign web page.

        :param origin: the header of that name, or None; of several, all must pass
        :param host: the Host header
        :raises ApiError: 403
        """
        if origin is None:
            return
        for one in _SEPARATOR.split(origin.strip()):
            netloc = _netloc_of(one.lower())
            if not (netloc == host.lower() or is_loopback(hostname(netloc)) or self.listed(one)):
                raise forbidden(
                    f"Web pages from {one[:200]!r} may not use this proxy. "
                    "To allow them, add the origin to server.allowed_origins."
                )

    def check_host(self, host: str, sockname: Callable[[], Any]) -> None:
        """Refuse a host name that is not the proxy's own; see the module docstring.

        :param host: the Host header
        :param sockname: gives our end of the connection, as ``socket.getsockname`` does
        :raises ApiError: 403
        """
        name = hostname(host.lower())
        if not host or not self._guard_host or is_loopback(name) or name in self._hosts:
            return
        if self._came_in_locally(sockname()):
            raise forbidden(
                f"{host!r} is not a name of this proxy, which listens on a local address without API keys. "
                "Use 127.0.0.1, or add the name to server.allowed_origins."
            )

    def _came_in_locally(self, sockname: Any) -> bool:
        if not isinstance(sockname, tuple):
            return True  # a Unix socket
        return is_loopback(sockname[0]) and sockname[1] not in self._open_ports
