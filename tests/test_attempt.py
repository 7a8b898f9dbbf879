"""How an answer ends that its provider does not end: after a while without anything new."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any, Dict, List, Tuple

import pytest
from grammar import check_stream, parse_sse
from rawserver import CHUNKED, Peer, RawServer, chunk, until
from scripted import served
from tornado.httpclient import AsyncHTTPClient

from rproxy.cooperative import Slices, large_values
from rproxy.providers.provider_errors import provider_error
from rproxy.service import attempt

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=30)

HEAD = CHUNKED[:-2] + b"Content-Type: text/event-stream\r\n\r\n"
GRACE = 0.4  # seconds, in these tests
COMMENT = b": keep-alive\n\n"


def event(text: str = "", finish: str = "") -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish or None}
    return b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode()


STOP = event(finish="stop")


async def answer_to(*pieces: Tuple[float, bytes]) -> Tuple[Json, float]:
    """The response to an answer of these pieces, each sent some seconds after the one before, and how long it
    took from the first piece to the end.  The provider never ends the body by itself.
    """
    began = 0.0

    async def script(peer: Peer) -> None:
        nonlocal began
        await peer.request()
        await peer.send(HEAD)
        began = time.monotonic()
        sending = asyncio.ensure_future(send(peer))
        await peer.wait_gone()
        sending.cancel()

    async def send(peer: Peer) -> None:
        for pause, piece in pieces:
            await asyncio.sleep(pause)
            await peer.send(chunk(piece))

    async with RawServer(script).running() as provider, served(provider.url) as base_url:
        body = {"model": "gpt-5.5", "input": "hi", "stream": True}
        client = AsyncHTTPClient(force_instance=True)
        answer = await client.fetch(base_url + "/responses", method="POST", body=json.dumps(body))
        took = time.monotonic() - began
        client.close()
        await provider.peers[0].when_gone()
    return check_stream(parse_sse(answer.body)), took


def text_of(response: Json) -> str:
    assert response["status"] == "completed"
    texts: List[str] = [part["text"] for item in response["output"] for part in item["content"]]
    return "".join(texts)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (attempt.GRACE, attempt.LONG_GRACE) == (5.0, 20.0)
    monkeypatch.setattr(attempt, "GRACE", GRACE)
    monkeypatch.setattr(attempt, "LONG_GRACE", 60.0)  # which no test waits for


async def test_silence_after_a_finish_reason_ends_the_answer() -> None:
    response, took = await answer_to((0, event("Done.")), (0, STOP))
    assert text_of(response) == "Done." and took > GRACE * 0.9


async def test_comments_do_not_prolong_it() -> None:
    response, took = await answer_to((0, event("Done.")), (0, STOP), *[(0.1, COMMENT)] * 1000)
    assert text_of(response) == "Done." and took > GRACE * 0.9


async def test_text_does_prolong_it() -> None:
    late = [(GRACE * 0.3, event(f"{n} ")) for n in range(6)]
    response, took = await answer_to((0, event("So: ")), (0, STOP), *late)
    assert text_of(response) == "So: 0 1 2 3 4 5 " and took > GRACE * 0.3 * 6 + GRACE * 0.9


async def test_an_answer_that_is_still_empty_gets_longer() -> None:
    """Some servers send "stop" first, and then the answer."""
    response, took = await answer_to((0, STOP), (GRACE * 2, event("At last.")))
    assert text_of(response) == "At last." and took > GRACE * 2.9


async def test_silence_before_a_finish_reason_does_not_end_it() -> None:
    response, _ = await answer_to((0, event("Wait")), (GRACE * 2, event(" for it.")), (0, STOP))
    assert text_of(response) == "Wait for it."


async def test_no_garbage_is_collected_by_itself_while_a_large_chunk_is_converted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts: List[int] = []

    class Counted(Slices):
        async def pause(self) -> None:
            counts.append(large_values.count)
            await super().pause()

    monkeypatch.setattr(attempt, "Slices", Counted)
    response, _ = await answer_to((0, event("small")), (0, STOP))
    assert text_of(response) == "small" and counts == []
    response, _ = await answer_to((0, event("x" * (1 << 20))), (0, STOP))
    assert text_of(response) == "x" * (1 << 20)
    assert len(counts) > 1 and min(counts) > 0
    await until(lambda: large_values.count == 0)


async def test_a_refusal_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: List[threading.Thread] = []

    def read(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return provider_error(*args)

    monkeypatch.setattr(attempt, "provider_error", read)
    refusal = b'{"error":{"message":"no such field"}}'

    async def script(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        await peer.send(head % len(refusal) + refusal)

    async with RawServer(script).running() as provider, served(provider.url) as base_url:
        client = AsyncHTTPClient(force_instance=True)
        body = json.dumps({"model": "gpt-5.5", "input": "hi"})
        answer = await client.fetch(base_url + "/responses", method="POST", body=body, raise_error=False)
        client.close()
    assert answer.code == 400 and b"no such field" in answer.body
    assert threads and threading.main_thread() not in threads
