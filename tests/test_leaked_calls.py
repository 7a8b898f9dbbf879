"""Calls that leaked into the text: healed where it is certain, and only then."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_tools import Turn, call, converter, drive, end, text, texts, think

from rproxy.convert.answer.chat import ChunkReader
from rproxy.convert.answer.leaked_calls import LeakedCallFilter
from rproxy.convert.events.fastpath import DeltaBatch, FastPath
from rproxy.convert.profile import AnswerForm
from rproxy.convert.request.chat import to_chat_request
from rproxy.providers.profile_table import ROWS
from rproxy.providers.profiles import choose_profile

Json = Dict[str, Any]
TOOLS: Dict[str, Json] = {
    "ls": {
        "type": "object",
        "properties": {
            "p": {"type": "string"},
            "n": {"type": "integer"},
            "deep": {"type": ["boolean", "null"]},
        },
    },
    "odd": {"properties": []},
}


def dsml(*calls: str, word: str = "tool_calls") -> str:
    return "<｜DSML｜{}>\n{}\n</｜DSML｜{}>".format(word, "\n".join(calls), word)


def invoke(name: str, *parameters: str) -> str:
    return '<｜DSML｜invoke name="{}">\n{}\n</｜DSML｜invoke>'.format(name, "\n".join(parameters))


def parameter(key: str, value: str, more: str = ' string="true"') -> str:
    return f'<｜DSML｜parameter name="{key}"{more}>{value}</｜DSML｜parameter>'


def said(data: str, cut: int = 0, tools: Dict[str, Json] = TOOLS) -> List[Tuple[str, Any]]:
    """What the filter makes of a text; neighbours of one kind joined."""
    heal, out = LeakedCallFilter(tools), []
    for piece in [data[i : i + cut] for i in range(0, len(data), cut)] if cut else [data]:
        out += heal.feed(piece)
    out += heal.close()
    assert heal.close() == []
    joined: List[Tuple[str, Any]] = []
    for kind, what in out:
        assert what
        if kind == "call":
            joined.append((what[0], json.loads(what[1])))
        elif joined and joined[-1][0] == "text":
            joined[-1] = ("text", joined[-1][1] + what)
        else:
            joined.append(("text", what))
    return joined


LS = '<tool_call>\n{"name": "ls", "arguments": {"p": "/"}}\n</tool_call>'
QWEN = (
    "<tool_call>\n<function=ls>\n<parameter=p>\n a\nb \n</parameter>\n"
    "<parameter=n>\n5\n</parameter>\n</function>\n</tool_call>"
)


@pytest.mark.parametrize(
    "data, expected",
    [
        (LS, [("ls", {"p": "/"})]),
        ("\n\n" + LS + "\n", [("ls", {"p": "/"})]),
        ("I look.\n\n  " + LS, [("text", "I look."), ("ls", {"p": "/"})]),
        (LS + "\n" + LS + "\n\nDone. ", [("ls", {"p": "/"}), ("ls", {"p": "/"}), ("text", "Done. ")]),
        (LS[:-13], [("ls", {"p": "/"})]),
        ('<tool_call>{"name": "ls"}</tool_call>', [("ls", {})]),
        ('<tool_call>{"name": "ls", "parameters": {"p": "é🎯"}}</tool_call>', [("ls", {"p": "é🎯"})]),
        (QWEN, [("ls", {"p": " a\nb ", "n": 5})]),
        (
            "<function=ls>\n<parameter=deep>true</parameter><parameter=x>1</parameter>\n</function>",
            [("ls", {"deep": True, "x": "1"})],
        ),
        ("<function=odd><parameter=x>1</parameter></function>", [("odd", {"x": "1"})]),
        ("<function=ls></function>", [("ls", {})]),
        (dsml(invoke("ls", parameter("p", "/"))), [("ls", {"p": "/"})]),
        (
            dsml(
                invoke("ls", parameter("p", "\n/"), parameter("n", "5", ' string="false"')),
                invoke("ls"),
                word="function_calls",
            ),
            [("ls", {"p": "\n/", "n": 5}), ("ls", {})],
        ),
        (dsml(invoke("ls", parameter("p", "/", ""), parameter("n", "5", ""))), [("ls", {"p": "/", "n": 5})]),
        ("```\nx\n```\n" + LS, [("text", "```\nx\n```"), ("ls", {"p": "/"})]),
    ],
)
def test_healed(data: str, expected: List[Tuple[str, Any]]) -> None:
    for cut in (0, 1, 2, 7):
        assert said(data, cut) == expected


@pytest.mark.parametrize(
    "data",
    [
        "",
        "Hello",
        " \n",
        "a <b> c\n<d>\n",
        "<",
        "<tool_call",
        "`",
        "``\n",
        " " * 200,
        "x" + " " * 200,
        "\n" * 200 + "x",
        "Use " + LS,  # in the middle of a line
        "```xml\n" + LS + "\n```",  # an example
        "  ```\n<tool_call>\n  ```\n",
        LS.replace("ls", "rm"),  # not offered
        LS.replace('"/"', "NaN"),
        LS.replace('"/"}', '"/"'),
        LS.replace('{"p": "/"}', '"p"'),
        LS.replace('"ls"', "5"),
        LS.replace('"name"', '"nom"'),
        "<tool_call>5</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>" + "[" * 100000 + "</tool_call>",
        LS[:-16],
        "<tool_call>\n<function=ls>",
        "<tool_call><function=ls> x </function></tool_call>",
        "<function=ls",
        "<function=ls>\n<parameter=p>/</parameter>",
        "<function=ls</function>",
        "<function=rm>\n</function>",
        "<function=ls><parameter=n>five</parameter></function>",
        "<function=ls><parameter=p>a</parameter><parameter=p>b</parameter></function>",
        "<function=ls> and <parameter=p>a</parameter></function>",
        "<tool_call><function=ls><parameter=p>/</parameter> and so on</function></tool_call>",
        dsml(),
        dsml("x"),
        dsml(invoke("rm")),
        dsml(invoke("ls"), "x"),
        dsml(invoke("ls", "x")),
        dsml(invoke("ls"), invoke("rm")),
        dsml(invoke("ls", parameter("n", "five", ' string="false"'))),
        dsml(invoke("ls", parameter("p", "/")))[:-3],
        "<tool_call>" + "x" * (1 << 21) + "</tool_call>",
    ],
)
def test_left_alone(data: str) -> None:
    for cut in (0, 1, 3) if len(data) < 5000 else (0, 65536):
        assert said(data, cut) == ([("text", data)] if data else [])


TOKENS = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        '{"name": "ls", "arguments": {}}',
        "<function=ls>",
        "</function>",
        "<parameter=p>",
        "</parameter>",
        "<｜DSML｜tool_calls>",
        "</｜DSML｜tool_calls>",
        invoke("ls"),
        "\n",
        " ",
        "```",
        "<",
        "x",
        "`",
    ]
)


@given(st.lists(TOKENS, max_size=14).map("".join), st.integers(1, 9))
def test_cutting_changes_nothing_and_text_is_not_lost(data: str, cut: int) -> None:
    assert said(data, cut) == said(data)
    assert said(data, cut, {"other": {}}) == ([("text", data)] if data else [])


def reader(**answer: bool) -> ChunkReader:
    return ChunkReader(AnswerForm(heal_tool_text=True, **answer), TOOLS)


def test_in_a_stream() -> None:
    stream = converter({"tools": [{"type": "function", "name": "ls", "parameters": {}}]}, reader=reader())
    drive(
        stream,
        [
            think("Hm."),
            text("I look.\n"),
            text(LS[:20]),
            text(LS[20:] + "\n"),
            text("And more:\n" + LS),
            end("stop"),
        ],
    )
    healed = ("function_call", '{"p": "/"}')
    assert texts(stream.response["output"]) == [
        ("reasoning", "Hm."),
        ("message", "I look."),
        healed,
        ("message", "And more:"),
        healed,
    ]
    assert stream.response["status"] == "completed"
    calls = [item for item in stream.response["output"] if item["type"] == "function_call"]
    assert calls[0]["call_id"] != calls[1]["call_id"] and calls[0]["status"] == "completed"


def test_beside_thinking_in_tags_and_real_calls() -> None:
    stream = converter(None, reader=reader(think_tags=True))
    drive(
        stream,
        [
            text("<think>Plan: <tool_call></think>\n\n" + LS[:30]),
            call(0, "{}", "c9", "ls"),
            end("tool_calls"),
        ],
    )
    assert texts(stream.response["output"]) == [
        ("reasoning", "Plan: <tool_call>"),
        ("message", LS[:30]),
        ("function_call", "{}"),
    ]


def test_half_a_pair_before_a_call() -> None:
    stream = converter(None, reader=reader())
    drive(stream, [text("a\ud83d"), text("\n" + LS), end()])
    assert texts(stream.response["output"]) == [("message", "a\ufffd"), ("function_call", '{"p": "/"}')]


def test_the_fast_path_is_not_taken() -> None:
    path = FastPath(converter(None, reader=reader()))
    path.converter.start()
    pieces = ["Word after word after word"[i : i + 3] for i in range(24)]
    pieces += ["\n", *(LS[i : i + 4] for i in range(0, len(LS), 4))]
    for chunk in [*map(text, pieces), end()]:
        batches = path.feed(b"data: %b\n\n" % json.dumps(chunk).encode())
        assert not any(isinstance(batch, DeltaBatch) for batch in batches)
    stream = path.converter
    stream.finish()
    assert [item["type"] for item in stream.response["output"]] == ["message", "function_call"]


def test_only_where_the_profile_says_so() -> None:
    assert not any("heal_tool_text" in json.dumps(dict(row), default=str) for row in ROWS.values())
    request = {"model": "m", "tools": [{"type": "function", "name": "ls", "parameters": {}}]}
    for healed in (False, True):
        profile = choose_profile("generic", "", "m", {"answer": {"heal_tool_text": healed}})
        conversion = to_chat_request(
            request, [{"role": "user", "content": "go"}], profile, downstream_model="m"
        )
        kinds = Turn(text(LS), end(), request=request, reader=conversion.reader()).kinds
        assert kinds == (["function_call"] if healed else ["message"])


def test_a_call_without_end_comes_as_text_when_it_is_too_long() -> None:
    heal, block = LeakedCallFilter(TOOLS), "<tool_call>\n" + "x" * (1 << 19)
    out = heal.feed(block)
    assert [kind for kind, _ in out] == ["text"] and out[0][1] == block
    assert heal.close() == []


def test_a_parameter_without_a_type_is_text() -> None:
    tools: Dict[str, Json] = {"f": {"type": "object", "properties": {"p": {}}}}
    found = said(dsml(invoke("f", parameter("p", "5", ""), parameter("q", "6", ""))), tools=tools)
    assert found == [("f", {"p": "5", "q": "6"})]


def test_arguments_are_written_as_they_were_said() -> None:
    heal = LeakedCallFilter(TOOLS)
    out = heal.feed(dsml(invoke("ls", parameter("p", "grüß"))))
    assert out == [("call", ("ls", '{"p": "grüß"}'))]
