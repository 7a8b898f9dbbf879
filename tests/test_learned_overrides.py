"""What refusals have taught: for whom it holds, for how long, and how much of it there is room for."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any, Iterable, List

import yaml

from rproxy.config.provider_cache import MAX_ENTRIES
from rproxy.config.schema import Provider
from rproxy.providers.cures.ladder import Cure
from rproxy.providers.diagnosis import Diagnosis
from rproxy.upstream.learned_overrides import (
    LIFETIME,
    MAX_LEARNED,
    MAX_MODELS,
    MAX_OVERRIDE,
    MAX_OWNERS,
    MAX_PARTS,
    LearnedOverrides,
)

P = Provider(base_url="http://p:1", name="p")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def form(**override: Any) -> Diagnosis:
    return Diagnosis("a field", "fields", Cure("r", override))


def parts(fingerprints: Iterable[str]) -> Diagnosis:
    return Diagnosis("images and files", "content", Cure("r", refused=frozenset(fingerprints)))


def test_a_form_holds_for_one_model_of_one_provider(expect_log: Any) -> None:
    expect_log(r'p refused a request for m .*override: {"drop": \["seed"\]}')
    memory = LearnedOverrides(Clock())
    memory.keep("me", P, "m", [form(drop=["seed"])])
    assert memory.applied(P, "m").profile.drop == ("seed",)
    assert memory.applied(P, "m") is memory.applied(P, "m")
    others = [Provider(base_url="http://q:1", name="p"), Provider(base_url="http://p:1", name="q"), P]
    for provider, model in zip(others, ("m", "m", "other")):
        assert memory.applied(provider, model) is provider
    wired = Provider(base_url="http://p:1", name="p", wire="responses")
    assert memory.applied(wired, "m") is wired


def test_content_holds_for_its_owner_alone(expect_log: Any) -> None:
    expect_log("a part of a request")
    memory = LearnedOverrides(Clock())
    memory.keep("me", P, "m", [parts("ab")])
    assert memory.refused("me", P, "m") == {"a", "b"}
    assert memory.refused("you", P, "m") == memory.refused("me", P, "other") == frozenset()
    assert memory.applied(P, "m") is P


def test_nothing_holds_for_ever(expect_log: Any) -> None:
    expect_log("override|a part of a request")
    clock = Clock()
    memory = LearnedOverrides(clock)
    memory.keep("me", P, "m", [form(drop=["seed"]), parts("a")])
    clock.now += LIFETIME / 2
    memory.keep("me", P, "m", [form(include_usage=False)])
    assert [known.override for known in memory.learned(P, "m")] == [
        {"drop": ["seed"]},
        {"include_usage": False},
    ]
    clock.now += LIFETIME / 2
    assert memory.applied(P, "m").profile.drop == ()
    assert memory.applied(P, "m").profile.include_usage is False
    assert memory.refused("me", P, "m") == frozenset()
    clock.now += LIFETIME / 2
    assert memory.applied(P, "m") is P


def test_the_log_shows_an_override_that_works_as_it_stands(log_guard: Any) -> None:
    log_guard.expect("override")
    LearnedOverrides(Clock()).keep("me", P, "m", [form(drop=["seed"], thinking={"disable": None})])
    line = log_guard.records[-1].getMessage()
    shown = yaml.safe_load(line[line.index("override:") :])
    assert P.profile.override(shown["override"]).drop == ("seed",)


def test_what_two_turns_learn_at_the_same_time_adds_up(expect_log: Any) -> None:
    expect_log("override")
    memory = LearnedOverrides(Clock())
    provider = replace(P, profile=P.profile.override({"drop": ["user"], "drop_keywords": {"tools": ["x"]}}))
    memory.keep("me", provider, "m", [form(drop=["seed"], drop_keywords={"tools": ["minimum"]})])
    memory.keep("me", provider, "m", [form(drop=["stop"], schema=["inline_refs"])])
    profile = memory.applied(provider, "m").profile
    assert profile.drop == ("user", "seed", "stop") and profile.schema == ("inline_refs",)
    assert profile.drop_keywords.tools == ("minimum", "x")


def test_what_is_learned_twice_is_kept_once(expect_log: Any) -> None:
    expect_log("override")
    memory = LearnedOverrides(Clock())
    for _ in range(2):
        memory.keep("me", P, "m", [form(drop=["seed"])])
    assert len(memory.learned(P, "m")) == 1


def test_what_is_remembered_is_bounded(expect_log: Any) -> None:
    """A model name with a glob may lead to new provider objects for ever, and clients send new content."""
    expect_log("override|a part of a request")
    memory = LearnedOverrides(Clock())
    memory.keep("me", P, "m", [form(drop=["seed"])])
    kept: List[weakref.ref[Provider]] = []
    for _ in range(2 * MAX_ENTRIES):
        provider = Provider(base_url="http://p:1", name="p")
        kept.append(weakref.ref(provider))
        assert memory.applied(provider, "m") is memory.applied(provider, "m")
    assert sum(reference() is not None for reference in kept) <= MAX_ENTRIES
    memory.keep("me", P, "m", [form(drop=[str(n)]) for n in range(2 * MAX_LEARNED)])
    assert len(memory.learned(P, "m")) == MAX_LEARNED
    memory.keep("me", P, "m", [parts(map(str, range(2 * MAX_PARTS)))])
    assert len(memory.refused("me", P, "m")) == MAX_PARTS
    for n in range(MAX_OWNERS):
        memory.keep(str(n), P, "m", [parts("a")])
    assert memory.refused("me", P, "m") == frozenset() and memory.refused("0", P, "m") == {"a"}
    for n in range(MAX_MODELS):
        memory.keep("me", P, f"model-{n}", [form(drop=["seed"])])
    assert not memory.learned(P, "m") and memory.learned(P, "model-0")
    memory.keep("me", P, "long", [form(drop=["x" * MAX_OVERRIDE])])
    assert not memory.learned(P, "long")
