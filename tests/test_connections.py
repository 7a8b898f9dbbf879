"""The limits on connections of clients: how many, how long without a request, with half of one, and with an
answer that nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, AsyncIterator, Callable, List, Mapping, NamedTuple

import pytest
from api import Api
from rawserver import OK, Peer, RawServer, standstill, until
from running_server import Raw, RunningServer, running_server
from scripted import CONFIG, KEY, ScriptedProvider, free_port, gate, say
from wsclient import create, masked, open_raw

from rproxy.convert.events.converter import StreamConverter
from rproxy.server import connections
from rproxy.server.connections import ClientServer
from rproxy.server.descriptors import MIN_CONNECTIONS, RESERVE, max_connections, max_provider_connections
from rproxy.service.turn import Turn
from rproxy.upstream.http_client import PooledHTTPClient
from rproxy.upstream.os_errors import connect_error

DEAF: List[socket.socket] = []  # the clients of :func:`deaf`
HEALTH = ("GET /health HTTP/1.1", "Host: localhost")


on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def server_of(e: RunningServer) -> ClientServer:
    assert isinstance(e.server, ClientServer)
    return e.server


@contextlib.asynccontextmanager
async def limited(header: float = 600.0, **server: Any) -> AsyncIterator[RunningServer]:
    """A server that waits for headers for ``header`` seconds."""
    async with running_server(**server) as e:
        server_of(e).limits = server_of(e).limits._replace(header=header)
        try:
            yield e
        finally:
            while DEAF:
                DEAF.pop().close()


async def healthy(raw: Raw) -> bool:
    raw.send(*HEALTH)
    return (await raw.answer())[0] == 200


# ---- Without a request


async def test_a_connection_without_a_request_ends_and_one_with_a_request_does_not() -> None:
    async with limited(idle_timeout=0.2) as e:
        new, kept, busy, ws = await e.raw(), await e.raw(), await e.raw(), await e.ws()
        assert await healthy(kept)
        busy.send(
            "POST /responses HTTP/1.1", "Host: localhost", "Content-Length: 30", body=b'{"model": "m", '
        )
        assert await new.rest() == b"" and await kept.rest() == b""
        busy.writer.write(b'"input":"gate"}')
        await until(lambda: e.provider.running)
        assert len(server_of(e).streams) == 2
        await swept(e, 3)
        e.provider.gate.set()
        assert (await busy.answer())[0] == 200
        assert await busy.rest() == b""  # it has become idle
        ws.write_message('{"type": "response.steer"}')
        assert "steer" in str(await ws.read_message())


async def swept(e: RunningServer, times: int) -> None:
    """Wait until the server has looked at its connections so often."""
    for _ in range(times):
        before = server_of(e)._sweeper
        await until(lambda before=before: server_of(e)._sweeper not in (None, before))


async def test_each_request_gives_a_connection_its_whole_time_again() -> None:
    async with limited(idle_timeout=0.4) as e:
        raw = await e.raw()
        for _ in range(8):  # 0.8 s in all
            assert await healthy(raw)
            await swept(e, 1)
        assert await raw.rest() == b""


# ---- Half of the headers

HALF = b"GET /health HTTP/1.1\r\nHost: local"
WHOLE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
NO_BODY = b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
REFUSED = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("before", [b"", WHOLE], ids=["new", "kept"])
@pytest.mark.parametrize("drip", [False, True])
async def test_unfinished_headers_end_a_connection(before: bytes, drip: bool) -> None:
    async with limited(header=0.3) as e:
        raw, other = await e.raw(), await e.raw()
        raw.writer.write(before + HALF)  # in one segment, so that they are read together
        if before:
            assert (await raw.answer())[0] == 200
        while drip and not raw.reader.at_eof():
            with contextlib.suppress(ConnectionError):
                raw.writer.write(b"l")
            await asyncio.sleep(0.02)
        assert await raw.rest() == b""
        assert await healthy(other)


async def test_headers_that_come_slowly_are_read() -> None:
    async with limited() as e:
        raw = await e.raw()
        for byte in WHOLE:
            raw.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await raw.answer())[0] == 200


# ---- How many


@pytest.mark.parametrize(
    "sent", [b"", HALF, NO_BODY, REFUSED], ids=["nothing", "half a head", "no body", "refused"]
)
async def test_idle_connections_make_room_and_busy_ones_do_not(
    sent: bytes, expect_log: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that nobody needs for a request; here, none ends because its time is up."""
    monkeypatch.setattr("rproxy.server.http.DISCARD_TIMEOUT", 600.0)
    expect_log("4 connections are open")
    monkeypatch.setattr(connections, "RECLAIM_INTERVAL", 0.05)
    monkeypatch.setattr(connections, "RECLAIM_AFTER", 0.1)
    async with limited(max_connections=4) as e:
        busy = [await e.raw() for _ in range(3)]
        for raw in busy:
            raw.send(
                "POST /responses HTTP/1.1", "Host: localhost", "Content-Length: 30", body=b'{"model": "m", '
            )
            raw.writer.write(b'"input":"gate"}')
        await until(lambda: e.provider.running == 3)
        idle = [await e.raw() for _ in range(10)]
        for raw in idle:
            raw.writer.write(sent)
        assert await healthy(await e.raw())
        assert len(server_of(e).streams) <= 4
        rests = [await raw.rest() for raw in idle]
        assert all(rest == b"" or sent == REFUSED and b"404" in rest for rest in rests)
        e.provider.gate.set()
        assert [(await raw.answer())[0] for raw in busy] == [200] * 3


