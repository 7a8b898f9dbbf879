"""systemd: the sockets that it opens for us, and our notifications (see sd_listen_fds and sd_notify).

Both protocols are a few environment variables, so they need no library, and without them nothing happens.

**Sockets.**  systemd listens in our place (``etc/rproxy.socket``) and hands the sockets over as the file
descriptors from 3 on.  They take the place of ``server.listen_addr``.  They stay open while rproxy restarts:
clients that connect meanwhile wait.

**Notifications** for ``Type=notify``: when the server is ready, reloads and stops, and, while the event loop
runs, twice within the time after which the watchdog would restart it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from typing import Iterator, List, Mapping, MutableMapping, Optional

from ..errors import ConfigError

log = logging.getLogger("rproxy.systemd")

FIRST_SOCKET = 3  # the file descriptor
LISTEN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
MARGIN = 10.0  # seconds that stopping may take beyond the configured times


def take_sockets(environ: MutableMapping[str, str]) -> List[socket.socket]:
    """The listening sockets that systemd hands over; their variables are removed, so that child processes do
    not use them.

    :raises ConfigError: clients cannot connect to one of them
    """
    pid, count, names = (str(environ.pop(name, "")) for name in LISTEN)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    named = names.split(":")
    return [
        _listening(FIRST_SOCKET + i, named[i] if i < len(named) else "unknown") for i in range(int(count))
    ]


def _listening(descriptor: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return sock
        reason = "it is not listening; the socket unit needs ListenStream= and no Accept=yes"
    except OSError as error:
        reason = error.strerror or str(error)
    raise ConfigError(
        f"LISTEN_FDS: the socket {name} (file descriptor {descriptor}) cannot be used: {reason}."
    )


class Notifier:
    """Tells the service manager what the process is doing.

    :param environ: ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        microseconds = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval: Optional[float] = None
        if self._address and ours and microseconds.isdigit() and int(microseconds):
            self._interval = int(microseconds) / 2e6

    def ready(self) -> None:
        """The server answers, perhaps with a configuration that it has just read."""
        self._notify("READY=1")

    def reloading(self) -> None:
        """The configuration is being read; :meth:`ready` ends it."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, seconds: float) -> None:
        """The process will end.

        :param seconds: how long that may take
        """
        self._notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((seconds + MARGIN) * 1e6)}")

    @contextlib.contextmanager
    def watchdog(self) -> Iterator[None]:
        """Feed the watchdog from the event loop while the context lasts."""
        timer: Optional[asyncio.TimerHandle] = None

        def feed(interval: float) -> None:
            nonlocal timer
            self._notify("WATCHDOG=1")
            timer = asyncio.get_running_loop().call_later(interval, feed, interval)

        if self._interval is not None:
            feed(self._interval)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    def _notify(self, state: str) -> None:
        if self._address[:1] not in ("/", "@"):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)  # the event loop must not block
                sock.sendto(state.encode(), address)
        except OSError as error:
            log.debug("cannot notify systemd of %s: %s", state.partition("\n")[0], error)
