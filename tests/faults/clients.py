"""Clients that fail: in the middle of their request, in the middle of the answer, or by doing nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from typing import Awaitable, Callable, List, Tuple

from hostile import (
    BUG,
    HANDSHAKE,
    PATIENCE,
    Endless,
    Wrong,
    create,
    exchange,
    garbled,
    masked,
    parsed,
    request_bytes,
)

Scenario = Callable[[], Awaitable[str]]
Scenarios = List[Tuple[str, Scenario]]
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
GOOD = "cut/chunked/9999"
SLOW = "slow/40/5"
UPGRADE = ("\r\n".join(HANDSHAKE) + "\r\n\r\n").encode()
REQUESTS = {
    "JSON": request_bytes(create(GOOD)),
    "SSE": request_bytes(create(GOOD, stream=True)),
    "WebSocket": UPGRADE + masked(json.dumps({"type": "response.create", **create(GOOD)}).encode()),
}


async def leaves(port: int, sent: bytes, read: int, reset: bool, stay: float = 0.0) -> str:
    """Send these bytes, read so many of the answer, and leave: with FIN, or with RST."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await writer.drain()
        await asyncio.wait_for(reader.readexactly(read), 20)
    await asyncio.sleep(stay)
    if reset:
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()
    else:
        writer.close()
    return "left"


async def sends_a_wrong_byte(port: int, sent: bytes, position: int) -> str:
    """Every answer is a whole one, and none tells of a bug. A wrong byte in the head may make the server
    expect more of the request; one in the body may not.
    """
    head = sent.index(b"\r\n\r\n") + 4
    web = sent.startswith(b"GET")
    try:
        data = await exchange(port, garbled(sent, position), 1.0 if web or position < head else PATIENCE)
    except Endless:
        if not web and position >= head:
            raise
        return "waits"
    if data.startswith(b"HTTP/1.1 101"):
        if BUG in data:
            raise Wrong(f"a bug: {data[-500:]!r}")
        return "WebSocket"
    status, _, _ = parsed(data)
    return f"status {status}"


def parts(port: int, step: int) -> List[Tuple[str, Scenarios, int]]:
    """(name, turns, how many at a time)"""
    places = [
        (f"{name}, {at}", data, at) for name, data in REQUESTS.items() for at in range(0, len(data), step)
    ]
    slow = request_bytes(create(SLOW, stream=True))
    reads = range(0, 6000, step * 20)  # of the answer

    def ends(reset: bool, stay: float = 0.0) -> Scenarios:
        return [
            (name, lambda sent=data[:at]: leaves(port, sent, 0, reset, stay))  # type: ignore[misc]
            for name, data, at in places
        ]

    def goes(read: int, stay: float) -> Scenario:
        return lambda: leaves(port, slow, read, read % 40 == 0, stay)

    def wrong(sent: bytes, at: int) -> Scenario:
        return lambda: sends_a_wrong_byte(port, sent, at)

    return [
        ("cuts its request", ends(reset=False), 8),
        ("resets its request", ends(reset=True), 8),
        ("stops in its request", ends(reset=False, stay=1.0), 100),
        ("sends a wrong byte", [(name, wrong(data, at)) for name, data, at in places], 50),
        ("leaves the answer", [(f"after {read} bytes", goes(read, 0.0)) for read in reads], 8),
        ("does not read", [(f"number {read}", goes(0, 1.0)) for read in reads], 100),
    ]
