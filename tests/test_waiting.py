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
from rawserver import until
from scripted import ScriptedProvider, call, comment, error, gate, head_gate, pace, say, served, think
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from rproxy.service import turn

Json = Dict[str, Any]
Seen = Callable[[Json], object]  # is called with each event; true: that is enough
CODEX = {"originator": "codex_exec"}
BEAT = "  heartbeat_interval: 0.1\n"


OPEN: List[Transport] = []  # what lab() closes in the end


class Heard:
    """The events of one answer; ``head``: after how many seconds the status line came."""

    def __init__(self) -> None:
        self.events: List[Json] = []
        self.started = time.monotonic()
        self.status = 0
        self.head = 0.0
        self.headers = ""

    @property
    def types(self) -> List[str]:
        return [event["type"] for event in self.events]

    def beats(self) -> int:
        """Events that said nothing new: more than the one in_progress of every response."""
        return self.types.count("response.in_progress") - 1


class Transport:
    """A way to ask. Subclasses connect, send and read."""

    def __init__(self) -> None:
        OPEN.append(self)

    async def ask(
        self, base_url: str, body: Json, enough: Seen = lambda event: False, **headers: str
    ) -> Heard:
        """Read events up to the terminal one, or until ``enough`` holds; then the connection stays open."""
        raise NotImplementedError

    def drop(self) -> None:
        """Close the connection without a word."""
        raise NotImplementedError


