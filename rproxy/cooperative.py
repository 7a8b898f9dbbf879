"""Long work on the event loop, in slices short enough for everybody else.

Threads would not help: the C functions that read and write JSON keep the interpreter's lock until they are
done.
"""

from __future__ import annotations

import asyncio
import time
from typing import Generator, TypeVar

T = TypeVar("T")

SLICE = 0.005  # seconds


async def run_cooperatively(steps: Generator[None, None, T]) -> T:
    """Go through the steps, letting others run now and then.

    :returns: what the generator returns; raises what it raises
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
