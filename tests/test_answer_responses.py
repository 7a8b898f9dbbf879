"""A provider with the Responses API: its events become a stream of ours, whatever is missing of them."""

from __future__ import annotations

import copy
import json
from typing import Any, Dict, List, Optional

import pytest
from anything import json_values
from grammar import check_stream
from hypothesis import given
from hypothesis import strategies as st
from stream_tools import Turn, call, converter, drive, end, text, texts, think

from rproxy.convert.answer.responses import EventReader
from rproxy.convert.sealed import seal, unseal

Json = Dict[str, Any]
TOOLS = {
    "tools": [
        {"type": "function", "name": "ls", "parameters": {}},
        {"type": "custom", "name": "apply_patch"},
        {"type": "tool_search", "execution": "client", "parameters": {}},
        {
            "type": "namespace",
            "name": "mcp__x",
            "tools": [{"type": "function", "name": "add", "parameters": {}}],
        },
    ]
}
USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 12,
}


def event(name: str, **fields: Any) -> Json:
    return {"type": "response." + name, **fields}


def added(index: int, item: Json) -> Json:
    return event("output_item.added", output_index=index, item=item)


def done(index: int, item: Json) -> Json:
    return event("output_item.done", output_index=index, item=item)


def last(*output: Json, status: str = "completed", **fields: Any) -> Json:
    return event(status, response={"status": status, "output": list(output), "usage": USAGE, **fields})


def said(content: str, item_id: str = "m1", **more: Any) -> Json:
    return {
        "type": "message",
        "id": item_id,
        "role": "assistant",
        "status": "completed",
        **more,
        "content": [{"type": "output_text", "text": content, "annotations": [], "logprobs": []}],
    }


def delta(content: Any, item_id: str = "m1", index: int = 0, **more: Any) -> Json:
    return event(
        "output_text.delta", item_id=item_id, output_index=index, content_index=0, delta=content, **more
    )


def read(*events: Json, done: bool = False, origin: str = "o", **options: Any) -> Turn:
    return Turn(
        *events,
        done=done,
        reader=EventReader(origin),
        **{"request": TOOLS, "reasoning": "content", **options},
    )


# ---- the same answer of another rproxy
CHUNKS = [
    think("Let me "),
    think("look."),
    text("Hi \U0001f600"),
    text(" there"),
    call(0, '{"a": ', "c1", "ls"),
    call(0, "1}"),
    call(1, '{"input": "*** \\"Begin\\"\\n"}', "c2", "apply_patch"),
    call(2, "{}", "c3", "mcp__x__add"),
    call(3, '{"query": "q"}', "c4", "tool_search"),
    end("tool_calls", {"prompt_tokens": 7, "completion_tokens": 5}),
]
SOURCE = Turn(*CHUNKS, request=TOOLS, reasoning="content", seal=json.dumps)
SENT: List[Json] = json.loads(json.dumps(SOURCE.events))  # as they are sent
SPOKEN = [item["type"] for item in SOURCE.output]


def test_a_whole_stream_of_ours_comes_out_the_same() -> None:
    turn = read(*SENT)
    assert texts(turn.output) == texts(SOURCE.output) and turn.final["usage"] == SOURCE.final["usage"]
    assert [item.get("call_id") for item in turn.output] == [item.get("call_id") for item in SOURCE.output]
    assert (
        turn.kinds
        == SPOKEN
        == ["reasoning", "message", "function_call", "custom_tool_call", "function_call", "tool_search_call"]
    )
    assert turn.output[4]["namespace"] == "mcp__x" and turn.output[4]["name"] == "add"
    said = [e["type"] for e in turn.events if e["type"].endswith("delta")]
    assert (
        said.count("response.output_text.delta") == 2
        and said.count("response.custom_tool_call_input.delta") == 1
    )


def test_a_whole_response_is_read_like_a_stream() -> None:
    turn = read(SOURCE.final)
    assert texts(turn.output) == texts(SOURCE.output) and turn.final["status"] == "completed"


OTHERS = [i for i, e in enumerate(SENT[:-1]) if "delta" not in e]


@given(st.sets(st.sampled_from(OTHERS)), st.sets(st.integers(0, 5)), st.booleans())
def test_whatever_events_are_missing_the_output_is_complete(missing: Any, silent: Any, indexes: bool) -> None:
    """``silent``: items without their pieces of text; single pieces are never missing, for what was said
    cannot be taken back.
    """
    events = [
        copy.deepcopy(e)
        for i, e in enumerate(SENT)
        if i not in missing and not ("delta" in e and e["output_index"] in silent)
    ]
    for e in events:
        if not indexes:
            e.pop("output_index", None)
    assert sorted(map(str, texts(read(*events).output))) == sorted(map(str, texts(SOURCE.output)))


