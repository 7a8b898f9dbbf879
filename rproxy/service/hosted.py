"""The hosted tools of one process: the configured kinds, and the memory of their calls.

Without any of them, nothing of :mod:`rproxy.hosted` is imported.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..config.schema import Config
from ..convert.tools.table import later_tools
from ..convert.tools.tool_lists import ToolLists
from ..cooperative import Slices
from ..types import AnyItem, HostedResult, Json
from ..upstream.client import Upstream
from .client import Client
from .create_request import CreateRequest
from .history import History
from .mcp_credentials import without_credentials
from .plan import for_history, native_tools
from .search import make_backend

if TYPE_CHECKING:
    from ..hosted.approvals import Approvals
    from ..hosted.kind import HostedKind
    from ..hosted.mcp.servers import McpServers
    from ..hosted.memory import ResultMemory
    from ..hosted.session import HostedSession


class HostedTools:
    """The configured kinds of hosted tools, and their sessions.

    :param now: seconds since the epoch
    """

    def __init__(self, upstream: Upstream, history: History, now: Callable[[], float]) -> None:
        self._upstream, self._history, self._now = upstream, history, now
        self._kinds: List[HostedKind] = []
        self._lists = ToolLists()  # with functions in place of hosted tools, and as they are shown
        self._echoes: Dict[str, Callable[[Json], Json]] = {}  # by type of tool
        self._memory: Optional[ResultMemory] = None  # it survives a reload
        self._approvals: Optional[Approvals] = None  # so does this
        self._allow: Optional[Sequence[str]] = None

    def configure(self, config: Config, mcp_servers: Optional[McpServers]) -> None:
        """Use this configuration from now on."""
        self._kinds, self._allow = [], config.server.tool_type_allowlist
        self._echoes = {"mcp": without_credentials}  # a provider that has it may get it
        if config.search is None and not config.has_mcp:
            return
        from ..hosted.memory import ResultMemory  # loaded only where it is used

        self._memory = self._memory or ResultMemory()
        if config.search is not None:
            from ..hosted.web_search import WebSearch

            backend = make_backend(config.search, self._upstream, self._now, mcp_servers)
            self._kinds.append(WebSearch(config.search, backend))
        if config.has_mcp and mcp_servers is not None:
            from ..hosted.approvals import Approvals
            from ..hosted.mcp_kind import Mcp

            self._approvals = self._approvals or Approvals()
            hosts = config.hosted_tools.mcp_hosts
            self._kinds.append(Mcp(mcp_servers, hosts, self._approvals, self._history.claim_approval))
        self._echoes.update(
            (name, kind.echo) for kind in self._kinds for name in kind.types if self._may(name)
        )

    def shown(self, request: CreateRequest) -> CreateRequest:
        """The request, with its hosted tools as the response shows them, without their credentials."""
        tools = request.body.get("tools")
        if not tools or not any(str(tool.get("type")) in self._echoes for tool in tools):
            return request
        shown = [self._echoes.get(str(tool.get("type")), _as_it_is)(tool) for tool in tools]
        return request._replace(shown_tools=self._lists.of(shown))

    async def session(self, request: CreateRequest, client: Client) -> Optional[HostedSession]:
        """The hosted tools of a request; None if it involves none.

        :raises ApiError: 400, what is wrong with a tool; 503, earlier calls cannot be read
        """
        if not self._kinds:
            return None
        items = request.context.items + request.items
        kinds, ids = await for_history(items, partial(self._kinds_of, request, items))
        if not kinds:
            return None
        known = await self._known(ids, client.owner)
        return await for_history(items, partial(self._session, request, items, client.owner, kinds, known))

    def _kinds_of(
        self, request: CreateRequest, items: Sequence[AnyItem]
    ) -> Tuple[Sequence[HostedKind], Sequence[str]]:
        """The kinds that a request involves, and the ids of their items in its history."""
        types = {str(tool.get("type")) for tool in [*(request.body.get("tools") or ()), *later_tools(items)]}
        made = {str(item.get("type")) for item in items}
        native = set(native_tools(request.model.providers[0]))
        kinds = [
            kind
            for kind in self._kinds
            if (types.intersection(kind.types) or made.intersection(kind.items))
            and not native.issuperset(kind.types)
        ]
        own = {name for kind in kinds for name in kind.items}
        return kinds, [str(item.get("id")) for item in items if str(item.get("type")) in own] if own else []

    def _session(
        self,
        request: CreateRequest,
        items: List[AnyItem],
        owner: str,
        kinds: Sequence[HostedKind],
        known: Mapping[str, HostedResult],
    ) -> HostedSession:
        from ..hosted.kind import HostedRequest
        from ..hosted.session import HostedSession, own_names

        tools: List[Json] = [tool for tool in request.body.get("tools") or () if self._may(tool.get("type"))]
        body = {**request.body, "tools": tools}
        native = set(native_tools(request.model.providers[0]))
        taken = own_names(request.body.get("tools") or (), items)
        permitted = {name for kind in kinds for name in kind.types if self._may(name)}
        hosted = HostedRequest(body, items, owner, known, taken, native, permitted)
        return HostedSession(kinds, hosted, self._lists)

    def _may(self, tool_type: object) -> bool:
        """Does the operator allow tools of this type?"""
        return self._allow is None or tool_type in self._allow

    async def _known(self, item_ids: Sequence[str], owner: str) -> Dict[str, HostedResult]:
        """The results of these calls, from memory or else from the store."""
        assert self._memory is not None
        known: Dict[str, HostedResult] = {}
        lost: List[str] = []
        slices = Slices()
        for item_id in item_ids:
            await slices.pause()
            result = self._memory.recall(owner, item_id)
            if result is None:
                lost.append(item_id)
            else:
                known[item_id] = result
        if lost:
            found = await self._history.hosted_results(lost, owner)
            for item_id, result in found.items():
                self.remember(owner, item_id, result)
            known.update(found)
        return known

    def remember(self, owner: str, item_id: str, result: HostedResult) -> None:
        """Remember the result of a call."""
        assert self._memory is not None
        self._memory.remember(owner, item_id, result)


def _as_it_is(tool: Json) -> Json:
    return tool
