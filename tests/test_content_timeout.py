"""A provider that goes on without content: ``server.content_timeout``."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Callable, Dict, List, Optional

import pytest
from api import Api
from rawserver import CHUNKED, END, Peer, RawServer, chunk, until
from scripted import served

from rproxy.convert.answer.fields import is_keep_alive

HEAD = CHUNKED[:-2] + b"Content-Type: text/event-stream\r\n\r\n"
ASK = {"model": "gpt-5.5", "input": "x"}


def sse(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


SIGNS_OF_LIFE: Dict[str, bytes] = {
    "comments": b": keep-alive\n\n",
    "blank lines": b"\n",
    "pings": b'event: ping\ndata: {"type": "ping"}\n\n',
    "no choices": sse({"id": "x", "object": "chat.completion.chunk", "model": "m", "choices": []}),
    "empty deltas": delta(role="assistant", content=""),
    "no usage": sse({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}),
}
CONTENT: Dict[str, bytes] = {
    "text": delta(content="x"),
    "thinking": delta(reasoning_content="x"),
    "call": delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": " "}}]),
    "usage": sse({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}),
}


class Stuck:
    """Sends ``first``, and then ``again`` until its client leaves, or ``times`` and then ``last``."""

    def __init__(
        self, first: bytes, again: bytes, times: Optional[int] = None, last: bytes = b"", head: bytes = HEAD
    ) -> None:
        self._first, self._again, self._last, self._head = first, again, last, head
        self._times = times
        self.asked = self.left = 0
        self.server = RawServer(self._answer)

    async def _answer(self, peer: Peer) -> None:
        await peer.request()
        self.asked += 1
        await peer.send(self._head + (chunk(self._first) if self._first else b""))
        gone = asyncio.ensure_future(peer.wait_gone())
        count = 0
        while not gone.done() and (self._times is None or count < self._times):
            count += 1
            if self._again:
                await peer.send(chunk(self._again))
            await asyncio.wait({gone}, timeout=0.02)
        if gone.done():
            self.left += 1
            return
        gone.cancel()
        await peer.send(chunk(self._last) + END)


def settings(retries: int = 2, limit: float = 0.3) -> str:
    return f"  content_timeout: {limit}\n  retries: {retries}\n"


@pytest.mark.parametrize("sign", SIGNS_OF_LIFE)
async def test_signs_of_life_alone_end_an_answer(sign: str, expect_log: Callable[..., Any]) -> None:
    expect_log("cools down")
    expect_log("status=failed")
    provider = Stuck(b"", SIGNS_OF_LIFE[sign])
    async with provider.server.running(), served(provider.server.url, settings()) as url:
        status, body = await Api(url).raw("POST", "/responses", {**ASK, "stream": True})
        message = json.loads(body)["error"]["message"]
        assert status == 504 and "no content for 0.3 s" in message and "server.content_timeout" in message
        await until(lambda: provider.left)
        assert provider.asked == 1


@pytest.mark.parametrize("sign", SIGNS_OF_LIFE)
async def test_signs_of_life_after_some_content(sign: str, expect_log: Callable[..., Any]) -> None:
    expect_log("cools down")
    expect_log("status=failed")
    provider = Stuck(CONTENT["text"], SIGNS_OF_LIFE[sign])
    async with provider.server.running(), served(provider.server.url, settings()) as url:
        events = await Api(url).events("POST", "/responses", {**ASK, "stream": True})
        assert events[-1]["type"] == "response.failed"
        assert "no content for 0.3 s" in events[-1]["response"]["error"]["message"]
        await until(lambda: provider.left)


async def test_blank_lines_before_an_answer_in_json(expect_log: Callable[..., Any]) -> None:
    expect_log("cools down")
    expect_log("status=failed")
    provider = Stuck(b"", b"\n", head=CHUNKED)
    async with provider.server.running(), served(provider.server.url, settings()) as url:
        status, body = await Api(url).raw("POST", "/responses", ASK)
        assert status == 504 and "no content" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("kind", CONTENT)
async def test_content_keeps_an_answer_alive(kind: str) -> None:
    last = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + b"data: [DONE]\n\n"
    provider = Stuck(CONTENT["text"], SIGNS_OF_LIFE["comments"] + CONTENT[kind], 50, last)
    async with provider.server.running(), served(provider.server.url, settings()) as url:
        events = await Api(url).events("POST", "/responses", {**ASK, "stream": True})
        assert events[-1]["type"] == "response.completed"


async def test_without_a_limit_or_when_nothing_comes_only_silence_counts() -> None:
    last = CONTENT["text"] + sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    for provider, limit in (
        (Stuck(b"", SIGNS_OF_LIFE["comments"], 30, last), 0.0),
        (Stuck(b"", b"", 5, last), 0.01),  # 0.1 s
    ):
        async with provider.server.running(), served(provider.server.url, settings(limit=limit)) as url:
            assert (await Api(url).events("POST", "/responses", {**ASK, "stream": True}))[-1][
                "type"
            ] == "response.completed"


def test_what_is_a_keep_alive() -> None:
    signs: List[Any] = [
        *({"type": kind} for kind in ("response.created", "response.in_progress", "response.queued", "ping")),
        *(
            {"choices": choices}
            for choices in (None, [], [{}], [None], {}, [{"delta": None}], [{"delta": "x"}])
        ),
        {"choices": {"index": 0, "delta": {"role": "assistant", "content": None}}},
        {},
    ]
    content: List[Any] = [
        {"type": "response.output_item.added", "item": {}},
        {"choices": [{"index": 1, "delta": {"content": "x"}}]},
        {"choices": {"finish_reason": "stop"}},
        {"usage": {"prompt_tokens": 1}},
    ]
    assert [is_keep_alive(one) for one in signs + content] == [True] * len(signs) + [False] * len(content)
