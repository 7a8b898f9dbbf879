"""Speed-ups that do not change what the server does, and the switch for them.

Each speed-up has a name: ``dates``, ``unmask`` and ``nodelay`` are in :mod:`rproxy.server.tornado_patches`,
``gc`` is :func:`tuned_gc`, ``threads`` is :func:`quick_switches`, ``malloc`` is :func:`mapped_blocks`,
and ``bodies`` is :mod:`rproxy.server.recent_bodies`.  To find out whether one of them causes a problem, start
the server without it: ``RPROXY_NO_SPEEDUPS=dates,gc``, or ``RPROXY_NO_SPEEDUPS=all``.

Two optional packages (the extra ``fast``) make it faster still: orjson, in :mod:`rproxy.json_codec`, and
uvloop, in :func:`run`.  Both are used where they are installed, except with ``RPROXY_PURE=1``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from functools import cache
from importlib import import_module
from typing import Any, Coroutine, Iterator, List, Mapping, Optional

from .. import PURE
from ..cooperative import large_values
from ..errors import ConfigError
from ..json_codec import orjson

VARIABLE = "RPROXY_NO_SPEEDUPS"
NAMES = ("dates", "unmask", "nodelay", "gc", "threads", "malloc", "bodies")
# Python's own: 700, 10, 10.  The last number is out of reach: a collection of everything is one step.
GC_THRESHOLDS = (5000, 10, 1_000_000)
COLLECTION = 60.0  # seconds between two collections of everything
SHARE = 1000  # the pause until the next one is at least this many times its duration
MAX_POSTPONED = 2  # collections, while something large is in use
M_MMAP_THRESHOLD = -3  # of malloc.h
LARGE_BLOCK = 1 << 20  # bytes
SWITCH_INTERVAL = 0.0005  # seconds; Python's own: 0.005


def enabled(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Is the speed-up ``name`` to be used?

    :raises ConfigError: the variable names something else
    """
    unwanted = {word.strip() for word in environ.get(VARIABLE, "").split(",")} - {""}
    unknown = sorted(unwanted - {*NAMES, "all"})
    if unknown:
        raise ConfigError(f"${VARIABLE}: unknown speed-up {unknown[0]!r}; known: {', '.join(NAMES)}, all.")
    return name not in unwanted and "all" not in unwanted


@contextlib.contextmanager
def tuned_gc() -> Iterator[None]:
    """Exempt all present objects from garbage collection, and collect less often, while the context lasts.
    Objects from before the first request stay until the end of the server, and a turn leaves no cycles
    behind: only errors do, for which an occasional collection is enough.  No automatic collection runs while
    a large value is made or in use: it would examine all of it, in one step, and find nothing.
    """
    if not enabled("gc"):
        yield
        return
    former, collector = gc.get_threshold(), Collector()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    collector.start(COLLECTION)
    large_values.watchers.add(_pause_gc)
    try:
        yield
    finally:
        large_values.watchers.discard(_pause_gc)
        gc.enable()
        collector.stop()
        gc.set_threshold(*former)
        gc.unfreeze()


def _pause_gc(any_large: bool) -> None:
    if any_large:
        gc.disable()
    else:
        gc.enable()


class Collector:
    """Collects the garbage of all generations periodically.

    That is one step, which takes a tenth of a second for the objects of a large request.  So it waits until
    nothing large is in use, if it can.
    """

    def __init__(self) -> None:
        self._timer: Optional[asyncio.TimerHandle] = None
        self._postponed = 0

    def start(self, delay: float) -> None:
        """Collect after ``delay`` seconds, and then periodically."""
        self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        took = 0.0
        if large_values.count and self._postponed < MAX_POSTPONED:
            self._postponed += 1
        elif gc.get_count()[2]:  # something has survived the collections of young objects
            self._postponed, began = 0, time.monotonic()
            gc.collect()
            took = time.monotonic() - began
        self.start(max(COLLECTION, SHARE * took))


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Let the event loop get the interpreter sooner while a thread is working, while the context lasts.

    The loop gives the interpreter up in each system call, and gets it back after the interval: a small
    request, with its half a dozen calls, would wait for 30 ms behind the conversion of a large one.
    """
    if not enabled("threads"):
        yield
        return
    former = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(former)


@contextlib.contextmanager
def mapped_blocks() -> Iterator[None]:
    """Call :func:`map_large_blocks` when there is something large first, as long as the context lasts.

    It is not called earlier because ctypes takes half a megabyte.
    """
    large_values.watchers.add(map_large_blocks)
    try:
        yield
    finally:
        large_values.watchers.discard(map_large_blocks)


@cache
def map_large_blocks(*_: bool) -> None:
    """Make the C library allocate large blocks of memory with mmap, for the whole process.

    glibc does so at first, but once a large block was freed it takes others from its heap, where a growing
    text or buffer is copied again and again (32 MB in 30 ms) and leaves holes behind.  A mapped block grows
    without a copy, and returns to the system when it is freed.  Other C libraries have no such switch.
    """
    if enabled("malloc") and sys.platform == "linux":
        mallopt = getattr(import_module("ctypes").CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


# ---- Optional packages
def event_loops() -> Any:
    """The module that makes event loops: ``uvloop``, or ``asyncio``."""
    try:
        return asyncio if PURE else import_module("uvloop")
    except ImportError:
        return asyncio


def packages_in_use() -> List[str]:
    """The names of the optional packages that make this server faster."""
    found = {"orjson": orjson is not None, "uvloop": event_loops() is not asyncio}
    return [name for name, used in found.items() if used]


def run(main: Coroutine[Any, Any, None]) -> None:
    """:func:`asyncio.run` in the faster event loop, if there is one."""
    event_loops().run(main)
