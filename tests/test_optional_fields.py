"""Fields that only some providers know: what is left out of them is named, and warned of once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from api import site
from scripted import error, say

from rproxy.convert.request.chat import input_items, to_chat_request
from rproxy.convert.request.responses import to_responses_request
from rproxy.providers.profiles import choose_profile
from rproxy.service import stats
from rproxy.service.stats import FieldWarnings, TurnStats

Json = Dict[str, Any]
FIELDS: Json = {
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "service_tier": "flex",
    "metadata": {"a": "b"},
    "prediction": {"type": "content", "content": "as before"},
    "text": {"verbosity": "low"},
}
IDENTIFIER = {"safety_identifier": "s"}
NAMES = {*FIELDS, "verbosity"} - {"text"}
# title -> (profile, override, request, what is left out)
LEFT_OUT: Dict[str, Tuple[str, Json, Json, List[str]]] = {
    "nothing": ("generic", {}, {}, []),
    "the identifier is the user": ("generic", {}, FIELDS, sorted(NAMES - {"safety_identifier"})),
    "the identifier beside a user": ("generic", {}, {"user": "u", **IDENTIFIER}, ["safety_identifier"]),
    "the identifier where users are unknown": ("mistral", {}, IDENTIFIER, ["safety_identifier"]),
    "metadata, which OpenAI stores only": ("openai", {}, FIELDS, ["metadata"]),
    "what the user takes back": (
        "openai",
        {"drop": ["verbosity"], "optional_fields": ["metadata", "verbosity"]},
        {"metadata": {"a": "b"}, "text": {"verbosity": "low"}},
        ["verbosity"],
    ),
    "defaults": ("generic", {}, {"service_tier": "auto", "metadata": {}, "text": {"verbosity": None}}, []),
    "another default": ("generic", {}, {"service_tier": "default", "prompt_cache_key": ""}, []),
}  # fmt: skip


@pytest.mark.parametrize("title", LEFT_OUT)
def test_what_a_chat_request_leaves_out(title: str) -> None:
    name, override, request, expected = LEFT_OUT[title]
    profile = choose_profile(name, "http://127.0.0.1:1/v1", "up").override(override)
    conversion = to_chat_request(request, input_items({"input": "hi"}), profile, downstream_model="up")
    assert sorted(conversion.left_out) == expected and conversion.warnings == []
    assert all(name not in conversion.body for name in expected)


@pytest.mark.parametrize(
    "override, expected", [({}, ["prediction"]), ({"drop": ["metadata"]}, ["metadata", "prediction"])]
)
def test_what_a_responses_request_leaves_out(override: Json, expected: List[str]) -> None:
    profile = choose_profile("openai", "http://127.0.0.1:1/v1", "up").override(override)
    conversion = to_responses_request(FIELDS, input_items({"input": "hi"}), profile, downstream_model="up")
    assert sorted(conversion.left_out) == expected
    assert conversion.body["text"] == {"verbosity": "low"} and conversion.body["prompt_cache_key"] == "k"


async def test_the_log_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rproxy.turn")
    request = {"model": "gpt-5.5", "input": "hi", "prompt_cache_key": "k"}
    async with site(tmp_path) as (provider, api, _):
        # The second attempt of the first turn tells it as well.
        provider.turns += [[error(503, "busy", {"Retry-After": "0"})], [say("One.")], [say("Two.")]]
        provider.turns += [[say("Three.")]]
        for _ in range(2):
            await api("POST", "/responses", request)
        await api("POST", "/responses", {**request, "service_tier": "priority"})
    lines = [record.getMessage() for record in caplog.records if record.name == "rproxy.turn"]
    assert ["prompt_cache_key left out" in line for line in lines] == [True, False, False]
    assert ["service_tier left out" in line for line in lines] == [False, False, True]


def test_each_provider_and_model_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MAX_GIVEN", 2)
    warnings = FieldWarnings()
    turn = TurnStats(provider="a", left_out=["metadata"])
    for model in ("m", "n"):
        assert len(warnings.of(turn, model)) == 1 and warnings.of(turn, model) == []
    assert len(warnings.of(TurnStats(provider="b", left_out=["metadata"]), "n")) == 1
    assert warnings.of(turn, "o") and warnings.of(turn, "m")  # bounded: all of it is forgotten
