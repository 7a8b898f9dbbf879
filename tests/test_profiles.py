"""Profiles: which row is chosen, what it becomes, and that the table has no loose ends."""

from __future__ import annotations

import json
import re
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.profile import FieldError, Profile, Thinking
from rproxy.errors import ConfigError
from rproxy.providers.profile_names import ABOUT, ALIASES, MODEL_NAMES
from rproxy.providers.profile_table import ROWS
from rproxy.providers.profiles import (
    ZERO_CONFIG,
    choose_profile,
    default_wire,
    glob_matches,
    list_profiles,
    profile_dict,
    row_of_host,
)

LEVELS = {level: level for level in ("minimal", "low", "medium", "high", "xhigh", "max")}


@pytest.mark.parametrize(
    "base_url, row",
    [
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.deepseek.com/beta", "deepseek"),
        ("https://API.DeepSeek.com:443/v1", "deepseek"),
        ("https://eu.api.deepseek.com", "deepseek"),
        ("https://notapi.deepseek.com.evil.example", None),
        ("https://evilapi.deepseek.com", None),
        ("https://api.kimi.com/coding/v1", "moonshot"),
        ("https://open.bigmodel.cn/api/coding/paas/v4", "zai"),
        ("https://token-plan.cn-beijing.maas.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://me.openai.azure.com/openai/v1", "azure"),
        ("https://api.openai.com/v1", "openai"),
        ("https://ark.cn-beijing.volces.com/api/v3", "ark"),
        ("https://token-plan-ams.xiaomimimo.com/v1", "xiaomi"),
        ("https://api.individual.githubcopilot.com", "copilot"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "bedrock"),
        ("https://bedrock-mantle.eu-central-1.api.aws/v1", "bedrock"),
        ("http://ec2-1-2-3-4.us-west-2.compute.amazonaws.com:8000/v1", None),
        ("http://localhost:11434/v1", "ollama"),
        ("http://[::1]:11434/v1", "ollama"),
        ("http://localhost:1234/v1", "lmstudio"),
        ("http://localhost:8000/v1", None),
        ("http://user@localhost:1234/v1", "lmstudio"),
    ],
)
def test_the_host_chooses(base_url: str, row: Any) -> None:
    assert row_of_host(base_url) == row
    assert choose_profile(None, base_url, "anything").name == (row or "generic")


@pytest.mark.parametrize(
    "model, row",
    [
        ("deepseek-v4-pro.hello_http", "deepseek"),
        ("DeepSeek-R1-0528", "deepseek"),
        ("deepseek-ai/DeepSeek-V4", "template"),
        ("kimi-k3", "moonshot"),
        ("moonshot-v1-8k", "moonshot"),
        ("glm-5.3", "zai"),
        ("qwen3.5-27b.hello", "template"),
        ("Qwen/Qwen3.5-122B", "template"),
        ("qwen3-max", "dashscope"),
        ("qwen-plus-latest", "dashscope"),
        ("MiniMax-M2.7", "minimax"),
        ("gpt-5.4-mini.hello", "openai-gateway"),
        ("o3-mini", "openai-gateway"),
        ("openai/gpt-oss-20b", "generic"),
        ("mistral-small-latest", "mistral"),
        ("gemini-3.8-pro", "gemini"),
        ("grok-3-mini", "xai"),
        ("generic-chat.hello", "generic"),
        ("sim-text", "generic"),
        ("", "generic"),
    ],
)
def test_the_model_chooses_on_an_unknown_host(model: str, row: str) -> None:
    assert choose_profile(None, "http://127.0.0.1:8000/v1", model).name == row


def test_the_name_beats_the_host_and_the_host_beats_the_model() -> None:
    assert choose_profile("mistral", "https://api.deepseek.com", "glm-5.3").name == "mistral"
    assert choose_profile("Kimi", "https://api.deepseek.com", "glm-5.3").name == "moonshot"
    assert choose_profile(None, "https://openrouter.ai/api/v1", "glm-5.3").name == "openrouter"


def test_an_unknown_name() -> None:
    with pytest.raises(
        ConfigError, match=r"there is no profile 'deepsek' \(did you mean 'deepseek'\?\); known: anthropic, "
    ):
        choose_profile("deepsek", "http://h", "m")


