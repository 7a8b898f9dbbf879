"""Several processes behind the balancers of etc/, with the files as they are shipped; and several on one
port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, List, Optional

import pytest
from api import Api
from grammar import check_sse
from rawserver import until
from scripted import CONFIG, KEY, ROOT, Running, ScriptedProvider, free_port, gate, running, say
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
    (folder / "haproxy.cfg").write_text(
        re.sub("maxconn .*", "maxconn 100", text)
    )  # more needs more open files than a test may have
    checked = subprocess.run(
        [binary, "-c", "-f", str(folder / "haproxy.cfg")], capture_output=True, text=True
    )
    assert checked.returncode == 0 and "WARNING" not in checked.stderr, checked.stderr
    return [binary, "-f", str(folder / "haproxy.cfg"), "-db"]


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
        for _ in range(200):
            with contextlib.suppress(OSError):
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                break
            await asyncio.sleep(0.05)
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
    await until(lambda: sum(map(is_slow, provider.requests)) == len(slow), 10)
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
    assert await asyncio.wait_for(a.process.wait(), 10) == 0
    assert a.log.read_text().count("turn ") >= 5 and b.log.read_text().count("turn ") >= 35, (
        "the balancer did not use both"
    )


async def close_codes(sockets: List[WebSocketClientConnection]) -> List[Optional[int]]:
    """The code with which the server has closed each of the connections; None for one that still answers."""
    reads = [asyncio.ensure_future(_read(ws)) for ws in sockets]
    await asyncio.wait(reads, timeout=5, return_when=asyncio.FIRST_COMPLETED)  # the server has begun to stop
    for ws in sockets:
        with contextlib.suppress(WebSocketClosedError):
            await ws.write_message(json.dumps({"type": "response.create", **HI}))
    messages = await asyncio.wait_for(asyncio.gather(*reads), 5)
    return [ws.close_code if message is None else None for ws, message in zip(sockets, messages)]


async def _read(ws: WebSocketClientConnection) -> Any:
    return await ws.read_message()


def config_in(folder: Path, base_url: str, port: int) -> Path:
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(port=port, base_url=base_url, server=""))
    return config


@contextlib.asynccontextmanager
async def sharing(folder: Path, base_url: str, port: int) -> AsyncIterator[Running]:
    """A process on a port that others may use, too."""
    log = folder / "log"
    command = [
        sys.executable,
        "-m",
        "rproxy",
        "serve",
        "--config",
        str(config_in(folder, base_url, port)),
        "--reuse-port",
    ]
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=str(ROOT), env=dict(os.environ, SCRIPTED_KEY=KEY), stdout=out, stderr=out
        )
    try:
        while b"rproxy " not in log.read_bytes():
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.05)
        yield Running(process, port, log)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


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
        assert await asyncio.wait_for(a.process.wait(), 10) == 0
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
