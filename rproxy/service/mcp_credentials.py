"""The credentials that a client sends for its MCP servers; only these get them, and they are neither stored
nor shown.

They are in the ``mcp`` entries of ``tools``, and of items that define tools.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, List, Sequence, cast
from urllib.parse import parse_qsl

from ..convert.tools.table import TOOL_ITEMS, later_tools
from ..log import without_login
from ..types import AnyItem, Json

MIN_LENGTH = 8  # characters of a value in an address that may be a key


def credentials(tools: Iterable[Any]) -> Iterator[str]:
    """The secrets in entries of ``tools``."""
    for tool in tools:
        if isinstance(tool, dict) and tool.get("type") == "mcp":
            headers = tool.get("headers")
            given = [*headers.values()] if isinstance(headers, dict) else []
            for value in (tool.get("authorization"), *given):
                if isinstance(value, str):
                    yield from (value, *value.split())
            query = str(tool.get("server_url")).partition("?")[2]
            yield from (value for _, value in parse_qsl(query) if len(value) >= MIN_LENGTH)


def without_credentials(tool: Json) -> Json:
    """An entry of ``tools`` as a response repeats it."""
    kept = _bare(tool, ("authorization",))
    return {**kept, "headers": None} if "headers" in kept else kept


def has_servers(items: Sequence[AnyItem]) -> bool:
    """Does an item define an MCP server?"""
    return any(tool.get("type") == "mcp" for tool in later_tools(items))


def stored(items: Sequence[AnyItem]) -> List[AnyItem]:
    """The items as they are stored."""
    return [_stored_item(item) if item.get("type") in TOOL_ITEMS else item for item in items]


def _stored_item(item: AnyItem) -> AnyItem:
    tools: Any = item.get("tools")
    return cast(AnyItem, {**item, "tools": [*map(_stored_tool, tools)]}) if isinstance(tools, list) else item


def _stored_tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type") != "mcp":
        return tool
    return _bare(tool, ("authorization", "headers"))


def _bare(tool: Json, hidden: Sequence[str]) -> Json:
    """An entry without these fields, and with only the bare address of its server."""
    kept = {key: value for key, value in tool.items() if key not in hidden}
    url = kept.get("server_url")
    return {**kept, "server_url": without_login(url.partition("?")[0])} if isinstance(url, str) else kept