@pytest.mark.parametrize(
    "profile, model, field, value",
    [
        ("deepseek", "deepseek-v4-pro", "modalities", ("text",)),
        ("deepseek", "deepseek-v4-flash-vision-exp.x", "modalities", ("text", "image")),
        ("deepseek", "deepseek-v4-flash", "context_window", 1_000_000),
        ("deepseek", "DEEPSEEK-R1-0528", "reasoning.replay", "never"),
        ("deepseek", "deepseek-r1", "reasoning.required_on_tool_calls", None),
        ("deepseek", "deepseek-v4-pro", "reasoning.required_on_tool_calls", ""),
        ("ollama", "deepseek-r1:8b", "reasoning.replay", "never"),
        ("generic", "deepseek-r1-distill", "reasoning.replay", "never"),
        ("moonshot", "kimi-k3", "thinking.disable", None),
        ("moonshot", "kimi-k2.6", "thinking.disable", {"thinking": {"type": "disabled"}}),
        ("zai", "glm-5.3-flash", "thinking.disable", None),
        ("openrouter", "deepseek/deepseek-v4-pro", "reasoning.also", ("reasoning_details",)),
        ("openrouter", "openai/gpt-4o", "reasoning.field", "reasoning_details"),
        ("openai", "gpt-5.5", "reasoning.replay", "never"),
        ("openai", "gpt-4o", "thinking.effort", None),
        ("openai", "gpt-5.5", "max_tokens.field", "max_completion_tokens"),
        ("openai", "gpt-5.5", "user_field", "user"),
        ("azure", "gpt-4o", "thinking.effort", None),
        ("azure", "DeepSeek-V4", "include_usage", False),
        ("azure", "gpt-5.5", "auth_header", "api-key"),
        ("sglang", "m", "reasoning.also", ()),
        ("sglang", "m", "system_position", "first"),
        ("template", "m", "max_tokens.field", "max_tokens"),
        ("vllm", "m", "max_tokens.field", "max_completion_tokens"),
        ("vllm", "m", "thinking.effort", "reasoning_effort"),
        ("vllm", "Devstral-Small-2", "reasoning.replay", "never"),
        (
            "sglang",
            "m",
            "thinking.disable",
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        ),
        ("minimax", "MiniMax-M3", "system_position", "first"),
        ("minimax", "MiniMax-M3", "context_window", 1_000_000),
        ("minimax", "MiniMax-M3", "thinking.disable", {"thinking": {"type": "disabled"}}),
        ("minimax", "MiniMax-M3.1-Flash", "thinking.disable", None),
        ("minimax", "MiniMax-M2", "context_window", 200_000),
        ("moonshot", "kimi-k3", "tool_choice.any", ("auto", "none", "required")),
        ("moonshot", "kimi-k3", "tool_choice.thinking", None),
        ("moonshot", "kimi-k3", "context_window", 1_000_000),
        ("moonshot", "kimi-k2.6", "tool_choice.any", None),
        ("moonshot", "kimi-k2.6", "tool_choice.thinking", ("auto", "none")),
        ("openai", "gpt-5.6-terra", "thinking.with_tools", False),
        ("openai", "gpt-5.1", "thinking.with_tools", True),
        ("openai-gateway", "gpt-5.6-terra", "thinking.with_tools", True),
        ("xai", "grok-4.3", "thinking.disable", {"reasoning_effort": "none"}),
        ("xai", "grok-4.6", "thinking.efforts", {**LEVELS, "minimal": "low", "max": "xhigh"}),
        ("xai", "grok-4.20-0309-non-reasoning", "thinking.effort", None),
        ("zai", "glm-5.3", "context_window", 1_000_000),
        ("zai", "glm-4.6", "user_message", "required"),
        ("xiaomi", "mimo-v2.5-pro", "empty_content", " "),
        ("lmstudio", "m", "response_format", ("text", "json_schema")),
        ("dashscope", "qwen3.8-max", "thinking.effort", "reasoning_effort"),
        (
            "dashscope",
            "qwen3.7-plus",
            "thinking.enable",
            {"enable_thinking": True, "preserve_thinking": True},
        ),
        ("anthropic", "claude-opus-5-5", "tool_choice.any", ("auto", "none")),
        ("groq", "llama-3.3-70b", "reasoning.replay", "never"),
        ("ark", "doubao-seed-2-0-mini-260215", "thinking.efforts", LEVELS),
        ("openai-gateway", "gpt-5.5", "developer_role", "developer"),
    ],
)
def test_what_a_row_says(profile: str, model: str, field: str, value: Any) -> None:
    found: Any = choose_profile(profile, "http://h", model)
    for step in field.split("."):
        found = getattr(found, step)
    assert found == value


def test_what_is_different_on_the_other_wire() -> None:
    chat, responses = (
        choose_profile("deepseek", "http://h", "m", wire=wire) for wire in ("chat", "responses")
    )
    assert (chat.response_format, chat.native_tools) == (("text", "json_object"), ())
    assert (responses.response_format, responses.native_tools) == (
        ("text", "json_object", "json_schema"),
        ("web_search",),
    )
    assert "custom" in choose_profile("azure", "http://h", "gpt-5.5", wire="responses").native_tools
    assert (
        choose_profile("openai", "http://h", "m", {"native_tools": []}, wire="responses").native_tools == ()
    )


@pytest.mark.parametrize(
    "base_url, wire",
    [
        ("https://api.openai.com/v1", "responses"),
        ("https://eu.api.openai.com/v1", "responses"),
        ("https://me.openai.azure.com/openai/v1", "chat"),
        ("https://gateway.example/openai/v1", "chat"),
    ],
)
def test_the_address_chooses_the_api(base_url: str, wire: str) -> None:
    assert default_wire(base_url) == wire


