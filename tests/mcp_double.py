"""An MCP server over HTTP in the test's own process, of both eras, with the faults that there are.

``/mcp`` is Streamable HTTP; with ``old_transport`` it refuses POSTs, and ``/sse`` is the transport of
2024-11-05.
What was asked stands in :attr:`McpDouble.asked`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, AsyncIterator, Callable, Dict, List, NamedTuple, Optional

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

Json = Dict[str, Any]

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
META = "io.modelcontextprotocol/"


def tool(name: str, description: str = "", read_only: Optional[bool] = None, **properties: Any) -> Json:
    made: Json = {"name": name, "inputSchema": {"type": "object", "properties": properties}}
    if description:
        made["description"] = description
    if read_only is not None:
        made["annotations"] = {"readOnlyHint": read_only}
    return made


def text(*texts: str, failed: bool = False) -> Json:
    result: Json = {"content": [{"type": "text", "text": one} for one in texts]}
    return {**result, "isError": True} if failed else result


STRING = {"type": "string"}
TOOLS = [
    tool("echo", "Gives the text back.", text=STRING),
    tool("add", "Adds two numbers.", True, a={"type": "number"}, b={"type": "number"}),
    tool("fail", "Fails politely."),
    tool("crash", "Fails as a protocol error."),
]


class ReceivedRequest(NamedTuple):
    """One request to it: ``rpc`` is the message in it."""

    http: HTTPServerRequest
    rpc: Json

    @property
    def method(self) -> str:
        return str(self.rpc.get("method", self.http.method))


class McpDouble:
    """``eras``: ``modern``, ``legacy``.  ``events``: answers are event streams.  ``results``: tool -> what it
    answers.  ``gate``: calls wait for it, lists for ``list_gate``.  ``fault``: of calls, see
    :meth:`_Handler._respond`.
    """

    def __init__(self) -> None:
        self.asked: List[ReceivedRequest] = []
        self.eras = ["modern", "legacy"]
        self.events = self.sessions = self.noise = self.old_transport = False
        self.tools: List[Json] = list(TOOLS)
        self.results: Dict[str, Callable[[Json], Json]] = {
            "echo": lambda given: text(given["text"]),
            "add": lambda given: {"content": [], "structuredContent": {"sum": given["a"] + given["b"]}},
            "fail": lambda given: text("the disk is full", failed=True),
        }
        self.page = 1000
        self.ttl: Optional[int] = None  # milliseconds
        self.token = ""
        self.status = 0
        self.headers: Dict[str, str] = {}
        self.fault = ""
        self.gate: Optional[asyncio.Event] = None
        self.list_gate: Optional[asyncio.Event] = None
        self.gone = 0
        self.known: List[str] = []  # sessions
        self.stream: Optional[_Handler] = None  # of the old transport
        self.resumable: Dict[str, Json] = {}
        self.endpoint = "/messages"
        sock, self.port = bind_unused_port()
        application = Application([(r".*", _Handler, {"double": self})], log_function=lambda handler: None)
        self._server = HTTPServer(application)
        self._server.add_socket(sock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{'/sse' if self.old_transport else '/mcp'}"

    @property
    def methods(self) -> List[str]:
        return [asked.method for asked in self.asked]

    @property
    def calls(self) -> List[Json]:
        """The parameters of all calls."""
        return [asked.rpc["params"] for asked in self.asked if asked.method == "tools/call"]

    async def close(self) -> None:
        if self.gate is not None:
            self.gate.set()
        self._server.stop()
        await self._server.close_all_connections()

    # ---- The protocol
    def result(self, method: str, params: Json) -> Json:
        if method == "initialize":
            asked = params["protocolVersion"]
            return {
                "protocolVersion": asked,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "d", "version": "1"},
            }
        if method == "server/discover":
            return {"supportedVersions": [MODERN], "capabilities": {"tools": {}}}
        if method == "tools/list":
            start = int(params.get("cursor") or 0)
            found: Json = {"tools": self.tools[start : start + self.page]}
            if start + self.page < len(self.tools):
                found["nextCursor"] = str(start + self.page)
            return found if self.ttl is None else {**found, "ttlMs": self.ttl}
        return self.results[params["name"]](params.get("arguments") or {})


@contextlib.asynccontextmanager
async def mcp_double(**attributes: Any) -> AsyncIterator[McpDouble]:
    double = McpDouble()
    for name, value in attributes.items():
        assert hasattr(double, name), name
        setattr(double, name, value)
    try:
        yield double
    finally:
        await double.close()


class _Handler(RequestHandler):
    def initialize(self, double: McpDouble) -> None:
        self.double = double
        self.closed = asyncio.Event()

    def on_connection_close(self) -> None:
        self.double.gone += 1
        self.closed.set()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish("no")

    async def delete(self) -> None:
        self.double.asked.append(ReceivedRequest(self.request, {}))
        self.set_status(200)

    async def get(self) -> None:
        double = self.double
        double.asked.append(ReceivedRequest(self.request, {}))
        last = self.request.headers.get("Last-Event-ID")
        if double.old_transport and self.request.path == "/sse" and self._allowed():
            self.set_header("Content-Type", "text/event-stream")
            double.stream = self
            await self.event(double.endpoint, "endpoint")
            await self.closed.wait()
            self._auto_finish = False
        elif last in double.resumable:
            self.set_header("Content-Type", "text/event-stream; charset=utf-8")
            await self.event(json.dumps(double.resumable.pop(str(last))))
        else:
            self.set_status(405)

    async def post(self) -> None:
        double = self.double
        rpc = json.loads(self.request.body)
        double.asked.append(ReceivedRequest(self.request, rpc))
        for name, value in double.headers.items():
            self.set_header(name, value)
        if not self._allowed():
            return
        if double.old_transport:
            if self.request.path != "/messages":
                self.set_status(405)
                return
            self.set_status(202)
            answer = await self._answer(rpc)
            if answer is not None and double.stream is not None:
                await double.stream.event(json.dumps(answer))
            return
        modern = META + "protocolVersion" in (rpc.get("params") or {}).get("_meta", {})
        refused = self._checked(rpc, modern)
        if refused is not None:
            code, words, status = refused
            self.set_status(status)
            self.finish({"jsonrpc": "2.0", "id": rpc.get("id"), "error": {"code": code, "message": words}})
            return
        if double.list_gate is not None and rpc.get("method") == "tools/list":
            await double.list_gate.wait()
            if not self._allowed():
                return
        await self._respond(rpc, modern)

    def _allowed(self) -> bool:
        double = self.double
        if double.status:
            self.set_status(double.status)
            self.finish("no")
        elif double.token and self.request.headers.get("Authorization") != "Bearer " + double.token:
            self.set_status(401)
            self.finish({"error": "invalid_token", "you_sent": self.request.headers.get("Authorization")})
        else:
            return True
        return False

    def _checked(self, rpc: Json, modern: bool) -> Any:
        """Why the message is refused: a code, words and a status."""
        double, headers = self.double, self.request.headers
        method = rpc.get("method")
        if modern:
            if "modern" not in double.eras:
                return -32600, "Bad Request: Missing session ID", 400
            named = headers.get("Mcp-Method") == method and headers.get("MCP-Protocol-Version") == MODERN
            return None if named else (-32020, "Header mismatch", 400)
        if "legacy" not in double.eras:
            return -32020, "Header mismatch: this server speaks 2026-07-28 only", 400
        if double.sessions and method == "initialize":
            double.known.append(f"session-{len(double.known)}")
            self.set_header("Mcp-Session-Id", double.known[-1])
        elif double.sessions and headers.get("Mcp-Session-Id") != (double.known or [""])[-1]:
            return -32600, "Session not found", 404
        return None

    async def _respond(self, rpc: Json, modern: bool) -> None:
        double = self.double
        if "id" not in rpc or "method" not in rpc:
            self.set_status(202)
            return
        if not double.events:
            self.set_header("Content-Type", "application/json")
            answer = await self._answer(rpc)
            if double.fault == "garbage" and rpc["method"] == "tools/call":
                self.finish(b"<html>\xff\xfe no JSON")
            else:
                self.finish(json.dumps(answer))
            return
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        if double.noise:
            self.write(": a comment\r\n\r\n")
            await self.event('{"jsonrpc": "2.0", "method": "notifications/message", "params": {}}')
            await self.event('{"jsonrpc": "2.0", "id": 77, "method": "ping"}')
            await self.event('{"jsonrpc": "2.0", "id": 999, "result": {}}')
        if double.fault == "resume" and rpc["method"] == "tools/call":
            double.resumable["e1"] = await self._answer(rpc) or {}
            self.write("id: e1\nretry: 10\ndata:\n\n")
            return
        whole = json.dumps(await self._answer(rpc))
        if double.fault == "cut" and rpc["method"] == "tools/call":
            self.write("data: " + whole[: len(whole) // 2])
            return
        await self.event(whole)
        if double.fault == "open":  # a server may keep the stream open
            await self.closed.wait()
            self._auto_finish = False

    async def _answer(self, rpc: Json) -> Optional[Json]:
        double = self.double
        if "id" not in rpc or "method" not in rpc:
            return None
        answer = {"jsonrpc": "2.0", "id": rpc["id"]}
        if rpc["method"] == "tools/call":
            if double.gate is not None:
                await double.gate.wait()
            if rpc["params"]["name"] not in double.results:
                return {**answer, "error": {"code": -32603, "message": "Internal error: out of luck"}}
        return {**answer, "result": double.result(rpc["method"], rpc.get("params") or {})}

    async def event(self, data: str, kind: str = "message") -> None:
        self.write(f"event: {kind}\ndata: {data}\n\n")
        with contextlib.suppress(StreamClosedError):
            await self.flush()
