"""Parts of a request that a provider has refused before: they go, and nothing else."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Tuple

import pytest

from rproxy.convert.request.omit import fingerprint, without_refused

Json = Dict[str, Any]
TEXT: Json = {"type": "text", "text": "look"}
PNG: Json = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
BMP: Json = {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA=="}}
FILE: Json = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}}
LS: Json = {"type": "function", "function": {"name": "ls", "parameters": {}}}
CAT: Json = {"type": "function", "function": {"name": "cat", "parameters": {}}}
SEARCH: Json = {"type": "web_search"}
NOTE = "[image omitted: the provider refused it]"


def chat(*parts: Any, **more: Any) -> Json:
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}], **more}


# what is sent, what was refused of it, what goes out, the warnings
CASES: Dict[str, Tuple[Json, List[Tuple[str, Any]], Json, List[str]]] = {
    "nothing": (chat(TEXT, PNG, seed=1), [], chat(TEXT, PNG, seed=1), []),
    "one image of two": (
        chat(TEXT, PNG, BMP),
        [("part", BMP)],
        chat(TEXT, PNG, {"type": "text", "text": NOTE}),
        ["image left out: the provider refused it"],
    ),
    "text alone is a string": (
        chat(TEXT, BMP),
        [("part", BMP)],
        {"model": "m", "messages": [{"role": "user", "content": "look\n" + NOTE}]},
        ["image left out: the provider refused it"],
    ),
    "a file": (
        chat(PNG, FILE),
        [("part", FILE)],
        chat(PNG, {"type": "text", "text": "[file omitted: the provider refused it]"}),
        ["file left out: the provider refused it"],
    ),
    "a message without parts": (
        {"model": "m", "messages": [{"role": "user", "content": "look"}, {"role": "user", "content": ["x"]}]},
        [("part", BMP)],
        {"model": "m", "messages": [{"role": "user", "content": "look"}, {"role": "user", "content": ["x"]}]},
        [],
    ),
    "the output of a tool, in the other API": (
        {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": "u"}]}]},
        [("part", {"type": "input_image", "image_url": "u"})],
        {"input": [{"type": "function_call_output", "output": NOTE}]},
        ["image left out: the provider refused it"],
    ),
    "a value": (
        chat(TEXT, temperature=1.5, top_p=0.5),
        [("temperature", 1.5), ("top_p", 0.4)],
        chat(TEXT, top_p=0.5),
        ["temperature left out: the provider refused it"],
    ),
    "one tool, and the choice of it": (
        chat(TEXT, tools=[LS, CAT], tool_choice={"type": "function", "function": {"name": "ls"}}),
        [("tool", LS)],
        chat(TEXT, tools=[CAT]),
        ["tool ls left out: the provider refused it"],
    ),
    "one tool, and the choice of another": (
        chat(TEXT, tools=[LS, CAT], tool_choice="required"),
        [("tool", CAT)],
        chat(TEXT, tools=[LS], tool_choice="required"),
        ["tool cat left out: the provider refused it"],
    ),
    "all tools": (
        chat(TEXT, tools=[SEARCH], tool_choice="auto", parallel_tool_calls=True),
        [("tool", SEARCH)],
        chat(TEXT),
        ["tool web_search left out: the provider refused it"],
    ),
    "what is never left out": (chat(TEXT), [("model", "m")], chat(TEXT), []),
}


@pytest.mark.parametrize("title", CASES)
def test_what_was_refused_goes(title: str) -> None:
    body, refused, expected, warnings = CASES[title]
    before = json.dumps(body)
    assert without_refused(body, {fingerprint(*one) for one in refused}) == (expected, warnings)
    assert json.dumps(body) == before


def test_a_fingerprint_knows_the_field_and_the_value() -> None:
    assert fingerprint("seed", 1) == fingerprint("seed", 1)
    assert len({fingerprint("seed", 1), fingerprint("seed", 2), fingerprint("top_p", 1)}) == 3
    assert fingerprint("part", {"a": 1, "b": 2}) == fingerprint("part", {"b": 2, "a": 1})
