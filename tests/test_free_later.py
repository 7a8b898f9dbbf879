"""What is large is freed in steps, when nobody uses it any more, and never before; the garbage collector
waits for that.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import weakref
from typing import Any, Callable, Dict, List

import pytest

from rproxy import cooperative
from rproxy.convert import json_reader
from rproxy.cooperative import SOME, free_later, free_steps, large_values
from rproxy.errors import ApiError
from rproxy.server import speedups
from rproxy.server.body import parse_large
from rproxy.server.speedups import GC_THRESHOLDS, Collector

Json = Dict[str, Any]


def request(count: int = 1000) -> Json:
    parts = [{"type": "message", "content": [{"type": "input_text", "text": str(n)}]} for n in range(count)]
    return {"model": "m", "input": parts, "metadata": {f"k{n}": "v" for n in range(count)}}


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(1000):
        if reached():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not happen")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooperative, "LATER", 0.01)


@pytest.mark.parametrize(
    "value",
    [
        list(range(100 * SOME)),
        {str(n): n for n in range(100 * SOME)},
        [[] for _ in range(100 * SOME)],
        [{"a": {"b": [n]}} for n in range(100 * SOME)],
        [[[list(range(100 * SOME))]]],
    ],
    ids=["list", "dict", "small", "nested", "deep"],
)
def test_a_step_is_a_few_entries(value: Any) -> None:
    held = [copy.deepcopy(value)]
    assert sum(1 for _ in free_steps(held)) >= 100
    assert held == []


def test_what_somebody_else_refers_to_stays() -> None:
    value = request()
    first, last, inner = value["input"][0], value["input"][-1], value["metadata"]
    shared = [first, last, inner, value["input"][500]["content"]]
    kept = copy.deepcopy(shared)
    held = [value]
    del value
    for _ in free_steps(held):
        pass
    assert shared == kept and held == []


@pytest.mark.parametrize(
    "user",
    [
        lambda value: value,
        lambda value: value["input"],
        lambda value: list(value["input"]),
        lambda value: value["input"][-1],
        lambda value: [item["content"] for item in value["input"]],
        lambda value: {**value},
    ],
    ids=["all", "a part", "a copy of a list", "an entry", "what is in entries", "a copy"],
)
async def test_it_is_whole_as_long_as_somebody_uses_it(user: Callable[[Json], Any]) -> None:
    values = [request()]
    used = user(values[0])
    before = copy.deepcopy(used)
    free_later([values.pop()])
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(2 * cooperative.SOON)  # it has been looked at
    assert used == before and large_values.count == 1
    del used
    await until(lambda: large_values.count == 0)


async def test_what_is_beside_a_used_part_is_freed() -> None:
    class Marked(List[int]):
        """A list can have no weak references."""

    beside = Marked()
    gone, value = weakref.ref(beside), {**request(), "beside": beside}
    used = value["input"]
    free_later([value])
    del value, beside
    await until(lambda: gone() is None)
    assert len(used) == 1000 and large_values.count == 1
    del used
    await until(lambda: large_values.count == 0)


async def test_who_shares_what_is_further_down_does_not_count() -> None:
    value = request()
    messages = [{"role": "user", "content": item["content"]} for item in value["input"]]
    free_later([messages], levels=2)
    del messages
    await until(lambda: large_values.count == 0)
    assert value == request()


async def test_a_large_body_is_freed_in_steps() -> None:
    value = await parse_large(json.dumps(request()))
    assert value == request() and large_values.count == 1
    del value
    await until(lambda: large_values.count == 0)


async def test_what_was_read_of_a_damaged_body_is_freed_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: List[int] = []

    def counting(held: List[Any]) -> Any:
        freed.append(sum(map(len, held)))
        return free_steps(held)

    monkeypatch.setattr(cooperative, "free_steps", counting)
    monkeypatch.setattr(json_reader, "WINDOW", 200)
    with pytest.raises(ApiError, match="not valid JSON"):
        await parse_large('{"a":[' + "[[],1]," * 1000 + "x]}")
    await until(lambda: large_values.count == 0)
    assert freed == [1000]  # the list; the object was empty yet


# ---- The garbage collector


class Cycle:
    def __init__(self) -> None:
        self.me = self


async def test_everything_is_collected_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedups, "COLLECTION", 0.01)
    former, collector = gc.get_threshold(), Collector()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        cycle = Cycle()
        gone = weakref.ref(cycle)
        gc.collect(1)  # it is old now
        del cycle
        collector.start(0.0)
        await until(lambda: gone() is None)
    finally:
        collector.stop()
        gc.set_threshold(*former)


async def test_it_waits_while_something_large_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: List[int] = []
    collected: List[int] = []

    class Counting:
        @property
        def count(self) -> int:
            asked.append(large_values.count)
            return asked[-1]

    monkeypatch.setattr(speedups, "COLLECTION", 0.001)
    monkeypatch.setattr(speedups, "large_values", Counting())
    monkeypatch.setattr(gc, "collect", lambda: collected.append(len(asked)))
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, 1))
    value, collector = request(), Collector()
    free_later([value])
    collector.start(0.0)
    await until(lambda: len(collected) > 0)
    assert collected[0] == speedups.MAX_POSTPONED + 1  # not for ever
    del value
    await until(lambda: asked[-1] == 0 and collected[-1] == len(asked))
    collector.stop()


async def test_none_happens_by_itself_meanwhile() -> None:
    with speedups.tuned_gc():
        assert gc.isenabled()
        value = await parse_large(json.dumps(request()))
        assert not gc.isenabled()
        del value
        await until(gc.isenabled)
        try:
            await parse_large('{"a":[' + "[1]," * 100_000)
        except ApiError:
            assert not gc.isenabled()
        await until(gc.isenabled)
        value = await parse_large(json.dumps(request()))
    assert gc.isenabled()
    del value
    await until(lambda: large_values.count == 0)
    assert gc.isenabled()
