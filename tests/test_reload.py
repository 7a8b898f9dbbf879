"""A new configuration for a running server, with real processes and signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, AsyncIterator, Dict, List, Sequence

import pytest
from forkserver import REAL, rproxy_command
from rawserver import until
from scripted import CONFIG, KEY, Running, ScriptedProvider, finish, free_port, gate, running, say
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

from rproxy.config.changes import changes
from rproxy.config.load import parse_config
from rproxy.config.schema import Config
from rproxy.errors import ConfigError
from rproxy.server.pid_file import pid_file, running_servers

ROOT = Path(__file__).resolve().parent.parent

BASE = """
server: {{{server}}}
store: {{{store}}}
models:
{models}
"""


def config(
    server: str = "", store: str = "", models: Sequence[str] = ("a", "b"), extra: str = "", search: str = ""
) -> Config:
    lines = [f'  - {{model: {name}, provider: {{base_url: "http://x.example"}}{extra}}}' for name in models]
    text = BASE.format(server=server, store=store, models="\n".join(lines))
    text += f"search: {search}\n" if search else ""
    return parse_config(text.encode(), "test.yaml", {})


# ---- What changes
@pytest.mark.parametrize(
    "new, said",
    [
        (config(), "nothing has changed"),
        (config(models=("c", "a")), "models +c -b"),
        (config(extra=", max_output_tokens: 5"), "models ~a ~b"),
        (config(server="retries: 0, log_level: debug"), "server.log_level; server.retries"),
        (config(server="listen_addr: ':4000'"), "needs a restart: server.listen_addr"),
        (
            config(server="retries: 0", store="kind: sqlite, path: x.db"),
            "server.retries; needs a restart: store.kind, store.path",
        ),
        (config(server="auth: {keys: [one, {name: ann, key: two}]}"), "keys +key1 +ann; server.auth.enabled"),
        (config(search="{kind: searxng, url: 'http://s.example'}"), "search"),
    ],
)
def test_the_line_says_what_changes(new: Config, said: str) -> None:
    assert str(changes(config(), new)) == said


def test_keys_are_named_and_never_shown() -> None:
    old = config(server="auth: {keys: [{name: ann, key: one}, {name: bob, key: two}]}")
    new = config(server="auth: {keys: [{name: ann, key: three}, {name: eve, key: four}]}")
    assert str(changes(old, new)) == "keys +eve -bob ~ann"


def test_a_search_service_changes_without_a_restart() -> None:
    old = config(search="{kind: brave, api_key: one}")
    new = config(search="{kind: brave, api_key: two, open_pages: true}")
    found = changes(old, new)
    assert str(found) == "search.api_key; search.open_pages" and found.config.search == new.search
    assert str(changes(old, config())) == "search" and changes(old, config()).config.search is None


def test_what_cannot_change_stays_and_is_said_every_time() -> None:
    old, new = config(), config(server="listen_addr: ':4000', retries: 1", store="ttl: 5")
    first = changes(old, new)
    assert first.config.server.listen_addr == old.server.listen_addr and first.config.store == old.store
    assert first.config.server.retries == 1
    assert str(changes(first.config, new)) == "needs a restart: server.listen_addr, store.ttl"


# ---- A process
class Server:
    """A running ``rproxy serve`` whose configuration the test changes."""

    def __init__(self, folder: Path, one: Running, provider: ScriptedProvider) -> None:
        self.path, self.one, self.provider = folder / "config.yaml", one, provider
        self.http = AsyncHTTPClient(force_instance=True, max_clients=500)
        self._lines = 0

    async def reload(self, text: str) -> str:
        """Write a configuration, send SIGHUP, and wait for the line that answers it."""
        self.path.write_text(text, encoding="utf-8")
        self.one.process.send_signal(signal.SIGHUP)
        await until(lambda: len(self.answers()) > self._lines)
        self._lines += 1
        return self.answers()[-1]

    def answers(self) -> List[str]:
        lines = self.one.log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "reloaded" in line and " turn " not in line]

    def text(self, server: str = "", more: str = "") -> str:
        base = CONFIG.format(port=self.one.port, base_url=self.provider.base_url, server=server)
        return base + more.format(base_url=self.provider.base_url)

    async def models(self, **headers: str) -> List[str]:
        found = await self.http.fetch(self.one.base_url + "/models", headers=headers)
        return [model["id"] for model in json.loads(found.body)["data"]]

    async def turn(self, model: str = "gpt-5.5", **headers: str) -> Any:
        body = json.dumps({"model": model, "input": "hi"})
        return await self.http.fetch(
            self.one.base_url + "/responses", method="POST", body=body, headers=headers, raise_error=False
        )


FAST = '  - {{model: fast, provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY}}}}\n'


@contextlib.asynccontextmanager
async def serving(folder: Path, command: Sequence[str] = ()) -> AsyncIterator[Server]:
    provider = ScriptedProvider(strict=False)
    provider.aside = lambda body: [say("hello"), finish("stop")]
    try:
        async with running(folder, provider.base_url, command=command) as one:
            server = Server(folder, one, provider)
            await server.models()  # who answers also listens for the signal; an open port may be too early
            yield server
            server.http.close()
    finally:
        await provider.close()


async def test_models_and_keys_come_and_go(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        first = await server.http.fetch(server.one.base_url + "/models")
        line = await server.reload(server.text(more=FAST))
        assert line.endswith(f"INFO    reloaded {server.path}: models +fast"), line
        assert (await server.turn("fast")).code == 200 and "fast" in await server.models()
        again = await server.http.fetch(server.one.base_url + "/models")
        assert again.headers["ETag"] != first.headers["ETag"]

        keys = "  auth: {keys: [{name: ann, key: ann-key-123456}]}\n"
        assert "models -fast; keys +ann; server.auth.enabled" in await server.reload(server.text(keys))
        assert (await server.turn()).code == 401
        assert (await server.turn(Authorization="Bearer ann-key-123456")).code == 200
        assert "keys -ann; server.auth.enabled" in await server.reload(server.text())
        assert (await server.turn()).code == 200 and (await server.turn("fast")).code == 404
        assert "nothing has changed" in await server.reload(server.text())


async def test_a_configuration_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        line = await server.reload(server.text("  retires: 3\n"))
        assert "ERROR" in line and "the old one stays" in line and re.search(r"config\.yaml:5:3", line), line
        assert (await server.turn()).code == 200
        open_to_all = server.text().replace("127.0.0.1:", "0.0.0.0:")
        assert "authentication is off" in await server.reload(open_to_all)
        os.remove(server.path)
        server.one.process.send_signal(signal.SIGHUP)
        await until(lambda: "No such file" in server.one.log.read_text())
        assert (await server.turn()).code == 200
        before = len(server.answers())
        server.path.write_text(server.text("  retires: 3\n  max_queue: 0\n"), encoding="utf-8")
        server.one.process.send_signal(signal.SIGHUP)
        await until(lambda: len(server.answers()) == before + 2)  # a line for each error
        assert "retires" in server.answers()[-2] and "max_queue" in server.answers()[-1]


async def test_what_needs_a_restart_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        text = server.text("  retries: 1\n", more="store: {{kind: sqlite, path: x.db}}\n")
        line = await server.reload(text.replace(str(server.one.port), str(free_port())))
        assert "WARNING" in line
        assert line.endswith("server.retries; needs a restart: server.listen_addr, store.kind, store.path"), (
            line
        )
        assert (await server.turn()).code == 200


async def test_what_runs_goes_on_and_a_websocket_meets_the_new_models(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        opened = asyncio.Event()
        server.provider.aside = lambda body: [say("one "), gate(opened), say("two"), finish("stop")]
        ws = await websocket_connect(server.one.base_url.replace("http", "ws") + "/responses")
        create = {"type": "response.create", "model": "deepseek-v4-pro", "input": "hi"}
        await ws.write_message(json.dumps(create))
        stream = asyncio.ensure_future(server.turn())
        await until(lambda: len(server.provider.requests) == 2)
        only = server.text(more=FAST).replace("  - model: deepseek-v4-pro\n", "  - model: other\n")
        assert "models +other +fast -deepseek-v4-pro" in await server.reload(only)
        opened.set()
        assert json.loads((await stream).body)["output"][0]["content"][0]["text"] == "one two"
        assert await _last(ws) == "response.completed"
        await ws.write_message(json.dumps(create))
        assert await _last(ws) == "error"  # the model is gone, the connection is not
        await ws.write_message(json.dumps({**create, "model": "fast"}))
        assert await _last(ws) == "response.completed"
        ws.close()


async def _last(ws: Any) -> str:
    while True:
        event = json.loads(await ws.read_message())
        if event["type"] in ("response.completed", "error"):
            return str(event["type"])


async def test_reloads_under_load_cut_nothing_and_leave_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, REAL) as server:
        opened = asyncio.Event()
        server.provider.aside = lambda body: [say("one "), gate(opened), say("two"), finish("stop")]
        sockets = [
            await websocket_connect(server.one.base_url.replace("http", "ws") + "/responses")
            for _ in range(50)
        ]
        for ws in sockets:
            await ws.write_message(json.dumps({"type": "response.create", "model": "gpt-5.5", "input": "hi"}))
        streams = [asyncio.ensure_future(server.turn()) for _ in range(200)]
        await until(lambda: len(server.provider.requests) == 250)
        for round_ in range(20):
            await server.reload(server.text(more=FAST if round_ % 2 else ""))
            if round_ == 3:
                before = _used(server.one.process.pid)
        assert _used(server.one.process.pid)["fds"] <= before["fds"] + 2
        opened.set()
        for stream in streams:
            assert json.loads((await stream).body)["status"] == "completed"
        for ws in sockets:
            assert await _last(ws) == "response.completed"
            ws.close()
        assert _used(server.one.process.pid)["threads"] <= before["threads"] + 1


def _used(pid: int) -> Dict[str, int]:
    return {"fds": len(os.listdir(f"/proc/{pid}/fd")), "threads": len(os.listdir(f"/proc/{pid}/task"))}


# ---- SIGHUP and the terminal
def _start_in_a_terminal(folder: Path, port: int, *before: str) -> Any:
    """A server that is in the foreground of a terminal; closing the returned descriptor closes that."""
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(port=port, base_url="http://127.0.0.1:1", server=""), encoding="utf-8")
    master, slave = pty.openpty()
    code = f"""
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which the tests ignore when they run under nohup
fcntl.ioctl({slave}, termios.TIOCSCTTY, 0)
os.close({master})
os.execvp(sys.argv[1], sys.argv[1:])
"""
    with open(folder / "rproxy.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *before, sys.executable, "-m", "rproxy", "serve", "-c", str(path)],
            cwd=str(ROOT),
            env=dict(os.environ, SCRIPTED_KEY=KEY),
            stdin=slave,
            stdout=log,
            stderr=log,
            pass_fds=(slave, master),
            start_new_session=True,
        )
    os.close(slave)
    return process, master


async def test_a_closed_terminal_ends_the_server_as_sigterm_does(tmp_path: Path) -> None:
    port = free_port()
    process, master = _start_in_a_terminal(tmp_path, port)
    try:
        await until(lambda: b"rproxy" in (tmp_path / "rproxy.log").read_bytes())
        process.send_signal(signal.SIGHUP)  # the terminal is open: this is a reload
        await until(lambda: b"nothing has changed" in (tmp_path / "rproxy.log").read_bytes())
        os.close(master)
        await asyncio.get_running_loop().run_in_executor(None, process.wait, 20)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


async def test_nohup_outlives_the_terminal(tmp_path: Path) -> None:
    port = free_port()
    process, master = _start_in_a_terminal(tmp_path, port, "nohup")
    try:
        await until(lambda: b"rproxy" in (tmp_path / "rproxy.log").read_bytes())
        os.close(master)
        http = AsyncHTTPClient(force_instance=True)
        for _ in range(3):
            assert (await http.fetch(f"http://127.0.0.1:{port}/health")).code == 200
        http.close()
        process.terminate()
        await asyncio.get_running_loop().run_in_executor(None, process.wait, 20)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


# ---- rproxy reload
def reload_command(environ: Dict[str, str], *args: str) -> Any:
    return subprocess.run(
        rproxy_command("reload", *args),
        cwd=str(ROOT),
        env={**os.environ, "RPROXY_CONFIG": "", "HOME": "/nonexistent", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_the_command_finds_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    loop = asyncio.get_running_loop()

    async def reload(*args: str) -> Any:
        return await loop.run_in_executor(None, lambda: reload_command({}, *args))

    none = await reload()
    assert none.returncode == 1 and "--pid" in none.stderr
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with serving(tmp_path / "one", REAL) as one:
        done = await reload()
        assert done.returncode == 0 and str(one.one.process.pid) in done.stdout, done.stderr
        await until(lambda: len(one.answers()) == 1)
        async with serving(tmp_path / "two", REAL) as two:
            several = await reload()
            assert several.returncode == 2
            assert {str(one.one.process.pid), str(two.one.process.pid)} <= set(several.stdout.split())
            assert (await reload("--pid", str(two.one.process.pid))).returncode == 0
            await until(lambda: len(two.answers()) == 1)
            assert len(one.answers()) == 1
    assert not list((tmp_path / "rproxy").iterdir())  # the files go with their servers


def test_a_file_that_was_left_behind_is_no_server(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with pid_file(None, environ):
        assert [server.pid for server in running_servers(None, environ)] == [os.getpid()]
        (tmp_path / "rproxy" / "1.pid").write_text("1\n")
        assert [server.pid for server in running_servers(None, environ)] == [os.getpid()]
    assert running_servers(None, environ) == [] and running_servers(str(tmp_path / "x.pid"), environ) == []
    configured = str(tmp_path / "deep" / "rproxy.pid")
    with pid_file(configured, {}):
        assert [server.pid for server in running_servers(configured, {})] == [os.getpid()]
    with pid_file(None, {}):
        pass  # nowhere to put it, and nobody asked for it


def test_a_pid_file_is_never_written_over_another_file(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link.pid"
    victim.write_text("precious")
    link.symlink_to(victim)
    with pytest.raises(ConfigError, match="cannot write"), pid_file(str(link), {}):
        pass
    with pytest.raises(ConfigError, match="another file"), pid_file(str(victim), {}):
        pass
    assert victim.read_text() == "precious"
    victim.write_text("4711\n")  # what a killed process has left behind
    with pid_file(str(victim), {}):
        assert victim.read_text() == f"{os.getpid()}\n"
        assert running_servers(str(link), {}) == []


def test_a_pid_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.pid_file: cannot write"), pid_file(str(tmp_path), {}):
        pass
    path = str(tmp_path / "rproxy.pid")
    with pid_file(path, {}), pytest.raises(ConfigError, match="another rproxy"), pid_file(path, {}):
        pass
