"""What another client of the proxy notices: a process that asks for ``/health`` all the time."""

from __future__ import annotations

import multiprocessing
import socket
import time
from typing import Any, List, NamedTuple

INTERVAL = 0.004  # seconds between two requests
REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Stalls(NamedTuple):
    """How long requests took, in milliseconds."""

    worst: float
    p99: float
    count: int


class Probe:
    """Asks the server at ``port`` from now on."""

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(port, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def stalls(self) -> Stalls:
        """What there was since the last time.

        A request that waits keeps those from being sent that would have waited, too.  They are counted with
        what they would have waited, as an independent client would have seen it.
        """
        self._pipe.send("tell")
        taken: List[float] = self._pipe.recv()
        waits = sorted(
            took - passed * INTERVAL for took in taken for passed in range(max(1, int(took / INTERVAL)))
        )
        return Stalls(waits[-1] * 1000, waits[int(len(waits) * 0.99)] * 1000, len(waits))

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _run(port: int, pipe: Any) -> None:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    taken: List[float] = []
    pipe.send("ready")
    while True:
        taken.append(_ask(connection))
        if pipe.poll():
            pipe.recv()
            pipe.send(taken)
            taken = []
        time.sleep(max(0.0, INTERVAL - taken[-1] if taken else INTERVAL))


def _ask(connection: socket.socket) -> float:
    started = time.monotonic()
    connection.sendall(REQUEST)
    answer = b""
    while b'"ok"' not in answer:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the server has closed the connection")
        answer += piece
    return time.monotonic() - started
