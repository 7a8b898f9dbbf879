"""Events that are made again from a stored response: the grammar of a first stream, and the same output."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from grammar import check_stream
from stream_tools import COMPLETED, CREATED, Turn, call, converter, delta, drive, end, text, think

from rproxy.convert.answer.responses import EventReader
from rproxy.convert.events.converter import StreamConverter
from rproxy.convert.events.replay import events, opening, tail
from rproxy.convert.events.response import response_object
from rproxy.convert.sealed import seal

Json = Dict[str, Any]
CITED = [{"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}]
SECRET = {"type": "object", "properties": {"message": {"type": "string", "encrypted": True}}}
PATCH = {"tools": [{"type": "custom", "name": "apply_patch"}]}
SEARCH = {"tools": [{"type": "tool_search", "execution": "client"}]}
SHELL = {"tools": [{"type": "shell"}]}
NAMESPACE = {
    "tools": [
        {
            "type": "namespace",
            "name": "db",
            "tools": [{"type": "function", "name": "ask", "parameters": SECRET}],
        }
    ]
}

TURNS = {
    "text": Turn(text("Hello"), text(" you"), end()),
    "text with a source": Turn(text("Hello"), delta(annotations=CITED), end()),
    "a refusal": Turn(delta(refusal="No."), end()),
    "a summary, text and two calls": Turn(
        think("hm"),
        text("so"),
        call(0, "{}", "c1", "ls"),
        call(1, '{"a": 1}', "c2", "cat"),
        end("tool_calls"),
    ),
    "reasoning as content": Turn(think("hm"), text("so"), end(), reasoning="content"),
    "sealed reasoning": Turn(think("hm"), text("so"), end(), seal=lambda payload: seal("reasoning", payload)),
    "freeform input": Turn(call(0, '{"input": "*** Begin"}', "c1", "apply_patch"), end(), request=PATCH),
    "empty input": Turn(call(0, '{"input": ""}', "c1", "apply_patch"), end(), request=PATCH),
    "a call in a namespace": Turn(call(0, "{}", "c1", "db__ask"), end(), request=NAMESPACE),
    "an object of arguments": Turn(
        call(0, '{"query": "x"}', "c1", "tool_search"), end(), request=SEARCH, allow=["tool_search"]
    ),
    "an action": Turn(call(0, '{"commands": ["ls"]}', "c1", "shell"), end(), request=SHELL, allow=["shell"]),
    "cut off": Turn(text("Hello"), end("length")),
    "failed": Turn(text("Hello"), done=False),
    "empty": Turn(end()),
}


def without_deltas(found: List[Json]) -> List[Any]:
    """The events without deltas and numbers; of a response only its status."""
    return [
        {**event, "sequence_number": 0, "response": event.get("response", {}).get("status")}
        for event in found
        if not event["type"].endswith(".delta")
    ]


@pytest.mark.parametrize("name", sorted(TURNS))
def test_a_replay_is_a_whole_stream_with_the_same_output(name: str) -> None:
    response = TURNS[name].final
    replayed = events(response)
    assert check_stream(replayed) == response
    if response["status"] != "failed":  # then the first stream has items that were not finished
        assert without_deltas(replayed) == without_deltas(TURNS[name].events)


def test_a_compaction_shows_its_content_at_once() -> None:
    item = {"id": "cmp_1", "type": "compaction", "encrypted_content": "blob"}
    added = events({**TURNS["empty"].final, "output": [item]})[2]
    assert added["item"] == item


@pytest.mark.parametrize(
    "item",
    [
        {"type": "computer_call", "content": [{"type": "screenshot"}], "status": "completed"},
        {"type": "memory", "content": "a text", "summary": 5},
        {"type": "apply_patch_call", "operation": {}},
    ],
    ids=lambda item: str(item["type"]),
)
def test_an_item_of_a_provider_s_own_kind_is_shown_as_it_was(item: Json) -> None:
    whole = {"type": "response.completed", "response": {"status": "completed", "output": [item]}}
    stream = converter(reader=EventReader())
    first = drive(stream, [whole])
    assert len(first) == 5 and without_deltas(events(stream.response)) == without_deltas(first)


def test_a_background_response_is_queued_first() -> None:
    response = {**TURNS["text"].final, "background": True}
    assert [event["response"]["status"] for event in opening(response)] == ["queued", "queued", "in_progress"]
    assert [event["type"] for event in opening(response)] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]


def test_a_cancelled_response_ends_as_incomplete() -> None:
    assert events({**TURNS["text"].final, "status": "cancelled"})[-1]["type"] == "response.incomplete"


def numbers(found: List[Json]) -> List[int]:
    return [event["sequence_number"] for event in found]


def test_the_rest_of_a_stream() -> None:
    response = TURNS["text"].final
    whole = events(response)
    last = len(whole) - 1
    assert tail(response, -1, None) == whole
    assert tail(response, 3, None) == tail(response, 3, last) == whole[4:]
    # The first stream had more deltas: nobody can tell where the client is in ours.
    assert numbers(tail(response, 3, last + 5)) == [last + 5]
    assert tail(response, 3, last + 5)[0]["response"] == response
    assert tail(response, last + 5, last + 5) == []


def test_an_empty_answer_without_a_provider() -> None:
    response = response_object({"model": "m"}, id="resp_1", created_at=CREATED)
    stream = StreamConverter.empty(response, now=lambda: COMPLETED)
    assert check_stream(stream.start() + stream.finish())["output"] == []


def test_a_part_without_text_has_no_delta() -> None:
    response = TURNS["text"].final
    (item,) = response["output"]
    part = {**item["content"][0], "text": ""}
    replayed = events({**response, "output": [{**item, "content": [part]}]})
    assert "response.output_text.delta" not in [event["type"] for event in replayed]


def test_the_first_event_of_another_stream_is_followed_by_its_end_alone() -> None:
    response = Turn(text("Hi"), end()).final
    (last,) = tail(response, 0, 99)
    assert (last["type"], last["sequence_number"]) == ("response.completed", 99)
    assert tail(response, -1, 99) == events(response)
