"""Chat requests that go on like an earlier one: only what is new is written, and nobody sees a difference."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Dict, List

import pytest
from anything import json_values, numbers_alike
from hypothesis import given
from hypothesis import strategies as st
from running_server import running_server

from rproxy.convert import json_steps
from rproxy.cooperative import collect
from rproxy.json_codec import encode_json
from rproxy.service import recent_messages
from rproxy.service.recent_messages import RecentMessages

Json = Dict[str, Any]

SCALARS = [None, True, False, 1, 1.0, 0, 1 << 70, "", 'é"\\', "\ud800", "long " * 9]
VALUES = json_values(SCALARS, ["content", "role", "é"])
MESSAGES = st.lists(st.dictionaries(st.sampled_from(["role", "content"]), VALUES, max_size=2), max_size=3)


async def written(recent: RecentMessages, request: Json, owner: str = "") -> bytes:
    return await collect(lambda pieces: recent.write(owner, request, pieces))


@st.composite
def requests(draw: st.DrawFn) -> List[Json]:
    """Requests, most of which go on like one before; some have other messages in between."""
    messages: List[Any] = []
    found: List[Json] = []
    name = draw(st.sampled_from(["messages", "input"]))
    for _ in range(4):
        messages = [*messages, *draw(MESSAGES)]
        if messages and draw(st.booleans()):
            messages[draw(st.integers(0, len(messages) - 1))] = draw(VALUES)
        found.append({"model": "m", name: [*messages], **draw(st.dictionaries(st.just("tools"), VALUES))})
    return found


@given(requests(), st.booleans())
def test_a_request_is_what_it_would_be_without_the_ones_before(some: List[Json], short: bool) -> None:
    async def run() -> None:
        recent = RecentMessages()
        for request in some:
            assert numbers_alike(await written(recent, request)) == numbers_alike(encode_json(request))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent_messages, "MANY", 2)
        if short:
            patch.setattr(json_steps, "STEP", 20)
            patch.setattr(recent_messages, "MAX_NEW", 200)
        asyncio.run(run())


def history(turns: int, **more: Any) -> Json:
    messages: List[Json] = [{"role": "user", "content": "hello"}]
    for number in range(turns):
        call = {"id": f"c{number}", "function": {"name": "look", "arguments": "{}"}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{number}", "content": "text " * 2000},
        ]
    return {"model": "m", "messages": messages, "stream": True, **more}


def parts(recent: RecentMessages, owner: str = "") -> List[List[bytes]]:
    return [[part.json for part in history.parts] for history in recent._histories.of(owner)]


def test_only_what_is_new_is_written() -> None:
    async def run() -> None:
        recent = RecentMessages()
        for turns in (30, 31, 31, 33):
            request = history(turns, top_p=turns)
            assert await written(recent, request) == encode_json(request)
        [now] = parts(recent)
        assert len(now) == 6 and b"".join(now[4:]).count(b'"c3') == 3 * 2
        # Another owner, and a history that is different from some point on
        assert await written(recent, history(33), "other") == encode_json(history(33))
        other = history(33)
        other["messages"][50]["content"] = "changed"
        assert await written(recent, other) == encode_json(other)
        one, two = parts(recent)
        assert [a is b for a, b in zip(one, two)] == [True, True, False, False]

    asyncio.run(run())


def test_numbers_that_are_equal_are_not_the_same() -> None:
    async def run() -> None:
        recent = RecentMessages()
        for value in (1, True, 1.0, 1):
            request = history(30)
            request["messages"][1]["index"] = value
            assert await written(recent, request) == encode_json(request)

    asyncio.run(run())


def test_it_takes_a_bounded_amount_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        recent = RecentMessages(max_bytes=3_000_000, max_bytes_of_owner=2_000_000)
        for number in range(5):
            request = history(30)
            request["messages"][0]["content"] = f"hello {number}"
            await written(recent, request)
        assert 1_000_000 < recent._histories.bytes < 2_000_000 and 1 < len(parts(recent)) < 5
        # Nothing of many small values, and what is too large
        recent = RecentMessages()
        small = {"model": "m", "messages": [{"role": "user", "content": [[]] * 20_000}]}
        assert await written(recent, small) == encode_json(small)
        large = history(120)
        assert await written(recent, large) == encode_json(large)
        assert recent._histories.bytes == 0

    asyncio.run(run())


def test_a_long_conversation_through_the_server() -> None:
    """The provider gets the messages of each request, though most of them were written before."""

    async def run() -> None:
        async with running_server() as lab:
            for turns in (30, 31, 33, 33):
                items: List[Json] = []
                for number in range(turns):
                    call = {
                        "type": "function_call",
                        "call_id": f"c{number}",
                        "name": "look",
                        "arguments": "{}",
                    }
                    output = {
                        "type": "function_call_output",
                        "call_id": f"c{number}",
                        "output": "text " * 2000,
                    }
                    items += [call, output, {"type": "message", "role": "user", "content": "hello"}]
                answer = await lab.fetch("/v1/responses", {"model": "m", "input": items, "store": False})
                assert answer.code == 200
                texts = [message["content"] for message in lab.provider.requests[-1]["messages"]]
                assert texts == [None, "text " * 2000, "hello"] * turns
            [kept] = parts(lab.state.service._recent_messages)
            assert len(kept) == 5 + 2 and json.loads(b"[%b]" % b",".join(kept))[-1]["content"] == "hello"

    asyncio.run(run())
