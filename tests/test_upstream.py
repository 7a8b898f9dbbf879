"""Upstream.chat against real sockets: what is asked, what comes back, what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace
from typing import Any, AsyncIterator, Dict, List, Mapping, Tuple

import pytest
from rawserver import CHUNKED, END, OK, Peer, RawServer, Script, chunk, keep_serving, nothing_left, until

from rproxy import __version__
from rproxy.config.schema import Provider
from rproxy.convert.profile import Profile
from rproxy.errors import ApiError
from rproxy.upstream.client import Result, StopReading, Upstream, endpoint, request_headers

ACME = Provider(name="acme", base_url="http://127.0.0.1:1/v1", api_key="sk-secret")


class Turn:
    """Records what one chat() calls."""

    def __init__(self) -> None:
        self.heads: List[Tuple[int, Mapping[str, str]]] = []
        self.data: List[bytes] = []

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.heads.append((status, headers))

    def on_data(self, data: bytes) -> None:
        self.data.append(data)

    async def run(self, upstream: Upstream, provider: Provider) -> Result:
        return await upstream.chat(provider, b'{"a":1}', on_head=self.on_head, on_data=self.on_data)


@contextlib.asynccontextmanager
async def running(script: Script, **options: Any) -> AsyncIterator[Tuple[Upstream, Provider, RawServer]]:
    async with nothing_left(), RawServer(script).running() as server:
        upstream = Upstream(environ={}, **options)
        try:
            yield upstream, replace(ACME, base_url=server.url + "/v1"), server
        finally:
            upstream.close()


async def test_a_turn() -> None:
    seen: List[Any] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.send(
                CHUNKED[:-2] + b"X-Request-Id: r1\r\n\r\n",
                chunk(b"data: 1\n\n"),
                chunk(b"data: [DONE]\n\n"),
                END,
                pause=0.01,
            )

    async with running(script) as (upstream, provider, server):
        await upstream.preconnect(provider)
        assert "0 busy, 1 idle" in repr(upstream)
        turn = Turn()
        result = await turn.run(upstream, provider)
        assert result.status == 200 and result.body == b"" and result.headers["x-request-id"] == "r1"
        assert turn.data == [b"data: 1\n\n", b"data: [DONE]\n\n"]
        assert [(status, headers["x-request-id"]) for status, headers in turn.heads] == [(200, "r1")]
        await Turn().run(upstream, provider)
        assert "0 busy, 1 idle" in repr(upstream) and len(server.peers) == 1
    first, headers, body = seen[0]
    assert (first, body) == ("POST /v1/chat/completions HTTP/1.1", b'{"a":1}')
    assert headers == {
        "host": provider.base_url[7:-3],
        "authorization": "Bearer sk-secret",
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
        "accept-encoding": "identity",
        "user-agent": "rproxy/" + __version__,
        "content-length": "7",
    }


def test_headers() -> None:
    provider = replace(
        ACME,
        profile=replace(
            Profile(), auth_header="api-key", headers={"A": "profile", "B": "profile", "C": "profile"}
        ),
        headers={"b": "provider", "c": "provider", "User-Agent": "mine"},
    )
    headers = request_headers(provider)
    assert [headers[name] for name in ("api-key", "a", "b", "c", "user-agent")] == [
        "sk-secret",
        "profile",
        "provider",
        "provider",
        "mine",
    ]
    assert "Authorization" not in headers
    assert "Authorization" not in request_headers(replace(ACME, api_key=None))


@pytest.mark.parametrize(
    "base,query,expected",
    [
        ("https://h/v1", {}, "https://h/v1/chat/completions"),
        ("https://h", {}, "https://h/chat/completions"),
        ("https://h/a/", {}, "https://h/a/chat/completions"),
        (
            "https://h/d?api-version=1&x=",
            {"api-version": "2", "k": "a b"},
            "https://h/d/chat/completions?api-version=2&x=&p=q&k=a+b",
        ),
        ("http+unix://%2Frun%2Fx.sock/v1", {}, "http+unix://%2Frun%2Fx.sock/v1/chat/completions"),
    ],
)
def test_endpoint(base: str, query: Dict[str, str], expected: str) -> None:
    profile = replace(Profile(), query={"p": "q"}) if query else Profile()
    assert (
        endpoint(replace(ACME, base_url=base, query=query, profile=profile), "/chat/completions") == expected
    )


async def test_other_statuses_come_back_whole() -> None:
    async with running(
        keep_serving(b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nslow")
    ) as (upstream, provider, _):
        turn = Turn()
        result = await turn.run(upstream, provider)
        assert (result.status, result.body, result.headers["retry-after"]) == (429, b"slow", "3")
        assert not turn.heads and not turn.data and "1 idle" in repr(upstream)


@pytest.mark.parametrize(
    "sent,status,begun,words",
    [
        (b"", 502, False, "cut"),
        (CHUNKED, 502, True, "broke off"),
        (CHUNKED + chunk(b"x"), 502, True, "middle of the response"),
        (b"nonsense\r\n", 502, False, "not HTTP/1.1"),
    ],
)
async def test_broken_answers(sent: bytes, status: int, begun: bool, words: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent, pause=0.01)

    async with running(script) as (upstream, provider, _):
        with pytest.raises(ApiError, match=words) as caught:
            await Turn().run(upstream, provider)
        error = caught.value
        assert (error.status, error.retryable) == (status, True)
        assert "acme" in error.message and ("127.0.0.1" in error.message) is not begun


async def test_silence_is_504() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await peer.wait_gone()

    async with running(script, idle_timeout=0.1) as (upstream, provider, _):
        with pytest.raises(ApiError, match="stalled before it was complete.*0.1 s") as caught:
            await Turn().run(upstream, provider)
        assert caught.value.status == 504


async def test_no_connection() -> None:
    upstream = Upstream(environ={})
    for call in (Turn().run(upstream, ACME), upstream.preconnect(ACME)):
        with pytest.raises(ApiError, match="acme.*127.0.0.1:1.*refused") as caught:
            await call
        assert caught.value.status == 502
    with pytest.raises(ApiError, match="cannot be sent .the URL or a header holds a line break") as caught:
        await Turn().run(upstream, replace(ACME, api_key="sk-secret\n"))
    assert "sk-secret" not in caught.value.message
    upstream.close()


async def test_proxy_of_the_environment() -> None:
    seen: List[str] = []

    async def script(peer: Peer) -> None:
        seen.append((await peer.request())[0])
        await peer.send(OK)

    async with nothing_left(), RawServer(script).running() as server:
        upstream = Upstream(environ={"HTTP_PROXY": server.url, "NO_PROXY": "direct.example"})
        provider = replace(ACME, base_url="http://models.example/v1")
        assert (await Turn().run(upstream, provider)).status == 200
        assert seen == ["POST http://models.example/v1/chat/completions HTTP/1.1"]
        assert (
            await Turn().run(
                upstream, replace(provider, base_url="http://other.invalid", http_proxy=server.url)
            )
        ).status == 200
        assert len(seen) == 2
        upstream.close()
        upstream = Upstream(environ={"HTTP_PROXY": "socks5://x:1"})
        with pytest.raises(ApiError, match="HTTP_PROXY"):
            await Turn().run(upstream, provider)
        upstream.close()


async def test_cancelling_the_task_closes_the_socket() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED, chunk(b"x"))
        await peer.wait_gone()

    async with running(script) as (upstream, provider, server):
        turn = Turn()
        task = asyncio.ensure_future(turn.run(upstream, provider))
        await until(lambda: turn.data)
        task.cancel()
        await server.peers[0].when_gone()
        assert task.cancelled() and "0 busy, 0 idle" in repr(upstream)


async def test_a_callback_that_stops_reading_keeps_the_connection() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(CHUNKED, chunk(b"data: [DONE]\n\n"), pause=0.03)
            await peer.send(END)

    def on_data(data: bytes) -> None:
        raise StopReading

    async with running(script) as (upstream, provider, server):
        for _ in range(3):
            result = await upstream.chat(provider, b"{}", on_head=lambda *_: None, on_data=on_data)
            assert result.status == 200
            await until(lambda: "0 busy, 1 idle" in repr(upstream))
        assert len(server.peers) == 1


@pytest.mark.parametrize("size", [100, 1_000_000])
async def test_a_request_is_given_up_when_the_response_begins(size: int) -> None:
    """A long history would otherwise be in memory for as long as the response takes."""
    body = bytes(size)
    held: List[int] = []

    def hold(*_: Any) -> None:
        held.append(sys.getrefcount(body))

    async with running(keep_serving(OK)) as (upstream, provider, _):
        hold()
        await upstream.chat(provider, body, on_head=hold, on_data=hold)
        assert held == [held[0]] * 3


async def test_exceptions_of_the_callbacks_come_out() -> None:
    def fail(*_: Any) -> None:
        raise KeyError("mine")

    async with running(keep_serving(OK)) as (upstream, provider, _):
        with pytest.raises(KeyError):
            await upstream.chat(provider, b"{}", on_head=fail, on_data=lambda data: None)
        with pytest.raises(KeyError):
            await upstream.chat(provider, b"{}", on_head=lambda *_: None, on_data=fail)
