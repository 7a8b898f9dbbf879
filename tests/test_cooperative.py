"""Long work gives way to short work, whatever there is of it."""

from __future__ import annotations

import asyncio
from typing import Any, Coroutine, Generator, List

import pytest

from rproxy import cooperative
from rproxy.cooperative import TURNS, Slices, give_way, run_cooperatively

TASKS = 5


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are counted, and this machine may be busy."""
    monkeypatch.setattr(cooperative, "SLICE", -1.0)  # each step is one
    monkeypatch.setattr(cooperative, "LONGEST_WAY", 60.0)


def steps(slices: List[int], turn: List[int]) -> Generator[None, None, None]:
    for _ in range(10):
        slices.append(turn[0])
        yield


async def paused(slices: List[int], turn: List[int]) -> None:
    pauses = Slices()
    for _ in range(10):
        slices.append(turn[0])
        await pauses.pause()


def slices_of(make: Any) -> List[int]:
    """The turns of the event loop in which there was a slice, for each slice of ``TASKS`` long tasks."""
    slices: List[int] = []
    turn = [0]

    async def count() -> None:
        while True:
            turn[0] += 1
            await asyncio.sleep(0)

    async def main() -> None:
        counting = asyncio.ensure_future(count())
        await asyncio.gather(*(make(slices, turn) for _ in range(TASKS)))
        counting.cancel()

    asyncio.run(main())
    return slices


def cooperative_steps(slices: List[int], turn: List[int]) -> Coroutine[Any, Any, None]:
    return run_cooperatively(steps(slices, turn))


@pytest.mark.parametrize("make", [cooperative_steps, paused])
def test_long_tasks_have_one_slice_at_a_time(make: Any) -> None:
    """A request of ``TURNS`` turns waits for two slices at most, not for one of each task in each turn."""
    slices = slices_of(make)
    later = slices[TASKS:]  # all of them begin with the first
    assert len(later) == 9 * TASKS
    assert all(after - before >= TURNS for before, after in zip(later, later[1:]))


def test_who_waits_longest_is_next() -> None:
    order: List[int] = []

    async def work(number: int) -> None:
        for _ in range(4):
            await give_way()
            order.append(number)

    async def main() -> None:
        await asyncio.gather(*map(work, range(TASKS)))

    asyncio.run(main())
    assert order == [*range(TASKS)] * 4


def test_a_busy_loop_does_not_keep_long_work_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooperative, "LONGEST_WAY", -1.0)
    turns: List[int] = []

    async def busy() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def main() -> None:
        others = asyncio.ensure_future(busy())
        await asyncio.sleep(0)
        turns.clear()
        await give_way()
        others.cancel()

    asyncio.run(main())
    assert len(turns) <= 2


def test_a_cancelled_task_does_not_hold_up_the_next() -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(give_way()) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.wait_for(asyncio.gather(tasks[1], tasks[3]), 10)
        assert tasks[0].cancelled() and tasks[2].cancelled()

    asyncio.run(main())
    asyncio.run(asyncio.wait_for(give_way(), 10))  # in another loop


def test_what_waits_in_a_loop_that_has_ended_holds_up_nobody() -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(give_way())
    loop.run_until_complete(asyncio.sleep(0))
    asyncio.run(asyncio.wait_for(give_way(), 10))
    loop.run_until_complete(task)
    loop.close()
