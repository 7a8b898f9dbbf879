"""The server: its life from the open port to the shutdown, and the whole path through it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, AsyncIterator, Callable, List, Optional, Sequence, Tuple

import pytest
from rawserver import CHUNKED, END, Peer, RawServer, chunk, until
from running_server import PlayedProvider, error_of, played, response_id
from scripted import served
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

from rproxy.cli.demo.server import serve_demo
from rproxy.config.load import parse_config
from rproxy.config.schema import Config
from rproxy.errors import ConfigError
from rproxy.server import app
from rproxy.server.listen import Listener
from rproxy.service.service import Service


def test_what_is_rarely_needed_is_not_imported_at_the_start() -> None:
    rare = [
        "redis",
        "sqlite3",
        "zstandard",
        "urllib.request",
        "rproxy.cli.demo.server",
        "rproxy.providers.failures",
        "rproxy.hosted",
    ]
    code = f"import sys, rproxy.cli.main; print([name for name in {rare!r} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


# ---- Life and death
async def test_what_was_opened_is_closed_when_the_rest_cannot_be(tmp_path: Path) -> None:
    text = (
        "models: [{model: m, provider: {base_url: 'http://127.0.0.1:9'}}]\n"
        f"store: {{kind: sqlite, path: '{tmp_path}/responses.db'}}\nusage: {{path: '{tmp_path}'}}\n"
    )
    before = set(threading.enumerate())
    with pytest.raises(ConfigError, match=r"usage\.path: cannot use"):
        async with app.open_service(parse_config(text.encode(), "test.yaml", {})):
            pass
    assert set(threading.enumerate()) <= before


class Running:
    """A server under :func:`rproxy.server.app.run`."""

    def __init__(self) -> None:
        self.url = ""
        self.task: Optional[asyncio.Task[None]] = None
        self.http = AsyncHTTPClient(force_instance=True, max_clients=100)
        self.sockets: List[WebSocketClientConnection] = []

    async def ws(self) -> WebSocketClientConnection:
        self.sockets.append(await websocket_connect(self.url.replace("http", "ws") + "/v1/responses"))
        return self.sockets[-1]

    def signal(self, number: int = signal.SIGTERM) -> None:
        os.kill(os.getpid(), number)

    async def stopped(self, seconds: float = 5.0) -> None:
        assert self.task is not None
        await asyncio.wait_for(asyncio.shield(self.task), seconds)

    async def post(self, word: str, stream: bool = True) -> Any:
        body = json.dumps({"model": "m", "input": word, "stream": stream})
        return await self.http.fetch(self.url + "/v1/responses", method="POST", body=body, raise_error=False)


@contextlib.asynccontextmanager
async def running(**server: Any) -> AsyncIterator[Tuple[Running, PlayedProvider]]:
    async with played(**server) as (settings, service, provider), running_app(settings, service) as one:
        yield one, provider


@contextlib.asynccontextmanager
async def running_app(settings: Config, service: Service) -> AsyncIterator[Running]:
    one = Running()
    opened = asyncio.Event()

    def ready(listeners: Sequence[Listener]) -> None:
        one.url = listeners[0].address.url(False)
        opened.set()

    one.task = asyncio.ensure_future(app.run(settings, service, load=lambda: settings, ready=ready))
    await asyncio.wait_for(opened.wait(), 5)
    try:
        yield one
    finally:
        one.http.close()
        for client in one.sockets:
            client.close()
        if not one.task.done():
            one.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await one.task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_stops_at_once(number: int) -> None:
    before = signal.getsignal(number)
    async with running() as (one, _):
        assert (await one.http.fetch(one.url + "/health")).code == 200
        ws = await one.ws()
        one.signal(number)
        assert await ws.read_message() is None and ws.close_code == 1012
        await one.stopped(1.0)
        with pytest.raises(OSError):
            await one.http.fetch(one.url + "/health")
    assert signal.getsignal(number) is before


async def closed(reader: asyncio.StreamReader) -> bool:
    """Has the connection been closed with nothing more to read?"""
    with contextlib.suppress(ConnectionResetError):
        return await reader.read() == b""
    return True


async def heard(ws: WebSocketClientConnection, *types: str) -> Any:
    """The next event of one of these types."""
    while True:
        event = json.loads(str(await ws.read_message()))
        if event["type"] in types:
            return event


async def test_running_turns_may_end() -> None:
    async with running() as (one, provider):
        ws = await one.ws()
        for _ in range(2):
            ws.write_message(json.dumps({"type": "response.create", "model": "m", "input": "gate"}))
        await heard(ws, "response.output_text.delta")
        answer = asyncio.ensure_future(one.post("gate"))
        await until(lambda: provider.running == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(one.url.rpartition(":")[2]))
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.read(4096)
        assert b"200 OK" in head and b"Connection: close" not in head
        refused, stranger = await asyncio.open_connection("127.0.0.1", int(one.url.rpartition(":")[2]))
        stranger.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await refused.read(4096)
        one.signal()
        assert json.loads(str(await ws.read_message()))["status"] == 503  # the turn that waited
        ws.write_message(json.dumps({"type": "response.create", "model": "m", "input": "hello"}))
        assert json.loads(str(await ws.read_message()))["status"] == 503  # a new one
        for _ in range(2):  # the connection stays open for those who ask how the process is
            for path, status in ((b"/ready", b"503"), (b"/health", b"200"), (b"/ready?for=balancer", b"503")):
                writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
                head = await reader.read(4096)
                assert head.startswith(b"HTTP/1.1 " + status) and b"Connection: close" not in head
                assert (b'"draining"' in head) == (status == b"503")
        stranger.write(b"GET /v1/models HTTP/1.1\r\nHost: other.example\r\n\r\n")
        head = await refused.read(4096)  # what is wrong is said, and that this connection is of no more use
        stranger.close()
        assert head.startswith(b"HTTP/1.1 403") and b"Connection: close" in head
        body = b'{"model": "m", "input": "hello"}'
        head = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        assert await closed(reader)  # without a byte, so that a balancer asks another process
        provider.gate.set()
        await heard(ws, "response.completed")
        assert await ws.read_message() is None and ws.close_code == 1012
        assert (await answer).body.endswith(b"data: [DONE]\n\n")
        await one.stopped()
        assert provider.cancelled == 0
        writer.close()


async def test_the_listener_stays_open_for_drain_delay() -> None:
    async with running(drain_delay=3600.0) as (one, provider):
        ws = await one.ws()
        one.signal()
        for _ in range(200):
            ready = await one.http.fetch(one.url + "/ready", raise_error=False)
            if ready.code == 503:
                break
        assert json.loads(ready.body)["status"] == "draining"
        assert (await one.post("hello")).code == 200  # on a new connection
        ws.write_message(json.dumps({"type": "response.create", "model": "m", "input": "hello"}))
        await heard(ws, "response.completed")
        answer = asyncio.ensure_future(one.post("gate"))
        await until(lambda: provider.running == 1)
        one.signal()  # nobody waits any longer
        assert b"response.failed" in (await answer).body
        assert await ws.read_message() is None and ws.close_code == 1012
        await one.stopped()


async def cut_short(one: Running, provider: PlayedProvider, hurry: Callable[[], Any]) -> None:
    """Stop a server with turns that do not end by themselves; every client must hear how it ended."""
    ws = await one.ws()
    ws.write_message(json.dumps({"type": "response.create", "model": "m", "input": "begin"}))
    await heard(ws, "response.output_text.delta")
    silent = await one.ws()
    silent.write_message(json.dumps({"type": "response.create", "model": "m", "input": "wait"}))
    answers = [
        asyncio.ensure_future(one.post(word, stream))
        for word, stream in (("begin", True), ("wait", True), ("wait", False))
    ]
    idle = await one.ws()
    await until(lambda: provider.running == 5)
    one.signal()
    assert await idle.read_message() is None  # the server is draining
    await hurry()
    failed = json.loads(str(await ws.read_message()))
    assert failed["type"] == "response.failed" and failed["response"]["id"] == response_id(1)
    assert "shutting down" in failed["response"]["error"]["message"]
    assert await ws.read_message() is None and ws.close_code == 1012
    assert json.loads(str(await silent.read_message()))["status"] == 503
    begun, *early = [await answer for answer in answers]
    assert (
        begun.code == 200
        and b"event: response.failed" in begun.body
        and begun.body.endswith(b"data: [DONE]\n\n")
    )
    for answer in early:
        assert (
            answer.code == 503
            and "shutting down" in error_of(answer)["message"]
            and answer.headers["Retry-After"]
        )
    await one.stopped()
    await until(lambda: provider.cancelled == 5)


async def test_after_the_grace_period_turns_are_cut_short() -> None:
    async with running(drain_timeout=0.2) as (one, provider):
        await cut_short(one, provider, lambda: asyncio.sleep(0))


async def test_a_second_signal_does_not_wait() -> None:
    async def again() -> None:
        assert one.task is not None and not one.task.done() and provider.running == 5
        one.signal(signal.SIGINT)

    async with running(drain_timeout=60.0) as (one, provider):
        await cut_short(one, provider, again)


async def test_a_stream_of_a_background_response_breaks_off() -> None:
    """Without a terminal event and without the end of the body: the client can ask for the rest."""
    async with running(drain_timeout=0.2) as (one, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(one.url.rpartition(":")[2]))
        body = b'{"model": "m", "input": "begin", "stream": true, "background": true}'
        writer.write(
            b"POST /responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await reader.readuntil(b"response.output_text.delta")
        one.signal()
        rest = await reader.read()
        assert b"event: " not in rest and b"[DONE]" not in rest and not rest.endswith(b"0\r\n\r\n")
        writer.close()
        await one.stopped()


async def test_a_client_that_does_not_read_does_not_stop_the_shutdown() -> None:
    async with running(drain_timeout=0.2) as (one, provider):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(one.url.rpartition(":")[2]), limit=1)
        body = b'{"model": "m", "input": "flood", "stream": true}'
        writer.write(
            b"POST /responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        await until(lambda: provider.sent > 3)
        one.signal()
        await one.stopped()
        writer.close()


# ---- The whole path: the real service, a provider on a real socket
CONFIG = """
server: {listen_addr: "127.0.0.1:0"}
models: [{model: m, provider: {base_url: "%s", api_key: k}}]
"""


@contextlib.asynccontextmanager
async def serving(provider: str) -> AsyncIterator[Running]:
    """The server as the command starts it."""
    one = Running()
    opened: asyncio.Future[Sequence[Listener]] = asyncio.get_running_loop().create_future()
    settings = parse_config((CONFIG % provider).encode(), "test", {})
    one.task = asyncio.ensure_future(app.serve(settings, load=lambda: settings, ready=opened.set_result))
    one.url = (await asyncio.wait_for(opened, 5))[0].address.url(False)
    try:
        yield one
    finally:
        one.http.close()
        for client in one.sockets:
            client.close()
        one.signal()
        await one.stopped()


async def test_serve_answers_on_every_transport() -> None:
    with serve_demo(delay=0.0) as provider:
        async with serving(provider) as one:
            post = {"method": "POST", "headers": {"Content-Type": "application/json"}}
            body = {"model": "m", "input": "hello", "stream": False}
            answer = await one.http.fetch(one.url + "/v1/responses", body=json.dumps(body), **post)
            assert json.loads(answer.body)["status"] == "completed"
            answer = await one.http.fetch(
                one.url + "/v1/responses", body=json.dumps({**body, "stream": True}), **post
            )
            assert b"event: response.completed" in answer.body and answer.body.endswith(b"data: [DONE]\n\n")
            ws = await one.ws()
            previous = None
            for more in ({"generate": False, "instructions": "Be brief."}, {}, {"stream_id": "fork"}):
                ws.write_message(
                    json.dumps(
                        {
                            "type": "response.create",
                            "store": False,
                            "previous_response_id": previous,
                            **body,
                            **more,
                        }
                    )
                )
                event = None
                while event is None or not event["type"].endswith("completed"):
                    event = json.loads(str(await ws.read_message()))
                    assert event["type"] != "error" and event.get("stream_id") == more.get("stream_id")
                previous = event["response"]["id"]


@pytest.mark.parametrize(
    "method, path, what, param",
    [
        ("GET", "/responses/nobody", "Response with id 'nobody'", "response_id"),
        ("GET", "/responses/nobody?stream=true", "Response with id 'nobody'", "response_id"),
        ("DELETE", "/responses/nobody", "Response with id 'nobody'", "response_id"),
        ("POST", "/responses/nobody/cancel", "Response with id 'nobody'", "response_id"),
        ("GET", "/responses/nobody/input_items", "Response with id 'nobody'", "response_id"),
        ("GET", "/conversations/nobody", "Conversation with id 'nobody'", None),
        ("POST", "/conversations/nobody/items", "Conversation with id 'nobody'", None),
        ("GET", "/conversations/nobody/items/x", "Conversation with id 'nobody'", None),
        ("GET", "/nobody", "Path '/v1/nobody'", None),
        ("POST", "/nobody", "Path '/v1/nobody'", None),
        ("GET", "/responses/nobody/nothing", "Path '/v1/responses/nobody/nothing'", None),
    ],
)
async def test_what_is_not_there(method: str, path: str, what: str, param: Optional[str]) -> None:
    """An unknown id and an unknown path are refused in the same way."""
    async with served("http://127.0.0.1:1") as base_url:
        client = AsyncHTTPClient(force_instance=True)
        body = b'{"items": []}' if method == "POST" else None
        answer = await client.fetch(base_url + path, method=method, body=body, raise_error=False)
        client.close()
        error = error_of(answer)
        assert (answer.code, error["type"], error["code"]) == (404, "invalid_request_error", None)
        assert error["message"].startswith(f"{what} not found.") and error["param"] == param


async def test_what_comes_in_one_read_leaves_in_one_write() -> None:
    """Also when it is of several kinds."""
    heard = asyncio.Semaphore(0)  # pieces that the client has read

    def delta(**more: Any) -> bytes:
        return chunk(b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": more}]}).encode())

    async def script(peer: Peer) -> None:
        await peer.request()
        called = delta(
            tool_calls=[
                {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            ]
        )
        mixture, end = delta(content="So.") * 3 + called, chunk(b"data: [DONE]\n\n") + END
        await peer.send(CHUNKED)
        for piece in (*[delta(content="Hm.")] * 3, mixture, end):
            await peer.send(piece)
            await heard.acquire()

    async with RawServer(script).running() as provider, served(provider.url) as base_url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(base_url.split(":")[2].split("/")[0]))
        body = json.dumps({"model": "gpt-5.5", "input": "hi", "stream": True}).encode()
        writer.write(
            b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        await reader.readuntil(b"\r\n\r\n")
        sizes = []
        while not sizes or sizes[-1]:
            sizes.append(int(await reader.readuntil(b"\r\n"), 16))
            await reader.readexactly(sizes[-1] + 2)
            heard.release()
        writer.close()
    assert len(sizes) == 6  # three deltas, the mixture, the terminal events, the end of the body


@pytest.mark.parametrize("transport", ["json", "sse", "ws"])
async def test_the_provider_is_left_when_the_client_leaves(transport: str) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        left.set()
        writer.close()

    provider = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with serving(f"http://127.0.0.1:{provider.sockets[0].getsockname()[1]}") as one:
        body = {"type": "response.create", "model": "m", "input": "hello", "stream": transport == "sse"}
        if transport == "ws":
            ws = await one.ws()
            ws.write_message(json.dumps(body))
        else:
            _, writer = await asyncio.open_connection("127.0.0.1", int(one.url.rpartition(":")[2]))
            data = json.dumps(body).encode()
            writer.write(
                b"POST /responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data)
                + data
            )
        await asyncio.wait_for(asked.wait(), 5)
        if transport == "ws":
            ws.close()
        else:
            writer.close()
        await asyncio.wait_for(left.wait(), 0.1)
    provider.close()
