"""The whole application on a real socket, in front of a provider that plays canned answers: for tests of the
client's side.

The first word of the input chooses the answer; see :class:`PlayedProvider`.  Clients that misbehave use
:class:`Raw`, a bare socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import json
import time
from typing import Any, AsyncIterator, Dict, List, NamedTuple, Optional, Tuple

from rawserver import CHUNKED, END, OK, Peer, RawServer, chunk, until
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.websocket import WebSocketClientConnection, websocket_connect

from rproxy.config.addresses import parse_listen_address
from rproxy.config.load import parse_config
from rproxy.config.schema import Auth, Config, Key
from rproxy.server.app import make_app, make_server
from rproxy.server.base import AppState
from rproxy.service.service import Service
from rproxy.store.memory import MemoryStore
from rproxy.upstream.client import Upstream

Json = Dict[str, Any]
MODELS = """
models:
  - {model: m, provider: &lab {name: lab, base_url: "http://127.0.0.1:1", api_key: sk-lab}}
  - {model: org/m, provider: *lab}
"""
STREAM_HEAD = CHUNKED[:-2] + b"Content-Type: text/event-stream\r\nx-ratelimit-remaining-requests: 9\r\n\r\n"


class Clock:
    """Seconds since the epoch, for the service; ``broken``: it fails, once."""

    def __init__(self) -> None:
        self.broken = False

    def __call__(self) -> float:
        if self.broken:
            self.broken = False
            raise RuntimeError("a secret of the inside")
        return time.time()


class PlayedProvider:
    """Plays answers by the first word of the last message:

    ``hello`` a short text, ``count N`` N deltas, ``wait`` silence, ``begin`` a first delta and then silence,
    ``gate`` a first delta and then a wait for :attr:`gate`, ``break`` the same and then the end of the
    connection, ``flood`` large deltas without end, ``refuse`` a 429; ``crash`` and ``crash-late`` break the
    clock of the service before and after the first delta.

    ``running`` requests are under way, ``most`` were at a time; ``cancelled`` counts those that rproxy gave
    up; ``sent`` the deltas.
    """

    def __init__(self, clock: Clock) -> None:
        self._server = RawServer(self._answer_all)
        self.requests: List[Json] = []
        self.running = self.most = self.cancelled = self.sent = 0
        self.gate = asyncio.Event()
        self._clock = clock

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Answer while the context lasts. Gives the base URL."""
        async with self._server.running():
            yield self._server.url

    async def _answer_all(self, peer: Peer) -> None:
        while True:
            _, _, body = await peer.request()
            self.requests.append(json.loads(body))
            self.running += 1
            self.most = max(self.most, self.running)
            answering = asyncio.ensure_future(self._answer(peer, self.requests[-1]))
            leaving = asyncio.ensure_future(peer.reader.read(1))
            try:
                await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done() or answering.exception() is not None:
                    self.cancelled += 1
                    return
            finally:
                self.running -= 1
                for task in (answering, leaving):
                    task.cancel()
                await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _answer(self, peer: Peer, request: Json) -> None:
        content = request["messages"][-1]["content"]
        word, _, rest = str(content).partition(" ")
        if word == "refuse":
            body = json.dumps({"error": {"message": "Slow down."}}).encode()
            head = f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: {len(body)}\r\n\r\n"
            await peer.send(head.encode() + body)
            return
        if word == "wait":
            await asyncio.Event().wait()
        if word == "crash":
            self._clock.broken = True
        if not request.get("stream"):
            if word == "gate":
                await self.gate.wait()
            choice = {"index": 0, "message": {"role": "assistant", "content": "h\xe9\ud800llo"}}
            body = json.dumps({"choices": [{**choice, "finish_reason": "stop"}]}).encode()
            await peer.send(OK.replace(b"2\r\n\r\nok", b"%d\r\n\r\n%b" % (len(body), body)))
            return
        await peer.send(STREAM_HEAD)
        if word in ("hello", "begin", "gate", "break", "crash-late"):
            await self._delta(peer, "He")
        if word == "begin":
            await asyncio.Event().wait()
        if word in ("gate", "break"):
            await self.gate.wait()
        if word == "break":
            peer.writer.close()
            return
        if word == "crash-late":
            self._clock.broken = True
        for number in range(int(rest) if word == "count" else 0):
            await self._delta(peer, str(number))
        while word == "flood":
            await self._delta(peer, "x" * 65536)
        await peer.send(chunk(_event({}, "stop") + b"data: [DONE]\n\n") + END)

    async def _delta(self, peer: Peer, text: str) -> None:
        self.sent += 1
        await peer.send(chunk(_event({"content": text}, None)))


