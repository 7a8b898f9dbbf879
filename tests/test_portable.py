"""rproxy where POSIX is not: nothing that only POSIX has is needed at the start, nor for the main job.

``portable.py`` hides it on Linux; no other system was tried.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Tuple

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

ROOT = Path(__file__).resolve().parent.parent
PORTABLE = [sys.executable, str(ROOT / "tests" / "portable.py")]
STAND_IN = Path(__file__).with_name("fixtures") / "codex_stand_in.py"


@pytest.fixture
def environ(tmp_path: Path) -> Dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PYTHONDEVMODE": "1",
        "DEEPSEEK_API_KEY": "k",
    }


def run(environ: Dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PORTABLE, *argv],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "init",
        "check",
        "models",
        "profiles",
        "key ann",
        "completion bash",
        "ask --demo hello",
    ],
)
def test_commands_work(command: str, environ: Dict[str, str]) -> None:
    done = run(environ, *command.split())
    assert done.returncode == 0 and done.stdout and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "command, status, text",
    [
        (
            "serve --demo --listen unix:/nowhere/rproxy.sock",
            78,
            "no Unix sockets on this system; use HOST:PORT",
        ),
        ("serve --demo --reuse-port", 78, "on this system processes cannot share a port"),
        ("reload", 1, "this system has no SIGHUP"),
    ],
)
def test_what_the_system_does_not_have_is_said(
    command: str, status: int, text: str, environ: Dict[str, str]
) -> None:
    done = run(environ, *command.split())
    assert done.returncode == status and text in done.stderr and "Traceback" not in done.stderr


@asynccontextmanager
async def serving(environ: Dict[str, str]) -> AsyncIterator[Tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        *PORTABLE,
        *("serve", "--demo", "--listen", "127.0.0.1:0"),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        yield process, line.decode().split(" on ")[1].split()[0]
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_the_main_job(environ: Dict[str, str]) -> None:
    async with serving(environ) as (process, url):
        body = {"model": "gpt-5.5", "input": "What is 2+2? Reply with just the number."}
        for stream in (False, True):
            answer = await AsyncHTTPClient().fetch(
                url + "/responses",
                method="POST",
                headers={"Content-Type": "application/json"},
                body=json.dumps({**body, "stream": stream}),
            )
            text = answer.body.decode()
            assert '"4"' in text and ("response.completed" in text) == stream
        socket = await websocket_connect(url.replace("http", "ws", 1) + "/responses")
        await socket.write_message(json.dumps({"type": "response.create", **body}))
        events = []
        while not events or events[-1]["type"] != "response.completed":
            events.append(json.loads(await socket.read_message() or "{}"))
        assert events[-1]["response"]["output"][-1]["content"][0]["text"] == "4"
        socket.close()
        process.send_signal(signal.SIGINT)
        _, log = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0 and b"Traceback" not in log and b"Warning" not in log, log.decode()


def test_codex(environ: Dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "codex"
    program.write_text(f"#!{sys.executable} -S\n{STAND_IN.read_text()}", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    report = tmp_path / "report"
    more: Dict[str, Any] = {"CODEX_BIN": str(program), "REPORT": str(report), "ACT": "7"}
    done = run({**environ, **more}, "codex", "--demo", "exec", "go")
    assert done.returncode == 7 and "Traceback" not in done.stderr, done.stderr
    assert json.loads(report.read_text(encoding="utf-8"))["args"][-2:] == ["exec", "go"]
