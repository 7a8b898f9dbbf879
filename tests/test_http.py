"""The HTTP endpoints, over real sockets: routes, errors, event streams, clients that leave or misbehave."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest
from rawserver import standstill, until
from running_server import error_of, response_id, running_server
from tornado.platform.asyncio import BaseAsyncIOLoop
from tornado.web import Application

from rproxy.json_codec import Shared, SharedDict
from rproxy.server.connections import BODY_READ, HEAD_READ, ClientStream
from rproxy.server.http import HttpHandler
from rproxy.server.responses import ResponsesHandler
from rproxy.server.routes import ROUTES, LaterHandler

HELLO = {"model": "m", "input": "hello"}
STREAM = {"model": "m", "input": "count 3", "stream": True}


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_routes_with_and_without_prefix(prefix: str) -> None:
    async with running_server() as e:
        answer = await e.fetch(prefix + "/responses", HELLO)
        assert answer.code == 200 and json.loads(answer.body)["status"] == "completed"
        assert (
            answer.headers["Content-Type"] == "application/json"
            and answer.headers["openai-processing-ms"].isdigit()
        )
        assert "\ufffd" in answer.body.decode()
        assert (
            json.loads((await e.fetch(prefix + "/responses/compact", {"model": "m", "input": "x"})).body)[
                "object"
            ]
            == "response.compaction"
        )
        assert json.loads((await e.fetch(prefix + "/models")).body)["data"][0]["id"] == "m"
        assert json.loads((await e.fetch(prefix + "/models/org/m")).body)["id"] == "org/m"
        assert (await e.fetch(prefix + "/health")).code == 200
        assert (await e.fetch(prefix + "/responses", method="HEAD")).code == 200
        assert (await e.fetch(prefix + "/responses/", HELLO)).code == 200


def test_every_request_goes_through_dispatch() -> None:
    """It is what keeps refused requests from the methods that answer them."""
    for _, target in ROUTES:
        handler = LaterHandler(Application(), target).load() if isinstance(target, str) else target
        for name in ("get", "head", "post", "put", "patch", "delete", "options"):
            assert getattr(handler, name) is HttpHandler.dispatch, f"{handler.__name__}.{name}"


async def test_headers_of_every_answer() -> None:
    async with running_server() as e:
        seen = set()
        for path, body in (
            ("/health", None),
            ("/responses", HELLO),
            ("/responses", STREAM),
            ("/responses", b"{"),
            ("/nowhere", None),
        ):
            headers = (await e.fetch(path, body)).headers
            seen.add(headers["x-request-id"])
            assert (
                "Server" not in headers
                and "openai-model" not in headers
                and "Content-Encoding" not in headers
                and "Etag" not in headers
            )
        assert len(seen) == 5


async def test_what_the_service_learns_of_the_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rproxy.turn")
    async with running_server(keys=["k-1", "k-2"]) as e:
        one, two = ({"Authorization": "Bearer " + key} for key in ("k-1", "k-2"))
        answer = await e.fetch("/responses", HELLO, headers={**two, "originator": "codex_exec"})
        other = await e.fetch("/responses", STREAM, headers={"Authorization": "bearer k-1"})
        lines = [record.getMessage() for record in caplog.records if record.name == "rproxy.turn"]
        for line, transport, headers in (
            (lines[0], "json", answer.headers),
            (lines[1], "sse", other.headers),
        ):
            assert f"transport={transport}" in line and headers["x-request-id"] in line
        assert "x-models-etag" in answer.headers and "x-models-etag" not in other.headers
        path = "/responses/" + json.loads(answer.body)["id"]
        assert (await e.fetch(path, headers=two)).code == 200
        assert (await e.fetch(path, headers=one)).code == 404  # somebody else's


@pytest.mark.parametrize(
    "path, body, more, status, says",
    [
        ("/responses", b'{"model": ', {}, 400, "not valid JSON"),
        ("/responses", b"[1]", {}, 400, "not an array"),
        ("/responses", b"", {}, 400, "empty"),
        ("/responses", {"model": "m", "input": "x", "stream": "yes"}, {}, 400, "'stream'"),
        ("/responses", b"junk", {"headers": {"Content-Encoding": "gzip"}}, 400, "not valid gzip"),
        ("/responses", b"junk", {"headers": {"Content-Encoding": "br"}}, 415, "br"),
        ("/responses", {"model": "m", "input": "refuse"}, {}, 429, "Slow down"),
        ("/responses", {"model": "m", "input": "refuse", "stream": True}, {}, 429, "Slow down"),
        ("/responses", None, {}, 426, "WebSocket"),
        ("/responses", b"x" * 100000, {"method": "PUT"}, 405, "POST, GET, HEAD"),
        ("/responses", None, {"method": "OPTIONS"}, 405, "OPTIONS"),
        ("/responses", None, {"method": "BREW"}, 405, "BREW"),
        ("/responses/compact", None, {}, 405, "POST"),
        ("/models", b"{}", {}, 405, "GET, HEAD"),
        ("/models/none", None, {}, 404, "none"),
        ("/nothing-here", None, {}, 404, "/nothing-here"),
        ("/v1/embeddings", {"messages": ["x" * 100000]}, {}, 404, "Responses API"),
        ("/v2/responses", HELLO, {}, 404, "/v2/responses"),
    ],
)
async def test_errors_are_json_and_the_next_request_works(
    path: str, body: Any, more: Dict[str, Any], status: int, says: str
) -> None:
    async with running_server() as e:
        answer = await e.fetch(path, body, **more)
        assert answer.code == status and says in error_of(answer)["message"]
        if status == 429:
            assert answer.headers["Retry-After"] == "60"
        if status == 405 and more.get("method") != "BREW":
            assert "POST" in answer.headers["Allow"] or "GET" in answer.headers["Allow"]
        if status == 426:
            assert answer.headers["Upgrade"] == "websocket"
        assert (await e.fetch("/responses", HELLO)).code == 200


async def test_codex_gets_errors_it_understands() -> None:
    async with running_server() as e:
        answer = await e.fetch("/nothing-here", headers={"originator": "codex_exec"})
        assert answer.code == 400 and error_of(answer)["code"] == "invalid_prompt"
        assert (await e.fetch("/responses", headers={"originator": "codex_exec"})).code == 426
    async with running_server(errors="openai") as e:
        assert (await e.fetch("/nothing-here", headers={"originator": "codex_exec"})).code == 404
    async with running_server(errors="codex") as e:
        assert (await e.fetch("/nothing-here")).code == 400


async def test_an_internal_failure_tells_nothing_and_is_logged(expect_log: Callable[..., Any]) -> None:
    expect_log("failed")
    async with running_server() as e:
        answer = await e.fetch("/responses", {"model": "m", "input": "crash"})
        assert answer.code == 500 and "secret" not in error_of(answer)["message"]
        assert (await e.fetch("/responses", HELLO)).code == 200


async def test_a_compressed_request() -> None:
    async with running_server() as e:
        answer = await e.fetch(
            "/responses", gzip.compress(json.dumps(HELLO).encode()), headers={"Content-Encoding": "gzip"}
        )
        assert answer.code == 200 and e.provider.requests[0]["messages"][-1]["content"] == "hello"


async def test_curl_without_a_content_type_is_no_form() -> None:
    async with running_server() as e:
        body = json.dumps({"model": "m", "input": "hello " + "&" * 5000}).encode()
        assert (
            await e.fetch("/responses", body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        ).code == 200


# ---- Refusals come before the body
async def test_a_wrong_key_is_refused_before_the_body_and_the_connection_lives_on() -> None:
    async with running_server(keys=["k"]) as e:
        raw = await e.raw()
        raw.send("POST /v1/responses HTTP/1.1", "Host: localhost", "Content-Length: 1000000")
        status, _, body = await raw.answer()
        assert status == 401 and body["error"]["code"] == "invalid_api_key"
        raw.writer.write(b"x" * 1000000)
        raw.send("GET /health HTTP/1.1", "Host: localhost")
        assert (await raw.answer())[0] == 200


async def test_expect_100_continue_is_not_answered_when_refused() -> None:
    async with running_server(max_body_size=100) as e:
        raw = await e.raw()
        raw.send(
            "POST /v1/responses HTTP/1.1", "Host: localhost", "Content-Length: 1000", "Expect: 100-continue"
        )
        status, headers, _ = await raw.answer()
        assert status == 413 and await raw.rest() == b""
        raw = await e.raw()
        raw.send(
            "POST /v1/responses HTTP/1.1",
            "Host: localhost",
            f"Content-Length: {len(json.dumps(HELLO))}",
            "Expect: 100-continue",
        )
        assert (await raw.head())[0] == 100
        raw.writer.write(json.dumps(HELLO).encode())
        assert (await raw.answer())[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_gets_its_413(chunked: bool) -> None:
    async with running_server(max_body_size=1000) as e:
        raw = await e.raw()
        if chunked:
            raw.send("POST /v1/responses HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked")
            raw.writer.write(b"3e8\r\n" + b" " * 1000 + b"\r\n" + b"1\r\n \r\n")
        else:
            raw.send("POST /v1/responses HTTP/1.1", "Host: localhost", "Content-Length: 1001")
        status, _, body = await raw.answer()
        assert status == 413 and "1000 bytes" in body["error"]["message"]
        raw.writer.write(b"1\r\n \r\n0\r\n\r\n" if chunked else b" " * 1001)
        raw.send("GET /health HTTP/1.1", "Host: localhost")
        assert (await raw.answer())[0] == 200


async def test_a_body_that_nobody_reads_is_ignored() -> None:
    async with running_server() as e:
        raw = await e.raw()
        for _ in range(2):  # the connection is kept
            raw.send("GET /v1/models HTTP/1.1", "Host: localhost", "Content-Length: 7", body=b"ignored")
            assert (await raw.answer())[0] == 200


@pytest.mark.parametrize(
    "request_line, status",
    [("POST /v1/responses", 413), ("POST /nowhere", 404), ("GET /v1/models", None), ("OPTIONS /x", None)],
)
async def test_an_endless_body_is_cut(request_line: str, status: Optional[int]) -> None:
    async with running_server(max_body_size=1000) as e:
        raw = await e.raw()
        lines = ("Host: localhost", "Origin: http://localhost", "Content-Length: 100000000000")
        raw.send(f"{request_line} HTTP/1.1", *lines)
        if status is not None:  # refused at once; the others wait for the body that they ignore
            assert (await raw.head())[0] == status
        with pytest.raises((ConnectionError, asyncio.TimeoutError)):
            for _ in range(100000):
                raw.writer.write(b"x" * 65536)
                await asyncio.wait_for(raw.writer.drain(), 5)


# ---- Bodies that come with their heads
def one_request(method: str, path: str, body: bytes, *lines: str) -> Tuple[bytes, bytes]:
    head = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *lines, "", "")
    return "\r\n".join(head).encode(), body


@pytest.mark.parametrize(
    "request_, status",
    [
        (one_request("POST", "/v1/responses", json.dumps(HELLO).encode()), 200),
        (one_request("POST", "/v1/responses", b"{"), 400),
        (one_request("POST", "/v1/responses", b" " * 1001), 413),
        (one_request("POST", "/v1/responses", b"{}", "Content-Encoding: br"), 415),
        (one_request("POST", "/v1/responses", gzip.compress(b" " * 5000), "Content-Encoding: gzip"), 413),
        (one_request("POST", "/v1/responses", b"{}", "Authorization: Bearer wrong"), 401),
        (one_request("POST", "/nowhere", b"{}"), 404),
        (one_request("PUT", "/v1/responses", b"{}"), 405),
        (one_request("GET", "/v1/models", b"ignored"), 200),
        (one_request("OPTIONS", "/v1/responses", b"ignored", "Origin: http://localhost"), 204),
    ],
)
async def test_a_body_with_its_head_or_later_gets_the_same_answer(
    request_: Tuple[bytes, bytes], status: int
) -> None:
    async with running_server(keys=["k"], max_body_size=1000) as e:
        answers = []
        head, body = request_
        if b"Authorization" not in head:
            head = head.replace(b"Host:", b"Authorization: Bearer k\r\nHost:")
        for together in (True, False):
            raw = await e.raw()
            await until(lambda: e.server.streams)
            stream = min(e.server.streams, key=lambda one: one.awaiting is None)
            raw.writer.write(head)
            if not together:
                await until(lambda stream=stream: stream.closed() or stream.awaiting is None)
            raw.writer.write(body)
            raw.send("GET /health HTTP/1.1", "Host: localhost", "Connection: close")
            answers.append((await raw.rest()).decode())
            await until(lambda: not e.server.streams)
        assert answers[0].startswith(f"HTTP/1.1 {status} ")
        changing = r"req_\w+|resp_\w+|msg_\w+|(?<=-Ms: )\d+|(?<=_at\":)\d+|(?<=Date: ).*"
        assert re.sub(changing, "*", answers[0]) == re.sub(changing, "*", answers[1])


async def test_two_lengths_of_a_body_that_came_with_its_head() -> None:
    async with running_server() as e:
        raw = await e.raw()
        raw.writer.write(b"".join(one_request("POST", "/v1/responses", b"{}", "Content-Length: 3")))
        status, _, answer = await raw.answer()
        assert status == 400 and "Content-Length" in answer["error"]["message"]
        assert await raw.rest() == b""


async def test_a_body_that_came_with_its_head_waits_for_one_iteration_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, iteration, seen = asyncio.get_running_loop(), 0, []

    def tick() -> None:
        nonlocal iteration
        iteration += 1
        loop.call_soon(tick)

    came, dispatched = ClientStream.request_came, HttpHandler.dispatch
    monkeypatch.setattr(ClientStream, "request_came", lambda *args: (seen.append(iteration), came(*args))[1])
    monkeypatch.setattr(
        ResponsesHandler, "post", lambda *args: (seen.append(iteration), dispatched(*args))[1]
    )
    async with running_server() as e:
        raw = await e.raw()
        tick()
        for together in (True, False):
            head, body = one_request("POST", "/v1/responses", json.dumps(HELLO).encode())
            raw.writer.write(head)
            if not together:
                await until(lambda: len(seen) == 3)
            raw.writer.write(body)
            assert (await raw.answer())[0] == 200
    whole, in_two = seen[1] - seen[0], seen[3] - seen[2]
    assert whole == 1 and in_two > 2


async def test_only_a_body_that_is_still_to_come_is_read_in_large_pieces() -> None:
    async with running_server() as e:
        raw = await e.raw()
        post(raw, HELLO)
        assert (await raw.answer())[0] == 200
        (stream,) = e.server.streams
        assert stream.read_chunk_size == HEAD_READ
        raw.send("POST /v1/responses HTTP/1.1", "Host: localhost", "Content-Length: 2")
        await until(lambda: stream.read_chunk_size == BODY_READ)
        raw.writer.write(b"{}")
        assert (await raw.answer())[0] == 400
        raw.cut()
        await until(lambda: not e.server.streams)
        await e.ws()
        assert [stream.read_chunk_size for stream in e.server.streams] == [BODY_READ]


async def test_a_request_does_not_take_its_socket_out_of_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes: List[int] = []
    update = BaseAsyncIOLoop.update_handler
    monkeypatch.setattr(
        BaseAsyncIOLoop, "update_handler", lambda self, *args: (changes.append(1), update(self, *args))[1]
    )
    async with running_server() as e:
        raw = await e.raw()
        for _ in range(10):
            await until(lambda: all(stream.awaiting is not None for stream in e.server.streams))
            post(raw, HELLO)
            assert (await raw.answer())[0] == 200
    assert not changes


# ---- Streams
async def read_events(raw: Any) -> bytes:
    """The body of a chunked answer; every chunk must be whole events."""
    body = b""
    while True:
        size = int(await raw.reader.readuntil(b"\r\n"), 16)
        chunk = (await raw.reader.readexactly(size + 2))[:-2]
        if not size:
            return body
        assert chunk.endswith(b"\n\n")
        body += chunk


def post(raw: Any, body: Any, *lines: str, version: str = "1.1") -> None:
    data = json.dumps(body).encode()
    raw.send(
        f"POST /v1/responses HTTP/{version}",
        "Host: localhost",
        f"Content-Length: {len(data)}",
        *lines,
        body=data,
    )


async def test_a_body_may_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the body alone: an answer may take longer."""
    monkeypatch.setattr("rproxy.server.http.BODY_TIMEOUT", 0.2)
    async with running_server() as e:
        upgrade = (
            "GET /v1/responses HTTP/1.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: 0123456789abcdefghijkg==",
            "Sec-WebSocket-Version: 13",
        )
        monkeypatch.setattr("rproxy.server.http.DISCARD_TIMEOUT", 0.2)
        for lines in (("POST /v1/responses HTTP/1.1",), ("DELETE /v1/responses/resp_1 HTTP/1.1",), upgrade):
            slow = await e.raw()
            slow.send(*lines, "Host: 127.0.0.1", "Content-Length: 100", body=b"{")
            assert await asyncio.wait_for(slow.rest(), 5) == b""
        quick = await e.raw()
        body = json.dumps({"model": "m", "input": "gate", "stream": True}).encode()
        quick.send(
            "POST /v1/responses HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", body=body
        )
        assert (await quick.head())[0] == 200
        late = await e.raw()
        late.send("POST /v1/responses HTTP/1.1", "Host: 127.0.0.1", "Content-Length: 100", body=b"{")
        assert await asyncio.wait_for(late.rest(), 5) == b""  # the quick one's time would be over by now, too
        e.provider.gate.set()
        assert b"response.completed" in await quick.reader.readuntil(b"data: [DONE]\n\n")


