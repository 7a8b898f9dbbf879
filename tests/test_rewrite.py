"""Rewrite rules: what a path means, what each rule does, and that nothing is raised or changed in place."""

from __future__ import annotations

import copy
import json
from typing import Any, Dict, List

import pytest
from histories import JSON
from hypothesis import given
from hypothesis import strategies as st

from rproxy.config.load import parse_config
from rproxy.convert.request.rewrite import (
    Rule,
    parse_path,
    remove_rule,
    rename_rule,
    replace_rule,
    rewritten,
    set_rule,
)

Json = Dict[str, Any]
REQUEST: Json = {
    "model": "m",
    "n": None,
    "messages": [{"role": "user", "content": "a b a"}, {"role": "tool", "content": ["a", {"text": "a"}]}],
}


def test_paths() -> None:
    assert parse_path("a") == ("a",)
    assert parse_path("a.b-c[0][-1].d e[*].f") == ("a", "b-c", 0, -1, "d e", None, "f")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".a",
        "a.",
        "a..b",
        "[0]",
        "[*].a",
        "a[",
        "a[x]",
        "a[0",
        "a]",
        "a[0]b",
        "a[1234567]",
        ".".join("a" * 33),
    ],
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError):
        parse_path(text)


def on(rule: Rule, request: Json) -> Json:
    before = copy.deepcopy(request)
    after = rewritten(request, [rule])
    assert request == before, "the request was changed in place"
    return after


@pytest.mark.parametrize(
    "path, value, expected",
    [
        ("a", 1, {"a": 1, "x": {"y": [1, 2]}, "n": None}),
        ("a", None, {"a": None, "x": {"y": [1, 2]}, "n": None}),
        ("x.y", "z", {"x": {"y": "z"}, "n": None}),
        ("x.y[0]", 9, {"x": {"y": [9, 2]}, "n": None}),
        ("x.y[-1]", 9, {"x": {"y": [1, 9]}, "n": None}),
        ("x.y[*]", 9, {"x": {"y": [9, 9]}, "n": None}),
        ("n.o.p", 1, {"x": {"y": [1, 2]}, "n": {"o": {"p": 1}}}),
        ("new.b", 1, {"x": {"y": [1, 2]}, "n": None, "new": {"b": 1}}),
        ("x.y[2]", 9, None),
        ("x.y[-3]", 9, None),
        ("x.y.z", 9, None),
        ("x[0]", 9, None),
        ("q[0].r", 9, None),
        ("x.y[0].z", 9, None),
    ],
)
def test_set(path: str, value: Any, expected: Any) -> None:
    request: Json = {"x": {"y": [1, 2]}, "n": None}
    assert on(set_rule(parse_path(path), value), request) == (request if expected is None else expected)


@pytest.mark.parametrize(
    "path, expected",
    [
        ("model", {key: value for key, value in REQUEST.items() if key != "model"}),
        ("messages[0]", {**REQUEST, "messages": REQUEST["messages"][1:]}),
        ("messages[*]", {**REQUEST, "messages": []}),
        ("messages[*].content", {**REQUEST, "messages": [{"role": "user"}, {"role": "tool"}]}),
        ("nothing", REQUEST),
        ("n.x", REQUEST),
        ("model[0]", REQUEST),
    ],
)
def test_remove(path: str, expected: Json) -> None:
    assert on(remove_rule(parse_path(path)), REQUEST) == expected


@pytest.mark.parametrize(
    "path, name, expected",
    [
        ("a", "c", {"c": 1, "b": [{"x": 2, "y": 3}]}),
        ("a", "a", {"a": 1, "b": [{"x": 2, "y": 3}]}),
        ("a", "b", {"b": 1}),
        ("b[*].x", "y", {"a": 1, "b": [{"y": 2}]}),
        ("z", "c", {"a": 1, "b": [{"x": 2, "y": 3}]}),
        ("a.q", "c", {"a": 1, "b": [{"x": 2, "y": 3}]}),
    ],
)
def test_rename(path: str, name: str, expected: Json) -> None:
    assert on(rename_rule(parse_path(path), name), {"a": 1, "b": [{"x": 2, "y": 3}]}) == expected


def test_replace() -> None:
    assert (
        on(replace_rule(parse_path("messages[*].content"), "(a)", r"<\1>"), REQUEST)["messages"][0]["content"]
        == "<a> b <a>"
    )
    assert on(replace_rule(parse_path("messages[*].content[*].text"), "a", ""), REQUEST)["messages"][1][
        "content"
    ] == ["a", {"text": ""}]
    assert on(replace_rule(parse_path("n"), ".", "x"), REQUEST) == REQUEST


@pytest.mark.parametrize("pattern, replacement", [("(", ""), ("a", "\\1"), ("a", "\\g<x>")])
def test_a_pattern_that_cannot_be_used(pattern: str, replacement: str) -> None:
    with pytest.raises(ValueError):
        replace_rule(("a",), pattern, replacement)


def test_only_keys_can_be_renamed() -> None:
    with pytest.raises(ValueError):
        rename_rule(("a", 0), "b")


def test_rules_of_the_configuration_act_in_their_order_the_providers_first() -> None:
    text = """
models:
  - model: m
    provider:
      base_url: http://h
      rewrite: [{set: {a: 1, b.c: [x]}}, {remove: [temperature, "messages[0].name"]}]
    rewrite:
      - rename: {a: z}
      - replace: {path: "messages[*].content", pattern: "(?i)HELLO", with: bye}
      - replace: {path: "b.c[0]", pattern: x, with: ""}
"""
    model = parse_config(text.encode(), "c", {}).route("m")
    assert (
        model is not None and model.resolved("m").providers[0].rewrite == model.providers[0].rewrite
    )  # not twice
    request = {"temperature": 1, "messages": [{"name": "n", "content": "Hello"}]}
    assert rewritten(request, model.providers[0].rewrite) == {
        "messages": [{"content": "bye"}],
        "b": {"c": [""]},
        "z": 1,
    }


STEPS = st.sampled_from(["a", "b", "type", "[0]", "[-1]", "[*]", "[7]"])
PATHS = st.lists(STEPS, min_size=1, max_size=4).map(
    lambda steps: "".join(s if s[0] == "[" else "." + s for s in ["a", *steps])[1:]
)
RULES: Any = PATHS.map(parse_path).flatmap(
    lambda path: st.one_of(
        st.builds(set_rule, st.just(path), JSON),
        st.builds(remove_rule, st.just(path)),
        st.builds(rename_rule, st.just((*path, "b")), st.sampled_from(["a", "b", "c"])),
        st.builds(
            replace_rule,
            st.just(path),
            st.sampled_from(["", "a", "^.*$", "(.)"]),
            st.sampled_from(["", "x", r"\g<0>"]),
        ),
    )
)


@given(st.dictionaries(st.sampled_from(["a", "b", "type"]), JSON), st.lists(RULES, max_size=5))
def test_no_rule_raises_or_changes_the_request_in_place(request: Json, rules: List[Rule]) -> None:
    before = copy.deepcopy(request)
    after = rewritten(request, rules)
    json.dumps(after)
    assert isinstance(after, dict) and request == before
