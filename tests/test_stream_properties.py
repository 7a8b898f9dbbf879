"""What holds for every answer: properties of the stream converter, and the judgement of the official SDK's
types.
"""

from __future__ import annotations

import json
import random
from typing import Any, Callable, Dict, List

import pytest
from anything import container, shapes
from grammar import check_sse
from hypothesis import given
from hypothesis import strategies as st
from stream_tools import Turn, call, converter, delta, drive, end, text, texts, think

from rproxy.convert.profile import AnswerForm
from rproxy.convert.sse import DONE, encode_sse

Json = Dict[str, Any]

TOOLS = {
    "tools": [
        {"type": "custom", "name": "apply_patch"},
        {"type": "function", "name": "f", "parameters": {"type": "object"}},
        {"type": "tool_search", "execution": "client"},
    ]
}
FINISHES = [
    "stop",
    "length",
    "tool_calls",
    "content_filter",
    "error",
    "model_context_window_exceeded",
    "",
    None,
]


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


# ---- chunks as bad as they come: right keys, any values
SCALARS = [
    None, True, 0, -1, 1.5, "", " ", "a", "{", "}", '{"input": "x"}', "<think>", "```json\n", "\n```",
    "\ud83d", "\udfaf",
]  # fmt: skip
KEYS = ["a", "text", "type", "url_citation", "url", "token", "logprob", "message"]
LETTERS = 'ab \n<>`{}"\\\x00é\u2028\ud83d\udfaf😀'
Chance = random.Random
Make = Callable[[Chance], Any]


def garbage(chance: Chance) -> Any:
    if chance.random() < 0.5:
        return chance.choice(SCALARS)
    return container(chance, SCALARS, KEYS, chance.randint(1, 3))


def one(*values: Any) -> Make:
    """One of these values; as often garbage."""
    return lambda chance: chance.choice(values) if chance.random() < 0.5 else garbage(chance)


def good(*values: Any) -> Make:
    return lambda chance: chance.choice(values)


def some_of(make: Make, most: int) -> Make:
    return lambda chance: [make(chance) for _ in range(chance.randint(0, most))]


def any_of(*makes: Make) -> Make:
    return lambda chance: chance.choice(makes)(chance)


def fields(optional: Dict[str, Make], **always: Make) -> Make:
    """An object with these fields, and each of the optional ones as often as not."""

    def make(chance: Chance) -> Json:
        some_more = {key: made for key, made in optional.items() if chance.random() < 0.5}
        return {key: made(chance) for key, made in {**always, **some_more}.items()}

    return make


def letters(chance: Chance) -> str:
    return "".join(chance.choices(LETTERS, k=chance.randint(0, 3)))


