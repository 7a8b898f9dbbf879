"""The pooled client against servers that do each bad thing.

Every test also checks that no socket and no task is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import socket
import ssl
import struct
import threading
import time
import weakref
from functools import partial
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Iterator, List, Optional, Tuple

import pytest
from rawserver import (
    CHUNKED,
    END,
    OK,
    Peer,
    RawServer,
    Script,
    chunk,
    keep_serving,
    make_certificate,
    nothing_left,
    then_silence,
    until,
)
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from rproxy.cooperative import SLICE
from rproxy.upstream.connect import Route, dial
from rproxy.upstream.connection import Connection
from rproxy.upstream.http_client import PooledHTTPClient
from rproxy.upstream.response import PIECE
from rproxy.upstream.transport import CancelToken, StopReading, TransportError

GOOD_200 = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def pool(client: PooledHTTPClient) -> Tuple[int, int]:
    """The numbers of busy and of idle connections."""
    busy, idle = re.findall(r"(\d+) (?:busy|idle)", repr(client))
    return int(busy), int(idle)


class Lab:
    """A client and a server; ``fetch`` and ``post`` ask that server."""

    def __init__(self, client: PooledHTTPClient, server: RawServer, ca_file: Optional[str]) -> None:
        self.client, self.server, self.ca_file = client, server, ca_file

    @property
    def pool(self) -> Tuple[int, int]:
        return pool(self.client)

    @property
    def connects(self) -> int:
        return len(self.server.peers)

    def fetch(self, path: str = "/", **options: Any) -> asyncio.Future[Any]:
        raise_error = options.pop("raise_error", True)
        return self.client.fetch(
            HTTPRequest(self.server.url + path, ca_certs=self.ca_file, **options), raise_error=raise_error
        )

    def post(self, body: bytes = b"{}", **callbacks: Any) -> asyncio.Future[Any]:
        """As Upstream does it."""
        prepared = self.client.prepare(HTTPRequest(self.server.url, method="POST", ca_certs=self.ca_file))
        callbacks.setdefault("on_data", lambda data: None)
        return self.client.fetch(prepared.with_body(body, **callbacks), raise_error=False)

    async def fails(self, kind: str, within: float = 1.0, **options: Any) -> TransportError:
        start = time.monotonic()
        with pytest.raises(TransportError) as caught:
            await self.fetch(streaming_callback=lambda data: None, **options)
        assert (caught.value.kind, caught.value.code) == (kind, 599)
        assert time.monotonic() - start < within
        assert self.pool == (0, 0)
        return caught.value

    async def requests(self, number: int = 1) -> None:
        """Wait until the server has so many connections with a request."""
        await until(lambda: sum(peer.asked > 0 for peer in self.server.peers) >= number)


Start = Callable[..., Any]


@pytest.fixture(params=["plain", "tls"])
def start(request: pytest.FixtureRequest, certificate: Tuple[Path, Path]) -> Start:
    @contextlib.asynccontextmanager
    async def start(script: Script, **options: Any) -> AsyncIterator[Lab]:
        context, ca_file = None, None
        if request.param == "tls":
            context, ca_file = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), str(certificate[0])
            context.load_cert_chain(*certificate)
        async with nothing_left():
            client = PooledHTTPClient(force_instance=True, **options)
            async with RawServer(script).running(context) as server:
                try:
                    yield Lab(client, server, ca_file)
                finally:
                    client.close()

    return start


# ---- A reset that arrives with the last bytes before it


@contextlib.contextmanager
def resetting(*answers: bytes) -> Iterator[Tuple[str, threading.Event]]:
    """A server in a thread of its own, which answers so many requests on one connection and resets that then.

    Gives its URL, and an event for that.  More connections get the last answer.
    """
    done = threading.Event()

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the test is over
            while True:
                sock = listener.accept()[0]
                for answer in answers if not done.is_set() else answers[-1:]:
                    while not sock.recv(65536).endswith(b"{}"):
                        pass
                    sock.sendall(answer)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                done.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield "http://127.0.0.1:%d" % listener.getsockname()[1], done
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def post_to(client: PooledHTTPClient, url: str) -> asyncio.Future[Any]:
    prepared = client.prepare(HTTPRequest(url, method="POST"))
    await client.preconnect(prepared)  # so that the request leaves at once
    return client.fetch(prepared.with_body(b"{}", on_data=lambda data: None))


async def test_a_reset_is_noticed_that_comes_with_a_part_of_the_answer() -> None:
    """Uvloop announces both once: the second read must not wait for another event."""
    with resetting(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart") as (url, reset):
        client = PooledHTTPClient(force_instance=True, idle_timeout=60.0)
        future = await post_to(client, url)
        reset.wait()  # the event loop stands still: it finds both
        with pytest.raises(TransportError) as caught:
            await asyncio.wait_for(future, 20)
        assert caught.value.kind == "reset"
        client.close()


async def test_a_connection_is_not_used_again_that_was_reset_with_its_last_answer() -> None:
    with resetting(OK) as (url, reset):
        client = PooledHTTPClient(force_instance=True, first_byte_timeout=60.0)
        future = await post_to(client, url)
        reset.wait()
        assert (await asyncio.wait_for(future, 20)).code == 200
        response = await asyncio.wait_for(await post_to(client, url), 20)
        assert response.code == 200
        client.close()


# ---- Connections are used again


async def test_connections_are_reused(start: Start) -> None:
    async def echo(peer: Peer) -> None:
        while True:
            body = (await peer.request())[2]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with start(echo) as lab:
        for size in (0, 10, 3_000_000):
            assert (await lab.fetch(method="POST", body=b"x" * size)).body == b"x" * size
        assert lab.pool == (0, 1) and lab.connects == 1


async def test_parallel_and_lifo(start: Start) -> None:
    used: List[int] = []

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            used.append(peer.number)
            await peer.send(CHUNKED, chunk(b"a"), chunk(b"b"), END, pause=0.005)

    async with start(script, max_idle=3) as lab:
        answers = await asyncio.gather(*(lab.fetch() for _ in range(5)))
        assert [answer.body for answer in answers] == [b"ab"] * 5
        assert lab.pool == (0, 3) and lab.connects == 5, "the limit of idle connections"
        used.clear()
        for _ in range(3):
            await lab.fetch()
        assert len(set(used)) == 1, "the one used last comes first"


async def test_idle_connections_expire(start: Start) -> None:
    async with start(keep_serving(OK), idle_ttl=0.05) as lab:
        await lab.fetch()
        assert lab.pool == (0, 1)
        await until(lambda: lab.pool == (0, 0))
        assert (await lab.fetch()).body == b"ok"


async def test_preconnect(start: Start) -> None:
    async with start(keep_serving(OK)) as lab:
        request = lab.client.prepare(HTTPRequest(lab.server.url, ca_certs=lab.ca_file))
        await lab.client.preconnect(request)
        await lab.client.preconnect(request)
        assert lab.pool == (0, 1)
        await lab.fetch()
        assert lab.pool == (0, 1) and lab.connects == 1
        with pytest.raises(TransportError):
            await lab.client.preconnect(lab.client.prepare(HTTPRequest("http://127.0.0.1:1")))
        with pytest.raises(TransportError):
            lab.client.prepare(HTTPRequest("ftp://127.0.0.1/"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokJUNK",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_not_reusable(start: Start, answer: bytes) -> None:
    async with start(keep_serving(answer)) as lab:
        for _ in range(2):
            assert (await lab.fetch()).body == b"ok"
            assert lab.pool == (0, 0)
        assert lab.connects == 2


@pytest.mark.parametrize("ending", ["junk", "fin", "reset"])
async def test_idle_connection_that_ends_is_dropped(start: Start, ending: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK, pause=0.02)
        if ending == "junk":
            await peer.send(b"HTTP/1.1 408 Timeout\r\n\r\n")
            await peer.wait_gone()
        elif ending == "reset":
            peer.reset()

    async with start(script) as lab:
        await lab.fetch()
        await until(lambda: lab.pool == (0, 0))
        assert (await lab.fetch()).body == b"ok"
        assert lab.connects == 2


@pytest.mark.parametrize("ending", ["fin", "reset"])
async def test_one_retry_when_a_kept_connection_is_stale(start: Start, ending: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number % 2 == 0:
            await peer.reader.readexactly(1)  # the next request arrives, and the connection ends
            if ending == "reset":
                peer.reset()
        else:
            await peer.wait_gone()

    async with start(script) as lab:
        assert (await lab.fetch()).body == b"ok"
        assert (await lab.fetch(method="POST", body=b"b" * 100)).body == b"ok"
        assert lab.connects == 2


async def test_retry_when_writing_already_fails(start: Start) -> None:
    async with start(keep_serving(OK)) as lab:
        await lab.fetch()
        lab.server.peers[0].reset()
        await asyncio.sleep(0)  # the reset is sent, and the loop has not yet told the client
        assert lab.pool == (0, 1)
        assert (await lab.fetch()).body == b"ok"
        assert lab.connects == 2


async def test_no_retry_once_a_byte_came_nor_on_a_new_connection(start: Start) -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.request()
            await peer.send(OK)
            await peer.request()
            await peer.send(b"H")

    async with start(script) as lab:
        await lab.fetch()
        error = await lab.fails("reset")
        assert error.answered and lab.connects == 1
        error = await lab.fails("reset")
        assert not error.answered and lab.connects == 2


# ---- What arrives


async def test_streaming_callback_and_header_callback(start: Start) -> None:
    raw = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + CHUNKED[:-2]
        + b"X-A: 1\r\n\r\n"
        + b"5;x=y\r\nhello\r\n"
        + chunk(b"0123456789")
        + b"0\r\nX-T: 1\r\n\r\n"
    )

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*(raw[i : i + 1] for i in range(len(raw))))

    async with start(script) as lab:
        got: List[bytes] = []
        lines: List[str] = []
        response = await lab.fetch(streaming_callback=got.append, header_callback=lines.append)
        assert b"".join(got) == b"hello0123456789" and response.body == b""
        assert lines == ["HTTP/1.1 200 OK\r\n", "Transfer-Encoding: chunked\r\n", "X-A: 1\r\n", "\r\n"]
        assert (response.code, response.reason, response.headers["x-a"]) == (200, "OK", "1")
        assert (await lab.fetch()).body == b"hello0123456789"
        assert lab.connects == 1


async def test_body_until_close_and_head(start: Start) -> None:
    async def script(peer: Peer) -> None:
        first = (await peer.request())[0]
        await peer.send(GOOD_200 + b"\r\n" + (b"" if first.startswith("HEAD") else b"hello"))

    async with start(script) as lab:
        assert (await lab.fetch()).body == b"hello"
        assert (await lab.fetch(method="HEAD")).body == b""


async def test_pieces_are_delivered_at_once(start: Start) -> None:
    """Close-delimited bodies, too; the stock client of Tornado 6.5 holds them back."""
    heard = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\n", b"one")
        await heard.wait()
        await peer.send(b"two")

    async with start(script) as lab:
        pieces: List[bytes] = []

        def take(data: bytes) -> None:
            pieces.append(data)
            heard.set()

        await lab.fetch(streaming_callback=take)
        assert pieces == [b"one", b"two"]


async def test_other_statuses_keep_their_body(start: Start) -> None:
    async def script(peer: Peer) -> None:
        path = (await peer.request())[0].split()[1]
        coded = gzip.compress(b"slow down")
        await peer.send(
            {
                "/plain": b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 9\r\n\r\nslow down",
                "/gzip": b"HTTP/1.1 429 Slow\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
                % (len(coded), coded),
                "/badgzip": b"HTTP/1.1 429 Slow\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
                "/br": b"HTTP/1.1 429 Slow\r\nContent-Encoding: br\r\nContent-Length: 4\r\n\r\nabcd",
                "/big": b"HTTP/1.1 500 Oh\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3000000,
                "/moved": b"HTTP/1.1 307 Moved\r\nLocation: /plain\r\nContent-Length: 0\r\n\r\n",
            }[path]
        )

    async with start(script) as lab:
        got: List[bytes] = []
        for path, body in [
            ("/plain", b"slow down"),
            ("/gzip", b"slow down"),
            ("/badgzip", b""),
            ("/br", b""),
            ("/big", b"x" * (1 << 20)),
            ("/moved", b""),
        ]:
            response = await lab.fetch(
                path, streaming_callback=got.append, raise_error=False, method="POST", body=b"{}"
            )
            assert response.body == body and response.code >= 300
        assert got == [] and response.code == 307, "redirects are never followed"
        with pytest.raises(HTTPClientError) as caught:
            await lab.fetch("/plain")
        assert caught.value.code == 429 and caught.value.response.headers["Retry-After"] == "3"


async def test_gzip(start: Start) -> None:
    coded, bomb = gzip.compress(b"compressed"), gzip.compress(b"\0" * (17 << 20))
    head = GOOD_200 + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"

    async def script(peer: Peer) -> None:
        body = (await peer.request())[2]
        data = {b"good": coded, b"cut": coded[:-1], b"bomb": bomb}[body]
        await peer.send(
            head % len(data),
            *(data[i : i + 100] for i in range(0, len(data), 100)) if body == b"cut" else (data,),
        )

    async with start(script) as lab:
        got: List[bytes] = []
        await lab.fetch(method="POST", body=b"good", streaming_callback=got.append)
        assert b"".join(got) == b"compressed"
        lab.client.close()
        lab.client = PooledHTTPClient(force_instance=True)
        await lab.fails("reset", method="POST", body=b"cut")
        await lab.fails("protocol", method="POST", body=b"bomb")
        lab.client.close()


async def test_what_gzip_expands_to_comes_in_pieces(start: Start) -> None:
    plain = b"0123456789" * 200_000
    coded = gzip.compress(plain)
    head = GOOD_200 + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    got: List[bytes] = []
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += len(got) > 0

    def take(data: bytes) -> None:
        got.append(data)
        time.sleep(SLICE)  # which is work

    def stop(data: bytes) -> None:
        got.append(data)
        raise StopReading

    async with start(keep_serving(head % len(coded) + coded)) as lab:
        ticking = asyncio.ensure_future(tick())
        response = await lab.post(on_data=take)
        ticking.cancel()
        await asyncio.wait({ticking})
        assert b"".join(got) == plain and max(map(len, got)) <= PIECE and response.code == 200
        assert ticks >= len(plain) // PIECE
        for token in (CancelToken(), None):
            got.clear()
            await lab.post(on_data=stop, cancel_token=token)
            assert len(got) == 1
        lab.client.close()


async def test_unknown_encoding(start: Start) -> None:
    async with start(keep_serving(GOOD_200 + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\nab")) as lab:
        assert "'br'" in str(await lab.fails("protocol"))


@pytest.mark.parametrize(
    "raw,ending,kind",
    [
        (CHUNKED + b"5\r\nhello\r\n", "reset", "reset"),
        (CHUNKED + b"5\r\nhello\r\n", "fin", "reset"),
        (CHUNKED + b"5\r\nhel", "fin", "reset"),
        (GOOD_200 + b"Content-Length: 10\r\n\r\nhello", "fin", "reset"),
        (b"", "fin", "reset"),
        (b"", "reset", "reset"),
        (b"HTTP/1.1 20", "fin", "reset"),
        (CHUNKED + b"zz\r\nhello\r\n", "wait", "protocol"),
        (b"SSH-2.0\r\n", "wait", "protocol"),
        (b"x" * 70000, "wait", "protocol"),
        (GOOD_200 + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "wait", "protocol"),
    ],
)
async def test_broken_answers(start: Start, raw: bytes, ending: str, kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw, pause=0.02)
        if ending == "wait":
            await peer.wait_gone()
        elif ending == "reset":
            peer.reset()

    async with start(script) as lab:
        error = await lab.fails(kind)
        assert error.answered == bool(raw)
        assert len(str(error)) < 300


async def test_answer_before_the_request_is_sent(start: Start) -> None:
    answered = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nnope")
        await answered.wait()

    async with start(script) as lab:
        response = await lab.fetch(method="POST", body=b"x" * (8 << 20), raise_error=False)
        answered.set()
        assert (response.code, response.body) == (401, b"nope")
        assert lab.pool == (0, 0)


# ---- Limits and cancelling


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED, CHUNKED + b"5\r\nhel", CHUNKED + chunk(b"hello")]
)
async def test_cancel_closes_at_once(start: Start, sent: bytes) -> None:
    async with start(then_silence(sent)) as lab:
        got: List[bytes] = []
        future = lab.fetch(streaming_callback=got.append)
        await lab.requests()
        await until(lambda: got or not sent.endswith(b"hello\r\n"))
        future.cancel()
        await asyncio.sleep(0)
        assert lab.pool == (0, 0)
        await lab.server.peers[0].when_gone()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED + chunk(b"hello")])
async def test_a_token_ends_a_fetch_with_what_has_arrived(start: Start, sent: bytes) -> None:
    async with start(then_silence(sent)) as lab:
        got: List[bytes] = []
        token = CancelToken()
        future = lab.post(on_data=got.append, cancel_token=token)
        await lab.requests()
        await until(lambda: got or not sent.endswith(b"hello\r\n"))
        token.cancel()
        assert lab.pool == (0, 0)
        response = await future
        assert (response.code, got) == ((200, [b"hello"]) if got else (599, []))
        await lab.server.peers[0].when_gone()
        token.cancel()  # too late to mean anything


async def test_a_token_before_and_while_connecting() -> None:
    async def script(peer: Peer) -> None:
        await peer.wait_gone()

    async with nothing_left(), RawServer(script).running() as server:
        client = PooledHTTPClient(force_instance=True)
        prepared = client.prepare(HTTPRequest(server.url.replace("http:", "https:"), method="POST"))
        for steps in (None, 0, 1, 2, 3, 50):  # turns of the loop, in which the connection makes some progress
            token = CancelToken()
            if steps is None:
                token.cancel()
            request = prepared.with_body(b"{}", on_data=lambda data: None, cancel_token=token)
            future = client.fetch(request, raise_error=False)
            for _ in range(steps or 0):
                await asyncio.sleep(0.001)
            token.cancel()
            assert (await asyncio.wait_for(future, 1)).code == 599
            await until(lambda: pool(client) == (0, 0) and all(peer.gone for peer in server.peers))
        client.close()


async def test_a_token_that_is_cancelled_leaves_a_kept_connection_alone(start: Start) -> None:
    async with start(keep_serving(OK)) as lab:
        await lab.fetch()
        token = CancelToken()
        token.cancel()
        assert (await lab.post(cancel_token=token)).code == 599
        assert lab.pool == (0, 1) and lab.server.peers[0].asked == 1


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize("turns", range(4))
async def test_the_end_comes_together_with_the_connection(
    by_token: bool, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled when the socket is there, some turns of the loop later: it is closed."""

    async def script(peer: Peer) -> None:
        await peer.wait_gone()

    async def dialed(route: Route, timeout: float) -> socket.socket:
        sock = await dial(route, timeout)
        end: Callable[[], object] = token.cancel if by_token else future.cancel
        for _ in range(turns):
            end = partial(asyncio.get_running_loop().call_soon, end)
        end()
        return sock

    monkeypatch.setattr("rproxy.upstream.pool.dial", dialed)
    async with nothing_left(), RawServer(script).running() as server:
        client, token = PooledHTTPClient(force_instance=True), CancelToken()
        prepared = client.prepare(HTTPRequest(server.url, method="POST"))
        request = prepared.with_body(b"{}", on_data=lambda data: None, cancel_token=token)
        future = client.fetch(request, raise_error=False)
        with contextlib.suppress(asyncio.CancelledError):
            assert (await future).code == 599
        assert future.cancelled() is not by_token
        await until(lambda: pool(client) == (0, 0) and all(peer.gone for peer in server.peers))
        client.close()


