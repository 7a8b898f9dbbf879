"""Chunks of every provider -> deltas: the recorded answers, cut anywhere; then what the recordings do not
show.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Dict, Iterable, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.answer.chat import ChunkReader
from rproxy.convert.answer.decoder import ChunkDecoder
from rproxy.convert.profile import AnswerForm
from rproxy.json_codec import encode_json

Json = Dict[str, Any]
FIXTURES = Path(__file__).parent / "fixtures" / "providers"
CASES = sorted(
    path.name[: -len(".expect.json")]
    for path in FIXTURES.glob("*.expect.json")
    if json.loads(path.read_text("utf-8"))["http_status"] == 200
)
TAGS, SNAPSHOTS = AnswerForm(think_tags=True), AnswerForm(cumulative=True)
MINIMAX = AnswerForm(think_tags=True, cumulative=True)
ANSWERS = [AnswerForm(), TAGS, SNAPSHOTS, MINIMAX]


class Fold:
    """The deltas of an answer, joined."""

    def __init__(self, answer: AnswerForm = AnswerForm()) -> None:
        self.reader = ChunkReader(answer)
        self.texts = {"text": "", "reasoning": "", "refusal": ""}
        self.calls: List[Json] = []
        self.kinds: List[str] = []
        self.others: List[Tuple[str, Any]] = []

    def read(self, chunks: Iterable[Any]) -> Fold:
        for chunk in chunks:
            self._add(self.reader.read(chunk))
        return self

    def end(self) -> Fold:
        self._add(self.reader.end())
        assert self.reader.end() == []
        return self

    def _add(self, deltas: List[Tuple[Any, ...]]) -> None:
        for kind, *rest in deltas:
            if kind == "call":
                self._call(*rest)
            elif kind in self.texts:
                assert rest[0] and type(rest[0]) is str
                rest[0].encode()
                self.texts[kind] += rest[0]
            else:
                assert type(rest[0]) is list
                self.others.append((kind, rest[0]))
                continue
            name = kind if kind != "call" else f"call{rest[0]}"
            if self.kinds[-1:] != [name]:
                self.kinds.append(name)

    def _call(self, key: int, news: Json) -> None:
        assert 0 <= key <= len(self.calls)
        if key == len(self.calls):
            self.calls.append({"id": None, "name": None, "arguments": "", "extra_content": None})
        call = self.calls[key]
        assert sorted(news) == ["arguments", "extra_content", "id", "name"]
        assert news["id"] is None or call["id"] is None
        news["arguments"].encode()
        call.update({name: news[name] for name in ("id", "name", "extra_content") if news[name] is not None})
        call["arguments"] += news["arguments"]

    def brief(self) -> List[Tuple[Any, Any, str]]:
        return [(call["id"], call["name"], call["arguments"]) for call in self.calls]

    def result(self) -> Any:
        reader = self.reader
        return (
            self.texts,
            self.calls,
            self.others,
            reader.finish,
            reader.error,
            reader.usage,
            reader.chunks,
            reader.reasoning_details,
        )


def decode(pieces: Iterable[bytes]) -> Tuple[ChunkDecoder, List[Json]]:
    decoder = ChunkDecoder()
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    return decoder, chunks + decoder.close()


def cuttings(data: bytes) -> Iterable[List[bytes]]:
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    yield data.splitlines(True)
    for seed in range(4):
        places = sorted(random.Random(seed).sample(range(len(data) + 1), min(9, len(data))))
        yield [data[a:b] for a, b in zip([0, *places], [*places, len(data)])]


def answer_of(case: Json) -> AnswerForm:
    profile = case.get("config", {}).get("provider", {}).get("profile")
    return MINIMAX if profile == "minimax" else AnswerForm()


FINISH = {"completed": (None, "stop", "tool_calls"), "incomplete": ("length", "context", "content_filter")}


@pytest.mark.parametrize("name", CASES)
def test_recorded_answers(name: str) -> None:
    case = json.loads((FIXTURES / (name + ".expect.json")).read_text("utf-8"))
    expect = case["expect"]
    data = (FIXTURES / case["file"]).read_bytes()
    results = []
    for pieces in cuttings(data):
        decoder, chunks = decode(pieces)
        fold = Fold(answer_of(case)).read(chunks).end()
        results.append((fold.result(), decoder.done))
    assert all(result == results[0] for result in results)

    reader = fold.reader
    assert fold.texts == {
        "text": expect["text"],
        "reasoning": expect["reasoning"],
        "refusal": expect.get("refusal", ""),
    }
    if expect["outcome"] == "failed":
        nameless = any(not call["name"] for call in fold.calls)
        truncated = not decoder.done and reader.finish is None
        assert reader.error is not None or reader.finish in ("error", "context") or nameless or truncated
        if "error_message_contains" in expect:
            assert expect["error_message_contains"] in json.dumps(reader.error, ensure_ascii=False)
        return
    assert reader.error is None
    assert reader.finish in FINISH[expect["outcome"]]
    assert decoder.done or reader.finish is not None
    calls = expect["tool_calls"]
    for call, wanted in zip(fold.calls, calls):
        assert (call["id"], call["name"]) == (wanted["call_id"], wanted["name"])
        if expect.get("arguments_as_json"):
            assert json.loads(call["arguments"]) == json.loads(wanted["arguments"])
        else:
            assert (call["arguments"] or "{}") == wanted["arguments"]
    if expect["outcome"] == "completed":
        assert len(fold.calls) == len(calls)
    assert (reader.usage is None) == (expect["usage"] is None)
    if reader.usage:
        assert int(reader.usage["prompt_tokens"]) == expect["usage"]["input_tokens"]


def test_the_order_of_the_deltas() -> None:
    chunks = decode([(FIXTURES / "c46_item_order.sse").read_bytes()])[1]
    assert Fold().read(chunks).kinds == ["reasoning", "text", "call0", "call1", "call0", "text"]


def test_what_goes_back_to_the_provider() -> None:
    chunks = decode([(FIXTURES / "a21_openrouter_reasoning_details.sse").read_bytes()])[1]
    assert Fold().read(chunks).end().reader.reasoning_details == [
        {"type": "reasoning.text", "text": "Need ls.", "format": "google-gemini-v1", "index": 0},
        {
            "type": "reasoning.encrypted",
            "data": "CiQB",
            "id": "tool_0_ls",
            "format": "google-gemini-v1",
            "index": 0,
        },
    ]
    chunks = decode([(FIXTURES / "a18_minimax_cumulative.sse").read_bytes()])[1]
    assert Fold(MINIMAX).read(chunks).end().reader.reasoning_details[0]["text"] == "The user"
    chunks = decode([(FIXTURES / "a28_gemini_thought_signature.sse").read_bytes()])[1]
    assert [call["extra_content"] for call in Fold().read(chunks).calls] == [
        {"google": {"thought_signature": "CskBAdHtim8="}},
        None,
    ]


# ---- texts
def delta(**keys: Any) -> Json:
    return {"choices": [{"index": 0, "delta": keys, "finish_reason": None}]}


def message(finish: Any = "stop", **keys: Any) -> Json:
    return {"object": "chat.completion", "choices": [{"index": 0, "message": keys, "finish_reason": finish}]}


def texts(answer: AnswerForm, *chunks: Any) -> Tuple[str, str, str]:
    fold = Fold(answer).read(chunks).end()
    return fold.texts["reasoning"], fold.texts["text"], fold.texts["refusal"]


@pytest.mark.parametrize(
    "keys, reasoning, text",
    [
        ({"reasoning_text": "r"}, "r", ""),
        ({"thinking": "r"}, "r", ""),
        ({"thinking": True}, "", ""),
        ({"reasoning_content": "", "reasoning": ["a", {"text": "b"}]}, "ab", ""),
        ({"reasoning": {"summary": [{"type": "summary_text", "text": "s"}]}}, "s", ""),
        (
            {
                "reasoning_details": [
                    {"type": "reasoning.summary", "summary": "s"},
                    5,
                    {"type": "reasoning.text", "text": "t"},
                ]
            },
            "st",
            "",
        ),
        ({"reasoning_details": "x", "content": "y"}, "", "y"),
        ({"content": {"type": "text", "text": "t"}}, "", "t"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "h"}]},
                    {"type": ["?"], "text": "t"},
                    None,
                    4,
                ]
            },
            "h",
            "t",
        ),
        ({"content": 4}, "", ""),
        ({"content": [[[[[[["deep"]]]]]]]}, "", ""),
        ({"content": ""}, "", ""),
    ],
)
def test_shapes_of_texts(keys: Json, reasoning: str, text: str) -> None:
    assert texts(AnswerForm(), delta(**keys)) == (reasoning, text, "")
    assert texts(AnswerForm(), message(**keys)) == (reasoning, text, "")


def test_refusals() -> None:
    assert texts(
        AnswerForm(),
        delta(refusal="No"),
        delta(refusal=5),
        delta(content=[{"type": "refusal", "refusal": "!"}]),
    ) == ("", "", "No!")


def test_halves_of_surrogate_pairs() -> None:
    chunks = [
        delta(content="a\ud83c"),
        delta(content="\udfaf"),
        delta(content="\ud83c"),
        delta(reasoning="\ud800x"),
        delta(content="\ud83c"),
        delta(tool_calls=[{"id": "c", "function": {"name": "f\ud800", "arguments": '"\ud83c'}}]),
        delta(tool_calls=[{"function": {"arguments": '\udfaf"'}}]),
        delta(tool_calls=[{"function": {"arguments": "\ud83c"}}]),
    ]
    fold = Fold().read(chunks).end()
    assert fold.texts == {"text": "a🎯\ufffd\ufffd", "reasoning": "\ufffdx", "refusal": ""}
    assert fold.kinds == ["text", "reasoning", "text", "call0"]
    assert fold.brief() == [("c", "f\ufffd", '"🎯"\ufffd')]


@pytest.mark.parametrize(
    "text, reasoning, rest",
    [
        ("<think>a</think>\n\nb", "a", "b"),
        ("\n <thinking>a</thinking>b", "a", "b"),
        ("<thought>a</thought>b\n<think>c</think> d", "ac", "b\nd"),
        ("<think></think></think>a", "", "</think>a"),
        ("<think>\n\n</think>\n\na <b", "", "a <b"),
        ("a <think>b</think>", "", "a <think>b</think>"),
        ("<b><think>b</think>", "", "<b><think>b</think>"),
        ("<think>a</thin", "a</thin", ""),
        ("<think>a<b></x></think>c", "a<b></x>", "c"),
        ("  <thin", "", "  <thin"),
        ("<think> \n", "", ""),
        (" \n\n", "", ""),
        (" " * 100 + "<think>a", "a", " " * 100),
        ("<think>" + " " * 100 + "a</think>", " " * 100 + "a", ""),
        ("x\n<think>y</think>\n\n<think>z</think>\nw", "yz", "x\nw"),
    ],
)
def test_think_tags(text: str, reasoning: str, rest: str) -> None:
    assert texts(TAGS, delta(content=text)) == (reasoning, rest, "")
    assert texts(TAGS, message(content=text)) == (reasoning, rest, "")
    if len(text) < 100:
        assert texts(TAGS, *[delta(content=letter) for letter in text]) == (reasoning, rest, "")
    assert texts(AnswerForm(), delta(content=text)) == ("", text, "")


def test_think_tags_beside_others() -> None:
    call = delta(tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{}"}}])
    fold = Fold(TAGS).read([delta(content="a\n<thi"), call, delta(content="b")]).end()
    assert (fold.texts["text"], fold.kinds) == ("a\n<thib", ["text", "call0", "text"])
    assert Fold(TAGS).read([delta(content="<think>x</think>\n\n"), call]).end().kinds == [
        "reasoning",
        "call0",
    ]
    # the closing message has the copy, with and without tags
    assert texts(TAGS, delta(content="<think>x</think>y"), message(content="y", reasoning_content="x")) == (
        "x",
        "y",
        "",
    )
    assert texts(TAGS, delta(content="<think>x</think>y"), message(content="<think>x</think>yz")) == (
        "x",
        "yz",
        "",
    )
    assert texts(TAGS, message(content="<think>x</think>y", reasoning_content="x")) == ("x", "y", "")


def test_snapshots() -> None:
    grows = [delta(content="He"), delta(content="Hello"), delta(content="Hello"), delta(content="Hello!")]
    assert texts(SNAPSHOTS, *grows) == ("", "Hello!", "")
    assert texts(AnswerForm(), *grows) == ("", "HeHelloHelloHello!", "")
    deltas = [
        delta(content="ab"),
        delta(content="c"),
        delta(content="abc"),
        delta(reasoning="r"),
        delta(reasoning="rs"),
    ]
    assert texts(SNAPSHOTS, *deltas) == ("rs", "abcabc", "")
    assert texts(SNAPSHOTS, *grows, message(content="Hello! Bye")) == ("", "Hello! Bye", "")
    calls = [
        delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": text}}])
        for text in ("{", '{"a"', '{"a":1}')
    ]
    assert Fold(SNAPSHOTS).read(calls).brief() == [("c", "f", '{"a":1}')]


def test_details_are_put_together() -> None:
    pieces: List[Json] = [
        {"type": "reasoning.text", "text": "a", "index": 0, "signature": None},
        {"type": "reasoning.text", "text": "b", "index": 0, "id": "r1", "signature": None},
        {"type": "reasoning.text", "index": 0, "signature": "S", "text": None},
        {"type": "reasoning.text", "text": "c", "index": 1},
        {"type": "reasoning.summary", "summary": "d", "index": 1},
        {"type": "reasoning.encrypted", "data": "X"},
        {"type": "reasoning.encrypted", "data": "Y"},
        {"type": "reasoning.text", "text": "e"},
    ]
    fold = Fold().read([delta(reasoning_details=[piece]) for piece in pieces])
    fold.read(
        [
            delta(content="!"),
            delta(reasoning_details=[{"type": "reasoning.text", "text": "f"}]),
            message(reasoning_details=[{"text": "?"}]),
        ]
    )
    assert fold.end().texts["reasoning"] == "abcdef"
    assert fold.reader.reasoning_details == [
        {"type": "reasoning.text", "text": "ab", "index": 0, "signature": "S", "id": "r1"},
        {"type": "reasoning.text", "text": "c", "index": 1},
        {"type": "reasoning.summary", "summary": "d", "index": 1},
        {"type": "reasoning.encrypted", "data": "X"},
        {"type": "reasoning.encrypted", "data": "Y"},
        {"type": "reasoning.text", "text": "e"},
        {"type": "reasoning.text", "text": "f"},
    ]
    grows = [
        {"id": "r", "text": "a"},
        {"id": "r", "text": "ab"},
        {"id": "s", "text": "a"},
        {"id": "s", "text": "x"},
    ]
    fold = Fold(SNAPSHOTS).read([delta(reasoning_details=[piece]) for piece in grows]).end()
    assert [entry["text"] for entry in fold.reader.reasoning_details] == ["ab", "ax"]


# ---- messages
def test_a_closing_message_adds_what_is_missing() -> None:
    streamed = [delta(reasoning_content="r"), delta(content="a")]
    assert texts(AnswerForm(), *streamed, message(reasoning_content="r!", content="ab", refusal="no")) == (
        "r!",
        "ab",
        "no",
    )
    assert texts(AnswerForm(), *streamed, message(content="other")) == ("r", "a", "")
    assert texts(
        AnswerForm(), *streamed, message(content=[{"type": "thinking", "thinking": "rs"}, "ab"])
    ) == ("rs", "ab", "")
    both = {
        "choices": [
            {
                "delta": {"content": "a"},
                "message": {"content": "ab", "usage": {"total_tokens": 3}},
                "finish_reason": "stop",
            }
        ]
    }
    fold = Fold().read([both]).end()
    assert (fold.texts["text"], fold.reader.usage) == ("ab", {"total_tokens": 3})


def test_messages_that_are_deltas() -> None:
    chunks = [dict(message(None, content=text), object="chat.completion.chunk") for text in ("a", "b")]
    assert texts(AnswerForm(), *chunks) == ("", "ab", "")


def test_several_choices_are_one_answer() -> None:
    chunk = {
        "choices": [
            {"message": {"content": "a"}, "finish_reason": "stop"},
            "?",
            {"message": {"content": "b"}, "finish_reason": "length"},
        ]
    }
    fold = Fold().read([chunk])
    assert (fold.texts["text"], fold.reader.finish) == ("ab", "length")
    assert texts(AnswerForm(), {"choices": {"delta": {"content": "a"}}}) == ("", "a", "")


def test_closing_calls() -> None:
    def call(**keys: Any) -> Json:
        return {"id": keys.get("id"), "function": {"name": keys["name"], "arguments": keys.get("arguments")}}

    streamed = [
        delta(
            tool_calls=[
                dict(call(id="a", name="f", arguments="{"), index=0),
                dict(call(name="g", arguments=""), index=1),
            ]
        )
    ]
    closing = message(
        tool_calls=[
            call(id="a", name="f", arguments="{}"),
            call(id="b", name="g", arguments={"x": 1}),
            call(name="h"),
            7,
        ]
    )
    fold = Fold().read([*streamed, closing]).end()
    assert fold.brief() == [("a", "f", "{}"), ("b", "g", '{"x":1}'), (None, "h", "")]
    fold.read([closing])
    assert len(fold.calls) == 3
    fold = Fold().read([delta(content="x"), message(tool_calls=call(id="a", name="f"))])
    assert fold.brief() == [("a", "f", "")]
    legacy = {"name": "f", "arguments": "{}"}
    assert Fold().read(
        [delta(content="x"), message(function_call=legacy), message(function_call=legacy)]
    ).brief() == [(None, "f", "{}")]
    assert Fold().read([message(function_call=legacy)]).brief() == [(None, "f", "{}")]
    assert Fold().read([message(function_call="f")]).brief() == []


def test_logprobs_and_annotations() -> None:
    tokens = [{"token": "a", "logprob": -0.1}]
    chunk = delta(content="a", annotations=[{"type": "url_citation"}])
    chunk["choices"][0]["logprobs"] = {"content": tokens}
    fold = Fold().read([chunk, message(content="a", annotations=[{"type": "url_citation"}])])
    assert fold.others == [("logprobs", tokens), ("annotations", [{"type": "url_citation"}])]
    for logprobs, said in (
        ([5], {"content": "a"}),
        ({"content": 5}, {"content": "a"}),
        ({"content": tokens}, {"reasoning": "r"}),
    ):
        assert Fold().read([{"choices": [{"delta": said, "logprobs": logprobs}]}]).others == []
    assert Fold().read([delta(content="a"), message(content="a", annotations=[{}])]).others == [
        ("annotations", [{}])
    ]
    assert Fold().read([delta(content="a", annotations="x")]).others == []


# ---- calls
def fragments(*each: Json) -> List[Tuple[Any, Any, str]]:
    """Each fragment in a chunk of its own: keys index, id, name, arguments."""
    chunks = []
    for keys in each:
        function = {key: keys[key] for key in ("name", "arguments") if key in keys}
        chunks.append(
            delta(
                tool_calls=[
                    dict({key: keys[key] for key in ("index", "id") if key in keys}, function=function)
                ]
            )
        )
    return Fold().read(chunks).end().brief()


@pytest.mark.parametrize(
    "each, calls",
    [
        # c08, c10, c16-c18: shapes that only the study has
        ([{"id": "a", "name": "f", "arguments": "{"}, {"arguments": "}"}], [("a", "f", "{}")]),
        (
            [
                {"index": 0, "id": "a", "name": "f", "arguments": "{"},
                {"index": 0, "id": "b", "arguments": "}"},
            ],
            [("a", "f", "{}")],
        ),
        (
            [{"index": 0, "id": "a", "name": "f", "arguments": "[1"}, {"index": 0, "arguments": "] "}],
            [("a", "f", "[1] ")],
        ),
        (
            [{"index": 0, "name": "f", "arguments": "{}"}, {"index": 0, "name": "f", "arguments": '{"a":2}'}],
            [(None, "f", "{}"), (None, "f", '{"a":2}')],
        ),
        (
            [
                {"index": 7, "id": "a", "name": "f"},
                {"index": "3", "id": "b", "name": "g"},
                {"index": 3, "arguments": "{}"},
            ],
            [("a", "f", ""), ("b", "g", "{}")],
        ),
        # without index
        (
            [{"name": "f", "arguments": "{}"}, {"name": "g", "arguments": "{"}, {"arguments": "}"}],
            [(None, "f", "{}"), (None, "g", "{}")],
        ),
        ([{"name": "f", "arguments": ""}, {"id": "a", "name": "f", "arguments": "{}"}], [("a", "f", "{}")]),
        (
            [{"name": "f", "arguments": ""}, {"id": "a", "name": "g", "arguments": "{}"}],
            [(None, "f", ""), ("a", "g", "{}")],
        ),
        ([{"arguments": "{"}, {"id": "a", "name": "f", "arguments": "}"}], [("a", "f", "{}")]),
        # the same name again: with everything, with nothing, with the next fragment
        (
            [{"index": 0, "name": "f", "arguments": "{}"}, {"index": 0, "name": "f", "arguments": "{}"}],
            [(None, "f", "{}")],
        ),
        (
            [{"index": 0, "name": "f", "arguments": "{}"}, {"index": 0, "name": "f", "arguments": ""}],
            [(None, "f", "{}")],
        ),
        (
            [{"index": 0, "name": "f", "arguments": "{"}, {"index": 0, "name": "f", "arguments": "}"}],
            [(None, "f", "{}")],
        ),
        (
            [{"index": 0, "name": "f", "arguments": "{}"}, {"index": 0, "id": "b", "name": "g"}],
            [(None, "f", "{}"), ("b", "g", "")],
        ),
        (
            [{"index": 0, "name": "f", "arguments": "{"}, {"index": 0, "name": "fx", "arguments": "}"}],
            [(None, "f", "{}")],
        ),
        # one id for two calls
        (
            [
                {"index": 0, "id": "a", "name": "f", "arguments": "{}"},
                {"index": 1, "id": "a", "name": "f", "arguments": "{"},
                {"index": 1, "arguments": "}"},
            ],
            [("a", "f", "{}"), (None, "f", "{}")],
        ),
        # odd values
        (
            [
                {"index": True, "id": 5, "name": ["f"], "arguments": 1.5},
                {"index": None, "id": " ", "name": " "},
            ],
            [(None, None, "1.5")],
        ),
        (
            [{"index": 0, "id": "None", "name": "null", "arguments": "11"}, {"index": 0, "arguments": "11"}],
            [(None, "null", "1111")],
        ),
        (
            [{"index": 0, "name": "f", "arguments": '{"a": "\\'}, {"index": 0, "arguments": '""}'}],
            [(None, "f", '{"a": "\\""}')],
        ),
    ],
)
def test_fragments(each: List[Json], calls: Any) -> None:
    assert fragments(*each) == calls


def test_neighbours_in_one_list_are_different_calls() -> None:
    chunk = delta(
        tool_calls=[
            {"function": {"name": "f", "arguments": None}},
            {"name": "g"},
            "?",
            {"function": {"name": "g"}},
        ]
    )
    assert Fold().read([chunk]).brief() == [(None, "f", ""), (None, "g", ""), (None, "g", "")]


def test_the_deprecated_field_is_a_copy() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    assert Fold().read([delta(tool_calls=[call], function_call=call["function"])]).brief() == [
        ("a", "f", "{}")
    ]


def test_repeated_fragments_are_no_news() -> None:
    reader = ChunkReader(AnswerForm())
    chunk = delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}])
    assert len(reader.read(chunk)) == 1
    for arguments in ("{}", "", None):
        assert reader.read(delta(tool_calls=[{"index": 0, "function": {"arguments": arguments}}])) == []
    assert reader.read(chunk) == []


# ---- the rest of a chunk
@pytest.mark.parametrize(
    "words, finish",
    [
        (["stop"], "stop"),
        ([None, "", " ", 5, ["stop"]], None),
        (["length", "stop"], "length"),
        (["STOP", "Tool_Calls"], "tool_calls"),
        (["content_filter", "tool_calls"], "content_filter"),
        (["max_tokens", "sensitive"], "length"),
        (["network_error", "length"], "error"),
        (["insufficient_system_resource"], "error"),
        (["abort"], "error"),
        (["repetition_truncation"], "error"),
        (["end_turn"], "stop"),
        (["model_context_window_exceeded", "length"], "context"),
        (["error", "model_context_window_exceeded"], "error"),
        (["function_call"], "tool_calls"),
    ],
)
def test_finish_reasons(words: List[Any], finish: Any) -> None:
    assert Fold().read([{"choices": [{"finish_reason": word}]} for word in words]).reader.finish == finish


@pytest.mark.parametrize(
    "chunk",
    [
        {"error": {"message": "m"}},
        {"error": "m"},
        {"error": True, "message": "m"},
        {"object": "error", "message": "m", "choices": [{}]},
        {"type": "error", "message": "m"},
        {"base_resp": {"status_code": 1008, "status_msg": "m"}, "choices": None},
        {"code": 20015, "message": "m"},
        {"code": "x", "msg": "m", "data": None},
        {"message": "m"},
        {"detail": ["m"]},
        {"status": 404, "title": "m"},
        {"data": {"error": {"message": "m"}}},
        {"error": {"message": "m"}, "data": {"choices": [{}]}},
        {"choices": [{"error": {"message": "m"}, "finish_reason": "error"}]},
    ],
)
def test_errors(chunk: Json) -> None:
    fold = Fold().read([delta(content="a"), chunk, delta(content="b")]).end()
    assert "m" in json.dumps(fold.reader.error)
    assert (fold.texts["text"], fold.reader.chunks) == ("a", 3)


@pytest.mark.parametrize(
    "chunk",
    [
        {},
        {"choices": None},
        {"error": None, "choices": []},
        {"type": "ping"},
        {"code": 0, "message": "ok"},
        {"message": {"content": "a"}},
        {"data": {}},
        {"base_resp": {"status_code": 0}, "choices": [{}]},
        {"base_resp": "x"},
        {"status": 200},
        {"message": "m", "usage": {"total_tokens": 1}},
    ],
)
def test_no_errors(chunk: Json) -> None:
    assert Fold().read([chunk]).reader.error is None


def test_envelopes() -> None:
    assert texts(AnswerForm(), {"success": True, "message": "success", "data": message(content="hi")}) == (
        "",
        "hi",
        "",
    )


@pytest.mark.parametrize(
    "blocks, total",
    [
        (
            [
                {"usage": {"total_tokens": 1}},
                {
                    "usage": {
                        "total_tokens": 0,
                        "prompt_tokens": "0",
                        "total_characters": 5,
                        "ok_tokens": None,
                    }
                },
            ],
            1,
        ),
        ([{"usage": {"total_tokens": 1}}, {"usage": {"total_tokens": "2"}}, {"usage": [1]}], "2"),
        ([{"x_groq": {"usage": {"total_tokens": 1.0}}}, {"x_groq": 5}], 1.0),
        ([{"choices": [{"usage": {"total_tokens": 1}}]}], 1),
        ([{"choices": [{"message": {"usage": {"total_tokens": 1}}}]}], 1),
    ],
)
def test_usage(blocks: List[Json], total: Any) -> None:
    usage = Fold().read(blocks).reader.usage
    assert usage is not None and usage["total_tokens"] == total


# ---- properties
SCALARS = [
    None, True, False, -2, 0, 1, 2, 0.5, float("inf"), float("nan"), "", "a", "bc", "é🎯", "\ud83c", "\udfaf",
    "<think>", "</think>", "{", "}", '{"a":1}', "stop", "length", "error", "f", "thinking", "reasoning.text",
]  # fmt: skip
KEYS = [
    "choices",
    "delta",
    "message",
    "content",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "tool_calls",
    "function_call",
    "function",
    "index",
    "id",
    "name",
    "arguments",
    "finish_reason",
    "usage",
    "x_groq",
    "logprobs",
    "annotations",
    "refusal",
    "text",
    "type",
    "data",
    "object",
    "model",
    "extra_content",
    "summary",
    "thinking",
    "total_tokens",
    "error",
    "base_resp",
    "detail",
    "code",
]


def anything(dice: random.Random, depth: int = 3) -> Any:
    """Any JSON value; most are small."""
    shape = dice.random() if depth else 0.0
    if shape < 0.6:
        return dice.choice(SCALARS)
    if shape < 0.75:
        return [anything(dice, depth - 1) for _ in range(dice.randrange(4))]
    return some_of(dice, KEYS, depth - 1)


# What a key often holds: an object with some of these keys, or a list of them.
LIKELY: Dict[str, List[str]] = {
    "tool_calls": ["index", "id", "function", "extra_content"],
    "function": ["name", "arguments"],
    "function_call": ["name", "arguments"],
    "reasoning_details": ["type", "text", "summary", "data", "id", "index"],
    "usage": ["total_tokens"],
    "x_groq": ["usage"],
    "logprobs": ["content"],
}
LISTS = ("tool_calls", "reasoning_details")


def value_of(dice: random.Random, key: str, depth: int) -> Any:
    if key not in LIKELY or dice.random() < 0.3:
        return anything(dice, depth)
    if key in LISTS:
        return [some_of(dice, LIKELY[key], depth - 1) for _ in range(dice.randrange(3))]
    return some_of(dice, LIKELY[key], depth - 1)


def some_of(dice: random.Random, keys: List[str], depth: int = 2) -> Json:
    count = min(dice.randrange(5), len(keys))
    return {key: value_of(dice, key, max(depth, 0)) for key in dice.sample(keys, count)}


def any_chunk(dice: random.Random) -> Json:
    """Something like a chunk: its outside often has the right shape, its inside seldom."""
    chunk = some_of(dice, KEYS) if dice.random() < 0.3 else {}
    if dice.random() < 0.8:
        chunk["choices"] = [
            {
                **some_of(dice, ["finish_reason", "usage", "logprobs", "error"]),
                dice.choice(["delta", "delta", "delta", "message"]): some_of(dice, KEYS, 3),
            }
            for _ in range(dice.choice([0, 1, 1, 1, 2]))
        ]
    return chunk


@pytest.mark.parametrize("answer", ANSWERS, ids=["plain", "tags", "snapshots", "both"])
def test_anything_gives_sound_deltas(answer: AnswerForm) -> None:
    """Five hundred answers; the message of a failure names the one to look at."""
    for seed in range(500):
        dice = random.Random(seed)
        chunks = [any_chunk(dice) for _ in range(dice.randrange(9))]
        try:
            fold = Fold(answer).read(chunks).end()
            assert fold.reader.chunks == len(chunks)
            encode_json([fold.reader.error, fold.reader.usage, fold.reader.reasoning_details])
        except Exception as error:
            raise AssertionError(f"seed {seed}: {chunks}") from error


TEXTS = st.text(st.sampled_from("<>/ab \nthink🎯"), max_size=60)


@given(TEXTS, st.sampled_from(["", "<think>", "<think>a</think>"]), st.lists(st.integers(0, 80), max_size=5))
def test_cut_texts_say_the_same(text: str, head: str, places: List[int]) -> None:
    text = head + text
    cuts = sorted({min(place, len(text)) for place in places})
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]
    assert texts(TAGS, *[delta(content=piece) for piece in pieces]) == texts(TAGS, message(content=text))


@given(st.text(max_size=30), st.text(st.characters(min_codepoint=0x10000), max_size=4))
def test_pairs_cut_between_deltas(text: str, emoji: str) -> None:
    units = (text + emoji).encode("utf-16-le")
    halves = [units[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2)]
    assert texts(AnswerForm(), *[delta(content=half) for half in halves]) == ("", text + emoji, "")


def test_long_answers_take_linear_time() -> None:
    """Seconds if anything is quadratic; the deltas of hostile shapes: the name in each fragment, a repeat
    that is none, tags everywhere.
    """
    n = 20000
    call = [{"index": 0, "name": "f", "arguments": '{"a": "' if not i else "}"} for i in range(n)]
    assert len(fragments(*call)[0][2]) == n + 6
    assert texts(TAGS, delta(content="<think>a</think>" * n + "<" * n + "\n" * n))[0] == "a" * n
    grows = [{"type": "reasoning.text", "text": "word ", "index": 0}] * n
    fold = Fold().read(delta(reasoning_details=[piece]) for piece in grows).end()
    assert len(fold.reader.reasoning_details[0]["text"]) == 5 * n


@pytest.mark.parametrize("mark", [{"object": "error"}, {"type": "error"}])
def test_an_error_that_only_its_kind_tells(mark: Any) -> None:
    reader = ChunkReader(AnswerForm())
    reader.read({**mark, "message": "overloaded", "choices": [{"index": 0, "delta": {}}]})
    assert reader.error is not None and "overloaded" in json.dumps(reader.error)
