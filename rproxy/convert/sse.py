"""JSON and server-sent events as rproxy writes them: compact UTF-8 that any parser takes."""

from __future__ import annotations

import json
from typing import Any, Dict, Sequence

from ..types import Json
from .surrogates import mend

DONE = b"data: [DONE]\n\n"

_MAX_DEPTH = 200  # deeper than anything meaningful, far below the interpreter's recursion limit

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
# What JSONEncoder.encode builds anew in each call, which is half of its cost; not there in every Python.
_make = getattr(json.encoder, "c_make_encoder", None)
_parts = _make and _make(
    None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False
)


class Written(Dict[str, Any]):
    """An event whose JSON is ready."""

    __slots__ = ("text",)

    def __init__(self, event: Json) -> None:
        super().__init__(event)
        self.text = _text(event)


def encode_json(obj: Any) -> bytes:
    """``obj`` as compact UTF-8 JSON that any parser takes: no surrogates, no NaN or Infinity (they become
    null).

    :raises TypeError: for something that JSON cannot express
    """
    return _utf8(_text(obj))


def encode_sse(events: Sequence[Json]) -> bytes:
    """Responses events as one block of server-sent events, each ``event: <type>`` and ``data: <json>``; b""
    for no events."""
    return _utf8("".join(["event: {}\ndata: {}\n\n".format(event["type"], _text(event)) for event in events]))


def _text(obj: Any) -> str:
    if type(obj) is Written:
        return obj.text
    try:
        return "".join(_parts(obj, 0)) if _parts else _encoder.encode(obj)
    except (ValueError, RecursionError):
        return _encoder.encode(_tame(obj, _MAX_DEPTH))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return mend(text).encode()


def _tame(value: Any, depth: int) -> Any:
    """A copy without the numbers that JSON lacks, cut off where it nests deeper than ``depth``."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == 0:
        return None
    if isinstance(value, dict):
        return {key: _tame(inner, depth - 1) for key, inner in value.items()}
    return [_tame(inner, depth - 1) for inner in value]
