"""systemd's side of rproxy: notifications, sockets that it hands over, and the unit files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import AsyncIterator, Dict, List, Sequence

import pytest
from rawserver import until
from scripted import CONFIG, KEY, ROOT, free_port

from rproxy.config.load import parse_config

pytestmark = pytest.mark.timeout(seconds=90)

COMMAND = (sys.executable, "-m", "rproxy", "serve", "--config")


def config_in(folder: Path, port: int = 0, server: str = "") -> Path:
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(port=port, base_url="http://127.0.0.1:1", server=server))
    return path


@contextlib.asynccontextmanager
async def process(
    command: Sequence[str], log: Path, *, sockets: Sequence[int] = (), **environ: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as out:
        running = await asyncio.create_subprocess_exec(
            *command,
            cwd=str(ROOT),
            env={**os.environ, "SCRIPTED_KEY": KEY, **environ},
            stdout=out,
            stderr=out,
            pass_fds=sockets,
        )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


# ---- Notifications
class Manager:
    """The socket that systemd reads."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.told: List[Dict[str, str]] = []

    def heard(self, name: str) -> List[str]:
        """What was told under a name so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                lines = self.socket.recv(4096).decode().split("\n")
                self.told.append(dict(line.split("=", 1) for line in lines))
        return [told[name] for told in self.told if name in told]


@pytest.mark.parametrize("kind", ["file", "abstract"])
async def test_what_systemd_is_told(tmp_path: Path, kind: str) -> None:
    name = str(tmp_path / "notify") if kind == "file" else f"@rproxy-test-{os.getpid()}"
    manager, log = Manager("\0" + name[1:] if kind == "abstract" else name), tmp_path / "log"
    path = config_in(tmp_path, server="  drain_delay: 2\n  drain_timeout: 40\n")
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
    async with process([*COMMAND, str(path)], log, **environ) as running:
        await until(lambda: manager.heard("READY") == ["1"])
        assert " on http://127.0.0.1:" in log.read_text()
        await until(lambda: len(manager.heard("WATCHDOG")) > 3)
        before = time.monotonic_ns() // 1000
        running.send_signal(signal.SIGHUP)
        await until(lambda: manager.heard("READY") == ["1", "1"])
        assert manager.heard("RELOADING") == ["1"]
        assert before <= int(manager.heard("MONOTONIC_USEC")[0]) <= time.monotonic_ns() // 1000
        running.send_signal(signal.SIGTERM)
        await until(lambda: manager.heard("STOPPING") == ["1"])
        assert int(manager.heard("EXTEND_TIMEOUT_USEC")[0]) > 42_000_000
        fed = len(manager.heard("WATCHDOG"))
        await until(lambda: len(manager.heard("WATCHDOG")) > fed)  # until the end
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.wait(), 10) == 0
    manager.socket.close()


async def test_a_watchdog_of_another_process_is_not_fed(tmp_path: Path) -> None:
    manager, path = Manager(str(tmp_path / "notify")), config_in(tmp_path)
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    async with process([*COMMAND, str(path)], tmp_path / "log", **environ) as running:
        await until(lambda: manager.heard("READY"))
        running.terminate()
        assert await asyncio.wait_for(running.wait(), 10) == 0
        assert manager.heard("STOPPING") and not manager.heard("WATCHDOG")
    manager.socket.close()


# ---- Sockets
def with_socket(sock: socket.socket, path: Path, pid: str = "os.getpid()") -> List[str]:
    """The command, with ``sock`` as systemd would hand it over."""
    script = (
        f"import os, sys; os.dup2({sock.fileno()}, 3); "
        f"os.environ.update(LISTEN_PID=str({pid}), LISTEN_FDS='1', LISTEN_FDNAMES='web'); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", script, *COMMAND, str(path)]


async def ask(sock: socket.socket) -> bytes:
    """The answer to a request that is sent before anybody may accept it."""
    if sock.family == socket.AF_UNIX:
        reader, writer = await asyncio.open_unix_connection(sock.getsockname())
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("family", ["tcp", "unix"])
async def test_connections_wait_while_it_restarts(tmp_path: Path, family: str) -> None:
    if family == "tcp":
        sock = socket.create_server(("127.0.0.1", 0))
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "web.sock"))
        sock.listen()
    other, log = free_port(), tmp_path / "log"
    path = config_in(tmp_path, other)
    with sock:
        for _ in range(2):
            answer = asyncio.ensure_future(ask(sock))
            await asyncio.sleep(0)
            async with process(with_socket(sock, path), log, sockets=[sock.fileno()]) as running:
                assert (await asyncio.wait_for(answer, 20)).startswith(b"HTTP/1.1 200")
                with socket.socket() as probe:  # the configured address is not used
                    assert probe.connect_ex(("127.0.0.1", other)) != 0
                running.terminate()
                assert await asyncio.wait_for(running.wait(), 10) == 0
            if family == "unix":
                assert (tmp_path / "web.sock").exists()


async def test_the_rules_of_access_hold_for_them(tmp_path: Path) -> None:
    path, log = config_in(tmp_path), tmp_path / "log"
    with socket.create_server(("0.0.0.0", 0)) as open_to_all, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        for sock, why in ((open_to_all, "authentication is off"), (deaf, "the socket web .* not listening")):
            async with process(with_socket(sock, path), log, sockets=[sock.fileno()]) as running:
                assert await asyncio.wait_for(running.wait(), 20) == 78
            assert re.search(why, log.read_text())


async def test_sockets_for_another_process_are_left_alone(tmp_path: Path) -> None:
    path, log = config_in(tmp_path), tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with process(with_socket(sock, path, "1"), log, sockets=[sock.fileno()]) as running:
            await until(lambda: " on http://127.0.0.1:" in log.read_text())
            assert f":{sock.getsockname()[1]}/" not in log.read_text()
            running.terminate()
            assert await asyncio.wait_for(running.wait(), 10) == 0


async def test_systemd_socket_activate(tmp_path: Path) -> None:
    binary = shutil.which("systemd-socket-activate")
    if binary is None:
        pytest.skip("there is no systemd-socket-activate")
    port = free_port()
    command = [binary, "-l", f"127.0.0.1:{port}", "--fdname=web", "-E", "SCRIPTED_KEY", *COMMAND]
    async with process([*command, str(config_in(tmp_path))], tmp_path / "log") as running:
        await until(lambda: b"Listening on" in (tmp_path / "log").read_bytes())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 200")
        writer.close()
        running.terminate()
        assert await asyncio.wait_for(running.wait(), 10) == 0


# ---- The unit files
UNITS = ("rproxy.service", "rproxy@3001.service", "rproxy.socket")


def test_the_units_are_valid_and_expose_little(tmp_path: Path) -> None:
    binary = shutil.which("systemd-analyze")
    if binary is None:
        pytest.skip("there is no systemd-analyze")
    for name in UNITS:
        text = (ROOT / "etc" / name.replace("3001", "")).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("/opt/rproxy/bin/rproxy", "/bin/true"), encoding="utf-8")
    environ = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    checked = subprocess.run(
        [binary, "verify", *(str(tmp_path / name) for name in UNITS)],
        env=environ,
        capture_output=True,
        text=True,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    for name in UNITS[:2]:
        scored = subprocess.run(
            [binary, "security", "--offline=yes", str(tmp_path / name)], capture_output=True, text=True
        )
        level = re.search(r"Overall exposure level for \S+: ([\d.]+)", scored.stdout)
        assert level and float(level[1]) < 2.0, scored.stdout[-300:] + scored.stderr


def test_a_credential_of_systemd_is_a_key_file(tmp_path: Path) -> None:
    (tmp_path / "deepseek").write_text("sk-of-systemd\n")
    (tmp_path / "deepseek").chmod(0o400)
    provider = "{base_url: 'http://h', api_key_file: $CREDENTIALS_DIRECTORY/deepseek}"
    config = parse_config(
        f"models: [{{model: m, provider: {provider}}}]".encode(),
        "c.yaml",
        {"CREDENTIALS_DIRECTORY": str(tmp_path)},
    )
    assert config.models[0].providers[0].api_key == "sk-of-systemd" and config.warnings == ()
