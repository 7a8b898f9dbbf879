"""``rproxy check``: what a server would refuse, what others can read, and whether the providers answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any, List, Tuple

import pytest
from forkserver import rproxy_command
from rawserver import Peer, RawServer

from rproxy.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
GOOD = "models: [{model: m, provider: {base_url: 'http://127.0.0.1:9', api_key: $KEY}}]\n"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RPROXY_") and name != "RPROXY_PURE" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KEY", "sk-0123456789abcdef")


def check(tmp_path: Path, text: str, *options: str) -> int:
    path = tmp_path / "my.yaml"
    path.write_text("server: {listen_addr: '127.0.0.1:0'}\n" + text if "server:" not in text else text)
    path.chmod(0o644)
    return main(["check", "-c", str(path), *options])


# ---- What serve would refuse
def test_every_problem_of_the_machine_is_told_at_once(tmp_path: Path, capsys: Any) -> None:
    for name in ("text", "not-pem"):
        (tmp_path / name).write_text("hello")
    (tmp_path / "folder").mkdir()
    text = """
server: {listen_addr: ["127.0.0.1:0", "unix:nowhere/x.sock", "192.0.2.1:0"], pid_file: folder}
store: {kind: sqlite, path: text}
usage: {path: text/usage.db}
models: [{model: m, provider: {base_url: 'https://h.example', ca_file: not-pem}}]
"""
    assert check(tmp_path, text) == 78
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert not out and [line.split(": ")[1] for line in lines] == [
        "store.path", "usage.path", "server.pid_file", "server.listen_addr", "server.listen_addr", "h.example"
    ]  # fmt: skip
    for line, words in zip(
        lines,
        (
            "not an sqlite file",
            "is not a folder",
            "it is not a file",
            "nowhere/x.sock: its folder does not exist",
            "192.0.2.1:0: this machine has no such address",
            "cannot use the certificate files",
        ),
    ):
        assert words in line


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import importlib.util

    from rproxy.cli import preflight

    monkeypatch.setattr(
        preflight, "find_spec", lambda name: None if name == "redis" else importlib.util.find_spec(name)
    )
    assert check(tmp_path, GOOD + "store: {kind: redis, url: 'redis://h:1'}\n") == 78
    assert "pip install redis" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user who may not write anywhere")
def test_a_folder_without_permission(tmp_path: Path, capsys: Any) -> None:
    assert check(tmp_path, GOOD + "store: {kind: sqlite, path: /etc/rproxy-test/store.db}\n") == 78
    assert "may not write in /etc" in capsys.readouterr().err


def test_nothing_is_made_and_what_can_be_made_is_right(tmp_path: Path, capsys: Any) -> None:
    text = (
        "server: {listen_addr: ['127.0.0.1:0', 'unix:x.sock'], pid_file: run/x.pid}\n"
        "store: {kind: sqlite, path: new/folder/store.db}\nusage: {path: usage.db}\n"
    )
    assert check(tmp_path, text + GOOD) == 0, capsys.readouterr().err
    assert not capsys.readouterr().err and os.listdir(tmp_path) == ["my.yaml"]


def test_an_address_in_use_may_be_our_own(tmp_path: Path, capsys: Any) -> None:
    with socket.socket() as taken, socket.socket(socket.AF_UNIX) as named:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        named.bind(str(tmp_path / "x.sock"))
        named.listen()
        port = taken.getsockname()[1]
        text = f"server: {{listen_addr: ['127.0.0.1:{port}', 'unix:{tmp_path}/x.sock']}}\n{GOOD}"
        assert check(tmp_path, text) == 0
        lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("rproxy: warning: server.listen_addr: ") for line in lines)
    assert f"127.0.0.1:{port}: another program uses this port" in lines[0] and "x.sock: another" in lines[1]


# ---- Keys that others can read
@pytest.mark.parametrize(
    "written, warned",
    [
        ("api_key: $KEY", False),
        ("api_key: sk-literal-key-1", True),
        ("api_keys: [$KEY, sk-literal-key-1]", True),
        ("headers: {X-Key: 'Token literal-key-1'}", True),
        ("http_proxy: 'http://me:literal-key-1@p:80'", True),
        ("api_key: x", False),  # a dummy
    ],
)
def test_literal_keys_in_a_file_that_everybody_can_read(
    written: str, warned: bool, tmp_path: Path, capsys: Any
) -> None:
    text = f"models: [{{model: m, provider: {{base_url: 'https://h', {written}}}}}]\n"
    assert check(tmp_path, text) == 0
    err = capsys.readouterr().err
    assert ("chmod o-r" in err) == warned and "literal-key" not in err
    (tmp_path / "my.yaml").chmod(0o640)
    assert main(["check", "-c", str(tmp_path / "my.yaml")]) == 0 and not capsys.readouterr().err


def test_literal_keys_of_clients_count_and_their_digests_do_not(tmp_path: Path, capsys: Any) -> None:
    for key, warned in (("key: client-key-1", True), (f"key_sha256: '{'ab' * 32}'", False)):
        text = f"server: {{listen_addr: '127.0.0.1:0', auth: {{keys: [{{name: a, {key}}}]}}}}\n{GOOD}"
        assert check(tmp_path, text) == 0
        assert ("chmod o-r" in capsys.readouterr().err) == warned


def test_the_search_service_is_named_and_its_key_counts(tmp_path: Path, capsys: Any) -> None:
    assert check(tmp_path, GOOD + "search: {kind: brave, api_key: literal-key-2}\n") == 0
    shown = capsys.readouterr()
    assert "  web search @ brave\n" in shown.out and "chmod o-r" in shown.err
    assert "literal-key" not in shown.out + shown.err
    assert check(tmp_path, GOOD + "search: {kind: brave}\n") == 78
    assert "search: 'api_key' is missing" in capsys.readouterr().err


def test_an_expired_key_is_a_warning(tmp_path: Path, capsys: Any) -> None:
    keys = "[{name: old, key: $KEY, expires: 2020-01-01}]"
    assert check(tmp_path, f"server: {{listen_addr: '127.0.0.1:0', auth: {{keys: {keys}}}}}\n{GOOD}") == 0
    assert "the key of 'old' has expired" in capsys.readouterr().err


# ---- --live
REFUSAL = {"error": {"message": "Incorrect API key provided: sk-0123456789abcdef"}}


def answering(status: int, body: Any, seen: List[Tuple[str, str]]) -> RawServer:
    """A provider with one answer."""

    async def answer(peer: Peer) -> None:
        line, headers, _ = await peer.request()
        seen.append((line, headers.get("authorization", "")))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        await peer.send(f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)

    return RawServer(answer)


@pytest.mark.parametrize(
    "answers, status, marks",
    [
        ([(200, {"data": [{"id": "a"}, {"id": "b"}]})], 0, ["✓ p0  N ms, 2 models"]),
        ([(200, b"[" * 100_000)], 0, ["✓ p0  N ms, answers, but not with a list of models"]),
        ([(404, {})], 0, ["✓ p0  N ms, answers (HTTP 404 to GET /models)"]),
        ([(429, {"error": {"message": "slow down"}})], 0, ["✓ p0  N ms, p0 (429): slow down"]),
        ([(401, REFUSAL)], 77, ["✗ p0  N ms, "]),
        ([(500, {"error": {"message": "broken"}})], 69, ["✗ p0  N ms, "]),
        ([None], 69, ["✗ p0  N ms, p0: cannot reach the provider"]),
        ([(200, {"data": []}), None, (403, REFUSAL)], 77, ["✓ p0", "✗ p1", "✗ p2"]),
        ([(200, {"data": []}), None], 69, ["✓ p0", "✗ p1"]),
    ],
)
async def test_live_asks_every_provider(
    answers: List[Any], status: int, marks: List[str], tmp_path: Path, capsys: Any
) -> None:
    seen: List[Tuple[str, str]] = []
    async with contextlib.AsyncExitStack() as stack:
        text = "models:\n"
        for number, answer in enumerate(answers):
            url = "http://127.0.0.1:9"
            if answer is not None:
                server = answering(*answer, seen)
                await stack.enter_async_context(server.running())
                url = server.url
            provider = f"{{name: p{number}, base_url: '{url}', api_key: $KEY}}"
            text += f"  - {{model: m{number}, provider: {provider}}}\n"
            text += f"  - {{model: n{number}, provider: {provider}}}\n"  # asked once all the same
        argv = (tmp_path, text, "--live")
        assert await asyncio.get_running_loop().run_in_executor(None, check, *argv) == status
    out = capsys.readouterr().out
    lines = re.sub(r"\d+ ms", "N ms", out.split("Providers:\n")[1]).splitlines()
    assert len(lines) == len(marks) and all(mark in line for mark, line in zip(marks, lines)), lines
    assert sorted(seen) == sorted([("GET /models HTTP/1.1", "Bearer sk-0123456789abcdef")] * len(seen))
    assert len(seen) == sum(answer is not None for answer in answers) and "sk-0123" not in out


def test_without_live_no_provider_is_asked(tmp_path: Path, capsys: Any) -> None:
    assert check(tmp_path, GOOD) == 0 and "Providers" not in capsys.readouterr().out


def test_a_terminal_without_marks_gets_words(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(GOOD)
    argv = rproxy_command("check", "--live", "-c", "my.yaml")
    environ = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, cwd=tmp_path, env=environ, check=False)
    assert done.returncode == 69 and b"FAILED 127.0.0.1:9" in done.stdout
