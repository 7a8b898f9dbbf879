"""Calls and outputs: ids that are missing, and what a client sends although the server holds it already."""

from __future__ import annotations

from rproxy.convert.request.pairing import with_call_ids, without_repeats
from rproxy.types import Json

CALL: Json = {"type": "function_call", "call_id": "c1", "name": "ls", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "c1", "output": "x"}
USER: Json = {"role": "user", "content": "go"}


def test_a_history_with_all_its_ids_stays_as_it_is() -> None:
    history = [USER, CALL, OUTPUT]
    assert with_call_ids(history) == history


def test_outputs_without_id_answer_the_open_calls_of_the_last_run_in_their_order() -> None:
    second = {**CALL, "call_id": "c2"}
    bare = {"type": "function_call_output", "output": "x"}
    thinking = {"type": "reasoning", "summary": []}
    history = [
        CALL,
        USER,
        second,
        thinking,
        {**CALL, "call_id": "c3"},
        bare,
        {**bare, "call_id": 5},
        bare,
        bare,
    ]
    ids = [
        item.get("call_id") for item in with_call_ids(history) if item["type" if "type" in item else "role"]
    ]
    assert ids == ["c1", None, "c2", None, "c3", "c2", "c3", "c1", None]


def test_calls_without_id_are_numbered_so_that_the_numbers_stay_when_the_history_grows() -> None:
    bare = {"type": "tool_search_call", "arguments": {}}
    found = {"type": "tool_search_output", "call_id": None, "tools": []}
    history = [bare, found, {**bare, "id": "tsc_9"}, found, bare, found]
    ids = [item["call_id"] for item in with_call_ids(history)]
    assert ids == ["call_0", "call_0", "tsc_9", "tsc_9", "call_1", "call_1"]
    assert with_call_ids(history[:2]) == with_call_ids(history)[:2]


def test_what_the_history_holds_is_not_taken_twice() -> None:
    assert without_repeats([USER, CALL], [USER, CALL, OUTPUT]) == [USER, OUTPUT]
    assert without_repeats([USER, CALL, OUTPUT], [CALL, OUTPUT, USER]) == [USER]
    other = {**CALL, "arguments": '{"a": 1}'}
    assert without_repeats([CALL], [other]) == [other]
    assert without_repeats([CALL, OUTPUT], [{**OUTPUT, "output": "y"}]) == [{**OUTPUT, "output": "y"}]


def test_an_output_of_a_later_call_with_the_same_id_is_none_of_them() -> None:
    """Some providers number the calls of every answer alike."""
    assert without_repeats([CALL, OUTPUT, CALL], [OUTPUT]) == [OUTPUT]