@pytest.mark.parametrize(
    "kinds",
    [
        {"response.output_item.added", "response.content_part.added"},
        {"response.output_item.done"},
        {
            "response.output_text.delta",
            "response.function_call_arguments.delta",
            "response.custom_tool_call_input.delta",
        },
        {"response.output_text.done", "response.function_call_arguments.done", "response.content_part.done"},
        {"response.created", "response.in_progress"},
    ],
)
def test_a_kind_of_event_that_never_comes(kinds: Any) -> None:
    assert texts(read(*(e for e in SENT if e["type"] not in kinds)).output) == texts(SOURCE.output)


# ---- items
def test_only_the_last_event() -> None:
    turn = read(last(said("a"), said("b", "m2"), model="up"))
    assert texts(turn.output) == [("message", "a"), ("message", "b")]
    assert turn.final["usage"] == {
        **USAGE,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
    }


def test_messages_stay_apart_and_keep_their_phase() -> None:
    turn = read(
        added(0, {**said(""), "content": [], "phase": "commentary"}),
        delta("I look"),
        done(0, said("I look", phase="commentary")),
        added(1, {**said("", "m2"), "content": [], "phase": "final_answer"}),
        delta("Done", "m2", 1),
        last(),
    )
    assert [(item["phase"], item["content"][0]["text"]) for item in turn.output] == [
        ("commentary", "I look"),
        ("final_answer", "Done"),
    ]


def test_ids_that_change_and_indexes_that_repeat() -> None:
    turn = read(
        added(0, {"type": "reasoning", "id": "r1", "summary": []}),
        event("reasoning_text.delta", item_id="r1", output_index=0, content_index=0, delta="Hm"),
        done(
            0,
            {
                "type": "reasoning",
                "id": "other",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "Hmm"}],
            },
        ),
        added(0, {**said("", "m1"), "content": []}),
        delta("Hi"),
        last(
            {"type": "reasoning", "id": "x1", "summary": [], "content": [{"type": "text", "text": "Hmm"}]},
            said("Hi!", "x2"),
        ),
    )
    assert texts(turn.output) == [("reasoning", "Hmm"), ("message", "Hi!")]


def test_an_item_that_only_the_end_knows_beside_one_that_streamed() -> None:
    turn = read(delta("b", "m2", 1), last(said("a", "m1"), said("b", "m2")))
    assert texts(turn.output) == [("message", "b"), ("message", "a")]


def test_a_text_that_contradicts_itself_is_not_said_twice() -> None:
    assert texts(read(delta("abc"), done(0, said("xyz")), last(said("xyz"))).output) == [("message", "abc")]


@pytest.mark.parametrize(
    "whole",
    [said("Hi"), {"type": "function_call", "id": "m1", "call_id": "c", "name": "ls", "arguments": "{}"}],
)
def test_an_item_whose_beginning_has_a_damaged_type_is_what_its_end_says(whole: Json) -> None:
    begun = {**whole, "type": whole["type"][:-1] + "\ufffd"}
    heard = [delta("H")] if whole["type"] == "message" else []
    for events in ([added(0, begun), *heard, done(0, whole)], [added(0, begun), *heard, last(whole)]):
        (item,) = read(*events, last(whole)).output
        assert item["type"] == whole["type"]
        assert item.get("content", whole.get("content")) == whole.get("content")


def test_late_news_of_a_finished_item_are_ignored() -> None:
    assert texts(read(done(0, said("a")), delta("a"), done(0, said("ab")), last(said("ab"))).output) == [
        ("message", "a")
    ]


def test_reasoning_is_said_in_one_form_only() -> None:
    both = {
        "type": "reasoning",
        "id": "r",
        "summary": [{"type": "summary_text", "text": "short"}],
        "content": [{"type": "reasoning_text", "text": "long"}],
    }
    assert texts(read(done(0, both), last(both)).output) == [("reasoning", "long")]
    summary = [
        event("reasoning_summary_text.delta", item_id="r", output_index=0, summary_index=i, delta=d)
        for i, d in enumerate("ab")
    ]
    assert texts(read(*summary, done(0, both), last(both)).output) == [("reasoning", "a\n\nb")]


