"""JSON and server-sent events as rproxy writes them: compact UTF-8 that every parser accepts."""

from __future__ import annotations

from typing import Any, Dict, Sequence, cast

from ..types import Event
from .json_encoder import encode
from .surrogates import mend

DONE = b"data: [DONE]\n\n"

_MAX_DEPTH = 200  # deeper than anything meaningful, but far below the interpreter's recursion limit


class _Written(Dict[str, Any]):
    """An event with its encoding."""

    __slots__ = ("text",)

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.text = _text(event)


def written(event: Event) -> Event:
    """An event that is encoded already: for when there is time before it is sent."""
    return cast(Event, _Written(event))


def encode_json(obj: Any) -> bytes:
    """``obj`` as compact UTF-8 JSON that every parser accepts: without surrogates, and with null for NaN and
    Infinity.

    :raises TypeError: JSON cannot express it
    """
    return _utf8(_text(obj))


def encode_sse(events: Sequence[Event]) -> bytes:
    """Responses events as one block of server-sent events, each ``event: <type>`` and ``data: <json>``."""
    return _utf8("".join([f"event: {event['type']}\ndata: {_text(event)}\n\n" for event in events]))


def _text(obj: Any) -> str:
    if type(obj) is _Written:
        return obj.text
    try:
        return encode(obj)
    except (ValueError, RecursionError):
        return encode(_tamed(obj, _MAX_DEPTH))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return mend(text).encode()


def _tamed(value: Any, depth: int) -> Any:
    """A copy without the numbers that JSON lacks; what nests deeper than ``depth`` becomes null."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == 0:
        return None
    if isinstance(value, dict):
        return {key: _tamed(inner, depth - 1) for key, inner in value.items()}
    return [_tamed(inner, depth - 1) for inner in value]
