"""Providers that refuse, hang, cut, flood and never end: each gives the right error in time, in bounded
memory, and nothing is left over.

All of them are asked at once through one rproxy; those that flood it one after the other, through another
one, so that its memory can be measured.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, List, NamedTuple, Optional, Tuple

import pytest
from forkserver import REAL
from grammar import check_sse
from inputs import EVERYTHING
from rawserver import CHUNKED, END, Peer, RawServer, chunk, nothing_left, until
from scripted import free_port, running, served
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

Json = Dict[str, Any]
Script = Callable[[Peer], Awaitable[Any]]
pytestmark = pytest.mark.timeout(seconds=120)

SILENCE = 2.5  # seconds that rproxy is told to wait, everywhere
SLACK = 30.0  # seconds for a busy machine
SERVER = (
    f"  request_timeout: {SILENCE:g}\n  first_byte_timeout: {SILENCE:g}\n  connect_timeout: 2\n  retries: 0\n"
)
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
DOCUMENT = SSE.replace(b"text/event-stream", b"application/json")
DONE = b"data: [DONE]\n\n"
MIB = 1 << 20
FLOOD = 1 << 30  # bytes that a flooding provider has
MEMORY = 250 * MIB  # what rproxy may use on the way, itself included


def delta(finish: Optional[str] = None, **fields: str) -> bytes:
    return (
        b"data: %b\n\n"
        % json.dumps({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}).encode()
    )


HALF = SSE + delta(content="Half")
WHOLE = delta(content="Hello") + delta("stop")


# ---- the scripts
def plays(*pieces: bytes, then: Optional[Script] = None, pause: float = 0.0) -> Script:
    """Send the pieces, then do something, else close."""

    async def script(peer: Peer) -> None:
        await peer.send(*pieces, pause=pause)
        if then is not None:
            await then(peer)

    return script


async def hangs(peer: Peer) -> None:
    await peer.wait_gone()


async def resets(peer: Peer) -> None:
    peer.reset()


def floods(piece: bytes) -> Script:
    """Send the same again and again, 1 GiB at most. ``peer.sent`` counts."""
    block = piece * (65536 // len(piece) or 1)

    async def script(peer: Peer) -> None:
        for _ in range(FLOOD // len(block)):
            await peer.send(block)
        raise AssertionError("rproxy has read a whole GiB")

    return script


async def bomb(peer: Peer) -> None:
    compressed = gzip.compress(b"x" * (40 * MIB), 1)
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + compressed)


def drips(piece: bytes, pause: float = 0.3) -> Script:
    async def script(peer: Peer) -> None:
        while not peer.reader.at_eof():
            await peer.send(piece, pause=pause)

    return script


class Case(NamedTuple):
    """``status``: of the JSON answer; 200: an answer. ``says``: in its message or text. ``shown``: what a
    stream shows of it. ``seconds``: how long it may take.
    """

    script: Script
    status: int
    says: str
    shown: str = ""
    seconds: float = 0.0


CASES: Dict[str, Case] = {
    # no answer
    "closes": Case(plays(), 502, "without a response"),
    "resets": Case(resets, 502, "cut"),
    "says nothing": Case(hangs, 504, "in time", seconds=SILENCE),
    "stops in the head": Case(
        plays(b"HTTP/1.1 200 OK\r\nContent-", then=hangs), 504, "in time", seconds=SILENCE
    ),
    "speaks something else": Case(plays(b"SSH-2.0-OpenSSH_9.6\r\n", then=hangs), 502, "not HTTP"),
    "brotli": Case(plays(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n\x0b\x02"), 502, "br"),
    # half an answer
    "hangs": Case(plays(HALF, then=hangs), 504, "stalled", "Half", SILENCE),
    "hangs before the body": Case(plays(SSE, then=hangs), 504, "stalled", seconds=SILENCE),
    "cuts": Case(plays(HALF), 502, "truncated", "Half"),
    "cuts a chunk": Case(
        plays(CHUNKED + chunk(delta(content="Half")) + b"ff\r\ndata"), 502, "closed in the middle", "Half"
    ),
    "resets in the middle": Case(plays(HALF, pause=0.2, then=resets), 502, "broke off", "Half"),
    "breaks the framing": Case(
        plays(CHUNKED + chunk(delta(content="Half")) + b"zz\r\n", then=hangs), 502, "chunk size", "Half"
    ),
    "bad gzip": Case(plays(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nnot gzip at all"), 502, "gzip"),
    # pages
    "page": Case(plays(DOCUMENT + b"<!doctype html><title>Sign in</title>"), 502, "HTML page"),
    "page of an error": Case(
        plays(b"HTTP/1.1 502 Oh\r\n\r\n<html><h1>502 Bad Gateway</h1></html>"), 502, "Bad Gateway"
    ),
    "half an error": Case(
        plays(b"HTTP/1.1 503 Busy\r\nContent-Length: 999\r\n\r\nWe are busy", then=hangs),
        503,
        "We are busy",
        seconds=SILENCE,
    ),
    "redirect": Case(
        plays(b"HTTP/1.1 307 Moved\r\nLocation: https://elsewhere.example/v1\r\nContent-Length: 0\r\n\r\n"),
        502,
        "elsewhere",
    ),
    "empty": Case(plays(SSE), 502, "sent nothing"),
    # odd, but whole
    "never closes": Case(plays(SSE + WHOLE + DONE, then=hangs), 200, "Hello", "Hello"),
    "never closes, no done": Case(plays(SSE + WHOLE, then=drips(b": ping\n\n")), 200, "Hello", "Hello", 5.0),
    "document that never closes": Case(
        plays(
            DOCUMENT + b'\n\n{"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}',
            then=drips(b" "),
        ),
        200,
        "Hello",
        "Hello",
        5.0,
    ),
    "cut after done": Case(plays(CHUNKED + chunk(WHOLE + DONE), pause=0.2), 200, "Hello", "Hello"),
    "reset after done": Case(
        plays(CHUNKED + chunk(WHOLE + DONE), pause=0.2, then=resets), 200, "Hello", "Hello"
    ),
    "old HTTP": Case(plays(b"HTTP/1.0 200 OK\r\n\r\n", WHOLE, DONE, pause=0.1), 200, "Hello", "Hello"),
    "early hints": Case(
        plays(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
            SSE + WHOLE + DONE,
            pause=0.1,
        ),
        200,
        "Hello",
        "Hello",
    ),
    "gzip": Case(
        plays(
            CHUNKED.replace(b"Transfer", b"Content-Encoding: gzip\r\nTransfer"),
            chunk(gzip.compress(WHOLE + DONE)),
            END,
        ),
        200,
        "Hello",
        "Hello",
    ),
    "slow": Case(
        plays(SSE, *(bytes([byte]) for byte in WHOLE + DONE), pause=0.01), 200, "Hello", "Hello", 2.0
    ),
    "pings for long": Case(
        plays(SSE, *[b": ping\n\n"] * 2, WHOLE + DONE, pause=SILENCE / 2),
        200,
        "Hello",
        "Hello",
        1.5 * SILENCE,
    ),
    "one huge chunk": Case(
        plays(SSE + delta(content="Hello" + "x" * (4 * MIB)) + delta("stop") + DONE), 200, "Hello", "Hello"
    ),
}
FLOODS: Dict[str, Case] = {
    "line": Case(plays(HALF + b"data: ", then=floods(b"x")), 502, "line", "Half"),
    "document": Case(
        plays(DOCUMENT + b'{"choices": [{"message": {"content": "', then=floods(b"x")), 502, "document"
    ),
    "document of many lines": Case(
        plays(DOCUMENT + b"{", then=floods(b'"a": "%b",\n' % (b"x" * 1000))), 502, "document"
    ),
    "event of many lines": Case(plays(SSE, then=floods(b"data: {%b\n" % (b"x" * 200))), 502, "event"),
    "head": Case(plays(b"HTTP/1.1 200 OK\r\n", then=floods(b"X-Header: %b\r\n" % (b"x" * 100))), 502, "head"),
    "header": Case(plays(b"HTTP/1.1 200 OK\r\nX-Header: ", then=floods(b"x")), 502, "head"),
    "garbage": Case(plays(SSE, then=floods(b"x")), 502, "line"),
    "error": Case(plays(b"HTTP/1.1 500 Oops\r\n\r\nIt broke. ", then=floods(b"x ")), 500, "It broke"),
    "bomb": Case(bomb, 502, "gzip"),
}


# ---- asking
CONFIG = """
server:
  listen_addr: "127.0.0.1:{port}"
{server}models:
  - model: refused
    provider: {{base_url: "http://127.0.0.1:%d", api_key: $SCRIPTED_KEY}}
  - model: "*"
    provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY, override: {{include_usage: false}}}}
