"""Long work on the event loop, in slices that are short enough for all other clients.

A thread does not help where a C function holds the interpreter's lock until it is done, as those do that read
and write JSON.  Long work in Python goes to one of a few threads (:func:`in_thread`): the interpreter changes
between them and the event loop every few milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Generator, List, TypeVar

T = TypeVar("T")

SLICE = 0.005  # seconds
LARGE = 1 << 20  # bytes that are copied in a thread
THREADS = 2  # at a time; each one more makes the event loop wait longer for its turn

_threads = ThreadPoolExecutor(THREADS, "rproxy")


async def run_cooperatively(steps: Generator[None, None, T]) -> T:
    """Run a generator, and let other work run after each ``SLICE``.

    :param steps: yields between its steps
    :returns: what the generator returns; its exceptions are raised
    """
    began = time.monotonic()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if time.monotonic() - began > SLICE:
            await asyncio.sleep(0)
            began = time.monotonic()


async def collect(steps: Callable[[List[bytes]], Generator[None, None, None]]) -> bytes:
    """Run a generator that appends pieces to a list, as :func:`run_cooperatively` does.

    :param steps: makes the generator for a list
    :returns: all pieces, joined
    """
    pieces: List[bytes] = []
    await run_cooperatively(steps(pieces))
    if len(pieces) == 1:
        return pieces[0]
    if sum(map(len, pieces)) <= LARGE:
        return b"".join(pieces)
    return await in_thread(lambda: b"".join(pieces))  # which lets go of the interpreter's lock


async def in_thread(work: Callable[[], T]) -> T:
    """Call a function that takes long."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
