"""A Redis of the tests' own, which can be frozen, killed and started again, and a line to it that can be cut
or led to another server.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import time
from typing import AsyncIterator, Iterator, List, Optional, Tuple

import pytest


class RedisServer:
    """:param options: of the command line, such as ``--maxmemory 2mb``"""

    def __init__(self, *options: str) -> None:
        self._options = options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self._options],
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while True:
            try:
                assert self.ask("PING") == b"+PONG\r\n"
                return
            except (OSError, AssertionError):
                assert time.monotonic() < end, "redis-server does not start"
                time.sleep(0.02)

    def freeze(self) -> None:
        """It neither answers nor closes anything, until :meth:`thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it; what it had in memory is lost."""
        if self._process is not None:
            self.thaw()
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def ask(self, *words: str) -> bytes:
        """The raw answer to one command: one line, or what fits into one packet."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
            line.sendall(b"*%d\r\n" % len(words))
            for word in words:
                line.sendall(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()))
            return line.recv(65536)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A running Redis; the test is skipped where there is none."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    server = RedisServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Line:
    """A TCP proxy in front of a Redis.

    ``target``: the port that new connections lead to.  ``cut_after``: the connection that brings this word is
    reset when the server's answer to it has come, which the client does not get; once.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.cut_after: Optional[bytes] = None
        self.url = ""
        self._tasks: List[asyncio.Task[None]] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            while True:
                asked, answered = await self._exchange(reader, far_reader, far_writer)
                if not asked:
                    return
                if self.cut_after is not None and self.cut_after in asked:
                    self.cut_after = None
                    writer.transport.abort()
                    return
                writer.write(answered)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            far_writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, far_reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter
    ) -> Tuple[bytes, bytes]:
        """One command and its answer; both are small and come whole."""
        asked = await reader.read(1 << 20)
        if not asked:
            return b"", b""
        far_writer.write(asked)
        return asked, await far_reader.read(1 << 20)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Line]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
