"""rproxy on a system that is not POSIX, as far as Linux can pretend to be one:
``python tests/portable.py serve --demo``.

What such systems do not have is hidden before rproxy is imported: modules, constants and functions.  The
event loop watches sockets with ``select.select`` and cannot handle signals.  asyncio itself is loaded first,
because it would not load on this half of a system.
"""

from __future__ import annotations

import asyncio
import functools
import os
import selectors
import signal
import socket
import subprocess
import sys
from typing import Any

MODULES = ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "syslog", "uvloop")
NAMES = {
    signal: ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGPIPE", "SIGCHLD"),
    socket: ("AF_UNIX", "SO_REUSEPORT", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "MSG_DONTWAIT"),
    os: (
        "O_NOCTTY",
        "O_NOFOLLOW",
        "getpgrp",
        "tcgetpgrp",
        "killpg",
        "sysconf",
        "getuid",
        "geteuid",
        "fchmod",
    ),
}
PAIRS = socket.AF_UNIX  # every system has pairs of sockets in some way, and Linux only in this one


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())

    def add_signal_handler(self, *args: Any) -> None:
        raise NotImplementedError

    remove_signal_handler = add_signal_handler  # type: ignore[assignment]


class Policy(asyncio.DefaultEventLoopPolicy):
    _loop_factory = Loop


def hide() -> None:
    """Take away what is not there on every system."""
    for module in [name for name in sys.modules if name.split(".")[0] in MODULES]:
        del sys.modules[module]
    sys.modules.update(dict.fromkeys(MODULES))  # type: ignore[arg-type]  # None: the import fails
    for module, names in NAMES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    socket.socketpair = functools.partial(socket.socketpair, PAIRS)  # type: ignore[assignment]
    asyncio.set_event_loop_policy(Policy())


if __name__ == "__main__":
    assert subprocess  # it needs the modules when it is loaded
    hide()
    from rproxy.cli.main import main

    sys.exit(main())
