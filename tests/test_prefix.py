"""The chat request of a turn begins with the very bytes of the turn before.

The provider's prompt cache compares from the first byte on, and a hit costs a fraction.  So whatever a
session does, messages and tools may only be appended: over sessions that rproxy's own converter makes, and
over recorded sessions of Codex.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
from chat_rules import problems
from histories import PROFILES, image
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import examples
from stream_tools import call, end, text, think

from rproxy.convert.events.converter import StreamConverter
from rproxy.convert.events.response import response_object
from rproxy.convert.ids import Ids
from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import input_items, to_chat_request
from rproxy.convert.request.dialect import CONTINUE
from rproxy.convert.sealed import seal, unseal
from rproxy.convert.tools.table import ToolTable
from rproxy.json_codec import encode_json

Json = Dict[str, Any]
CODEX = sorted((Path(__file__).parent / "fixtures" / "codex").glob("*.jsonl"))


def chat(request: Json, items: List[Json], profile: Profile) -> Json:
    body = to_chat_request(request, items, profile, downstream_model="up").chat_request(stream=True)
    assert problems(body, profile) == []
    sent: Json = json.loads(encode_json(body))
    return sent


def flat(content: Any) -> str:
    return (
        content
        if isinstance(content, str)
        else "\n\n".join(part.get("text") or json.dumps(part) for part in content)
    )


def check_continuation(before: Json, after: Json, profile: Profile) -> None:
    """Do messages and tools of ``after`` begin with those of ``before``?

    Where roles must alternate, a user who speaks twice in a row adds to his last message.
    """
    old, new = before["messages"], after["messages"]
    if old[-1] == {"role": "user", "content": CONTINUE}:
        old = old[:-1]  # where nobody but the developer has spoken, and the provider wants a user
    if (
        profile.merge_same_role
        and len(new) >= len(old)
        and old[-1] != new[len(old) - 1]
        and old[-1]["role"] == "user"
    ):
        assert flat(new[len(old) - 1]["content"]).startswith(flat(old[-1]["content"]))
        old = old[:-1]
    assert new[: len(old)] == old
    assert encode_json(new).startswith(encode_json(old)[:-1])
    if "tools" in after:  # Codex asks for a summary without any
        assert after["tools"][: len(before["tools"])] == before["tools"]


# ---- sessions that our own converter makes
TOOLS: List[Json] = [
    {
        "type": "function",
        "name": "ls",
        "parameters": {"type": "object", "properties": {"n": {"type": "number"}}},
    },
    {"type": "custom", "name": "apply_patch"},
    {"type": "tool_search", "execution": "client"},
    {"type": "namespace", "name": "mcp__x", "tools": [{"type": "function", "name": "add"}]},
]
LATER: Json = {"type": "namespace", "name": "mcp__y", "tools": [{"type": "function", "name": "sub"}]}
CALLS = [
    ("ls", '{"n": 1.0}'),
    ("ls", ""),
    ("ls", '{"n": '),
    ("apply_patch", '{"input": "a\\nb"}'),
    ("apply_patch", "raw"),
    ("tool_search", '{"query": "y"}'),
    ("mcp__x__add", "{}"),
    ("nonsense", "{}"),
]
OUTPUTS = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "tool_search_call": "tool_search_output",
}
WORDS = st.sampled_from(["a", "Yes.\n", "ä", "{}", "json"])
PIECES = st.one_of(
    WORDS.map(lambda words: ("think", words)),
    WORDS.map(lambda words: ("text", words)),
    st.sampled_from(CALLS).map(lambda made: ("call", made)),
)
SAYS = st.one_of(WORDS, st.just("picture"), st.just("hook"))
# what the user says, what the model says, does it break off, are the call ids the same as in every answer?
TURN: Any = st.tuples(
    st.lists(SAYS, min_size=1, max_size=2), st.lists(PIECES, max_size=5), st.booleans(), st.booleans()
)
TURNS: Any = st.lists(TURN, min_size=1, max_size=5)


def answered(
    items: List[Json], number: int, pieces: List[Tuple[str, Any]], broken: bool, same_ids: bool
) -> Tuple[List[Json], bool]:
    """The items that a client got of an answer, and whether it was complete."""
    ids = Ids(f"{number:032x}")
    tools = ToolTable.build({"tools": TOOLS}, items, Profile())
    stream = StreamConverter(
        response_object({"model": "m"}, id=ids.response, created_at=1),
        tools,
        ids=ids,
        now=lambda: 2,
        seal=lambda payload: seal("reasoning", payload),
    )
    for i, (kind, what) in enumerate(pieces):
        call_id = f"call_{i}" if same_ids else f"call_{number}_{i}"
        chunk = (
            think(what)
            if kind == "think"
            else text(what)
            if kind == "text"
            else call(i, what[1], call_id, what[0])
        )
        stream.feed(chunk)
    stream.feed(end("stop"))
    stream.fail("server_error", "cut") if broken else stream.finish()
    return stream.response["output"], stream.response["status"] == "completed"


def result(item: Json) -> Json:
    kind = OUTPUTS[item["type"]]
    return {
        "type": kind,
        "call_id": item["call_id"],
        **({"tools": [LATER]} if kind == "tool_search_output" else {"output": "done"}),
    }


def user_items(says: List[str]) -> List[Json]:
    made: Dict[str, Json] = {
        "picture": {"role": "user", "content": [image()]},
        "hook": {"role": "developer", "content": "hook"},
    }
    return [
        made.get(words) or {"role": "user", "content": [{"type": "input_text", "text": words}]}
        for words in says
    ]


def requests(turns: List[Any]) -> Iterator[Tuple[List[Json], bool]]:
    """The history of each request of a session, and whether it repeats the one before."""
    items: List[Json] = [{"role": "developer", "content": "rules"}, {"role": "user", "content": "go"}]
    number = 0
    for says, pieces, broken, same_ids in turns:
        items = items + user_items(says)
        while True:
            yield items, False
            number += 1
            answer, complete = answered(items, number, pieces, broken, same_ids)
            results = [result(item) for item in answer if "call_id" in item]
            if not complete:
                broken, pieces = False, pieces[::-1] or [("text", "again")]
                items = items + answer + results  # Codex keeps what was finished, and asks again
                yield items, not results
                continue
            items = items + answer + results
            if not results:
                break
            pieces = [("text", "done")]


@settings(max_examples=examples(60))
@given(turns=TURNS, name=st.sampled_from(sorted(PROFILES)))
def test_a_session_only_ever_appends(turns: List[Any], name: str) -> None:
    profile, before = PROFILES[name], None
    for items, repeated in requests(turns):
        after = chat({"tools": TOOLS, "instructions": "Be brief."}, items, profile)
        if before is not None:
            check_continuation(before, after, profile)
            assert not repeated or after == before
        before = after


# ---- recorded sessions of Codex
def recorded(path: Path) -> Iterator[Tuple[Json, List[Json]]]:
    """(request, its whole history); a WebSocket continues by previous_response_id."""
    histories: Dict[str, List[Json]] = {}
    items: List[Json] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "request" in entry:
            request = entry["request"]
            items = histories.get(request.get("previous_response_id", ""), []) + input_items(request)
            items = [_readable(item) for item in items]
            if request.get("generate", True):
                yield request, items
        else:
            histories[entry["response"]["id"]] = items + entry["response"]["output"]


def _readable(item: Json) -> Json:
    """A summary that the recorded server made, as one of ours: another's is refused."""
    if item.get("type") != "compaction" or unseal(item.get("encrypted_content")) is not None:
        return item
    return {**item, "encrypted_content": seal("compaction", {"text": "what was said"})}


