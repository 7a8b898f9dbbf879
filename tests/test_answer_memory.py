"""Answers of many megabytes: what they take in memory, and that they arrive as all others do."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
from anything import numbers_alike
from api import Api
from forkserver import REAL
from grammar import check_stream, parse_sse
from hypothesis import given
from hypothesis import strategies as st
from rawserver import CHUNKED, END, Peer, RawServer, chunk
from running_server import RunningServer, running_server
from scripted import running
from tornado.websocket import websocket_connect
from wsclient import turn

from rproxy.convert import json_steps
from rproxy.convert.json_steps import json_blocks, sse_blocks
from rproxy.convert.sse import encode_sse
from rproxy.json_codec import encode_json
from rproxy.server.frames import fragments, frame
from rproxy.service import turn as service_turn
from rproxy.store import encode, encode_cooperatively

Event = Dict[str, Any]
SIZE = 16 << 20  # bytes of text
PIECE = 1 << 13


# ---- Memory
def delta(text: str, finish: Any = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


async def large(peer: Peer) -> None:
    """Answers with ``SIZE`` bytes: as an event stream, or as one document if that is asked for."""
    _, _, body = await peer.request()
    if json.loads(body).get("stream"):
        event = chunk(delta("w" * PIECE))
        await peer.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n"))
        for _ in range(SIZE // PIECE):
            await peer.send(event)
        await peer.send(chunk(delta("", "stop") + b"data: [DONE]\n\n") + END)
    else:
        message = {"role": "assistant", "content": "w" * SIZE}
        answer = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer), answer)


async def read_all(api: Api, stream: bool) -> int:
    """:returns: how many bytes came"""
    reader, writer = await api.post_and_keep(
        "/responses", {"model": "gpt-5.5", "input": "hi", "stream": stream}, Connection="close"
    )
    size = 0
    while True:
        data = await reader.read(1 << 16)
        size += len(data)
        if not data:
            writer.close()
            return size


async def read_messages(api: Api) -> int:
    socket = await websocket_connect(
        api.base_url.replace("http", "ws") + "/responses", max_message_size=1 << 30
    )
    socket.write_message(json.dumps({"type": "response.create", "model": "gpt-5.5", "input": "hi"}))
    size, last = 0, ""
    while '"type":"response.completed"' not in last[:100]:
        last = str(await socket.read_message())
        size += len(last)
    socket.close()
    return size


def memory(pid: int, name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[name].split()[0]) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("way, copies", [("json", 1), ("sse", 5), ("websocket", 5)])
async def test_an_answer_takes_at_most_three_times_its_size(tmp_path: Path, way: str, copies: int) -> None:
    server = RawServer(large)
    async with server.running(), running(tmp_path, server.url, command=REAL) as rproxy:
        api, pid = Api(rproxy.base_url), rproxy.process.pid
        await api("POST", "/responses", {"model": "unknown", "input": "hi"}, expect=404)
        base = memory(pid, "VmRSS")
        size = await (read_messages(api) if way == "websocket" else read_all(api, way == "sse"))
        assert size > copies * SIZE
        assert memory(pid, "VmHWM") - base < 3 * SIZE + (4 << 20)  # and what any answer takes


# ---- The same, whatever the size
@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer takes the way of large ones, in small pieces."""
    monkeypatch.setattr(service_turn, "LARGE_ANSWER", 0)
    monkeypatch.setattr(json_steps, "STEP", 3)
    monkeypatch.setattr(json_steps, "BLOCK", 8)


def comparable(events: List[Event]) -> Any:
    """Events without what differs from turn to turn."""
    text = json.dumps([{**event, "sequence_number": 0} for event in events])
    response = events[-1]["response"]
    for value in (
        response["id"].partition("_")[2],
        str(response["created_at"]),
        str(response["completed_at"]),
    ):
        text = text.replace(value, "X")
    return text


async def in_every_form(e: RunningServer) -> List[Any]:
    sse = parse_sse((await e.fetch("/responses", {"model": "m", "input": "count 5", "stream": True})).body)
    ws = await turn(await e.ws(), "count 5")
    named = await turn(await e.ws(), "count 5", stream_id="side")
    assert {event.pop("stream_id") for event in named} == {"side"}
    plain = json.loads((await e.fetch("/responses", {"model": "m", "input": "hello"})).body)
    assert check_stream(sse)["output"][0]["content"][0]["text"] == "01234"
    return [comparable(sse), comparable(ws), comparable(named), plain["output"][0]["content"]]


async def test_answer_memory_are_told_as_small_ones(monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    async with running_server() as e:
        small = await in_every_form(e)
        request.getfixturevalue("all_large")
        assert await in_every_form(e) == small


async def test_other_messages_wait_for_the_end_of_a_large_one(all_large: None) -> None:
    async with running_server() as e:
        ws = await e.ws()
        for name in ("a", "b", "c"):
            ws.write_message(
                json.dumps({"type": "response.create", "model": "m", "input": "count 40", "stream_id": name})
            )
        events: Dict[str, List[Event]] = {"a": [], "b": [], "c": []}
        while not all(told and told[-1]["type"] == "response.completed" for told in events.values()):
            event = json.loads(str(await asyncio.wait_for(ws.read_message(), 20)))
            events[event.pop("stream_id")].append(event)
        for told in events.values():
            check_stream(told)


async def test_a_client_that_leaves_within_a_large_event(all_large: None) -> None:
    async with running_server() as e:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", e.port)
            body = json.dumps({"model": "m", "input": "count 200", "stream": True}).encode()
            head = f"POST /responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await reader.readuntil(b"output_text.done")
            writer.transport.abort()
        assert (await turn(await e.ws()))[-1]["type"] == "response.completed"


# ---- Encoding
LONG = st.text(st.sampled_from(['"', "\\", "\n", "é", "\ud83d", "\ude00", "😀", "a"]), max_size=30)
VALUES = st.recursive(
    LONG | st.integers() | st.floats() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LONG, inner, max_size=4),
    max_leaves=12,
)


def same(one: bytes, other: bytes) -> bool:
    """Are they the same but for the spelling of numbers?  A part may be written by another encoder."""
    return numbers_alike(one) == numbers_alike(other)


@given(VALUES, st.integers(1, 5))
def test_blocks_are_the_whole(value: Any, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_steps, "STEP", size)
        patch.setattr(json_steps, "BLOCK", size)
        assert same(b"".join(json_blocks(value)), encode_json(value))
        events: List[Any] = [{"type": "x", "v": value}]
        assert same(b"".join(sse_blocks(events)), encode_sse(events))
        stored = asyncio.run(encode_cooperatively("resp_1", {"response": value}))  # type: ignore[typeddict-item]
        assert same(stored, encode("resp_1", {"response": value}))  # type: ignore[typeddict-item]


def test_no_block_is_large() -> None:
    value = {"a": ["x" * 1_000_000, {"b": "y" * 300_000}], "c": 1}
    sizes = [len(block) for block in json_blocks(value)]
    assert max(sizes) < 3 * json_steps.BLOCK and min(sizes[:-1]) >= json_steps.BLOCK


def test_fragments() -> None:
    assert list(fragments([b"abc"])) == [frame(b"abc")]
    assert list(fragments([b"ab", b"c", b"d"])) == [b"\x01\x02ab", b"\x00\x01c", b"\x80\x01d"]
    assert list(fragments([])) == [frame(b"")]
