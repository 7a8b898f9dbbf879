"""The items of MCP in a conversation, and the texts that the model reads in their place.

The text of a call depends only on its item, so a later turn that contains the item has the same bytes in its
history.
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Any, List, Mapping, Sequence

from ..convert.json_steps import json_text
from ..convert.tools.kind import flatten
from ..errors import ApiError
from ..types import AnyItem, Json
from .mcp.messages import HTTP, NO_ANSWER, TOOL, McpError
from .mcp.protocol import MAX_TOOLS, MAX_VALUES, is_usable, size_of
from .mcp.results import FAILED, FRAME, ToolResult

LIST, CALL, REQUEST, RESPONSE = (
    "mcp_list_tools",
    "mcp_call",
    "mcp_approval_request",
    "mcp_approval_response",
)
LOST = "The result of this call is no longer available; call the tool again if you need it."
INTERRUPTED = "The call was interrupted; it may have had an effect."
UNANSWERED = "The user has not approved this call, so it was not made."
UNKNOWN = "The user has approved this call, but its outcome is no longer known. Do not repeat it unasked."
MAX_DESCRIPTION = 2000  # characters


# ---- Lists of tools
def listed(tools: Sequence[Json]) -> List[Json]:
    """The tools of a server as the item lists them, without nulls, which the AI SDK refuses."""
    return [_entry(tool) for tool in tools]


def schema_of(tool: Json) -> Json:
    """The schema of a tool's arguments."""
    schema = tool.get("inputSchema")
    return schema if isinstance(schema, dict) else {"type": "object", "properties": {}}


def _entry(tool: Json) -> Json:
    entry: Json = {"name": tool["name"], "input_schema": schema_of(tool)}
    if isinstance(tool.get("description"), str):
        entry["description"] = tool["description"]
    if isinstance(tool.get("annotations"), dict):
        entry["annotations"] = tool["annotations"]
    return entry


def tools_in(entries: Any) -> List[Json]:
    """The tools of an item in the form in which a server lists them, without those that cannot be called.

    It may be the client's, so no more of it is read than a server's list may have.
    """
    found: List[Json] = []
    room = MAX_VALUES
    for entry in entries[:MAX_TOOLS] if isinstance(entries, list) else ():
        size = size_of(entry, room)
        if size is None:
            break
        room -= size
        if isinstance(entry, dict):
            tool = {**entry, "inputSchema": entry.get("input_schema")}
            if is_usable(tool, found):
                found.append(tool)
    return found


def list_failed(label: str, error: McpError) -> ApiError:
    """The error of a server that does not list its tools, worded like OpenAI's."""
    code = error.code if error.kind == HTTP else NO_ANSWER
    try:
        phrase = HTTPStatus(code).phrase
    except ValueError:
        phrase = "unknown"
    status = f"Http status code: {code} ({phrase})"
    return ApiError(
        424,
        f"Error retrieving tool list from MCP server: '{label}'. {status}: {error}.",
        type="external_connector_error",
        param="tools",
        code="http_error",
        retryable=False,
    )


def function_name(label: str, tool: str, taken: Mapping[str, Any]) -> str:
    """The name of the function that stands for a tool.

    :param taken: names that others have
    """
    name = flatten(label, tool)
    if name not in taken:
        return name
    digest = hashlib.sha1(f"{label} {tool}".encode("utf-8", "replace")).hexdigest()[:8]
    return f"{name[:55]}_{digest}"


# ---- Calls
def answered(result: ToolResult) -> Json:
    """The keys of the item of a call that has a result."""
    if not result.failed:
        return {"status": "completed", "output": result.text, "error": None}
    content = [{"type": "text", "text": result.text}]
    return {"status": "failed", "output": None, "error": {"type": TOOL, "content": content}}


def failed(kind: str, code: int, text: str) -> Json:
    """The keys of the item of a call that failed for another reason than an error of the tool."""
    return {"status": "failed", "output": None, "error": {"type": kind, "code": code, "message": text}}


def text_of(call: AnyItem) -> str:
    """The text of a call, as the model reads it."""
    output, error = call.get("output"), call.get("error")
    if isinstance(output, str):
        return FRAME + output
    if isinstance(error, str):
        return f"The call has failed: {error}"
    if not isinstance(error, dict):
        return INTERRUPTED if call.get("status") in ("in_progress", "calling", "incomplete") else LOST
    content = error.get("content")
    if isinstance(content, list):
        texts = [str(part.get("text", "")) for part in content if isinstance(part, dict)]
        return FAILED + "\n".join(texts)
    return f"The call has failed: {error.get('message') or 'for an unknown reason'}"


def refused(response: AnyItem) -> str:
    """The text of a call that the user has refused, as the model reads it."""
    reason = response.get("reason")
    return "The user refused this call" + (f": {reason}" if isinstance(reason, str) and reason else ".")


def arguments_of(item: AnyItem) -> str:
    """The arguments of a call, as JSON."""
    value = item.get("arguments")
    return value if isinstance(value, str) and value else json_text(value or {})
