"""The addresses that the server listens on: whether they are safe, their sockets, and their names.

A Unix socket is a file.  A stale one is replaced, one that is in use is not; the file is removed when the
listener closes, unless another process has put its own there in the meantime.  It is created without any
access for others, so there is no moment in which its mode is wider than ``server.socket_mode``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Sequence

from tornado.netutil import bind_sockets

from ..config.addresses import ListenAddress
from ..config.schema import Config, Server
from ..errors import AddressInUse, ConfigError

BACKLOG = 1024
PRIVATE = 0o177  # umask

# errno -> why the address cannot be used, and what to do
BIND_REASONS: Dict[int, str] = {
    errno.EADDRINUSE: "another program uses this port; stop it, or choose another port with --listen",
    errno.EACCES: "ports below 1024 need privileges; choose a higher one with --listen",
    errno.EADDRNOTAVAIL: (
        "this machine has no such address; use 127.0.0.1, or the address of one of its interfaces"
    ),
}
SOCKET_FILE_REASONS: Dict[int, str] = {
    errno.ENOENT: "its folder does not exist; create it (systemd does with RuntimeDirectory=)",
    errno.EACCES: "this user may not create files in its folder",
    errno.EADDRINUSE: "another program listens on it; stop it, or choose another path",
    errno.EEXIST: "a file with this name exists, and is not a socket; remove it, or choose another path",
}


class Listener(NamedTuple):
    """A listening socket, and its address with the actual port."""

    socket: socket.socket
    address: ListenAddress


def listener_of(sock: socket.socket) -> Listener:
    """A socket that another process has opened, with its address."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return Listener(sock, ListenAddress(name[0], name[1]))
    path = os.fsdecode(name)  # bytes for a socket without a file, whose name begins with a NUL
    return Listener(sock, ListenAddress(path=path.replace("\0", "@", 1)))


def check_exposure(config: Config, insecure: bool) -> None:
    """Refuse to offer the provider's key to a network.

    :param insecure: the user accepts the risk
    :raises ConfigError: without authentication every address must be local
    """
    if insecure or not config.server.is_open:
        return
    address = next(one for one in config.server.listen_addr if not one.is_local)
    raise ConfigError(
        f"server.listen_addr is {address} and authentication is off: everyone who can reach this address "
        "could use your provider's key. Set server.auth (enabled: true, keys: [...]), or listen on "
        f"127.0.0.1:{address.port}, or start with --insecure if the network itself keeps strangers out."
    )


@contextlib.contextmanager
def open_listeners(
    server: Server, reuse_port: bool = False, inherited: Sequence[Listener] = ()
) -> Iterator[List[Listener]]:
    """Listen on the addresses of the configuration; all are closed at the end.

    :param inherited: listeners that are open already, to be used instead
    :param reuse_port: share ports with other processes that do the same; the kernel assigns connections
    :raises AddressInUse: an address is taken
    :raises ConfigError: an address cannot be used; the text says what to do
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError(
            "--reuse-port: on this system processes cannot share a port; give each its own with --listen."
        )
    with contextlib.ExitStack() as cleanup:
        listeners = list(inherited)
        for one in inherited:
            cleanup.callback(one.socket.close)
        for address in () if inherited else server.listen_addr:
            if address.path:
                opened = [listen_on_path(address.path, server.socket_mode)]
                cleanup.callback(_remover(address.path))
            else:
                opened = listen_on_port(address, reuse_port)
            for sock in opened:
                cleanup.callback(sock.close)
                port = 0 if address.path else sock.getsockname()[1]
                listeners.append(Listener(sock, address._replace(port=port)))
        yield listeners


def listen_on_port(address: ListenAddress, reuse_port: bool = False) -> List[socket.socket]:
    """Open the listening sockets of a host and a port; port 0 takes a free one.

    :raises ConfigError: the address cannot be used
    """
    try:
        return bind_sockets(address.port, address.host or None, backlog=BACKLOG, reuse_port=reuse_port)
    except socket.gaierror as error:
        raise ConfigError(
            f"server.listen_addr: the host of {str(address)!r} cannot be resolved ({error.strerror})."
        ) from error
    except OSError as error:
        raise _bind_error(str(address), error, BIND_REASONS) from error


def check_address(address: ListenAddress) -> None:
    """Check that a server could listen here now.  Nothing is left behind.

    :raises AddressInUse: another program does
    :raises ConfigError: it could not, for another reason
    """
    folder = os.path.dirname(address.path) or "."
    try:
        if not address.path:
            return _bind_and_close(address)
        _unix_socket().close()
        _is_stale(address.path)
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, folder)
    except OSError as error:
        reasons = SOCKET_FILE_REASONS if address.path else BIND_REASONS
        raise _bind_error(str(address), error, reasons) from error


def _bind_and_close(address: ListenAddress) -> None:
    """Bind as Tornado's ``bind_sockets`` does, which leaves a socket open when it fails."""
    found = socket.getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    for family, kind, protocol, _, where in found:
        with contextlib.ExitStack() as opened:
            try:
                probe = opened.enter_context(socket.socket(family, kind, protocol))
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                continue  # this machine has no IPv6
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(where)
            except OSError as error:
                if (error.errno, address.host) != (errno.EADDRNOTAVAIL, "localhost"):
                    raise


def _bind_error(address: str, error: OSError, reasons: Mapping[int, str]) -> ConfigError:
    reason = reasons.get(error.errno or 0, error.strerror)
    kind = AddressInUse if error.errno == errno.EADDRINUSE else ConfigError
    return kind(f"server.listen_addr: cannot listen on {address}: {reason}.")


# ---- Unix sockets
def listen_on_path(path: str, mode: int) -> socket.socket:
    """Open a listening Unix socket.

    :param mode: of its file
    :raises ConfigError: the path cannot be used
    """
    sock = _unix_socket()
    try:
        _remove_stale(path)
        former = os.umask(PRIVATE)
        try:
            sock.bind(path)
        finally:
            os.umask(former)
        os.chmod(path, mode)
        sock.setblocking(False)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_error(f"unix:{path}", error, SOCKET_FILE_REASONS) from error
    return sock


def _unix_socket() -> socket.socket:
    """:raises ConfigError: this system has no Unix sockets"""
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("server.listen_addr: Python has no Unix sockets on this system; use HOST:PORT.")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _remove_stale(path: str) -> None:
    """Remove a stale socket file.

    :raises OSError: it is in use, or something else
    """
    if _is_stale(path):
        os.unlink(path)


def _is_stale(path: str) -> bool:
    """Is there a stale socket file, on which no process listens?

    :raises OSError: it is in use, or something else
    """
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
    if not is_socket:
        raise FileExistsError(errno.EEXIST, path)
    with _unix_socket() as probe:
        probe.setblocking(False)  # a full backlog is a listener, too
        result = probe.connect_ex(path)
    if result != errno.ECONNREFUSED:
        raise OSError(errno.EADDRINUSE, path)
    return True


def _remover(path: str) -> Callable[[], None]:
    """A function that removes the socket file if it is still the one that is there now."""
    mine = os.lstat(path)

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            now = os.lstat(path)
            if os.path.samestat(mine, now) and mine.st_ctime_ns == now.st_ctime_ns:
                os.unlink(path)

    return remove
