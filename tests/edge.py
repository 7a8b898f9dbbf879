"""A server for the tests of the edges: the real application on a real socket, above a service that plays
canned turns.

The word in ``input`` chooses the turn; see :class:`PlayedService`.  Rude clients use :class:`Raw`, a bare
socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from typing import Any, AsyncIterator, Dict, List, Optional, Tuple

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.websocket import WebSocketClientConnection, websocket_connect

from rproxy.config.schema import Auth, Config, Server, Store
from rproxy.errors import ApiError, previous_response_not_found
from rproxy.server.app import make_app, make_server
from rproxy.server.base import AppState
from rproxy.service.client import Client, EventSink, TurnResult

Json = Dict[str, Any]
MODELS = {
    "object": "list",
    "data": [
        {"id": "m", "object": "model", "created": 0, "owned_by": "rproxy"},
        {"id": "org/m", "object": "model", "created": 0, "owned_by": "rproxy"},
    ],
    "models": [],
}


class PlayedService:
    """Plays turns by the first word of ``input``:

    ``hello`` two events, ``count N`` with N deltas between them, ``wait`` silence until cancelled, ``begin``
    the first event and then silence, ``gate`` the first event and then a wait for :attr:`gate` or an
    interrupt, ``flood`` large events without end, ``refuse`` a 429 before the first event, ``crash`` and
    ``crash-late`` exceptions before and after it.
    """

    def __init__(self) -> None:
        self.clients: List[Client] = []
        self.requests: List[Json] = []
        self.running = 0
        self.most = 0
        self.cancelled = 0
        self.sent = 0
        self.gate = asyncio.Event()

    def models(self) -> Json:
        return MODELS

    models_etag = '"catalog-1"'

    def health(self) -> Json:
        return {"status": "ok"}

    async def compact(self, request: Json, client: Client) -> TurnResult:
        return TurnResult({"object": "response.compaction", "echo": request}, {})

    async def create(self, request: Json, client: Client, out: Optional[EventSink]) -> TurnResult:
        self.requests.append(request)
        self.clients.append(client)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return TurnResult(await self.play(request, client, out), {})
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def play(self, request: Json, client: Client, out: Optional[EventSink]) -> Json:
        word, _, rest = str(request.get("input", "hello")).partition(" ")
        response = {
            "id": f"resp_{len(self.requests)}",
            "object": "response",
            "status": "in_progress",
            "output": [],
        }
        previous = request.get("previous_response_id")
        if client.local is not None and previous is not None and previous not in client.local:
            raise previous_response_not_found(previous)
        if word == "refuse":
            raise ApiError(429, "Slow down.", code="rate_limit_exceeded", retry_after=7)
        if word == "crash":
            raise RuntimeError("a secret of the inside")
        if word == "wait":
            await asyncio.sleep(3600)
        if out is None:
            return {**response, "status": "completed", "text": "hé\ud800llo"}
        sequence = 0

        def send(kind: str, **fields: Any) -> Any:
            nonlocal sequence
            sequence += 1
            self.sent += 1
            return out.send([{"type": kind, "sequence_number": sequence - 1, **fields}])

        out.begin(response, {"x-ratelimit-remaining-requests": "9"})
        send("response.created", response=response)
        if word == "begin":
            await asyncio.sleep(3600)
        if word == "crash-late":
            raise RuntimeError("a secret of the inside")
        if word == "gate":
            waits = [asyncio.ensure_future(self.gate.wait())]
            if client.interrupt is not None:
                stopped = asyncio.Event()
                client.interrupt.on_cancel(stopped.set)
                waits.append(asyncio.ensure_future(stopped.wait()))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if not self.gate.is_set():
                response = {
                    **response,
                    "status": "incomplete",
                    "incomplete_details": {"reason": "interrupted"},
                }
                send("response.incomplete", response=response)
                return response
        for number in range(int(rest or 0)):
            send("response.output_text.delta", delta=str(number))
            await asyncio.sleep(0)
        while word == "flood":
            full = send("response.output_text.delta", delta="x" * 65536)
            await (full if full is not None else asyncio.sleep(0))
        response = {**response, "status": "completed"}
        if client.local is not None:
            client.local[response["id"]] = {"response": response}
        send("response.completed", response=response)
        return response


def config(**server: Any) -> Config:
    """A configuration for the edges alone."""
    keys = server.pop("keys", None)
    if keys is not None:
        server["auth"] = Auth(enabled=True, keys=tuple(keys))
    server.setdefault("listen_addr", "127.0.0.1:0")
    return Config(
        server=dataclasses.replace(Server(), **server), models=(), store=Store(), path=None, warnings=()
    )


class Raw:
    """A bare socket that speaks what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("\r\n".join((*lines, "", "")).encode() + body)

    async def head(self) -> Tuple[int, Dict[str, str]]:
        """Status and headers (lower-case names) of the next answer."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        return int(lines[0].split()[1]), {
            k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if line)
        }

    async def answer(self) -> Tuple[int, Dict[str, str], Any]:
        """One whole JSON answer."""
        status, headers = await self.head()
        return status, headers, json.loads(await self.reader.readexactly(int(headers["content-length"])))

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return await self.reader.read()

    def cut(self) -> None:
        """Leave without a word."""
        self.writer.transport.abort()


class Edge:
    """One running server and ways to talk to it."""

    def __init__(self, state: AppState, service: PlayedService, server: HTTPServer, port: int) -> None:
        self.state, self.service, self.server, self.port = state, service, server, port
        self.url = f"http://127.0.0.1:{port}"
        self.http = AsyncHTTPClient(force_instance=True, max_clients=100)
        self.raws: List[Raw] = []
        self.sockets: List[WebSocketClientConnection] = []

    async def fetch(self, path: str, body: Any = None, **more: Any) -> HTTPResponse:
        if body is not None:
            more.setdefault("method", "POST")
            more["body"] = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.fetch(
            self.url + path, raise_error=False, allow_nonstandard_methods=True, **more
        )

    async def raw(self) -> Raw:
        raw = Raw(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26))
        self.raws.append(raw)
        return raw

    async def ws(
        self, path: str = "/v1/responses", headers: Optional[Dict[str, str]] = None
    ) -> WebSocketClientConnection:
        request = HTTPRequest(f"ws://127.0.0.1:{self.port}{path}", headers=headers or {})
        self.sockets.append(await websocket_connect(request, max_message_size=1 << 28))
        return self.sockets[-1]


@contextlib.asynccontextmanager
async def edge(**server: Any) -> AsyncIterator[Edge]:
    """A server with this ``server`` section; everything is closed at the end."""
    service = PlayedService()
    settings = config(**server)
    app = make_app(settings, service)  # type: ignore[arg-type]
    http = make_server(settings, app)
    socket, port = bind_unused_port()
    http.add_sockets([socket])
    running = Edge(app.settings["state"], service, http, port)
    try:
        yield running
    finally:
        running.http.close()
        for raw in running.raws:
            raw.cut()
        for client in running.sockets:
            client.close()
        http.stop()
        await http.close_all_connections()
        for session in list(running.state.sessions):
            session.close()  # type: ignore[attr-defined]
        await asyncio.sleep(0.02)


def error_of(response: HTTPResponse) -> Json:
    """The error of an answer, which must be in OpenAI's shape and carry a request id."""
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    error = json.loads(response.body)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
    return dict(error)