async def test_a_request_waits_while_all_connections_are_busy(expect_log: Callable[..., Any]) -> None:
    expect_log("1 connections are open")
    async with limited(max_connections=1) as e:
        busy, waiting = await e.raw(), await e.raw()
        busy.send(
            "POST /responses HTTP/1.1",
            "Host: localhost",
            "Content-Length: 30",
            body=b'{"model": "m", "input":"gate"}',
        )
        await until(lambda: e.provider.running)
        answer = asyncio.ensure_future(healthy(waiting))
        await swept(e, 3)
        assert not answer.done() and len(server_of(e).streams) == 1
        busy.cut()
        assert await answer


def test_the_default_leaves_a_descriptor_for_each_provider() -> None:
    assert max_connections(100) == (100 - RESERVE) // 2
    assert max_connections(10) == MIN_CONNECTIONS
    assert max_connections(None) > 10_000
    assert max_connections(100) + max_provider_connections(100, max_connections(100)) + RESERVE == 100
    assert max_provider_connections(100, 90) == (100 - RESERVE) // 2
    assert max_provider_connections(10, 4) == MIN_CONNECTIONS


# ---- No file descriptor left


async def test_without_descriptors_the_server_waits_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[..., Any], log_guard: Any
) -> None:
    expect_log("cannot accept connections for a moment: Too many open files")
    monkeypatch.setattr(connections, "PAUSE", 0.3)
    async with limited() as e:
        raws = [await e.raw() for _ in range(2)]
        assert await healthy(raws[0])
        fds: List[int] = []
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 3, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fds.append(os.dup(0))
            os.close(fds.pop())
            client = socket.socket()
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(("127.0.0.1", e.port))
            await until(lambda: log_guard.records)
            await until(lambda: not server_of(e)._paused_until)
            await until(lambda: server_of(e)._paused_until)  # once more, without a word
            assert await healthy(raws[1])  # who is connected notices nothing
        finally:
            for fd in fds:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await asyncio.get_running_loop().sock_recv(client, 100)
        assert answer.startswith(b"HTTP/1.1 200")
        client.close()
        assert len(log_guard.records) == 1


async def test_a_pause_lasts_its_second(
    monkeypatch: pytest.MonkeyPatch, expect_log: Callable[..., Any]
) -> None:
    """Sweeps come more often; each accepting that fails costs time."""
    expect_log("cannot accept connections for a moment")
    monkeypatch.setattr(connections, "RECLAIM_INTERVAL", 0.01)
    async with limited() as e:
        server, loop = server_of(e), asyncio.get_running_loop()
        paused = loop.time()
        server._pause(OSError(errno.EMFILE, "Too many open files"))
        waiting = asyncio.ensure_future(e.raw())
        await until(lambda: server._accepting)
        assert loop.time() - paused >= 1
        assert await healthy(await waiting)


@contextlib.asynccontextmanager
async def few_descriptors(folder: Path, provider: ScriptedProvider) -> AsyncIterator[Few]:
    """``rproxy serve`` with an sqlite store, under ``ulimit -n 100``."""
    port, log, config = free_port(), folder / "log", folder / "c.yaml"
    store = f"store: {{{{kind: sqlite, path: '{folder / 'r.db'}'}}}}\n"
    server = "  retries: 0\n"
    config.write_text((CONFIG + store).format(port=port, base_url=provider.base_url, server=server))
    command = f'ulimit -n 100; exec {sys.executable} -m rproxy serve --config "{config}"'
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_shell(
            command, stdout=file, stderr=file, env={**os.environ, "SCRIPTED_KEY": KEY}
        )
    try:
        await until(lambda: b"http://" in log.read_bytes())
        yield Few(process.pid, port, log)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        await provider.close()


