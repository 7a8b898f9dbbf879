"""The speed-ups of the server: each is in place, changes nothing but the speed, and can be switched off."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import json
import os
import re
import socket
import subprocess
import sys
from typing import Any, AsyncIterator, Iterator

import pytest
import tornado.websocket
from rawserver import until
from running_server import Raw, played, running_server
from tornado import httputil
from tornado.iostream import IOStream
from tornado.util import _websocket_mask_python  # type: ignore[attr-defined]

from rproxy.errors import ConfigError
from rproxy.server import app
from rproxy.server.speedups import GC_THRESHOLDS, NAMES, SWITCH_INTERVAL, VARIABLE, enabled
from rproxy.server.tornado_patches import format_timestamp, format_timestamp_cached, patch_websocket, unmask
from rproxy.service.service import Service

# What differs between two answers: headers, times, and where the events are cut into HTTP chunks.
VARYING = re.compile(
    r"^(date|x-request-id|openai-processing-ms): .*\r\n|_at\":\d+|(?<=\n)\r\n[0-9a-f]+\r\n", re.M | re.I
)


@pytest.fixture
def stock_tornado(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tornado as it is before any patch, and without its C module."""
    monkeypatch.setattr(httputil, "format_timestamp", format_timestamp)
    monkeypatch.setattr(tornado.websocket, "_websocket_mask", _websocket_mask_python)
    monkeypatch.setitem(sys.modules, "tornado.speedups", None)
    yield


# ---- The same results


def test_dates_are_those_of_tornado() -> None:
    for when in (
        0,
        1.9,
        1763800000.5,
        (2026, 11, 22, 9, 0, 0, 6, 326, 0),
        datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc),
    ):
        assert format_timestamp_cached(when) == format_timestamp(when)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1001, 65537])
def test_frames_are_unmasked_as_tornado_does_it(size: int) -> None:
    mask, data = os.urandom(4), os.urandom(size)
    assert unmask(mask, data) == _websocket_mask_python(mask, data)


def leaves_nagle_on(server: Any) -> bool:
    """Does Tornado switch Nagle's algorithm for the only connection of this server, as it always does?"""
    (connection,) = server._connections
    return (
        connection.stream.set_nodelay.__func__ is IOStream.set_nodelay
        if hasattr(connection.stream.set_nodelay, "__func__")
        else False
    )


async def test_a_server_without_nagle_answers_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for unwanted in ("", "nodelay"):
        monkeypatch.setenv(VARIABLE, unwanted)
        async with running_server() as e:
            raw = await e.raw()
            await until(lambda: e.server._connections)
            assert leaves_nagle_on(e.server) is bool(unwanted)
            for body in (
                {"model": "m", "input": "hello"},
                {"model": "m", "input": "count 3", "stream": True},
                {"model": "m", "input": "refuse"},
                {"model": "m", "input": "hello"},
            ):
                data = json.dumps(body).encode()
                length = f"Content-Length: {len(data)}"
                raw.send("POST /responses HTTP/1.1", "Host: localhost", length, body=data)
            raw.send("GET /health HTTP/1.1", "Host: localhost", "Connection: close")
            answers.append(VARYING.sub("", (await raw.rest()).decode()))
    assert answers[0] == answers[1] and answers[0].count("HTTP/1.1 200") == 4


# ---- In their places


async def server_side(raw: Raw, servers: Any) -> socket.socket:
    """The server's socket of a connection."""
    wanted = raw.writer.get_extra_info("sockname")
    (found,) = (c.stream.socket for c in servers._connections if c.stream.socket.getpeername() == wanted)
    return found  # type: ignore[no-any-return]


async def test_dates_are_cached_in_a_running_server(stock_tornado: None) -> None:
    async with running_server():
        assert httputil.format_timestamp is format_timestamp_cached


async def test_without_the_c_module_a_running_server_unmasks_fast(stock_tornado: None) -> None:
    async with running_server() as e:
        ws = await e.ws()
        assert tornado.websocket._websocket_mask is unmask  # type: ignore[attr-defined]
        ws.write_message(json.dumps({"type": "response.create", "model": "m", "input": "hello"}))
        assert json.loads(str(await ws.read_message()))["type"] == "response.created"


