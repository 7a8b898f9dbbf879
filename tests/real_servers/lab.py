"""What the real servers share: an environment for each, its process, rproxy in front of it, and asking."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List, Optional, Sequence, Tuple

import openai
from grammar import check_stream
from scripted import running

Json = Dict[str, Any]
Check = Callable[[Any, str], Awaitable[str]]  # (client, model) -> what was seen

INSTALL_TIME = 1500  # seconds
START_TIME = 180
CONFIG = """
server:
  listen_addr: "127.0.0.1:{port}"
{server}models:
  - model: "*"
    provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY, profile: %s, name: %s, wire: %s}}
"""


def environment(
    cache: Path, name: str, packages: Sequence[str], without: Sequence[str] = ()
) -> Optional[Path]:
    """The Python of an environment that has the packages; None if they cannot be installed.

    :param without: packages that come along and are taken away again
    """
    python = cache / name / "bin" / "python"
    ready = cache / name / "ready"
    if not ready.exists():
        print("installing {} ...".format(" ".join(packages)), flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(cache / name)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        try:
            subprocess.run(command, check=True, timeout=INSTALL_TIME, stderr=subprocess.DEVNULL)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"skip  {name}: pip cannot install it here ({type(error).__name__})")
            return None
        if without:
            subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *without], check=True)
        ready.touch()
    return python


@contextlib.contextmanager
def server(argv: Sequence[str], url: str, folder: Path, **environ: str) -> Any:
    """Run a server until the context ends. :raises RuntimeError: it does not answer"""
    log = folder / "server.log"
    env = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=str(folder), env={**env, **environ}
        )
    try:
        end = time.monotonic() + START_TIME
        while not answers(url):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(
                    "{} did not start:\n{}".format(
                        argv[0], log.read_text(encoding="utf-8", errors="replace")[-3000:]
                    )
                )
            time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2):
            return True
    except OSError:
        return False


# ---- Asking
async def streamed(client: Any, model: str, **request: Any) -> Tuple[Json, List[Json]]:
    """A streamed answer, its grammar checked: (response, events)."""
    stream = await client.responses.create(model=model, stream=True, **{"input": "Hi", **request})
    events = [event.to_dict(mode="json") async for event in stream]
    for response in (
        event["response"] for event in events if "response" in event
    ):  # the SDK makes floats of these
        response.update(
            {name: int(response[name]) for name in ("created_at", "completed_at") if response.get(name)}
        )
    return check_stream(events), events


def deltas(events: List[Json], kind: str = "output_text") -> List[str]:
    return [event["delta"] for event in events if event["type"] == f"response.{kind}.delta"]


@contextlib.asynccontextmanager
async def before(
    base_url: str, folder: Path, profile: str, name: str, wire: str = "chat"
) -> AsyncIterator[Tuple[Any, str]]:
    """Rproxy in front of a server: (client, base URL)."""
    async with running(folder, base_url, "  retries: 0\n", CONFIG % (profile, name, wire)) as rproxy:
        client = openai.AsyncOpenAI(base_url=rproxy.base_url, api_key="any", max_retries=0, timeout=120)
        try:
            yield client, rproxy.base_url
        finally:
            await client.close()


async def checked(name: str, client: Any, checks: Sequence[Tuple[str, str, Check]]) -> int:
    """:returns: how many failed"""
    wrong = 0
    for title, model, check in checks:
        try:
            print(f"ok    {name}, {title}: {await check(client, model)}", flush=True)
        except (AssertionError, openai.OpenAIError, ValueError) as error:
            wrong += 1
            print(f"FAIL  {name}, {title}: {type(error).__name__} {error}", flush=True)
    return wrong


async def codex_says(name: str, folder: Path, base_url: str, model: str, expected: str) -> int:
    if not os.environ.get("CODEX_BIN"):
        print(f"skip  {name}, Codex: CODEX_BIN is not set")
        return 0
    from test_codex import codex

    run = await codex(folder, base_url, "What is 6*7? Use the shell.", ws=False, model=model)
    commands = [item.get("aggregated_output", "").strip() for item in run.items("command_execution")]
    good = run.code == 0 and run.said == [expected] and commands == ["42"]
    trouble = "" if good else run.errors + run.stderr[-500:]
    print(
        "{}  {}, Codex: ran {!r}, said {!r} {}".format(
            "ok  " if good else "FAIL", name, commands, run.said, trouble
        )
    )
    return 0 if good else 1
