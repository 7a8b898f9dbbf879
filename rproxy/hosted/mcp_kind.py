"""``mcp``: the tools of MCP servers.

Each tool of a server becomes a function.  A call becomes an ``mcp_call``, or an ``mcp_approval_request`` if
the user has to be asked.  A server's tools become an ``mcp_list_tools`` item, and are not requested again
while that item is in the conversation.
"""

from __future__ import annotations

import asyncio
import json
from functools import cached_property
from typing import Awaitable, Callable, Dict, List, Mapping, Optional, Sequence

from ..config.mcp_schema import McpHost
from ..convert.tools.kind import loads
from ..errors import ApiError, invalid
from ..types import AnyItem, HostedResult, Json
from .approvals import Approvals
from .kind import HostedCall, HostedFunction, HostedKind, HostedRequest, KindSession, Outcome, function_call
from .mcp.messages import INTERNAL_ERROR, INVALID_PARAMS, PROTOCOL, McpError
from .mcp.servers import McpServers
from .mcp_entry import Entry, read_entries
from .mcp_items import (
    CALL,
    INTERRUPTED,
    LIST,
    MAX_DESCRIPTION,
    REQUEST,
    RESPONSE,
    UNANSWERED,
    UNKNOWN,
    answered,
    arguments_of,
    failed,
    function_name,
    list_failed,
    listed,
    refused,
    schema_of,
    text_of,
    tools_in,
)

MAX_FAILURES = 3  # of a server in one response; after that, it is not called again
INPUT = ("function_call_output", "mcp_approval_response", "item_reference")  # items of the client's own
# Records that an approved call is being run: owner and id of the request -> is it the first time?
Claim = Callable[[str, str], Awaitable[bool]]


class Mcp(HostedKind):
    """The kind ``mcp``.

    :param hosts: the hosts whose servers clients may name; ``claim`` makes an approval count once
    """

    types = ("mcp",)
    items = (LIST, CALL, REQUEST, RESPONSE)

    def __init__(
        self, servers: McpServers, hosts: Sequence[McpHost], approvals: Approvals, claim: Claim
    ) -> None:
        self.servers, self.approvals, self.claim = servers, approvals, claim
        self._hosts = hosts

    def echo(self, tool: Json) -> Json:
        """The entry without credentials, which may also be in the query of the address."""
        shown: Json = {
            "type": "mcp",
            "server_label": tool.get("server_label"),
            "server_description": tool.get("server_description"),
            "allowed_tools": tool.get("allowed_tools"),
            "headers": None,
            "require_approval": tool.get("require_approval") or "always",
        }
        if isinstance(tool.get("server_url"), str):
            shown["server_url"] = tool["server_url"].partition("?")[0]
        return shown

    def session(self, request: HostedRequest) -> KindSession:
        return McpSession(self, request, read_entries(request.tools, self.servers, self._hosts))


