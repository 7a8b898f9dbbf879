"""Tool lists that come again: what was made of them is used again, and nobody can change it."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, List

import pytest
from anything import json_values
from hypothesis import given
from hypothesis import strategies as st
from running_server import running_server

from rproxy.convert.events.response import response_object
from rproxy.convert.profile import SCHEMA_REPAIRS, Profile
from rproxy.convert.request.chat import to_chat_request
from rproxy.convert.tools import tool_lists
from rproxy.convert.tools.table import ToolTable
from rproxy.convert.tools.tool_lists import ToolList, ToolLists
from rproxy.errors import ApiError
from rproxy.json_codec import encode_json
from rproxy.service.plan import is_short
from rproxy.types import Json


def function(name: str, **keys: Any) -> Json:
    return {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}, **keys}


TOOLS = [
    function("look", strict=True),
    {"type": "namespace", "name": "space", "tools": [function("look"), function("walk")]},
    {"type": "custom", "name": "patch"},
    {"type": "web_search"},
]
LATER = [{"type": "additional_tools", "tools": [function("later"), "no tool", function("look")]}]
MESSAGE = {"type": "message", "role": "user", "content": "Hi"}
PROFILES = [Profile(), Profile(strict_tools="omit"), Profile(schema=tuple(SCHEMA_REPAIRS))]


def converted(tools: Any, items: List[Json], profile: Profile, choice: Any) -> Any:
    request = {"model": "m", "tools": tools, "tool_choice": choice}
    try:
        done = to_chat_request(request, items, profile, downstream_model="m")
    except ApiError as error:
        return error.body()
    offers = {
        name: done.tools.offer(name) for name in ("look", "space__look", "walk", "patch", "later", "other")
    }
    return encode_json(done.chat_request(True)), done.warnings, offers


ANYTHING = json_values([None, True, 1, 1.5, "function", "look"], ["type", "name", "parameters", "properties"])
CHOICES = st.sampled_from(
    [
        "auto",
        "required",
        {"type": "function", "name": "walk"},
        {"type": "function", "name": "unknown"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]},
    ]
)


@given(
    st.lists(st.sampled_from(TOOLS) | ANYTHING.filter(lambda value: isinstance(value, dict)), max_size=5),
    st.lists(st.tuples(st.sampled_from(PROFILES), CHOICES, st.booleans()), min_size=1, max_size=6),
)
def test_a_list_that_comes_again_is_converted_as_at_first(tools: List[Json], turns: Any) -> None:
    """Whatever came in between, with any profile, tool_choice and history."""
    lists, before = ToolLists(), copy.deepcopy(tools)
    for profile, choice, more in turns:
        items = [*LATER, MESSAGE] if more else [MESSAGE]
        given_list = lists.of(copy.deepcopy(tools))
        assert converted(given_list, items, profile, choice) == converted(tools, items, profile, choice)
        assert given_list == tools == before
        if all(isinstance(tool.get("type"), str) for tool in tools):
            echoed = response_object({"model": "m", "tools": given_list}, id="resp_1", created_at=1)
            plain = response_object({"model": "m", "tools": tools}, id="resp_1", created_at=1)
            assert encode_json(echoed) == encode_json(plain)


def test_what_is_no_tool_is_left_out() -> None:
    """Requests are checked for that; users of the library need not do so."""
    odd: List[Any] = ["no tool", function("look")]
    assert converted(odd, [MESSAGE], Profile(), "auto") == converted(odd[1:], [MESSAGE], Profile(), "auto")


def test_an_equal_list_is_the_same() -> None:
    lists = ToolLists()
    first = lists.of(copy.deepcopy(TOOLS))
    assert lists.of(copy.deepcopy(TOOLS)) is first and isinstance(first, ToolList)
    # What Python calls equal need not be the same JSON.
    for values in ((True, 1, 1.0), (0.0, -0.0), ("1", 1)):
        made = [lists.of([{"type": "function", "name": "n", "x": value}]) for value in values]
        assert len(set(map(id, made))) == len(values)


def test_what_is_made_of_a_list_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lists, made = ToolLists(), []
    build = ToolTable._of_request
    monkeypatch.setattr(ToolTable, "_of_request", lambda *args: made.append(args) or build(*args))
    for _ in range(3):
        for profile in PROFILES:
            converted(lists.of(copy.deepcopy(TOOLS)), [MESSAGE], profile, "auto")
    assert len(made) == len(PROFILES)


def test_what_is_remembered_is_bounded() -> None:
    lists = ToolLists()
    tools = [function("look", description="x" * 10_000)]
    first = lists.of(copy.deepcopy(tools))
    for number in range(tool_lists.MAX_BYTES // 10_000):
        lists.of([function(f"look{number}", description="x" * 10_000)])
    assert lists.of(copy.deepcopy(tools)) is not first
    assert lists._size <= tool_lists.MAX_BYTES and lists._size == sum(map(len, lists._lists))
    found = lists.of([])
    assert isinstance(found, ToolList)
    for number in range(100):
        assert found.made(number, lambda: number) == number  # noqa: B023 - called at once
    assert len(found._made) == tool_lists.MAX_FORMS


@pytest.mark.parametrize(
    "tools", [[function("n", x="x" * tool_lists.MAX_LIST_BYTES)], [{"type": "function"}]]
)
def test_what_is_too_large_or_too_deep_is_not_remembered(tools: List[Json]) -> None:
    inner = tools[0]
    for _ in range(3000 if len(tools[0]) == 1 else 0):
        inner["a"] = {}
        inner = inner["a"]
    assert ToolLists().of(tools) is tools


@pytest.mark.parametrize("key", ["authorization", "headers"])
def test_credentials_are_not_remembered(key: str) -> None:
    tools = [*TOOLS, {"type": "mcp", "server_label": "s", key: "secret"}]
    assert ToolLists().of(tools) is tools


async def test_turns_with_the_same_tools_send_the_same() -> None:
    """Also when a turn chooses among them, and when its history brings more."""
    chosen = {"tool_choice": {"type": "function", "name": "look"}}
    bodies: List[Json] = [{}, chosen, {"input": [*LATER, {**MESSAGE, "content": "hello"}]}, {}]
    async with running_server() as e:
        for body in bodies:
            await e.fetch("/responses", {"model": "m", "input": "hello", "tools": TOOLS, **body})
        names = [[tool["function"]["name"] for tool in sent["tools"]] for sent in e.provider.requests]
    assert names[0] == names[1] == names[3] == ["look", "space__look", "space__walk", "patch"]
    assert names[2] == [*names[0], "later"]


def test_large_tools_are_not_converted_at_once() -> None:
    """Nor are those that are remembered, whose list is of a class of its own."""
    function = {"type": "function", "name": "f", "parameters": {f"p{n}": {} for n in range(4000)}}
    for count, short in ((0, True), (1, False)):
        tools = ToolLists().of([function] * count)
        request: Any = SimpleNamespace(body={"tools": tools}, context=SimpleNamespace(size=0))
        client: Any = SimpleNamespace(size=1 << 17)
        assert is_short(request, client, []) is short


def test_neither_are_large_instructions_nor_the_tools_of_items() -> None:
    function = {"type": "function", "name": "f", "parameters": {f"p{n}": {} for n in range(4000)}}
    client: Any = SimpleNamespace(size=1 << 20)
    for short, body, items in (
        (True, {}, [{"type": "additional_tools", "tools": []}]),
        (False, {}, [{"type": "additional_tools", "tools": [function]}]),
        (True, {"instructions": "x" * 1000}, []),
        (False, {"instructions": [{"role": "user", "content": [{"text": "x"}] * 100_000}]}, []),
    ):
        request: Any = SimpleNamespace(body=body, context=SimpleNamespace(size=0))
        assert is_short(request, client, items) is short