def test_encrypted_reasoning_is_kept_for_its_maker() -> None:
    item = {"type": "reasoning", "id": "r", "summary": None, "encrypted_content": "gAAA"}
    second = {
        **item,
        "id": "r2",
        "summary": [{"type": "summary_text", "text": "s"}],
        "encrypted_content": "gBBB",
    }
    for events in (
        [last(item, said("a"), second)],
        [done(0, item), done(1, said("a")), done(2, second), last()],
    ):
        turn = read(*events, seal=lambda payload: seal("reasoning", payload))
        assert turn.kinds == ["reasoning", "message", "reasoning"]
        opened = [unseal(turn.output[i]["encrypted_content"]) for i in (0, 2)]
        kept = [
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "s"}],
                "encrypted_content": "gBBB",
            },
        ]
        details = [[{"type": "responses.item", "origin": "o", "item": k}] for k in kept]
        assert opened == [("reasoning", {"text": t, "details": d}) for t, d in zip(["", "s"], details)]
        assert [detail["item"] for detail in turn.stream.reader.reasoning_details] == kept
    assert read(last(item)).output == []  # nobody wants it


def test_freeform_input_of_a_provider_that_knows_the_kind() -> None:
    item = {"type": "custom_tool_call", "id": "x", "call_id": "c", "name": "apply_patch", "input": ""}
    pieces = ['*** "', "\\ \U0001f600\n", "End"]
    deltas = [
        event("custom_tool_call_input.delta", item_id="x", output_index=0, delta=piece) for piece in pieces
    ]
    whole = {**item, "input": "".join(pieces), "status": "completed"}
    for events in (
        [added(0, item), *deltas, done(0, whole), last(whole)],
        [added(0, item), *deltas, last(whole)],
        [last(whole)],
        [added(0, item), *deltas[:1], done(0, whole), last()],
        [added(0, item), *deltas, last()],
    ):
        (found,) = read(*events).output
        assert (found["type"], found["name"], found["input"], found["call_id"]) == (
            "custom_tool_call",
            "apply_patch",
            "".join(pieces),
            "c",
        )
    assert len(read(added(0, item), *deltas, last()).named("response.custom_tool_call_input.delta")) == 3
    assert read(last({**item, "status": "completed"})).output[0]["input"] == ""


