"""``POST /alpha/search``: the searches of Codex, if a search service is configured.

A search counts as a turn for the limits of :mod:`rproxy.service.running_turns` and of the key.  Without a
service, nothing of :mod:`rproxy.hosted` is imported.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Optional

from ..config.schema import Config
from ..telemetry.records import SearchRecord, milliseconds
from ..telemetry.telemetry import Telemetry
from ..types import Json
from ..upstream.client import Upstream
from .client import Client
from .running_turns import RunningTurns

if TYPE_CHECKING:
    from ..config.search_schema import Search
    from ..hosted.backend import Backend
    from ..hosted.codex_search import CodexSearch
    from ..hosted.mcp.servers import McpServers
    from ..hosted.references import References

# A text for the model, because Codex may offer it the search anyway.
OFF = (
    "Web search is not set up on this proxy. Do not use this tool again in this session; answer with what "
    "you know."
)


def make_backend(
    search: Search, upstream: Upstream, now: Callable[[], float], mcp_servers: Optional[McpServers]
) -> Backend:
    """The configured service.

    :param now: seconds since the epoch
    :param mcp_servers: None if the configuration has none
    """
    from ..config.search_schema import MCP

    if search.kind != MCP:
        from ..hosted.backend import Backend

        return Backend(search, upstream, now)
    from ..hosted.mcp_search import McpBackend

    assert mcp_servers is not None  # the configuration has been checked
    return McpBackend(search, upstream, now, mcp_servers)


class SearchEndpoint:
    """The searches of one process.

    :param now: seconds since the epoch
    """

    def __init__(
        self, upstream: Upstream, running: RunningTurns, telemetry: Telemetry, now: Callable[[], float]
    ) -> None:
        self._upstream, self._running, self._telemetry, self._now = upstream, running, telemetry, now
        self._references: Optional[References] = None  # they survive a reload
        self._search: Optional[CodexSearch] = None
        self._server = ""

    def configure(self, config: Config, mcp_servers: Optional[McpServers]) -> None:
        """Use this configuration from now on."""
        search, self._search = config.search, None
        if search is None:
            return
        from ..hosted.codex_search import CodexSearch  # loaded only where it is used
        from ..hosted.references import References

        self._references = self._references or References()
        self._server = search.kind
        backend = make_backend(search, self._upstream, self._now, mcp_servers)
        self._search = CodexSearch(search, backend, self._references)

    async def answer(self, body: Json, client: Client) -> Json:
        """Run the commands of one request.

        :raises ApiError: 400, the request is wrong; 429, a limit is reached
        """
        if self._search is None:
            return {"output": OFF, "encrypted_output": None, "results": []}
        started, server = time.monotonic(), self._server
        end = self._running.begin(client.key)
        try:
            answer = await self._search.answer(body, client.owner)
        finally:
            end()
        self._telemetry.searched(
            SearchRecord(
                request_id=client.request_id,
                key=client.key_name,
                remote=client.remote,
                server=server,
                completed=answer.completed,
                failed=answer.failed,
                total_ms=milliseconds(started),
            )
        )
        return answer.body
