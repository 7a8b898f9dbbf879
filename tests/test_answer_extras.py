"""What providers put beside the text of an answer (sources, images), and their words for a broken call."""

from __future__ import annotations

from typing import Any, List

import pytest
from stream_tools import Turn, end, text, texts

from rproxy.convert.answer.fields import image_urls, stronger_finish
from rproxy.convert.events.response import usage_object
from rproxy.convert.profile import Profile
from rproxy.convert.tools.table import ToolTable
from rproxy.types import Json

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def annotations(turn: Turn) -> List[Json]:
    found: List[Json] = turn.final["output"][-1]["content"][0]["annotations"]
    return found


def test_sources_beside_the_answer_become_annotations_once() -> None:
    cited = {"citations": ["https://a.example/1", "https://b.example/2"]}
    titled = {"search_results": [{"title": "A", "url": "https://a.example/1"}, {"title": 5, "url": None}]}
    turn = Turn({**text("Snow [1]"), **cited}, {**text("."), **cited, **titled}, end())
    assert [(a["type"], a["url"], a["title"]) for a in annotations(turn)] == [
        ("url_citation", "https://a.example/1", "A"),
        ("url_citation", "https://b.example/2", ""),
    ]


def test_annotations_of_the_message_count_more_than_sources_beside_it() -> None:
    own = {"type": "url_citation", "url_citation": {"url": "https://own.example", "title": "t"}}
    chunk = text("Snow", annotations=[own])
    turn = Turn({**chunk, "citations": ["https://a.example"]}, end())
    assert [a["url"] for a in annotations(turn)] == ["https://own.example"]


@pytest.mark.parametrize("raw", [None, 5, "x", [5, None, {}], [{"url": 5}]])
def test_sources_of_any_shape(raw: Any) -> None:
    turn = Turn({**text("a"), "citations": raw, "search_results": raw}, end())
    assert turn.final["status"] == "completed"


def test_images_become_items_and_are_shown_once() -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    closing = {"choices": [{"message": {"role": "assistant", "content": "here", "images": [image]}}]}
    turn = Turn(text("here"), text("", images=[image]), closing, end())
    message, made = turn.final["output"]
    assert message["content"][0]["text"] == "here"
    assert made["type"] == "image_generation_call" and made["status"] == "completed"
    assert (made["result"], made["output_format"]) == ("iVBORw0KGgo=", "png")


def test_an_image_that_is_only_linked_is_a_link_in_the_text() -> None:
    turn = Turn(text("here: ", images=["https://x.example/i.png"]), end())
    assert texts(turn.output) == [("message", "here: ![image](https://x.example/i.png)")]


def test_image_urls_of_any_shape() -> None:
    assert image_urls(5) == [] and image_urls([5, {}, {"image_url": {}}, {"url": "u"}, "v"]) == ["u", "v"]


@pytest.mark.parametrize(
    "word",
    [
        "function_call_filter: MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "malformed_function_call",
        "MALFORMED_RESPONSE",
        "too_many_tool_calls",
    ],
)
def test_a_call_that_the_provider_could_not_use_is_a_failure(word: str) -> None:
    assert stronger_finish(None, word) == "error"
    turn = Turn(end(word))
    assert turn.final["status"] == "failed"


def test_names_with_markers_of_the_harmony_format_mean_the_offered_tool() -> None:
    tools = ToolTable.build({"tools": [{"type": "function", "name": "ls"}]}, [], Profile())
    for name in ("ls<|channel|>commentary", "ls <|constrain|>json", "functions.ls<|channel|>commentary"):
        assert tools.offer(name).name == "ls"
    assert tools.offer("cat<|channel|>analysis").name == "cat" and tools.offer("<|x|>").name == "<|x|>"


def test_cache_writes_of_dashscope() -> None:
    for nested in (
        {"cache_creation_input_tokens": 7},
        {"cache_creation": {"cache_creation_input_tokens": 7}},
    ):
        usage = usage_object({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": nested})
        assert usage["input_tokens_details"]["cache_write_tokens"] == 7


def test_sources_of_each_kind_alone_and_those_that_are_none() -> None:
    for beside in (
        {"citations": ["https://a.example"]},
        {"search_results": [{"url": "https://a.example"}, {"url": 7}, {"url": ""}, 5]},
    ):
        (cited,) = annotations(Turn({**text("Snow"), **beside}, end()))
        assert cited["url"] == "https://a.example"


def test_an_annotation_keeps_its_place_in_the_text() -> None:
    place = {"start_index": 3, "end_index": 7}
    own = {"type": "url_citation", "url_citation": {"url": "https://own.example", **place}}
    (cited,) = annotations(Turn(text("Snow falls", annotations=[own]), end()))
    assert (cited["start_index"], cited["end_index"]) == (3, 7)