def test_half_a_call_is_no_call() -> None:
    half = {
        "type": "custom_tool_call",
        "id": "x",
        "call_id": "c",
        "name": "apply_patch",
        "input": "*** Be",
        "status": "incomplete",
    }
    turn = read(
        done(0, half), last(half, status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    )
    assert turn.output == [] and turn.final["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("live", [True, False], ids=["item by item", "only in the end"])
def test_calls_with_the_same_call_id_are_told_apart(live: bool) -> None:
    """Clients answer a call by its id; one id for two calls would make them lose an output."""
    calls = [
        {"type": "function_call", "id": "f1", "call_id": "c", "name": "ls", "arguments": "{}"},
        {"type": "custom_tool_call", "id": "f2", "call_id": "c", "name": "apply_patch", "input": "x"},
        {"type": "function_call", "id": "f3", "call_id": "c", "name": "ls", "arguments": '{"a": 1}'},
    ]
    stream = (
        [event for n, item in enumerate(calls) for event in (added(n, item), done(n, item))] if live else []
    )
    turn = read(*stream, last(*calls))
    assert texts(turn.output) == [
        ("function_call", "{}"),
        ("custom_tool_call", "x"),
        ("function_call", '{"a": 1}'),
    ]
    ids = [item["call_id"] for item in turn.output]
    assert ids[0] == "c" and len(set(ids)) == 3 and all(call_id.startswith("call_") for call_id in ids[1:])


def test_arguments_as_an_object_and_a_call_without_a_call_id() -> None:
    assert (
        "without a name" in read(last({"type": "function_call", "arguments": "{}"})).final["error"]["message"]
    )
    turn = read(
        last(
            {"type": "function_call", "id": "fc_7", "name": "ls", "arguments": {"a": 1}},
            {"type": "function_call", "name": "ls"},
        )
    )
    assert [(item["call_id"][:4], item["arguments"]) for item in turn.output] == [
        ("fc_7", '{"a":1}'),
        ("call", "{}"),
    ]


def test_items_of_other_kinds_pass_as_they_are_with_our_ids() -> None:
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    listing = {"type": "mcp_list_tools", "id": 5, "tools": []}
    turn = read(
        added(0, {**search, "status": "in_progress"}),
        event("web_search_call.searching", item_id="ws_1"),
        done(0, search),
        delta("Found", index=1),
        done(2, listing),
        last(search, said("Found"), listing, {"id": "no type"}, {"type": ""}),
    )
    ids = [item.pop("id") for item in (copy.deepcopy(item) for item in turn.output)]
    assert turn.kinds == ["web_search_call", "message", "mcp_list_tools"]
    assert {**turn.output[0], "id": "ws_1"} == search and [i.partition("_")[0] for i in ids] == [
        "ws",
        "msg",
        "item",
    ]


def test_annotations_and_logprobs() -> None:
    citation = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 2}
    other = {"type": "file_citation", "file_id": "f", "index": 1, "filename": "n"}
    logprob = {"token": "Hi", "logprob": -1, "bytes": [72, 105], "top_logprobs": []}
    full = said("Hi")
    full["content"][0].update(annotations=[citation, other], logprobs=[logprob])
    news = event(
        "output_text.annotation.added", item_id="m1", output_index=0, content_index=0, annotation=citation
    )
    for events in ([delta("Hi", logprobs=[logprob]), news, done(0, full), last(full)], [last(full)]):
        (message,) = read(*events, logprobs=True).output
        assert message["content"] == [
            {"type": "output_text", "text": "Hi", "annotations": [citation, other], "logprobs": [logprob]}
        ]


def test_a_refusal_and_a_pair_of_surrogates_in_two_pieces() -> None:
    refusal = {
        "type": "message",
        "id": "m",
        "content": [
            {"type": "output_text", "text": "Hm"},
            {"type": "refusal", "refusal": "No"},
            {"type": "refusal"},
            {"type": "odd"},
        ],
    }
    assert [item["content"][0]["type"] for item in read(last(refusal)).output] == ["output_text", "refusal"]
    assert texts(read(delta("a\ud83d"), delta("\ude00"), last(said("a\U0001f600"))).output) == [
        ("message", "a\U0001f600")
    ]
    assert texts(read(delta("a\ud83d"), last(said("a\ud83d"))).output) == [("message", "a\ufffd")]
    assert texts(read(last({"type": "message", "content": "plain"})).output) == [("message", "plain")]


# ---- ends
@pytest.mark.parametrize(
    "reason, status, told",
    [
        ("max_output_tokens", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("steered", "incomplete", "max_output_tokens"),
        (None, "incomplete", "max_output_tokens"),
    ],
)
def test_incomplete(reason: Optional[str], status: str, told: str) -> None:
    turn = read(
        delta("part"),
        last(said("part"), status="incomplete", incomplete_details=reason and {"reason": reason}),
    )
    assert (turn.final["status"], turn.final["incomplete_details"]) == (status, {"reason": told})
    assert turn.output[0]["status"] == "incomplete"


ERROR = {"code": "rate_limit_exceeded", "message": "Slow down"}


@pytest.mark.parametrize(
    "end, raw",
    [
        (event("failed", response={"status": "failed", "error": ERROR}), ERROR),
        (
            event("failed", response={"status": "failed", "error": None}),
            {"message": "It ended its response with the status failed."},
        ),
        (event("failed"), {"message": "It ended its response with the status failed."}),
        (event("cancelled", response={}), {"message": "It ended its response with the status cancelled."}),
        (
            {"object": "response", "status": "queued", "output": []},
            {"message": "It ended its response with the status queued."},
        ),
        ({"type": "error", **ERROR}, {"type": "error", **ERROR}),
        ({"type": "error", "error": ERROR}, ERROR),
        ({"error": ERROR}, ERROR),
        ({"message": "no"}, {"message": "no"}),
        (
            {"choices": [{"delta": {"content": "Hi"}}]},
            {"message": "It answered with Chat Completions: remove wire: responses."},
        ),
    ],
)
def test_errors(end: Json, raw: Json) -> None:
    for before in ([], [delta("part")]):
        reader = EventReader()
        stream = converter(reader=reader)
        events = stream.start()
        for e in [*before, end, delta("more"), last(said("late"))]:
            events += stream.feed(e)
        failure = stream.failure(False)
        assert failure is not None and failure.raw == raw and reader.over
        assert check_stream(events + stream.finish())["status"] == "failed"


def test_a_stream_that_just_ends_is_a_failure_and_done_alone_is_an_end() -> None:
    assert read(delta("part")).final["status"] == "failed"
    assert read(delta("part"), done=True).final["status"] == "completed"
    nothing = [
        event("keepalive"),
        {"type": "keepalive"},
        event("output_item.added"),
        event("output_item.done"),
        event("output_text.delta"),
    ]
    assert texts(read(*nothing, delta("x"), last()).output) == [("message", "x")]


# ---- anything at all
def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


GARBAGE: Any = json_values(
    [None, True, 0, 1, -1, "", "a", "m1", "r1", "{", "{}", '"', 1.5],
    ["type", "text", "id", "name", "annotations"],
)
PART = st.fixed_dictionaries(
    {},
    optional={
        "type": some("output_text", "text", "refusal", "summary_text", "reasoning_text", "odd") | GARBAGE,
        "text": some("", "a", "ab", "abc") | GARBAGE,
        "refusal": some("no") | GARBAGE,
        "annotations": GARBAGE,
        "logprobs": GARBAGE,
    },
)
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": some(
            "message", "reasoning", "function_call", "custom_tool_call", "tool_search_call", "web_search_call"
        )
        | GARBAGE,
        "id": some("m1", "r1", "f1", "f2") | GARBAGE,
        "call_id": some("c1", "c2") | GARBAGE,
        "name": some("ls", "apply_patch") | GARBAGE,
        "namespace": GARBAGE,
        "arguments": some("{}", "{", '{"a"') | GARBAGE,
        "input": some("x", "xy") | GARBAGE,
        "phase": GARBAGE,
        "status": some("completed", "incomplete", "in_progress") | GARBAGE,
        "content": st.lists(PART | GARBAGE, max_size=3) | GARBAGE,
        "summary": st.lists(PART | GARBAGE, max_size=2) | GARBAGE,
        "encrypted_content": GARBAGE,
    },
)
RESPONSE = st.fixed_dictionaries(
    {},
    optional={
        "status": some("completed", "incomplete", "failed", "queued") | GARBAGE,
        "output": st.lists(ITEM | GARBAGE, max_size=4) | GARBAGE,
        "error": GARBAGE,
        "incomplete_details": GARBAGE,
        "usage": GARBAGE,
        "model": GARBAGE,
        "object": some("response"),
    },
)
TYPES = some(
    *(
        "response." + name
        for name in (
            "created",
            "output_item.added",
            "output_item.done",
            "output_text.delta",
            "output_text.done",
            "refusal.delta",
            "reasoning_text.delta",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "custom_tool_call_input.delta",
            "output_text.annotation.added",
            "content_part.done",
            "web_search_call.searching",
        )
    )
)
NEAR = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "item": ITEM,
        "item_id": some("m1", "r1", "f1") | GARBAGE,
        "output_index": some(0, 1, 2) | GARBAGE,
        "content_index": some(0, 1) | GARBAGE,
        "summary_index": some(0, 1) | GARBAGE,
        "delta": some("a", "b", "\ud83d", "\ude00", "{") | GARBAGE,
        "text": some("a", "ab") | GARBAGE,
        "arguments": some("{}", "{") | GARBAGE,
        "logprobs": GARBAGE,
        "annotation": GARBAGE,
    },
)
ENDS = some(*("response." + status for status in ("completed", "incomplete", "failed")))
END = st.fixed_dictionaries({"type": ENDS}, optional={"response": RESPONSE | GARBAGE})
FAR = RESPONSE | st.dictionaries(some("type", "error", "message", "choices", "object"), GARBAGE)
EVENTS = st.builds(lambda events, end: [*events, end], st.lists(NEAR, max_size=10), END) | st.lists(
    NEAR | END | FAR, max_size=8
)
OPTIONS = st.fixed_dictionaries(
    {"reader": st.builds(EventReader)},
    optional={
        "reasoning": some("summary", "content"),
        "seal": some(json.dumps),
        "refusal_as_text": st.booleans(),
        "strip_fences": st.booleans(),
        "logprobs": st.booleans(),
    },
)


KINDS = ("message", "reasoning", "function_call", "custom_tool_call", "tool_search_call")


@given(EVENTS, OPTIONS, st.booleans())
def test_any_events_give_a_well_formed_stream(events: List[Json], options: Json, done: bool) -> None:
    for e in events:
        response = e.get("response")
        for item in [
            e.get("item"),
            *_items(e.get("output")),
            *_items(response.get("output") if isinstance(response, dict) else None),
        ]:
            if isinstance(item, dict) and item.get("type") not in KINDS:
                item["type"] = "web_search_call"
                item.pop("status", None)
                item.pop("encrypted_content", None)
                for key in ("content", "summary", "namespace", "phase"):
                    item.pop(key, None)
    stream = converter(TOOLS, **options)
    assert check_stream(drive(stream, events, done)) == stream.response


def _items(output: Any) -> List[Any]:
    return output if isinstance(output, list) else []
