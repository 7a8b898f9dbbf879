"""An MCP server as a process of rproxy's: messages are lines on its stdin and stdout.

Only the configuration names commands.  The process gets a small environment, without rproxy's keys, and leads
a group of its own, all of which ends with the connection.  If rproxy itself is killed, the closed stdin tells
the server to end.  A process that has ended is started again by the next message; if it keeps ending at once,
after pauses that grow.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import suppress
from typing import Any, Dict, Mapping, Optional, Sequence

from ...json_codec import encode_json
from ...log import clean
from ...types import Json
from .connection import Duplex
from .messages import LineDecoder, McpError, unreachable
from .protocol import Peer

log = logging.getLogger("rproxy.mcp")

INHERITED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SYSTEMROOT",
    "TEMP",
    "TERM",
    "TMPDIR",
    "USER",
)
LAST_MOMENT = 1.0  # seconds to end, first of its own accord, then after SIGTERM
SHORT_LIFE = 10.0  # seconds; who ends sooner is not started again at once
MAX_PAUSE = 30.0  # seconds
PIECE = 1 << 16  # bytes


class Command:
    """How a server is started.

    :param env: further variables
    :param secrets: what no message and no log may show
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: Optional[str], secrets: Sequence[str]
    ) -> None:
        self.argv, self.env, self.cwd, self.secrets = argv, env, cwd, secrets

    async def start(self) -> asyncio.subprocess.Process:
        """:raises OSError: it cannot be started"""
        kept: Dict[str, str] = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return await asyncio.create_subprocess_exec(
            *self.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**kept, **self.env},
            cwd=self.cwd,
            start_new_session=True,
        )


class ProcessConnection(Duplex):
    """A conversation with a process.

    :param name: of the server, for the log
    :param max_bytes: of a message
    """

    def __init__(self, name: str, command: Command, max_bytes: int) -> None:
        super().__init__(Peer(legacy_first=True))
        self._name, self._command, self._max = name, command, max_bytes
        self._process: Optional[asyncio.subprocess.Process] = None
        self._started = 0.0
        self._short_lives = 0  # of the last processes, one after another
        self._closed = False

    async def _listen(self) -> None:
        """Start the process, and when it ends, leave nothing of it behind."""
        if self._closed:
            raise unreachable("rproxy does not use it any longer")
        if self._short_lives > 1:
            left = self._started + min(MAX_PAUSE, 2.0 ** (self._short_lives - 2)) - time.monotonic()
            if left > 0:
                raise unreachable(f"its process has ended at once, and is started again in {left:.0f} s")
        self._started = time.monotonic()
        try:
            self._process = process = await self._command.start()
        except (OSError, ValueError) as error:
            self._count()
            why = clean(getattr(error, "strerror", None) or str(error), self._command.secrets)
            raise unreachable(f"{self._command.argv[0]!r} cannot be started: {why}") from None
        log.debug("mcp %s: process %d started", self._name, process.pid)
        complaints = asyncio.ensure_future(self._read_complaints(process))
        try:
            self._opened()
            await self._read(process)
            await self._ended(process, LAST_MOMENT)
            raise unreachable(f"its process has ended {_ending(process.returncode)}")
        except McpError as error:
            self._closed_by(error)
            raise
        finally:
            self._count()
            for number in (signal.SIGTERM, _KILL):  # whatever the process has started, too
                _signal(process, number)
                await self._ended(process, LAST_MOMENT)
            rest = asyncio.ensure_future(self._clear(process))
            await asyncio.wait({rest, complaints}, timeout=LAST_MOMENT)
            rest.cancel()
            complaints.cancel()
            log.debug("mcp %s: process %d has ended", self._name, process.pid)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """:raises McpError: a message is too long"""
        assert process.stdout is not None
        lines = LineDecoder(self._max)
        data = await process.stdout.read(PIECE)
        while data:
            for message in lines.feed(data):
                self._received(message)
            data = await process.stdout.read(PIECE)

    @staticmethod
    async def _clear(process: asyncio.subprocess.Process) -> None:
        """Have the pipes closed: they are when nothing is left in them."""
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        with suppress(OSError):
            await process.stdin.wait_closed()
        while await process.stdout.read(PIECE):
            pass

    async def _read_complaints(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        data = await process.stderr.read(PIECE)
        while data:
            if log.isEnabledFor(logging.DEBUG):
                text = clean(data.decode("utf-8", "replace"), self._command.secrets)
                log.debug("mcp %s: stderr: %s", self._name, text)
            data = await process.stderr.read(PIECE)

    async def _send(self, message: Json, seconds: float) -> None:
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(encode_json(message) + b"\n")
            await asyncio.wait_for(process.stdin.drain(), seconds)
        except (OSError, RuntimeError):
            if (
                self._listening is not None
            ):  # which has more to say, or ends a process that only listens no more
                await asyncio.wait({self._listening}, timeout=LAST_MOMENT)
                _signal(process, signal.SIGTERM)
                await asyncio.wait({self._listening}, timeout=LAST_MOMENT)
            how = _ending(process.returncode)
            raise unreachable(f"its process has ended {how}", sent=False) from None
        except asyncio.TimeoutError:
            raise unreachable("its process does not read its messages") from None

    def _count(self) -> None:
        short = time.monotonic() - self._started < SHORT_LIFE
        self._short_lives = min(self._short_lives + 1, 20) if short else 0

    @staticmethod
    async def _ended(process: asyncio.subprocess.Process, seconds: float) -> None:
        """Wait until the process has ended, but not for long."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), seconds)

    async def close(self) -> None:
        self._closed = True
        await super().close()
        listening, process = self._listening, self._process
        if listening is None:
            return
        if process is not None and process.stdin is not None:
            process.stdin.close()  # which asks a server to end
        for number in (signal.SIGTERM, _KILL):
            await asyncio.wait({listening}, timeout=LAST_MOMENT)
            if listening.done():
                return
            if process is not None:
                _signal(process, number)
        await asyncio.wait({listening}, timeout=LAST_MOMENT)
        listening.cancel()
        await asyncio.wait({listening}, timeout=LAST_MOMENT)


_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to the process and all that it has started."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        elif process.returncode is None:
            process.send_signal(number)


def _ending(status: Any) -> str:
    if status is None:
        return "its input or its output"
    return f"with exit status {status}" if status >= 0 else f"by signal {-status}"