class _Server:
    """A server in one response.  ``asked`` is set when it has listed its ``tools``, or has failed to."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.tools: Optional[List[Json]] = None
        self.failures = 0

    @cached_property
    def asked(self) -> asyncio.Event:
        return asyncio.Event()  # made in the event loop, as Python 3.9 requires; sessions are made in threads

    def know(self, tools: Sequence[Json]) -> None:
        """:param tools: as the server lists them"""
        self.tools = [tool for tool in tools if self.entry.allows(tool)]

    @property
    def label(self) -> str:
        """Its label in the metrics."""
        return self.entry.label if self.entry.named else "other"

    def tool(self, name: str) -> Optional[Json]:
        return next((tool for tool in self.tools or () if tool["name"] == name), None)


class McpSession(KindSession):
    """The MCP servers of one request.

    :param entries: those of the request, by label
    """

    def __init__(self, kind: Mcp, request: HostedRequest, entries: Mapping[str, Entry]) -> None:
        self.kind, self.request = kind, request
        self.servers = {label: _Server(entry) for label, entry in entries.items()}
        self._names: Dict[str, str] = {}  # of functions, by label and tool as JSON
        for item in request.items:
            self._take_list(item)
        self._answers = _answers(request.items)
        self._problem: Optional[ApiError] = None  # of the approvals
        self._approved = self._new_approvals()

    def _take_list(self, item: AnyItem) -> None:
        """Use a list in the conversation; remembered tools take precedence over those that the client
        sent.
        """
        server = self.servers.get(str(item.get("server_label"))) if item.get("type") == LIST else None
        if server is None or item.get("error") is not None:
            return
        known = self.request.known.get(str(item.get("id")))
        remembered = loads(known["text"]) if known is not None else None
        tools = tools_in(remembered) or tools_in(item.get("tools"))
        if tools:
            server.know(tools)

    # ---- Before the provider is asked
    def before(self) -> Sequence[HostedCall]:
        """:raises ApiError: 400, what was approved cannot be called"""
        if self._problem is not None:
            raise self._problem
        lists = [_List(self, server) for server in self.servers.values() if server.tools is None]
        return [*lists, *self._approved.values()]

    def _new_approvals(self) -> Dict[str, HostedCall]:
        """The calls that the newest items approve, by the id of the request."""
        requests = {str(item.get("id")): item for item in self.request.items if item.get("type") == REQUEST}
        calls_made = (item for item in self.request.items if item.get("type") == CALL)
        made = {_id(item, "approval_request_id") for item in calls_made}
        calls: Dict[str, HostedCall] = {}
        for item in _newest(self.request.items):
            asked = str(item.get("approval_request_id"))
            request = requests.get(asked)
            if request is None:
                text = f"There is no mcp_approval_request with the id '{asked[:80]}' in this conversation."
                self._problem = invalid(text, "input", "invalid_value")
            elif self._answers[asked].get("approve") is True and asked not in made and asked not in calls:
                call = self._approve(asked, request)
                if call is not None:
                    calls[asked] = call
        return calls

    def _approve(self, asked: str, item: AnyItem) -> Optional[HostedCall]:
        label, name = str(item.get("server_label")), str(item.get("name"))
        server = self.servers.get(label)
        if server is None:
            self._problem = invalid(
                f"The approved call belongs to the MCP server '{label[:80]}', which is not among the tools "
                "of this request; send its entry of tools again.",
                "tools",
                "invalid_value",
            )
            return None
        known = self.request.known.get(asked)
        return _Approved(self, server, name, known["arguments"] if known else arguments_of(item), asked)

    # ---- What the model gets
    def functions(self) -> Sequence[HostedFunction]:
        found: Dict[str, HostedFunction] = {}
        for label, server in self.servers.items():
            for tool in server.tools or ():
                own = function_name(label, tool["name"], found)
                self._names[json.dumps([label, tool["name"]])] = own
                found[own] = HostedFunction(
                    self.request.name(own), _description(tool), schema_of(tool), _Caller(self, server, tool)
                )
        return list(found.values())

    def name(self, label: str, tool: str) -> str:
        """The name of a tool's function before :meth:`HostedRequest.name`."""
        return self._names.get(json.dumps([label, tool])) or function_name(label, tool, {})

    def chosen(self, choice: Json, forced: bool) -> Sequence[str]:
        label, name = choice.get("server_label"), choice.get("name")
        server = self.servers.get(str(label))
        tools = [tool["name"] for tool in server.tools or ()] if server is not None else []
        chosen = [tool for tool in tools if name in (None, tool)]
        if not chosen:
            what = f"no tool '{str(name)[:80]}'" if tools and name is not None else "no tools"
            raise invalid(
                f"tool_choice: the MCP server '{str(label)[:80]}' has {what} in this request.",
                "tool_choice",
                "invalid_value",
            )
        return [self.request.name(self.name(str(label), tool)) for tool in chosen]

    # ---- Histories
    def history(self, items: Sequence[AnyItem]) -> List[AnyItem]:
        asked = {_id(item, "id") for item in items if item.get("type") == REQUEST}
        made = {_id(item, "approval_request_id"): item for item in items if item.get("type") == CALL}
        written: List[AnyItem] = []
        number = 0
        for item in items:
            kind = item.get("type")
            if kind not in Mcp.items:
                written.append(item)
                continue
            number += 1
            request_id = _id(item, "id" if kind == REQUEST else "approval_request_id")
            waits = request_id in self._approved and request_id not in made  # it is not run yet
            if kind in (REQUEST, RESPONSE) and waits:
                written.append(item)
            elif kind == REQUEST:
                written += self._call(item, self._answer_text(str(request_id), made.get(request_id)), number)
            elif kind == CALL and request_id not in asked:
                written += self._call(item, self._text(item), number)
        return written

    def _call(self, item: AnyItem, text: str, number: int) -> List[AnyItem]:
        known = self.request.known.get(str(item.get("id")))
        arguments = known["arguments"] if known is not None else arguments_of(item)
        own = (
            known["name"]
            if known is not None
            else self.name(str(item.get("server_label")), str(item.get("name")))
        )
        return function_call(item, self.request.name(own), arguments, text, number)

    def _answer_text(self, request_id: str, call: Optional[AnyItem]) -> str:
        """The text of a call that had to be approved, as the model reads it."""
        answer = self._answers.get(request_id)
        if call is not None:
            return self._text(call)
        if answer is None:
            return UNANSWERED
        if answer.get("approve") is not True:
            return refused(answer)
        outcome = self.kind.approvals.outcome(self.request.owner, request_id)
        return UNKNOWN if outcome is None else outcome.text

    def _text(self, call: AnyItem) -> str:
        known: Optional[HostedResult] = self.request.known.get(str(call.get("id")))
        return text_of(call) if known is None else known["text"]


def _id(item: AnyItem, field: str) -> Optional[str]:
    """An id in an item, which may be of any type, because clients send it."""
    value = item.get(field)
    return value if isinstance(value, str) else None


def _answers(items: Sequence[AnyItem]) -> Dict[str, AnyItem]:
    """The user's answers by the id of the request; the first one counts."""
    found: Dict[str, AnyItem] = {}
    for item in items:
        if item.get("type") == RESPONSE:
            found.setdefault(str(item.get("approval_request_id")), item)
    return found


