"""A server that does whatever a test's script says to raw connections, and a ground that must be left as
clean as it was found.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import subprocess
import time
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List, Optional, Tuple

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Peer:
    """The server's end of one connection.

    ``number`` counts the connections of the server from 0, ``asked`` the requests on this one.
    """

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number, self.reader, self.writer = number, reader, writer
        self.asked = 0
        self.gone: Optional[float] = None  # time.monotonic() when the client closed

    async def request(self) -> Tuple[str, Dict[str, str], bytes]:
        """The next request: its first line, its headers (names in lower case), its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        self.asked += 1
        return first, headers, body

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause)

    async def wait_gone(self) -> None:
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.gone = time.monotonic()

    async def when_gone(self) -> float:
        """Wait for the client to close; a script must be in :meth:`wait_gone`."""
        await until(lambda: self.gone is not None)
        assert self.gone is not None
        return self.gone

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for ``condition()``; fails after ``seconds``, which is meant for a busy machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition was not true within {seconds:g} s"
        await asyncio.sleep(0.005)


async def standstill(counter: Callable[[], int]) -> int:
    """Wait until the counter has not moved for a tenth of a second, or for longer where this process gets
    little time: in twenty rounds of the loop.

    :returns: where it stands
    """
    count, rounds = counter(), 0
    while rounds < 20:
        await asyncio.sleep(0.005)
        rounds += 1
        if counter() != count:
            count, rounds = counter(), 0
    return count


Script = Callable[[Peer], Awaitable[Any]]


class RawServer:
    """Runs ``script(peer)`` for each connection; when it returns, the connection is closed."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: List[Peer] = []
        self.url = ""
        self.tasks: List[asyncio.Task[Any]] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        peer = Peer(len(self.peers), reader, writer)
        self.peers.append(peer)
        try:
            await self.script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    @contextlib.asynccontextmanager
    async def running(
        self, context: Optional[ssl.SSLContext] = None, path: Optional[str] = None, host: str = "127.0.0.1"
    ) -> AsyncIterator[RawServer]:
        if path is None:
            server = await asyncio.start_server(self._serve, host, 0, ssl=context)
            name = f"[{host}]" if ":" in host else host
            port = server.sockets[0].getsockname()[1]
            self.url = f"{'https' if context else 'http'}://{name}:{port}"
        else:
            server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield self
        finally:
            server.close()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            for peer in self.peers:
                peer.writer.transport.abort()
            await asyncio.sleep(0.01)  # transports close in the next turns of the loop


def keep_serving(answer: bytes) -> Script:
    """A script: the same answer to every request."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return script


def then_silence(sent: bytes) -> Script:
    """A script: this to one request, and nothing more."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        await peer.wait_gone()

    return script


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fails when file descriptors or tasks are left that were not there before."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, len, "")  # what the loop itself opens late is open now, also for servers
    (await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)).close()
    fds, tasks = open_fds(), len(asyncio.all_tasks())
    yield
    try:
        await until(lambda: open_fds() <= fds and len(asyncio.all_tasks()) <= tasks)
    except AssertionError:
        left = f"left: {open_fds() - fds} file descriptors, tasks {asyncio.all_tasks()!r}"
        raise AssertionError(left) from None


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def make_certificate(folder: Path) -> Tuple[Path, Path]:
    """A throw-away certificate for 127.0.0.1, ::1 and localhost.

    :returns: its file, and the file of its key
    """
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            str(key),
            "-out",
            str(cert),
            "-subj",
            "/CN=rproxy test",
            "-addext",
            "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",  # rustls accepts no other from a server
        ],
        check=True,
        capture_output=True,
    )
    return cert, key
