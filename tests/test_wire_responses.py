"""Providers that serve the Responses API themselves: rproxy in front of rproxy in front of a strict provider,
and rude scripts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any, AsyncIterator, Dict, List, Tuple

import pytest
from grammar import check_response, check_sse, check_stream
from rawserver import OK, Peer, RawServer, chunk, until
from scripted import ScriptedProvider, call, error, finish, running, say, served, think
from test_codex import CODEX, codex, stable
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.websocket import WebSocketClientConnection, websocket_connect

from rproxy.config.load import parse_config
from rproxy.config.schema import Provider
from rproxy.errors import ApiError
from rproxy.server.app import embedded
from rproxy.upstream.client import Upstream

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=60)

OUTER = """
server: {{listen_addr: "127.0.0.1:{port}", retries: 0{server}}}
models:
  - model: "*"
    provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY, wire: responses, profile: deepseek}}
    downstream_model: deepseek-v4-pro
"""
TOOLS = [
    {"type": "function", "name": "ls", "parameters": {"type": "object", "properties": {}}},
    {"type": "custom", "name": "apply_patch"},
]


@contextlib.asynccontextmanager
async def chain(*turns: List[Json], config: str = OUTER) -> AsyncIterator[Tuple[ScriptedProvider, str]]:
    """Client -> rproxy (wire: responses) -> rproxy (wire: chat) -> scripted provider"""
    provider = ScriptedProvider()
    provider.turns += turns
    try:
        async with served(provider.base_url) as inner, served(inner, config=config) as outer:
            yield provider, outer
    finally:
        await provider.close()
    assert provider.refusals == []


async def post(url: str, request: Json, path: str = "/responses") -> HTTPResponse:
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(
            url + path, method="POST", body=json.dumps({"model": "gpt-5.5", **request}), raise_error=False
        )
    finally:
        client.close()


async def created(url: str, path: str = "/responses", **request: Any) -> Json:
    """A response, asked for as JSON or as a stream, and checked."""
    response = await post(url, request, path)
    assert response.code == 200, response.body
    if request.get("stream"):
        return check_sse(response.body)
    body: Json = json.loads(response.body)
    return check_response(body) if path == "/responses" else body


def output(item: Json, text: str) -> Json:
    return {"type": item["type"] + "_output", "call_id": item["call_id"], "output": text}


def text_of(response: Json) -> str:
    return "".join(
        part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]
    )


# ---- the chain
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_loop_with_thinking_over_two_servers(stream: bool) -> None:
    async with chain(
        [
            think("Look."),
            say("I look. "),
            call("ls", "c1"),
            call("apply_patch", "c2", 1, input="*** Begin\n"),
        ],
        [think("Good."), say("Done.")],
    ) as (provider, url):
        first = await created(
            url, input="go", tools=TOOLS, stream=stream, store=False, instructions="Be brief."
        )
        assert [item["type"] for item in first["output"]] == [
            "reasoning",
            "message",
            "function_call",
            "custom_tool_call",
        ]
        assert (
            first["output"][3]["input"] == "*** Begin\n"
            and first["usage"]["input_tokens_details"]["cached_tokens"] == 20
        )
        hook = {"type": "message", "role": "developer", "content": "a hook"}
        results = [output(first["output"][2], "a.txt"), hook, output(first["output"][3], "ok")]
        history = [{"role": "user", "content": "go"}, *first["output"], *results]
        second = await created(
            url, input=history, tools=TOOLS, stream=stream, store=False, instructions="Be brief."
        )
        assert text_of(second) == "Done."
        messages = provider.requests[1]["messages"]
        assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool", "tool", "system"]
        assert messages[2]["reasoning_content"] == "Look." and messages[2]["content"] == "I look. "
        assert json.loads(messages[2]["tool_calls"][1]["function"]["arguments"]) == {"input": "*** Begin\n"}


async def test_stored_responses_and_previous_response_id_stay_here() -> None:
    async with chain([think("Hm."), call("ls", "c1")], [say("Done.")], [say("Again.")]) as (provider, url):
        first = await created(url, input="go", tools=TOOLS)
        second = await created(
            url, previous_response_id=first["id"], input=[output(first["output"][1], "a.txt")], tools=TOOLS
        )
        assert (
            text_of(second) == "Done." and provider.requests[1]["messages"][1]["reasoning_content"] == "Hm."
        )
        third = await created(url, previous_response_id=second["id"], input="more", stream=True)
        assert [m["role"] for m in provider.requests[2]["messages"]] == [
            "user",
            "assistant",
            "tool",
            "assistant",
            "user",
        ]
        got = await AsyncHTTPClient().fetch("{}/responses/{}".format(url, third["id"]))
        assert text_of(json.loads(got.body)) == "Again."


async def test_compaction() -> None:
    async with chain([say("The user wants a poem.")], [say("Roses.")]) as (provider, url):
        compacted = await created(
            url, "/responses/compact", input=[{"role": "user", "content": "Write a poem"}]
        )
        await created(url, input=compacted["output"] + [{"role": "user", "content": "Go on"}])
        assert "The user wants a poem." in provider.requests[1]["messages"][1]["content"]


async def test_a_limit_reached_and_an_error_before_and_after_the_first_words() -> None:
    async with chain(
        [say("part"), finish("length")], [error(402, "Insufficient Balance")], [say("part"), {"cut": True}]
    ) as (_, url):
        assert (await created(url, input="go", stream=True))["incomplete_details"] == {
            "reason": "max_output_tokens"
        }
        refused = await post(url, {"input": "go", "stream": True})
        assert refused.code == 429 and json.loads(refused.body)["error"]["code"] == "insufficient_quota"
        broken = await created(url, input="go", stream=True)
        assert broken["status"] == "failed" and "broke off" in broken["error"]["message"]


# ---- over a WebSocket
async def turn(ws: WebSocketClientConnection, **request: Any) -> Json:
    await ws.write_message(json.dumps({"type": "response.create", "model": "gpt-5.5", **request}))
    events: List[Json] = []
    while not events or events[-1]["type"] not in (
        "response.completed",
        "response.incomplete",
        "response.failed",
        "error",
    ):
        message = await asyncio.wait_for(ws.read_message(), 10)
        assert message is not None
        events.append(json.loads(message))
    return check_stream(events) if events[0]["type"] != "error" else events[0]


async def test_a_websocket_with_warm_up_and_continuation() -> None:
    async with chain([think("Look."), call("ls", "c1")], [say("Done.")]) as (provider, url):
        ws = await websocket_connect(url.replace("http", "ws", 1) + "/responses")
        warm = await turn(ws, generate=False, store=False, instructions="Be brief.", tools=TOOLS, input=[])
        first = await turn(ws, store=False, previous_response_id=warm["id"], input="go")
        second = await turn(
            ws, store=False, previous_response_id=first["id"], input=[output(first["output"][1], "a.txt")]
        )
        assert text_of(second) == "Done." and len(provider.requests) == 2
        assert [m["role"] for m in provider.requests[1]["messages"]][-3:] == ["user", "assistant", "tool"]
        ws.close()


async def test_a_warm_up_opens_the_connection_and_forgives_a_provider_that_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connected, failures, connect = asyncio.Event(), [], Upstream.preconnect  # type: ignore[var-annotated]

    async def watched_connect(upstream: Upstream, provider: Provider) -> None:
        try:
            await connect(upstream, provider)
        except ApiError as error:
            failures.append(error)
            raise

    monkeypatch.setattr(Upstream, "preconnect", watched_connect)

    async def script(peer: Peer) -> None:
        connected.set()
        await peer.wait_gone()

    async with RawServer(script).running() as server, served(server.url) as url:
        ws = await websocket_connect(url.replace("http", "ws", 1) + "/responses")
        assert (await turn(ws, generate=False))["output"] == []
        await asyncio.wait_for(connected.wait(), 5)
        ws.close()
    async with served(server.url) as url:
        ws = await websocket_connect(url.replace("http", "ws", 1) + "/responses")
        assert (await turn(ws, generate=False))["status"] == "completed"
        await until(lambda: failures)
        assert (await turn(ws, generate=False))["status"] == "completed"
        ws.close()


# ---- rude providers
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MESSAGE = {
    "type": "message",
    "id": "m1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello"}],
}
DONE = {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [MESSAGE]}}


def piece(text: str) -> Json:
    return {
        "type": "response.output_text.delta",
        "item_id": "m1",
        "output_index": 0,
        "content_index": 0,
        "delta": text,
    }


def sse(*events: Json) -> bytes:
    return b"".join(
        chunk(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode())) for e in events
    )


@contextlib.asynccontextmanager
async def rude(
    *events: Json, end: bytes = b"0\r\n\r\n", holds: bool = False
) -> AsyncIterator[Tuple[RawServer, str]]:
    """A provider that answers everything with these events."""

    async def script(peer: Peer) -> None:
        while True:
            first, _, body = await peer.request()
            peer.heard = (first, json.loads(body))  # type: ignore[attr-defined]
            await peer.send(HEAD + sse(*events) + end)
            if holds:
                await peer.wait_gone()

    async with RawServer(script).running() as server, served(server.url + "/v1", config=OUTER) as url:
        yield server, url


@pytest.mark.parametrize(
    "events",
    [
        [DONE],
        [piece("Hel"), piece("lo"), DONE],
        [piece("Hel"), DONE],
        [
            {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE},
            {"type": "response.completed", "response": {}},
        ],
        [
            {"type": "response.output_text.done", "item_id": "m1", "text": "Hello"},
            {"type": "response.completed"},
        ],
    ],
)
async def test_missing_events_are_completed(events: List[Json]) -> None:
    async with rude(*events) as (server, url):
        for stream in (True, False):
            response = await created(url, input="go", stream=stream)
            assert text_of(response) == "Hello" and response["status"] == "completed"
        first, request = server.peers[0].heard  # type: ignore[attr-defined]
        assert first == "POST /v1/responses HTTP/1.1"
        assert (
            request["input"] == [{"type": "message", "role": "user", "content": "go"}]
            and "messages" not in request
        )


async def test_the_last_event_ends_the_answer_although_the_connection_stays_open() -> None:
    async with rude(piece("Hello"), DONE, end=b"", holds=True) as (_, url):
        started = time.monotonic()
        assert text_of(await created(url, input="go", stream=True)) == "Hello"
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "events, code, words",
    [
        ([], 502, "sent nothing"),
        ([{"type": "response.created", "response": {}}], 502, "truncated"),
        (
            [
                {
                    "type": "response.failed",
                    "response": {"error": {"code": "rate_limit_exceeded", "message": "Slow down"}},
                }
            ],
            429,
            "Slow down",
        ),
        ([{"type": "error", "code": "context_length_exceeded", "message": "Too long"}], 400, "Too long"),
        ([{"type": "error", "error": {"code": "server_error", "message": "Oops"}}], 502, "Oops"),
        ([{"type": "chunk", "choices": [{"delta": {"content": "Hi"}}]}], 502, "remove wire: responses"),
    ],
)
async def test_failures_before_the_first_words_are_http_errors(
    events: List[Json], code: int, words: str
) -> None:
    async with rude(*events) as (_, url):
        response = await post(url, {"input": "go", "stream": True})
        assert response.code == code and words in json.loads(response.body)["error"]["message"]


@pytest.mark.parametrize(
    "event, words",
    [
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "Oops"}}},
            "Oops",
        ),
        ({"type": "error", "message": "Oops"}, "Oops"),
        ({"type": "response.in_progress"}, "truncated"),
    ],
)
async def test_failures_after_the_first_words_end_the_stream(event: Json, words: str) -> None:
    async with rude(piece("Hel"), event) as (_, url):
        final = await created(url, input="go", stream=True)
        assert final["status"] == "failed" and words in final["error"]["message"]


async def test_incomplete_and_a_search_that_the_provider_made() -> None:
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    ended = {
        "type": "response.incomplete",
        "response": {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
    }
    async with rude(
        {"type": "response.output_item.done", "output_index": 0, "item": search}, piece("Hel"), ended
    ) as (server, url):
        final = await created(url, input="go", stream=True, tools=[{"type": "web_search"}])
        assert [item["type"] for item in final["output"]] == ["web_search_call", "message"] and final[
            "status"
        ] == "incomplete"
        assert server.peers[0].heard[1]["tools"] == [{"type": "web_search"}]  # type: ignore[attr-defined]


# ---- where the provider is, and what it gets
CHAT = (
    b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)
ANSWER = OK.replace(b"Content-Length: 2\r\n\r\nok", b"Content-Length: %d\r\n\r\n%b" % (len(CHAT), CHAT))


@contextlib.asynccontextmanager
async def seen(config: str, **where: Any) -> AsyncIterator[Tuple[List[Tuple[str, Json]], str]]:
    """What a chat provider is asked: (request line, body) each time."""
    asked: List[Tuple[str, Json]] = []

    async def script(peer: Peer) -> None:
        while True:
            first, _, body = await peer.request()
            asked.append((first, json.loads(body)))
            await peer.send(ANSWER)

    async with RawServer(script).running(**where) as server:
        text = 'server: {listen_addr: "127.0.0.1:0"}\nmodels:\n- model: "*"\n' + config.replace(
            "URL", server.url
        )
        async with embedded(parse_config(text.encode(), "c", {})) as url:
            yield asked, url + "/v1"


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "llm.sock")
    async with seen(
        "  provider: {{base_url: 'http+unix://{}/v1/'}}".format(path.replace("/", "%2F")), path=path
    ) as (asked, url):
        response = await post(url, {"input": "go"})
        assert (
            text_of(json.loads(response.body)) == "Hi" and asked[0][0] == "POST /v1/chat/completions HTTP/1.1"
        )
        assert response.headers["x-rproxy-provider"] == path


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_an_ipv6_address_and_no_proxy() -> None:
    async with seen('  provider: {base_url: "URL/v1", http_proxy: ""}', host="::1") as (asked, url):
        assert text_of(await created(url, input="go")) == "Hi" and len(asked) == 1


async def test_rewrite_rules_are_the_last_word() -> None:
    config = """\
  provider:
    base_url: URL/v1
    profile: generic
    rewrite: [{remove: [temperature]}, {set: {options.seed: 7}}]
  rewrite:
    - rename: {max_tokens: max_new_tokens}
    - replace: {path: "messages[*].content", pattern: secret, with: "***"}