FUNCTION = fields(
    {
        "name": one("f", "apply_patch", "tool_search", "", " ", None),
        "arguments": one("", "{", "}", "{}", '{"input": "', 'x"}', None),
    }
)
WHOLE = fields(
    {}, name=good("f", "apply_patch", "tool_search"), arguments=good("{", "{}", '{"input": "x"}', '{"a"', "")
)
TOOL_CALL = fields(
    {"index": one(0, 1, 2), "id": one("c1", "c2", "", None), "extra_content": garbage},
    function=any_of(WHOLE, WHOLE, FUNCTION, garbage),
)
CITATION = fields({}, url_citation=fields({"start_index": garbage}, url=good("u")))
DELTA = fields(
    {
        "content": any_of(letters, garbage),
        "reasoning_content": one("r", ""),
        "refusal": one("no", ""),
        "tool_calls": any_of(some_of(TOOL_CALL, 3), garbage),
        "function_call": FUNCTION,
        "reasoning_details": some_of(garbage, 2),
        "annotations": any_of(some_of(any_of(CITATION, garbage), 2), garbage),
    }
)
TOKEN = fields({"top_logprobs": garbage, "bytes": garbage}, token=good("a", "\ud83d"), logprob=good(-1))
CHOICE = fields(
    {
        "index": good(0, 1),
        "message": any_of(DELTA, garbage),
        "finish_reason": good(*FINISHES),
        "logprobs": fields({}, content=some_of(any_of(TOKEN, garbage), 2)),
    },
    delta=DELTA,
)
COUNTS = fields(dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), garbage))
USAGE = any_of(garbage, COUNTS)
NEAR = shapes(
    fields(
        {"usage": USAGE, "model": garbage, "object": good("chat.completion.chunk", "chat.completion")},
        choices=some_of(CHOICE, 2),
    )
)
ODD_CHOICE = fields(dict.fromkeys(("delta", "logprobs", "finish_reason"), garbage))
FAR = shapes(
    fields(
        {
            "choices": any_of(garbage, some_of(any_of(CHOICE, garbage, ODD_CHOICE), 4)),
            "error": garbage,
            "object": good("error"),
            "usage": USAGE,
            "message": garbage,
        }
    )
)
CHUNKS = st.lists(NEAR, max_size=12) | st.lists(NEAR | FAR, max_size=8)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "reasoning": some("summary", "content"),
        "seal": some(json.dumps),
        "refusal_as_text": st.booleans(),
        "strip_fences": st.booleans(),
        "logprobs": st.booleans(),
        "answer": st.builds(AnswerForm, think_tags=st.booleans(), cumulative=st.booleans()),
    },
)


@given(CHUNKS, OPTIONS, some(True, True, False))
def test_any_chunks_give_a_well_formed_stream(chunks: List[Json], options: Json, done: bool) -> None:
    events = drive(converter(TOOLS, **options), chunks, done)
    check_sse(encode_sse(events) + DONE)


@given(CHUNKS, OPTIONS, some("fail", "interrupt", "finish"))
def test_any_stream_can_end_at_any_time(chunks: List[Json], options: Json, how: str) -> None:
    stream = converter(TOOLS, **options)
    events = stream.start()
    for chunk in chunks:
        events += stream.feed(chunk) + stream.heartbeat()
    events += stream.fail("server_error", "It broke.") if how == "fail" else getattr(stream, how)()
    check_sse(encode_sse(events) + DONE)
    assert stream.feed(text("late")) == []


# ---- answers as they should be, cut anywhere
class Answered:
    """An answer: its parts in order, and how it is said in chunks."""

    def __init__(self, parts: List[Any]) -> None:
        self.parts = parts

    def chunks(self, size: int) -> List[Json]:
        out, calls = [], 0
        for kind, said in self.parts:
            cut = [said[i : i + size] for i in range(0, len(said), size)]
            if kind == "function_call":
                out.append(call(calls, "", f"c{calls}", "f"))
                out += [call(calls, piece) for piece in cut]
                calls += 1
            else:
                out += [think(piece) if kind == "reasoning" else text(piece) for piece in cut]
        return out


VALUES = st.text(max_size=5) | st.integers() | st.lists(st.text(max_size=3), max_size=2)
ARGUMENTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=3).map(json.dumps)
PARTS = st.lists(
    st.tuples(
        some("reasoning", "message"),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    )
    | st.tuples(st.just("function_call"), ARGUMENTS),
    max_size=6,
)


def merged(parts: List[Any]) -> List[Any]:
    """Neighbours of one kind are one item, except calls."""
    out: List[Any] = []
    for kind, said in parts:
        if out and out[-1][0] == kind != "function_call":
            out[-1] = (kind, out[-1][1] + said)
        else:
            out.append((kind, said))
    return out


@given(PARTS, st.integers(1, 5), some("summary", "content"))
def test_the_output_is_what_the_deltas_said(parts: List[Any], size: int, form: str) -> None:
    turn = Turn(*Answered(parts).chunks(size), end("stop"), reasoning=form)
    assert texts(turn.output) == merged(parts)


@given(PARTS, st.integers(1, 5))
def test_the_cut_of_the_chunks_does_not_matter(parts: List[Any], size: int) -> None:
    answer = Answered(parts)
    assert Turn(*answer.chunks(size), end()).final == Turn(*answer.chunks(1000), end()).final