def _event(delta: Json, finish_reason: Optional[str]) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


def config(base_url: str = "http://127.0.0.1:1", **server: Any) -> Config:
    """A configuration with this ``server`` section, and a provider at ``base_url``.

    ``keys``, texts or :class:`Key`, switches auth on.
    """
    keys = server.pop("keys", None)
    if keys is not None:
        named = (k if isinstance(k, Key) else Key(f"key{i}", k) for i, k in enumerate(keys, 1))
        server["auth"] = Auth(enabled=True, keys=tuple(named))
    listen_addr = server.pop("listen_addr", "127.0.0.1:0")
    texts = [listen_addr] if isinstance(listen_addr, str) else listen_addr
    server["listen_addr"] = tuple(map(parse_listen_address, texts))
    parsed = _parsed()
    models = tuple(
        dataclasses.replace(
            m, providers=tuple(dataclasses.replace(p, base_url=base_url) for p in m.providers)
        )
        for m in parsed.models
    )
    return dataclasses.replace(parsed, models=models, server=dataclasses.replace(parsed.server, **server))


@functools.cache
def _parsed() -> Config:
    """Parsed once: it takes as long as a small test."""
    return parse_config(MODELS.encode(), "test.yaml", {})


def response_id(number: int) -> str:
    """The id of a service's response; they are numbered from 1."""
    return f"resp_{number:032x}"


class Played(NamedTuple):
    """The real service above a played provider."""

    config: Config
    service: Service
    provider: PlayedProvider


@contextlib.asynccontextmanager
async def played(**server: Any) -> AsyncIterator[Played]:
    """The service, its store in memory, above a played provider; everything is closed at the end."""
    clock, numbers = Clock(), itertools.count(1)
    provider = PlayedProvider(clock)
    async with provider.serving() as url:
        settings = config(url, **server)
        upstream, store = Upstream(environ={}), MemoryStore(1000, 1 << 28, 3600.0, time.time)
        service = Service(settings, upstream, store, stem=lambda: f"{next(numbers):032x}", now=clock)
        try:
            yield Played(settings, service, provider)
        finally:
            await service.close()
            upstream.close()


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


class RunningServer:
    """One running server and ways to talk to it."""

    def __init__(self, state: AppState, provider: PlayedProvider, server: HTTPServer, port: int) -> None:
        self.state, self.provider, self.server, self.port = state, provider, server, port
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
async def running_server(**server: Any) -> AsyncIterator[RunningServer]:
    """A server with this ``server`` section; everything is closed at the end."""
    async with played(**server) as (settings, service, provider):
        socket, port = bind_unused_port()
        addresses = tuple(address._replace(port=port) for address in settings.server.listen_addr)
        app = make_app(settings, service, addresses)
        http = make_server(settings, app)
        http.add_sockets([socket])
        running = RunningServer(app.settings["state"], provider, http, port)
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
            await until(lambda: not running.state.sessions and not running.state.turns)


def error_of(response: HTTPResponse) -> Json:
    """The error of an answer, which must be in OpenAI's shape and carry a request id."""
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    error = json.loads(response.body)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
    return dict(error)
