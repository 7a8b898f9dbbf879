"""Cures for single fields of a request: the limit on the answer, streaming, and all fields that may be left
out.
"""

from __future__ import annotations

import re
from typing import Iterator, List, Sequence

from ..refusal_words import Reading, normalized
from ..sent import Sent
from .ladder import Cure, allowed, dropped, objects, says, without_values

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MIN_LIMIT = 256  # tokens; a lower number in a refusal means something else
TOO_LARGE = (
    r"too (?:large|big|high|many)|at most|maximum|less than|exceed|range|\bmax\b|<=|≤|up to"
    r"|not be (?:greater|larger|more)"
)


def limit(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """A lower value, the other field, then none."""
    key = next(key for key in LIMITS if key in sent.body)
    numbers = [n for reading in readings for n in _numbers(reading.text) if MIN_LIMIT <= n < sent.body[key]]
    if numbers and says(readings, TOO_LARGE):
        yield Cure("lower", {"max_tokens": {"most": max(numbers)}})
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}.get(key)
    if other is not None and (objects(readings, "unsupported") or allowed(readings, [other])):
        yield Cure(other, {"max_tokens": {"field": other}})
    yield from dropped(sent, [key])


def _numbers(text: str) -> List[int]:
    found = re.findall(r"(?<![\w.])\d[\d,]{0,11}(?![\w.]*\w)", text)
    return [int(number.replace(",", "")) for number in found]


def streaming_only(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("always", {"non_stream": "force_stream"})


def streaming(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("never", {"stream": "never"})


# ---- Fields without a subject of their own
# The provider accepts a single value, whatever the client sends.
ANY_VALUE = (
    r"only (?:the )?default|default .{0,12}value is supported|\bfixed\b"
    r"|only \W?\d+(?:\.\d+)?\W? is (?:allowed|supported)"
)
NEEDED = frozenset(["model", "messages", "input", "tools", "stream", "instructions"])
# Fields whose names are common words, too.
PLAIN = frozenset(
    (
        "user", "stop", "text", "include", "store", "prediction", "metadata", "reasoning", "truncation",
        "seed", "thinking", "think",
    )
)  # fmt: skip


def fields(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """The request without the fields that are named, or without one value of them if only that is refused."""
    named = [key for key in optional_fields(sent) if any(names_field(reading, key) for reading in readings)]
    if "stream_options" in named:
        yield Cure("no usage", {"include_usage": False})
    if "logprobs" in named and "top_logprobs" in sent.body:
        named.append("top_logprobs")
    if named and not objects(readings, "unsupported") and not says(readings, ANY_VALUE):
        yield without_values(sent, named)
    yield from dropped(sent, [nested for key in named for nested in _innermost(sent, readings, key)])


def _innermost(sent: Sent, readings: Sequence[Reading], key: str) -> List[str]:
    """The innermost field that is named: ``reasoning.summary`` rather than all of ``reasoning``."""
    value = sent.body.get(key)
    nested = [f"{key}.{name}" for name in value] if isinstance(value, dict) else []
    named = [name for name in nested if any(_names_nested(reading, name) for reading in readings)]
    return named or [key]


def _names_nested(reading: Reading, dotted: str) -> bool:
    return normalized(dotted) in reading.blamed or reading.path[:2] == tuple(dotted.split("."))


def optional_fields(sent: Sent) -> List[str]:
    """The fields of the request that may be left out and have no subject of their own."""
    own = {"tool_choice", "response_format", *LIMITS}
    return [key for key in sent.body if key not in NEEDED | own]


def names_field(reading: Reading, key: str) -> bool:
    """Does a complaint name this field?"""
    word = normalized(key)
    if reading.path and word in (normalized(reading.path[0]), normalized(".".join(reading.path))):
        return True
    return reading.marks(key) or key not in PLAIN and reading.blames(rf"\b{re.escape(word)}\b")
