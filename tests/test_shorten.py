"""Histories that are too long to be summarised whole: what goes first, and that the rest stays a history."""

from __future__ import annotations

import json
from typing import List

from histories import HISTORIES, PROFILES
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.request.chat import to_chat_request
from rproxy.convert.request.shorten import LEFT_OUT, SHARES, shortened
from rproxy.errors import ApiError
from rproxy.types import Json

PROMPT: Json = {"role": "user", "content": "Summarise."}


def call(number: int) -> Json:
    return {"type": "function_call", "call_id": f"c{number}", "name": "ls", "arguments": "{}"}


def out(number: int, size: int = 1000) -> Json:
    return {"type": "function_call_output", "call_id": f"c{number}", "output": f"{number}:" + "x" * size}


GOAL: Json = {"role": "user", "content": "the goal"}
LONG: List[Json] = [GOAL, *(item for n in range(10) for item in (call(n), out(n))), PROMPT]


def outputs(items: List[Json]) -> List[str]:
    return [item["output"][:3] for item in items if item.get("type") == "function_call_output"]


def test_the_oldest_outputs_go_first() -> None:
    short = shortened(LONG, 0.75)
    assert outputs(short.items)[:2] == [LEFT_OUT[:3]] * 2 and outputs(short.items)[-1] == "9:x"
    assert [item["type" if "type" in item else "role"] for item in short.items] == [
        item["type" if "type" in item else "role"] for item in LONG
    ]
    assert "tool outputs were left out" in short.note


def test_then_the_oldest_items_of_the_model_with_their_outputs_then_those_of_the_user() -> None:
    chatty: List[Json] = [
        GOAL,
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "y" * 500}]},
        *(item for n in range(4) for item in (call(n), out(n, 10))),
        {"role": "assistant", "content": "z" * 500},
        {"type": "compaction", "encrypted_content": "w" * 500},
        {"role": "user", "content": "u" * 500},
        PROMPT,
    ]
    half = shortened(chatty, 0.55).items
    assert half[0] == GOAL and half[-1] == PROMPT and len(half) < len(chatty)
    ids = [item["call_id"] for item in half if item.get("type") == "function_call"]
    assert [item["call_id"] for item in half if item.get("type") == "function_call_output"] == ids
    least = shortened(chatty, 0.1).items
    assert [item.get("type", item.get("role")) for item in least] == ["compaction", "user"]


def test_an_output_goes_only_if_that_is_worth_it() -> None:
    size = 2 * len(LEFT_OUT) - len(json.dumps(out(0, 0)))  # as JSON twice as long as what would replace it
    for more, left in ((0, "0:x"), (1, LEFT_OUT[:3])):
        short = shortened([GOAL, call(0), out(0, size + more), call(1), out(1), PROMPT], 0.99)
        assert outputs(short.items)[0] == left


def test_what_fits_stays() -> None:
    assert shortened(LONG, 1.0) == (LONG, "")


@given(items=HISTORIES, share=st.sampled_from(SHARES))
def test_what_is_left_is_a_history_that_can_be_sent(items: List[Json], share: float) -> None:
    def convertible(history: List[Json]) -> bool:
        try:
            to_chat_request({}, history, PROFILES["deepseek"], downstream_model="m")
        except ApiError:
            return False
        return True

    whole = [*items, PROMPT]
    if convertible(whole):
        assert convertible(shortened(whole, share).items)
