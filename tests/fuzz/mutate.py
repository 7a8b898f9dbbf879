"""Changes to bytes and to JSON values, drawn with a seeded generator."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Callable, List, Sequence

TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xe2\x80\xa8", b" " * 70),
    *(b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u", b"\\ud83d", b":", b",", b"null", b"NaN", b"1e999", b"-0"),
    *(b"9" * 40, b"[" * 300, b'{"a":' * 300, b"data:", b"data: [DONE]\n\n", b"event: error\n", b": ping\n\n"),
    *(b"0\r\n\r\n", b"ffffffff\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"<think>",
        b"</think>",
        b"<tool_call>",
        b"```json\n",
        b"&a ",
        b"*a",
        b"!!python/object:",
        b"- ",
        b"\t",
    ),
]
VALUES: List[Any] = [
    *(None, True, False, 0, -1, 1 << 70, 0.5, -1e300, "", " ", "a", "\0", "\ud800", "\u2028", "文😀"),
    *([], {}, [[]], [None], {"": None}, {"type": "text"}, ["a", 1], "auto", "none", "x" * 5000),
    "data:image/png;base64,aGk=",
]


def mutated(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """``data`` after one to six changes; pieces may come from ``others``."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(_CHANGES)(rng, data, others)
    return data


def _span(rng: Random, data: bytes) -> slice:
    begin = rng.randint(0, len(data))
    return slice(begin, min(len(data), begin + rng.choice((1, 1, 2, 4, 16, 64, 400))))


def _replace(rng: Random, data: bytes, new: bytes) -> bytes:
    cut = _span(rng, data)
    return data[: cut.start] + new + data[cut.stop :]


_CHANGES: List[Callable[[Random, bytes, Sequence[bytes]], bytes]] = [
    lambda rng, data, others: _replace(rng, data, b""),
    lambda rng, data, others: _replace(rng, data, rng.randbytes(rng.choice((1, 1, 2, 8)))),
    lambda rng, data, others: _replace(rng, data, rng.choice(TOKENS)),
    lambda rng, data, others: _insert(rng, data, rng.choice(TOKENS)),
    lambda rng, data, others: _insert(rng, data, data[_span(rng, data)]),
    lambda rng, data, others: _insert(rng, data, data[_span(rng, data)] * rng.randint(2, 40)),
    lambda rng, data, others: data[: rng.randint(0, len(data))],
    lambda rng, data, others: _spliced(rng, data, rng.choice(others)),
]


def _insert(rng: Random, data: bytes, new: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + new + data[at:]


def _spliced(rng: Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def mutated_json(rng: Random, value: Any, others: Sequence[Any]) -> Any:
    """A copy of a JSON value after one to six changes somewhere inside."""
    value = _copy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        holders = [holder for holder in _holders(value) if holder]
        if not holders:
            return rng.choice(VALUES)
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        change = rng.randrange(6)
        if change == 0:
            del holder[key]
        elif change == 1:
            holder[key] = [holder[key]] * rng.choice((1, 2, 30))
        elif change == 2 and isinstance(holder, dict):
            holder[rng.choice((str(key) + "x", "type", "id", "content", ""))] = holder.pop(key)
        elif change == 3:
            holder[key] = _copy(rng.choice(_leaves(rng.choice(others)) or VALUES))
        else:
            holder[key] = _copy(rng.choice(VALUES))
    return value


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _holders(value: Any) -> List[Any]:
    """The objects and lists in a value."""
    found, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (dict, list)):
            found.append(one)
            waiting += one.values() if isinstance(one, dict) else one
    return found


def _leaves(value: Any) -> List[Any]:
    """Everything that stands in an object or a list of a value."""
    return [
        inner
        for holder in _holders(value)
        for inner in (holder.values() if isinstance(holder, dict) else holder)
    ]


def smaller(data: bytes, fails: Callable[[bytes], bool], tries: int = 400) -> bytes:
    """A part of ``data`` that still fails, found by leaving pieces out."""
    size = len(data) // 2
    while size and tries > 0:
        at = 0
        while at < len(data) and tries > 0:
            tries -= 1
            shorter = data[:at] + data[at + size :]
            if fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data
