"""The grammar checker catches what it is there for: one rule broken at a time."""

from __future__ import annotations

import copy
from typing import Any, Callable, Dict, List

import pytest
from grammar import check_response, check_sse, check_stream
from stream_tools import Turn, call, end, text, think

from rproxy.convert.sse import DONE, encode_sse

Json = Dict[str, Any]
Events = List[Json]

CHUNKS = [
    think("Hm"),
    text("Hel"),
    text("lo"),
    call(0, '{"a"', "c1", "f"),
    call(0, ":1}"),
    call(1, "{}", "c2", "g"),
]
GOOD = Turn(*CHUNKS, end("tool_calls")).events
CUT = Turn(*CHUNKS, text("and"), end("length")).events
FAILED = Turn(*CHUNKS, done=False).events


def first(events: Events, type_: str) -> Json:
    return next(event for event in events if event["type"] == "response." + type_)


def drop(type_: str) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        events.remove(first(events, type_))
        renumber(events)

    return change


def put(type_: str, *path: str, value: Any) -> Callable[[Events], None]:
    """Sets a value deep inside the first event of a type."""

    def change(events: Events) -> None:
        place: Any = first(events, type_)
        for key in path[:-1]:
            place = place[int(key) if isinstance(place, list) else key]
        place[path[-1]] = value

    return change


def lose(type_: str, *path: str) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        place: Any = first(events, type_)
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def swap(one: str, two: str) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        i, k = (events.index(first(events, name)) for name in (one, two))
        events[i], events[k] = events[k], events[i]
        renumber(events)

    return change


def double(type_: str) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        at = events.index(first(events, type_))
        events.insert(at, copy.deepcopy(events[at]))
        renumber(events)

    return change


def renumber(events: Events) -> None:
    for number, event in enumerate(events):
        event["sequence_number"] = number


def insert(at: int, event: Json) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        events.insert(at % (len(events) + 1), dict(event))
        renumber(events)

    return change


def late_delta(events: Events) -> None:
    """A piece of the first call after the second was announced."""
    delta = first(events, "function_call_arguments.delta")
    events.remove(delta)
    second = [i for i, event in enumerate(events) if event["type"] == "response.output_item.added"][-1]
    events.insert(second + 1, delta)
    renumber(events)


def same_call_id(events: Events) -> None:
    for event in events:
        for item in [event.get("item") or {}] + event.get("response", {}).get("output", []):
            if "call_id" in item:
                item["call_id"] = "c1"


