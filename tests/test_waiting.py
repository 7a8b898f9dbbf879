"""What a client hears while the provider is silent, and what the provider notices when a client goes: both
transports, real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any, AsyncIterator, Callable, Dict, List, Optional
from urllib.parse import urlsplit

import pytest
from grammar import check_stream
from scripted import ScriptedProvider, call, comment, error, say, served, sleep, think, wait
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from rproxy.service import turn

Json = Dict[str, Any]
PROMPT = 0.1  # seconds until the provider must have noticed
CODEX = {"originator": "codex_exec"}
BEAT = "  heartbeat_interval: 0.1\n"


OPEN: List[Transport] = []  # what lab() closes in the end


class Heard:
    """The events of one answer and when they came; ``head`` is when the status line did."""

    def __init__(self) -> None:
        self.events: List[Json] = []
        self.times: List[float] = []
        self.started = time.monotonic()
        self.status = 0
        self.head = 0.0
        self.headers = ""

    def add(self, event: Json) -> None:
        self.events.append(event)
        self.times.append(time.monotonic() - self.started)

    @property
    def types(self) -> List[str]:
        return [event["type"] for event in self.events]

    def beats(self) -> int:
        """Events that said nothing new: more than the one in_progress of every response."""
        return self.types.count("response.in_progress") - 1

    def longest_silence(self) -> float:
        return max(after - before for before, after in zip([0.0, *self.times], self.times))


class Transport:
    """A way to ask. Subclasses connect, send and read."""

    def __init__(self) -> None:
        OPEN.append(self)

    async def ask(
        self, base_url: str, body: Json, until: Callable[[Json], bool] = lambda event: False, **headers: str
    ) -> Heard:
        """Read events up to the terminal one, or until ``until`` holds; then the connection stays open."""
        raise NotImplementedError

    def drop(self) -> None:
        """Close the connection without a word."""
        raise NotImplementedError


class Sse(Transport):
    writer: Optional[asyncio.StreamWriter] = None

    async def ask(
        self, base_url: str, body: Json, until: Callable[[Json], bool] = lambda event: False, **headers: str
    ) -> Heard:
        port = urlsplit(base_url).port
        self.drop()
        reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        content = json.dumps(dict(body, model="deepseek-v4-pro", stream=True)).encode()
        head = {
            "Host": "127.0.0.1",
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **headers,
        }
        lines = ["POST /v1/responses HTTP/1.1", *("{}: {}".format(*pair) for pair in head.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode() + content)
        heard = Heard()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        heard.head, heard.status, heard.headers = (
            time.monotonic() - heard.started,
            int(answer.split()[1]),
            answer.lower(),
        )
        if heard.status != 200:
            return heard
        while not heard.types or not heard.types[-1].startswith(
            ("response.completed", "response.failed", "response.incomplete")
        ):
            line = (await asyncio.wait_for(reader.readline(), 10)).decode()
            if line.startswith("data: {"):
                heard.add(json.loads(line[6:]))
                if until(heard.events[-1]):
                    break
        return heard

    def drop(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()


class Ws(Transport):
    socket: Optional[WebSocketClientConnection] = None

    async def ask(
        self, base_url: str, body: Json, until: Callable[[Json], bool] = lambda event: False, **headers: str
    ) -> Heard:
        if self.socket is None:
            self.socket = await websocket_connect(
                HTTPRequest(base_url.replace("http", "ws") + "/responses", headers=headers)
            )
            assert self.socket is not None
        heard = Heard()
        heard.headers = str(self.socket.headers).lower()
        await self.send(dict(body, type="response.create", model="deepseek-v4-pro"))
        return await self.read(heard, until)

    async def send(self, message: Json) -> None:
        assert self.socket is not None
        await self.socket.write_message(json.dumps(message))

    async def read(self, heard: Heard, until: Callable[[Json], bool] = lambda event: False) -> Heard:
        assert self.socket is not None
        while True:
            message = await asyncio.wait_for(self.socket.read_message(), 10)
            assert message is not None
            heard.add(json.loads(message))
            if until(heard.events[-1]) or heard.types[-1] in (
                "response.completed",
                "response.failed",
                "response.incomplete",
                "error",
            ):
                return heard

    def drop(self) -> None:
        if self.socket is not None:
            self.socket.stream.close()  # type: ignore[attr-defined]
            self.socket.close()


@pytest.fixture(params=[Sse, Ws], ids=["sse", "websocket"])
def transport(request: pytest.FixtureRequest) -> Transport:
    found: Transport = request.param()
    return found


@contextlib.asynccontextmanager
async def lab(*turns: List[Json], server: str = BEAT) -> AsyncIterator[Any]:
    provider = ScriptedProvider()
    provider.turns += map(list, turns)
    try:
        async with served(provider.base_url, server) as base_url:
            yield provider, base_url
    finally:
        for client in OPEN:
            client.drop()
        OPEN.clear()
        await asyncio.sleep(0.01)  # until the sockets are really closed
        await provider.close()


def text_delta(event: Json) -> bool:
    return str(event["type"]).endswith("output_text.delta")


# ---- heartbeats
SILENCES: Dict[str, List[Json]] = {
    "head": [wait(0.6), say("Here.")],  # no status line
    "body": [sleep(0.6), say("Here.")],  # no byte of the body
    "comments": [comment("keep-alive"), sleep(0.3), comment("keep-alive"), sleep(0.3), say("Here.")],
    "thinking": [think("Hm"), sleep(0.6), say("Here.")],
    "text": [say("He"), sleep(0.6), say("re.")],
    "call": [call("exec_command", cmd="ls"), sleep(0.6)],
}


async def test_a_silent_provider_does_not_silence_the_stream(transport: Transport) -> None:
    tools = [{"type": "function", "name": "exec_command", "parameters": {}}]

    async def hear(name: str) -> Heard:
        return await type(transport)().ask(base_url, {"input": name, "tools": tools})

    async with lab() as (provider, base_url):
        provider.aside = lambda body: list(SILENCES[body["messages"][-1]["content"]])
        answers = await asyncio.gather(*map(hear, SILENCES))
    for name, heard in zip(SILENCES, answers):
        check_stream(heard.events)
        assert heard.types[-1] == "response.completed", name
        assert heard.beats() >= 3, name
        assert heard.longest_silence() < 0.35, name


async def test_without_heartbeats_there_are_none(transport: Transport) -> None:
    async with lab([sleep(0.4), say("He"), sleep(0.4), say("re.")], server="  heartbeat_interval: 0\n") as (
        provider,
        base_url,
    ):
        heard = await transport.ask(base_url, {"input": "hi"})
    assert (heard.types[-1], heard.beats()) == ("response.completed", 0)


async def test_a_busy_stream_needs_no_heartbeat(transport: Transport) -> None:
    pieces = [step for i in range(12) for step in (say("word "), sleep(0.04))]
    async with lab(pieces, server="  heartbeat_interval: 0.3\n") as (provider, base_url):
        heard = await transport.ask(base_url, {"input": "hi"})
    assert (heard.types[-1], heard.beats()) == ("response.completed", 0)


async def test_the_head_is_not_held_back_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert turn.COMMIT_AFTER <= 10
    monkeypatch.setattr(turn, "COMMIT_AFTER", 0.2)
    async with lab([wait(0.8), say("Late.")], server="") as (provider, base_url):
        heard = await Sse().ask(base_url, {"input": "hi"})
    assert (
        heard.types[:2] == ["response.created", "response.in_progress"]
        and heard.types[-1] == "response.completed"
    )
    assert 0.15 < heard.head < 0.6 and heard.times[1] < 0.6


# ---- failures after the head
async def test_a_failure_after_the_head_is_told_in_the_stream(transport: Transport) -> None:
    refused = error(401, "Authentication Fails (governor)")
    async with lab([wait(0.3), refused], [wait(0.3), refused]) as (provider, base_url):
        plain = await transport.ask(base_url, {"input": "hi"})
        told = await transport.ask(base_url, {"input": "hi"}, **CODEX)
    failure = plain.events[-1]["response"]["error"]
    assert (
        plain.types[-1] == "response.failed"
        and failure["code"] == "invalid_api_key"
        and "Authentication Fails" in failure["message"]
    )
    assert plain.types[-2] == ("error" if isinstance(transport, Sse) else "response.in_progress")
    check_stream(told.events) if isinstance(transport, Sse) else None
    assert len(provider.requests) == 2


@pytest.mark.parametrize("status, code", [(503, "server_error"), (429, "rate_limit_exceeded")])
async def test_what_codex_repeats_is_told_in_the_stream(transport: Transport, status: int, code: str) -> None:
    async with lab([error(status, "lab is busy")], server="  retries: 0\n") as (provider, base_url):
        heard = await transport.ask(base_url, {"input": "hi"}, **CODEX)
    check_stream(heard.events)
    told = heard.events[-1]["response"]["error"]
    assert heard.types[-1] == "response.failed" and told["code"] == code and "lab is busy" in told["message"]
    assert status != 429 or told["message"].endswith("Please try again in 5s.")


async def test_what_codex_does_not_repeat_is_an_http_error() -> None:
    async with lab([error(402, "Insufficient Balance")]) as (provider, base_url):
        heard = await Sse().ask(base_url, {"input": "hi"}, **CODEX)
    assert heard.status == 400


# ---- clients that go
async def test_a_client_that_goes_takes_its_request_along(transport: Transport) -> None:
    async with lab([say("Partial text"), sleep(5)]) as (provider, base_url):
        await transport.ask(base_url, {"input": "hi"}, until=text_delta)
        before = time.monotonic()
        transport.drop()
        await _noticed(provider)
    assert provider.gone_at - before < PROMPT


@pytest.mark.parametrize("silence", [wait(5), sleep(5)], ids=["head", "body"])
async def test_also_before_anything_was_answered(transport: Transport, silence: Json) -> None:
    async with lab([silence, say("x")]) as (provider, base_url):
        await transport.ask(
            base_url, {"input": "hi"}, until=lambda event: event["type"] == "response.in_progress"
        )
        before = time.monotonic()
        transport.drop()
        await _noticed(provider)
    assert provider.gone_at - before < PROMPT


async def test_an_interrupt_ends_the_request_and_what_was_half_said_is_forgotten() -> None:
    async with lab([think("Thoughts."), say("Partial text"), sleep(5)], [say("Better.")]) as (
        provider,
        base_url,
    ):
        ws = Ws()
        heard = await ws.ask(base_url, {"input": "hi", "store": False}, until=text_delta)
        response = heard.events[0]["response"]["id"]
        before = time.monotonic()
        await ws.send(
            {"type": "response.interrupt", "response_id": response, "mode": "discard_partial_items"}
        )
        await ws.read(heard)
        ended = time.monotonic()
        await _noticed(provider)
        again = await ws.ask(
            base_url, {"input": "something else", "previous_response_id": response, "store": False}
        )
    check_stream(heard.events)
    assert heard.types[-3:] == [
        "response.interrupt.accepted",
        "response.output_item.interrupted",
        "response.incomplete",
    ]
    assert heard.events[-2]["item_id"] == next(e["item_id"] for e in heard.events if text_delta(e))
    assert [item["type"] for item in heard.events[-1]["response"]["output"]] == ["reasoning"]
    assert provider.gone_at - before < PROMPT and ended - before < PROMPT
    assert again.types[-1] == "response.completed"
    said = json.dumps(provider.requests[1]["messages"])
    assert "Partial" not in said and "hi" in said and "something else" in said


async def _noticed(provider: ScriptedProvider) -> None:
    for _ in range(100):
        if provider.gone:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the provider's request is still open")


# ---- what only Codex hears
async def test_codex_hears_which_catalog_is_served_and_that_reasoning_is_counted(
    transport: Transport,
) -> None:
    editor = {"originator": "my_editor", "x-codex-window-id": "0190a1b2:0"}  # which runs Codex's app server
    for codex in (CODEX, editor):
        async with lab([say("a")], [say("b")]) as (provider, base_url):
            told = await transport.ask(base_url, {"input": "hi"}, **codex)
            other = await type(transport)().ask(base_url, {"input": "hi"}, openai_beta="responses=v1")
        for line in ("x-models-etag: ", "x-reasoning-included: true"):
            assert line in told.headers and line not in other.headers
        transport = type(transport)()