@given(st.lists(ARGUMENTS, min_size=1, max_size=4), st.integers(0, 1000).map(random.Random))
def test_interleaved_calls_come_out_one_after_another(arguments: List[str], chance: Chance) -> None:
    waiting = [[call(i, piece) for piece in said] for i, said in enumerate(arguments)]
    chunks = [call(i, "", f"c{i}", "f") for i in range(len(arguments))]
    while any(waiting):
        chunks.append(chance.choice([queue for queue in waiting if queue]).pop(0))
    assert texts(Turn(*chunks, end("tool_calls")).output) == [("function_call", said) for said in arguments]


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.lists(ARGUMENTS, max_size=3),
    st.integers(1, 5),
    some("stop", "length"),
)
def test_one_completion_gives_what_the_stream_gives(
    reasoning: str, content: str, arguments: List[str], size: int, finish: str
) -> None:
    parts = [("reasoning", reasoning)] * bool(reasoning) + [("message", content)] * bool(content)
    parts += [("function_call", said) for said in arguments]
    message = {
        "role": "assistant",
        "content": content or None,
        "reasoning_content": reasoning,
        "tool_calls": [
            {"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": said}}
            for i, said in enumerate(arguments)
        ],
    }
    whole = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    assert Turn(whole).final == Turn(*Answered(parts).chunks(size), end(finish)).final


# ---- the types of the official SDK
def sdk_events() -> List[Json]:
    """Every kind of event that there is."""
    signed = {
        "tools": [*TOOLS["tools"], {"type": "function", "name": "g"}],
        "reasoning": {"effort": "low", "summary": "auto"},
    }
    citation = {
        "type": "url_citation",
        "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1},
    }
    said = text("Hi", annotations=[citation])
    said["choices"][0]["logprobs"] = {"content": [{"token": "Hi", "logprob": -1.0, "top_logprobs": []}]}
    chunks = [
        think("Hm"),
        said,
        delta(refusal="No."),
        call(0, "{}", "c1", "g"),
        call(1, '{"input": "x"}', "c2", "apply_patch"),
        call(2, '{"a": 1}', "c3", "tool_search"),
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    events = []
    for form in ("summary", "content"):
        options: Json = {"request": signed, "reasoning": form, "seal": json.dumps, "logprobs": True}
        events += Turn(*chunks, end("tool_calls", usage), **options).events
        events += Turn(*chunks, text("cut"), end("length"), **options).events
        events += Turn(*chunks, done=False, **options).events
    return events


def test_the_sdks_types_accept_every_event() -> None:
    pydantic = pytest.importorskip("pydantic")
    pytest.importorskip("openai")
    from openai.types.responses import ResponseStreamEvent

    adapter = pydantic.TypeAdapter(ResponseStreamEvent)
    seen = set()
    for event in sdk_events():
        value = adapter.validate_python(json.loads(json.dumps(event)))
        assert value.type == event["type"]
        seen.add(event["type"])
    assert len(seen) == 24, sorted(seen)


def test_the_sdks_accumulator_agrees_with_the_output() -> None:
    openai = pytest.importorskip("openai")
    from openai.lib.streaming.responses._responses import ResponseStreamState
    from openai.types.responses import ResponseStreamEvent
    from pydantic import TypeAdapter

    turn = Turn(
        think("Hm"),
        text("H"),
        text("i"),
        call(0, '{"a"', "c1", "g"),
        call(1, '{"input": "x"}', "c2", "apply_patch"),
        call(0, ":1}"),
        end("tool_calls"),
        request=TOOLS,
    )
    state = ResponseStreamState(input_tools=openai.NOT_GIVEN, text_format=openai.NOT_GIVEN)
    adapter = TypeAdapter(ResponseStreamEvent)
    events = [told for event in turn.events for told in state.handle_event(adapter.validate_python(event))]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "Hi"
