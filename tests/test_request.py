"""A Responses request in, a chat request out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from chat_rules import differences, problems
from histories import PROFILES
from provider_cases import our_own

from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import Conversion, input_items, to_chat_request
from rproxy.convert.request.mixed import as_chat_request
from rproxy.convert.request.validate import check_request, without_nulls
from rproxy.errors import ApiError
from rproxy.json_codec import encode_json
from rproxy.providers.profiles import choose_profile

Json = Dict[str, Any]
GENERIC = PROFILES["generic"]
CASES: Dict[str, Json] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "fixtures" / "providers").glob("req_*.json"))
}
CASES.update((name, case) for name, case in our_own().items() if "expect_messages" in case)


@pytest.mark.parametrize("name", CASES)
def test_the_recorded_cases_arrive_at_the_provider_as_they_should(name: str) -> None:
    case = CASES[name]
    config = case.get("config") or {}
    profile = choose_profile(
        (config.get("provider") or {}).get("profile"),
        "http://127.0.0.1:1/v1",
        config.get("downstream_model", "up"),
    )
    request = without_nulls({"model": "m", "input": case["responses_input"], **case.get("request", {})})
    check_request(request)
    conversion = to_chat_request(request, input_items(request), profile, downstream_model="up")
    body = json.loads(encode_json(conversion.chat_request(stream=True)))
    names: Dict[str, str] = {}
    assert differences(case["expect_messages"], body["messages"], names) == []
    assert differences({"$has": case.get("expect_request", {})}, body, names) == []
    assert problems(body, profile) == []


# ---- the fields that go over
TOOL: Json = {"type": "function", "name": "ls", "description": "", "parameters": {}}
SCHEMA: Json = {"type": "object", "properties": {"zebra": {"type": "string"}}}
FORMAT: Json = {
    "format": {"type": "json_schema", "name": "z", "schema": SCHEMA, "strict": True, "description": None}
}


def convert(request: Json, profile: Profile = GENERIC, **options: Any) -> Conversion:
    request = without_nulls({"model": "m", "input": "go", **request})
    check_request(request)
    return to_chat_request(request, input_items(request), profile, downstream_model="up", **options)


def test_whether_the_probabilities_of_tokens_are_asked_for() -> None:
    assert convert({"top_logprobs": 2}).logprobs
    assert not convert({}).logprobs


# ---- /chat/completions in the words of Responses
def mixed(request: Json) -> Json:
    return as_chat_request(request, GENERIC, "up")


def test_a_responses_body_for_the_chat_endpoint_is_converted() -> None:
    body = mixed({"model": "m", "input": "go", "instructions": "Be brief.", "stream": True, "user": None})
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "go"}]
    assert (body["model"], body["stream"]) == ("up", True)
    assert "stream" not in mixed({"input": "go"})


def test_flat_tools_in_a_chat_request_are_nested() -> None:
    chat = {"messages": [{"role": "user", "content": "go"}]}
    flat, nested = TOOL, {"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}
    assert mixed(chat) == {**chat, "model": "up"}
    for tools in ([nested], ["?"], [{"type": "web_search"}], [{"type": "function"}]):
        assert mixed({**chat, "tools": tools})["tools"] == tools
    choice = {"type": "function", "name": "ls"}
    body = mixed({**chat, "tools": [flat], "tool_choice": choice})
    assert body["tools"] == [nested]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "ls"}}
    assert mixed({**chat, "tools": None, "tool_choice": "auto"})["tool_choice"] == "auto"


OPTIONAL: Json = {
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
    "service_tier": "flex",
    "prediction": {"type": "content", "content": "as before"},
}
# title -> (profile, request, what the chat request has besides model and messages)
FIELDS: Dict[str, Tuple[str, Json, Json]] = {
    "nothing said, nothing sent": ("generic", {}, {}),
    "what both APIs call alike": (
        "generic",
        {
            "temperature": 0.5,
            "top_p": 1,
            "presence_penalty": 0,
            "frequency_penalty": 1,
            "stop": ["x"],
            "seed": 7,
            "logit_bias": {"1": 2},
        },
        {
            "temperature": 0.5,
            "top_p": 1,
            "presence_penalty": 0,
            "frequency_penalty": 1,
            "stop": ["x"],
            "seed": 7,
            "logit_bias": {"1": 2},
        },
    ),
    "what belongs to the Responses API": (
        "generic",
        {
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "k",
            "metadata": {"a": "b"},
            "truncation": "auto",
            "service_tier": "priority",
            "client_metadata": {"a": "b"},
            "max_tool_calls": 5,
            "text": {"verbosity": "low"},
        },
        {},
    ),
    "what OpenAI's chat API knows of it": (
        "openai",
        {
            **OPTIONAL,
            "user": "u",
            "text": {"verbosity": "low", "format": {"type": "text"}},
            "metadata": {"a": "b"},
        },
        {**OPTIONAL, "user": "u", "verbosity": "low"},
    ),
    "the user under its new name, which OpenAI knows": (
        "openai",
        {"safety_identifier": "s"},
        {"safety_identifier": "s"},
    ),
    "what OpenRouter knows of it": (
        "openrouter",
        {**OPTIONAL, "metadata": {"a": "b"}},
        {
            **{key: OPTIONAL[key] for key in ("prompt_cache_key", "service_tier", "prediction")},
            "metadata": {"a": "b"},
            "user": "s",
        },
    ),
    "the limit": ("generic", {"max_output_tokens": 7}, {"max_tokens": 7}),
    "the limit under its new name": ("openai", {"max_output_tokens": 7}, {"max_completion_tokens": 7}),
    "logprobs": ("generic", {"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    "logprobs without alternatives": (
        "generic",
        {"include": ["message.output_text.logprobs"], "top_logprobs": 0},
        {"logprobs": True},
    ),
    "no logprobs": ("generic", {"top_logprobs": 0}, {}),
    "the user": ("generic", {"user": "ä b"}, {"user": "ä b"}),
    "the user under his new name": ("generic", {"safety_identifier": "s"}, {"user": "s"}),
    "the user as DeepSeek takes him": ("deepseek", {"user": "ä b" * 300}, {"user_id": ("__b" * 300)[:512]}),
    "parallel calls need tools": ("generic", {"parallel_tool_calls": True}, {}),
    "parallel calls": (
        "generic",
        {"parallel_tool_calls": False, "tools": [TOOL]},
        {"parallel_tool_calls": False, "tools": {"$any": True}},
    ),
    "sampling while DeepSeek thinks": ("deepseek", {"temperature": 0.5, "top_p": 0.5}, {}),
    "sampling while it does not": (
        "deepseek",
        {"temperature": 0.5, "reasoning": {"effort": "none"}},
        {"temperature": 0.5, "thinking": {"type": "disabled"}},
    ),
    "keys that are never sent": (
        "deepseek",
        {"seed": 7, "tools": [TOOL], "parallel_tool_calls": True},
        {"tools": {"$any": True}},
    ),
    # thinking
    "effort": ("generic", {"reasoning": {"effort": "high"}}, {"reasoning_effort": "high"}),
    "effort in the provider's words": (
        "deepseek",
        {"reasoning": {"effort": "medium"}},
        {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
    ),
    "effort in a nested key": (
        "openrouter",
        {"reasoning": {"effort": "xhigh"}},
        {"reasoning": {"effort": "xhigh"}},
    ),
    "the nearest effort": ("generic", {"reasoning": {"effort": "ultra"}}, {"reasoning_effort": "max"}),
    "an effort that nobody knows": ("generic", {"reasoning": {"effort": "heroic"}}, {}),
    "an effort where there is none": (
        "moonshot",
        {"reasoning": {"effort": "high"}},
        {"thinking": {"type": "enabled"}},
    ),
    "a summary means thinking": ("dashscope", {"reasoning": {"summary": "auto"}}, {"enable_thinking": True}),
    "nulls mean nothing": ("dashscope", {"reasoning": {"effort": None, "summary": None}}, {}),
    "no thinking": ("dashscope", {"reasoning": {"effort": "none"}}, {"enable_thinking": False}),
    "no thinking where it cannot be stopped": (
        "xai",
        {"reasoning": {"effort": "none"}},
        {"reasoning_effort": "low"},
    ),
    "no thinking where nothing is known": (
        "minimax",
        {"reasoning": {"effort": "none"}},
        {"reasoning_split": True},
    ),
    # tool_choice
    "required": (
        "generic",
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": {"$any": True}, "tool_choice": "required"},
    ),
    "required in the provider's word": (
        "mistral",
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": {"$any": True}, "tool_choice": "any"},
    ),
    "required where it is refused": (
        "zai",
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": {"$any": True}},
    ),
    "named where only words are taken": (
        "lmstudio",
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "ls"}},
        {"tools": {"$any": True}, "tool_choice": "required"},
    ),
    "named": (
        "generic",
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "ls"}},
        {"tools": {"$any": True}, "tool_choice": {"type": "function", "function": {"name": "ls"}}},
    ),
    "named while thinking": (
        "deepseek",
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "ls"}, "reasoning": {"effort": "low"}},
        {"tools": {"$any": True}, "thinking": {"type": "enabled"}, "reasoning_effort": "low"},
    ),
    "named while it would think by itself": (
        "deepseek",
        {
            "tools": [TOOL],
            "tool_choice": {"type": "function", "name": "ls"},
            "reasoning": {"summary": "auto"},
        },
        {"tools": {"$any": True}, "tool_choice": {"$any": True}, "thinking": {"type": "disabled"}},
    ),
    "named while not thinking": (
        "deepseek",
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "ls"}, "reasoning": {"effort": "none"}},
        {"tools": {"$any": True}, "tool_choice": {"$any": True}, "thinking": {"type": "disabled"}},
    ),
    "none": (
        "deepseek",
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": {"$any": True}, "tool_choice": "none"},
    ),
    # text.format
    "plain text": ("generic", {"text": {"format": {"type": "text"}}}, {}),
    "a schema": (
        "generic",
        {"text": FORMAT},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "z", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    "a schema without a name": (
        "generic",
        {"text": {"format": {"type": "json_schema", "schema": {}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "response", "schema": {}}}},
    ),
    "a schema in words": ("deepseek", {"text": FORMAT}, {"response_format": {"type": "json_object"}}),
    "a schema in words only": ("minimax", {"text": FORMAT}, {}),
    "any JSON": (
        "generic",
        {"text": {"format": {"type": "json_object"}}},
        {"response_format": {"type": "json_object"}},
    ),
    "a schema that is not there": (
        "generic",
        {"text": {"format": {"type": "json_schema"}}},
        {"response_format": {"type": "json_object"}},
    ),
    "any JSON where only schemas are known": (
        "lmstudio",
        {"text": {"format": {"type": "json_object"}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "response", "schema": {"type": "object"}},
            }
        },
    ),
    "any JSON in words only": ("minimax", {"text": {"format": {"type": "json_object"}}}, {}),
}


@pytest.mark.parametrize("title", FIELDS)
def test_the_fields_that_go_over(title: str) -> None:
    profile, request, wanted = FIELDS[title]
    body = convert(request, PROFILES[profile]).body
    assert (
        differences(wanted, {key: value for key, value in body.items() if key not in ("model", "messages")})
        == []
    )
    assert body["model"] == "up"
    assert problems(body, PROFILES[profile]) == []


@pytest.mark.parametrize(
    "profile, request_, warning",
    [
        ("xai", {"reasoning": {"effort": "none"}}, "reasoning.effort none: this model cannot stop thinking"),
        (
            "generic",
            {"reasoning": {"effort": "heroic" * 9}},
            "reasoning.effort {} left out: unknown to the provider".format(("heroic" * 9)[:40]),
        ),
        (
            "zai",
            {"tools": [TOOL], "tool_choice": "required"},
            "tool_choice required became an instruction in the prompt: the provider does not accept it",
        ),
        (
            "lmstudio",
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "ls"}},
            "tool_choice function became required, with an instruction in the prompt: "
            "the provider does not accept it",
        ),
        (
            "zai",
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "ls"}},
            "tool_choice function became an instruction in the prompt: the provider does not accept it",
        ),
        (
            "deepseek",
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "ls"}},
            "thinking switched off: with it the provider accepts no tool_choice function",
        ),
        (
            "generic",
            {"tools": [{"type": "mcp"}, {"type": "mcp"}]},
            "tool mcp dropped (not in tool_type_allowlist)",
        ),
    ],
)
def test_what_changes_on_the_way_is_a_warning_and_said_once(
    profile: str, request_: Json, warning: str
) -> None:
    assert convert(request_, PROFILES[profile]).warnings == [warning]


def test_streams_ask_for_usage_and_for_what_the_provider_needs_beside_tools() -> None:
    assert convert({}).chat_request(stream=False) == {
        "model": "up",
        "messages": [{"role": "user", "content": "go"}],
    }
    assert convert({}).chat_request(stream=True) == {
        "model": "up",
        "messages": [{"role": "user", "content": "go"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "stream_options" not in convert({}, PROFILES["mistral"]).chat_request(stream=True)
    assert "stream_options" not in convert({}, Profile(drop=("stream_options",))).chat_request(stream=True)
    assert convert({}, PROFILES["dashscope"]).chat_request(stream=False)["stream"] is True
    assert convert({"tools": [TOOL]}, PROFILES["zai"]).chat_request(stream=True)["tool_stream"] is True
    assert "tool_stream" not in convert({}, PROFILES["zai"]).chat_request(stream=True)


LIMITED_FIELDS: Dict[str, Tuple[Json, Json, Json]] = {  # title -> (override, request, what goes out)
    "a limit above the provider's": (
        {"max_tokens": {"most": 50}},
        {"max_output_tokens": 70},
        {"max_tokens": 50},
    ),
    "a limit below it": ({"max_tokens": {"most": 50}}, {"max_output_tokens": 7}, {"max_tokens": 7}),
    "no thinking beside tools": (
        {"thinking": {"with_tools": False}},
        {"tools": [TOOL]},
        {"tools": {"$any": True}, "reasoning_effort": "none"},
    ),
    "thinking without them": (
        {"thinking": {"with_tools": False}},
        {"reasoning": {"effort": "low"}},
        {"reasoning_effort": "low"},
    ),
    "a forced call beside tools that forbid thinking": (
        {"thinking": {"with_tools": False}, "tool_choice": {"thinking": ["auto"]}},
        {"tools": [TOOL], "tool_choice": "required", "reasoning": {"effort": "low"}},
        {"tools": {"$any": True}, "tool_choice": "required", "reasoning_effort": "none"},
    ),
    "a key inside a key": (
        {"drop": ["response_format.json_schema.strict", "response_format.x.y", "seed.x"]},
        {"text": FORMAT, "seed": 7},
        {
            "response_format": {"type": "json_schema", "json_schema": {"name": "z", "schema": SCHEMA}},
            "seed": 7,
        },
    ),
    "a schema with fewer keywords": (
        {"drop_keywords": {"response_format": ["properties"]}, "response_schema": ["close_objects"]},
        {"text": FORMAT},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "z",
                    "schema": {"type": "object", "additionalProperties": False},
                    "strict": True,
                },
            }
        },
    ),
}


@pytest.mark.parametrize("title", LIMITED_FIELDS)
def test_fields_of_a_provider_that_takes_less(title: str) -> None:
    override, request, wanted = LIMITED_FIELDS[title]
    body = convert(request, GENERIC.override(override)).body
    assert differences(wanted, {k: v for k, v in body.items() if k not in ("model", "messages")}) == []


def test_keywords_of_tools_are_dropped() -> None:
    profile = GENERIC.override({"drop_keywords": {"tools": ["minimum"]}})
    tool = {**TOOL, "parameters": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}}}
    sent = convert({"tools": [tool]}, profile).body["tools"][0]["function"]["parameters"]
    assert sent == {"type": "object", "properties": {"n": {"type": "integer"}}}


def test_a_provider_without_streams_is_asked_for_none() -> None:
    assert "stream" not in convert({}, GENERIC.override({"stream": "never"})).chat_request(stream=True)


def test_thinking_that_tools_forbid_is_a_warning_where_it_was_asked_for() -> None:
    profile = GENERIC.override({"thinking": {"with_tools": False}})
    assert convert({"tools": [TOOL], "reasoning": {"effort": "high"}}, profile).warnings == [
        "reasoning.effort high left out: the provider accepts no tools with it"
    ]
    assert convert({"tools": [TOOL]}, profile).warnings == []


def test_a_profile_is_never_changed_by_a_request() -> None:
    for profile in PROFILES.values():
        before = repr(profile)
        body = convert({"reasoning": {"effort": "high"}, "tools": [TOOL]}, profile).chat_request(stream=True)
        for value in body.values():
            if isinstance(value, dict):
                value["changed"] = True
        assert repr(profile) == before


def test_several_knobs_may_stand_in_one_key() -> None:
    profile = Profile().override(
        {
            "thinking": {
                "enable": {"reasoning": {"enabled": True}},
                "effort": "reasoning.effort",
                "efforts": {"low": "lo"},
            }
        }
    )
    assert convert({"reasoning": {"effort": "low"}}, profile).body["reasoning"] == {
        "enabled": True,
        "effort": "lo",
    }


@pytest.mark.parametrize(
    "asked, efforts, sent",
    [
        ("ultra", ["low", "high"], "high"),
        ("max", ["low", "high"], "high"),
        ("minimal", ["low", "high"], "low"),
        ("medium", ["low", "high"], "high"),
        ("minimal", ["high"], "high"),
        ("high", ["medium"], "medium"),
        ("high", ["low"], None),
        ("default", ["low"], None),
    ],
)
def test_the_nearest_effort_is_sent(asked: str, efforts: List[str], sent: Any) -> None:
    levels: Json = dict.fromkeys(Profile().thinking.efforts)
    profile = Profile().override({"thinking": {"efforts": {**levels, **{level: level for level in efforts}}}})
    assert convert({"reasoning": {"effort": asked}}, profile).body.get("reasoning_effort") == sent


# ---- instructions and words for the prompt
def prompt(request: Json, profile: str = "generic") -> List[Any]:
    return [
        message["content"]
        for message in convert(request, PROFILES[profile]).body["messages"]
        if message["role"] == "system"
    ]


def test_instructions_are_the_first_system_message() -> None:
    items = [{"role": "developer", "content": "b"}, {"role": "user", "content": "go"}]
    assert prompt({"instructions": "a", "input": items}) == ["a", "b"]
    assert prompt({"instructions": ""}) == prompt({"instructions": []}) == []
    assert prompt(
        {
            "instructions": [
                {"role": "developer", "content": "a"},
                {"content": [{"type": "input_text", "text": "b"}]},
            ]
        }
    ) == ["a\nb"]


def test_a_schema_that_the_provider_does_not_take_stands_in_the_prompt() -> None:
    (words,) = prompt({"instructions": "Be brief.", "text": FORMAT}, "deepseek")
    assert words.startswith("Be brief.\n\nAnswer with one JSON object and nothing else")
    assert json.dumps(SCHEMA) in words
    assert [
        convert({"text": FORMAT}, PROFILES[name]).strip_fences for name in ("openai", "deepseek", "minimax")
    ] == [False, True, True]


def test_json_is_mentioned_at_the_beginning_or_not_at_all() -> None:
    """What stands at the beginning may not depend on what comes later: the provider's prompt cache counts
    from there.
    """
    form = {"text": {"format": {"type": "json_object"}}}
    assert prompt({**form, "input": "Give me Json."}) == []
    assert prompt({**form, "instructions": "JSON!"}) == ["JSON!"]
    assert prompt({**form, "input": [{"role": "developer", "content": "JSON!"}]}) == ["JSON!"]
    assert prompt(
        {**form, "input": [{"role": "developer", "content": "a"}, {"role": "user", "content": "json"}]}
    ) == ["a"]
    (first,) = prompt({**form, "input": "Give me that."})
    (second,) = prompt(
        {
            **form,
            "input": [
                {"role": "user", "content": "Give me that."},
                {"role": "assistant", "content": "{}"},
                {"role": "user", "content": "JSON!"},
            ],
        }
    )
    assert first == second
    assert convert(form).strip_fences


def test_later_settings_hold_from_there_on() -> None:
    update = {
        "type": "configuration_update",
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}},
    }
    body = convert(
        {
            "reasoning": {"effort": "high", "summary": "auto"},
            "input": [{"role": "user", "content": "json"}, update],
        }
    ).body
    assert (body["reasoning_effort"], body["response_format"]) == ("low", {"type": "json_object"})
    odd = {"type": "configuration_update", "reasoning": 5}
    assert convert({"input": [{"role": "user", "content": "go"}, odd]}).body == convert({}).body


# ---- complaints
@pytest.mark.parametrize(
    "request_, param, message",
    [
        ({"input": []}, "input", "input is empty: there is nothing to answer."),
        ({"input": ""}, "input", "input is empty"),
        (
            {"text": {"format": {"type": "json_schema", "schema": "{}"}}},
            "text.format.schema",
            "needs a schema",
        ),
        (
            {"text": {"format": {"type": "xml" * 40}}},
            "text.format.type",
            "must be text, json_object or json_schema, not 'xml",
        ),
        (
            {"input": [{"type": "configuration_update", "text": {"format": 5}}]},
            "text.format",
            "text.format must be an object",
        ),
        ({"instructions": [{"content": 5}]}, "input", "content of instructions must be a string or a list"),
    ],
)
def test_what_cannot_be_expressed_is_a_400(request_: Json, param: str, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        convert(request_)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert len(caught.value.message) < 150


def test_a_request_that_is_nested_beyond_recursion_is_a_400() -> None:
    schema: Json = {}
    for _ in range(20_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ApiError, match="nested too deeply"):
        convert({"tools": [{**TOOL, "parameters": {"type": "object", "properties": {"a": schema}}}]})
    while schema:
        schema = schema["items"]  # taken apart step by step: Python frees it recursively otherwise


def test_a_chat_body_with_an_input_beside_its_messages_stays_one() -> None:
    body = mixed({"messages": [{"role": "user", "content": "Hi"}], "input": "x"})
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert mixed({}) == {"model": "up"}


def test_the_safety_identifier_that_became_the_user_is_not_left_out() -> None:
    conversion = convert({"model": "m", "input": "Hi", "safety_identifier": "u1"})
    assert conversion.body["user"] == "u1" and "safety_identifier" not in conversion.left_out


def test_a_summary_alone_says_nothing_of_the_effort() -> None:
    conversion = convert({"model": "m", "input": "Hi", "reasoning": {"summary": "auto"}}, PROFILES["openai"])
    assert "reasoning_effort" not in conversion.body and conversion.warnings == []
