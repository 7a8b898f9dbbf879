"""Requests to ``/chat/completions`` that use fields of the Responses API, at least in part.

Some clients (Cursor) send ``input``, ``instructions`` and flat tools to that endpoint and read the answer as
chat.  A proper chat request passes unchanged.
"""

from __future__ import annotations

from typing import Any

from ...types import Json
from ..profile import Profile
from .chat import input_items, to_chat_request
from .validate import without_nulls


def as_chat_request(request: Json, profile: Profile, model: str) -> Json:
    """The body for the provider.

    :param model: the downstream model
    :raises ApiError: 400 for ``input`` that cannot be expressed
    """
    if "input" in request and "messages" not in request:
        request = without_nulls(request)
        conversion = to_chat_request(request, input_items(request), profile, downstream_model=model)
        return conversion.chat_request(stream=request.get("stream") is True)
    body = {**request, "model": model}
    if isinstance(body.get("tools"), list):
        body["tools"] = [_nested(tool) for tool in body["tools"]]
    if "tool_choice" in body:
        body["tool_choice"] = _nested(body["tool_choice"])
    return body


def _nested(tool: Any) -> Any:
    """A flat function, or the choice of one, in the form of Chat; anything else as it is."""
    if (
        not isinstance(tool, dict)
        or tool.get("type") != "function"
        or "function" in tool
        or "name" not in tool
    ):
        return tool
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
