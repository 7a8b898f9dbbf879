"""How WebSocket messages are read: in one frame or many, in short or long pieces, as UTF-8."""

from __future__ import annotations

import json
import random
import struct
from typing import Any, List, Tuple

import pytest
from running_server import Raw, RunningServer, running_server
from wsclient import create, masked, open_raw, read_frame, refusal, types_until

from rproxy.server.body import LARGE
from rproxy.server.frames import PIECE

WIDE = "hello é€😀" * (PIECE // 3)  # 4 pieces and more, whose cuts fall into characters
PING = masked(b"p", 9)


def fragments(data: bytes, sizes: List[int]) -> bytes:
    """A message in frames of these sizes, each followed by a ping; the last frame has the rest."""
    found, opcode = b"", 1
    for size in sizes:
        found += masked(data[:size], opcode, False) + PING
        data, opcode = data[size:], 0
    return found + masked(data, opcode)


async def after_pongs(raw: Raw) -> Tuple[int, bytes, int]:
    """The next frame that is no pong, and how many were before it."""
    pongs = 0
    while True:
        opcode, data = await read_frame(raw)
        if opcode != 10:
            return opcode, data, pongs
        assert data == b"p"
        pongs += 1


def asked(e: RunningServer) -> Any:
    """What the provider was asked last."""
    return e.provider.requests[-1]["messages"][-1]["content"]


def handling_of(e: RunningServer) -> List[int]:
    """A list of the sizes that the only connection unmasks from now on."""
    protocol: Any = next(iter(e.state.sessions)).ws_connection  # type: ignore[attr-defined]
    unmask, sizes = protocol._unmask, []

    def counted(mask: bytes, data: bytes) -> bytes:
        sizes.append(len(data))
        return unmask(mask, data)  # type: ignore[no-any-return]

    protocol._unmask = counted
    return sizes


@pytest.mark.parametrize("word", ["hello", WIDE], ids=["short", "long"])
async def test_a_message_is_the_same_however_it_is_cut(word: str) -> None:
    rng = random.Random(1)
    data = create(word)
    async with running_server(max_message_size=len(data)) as e:
        raw = await open_raw(e)
        cuts = [[], [0], [1], [0, 0, 0], [len(data)], [rng.randrange(len(data) // 9) for _ in range(9)]]
        if len(data) > LARGE:
            cuts += [[1] * 200 + [LARGE], [PIECE - 1, PIECE + 1, PIECE]]
        for sizes in cuts:
            raw.writer.write(fragments(data, sizes))
            opcode, event, pongs = await after_pongs(raw)
            assert (opcode, json.loads(event)["type"]) == (1, "response.created")
            assert pongs >= (len(sizes) > 0)  # the newest ping is enough to answer
            await types_until(raw, 1)
            assert asked(e) == word


async def test_a_long_message_is_read_and_checked_in_pieces() -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        sizes = handling_of(e)
        data = create(WIDE)
        assert len(data) > 4 * PIECE > LARGE - 1
        raw.writer.write(masked(data))
        assert (await types_until(raw, 1))[-1] == "response.completed" and asked(e) == WIDE
        assert max(sizes) <= PIECE and sum(sizes) == len(data)


@pytest.mark.parametrize("cuts", [[], [1000]], ids=["whole", "fragments"])
@pytest.mark.parametrize("dense", [True, False])
async def test_a_message_full_of_values_is_read_in_steps(dense: bool, cuts: List[int]) -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        protocol: Any = next(iter(e.state.sessions)).ws_connection  # type: ignore[attr-defined]
        on_large_text, in_steps = protocol._on_large_text, []

        def counted(pieces: Any, size: int) -> Any:
            in_steps.append(size)
            return on_large_text(pieces, size)

        protocol._on_large_text = counted
        data = create("hello", unknown=[[]] * 200_000 if dense else "x" * 800_000)
        raw.writer.write(fragments(data, cuts))
        events = [(await after_pongs(raw))[1]]
        assert json.loads(events[0])["type"] == "response.created" and (await types_until(raw, 1))
        assert in_steps == ([len(data)] if dense else [])


@pytest.mark.parametrize("text", ["[1]", "{", '{"type":"response.create","input":"' + "x" * LARGE + '"'])
async def test_an_unreadable_message_is_an_error_that_keeps_the_connection(text: str) -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        for blanks in (0, LARGE):
            raw.writer.write(masked(text.encode() + b" " * blanks))
            opcode, event = await read_frame(raw)
            assert "message" in refusal(json.loads(event), 400)
        raw.writer.write(masked(b" " * LARGE + create("hello")))
        assert (await types_until(raw, 1))[-1] == "response.completed"


@pytest.mark.parametrize("size", [3, LARGE + 3])
async def test_binary_messages_are_refused_whatever_their_size(size: int) -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        raw.writer.write(masked(b"\xff" * size, 2))
        assert "Binary" in refusal(json.loads((await read_frame(raw))[1]), 400)
        raw.writer.write(masked(create("hello")))
        assert (await types_until(raw, 1))[-1] == "response.completed"


X = b"x" * (LARGE + PIECE)


@pytest.mark.parametrize(
    "frames",
    [
        masked(b'{"a":"\xff"}'),
        masked(b"\xe2\x82"),  # not complete
        masked(b"\xed\xa0\x80"),  # a surrogate
        masked(X + b"\xff"),  # behind what is not JSON
        masked(b"\xff" + X),
        masked(X + b"\xff" + X),
        masked(X + b"\xe2\x82"),
        fragments(b"\xe2\x82", [1]),
        masked(b"\xff", fin=False),  # at once
    ],
)
async def test_a_text_that_is_not_utf8_closes_the_connection(frames: bytes) -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        raw.writer.write(frames)
        opcode, reason, _ = await after_pongs(raw)
        assert opcode == 8 and reason.startswith(struct.pack("!H", 1007)) and b"UTF-8" in reason


@pytest.mark.parametrize("frames", [masked(b"{}", 0), masked(b"{", fin=False) + masked(b"{}")])
async def test_frames_out_of_order_close_the_connection(frames: bytes) -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        raw.writer.write(frames)
        opcode, reason = await read_frame(raw)
        assert opcode == 8 and reason.startswith(struct.pack("!H", 1002))


async def test_the_fragments_of_a_message_have_one_limit() -> None:
    async with running_server(max_message_size=3 * PIECE) as e:
        raw = await open_raw(e)
        raw.writer.write(
            masked(b"x" * 2 * PIECE, fin=False) + masked(b"x" * PIECE, 0, False) + masked(b"x", 0)
        )
        opcode, reason = await read_frame(raw)
        assert opcode == 8 and reason.startswith(struct.pack("!H", 1009))