def parent(items: List[Json], earlier: List[Tuple[List[Json], Json]]) -> Optional[Json]:
    """The chat request of the latest turn that this one continues."""
    return next(
        (
            body
            for before, body in reversed(earlier)
            if items[: len(before)] == before and len(items) > len(before)
        ),
        None,
    )


@pytest.mark.parametrize("path", CODEX, ids=[path.stem for path in CODEX])
def test_codex_sessions_only_ever_append(path: Path) -> None:
    requests = list(recorded(path))
    for name in ("deepseek", "generic", "vllm", "mistral", "openai"):
        profile = PROFILES[name]
        earlier: List[Tuple[List[Json], Json]] = []
        for request, items in requests:
            if items[-1]["type"] == "compaction_trigger":
                continue  # asks for a summary of its own accord, see rproxy.convert.events.compaction
            body = chat(request, items, profile)
            before = parent(items, earlier)
            if before is not None:
                check_continuation(before, body, profile)
            earlier.append((items, body))


def test_the_recordings_have_continuations() -> None:
    """Or else the test above would test nothing."""
    found = 0
    for path in CODEX:
        earlier: List[Tuple[List[Json], Json]] = []
        for _, items in recorded(path):
            found += parent(items, earlier) is not None
            earlier.append((items, {}))
    assert found >= 35


def tools_of(name: str) -> List[List[str]]:
    (path,) = (path for path in CODEX if path.stem.startswith(name))
    bodies = [chat(request, items, PROFILES["deepseek"]) for request, items in recorded(path)]
    return [[tool["function"]["name"] for tool in body.get("tools", [])] for body in bodies]


def test_codex_keeps_its_tools() -> None:
    assert all(
        "apply_patch" in tools and "tool_search" in tools for tools in tools_of("30_tool_exec_command")
    )
    assert all(
        {"exec", "wait", "collaboration__spawn_agent"} <= set(tools)
        for tools in tools_of("92_codemode_exec_ws")
    )
    first, second, *_ = tools_of("35_tool_search")
    assert len(second) > len(first) and second[: len(first)] == first