async def test_an_event_stream() -> None:
    async with running_server() as e:
        raw = await e.raw()
        for _ in range(2):  # the connection is kept
            post(raw, STREAM)
            status, headers = await raw.head()
            assert (
                status == 200
                and headers["content-type"].startswith("text/event-stream")
                and headers["cache-control"] == "no-cache"
            )
            assert headers["x-accel-buffering"] == "no" and headers["openai-processing-ms"].isdigit()
            assert headers["x-ratelimit-remaining-requests"] == "9"
            text = (await read_events(raw)).decode()
            blocks = text.split("\n\n")
            assert blocks[-2:] == ["data: [DONE]", ""]
            assert sum("output_text.delta" in block for block in blocks) == 3
            for number, block in enumerate(blocks[:-2]):
                name, data = block.split("\n")
                event = json.loads(data[len("data: ") :])
                assert name == "event: " + event["type"] and event["sequence_number"] == number


async def test_head_and_first_events_are_one_write() -> None:
    async with running_server() as e:
        raw = await e.raw()
        post(raw, {"model": "m", "input": "begin", "stream": True})
        assert b"response.created" in await raw.reader.read(65536)


async def test_the_json_of_the_response_is_made_while_the_provider_thinks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: List[Any] = []
    sent: List[int] = []
    made, write = Shared.json.fget, ClientStream.write

    def spy(self: Any) -> bytes:
        if not self.written and self.get("object") == "response":
            written.append(self["status"])
        return made(self)

    monkeypatch.setattr(SharedDict, "json", property(spy), raising=False)
    monkeypatch.setattr(
        ClientStream, "write", lambda self, data: (sent.append(len(data)), write(self, data))[1]
    )
    async with running_server() as e:
        raw = await e.raw()
        post(raw, {"model": "m", "input": "wait", "stream": True})
        await until(lambda: written)
        assert written == ["in_progress"] and not sent


