"""Several answers in one response: the converters of rounds, the items that rproxy makes, their replay."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import pytest
from grammar import check_stream
from stream_tools import COMPLETED, CREATED, STEM, call, end, text, think

from rproxy.convert.events.hosted_items import HOSTED_FORMS
from rproxy.convert.events.replay import events as replayed
from rproxy.convert.events.response import added, response_object, usage_object
from rproxy.convert.events.rounds import Earlier, RoundConverter
from rproxy.convert.ids import Ids, hosted_call_id, output_stem, round_stem
from rproxy.convert.profile import Profile
from rproxy.convert.tools.hosted import HOSTED_TYPE, hosted_tool
from rproxy.convert.tools.table import DEFAULT_ALLOW, ToolTable

Json = Dict[str, Any]

TABLE = ToolTable.build(
    {
        "tools": [
            hosted_tool("web_search", "Search.", {"type": "object", "properties": {}}),
            {"type": "function", "name": "ls"},
        ]
    },
    [],
    Profile(),
    (*DEFAULT_ALLOW, HOSTED_TYPE),
)
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
SEARCH = {"type": "web_search_call"}
DONE = {"status": "completed", "action": {"type": "search", "query": "a"}}


def converter(earlier: Earlier = Earlier(), sequence: int = 0, **options: Any) -> RoundConverter:
    return RoundConverter(
        response_object({"model": "m"}, id="resp_" + STEM, created_at=CREATED),
        TABLE,
        ids=Ids(STEM).in_round(earlier.number),
        now=lambda: COMPLETED,
        earlier=earlier,
        sequence=sequence,
        **options,
    )


class Story:
    """The events of a response, round by round."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.round = converter(**options)
        self.events: List[Any] = self.round.start()

    def feed(self, *chunks: Json) -> None:
        for chunk in chunks:
            self.events += self.round.feed(chunk)
        assert self.round.failure(True) is None

    def run(self, known: Json = DONE) -> None:
        for one in self.round.hosted_calls():
            self.events += self.round.open(SEARCH, one)
            self.events += self.round.close(known)

    def next(self, **options: Any) -> None:
        self.events += self.round.close_rest()
        self.options.update(options)
        self.round = converter(self.round.to_next(), self.round.sequence, **self.options)

    def end(self, events: Optional[Sequence[Any]] = None) -> Json:
        self.events += self.round.finish() if events is None else events
        return check_stream(self.events)


def two_rounds(**options: Any) -> Story:
    story = Story(**options)
    story.feed(think("hm"), text("Wait."), call(0, "{}", "c", "web_search"), end("tool_calls", USAGE))
    assert not story.round.calls_client and story.round.has_text
    story.run()
    story.next()
    story.feed(text("So."), end(usage=USAGE))
    return story


def test_rounds_count_on_and_share_one_response() -> None:
    story = two_rounds()
    assert story.round.shown and not story.round.is_empty
    final = story.end()
    assert [item["type"] for item in final["output"]] == [
        "reasoning",
        "message",
        "web_search_call",
        "message",
    ]
    assert [item["id"] for item in final["output"]] == [
        f"rs_{STEM}0000", f"msg_{STEM}0001", f"ws_{STEM}0002", f"msg_{STEM}010000",
    ]  # fmt: skip
    assert final["usage"]["total_tokens"] == 30 and final["usage"]["output_tokens"] == 10
    assert replayed(final, {final["output"][2]["id"]})[-1]["response"] == final
    assert check_stream(replayed(final, {final["output"][2]["id"]})) == final


def test_the_last_usage_alone() -> None:
    story = two_rounds(last_usage=True)
    assert story.end()["usage"]["total_tokens"] == 15
    assert story.round.counted is not None and story.round.counted["total_tokens"] == 30


def test_phases_say_what_is_a_preamble() -> None:
    final = two_rounds(phases=True).end()
    messages = [item for item in final["output"] if item["type"] == "message"]
    assert [message["phase"] for message in messages] == ["commentary", "final_answer"]


def test_calls_of_the_client_wait_for_ours() -> None:
    story = Story()
    story.feed(
        call(0, "{}", "c", "web_search"), call(1, '{"a":', "d", "ls"), call(1, "1}"), end("tool_calls")
    )
    assert story.round.calls_client and not story.round.visible
    story.run()
    story.events += story.round.close_rest()
    final = story.end()
    assert [item["type"] for item in final["output"]] == ["web_search_call", "function_call"]


@pytest.mark.parametrize("phases", [False, True])
def test_ours_behind_a_call_that_has_no_end(phases: bool) -> None:
    story = Story(phases=phases)
    story.feed(call(0, '{"a":', "d", "ls"), call(1, "{}", "c", "web_search"), text("b"), end("tool_calls"))
    [one] = story.round.hosted_calls()
    assert (one.function, one.arguments) == ("web_search", "{}")
    story.run()
    story.events += story.round.close_rest()
    final = story.end()
    kinds = ["function_call", "web_search_call", "message"]
    assert [item["type"] for item in final["output"]] == kinds


def test_ours_behind_text_and_a_call_of_the_client() -> None:
    story = Story()
    story.feed(
        text("a"), call(0, "{}", "d", "ls"), call(1, "{}", "c", "web_search"), text("b"), end("tool_calls")
    )
    story.run()
    final = story.end()
    kinds = ["message", "function_call", "web_search_call", "message"]
    assert [item["type"] for item in final["output"]] == kinds


@pytest.mark.parametrize("behind", [[], [text("b")], [call(1, "{}", "d", "ls"), text("b")]])
def test_a_call_that_is_not_run_leaves_no_trace(behind: List[Json]) -> None:
    story = Story()
    story.feed(call(0, "{}", "c", "web_search"), *behind, call(2, "{}", "e", "web_search"), end("tool_calls"))
    for one in story.round.hosted_calls():
        story.round.leave_out(one)
    assert story.round.has_text == bool(behind)
    final = story.end()
    assert len(final["output"]) == len(behind)


