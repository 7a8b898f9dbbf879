"""Input items in, chat messages out: the order that every provider accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Tuple

import pytest
from chat_rules import problems
from histories import (
    HISTORIES,
    PNG,
    PROFILES,
    WILD_HISTORIES,
    call,
    dev,
    image,
    names,
    ours,
    out,
    said,
    thought,
    user,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import examples

from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import to_chat_request
from rproxy.convert.request.dialect import RESPONSE_ITEM
from rproxy.convert.request.turns import NO_OUTPUT, SUMMARY, check_orphans, stem
from rproxy.convert.request.writer import ATTACHED, INTERRUPTED, SEE_BELOW, Recall, to_messages
from rproxy.convert.sealed import seal
from rproxy.convert.tools.table import ToolTable
from rproxy.errors import ApiError
from rproxy.json_codec import encode_json

Json = Dict[str, Any]
GENERIC, DEEPSEEK, VLLM, MISTRAL, OPENAI = (
    PROFILES[name] for name in ("generic", "deepseek", "vllm", "mistral", "openai")
)
GO = user("go")


def converted(items: List[Json], profile: Profile = GENERIC, **options: Any) -> List[Json]:
    return to_messages(items, ToolTable.build({}, items, profile), profile, **options)


# ---- messages in short
def by_user(content: Any) -> Json:
    return {"role": "user", "content": content}


def by_model(content: Any, **more: Any) -> Json:
    return {"role": "assistant", "content": content, **more}


def by_system(content: Any) -> Json:
    return {"role": "system", "content": content}


def asks(*ids: str, content: Any = None, name: str = "ls", arguments: str = "{}", **more: Any) -> Json:
    return by_model(
        content,
        **more,
        tool_calls=[
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id in ids
        ],
    )


def result(call_id: str, content: str = "x") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def picture(**more: Any) -> Json:
    return {"type": "image_url", "image_url": {"url": PNG, **more}}


U, UB = by_user("go"), by_user("b")


# ---- what every history gets
ORDER: Dict[str, Tuple[List[Json], List[Json]]] = {
    "a call and its output": ([GO, call(), out()], [U, asks("c1"), result("c1")]),
    "a message without type, with a string": ([{"role": "user", "content": "go"}], [U]),
    "a message of the model in two parts": (
        [GO, by_model([{"type": "output_text", "text": part} for part in "ab"]), user("b")],
        [U, by_model("ab"), UB],
    ),
    "outputs in another order than their calls": (
        [GO, call("c1"), call("c2"), out("c2", "2"), out("c1", "1")],
        [U, asks("c1", "c2"), result("c1", "1"), result("c2", "2")],
    ),
    "an output before its call": (
        [GO, out("c1"), call("c1"), user("then")],
        [U, asks("c1"), result("c1"), by_user("then")],
    ),
    "an output after a later turn": (
        [GO, call("c1"), said("meanwhile"), user("b"), out("c1")],
        [U, UB, asks("c1", content="meanwhile"), result("c1")],
    ),
    "an output after a later turn that has an answer": (
        [GO, call("c1"), user("b"), out("c1"), said("done")],
        [U, UB, asks("c1"), result("c1"), by_model("done")],
    ),
    "the output of an earlier turn than the one that a message interrupted": (
        [GO, call("c1"), user("b"), call("c2"), user("c"), out("c1"), out("c2")],
        [U, asks("c1"), result("c1"), UB, by_user("c"), asks("c2"), result("c2")],
    ),
    "an output between two messages of the user": (
        [GO, call("c1"), user("b"), out("c1"), user("c")],
        [U, asks("c1"), result("c1"), UB, by_user("c")],
    ),
    "the user's question again between the calls and their outputs": (
        [GO, call("c1"), call("c2"), out("c1"), GO, out("c2")],
        [U, U, asks("c1", "c2"), result("c1"), result("c2")],
    ),
    "a turn that the client sends again before its output": (
        [GO, call("c1"), GO, call("c1"), out("c1")],
        [U, U, asks("c1"), result("c1")],
    ),
    "an output that the client sends twice": ([GO, call(), out(), out()], [U, asks("c1"), result("c1")]),
    "outputs without call_id": (
        [
            GO,
            call("c1"),
            call("c2"),
            {**out(), "call_id": None},
            {"type": "function_call_output", "output": "y"},
        ],
        [U, asks("c1", "c2"), result("c1"), result("c2", "y")],
    ),
    "an output without call_id belongs to the last run of calls": (
        [GO, call("c1"), user("b"), call("c2"), {**out(), "call_id": None}],
        [U, asks("c1"), result("c1", INTERRUPTED), UB, asks("c2"), result("c2")],
    ),
    "an output without call_id and without a call": (
        [GO, {"type": "function_call_output", "output": "left over"}],
        [U, by_user("Tool output for a call that is missing:\nleft over")],
    ),
    "a search that the service ran": (
        [
            GO,
            {"type": "tool_search_call", "execution": "server", "call_id": None, "arguments": {"q": 1}},
            {"type": "tool_search_output", "execution": "server", "call_id": None, "tools": []},
            user("b"),
        ],
        [U, asks("call_0", name="tool_search", arguments='{"q": 1}'), result("call_0", '{"tools": []}'), UB],
    ),
    "blank text beside a call": ([GO, said("\n\n"), call(), out()], [U, asks("c1"), result("c1")]),
    "what agents say to each other": (
        [
            GO,
            call(),
            out(),
            {
                "type": "agent_message",
                "author": "/root/kid",
                "recipient": "/root",
                "content": [
                    {"type": "input_text", "text": "Payload:\n"},
                    {"type": "encrypted_content", "encrypted_content": "it is done"},
                ],
            },
            {
                "type": "agent_message",
                "content": [{"type": "encrypted_content", "encrypted_content": "gAAAAABp" + "x" * 100}],
            },
        ],
        [U, asks("c1"), result("c1"), by_user("Payload:\nit is done")],
    ),
    "a call without output": ([GO, call(), user("b")], [U, asks("c1"), result("c1", INTERRUPTED), UB]),
    "an output without call": (
        [GO, said("b"), out("c7", "left over"), user("c")],
        [
            U,
            by_model("b"),
            by_user("Tool output for the call c7, which is missing:\nleft over"),
            by_user("c"),
        ],
    ),
    "an empty output without call": (
        [GO, out("c7", []), user("c")],
        [U, by_user("Tool output for the call c7, which is missing:\n" + NO_OUTPUT), by_user("c")],
    ),
    "several outputs for one call": (
        [GO, call(), out("c1", "1"), out("c1", "2")],
        [U, asks("c1"), result("c1", "1\n2")],
    ),
    "an empty output": ([GO, call(), out("c1", "")], [U, asks("c1"), result("c1", NO_OUTPUT)]),
    "an output of empty parts": (
        [GO, call(), out("c1", [{"type": "input_text", "text": ""}])],
        [U, asks("c1"), result("c1", NO_OUTPUT)],
    ),
    "a call id that a later turn uses again": (
        [GO, call("c1"), out("c1", "1"), call("c1"), out("c1", "2")],
        [U, asks("c1"), result("c1", "1"), asks("c1"), result("c1", "2")],
    ),
    "a call that the client sends twice": ([GO, call(), call(), out()], [U, asks("c1"), result("c1")]),
    "a message between call and output": (
        [GO, call(), dev("hook"), out()],
        [U, asks("c1"), result("c1"), by_system("hook")],
    ),
    "text before and after the calls of one turn": (
        [GO, said("I look."), call(), said("Done."), out()],
        [U, asks("c1", content="I look.\nDone."), result("c1")],
    ),
    "text after the output": (
        [GO, call(), out(), said("there")],
        [U, asks("c1"), result("c1"), by_model("there")],
    ),
    "two answers without anything between": (
        [GO, said("a"), said("b"), user("c")],
        [U, by_model("a"), by_model("b"), by_user("c")],
    ),
    "an empty assistant message": ([GO, said(""), user("b")], [U, UB]),
    "an empty assistant message before a full one": (
        [GO, said(), said("a"), user("b")],
        [U, by_model("a"), UB],
    ),
    "empty texts of the user": ([user("", "go", ""), user("")], [U]),
    "empty instructions of the developer": ([dev(""), GO], [U]),
    "several texts": ([user("a", "b"), dev("c", "", "d")], [by_user("a\nb"), by_system("c\nd")]),
    "a call without arguments": (
        [GO, {"type": "function_call", "call_id": "c1", "name": "ls"}, out()],
        [U, asks("c1"), result("c1")],
    ),
    "a call with blank arguments": ([GO, call(arguments=" \n"), out()], [U, asks("c1"), result("c1")]),
    "a call with an object as arguments": (
        [GO, {**call(), "arguments": {"ü": 1}}, out()],
        [U, asks("c1", arguments='{"ü": 1}'), result("c1")],
    ),
    "broken arguments become an object": (
        [GO, call(arguments='{"a": '), out()],
        [U, asks("c1", arguments='{"_raw": "{\\"a\\": "}'), result("c1")],
    ),
    "broken arguments keep their letters": (
        [GO, call(arguments="grüß"), out()],
        [U, asks("c1", arguments='{"_raw": "grüß"}'), result("c1")],
    ),
    "arguments that are no object become one": (
        [GO, call(arguments="[1]"), out()],
        [U, asks("c1", arguments='{"_raw": "[1]"}'), result("c1")],
    ),
    "a call without a name": (
        [GO, {"type": "function_call", "call_id": "c1", "arguments": "{}"}, out()],
        [U, asks("c1", name="_da39a3ee"), result("c1")],
    ),
    "a call without any id goes by its number": (
        [GO, {"type": "function_call", "name": "ls", "arguments": "{}"}, out(None)],
        [U, asks("call_0"), result("call_0")],
    ),
    "a call without call_id goes by its own id": (
        [
            GO,
            {"type": "local_shell_call", "id": "c1", "action": {"type": "exec", "command": ["ls"]}},
            {"type": "local_shell_call_output", "call_id": "c1", "output": "x"},
        ],
        [U, asks("c1", name="local_shell", arguments='{"command": ["ls"]}'), result("c1")],
    ),
    "calls of a kind that nobody knows": (
        [
            GO,
            {
                "type": "computer_call",
                "call_id": "c1",
                "id": "cu_1",
                "status": "completed",
                "action": {"type": "wait"},
            },
            {"type": "computer_call_output", "call_id": "c1", "output": {"type": "computer_screenshot"}},
        ],
        [
            U,
            asks("c1", name="computer_call", arguments='{"action": {"type": "wait"}}'),
            result("c1", '{"type": "computer_screenshot"}'),
        ],
    ),
    "a picture as the output of a kind that nobody knows": (
        [
            GO,
            {"type": "computer_call", "call_id": "c1", "action": {}},
            {
                "type": "computer_call_output",
                "call_id": "c1",
                "output": {**image(), "type": "computer_screenshot"},
            },
        ],
        [
            U,
            asks("c1", name="computer_call", arguments='{"action": {}}'),
            result("c1", SEE_BELOW),
            by_user([{"type": "text", "text": ATTACHED}, picture()]),
        ],
    ),
    "the result of an MCP tool": (
        [GO, call(), out("c1", {"content": [{"type": "text", "text": "x"}]})],
        [U, asks("c1"), result("c1")],
    ),
    "two answers of ours whose provider numbers the calls of every answer alike": (
        [GO, call(id=ours("fc", 1, 0)), call(id=ours("fc", 2, 0)), out()],
        [U, asks("c1"), result("c1", INTERRUPTED), asks("c1"), result("c1")],
    ),
    "items that say nothing here": (
        [
            {"type": "additional_tools", "tools": []},
            {"type": "configuration_update"},
            GO,
            {"type": "compaction_trigger"},
        ],
        [U],
    ),
    "an image of the user": (
        [
            user("see"),
            {"role": "user", "content": [{"type": "input_text", "text": "see"}, image(detail="original")]},
        ],
        [by_user("see"), by_user([{"type": "text", "text": "see"}, picture(detail="high")])],
    ),
    "images in outputs follow the last output": (
        [
            GO,
            call("c1"),
            call("c2"),
            out("c1", [image()]),
            out("c2", [{"type": "input_text", "text": "cat"}, image()]),
            user("b"),
        ],
        [
            U,
            asks("c1", "c2"),
            result("c1", SEE_BELOW),
            result("c2", "cat"),
            by_user([{"type": "text", "text": ATTACHED}] + [picture()] * 2),
            UB,
        ],
    ),
    "our own summary": (
        [{"type": "compaction", "encrypted_content": seal("compaction", {"text": "We met."})}, user("b")],
        [by_user(SUMMARY + "We met."), UB],
    ),
}


@pytest.mark.parametrize("title", ORDER)
def test_order(title: str) -> None:
    items, messages = ORDER[title]
    assert converted(items) == messages


def test_reasoning_between_calls_begins_a_new_turn() -> None:
    messages = converted(
        [GO, thought("r1"), call("c1"), thought("r2"), call("c2"), out("c1", "1"), out("c2", "2")], DEEPSEEK
    )
    assert messages == [
        U,
        asks("c1", content="", reasoning_content="r1"),
        result("c1", "1"),
        asks("c2", content="", reasoning_content="r2"),
        result("c2", "2"),
    ]


# ---- our own ids
def test_a_stem_is_what_the_ids_of_one_response_share() -> None:
    assert stem({"id": ours("msg", 7, 1)}) == stem({"id": ours("fc", 7, 2)}) == f"{7:032x}"
    assert [stem(item) for item in ({}, {"id": None}, {"id": "msg_1"}, {"id": "msg_" + "0" * 37})] == [
        None
    ] * 4


def test_items_of_one_response_are_one_turn_wherever_they_stand() -> None:
    """Even with two thoughts, text between the calls, and things that other items were put between."""
    items = [
        GO,
        thought("r1", id=ours("rs", 1, 0)),
        said("a", id=ours("msg", 1, 1)),
        call("c1", id=ours("fc", 1, 2)),
        dev("hook"),
        thought("r2", id=ours("rs", 1, 3)),
        out("c1"),
        said("b", id=ours("msg", 1, 4)),
        call("c2", id=ours("fc", 1, 5)),
        out("c2"),
    ]
    assert converted(items, DEEPSEEK) == [
        U,
        asks("c1", "c2", content="ab", reasoning_content="r1r2"),
        result("c1"),
        result("c2"),
        by_system("hook"),
    ]


def test_an_item_of_ours_that_comes_twice_counts_once() -> None:
    answer = [thought("r", id=ours("rs", 1, 0)), said("a", id=ours("msg", 1, 1))]
    assert converted([GO, *answer, *answer, user("b")], DEEPSEEK) == [
        U,
        by_model("a", reasoning_content="r"),
        UB,
    ]


def test_answers_of_two_responses_are_two_turns() -> None:
    items = [
        GO,
        call("c1", id=ours("fc", 1, 0)),
        call("c2", id=ours("fc", 2, 0)),
        out("c1"),
        out("c2"),
        said("a", id=ours("msg", 3, 0)),
        user("b"),
    ]
    assert names(converted(items)) == [
        "user",
        "assistant+",
        "tool",
        "assistant+",
        "tool",
        "assistant",
        "user",
    ]


def test_an_item_without_id_joins_the_turn_of_ours_that_is_open() -> None:
    assert converted([GO, said("a"), call("c1", id=ours("fc", 1, 0)), call("c2"), out("c1"), out("c2")]) == [
        U,
        asks("c1", "c2", content="a"),
        result("c1"),
        result("c2"),
    ]


# ---- an answer that broke off
LEFT_OVER = [thought("half", id=ours("rs", 1, 0)), said("half", id=ours("msg", 1, 1))]


@pytest.mark.parametrize("rest", [LEFT_OVER[:1], LEFT_OVER[1:], LEFT_OVER, [thought("half")]])
def test_the_rest_of_a_broken_answer_at_the_end_is_left_out(rest: List[Json]) -> None:
    assert converted([GO, *rest], DEEPSEEK) == [U]


def test_the_rest_of_a_broken_answer_stays_out_when_the_whole_one_follows() -> None:
    answer = [said("whole", id=ours("msg", 2, 0)), call("c1", id=ours("fc", 2, 1)), out("c1")]
    assert converted([GO, *LEFT_OVER, *answer]) == converted([GO, *answer])


@pytest.mark.parametrize(
    "items",
    [
        [GO, said("a")],  # not ours: perhaps the client wants it continued
        [GO, *LEFT_OVER[1:], said("a")],
        [GO, call("c1", id=ours("fc", 1, 0))],  # calls were perhaps run
        [GO, *LEFT_OVER[1:], user("stop")],
        [GO, *LEFT_OVER[1:], call("c9", id=ours("fc", 1, 9)), said("a", id=ours("msg", 2, 0)), user("b")],
    ],
)
def test_what_may_mean_something_is_kept(items: List[Json]) -> None:
    assert sum(names(converted(items)).count(role) for role in ("assistant", "assistant+")) >= 1


def test_a_client_that_does_not_resend_may_end_with_our_answer() -> None:
    """Agents one after another: the second works on what the first one said."""
    items = [GO, said("a", id=ours("msg", 1, 0)), said("b", id=ours("msg", 2, 0))]
    assert names(converted(items, resends=False)) == ["user", "assistant", "assistant"]
    assert converted([GO, *LEFT_OVER[:1]], resends=False) == [U]


# ---- reasoning
DETAIL = {"type": "reasoning.encrypted", "data": "x"}


def sealed(**payload: Any) -> str:
    return seal("reasoning", payload)


TURN = [thought("why", encrypted_content="gAAAA-foreign"), said("hi"), call(), out()]
REPLAY: Dict[str, Tuple[Profile, List[Json], Json]] = {
    "in the provider's field": (DEEPSEEK, TURN, asks("c1", content="hi", reasoning_content="why")),
    "in two fields": (VLLM, TURN, asks("c1", content="hi", reasoning="why", reasoning_content="why")),
    "as text in tags": (PROFILES["tags"], TURN, asks("c1", content="<think>\nwhy\n</think>\n\nhi")),
    "as text in tags beside a mute call": (
        PROFILES["tags"],
        [TURN[0], *TURN[2:]],
        asks("c1", content="<think>\nwhy\n</think>\n\n"),
    ),
    "as details": (
        PROFILES["minimax"],
        TURN,
        asks("c1", content="hi", reasoning_details=[{"type": "reasoning.text", "text": "why"}]),
    ),
    "as parts": (
        MISTRAL,
        TURN,
        asks(
            MISTRAL_ID := "2f22765d0",
            content=[
                {"type": "thinking", "thinking": [{"type": "text", "text": "why"}]},
                {"type": "text", "text": "hi"},
            ],
        ),
    ),
    "as parts beside a mute call": (
        MISTRAL,
        [TURN[0], *TURN[2:]],
        asks(MISTRAL_ID, content=[{"type": "thinking", "thinking": [{"type": "text", "text": "why"}]}]),
    ),
    "never": (OPENAI, TURN, asks("c1", content="hi")),
    "an empty one where the field must be there": (
        DEEPSEEK,
        TURN[1:],
        asks("c1", content="hi", reasoning_content=""),
    ),
    "none where the field may be missing": (VLLM, TURN[1:], asks("c1", content="hi")),
    "not beside plain text": (PROFILES["groq"], [thought("why"), said("hi"), user("b")], by_model("hi")),
    "with plain text": (
        DEEPSEEK,
        [thought("why"), said("hi"), user("b")],
        by_model("hi", reasoning_content="why"),
    ),
    "alone, kept": (DEEPSEEK, [thought("why"), user("b")], by_model("", reasoning_content="why")),
    "alone, dropped": (GENERIC, [thought("why"), user("b")], UB),
    "a summary": (
        DEEPSEEK,
        [
            {
                "type": "reasoning",
                "content": None,
                "summary": [{"type": "summary_text", "text": text} for text in "ab"],
            },
            *TURN[1:],
        ],
        asks("c1", content="hi", reasoning_content="a\nb"),
    ),
    "several thoughts": (
        DEEPSEEK,
        [thought("a"), thought("b"), *TURN[1:]],
        asks("c1", content="hi", reasoning_content="ab"),
    ),
    "our sealed copy is better than the text": (
        DEEPSEEK,
        [thought("shown", encrypted_content=sealed(text="sealed")), *TURN[1:]],
        asks("c1", content="hi", reasoning_content="sealed"),
    ),
    "sealed details come back as they were": (
        PROFILES["openrouter"],
        [thought("", encrypted_content=sealed(text="", details=[DETAIL])), *TURN[1:]],
        asks("c1", content="hi", reasoning_details=[DETAIL]),
    ),
    "sealed details without text have no tags": (
        PROFILES["tags"],
        [thought("", encrypted_content=sealed(details=[DETAIL])), *TURN[1:]],
        asks("c1", content="hi"),
    ),
    "sealed details without text have no parts": (
        MISTRAL,
        [thought("", encrypted_content=sealed(details=[DETAIL])), *TURN[1:]],
        asks(MISTRAL_ID, content="hi"),
    ),
    "details of another wire say nothing on this one": (
        PROFILES["minimax"],
        [thought("", encrypted_content=sealed(details=[{"type": RESPONSE_ITEM}])), *TURN[1:]],
        asks("c1", content="hi"),
    ),
    "strange details are no details": (
        DEEPSEEK,
        [thought("", encrypted_content=sealed(text="sealed", details="x")), *TURN[1:]],
        asks("c1", content="hi", reasoning_content="sealed"),
    ),
    "a blob of another kind is foreign": (
        DEEPSEEK,
        [thought("why", encrypted_content=seal("compaction", {"text": "x"})), *TURN[1:]],
        asks("c1", content="hi", reasoning_content="why"),
    ),
}


@pytest.mark.parametrize("title", REPLAY)
def test_reasoning_goes_back(title: str) -> None:
    profile, items, message = REPLAY[title]
    assert converted([GO, *items], profile)[1] == message


def by_call_id(known: Json) -> Recall:
    return lambda key: known.get(key.call_id)


def test_what_the_client_forgot_is_recalled() -> None:
    items = [GO, *TURN[1:]]
    known: Json = {
        "c1": {
            "text": "why",
            "details": [DETAIL],
            "extra_content": {"c1": {"google": {"thought_signature": "s"}}},
        }
    }
    assert converted(items, DEEPSEEK, recall=by_call_id(known))[1] == asks(
        "c1", content="hi", reasoning_content="why"
    )
    assert converted(items, PROFILES["openrouter"], recall=by_call_id(known))[1] == asks(
        "c1", content="hi", reasoning_details=[DETAIL]
    )
    known["c1"]["text"] = "something else"
    assert converted([GO, *TURN], DEEPSEEK, recall=by_call_id(known))[1] == asks(
        "c1", content="hi", reasoning_content="why"
    )


def test_a_thought_signature_returns_with_its_call_only() -> None:
    known: Json = {"c1": {"text": "", "extra_content": {"c1": {"google": {"thought_signature": "s"}}}}}
    calls = converted(
        [GO, call("c1"), call("c2"), out("c1"), out("c2")], PROFILES["gemini"], recall=by_call_id(known)
    )[1]["tool_calls"]
    assert [entry.get("extra_content") for entry in calls] == [{"google": {"thought_signature": "s"}}, None]
    assert (
        "extra_content"
        not in converted([GO, call("c1"), out("c1")], GENERIC, recall=by_call_id(known))[1]["tool_calls"][0]
    )


# ---- dialects
def test_the_developer_speaks_as_the_provider_wants() -> None:
    assert names(converted([dev("a"), GO], OPENAI)) == ["developer", "user"]
    assert names(converted([dev("a"), GO], GENERIC, instructions="i")) == ["system", "system", "user"]


def test_a_template_gets_one_system_message_first_and_roles_in_turn() -> None:
    items = [
        dev("a"),
        dev("b"),
        GO,
        user("c"),
        said("d"),
        dev("late"),
        user("e"),
        said("f"),
        call(),
        out(),
        user("g"),
    ]
    assert converted(items, VLLM, instructions="i") == [
        by_system("i\n\na\n\nb"),
        by_user("go\n\nc"),
        by_model("d"),
        by_user("late\n\ne"),
        asks("c1", content="f"),
        result("c1"),
        by_user("g"),
    ]


def test_a_template_joins_what_is_not_text_as_well() -> None:
    items = [user("a"), {"role": "user", "content": [image()]}, said("b"), said("c"), call(), out()]
    assert converted(items, VLLM)[:2] == [
        by_user([{"type": "text", "text": "a"}, picture()]),
        asks("c1", content="b\n\nc"),
    ]


def test_a_template_joins_a_mute_call_with_the_text_before_it() -> None:
    mute = replace(VLLM, empty_content=None)
    items = [GO, said("a", id=ours("msg", 1, 0)), thought("r"), call(), out()]
    assert converted(items, mute)[1] == asks("c1", content="a", reasoning="r", reasoning_content="r")


@pytest.mark.parametrize(
    "items, roles",
    [
        ([dev("a")], ["user"]),
        ([dev("a"), dev("b")], ["system", "user"]),
        ([GO, dev("b")], ["user"]),
        ([], []),
    ],
)
def test_a_template_always_gets_a_user(items: List[Json], roles: List[str]) -> None:
    assert names(converted(items, VLLM)) == roles


def test_a_server_without_system_messages_hears_everything_from_the_user() -> None:
    profile = GENERIC.override({"system_position": "user"})
    assert converted([dev("a"), GO, dev("b")], profile, instructions="i") == [
        by_user(text) for text in ("i", "a", "go", "b")
    ]


@pytest.mark.parametrize(
    "kind, items, added",
    [
        ("optional", [dev("a")], False),
        ("required", [dev("a")], True),
        ("required", [GO, dev("a")], False),
        ("required", [], False),
        ("last", [GO, said("x")], True),
        ("last", [GO, said("x"), dev("a")], False),
        ("last", [GO, call(), out()], False),
        ("last", [said("x"), GO], False),
        ("last", [], False),
    ],
)
def test_a_message_of_the_user_where_one_must_be(kind: str, items: List[Json], added: bool) -> None:
    plain = converted(items, resends=False)
    sent = converted(items, GENERIC.override({"user_message": kind}), resends=False)
    assert sent == (plain + [by_user("Continue.")] if added else plain)


def test_no_user_directly_after_a_tool() -> None:
    items = [GO, call(), out(), user("b"), call("c2"), out("c2", [image()]), said("c")]
    assert names(converted(items, MISTRAL)) == [
        "user",
        "assistant+",
        "tool",
        "assistant",
        "user",
        "assistant+",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]


IDENTITY = "call_" + "a" * 35
IDS: List[Tuple[Profile, str, str]] = [
    (GENERIC, "x" * 99, "x" * 99),
    (MISTRAL, "Ab3dE6gH9", "Ab3dE6gH9"),
    (MISTRAL, "c1", MISTRAL_ID),
    (OPENAI, IDENTITY, IDENTITY),
    (OPENAI, IDENTITY + "a", "call_75d6d651a3b40d5a24726d3a12dc7d92"),
]


@pytest.mark.parametrize("profile, call_id, chat_id", IDS)
def test_call_ids_are_what_the_provider_takes_on_both_sides(
    profile: Profile, call_id: str, chat_id: str
) -> None:
    messages = converted([GO, call(call_id), out(call_id)], profile)
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"] == chat_id


# ---- complaints
@pytest.mark.parametrize(
    "item, complaint",
    [
        ({}, "needs a type or a role"),
        ({"type": 5}, "needs a type or a role"),
        (
            {"role": "tool", "content": "x"},
            "role must be one of system, developer, user, assistant, not 'tool'",
        ),
        ({"type": "message", "content": "x"}, "not 'None'"),
        (
            {"role": "user", "content": 5},
            "content of a message must be a string or a list of content parts, not int",
        ),
        ({"role": "assistant", "content": [5]}, "content of a message must be"),
        ({"type": "reasoning", "content": 5}, "content of a reasoning item must be"),
        ({"type": "function_call_output", "call_id": "c1", "output": {"a": 1}}, "output must be a string"),
    ],
)
def test_what_cannot_be_understood_is_a_400(item: Json, complaint: str) -> None:
    with pytest.raises(ApiError, match=complaint) as caught:
        converted([call(), item])
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "input", "invalid_value")


def test_what_is_left_out_is_a_warning() -> None:
    warnings: List[str] = []
    items = [
        GO,
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"role": "developer", "content": [{"type": "input_text", "text": "see"}, image()]},
    ]
    assert converted(items, warnings=warnings) == [U, by_system("see")]
    assert warnings == [
        "input item web_search_call left out",
        "something other than text left out of a developer message",
    ]


def test_only_outputs_of_calls_that_were_made_are_accepted_alone() -> None:
    check_orphans([call("c1")], [out("c1")])
    check_orphans([], [])
    check_orphans([], [out("c9"), user("and")])
    check_orphans([{"type": "local_shell_call", "id": "c1"}], [out("c1")])
    for wrong in (out("c9"), {"type": "function_call_output", "call_id": ["c1"]}):
        with pytest.raises(
            ApiError, match="No tool call found for function call output with call_id"
        ) as caught:
            check_orphans([call("c1")], [out("c1"), wrong])
        assert caught.value.status == 400


# ---- anything
@settings(max_examples=examples(400))
@given(items=HISTORIES, name=st.sampled_from(sorted(PROFILES)))
def test_any_history_obeys_the_rules_of_any_profile(name: str, items: List[Json]) -> None:
    profile = PROFILES[name]
    try:
        body = to_chat_request({"model": "m"}, items, profile, downstream_model="up").chat_request(
            stream=True
        )
    except ApiError as error:
        assert error.code in ("missing_required_parameter", "invalid_encrypted_content")
    else:
        assert problems(body, profile) == []
        encode_json(body).decode()


@settings(max_examples=examples(150))
@given(items=WILD_HISTORIES, name=st.sampled_from(sorted(PROFILES)))
def test_whatever_the_items_are_there_is_a_request_or_a_400(name: str, items: List[Json]) -> None:
    try:
        encode_json(to_chat_request({"model": "m"}, items, PROFILES[name], downstream_model="up").body)
    except ApiError as error:
        assert error.status == 400 and error.param
