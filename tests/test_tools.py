"""Tools of every kind, both ways: what the model is offered, and what its calls become."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterable, List, Optional, Tuple

import pytest
from histories import JSON, PROFILES
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import examples

from rproxy.convert.profile import Profile
from rproxy.convert.tools.custom import InputReader, unwrap
from rproxy.convert.tools.function import IntegralReader
from rproxy.convert.tools.kind import LONG, ArgumentsReader, ToolKind, flatten, hashed, is_object, plain
from rproxy.convert.tools.kinds import CALL_KINDS, OUTPUT_KINDS, TOOL_KINDS
from rproxy.convert.tools.table import ToolTable
from rproxy.errors import ApiError

Json = Dict[str, Any]
OBJECT: Json = {"type": "object", "properties": {}}
PATCH: Json = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: patch"},
}
WRAPPED: Json = {
    "type": "object",
    "additionalProperties": False,
    "required": ["input"],
    "properties": {
        "input": {"type": "string", "description": "The raw text of the input, without Markdown fences."}
    },
}
SEARCH: Json = {
    "type": "tool_search",
    "execution": "client",
    "description": "Find tools.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
}


def function(name: str, **more: Any) -> Json:
    return {"type": "function", "name": name, "description": "", "parameters": {}, **more}


def space(name: str, *tools: Json, **more: Any) -> Json:
    return {"type": "namespace", "name": name, "tools": list(tools), **more}


def table(
    *tools: Any,
    items: Iterable[Json] = (),
    allow: Optional[List[str]] = None,
    choice: Any = None,
    profile: Profile = Profile(),
) -> ToolTable:
    return ToolTable.build({"tools": list(tools), "tool_choice": choice}, items, profile, allow)


def offered(name: str, description: str = "", parameters: Json = OBJECT, **more: Any) -> Json:
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters, **more},
    }


def names(tools: ToolTable) -> List[str]:
    return [
        tool["function"]["name"] if tool["type"] == "function" else tool["type"] for tool in tools.chat_tools
    ]


# ---- request: what is offered
OFFERS: Dict[str, Tuple[Json, List[Json]]] = {
    "a function": (
        {
            "type": "function",
            "name": "ls",
            "description": "List",
            "strict": True,
            "defer_loading": True,
            "parameters": OBJECT,
        },
        [offered("ls", "List", strict=True)],
    ),
    "a function without anything": ({"type": "function", "name": "ls"}, [offered("ls")]),
    "a function with nulls": (
        {"type": "function", "name": "ls", "description": None, "parameters": None, "strict": None},
        [offered("ls")],
    ),
    "a freeform tool with a grammar": (
        PATCH,
        [
            offered(
                "apply_patch", "Edit files.\n\nThe input must match this lark grammar:\nstart: patch", WRAPPED
            )
        ],
    ),
    "a freeform tool with a grammar of its own words": (
        {"type": "custom", "name": "f", "format": {"type": "grammar", "definition": "x"}},
        [offered("f", "The input must match this lark grammar:\nx", WRAPPED)],
    ),
    "a freeform tool for any text": (
        {"type": "custom", "name": "f", "format": {"type": "text"}},
        [offered("f", "", WRAPPED)],
    ),
    "a namespace": (
        space("mcp__demo", function("add", description="Add."), PATCH, description="Demo."),
        [
            offered("mcp__demo__add", "Demo.\n\nAdd."),
            offered(
                "mcp__demo__apply_patch",
                "Demo.\n\nEdit files.\n\nThe input must match this lark grammar:\nstart: patch",
                WRAPPED,
            ),
        ],
    ),
    "the namespace of no namespace": (
        space("functions", function("wait"), PATCH),
        [
            offered("wait"),
            offered(
                "apply_patch", "Edit files.\n\nThe input must match this lark grammar:\nstart: patch", WRAPPED
            ),
        ],
    ),
    "a namespace without a name": ({"type": "namespace", "tools": [function("wait")]}, [offered("wait")]),
    "the search for tools": (SEARCH, [offered("tool_search", "Find tools.", SEARCH["parameters"])]),
    "a name that is not legal": (function("mcp.add"), [offered("mcp_add_a4181044")]),
}


@pytest.mark.parametrize("title", OFFERS)
def test_tools_are_offered_as_functions(title: str) -> None:
    tool, chat_tools = OFFERS[title]
    tools = table(tool)
    assert tools.chat_tools == chat_tools
    assert tools.warnings == []


@pytest.mark.parametrize(
    "kind, name", [("local_shell", "local_shell"), ("shell", "shell"), ("apply_patch", "apply_patch")]
)
def test_older_kinds_are_offered_to_those_who_allow_them(kind: str, name: str) -> None:
    assert names(table({"type": kind}, allow=[kind])) == [name]
    assert table({"type": kind}).warnings == [f"tool {kind} dropped (not in tool_type_allowlist)"]


DROPPED: Dict[str, Tuple[Any, str]] = {
    "a hosted tool": ({"type": "web_search"}, "tool web_search dropped (not in tool_type_allowlist)"),
    "a search that the service would run": (
        {"type": "tool_search", "execution": "server"},
        "tool tool_search without a usable name dropped",
    ),
    "a hosted tool in a namespace": (
        space("n", {"type": "web_search"}),
        "tool web_search in a namespace dropped (not in tool_type_allowlist)",
    ),
    "a namespace in a namespace": (
        space("n", space("m", function("f"))),
        "tool namespace in a namespace dropped (not in tool_type_allowlist)",
    ),
    "a tool of no type in a namespace": (
        space("n", {"type": ["function"]}),
        "tool ['function'] in a namespace dropped (not in tool_type_allowlist)",
    ),
}


def test_tools_in_the_form_of_chat_and_without_a_type_are_functions() -> None:
    flat = {"name": "ls", "description": "d", "parameters": {"type": "object", "properties": {"p": {}}}}
    expected = table({"type": "function", **flat}).chat_tools
    for tool in ({"type": "function", "function": flat}, {"function": flat}, flat):
        assert table(tool).chat_tools == expected
    assert (
        table(space("n", {"type": "function", "function": flat})).chat_tools[0]["function"]["name"] == "n__ls"
    )
    forced = {"type": "function", "function": {"name": "ls"}}
    build = ToolTable.build({"tools": [flat], "tool_choice": forced}, [], Profile())
    assert build.chat_tool_choice == forced


@pytest.mark.parametrize(
    "tools, param",
    [
        ([{"type": "function"}], "tools[0].name"),
        ([function("f"), {"type": "function", "name": ["ls"]}], "tools[1].name"),
        ([{"type": "function", "function": {"description": "d"}}], "tools[0].name"),
        ([{}], "tools[0].name"),
        ([{"type": "custom"}], "tools[0].name"),
        ([space("n", function("f"), {"type": "function"})], "tools[0].tools[1].name"),
    ],
)
def test_a_tool_without_a_name_is_refused_by_its_place(tools: List[Any], param: str) -> None:
    with pytest.raises(ApiError, match=re.escape(param)) as caught:
        ToolTable.build({"tools": tools}, [], Profile())
    assert (caught.value.status, caught.value.param) == (400, param)
    added = ToolTable.build({}, [{"type": "additional_tools", "tools": tools}], Profile())
    assert all(tool["function"]["name"] in ("f", "n__f") for tool in added.chat_tools)


def test_a_nameless_tool_of_a_kind_that_is_not_allowed_is_only_dropped() -> None:
    tools = ToolTable.build({"tools": [{"type": "custom"}]}, [], Profile(), ["function"])
    assert tools.warnings == ["tool custom dropped (not in tool_type_allowlist)"]


def test_calls_of_encrypted_parameters_say_that_nothing_is_encrypted() -> None:
    secret = {"type": "object", "properties": {"message": {"type": "string", "encrypted": True}}}
    tools = table({"type": "function", "name": "send", "parameters": secret}, function("f"))
    assert tools.offer("send").item("fc_1", "c1")["encrypted_function_args"] == []
    assert "encrypted_function_args" not in tools.offer("f").item("fc_1", "c1")


@pytest.mark.parametrize("title", DROPPED)
def test_what_is_dropped_is_a_warning(title: str) -> None:
    tool, warning = DROPPED[title]
    tools = table(tool)
    assert (tools.chat_tools, tools.warnings) == ([], [warning])


@pytest.mark.parametrize(
    "tools",
    [
        5,
        "x",
        [5],
        [{"type": "namespace", "name": "n", "tools": 5}],
        [{"type": "namespace", "name": "n", "tools": [5]}],
    ],
)
def test_lists_of_tools_that_are_none_offer_nothing(tools: Any) -> None:
    assert ToolTable.build({}, [{"type": "additional_tools", "tools": tools}], Profile()).chat_tools == []


def test_an_explicit_allowlist_is_obeyed_to_the_letter() -> None:
    every = [
        function("f"),
        PATCH,
        space("n", function("g"), {**PATCH, "name": "h"}),
        SEARCH,
        {"type": "web_search", "k": 1},
    ]
    assert names(table(*every)) == ["f", "apply_patch", "n__g", "n__h", "tool_search"]
    assert names(table(*every, allow=["function"])) == ["f"]
    assert names(table(*every, allow=["namespace", "custom"])) == ["apply_patch", "n__h"]
    assert names(table(*every, allow=[])) == []
    hosted = table(*every, {"type": "web_search", "k": 1}, allow=["web_search"])
    assert hosted.chat_tools == [{"type": "web_search", "k": 1}]  # as it is, and once


def test_tools_come_from_all_over_the_history_in_the_order_of_appearance() -> None:
    items: List[Json] = [
        {"type": "additional_tools", "tools": [space("functions", function("exec"))]},
        {"type": "message"},
        {"type": "tool_search_output", "tools": [space("mcp__x", function("add")), function("f")]},
        {"type": "additional_tools", "tools": [function("exec"), function("late")]},
    ]
    assert names(table(function("f"), items=items)) == ["f", "exec", "mcp__x__add", "late"]
    assert names(table(function("f"), items=items[:2])) == ["f", "exec"]


def test_profiles_mend_schemas_and_drop_strict() -> None:
    tool = function("f", strict=True, parameters={"$schema": "s", "type": "object", "properties": {"a": {}}})
    assert table(tool).chat_tools[0]["function"]["strict"] is True
    assert table(tool, profile=PROFILES["moonshot"]).chat_tools == [
        offered("f", parameters={"type": "object", "properties": {"a": {"type": "string"}}})
    ]


# ---- names
def test_names_are_flattened_into_legal_ones() -> None:
    odd: List[Any] = [None, "", "functions", 5, []]
    assert [plain(value) for value in odd] == [None] * 5
    assert plain("n") == "n"
    assert flatten(None, "ls") == "ls"
    assert flatten("n", "ls") == "n__ls"
    assert flatten(None, "a" * 64) == "a" * 64
    for name in (
        flatten(None, "a" * 65),
        flatten("n" * 60, "name"),
        flatten(None, "zeige.übersicht"),
        flatten(None, ""),
        flatten(None, "\ud800"),
    ):
        assert re.fullmatch("[A-Za-z0-9_-]{9,64}", name)
    assert len({hashed(full) for full in ("a.b", "a_b", "a b")}) == 3


def test_two_tools_that_flatten_to_one_name_get_two() -> None:
    tools = table(space("a__b", function("c")), space("a", function("b__c")))
    first, second = names(tools)
    assert first == "a__b__c" != second
    assert [(tools.offer(name).namespace, tools.offer(name).name) for name in (first, second)] == [
        ("a__b", "c"),
        ("a", "b__c"),
    ]
    assert tools.chat_name(TOOL_KINDS["function"], {"namespace": "a", "name": "b__c"}) == second


CALLED = [
    function("ls"),
    space("mcp__demo", function("add"), function("sub")),
    space("other", function("sub")),
    space("functions", function("wait")),
]


@pytest.mark.parametrize(
    "said, name, namespace",
    [
        ("ls", "ls", None),
        ("mcp__demo__add", "add", "mcp__demo"),
        ("mcp__demo.add", "add", "mcp__demo"),
        ("add", "add", "mcp__demo"),
        ("x.add", "add", "mcp__demo"),
        ("functions.wait", "wait", None),
        ("sub", "sub", None),  # could be two: the client may say what it is not
        ("rm", "rm", None),
        ("", "", None),
    ],
)
def test_a_name_that_can_mean_only_one_tool_means_that(
    said: str, name: str, namespace: Optional[str]
) -> None:
    item = table(*CALLED).offer(said).item("fc_1", "c1")
    assert item == {
        "id": "fc_1",
        "type": "function_call",
        "status": "in_progress",
        "call_id": "c1",
        "name": name,
        "arguments": "",
        **({"namespace": namespace} if namespace else {}),
    }


@pytest.mark.parametrize(
    "item, name",
    [
        ({"name": "ls"}, "ls"),
        ({"name": "add", "namespace": "mcp__demo"}, "mcp__demo__add"),
        ({"name": "wait", "namespace": "functions"}, "wait"),
        ({"name": "wait"}, "wait"),
        ({"name": "ls", "namespace": "gone"}, "gone__ls"),  # and not the ls of today
        ({"name": "old", "namespace": None}, "old"),
        ({"name": "ls", "namespace": ["x"]}, "ls"),
    ],
)
def test_an_earlier_call_stands_under_the_name_it_had(item: Json, name: str) -> None:
    assert table(*CALLED).chat_name(TOOL_KINDS["function"], item) == name


# ---- tool_choice
def named(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


CHOICES: Dict[str, Tuple[Any, Any]] = {
    "auto": ("auto", None),
    "nothing": (None, None),
    "none": ("none", "none"),
    "required": ("required", "required"),
    "a function": ({"type": "function", "name": "ls"}, named("ls")),
    "a freeform tool": ({"type": "custom", "name": "apply_patch"}, named("apply_patch")),
    "a tool in a namespace": ({"type": "function", "name": "sub", "namespace": "other"}, named("other__sub")),
    "a tool in a namespace that is not named": ({"type": "function", "name": "add"}, named("mcp__demo__add")),
    "the search for tools": ({"type": "tool_search"}, named("tool_search")),
    "a namespace of one": ({"type": "namespace", "name": "other"}, named("other__sub")),
    "a namespace of several": ({"type": "namespace", "name": "mcp__demo"}, None),
    "a namespace that is no name": ({"type": "function", "name": "ls", "namespace": ["x"]}, named("ls")),
    "a hosted tool": ({"type": "web_search"}, None),
    "an empty object": ({}, None),
}
IGNORED = {
    "a hosted tool": ["tool_choice web_search ignored"],
    "an empty object": ["an empty tool_choice ignored"],
}


@pytest.mark.parametrize("title", CHOICES)
def test_tool_choice(title: str) -> None:
    choice, chat_choice = CHOICES[title]
    tools = table(*CALLED, PATCH, SEARCH, choice=choice)
    assert tools.chat_tool_choice == chat_choice
    assert tools.warnings == IGNORED.get(title, [])
    assert len(tools.chat_tools) == 7


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "rm"},
        {"type": "function"},
        {"type": "function", "name": 5},
        {"type": "function", "name": "sub"},
        {"type": "namespace", "name": "gone"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "rm"}]},
    ],
)
def test_a_choice_of_a_tool_that_is_not_there_is_a_400(choice: Json) -> None:
    with pytest.raises(ApiError, match="which is not among the request's tools") as caught:
        table(*CALLED, choice=choice)
    assert (caught.value.status, caught.value.param) == (400, "tool_choice")


@pytest.mark.parametrize(
    "choice, left, chat_choice",
    [
        (
            {"mode": "required", "tools": [{"type": "function", "name": "ls"}, {"type": "web_search"}]},
            ["ls", "web_search"],
            "required",
        ),
        (
            {"tools": [{"type": "namespace", "name": "mcp__demo"}, "nonsense"]},
            ["mcp__demo__add", "mcp__demo__sub"],
            None,
        ),
        ({"mode": "auto", "tools": [{"type": "custom", "name": "apply_patch"}]}, ["apply_patch"], None),
        ({"mode": "none", "tools": [{"type": "function", "name": "ls"}]}, ["ls"], "none"),
        ({"mode": "required", "tools": []}, [], None),
        ({"mode": "auto", "tools": 5}, [], None),
    ],
)
def test_allowed_tools_are_all_that_is_offered(choice: Json, left: List[str], chat_choice: Any) -> None:
    tools = table(
        *CALLED,
        PATCH,
        {"type": "web_search"},
        {"type": "file_search"},
        choice={"type": "allowed_tools", **choice},
        allow=["function", "custom", "namespace", "web_search", "file_search"],
    )
    assert (names(tools), tools.chat_tool_choice) == (left, chat_choice)


@pytest.mark.parametrize(
    "choice, warnings",
    [("required", ["tool_choice required ignored: no tool is left"]), ("none", []), ("auto", [])],
)
def test_there_is_no_choice_without_tools(choice: str, warnings: List[str]) -> None:
    tools = table(choice=choice)
    assert (tools.chat_tool_choice, tools.warnings) == (None, warnings)


# ---- answer: calls become items
def completed(tool: Json, said: str, arguments: str) -> Json:
    """The finished item of a call, after a look at the announced one."""
    offer = table(tool, allow=[tool["type"], "function", "custom"]).offer(said)
    item, reader = offer.item("id_1", "c1"), offer.reader()
    assert item["status"] == "in_progress" and not item.get(offer.kind.text_field)
    assert (offer.kind.delta_type is None) == (offer.kind.done_type is None)
    reader.feed(arguments)
    done = offer.finish(item, reader.close()[1])
    assert done.pop("status") == "completed"
    assert (done.pop("id"), done.pop("call_id")) == ("id_1", "c1")
    assert done.pop("type") == offer.kind.call_type
    return done


ANSWERS: Dict[str, Tuple[Json, str, str, Json]] = {
    "function": (function("ls"), "ls", '{"p":1.0}', {"name": "ls", "arguments": '{"p":1.0}'}),
    "function with numbers": (
        function("ls", parameters={"properties": {"p": {"type": "number"}}}),
        "ls",
        '{"p":1.0}',
        {"name": "ls", "arguments": '{"p":1}'},
    ),
    "function in a namespace": (
        space("n", function("ls")),
        "n__ls",
        "{}",
        {"name": "ls", "namespace": "n", "arguments": "{}"},
    ),
    "custom": (PATCH, "apply_patch", '{"input": "a\\nb"}', {"name": "apply_patch", "input": "a\nb"}),
    "custom in a namespace": (
        space("n", PATCH),
        "n__apply_patch",
        '{"input": "a"}',
        {"name": "apply_patch", "namespace": "n", "input": "a"},
    ),
    "tool_search": (
        SEARCH,
        "tool_search",
        '{"query": "x"}',
        {"execution": "client", "arguments": {"query": "x"}},
    ),
    "tool_search without an object": (SEARCH, "tool_search", "[", {"execution": "client", "arguments": {}}),
    "tool_search with a list": (SEARCH, "tool_search", "[1]", {"execution": "client", "arguments": {}}),
    "local_shell": (
        {"type": "local_shell"},
        "local_shell",
        '{"command": ["ls"]}',
        {"action": {"type": "exec", "command": ["ls"], "env": {}}},
    ),
    "shell": (
        {"type": "shell"},
        "shell",
        '{"commands": ["ls"]}',
        {"action": {"commands": ["ls"], "timeout_ms": None, "max_output_length": None}},
    ),
    "apply_patch": (
        {"type": "apply_patch"},
        "apply_patch",
        '{"type": "delete_file", "path": "a"}',
        {"operation": {"type": "delete_file", "path": "a"}},
    ),
    "brackets beyond recursion": (
        SEARCH,
        "tool_search",
        "[" * 100_000,
        {"execution": "client", "arguments": {}},
    ),
}


@pytest.mark.parametrize("title", ANSWERS)
def test_calls_come_back_in_their_own_kind(title: str) -> None:
    tool, said, arguments, item = ANSWERS[title]
    assert completed(tool, said, arguments) == item


def test_a_kind_says_what_it_is_like() -> None:
    offer = table(PATCH).offer("apply_patch")
    assert (offer.kind.prefix, offer.kind.text_field, offer.kind.delta_type, offer.kind.done_type) == (
        "ctc",
        "input",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
    )
    with pytest.raises(NotImplementedError):
        ToolKind().function({})
    assert len({kind.prefix for kind in CALL_KINDS.values()}) == len(CALL_KINDS) == len(OUTPUT_KINDS)


# ---- history: items become calls again
HISTORY: List[Tuple[str, Json, str]] = [
    ("function_call", {"arguments": ' {"a":1}'}, ' {"a":1}'),
    ("function_call", {"arguments": {"a": "ü"}}, '{"a": "ü"}'),
    ("function_call", {"arguments": None}, "{}"),
    ("custom_tool_call", {"input": 'say "hä"\n'}, '{"input": "say \\"hä\\"\\n"}'),
    ("custom_tool_call", {}, '{"input": ""}'),
    ("tool_search_call", {"arguments": {"query": "x"}}, '{"query": "x"}'),
    (
        "local_shell_call",
        {"action": {"type": "exec", "command": ["ls"], "env": {}}},
        '{"command": ["ls"], "env": {}}',
    ),
    ("local_shell_call", {"action": 5}, "{}"),
    ("shell_call", {"action": {"commands": ["ls"], "timeout_ms": None}}, '{"commands": ["ls"]}'),
    ("shell_call", {}, "{}"),
    (
        "apply_patch_call",
        {"operation": {"type": "delete_file", "path": "a"}},
        '{"type": "delete_file", "path": "a"}',
    ),
    ("apply_patch_call", {}, "{}"),
]


@pytest.mark.parametrize("kind, item, arguments", HISTORY)
def test_earlier_calls_are_written_as_the_model_made_them(kind: str, item: Json, arguments: str) -> None:
    assert CALL_KINDS[kind].call_arguments(item) == arguments


FOUND: List[Any] = [
    {"type": "namespace", "name": "mcp__x", "tools": [function("add"), {"name": 5}, "nonsense"]},
    function("f"),
    "nonsense",
    {"type": "function"},
]


@pytest.mark.parametrize(
    "kind, item, output",
    [
        ("function_call_output", {"output": "x"}, "x"),
        (
            "function_call_output",
            {"output": [{"type": "input_text", "text": "x"}]},
            [{"type": "input_text", "text": "x"}],
        ),
        ("tool_search_output", {"tools": FOUND}, '{"tools": ["mcp__x__add", "f"]}'),
        ("tool_search_output", {"tools": 5}, '{"tools": []}'),
        ("shell_call_output", {"output": "x"}, "x"),
        ("shell_call_output", {"output": [{"stdout": "ä"}]}, '[{"stdout": "ä"}]'),
        ("apply_patch_call_output", {"status": "failed", "output": "no such file"}, "failed\nno such file"),
        ("apply_patch_call_output", {}, "completed\n"),
    ],
)
def test_earlier_results_are_text_for_the_model(kind: str, item: Json, output: Any) -> None:
    assert OUTPUT_KINDS[kind].output(item) == output


def test_what_was_found_is_named_as_it_can_be_called() -> None:
    item = {"type": "tool_search_output", "tools": FOUND}
    assert json.loads(OUTPUT_KINDS["tool_search_output"].output(item))["tools"] == names(table(items=[item]))


def test_kinds_with_fixed_names_have_them_in_the_history() -> None:
    fixed = {kind.call_type: kind.call_name({"name": "other"}) for kind in CALL_KINDS.values()}
    assert fixed == {
        "function_call": "other",
        "custom_tool_call": "other",
        "tool_search_call": "tool_search",
        "local_shell_call": "local_shell",
        "shell_call": "shell",
        "apply_patch_call": "apply_patch",
    }
    assert TOOL_KINDS["function"].call_name({"name": 5}) == ""


@given(text=st.text(), ascii=st.booleans())
def test_a_freeform_call_makes_the_round_trip_byte_for_byte(text: str, ascii: bool) -> None:
    """What a model writes in the usual style comes back to it in the very same bytes: the provider's prompt
    cache depends on it.
    """
    item = completed(PATCH, "apply_patch", json.dumps({"input": text}, ensure_ascii=ascii))
    assert item["input"] == text
    assert CALL_KINDS["custom_tool_call"].call_arguments(item) == json.dumps(
        {"input": text}, ensure_ascii=False
    )


# ---- readers
def read(reader: ArgumentsReader, pieces: Iterable[str]) -> Tuple[str, str, str]:
    """(what was streamed, the rest, the whole)"""
    streamed = "".join([reader.feed(piece) for piece in pieces])
    return (streamed, *reader.close())


INPUTS: Dict[str, Tuple[str, str]] = {
    "the usual form": ('{"input": "a\\nb"}', "a\nb"),
    "spaced out": (' {\n "input" :\t"a" } ', "a"),
    "empty": ('{"input": ""}', ""),
    "every escape": ('{"input": "\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\x"}', '"\\/\b\f\n\r\tä\\x'),
    "a pair of surrogates": ('{"input": "\\ud83d\\ude80!"}', "🚀!"),
    "a lone first half": ('{"input": "\\ud83d!"}', "\ufffd!"),
    "a lone second half": ('{"input": "\\ude80!"}', "\ufffd!"),
    "two first halves": ('{"input": "\\ud83d\\ud83d\\ude80"}', "\ufffd🚀"),
    "a first half before another escape": ('{"input": "\\ud83d\\n"}', "\ufffd\n"),
    "a first half before the end": ('{"input": "\\ud83d"}', "\ufffd"),
    "a broken escape": ('{"input": "\\u-123 \\uzzzz"}', "\ufffd \ufffd"),
    "raw line breaks": ('{"input": "a\nb"}', "a\nb"),
    "more keys after it": ('{"input": "a", "why": "b"}', "a"),
    "cut in the middle": ('{"input": "a\\', "a"),
    "cut before the value": ('{"input": ', '{"input": '),
    "nothing": ("", ""),
    "no key": ("{}", ""),
    "another key": ('{"patch": "a"}', "a"),
    "another known key beside a strange one": ('{"why": "b", "code": "a"}', "a"),
    "the right key behind another": ('{"why": "b", "input": "a"}', "a"),
    "one strange key": ('{"script": "a"}', "a"),
    "two strange keys": ('{"script": "a", "why": "b"}', '{"script": "a", "why": "b"}'),
    "no string": ('{"input": {"a": 1}}', '{"input": {"a": 1}}'),
    "one key without a string": ('{"input": 5}', '{"input": 5}'),
    "a bare JSON string": ('"a\\nb"', "a\nb"),
    "raw text": ("*** Begin Patch\n", "*** Begin Patch\n"),
    "a number": ("12", "12"),
    "a list": ('["a"]', '["a"]'),
    "raw text that begins like the usual form": ('{"input": x', '{"input": x'),
    "a key with a gap": ('{"in put": "a"}', "a"),
    "a fence": ('{"input": "```diff\\na\\nb\\n```"}', "a\nb\n"),
    "a fence with space around": ('{"input": " \\n\\t```\\na\\n```\\n "}', "a\n"),
    "a fence around everything": ('```json\n{"input": "a"}\n```', '{"input": "a"}\n'),
    "a fence in raw text": ("```\na\n```", "a\n"),
    "a fence that never closes": ('{"input": "```\\na"}', "```\na"),
    "two ticks": ('{"input": "``a"}', "``a"),
    "ticks later": ('{"input": "a ```"}', "a ```"),
    "an escape that is no white space": ('{"input": "\\\\n```"}', "\\n```"),
    "only ticks": ('{"input": "``"}', "``"),
}


def test_a_pair_of_surrogates_is_said_with_its_last_digit() -> None:
    assert InputReader().feed('{"input": "a\\ud83c\\udf89') == "a\U0001f389"


@pytest.mark.parametrize("title", INPUTS)
def test_the_input_of_a_freeform_tool_is_unwrapped_however_it_comes(title: str) -> None:
    raw, text = INPUTS[title]
    for size in range(1, len(raw) + 2):
        streamed, rest, whole = read(InputReader(), [raw[i : i + size] for i in range(0, len(raw), size)])
        assert streamed + rest == whole == text, size


def test_the_input_of_a_freeform_tool_streams() -> None:
    reader = InputReader()
    assert [reader.feed(piece) for piece in ('{"inp', 'ut": "', "abc", "\\", "nd", '", ', '"x": 1}')] == [
        "",
        "",
        "abc",
        "",
        "\nd",
        "",
        "",
    ]


@st.composite
def cut(draw: Any, texts: Any) -> Tuple[str, List[str]]:
    text = draw(texts)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return text, [text[a:b] for a, b in zip([0, *places], [*places, len(text)])]


SCRAPS = st.lists(
    st.sampled_from(
        [
            '{"input": "',
            '"',
            "}",
            "\\",
            "u",
            "d83d",
            "\\ud83d",
            "\\ude80",
            "```",
            "\n",
            "\\n",
            " ",
            "a",
            ":",
            "[",
            "{",
        ]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=examples(300))
@given(cut(st.one_of(SCRAPS, st.text(), SCRAPS.map(lambda text: '{"input": "' + text))))
def test_unwrapping_never_raises_and_does_not_depend_on_the_cuts(case: Tuple[str, List[str]]) -> None:
    text, pieces = case
    streamed, rest, whole = read(InputReader(), pieces)
    assert streamed + rest == whole == read(InputReader(), [text])[2]
    assert isinstance(unwrap(text), str)


@pytest.mark.parametrize(
    "raw, text",
    [
        ('{"a": 1000.0, "b": 5.00}', '{"a": 1000, "b": 5}'),
        (
            '{"a": -0.0, "b": [1.0, 2.50, 3.05, 4e0, 5.0e3, 6.0E3]}',
            '{"a": -0, "b": [1, 2.50, 3.05, 4e0, 5.0e3, 6.0E3]}',
        ),
        ('{"1.0": "v2.0 \\" 3.0 \\\\"}', '{"1.0": "v2.0 \\" 3.0 \\\\"}'),
        ("1.0", "1"),
        ("1.", "1."),
        ("1.}", "1.}"),
        (".0", ".0"),
        ("a.0", "a.0"),
        ("1.0.0", "1.0"),
        ("", ""),
    ],
)
def test_integral_numbers_lose_their_fraction(raw: str, text: str) -> None:
    for size in range(1, len(raw) + 2):
        streamed, rest, whole = read(IntegralReader(), [raw[i : i + size] for i in range(0, len(raw), size)])
        assert streamed + rest == whole == text


def integral(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: integral(v) for key, v in value.items()}
    return [integral(v) for v in value] if isinstance(value, list) else value


@given(value=JSON, data=st.data())
def test_only_integral_numbers_change(value: Any, data: Any) -> None:
    text, pieces = data.draw(cut(st.just(json.dumps(value))))
    streamed, rest, whole = read(IntegralReader(), pieces)
    assert streamed + rest == whole
    assert json.loads(whole) == integral(value) == value
    if "." not in text:
        assert whole == text


# ---- anything
WILD_TOOLS: Any = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["type", "name", "description", "parameters", "strict", "tools", "format", "execution"]
        ),
        st.one_of(
            JSON,
            st.sampled_from([*TOOL_KINDS, "client", "web_search"]),
            st.lists(st.fixed_dictionaries({"type": st.sampled_from([*TOOL_KINDS]), "name": st.text()})),
        ),
    ),
    max_size=4,
)


@given(
    tools=WILD_TOOLS,
    choice=st.one_of(
        st.none(),
        st.sampled_from(["auto", "required"]),
        st.dictionaries(
            st.sampled_from(["type", "name", "namespace", "mode", "tools"]),
            st.one_of(JSON, st.sampled_from(["allowed_tools", "function"])),
        ),
    ),
)
def test_any_tools_and_any_choice_make_a_table_or_a_400(tools: List[Json], choice: Any) -> None:
    for name in ("generic", "moonshot", "zai"):
        try:
            ToolTable.build(
                {"tools": tools, "tool_choice": choice}, [], PROFILES[name], [*TOOL_KINDS, "web_search"]
            )
        except ApiError as error:
            assert error.status == 400 and re.fullmatch(
                r"tool_choice|tools\[\d+\](\.tools\[\d+\])?\.name", str(error.param)
            )


@pytest.mark.parametrize(
    "text", ["{}", '{"a": [1, NaN]}', "[]", "1", '"a"', "", '{"a"', "{} 1", '{"a": ' + "[" * 99_999]
)
def test_arguments_of_any_length_are_an_object_or_not(text: str) -> None:
    assert is_object(text) is is_object(text + " " * LONG) is (text in ("{}", '{"a": [1, NaN]}'))
