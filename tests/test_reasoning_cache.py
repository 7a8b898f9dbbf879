"""What earlier turns thought is found again by their calls, and only by theirs."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from histories import call, out, thought, user

from rproxy.convert.profile import Profile
from rproxy.convert.request.turns import CallKey, call_keys
from rproxy.convert.request.writer import to_messages
from rproxy.convert.tools.table import ToolTable
from rproxy.service.reasoning_cache import ReasoningCache

Json = Dict[str, Any]

SCOPE = ("owner", "model", "https://provider")
CUSTOM = {"type": "custom", "name": "apply_patch"}
THOUGHT = {"text": "Hm.", "details": [], "extra_content": {"c1": {"google": {"thought_signature": "s"}}}}


def table(*tools: Json) -> ToolTable:
    return ToolTable.build({"tools": list(tools)}, [], Profile(), None)


def key(**changes: str) -> CallKey:
    return CallKey("c1", "ls", "{}", "List it.")._replace(**changes)


def test_every_part_of_the_key_counts() -> None:
    thoughts = ReasoningCache()
    thoughts.remember(SCOPE, [key()], THOUGHT)
    assert thoughts.recall(SCOPE, key()) == THOUGHT
    for changed in (
        key(call_id="c2"),
        key(name="cat"),
        key(arguments='{"a": 1}'),
        key(asked="Something else."),
    ):
        assert thoughts.recall(SCOPE, changed) is None
    for i in range(3):
        assert thoughts.recall(tuple(v + "x" * (i == j) for j, v in enumerate(SCOPE)), key()) is None  # type: ignore[arg-type]


def test_surrogates_do_no_harm() -> None:
    thoughts = ReasoningCache()
    thoughts.remember(SCOPE, [key(asked="\ud83d")], {"text": "\ud83d"})
    assert thoughts.recall(SCOPE, key(asked="\ud83d")) == {"text": "\ud83d"}


def test_bounded_by_count() -> None:
    thoughts = ReasoningCache(max_count=2)
    for name in "ab":
        thoughts.remember(SCOPE, [key(name=name)], {"text": name})
    thoughts.recall(SCOPE, key(name="a"))
    thoughts.remember(SCOPE, [key(name="c")], {"text": "c"})
    assert [thoughts.recall(SCOPE, key(name=name)) is not None for name in "abc"] == [True, False, True]


def test_bounded_by_bytes() -> None:
    thoughts = ReasoningCache(max_bytes=1000)
    for number in range(50):
        thoughts.remember(
            SCOPE, [key()], {"text": "x" * 300, "n": number}
        )  # takes the place of the one before
    assert thoughts.recall(SCOPE, key()) == {"text": "x" * 300, "n": 49}
    for number in range(50):
        thoughts.remember(SCOPE, [key(name=str(number))], {"text": "x" * 300})
    assert [number for number in range(50) if thoughts.recall(SCOPE, key(name=str(number)))] == [47, 48, 49]
    thoughts.remember(SCOPE, [key(), key(name="f")], {"text": "x" * 2000})
    assert thoughts.recall(SCOPE, key()) is None and thoughts.recall(SCOPE, key(name="49")) is None


HISTORIES: Dict[str, List[Json]] = {
    "one question": [user("a")],
    "two texts": [user("a", "b")],
    "no question": [],
    "later": [
        user("a"),
        call("c0"),
        out("c0"),
        user("b"),
        {"type": "message", "role": "developer", "content": "be brief"},
    ],
    "a string": [{"role": "user", "content": "a"}],
}


@pytest.mark.parametrize(
    "more",
    [[], [thought("lost")], [out("c1"), user("next")], [user("between"), out("c1")]],
    ids=["nothing", "thought", "next", "between"],
)
@pytest.mark.parametrize("items", HISTORIES.values(), ids=HISTORIES)
def test_remembered_and_asked_for_alike(items: List[Json], more: List[Json]) -> None:
    tools = table(CUSTOM)
    output = [
        call("c1"),
        call("c2", arguments=""),
        {"type": "custom_tool_call", "call_id": "c3", "name": "apply_patch", "input": "*** x"},
    ]
    asked: List[CallKey] = []

    def recall(wanted: CallKey) -> Any:
        asked.append(wanted)
        return {}

    to_messages([*items, *output, *more], tools, Profile(), recall=recall)
    assert asked[-3:] == call_keys(items, [thought(), *output], tools)


def test_a_thought_goes_back_with_its_call_and_no_other() -> None:
    thoughts, tools, profile = ReasoningCache(), table(), Profile(keep_extra_content=True)
    first, again = [user("a"), call("c1"), out("c1")], [user("b"), call("c1"), out("c1")]
    thoughts.remember(SCOPE, call_keys(first[:1], first[1:2], tools), THOUGHT)
    messages = to_messages(
        [*first, *again], tools, profile, recall=lambda wanted: thoughts.recall(SCOPE, wanted)
    )
    calls = [message for message in messages if "tool_calls" in message]
    assert [message.get("reasoning_content") for message in calls] == ["Hm.", None]
    assert [message["tool_calls"][0].get("extra_content") for message in calls] == [
        THOUGHT["extra_content"]["c1"],
        None,
    ]  # type: ignore[index]
