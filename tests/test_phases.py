"""The phase of a message in turns that ask for a schema: clients parse the final answer, and no preamble."""

from __future__ import annotations

from typing import Any, List, Optional

from stream_tools import Turn, call, delta, end, text, think

from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import to_chat_request
from rproxy.convert.request.responses import to_responses_request
from rproxy.types import Json

TOOLS: Json = {"tools": [{"type": "function", "name": "ls"}]}


def turn(*chunks: Json, tools: bool = True, **options: Any) -> Turn:
    return Turn(*chunks, request=TOOLS if tools else {}, phases=True, **options)


def phases(played: Turn) -> List[Optional[str]]:
    """Those of the finished messages; and no message was announced with another one."""
    done = [item for item in played.output if item["type"] == "message"]
    announced = [event["item"] for event in played.named("response.output_item.added")]
    for item in announced:
        final = next(one for one in played.output if one["id"] == item["id"])
        assert "phase" not in item or item["phase"] == final["phase"]
    return [item.get("phase") for item in done]


LS = call(0, "{}", "c1", "ls")


def test_text_before_a_call_is_commentary() -> None:
    assert phases(turn(text("Let me look."), LS, end("tool_calls"))) == ["commentary"]


def test_the_last_text_is_the_final_answer() -> None:
    assert phases(turn(text("{}"), end())) == ["final_answer"]
    assert phases(turn(LS, text("{}"), end())) == ["final_answer"]
    assert phases(turn(text("{}"), delta(refusal="no"), end())) == ["final_answer", "final_answer"]


def test_reasoning_behind_a_text_waits_until_its_phase_is_known() -> None:
    both = turn(text("Look."), think("hm"), LS, end())
    assert phases(both) == ["commentary"]
    assert both.kinds == ["message", "reasoning", "function_call"]
    assert phases(turn(text("{}"), think("hm"), end())) == ["final_answer"]


def test_without_tools_the_phase_is_known_from_the_beginning() -> None:
    played = turn(text("{}"), end(), tools=False)
    assert phases(played) == ["final_answer"]
    assert played.named("response.output_item.added")[0]["item"]["phase"] == "final_answer"


def test_only_turns_that_ask_for_it_have_phases() -> None:
    assert phases(Turn(text("Let me look."), LS, end(), request=TOOLS)) == [None]


def test_a_phase_goes_back_to_a_provider_with_the_responses_api_and_to_no_other() -> None:
    said = {"type": "message", "role": "assistant", "phase": "commentary", "content": "Let me look."}
    items = [{"role": "user", "content": "go"}, said, {"role": "user", "content": "more"}]
    responses = to_responses_request({}, items, Profile(), downstream_model="m").body["input"]
    assert [item.get("phase") for item in responses] == [None, "commentary", None]
    chat = to_chat_request({}, items, Profile(), downstream_model="m").body["messages"]
    assert all("phase" not in message for message in chat)
