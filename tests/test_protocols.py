"""What a client may not say, on the level of HTTP and of WebSocket frames, and what every answer says."""

from __future__ import annotations

import json
from typing import List, Tuple

import pytest
from running_server import running_server
from wsclient import create, masked, open_raw, read_frame, types_until

from rproxy.server.frames import fault

# ---- HTTP


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "length",
    [
        ("9" * 60_000,),
        ("9" * 19,),
        ("0" * 5000 + "2",),
        ("\xb2",),  # isdigit() is true
        ("1_0",),
        ("+2",),
        ("-2",),
        ("0x2",),
        ("2.0",),
        ("",),
        ("2", "3"),
    ],
    ids=lambda length: length[0][:9],
)
async def test_a_content_length_that_is_no_number_is_a_400(length: Tuple[str, ...], method: str) -> None:
    async with running_server() as e:
        raw = await e.raw()
        lines = [f"Content-Length: {one}" for one in length]
        if method == "OPTIONS":
            lines.append("Origin: http://localhost")
        head = "\r\n".join([f"{method} /responses/x HTTP/1.1", "Host: localhost", *lines, "", ""])
        raw.writer.write(head.encode("latin-1") + b"{}GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await raw.rest()
        assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1
        head_, _, body = answer.partition(b"\r\n\r\n")
        assert b"connection: close" in head_.lower()
        assert "Content-Length" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("lines", [["02"], ["2", "2"], ["2, 2"]])
async def test_a_content_length_that_says_it_twice_counts_once(lines: List[str]) -> None:
    async with running_server() as e:
        raw = await e.raw()
        raw.send(
            *("POST /responses/input_tokens HTTP/1.1", "Host: localhost"),
            *(f"Content-Length: {one}" for one in lines),
            body=b"{}",
        )
        status, _, answer = await raw.answer()
        assert status == 400 and "input" in answer["error"]["message"]


async def test_every_answer_says_that_its_type_is_not_to_be_guessed() -> None:
    async with running_server() as e:
        answers = [
            await e.fetch("/health"),
            await e.fetch("/nothing"),
            await e.fetch("/v1/models", method="PATCH"),
            await e.fetch("/responses", b"{"),
            await e.fetch("/responses", {"model": "m", "input": "hello"}),
            await e.fetch("/responses", {"model": "m", "input": "hello", "stream": True}),
            await e.fetch("/responses", headers={"Host": "evil.example"}),
            await e.fetch("/responses", method="OPTIONS", headers={"Origin": "http://localhost"}),
        ]
        assert {answer.code for answer in answers} >= {200, 204, 400, 403, 404, 405}
        assert all(answer.headers.get_list("X-Content-Type-Options") == ["nosniff"] for answer in answers)
        raw = await e.raw()
        raw.send(
            *("GET /responses HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket"),
            *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        )
        status, headers = await raw.head()
        assert (status, headers["x-content-type-options"]) == (101, "nosniff")


# ---- Origins

MINE, LISTED, FOREIGN = "http://localhost:8080", "https://chat.example.com", "https://evil.example"


@pytest.mark.parametrize(
    ("origins", "passes"),
    [
        ([MINE], True),
        ([LISTED], True),
        ([MINE, LISTED], True),
        ([f"{MINE} {LISTED}"], True),
        ([FOREIGN, MINE], False),
        ([MINE, FOREIGN], False),
        ([LISTED, FOREIGN, MINE], False),
        ([f"{FOREIGN}, {LISTED}"], False),
        ([f"{FOREIGN} {MINE}"], False),
        ([f"{FOREIGN},{MINE}"], False),
        (["null", MINE], False),
        (["", MINE], False),
        ([f"{FOREIGN}//localhost"], False),
        (["https://evil.example/localhost"], False),
    ],
)
@pytest.mark.parametrize("ws", [False, True])
async def test_of_several_origins_all_must_pass(origins: List[str], passes: bool, ws: bool) -> None:
    async with running_server(allowed_origins=(LISTED,)) as e:
        raw = await e.raw()
        lines = [f"Origin: {origin}" for origin in origins]
        if ws:
            lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
            lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
            raw.send("GET /responses HTTP/1.1", "Host: localhost", *lines)
        else:
            body = b'{"model": "m", "input": "hello"}'
            lines += [f"Content-Length: {len(body)}"]
            raw.send("POST /responses HTTP/1.1", "Host: localhost", *lines, body=body)
        status, headers = await raw.head()
        assert status == ((101 if ws else 200) if passes else 403)
        assert ("access-control-allow-origin" in headers) == (origins == [LISTED])


# ---- Frames


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"\x81\x02{}", "masked"),
        (b"\x81\x7f" + (1 << 20).to_bytes(8, "big"), "masked"),  # and not read
        (b"\x89\x00", "masked"),
        (b"\x88\x02\x03\xe8", "masked"),
        (masked(b"{", fin=False) + b"\x80\x01}", "masked"),
        (b"\xc1\x80\0\0\0\0", "reserved bit"),
        (masked(b"", opcode=3), "opcode"),
        (masked(b"", opcode=11), "opcode"),
        (masked(b"", opcode=9, fin=False), "control frame"),
        (masked(b"x" * 126, opcode=9), "control frame"),
    ],
)
async def test_a_frame_against_the_rules_ends_the_connection_with_1002(frame: bytes, why: str) -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        raw.writer.write(masked(create("hello")))
        await types_until(raw, 1)
        raw.writer.write(frame)
        opcode, data = await read_frame(raw)
        assert (opcode, int.from_bytes(data[:2], "big")) == (8, 1002) and why in data[2:].decode()
        assert await raw.rest() == b""


def test_what_clients_send_is_no_fault() -> None:
    for opcode in (0, 1, 2):
        for size in (0, 125, 126, 127):
            assert fault(opcode, 0x80 | size) is None and fault(0x80 | opcode, 0x80 | size) is None
    for opcode in (8, 9, 10):
        assert fault(0x80 | opcode, 0x80 | 125) is None