async def test_a_token_when_a_kept_connection_is_just_found_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        peer.writer.transport.abort()

    async with nothing_left(), RawServer(script).running() as server:
        client = PooledHTTPClient(force_instance=True)
        prepared, token = client.prepare(HTTPRequest(server.url, method="POST")), CancelToken()
        await client.fetch(server.url)
        fail = Connection._fail

        def failed(connection: Connection, error: BaseException) -> None:
            fail(connection, error)
            token.cancel()

        monkeypatch.setattr(Connection, "_fail", failed)
        request = prepared.with_body(b"", on_data=lambda data: None, cancel_token=token)
        assert (await client.fetch(request, raise_error=False)).code == 599
        assert pool(client) == (0, 0) and len(server.peers) == 1
        client.close()


@pytest.mark.parametrize("token_first", [True, False])
async def test_a_token_and_cancel_at_once(start: Start, token_first: bool) -> None:
    async with start(then_silence(b"")) as lab:
        token = CancelToken()
        future = lab.post(cancel_token=token)
        await lab.requests()
        ends: List[Callable[[], object]] = [token.cancel, future.cancel]
        for end in ends if token_first else reversed(ends):
            end()
        if token_first:
            assert (await future).code == 599
        else:
            with pytest.raises(asyncio.CancelledError):
                await future
        assert lab.pool == (0, 0)