class Sse(Transport):
    writer: Optional[asyncio.StreamWriter] = None

    async def ask(
        self, base_url: str, body: Json, enough: Seen = lambda event: False, **headers: str
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
                heard.events.append(json.loads(line[6:]))
                if enough(heard.events[-1]):
                    break
        return heard

    def drop(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()


class Ws(Transport):
    socket: Optional[WebSocketClientConnection] = None

    async def ask(
        self, base_url: str, body: Json, enough: Seen = lambda event: False, **headers: str
    ) -> Heard:
        if self.socket is None:
            self.socket = await websocket_connect(
                HTTPRequest(base_url.replace("http", "ws") + "/responses", headers=headers)
            )
            assert self.socket is not None
        heard = Heard()
        heard.headers = str(self.socket.headers).lower()
        await self.send(dict(body, type="response.create", model="deepseek-v4-pro"))
        return await self.read(heard, enough)

    async def send(self, message: Json) -> None:
        assert self.socket is not None
        await self.socket.write_message(json.dumps(message))

    async def read(self, heard: Heard, enough: Seen = lambda event: False) -> Heard:
        assert self.socket is not None
        while True:
            message = await asyncio.wait_for(self.socket.read_message(), 10)
            assert message is not None
            heard.events.append(json.loads(message))
            if enough(heard.events[-1]) or heard.types[-1] in (
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
def opening(*gates: asyncio.Event) -> Callable[[Json], None]:
    """For ``enough``: opens one gate more at every second heartbeat, and never has enough."""
    heard = 0

    def see(event: Json) -> None:
        nonlocal heard
        heard += event["type"] == "response.in_progress"
        if heard > 2 and heard % 2 and gates[heard // 2 - 1 :]:  # the first says that the turn has begun
            gates[heard // 2 - 1].set()

    return see


SILENCES: Dict[str, Callable[[Json, Json], List[Json]]] = {  # one after the other, or the second alone
    "body": lambda one, two: [two, say("Here.")],  # no byte of the body
    "comments": lambda one, two: [comment("keep-alive"), one, comment("keep-alive"), two, say("Here.")],
    "thinking": lambda one, two: [think("Hm"), two, say("Here.")],
    "text": lambda one, two: [say("He"), two, say("re.")],
    "call": lambda one, two: [call("exec_command", cmd="ls"), two],
}


async def test_a_silent_provider_does_not_silence_the_stream(transport: Transport) -> None:
    tools = [{"type": "function", "name": "exec_command", "parameters": {}}]
    gates = {name: (asyncio.Event(), asyncio.Event()) for name in ("head", *SILENCES)}

    async def hear(name: str) -> Heard:
        asked = {"input": name, "tools": tools}
        return await type(transport)().ask(base_url, asked, opening(*gates[name]))

    def silence(body: Json) -> List[Json]:
        name = body["messages"][-1]["content"]
        one, two = gates[name]
        if name == "head":  # no status line
            return [head_gate(two), say("Here.")]
        return SILENCES[name](gate(one), gate(two))

    async with lab() as (provider, base_url):
        provider.aside = silence
        answers = await asyncio.gather(*map(hear, gates))
    for name, heard in zip(gates, answers):
        check_stream(heard.events)
        assert heard.types[-1] == "response.completed", name
        assert heard.beats() >= 4, name


async def test_without_heartbeats_there_are_none(transport: Transport) -> None:
    """While another client hears some."""
    one, two = asyncio.Event(), asyncio.Event()
    steps = [gate(one), say("He"), gate(two), say("re.")]
    async with lab(steps) as (_, other_url), lab(steps, server="  heartbeat_interval: 0\n") as (_, base_url):
        answer = asyncio.ensure_future(transport.ask(base_url, {"input": "hi"}))
        await type(transport)().ask(other_url, {"input": "hi"}, opening(one, two))
        heard = await answer
    assert (heard.types[-1], heard.beats()) == ("response.completed", 0)


async def test_a_busy_stream_needs_no_heartbeat(transport: Transport) -> None:
    pieces = [step for i in range(12) for step in (say("word "), pace(0.04))]
    async with lab(pieces, server="  heartbeat_interval: 0.3\n") as (provider, base_url):
        heard = await transport.ask(base_url, {"input": "hi"})
    assert (heard.types[-1], heard.beats()) == ("response.completed", 0)


async def test_the_head_is_not_held_back_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert turn.COMMIT_AFTER <= 10
    monkeypatch.setattr(turn, "COMMIT_AFTER", 0.2)
    begun = asyncio.Event()
    async with lab([head_gate(begun), say("Late.")], server="  heartbeat_interval: 0\n") as (
        provider,
        base_url,
    ):
        heard = await Sse().ask(
            base_url, {"input": "hi"}, lambda event: event["type"].endswith("in_progress") and begun.set()
        )
    assert heard.types[:2] == ["response.created", "response.in_progress"]
    assert heard.types[-1] == "response.completed" and heard.head > 0.15


# ---- failures after the head
async def test_a_failure_after_the_head_is_told_in_the_stream(transport: Transport) -> None:
    refused = error(401, "Authentication Fails (governor)")
    one, two = asyncio.Event(), asyncio.Event()  # set by the first event, which follows the head
    async with lab([head_gate(one), refused], [head_gate(two), refused]) as (provider, base_url):
        plain = await transport.ask(base_url, {"input": "hi"}, lambda event: one.set())
        told = await transport.ask(base_url, {"input": "hi"}, lambda event: two.set(), **CODEX)
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
    """Long before a heartbeat could not be written."""
    async with lab([say("Partial text"), gate()], server="") as (provider, base_url):
        await transport.ask(base_url, {"input": "hi"}, enough=text_delta)
        transport.drop()
        await until(lambda: provider.gone)


@pytest.mark.parametrize("silence", [head_gate, gate], ids=["head", "body"])
async def test_also_before_anything_was_answered(
    transport: Transport, silence: Callable[[], Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "COMMIT_AFTER", 0.05)
    async with lab([silence(), say("x")], server="") as (provider, base_url):
        await transport.ask(
            base_url, {"input": "hi"}, enough=lambda event: event["type"] == "response.in_progress"
        )
        await until(lambda: provider.requests)
        transport.drop()
        await until(lambda: provider.gone)


async def test_an_interrupt_ends_the_request_and_what_was_half_said_is_forgotten() -> None:
    async with lab([think("Thoughts."), say("Partial text"), gate()], [say("Better.")]) as (
        provider,
        base_url,
    ):
        ws = Ws()
        heard = await ws.ask(base_url, {"input": "hi", "store": False}, enough=text_delta)
        response = heard.events[0]["response"]["id"]
        await ws.send(
            {"type": "response.interrupt", "response_id": response, "mode": "discard_partial_items"}
        )
        await ws.read(heard)
        await until(lambda: provider.gone)
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
    assert again.types[-1] == "response.completed"
    said = json.dumps(provider.requests[1]["messages"])
    assert "Partial" not in said and "hi" in said and "something else" in said


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
