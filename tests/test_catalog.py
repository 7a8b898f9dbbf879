"""GET /models as Codex reads it: entries from profiles and configuration, and laid over the installed Codex'
own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from rproxy.config.load import parse_config
from rproxy.config.schema import Config
from rproxy.config.zero_config import default_config
from rproxy.errors import ConfigError
from rproxy.service.catalog import etag, models_body, with_prompt_of

Json = Dict[str, Any]
# Codex 0.169 voids the whole list if an entry lacks one of these.
NEEDED = {
    "slug",
    "display_name",
    "supported_reasoning_levels",
    "shell_type",
    "visibility",
    "supported_in_api",
    "priority",
    "support_verbosity",
    "truncation_policy",
    "experimental_supported_tools",
    "base_instructions",
}
LITE: Json = {"slug": "gpt-6", "use_responses_lite": True, "base_instructions": "Lite."}
CLASSIC: Json = {
    "slug": "gpt-5.5",
    "use_responses_lite": False,
    "base_instructions": "Classic.",
    "model_messages": {"instructions_template": "Classic."},
    "default_reasoning_level": "medium",
    "upgrade": {"model": "gpt-6"},
    "later_field": True,
}


def config(model: str = "", server: str = "", path: str = "config.yaml") -> Config:
    provider = "provider: {base_url: 'http://h:1', profile: deepseek}"
    text = f"{server}models:\n  - {{model: m, {provider}, downstream_model: deepseek-v4-pro{model}}}\n"
    return parse_config(text.encode(), path, {})


def entry(*args: Any, **kwargs: Any) -> Json:
    found: Json = models_body(config(*args, **kwargs))["models"][0]
    return found


def levels(found: Json) -> List[str]:
    return [level["effort"] for level in found["supported_reasoning_levels"]]


def test_every_entry_is_complete_and_thinks_by_default() -> None:
    keys = (
        "DEEPSEEK",
        "MOONSHOT",
        "ZAI",
        "DASHSCOPE",
        "MINIMAX",
        "OPENROUTER",
        "GEMINI",
        "XAI",
        "MISTRAL",
        "GROQ",
        "CEREBRAS",
        "OPENAI",
    )
    body = models_body(default_config({key + "_API_KEY": "k" for key in keys}))
    assert [model["id"] for model in body["data"]] == [found["slug"] for found in body["models"]]
    assert not any("*" in found["slug"] for found in body["models"])
    for found in body["models"]:
        assert set(found) >= NEEDED and found["base_instructions"].strip()
        assert (
            found["default_reasoning_level"] in levels(found)
            if levels(found)
            else "default_reasoning_level" not in found
        )
        assert found.get("default_reasoning_level") != "none"
        assert (
            set(found["input_modalities"]) in ({"text"}, {"text", "image"})
            and found["context_window"] >= 16_000
        )
    assert [found["slug"] for found in body["models"] if found["visibility"] == "hide"] == [
        "codex-auto-review"
    ]


@pytest.mark.parametrize(
    "name, found, default",
    [
        ("deepseek", ["none", "low", "high", "max"], "high"),  # medium would be high under another name
        ("openrouter", ["none", "minimal", "low", "medium", "high", "xhigh", "max"], "medium"),
        ("dashscope", ["none", "medium"], "medium"),  # on and off
        ("minimax", ["medium"], "medium"),  # always on
    ],
)
def test_efforts_are_those_that_the_provider_tells_apart(name: str, found: List[str], default: str) -> None:
    text = f"models: [{{model: m, provider: {{base_url: 'http://h:1', profile: {name}}}}}]"
    told = models_body(parse_config(text.encode(), "c", {}))["models"][0]
    assert (levels(told), told["default_reasoning_level"]) == (found, default)


def test_a_model_that_does_not_think_has_no_efforts() -> None:
    found = entry(
        ", override: {thinking: {default: false, enable: {}, disable: {}, efforts: {minimal: null, low: "
        "null, medium: null, "
        "high: null, xhigh: null, max: null}}}"
    )
    assert levels(found) == [] and "default_reasoning_level" not in found


def test_the_configuration_wins() -> None:
    found = entry(
        ", context_window: 64000, modalities: [text, image, file], efforts: [max, none], display_name: Big, "
        "description: It thinks."
    )
    assert (found["context_window"], found["max_context_window"], found["input_modalities"]) == (
        64000,
        64000,
        ["text", "image"],
    )
    assert (levels(found), found["default_reasoning_level"]) == (["none", "max"], "max")
    assert (found["display_name"], found["description"]) == ("Big", "It thinks.")


@pytest.mark.parametrize(
    "allow, tools",
    [
        ("", ("unified_exec", "freeform", True, "v1")),
        ("server: {tool_type_allowlist: [function]}\n", ("unified_exec", None, False, "disabled")),
        ("server: {tool_type_allowlist: [custom, namespace]}\n", ("disabled", "freeform", False, "v1")),
    ],
)
def test_tools_follow_the_allowlist(allow: str, tools: Any) -> None:
    found = entry(server=allow)
    assert (
        tuple(
            found[key]
            for key in ("shell_type", "apply_patch_tool_type", "supports_search_tool", "multi_agent_version")
        )
        == tools
    )


def test_a_prompt_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("Be brief.", encoding="utf-8")
    assert (
        entry(", instructions_file: prompt.md", path=str(tmp_path / "config.yaml"))["base_instructions"]
        == "Be brief."
    )
    (tmp_path / "empty.md").write_text(" \n", encoding="utf-8")
    with pytest.raises(ConfigError, match="instructions_file: the file is empty"):
        config(", instructions_file: empty.md", path=str(tmp_path / "config.yaml"))


def test_the_tag_changes_with_the_catalog() -> None:
    tags = {
        etag(models_body(config(more))) for more in ("", "", ", context_window: 64000", ", efforts: [low]")
    }
    assert len(tags) == 3 and all(tag.startswith('"') and tag.endswith('"') for tag in tags)


@pytest.mark.parametrize("bundled", [[LITE, CLASSIC], [CLASSIC]])
def test_codex_own_prompt_around_our_facts(bundled: List[Json]) -> None:
    (found,) = with_prompt_of([entry()], bundled)
    assert (found["slug"], found["base_instructions"], found["model_messages"]) == (
        "m",
        "Classic.",
        CLASSIC["model_messages"],
    )
    assert (found["later_field"], found["upgrade"], found["default_reasoning_level"]) == (True, None, "high")


@pytest.mark.parametrize("prompt, kept", [(None, True), ("Mine.", False)])
def test_a_codex_with_nothing_but_code_mode(prompt: Optional[str], kept: bool) -> None:
    told = entry()
    told.pop("default_reasoning_level")
    if prompt:
        told["base_instructions"] = prompt
    (found,) = with_prompt_of(
        [told], [{**CLASSIC, "use_responses_lite": True, "tool_mode": "code_mode_only"}]
    )
    assert (found["use_responses_lite"], found["tool_mode"], "default_reasoning_level" in found) == (
        False,
        None,
        False,
    )
    assert found["base_instructions"] == (prompt or "Classic.") and ("model_messages" in found) == kept
