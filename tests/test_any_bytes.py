"""Arbitrary bytes through the whole client, over real sockets: parser, connection, pool and ``fetch``.

Whatever a server sends, and however it ends: ``fetch`` gives a response or one TransportError, no connection
stays busy, and the next request on the same client works.  What the parser makes of the same bytes, all at
once, says which response it has to be.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import List, NamedTuple, Optional, Tuple

from hypothesis import example, given, settings
from hypothesis import strategies as st
from inputs import examples
from rawserver import CHUNKED, OK, Peer, RawServer, nothing_left, until
from test_http_client import pool
from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httputil import responses
from tornado.ioloop import IOLoop

from rproxy.upstream.http_client import PooledHTTPClient
from rproxy.upstream.parser import Head, ProtocolError, ResponseParser
from rproxy.upstream.transport import StopReading, TransportError

PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"HTTP/1.0 404 \n",
                b"\r\n",
                b"\n",
                b"X-Name: \xff\x80 value\r\n",
                b"Content-Length: 3\r\n",
                b"Content-Encoding: gzip\r\n",
                b"Connection: close\r\n",
                CHUNKED,
                CHUNKED.replace(b"200", b"500"),
                b"5\r\nhello\r\n",
                b"0\r\n\r\n",
                b"\x1f\x8b\x08\x00",
                b":",
            ]
        ),
    ),
    max_size=8,
)


class Case(NamedTuple):
    """What the server sends, and what it does then: close, reset or wait."""

    pieces: List[bytes]
    end: str
    head: bool = False  # a HEAD request
    stop: bool = False  # the callback needs no more than its first piece

    @property
    def method(self) -> str:
        return "HEAD" if self.head else "POST"


CASES = st.builds(
    Case, PIECES, st.sampled_from(["close", "close", "close", "reset", "wait"]), st.booleans(), st.booleans()
)


class Lab:
    """One client and one server for all examples.  A good request before each leaves a kept connection."""

    def __init__(self) -> None:
        self.case, self.sent = Case([], "close"), asyncio.Event()
        self.server = RawServer(self.script)
        self.client = PooledHTTPClient(force_instance=True, first_byte_timeout=0.2, idle_timeout=0.2)

    async def script(self, peer: Peer) -> None:
        while True:
            first, _, _ = await peer.request()
            if first.split()[1] == "/good":
                await peer.send(OK)
                continue
            try:
                await peer.send(*self.case.pieces)
            finally:
                self.sent.set()
            if self.case.end == "reset":
                peer.reset()
            elif self.case.end == "wait":
                await peer.wait_gone()
            return

    async def play(self, case: Case) -> None:
        self.case, self.sent = case, asyncio.Event()
        check(case, *await self.fetch("/", case))
        await self.sent.wait()
        await asyncio.sleep(0.01)  # what comes after a response, the client sees before the next request
        good, error, _ = await self.fetch("/good", Case([], "wait"))
        assert error is None and good is not None and good.code == 200
        await until(lambda: pool(self.client)[0] == 0)

    async def fetch(
        self, path: str, case: Case
    ) -> Tuple[Optional[HTTPResponse], Optional[TransportError], bytes]:
        got: List[bytes] = []

        def on_data(data: bytes) -> None:
            got.append(data)
            if case.stop:
                raise StopReading

        request = HTTPRequest(self.server.url + path, case.method, body=None if case.head else b"{}")
        request.streaming_callback = on_data
        try:
            fetching = self.client.fetch(request, raise_error=False)
            return await asyncio.wait_for(fetching, 5), None, b"".join(got)
        except TransportError as error:
            return error.response, error, b"".join(got)


def parsed(case: Case) -> Tuple[Optional[Head], bytes, bool]:
    """What the parser makes of it: the head, the body as far as it is valid, and whether that is complete."""
    parser, body = ResponseParser(case.method), b""
    try:
        for byte in b"".join(case.pieces):
            if parser.done:
                break
            body += parser.feed(bytes([byte]))
        if case.end == "close":
            parser.feed_eof()
    except ProtocolError:
        return parser.head, body, False
    return parser.head, body, parser.done


def check(case: Case, response: Optional[HTTPResponse], error: Optional[TransportError], got: bytes) -> None:
    head, body, complete = parsed(case)
    if case.end == "reset" or head is not None and head.values("content-encoding"):
        return  # the reset may overtake the bytes; and a coding is undone
    if head is None:
        assert error is not None and response is None
        return
    success = 200 <= head.status < 300
    reason = head.reason or responses.get(head.status, "Unknown")
    assert response is not None and (response.code, response.reason) == (head.status, reason)
    assert (error is None) == (complete or not success or case.stop and bool(got))
    assert (got or response.body) == body or case.stop and body.startswith(got)


def test_any_bytes_give_a_response_or_the_one_error(io_loop: IOLoop) -> None:
    run = io_loop.asyncio_loop.run_until_complete  # type: ignore[attr-defined]
    stack = contextlib.AsyncExitStack()

    async def start() -> Lab:
        await stack.enter_async_context(nothing_left())
        lab = Lab()
        await stack.enter_async_context(lab.server.running())
        stack.callback(lab.client.close)
        return lab

    lab = run(start())

    @settings(max_examples=examples(150))
    @example(Case([CHUNKED, b"5\r\nhello\r\n"], "wait", stop=True))
    @example(Case([OK, OK], "wait"))
    @example(Case([b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nbusy"], "close"))
    @example(Case([b"HTTP/1.0 200\n\n"], "close"))
    @given(CASES)
    def play(case: Case) -> None:
        run(lab.play(case))

    try:
        play()
    finally:
        run(stack.aclose())
