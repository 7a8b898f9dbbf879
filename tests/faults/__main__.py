"""``scripts/faults``: a provider that fails at every byte of its answer, and clients that fail at every byte
of their request, through one rproxy.

* **Providers** cut, reset, fall silent, or send a wrong byte, at every position of answers in several forms
  (:mod:`hostile`), over plain sockets and TLS.  Each fault is asked for as JSON, as SSE and over WebSocket.
* **Clients** cut and reset their request at every byte of it, send a wrong byte, leave or stop
  reading somewhere in the answer, or only stay.

Every turn has exactly one end, the right one: whole text if and only if the provider has sent a whole answer.
No answer tells of a bug, none hangs, and none tells what was not sent.  After each part rproxy holds no more
file descriptors, sockets, tasks and memory than before it.

Exit status 0: all of it is true; 1: not, and the first turns that went wrong are shown.  Needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import ssl
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Awaitable, Callable, Iterable, List, NamedTuple, Tuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import clients  # noqa: E402
import hostile  # noqa: E402
import providers  # noqa: E402
from observed import Observed, observed  # noqa: E402
from rawserver import RawServer, make_certificate, until  # noqa: E402

SILENCE = 3.0  # seconds that rproxy bears; a busy machine needs some to answer at all
MEMORY = 24.0  # MiB that a part may leave behind; the allocator's own habits are about half of it
SHOWN = 10  # of the turns that went wrong
Scenario = Callable[[], Awaitable[str]]


class Part(NamedTuple):
    """Some turns, of which so many run at a time; each returns a word for its outcome."""

    name: str
    scenarios: List[Tuple[str, Scenario]]
    parallel: int


class Sweep:
    """All parts, one after another, and what went wrong."""

    def __init__(self, rproxy: Observed, servers: List[RawServer]) -> None:
        self.rproxy, self.servers = rproxy, servers
        self.wrong: List[str] = []
        self.turns = 0

    async def run(self, part: Part) -> None:
        counts: Counter[str] = Counter()
        waiting = iter(part.scenarios)
        before, began = await self.rproxy.resource_usage(), time.monotonic()

        async def work() -> None:
            for name, scenario in waiting:
                try:
                    counts[await scenario()] += 1
                except hostile.Wrong as error:
                    counts["WRONG"] += 1
                    self.tell(f"{part.name}, {name}: {error}")

        await asyncio.gather(*(work() for _ in range(part.parallel)))
        self.turns += len(part.scenarios)
        told = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
        seconds = time.monotonic() - began
        print(f"{part.name}: {len(part.scenarios)} in {seconds:.0f} s: {told}", flush=True)
        await self.leave()
        for text in await self.rproxy.settled(before, MEMORY):
            self.tell(f"{part.name}: {text}")

    def tell(self, text: str) -> None:
        self.wrong.append(text)
        if len(self.wrong) <= SHOWN:
            print("WRONG " + text, flush=True)

    async def leave(self) -> None:
        """Close the connections that both sides keep for the next turn."""
        providers.leave()
        for server in self.servers:
            for peer in server.peers:
                peer.writer.close()
            await until(lambda server=server: all(task.done() for task in server.tasks))
            server.peers.clear()
            server.tasks.clear()


def parts_of(step: int, port: int, tls: int) -> Iterable[Part]:
    """The parts, in the order in which they run.

    :param tls: over TLS so many times as sparse; 0: not at all
    """
    for way in ("", "tls/") if tls else ("",):
        for kind in hostile.KINDS:
            # Silence costs a timeout, but any number of turns may be silent at the same time.
            sparse = step * (tls if way else 1) * (5 if kind == "stall" else 1)
            yield Part(
                f"provider: {way}{kind}",
                providers.scenarios(port, way, kind, sparse),
                100 if kind == "stall" else 8,
            )
    for name, found, parallel in clients.parts(port, step):
        yield Part(f"client: {name}", found, parallel)


async def play(step: int, tls: int, only: str, folder: Path) -> int:
    """:returns: 1 when something went wrong"""
    context, cert = None, ""
    if tls:
        certificate = make_certificate(folder)
        context, cert = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), str(certificate[0])
        context.load_cert_chain(*certificate)
    provider, secure = RawServer(hostile.play), RawServer(hostile.play)
    async with provider.running(), secure.running(context):
        config = hostile.with_tls(secure.url, cert) if tls else hostile.CONFIG
        async with observed(folder, provider.url, hostile.silence(SILENCE), config) as rproxy:
            sweep = Sweep(rproxy, [provider, secure])
            for part in parts_of(67, rproxy.port, tls):  # what opens or loads late is there now
                await sweep.run(part)
            sweep.wrong.clear()
            sweep.turns, first = 0, await rproxy.resource_usage()
            print(f"before: {first}\n", flush=True)
            for part in parts_of(step, rproxy.port, tls):
                if re.search(only, part.name):
                    await sweep.run(part)
            for text in await rproxy.settled(first, MEMORY):
                sweep.tell(text)
            print(f"\nafter:  {await rproxy.resource_usage()}")
            if b'"ok"' not in await hostile.exchange(rproxy.port, clients.HEALTH):
                sweep.tell("GET /health does not answer ok")
    print(f"{sweep.turns} turns, {len(sweep.wrong)} problems")
    return 1 if sweep.wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/faults", description="Faults at every byte, each with its end."
    )
    parser.add_argument(
        "--step", type=int, default=1, help="only every so many bytes (default: 1, every byte)"
    )
    parser.add_argument(
        "--only", default="", help="a regular expression for the parts, such as provider: cut"
    )
    tls = parser.add_mutually_exclusive_group()
    # What is over TLS takes the same way through rproxy above its sockets: every third byte will usually do.
    tls.add_argument(
        "--tls", type=int, default=3, metavar="N", help="over TLS only every Nth of these (default: 3)"
    )
    tls.add_argument("--no-tls", dest="tls", action="store_const", const=0, help="plain sockets only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rproxy-faults-") as folder:
        return asyncio.run(play(args.step, args.tls, args.only, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
