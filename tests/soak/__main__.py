"""``scripts/soak``: mixed load on one rproxy for a long time, and how what it holds develops.

Some clients stream, some want JSON, some hold conversations over WebSocket or by ``previous_response_id``,
some run in the background; some leave in the middle, and some providers fail.  At the end of each interval
the load pauses for a moment, and a line tells what rproxy holds then, how many turns there were and how long
they took.  The trend is the straight line through the values of the second half, in which caches and stores
are full.

Exit status 0: every turn had a right end, and nothing grows; 1: not.  Loopback only, bounded in number.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, List, NamedTuple, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import hostile
from hostile import WebSocket, Wrong, create, ended, exchange, request_bytes
from observed import Observed, ResourceUsage, observed, slope
from rawserver import RawServer

WHOLE = "cut/chunked/99999"
FAILING = [
    f"{kind}/{form}/{at}" for kind in ("cut", "reset", "garble") for form in hostile.FORMS for at in (9, 250)
]
TURNS = 400  # a second, at most: enough to grow what can grow, and bounded
MEMORY = 8.0  # MiB that the trend of the second half may be; less is the allocator's noise
MORE = 2.0  # file descriptors and tasks, the same


class Player:
    """One client after another: each turn is of a kind drawn at random."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self.port, self.rng = port, rng
        self.socket = WebSocket(port)
        self.last: Optional[str] = None  # the id of a stored response

    async def sse(self) -> str:
        return (await self.ask(create(WHOLE, stream=True, store=True))).status

    async def json(self) -> str:
        return (await self.ask(create(WHOLE))).status

    async def chain(self) -> str:
        """A turn that continues the one before."""
        more = {"previous_response_id": self.last} if self.last and self.rng.random() < 0.9 else {}
        data = await exchange(self.port, request_bytes(create(WHOLE, store=True, **more)))
        status, _, body = hostile.parsed(data)
        response = json.loads(body)
        self.last = response.get("id") if status == 200 else None  # the store keeps only the newest
        return "completed" if status == 200 else "forgotten"

    async def websocket(self) -> str:
        if self.rng.random() < 0.02:
            self.socket.close()
        return (await self.socket.turn(create(WHOLE))).status

    async def background(self) -> str:
        data = await exchange(self.port, request_bytes(create("slow/5/2", background=True, store=True)))
        return f"background {hostile.parsed(data)[0]}"

    async def large(self) -> str:
        return (await self.ask({**create(WHOLE), "input": "word " * 40_000})).status

    async def failing(self) -> str:
        await self.ask(create(self.rng.choice(FAILING), stream=self.rng.random() < 0.5))
        return "failed provider"

    async def leaving(self) -> str:
        """Ask for a long answer, read a little of it, and go."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request_bytes(create("slow/200/5", stream=True)))
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(reader.readexactly(self.rng.randrange(1, 3000)), 2)
        writer.transport.abort()
        return "left"

    async def ask(self, body: Dict[str, Any]) -> hostile.Turn:
        return ended(await exchange(self.port, request_bytes(body)))


KINDS: Dict[str, int] = {  # kind of turn -> its share
    **{
        "sse": 10,
        "json": 6,
        "chain": 6,
        "websocket": 10,
        "background": 2,
        "large": 1,
        "failing": 4,
        "leaving": 4,
    }
}


class Interval(NamedTuple):
    usage: ResourceUsage
    turns: int
    latencies: List[float]  # milliseconds

    def line(self, minutes: float) -> str:
        low = sorted(self.latencies) or [0.0]
        middle, high = statistics.median(low), low[int(len(low) * 0.99)]
        return (
            f"| {minutes:5.1f} | {self.turns:6} | {middle:6.1f} | {high:6.1f} | {self.usage.rss:6.1f} "
            f"| {self.usage.fds:4} | {self.usage.sockets:4} | {self.usage.tasks:4} |"
        )


class Soak:
    def __init__(self, rproxy: Observed, provider: RawServer, seed: str) -> None:
        self.rproxy, self.provider, self.seed = rproxy, provider, seed
        self.counts: Counter[str] = Counter()
        self.wrong: List[str] = []
        self.intervals: List[Interval] = []

    async def interval(self, seconds: float, clients: int) -> Interval:
        """Load for some time, then what is left of it."""
        end, latencies, number = time.monotonic() + seconds, [], len(self.intervals)

        async def client(index: int) -> None:
            player = Player(self.rproxy.port, random.Random(f"{self.seed}/{number}/{index}"))
            while time.monotonic() < end and len(self.wrong) < 20:
                kind = player.rng.choices(list(KINDS), list(KINDS.values()))[0]
                play: Callable[[], Awaitable[str]] = getattr(player, kind)
                began = time.monotonic()
                try:
                    self.counts[await play()] += 1
                except (Wrong, OSError) as error:
                    self.wrong.append(f"{kind}: {error!r}")
                took = time.monotonic() - began
                if kind in ("sse", "json", "websocket"):
                    latencies.append(took * 1000)
                await asyncio.sleep(max(0.0, clients / TURNS - took))
            player.socket.close()

        before = sum(self.counts.values())
        await asyncio.gather(*(client(index) for index in range(clients)))
        for peer in self.provider.peers:
            peer.writer.close()
        await asyncio.gather(*self.provider.tasks, return_exceptions=True)
        self.provider.peers.clear()
        self.provider.tasks.clear()
        await self.rproxy.settled(
            ResourceUsage(0, 0, 1, 0.0, 0.0), 1e9, seconds=2.0
        )  # what ends late has ended
        return Interval(await self.rproxy.resource_usage(), sum(self.counts.values()) - before, latencies)

    def trends(self) -> List[str]:
        """Prints how the values of the second half grow. :returns: those that grow too much"""
        half = self.intervals[len(self.intervals) // 2 :]
        found = []
        for name, limit in (("rss", MEMORY), ("fds", MORE), ("sockets", MORE), ("tasks", MORE)):
            grows = slope([float(getattr(one.usage, name)) for one in half])
            print(f"trend of {name}: {grows:+.1f} over {len(half)} intervals")
            found += [f"{name} grows: {grows:+.1f}"] if grows > limit else []
        middles = [statistics.median(one.latencies) for one in half if one.latencies]
        print(f"trend of the median latency: {slope(middles):+.1f} ms")
        return found


async def play(minutes: float, intervals: int, clients: int, seed: str, folder: Path) -> int:
    provider = RawServer(hostile.play)
    settings = hostile.silence(10)
    async with provider.running(), observed(folder, provider.url, settings, hostile.CONFIG) as rproxy:
        soak = Soak(rproxy, provider, seed)
        print("|   min |  turns | median |    p99 |    RSS |  fds | sock | task |", flush=True)
        print("|------:|-------:|-------:|-------:|-------:|-----:|-----:|-----:|", flush=True)
        began = time.monotonic()
        for _ in range(intervals):
            soak.intervals.append(await soak.interval(minutes * 60 / intervals, clients))
            print(soak.intervals[-1].line((time.monotonic() - began) / 60), flush=True)
        wrong = soak.wrong + soak.trends()
        print(", ".join(f"{number} {word}" for word, number in soak.counts.most_common()))
        for text in wrong[:10]:
            print("WRONG " + text[:600], flush=True)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Mixed load for a long time.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--intervals", type=int, default=20, help="lines of the report (default: 20)")
    parser.add_argument("--clients", type=int, default=24, help="how many at a time (default: 24)")
    parser.add_argument("--seed", default="", help="draw the same turns again")
    args = parser.parse_args()
    seed = args.seed or str(random.SystemRandom().randrange(1 << 32))
    print(f"--seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rproxy-soak-") as folder:
        return asyncio.run(play(args.minutes, args.intervals, args.clients, seed, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