async def test_a_token_does_not_touch_the_next_request(start: Start) -> None:
    async with start(keep_serving(OK)) as lab:
        former = CancelToken()
        assert (await lab.post(cancel_token=former)).code == 200
        future = lab.post(cancel_token=CancelToken())
        former.cancel()
        assert (await future).code == 200 and lab.pool == (0, 1) and lab.connects == 1


@pytest.mark.parametrize("when", ["on_sent", "on_head", "on_data"])
@pytest.mark.parametrize("then", [None, StopReading, KeyError])
async def test_a_callback_may_cancel_its_own_fetch(
    start: Start, when: str, then: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... and raise an exception, too, or return something to wait for: the fetch is over all the same."""
    monkeypatch.setattr("rproxy.upstream.connection.LATE_END_TIMEOUT", 0.001)
    async with start(keep_serving(CHUNKED + chunk(b"data"))) as lab:
        token = CancelToken()

        def cancel(*_: Any) -> Any:
            token.cancel()
            if then is not None:
                raise then
            return asyncio.sleep(30) if when == "on_data" else lambda data: got.append(data)

        got: List[bytes] = []
        response = await lab.post(**{"on_data": got.append, when: cancel}, cancel_token=token)
        assert response.code == (599 if when == "on_sent" else 200) and not got
        await asyncio.sleep(0.01)  # longer than LATE_END_TIMEOUT
        assert lab.pool == (0, 0)


async def test_cancel_at_once_and_while_sending(start: Start) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        sending.set()
        await gone.wait()
        await peer.wait_gone()

    async with start(script) as lab:
        for part_sent in (False, True):
            sending, gone = asyncio.Event(), asyncio.Event()
            future = lab.fetch(method="POST", body=b"x" * (16 << 20))
            if part_sent:
                await sending.wait()
            future.cancel()
            await until(lambda: lab.pool == (0, 0))
            gone.set()


async def test_cancel_of_the_awaiting_task(start: Start) -> None:
    async with start(then_silence(b"")) as lab:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(lab.fetch(), 0.3)
        assert lab.pool == (0, 0)
        await lab.server.peers[0].when_gone()


async def test_cancel_while_connecting() -> None:
    """TCP that is not answered, a TLS handshake that is not answered, a tunnel that is not answered."""

    async def script(peer: Peer) -> None:
        await peer.wait_gone()

    async with nothing_left(), RawServer(script).running() as server:
        client = PooledHTTPClient(force_instance=True)
        port = int(server.url.rpartition(":")[2])
        requests = [
            HTTPRequest("http://192.0.2.1:81/"),
            HTTPRequest(f"https://127.0.0.1:{port}/"),
            HTTPRequest("https://192.0.2.1/", proxy_host="127.0.0.1", proxy_port=port),
        ]
        for reached, request in enumerate(requests):  # the first one reaches nobody
            future = client.fetch(request)
            await until(lambda reached=reached: len(server.peers) == reached)
            future.cancel()  # without effect on a machine without a route, which fails at once
            with contextlib.suppress(asyncio.CancelledError, TransportError):
                await future
            assert pool(client) == (0, 0)
            if reached:
                await server.peers[-1].when_gone()
        for request in requests[1:]:
            request.connect_timeout = 0.05
            with pytest.raises(TransportError, match="within 0.05 s") as caught:
                await client.fetch(request)
            assert caught.value.kind == "timeout"
        client.close()


@pytest.mark.parametrize(
    "sent,limit",
    [
        (b"", "first_byte_timeout"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "first_byte_timeout"),
        (CHUNKED, "idle_timeout"),
        (CHUNKED + chunk(b"x"), "idle_timeout"),
    ],
)
async def test_silence(start: Start, sent: bytes, limit: str) -> None:
    async with start(
        then_silence(sent), **{"first_byte_timeout": 30.0, "idle_timeout": 30.0, limit: 0.1}
    ) as lab:
        before = time.monotonic()
        error = await lab.fails("timeout")
        assert time.monotonic() - before > 0.09 and "0.1 s" in str(error)
        assert isinstance(error.real_error, TimeoutError)


async def test_any_byte_rearms_the_limits_and_there_is_no_total(start: Start) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            *(bytes([byte]) for byte in CHUNKED[:20]),
            CHUNKED[20:],
            *[chunk(b": ping\n\n")] * 10,
            END,
            pause=0.02,
        )

    async with start(script, first_byte_timeout=0.3, idle_timeout=0.3) as lab:
        assert (await lab.fetch()).body == b": ping\n\n" * 10


async def test_request_timeout_is_the_total_when_it_is_given(start: Start) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED, *[chunk(b"x")] * 100, pause=0.02)

    async with start(script) as lab:
        assert "no complete response within 0.2 s" in str(await lab.fails("timeout", request_timeout=0.2))


async def test_client_close_fails_what_runs(start: Start) -> None:
    async with start(then_silence(b"")) as lab:
        futures = [lab.fetch()]
        await lab.requests()
        futures.append(lab.fetch())  # still connecting
        lab.client.close()
        for future in futures:
            with pytest.raises(TransportError, match="closed"):
                await future
        assert lab.pool == (0, 0)


# ---- The callback


def flood(peer: Peer) -> Awaitable[None]:
    async def script() -> None:
        await peer.request()
        await peer.send(CHUNKED, *[chunk(b"x" * 65536)] * 320, END)
        await peer.wait_gone()

    return script()


async def test_backpressure(start: Start) -> None:
    async with start(flood) as lab:
        got, busy, pauses = 0, False, 0

        async def slow() -> None:
            nonlocal busy
            await asyncio.sleep(0.001)
            busy = False

        def take(data: bytes) -> Optional[Awaitable[None]]:
            nonlocal got, busy, pauses
            assert not busy, "called while the last call is not done"
            before, got = got, got + len(data)
            if before >> 18 == got >> 18:
                return None
            busy, pauses = True, pauses + 1
            return slow()

        await lab.fetch(streaming_callback=take)
        assert got == 320 * 65536 and pauses >= 80 and not busy
        assert lab.pool == (0, 1)


async def test_nothing_is_read_while_the_callback_waits(start: Start) -> None:
    """And it is not the server that is silent: a request that comes later runs into ``idle_timeout``."""

    def script(peer: Peer) -> Awaitable[None]:
        return then_silence(CHUNKED)(peer) if peer.number else flood(peer)

    async with start(script, idle_timeout=0.1) as lab:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        got: List[int] = []

        def take(data: bytes) -> Optional[Awaitable[None]]:
            got.append(len(data))
            return None if gate.done() else gate

        future = lab.fetch(streaming_callback=take)
        await until(lambda: got)
        with pytest.raises(TransportError, match="idle_timeout|nothing"):
            await lab.fetch()
        assert len(got) == 1 and not future.done()
        gate.set_result(None)
        await future
        assert sum(got) == 320 * 65536


@pytest.mark.parametrize("ours", [True, False])
async def test_cancel_while_the_callback_waits(start: Start, ours: bool) -> None:
    """A task of ours is cancelled; a future that belongs to others is not."""
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended: List[str] = []
    called: List[bytes] = []

    async def wait_forever() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cancelled")

    def take(data: bytes) -> Awaitable[None]:
        called.append(data)
        return wait_forever() if ours else gate

    async with start(flood) as lab:
        future = lab.fetch(streaming_callback=take)
        await until(lambda: called)
        await asyncio.sleep(0)  # the task has begun
        future.cancel()
        await until(lambda: lab.pool == (0, 0) and ended == (["cancelled"] if ours else []))
        assert not gate.done()


@pytest.mark.parametrize("waiting", [False, True])
async def test_errors_of_the_callback_come_out_of_fetch(start: Start, waiting: bool) -> None:
    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise KeyError("mine")

    def fail(data: bytes) -> Optional[Awaitable[None]]:
        if waiting:
            return fail_later()
        raise KeyError("mine")

    async with start(flood) as lab:
        with pytest.raises(KeyError, match="mine"):
            await lab.fetch(streaming_callback=fail)
        with pytest.raises(KeyError, match="line"):
            await lab.fetch(header_callback=lambda line: {}["line"])
        assert lab.pool == (0, 0)


async def test_a_cancelled_wait_ends_the_fetch(start: Start) -> None:
    async with start(flood) as lab:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        called: List[Any] = []
        future = lab.fetch(streaming_callback=lambda data: called.append(data) or gate)
        await until(lambda: called)
        gate.cancel()
        with pytest.raises(TransportError, match="was cancelled"):
            await future
        assert lab.pool == (0, 0)


@pytest.mark.parametrize("end", ["at once", "later", "never"])
async def test_end_of_interest(start: Start, end: str) -> None:
    """The caller has its response before the body ends; a connection whose body does end is used again."""
    responded = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(CHUNKED)
            await peer.send(chunk(b"data: [DONE]\n\n"))
            if end == "never":
                await peer.wait_gone()
                return
            if end == "later":
                await responded.wait()
            await peer.send(chunk(b"unwanted"), END)

    def take(data: bytes) -> None:
        raise StopReading

    async with start(script) as lab:
        response = await lab.fetch(streaming_callback=take)
        responded.set()
        assert response.code == 200
        await until(lambda: lab.pool == ((0, 0) if end == "never" else (0, 1)))
        await lab.fetch(streaming_callback=take)
        assert lab.connects == (2 if end == "never" else 1)


async def test_end_of_interest_then_cancel(start: Start) -> None:
    """A caller that raises StopReading and cancels as well must not lose the connection."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(CHUNKED + chunk(b"data: [DONE]\n\n"), pause=0.03)
            await peer.send(END)

    async with start(script) as lab:
        futures: List[asyncio.Future[Any]] = []

        def take(data: bytes) -> None:
            futures[0].cancel()
            raise StopReading

        futures.append(lab.fetch(streaming_callback=take))
        with pytest.raises(asyncio.CancelledError):
            await futures[0]
        await until(lambda: lab.pool == (0, 1))


# ---- Requests


async def test_what_is_sent(start: Start) -> None:
    seen: List[Any] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.send(OK)

    async with start(script) as lab:
        request = HTTPRequest(
            lab.server.url + "/v1/x?a=b#f",
            method="POST",
            body=b"{}",
            headers={"X-Key": "1"},
            ca_certs=lab.ca_file,
            decompress_response=False,
            user_agent="me/1",
            auth_username="u",
            auth_password="p",
        )
        await lab.client.fetch(request)
        await lab.client.fetch(request)
        first, headers, body = seen[1]
        assert (first, body) == ("POST /v1/x?a=b HTTP/1.1", b"{}")
        assert headers == {
            "x-key": "1",
            "host": lab.server.url.rpartition("/")[2],
            "accept-encoding": "identity",
            "content-length": "2",
            "user-agent": "me/1",
            "authorization": "Basic dTpw",
        }
        await lab.fetch("", method="POST", body="")
        assert seen[2][0] == "POST / HTTP/1.1" and seen[2][1]["content-length"] == "0"
        await lab.fetch()
        assert "content-length" not in seen[3][1]


async def test_user_in_the_url_and_own_context(certificate: Tuple[Path, Path]) -> None:
    seen: List[Any] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(OK)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with nothing_left(), RawServer(script).running(context) as server:
        client = PooledHTTPClient(force_instance=True)
        mine = ssl.create_default_context(cafile=str(certificate[0]))
        await client.fetch(server.url.replace("//", "//u%40x:p@"), method="POST", ssl_options=mine)
        assert seen[0][1]["authorization"] == "Basic dUB4OnA=" and seen[0][1]["host"] == server.url[8:]
        assert seen[0][1]["content-length"] == "0"
        client.close()


async def test_a_body_has_a_limit_without_a_callback(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rproxy.upstream.response.MAX_BODY", 100_000)
    async with start(flood) as lab:
        with pytest.raises(TransportError, match="longer than 100000"):
            await lab.fetch()


async def test_what_is_not_supported_is_refused() -> None:
    client = PooledHTTPClient(force_instance=True)
    with pytest.raises(TransportError, match="does not support expect_100_continue"):
        await client.fetch("http://127.0.0.1:1/", method="POST", body=b"", expect_100_continue=True)
    with pytest.raises(TransportError, match="cannot be sent"):
        await client.fetch(
            "http://127.0.0.1:1/", method="GET / HTTP/1.1\r\nX:", allow_nonstandard_methods=True
        )
    with pytest.raises(TransportError, match="cannot be sent"):
        await client.fetch("http://127.0.0.1:1/", user_agent="\u20ac")
    client.close()


async def test_close_while_connecting(start: Start) -> None:
    async with start(keep_serving(OK)) as lab:
        task = asyncio.ensure_future(
            lab.client.preconnect(lab.client.prepare(HTTPRequest(lab.server.url, ca_certs=lab.ca_file)))
        )
        await asyncio.sleep(0)
        lab.client.close()
        lab.client.close()
        with pytest.raises(TransportError, match="closed"):
            await task
        assert lab.pool == (0, 0)
        with pytest.raises(RuntimeError):
            lab.fetch()


@pytest.mark.parametrize(
    "url,headers",
    [
        ("http://127.0.0.1:1/", {"X": "a\r\nb: c"}),
        ("http://127.0.0.1:1/", {"X": "a\nb"}),
        ("http://127.0.0.1:1/", {"X": "a\0"}),
        ("http://127.0.0.1:1/", {"X": "\u20ac"}),
        ("http://127.0.0.1:1/a b", {}),
        ("http://127.0.0.1:1/\r\nX: y", {}),
        ("http:///x", {}),
        ("ftp://127.0.0.1/", {}),
        ("nothing", {}),
        ("http://127.0.0.1:99999/", {}),
        ("http://[::1/", {}),
    ],
)
async def test_requests_that_are_refused(url: str, headers: Any) -> None:
    client = PooledHTTPClient(force_instance=True)
    with pytest.raises(TransportError, match="cannot be sent") as caught:
        await client.fetch(HTTPRequest(url, headers=headers))
    assert "\u20ac" not in str(caught.value) and "\n" not in str(caught.value)
    client.close()


async def test_no_connection() -> None:
    async with nothing_left():
        client = PooledHTTPClient(force_instance=True)
        with pytest.raises(TransportError) as caught:
            await client.fetch("http://127.0.0.1:1/")
        assert caught.value.kind == "connect" and isinstance(caught.value.real_error, ConnectionRefusedError)
        with pytest.raises(TransportError) as caught:
            await client.fetch("http://no-such-host.invalid/")
        assert caught.value.kind == "connect" and isinstance(caught.value.real_error, OSError)
        client.close()


@pytest.mark.standard_loop  # whose name resolution can be replaced
@pytest.mark.parametrize(
    "hosts,works",
    [
        (["127.0.0.9", "127.0.0.1"], True),
        (["192.0.2.1", "127.0.0.9", "127.0.0.1"], True),
        (["::9", "127.0.0.1"], True),
        (["127.0.0.9", "127.0.0.8"], False),
    ],
)
async def test_every_address_of_a_host_is_tried(
    hosts: List[str], works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nothing_left(), RawServer(keep_serving(OK)).running() as server:
        port = int(server.url.rpartition(":")[2])
        found = [socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0] for host in hosts]

        async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
            return found

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        client = PooledHTTPClient(force_instance=True)
        url = f"http://host.invalid:{port}/"
        if works:
            before = time.monotonic()
            assert (await client.fetch(url)).body == b"ok"
            assert time.monotonic() - before < 0.8
        else:
            with pytest.raises(TransportError, match="127.0.0.9"):
                await client.fetch(url)
        found[:] = [found[0]] * 3  # several, and the fetch is cancelled during the race
        future = client.fetch(url)
        await asyncio.sleep(0)
        future.cancel()
        await asyncio.sleep(0.01)
        client.close()


async def test_untrusted_certificate(
    certificate: Tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with nothing_left(), RawServer(keep_serving(OK)).running(context) as server:
        client = PooledHTTPClient(force_instance=True)
        with pytest.raises(TransportError) as caught:
            await client.fetch(server.url)
        assert caught.value.kind == "connect" and isinstance(
            caught.value.real_error, ssl.SSLCertVerificationError
        )
        assert (await client.fetch(server.url, validate_cert=False)).body == b"ok"
        with pytest.raises(TransportError, match="missing.pem"):
            await client.fetch(server.url, ca_certs=str(tmp_path / "missing.pem"))
        client.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        client = PooledHTTPClient(force_instance=True)
        assert (await client.fetch(server.url)).body == b"ok"
        client.close()


async def test_client_certificate(certificate: Tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.load_verify_locations(str(certificate[0]))
    context.verify_mode = ssl.CERT_REQUIRED
    cert, key = map(str, certificate)
    async with nothing_left(), RawServer(keep_serving(OK)).running(context) as server:
        client = PooledHTTPClient(force_instance=True)
        assert (await client.fetch(server.url, ca_certs=cert, client_cert=cert, client_key=key)).body == b"ok"
        with pytest.raises(TransportError):
            await client.fetch(server.url, ca_certs=cert)
        client.close()


async def test_unix_socket_and_ipv6(tmp_path: Path) -> None:
    seen: List[Any] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.send(OK)

    async with nothing_left():
        client = PooledHTTPClient(force_instance=True)
        path = str(tmp_path / "A.sock")
        async with RawServer(script).running(path=path):
            for _ in range(2):
                assert (
                    await client.fetch("http+unix://{}/v1/x".format(path.replace("/", "%2F")))
                ).body == b"ok"
            assert seen[1][0] == "GET /v1/x HTTP/1.1" and seen[1][1]["host"] == "localhost"
            assert pool(client) == (0, 1)
        with pytest.raises(TransportError):
            await client.fetch("http+unix://%2Fno%2Fsuch%2Fsocket/")
        try:
            async with RawServer(script).running(host="::1") as server:
                assert (await client.fetch(server.url)).body == b"ok"
                assert seen[-1][1]["host"].startswith("[::1]:")
        except OSError:
            pytest.skip("no IPv6 here")
        client.close()


async def test_it_is_a_tornado_client() -> None:
    AsyncHTTPClient.configure(PooledHTTPClient, defaults={"user_agent": "x"})
    try:
        client = AsyncHTTPClient()
        assert isinstance(client, PooledHTTPClient) and AsyncHTTPClient() is client
        client.close()
    finally:
        AsyncHTTPClient.configure(None)


async def test_no_reference_cycle_keeps_a_fetch_alive(start: Start) -> None:
    """Memory of a finished turn goes at once; neither the kept connection nor the token holds any of it."""
    async with start(keep_serving(OK)) as lab:

        class Callback:
            def __init__(self) -> None:
                self.token = CancelToken()

            def __call__(self, data: bytes) -> None:
                pass

        callback = Callback()
        ref = weakref.ref(callback)
        await lab.post(on_data=callback, cancel_token=callback.token)
        del callback
        await asyncio.sleep(0)
        assert ref() is None and lab.pool == (0, 1)
