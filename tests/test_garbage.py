"""What has ended is freed at once, and not when the garbage collector looks at everything, which is once in a
minute: until then a request that failed, of many megabytes perhaps, would stay in memory.

An error refers to its traceback, that to the frames, and those to the whole turn.  So nothing that a turn
refers to may refer to its error.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from functools import partial
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, Set, Tuple

import hostile
import pytest
from mcp_lab import mcp_lab
from rawserver import RawServer, until
from scripted import ScriptedProvider, call, say, served, think
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.iostream import StreamClosedError
from tornado.websocket import websocket_connect

Json = Dict[str, Any]
TRANSPORTS = ("json", "sse", "ws")


@contextlib.asynccontextmanager
async def lab(settings: str = "") -> AsyncIterator[Tuple[RawServer, str]]:
    """Gives a hostile provider, and the base URL of rproxy in front of it."""
    config = hostile.CONFIG.replace('"*"', '"*/*/*"')
    async with RawServer(hostile.play).running() as provider, served(provider.url, settings, config) as url:
        yield provider, url


@contextlib.asynccontextmanager
async def client_of(base_url: str, transport: str) -> AsyncIterator[Callable[[Json], Awaitable[str]]]:
    """Gives a function that asks for a response, and returns how that ended."""
    client = AsyncHTTPClient(force_instance=True)
    ws = await websocket_connect(base_url.replace("http", "ws") + "/responses")

    async def ask(body: Json) -> str:
        if transport == "ws":
            await ws.write_message(json.dumps({"type": "response.create", **body}))
            kind = ""
            while kind not in (*hostile.TERMINAL, "error"):
                kind = json.loads(str(await ws.read_message()))["type"]
            return kind.replace("response.", "")
        text = json.dumps({**body, "stream": transport == "sse"})
        answer = await client.fetch(base_url + "/responses", method="POST", body=text, raise_error=False)
        if answer.code != 200:
            return "error"
        ends = [end for end in hostile.TERMINAL if answer.body.rfind(f'"{end}"'.encode()) > 0]
        return ends[0].replace("response.", "") if ends else str(json.loads(answer.body)["status"])

    try:
        yield ask
    finally:
        client.close()
        ws.close()


async def garbage_of(work: Callable[[], Awaitable[object]]) -> Set[str]:
    """The kinds of our own objects that only the garbage collector can free after this work."""
    await work()  # what is made once is there now
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(2):
            await work()
        await asyncio.sleep(0.05)
        gc.collect()
        kinds = map(type, gc.garbage)
        return {kind.__name__ for kind in kinds if kind.__module__.partition(".")[0] == "rproxy"}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_turn_leaves_no_cycles_behind(transport: str) -> None:
    provider = ScriptedProvider()
    async with served(provider.base_url) as base_url, client_of(base_url, transport) as ask:

        async def turn() -> None:
            provider.turns += [[think("Look."), say("Let me see."), call("exec_command", cmd="ls")]]
            assert await ask({"model": "gpt-5.5", "input": "hello"}) == "completed"

        assert await garbage_of(turn) == set()
    await provider.close()


# What happens, and how a turn ends whose client gets errors as OpenAI sends them.
FAILURES = {
    "cut/chunked/30": "error",
    "cut/chunked/300": "failed",
    "reset/sized/10": "error",
    "stall/sized/10": "error",
    "stall/chunked/300": "failed",
    "cut/json/200": "error",
    "refuse/any/400": "error",
    "refuse/any/401": "error",
    "refuse/any/503": "error",
    "nobody": "error",
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("errors", ["openai", "codex"])
async def test_a_turn_that_fails_leaves_no_cycles_behind(transport: str, errors: str) -> None:
    settings = f"  errors: {errors}\n" + hostile.silence(0.05)
    async with lab(settings) as (_, base_url), client_of(base_url, transport) as ask:

        async def turns() -> None:
            ends = {model: await ask({"model": model, "input": "hello"}) for model in FAILURES}
            if errors == "openai" and transport != "json":
                assert ends == FAILURES
            assert "completed" not in ends.values()

        assert await garbage_of(turns) == set()


async def test_a_chat_request_that_fails_leaves_no_cycles_behind() -> None:
    async with lab(hostile.silence(0.05)) as (_, base_url):
        client = AsyncHTTPClient(force_instance=True)

        async def ask() -> None:
            for model in FAILURES:
                body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]})
                with contextlib.suppress(HTTPClientError, ConnectionError, StreamClosedError):
                    await client.fetch(base_url + "/chat/completions", method="POST", body=body)

        assert await garbage_of(ask) == set()
        client.close()


async def test_a_turn_that_must_wait_leaves_no_cycles_behind() -> None:
    body = {"model": "stall/chunked/300", "input": "hello"}
    async with lab("  max_turns: 1\n") as (provider, base_url), client_of(base_url, "json") as ask:
        first = asyncio.ensure_future(ask(body))
        await until(lambda: provider.peers and provider.peers[0].asked)

        async def turn() -> None:
            assert await ask(body) == "error"

        assert await garbage_of(turn) == set()
        first.cancel()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_fails_for_several_requests_leaves_no_cycles_behind(stream: bool) -> None:
    async with lab(hostile.silence(0.05)) as (_, base_url):
        client = AsyncHTTPClient(force_instance=True)

        async def ask() -> None:
            for model in FAILURES:
                body = json.dumps(hostile.create(model, stream=stream))
                headers = {"Idempotency-Key": model}
                fetch = partial(client.fetch, base_url + "/responses", method="POST", raise_error=False)
                await asyncio.gather(*(fetch(body=body, headers=headers) for _ in range(2)))

        assert await garbage_of(ask) == set()
        client.close()


async def test_a_turn_whose_mcp_server_fails_leaves_no_cycles_behind() -> None:
    async with mcp_lab(token="which nobody knows") as mcp:
        tools = [{"type": "mcp", "server_label": "docs", "authorization": "wrong"}]

        async def turn() -> None:
            await mcp.api("POST", "/responses", {"model": "gpt-5.5", "input": "hello", "tools": tools}, 424)

        assert await garbage_of(turn) == set()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_turn_without_its_client_leaves_no_cycles_behind(transport: str) -> None:
    body = hostile.create("stall/chunked/300", stream=transport == "sse")
    data = hostile.request_bytes(body)
    if transport == "ws":
        message = json.dumps({"type": "response.create", **body}).encode()
        data = ("\r\n".join(hostile.HANDSHAKE) + "\r\n\r\n").encode() + hostile.masked(message)
    async with lab() as (provider, base_url):
        port = int(base_url.split(":")[2].split("/")[0])

        async def turn() -> None:
            asked = len(provider.peers)
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            await until(lambda: len(provider.peers) > asked and provider.peers[-1].asked)
            writer.close()
            await provider.peers[-1].when_gone()

        assert await garbage_of(turn) == set()
