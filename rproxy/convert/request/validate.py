"""The types of a create request's fields: a wrong type is a clear 400 before anything else happens.

Unknown fields are ignored, an explicit null is the same as an absent field, and only the JSON type of a value
is checked.  Source: the request schema of the Responses API (Open Responses 2026-04-24 and the OpenAI SDK's
types).
"""

from __future__ import annotations

import json
import math
from itertools import islice
from typing import Any, Callable, Dict, Tuple

from ...errors import ApiError
from ...types import Json

Check = Callable[[Any], bool]
TOGETHER = 10_000  # entries of a list that are checked together


def _number(value: Any) -> bool:
    # 1e999 is infinity.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _string(value: Any) -> bool:
    return isinstance(value, str)


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _object_of_strings(*names: str) -> Check:
    """An object in which these keys, if they are there, are strings or null."""
    return lambda value: (
        _object(value) and all(value.get(name) is None or _string(value[name]) for name in names)
    )


def _list_of(value: Any, wanted: type) -> bool:
    # A set of the types, because there may be very many values; a slice at a time, because the thread keeps
    # the interpreter meanwhile.
    return isinstance(value, list) and all(
        issubclass(kind, wanted)
        for begin in range(0, len(value), TOGETHER)
        for kind in set(map(type, value[begin : begin + TOGETHER]))
    )


def _objects(value: Any) -> bool:
    return _list_of(value, dict)


def _strings(value: Any) -> bool:
    return _list_of(value, str)


def _metadata(value: Any) -> bool:
    """An object of strings; where it is stored it may have a few pairs only, so not all are checked here."""
    return _object(value) and all(map(_string, islice(value.values(), 1000)))


FIELDS: Dict[str, Tuple[str, Check]] = {
    "model": ("a string", _string),
    "input": ("a string or a list of items (objects)", lambda v: _string(v) or _objects(v)),
    "instructions": ("a string", lambda v: _string(v) or _objects(v)),
    "previous_response_id": ("a string", _string),
    "conversation": (
        "a string or an object with an id",
        lambda v: _string(v) or _object(v) and _string(v.get("id")),
    ),
    "store": ("a boolean", _boolean),
    "stream": ("a boolean", _boolean),
    "background": ("a boolean", _boolean),
    "generate": ("a boolean", _boolean),
    "stream_options": ("an object", _object),
    "max_output_tokens": ("a positive integer", lambda v: _integer(v) and v > 0),
    "max_tool_calls": ("an integer", _integer),
    "temperature": ("a number", _number),
    "top_p": ("a number", _number),
    "presence_penalty": ("a number", _number),
    "frequency_penalty": ("a number", _number),
    "top_logprobs": ("an integer", _integer),
    "stop": ("a string or a list of strings", lambda v: _string(v) or _strings(v)),
    "tools": ("a list of objects", _objects),
    "tool_choice": (
        "auto, none, required or an object",
        lambda v: v in ("auto", "none", "required") if _string(v) else _object(v),
    ),
    "parallel_tool_calls": ("a boolean", _boolean),
    "reasoning": (
        "an object whose effort and summary are strings",
        _object_of_strings("effort", "summary", "generate_summary"),
    ),
    "text": (
        "an object whose format is an object and whose verbosity is a string",
        lambda v: _object_of_strings("verbosity")(v) and (v.get("format") is None or _object(v["format"])),
    ),
    "truncation": ("a string", _string),
    "metadata": ("an object of strings", _metadata),
    "include": ("a list of strings", _strings),
    "prompt_cache_key": ("a string", _string),
    "safety_identifier": ("a string", _string),
    "user": ("a string", _string),
    "service_tier": ("a string", _string),
    "prompt_cache_options": ("an object", _object),
}
# Far more than any client needs; each entry costs time that all clients share.  Tools in a namespace count.
MAX_ENTRIES = {"tools": 4096, "include": 256, "stop": 256}
UNSUPPORTED = {"prompt": "Prompt templates live at OpenAI; send the text as instructions and input."}


def without_nulls(request: Json) -> Json:
    """The request without the fields that are null, which means absent."""
    return {key: value for key, value in request.items() if value is not None}


def check_request(request: Json) -> None:
    """Check every known field of a request without nulls.

    :raises ApiError: 400, with the field as ``param``
    """
    for name, reason in UNSUPPORTED.items():
        if name in request:
            raise ApiError(
                400, f"{name} is not supported. {reason}", code="unsupported_parameter", param=name
            )
    for name, most in MAX_ENTRIES.items():  # first, because the other checks examine each entry
        count = _entries(request[name], most) if name in request else 0
        if count > most:
            raise ApiError(
                400,
                f"{name} has {count} entries, and {most} are the most that a request may have. Send fewer.",
                code="array_above_max_length",
                param=name,
            )
    wrong = [name for name in request if name in FIELDS and not FIELDS[name][1](request[name])]
    for name in FIELDS if wrong else ():
        if name in wrong:
            raise ApiError(
                400,
                f"{name} must be {FIELDS[name][0]}, not {_shown(request[name])}.",
                code="invalid_type",
                param=name,
            )
    if not request.get("model"):
        raise ApiError(
            400,
            "model is required: the name of one of the models of GET /v1/models.",
            code="missing_required_parameter",
            param="model",
        )


def _entries(values: Any, most: int) -> int:
    """The number of entries of a list, including those of its namespaces if the list itself has at most
    ``most``.
    """
    if not isinstance(values, list) or len(values) > most:
        return len(values) if isinstance(values, list) else 0
    inner = (value.get("tools") for value in values if isinstance(value, dict) and "tools" in value)
    return len(values) + sum(len(tools) for tools in inner if isinstance(tools, list))


def _shown(value: Any) -> str:
    """A value in an error text: short scalars as they are, everything else (perhaps a prompt) as its type."""
    if isinstance(value, (bool, int, float)) or isinstance(value, str) and len(value) <= 40:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "an object"
    return "a list of something else" if isinstance(value, list) else "a long string"
