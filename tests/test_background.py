"""Running responses in one process: the events that are kept, how many run, and a stop that comes late."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Awaitable, Callable, List

import pytest
from rawserver import until

from rproxy.convert.ids import Ids
from rproxy.errors import ApiError
from rproxy.service import background
from rproxy.service.background import Background, Running
from rproxy.store.memory import MemoryStore
from rproxy.store.write_behind import WriteBehindStore
from rproxy.types import Json

Run = Callable[[Running], Awaitable[Json]]


def response(number: int) -> Json:
    return {"id": Ids(f"{number:032x}").response, "status": "queued", "output": [], "background": True}


def delta(number: int, kind: str = "response.output_text.delta") -> Json:
    return {"type": kind, "sequence_number": number}


@pytest.fixture
def store() -> WriteBehindStore:
    return WriteBehindStore(MemoryStore(1000, 1 << 24, 3600.0, time.time))


async def start(responses: Background, number: int, run: Run) -> Running:
    return await responses.start(
        response(number), {"owner": "", "response": response(number)}, run, lambda: None
    )


async def endless(running: Running) -> Json:
    await asyncio.Event().wait()
    return {}


async def completed(running: Running) -> Json:
    return {**running.response, "status": "completed"}


async def failing(running: Running) -> Json:
    raise ApiError(503, "busy")


async def test_of_too_many_events_the_oldest_deltas_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MAX_EVENTS", 20)
    running = Running(response(1), {"owner": ""})
    running.in_progress()
    running.send([delta(3, "response.output_item.added")])
    for number in range(4, 40):
        running.send([delta(number)])
    running.send([delta(40, "response.output_text.done")])
    running.end({**running.response, "status": "completed"})
    events: List[Json] = [event async for batch in running.follow(-1) for event in batch]
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(numbers) and len(numbers) <= 21 and numbers[-5:] == [37, 38, 39, 40, 41]
    assert numbers[:4] == [0, 1, 2, 3]  # what is no delta stays
    assert [event["sequence_number"] async for batch in running.follow(39) for event in batch] == [40, 41]


async def test_of_too_much_text_the_oldest_deltas_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MAX_DELTAS", 1000)
    running = Running(response(1), {"owner": ""})
    running.in_progress()
    for number in range(3, 40):
        running.send([{**delta(number), "delta": "x" * 100}])
    running.end({**running.response, "status": "completed"})
    events: List[Json] = [event async for batch in running.follow(-1) for event in batch]
    assert [event["sequence_number"] for event in events][:3] == [0, 1, 2]
    assert 300 <= sum(len(event.get("delta", "")) for event in events) <= 1000
    assert running.text == 3700


async def test_those_that_have_ended_are_kept_within_limits_of_text(
    store: WriteBehindStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MAX_ENDED_TEXT", 150)

    async def talking(running: Running) -> Json:
        running.send([{**delta(3), "delta": "x" * 100}])
        return {**running.response, "status": "completed"}

    responses = Background(store, time.time)
    for number, run in enumerate((talking, completed, talking)):
        await (await start(responses, number, run)).task
    known = [responses.running(response(number)["id"], "") is not None for number in range(3)]
    assert known == [False, True, True]


@pytest.mark.parametrize("jump", [1000.0, -1000.0])
async def test_a_clock_that_is_set_loses_no_response(
    store: WriteBehindStore, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    monkeypatch.setattr(background, "WATCH_INTERVAL", 0.02)
    monkeypatch.setattr(background, "CONFIRMATION", 0.5)
    here, there = Background(store, time.time), Background(store, lambda: time.time() + jump)
    running = await start(here, 1, endless)
    response_id = response(1)["id"]
    assert await there.alive(response_id)
    running.task.cancel()
    await asyncio.wait({running.task})
    await store.keep(
        response_id + "-alive", {"until": time.time() + background.LEASE}
    )  # as kill -9 leaves it
    began = time.monotonic()
    assert not await there.alive(response_id)
    confirmed = time.monotonic()
    assert not await there.alive(response_id)  # at once, now that it is known
    assert time.monotonic() - confirmed < confirmed - began


async def test_so_many_run_at_once(store: WriteBehindStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MAX_RUNNING", 2)
    responses = Background(store, time.time)
    for number in (1, 2):
        await start(responses, number, endless)
    with pytest.raises(ApiError) as refused:
        await start(responses, 3, endless)
    assert (refused.value.status, refused.value.code) == (429, "rate_limit_exceeded")
    assert await responses.stop(response(1)["id"], "", "cancel")
    await start(responses, 4, endless)
    await responses.close()


async def test_of_those_that_have_ended_the_latest_are_kept(
    store: WriteBehindStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MAX_ENDED", 2)
    responses = Background(store, time.time)
    for number in range(4):
        await (await start(responses, number, completed)).task
    known = [responses.running(response(number)["id"], "") is not None for number in range(4)]
    assert known == [False, False, True, True]
    assert responses.running(response(3)["id"], "somebody else") is None


async def test_a_stop_that_comes_when_the_turn_has_just_failed_waits_until_that_is_stored() -> None:
    """Whoever asks next must not find the state of before in the store."""
    gate = asyncio.Event()

    class SlowStore(MemoryStore):
        async def put(self, record_id: str, record: Any, small: bool = False) -> None:
            if record.get("response", {}).get("status") == "failed":
                await gate.wait()
            await super().put(record_id, record, small)

    store = WriteBehindStore(SlowStore(100, 1 << 20, 3600.0, time.time))
    responses = Background(store, time.time)
    running = await start(responses, 1, failing)
    await until(lambda: running.ended)
    stopping = asyncio.ensure_future(responses.stop(response(1)["id"], "", "cancel"))
    await asyncio.sleep(0.01)
    assert not stopping.done()
    gate.set()
    assert await stopping is True and running.stopped is None
    stored = await store.get(response(1)["id"])
    assert stored is not None and stored["response"]["status"] == "failed"


async def test_a_stop_in_another_process(store: WriteBehindStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "WATCH_INTERVAL", 0.01)
    here, there = Background(store, time.time), Background(store, time.time)
    running = await start(here, 1, endless)
    response_id = response(1)["id"]
    assert await there.alive(response_id) and not await there.stop(response_id, "", "cancel")
    await there.ask_to_stop(response_id, "cancel")
    await asyncio.wait_for(asyncio.shield(running.task), 5)
    assert running.response["status"] == "cancelled" and not await there.alive(response_id)
