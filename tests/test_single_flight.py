"""Requests that come again while their turn runs: they share it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Dict, List

import pytest
from api import site
from grammar import check_stream, parse_sse
from rawserver import until
from running_server import RunningServer, running_server
from scripted import gate, say

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=60)

HI: Json = {"model": "gpt-5.5", "input": "hi"}
GATE: Json = {"model": "m", "input": "gate"}


# (headers of the first request, of the second, whether they share a turn)
REPEATS = [
    ({"Idempotency_Key": "k1"}, {"Idempotency_Key": "k1"}, True),
    ({"Idempotency_Key": "k2"}, {"Idempotency_Key": "k3"}, False),
    ({"X_Stainless_Retry_Count": "0"}, {"X_Stainless_Retry_Count": "1"}, True),
    ({"X_Stainless_Retry_Count": "0"}, {"X_Stainless_Retry_Count": "0"}, False),
    ({}, {"X_Stainless_Retry_Count": "1"}, False),
    ({}, {}, False),
]


def post(e: RunningServer, body: Json, headers: Dict[str, str], on_data: Any = None) -> asyncio.Future[Any]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.ensure_future(e.fetch("/responses", body, headers=names, streaming_callback=on_data))


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("first, second, shared", REPEATS)
async def test_a_repeated_request_shares_the_turn(
    stream: bool, first: Dict[str, str], second: Dict[str, str], shared: bool
) -> None:
    async with running_server() as e:
        body = {**GATE, "stream": stream}
        one = post(e, body, first)
        await until(lambda: e.provider.running == 1)
        two = post(e, body, second)
        await until(lambda: len(e.state.turns) == 2 and (shared or e.provider.running == 2))
        e.provider.gate.set()
        bodies = [(await answer).body for answer in (one, two)]
        responses = [check_stream(parse_sse(b)) if stream else json.loads(b) for b in bodies]
        assert len(e.provider.requests) == (1 if shared else 2)
        assert (responses[0] == responses[1]) is shared and responses[0]["status"] == "completed"


async def test_who_joins_a_stream_hears_something_while_it_waits() -> None:
    async with running_server(heartbeat_interval=0.1) as e:
        body = {**GATE, "stream": True}
        one = post(e, body, {"Idempotency_Key": "k"})
        await until(lambda: e.provider.running == 1)
        pieces: List[bytes] = []
        two = post(e, body, {"Idempotency_Key": "k"}, pieces.append)
        await until(lambda: b"".join(pieces).count(b": wait\n\n") > 1)
        e.provider.gate.set()
        await two
        assert check_stream(parse_sse(b"".join(pieces))) == check_stream(parse_sse((await one).body))


async def test_another_body_or_another_time_is_another_turn() -> None:
    async with running_server() as e:
        key = {"Idempotency_Key": "k"}
        answers = [post(e, GATE, key), post(e, {**GATE, "temperature": 0.5}, key)]
        await until(lambda: e.provider.running == 2)
        e.provider.gate.set()
        await asyncio.gather(*answers)
        await post(e, GATE, key)
        assert len(e.provider.requests) == 3


async def test_the_turn_ends_with_the_last_who_waits() -> None:
    async with running_server() as e:
        raws = [await e.raw() for _ in range(2)]
        data = json.dumps(GATE).encode()
        for raw in raws:
            length = f"Content-Length: {len(data)}"
            raw.send("POST /responses HTTP/1.1", "Host: localhost", length, "Idempotency-Key: k", body=data)
        await until(lambda: len(e.state.turns) == 2 and e.provider.running == 1)
        raws[0].cut()
        await until(lambda: len(e.state.turns) == 1)
        assert (len(e.provider.requests), e.provider.cancelled) == (1, 0)
        raws[1].cut()
        await until(lambda: e.provider.cancelled == 1)
        assert len(e.provider.requests) == 1


async def test_who_stays_gets_the_answer_when_the_first_leaves() -> None:
    async with running_server() as e:
        first = await e.raw()
        data = json.dumps(GATE).encode()
        length = f"Content-Length: {len(data)}"
        first.send("POST /responses HTTP/1.1", "Host: localhost", length, "Idempotency-Key: k", body=data)
        await until(lambda: e.provider.running == 1)
        second = post(e, GATE, {"Idempotency_Key": "k"})
        await until(lambda: len(e.state.turns) == 2)
        first.cut()
        await until(lambda: len(e.state.turns) == 1)
        e.provider.gate.set()
        assert json.loads((await second).body)["status"] == "completed"
        assert (len(e.provider.requests), e.provider.cancelled) == (1, 0)


async def test_an_error_is_shared_too() -> None:
    async with running_server() as e:
        body = {"model": "m", "input": "break", "stream": True}
        answers = [post(e, body, {"Idempotency_Key": "k"}) for _ in range(2)]
        await until(lambda: len(e.state.turns) == 2 and e.provider.running)
        e.provider.gate.set()
        one, two = [(await answer).body for answer in answers]
        assert b"response.failed" in one and b"response.failed" in two and len(e.provider.requests) == 1


async def test_a_background_response_is_begun_once(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        may_end = asyncio.Event()
        provider.turns += [[say("one "), gate(may_end), say("two")]]
        one = await api("POST", "/responses", {**HI, "background": True}, Idempotency_Key="k")
        two = await api("POST", "/responses", {**HI, "background": True}, Idempotency_Key="k")
        may_end.set()
        await api.until(one["id"], "completed")
        assert one["id"] == two["id"] and len(provider.requests) == 1
