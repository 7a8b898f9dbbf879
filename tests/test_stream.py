"""Chunks in, events out. Every stream here passes the grammar checker (see ``stream_tools.Turn``)."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

import pytest
from grammar import check_stream
from stream_tools import COMPLETED, STEM, Turn, call, converter, delta, drive, end, text, texts, think

from rproxy.convert.answer.chat import ChunkReader
from rproxy.convert.answer.reasoning_details import ReasoningDetails
from rproxy.convert.events.converter import StreamConverter
from rproxy.convert.events.terminal import Failure
from rproxy.convert.profile import AnswerForm

Json = Dict[str, Any]

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}
PATCH = {"tools": [{"type": "custom", "name": "apply_patch"}]}


# ---- the choreography of each kind
MESSAGE = [
    "output_item.added",
    "content_part.added",
    "output_text.delta Hel",
    "output_text.delta lo",
    "output_text.done Hello",
    "content_part.done",
    "output_item.done",
]
REFUSAL = [
    "output_item.added",
    "content_part.added",
    "refusal.delta N",
    "refusal.delta o.",
    "refusal.done No.",
    "content_part.done",
    "output_item.done",
]
SUMMARY = [
    "output_item.added",
    "reasoning_summary_part.added",
    "reasoning_summary_text.delta Hm",
    "reasoning_summary_text.done Hm",
    "reasoning_summary_part.done",
    "output_item.done",
]
CONTENT = [
    "output_item.added",
    "content_part.added",
    "reasoning_text.delta Hm",
    "reasoning_text.done Hm",
    "content_part.done",
    "output_item.done",
]
CALL = [
    "output_item.added",
    'function_call_arguments.delta {"a"',
    "function_call_arguments.delta :1}",
    'function_call_arguments.done {"a":1}',
    "output_item.done",
]
CUSTOM = [
    "output_item.added",
    "custom_tool_call_input.delta one",
    "custom_tool_call_input.delta \ntwo",
    "custom_tool_call_input.done one\ntwo",
    "output_item.done",
]


@pytest.mark.parametrize(
    "chunks, options, script",
    [
        ([text("Hel"), text("lo")], {}, MESSAGE),
        ([delta(refusal="N"), delta(refusal="o.")], {}, REFUSAL),
        ([think("Hm")], {}, SUMMARY),
        ([think("Hm")], {"reasoning": "content"}, CONTENT),
        ([call(0, '{"a"', "c1", "f"), call(0, ":1}")], {}, CALL),
        ([call(0, '{"input": "one', "c1", "apply_patch"), call(0, '\\ntwo"}')], {"request": PATCH}, CUSTOM),
        ([think("Hm"), text("Hel"), text("lo")], {}, SUMMARY + MESSAGE),
        ([], {}, []),
        ([text(""), think("")], {}, []),
    ],
    ids=[
        "message",
        "refusal",
        "summary",
        "content",
        "call",
        "custom",
        "reasoning-message",
        "nothing",
        "empty",
    ],
)
def test_choreography(chunks: List[Json], options: Json, script: List[str]) -> None:
    turn = Turn(*chunks, end("stop", USAGE), **options)
    assert turn.script() == script
    assert turn.final["status"] == "completed" and turn.final["completed_at"] == COMPLETED


def test_the_items_of_each_kind() -> None:
    turn = Turn(
        think("Hm"),
        text("Hi"),
        delta(refusal="No."),
        call(0, "{}", "c1", "f"),
        call(1, '{"input":"x"}', "c2", "apply_patch"),
        end("tool_calls"),
        request=PATCH,
    )
    assert turn.output == [
        {"id": f"rs_{STEM}0000", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
        {
            "id": f"msg_{STEM}0001",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
        },
        {
            "id": f"msg_{STEM}0002",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "No."}],
        },
        {
            "id": f"fc_{STEM}0003",
            "type": "function_call",
            "status": "completed",
            "call_id": "c1",
            "name": "f",
            "arguments": "{}",
        },
        {
            "id": f"ctc_{STEM}0004",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "c2",
            "name": "apply_patch",
            "input": "x",
        },
    ]


def test_raw_reasoning_item() -> None:
    turn = Turn(think("Hm"), end(), reasoning="content")
    content = [{"type": "reasoning_text", "text": "Hm"}]
    assert turn.output == [{"id": f"rs_{STEM}0000", "type": "reasoning", "summary": [], "content": content}]


def test_refusal_as_text() -> None:
    turn = Turn(text("I "), delta(refusal="won't."), end(), refusal_as_text=True)
    assert texts(turn.output) == [("message", "I won't.")]
    assert turn.output[0]["content"][0]["type"] == "output_text"


def test_a_tool_whose_call_does_not_stream() -> None:
    tools = {"tools": [{"type": "tool_search", "execution": "client", "parameters": {"type": "object"}}]}
    turn = Turn(call(0, '{"query":', "c1", "tool_search"), call(0, '"x"}'), end("tool_calls"), request=tools)
    assert turn.script() == ["output_item.added", "output_item.done"]
    assert turn.output[0]["type"] == "tool_search_call" and turn.output[0]["arguments"] == {"query": "x"}


# ---- order
@pytest.mark.parametrize(
    "chunks, expected",
    [
        # a kind that comes back is a new item
        (
            [text("a"), think("r1"), text("b"), think("r2")],
            [("message", "a"), ("reasoning", "r1"), ("message", "b"), ("reasoning", "r2")],
        ),
        # parallel calls, their fragments interleaved
        (
            [call(0, '{"a":', "c1", "f"), call(1, '{"b":', "c2", "g"), call(0, "1}"), call(1, "2}")],
            [("function_call", '{"a":1}'), ("function_call", '{"b":2}')],
        ),
        # text waits for the call before it
        (
            [
                think("r1"),
                text("a"),
                call(0, "{", "c1", "f"),
                call(1, "{}", "c2", "g"),
                text("b"),
                call(0, "}"),
                text("c"),
            ],
            [
                ("reasoning", "r1"),
                ("message", "a"),
                ("function_call", "{}"),
                ("function_call", "{}"),
                ("message", "bc"),
            ],
        ),
        (
            [call(0, "{", "c1", "f"), text("a"), think("r"), text("b"), call(0, "}")],
            [("function_call", "{}"), ("message", "a"), ("reasoning", "r"), ("message", "b")],
        ),
        # a call without arguments closes at the end
        (
            [call(0, None, "c1", "f"), call(1, None, "c2", "g"), text("a")],
            [("function_call", "{}"), ("function_call", "{}"), ("message", "a")],
        ),
        # not an object: may go on until the end
        ([call(0, "12", "c1", "f"), text("a"), call(0, "3")], [("function_call", "123"), ("message", "a")]),
        ([call(0, "[1]", "c1", "f"), text("a"), call(0, " ")], [("function_call", "[1] "), ("message", "a")]),
        # what comes for a closed call is dropped
        (
            [call(0, "{}", "c1", "f"), text("a"), call(0, " "), text("b")],
            [("function_call", "{}"), ("message", "ab")],
        ),
        # braces and quotes in strings
        (
            [call(0, '{"a":"}\\', "c1", "f"), text("a"), call(0, '"{"'), call(0, "}")],
            [("function_call", '{"a":"}\\"{"}'), ("message", "a")],
        ),
        (
            [call(0, '{"a":[{"b":"\\\\"}]', "c1", "f"), text("a"), call(0, "}"), text("b")],
            [("function_call", '{"a":[{"b":"\\\\"}]}'), ("message", "ab")],
        ),
        # broken arguments go through as they are
        ([call(0, '{"a": tru', "c1", "f")], [("function_call", '{"a": tru')]),
        ([call(0, '"\\', "c1", "f"), call(0, "n")], [("function_call", '"\\n')]),
        ([call(0, "{\\n}", "c1", "f"), text("a")], [("function_call", "{\\n}"), ("message", "a")]),
    ],
)
def test_order(chunks: List[Json], expected: List[Any]) -> None:
    assert texts(Turn(*chunks, end("tool_calls")).output) == expected


def test_an_open_call_streams_and_what_follows_does_not() -> None:
    stream = converter()
    stream.start()
    assert types(stream.feed(call(0, "{", "c1", "f"))) == [
        "output_item.added",
        "function_call_arguments.delta",
    ]
    assert stream.feed(text("a")) == []
    assert stream.feed(call(1, "{}", "c2", "g")) == []
    assert types(stream.feed(call(0, "}"))) == [
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
    ]


def types(events: List[Json]) -> List[str]:
    return [event["type"].partition(".")[2] for event in events]


# ---- the identity of calls
def test_a_call_is_announced_when_its_name_is_whole() -> None:
    stream = converter()
    stream.start()
    assert stream.feed(call(0, None, "c1", "get_")) == []
    assert stream.feed(call(0, None, None, "weather")) == []
    added = stream.feed(call(0, "{}"))[0]
    assert added["item"]["name"] == "get_weather" and added["item"]["arguments"] == ""


def test_an_id_that_comes_late() -> None:
    turn = Turn(call(0, "{", None, "f"), call(0, "}"), call(0, None, "c9"), end("tool_calls"))
    assert turn.output[0]["call_id"] == "c9"


def test_ids_are_minted_where_the_provider_sends_none_or_one_twice() -> None:
    turn = Turn(call(0, "{}", None, "f"), call(1, None, "", "g"), end("tool_calls"))
    assert [item["call_id"] for item in turn.output] == [f"call_{STEM[:24]}0001", f"call_{STEM[:24]}0003"]


def test_an_unknown_tool_is_a_function() -> None:
    item = Turn(call(0, "{}", "c1", "nobody"), end("tool_calls"), request=PATCH).output[0]
    assert (item["type"], item["name"]) == ("function_call", "nobody")


def test_missing_arguments_are_an_empty_object_in_one_delta() -> None:
    turn = Turn(call(0, None, "c1", "f"), end("tool_calls"))
    assert turn.script() == [
        "output_item.added",
        "function_call_arguments.delta {}",
        "function_call_arguments.done {}",
        "output_item.done",
    ]


def test_extra_content_is_kept_for_the_next_turn() -> None:
    signature = {"google": {"thought_signature": "s"}}
    turn = Turn(call(0, "{}", "c1", "f", extra_content=signature), call(1, "{}", "c2", "f"), end("stop"))
    assert turn.stream.extra_content == {"c1": signature}


# ---- reasoning that goes back
def sealed(payload: Json) -> str:
    return json.dumps(payload, sort_keys=True)


def unsealed(turn: Turn) -> List[Json]:
    return [json.loads(item["encrypted_content"]) for item in turn.output if item["type"] == "reasoning"]


ENCRYPTED = {"type": "reasoning.encrypted", "data": "CiQB"}


def test_sealed_reasoning() -> None:
    turn = Turn(think("r1"), text("a"), think("r2"), end(), seal=sealed)
    assert unsealed(turn) == [{"text": "r1"}, {"text": "r2"}]
    assert turn.stream.reasoning_text == "r1r2"


def test_details_go_into_the_item_that_is_open() -> None:
    turn = Turn(
        think("r", reasoning_details=[{"type": "reasoning.text", "text": "r"}]),
        delta(
            reasoning_details=[ENCRYPTED],
            tool_calls=[{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}],
        ),
        end(),
        seal=sealed,
    )
    assert turn.kinds == ["reasoning", "function_call"]
    assert unsealed(turn) == [{"text": "r", "details": [{"type": "reasoning.text", "text": "r"}, ENCRYPTED]}]


@pytest.mark.parametrize("form", ["summary", "content"])
def test_details_without_any_text(form: str) -> None:
    turn = Turn(delta(reasoning_details=[ENCRYPTED]), text("a"), end(), seal=sealed, reasoning=form)
    assert turn.output[0] == {
        "id": f"rs_{STEM}0000",
        "type": "reasoning",
        "summary": [],
        "encrypted_content": sealed({"text": "", "details": [ENCRYPTED]}),
    }
    assert turn.kinds == ["reasoning", "message"]


def test_details_that_nobody_wants_open_nothing() -> None:
    assert Turn(delta(reasoning_details=[ENCRYPTED]), text("a"), end()).kinds == ["message"]


def test_each_detail_is_sealed_once() -> None:
    turn = Turn(
        think("r1", reasoning_details=[{"n": 1}]),
        text("a"),
        delta(reasoning_details=[{"n": 2}]),
        end(),
        seal=sealed,
    )
    assert unsealed(turn) == [{"text": "r1", "details": [{"n": 1}]}, {"text": "", "details": [{"n": 2}]}]


# ---- what text carries
def logprobs(token: str) -> Json:
    top = {"token": "x", "logprob": -1, "bytes": [120]}
    return {"content": [{"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": [top, {}]}]}


def with_logprobs(content: str, probabilities: Any) -> Json:
    chunk = text(content)
    chunk["choices"][0]["logprobs"] = probabilities
    return chunk


def test_logprobs() -> None:
    entry = {
        "token": "é",
        "logprob": -0.5,
        "bytes": [0xC3, 0xA9],
        "top_logprobs": [{"token": "x", "logprob": -1, "bytes": [120]}],
    }
    broken = {"content": [{"token": 1}, None, {"token": "b"}, {**entry, "top_logprobs": True}]}
    turn = Turn(with_logprobs("é", logprobs("é")), with_logprobs("b", broken), end(), logprobs=True)
    bare = {**entry, "top_logprobs": []}
    assert [event["logprobs"] for event in turn.named("response.output_text.delta")] == [[entry], [bare]]
    assert turn.output[0]["content"][0]["logprobs"] == [entry, bare]


def test_logprobs_that_nobody_asked_for() -> None:
    assert Turn(with_logprobs("a", logprobs("a")), end()).output[0]["content"][0]["logprobs"] == []


CITATION = {
    "type": "url_citation",
    "url_citation": {
        "url": "https://example.org",
        "title": "Example",
        "start_index": 0,
        "end_index": 4,
        "content": "...",
    },
}
CITED = {
    "type": "url_citation",
    "url": "https://example.org",
    "title": "Example",
    "start_index": 0,
    "end_index": 4,
}


@pytest.mark.parametrize(
    "chunks",
    [
        [text("a"), delta(annotations=[CITATION])],
        [text("a", annotations=[CITATION])],
        [delta(annotations=[CITATION]), text("a")],
        [think("r"), delta(annotations=[CITATION]), text("a")],
        [call(0, "{", "c1", "f"), delta(annotations=[CITATION]), text("a"), call(0, "}")],
    ],
)
def test_annotations(chunks: List[Json]) -> None:
    turn = Turn(*chunks, end())
    assert turn.output[-1]["content"][0]["annotations"] == [CITED]
    assert [event["annotation"] for event in turn.named("response.output_text.annotation.added")] == [CITED]


@pytest.mark.parametrize(
    "raw, expected",
    [
        ("x", []),
        ({"type": "file", "file": {}}, []),
        ({"url_citation": {"title": "no url"}}, []),
        (
            {"url_citation": {"url": "u", "title": None, "start_index": "0"}},
            [{"type": "url_citation", "url": "u", "title": "", "start_index": 0, "end_index": 0}],
        ),
    ],
)
def test_annotations_of_any_shape(raw: Any, expected: List[Json]) -> None:
    assert Turn(text("a"), delta(annotations=[raw]), end()).output[0]["content"][0]["annotations"] == expected


# ---- fences around JSON
@pytest.mark.parametrize(
    "pieces, expected",
    [
        (["```json\n", '{"a":', "1}", "\n```"], '{"a":1}'),
        (["``", "`js", "on", "\n{}", "\n", "``", "`", "\n"], "{}"),
        (["\n```\n{}\n```\n\n"], "{}"),
        (["```json\r\n{}\r\n```"], "{}"),
        (['{"a":"```"}'], '{"a":"```"}'),
        (["```json\n", '{"a":"``` ', 'x"}', "\n```"], '{"a":"``` x"}'),
        (["```json\n{}", " \n "], "{} \n "),
        (["``"], "``"),
        ([" "], " "),
        ([" " * 300, "```json\n{}\n```"], " " * 300 + "```json\n{}\n```"),
        (["`a`"], "`a`"),
        (["```json {}```"], "```json {}```"),
    ],
)
def test_fences(pieces: List[str], expected: str) -> None:
    assert texts(Turn(*map(text, pieces), end(), strip_fences=True).output) == [("message", expected)]
    assert texts(Turn(*map(text, "".join(pieces)), end(), strip_fences=True).output) == [
        ("message", expected)
    ]
    assert texts(Turn(text("".join(pieces)), end(), strip_fences=True).output) == [("message", expected)]


def test_a_fence_alone_is_nothing() -> None:
    assert Turn(text("```json\n```"), end(), strip_fences=True).output == []


def test_fences_stay_in_reasoning() -> None:
    assert texts(Turn(think("```json\n{}\n```"), end(), strip_fences=True).output) == [
        ("reasoning", "```json\n{}\n```")
    ]


# ---- the end
@pytest.mark.parametrize(
    "finish, status, reason",
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("model_context_window_exceeded", "incomplete", "max_output_tokens"),
        (None, "completed", None),
    ],
)
def test_finish_reasons(finish: Optional[str], status: str, reason: Optional[str]) -> None:
    turn = Turn(text("a"), end(finish, USAGE))
    assert turn.final["status"] == status
    assert turn.final["incomplete_details"] == (reason and {"reason": reason})
    assert turn.output[-1]["status"] == status
    assert turn.final["usage"]["total_tokens"] == 5


def test_usage_is_always_there() -> None:
    assert Turn(text("a"), end()).final["usage"] == NO_USAGE
    assert Turn(text("a"), end("length")).final["usage"] == NO_USAGE


def test_cached_tokens_as_the_configuration_wants_them() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 1,
        "prompt_cache_hit_tokens": 8,
        "prompt_cache_miss_tokens": 1,
    }
    assert Turn(end("stop", usage)).final["usage"]["input_tokens_details"]["cached_tokens"] == 8
    assert Turn(end("stop", usage), cached="sum").final["usage"]["input_tokens_details"]["cached_tokens"] == 9


@pytest.mark.parametrize(
    "chunks, expected",
    [
        # a call cut in its arguments must not look like one
        ([text("Ok"), call(0, '{"cmd": "rm ', "c1", "f")], [("message", "Ok")]),
        ([call(0, None, "c1", "f")], []),
        ([call(0, None, "c1", "")], []),
        # one that is complete stays
        ([call(0, "{}", "c1", "f"), call(1, "{", "c2", "g")], [("function_call", "{}")]),
        ([call(0, "{}", "c1", "f")], [("function_call", "{}")]),
        (
            [call(0, "{", "c1", "f"), call(1, "{}", "c2", "g"), text("a")],
            [("function_call", "{}"), ("message", "a")],
        ),
        ([call(0, "{}", None, "f"), text("a")], [("function_call", "{}"), ("message", "a")]),
    ],
)
def test_calls_of_an_answer_that_was_cut(chunks: List[Json], expected: List[Any]) -> None:
    turn = Turn(*chunks, end("length"))
    assert texts(turn.output) == expected
    assert turn.final["status"] == "incomplete"


def test_only_the_last_message_is_incomplete() -> None:
    turn = Turn(text("a"), think("r"), text("b"), end("length"))
    assert [item.get("status") for item in turn.output] == ["completed", None, "incomplete"]
    turn = Turn(call(0, "{", "c1", "f"), text("a"), think("r"), end("length"))
    assert [item.get("status") for item in turn.output] == ["completed", None]


TRUNCATED = "truncated"
FAILURES = [
    ([], True, "server_error", "sent nothing", []),
    ([text("a")], False, "server_error", TRUNCATED, []),
    ([think("r"), text("a")], False, "server_error", TRUNCATED, [("reasoning", "r")]),
    ([text("a"), end("error")], True, "server_error", "broke off", []),
    ([end("model_context_window_exceeded")], True, "context_length_exceeded", "context window", []),
    ([call(0, "{}", "c1", " "), end("tool_calls")], True, "server_error", "without a name", []),
    (
        [text("Ok"), call(0, "{}", "k1", "ls"), {"error": {"message": "died"}}],
        True,
        "server_error",
        "reported an error",
        [("message", "Ok")],
    ),
]


@pytest.mark.parametrize("chunks, done, code, message, output", FAILURES)
def test_failures(chunks: List[Json], done: bool, code: str, message: str, output: List[Any]) -> None:
    turn = Turn(*chunks, done=done)
    assert turn.final["status"] == "failed"
    assert turn.final["error"]["code"] == code and message in turn.final["error"]["message"]
    assert texts(turn.output) == output


def test_the_failure_carries_the_providers_own_words() -> None:
    stream = converter()
    stream.start()
    stream.feed({"error": {"message": "died"}})
    failure = stream.failure(False)
    assert isinstance(failure, Failure) and failure.raw == {"message": "died"}


def test_finish_does_not_complete_what_failed() -> None:
    stream = converter()
    events = stream.start() + stream.feed(text("a")) + stream.feed(end("error")) + stream.finish()
    assert check_stream(events)["status"] == "failed"


def test_fail_tells_what_clients_look_at() -> None:
    stream = converter()
    events = stream.start() + stream.feed(text("a")) + stream.feed(end("stop", USAGE))
    events += stream.fail("rate_limit_exceeded", "Slow down.", type="rate_limit_error", param="model")
    final = check_stream(events)
    assert final["error"] == {
        "code": "rate_limit_exceeded",
        "message": "Slow down.",
        "type": "rate_limit_error",
        "param": "model",
    }
    assert final["usage"]["total_tokens"] == 5 and final["output"] == []
    assert events[-2]["type"] == "response.output_text.delta"  # what is open stays open


def test_fail_without_usage() -> None:
    assert Turn(text("a"), done=False).final["usage"] is None


def test_what_came_of_an_answer_that_nobody_ended() -> None:
    stream = converter({"tools": [{"type": "function", "name": "ls"}]}, seal=sealed)
    stream.start()
    assert stream.unfinished_response()["output"] == []
    for chunk in (think("Hm."), text("a"), call(0, '{"p": ', "c1", "ls")):
        stream.feed(chunk)
    response = stream.unfinished_response()
    reasoning, message, cut = response["output"]
    assert response["status"] == "incomplete" and stream.response["status"] == "in_progress"
    assert (reasoning["type"], message["status"]) == ("reasoning", "completed")
    assert (cut["arguments"], cut["status"]) == ('{"p": ', "incomplete")
    stream.fail("server_error", "broken")
    assert stream.response["output"] == [reasoning, message]
    assert stream.unfinished_response()["output"] == [reasoning, message, cut]


def test_an_unfinished_item_that_was_not_announced_is_not_there() -> None:
    for chunk in (call(0, None, "c1", "ls"), text("", annotations=[])):
        stream = converter()
        stream.feed(chunk)
        assert stream.unfinished_response()["output"] == []
    for chunk, options in ((think("Hm."), {"seal": sealed}), (text("a"), {})):
        stream = converter(**options)
        stream.feed(chunk)
        (item,) = stream.unfinished_response()["output"]
        assert ("encrypted_content" in item) == bool(options)


def test_an_item_without_text_and_one_that_came_whole_are_not_unfinished() -> None:
    stream = converter(seal=sealed)
    stream.feed(delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]))
    assert stream.unfinished_response()["output"] == []
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    stream = converter()
    stream.feed(delta(images=[image]))
    assert [item["type"] for item in stream.unfinished_response()["output"]] == ["image_generation_call"]


def test_interrupt() -> None:
    stream = converter()
    events = stream.start() + stream.feed(think("r")) + stream.feed(text("a")) + stream.interrupt()
    final = check_stream(events)
    assert final["incomplete_details"] == {"reason": "interrupted"} and texts(final["output"]) == [
        ("reasoning", "r")
    ]
    assert final["usage"] == NO_USAGE
    accepted, interrupted = events[-3:-1]
    assert (accepted["type"], accepted["response_id"]) == ("response.interrupt.accepted", final["id"])
    added = [event for event in events if event["type"] == "response.output_item.added"][-1]
    assert {key: interrupted[key] for key in ("type", "response_id", "item_id", "output_index")} == {
        "type": "response.output_item.interrupted",
        "response_id": final["id"],
        "item_id": added["item"]["id"],
        "output_index": 1,
    }


def test_interrupt_between_items() -> None:
    stream = converter()
    events = stream.start() + stream.interrupt()
    assert [event["type"] for event in events[2:]] == ["response.interrupt.accepted", "response.incomplete"]
    assert check_stream(events)["output"] == []


@pytest.mark.parametrize("how", ["finish", "fail", "interrupt"])
def test_nothing_comes_after_the_end(how: str) -> None:
    stream = converter()
    events = stream.start() + stream.feed(text("a"))
    events += stream.fail("server_error", "x") if how == "fail" else getattr(stream, how)()
    check_stream(events)
    assert stream.feed(text("b")) == stream.heartbeat() == stream.finish() == stream.interrupt() == []
    assert stream.fail("server_error", "y") == []
    assert stream.response == events[-1]["response"]


# ---- around it
def test_heartbeats() -> None:
    stream = converter()
    events = (
        stream.start() + stream.heartbeat() + stream.feed(text("a")) + stream.heartbeat() + stream.finish()
    )
    final = check_stream(events)
    assert [e["type"] for e in events].count("response.in_progress") == 3 and final["status"] == "completed"


def test_visible_and_finish_seen() -> None:
    stream = converter()
    stream.start()
    stream.feed(delta(role="assistant", content=""))
    assert not stream.visible and not stream.finish_seen
    stream.feed(text("a"))
    assert stream.visible and not stream.finish_seen
    stream.feed(end())
    assert stream.finish_seen


def test_a_second_try_goes_on_counting() -> None:
    first = converter()
    events = first.start() + first.heartbeat()
    assert not first.visible
    second = converter(sequence=first.sequence)
    events += second.feed(text("a")) + second.finish()
    assert texts(check_stream(events)["output"]) == [("message", "a")]


def test_an_error_event_takes_a_number() -> None:
    stream = converter()
    events = stream.start()
    events.append(
        {"type": "error", "sequence_number": stream.next_sequence(), "code": "server_error", "message": "x"}
    )
    check_stream(events + stream.fail("server_error", "x"))


def test_an_empty_answer_for_a_warm_up() -> None:
    stream = StreamConverter.empty(converter().response, now=lambda: COMPLETED)
    final = check_stream(stream.start() + stream.finish())
    assert final["status"] == "completed" and final["output"] == [] and final["usage"] == NO_USAGE


def test_events_do_not_change_after_they_were_given() -> None:
    stream = converter()
    given = [stream.start()]
    dumped = [json.dumps(given[0])]
    for chunk in (think("r"), text("a", annotations=[CITATION]), call(0, "{}", "c1", "f"), end()):
        given.append(stream.feed(chunk))
        dumped.append(json.dumps(given[-1]))
    stream.finish()
    assert [json.dumps(events) for events in given] == dumped


def test_one_completion_is_a_stream_of_one_chunk() -> None:
    whole = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "reasoning_content": "Hm",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                    ],
                },
            }
        ],
        "usage": USAGE,
    }
    streamed = Turn(
        think("H"),
        think("m"),
        text("H"),
        text("i"),
        call(0, '{"a"', "c1", "f"),
        call(1, "{}", "c2", "g"),
        call(0, ":1}"),
        end("tool_calls", USAGE),
    )
    assert Turn(whole).final == streamed.final


def test_speed_is_linear() -> None:
    """A long answer in small pieces: the work must not grow with what came before."""
    events = drive(converter(), [text("a b ")] * 50000)
    assert len(events) == 50000 + 8


def test_a_call_that_streamed_without_a_name_gets_it_at_the_end() -> None:
    streamed = delta(tool_calls=[{"index": 0, "id": "c1", "function": {"arguments": "{}"}}])
    closing = {
        "role": "assistant",
        "tool_calls": [{"id": "other", "function": {"name": "f", "arguments": "{}"}}],
    }
    chunk = {"choices": [{"index": 0, "message": closing, "finish_reason": "tool_calls"}]}
    (item,) = Turn(streamed, chunk).output
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "f", "{}")


def test_an_answer_that_broke_off_has_the_usage_that_it_told() -> None:
    stream = converter()
    stream.start()
    stream.feed({**text("Hi"), "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}})
    response = stream.unfinished_response()
    assert (response["status"], response["usage"]["input_tokens"]) == ("incomplete", 3)


def test_what_was_held_back_is_told_before_the_failure() -> None:
    stream = converter(reader=ChunkReader(AnswerForm(think_tags=True)))
    events = stream.start() + stream.feed(text("<thi")) + stream.fail("server_error", "broken")
    said = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(said) == "<thi" and events[-1]["type"] == "response.failed"


def test_text_that_was_held_back_is_said_before_a_failure() -> None:
    stream = converter(reader=ChunkReader(AnswerForm(think_tags=True)))
    stream.start()
    stream.feed(text("Hi"))
    held = stream.feed(text(" <thi"))
    events = [*held, *stream.fail("server_error", "It broke off.")]
    said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert said == " <thi"


def test_data_of_reasoning_is_an_entry_of_its_own() -> None:
    details = ReasoningDetails()
    details.read([{"type": "t", "data": "sealed"}])
    details.read([{"type": "t", "text": "said"}, {"type": "t", "data": "more"}])
    details.complete()
    assert [*map(len, details.entries)] == [2, 2, 2]
    assert [one.get("data") for one in details.entries] == ["sealed", None, "more"]