async def test_no_write_of_nothing_ends_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, write = [], ClientStream.write
    monkeypatch.setattr(
        ClientStream, "write", lambda self, data: (sizes.append(len(data)), write(self, data))[1]
    )
    async with running_server() as e:
        raw = await e.raw()
        post(raw, STREAM)
        await raw.head()
        await read_events(raw)
        assert len(sizes) == 2 and sizes[1] == len(b"0\r\n\r\n")


@pytest.mark.parametrize("keep", [False, True])
async def test_an_http_1_0_client(keep: bool) -> None:
    async with running_server() as e:
        raw = await e.raw()
        post(raw, STREAM, *(["Connection: keep-alive"] if keep else []), version="1.0")
        status, headers = await raw.head()
        assert status == 200 and "transfer-encoding" not in headers
        body = await raw.rest()
        assert body.startswith(b"event: response.created\n") and body.endswith(b"data: [DONE]\n\n")


async def test_events_are_not_held_back_on_a_kept_connection() -> None:
    async with running_server() as e:
        raw = await e.raw()
        for _ in range(3):
            start = time.monotonic()
            post(raw, {"model": "m", "input": "count 50", "stream": True})
            await raw.head()
            await read_events(raw)
            assert time.monotonic() - start < 0.5


async def test_a_failure_in_mid_stream_ends_the_stream_properly(expect_log: Callable[..., Any]) -> None:
    expect_log("failed")
    async with running_server() as e:
        raw = await e.raw()
        post(raw, {"model": "m", "input": "crash-late", "stream": True})
        await raw.head()
        blocks = (await read_events(raw)).decode().split("\n\n")
        *events, last, done, _ = blocks
        failed = json.loads(last.split("data: ")[1])
        assert "output_text.delta" in events[-1] and failed["type"] == "response.failed"
        assert failed["sequence_number"] == len(events) and failed["response"]["id"] == response_id(1)
        assert (
            failed["response"]["status"] == "failed" and failed["response"]["error"]["code"] == "server_error"
        )
        assert "secret" not in last and done == "data: [DONE]"


