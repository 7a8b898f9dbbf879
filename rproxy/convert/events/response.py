"""The Response object, with every field that a client may look for, in every event that carries one.

Strict clients check each object that they get, so the object in ``response.created`` already has all the
fields of the last one; the end of the stream only fills in status, output, usage and the like.  Most fields
repeat the request.  A missing field and a null field mean the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any, List, Mapping, Optional, Tuple, cast

from ...json_codec import SharedDict, SharedList, SharedText
from ...types import Json, Response, Usage
from ..tools.kind import flat_form
from ..tools.tool_lists import ToolList

Path = Tuple[str, ...]

# The fields of the request that the response repeats, with their defaults.  Order and defaults are those of
# OpenAI's answers, and of Open Responses 2026-04-24.
_ECHO: Json = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "",
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {},
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "text": {},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
# The fields that may be large as a heartbeat has them, each valid.
_LEFT_OUT: Json = {
    "instructions": None,
    "tools": [],
    "tool_choice": "auto",
    "text": {"format": {"type": "text"}},
    "metadata": {},
    "user": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
}
_FUNCTION = {"description": None, "parameters": None, "strict": True}
_JSON_SCHEMA: Json = {"name": "response", "description": None, "schema": {}, "strict": False}


def response_object(request: Mapping[str, Any], *, id: str, created_at: int) -> Response:
    """The Response object of a turn that has just begun: status ``in_progress``, no output.

    :param request: the body of ``POST /v1/responses`` (or of a ``response.create`` frame) after
        :func:`~rproxy.convert.request.validate.check_request`
    :param id: ``resp_...``
    :param created_at: seconds since the epoch
    """
    response: Json = {
        "id": id,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "output": [],
        "usage": None,
        "service_tier": "default",
    }
    response.update(_ECHO)
    for name, value in request.items():
        if name in _ECHO and value is not None:
            response[name] = value
    response["reasoning"] = _reasoning(response["reasoning"])
    response["text"] = _text(response["text"])
    response["metadata"] = dict(response["metadata"])
    response["tools"] = _tools(response["tools"])
    if isinstance(response["instructions"], str):
        response["instructions"] = SharedText(response["instructions"])
    return cast(Response, response)


def shared_response(response: Response) -> Response:
    """``response`` for several places that write it, so that its JSON is made only once."""
    return cast(Response, SharedDict(response))


def write_response(response: Response) -> None:
    """Make the JSON of a :func:`shared_response` now, so that its size need not be measured."""
    if isinstance(response, SharedDict):
        response.json  # noqa: B018 - it is kept


def heartbeat_object(response: Response) -> Response:
    """``response`` without the fields that may be large: clients only need a sign of life, and have read
    these fields in the first events.  It is still a valid Response object.
    """
    return cast(Response, {**response, **_LEFT_OUT})


def _reasoning(reasoning: Json) -> Json:
    summary = reasoning.get("summary")
    return {
        "effort": reasoning.get("effort"),
        "summary": reasoning.get("generate_summary") if summary is None else summary,
    }


def _text(text: Json) -> Json:
    form = text.get("format") or {"type": "text"}
    result: Json = {"format": _filled(form, _JSON_SCHEMA) if form.get("type") == "json_schema" else form}
    if text.get("verbosity") is not None:
        result["verbosity"] = text["verbosity"]
    return result


def _tools(tools: List[Json]) -> List[Json]:
    return (
        tools.made("response", partial(_all_filled, tools))
        if isinstance(tools, ToolList)
        else _all_filled(tools)
    )


def _all_filled(tools: List[Json]) -> List[Json]:
    forms = map(flat_form, tools)
    filled = [_filled(tool, _FUNCTION) if tool["type"] == "function" else tool for tool in forms]
    return SharedList(filled) if filled else filled


def _filled(value: Json, defaults: Json) -> Json:
    """``value`` with the keys that OpenAI's answers always have."""
    return {**value, **{key: default for key, default in defaults.items() if value.get(key) is None}}


