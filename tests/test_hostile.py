"""What ``scripts/faults`` and ``scripts/soak`` judge with: a wrong end is noticed, and so is what grows."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import hostile
import pytest
from hostile import FORMS, Turn, Wrong, create, ended, exchange, garbled, parsed, request_bytes
from observed import ResourceUsage, observed, slope
from rawserver import Peer, RawServer

sys.path.append(str(Path(__file__).resolve().parent / "faults"))

from providers import check

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{"'
WHOLE = len(FORMS["chunked"].data)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_when_it_is_complete(form: str) -> None:
    good = FORMS[form]
    assert 0 < good.enough <= len(good.data)
    assert len(garbled(good.data, 5)) == len(good.data) and garbled(good.data, 5) != good.data


@pytest.mark.parametrize(
    "position, turn, wrong",
    [
        (WHOLE, Turn("completed", "Hello world"), ""),
        (WHOLE - 1, Turn("failed", "Hello world"), ""),
        (200, Turn("failed", "Hello"), ""),
        (200, Turn("failed", "Hellish"), "told"),
        (200, Turn("completed", "Hello world"), "completed"),
        (WHOLE, Turn("completed", "Hello"), "completed"),
        (WHOLE, Turn("failed", "Hello world"), "whole"),
    ],
)
def test_the_right_end_of_a_cut_answer(position: int, turn: Turn, wrong: str) -> None:
    if wrong:
        with pytest.raises(Wrong, match=wrong):
            check("cut", "chunked", position, turn)
    else:
        check("cut", "chunked", position, turn)


@pytest.mark.parametrize(
    "data, wrong",
    [
        (b"", "without an answer"),
        (OK[:-1], "not a whole answer"),
        (b"nonsense", "not a whole answer"),
        (OK.replace(b"200 OK", b"500 Oh"), "a bug"),
        (OK.replace(b"2\r\n\r\n", b"16\r\n\r\n")[:-2] + b"because of a bug", "a bug"),
    ],
)
def test_answers_that_no_client_may_get(data: bytes, wrong: str) -> None:
    with pytest.raises(Wrong, match=wrong):
        parsed(data)
    with pytest.raises(Wrong):
        ended(data)


async def test_an_answer_that_does_not_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.wait_gone()

    async with RawServer(script).running() as server:
        with pytest.raises(hostile.Endless):
            await exchange(int(server.url.rpartition(":")[2]), request_bytes({}), patience=0.05)


def test_what_grows() -> None:
    before = ResourceUsage(10, 5, 1, 50.0, 60.0)
    assert before.grown(before, 0.0) == [] and ResourceUsage(9, 4, 1, 55.0, 99.0).grown(before, 8.0) == []
    grown = ResourceUsage(11, 6, 2, 59.0, 60.0).grown(before, 8.0)
    assert [text.split(":")[0] for text in grown] == ["fds", "sockets", "tasks", "RSS"]


def test_the_slope_of_a_line() -> None:
    assert slope([1.0, 2.0, 3.0, 4.0]) == pytest.approx(3.0)
    assert slope([5.0, 5.0, 5.0]) == 0.0 and slope([7.0]) == 0.0
    assert slope([1.0, 9.0, 1.0, 9.0, 1.0]) == pytest.approx(0.0)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")
async def test_a_process_tells_what_it_holds(tmp_path: Path) -> None:
    provider = RawServer(hostile.play)
    running = observed(tmp_path, "http://127.0.0.1:1", hostile.silence(5), hostile.CONFIG)
    async with provider.running(), running as rproxy:
        before = await rproxy.resource_usage()
        await exchange(rproxy.port, request_bytes(create("cut/chunked/9")))
        assert await rproxy.settled(before, 100.0) == []
        before = await rproxy.resource_usage()  # without the connection that saw whether the port is open
        assert before.tasks >= 1 and before.sockets >= 1 and 10 < before.rss <= before.peak
        reader, writer = await asyncio.open_connection("127.0.0.1", rproxy.port)
        try:
            while (await rproxy.resource_usage()).sockets == before.sockets:
                pass  # it has not been accepted yet
            grown = await rproxy.settled(before, 100.0, seconds=0.1)
            assert [text.split(":")[0] for text in grown][:2] == ["fds", "sockets"]
        finally:
            writer.close()
        assert await rproxy.settled(before, 100.0) == []
        answer = await exchange(rproxy.port, request_bytes(create("cut/chunked/9")))
        assert ended(answer) == Turn("error", "")
