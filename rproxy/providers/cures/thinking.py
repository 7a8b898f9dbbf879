"""Cures for thinking: how much of it is requested, and how earlier thinking is sent back."""

from __future__ import annotations

import re
from typing import Any, Iterator, Sequence

from ...convert.profile import EFFORTS, Thinking
from ...convert.request.chat import NEAREST
from ...types import Json
from ..refusal_words import Reading, normalized
from ..sent import THINKING_FIELDS, Sent
from .ladder import Cure, allowed, blames, objects, says

LEVELS = (*EFFORTS, "ultra")


def thinking(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """Another level, then no thinking with tools, then no keys for thinking at all."""
    rule, level = sent.profile.thinking, sent.effort
    levels = allowed(readings, LEVELS)
    if objects(readings, "mandatory"):
        yield Cure("not off", {"thinking": {"disable": None}})
    if sent.tools and rule.with_tools and blames(readings, r"\btools?\b|function call"):
        off = rule.disable or {"reasoning_effort": "none"}
        yield Cure("off beside tools", {"thinking": {"with_tools": False, "disable": dict(off)}})
    if level is not None and (levels or says(readings, rf"\b{re.escape(normalized(level))}\b")):
        yield from _levels(rule, level, levels)
    named = sorted(key for key in sent.thinking_keys if any(_names_key(reading, key) for reading in readings))
    if named and len(named) < len(sent.thinking_keys):
        yield Cure("without " + ", ".join(named), {"thinking": _without_keys(rule, named)})
    yield Cure("no keys", {"thinking": {"enable": {}, "disable": {}, "effort": None, "with_tools": True}})


def _names_key(reading: Reading, key: str) -> bool:
    """``chat_template`` also means ``chat_template_kwargs``."""
    start = normalized(key).rsplit(" kwargs", 1)[0]
    return reading.blames(rf"\b{re.escape(start)}\b") or key in reading.path


def _levels(rule: Thinking, level: str, permitted: Sequence[str]) -> Iterator[Cure]:
    """Each of our levels becomes the nearest one that the provider accepts, or may accept."""
    left = permitted or [word for word in rule.efforts.values() if word != level]
    words = [word for word in LEVELS if word in left and word != "none"] or [w for w in left if w == "none"]
    if not words:
        return
    change: Json = {"efforts": {name: _nearest(word, words) for name, word in rule.efforts.items()}}
    if level == "none":
        change["disable"] = None
    if words == ["none"]:
        change["disable"] = _nested(rule.effort or "reasoning_effort", "none")
    yield Cure("another level", {"thinking": change})


def _nearest(word: str, words: Sequence[str]) -> str:
    seen = set()
    while word not in words and word not in seen:
        seen.add(word)
        word = NEAREST.get(word, "medium")
    return word if word in words else words[0]


def _without_keys(rule: Thinking, keys: Sequence[str]) -> Json:
    """A way of thinking without some keys of the request."""
    change: Json = {"enable": {key: value for key, value in rule.enable.items() if key not in keys}}
    if rule.disable is not None:
        change["disable"] = {key: value for key, value in rule.disable.items() if key not in keys}
    if rule.effort and rule.effort.split(".")[0] in keys:
        change["effort"] = None
    return change


def _nested(dotted: str, value: Any) -> Json:
    for key in reversed(dotted.split(".")):
        value = {key: value}
    result: Json = value
    return result


# ---- Earlier thinking
WANTED = r"passed back|sent back|must be (?:kept|preserved)"
UNWANTED = r"not (?:support|allow|permit)|unsupported|extra|unexpected|unknown"


def earlier_thinking(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """If it is missing: an empty text, then a blank. If it is refused: another field, then none."""
    missing = objects(readings, "missing") or says(readings, WANTED)
    yield from _required(sent) if missing and not says(readings, UNWANTED) else _elsewhere(sent, readings)


def _required(sent: Sent) -> Iterator[Cure]:
    replay = "always" if sent.profile.reasoning.replay == "never" else sent.profile.reasoning.replay
    for text in ("", " "):
        yield Cure(f"at least {text!r}", {"reasoning": {"required_on_tool_calls": text, "replay": replay}})
    yield Cure("always", {"reasoning": {"required_on_tool_calls": " ", "replay": "always"}})


def _elsewhere(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    rule = sent.profile.reasoning
    fields = (rule.field, *rule.also)
    named = [f for f in fields if any(normalized(f) in r.words or f in r.path for r in readings)]
    left = [f for f in fields if f not in named and f in THINKING_FIELDS]
    others = [f for f in ("reasoning", "reasoning_content") if f not in fields]
    if named and (left or others):
        field, *also = left or others[:1]
        change = {"field": field, "also": also, "required_on_tool_calls": None}
        yield Cure("another field", {"reasoning": change})
    yield Cure("never", {"reasoning": {"replay": "never", "required_on_tool_calls": None}})
