"""JSON of large requests in steps, between which the event loop can do other work
(:mod:`rproxy.cooperative`).

Each function is a generator that yields after each item of the long list that makes a request large, and
returns the result.  A single string is still one step: a millisecond or two for an image of a megabyte.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Generator, List, Mapping, Tuple

from ..types import Json
from .sse import encode_json

MANY = 20  # a list with more items is worth several steps
_mark = re.compile(r"[ \t\n\r]*(.)[ \t\n\r]*").match


def encode_steps(
    value: Mapping[str, Any], encode: Callable[[Any], bytes] = encode_json
) -> Generator[None, None, bytes]:
    """``encode(value)`` of an object, byte for byte.

    :param encode: writes any value as JSON without blanks
    """
    if not any(type(inner) is list and len(inner) > MANY for inner in value.values()):
        return encode(value)
    pieces: List[bytes] = []
    for key, inner in value.items():
        pieces.append(b"%b%b:" % (b"," if pieces else b"", encode(key)))
        if type(inner) is not list or not inner:
            pieces.append(encode(inner))
        else:
            for number, item in enumerate(inner):
                pieces += (b"," if number else b"[", encode(item))
                yield
            pieces.append(b"]")
        yield
    return b"{%b}" % b"".join(pieces)


def parse_steps(text: str, parse_constant: Callable[[str], Any]) -> Generator[None, None, Json]:
    """``json.loads`` of an object.

    :raises ValueError: the text is not an object; ``json.loads`` can say why
    """
    decoder = json.JSONDecoder(parse_constant=parse_constant)
    result: Json = {}
    at, more = _next(text, 0, "{")
    while more:
        key, at = decoder.raw_decode(text, at)
        if type(key) is not str:
            raise ValueError
        at, _ = _next(text, at, ":")
        if text[at : at + 1] == "[":
            result[key], at = yield from _list_steps(text, at, decoder)
        else:
            result[key], at = decoder.raw_decode(text, at)
            yield
        at, more = _next(text, at, ",}")
        if not more and text[at:]:
            raise ValueError
    return result


def _list_steps(
    text: str, at: int, decoder: json.JSONDecoder
) -> Generator[None, None, Tuple[List[Any], int]]:
    items: List[Any] = []
    at, more = _next(text, at, "[")
    if text[at : at + 1] == "]":
        return items, at + 1
    while more:
        item, at = decoder.raw_decode(text, at)
        items.append(item)
        yield
        at, more = _next(text, at, ",]")
    return items, at


def _next(text: str, at: int, marks: str) -> Tuple[int, bool]:
    """Read one of these marks.

    :returns: where the next token begins, and whether it was the first of the marks
    """
    match = _mark(text, at)
    if match is None or match[1] not in marks:
        raise ValueError
    return match.end(), match[1] == marks[0]