MUTANTS: Dict[str, Callable[[Events], Any]] = {
    "no events": lambda events: events.clear(),
    "no created": drop("created"),
    "no in_progress": drop("in_progress"),
    "created twice": double("created"),
    "no terminal event": lambda events: events.pop(),
    "two terminal events": double("completed"),
    "an event after the end": insert(-1, {"type": "response.in_progress", "response": GOOD[1]["response"]}),
    "a gap in the numbers": put("output_text.delta", "sequence_number", value=99),
    "numbers from one": lambda events: [
        event.update(sequence_number=event["sequence_number"] + 1) for event in events
    ],
    "no number": lose("output_text.delta", "sequence_number"),
    "the id changes": put("completed", "response", "id", value="resp_other"),
    "a key comes later": put("completed", "response", "extra", value=1),
    "created is completed": put("created", "response", "status", value="completed"),
    "completed says failed": put("completed", "response", "status", value="failed"),
    "no usage": put("completed", "response", "usage", value=None),
    "usage does not add up": put("completed", "response", "usage", "total_tokens", value=7),
    "usage is a float": put("completed", "response", "usage", "input_tokens", value=0.0),
    "no completed_at": put("completed", "response", "completed_at", value=None),
    "output is not the items": put("completed", "response", "output", value=[]),
    "an unknown event": insert(
        5,
        {
            "type": "response.reasoning.delta",
            "output_index": 0,
            "item_id": GOOD[2]["item"]["id"],
            "delta": "x",
        },
    ),
    "a vendor event": insert(5, {"type": "rproxy:note"}),
    "an error event in the middle": insert(5, {"type": "error"}),
    "no item added": drop("output_item.added"),
    "a wrong output_index": put("output_item.added", "output_index", value=1),
    "an item id twice": put("output_item.added", "item", "id", value=""),
    "an item with text already": put(
        "output_item.added", "item", "summary", value=[{"type": "summary_text", "text": "x"}]
    ),
    "a null in an item": put("output_item.added", "item", "encrypted_content", value=None),
    "no part added": drop("content_part.added"),
    "no summary part added": drop("reasoning_summary_part.added"),
    "no part done": drop("content_part.done"),
    "no text done": drop("output_text.done"),
    "no arguments done": drop("function_call_arguments.done"),
    "no item done": drop("output_item.done"),
    "a delta is lost": drop("output_text.delta"),
    "an argument delta is lost": drop("function_call_arguments.delta"),
    "a delta twice": double("output_text.delta"),
    "a delta is empty": put("output_text.delta", "delta", value=""),
    "a delta is null": put("output_text.delta", "delta", value=None),
    "no logprobs": lose("output_text.delta", "logprobs"),
    "a wrong item_id": put("output_text.delta", "item_id", value="msg_0"),
    "no item_id": lose("output_text.delta", "item_id"),
    "a wrong content_index": put("output_text.delta", "content_index", value=1),
    "done before the delta": swap("output_text.done", "output_text.delta"),
    "done says something else": put("output_text.done", "text", value="x"),
    "the part says something else": put("content_part.done", "part", "text", value="x"),
    "arguments say something else": put("function_call_arguments.done", "arguments", value="{}"),
    "the name changes": put("function_call_arguments.done", "name", value="g"),
    "a surrogate": put("output_text.delta", "delta", value="\ud83d"),
    "items interleave": late_delta,
    "a call_id twice": same_call_id,
    "no output": lose("completed", "response", "output"),
}


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_broken_rule_is_caught(name: str) -> None:
    events = copy.deepcopy(GOOD)
    check_stream(events)
    MUTANTS[name](events)
    with pytest.raises(AssertionError):
        check_stream(events)


ENDINGS: Dict[str, Any] = {
    "incomplete without a reason": (CUT, put("incomplete", "response", "incomplete_details", value=None)),
    "incomplete with completed_at": (CUT, put("incomplete", "response", "completed_at", value=1)),
    "an open message": (CUT, lambda events: events.pop(-2)),
    "failed without an error": (FAILED, put("failed", "response", "error", value=None)),
    "failed without a message": (FAILED, put("failed", "response", "error", "message", value="")),
}


@pytest.mark.parametrize("name", sorted(ENDINGS))
def test_a_broken_end_is_caught(name: str) -> None:
    good, change = ENDINGS[name]
    events = copy.deepcopy(good)
    check_stream(events)
    change(events)
    renumber(events)
    with pytest.raises(AssertionError):
        check_stream(events)


ITEMS: List[Json] = [
    {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": []},
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "x"}],
    },
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "refusal", "refusal": ""}],
    },
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "incomplete",
        "content": [{"type": "refusal", "refusal": "x"}],
    },
    {
        "id": "msg1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "refusal", "refusal": "x"}],
    },
    {"id": "rs_1", "type": "reasoning", "summary": []},
    {"id": "rs_1", "type": "reasoning", "summary": [{"type": "reasoning_text", "text": ""}]},
    {"id": "cmp_1", "type": "compaction", "encrypted_content": ""},
    {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "c",
        "name": "f",
        "arguments": "",
        "status": "completed",
    },
    {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "c",
        "name": "",
        "arguments": "{}",
        "status": "completed",
    },
    {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "",
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    },
    {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
        "status": "incomplete",
    },
    {"id": "r_1", "type": "refusal", "refusal": "x"},
]


@pytest.mark.parametrize("item", ITEMS)
def test_a_broken_item_is_caught(item: Json) -> None:
    response = {**GOOD[-1]["response"], "output": [item]}
    with pytest.raises((AssertionError, KeyError)):
        check_response(response)


def test_the_framing_of_sse() -> None:
    body = encode_sse(GOOD) + DONE
    assert check_sse(b": keep-alive\n\n" + body) == GOOD[-1]["response"]
    for broken in (
        body[:-1],
        encode_sse(GOOD),
        body + body,
        b"x",
        body.replace(b"event: response.completed", b"event: x"),
        body.replace(b"event: ", b"id: 1\nevent: ", 1),
    ):
        with pytest.raises(AssertionError):
            check_sse(broken)