class Few(NamedTuple):
    """A process with few file descriptors."""

    pid: int
    port: int
    log: Path

    async def ask(self, stream: bool) -> bytes:
        """One turn on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps({"model": "gpt-5.5", "input": "x", "stream": stream}).encode()
        head = f"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return answer


@on_linux
@pytest.mark.parametrize("sent", [b"", NO_BODY], ids=["nothing", "no body"])
async def test_a_process_with_few_descriptors_survives_idle_clients(tmp_path: Path, sent: bytes) -> None:
    provider = ScriptedProvider()
    provider.turns += [[say("hello")]] * 2
    async with few_descriptors(tmp_path, provider) as few:
        used, started = cpu_time(few.pid), time.monotonic()
        with contextlib.ExitStack() as idle:
            for _ in range(180):
                client = socket.create_connection(("127.0.0.1", few.port))
                idle.enter_context(contextlib.closing(client)).sendall(sent)
            for stream in (False, True):
                answer = await few.ask(stream)
                assert answer.startswith(b"HTTP/1.1 200") and b"hello" in answer
        assert cpu_time(few.pid) - used < 0.5 * (time.monotonic() - started) + 0.3
        assert len(few.log.read_bytes()) < 10_000


@on_linux
async def test_more_turns_than_descriptors_are_all_answered(tmp_path: Path) -> None:
    provider, no_more = ScriptedProvider(), asyncio.Event()
    provider.turns += [[gate(no_more), say("hello")]] * 150
    async with few_descriptors(tmp_path, provider) as few:
        asking = asyncio.gather(*(few.ask(stream=bool(n % 2)) for n in range(150)))
        await until(lambda: provider.requests)
        assert await standstill(lambda: len(provider.requests)) < 150
        no_more.set()
        answers = await asking
        assert {answer.split(b"\r\n", 1)[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
        assert all(b"hello" in answer and b"response.failed" not in answer for answer in answers)
        assert b"ERROR" not in few.log.read_bytes()


@on_linux
async def test_background_turns_beyond_the_descriptors_wait_for_one(tmp_path: Path) -> None:
    provider, begun = ScriptedProvider(), asyncio.Event()
    provider.turns += [[gate(begun), say("hello")]] * 120
    async with few_descriptors(tmp_path, provider) as few:
        api = Api(f"http://127.0.0.1:{few.port}/v1")
        asked = {"model": "gpt-5.5", "input": "x", "background": True}
        made = await asyncio.gather(*(api("POST", "/responses", asked) for _ in range(120)))
        begun.set()
        ended = [await api.until(one["id"], "completed", "failed", seconds=60) for one in made]
        assert {one["status"] for one in ended} == {"completed"}


async def test_an_idle_connection_to_a_provider_makes_room() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK)

    async with RawServer(script).running() as one, RawServer(script).running() as two:
        client = PooledHTTPClient(force_instance=True, max_open=1)
        for server in (one, two, one):
            assert (await client.fetch(server.url)).code == 200
        assert [len(server.peers) for server in (one, two)] == [2, 1]
        client.close()
        error = connect_error(OSError(errno.EMFILE, "Too many open files"), "lab", "http://x")
        assert error.status == 503 and "lab: rproxy has no file descriptor left" in error.message
        assert "ulimit -n" in error.message and error.retryable


def cpu_time(pid: int) -> float:
    """The seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- A client that leaves at once


async def test_a_client_that_resets_its_connection_with_its_request_leaves_no_turn() -> None:
    """Uvloop announces both once."""
    async with running_server() as e:
        sock = socket.create_connection(("127.0.0.1", e.port))
        await until(lambda: server_of(e).streams)  # accepted
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        body = json.dumps({"model": "m", "input": "wait"}).encode()
        head = f"POST /responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        sock.close()  # the event loop finds both
        await until(lambda: not server_of(e).streams)
        await until(lambda: not e.state.turns and not e.provider.running)


# ---- A client that does not read


async def deaf(
    e: RunningServer, path: str = "/responses", headers: Mapping[str, str] = {}, **fields: Any
) -> socket.socket:
    """A client that asks and never reads."""
    body = json.dumps({"model": "m", "input": "flood", **fields}).encode()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", e.port))
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, "", ""]).encode()
    await asyncio.get_running_loop().sock_sendall(sock, head + body)
    DEAF.append(sock)
    return sock


async def deaf_ws(e: RunningServer, word: str) -> socket.socket:
    """The same over a WebSocket."""
    raw = await open_raw(e)
    sock: socket.socket = raw.writer.get_extra_info("socket")
    raw.reader._limit = 1  # type: ignore[attr-defined]  # the client's own library stops reading, too
    raw.writer.write(masked(create(word)))
    return sock


