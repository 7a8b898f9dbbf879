"""What stands in for ``python -m rproxy`` in the tests is like it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Dict, Sequence, Tuple

import pytest
from forkserver import REAL, rproxy_command
from scripted import ROOT, free_port

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("RPROXY_REAL_PROCESSES")), reason="all processes are real"
)


def seen(command: Sequence[str], shell: str, home: Path, **environ: str) -> Tuple[int, bytes, bytes]:
    """Exit status, stdout and stderr of the shell's words, in which ``"$@"`` is rproxy."""
    every: Dict[str, str] = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        **environ,
    }
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *command], env=every, cwd=str(home), capture_output=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "shell, environ",
    [
        ('"$@" check -c gr\xfc\xdfe.yaml', {"LC_ALL": "C"}),
        ('"$@" models --json; echo $?', {"GROQ_API_KEY": "gsk_0123456789abcdef"}),
        ('umask 27; "$@" init && stat -c %a .config .config/rproxy/*', {"GROQ_API_KEY": "gsk_0123456789"}),
        ('"$@" nonsense <&- 2>&1 | cat', {}),
        ('"$@" profiles >&-', {}),
        ('"$@" profiles > /dev/full', {}),
        ('exec 7> out; echo "$("$@" convert request < <(echo "{}") 2>&7)"; cat out', {}),
    ],
)
def test_both_do_the_same(shell: str, environ: Dict[str, str], tmp_path: Path) -> None:
    found = []
    for name, command in (("real", REAL), ("forked", rproxy_command())):
        (tmp_path / name).mkdir()
        status, out, err = seen(command, shell, tmp_path / name, **environ)
        found.append((status, *(text.replace(name.encode(), b"") for text in (out, err))))
    assert found[0] == found[1]


def test_what_an_interpreter_is_told_is_for_a_real_one(tmp_path: Path) -> None:
    status, _, err = seen(rproxy_command("profiles"), '"$@"', tmp_path, PYTHONVERBOSE="1")
    assert status == 0 and b"import 'rproxy.cli.main'" in err


def is_forked(process_id: int) -> bool:
    """Whether the program waits for a child of the server, and has not become an interpreter of its own."""
    program = Path(f"/proc/{process_id}/cmdline")
    return not program.exists() or b"forkclient" in program.read_bytes()


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 0), (signal.SIGUSR1, -10), (signal.SIGKILL, -9)])
async def test_signals_reach_it(number: int, status: int) -> None:
    port = free_port()
    command = rproxy_command("serve", "--demo", "--listen", f"127.0.0.1:{port}")
    environ = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # no reason for a real one
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environ)
    assert process.stdout is not None and await asyncio.wait_for(process.stdout.readline(), 20)
    assert is_forked(process.pid)
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 20) == status
    assert await process.stdout.read() == b""  # so it is gone: nobody else has this pipe
