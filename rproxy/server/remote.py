"""The address of the client, also behind reverse proxies.

A reverse proxy adds the address that it sees to the end of ``X-Forwarded-For``.  Everything before that may
be made up by the client, so the entries are read from the end, and only as long as each was written by a
proxy that ``server.trusted_proxies`` names.
"""

from __future__ import annotations

import ipaddress
from typing import Sequence

UNIX = "unix"  # the peer of a Unix socket
PROXY_HEADERS = ("Forwarded", "Via", "X-Real-Ip")  # that proxies add, besides X-Forwarded-*


class TrustedProxies:
    """The reverse proxies that are trusted.

    :param networks: addresses and CIDR blocks; ``unix`` for peers on a Unix socket
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._unix = UNIX in networks
        self._networks = [ipaddress.ip_network(name, strict=False) for name in networks if name != UNIX]

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """The address of the client.

        :param peer: the other end of the connection
        :param forwarded: the values of X-Forwarded-For, in the order of the headers
        """
        if not forwarded or not (self._networks or self._unix):
            return peer
        entries = [entry.strip() for value in forwarded for entry in value.split(",")]
        client = peer
        while entries and self._trusts(client):
            address = _address(entries.pop())
            if not address:
                break  # the proxy does not know it
            client = address
        return client

    def _trusts(self, address: str) -> bool:
        if not address:
            return False
        if address == UNIX:
            return self._unix
        ip = ipaddress.ip_address(address)
        mapped = getattr(ip, "ipv4_mapped", None)
        return any((mapped or ip) in network for network in self._networks)


def _address(entry: str) -> str:
    """The address of an entry, which may have a port; "" if it has none."""
    host = entry
    if entry.startswith("["):
        host = entry[1:].partition("]")[0]
    elif entry.count(":") == 1:
        host = entry.partition(":")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""
