"""A tool of an MCP server as the search service: ``search: {kind: mcp, ...}``.

Such tools answer with a text for a model.  If it is JSON with results, they are treated like those of any
other service.  Otherwise the text is passed on whole, and the addresses in it can be cited and opened.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List

from ..config.search_schema import Search
from ..log import clean
from ..types import Json
from ..upstream.client import Upstream
from .addresses import host_of, urls_in
from .backend import Backend, Query, SearchFailed, SearchResults, fitting
from .mcp.messages import McpError
from .mcp.servers import McpServers

OWNER = "search"  # all clients share the connection to the server
MAX_ADDRESSES = 20
_KEYS = {  # key of a result -> names that tools use for it
    "url": ("url", "link", "href"),
    "title": ("title", "name"),
    "content": ("content", "snippet", "text", "description", "summary"),
    "date": ("date", "publishedDate", "published_date", "age"),
}
_LISTS = ("results", "organic", "items", "data", "web", "search_results")


class McpBackend(Backend):
    """A search backend that calls an MCP server's tool.

    :param servers: those of the configuration
    """

    def __init__(
        self, search: Search, upstream: Upstream, now: Callable[[], float], servers: McpServers
    ) -> None:
        super().__init__(search, upstream, now)
        self._servers = servers

    async def search(self, query: Query) -> SearchResults:
        text = await self._answer(query.text)
        entries = [_normal(entry) for entry in _entries(text)]
        if not entries:
            entries = [{"url": url} for _, url in urls_in(text) if host_of(url)]
            return SearchResults(fitting(self._service, entries, query._replace(most=MAX_ADDRESSES)), text)
        return SearchResults(fitting(self._service, entries, query))

    async def _answer(self, text: str) -> str:
        """:raises SearchFailed: there is no answer, or the tool says that it has failed"""
        search = self._search
        server = self._servers.get(search.mcp)
        if server is None:
            raise SearchFailed(f"the configuration has no MCP server {search.mcp}")
        server = server.within(search.timeout)
        try:
            async with self._running:
                tools = await self._servers.tools(server, OWNER)
                tool = next((tool for tool in tools if tool["name"] == search.tool), None)
                if tool is None:
                    raise SearchFailed(f"the MCP server {search.mcp} has no tool {search.tool}")
                result = await self._servers.call(server, OWNER, tool, {search.query: text})
        except McpError as error:
            raise SearchFailed(str(error)) from None
        if result.failed:
            raise SearchFailed(clean(result.text[:300], server.secrets) or "its tool reports a failure")
        return result.text


def _entries(text: str) -> List[Json]:
    """The results in a text, if it is JSON that has some."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    for _ in range(3):
        if isinstance(value, dict):
            value = next((value[name] for name in _LISTS if value.get(name)), None)
    if not isinstance(value, list):
        return []
    return [entry for entry in value if isinstance(entry, dict) and _normal(entry).get("url")]


def _normal(entry: Json) -> Json:
    """A result with our own names for the keys."""
    found: Dict[str, Any] = {}
    for name, others in _KEYS.items():
        value = next((entry[other] for other in others if entry.get(other)), None)
        if value is not None:
            found[name] = value
    return found
