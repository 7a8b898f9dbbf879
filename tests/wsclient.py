"""WebSocket clients for the tests: Tornado's own, and one on a bare socket that can misbehave."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, List, Optional, Tuple

from running_server import Raw, RunningServer
from tornado.websocket import WebSocketClientConnection

from rproxy.server.tornado_patches import unmask

TERMINAL = ("response.completed", "response.incomplete", "response.failed")


async def hear(ws: WebSocketClientConnection) -> Any:
    """The next message; None when the connection ended."""
    message = await asyncio.wait_for(asyncio.ensure_future(_read(ws)), 5)
    return None if message is None else json.loads(message)


async def _read(ws: WebSocketClientConnection) -> Any:
    return await ws.read_message()


def say(ws: WebSocketClientConnection, word: str = "hello", **fields: Any) -> None:
    ws.write_message(json.dumps({"type": "response.create", "model": "m", "input": word, **fields}))


async def turn(ws: WebSocketClientConnection, word: str = "hello", **fields: Any) -> List[Any]:
    """One turn: everything up to its terminal event or error."""
    say(ws, word, **fields)
    events: List[Any] = []
    while not events or events[-1]["type"] not in (*TERMINAL, "error"):
        events.append(await hear(ws))
    return events


async def begin(ws: WebSocketClientConnection, word: str, **fields: Any) -> List[Any]:
    """One turn, up to its first delta."""
    say(ws, word, **fields)
    return await hear_until(ws, "response.output_text.delta")


async def hear_until(ws: WebSocketClientConnection, *types: str, times: int = 1) -> List[Any]:
    """Everything up to the event that is of one of these types for the last of ``times`` times."""
    events: List[Any] = []
    while times:
        events.append(await hear(ws))
        times -= events[-1]["type"] in types
    return events


def refusal(event: Any, status: int, code: Optional[str] = None) -> str:
    """The message of an error frame, which must have the right shape."""
    assert event["type"] == "error" and event["status"] == status
    error = event["error"]
    assert (
        set(error) == {"message", "type", "param", "code"}
        and error["code"]
        and error["type"]
        and error["message"]
    )
    assert code is None or error["code"] == code
    return str(error["message"])


# ---- On a bare socket
HANDSHAKE = (
    "GET /v1/responses HTTP/1.1",
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


async def open_raw(e: RunningServer) -> Raw:
    raw = await e.raw()
    raw.send(*HANDSHAKE)
    status, headers = await raw.head()
    assert status == 101 and headers["x-request-id"] and "sec-websocket-extensions" not in headers
    return raw


def masked(data: bytes, opcode: int = 1, fin: bool = True) -> bytes:
    """One frame as a client sends it."""
    mask = b"mask"  # the same in all processes of a parallel run
    size = (
        struct.pack("!B", 0x80 | len(data))
        if len(data) < 126
        else struct.pack("!BH", 0xFE, len(data))
        if len(data) < 65536
        else struct.pack("!BQ", 0xFF, len(data))
    )
    return bytes([(0x80 if fin else 0) | opcode]) + size + mask + unmask(mask, data)


async def read_frame(raw: Raw) -> Tuple[int, bytes]:
    first, size = await raw.reader.readexactly(2)
    if size == 126:
        (size,) = struct.unpack("!H", await raw.reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await raw.reader.readexactly(8))
    assert first & 0x80
    return first & 15, await raw.reader.readexactly(size)


def create(word: str, **fields: Any) -> bytes:
    return json.dumps({"type": "response.create", "model": "m", "input": word, **fields}).encode()


async def types_until(raw: Raw, ends: int) -> List[str]:
    """The types of the events, up to the one that is the end of a turn for the last of ``ends`` times."""
    types: List[str] = []
    while ends:
        types.append(json.loads((await read_frame(raw))[1])["type"])
        ends -= types[-1] in (*TERMINAL, "error")
    return types
