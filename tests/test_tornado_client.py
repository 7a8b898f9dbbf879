"""``server.http_client``: a turn works with Tornado's own clients, too, as far as they can."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, AsyncIterator, List, Mapping, Tuple

import pytest
from rawserver import CHUNKED, END, Peer, RawServer, Script, chunk, keep_serving, then_silence
from scripted import ScriptedProvider, call, error, running, say, think
from test_upstream import Provider
from tornado.httpclient import AsyncHTTPClient

from rproxy.errors import ApiError, ConfigError
from rproxy.upstream.client import CancelToken, Result, StopReading, Upstream


@pytest.fixture(params=["stock", "curl"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "curl":
        pytest.importorskip("pycurl")
    return str(request.param)


@contextlib.asynccontextmanager
async def upstream(
    kind: str, script: Script, **options: Any
) -> AsyncIterator[Tuple[Upstream, Provider, RawServer]]:
    async with RawServer(script).running() as server:
        client = Upstream(
            environ={"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"},
            http_client=kind,
            **options,
        )
        try:
            yield client, Provider(base_url=server.url + "/v1"), server
        finally:
            client.close()
            await asyncio.sleep(0.01)


class Turn:
    def __init__(self) -> None:
        self.heads: List[Tuple[int, Mapping[str, str]]] = []
        self.data: List[bytes] = []
        self.stop = CancelToken()

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.heads.append((status, headers))

    def on_data(self, data: bytes) -> None:
        self.data.append(data)
        if b"[DONE]" in data:
            raise StopReading

    async def run(self, client: Upstream, provider: Provider) -> Result:
        return await client.chat(
            provider, b'{"a":1}', on_head=self.on_head, on_data=self.on_data, stop=self.stop
        )


async def test_a_turn(kind: str) -> None:
    seen: List[Any] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(
            b"HTTP/1.1 100 Continue\r\n\r\n",
            CHUNKED[:-2] + b"X-Request-Id: r1\r\n\r\n",
            chunk(b"data: 1\n\n"),
            chunk(b"data: [DONE]\n\n"),
            END,
            pause=0.02,
        )

    async with upstream(kind, script) as (client, provider, _):
        await client.preconnect(provider)
        turn = Turn()
        result = await turn.run(client, provider)
        assert result.status == 200 and result.body == b"" and result.headers["x-request-id"] == "r1"
        assert b"".join(turn.data) == b"data: 1\n\ndata: [DONE]\n\n"
        assert [(status, headers["x-request-id"]) for status, headers in turn.heads] == [(200, "r1")]
        assert client.stats()[:3] == (0, 0, 1)
    first, headers, body = seen[0]
    assert (first, body) == ("POST /v1/chat/completions HTTP/1.1", b'{"a":1}')
    assert headers["authorization"] == "Bearer sk-secret" and headers["content-length"] == "7"


async def test_a_refusal_keeps_its_body(kind: str) -> None:
    answer = b"HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}"
    async with upstream(kind, keep_serving(answer)) as (client, provider, _):
        turn = Turn()
        result = await turn.run(client, provider)
        assert (
            (result.status, result.body, result.headers["retry-after"]) == (429, b"{}", "7")
            and not turn.heads
            and not turn.data
        )


async def test_nobody_listens(kind: str) -> None:
    async with upstream(kind, keep_serving(b"")) as (client, _, _server):
        with pytest.raises(ApiError, match="cannot reach the provider") as caught:
            await Turn().run(client, Provider())
        assert caught.value.status == 502 and not caught.value.got_head


@pytest.mark.parametrize("sent", [b"", CHUNKED + chunk(b"data: 1\n\n")])
async def test_an_answer_that_is_cut(kind: str, sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent, pause=0.02)

    async with upstream(kind, script) as (client, provider, _):
        with pytest.raises(ApiError) as caught:
            await asyncio.wait_for(Turn().run(client, provider), 10)
        assert caught.value.status == 502 and caught.value.got_head is bool(sent)


@pytest.mark.parametrize(
    "sent,limit", [(b"", "first_byte_timeout"), (CHUNKED + chunk(b"data: 1\n\n"), "idle_timeout")]
)
async def test_silence(kind: str, sent: bytes, limit: str) -> None:
    limits = {"first_byte_timeout": 30.0, "idle_timeout": 30.0, limit: 0.2}
    async with upstream(kind, then_silence(sent), **limits) as (client, provider, server):
        with pytest.raises(ApiError, match="0.2 s") as caught:
            await asyncio.wait_for(Turn().run(client, provider), 10)
        assert caught.value.status == 504
        await asyncio.wait_for(server.peers[0].when_gone(), 5)


@pytest.mark.parametrize("how", ["cancel", "stop"])
@pytest.mark.parametrize("sent", [b"", CHUNKED + chunk(b"data: 1\n\n")])
async def test_the_provider_is_left(kind: str, sent: bytes, how: str) -> None:
    async with upstream(kind, then_silence(sent)) as (client, provider, server):
        turn = Turn()
        running = asyncio.ensure_future(turn.run(client, provider))
        await asyncio.sleep(0.2)
        before = time.monotonic()
        if how == "stop":
            turn.stop.cancel()
            assert (await running).status == (200 if sent else 599)
        else:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert time.monotonic() - before < 1 and client.stats().open == 0
        await asyncio.wait_for(server.peers[0].when_gone(), 5)


async def test_exceptions_of_the_callbacks_come_out(kind: str) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    async with upstream(kind, keep_serving(CHUNKED + chunk(b"x") + END)) as (client, provider, _):
        for callbacks in (
            {"on_head": fail, "on_data": lambda data: None},
            {"on_head": lambda *_: None, "on_data": fail},
        ):
            with pytest.raises(ZeroDivisionError):
                await client.chat(provider, b"{}", **callbacks)
        client.close()


async def test_close_fails_what_runs(kind: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.wait_gone()

    async with upstream(kind, script) as (client, provider, _):
        running = asyncio.ensure_future(Turn().run(client, provider))
        await asyncio.sleep(0.1)
        client.close()
        with pytest.raises(ApiError):
            await running


async def test_what_they_cannot_do(kind: str) -> None:
    client = Upstream(environ={}, http_client=kind)
    with pytest.raises(ApiError, match="Unix sockets"):
        await Turn().run(client, Provider(base_url="http+unix://%2Ftmp%2Fnone/v1"))
    if kind == "stock":
        with pytest.raises(ApiError, match="knows no proxies"):
            await Turn().run(client, Provider(http_proxy="http://127.0.0.1:1"))
    client.close()


async def test_a_header_that_cannot_be_sent(kind: str) -> None:
    async with upstream(kind, keep_serving(CHUNKED + END)) as (client, provider, server):
        with pytest.raises(ApiError) as caught:
            await Turn().run(client, replace(provider, api_key="sk-\u20ac-secret"))
        assert "secret" not in str(caught.value) and client.stats().open == 0


def test_without_pycurl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tornado.curl_httpclient", None)
    with pytest.raises(ConfigError, match=r"pip install 'rproxy-responses\[curl\]'"):
        Upstream(http_client="curl")


@pytest.mark.timeout(seconds=60)
async def test_a_server_with_it(kind: str, tmp_path: Path) -> None:
    provider = ScriptedProvider()
    provider.turns += [
        [think("Look."), call("exec_command", cmd="ls")],
        [error(400, "No such thing")],
        [say("Done.")],
    ]
    client = AsyncHTTPClient(force_instance=True)

    async def ask(**more: Any) -> Any:
        body = json.dumps({"model": "gpt-5.5", "input": "hi", **more})
        return await client.fetch(rproxy.base_url + "/responses", method="POST", body=body, raise_error=False)

    async with running(tmp_path, provider.base_url, server=f"  http_client: {kind}\n") as rproxy:
        answer = await ask(stream=True)
        assert b"function_call_arguments.done" in answer.body and b"response.completed" in answer.body
        answer = await ask()
        assert answer.code == 400 and b"No such thing" in answer.body
        answer = await ask()
        assert answer.code == 200 and b"Done." in answer.body
    client.close()
    await provider.close()
