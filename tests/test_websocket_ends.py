"""The WebSocket endpoint, over real sockets: clients that leave or misbehave, sizes, ends of connections."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time

import pytest
from rawserver import standstill, until
from running_server import Raw, running_server
from wsclient import (
    TERMINAL,
    begin,
    create,
    hear,
    hear_until,
    masked,
    open_raw,
    read_frame,
    refusal,
    say,
    turn,
    types_until,
)

from rproxy.server.frames import frame


# ---- Clients that leave, or misbehave
@pytest.mark.parametrize("word", ["wait", "begin"])
async def test_a_client_that_leaves_cancels_its_turns(word: str) -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        raw.writer.write(masked(create(word)))
        raw.writer.write(masked(create("hello")))
        await until(lambda: e.provider.running == 1)
        raw.cut()
        start = time.monotonic()
        await until(lambda: e.provider.cancelled == 1)
        assert time.monotonic() - start < 1
        await until(lambda: not e.state.sessions and not e.state.turns)
        assert len(e.provider.requests) == 1


async def test_pings_are_answered_and_a_close_is_seen_while_a_turn_runs() -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        raw.writer.write(masked(create("wait")))
        await until(lambda: e.provider.running == 1)
        raw.writer.write(masked(b"hi", 9))
        assert await read_frame(raw) == (10, b"hi")
        raw.writer.write(masked(struct.pack("!H", 1000), 8))
        assert await read_frame(raw) == (8, struct.pack("!H", 1000))
        await until(lambda: e.provider.cancelled == 1)


async def test_a_message_in_fragments() -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        data = create("hello")
        raw.writer.write(
            masked(data[:5], 1, False) + masked(b"p", 9) + masked(data[5:20], 0, False) + masked(data[20:], 0)
        )
        assert (await read_frame(raw))[0] == 10
        assert json.loads((await read_frame(raw))[1])["type"] == "response.created"


async def test_large_messages_and_too_large_ones() -> None:
    async with running_server(max_message_size=5 << 20) as e:
        ws = await e.ws()
        assert (await turn(ws, "hello " + "0" * (4 << 20)))[-1]["type"] == "response.completed"
        raw = await open_raw(e)
        raw.writer.write(struct.pack("!BBQ", 0x81, 0xFF, (5 << 20) + 1))
        opcode, reason = await read_frame(raw)
        assert opcode == 8 and reason.startswith(struct.pack("!H", 1009)) and await raw.rest() == b""
        assert (await turn(await e.ws()))[-1]["type"] == "response.completed"


@pytest.mark.parametrize("size", [1000, 2 << 20])
async def test_the_largest_message_with_the_next_one_right_behind_it(size: int) -> None:
    """The stream's buffer must hold both, or a piece and more: Tornado reads on while there is something."""
    async with running_server(max_message_size=size, max_body_size=1000) as e:
        raw = await open_raw(e)
        largest = create("hello " + "x" * (size - len(create("hello "))))
        assert len(largest) == size
        raw.writer.write(masked(largest) * 3)
        assert (await types_until(raw, 3)).count("response.completed") == 3


async def test_a_client_that_does_not_read() -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.reader._limit = 1  # type: ignore[attr-defined]
        raw.writer.write(masked(create("flood")))
        await until(lambda: e.provider.sent > 3)
        assert await standstill(lambda: e.provider.sent) < 500
        raw.cut()
        await until(lambda: e.provider.cancelled == 1)


async def test_errors_are_not_piled_up_for_a_client_that_does_not_read() -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        raw.reader._limit = 1  # type: ignore[attr-defined]
        stream = next(iter(e.state.sessions)).ws_connection.stream  # type: ignore[attr-defined]
        for end in (raw.writer.get_extra_info("socket"), stream.socket):  # else the system keeps some MB
            for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                end.setsockopt(socket.SOL_SOCKET, buffer, 1 << 16)
        raw.writer.write(masked(json.dumps({"type": "x" * 100}).encode()) * 8000)
        await until(stream.writing)
        ws = await e.ws()
        for _ in range(5):  # while others have their turns, nothing more is read of it
            assert (await turn(ws))[-1]["type"] == "response.completed"
        assert len(stream._write_buffer) < 1 << 16
        assert raw.writer.transport.get_write_buffer_size() > 0


async def test_no_nagle_between_turns() -> None:
    async with running_server() as e:
        await turn(await e.ws(), "count 2")
        stream = next(iter(e.state.sessions)).ws_connection.stream  # type: ignore[attr-defined]
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_binary_junk_after_the_handshake() -> None:
    async with running_server() as e:
        for junk in (b"\xff" * 64, masked(b"\xff\xfe", 1), masked(b"x", 11), b"\x81"):
            raw = await open_raw(e)
            raw.writer.write(junk)
            await asyncio.sleep(0.02)
            raw.cut()
        await until(lambda: not e.state.sessions)
        assert (await turn(await e.ws()))[-1]["type"] == "response.completed"


# ---- Age
async def test_an_idle_connection_that_grew_too_old() -> None:
    async with running_server(websocket_max_age=0.2) as e:
        ws = await e.ws()
        assert (await turn(ws))[-1]["type"] == "response.completed"
        refusal(await hear(ws), 400, "websocket_connection_limit_reached")
        assert await hear(ws) is None and ws.close_code == 1001


async def test_an_old_connection_finishes_its_turn_first() -> None:
    async with running_server(websocket_max_age=0.2) as e:
        ws = await e.ws()
        await begin(ws, "gate")
        say(ws)
        refusal(await hear(ws), 400, "websocket_connection_limit_reached")  # the waiting one
        say(ws)
        refusal(await hear(ws), 400, "websocket_connection_limit_reached")  # a new one
        e.provider.gate.set()
        assert (await hear_until(ws, *TERMINAL))[-1]["type"] == "response.completed"
        refusal(await hear(ws), 400, "websocket_connection_limit_reached")
        assert await hear(ws) is None and ws.close_code == 1001


async def test_a_channel_that_waits_for_a_slot_does_not_disturb_the_end() -> None:
    async with running_server() as e:
        ws = await e.ws()
        for number in range(17):
            say(ws, "gate", stream_id=f"channel-{number}")
        await hear_until(ws, "response.output_text.delta", times=16)
        for session in e.state.sessions:
            session.shut_down()
        refused = await hear(ws)
        assert "shutting down" in refusal(refused, 503) and refused["stream_id"] == "channel-16"
        e.provider.gate.set()
        await hear_until(ws, "response.completed", times=16)
        assert await hear(ws) is None and ws.close_code == 1012


# ---- Frames
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100001])
async def test_frames(size: int) -> None:
    data = os.urandom(size)
    stream = asyncio.StreamReader(limit=1 << 20)
    stream.feed_data(frame(data))
    assert await read_frame(Raw(stream, None)) == (1, data)  # type: ignore[arg-type]