def _newest(items: Sequence[AnyItem]) -> List[AnyItem]:
    """The answers to approval requests that the model does not know yet: those after its last output."""
    found: List[AnyItem] = []
    for item in reversed(items):
        kind = item.get("type")
        if kind == RESPONSE:
            found.append(item)
        elif kind != REQUEST and kind not in INPUT and item.get("role", "assistant") == "assistant":
            break
    return found[::-1]


def _description(tool: Json) -> str:
    text = tool.get("description")
    return text[:MAX_DESCRIPTION] if isinstance(text, str) else ""


# ---- Calls
class _List(HostedCall):
    """Asks a server for its tools."""

    held = True

    def __init__(self, session: McpSession, server: _Server) -> None:
        self._session, self._server = session, server
        self.server = server.label
        self.item = {"type": LIST, "server_label": server.entry.label}

    async def run(self) -> Outcome:
        session, server = self._session, self._server
        try:
            tools = await session.kind.servers.tools(server.entry.server, session.request.owner)
        except McpError as error:
            return self._failed(list_failed(server.entry.label, error))
        finally:
            server.asked.set()
        server.know(tools)
        entries = listed(server.tools or ())
        return Outcome({"tools": entries}, json.dumps(entries, ensure_ascii=False))

    def stopped(self, reason: str) -> Outcome:
        return self._failed(
            list_failed(self._server.entry.label, McpError("http_error", 504, reason.rstrip(".")))
        )

    @staticmethod
    def _failed(error: ApiError) -> Outcome:
        return Outcome({"tools": [], "error": str(error)}, error=error)


class _Caller:
    """Makes the call of a tool from what the model has written."""

    def __init__(self, session: McpSession, server: _Server, tool: Json) -> None:
        self._session, self._server, self._tool = session, server, tool

    def __call__(self, arguments: str) -> HostedCall:
        session, server, name = self._session, self._server, self._tool["name"]
        if server.entry.asks(self._tool) and isinstance(loads(arguments or "{}"), dict):
            return _Question(session, server, name, arguments)
        return _Call(session, server, name, arguments)


class _Call(HostedCall):
    """Calls a tool."""

    tool = "mcp"

    def __init__(
        self,
        session: McpSession,
        server: _Server,
        name: str,
        arguments: str,
        approval_id: Optional[str] = None,
    ) -> None:
        self._session, self._server, self._name = session, server, name
        self.server = server.label
        self.function = session.name(server.entry.label, name)
        self.item = {
            "type": CALL,
            "approval_request_id": approval_id,
            "server_label": server.entry.label,
            "name": name,
            "arguments": arguments or "{}",
            "output": None,
            "error": None,
        }

    async def run(self) -> Outcome:
        session, server = self._session, self._server
        arguments = loads(self.item["arguments"])
        if not isinstance(arguments, dict):
            return self._failed(PROTOCOL, INVALID_PARAMS, "the arguments are not a JSON object")
        if server.tools is None:
            await server.asked.wait()
        tool = server.tool(self._name)
        if tool is None:
            return self._failed(PROTOCOL, INVALID_PARAMS, f"there is no tool '{self._name[:100]}'")
        if server.failures >= MAX_FAILURES:
            return self._failed(
                PROTOCOL, INTERNAL_ERROR, "the server has failed too often; continue without it"
            )
        try:
            result = await session.kind.servers.call(
                server.entry.server, session.request.owner, tool, arguments
            )
        except McpError as error:
            server.failures += 1
            return self._failed(error.kind, error.code, str(error))
        return self._outcome(answered(result))

    def _failed(self, kind: str, code: int, text: str) -> Outcome:
        return self._outcome(failed(kind, code, text))

    @staticmethod
    def _outcome(known: Json) -> Outcome:
        return Outcome(known, text_of(known))

    def stopped(self, reason: str) -> Outcome:
        return self._failed(PROTOCOL, INTERNAL_ERROR, reason)


class _Approved(_Call):
    """Calls a tool that the user has allowed, once."""

    def __init__(
        self, session: McpSession, server: _Server, name: str, arguments: str, approval_id: str
    ) -> None:
        super().__init__(session, server, name, arguments, approval_id)
        self._approval_id = approval_id

    async def run(self) -> Outcome:
        kind, owner, asked = self._session.kind, self._session.request.owner, self._approval_id
        lost = self._failed(PROTOCOL, INTERNAL_ERROR, INTERRUPTED)
        try:
            return await kind.approvals.run(owner, asked, lambda: kind.claim(owner, asked), super().run, lost)
        except ApiError as error:
            return Outcome(failed(PROTOCOL, INTERNAL_ERROR, str(error)), error=error)


class _Question(HostedCall):
    """Asks the user whether a tool may be called."""

    tool = "mcp"
    pauses = True

    def __init__(self, session: McpSession, server: _Server, name: str, arguments: str) -> None:
        label = server.entry.label
        self.server = server.label
        self.function = session.name(label, name)
        self.item = {"type": REQUEST, "server_label": label, "name": name, "arguments": arguments or "{}"}
