"""Long work on the event loop, in slices that are short enough for all other clients.

Threads would not help: the C functions that read and write JSON hold the interpreter's lock until they are
done.
"""

from __future__ import annotations

import asyncio
import time
from typing import Generator, TypeVar

T = TypeVar("T")

SLICE = 0.005  # seconds


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
