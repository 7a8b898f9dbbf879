"""``rproxy ask`` as shell scripts use it: bash with ``set -euo pipefail``, real processes and pipes, and a
scripted provider behind it, with a configuration in this process and with a server.

``$ASK_PYTHON`` runs all of it with another Python, ``$ASK_COMMAND`` with another rproxy (such as
``python rproxy.pyz``).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
import pty
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, TypeVar

import pytest
from forkserver import rproxy_command
from rawserver import CHUNKED, RawServer, chunk, keep_serving, until
from scripted import CUT, ScriptedProvider, error, finish, gate, say, served, think

from rproxy.cli.ask.command import conclude, text_of
from rproxy.cli.ask.json_schema import first_problem, is_strict
from rproxy.cli.ask.output import Printer

ROOT = Path(__file__).resolve().parent.parent
PYTHON = os.environ.get("ASK_PYTHON", sys.executable)
T = TypeVar("T")
CONFIG = """\
server: {{retries: 0}}
models:
  - model: gpt-5.5
    provider: {{name: acme, base_url: "{url}", api_key: sk-scripted-provider-key, profile: deepseek}}
    downstream_model: deepseek-v4-pro
"""
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Done(NamedTuple):
    status: int
    out: str
    err: str


def rproxy_words() -> str:
    """The command, for a shell."""
    if "ASK_PYTHON" in os.environ:
        return os.environ.get("ASK_COMMAND", f"{PYTHON} -m rproxy")
    return os.environ.get("ASK_COMMAND", "") or shlex.join(rproxy_command())


async def in_thread(call: Callable[..., T], *args: Any, **options: Any) -> T:
    """What waits for a process must not keep the provider waiting."""
    return await asyncio.get_running_loop().run_in_executor(None, functools.partial(call, *args, **options))


class Shell:
    """Runs scripts for a user with an empty home, in which ``rproxy`` is a function."""

    def __init__(self, home: Path, provider: ScriptedProvider) -> None:
        self.home = home
        self.provider = provider
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(home / "state"),
            "RPROXY_CONFIG": str(home / "config.yaml"),
        }
        (home / "config.yaml").write_text(CONFIG.format(url=provider.base_url), encoding="utf-8")

    def answers(self, *turns: List[Any]) -> None:
        self.provider.turns += turns

    def begin(self, script: str, **options: Any) -> subprocess.Popen[bytes]:
        whole = f'set -euo pipefail; rproxy() {{ {rproxy_words()} "$@"; }}; cd "$HOME"; {script}'
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # Where the tests run in the background of a shell, SIGINT is ignored, and would stay so.
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(
            ["bash", "-c", whole], env=self.environ, preexec_fn=heed, **{**pipes, **options}
        )

    async def __call__(self, script: str, **environ: str) -> Done:
        self.environ.update(environ)
        process = self.begin(script)
        out, err = await in_thread(process.communicate, timeout=60)
        return Done(process.returncode, out.decode(), err.decode())

    def asked(self, turn: int = -1) -> Any:
        """The messages that the provider got."""
        return [(m["role"], m["content"]) for m in self.provider.requests[turn]["messages"]]


@pytest.fixture
def provider(io_loop: Any) -> Any:
    made = ScriptedProvider()
    yield made
    io_loop.asyncio_loop.run_until_complete(made.close())


@pytest.fixture
def sh(provider: ScriptedProvider, tmp_path: Path) -> Shell:
    return Shell(tmp_path, provider)


# ---- What is asked


async def test_words_are_the_prompt(sh: Shell) -> None:
    sh.answers([think("Hm."), say("Hel"), say("lo")])
    assert await sh("rproxy ask say hello") == Done(0, "Hello\n", "Hm.\n")
    assert sh.asked() == [("user", "say hello")]
    assert sh.provider.requests[-1]["model"] == "deepseek-v4-pro"


async def test_what_is_piped_in_is_the_prompt_or_the_material(sh: Shell) -> None:
    sh.answers([say("one")], [say("two")])
    assert (await sh("echo 'why?' | rproxy ask")).out == "one\n"
    assert sh.asked() == [("user", "why?")]
    assert (await sh("printf 'a diff\\n' | rproxy ask 'write a message' | tr a-z A-Z")).out == "TWO\n"
    assert sh.asked() == [("user", "write a message\n\na diff")]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "''",
        "--schema missing.json x",
        "--schema bad.json x",
        "--schema list.json x",
        "--schema deep.json x",
        "--image missing.png x",
        "--image bad.json x",
        "--file missing x",
        "--url nonsense x",
        "--url http:// x",
        "--json --events x",
        "--effort enormous x",
        "--timeout soon x",
        "--timeout 0 x",
        "--session '' x",
    ],
)
async def test_wrong_usage_is_2_without_a_configuration_too(arguments: str, sh: Shell) -> None:
    (sh.home / "bad.json").write_text("{", encoding="utf-8")
    (sh.home / "deep.json").write_text('{"not":' * 900 + "{}" + "}" * 900, encoding="utf-8")
    (sh.home / "list.json").write_text("[]", encoding="utf-8")
    done = await sh(f"rproxy ask {arguments}", RPROXY_CONFIG="missing.yaml")
    assert (done.status, done.out) == (2, "") and done.err


async def test_the_options_reach_the_provider(sh: Shell) -> None:
    sh.answers([say("ok")])
    done = await sh("rproxy ask --instructions 'Be brief.' --effort high -m other hi || echo $?")
    assert done.out == "1\n" and "other" in done.err  # no such model
    done = await sh("rproxy ask --instructions 'Be brief.' --effort high -m gpt-5.5 hi")
    assert done.out == "ok\n"
    assert sh.asked() == [("system", "Be brief."), ("user", "hi")]
    assert sh.provider.requests[-1]["reasoning_effort"] == "high"


async def test_images_and_files(sh: Shell) -> None:
    (sh.home / "a.png").write_bytes(PIXEL)
    (sh.home / "notes.txt").write_text("Müller owes 5 €", encoding="utf-8")
    text = CONFIG.format(url=sh.provider.base_url) + "    modalities: [text, image]\n"
    (sh.home / "config.yaml").write_text(text, encoding="utf-8")
    sh.provider.strict = False
    sh.answers([say("ok")])
    assert (await sh("rproxy ask --image a.png --file notes.txt 'who owes?'")).out == "ok\n"
    parts = sh.asked()[0][1]
    assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert [part["text"] for part in parts[1:]] == ["notes.txt:\nMüller owes 5 €", "who owes?"]


async def test_what_is_left_out_is_said(sh: Shell) -> None:
    (sh.home / "a.png").write_bytes(PIXEL)
    sh.answers([say("ok")])
    done = await sh("rproxy ask --image a.png 'what is it?'")
    assert done == Done(0, "ok\n", "rproxy: warning: image left out: the model takes text only\n")


# ---- What is printed


async def test_text_comes_as_it_is_made(sh: Shell) -> None:
    go_on = asyncio.Event()
    sh.answers([say("first\n"), gate(go_on), say("second")])
    process = sh.begin("rproxy ask x")
    assert process.stdout is not None
    assert await in_thread(process.stdout.readline) == b"first\n"
    go_on.set()
    out, _ = await in_thread(process.communicate)
    assert (out, process.returncode) == (b"second\n", 0)


async def test_thinking_can_be_left_out(sh: Shell) -> None:
    sh.answers([think("Hm."), say("ok")])
    assert await sh("rproxy ask --no-thinking x") == Done(0, "ok\n", "")


async def test_the_response_and_the_events(sh: Shell) -> None:
    sh.answers([think("Hm."), say("Grüße")], [think("Hm."), say("ok")])
    done = await sh("rproxy ask --json x")
    response = json.loads(done.out)
    assert response["object"] == "response" and response["output"][-1]["content"][0]["text"] == "Grüße"
    assert "Grüße" in done.out and done.err == "Hm.\n"
    done = await sh("rproxy ask --events x")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert events[0]["type"] == "response.created" and events[-1]["type"] == "response.completed"
    assert done.err == ""


@pytest.mark.parametrize("options", ["", "--events"])
async def test_a_pipe_closed_early_ends_quietly(options: str, sh: Shell) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        text = "line\n" * 100_000  # more than fits into a pipe
        event = {"type": "response.output_text.delta", "delta": text}
        chat = {"choices": [{"index": 0, "delta": {"content": text}}]}
        answer = chat if peer.number == 0 else event
        data = chunk(f"data: {json.dumps(answer)}\n\n".encode())
        await peer.send(CHUNKED, data, data, data)
        await peer.wait_gone()

    provider = RawServer(script)
    async with provider.running():
        (sh.home / "config.yaml").write_text(CONFIG.format(url=provider.url), encoding="utf-8")
        done = await sh(f"rproxy ask {options} x | head -1")
        assert (done.status, done.err) == (0, "") and len(done.out.splitlines()) == 1
        await provider.peers[0].when_gone()  # it does not go on for nobody
        done = await sh(f"rproxy ask {options} --url {provider.url} -m m x | head -1")
        assert (done.status, done.err) == (0, "") and len(done.out.splitlines()) == 1
        await provider.peers[1].when_gone()
    for command in ("ask --help", "profiles"):
        done = await sh(f"rproxy {command} | head -1")
        assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1"])
async def test_utf8_in_every_locale(locale: str, sh: Shell) -> None:
    sh.answers([think("Größe"), say("€ 漢字 🎈")])
    done = await sh(
        "printf 'Straße' | rproxy ask 'Übersetze' 'ins Japanische 漢'",
        LC_ALL=locale,
        PYTHONCOERCECLOCALE="0",
        PYTHONUTF8="0",
    )
    warned = "bash: warning: setlocale: LC_ALL: cannot change locale (de_DE.ISO-8859-1)\n"
    assert done._replace(err=done.err.replace(warned, "")) == Done(0, "€ 漢字 🎈\n", "Größe\n")
    assert sh.asked() == [("user", "Übersetze ins Japanische 漢\n\nStraße")]


async def test_closed_streams(sh: Shell) -> None:
    sh.answers([think("Hm."), say("ok")], [think("Hm."), say("ok")], [think("Hm."), say("ok")])
    assert (await sh("rproxy ask x <&-")).out == "ok\n"
    assert (await sh("rproxy ask x 2>&-")).out == "ok\n"
    assert (await sh("rproxy ask x >&-")).status == 0
    sh.answers([say("ok")])
    done = await sh("rproxy ask x > /dev/full")
    assert done.status == 1 and "Traceback" not in done.err and "No space" in done.err


async def on_terminal(sh: Shell, script: str) -> str:
    """What a terminal shows; all three streams are that terminal."""
    master, slave = pty.openpty()
    process = sh.begin(script, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # nobody has the other end any more
        while True:
            piece = await in_thread(os.read, master, 4096)
            if not piece:
                break
            shown += piece
    await in_thread(process.wait)
    os.close(master)
    return shown.decode()


async def test_a_terminal_shows_thinking_dimmed_and_obeys_nothing(sh: Shell) -> None:
    sh.answers([think("Hm."), say("an\x1b[31mswer\n")])
    assert await on_terminal(sh, "rproxy ask x") == "\x1b[2mHm.\x1b[0m\r\nan[31mswer\r\n"
    sh.answers([think("Hm."), say("a")], [think("Hm."), say("a")])
    for variable in ("NO_COLOR", "TERM"):
        assert "\x1b" not in await on_terminal(sh, f"{variable}=dumb rproxy ask x")
    assert "there is no question" in await on_terminal(sh, "rproxy ask || true")


# ---- A schema

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "text, problem",
    [
        ('{"name": "Ann", "age": 7}', ""),
        ('```json\n{"name": "Ann", "age": 7}\n```', ""),
        ('{"name": "Ann"}', "$.age is missing"),
        ('{"name": "Ann", "age": -1}', "$.age must be at least 0"),
        ('{"name": "Ann", "age": 1, "x": 1}', "$.x must not be there"),
        ("Ann is 7", "it is not JSON"),
    ],
)
async def test_json_that_fits_a_schema_or_nothing(text: str, problem: str, sh: Shell) -> None:
    (sh.home / "person.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    sh.answers([say(text)])
    done = await sh("rproxy ask --schema person.json 'who?'")
    if problem:
        assert (done.status, done.out) == (1, "") and problem in done.err
    else:
        assert done.status == 0 and json.loads(done.out) == {"name": "Ann", "age": 7} and not done.err


async def test_a_schema_and_the_whole_response(sh: Shell) -> None:
    (sh.home / "person.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    sh.answers([say("{}")], [say('{"name": "Ann", "age": 7}')])
    assert (await sh("rproxy ask --json --schema person.json x || echo $?")).out == "1\n"
    assert json.loads((await sh("rproxy ask --json --schema person.json x")).out)["status"] == "completed"


# ---- Exit statuses


@pytest.mark.parametrize(
    "steps, status",
    [
        ([error(401, "Wrong key.")], 77),
        ([error(403, "Not here.")], 77),
        ([error(429, "Slow down.")], 75),
        ([error(500, "Broken.")], 75),
        ([error(503, "Busy.")], 75),
        ([error(404, "No such model.")], 1),
        ([error(400, "What?")], 1),
        ([say("half of"), finish("length")], 1),
        ([say("half of"), CUT], 1),
    ],
)
@pytest.mark.parametrize("with_server", [False, True])
async def test_exit_statuses(steps: List[Any], status: int, with_server: bool, sh: Shell) -> None:
    sh.answers(steps)
    if with_server:
        async with served(sh.provider.base_url, "  retries: 0\n") as url:
            done = await sh(f"rproxy ask --url {url} x")
    else:
        done = await sh("rproxy ask x")
    assert done.status == status and done.err.startswith("rproxy: "), done
    assert done.out == ("half of\n" if status == 1 and steps[0].get("delta") else "")


async def test_unreachable_is_69(sh: Shell) -> None:
    done = await sh("rproxy ask --url http://127.0.0.1:9 x")
    assert (done.status, done.out) == (69, "") and "nothing answers at http://127.0.0.1:9/v1" in done.err
    (sh.home / "config.yaml").write_text(CONFIG.format(url="http://127.0.0.1:9/v1"), encoding="utf-8")
    assert (await sh("rproxy ask x")).status == 69


async def test_no_connection_in_time_is_69_and_no_answer_in_time_is_75(sh: Shell) -> None:
    with socket.socket() as full, contextlib.ExitStack() as opened:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        text = CONFIG.format(url=url).replace("retries: 0", "retries: 0, LIMIT: 300ms")
        (sh.home / "config.yaml").write_text(text.replace("LIMIT", "first_byte_timeout"), encoding="utf-8")
        assert (await sh("rproxy ask x")).status == 75
        for _ in range(8):  # nobody accepts: the system lets no more in
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        (sh.home / "config.yaml").write_text(text.replace("LIMIT", "connect_timeout"), encoding="utf-8")
        assert (await sh("rproxy ask x")).status == 69


async def test_a_configuration_that_cannot_be_used_is_78(sh: Shell) -> None:
    (sh.home / "config.yaml").write_text("models: []", encoding="utf-8")
    assert (await sh("rproxy ask x")).status == 78
    assert (await sh("rproxy ask --url http://127.0.0.1:9 x", RPROXY_API_KEY="é")).status == 78


@pytest.mark.parametrize("steps", [[], [say("half of")]])
async def test_a_timeout_is_75(steps: List[Any], sh: Shell) -> None:
    sh.answers([*steps, gate(asyncio.Event())])
    done = await sh("rproxy ask --timeout 0.5s x")
    assert done.status == 75 and "--timeout" in done.err
    assert done.out == ("half of\n" if steps else "")
    await until(lambda: sh.provider.gone)


@pytest.mark.parametrize("with_server", [False, True])
async def test_interrupted_is_130(with_server: bool, sh: Shell) -> None:
    sh.answers([say("half of"), gate(asyncio.Event())])
    async with served(sh.provider.base_url) as url:
        process = sh.begin(f"exec {rproxy_words()} ask {f'--url {url}' if with_server else ''} x")
        assert process.stdout is not None
        assert await in_thread(process.stdout.read, 7) == b"half of"
        process.send_signal(signal.SIGINT)
        try:
            out, err = await in_thread(process.communicate, timeout=30)
        finally:
            process.kill()
        await until(lambda: sh.provider.gone)
    assert (process.returncode, out, err) == (130, b"\n", b"")


# ---- With a server


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_a_server_with_or_without_v1_and_its_key(suffix: str, sh: Shell) -> None:
    sh.answers([say("ok")])
    auth = "  auth: {keys: [sk-of-the-server]}\n"
    async with served(sh.provider.base_url, auth) as url:
        base = url[: -len("/v1")] if url.endswith("/v1") else url
        done = await sh(f"rproxy ask --url {base}{suffix} x", RPROXY_CONFIG="missing.yaml")
        assert done.status == 77 and "$RPROXY_API_KEY" in done.err
        done = await sh(f"rproxy ask --url {base}{suffix} x", RPROXY_API_KEY="sk-of-the-server")
        assert done == Done(0, "ok\n", "")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "event",
    [
        {"type": ["x"]},
        {"type": "error", "error": "broken"},
        {"type": "response.output_text.delta", "delta": {"a": 1}, "output_index": {}},
        {"type": "response.failed", "response": {"status": "failed", "error": "broken"}},
        {"type": "response.incomplete", "response": {"status": "incomplete", "incomplete_details": ["x"]}},
        *(
            {"type": "response.completed", "response": response}
            for response in (None, [1], {}, {"output": 1})
        ),
        {
            "type": "response.completed",
            "response": {"status": "completed", "output": [1, {"type": "message"}]},
        },
        *(
            {
                "type": "response.completed",
                "response": {"status": "completed", "output": [{"type": "message", "content": content}]},
            }
            for content in ("x", [1], [{"text": 1, "refusal": 2}])
        ),
    ],
)
def test_odd_events_of_a_server(event: Any, whole: bool, capsys: Any) -> None:
    printer = Printer("nothing" if whole else "text", False, {})
    printer.send([event])
    assert conclude(printer, whole, None) in (0, 1)
    assert printer.response is None or isinstance(text_of(printer.response), str)


async def test_a_server_that_does_not_stream_or_breaks_off(sh: Shell) -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "whole"}]}
    whole = json.dumps({"object": "response", "status": "completed", "output": [message]}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    async with RawServer(keep_serving(head % len(whole) + whole)).running() as server:
        assert await sh(f"rproxy ask --url {server.url} -m m x") == Done(0, "whole\n", "")
    half = b'data: {"type": "response.output_text.delta", "delta": "half of"}\n\n'
    async with RawServer(keep_serving(head % len(half) + half)).running() as server:
        done = await sh(f"rproxy ask --url {server.url} -m m x")
        assert (done.status, done.out) == (1, "half of\n") and "broke off" in done.err
    async with RawServer(keep_serving(head % 2 + b"{}")).running() as server:
        assert (await sh(f"rproxy ask --url {server.url} x")).status == 2  # it lists no models


# ---- Going on


async def test_going_on_with_the_last_answer(sh: Shell) -> None:
    sh.answers([think("Hm."), say("4")], [say("7")], [say("new")])
    done = await sh("rproxy ask --continue x || echo $?")
    assert done.out == "1\n" and "no answer to continue" in done.err
    assert (await sh("rproxy ask --instructions 'Be brief.' '2+2?'")).out == "4\n"
    assert (await sh("rproxy ask --continue 'plus 3?'")).out == "7\n"
    assert sh.asked() == [("system", "Be brief."), ("user", "2+2?"), ("assistant", "4"), ("user", "plus 3?")]
    assert (await sh("rproxy ask 'something else'")).out == "new\n"
    assert sh.asked() == [("user", "something else")]


async def test_sessions(sh: Shell) -> None:
    sh.answers([say("A1")], [say("B1")], [say("C1")], [say("A2")], [say("B2")], [say("A3")])
    assert (await sh("rproxy ask --session a --continue x || echo $?")).out == "1\n"
    await sh("rproxy ask --session a one; rproxy ask --session 'b/../ü' two; rproxy ask three")
    assert (await sh("rproxy ask --session a --continue four")).out == "A2\n"
    assert sh.asked() == [("user", "one"), ("assistant", "A1"), ("user", "four")]
    assert (await sh("rproxy ask --continue --session 'b/../ü' five")).out == "B2\n"
    assert sh.asked() == [("user", "two"), ("assistant", "B1"), ("user", "five")]
    await sh("rproxy ask --session a six")  # without --continue it begins anew
    assert sh.asked() == [("user", "six")]
    kept = [path for path in (sh.home / "state" / "rproxy").rglob("*") if path.is_file()]
    assert kept and {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert {path.parent for path in kept} == {sh.home / "state" / "rproxy"}


async def test_a_thread_goes_on_at_a_server(sh: Shell) -> None:
    sh.answers([say("4")], [say("7")])
    await sh("rproxy ask '2+2?'")
    async with served(sh.provider.base_url) as url:
        assert (await sh(f"rproxy ask --url {url} --continue 'plus 3?'")).out == "7\n"
    assert sh.asked() == [("user", "2+2?"), ("assistant", "4"), ("user", "plus 3?")]


async def test_each_terminal_has_its_last_answer(sh: Shell) -> None:
    sh.answers([say("A")], [say("B")], [say("A2")], [say("C2")])
    one, other = pty.openpty(), pty.openpty()
    try:
        for text, (_, slave) in (("a", one), ("b", other), ("--continue c", one)):
            process = sh.begin(f"rproxy ask {text} < /dev/null", stdout=slave)
            await in_thread(process.communicate)
    finally:
        for descriptor in (*one, *other):
            os.close(descriptor)
    assert sh.asked() == [("user", "a"), ("assistant", "A"), ("user", "c")]
    assert (await sh("rproxy ask --continue d")).out == "C2\n"  # without a terminal: the last one
    assert sh.asked()[-3:] == [("user", "c"), ("assistant", "A2"), ("user", "d")]


async def test_what_is_old_is_forgotten_and_nothing_else(sh: Shell) -> None:
    folder = sh.home / "state" / "rproxy"
    folder.mkdir(parents=True)
    for name in ("ask-thread-old.json", "ask-thread-new.json", "seal_key.old"):
        (folder / name).touch()
        if "new" not in name:
            os.utime(folder / name, (0, 0))
    sh.answers([say("ok")])
    await sh("rproxy ask x")
    names = {path.name for path in folder.iterdir()}
    assert {"ask-thread-new.json", "seal_key.old", "ask-last"} <= names
    assert "ask-thread-old.json" not in names


async def test_what_failed_is_not_remembered(sh: Shell) -> None:
    sh.answers([say("4")], [error(400, "What?")], [say("7")])
    await sh("rproxy ask '2+2?'")
    assert (await sh("rproxy ask 'nonsense'")).status == 1
    assert (await sh("rproxy ask --continue 'plus 3?'")).out == "7\n"
    assert sh.asked() == [("user", "2+2?"), ("assistant", "4"), ("user", "plus 3?")]


# ---- JSON Schema


@pytest.mark.parametrize(
    "schema, good, bad",
    [
        ({"type": ["string", "null"]}, ["a", None], [1, []]),
        ({"type": "integer"}, [1, 1.0, -3], [1.5, True, "1"]),
        ({"type": "number"}, [1, 1.5, 10**400], [False]),
        ({"type": "integer", "minimum": 0, "multipleOf": 5}, [10**400, 1e300], [10**400 + 1, -(10**400)]),
        ({"type": "boolean"}, [True], [0]),
        ({"type": "nonsense"}, [1], []),
        ({"enum": [1, "a", [1]]}, [1, "a", [1]], [True, [True], "b"]),
        ({"const": {"a": 1}}, [{"a": 1}], [{"a": 2}, {}]),
        ({"minLength": 2, "maxLength": 3, "pattern": "^a"}, ["ab", 7], ["a", "abcd", "ba"]),
        ({"pattern": "("}, ["a"], []),
        ({"minimum": 1, "exclusiveMaximum": 2, "multipleOf": 0.1}, [1, 1.3, "x"], [0, 2, 1.25]),
        ({"items": {"type": "string"}, "minItems": 1, "uniqueItems": True}, [["a"], 1], [[], [1], ["a"] * 2]),
        ({"prefixItems": [{"type": "string"}], "items": False}, [["a"], []], [[1], ["a", 1]]),
        ({"items": [{"type": "string"}]}, [["a", 1]], [[1]]),
        ({"contains": {"const": 1}}, [[0, 1]], [[0]]),
        ({"patternProperties": {"^x": {"const": 1}}, "additionalProperties": False}, [{"xa": 1}], [{"a": 1}]),
        ({"propertyNames": {"maxLength": 1}, "minProperties": 1}, [{"a": 1}], [{"ab": 1}, {}]),
        ({"dependentRequired": {"a": ["b"]}}, [{"a": 1, "b": 2}, {"b": 1}], [{"a": 1}]),
        ({"allOf": [{"type": "string"}, {"maxLength": 1}]}, ["a"], ["ab", 1]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, ["a", None], [1]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, [1, 5.5], [5]),
        ({"not": {"type": "null"}}, [1], [None]),
        ({"if": {"type": "string"}, "then": {"minLength": 1}, "else": {"const": 1}}, ["a", 1], ["", 2]),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}}, [None], [1]),
        ({"$ref": "#/$defs/none"}, [None], []),
        ({"properties": {"n": {"$ref": "#"}}, "required": ["v"]}, [{"v": 1}], [{"v": 1, "n": {}}]),
        ({"$ref": "#"}, [1], []),
        ({"properties": 7, "required": "a", "anyOf": {}, "items": {}, "enum": "x"}, [{"a": 1}], []),
        (True, [1], []),
        (False, [], [1]),
    ],
)  # fmt: skip
def test_json_schema(schema: Any, good: List[Any], bad: List[Any]) -> None:
    assert [first_problem(value, schema) for value in good] == [None] * len(good)
    assert all(first_problem(value, schema) for value in bad)


def test_the_problem_names_the_place() -> None:
    schema = {"properties": {"a b": {"items": {"properties": {"x": {"type": "string"}}}}}}
    assert first_problem({"a b": [{}, {"x": 1}]}, schema) == "$['a b'][1].x must be string"


def test_strict_schemas() -> None:
    assert is_strict(SCHEMA) and is_strict({"type": "string"})
    assert not is_strict({**SCHEMA, "required": ["name"]}) and not is_strict({"items": {"type": "object"}})