""" % free_port()


async def by_model(peer: Peer) -> None:
    """The script of the model that is asked for."""
    _, _, body = await peer.request()
    await {**CASES, **FLOODS}[json.loads(body)["model"]].script(peer)


async def ask(base_url: str, model: str, stream: bool) -> Tuple[HTTPResponse, float]:
    client = AsyncHTTPClient(force_instance=True)
    started = time.monotonic()
    try:
        answer = await client.fetch(
            base_url + "/responses",
            method="POST",
            headers={"Content-Type": "application/json"},
            raise_error=False,
            request_timeout=60.0,
            body=json.dumps({"model": model, "input": "go", "stream": stream}),
        )
    finally:
        client.close()
    return answer, time.monotonic() - started


def judge(case: Case, answer: HTTPResponse, stream: bool) -> None:
    """The same in both modes; a stream that has shown something ends with ``response.failed``."""
    body = answer.body or b""
    if stream and answer.code == 200:
        final = check_sse(body)
        shown = "".join(
            json.loads(line[6:]).get("delta", "")
            for line in body.decode().splitlines()
            if line.startswith("data: {")
        )
        assert shown.startswith(case.shown) and bool(shown) == bool(case.shown)
        assert final["status"] == ("completed" if case.status == 200 else "failed")
        assert case.status == 200 or case.says in final["error"]["message"]
        assert case.status == 200 or final["error"]["code"] == "server_error"
        return
    assert answer.code == case.status, body
    if case.status == 200:
        assert json.loads(body)["output"][0]["content"][0]["text"].startswith(case.says)
    else:
        error = json.loads(body)["error"]
        assert case.says in error["message"] and error["code"] == "server_error"


async def check(base_url: str, name: str, case: Case, stream: bool) -> List[str]:
    """What is wrong, for all cases at once."""
    answer, seconds = await ask(base_url, name, stream)
    try:
        judge(case, answer, stream)
        assert case.seconds * 0.9 <= seconds <= case.seconds + SLACK, f"{seconds:.2f} s"
    except AssertionError as error:
        return [
            "{}, {}: {}\n{}".format(
                name,
                "stream" if stream else "whole",
                error,
                (answer.body or b"")[-600:].decode("utf-8", "replace"),
            )
        ]
    return []


def fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid: int) -> int:
    """The most that the process has ever used, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    assert found > 25 * MIB, "this is not rproxy itself"
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts file descriptors in /proc")
async def test_each_gives_the_right_error_in_time_and_leaves_nothing(tmp_path: Path) -> None:
    async with (
        RawServer(by_model).running() as provider,
        running(tmp_path, provider.url, SERVER, CONFIG, REAL) as rproxy,
    ):
        refused = Case(hangs, 502, "refused")
        assert await check(rproxy.base_url, "refused", refused, True) == []
        pid = rproxy.process.pid
        before = fds(pid)
        cases = [*CASES.items(), ("refused", refused)]
        wrong = await asyncio.gather(
            *(check(rproxy.base_url, name, case, stream) for stream in (True, False) for name, case in cases)
        )
        assert [line for lines in wrong for line in lines] == []
        await until(lambda: fds(pid) <= before and all(task.done() for task in provider.tasks))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts file descriptors in /proc")
