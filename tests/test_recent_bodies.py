"""Bodies that go on like an earlier one: only what is new is parsed, and nobody sees a difference."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any, Dict, List

import pytest
from anything import json_values
from hypothesis import given
from hypothesis import strategies as st
from running_server import running_server

from rproxy.errors import ApiError
from rproxy.server import recent_bodies
from rproxy.server.body import parse_object
from rproxy.server.recent_bodies import MIN_SIZE, RecentBodies

Json = Dict[str, Any]

SCALARS = [None, True, 0, 1.5, 1 << 70, "", 'é"\\', "]", '],"tools":', '"input":[', "\ud800", "long " * 9]
KEYS = ["input", "tools", "a", "é", "type", ""]
OBJECTS = st.dictionaries(st.sampled_from(KEYS), json_values(SCALARS, KEYS), max_size=3)
ITEMS = st.lists(OBJECTS, max_size=3)
FIELDS = st.dictionaries(st.sampled_from(KEYS[1:]), json_values(SCALARS, KEYS), max_size=3)
FORMS = st.sampled_from([{"separators": (",", ":")}, {"ensure_ascii": False}, {"indent": 1}])


def written(value: Any) -> str:
    return json.dumps(value)  # which also shows the order of keys, and whether 1 is true


def outcome(parse: Any, data: bytes) -> str:
    try:
        return written(parse(data))
    except ApiError as error:
        return error.message


@st.composite
def conversations(draw: st.DrawFn) -> List[bytes]:
    """Bodies, most of which go on like one before; some are broken."""
    before, after, items, form = draw(FIELDS), draw(FIELDS), draw(ITEMS), draw(FORMS)
    bodies: List[bytes] = []
    for _ in range(4):
        items = [*items, *draw(ITEMS)]
        after = draw(FIELDS) if draw(st.integers(0, 3)) == 0 else after
        fields = {key: value for key, value in after.items() if key not in before}
        data = json.dumps({**before, "input": items, **fields}, **form).encode("utf-8", "surrogatepass")
        if draw(st.integers(0, 3)) == 0:
            place = draw(st.integers(0, len(data) - 1))
            data = (
                data[:place]
                + draw(st.sampled_from([b"", b"]", b"}", b",", b"[", b'"', b" "]))
                + data[place + 1 :]
            )
        bodies.append(data)
    return bodies


@given(conversations())
def test_a_body_is_what_it_would_be_without_the_ones_before(bodies: List[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent_bodies, "MIN_SIZE", 0)
        recent = RecentBodies()
        found = [outcome(partial(recent.parse, ""), data) for data in bodies]
    assert found == [outcome(parse_object, data) for data in bodies]


def turn(number: int) -> List[Json]:
    call = {"type": "function_call", "call_id": f"c{number}", "name": "look", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": f"c{number}", "output": "text " * 500}
    return [call, output, {"type": "message", "role": "user", "content": "hello again"}]


def body(turns: int, **more: Any) -> Json:
    items = [{"type": "message", "role": "user", "content": "hello"}]
    for number in range(turns):
        items += turn(number)
    return {
        "model": "m",
        "input": items,
        "tools": [{"type": "function", "name": "look"}],
        "stream": True,
        **more,
    }


def data_of(turns: int, **more: Any) -> bytes:
    data = json.dumps(body(turns, **more)).encode()
    assert len(data) > MIN_SIZE
    return data


def same(one: Json, other: Json) -> int:
    """How many items are the very same objects."""
    return sum(a is b for a, b in zip(one["input"], other["input"]))


def test_only_what_is_new_is_parsed() -> None:
    recent = RecentBodies()
    first, second = recent.parse("k", data_of(40)), recent.parse("k", data_of(41))
    assert second == body(41) and same(first, second) == len(first["input"])
    assert second["tools"] is not None and recent.parse("k", data_of(41))["tools"] is second["tools"]
    # Another end, as of a client that numbers its requests
    third = recent.parse("k", data_of(43, metadata={"number": "3"}))
    assert third == body(43, metadata={"number": "3"}) and same(second, third) == len(second["input"])
    assert same(third, recent.parse("k", data_of(44, metadata={"number": "4"}))) == len(third["input"])
    # Another history, which begins alike, and another owner
    assert same(third, recent.parse("k", data_of(40))) == 0
    assert same(third, recent.parse("", data_of(44))) == 0


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPROXY_NO_SPEEDUPS", "bodies")
    recent = RecentBodies()
    assert recent.parse("k", data_of(40)) == body(40) and recent._bodies.bytes == 0


def test_nothing_is_kept_of_credentials_and_little_of_many_small_values() -> None:
    server = {"type": "mcp", "server_label": "s", "server_url": "https://s", "authorization": "secret"}
    recent = RecentBodies()
    recent.parse("k", data_of(40, tools=[server]))
    later = body(40)
    later["input"].append({"type": "additional_tools", "tools": [server]})
    recent.parse("k", json.dumps(later).encode())
    small = body(40)
    small["input"].append({"type": "message", "role": "user", "content": [[]] * 100_000})
    recent.parse("k", json.dumps(small).encode())
    assert recent._bodies.bytes == 0
    recent.parse("k", data_of(40))
    recent.parse("k", json.dumps(later).encode())
    [kept] = recent._bodies.of("k")
    assert kept.length < len(data_of(40)) < recent._bodies.bytes


def test_they_take_a_bounded_amount_of_memory() -> None:
    size = RecentBodies()
    size.parse("k", data_of(40))
    recent = RecentBodies(max_bytes=3 * size._bodies.bytes, max_bytes_of_owner=2 * size._bodies.bytes)
    for number in range(4):
        recent.parse("k", data_of(40, instructions=f"{number}"))
    assert 0 < recent._bodies.bytes <= 2 * size._bodies.bytes and len(recent._bodies.of("k")) == 1


def test_a_long_conversation_through_the_server() -> None:
    """What the provider gets, and the values that are kept, are those of each request alone."""

    async def run() -> None:
        async with running_server() as lab:
            for turns in (40, 41, 43, 43):
                answer = await lab.fetch("/v1/responses", body(turns, store=False))
                assert answer.code == 200
                texts = [message["content"] for message in lab.provider.requests[-1]["messages"]]
                assert texts == ["hello"] + [None, "text " * 500, "hello again"] * turns
            [kept] = lab.state.recent_bodies._bodies.of("")
            assert kept.items == body(43)["input"] and len(kept.pieces) == 4

    asyncio.run(run())
