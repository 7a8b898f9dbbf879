"""rproxy as a process that is watched from outside: what it holds, and whether that grows.

:func:`observed` starts ``rproxy serve``; the process tells the number of its tasks when it gets a signal, and
everything else stands in ``/proc``.  Linux only.  For ``scripts/faults`` and ``scripts/soak``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import AsyncIterator, List, NamedTuple, Sequence

from rawserver import until
from scripted import Running, running

# The command, which also tells how many tasks there are when it gets the signal.
PROGRAM = """
import asyncio, os, signal, sys
from rproxy.cli.main import main
signal.signal(signal.SIGRTMIN, lambda *_: os.write(2, b"observed tasks: %d\\n" % len(asyncio.all_tasks())))
sys.exit(main())
"""
TOLD = re.compile(rb"observed tasks: (\d+)\n")


class ResourceUsage(NamedTuple):
    """What a process holds; ``rss`` and ``peak`` in MiB."""

    fds: int
    sockets: int
    tasks: int
    rss: float
    peak: float

    def __str__(self) -> str:
        return (
            f"{self.fds} file descriptors, {self.sockets} sockets, {self.tasks} tasks, "
            f"RSS {self.rss:.1f} MiB (peak {self.peak:.1f})"
        )

    def grown(self, before: ResourceUsage, memory: float) -> List[str]:
        """What there is more of than before; memory may be that many MiB more."""
        found = [
            f"{name}: {getattr(before, name)} before, {getattr(self, name)} after"
            for name in ("fds", "sockets", "tasks")
            if getattr(self, name) > getattr(before, name)
        ]
        if self.rss > before.rss + memory:
            found.append(f"RSS: {before.rss:.1f} MiB before, {self.rss:.1f} MiB after")
        return found


class Observed:
    """A running ``rproxy serve``; see :func:`observed`."""

    def __init__(self, rproxy: Running) -> None:
        self.port, self.log, self.pid = rproxy.port, rproxy.log, rproxy.process.pid

    async def resource_usage(self) -> ResourceUsage:
        links = []
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):  # closed since
                links.append(os.readlink(f"/proc/{self.pid}/fd/{name}"))
        sockets = sum(link.startswith("socket:") for link in links)
        return ResourceUsage(
            len(links), sockets, await self._tasks(), self._memory("VmRSS"), self._memory("VmHWM")
        )

    def _memory(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    async def _tasks(self) -> int:
        start, told = self.log.stat().st_size, b""

        def answered() -> bool:
            nonlocal told
            with self.log.open("rb") as file:
                file.seek(start)
                told = file.read()
            return TOLD.search(told) is not None

        os.kill(self.pid, signal.SIGRTMIN)
        await until(answered)
        return int(TOLD.findall(told)[-1])

    async def settled(self, before: ResourceUsage, memory: float, seconds: float = 20.0) -> List[str]:
        """Wait until the process holds no more than before; memory may be so many MiB more.

        :returns: what it still holds after ``seconds``
        """
        end = asyncio.get_running_loop().time() + seconds
        while True:
            grown = (await self.resource_usage()).grown(before, memory)
            if not grown or asyncio.get_running_loop().time() > end:
                return grown
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def observed(folder: Path, base_url: str, server: str, config: str) -> AsyncIterator[Observed]:
    """:func:`scripted.running`, under observation: its log must stay free of tracebacks, and its end must be
    clean.
    """
    async with running(folder, base_url, server, config, command=(sys.executable, "-c", PROGRAM)) as rproxy:
        yield Observed(rproxy)


def slope(values: Sequence[float]) -> float:
    """How much ``values`` grow from the first to the last, by the straight line that fits them best."""
    count = len(values)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    steepness = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    return steepness / sum((at - middle) ** 2 for at in range(count)) * (count - 1)
