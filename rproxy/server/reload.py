"""A new configuration for a running server: read, checked, and used from the next turn on.

Running turns keep the configuration that they began with; each turn of a WebSocket begins anew.  A
configuration that cannot be used changes nothing.

**SIGHUP** means two things.  ``rproxy reload``, systemd and people send it to have the configuration read
again.  The kernel sends it to a process in the foreground when its terminal closes; then the server stops as
after SIGTERM, since it would not be seen any more.  Whether the terminal is still there distinguishes the
two.  A process started with ``nohup`` ignores the second one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import Callable, Iterator, Optional

from .. import log as logs
from ..config.schema import Config
from ..errors import ConfigError
from .base import AppState

log = logging.getLogger("rproxy.reload")

HANGUP: Optional[signal.Signals] = getattr(signal, "SIGHUP", None)  # not on every system
TERMINAL = "/dev/tty"


class Reload:
    """Puts new configurations into one server.

    :param load: reads the configuration
    :param apply_server: called with each new one, for settings outside of the application's state
    """

    def __init__(
        self, state: AppState, load: Callable[[], Config], apply_server: Callable[[Config], None]
    ) -> None:
        self._state = state
        self._load = load
        self._apply_server = apply_server

    def __call__(self) -> None:
        """Read the configuration again, and write to the log what it changes."""
        from ..config.changes import changes  # loaded for a reload only

        old = self._state.config
        try:
            found = changes(old, self._load())
            config = found.config
            self._apply_server(config)
        except (ConfigError, OSError) as error:
            for one in error.each if isinstance(error, ConfigError) else (error,):
                log.error("the configuration is not reloaded, and the old one stays: %s", one)
            return
        self._state.configure(config)
        logs.setup(config.server.log_level, config.server.log_format, secrets=config.secrets)
        for warning in config.warnings:
            log.warning("%s", warning)
        level = logging.WARNING if found.refused else logging.INFO
        log.log(level, "reloaded %s: %s", config.path or "the environment", found)


def has_terminal() -> bool:
    """Does this process have a terminal that is open?"""
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def hangup_signal(reload: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGHUP call ``reload`` on the event loop, or ``stop`` once when the terminal has closed."""
    if HANGUP is None:
        yield
        return
    loop = asyncio.get_running_loop()
    former = signal.getsignal(HANGUP)
    foreground = has_terminal()
    stopped = False

    def received(number: int, frame: object) -> None:
        nonlocal stopped
        if not foreground or has_terminal():
            loop.call_soon_threadsafe(reload)
        elif former is not signal.SIG_IGN and not stopped:
            stopped = True
            loop.call_soon_threadsafe(stop)

    signal.signal(HANGUP, received)
    try:
        yield
    finally:
        signal.signal(HANGUP, former)


def survive_hangup() -> None:
    """Ignore SIGHUP unless a server is running: before and after, it would end the process abruptly, perhaps
    while the store is still writing its last records.
    """
    if HANGUP is not None and signal.getsignal(HANGUP) is signal.SIG_DFL:
        signal.signal(HANGUP, lambda number, frame: None)