def test_a_rows_thinking_is_a_whole_of_its_own() -> None:
    assert choose_profile("dashscope", "http://h", "m").thinking == Thinking(
        default=None, enable={"enable_thinking": True}, disable={"enable_thinking": False}
    )
    assert choose_profile("moonshot", "http://h", "kimi-k2.7-code").thinking == Thinking(
        default=True, enable={}, disable=None
    )


def test_overrides_are_merged_field_by_field_and_the_last_one_wins() -> None:
    profile = choose_profile(
        "deepseek",
        "http://h",
        "m",
        {"thinking": {"efforts": {"xhigh": "max", "minimal": None}}, "drop": ["seed"]},
        {},
        {"drop": ["stop"], "headers": {"X-A": "1"}},
    )
    assert profile.thinking.enable == {"thinking": {"type": "enabled"}}
    assert profile.thinking.efforts == {
        "low": "low",
        "medium": "high",
        "high": "high",
        "xhigh": "max",
        "max": "max",
    }
    assert (profile.drop, profile.headers, profile.name) == (("stop",), {"X-A": "1"}, "deepseek")


@pytest.mark.parametrize(
    "override, message",
    [
        ({"resoning": {}}, "resoning: unknown key 'resoning' (did you mean 'reasoning'?)"),
        ({"reasoning": {"feild": ""}}, "reasoning.feild: unknown key 'feild' (did you mean 'field'?)"),
        (
            {"reasoning": {"replay": "nevr"}},
            "reasoning.replay: must be one of always, tool_turns, never; not 'nevr' (did you mean 'never'?)",
        ),
        ({"reasoning": "x"}, "reasoning: must be a mapping, not text"),
        ({"merge_same_role": 1}, "merge_same_role: must be true or false, not a number"),
        ({"context_window": 0}, "context_window: must be a whole number above 0 or null, not a number"),
        (
            {"context_window": True},
            "context_window: must be a whole number above 0 or null, not true or false",
        ),
        ({"drop": "seed"}, "drop: must be a list of words, not text"),
        (
            {"schema": ["inline_ref"]},
            "schema: must be one of inline_refs, add_types, drop_schema_key, close_objects, essentials; "
            "not 'inline_ref' (did you mean 'inline_refs'?)",
        ),
        ({"headers": {"A": 1}}, "headers: must be a mapping of text to text, not a mapping"),
        ({"thinking": {"enable": None}}, "thinking.enable: must be a mapping, not null (nothing)"),
        ({"thinking": {"enable": []}}, "thinking.enable: must be a mapping, not a list"),
        ({"user_field": None}, "user_field: must be text, not null (nothing)"),
        ({"name": "x"}, "name: a profile's name cannot be overridden"),
    ],
)
def test_a_wrong_override(override: Dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError) as caught:
        Profile().override(override)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", list_profiles())
def test_every_profile_is_plain_data_that_an_override_takes(name: str) -> None:
    for model in ("", *(pattern.replace("*", "x") for pattern in ROWS[name].get("models", {}))):
        data = profile_dict(name, model)
        assert json.loads(json.dumps(data)) == data
        thoughtless = Profile(name=name, thinking=Thinking())
        assert thoughtless.override(data) == choose_profile(name, "http://h", model)


def test_the_tables_have_no_loose_ends() -> None:
    assert set(ABOUT) == set(ROWS)
    assert set(ALIASES.values()) | {row for _, row in MODEL_NAMES} | {
        known.profile for known in ZERO_CONFIG
    } <= set(ROWS)
    assert not set(ALIASES) & set(ROWS)
    assert all(pattern == pattern.lower() for pattern, _ in MODEL_NAMES)
    matches = [match for row in ROWS.values() for match in row.get("match", ())]
    assert len(matches) == len(set(matches))
    for known in ZERO_CONFIG:
        assert row_of_host(known.base_url) == known.profile
        assert "*" not in known.models[0]
    variables = [name for known in ZERO_CONFIG for name in known.env]
    assert len(variables) == len(set(variables))


@pytest.mark.parametrize(
    "pattern, name, fits",
    [
        ("*", "", True),
        ("gpt-*", "gpt-5.5", True),
        ("gpt-*", "my-gpt-5", False),
        ("a*c", "abbc", True),
        ("a*c", "abcd", False),
        ("a[b]", "a[b]", True),
        ("a[b]", "ab", False),
        ("a?", "ab", False),
        ("*", "two\nlines", True),
    ],
)
def test_globs(pattern: str, name: str, fits: bool) -> None:
    assert glob_matches(pattern, name) is fits


@given(st.text("ab*", max_size=8), st.text("ab\n", max_size=8))
def test_globs_are_as_a_regular_expression(pattern: str, name: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert glob_matches(pattern, name) is bool(re.fullmatch(expression, name, re.S))