async def test_floods_end_in_bounded_memory(tmp_path: Path) -> None:
    async with (
        RawServer(by_model).running() as provider,
        running(tmp_path, provider.url, SERVER, CONFIG, REAL) as rproxy,
    ):
        pid = rproxy.process.pid
        assert await check(rproxy.base_url, "page", CASES["page"], True) == []
        before = fds(pid)
        for at, (name, case) in enumerate(FLOODS.items()):
            for stream in (True, False) if EVERYTHING else (at % 2 == 0,):
                assert await check(rproxy.base_url, name, case, stream) == []
                assert memory(pid) < MEMORY, (name, memory(pid) / MIB)
        await until(lambda: fds(pid) <= before and all(task.done() for task in provider.tasks))


async def test_no_task_is_left() -> None:
    async with RawServer(by_model).running() as provider, served(provider.url, SERVER, CONFIG) as base_url:
        await check(base_url, "cuts", CASES["cuts"], True)  # what opens late is open now
        await until(lambda: all(task.done() for task in provider.tasks))
        async with nothing_left():
            names = [name for name, case in CASES.items() if case.seconds < 2 and case.status != 200]
            wrong = await asyncio.gather(
                *(check(base_url, name, CASES[name], stream) for name in names for stream in (True, False))
            )
            assert [line for lines in wrong for line in lines] == []
            await until(lambda: all(task.done() for task in provider.tasks))
