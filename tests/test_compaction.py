"""Compaction: a whole answer becomes one sealed item, and that item a message again."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from grammar import check_stream
from stream_tools import COMPLETED, CREATED, STEM, call, drive, end, text, think

from rproxy.convert.events.compaction import PROMPT, CompactionConverter, is_trigger, prompt_item
from rproxy.convert.events.response import response_object
from rproxy.convert.ids import Ids
from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import to_chat_request
from rproxy.convert.request.turns import SUMMARY
from rproxy.convert.tools.table import ToolTable

Json = Dict[str, Any]


def compacted(*chunks: Json) -> List[Json]:
    ids = Ids(STEM)
    response = response_object({"model": "m"}, id=ids.response, created_at=CREATED)
    return drive(CompactionConverter(response, ToolTable(), ids=ids, now=lambda: COMPLETED), chunks)


def test_the_trigger_is_the_last_item() -> None:
    trigger = {"type": "compaction_trigger"}
    assert is_trigger([{"type": "message"}, trigger])
    assert not is_trigger([trigger, {"type": "message"}])
    assert not is_trigger([])


def test_the_model_is_asked_for_a_summary() -> None:
    items = [{"role": "user", "content": "hi"}, {"type": "compaction_trigger"}, prompt_item()]
    tools = [{"type": "function", "name": "f"}]
    body = to_chat_request(
        {"tools": tools, "tool_choice": "none"}, items, Profile(), downstream_model="m"
    ).body
    assert [message["content"] for message in body["messages"]] == ["hi", PROMPT]
    assert body["tool_choice"] == "none"


def test_the_summary_is_one_item_that_says_nothing_in_public() -> None:
    events = compacted(think("hm"), text(" We "), text("met. "), end())
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.output_item.done",
        "response.completed",
    ]
    (item,) = check_stream(events)["output"]
    assert (item["type"], sorted(item)) == ("compaction", ["encrypted_content", "id", "type"])
    assert item["id"] == f"cmp_{STEM}0000"
    messages = to_chat_request(
        {}, [item, {"role": "user", "content": "on"}], Profile(), downstream_model="m"
    ).body["messages"]
    assert messages == [{"role": "user", "content": SUMMARY + "We met."}, {"role": "user", "content": "on"}]


def test_a_note_about_what_was_left_out_is_part_of_the_summary() -> None:
    ids = Ids(STEM)
    response = response_object({"model": "m"}, id=ids.response, created_at=CREATED)
    stream = CompactionConverter(response, ToolTable(), ids=ids, now=lambda: COMPLETED, note="(Left out: x.)")
    (item,) = check_stream(drive(stream, [text("We met."), end()]))["output"]
    messages = to_chat_request({}, [item], Profile(), downstream_model="m").body["messages"]
    assert messages[0]["content"] == SUMMARY + "We met.\n\n(Left out: x.)"


def test_a_summary_that_was_cut_is_better_than_none() -> None:
    assert check_stream(compacted(text("We"), end("length")))["status"] == "completed"


@pytest.mark.parametrize(
    "chunks, message",
    [
        ([text(" \n"), end()], "wrote no summary"),
        ([call(0, "{}", "c1", "f"), end("tool_calls")], "wrote no summary"),
        ([text("We"), end("error")], "broke off"),
        ([], "sent nothing"),
    ],
)
def test_without_a_summary_the_compaction_fails(chunks: List[Json], message: str) -> None:
    final = check_stream(compacted(*chunks))
    assert (final["status"], final["output"]) == ("failed", [])
    assert message in final["error"]["message"]


def test_it_is_silent_until_something_was_said() -> None:
    stream = CompactionConverter(
        response_object({"model": "m"}, id="resp_1", created_at=1),
        ToolTable(),
        ids=Ids(STEM),
        now=lambda: COMPLETED,
    )
    silent = []
    for chunk in (think("hm"), text("We")):
        stream.feed(chunk)
        silent.append(stream.is_empty)
    assert silent == [True, False]
    assert not stream.visible
