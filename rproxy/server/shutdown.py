"""Signals, and a shutdown that lets responses finish.

On SIGTERM or SIGINT ``/ready`` becomes 503.  For ``server.drain_delay`` seconds the server works as before,
so that balancers which poll ``/ready`` send nothing more.  Then it stops accepting connections.  Idle
WebSockets are closed with 1012 ("restart"), new requests on open connections are refused by closing them, and
running turns have ``server.drain_timeout`` seconds to finish.  Whatever still runs then is cancelled, which
ends every stream with ``response.failed`` and every WebSocket with 1012.  A second signal skips the waiting;
a third one reaches Python's own handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import Callable, Iterator

from .base import AppState

log = logging.getLogger("rproxy.app")

LAST_WORDS = 2.0  # seconds for terminal events and close frames after the grace period


@contextlib.contextmanager
def stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on the event loop for the first two of SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    count = 0

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def received(number: int, frame: object) -> None:
        nonlocal count
        count += 1
        if count >= 2:
            restore()
        loop.call_soon_threadsafe(stop)

    for number in former:
        signal.signal(number, received)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a client that left is an error of its socket only
    try:
        yield
    finally:
        restore()


async def stop_being_ready(state: AppState, hurry: asyncio.Event) -> None:
    """Make ``/ready`` report that the process stops, and give balancers time to notice.

    :param hurry: setting it ends all waiting
    """
    state.stopping = True
    seconds = state.config.server.drain_delay
    if seconds and not hurry.is_set():
        log.info("taking turns for %g s more, so that balancers notice", seconds)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(hurry.wait(), seconds)


async def drain(state: AppState, hurry: asyncio.Event) -> None:
    """Let running turns finish, cancel the rest, and close the WebSockets.

    :param hurry: setting it ends all waiting
    """
    state.draining = True
    for session in list(state.sessions):
        session.shut_down()
    if state.turns:
        seconds = state.config.server.drain_timeout
        log.info("waiting up to %g s for %d running turns", seconds, len(state.turns))
        await _turns_ended(state, hurry, seconds)
    for turn in list(state.turns.values()):
        if turn is not None:
            turn.cancel()
    if state.turns:
        await asyncio.wait(set(state.turns), timeout=LAST_WORDS)
    if state.sessions:  # their clients answer the close frame with one of their own
        await asyncio.wait({session.closed for session in state.sessions}, timeout=LAST_WORDS)
    if state.reports:
        await asyncio.wait(set(state.reports), timeout=LAST_WORDS)


async def _turns_ended(state: AppState, hurry: asyncio.Event, seconds: float) -> None:
    """Wait until no turn runs any more, ``hurry`` is set, or the time is up."""

    async def ended() -> None:
        while state.turns:
            await asyncio.wait(set(state.turns))
            await asyncio.sleep(0)  # finished tasks leave the table in a callback

    waits = {asyncio.ensure_future(ended()), asyncio.ensure_future(hurry.wait())}
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
