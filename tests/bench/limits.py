"""``scripts/bench --limits``: what a proxy must bear, each once; a line says what came out and what was
demanded.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Callable, List, Tuple

import lab
from scenarios import Bench
from variants import OURS, launch

SSE = OURS[0]
Outcome = Tuple[str, bool]


def leaving(bench: Bench) -> Outcome:
    """500 clients leave at once."""
    with lab.held(bench.options(model="bench-n1-q1", workers=500, spread=1.0)):
        busy = bench.provider.stats()["open"]
    time.sleep(1.0)
    left = bench.provider.stats()["open"]
    return (
        f"500 clients left: {busy} connections to the provider before, {left} 1 s later",
        busy >= 500 and left == 0,
    )


def flat(bench: Bench) -> Outcome:
    """The price of a delta, by the length of the answer."""
    costs = []
    for deltas, turns in ((100, 300), (1000, 30), (10_000, 3), (200_000, 1)):
        cpu, sent = 0.0, 0
        for _ in range(turns // 10 + 1):
            result, cost = bench.load(model=f"bench-n{deltas}", expect=deltas, workers=min(turns, 10))
            cpu, sent = cpu + cost, sent + result["deltas"]
        costs.append((deltas, cpu / sent * 1e6))
    told = ", ".join("%d: %.1f" % cost for cost in costs)
    return "µs CPU a delta by deltas in the answer: " + told, costs[-1][1] < costs[1][1] * 1.3


def many(bench: Bench) -> Outcome:
    """2000 live streams at once; every delta must arrive."""
    result, cpu = bench.load(model="bench-n30-r5", expect=30, workers=2000, spread=4.0)
    text = "2000 live streams: %d deltas of 60000, %d errors, %.0f %% of a core" % (
        result["deltas"],
        sum(result["errors"].values()),
        cpu / result["seconds"] * 100,
    )
    return text, result["deltas"] == 60_000 and not result["errors"]


def slow_reader(bench: Bench) -> Outcome:
    """A client that asks for 100 MB and does not read."""
    before = bench.process.rss()
    body = json.dumps({"model": "bench-n400000", "stream": True, "input": "x"}).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect(("127.0.0.1", bench.process.port))
        sock.sendall(
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
            b"%d\r\n\r\n%b" % (bench.variant.path.encode(), len(body), body)
        )
        time.sleep(3.0)
        grown = bench.process.rss() - before
        size, began, tail = 0, time.monotonic(), b""
        sock.settimeout(20)
        while not tail.endswith(b"0\r\n\r\n"):
            data = sock.recv(1 << 18)
            if not data:
                break
            size += len(data)
            tail = (tail + data)[-8:]
    seconds = time.monotonic() - began
    text = f"a reader that pauses: {grown:+.0f} MB meanwhile; then {size / 1e6:.0f} MB in {seconds:.1f} s"
    return text, grown < 16 and size > 90e6


TESTS: List[Callable[[Bench], Outcome]] = [leaving, flat, many, slow_reader]


def run(provider: lab.Provider, folder: Path) -> int:
    """:returns: 1 when a demand is not met"""
    errors: List[str] = []
    good = True
    for test in TESTS:
        process = launch(SSE, provider, folder)
        try:
            text, passed = test(Bench(SSE, process, provider, errors))
        finally:
            process.stop()
        print("%-4s %s" % ("ok" if passed else "NOT", text), flush=True)
        good = good and passed
    for error in errors:
        print("error: " + error)
    return 0 if good and not errors else 1