# ---- Clients that leave
@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "input": "wait"},
        {"model": "m", "input": "wait", "stream": True},
        {"model": "m", "input": "begin", "stream": True},
    ],
)
async def test_a_client_that_leaves_is_noticed_at_once(body: Dict[str, Any]) -> None:
    async with running_server() as e:
        raw = await e.raw()
        post(raw, body)
        await until(lambda: e.provider.running == 1)
        raw.cut()
        start = time.monotonic()
        await until(lambda: e.provider.cancelled == 1)
        assert time.monotonic() - start < 1
        assert (await e.fetch("/responses", HELLO)).code == 200


async def test_a_client_that_leaves_while_it_sends() -> None:
    async with running_server() as e:
        raw = await e.raw()
        raw.send("POST /v1/responses HTTP/1.1", "Host: localhost", "Content-Length: 1000", body=b"{")
        await until(lambda: e.server._connections)  # type: ignore[attr-defined]
        raw.cut()
        await until(lambda: not e.server._connections)  # type: ignore[attr-defined]
        assert e.provider.requests == [] and (await e.fetch("/responses", HELLO)).code == 200


async def test_a_client_that_does_not_read_stops_the_turn_from_writing() -> None:
    async with running_server() as e:
        raw = await e.raw()
        raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.reader._limit = 1  # type: ignore[attr-defined]  # the client's own library stops reading, too
        post(raw, {"model": "m", "input": "flood", "stream": True})
        await until(lambda: e.provider.sent > 3)
        assert await standstill(lambda: e.provider.sent) < 500
        raw.cut()
        await until(lambda: e.provider.cancelled == 1)


