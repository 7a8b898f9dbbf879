"""What a provider's refusal teaches: the texts, the profile fields that change, and the second request."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import pytest
import yaml
from scripted import ScriptedProvider, error, running, say, served
from tornado.httpclient import AsyncHTTPClient

from rproxy.config.schema import Provider
from rproxy.convert.profile import Profile
from rproxy.upstream.learned_overrides import LearnedOverrides

Json = Dict[str, Any]


def learned(refusal: str, profile: Optional[Json] = None) -> Json:
    """The fields of the profile that a refusal changes."""
    before = Provider(base_url="http://p:1", name="p", profile=Profile().override(profile or {}))
    repairs = LearnedOverrides()
    repairs.learn(before, "m", refusal)
    after = repairs.applied(before, "m").profile
    return {
        name: getattr(after, name)
        for name in Profile.__dataclass_fields__
        if getattr(after, name) != getattr(before.profile, name)
    }


def field(path: str) -> Callable[[Json], Any]:
    def value(fields: Json) -> Any:
        head, *rest = path.split(".")
        found = fields[head]
        for name in rest:
            found = getattr(found, name)
        return found

    return value


CASES = [
    (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        {},
        "max_tokens.field",
        "max_completion_tokens",
    ),
    (
        "max_completion_tokens is not supported",
        {"max_tokens": {"field": "max_completion_tokens"}},
        "max_tokens.field",
        "max_tokens",
    ),
    (
        "messages[0].role: unknown variant `developer`, expected one of `system`, `user`",
        {"developer_role": "developer"},
        "developer_role",
        "system",
    ),
    (
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        {},
        "reasoning.required_on_tool_calls",
        "",
    ),
    (
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 7",
        {"reasoning": {"required_on_tool_calls": ""}},
        "reasoning.required_on_tool_calls",
        " ",
    ),
    ("Thinking mode does not support this tool_choice", {}, "tool_choice.any", ("auto", "none")),
    ("This response_format type is unavailable now", {}, "response_format", ("text", "json_object")),
    (
        """{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': "Input should be 'text' or 'json_object'"}""",
        {},
        "response_format",
        ("text", "json_object"),
    ),
    ("System message must be at the beginning.", {}, "system_position", "first"),
    ("Conversation roles must alternate user/assistant/user/assistant/...", {}, "merge_same_role", True),
    ("Unexpected role 'user' after role 'tool'", {}, "assistant_after_tool", True),
    ("Extra parameters ['stream_options', 'x'] are not allowed", {}, "include_usage", False),
    ("Unrecognized request argument supplied: parallel_tool_calls", {}, "drop", ("parallel_tool_calls",)),
    ("Unsupported parameter: 'temperature'", {}, "drop", ("temperature",)),
    (
        '{"detail":[{"type":"extra_forbidden","loc":["body","user"],"msg":"Extra inputs are not permitted"}]}',
        {},
        "drop",
        ("user",),
    ),
    (
        "Unsupported value: 'temperature' does not support 0.25 with this model. Only the default (1) value is supported.",
        {},
        "drop",
        ("temperature",),
    ),
    ("Reasoning is mandatory for this endpoint and cannot be disabled.", {}, "thinking.disable", None),
    (
        "reasoning_effort: unknown variant `xhigh`, expected one of `low`, `high`, `max`",
        {},
        "thinking.efforts",
        {e: e for e in ("minimal", "low", "medium", "high", "max")},
    ),
    ("This model does not support image input", {}, "modalities", ("text",)),
]


@pytest.mark.parametrize(
    "refusal,profile,path,value", CASES, ids=[case[2] + ": " + case[0][:40] for case in CASES]
)
def test_a_known_refusal_changes_the_profile(
    refusal: str, profile: Json, path: str, value: Any, expect_log: Any
) -> None:
    expect_log("override")
    assert field(path)(learned(refusal, profile)) == value


@pytest.mark.parametrize(
    "refusal", ["Something else is wrong", "Unsupported parameter: 'messages'", "Unknown field: model", ""]
)
def test_other_refusals_teach_nothing(refusal: str) -> None:
    assert learned(refusal) == {}


def test_what_is_learned_holds_for_one_model_of_one_provider(expect_log: Any) -> None:
    expect_log("override")
    provider, repairs = Provider(base_url="http://p:1", name="p"), LearnedOverrides()
    assert repairs.learn(provider, "m", "System message must be at the beginning.") == "system_position"
    assert repairs.applied(provider, "other") is provider
    assert (
        repairs.learn(repairs.applied(provider, "m"), "m", "System message must be at the beginning.") is None
    )


CONFIG = """
server: {{listen_addr: "127.0.0.1:{port}"}}
models: [{{model: m, downstream_model: new, provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY}}}}]
"""


@pytest.mark.timeout(seconds=30)
async def test_a_request_is_repaired_once_and_the_next_one_is_right_at_once(tmp_path: Path) -> None:
    provider = ScriptedProvider(strict=False)
    refusal = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    provider.turns += [
        [error(400, refusal)],
        [error(400, "Unsupported parameter: 'temperature'")],
        [say("First.")],
        [say("Second.")],
    ]
    client = AsyncHTTPClient(force_instance=True)
    body = json.dumps({"model": "m", "input": "hi", "max_output_tokens": 50, "temperature": 0.5})
    async with running(tmp_path, provider.base_url, config=CONFIG) as rproxy:
        for expected in (b"First.", b"Second."):
            assert (
                expected
                in (await client.fetch(rproxy.base_url + "/responses", method="POST", body=body)).body
            )
        log = rproxy.log.read_text()
    assert "max_completion_tokens" in log and "repaired" in log
    assert len(provider.requests) == 4
    for request in provider.requests[2:]:
        assert (
            request["max_completion_tokens"] == 50
            and "max_tokens" not in request
            and "temperature" not in request
        )
    client.close()
    await provider.close()


def test_what_is_remembered_is_bounded(expect_log: Any) -> None:
    """A model name with a glob may lead to new provider objects for ever."""
    expect_log("override")
    repairs, kept = LearnedOverrides(), []
    repairs.learn(Provider(base_url="http://p:1", name="p"), "m", CASES[0][0])
    for _ in range(1000):
        provider = Provider(base_url="http://p:1", name="p")
        kept.append(weakref.ref(provider))
        fitted = repairs.applied(provider, "m")
        assert fitted.profile.max_tokens.field == "max_completion_tokens"
        assert repairs.applied(provider, "m") is fitted
    assert sum(reference() is not None for reference in kept) <= 256


def test_the_log_shows_an_override_that_works_as_it_stands(log_guard: Any) -> None:
    log_guard.expect("override")
    before = Provider(base_url="http://p:1", name="p")
    LearnedOverrides().learn(before, "m", "Unrecognized request argument supplied: key1")
    line = log_guard.records[-1].getMessage()
    shown = yaml.safe_load(line[line.index("override:") :])
    assert before.profile.override(shown["override"]).drop == ("key1",)


@pytest.mark.timeout(seconds=30)
async def test_repairs_end(expect_log: Any) -> None:
    expect_log("override")
    provider = ScriptedProvider(strict=False)
    provider.turns += [[error(400, f"Unrecognized request argument supplied: key{i}")] for i in range(9)]
    client = AsyncHTTPClient(force_instance=True)
    async with served(provider.base_url, config=CONFIG) as base_url:
        answer = await client.fetch(
            base_url + "/responses", method="POST", body='{"model": "m", "input": "hi"}', raise_error=False
        )
    assert answer.code == 400 and len(provider.requests) == 4
    client.close()
    await provider.close()