# ---- Usage
MAX_TOKENS = (1 << 53) - 1  # the largest number that every JSON parser reads exactly; more is no count
# Where providers put a number; the first one that is not zero counts.
_INPUT: Tuple[Path, ...] = (("prompt_tokens",), ("input_tokens",))
_OUTPUT: Tuple[Path, ...] = (("completion_tokens",), ("output_tokens",))
_REASONING: Tuple[Path, ...] = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens",),
)
_CACHED: Tuple[Path, ...] = (
    ("prompt_tokens_details", "cached_tokens"),  # OpenAI and most others
    ("prompt_cache_hit_tokens",),  # DeepSeek
    ("cached_tokens",),  # Kimi
    ("cache_read_input_tokens",),  # Anthropic and gateways to it
    ("input_tokens_details", "cached_tokens"),
)
_CACHE_WRITE: Tuple[Path, ...] = (
    ("prompt_tokens_details", "cache_write_tokens"),
    ("cache_creation_input_tokens",),
    ("prompt_tokens_details", "cache_creation_input_tokens"),  # DashScope
    ("prompt_tokens_details", "cache_creation", "cache_creation_input_tokens"),
    ("input_tokens_details", "cache_write_tokens"),
)
_MISSED: Tuple[Path, ...] = (("prompt_cache_miss_tokens",),)


def usage_object(raw: Optional[Mapping[str, Any]], cached: str = "hit") -> Usage:
    """The Responses ``usage`` for a provider's ``usage``: integers only, all zero if there is none.

    :param cached: ``hit``: ``cached_tokens`` are the tokens that were read from the cache; ``sum``:
        DeepSeek's hits and misses together, which are the whole prompt (what responses-proxy 0.1.1 reported)
    """
    raw = raw or {}
    prompt, output, reasoning = (_count(raw, paths) for paths in (_INPUT, _OUTPUT, _REASONING))
    # xAI does not count reasoning as completion_tokens; only the total includes it.
    if reasoning and _int(raw.get("total_tokens")) == prompt + output + reasoning:
        output += reasoning
    hits = _count(raw, _CACHED) + (_count(raw, _MISSED) if cached == "sum" else 0)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": hits, "cache_write_tokens": _count(raw, _CACHE_WRITE)},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + output,
    }


def added(usage: Optional[Usage], more: Optional[Usage]) -> Optional[Usage]:
    """The tokens of two answers together; None if neither has counted any."""
    if usage is None or more is None:
        return usage or more
    inputs, outputs = usage["input_tokens_details"], usage["output_tokens_details"]
    more_inputs, more_outputs = more["input_tokens_details"], more["output_tokens_details"]
    return {
        "input_tokens": usage["input_tokens"] + more["input_tokens"],
        "input_tokens_details": {
            "cached_tokens": inputs["cached_tokens"] + more_inputs["cached_tokens"],
            "cache_write_tokens": inputs["cache_write_tokens"] + more_inputs["cache_write_tokens"],
        },
        "output_tokens": usage["output_tokens"] + more["output_tokens"],
        "output_tokens_details": {
            "reasoning_tokens": outputs["reasoning_tokens"] + more_outputs["reasoning_tokens"]
        },
        "total_tokens": usage["total_tokens"] + more["total_tokens"],
    }


def _count(raw: Mapping[str, Any], paths: Tuple[Path, ...]) -> int:
    for path in paths:
        if path[0] in raw:
            value = raw[path[0]]
            for key in path[1:]:
                value = value.get(key) if isinstance(value, dict) else None
            number = _int(value) if value else 0
            if number:
                return number
    return 0


def _int(value: Any) -> int:
    """A number of tokens, which may be written as ``12.0`` or ``"12"``; anything else is zero."""
    if type(value) is int:
        return value if 0 < value <= MAX_TOKENS else 0
    if isinstance(value, bool):
        return 0
    try:
        return _int(int(float(value)))
    except (TypeError, ValueError, OverflowError):
        return 0