def test_the_c_module_is_not_replaced() -> None:
    pytest.importorskip("tornado.speedups")
    patch_websocket()
    assert tornado.websocket._websocket_mask is not unmask  # type: ignore[attr-defined]


async def test_nagle_stays_off_between_two_requests_and_while_one_is_answered() -> None:
    async with running_server() as e:
        raw = await e.raw()
        for _ in range(2):
            raw.send("GET /health HTTP/1.1", "Host: localhost")
            await raw.answer()
            sock = await server_side(raw, e.server)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Service]:
    """A server under :func:`rproxy.server.app.run`."""
    opened = asyncio.Event()
    async with played() as (settings, service, _):
        task = asyncio.ensure_future(
            app.run(settings, service, load=lambda: settings, ready=lambda url: opened.set())
        )
        await asyncio.wait_for(opened.wait(), 5)
        try:
            yield service
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_the_garbage_collector_leaves_the_running_server_alone() -> None:
    before = gc.get_threshold()
    async with running() as service:
        assert gc.get_threshold() == GC_THRESHOLDS != before
        # What exists when the port is open is no longer collected, the application's state included.
        seen = {id(thing) for thing in gc.get_objects()}
        assert id(service) not in seen and gc.get_freeze_count() > 0
        assert not [thing for thing in gc.get_objects() if type(thing) is app.AppState]
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0


async def test_the_event_loop_has_the_interpreter_back_soon_while_a_thread_works() -> None:
    before = sys.getswitchinterval()
    async with running():
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL) and before > SWITCH_INTERVAL
    assert sys.getswitchinterval() == before


# ---- Switched off


def test_the_switch() -> None:
    assert [name for name in NAMES if enabled(name, {})] == list(NAMES)
    assert [name for name in NAMES if enabled(name, {VARIABLE: "dates, gc"})] == [
        "unmask",
        "nodelay",
        "threads",
        "malloc",
        "bodies",
    ]
    assert not any(enabled(name, {VARIABLE: "all"}) for name in NAMES)
    with pytest.raises(ConfigError, match="unknown speed-up 'fast'; known: dates,"):
        enabled("gc", {VARIABLE: "gc,fast"})


async def test_a_server_without_speedups(stock_tornado: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "all")
    before, interval = gc.get_threshold(), sys.getswitchinterval()
    async with running_server() as e:
        await e.raw()
        await until(lambda: e.server._connections)
        assert leaves_nagle_on(e.server) and httputil.format_timestamp is format_timestamp
        await e.ws()
        assert tornado.websocket._websocket_mask is _websocket_mask_python  # type: ignore[attr-defined]
    async with running():
        assert gc.get_threshold() == before and gc.get_freeze_count() == 0
        assert sys.getswitchinterval() == interval


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_large_blocks_of_memory_are_mapped() -> None:
    """A fresh process: how far the heap grows when a large block was freed before."""
    script = """
import sys
from rproxy.cooperative import large_values
from rproxy.server.speedups import mapped_blocks
with mapped_blocks():
    assert "ctypes" not in sys.modules
    large_values.begin()
    text = "x" * (20 << 20)
    del text  # from now on glibc would take such blocks from its heap
    held = ["x" * (8 << 20) for _ in range(4)]
maps = open("/proc/self/maps").read().splitlines()
heap = next((line.split()[0].split("-") for line in maps if line.endswith("[heap]")), ("0", "0"))
print(int(heap[1], 16) - int(heap[0], 16))
"""
    sizes = [
        int(
            subprocess.run(
                [sys.executable, "-c", script],
                env={**os.environ, "RPROXY_NO_SPEEDUPS": off},
                capture_output=True,
                check=True,
            ).stdout
        )
        for off in ("", "malloc")
    ]
    assert sizes[0] < 24 << 20 < 32 << 20 <= sizes[1]
