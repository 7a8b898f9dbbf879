"""Long work on the event loop, in slices that are short enough for all other clients.

A thread does not help where a C function holds the interpreter's lock until it is done, as those do that read
and write JSON.  Long work in Python goes to one of a few threads (:func:`in_thread`): the interpreter changes
between them and the event loop every few milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Callable, Generator, List, TypeVar

T = TypeVar("T")

SLICE = 0.005  # seconds
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
    joined = BytesIO()

    def joining() -> Generator[None, None, None]:
        for _ in steps(pieces):
            joined.writelines(pieces)
            pieces.clear()
            yield

    await run_cooperatively(joining())
    if len(pieces) == 1 and not joined.tell():
        return pieces[0]
    joined.writelines(pieces)
    return joined.getvalue()  # no copy, so that what is large is in memory once


async def in_thread(work: Callable[[], T]) -> T:
    """Call a function that takes long."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