async def test_many_clients_at_once() -> None:
    async with running_server() as e:
        answers = await asyncio.gather(*(e.fetch("/responses", STREAM) for _ in range(50)))
        assert all(answer.code == 200 and answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)


async def test_malformed_http_does_no_harm() -> None:
    async with running_server() as e:
        for junk in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            b"GET\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: x\r\nHost: a\r\n\r\n",
            b"POST /responses HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ):
            raw = await e.raw()
            raw.writer.write(junk)
            await asyncio.sleep(0.02)
            raw.cut()
        assert (await e.fetch("/responses", HELLO)).code == 200


@pytest.mark.parametrize(
    "request_line",
    [
        *("GET /health", "HEAD /health", "GET /ready", "POST /health", "OPTIONS /v1/responses", "PUT /x"),
        *("GET /v1/models", "POST /v1/responses", "DELETE /v1/responses/resp_1"),
    ],
)
@pytest.mark.parametrize("announced", ["Content-Length: 5", "Transfer-Encoding: chunked"])
async def test_a_body_that_nobody_reads_is_not_waited_for_long(
    request_line: str, announced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody needs a key to announce a body."""
    monkeypatch.setattr("rproxy.server.http.DISCARD_TIMEOUT", 0.2)
    async with running_server(keys=["k"]) as e:
        raw = await e.raw()
        raw.send(f"{request_line} HTTP/1.1", "Host: localhost", "Origin: http://localhost", announced)
        await asyncio.wait_for(raw.rest(), 5)
        await until(lambda: not e.server.streams)


async def test_a_body_that_is_read_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rproxy.server.http.DISCARD_TIMEOUT", 0.01)
    async with running_server() as e:
        raw, short = await e.raw(), await e.raw()
        body = json.dumps(HELLO).encode()
        raw.send("POST /v1/responses HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}")
        await until(lambda: any(stream.body_wanted for stream in e.server.streams))
        for _ in range(2):  # sweeps
            short.send("GET /health HTTP/1.1", "Host: localhost", "Content-Length: 5")
            assert await asyncio.wait_for(short.rest(), 5) == b""
            short = await e.raw()
        raw.writer.write(body)
        assert (await raw.answer())[0] == 200
