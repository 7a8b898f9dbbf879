"""Long work on the event loop, in slices that are short enough for all other clients.

A small request needs several iterations of the event loop: one to read it, one for each task that it passes
through, one to write the answer.  If every long task ran a slice in every iteration, the request would wait
for (iterations x tasks) slices.  So one slice runs at a time, and some iterations without a slice follow it
(:func:`give_way`).

A thread does not help where a C function holds the interpreter's lock until it returns, as the JSON functions
do.  Long work in Python goes to one of a few threads (:func:`in_thread`): the interpreter switches between
them and the event loop every few milliseconds.

Freeing a value is work, too, and happens in one step when the last reference to it goes, however large it is:
a list of 100,000 objects takes 30 milliseconds or more.  :func:`free_later` keeps a reference until it is the
last one, and then empties the value piece by piece.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from typing import Any, Callable, Generator, Iterable, List, Optional, Set, TypeVar

T = TypeVar("T")

SLICE = 0.005  # seconds
TURNS = 8  # iterations of the event loop between two slices; GET /health needs 6 or 7
LONGEST_WAY = 0.02  # seconds of CPU time that they may take; iterations of a busy loop are longer
THREADS = 2  # at a time; each further one makes the event loop wait longer for the interpreter
CONTAINERS = frozenset((dict, list))
SOME = 100  # entries of a container that are freed together
FEW = 16  # entries that are freed with the container around them
LOOKED_AT = 3  # entries of a container that are checked for other references
LEVELS = 6  # of nested containers that are checked
SOON, LATER = 0.02, 1.0  # seconds between checks whether a value is still in use: at first, and at most

_threads = ThreadPoolExecutor(THREADS, "rproxy")


_last: Optional[asyncio.Future[None]] = None  # done when the last waiter in :func:`give_way` resumes


async def give_way() -> None:
    """Let other work run: everything that is ready, and slices that have been waiting longer."""
    global _last
    loop = asyncio.get_running_loop()
    before, mine = _last, loop.create_future()
    _last = mine
    try:
        if before is not None and not before.done() and before.get_loop() is loop:
            await asyncio.wait({before})
        began = time.thread_time()  # not the time that other processes take
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if time.thread_time() - began > LONGEST_WAY:
                break
    finally:
        mine.set_result(None)


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
            await give_way()
            began = time.monotonic()


class Slices:
    """For a loop whose awaits may never suspend: lets other work run after each ``SLICE``."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def pause(self) -> None:
        """Call this in every round."""
        if time.monotonic() - self._began > SLICE:
            await give_way()
            self._began = time.monotonic()


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
    return joined.getvalue()  # no copy, so that a large value is in memory once


async def in_thread(work: Callable[[], T]) -> T:
    """Call a function that takes long."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)


async def in_thread_if(takes_long: bool, work: Callable[[], T]) -> T:
    """Call a function here, or with :func:`in_thread`."""
    return await in_thread(work) if takes_long else work()


# ---- Freeing large values


def _references(entries: List[Any]) -> List[int]:
    """The number of references to each entry."""
    return [sys.getrefcount(entry) for entry in entries]


ONE = _references([[]])[0]  # the count of an entry that only its list refers to
_tasks: Set[asyncio.Task[None]] = set()


class LargeValues:
    """How many large values are being made, or in use, in this process.

    Each of ``watchers`` is called with True when the first one begins, and with False when the last one ends.
    """

    def __init__(self) -> None:
        self.count = 0
        self.watchers: Set[Callable[[bool], None]] = set()

    def begin(self) -> None:
        """A large value is being made or used."""
        self.count += 1
        if self.count == 1:
            self._tell(True)

    def end(self, *_: Any) -> None:
        """One of them is done."""
        self.count -= 1
        if self.count == 0:
            self._tell(False)

    def _tell(self, any_: bool) -> None:
        for watcher in self.watchers:
            watcher(any_)


large_values = LargeValues()


def free_later(values: Iterable[Any], levels: int = LEVELS) -> None:
    """Free lists and dicts in short steps, as soon as there are no other references to them.

    They stay whole as long as there is another reference to them, or to something in them.

    :param levels: how deep to look for other references; deeper values may belong to other values, too
    """
    task = asyncio.get_running_loop().create_task(_free([*values], levels))
    _tasks.add(task)
    large_values.begin()
    task.add_done_callback(_tasks.discard)
    task.add_done_callback(large_values.end)


async def _free(held: List[Any], levels: int) -> None:
    await _until(lambda: max(_references(held), default=ONE) <= ONE)
    # A value in an object may be in use by itself, while the others in it are not.
    held[:] = [inner for value in held for inner in (value.values() if type(value) is dict else [value])]
    held[:] = [value for value in held if type(value) in CONTAINERS]
    await _until(lambda: not _in_use(held, levels))
    await run_cooperatively(free_steps(held))


async def _until(reached: Callable[[], bool]) -> None:
    pause = SOON
    while not reached():
        await asyncio.sleep(pause)
        pause = min(2 * pause, LATER)


def _in_use(held: List[Any], levels: int) -> bool:
    """Is there another reference to one of these values, or to something in them, as far as a sample
    shows?
    """
    level, ours = held, ONE
    for _ in range(levels):
        if max(_references(level), default=ONE) > ours:
            return True
        entries = (reversed(value.values() if type(value) is dict else value) for value in level[-LOOKED_AT:])
        level = [one for some in entries for one in islice(some, LOOKED_AT) if type(one) in CONTAINERS]
        ours = ONE + 1  # the list of this level refers to them, too
    return False


def free_steps(held: List[Any]) -> Generator[None, None, None]:
    """Empty a list of lists and dicts from its end, and each entry to which there is no other reference."""
    while held:
        value = held[-1]
        if type(value) is dict:
            some = [value.popitem()[1] for _ in range(min(SOME, len(value)))]
        else:
            some = value[-SOME:]
            del value[-SOME:]
        if not some:
            held.pop()
        only = [entry for entry, count in zip(some, _references(some)) if count <= ONE]
        held += [entry for entry in only if type(entry) in CONTAINERS and _is_worth_steps(entry)]
        yield


def _is_worth_steps(value: Any) -> bool:
    """Does it hold more than a few plain values?"""
    entries = value.values() if type(value) is dict else value
    return len(value) > FEW or not CONTAINERS.isdisjoint(map(type, entries))
