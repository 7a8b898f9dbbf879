"""What another client of the proxy notices: a process that asks for ``/health`` all the time."""

from __future__ import annotations

import multiprocessing
import socket
import time
from typing import Any, List, NamedTuple, Tuple

PROCESS_CLOCK = 2  # CPUCLOCK_SCHED of Linux: the CPU time of all threads of a process
INTERVAL = 0.004  # seconds between two requests
REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Stalls(NamedTuple):
    """How long requests took, in milliseconds; ``cpu``: the 99th percentile of the CPU time that the server
    used meanwhile, for whatever it was.
    """

    worst: float
    p99: float
    cpu: float
    count: int


class Probe:
    """Asks the server at ``port``, which is the process ``pid``, from now on."""

    def __init__(self, port: int, pid: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(port, pid, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def stalls(self) -> Stalls:
        """What there was since the last time.

        A request that waits keeps those from being sent that would have waited, too.  They are counted with
        what they would have waited, as an independent client would have seen it.
        """
        self._pipe.send("tell")
        taken: List[Tuple[float, float]] = self._pipe.recv()
        waits = [
            (took - passed * INTERVAL, cpu * (1 - passed * INTERVAL / took))
            for took, cpu in taken
            for passed in range(max(1, int(took / INTERVAL)))
        ]
        wall, cpus = (sorted(wait[kind] * 1000 for wait in waits) for kind in (0, 1))
        at = int(len(waits) * 0.99)
        return Stalls(wall[-1], wall[at], cpus[at], len(waits))

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _run(port: int, pid: int, pipe: Any) -> None:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    clock = ~pid << 3 | PROCESS_CLOCK
    taken: List[Tuple[float, float]] = []
    pipe.send("ready")
    while True:
        before = time.clock_gettime(clock)
        took = _ask(connection)
        taken.append((took, time.clock_gettime(clock) - before))
        if pipe.poll():
            pipe.recv()
            pipe.send(taken)
            taken = []
        time.sleep(max(0.0, INTERVAL - took))


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