def test_a_cut_answer_shows_no_call() -> None:
    story = Story()
    story.feed(text("a"), call(0, "{}", "c", "web_search"), end("length"))
    assert story.round.cut
    final = story.end()
    assert final["status"] == "incomplete" and [item["type"] for item in final["output"]] == ["message"]


def test_calls_of_a_model_without_tools_are_nobodys() -> None:
    story = Story(no_tools=True)
    story.feed(call(0, "{}", "c", "ls"), end("tool_calls"))
    [one] = story.round.hosted_calls()
    assert not story.round.calls_client and not story.round.has_text
    story.round.leave_out(one)
    assert story.end()["output"] == []


def test_what_a_provider_wants_back_with_a_call() -> None:
    story = Story()
    story.feed(call(0, "{}", "c", "web_search", extra_content={"google": 1}), end("tool_calls"))
    story.run()
    assert story.round.extra_content == {f"call_{STEM[:24]}0000": {"google": 1}}


def test_a_broken_off_call_is_incomplete() -> None:
    story = Story()
    story.feed(call(0, "{}", "c", "web_search"), end("tool_calls"))
    [one] = story.round.hosted_calls()
    story.events += story.round.open(SEARCH, one)
    assert story.round.unfinished_response()["output"][0]["status"] == "incomplete"
    final = story.end(story.round.interrupt())
    assert final["incomplete_details"] == {"reason": "interrupted"} and final["output"] == []


def test_no_token_is_left() -> None:
    story = Story()
    story.feed(call(0, "{}", "c", "web_search"), end("tool_calls"))
    story.run()
    final = story.end(story.round.finish_out_of_tokens())
    assert final["status"] == "incomplete" and len(final["output"]) == 1


def test_a_round_that_shows_nothing_has_no_number() -> None:
    story = Story()
    story.feed(end())
    assert story.round.to_next().number == 0
    assert story.round.finish()[-1]["response"]["output"] == []


def test_call_ids_of_the_client_differ_between_rounds() -> None:
    """Some providers number the calls of every answer alike."""
    story = Story()
    story.feed(call(0, "{}", "call_0", "ls"), end("tool_calls"))
    story.next()
    story.feed(call(0, "{}", "call_0", "ls"), end("tool_calls"))
    ids = [item["call_id"] for item in story.end()["output"]]
    assert ids == ["call_0", f"call_{STEM[:24]}010001"]


# ---- Items
CALL = {"type": "mcp_call", "server_label": "docs", "name": "echo", "arguments": "{}"}
ITEMS: Dict[str, Any] = {
    "a list": (
        {"type": "mcp_list_tools", "server_label": "docs"},
        {"tools": [{"name": "echo", "input_schema": {}}]},
        ["in_progress", "completed"],
    ),
    "a list that failed": (
        {"type": "mcp_list_tools", "server_label": "docs"},
        {"tools": [], "error": "down"},
        ["in_progress", "failed"],
    ),
    "a call": (
        {
            "type": "mcp_call",
            "server_label": "docs",
            "name": "echo",
            "arguments": "{}",
            "approval_request_id": None,
        },
        {"status": "completed", "output": "x", "error": None},
        ["in_progress", "delta", "done", "completed"],
    ),
    "a call that failed": (
        {
            "type": "mcp_call",
            "server_label": "docs",
            "name": "echo",
            "arguments": "{}",
            "approval_request_id": None,
        },
        {"status": "failed", "output": None, "error": {"type": "http_error", "code": 500, "message": "x"}},
        ["in_progress", "delta", "done", "failed"],
    ),
    "a question": ({**CALL, "type": "mcp_approval_request"}, {}, []),
    "a failed search": (SEARCH, {**DONE, "status": "failed"}, ["in_progress", "searching", "completed"]),
}


@pytest.mark.parametrize("name", ITEMS)
def test_items_that_nobody_has_called_for(name: str) -> None:
    first, known, steps = ITEMS[name]
    story = Story()
    story.events += story.round.open(first)
    assert story.round.open_id.startswith(HOSTED_FORMS[first["type"]].prefix + "_")
    story.events += story.round.close(known)
    story.next()
    story.feed(text("So."), end())
    final = story.end()
    names = [event["type"] for event in story.events]
    own = [name for name in names if "mcp_" in name or "search" in name]
    assert [kind.rpartition(".")[2] for kind in own] == steps
    again = replayed(final, {final["output"][0]["id"]})
    assert [event["type"] for event in again] == names


# ---- Ids and figures
def test_the_ids_of_a_round() -> None:
    ids = Ids(STEM).in_round(0x1F)
    item = ids("ws")
    assert item == f"ws_{STEM}1f0000" and ids("call") == f"call_{STEM[:24]}1f0001"
    assert round_stem(item) == STEM + "1f" and output_stem(item) == STEM
    assert round_stem(f"ws_{STEM}0000") == STEM and round_stem("ws_67cc") is None
    assert hosted_call_id(item, 7) == f"call_{STEM[:24]}1f0000"
    assert hosted_call_id(None, 7) == "call_hosted_7"
    foreign = hosted_call_id("ws_67cc", 7)
    assert foreign == hosted_call_id("ws_67cc", 8) and len(foreign) <= 40


def test_sums() -> None:
    usage = usage_object(USAGE)
    assert added(None, usage) == added(usage, None) == usage and added(None, None) is None
    both = added(usage, usage)
    assert both is not None and both["input_tokens"] == 20