@pytest.mark.parametrize("kind", ["sse", "json", "ws", "chat"])
async def test_a_client_that_does_not_read_is_given_up_and_so_is_its_turn(kind: str) -> None:
    async with limited(write_timeout=0.4) as e:
        if kind == "ws":
            await deaf_ws(e, "flood")
        elif kind == "chat":
            await deaf(e, "/chat/completions", messages=[{"role": "user", "content": "flood"}], stream=True)
        elif kind == "sse":
            await deaf(e, stream=True)
        else:
            await deaf(e, input="hello", instructions="x" * (16 << 20))
        await until(lambda: e.provider.requests)
        await until(lambda: not server_of(e).streams)
        await until(lambda: e.provider.cancelled == (kind != "json"))
        await until(lambda: not e.state.turns)


async def test_a_client_that_reads_slowly_is_not_given_up() -> None:
    async with limited(write_timeout=0.4) as e:
        sock = await deaf(e, stream=True)
        looking = asyncio.ensure_future(swept(e, 12))  # 1.2 s
        while not looking.done():
            with contextlib.suppress(BlockingIOError):
                sock.recv(1 << 18)
            await asyncio.sleep(0.01)
        assert len(server_of(e).streams) == 1 and e.provider.running
        sock.close()


async def test_others_still_get_the_turn_of_a_client_that_is_given_up() -> None:
    async with limited(write_timeout=0.4) as e:
        key = {"Idempotency-Key": "k"}
        asked = {"input": "count 20000", "stream": True}
        await deaf(e, headers=key, **asked)
        await until(lambda: e.provider.running)
        answer = await e.fetch("/responses", {"model": "m", **asked}, headers=key, request_timeout=60)
        assert b"19999" in answer.body and b"response.completed" in answer.body
        assert len(e.provider.requests) == 1 and not e.provider.cancelled


async def test_a_background_response_goes_on_without_its_reader() -> None:
    async with limited(write_timeout=0.4) as e:
        await deaf(e, input="count 20000", stream=True, background=True)
        await until(lambda: e.provider.running)
        await until(lambda: not server_of(e).streams)
        await until(lambda: not e.provider.running)
        assert not e.provider.cancelled and e.provider.sent == 20000


@pytest.mark.parametrize("ws", [False, True])
async def test_heartbeats_do_not_pile_up(ws: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: List[int] = []
    beats: List[int] = []
    look, heartbeat = Turn._beat, StreamConverter.heartbeat
    monkeypatch.setattr(Turn, "_beat", lambda self: looks.append(1) or look(self))
    monkeypatch.setattr(StreamConverter, "heartbeat", lambda self: beats.append(1) or heartbeat(self))
    async with limited(heartbeat_interval=0.02) as e:
        await (deaf_ws(e, "flood") if ws else deaf(e, stream=True))
        await until(lambda: e.provider.sent > 3)
        await standstill(lambda: e.provider.sent)
        (stream,) = server_of(e).streams
        assert stream.writing()
        beats.clear()
        looks.clear()
        await until(lambda: len(looks) > 5)
        assert not beats
        stream.close()


async def test_a_heartbeat_does_not_repeat_the_request() -> None:
    responses = pytest.importorskip("openai.types.responses")
    async with limited(heartbeat_interval=0.02) as e:
        raw = await e.raw()
        fields = {
            "instructions": "x" * 100_000,
            "text": {
                "format": {"type": "json_schema", "name": "n", "schema": {"description": "x" * 100_000}}
            },
            "tools": [{"type": "function", "name": "f", "description": "x" * 100_000, "parameters": {}}],
            "metadata": {"a": "x" * 500},
        }
        body = json.dumps({"model": "m", "input": "begin", "stream": True, **fields}).encode()
        raw.send("POST /responses HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", body=body)
        events: List[Any] = []
        while [event["type"] for event in events].count("response.in_progress") < 4:
            line = await raw.reader.readline()
            if line.startswith(b"data: "):
                events.append(json.loads(line[6:]))
        first, *beats = [event["response"] for event in events if event["type"] == "response.in_progress"]
        assert first["instructions"] == fields["instructions"] and len(first["tools"]) == 1
        assert all(len(json.dumps(beat)) < 2000 and beat.keys() == first.keys() for beat in beats)
        assert all(responses.Response.model_validate(beat) for beat in beats)
        raw.cut()


async def test_a_head_that_makes_no_sense_gets_its_answer_whatever_is_behind_it() -> None:
    async with running_server() as e:
        raw = await e.raw()
        with socket.create_connection(raw.writer.get_extra_info("peername")) as client:
            head = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nNonsense\r\n\r\n"
            client.sendall(head + b"x" * 50_000)
            poll = select.poll()
            poll.register(client, select.POLLRDHUP)
            await until(lambda: poll.poll(0))  # closed: bytes that nobody has read would reset the connection
            assert client.recv(100) == b"HTTP/1.1 400 Bad Request\r\n\r\n" and client.recv(100) == b""
