"""An MCP server as a child process: messages are lines on its stdin and stdout.

Only the configuration names commands.  The process gets a small environment, without rproxy's keys, and leads
a process group, all of which ends with the connection.  If rproxy itself is killed, the closed stdin makes
the server end.  After a process has ended, the next message starts another one; if they keep ending at once,
the pauses before a start grow.
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
STOP_TIMEOUT = 1.0  # seconds to end, first by itself, then after SIGTERM
SHORT_LIFE = 10.0  # seconds; a process that ends sooner is not restarted at once
MAX_PAUSE = 30.0  # seconds
PIECE = 1 << 16  # bytes


class ServerCommand:
    """The command that starts a server.

    :param env: further variables
    :param secrets: texts that no message and no log may show
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
    """A connection to a process.

    :param name: of the server, for the log
    :param max_bytes: of a message
    """

    def __init__(self, name: str, command: ServerCommand, max_bytes: int) -> None:
        super().__init__(Peer(legacy_first=True))
        self._name, self._command, self._max = name, command, max_bytes
        self._process: Optional[asyncio.subprocess.Process] = None
        self._started = 0.0
        self._short_lives = 0  # consecutive processes that ended at once
        self._closed = False

    async def _listen(self) -> None:
        """Start the process, and clean up when it ends."""
        if self._closed:
            raise unreachable("rproxy does not use it any more")
        if self._short_lives > 1:
            left = self._started + min(MAX_PAUSE, 2.0 ** (self._short_lives - 2)) - time.monotonic()
            if left > 0:
                raise unreachable(f"its process ended at once, and is started again in {left:.0f} s")
        self._started = time.monotonic()
        try:
            self._process = process = await self._command.start()
        except (OSError, ValueError) as error:
            self._count_life()
            why = clean(getattr(error, "strerror", None) or str(error), self._command.secrets)
            raise unreachable(f"{self._command.argv[0]!r} cannot be started: {why}") from None
        log.debug("mcp %s: process %d started", self._name, process.pid)
        stderr = asyncio.ensure_future(self._log_stderr(process))
        try:
            self._opened()
            await self._read(process)
            await self._ended(process, STOP_TIMEOUT)
            raise unreachable(_ending(process.returncode))
        except McpError as error:
            self._closed_by(error)
            raise
        finally:
            self._count_life()
            for number in (signal.SIGTERM, _KILL):  # also to its child processes
                _signal(process, number)
                await self._ended(process, STOP_TIMEOUT)
            closing = asyncio.ensure_future(self._close_pipes(process))
            await asyncio.wait({closing, stderr}, timeout=STOP_TIMEOUT)
            closing.cancel()
            stderr.cancel()
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
    async def _close_pipes(process: asyncio.subprocess.Process) -> None:
        """Close stdin, and read stdout to its end, at which asyncio closes it."""
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        with suppress(OSError):
            await process.stdin.wait_closed()
        while await process.stdout.read(PIECE):
            pass

    async def _log_stderr(self, process: asyncio.subprocess.Process) -> None:
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
            # _listen knows why the process has ended; one that has only closed its stdin is made to end.
            if self._listening is not None:
                await asyncio.wait({self._listening}, timeout=STOP_TIMEOUT)
                _signal(process, signal.SIGTERM)
                await asyncio.wait({self._listening}, timeout=STOP_TIMEOUT)
            raise unreachable(_ending(process.returncode), sent=False) from None
        except asyncio.TimeoutError:
            raise unreachable("its process does not read its messages") from None

    def _count_life(self) -> None:
        short = time.monotonic() - self._started < SHORT_LIFE
        self._short_lives = min(self._short_lives + 1, 20) if short else 0

    @staticmethod
    async def _ended(process: asyncio.subprocess.Process, seconds: float) -> None:
        """Wait for the process to end."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), seconds)

    async def close(self) -> None:
        self._closed = True
        await super().close()
        listening, process = self._listening, self._process
        if listening is None:
            return
        if process is not None and process.stdin is not None:
            process.stdin.close()  # which makes a server end
        for number in (signal.SIGTERM, _KILL):
            await asyncio.wait({listening}, timeout=STOP_TIMEOUT)
            if listening.done():
                return
            if process is not None:
                _signal(process, number)
        await asyncio.wait({listening}, timeout=STOP_TIMEOUT)
        listening.cancel()
        await asyncio.wait({listening}, timeout=STOP_TIMEOUT)


_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to the process and all its child processes."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        elif process.returncode is None:
            process.send_signal(number)


def _ending(status: Any) -> str:
    if status is None:
        return "its process has closed its stdin or stdout"
    how = f"with exit status {status}" if status >= 0 else f"by signal {-status}"
    return f"its process has ended {how}"
