"""Several processes behind the balancers of etc/, with the files as they are shipped; and several on one
port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, List, Optional
from urllib.parse import urlsplit

import pytest
from api import Api
from forkserver import rproxy_command
from grammar import check_sse
from rawserver import until
from scripted import (
    CONFIG,
    END_TIMEOUT,
    KEY,
    ROOT,
    Running,
    ScriptedProvider,
    free_port,
    gate,
    listening,
    running,
    say,
)
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, websocket_connect

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=90)

HI: Json = {"model": "gpt-5.5", "input": "hi"}
SLOW: Json = {"model": "gpt-5.5", "input": "slowly", "stream": True}
MAIN = """\
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{ }}
http {{ access_log off;
{temp}
{site}
}}
"""
TEMP = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def with_ports(text: str, port: int, servers: List[Running]) -> str:
    """A shipped file, with the ports of this test."""
    for number, server in enumerate(servers, 3001):
        assert f"127.0.0.1:{number}" in text
        text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{server.port}")
    return text.replace("listen 3000;", f"listen 127.0.0.1:{port};").replace(
        "bind :3000", f"bind 127.0.0.1:{port}"
    )


def nginx(binary: str, folder: Path, port: int, servers: List[Running]) -> List[str]:
    site = with_ports((ROOT / "etc" / "nginx.conf").read_text(), port, servers)
    temp = " ".join(f"{name}_temp_path {folder}/{name};" for name in TEMP)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, temp=temp, site=site))
    command = [binary, "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0 and "warn" not in checked.stderr, checked.stderr
    return command


def haproxy(binary: str, folder: Path, port: int, servers: List[Running]) -> List[str]:
    text = with_ports((ROOT / "etc" / "haproxy.cfg").read_text(), port, servers)
    (folder / "haproxy.cfg").write_text(text)
    checked = subprocess.run(
        [binary, "-c", "-f", str(folder / "haproxy.cfg")], capture_output=True, text=True
    )
    assert checked.returncode == 0 and "WARNING" not in checked.stderr, checked.stderr
    limited = 'ulimit -n 1024; exec "$@"'  # a limit that is common outside of systemd
    return ["sh", "-c", limited, "haproxy", binary, "-f", str(folder / "haproxy.cfg"), "-db"]


BALANCERS: Dict[str, Callable[[str, Path, int, List[Running]], List[str]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
}


@contextlib.asynccontextmanager
async def balanced(name: str, folder: Path, servers: List[Running]) -> AsyncIterator[Api]:
    """A client of the balancer in front of the servers."""
    binary = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if binary is None:
        pytest.skip("there is no " + name)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *BALANCERS[name](binary, folder, port, servers), stderr=subprocess.DEVNULL
    )
    try:
        await listening(port, process)
        yield Api(f"http://127.0.0.1:{port}/v1")
    finally:
        process.terminate()
        await process.wait()


def is_slow(body: Json) -> bool:
    return bool(body["messages"][-1]["content"] == "slowly")


def answers(may_end: asyncio.Event) -> Callable[[Json], Optional[List[Json]]]:
    return lambda body: [say("a "), gate(may_end), say("b")] if is_slow(body) else [say("yes")]


async def socket_of(api: Api) -> WebSocketClientConnection:
    return await websocket_connect(api.base_url.replace("http:", "ws:") + "/responses")


async def turn_on(ws: WebSocketClientConnection) -> Json:
    await ws.write_message(json.dumps({"type": "response.create", **HI}))
    while True:
        message = await ws.read_message()
        assert message is not None, "closed"
        event: Json = json.loads(message)
        if event["type"] == "response.completed":
            return event


@pytest.mark.parametrize("name", sorted(BALANCERS))
async def test_a_process_that_is_stopped_loses_nothing(tmp_path: Path, name: str) -> None:
    provider, may_end = ScriptedProvider(), asyncio.Event()
    provider.aside = answers(may_end)
    for folder in ("a", "b", "balancer"):
        (tmp_path / folder).mkdir()
    async with running(tmp_path / "b", provider.base_url) as b:
        with contextlib.suppress(ProcessLookupError):  # when the context ends, a has ended already
            async with (
                running(tmp_path / "a", provider.base_url) as a,
                balanced(name, tmp_path / "balancer", [a, b]) as api,
            ):
                await stop_one(api, a, b, provider, may_end)
    await provider.close()


async def stop_one(
    api: Api, a: Running, b: Running, provider: ScriptedProvider, may_end: asyncio.Event
) -> None:
    sockets = [await socket_of(api) for _ in range(4)]
    assert all([(await turn_on(ws))["response"]["status"] == "completed" for ws in sockets])
    for _ in range(4):
        await api("POST", "/responses", HI)  # there are kept connections to both now
    slow = [asyncio.ensure_future(api.raw("POST", "/responses", SLOW)) for _ in range(6)]
    await until(lambda: sum(map(is_slow, provider.requests)) == len(slow))
    a.process.terminate()
    codes = await close_codes(sockets)
    assert 1012 in codes and None in codes  # those of a are closed with "restart", those of b go on
    for _ in range(30):
        assert (await api("POST", "/responses", HI))["status"] == "completed"
    sockets.append(await socket_of(api))
    assert (await turn_on(sockets[-1]))["response"]["status"] == "completed"
    for ws in sockets:
        ws.close()
    may_end.set()
    for status, body in await asyncio.gather(*slow):
        assert status == 200 and check_sse(body)["output"][0]["content"][0]["text"] == "a b"
    assert await asyncio.wait_for(a.process.wait(), END_TIMEOUT) == 0
    assert a.log.read_text().count("turn ") >= 5 and b.log.read_text().count("turn ") >= 35, (
        "the balancer did not use both"
    )


async def close_codes(sockets: List[WebSocketClientConnection]) -> List[Optional[int]]:
    """The code with which the server has closed each of the connections; None for one that still answers."""
    reads = [asyncio.ensure_future(_read(ws)) for ws in sockets]
    await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)  # the server has begun to stop
    for ws in sockets:
        with contextlib.suppress(WebSocketClosedError):
            await ws.write_message(json.dumps({"type": "response.create", **HI}))
    messages = await asyncio.gather(*reads)
    return [ws.close_code if message is None else None for ws, message in zip(sockets, messages)]


async def _read(ws: WebSocketClientConnection) -> Any:
    return await ws.read_message()


# ---- Restarts


async def started(folder: Path, base_url: str, port: int, *options: str, server: str = "") -> Running:
    """A process on this port that answers."""
    os.makedirs(folder, exist_ok=True)
    config, log = folder / "config.yaml", folder / "log"
    config.write_text(CONFIG.format(port=port, base_url=base_url, server=server))
    command = rproxy_command("serve", "--config", str(config), *options)
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=str(ROOT), env=dict(os.environ, SCRIPTED_KEY=KEY), stdout=out, stderr=out
        )
    await until(lambda: b"rproxy " in log.read_bytes() or process.returncode is not None)
    assert process.returncode is None, log.read_text()
    return Running(process, port, log)


async def stopped(server: Running) -> None:
    if server.process.returncode is None:
        server.process.terminate()
    assert await asyncio.wait_for(server.process.wait(), END_TIMEOUT) == 0


class Load:
    """Clients that send turn after turn on a connection of their own: in turns a small one, and one of 33 KB
    as Codex sends it.
    """

    def __init__(self, api: Api, clients: int) -> None:
        self.done = 0
        self.failures: List[str] = []
        self._stop = False
        self._tasks = [asyncio.ensure_future(self._client(api.base_url)) for _ in range(clients)]

    async def _client(self, base_url: str) -> None:
        url = urlsplit(base_url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        while not self._stop:
            for text in ("hi", "x" * 33_000):
                body = json.dumps({**HI, "input": text, "stream": True}).encode()
                head = (
                    f"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                self.done += 1
                answer = b""
                try:
                    writer.write(head.encode() + body)
                    answer = await reader.readuntil(b"\r\n0\r\n\r\n")
                except (OSError, asyncio.IncompleteReadError) as error:
                    answer = getattr(error, "partial", b"")
                if not answer.startswith(b"HTTP/1.1 200 ") or b"event: response.completed" not in answer:
                    self.failures.append(f"{len(body)} bytes: {answer[:200]!r}")
                    reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.close()

    async def ended(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


async def roll(servers: List[Running], load: Load, provider: ScriptedProvider, server: str) -> None:
    """Restart one after the other, each when the one before has turns again.

    A slow answer keeps each of them draining while the clients go on.
    """
    for index, former in enumerate(servers):
        may_end = asyncio.Event()
        provider.aside = answers(may_end)
        slow = asyncio.ensure_future(Api(former.base_url).raw("POST", "/responses", SLOW))
        await until(lambda: any(map(is_slow, provider.requests)))
        provider.requests = [body for body in provider.requests if not is_slow(body)]
        former.process.terminate()
        await until(lambda log=former.log: "waiting up to" in log.read_text())  # type: ignore[misc]
        goal = load.done + 40
        await until(lambda goal=goal: load.done >= goal)  # type: ignore[misc]
        may_end.set()
        assert (await slow)[0] == 200 and await asyncio.wait_for(former.process.wait(), END_TIMEOUT) == 0
        fresh = await started(former.log.parent, provider.base_url, former.port, server=server)
        servers[index] = fresh
        await until(lambda log=fresh.log: log.read_text().count("turn ") > 5)  # type: ignore[misc]


@pytest.mark.parametrize("name, server", [("nginx", ""), ("haproxy", "  drain_delay: 3\n")])
async def test_a_rolling_restart_under_load_loses_no_request(tmp_path: Path, name: str, server: str) -> None:
    provider = ScriptedProvider()
    provider.aside = answers(asyncio.Event())
    (tmp_path / "balancer").mkdir()
    servers = [
        await started(tmp_path / folder, provider.base_url, free_port(), server=server) for folder in "ab"
    ]
    try:
        async with balanced(name, tmp_path / "balancer", servers) as api:
            load = Load(api, clients=8)
            await until(lambda: load.done > 40)
            await roll(servers, load, provider, server)
            await load.ended()
            assert load.failures == []
            assert len(provider.requests) == load.done  # and none was sent twice
    finally:
        for one in servers:
            await stopped(one)
        await provider.close()


@pytest.mark.parametrize("name", sorted(BALANCERS))
async def test_a_providers_503_is_not_repeated(tmp_path: Path, name: str) -> None:
    provider = ScriptedProvider()
    provider.aside = lambda body: [{"status": 503, "headers": {}, "body": {"error": {"message": "busy"}}}]
    (tmp_path / "balancer").mkdir()
    servers = [
        await started(tmp_path / folder, provider.base_url, free_port(), server="  retries: 0\n")
        for folder in "ab"
    ]
    async with balanced(name, tmp_path / "balancer", servers) as api:
        for stream in (False, True):
            provider.requests.clear()
            status, _ = await api.raw("POST", "/responses", {**HI, "stream": stream})
            assert status == 503 and len(provider.requests) == 1
    for one in servers:
        await stopped(one)
    await provider.close()


@contextlib.asynccontextmanager
async def sharing(folder: Path, base_url: str, port: int) -> AsyncIterator[Running]:
    """A process on a port that others may use, too."""
    server = await started(folder, base_url, port, "--reuse-port")
    try:
        yield server
    finally:
        await stopped(server)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems deal the connections out in other ways"
)
async def test_processes_share_a_port(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    provider.aside = answers(asyncio.Event())
    port = free_port()
    async with (
        sharing(tmp_path / "a", provider.base_url, port) as a,
        sharing(tmp_path / "b", provider.base_url, port) as b,
    ):
        for _ in range(40):  # each on a connection of its own
            assert (await Api(a.base_url)("POST", "/responses", HI))["status"] == "completed"
        assert min(one.log.read_text().count("turn ") for one in (a, b)) > 3
        a.process.terminate()
        assert await asyncio.wait_for(a.process.wait(), END_TIMEOUT) == 0
        for _ in range(10):
            await Api(b.base_url)("POST", "/responses", HI)
    await provider.close()


def test_the_template_unit_differs_from_the_unit_in_its_port_only() -> None:
    one, many = (
        [line for line in (ROOT / "etc" / name).read_text().splitlines() if not line.startswith("#")]
        for name in ("rproxy.service", "rproxy@.service")
    )
    assert [line for line in many if line not in one] == [
        "Description=rproxy on port %i",
        "ExecStart=/opt/rproxy/bin/rproxy serve --config /etc/rproxy/config.yaml --listen 127.0.0.1:%i",
        "User=rproxy",
    ]
    assert len(one) + 1 == len(many)
