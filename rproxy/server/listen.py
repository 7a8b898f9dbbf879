"""The address that the server listens on: whether it may, the sockets, and the URL for clients."""

from __future__ import annotations

import errno
import socket
from typing import Dict, List

from tornado.netutil import bind_sockets

from ..config.addresses import is_loopback, split_address
from ..config.schema import Config
from ..errors import ConfigError

BACKLOG = 1024

# errno -> why the address cannot be used, and what to do
BIND_REASONS: Dict[int, str] = {
    errno.EADDRINUSE: "another program uses this port; stop it, or choose another port with --listen",
    errno.EACCES: "ports below 1024 need privileges; choose a higher one with --listen",
    errno.EADDRNOTAVAIL: (
        "this machine has no such address; use 127.0.0.1, or the address of one of its interfaces"
    ),
}


def check_exposure(config: Config, insecure: bool) -> None:
    """Refuse to offer the provider's key to a network.

    :param insecure: the user accepts the risk
    :raises ConfigError: without authentication the address must be loopback
    """
    address = config.server.listen_addr
    host, port = split_address(address)
    if config.server.auth.enabled or insecure or is_loopback(host):
        return
    raise ConfigError(
        f"server.listen_addr is {address} and authentication is off: everyone who can reach this address "
        "could use your provider's key. Set server.auth (enabled: true, keys: [...]), or listen on "
        f"127.0.0.1:{port}, or start with --insecure if the network itself keeps strangers out."
    )


def listen(address: str, reuse_port: bool = False) -> List[socket.socket]:
    """Open listening sockets.

    :param address: ``HOST:PORT``; port 0 takes a free one
    :param reuse_port: share the port with other processes that do the same; the kernel assigns connections
    :raises ConfigError: the address cannot be used; the text says what to do
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError(
            "--reuse-port: on this system processes cannot share a port; give each its own with --listen."
        )
    host, port = split_address(address)
    try:
        return bind_sockets(port, host or None, backlog=BACKLOG, reuse_port=reuse_port)
    except socket.gaierror as error:
        raise ConfigError(
            f"server.listen_addr: the host of {address!r} cannot be resolved ({error.strerror})."
        ) from error
    except OSError as error:
        reason = BIND_REASONS.get(error.errno or 0, error.strerror)
        raise ConfigError(f"server.listen_addr: cannot listen on {address}: {reason}.") from error


def url_of(sockets: List[socket.socket]) -> str:
    """The base URL of the first socket, as a client on this machine would write it."""
    host, port = sockets[0].getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