"""
    async with seen(config) as (asked, url):
        history = [
            {"role": "user", "content": "a secret"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "secret"},
        ]
        for _ in range(2):
            await created(url, input=history, temperature=0.5, max_output_tokens=20)
        for _, body in asked:
            assert [m["content"] for m in body["messages"]] == ["a ***", "yes", "***"]
            assert (body["options"], body["max_new_tokens"]) == ({"seed": 7}, 20) and not {
                "temperature",
                "max_tokens",
            } & set(body)
        assert history[0]["content"] == "a secret"


async def test_the_models_limit_on_the_answer() -> None:
    async with seen("  provider: {base_url: URL/v1, profile: generic}\n  max_output_tokens: 100\n") as (
        asked,
        url,
    ):
        assert (await created(url, input="go"))["max_output_tokens"] is None
        await created(url, input="go", max_output_tokens=20)
        await created(url, input="go", max_output_tokens=2000)
        assert [body["max_tokens"] for _, body in asked] == [100, 20, 100]


# ---- the real clients
@contextlib.asynccontextmanager
async def processes(folder: Path, *turns: List[Json]) -> AsyncIterator[Tuple[ScriptedProvider, str]]:
    """The chain, each rproxy a process of its own."""
    (folder / "inner").mkdir()
    provider = ScriptedProvider()
    provider.turns += turns
    async with (
        running(folder / "inner", provider.base_url) as inner,
        running(folder, inner.base_url, config=OUTER) as outer,
    ):
        yield provider, outer.base_url
    assert provider.refusals == []
    await provider.close()


async def test_the_official_sdk_on_the_chain(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    async with (
        processes(tmp_path, [think("A poem."), say("Roses are red.")], [say("And blue.")]) as (_, url),
        openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client,
    ):
        async with client.responses.stream(
            model="gpt-5.5", input="Write", reasoning={"summary": "auto"}
        ) as stream:
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        assert (
            "".join(deltas) == final.output_text == "Roses are red."
            and final.output[0].summary[0].text == "A poem."
        )
        assert (
            await client.responses.create(model="gpt-5.5", input="more", previous_response_id=final.id)
        ).output_text == "And blue."


@pytest.mark.timeout(seconds=90)
@pytest.mark.skipif(not CODEX, reason="CODEX_BIN is not set")
@pytest.mark.parametrize("ws", [False, True], ids=["http", "websocket"])
async def test_the_real_codex_on_the_chain(tmp_path: Path, ws: bool) -> None:
    patch = "*** Begin Patch\n*** Add File: hello.txt\n+hello \U0001f600\n*** End Patch\n"
    turns = [
        [think("Look."), call("exec_command", cmd="echo one")],
        [think("Write."), say("I write."), call("apply_patch", input=patch)],
        [think("Enough."), say("Done.")],
    ]
    async with processes(tmp_path, *turns) as (provider, url):
        run = await codex(tmp_path, url, "Go on", ws=ws)
    assert run.code == 0, run.stderr
    assert (
        run.said[-1] == "Done."
        and (tmp_path / "work" / "hello.txt").read_text(encoding="utf-8") == "hello \U0001f600\n"
    )
    assert [item["text"] for item in run.items("reasoning")] == ["Look.", "Write.", "Enough."]
    assert [
        m["reasoning_content"] for m in provider.requests[-1]["messages"] if m["role"] == "assistant"
    ] == ["Look.", "Write."]
    stable(provider.requests)
    assert run.usage["cached_input_tokens"] > 0
