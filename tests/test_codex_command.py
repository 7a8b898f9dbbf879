"""``rproxy codex``: how Codex is found, started and told, with a stand-in for it; and the real one, if
`CODEX_BIN` names it.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from forkserver import rproxy_command
from scripted import free_port

from rproxy.cli.codex_install import find_codex
from rproxy.cli.codex_profile import MARK, CodexError
from rproxy.cli.codex_run import wanted_model
from rproxy.cli.main import main

Json = Dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
STAND_IN = Path(__file__).with_name("fixtures") / "codex_stand_in.py"
REAL = os.environ.get("CODEX_BIN", "")
CONFIG = """\
models:
  - model: gpt-5.5
    provider: {base_url: "http://127.0.0.1:9/v1", profile: deepseek}
    downstream_model: deepseek-v4-pro
  - model: "local-*"
    provider: {base_url: "http://127.0.0.1:9/v1"}
"""


def program(path: Path, text: str = "") -> Path:
    """An executable file: the stand-in for Codex, or ``text``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or f"#!{sys.executable} -S\n{STAND_IN.read_text()}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of its own, with the stand-in as the only codex, a configuration, and an empty folder for
    temporary files.
    """
    for name in list(os.environ):
        if (
            name.endswith("_API_KEY")
            or name.startswith(("RPROXY_", "XDG_CONFIG", "CODEX_"))
            and name != "RPROXY_PURE"
            or name.lower().endswith("_proxy")
        ):
            monkeypatch.delenv(name)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    program(tmp_path / "bin" / "codex")
    for name, value in {
        "HOME": tmp_path,
        "TMPDIR": tmp_path / "tmp",
        "PATH": tmp_path / "bin",
        "REPORT": tmp_path / "report",
        "PYTHONPATH": ROOT,
        "RPROXY_CONFIG": tmp_path / "config.yaml",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(home: Path) -> Json:
    found: Json = json.loads((home / "report").read_text(encoding="utf-8"))
    return found


# ---- a run


def test_a_run_tells_codex_everything_and_leaves_nothing(home: Path, capsys: Any) -> None:
    assert main(["codex", "--", "exec", "-m", "local-llama", "go"]) == 0
    told = report(home)
    settings = dict(setting.split("=", 1) for setting in told["args"][1::2] if "=" in setting)
    assert told["args"][-4:] == ["exec", "-m", "local-llama", "go"]
    assert (
        settings["model"] == '"local-llama"'
        and settings["model_provider"] == '"rproxy"'
        and settings["web_search"] == '"disabled"'
    )
    provider = settings["model_providers.rproxy"]
    assert (
        'wire_api="responses"' in provider
        and "supports_websockets=true" in provider
        and 'env_key="RPROXY_API_KEY"' in provider
    )
    key = told["env"]["RPROXY_API_KEY"]
    assert len(key) >= 24 and key not in json.dumps(told["args"])
    assert [entry["slug"] for entry in told["catalog"]["models"]] == ["gpt-5.5", "local-llama"]
    assert list((home / "tmp").iterdir()) == [] and not (home / ".codex").exists()
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"rproxy: Codex 0.169.0 on local-llama, {home}/config.yaml; "
        "rproxy's log: none (--log-file FILE keeps one)\n",
    )


def test_one_line_says_what_starts_unless_it_is_not_wanted(home: Path, capsys: Any) -> None:
    argv = [sys.executable, "-m", "rproxy", "codex", "--log-file", "here.log", "exec"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "gpt-5.5" in done.stderr and "log: here.log" in done.stderr
    assert main(["codex", "--quiet", "exec"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["codex", "--demo"]) == 0
    assert "the demo provider" in capsys.readouterr().err
    assert main(["codex", "--demo", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_search_is_switched_on_where_there_is_one(home: Path) -> None:
    (home / "config.yaml").write_text(CONFIG + "search: {kind: brave, api_key: k}\n", encoding="utf-8")
    assert main(["codex"]) == 0
    told = report(home)
    settings = dict(setting.split("=", 1) for setting in told["args"][1::2] if "=" in setting)
    assert settings["web_search"] == '"live"' and settings["features.standalone_web_search"] == "true"
    assert settings["suppress_unstable_features_warning"] == "true"
    assert "supports_standalone_web_search=true" in settings["model_providers.rproxy"]
    assert [entry["web_search_tool_type"] for entry in told["catalog"]["models"]] == ["text"]
    assert main(["codex", "--write"]) == 0
    profile = (home / ".codex" / "rproxy.config.toml").read_text(encoding="utf-8")
    assert "\nfeatures.standalone_web_search = true\n" in profile


def test_the_catalog_has_codex_own_prompt_and_our_facts(home: Path) -> None:
    main(["codex"])
    entry = report(home)["catalog"]["models"][0]
    assert entry["base_instructions"] == "Classic." and entry["model_messages"] and entry["new_field"] == 2
    assert (entry["upgrade"], entry["service_tiers"]) == (None, [])
    assert (entry["context_window"], entry["input_modalities"], entry["default_reasoning_level"]) == (
        1_000_000,
        ["text"],
        "high",
    )


def test_a_prompt_of_the_configuration_wins(home: Path) -> None:
    (home / "prompt.md").write_text("My own prompt.", encoding="utf-8")
    config = CONFIG.replace("    downstream", "    instructions_file: prompt.md\n    downstream")
    (home / "config.yaml").write_text(config, encoding="utf-8")
    main(["codex"])
    entry = report(home)["catalog"]["models"][0]
    assert entry["base_instructions"] == "My own prompt." and "model_messages" not in entry


def test_a_codex_that_does_not_tell_its_models(home: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("NO_BUNDLED", "1")
    assert main(["codex"]) == 0
    assert report(home)["catalog"]["models"][0]["base_instructions"].startswith("You are a coding agent")
    assert "rproxy's takes its place" in capsys.readouterr().err


def test_a_proxy_of_the_user_is_not_asked_for_the_own_machine(home: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("NO_PROXY", "intern.example")
    main(["codex"])
    assert report(home)["env"]["NO_PROXY"] == report(home)["env"]["no_proxy"] == "intern.example,127.0.0.1"


@pytest.mark.parametrize("act, status", [("0", 0), ("7", 7), ("die", 128 + signal.SIGKILL)])
def test_the_exit_status_is_passed_on(home: Path, monkeypatch: Any, act: str, status: int) -> None:
    monkeypatch.setenv("ACT", act)
    assert main(["codex"]) == status
    assert list((home / "tmp").iterdir()) == []


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 5), (signal.SIGINT, 6)])
async def test_signals_are_passed_on(home: Path, number: int, status: int) -> None:
    environ = dict(os.environ, ACT="wait")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rproxy", "codex", env=environ, start_new_session=True
    )
    until = time.monotonic() + 15
    while not (home / "report.ready").exists():
        assert time.monotonic() < until and process.returncode is None
        await asyncio.sleep(0.02)
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 10) == status
    assert list((home / "tmp").iterdir()) == []


# ---- the installed Codex


@pytest.mark.parametrize(
    "environ, complaint",
    [
        ({"PATH": "/nowhere"}, r"no codex in \$PATH.*npm install"),
        ({"CODEX_BIN": "/nowhere/codex"}, r"\$CODEX_BIN is /nowhere/codex"),
        ({"STAND_IN_VERSION": "0.99.1"}, r"Codex 0\.99\.1.*0\.134\.0 or newer.*npm install"),
        ({"STAND_IN_VERSION": "of yesterday"}, "does not look like Codex"),
    ],
)
def test_no_codex_or_the_wrong_one(
    home: Path, environ: Dict[str, str], complaint: str, monkeypatch: Any, capsys: Any
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CodexError, match=complaint):
        find_codex(os.environ)
    assert main(["codex"]) == 1
    assert capsys.readouterr().err.startswith("rproxy: ")


def test_no_key_is_told_as_by_the_other_commands(home: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.delenv("RPROXY_CONFIG")
    assert main(["codex"]) == 78
    assert "export DEEPSEEK_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    "place",
    [
        "@openai/codex/node_modules/@openai/codex-linux-x64/vendor/any",
        "@openai/codex-linux-x64/vendor/any",
        "@openai/codex/vendor/any",
    ],
)
def test_the_program_behind_the_launcher_of_npm(home: Path, place: str) -> None:
    modules = home / "lib" / "node_modules"
    launcher = program(
        modules / "@openai" / "codex" / "bin" / "codex.js", "#!/bin/sh\necho codex-cli 0.1.0\n"
    )
    program(modules / place / "bin" / "codex-code-mode-host", "#!/bin/sh\n")
    native = program(modules / place / "bin" / "codex")
    (home / "bin" / "codex").unlink()
    (home / "bin" / "codex").symlink_to(launcher)
    assert find_codex(os.environ) == (str(native), "0.169.0")


@pytest.mark.parametrize(
    "args, model",
    [
        ([], None),
        (["exec", "-m", "a", "go"], "a"),
        (["--model", "a"], "a"),
        (["exec", "--model=a/b"], "a/b"),
        (["exec", "-m"], ""),
    ],
)
def test_the_model_among_the_arguments(args: List[str], model: Any) -> None:
    assert wanted_model(args) == model


def test_only_globs_and_no_name(home: Path, capsys: Any) -> None:
    (home / "config.yaml").write_text(
        'models: [{model: "*", provider: {base_url: "http://127.0.0.1:9"}}]', encoding="utf-8"
    )
    assert main(["codex"]) == 1
    assert "rproxy codex -m NAME" in capsys.readouterr().err
    assert main(["codex", "--", "-m", "any"]) == 0


@pytest.mark.parametrize(
    "argv, args, model",
    [
        (["-m", "local-a"], [], "local-a"),
        (["--model", "local-a", "--", "exec", "go"], ["exec", "go"], "local-a"),
        (["-m", "local-a", "exec", "--json", "go"], ["exec", "--json", "go"], "local-a"),
        (["exec", "-m", "local-b", "go"], ["exec", "-m", "local-b", "go"], "local-b"),
        (["-m", "local-a", "exec", "--model=local-b"], ["exec", "--model=local-b"], "local-b"),
        (["--profile", "any", "exec", "--", "-x"], ["exec", "--", "-x"], "gpt-5.5"),
    ],
)
def test_the_model_and_the_arguments_of_codex(
    home: Path, argv: List[str], args: List[str], model: str
) -> None:
    assert main(["codex", *argv]) == 0
    started = report(home)
    settings = [arg for arg in started["args"] if arg.startswith("model=")]
    assert settings == [f'model="{model}"'] and started["args"][-len(args) :] == (args or started["args"])
    assert model in [entry["slug"] for entry in started["catalog"]["models"]]


@pytest.mark.parametrize(
    "known, args, given",
    [
        ("--no-daemon", [], 1),
        ("--no-daemon", ["--no-daemon"], 1),  # the user's own; Codex takes it once
        ("--no-daemon", ["--remote", "ws://127.0.0.1:1"], 0),  # there it would contradict
        ("--no-daemons", [], 0),  # an older Codex
    ],
)
def test_codex_does_not_warn_of_its_background_server(
    home: Path, monkeypatch: Any, known: str, args: List[str], given: int
) -> None:
    monkeypatch.setenv("KNOWS", known)
    assert main(["codex", "--", *args]) == 0
    assert report(home)["args"].count("--no-daemon") == given


# ---- the profile


def test_print_shows_what_write_writes(home: Path, capsys: Any) -> None:
    assert main(["codex", "--print"]) == 0
    shown = capsys.readouterr().out
    assert not (home / ".codex").exists()
    assert main(["codex", "--write"]) == 0
    written = (home / ".codex" / "rproxy.config.toml").read_text(encoding="utf-8")
    assert written.startswith(MARK) and written in shown and "codex -c 'model=" in shown
    assert 'base_url = "http://127.0.0.1:3000/v1"' in written and "env_key" not in written
    models = json.loads((home / ".codex" / "rproxy.models.json").read_text(encoding="utf-8"))["models"]
    assert models[0]["base_instructions"] == "Classic."
    assert "codex --profile rproxy" in capsys.readouterr().out


def test_write_keeps_what_is_there_and_restore_brings_it_back(
    home: Path, monkeypatch: Any, capsys: Any
) -> None:
    folder = home / "elsewhere"
    monkeypatch.setenv("CODEX_HOME", str(folder))
    folder.mkdir()
    (folder / "my.config.toml").write_text("model = 'mine'\n", encoding="utf-8")
    for _ in range(2):  # the second time it is ours, and only written anew
        assert main(["codex", "--write", "--profile", "my"]) == 0
    assert (folder / "my.config.toml.before-rproxy").read_text(encoding="utf-8") == "model = 'mine'\n"
    assert main(["codex", "--restore", "--profile", "my"]) == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == {
        "my.config.toml": "model = 'mine'\n"
    }
    assert main(["codex", "--restore", "--profile", "my"]) == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert (
        main(["codex", "--write", "--profile", "new"])
        == main(["codex", "--restore", "--profile", "new"])
        == 0
    )
    assert [path.name for path in folder.iterdir()] == ["my.config.toml"]


def test_write_does_not_overwrite_a_backup(home: Path, capsys: Any) -> None:
    (home / ".codex").mkdir()
    for name in ("rproxy.config.toml", "rproxy.config.toml.before-rproxy"):
        (home / ".codex" / name).write_text(name, encoding="utf-8")
    assert main(["codex", "--write"]) == 1
    assert "move one of them away" in capsys.readouterr().err
    assert (home / ".codex" / "rproxy.config.toml").read_text(encoding="utf-8") == "rproxy.config.toml"


def test_a_server_with_keys_and_an_address_for_everybody(home: Path, capsys: Any) -> None:
    server = 'server: {listen_addr: "0.0.0.0:4000", auth: {enabled: true, keys: [abc]}}\n'
    (home / "config.yaml").write_text(server + CONFIG, encoding="utf-8")
    assert main(["codex", "--write"]) == 0
    written = (home / ".codex" / "rproxy.config.toml").read_text(encoding="utf-8")
    assert (
        'base_url = "http://127.0.0.1:4000/v1"' in written
        and 'env_key = "RPROXY_API_KEY"' in written
        and "abc" not in written
    )
    use = "RPROXY_API_KEY=YOUR_KEY codex --profile rproxy"
    assert use in capsys.readouterr().out.splitlines()[-1]
    assert main(["codex", "--print"]) == 0
    shown = capsys.readouterr().out
    assert use in shown and "\nRPROXY_API_KEY=YOUR_KEY codex -c " in shown


@pytest.mark.parametrize(
    "argv", [["--profile", "../x"], ["--print", "--write"], ["--url", "http://h", "--port", "1"], ["--dance"]]
)
def test_wrong_usage(home: Path, argv: List[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["codex", *argv])
    assert stop.value.code == 2


# ---- an rproxy that runs already


async def on_running(home: Path, *argv: str, auth: str = "") -> Tuple[int, str]:
    """``rproxy codex`` on a running ``rproxy serve``. :returns: its exit status and what it complains of"""
    (home / "served.yaml").write_text(auth + CONFIG, encoding="utf-8")
    serve = await asyncio.create_subprocess_exec(
        *rproxy_command(),
        "serve",
        "-c",
        str(home / "served.yaml"),
        "--listen",
        "127.0.0.1:0",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert serve.stdout is not None
        url = (await asyncio.wait_for(serve.stdout.readline(), 10)).decode().split(" on ")[1].split()[0]
        words = [word.format(url=url, port=url.split(":")[2].split("/", maxsplit=1)[0]) for word in argv]
        process = await asyncio.create_subprocess_exec(
            *rproxy_command("codex", *words), stderr=asyncio.subprocess.PIPE
        )
        _, complaint = await asyncio.wait_for(process.communicate(), 20)
        return process.returncode or 0, complaint.decode()
    finally:
        serve.terminate()
        await serve.communicate()


@pytest.mark.parametrize("argv", [("--url", "{url}"), ("--port", "{port}")])
async def test_a_running_rproxy(home: Path, argv: Tuple[str, ...]) -> None:
    status, line = await on_running(home, *argv, "--", "exec", "go")
    assert status == 0 and re.fullmatch(
        r"rproxy: Codex \S+ on gpt-5\.5, the server at http://127\.0\.0\.1:\d+/v1; "
        r"rproxy's log: the server's\n",
        line,
    )
    told = report(home)
    assert (
        told["catalog"]["models"][0]["base_instructions"] == "Classic."
        and told["env"]["RPROXY_API_KEY"] == "rproxy"
    )


async def test_a_running_rproxy_with_keys(home: Path, monkeypatch: Any) -> None:
    auth = "server: {auth: {enabled: true, keys: [key-0123456789]}}\n"
    status, complaint = await on_running(home, "--url", "{url}", auth=auth)
    assert status == 77 and "401" in complaint and "$RPROXY_API_KEY" in complaint
    monkeypatch.setenv("RPROXY_API_KEY", "key-0123456789")
    assert await on_running(home, "--quiet", "--url", "{url}", auth=auth) == (0, "")


def test_nothing_answers(home: Path, capsys: Any) -> None:
    assert main(["codex", "--url", "http://127.0.0.1:9"]) == 69
    assert "nothing answers at http://127.0.0.1:9/v1" in capsys.readouterr().err


def test_a_key_that_cannot_be_sent(home: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("RPROXY_API_KEY", "one\nanother")
    assert main(["codex", "--url", "http://127.0.0.1:9"]) == 78
    assert "rproxy: $RPROXY_API_KEY " in capsys.readouterr().err


# ---- the real Codex

real = [pytest.mark.skipif(not REAL, reason="CODEX_BIN is not set"), pytest.mark.timeout(seconds=90)]
QUIET = ["-c", "features.plugins=false", "-c", "features.apps=false", "-c", "analytics.enabled=false"]
EXEC = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json", *QUIET]


async def rproxy_codex(home: Path, *argv: str) -> Tuple[int, List[Json], str]:
    """:returns: exit status, Codex's finished items, stderr"""
    environ = dict(os.environ, CODEX_BIN=REAL, PATH="%s:/usr/bin:/bin" % (home / "bin"))
    process = await asyncio.create_subprocess_exec(
        *rproxy_command(),
        "codex",
        *argv,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    events = [json.loads(line) for line in out.decode().splitlines() if line.startswith('{"type"')]
    return (
        process.returncode or 0,
        [event["item"] for event in events if event["type"] == "item.completed"],
        err.decode(),
    )


class TestReal:
    pytestmark = real

    async def test_codex_on_the_demo_provider(self, home: Path) -> None:
        status, items, err = await rproxy_codex(
            home, "--demo", "--log-file", "log", "--", *EXEC, "run `echo from-demo`"
        )
        assert status == 0, err
        assert [item["aggregated_output"] for item in items if item["type"] == "command_execution"] == [
            "from-demo\n"
        ]
        assert [item for item in items if item["type"] == "error"] == []  # such as: no metadata for the model
        log = (home / "log").read_text(encoding="utf-8")
        assert "transport=ws" in log and "cache_hit=9" in log and "from-demo" not in log
        assert [path.name for path in (home / "tmp").iterdir() if path.name.startswith("rproxy")] == []

    async def test_a_failure_of_the_provider_is_shown_and_is_the_exit_status(self, home: Path) -> None:
        (home / "config.yaml").write_text("server: {retries: 0}\n" + CONFIG, encoding="utf-8")
        status, _, err = await rproxy_codex(
            home, "--", *EXEC, "-c", "model_providers.rproxy.stream_max_retries=0", "hello"
        )
        assert status == 1, err

    async def test_the_first_commands_of_readme(self, home: Path) -> None:
        """Codex with its own default model, which is told its commands in JavaScript."""
        port = free_port()
        (home / "work").mkdir()
        (home / "work" / "file-of-mine").touch()
        serve = await asyncio.create_subprocess_exec(
            *rproxy_command(),
            "serve",
            "--demo",
            "--listen",
            f"127.0.0.1:{port}",
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert serve.stdout is not None and b" on " in await asyncio.wait_for(serve.stdout.readline(), 10)
            process = await asyncio.create_subprocess_exec(
                REAL,
                *EXEC,
                "-c",
                f'openai_base_url="http://127.0.0.1:{port}/v1"',
                "list the files",
                cwd=str(home / "work"),
                env=dict(os.environ, OPENAI_API_KEY="any"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await asyncio.wait_for(process.communicate(), 60)
            items = [
                json.loads(line).get("item", {}) for line in out.decode().splitlines() if line.startswith("{")
            ]
            said = [item["text"] for item in items if item.get("type") == "agent_message"]
            assert process.returncode == 0 and "file-of-mine" in said[-1] and "Error" not in said[-1], out
        finally:
            serve.terminate()
            await serve.communicate()

    async def test_the_first_command_of_the_banner_with_keys(self, home: Path) -> None:
        auth = "server: {auth: {enabled: true, keys: [key-0123456789]}}\n"
        (home / "config.yaml").write_text(auth + CONFIG, encoding="utf-8")
        argv = ["serve", "--demo", "-c", str(home / "config.yaml"), "--listen", "127.0.0.1:0"]
        master, slave = pty.openpty()  # the banner says this on a terminal only
        serve = await asyncio.create_subprocess_exec(sys.executable, "-m", "rproxy", *argv, stdout=slave)
        os.close(slave)
        try:
            banner = ""
            while "Stop:" not in banner:
                banner += (
                    await asyncio.get_running_loop().run_in_executor(None, os.read, master, 4096)
                ).decode()
            line = next(line for line in banner.splitlines() if line.startswith("Codex:"))
            command = shlex.split(line[len("Codex:") :].replace("YOUR_KEY", "key-0123456789"))
            name, key = command[0].split("=")
            assert command[1:3] == ["codex", "exec"]
            process = await asyncio.create_subprocess_exec(
                REAL,
                *EXEC,
                *command[3:-1],
                "Say hello",
                env={**os.environ, name: key},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, error = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0 and b"You said" in out, (out, error)
        finally:
            os.close(master)
            serve.terminate()
            await serve.communicate()

    async def test_the_written_profile_works(self, home: Path) -> None:
        config = 'server: {listen_addr: "127.0.0.1:%d"}\n' + CONFIG
        (home / "config.yaml").write_text(config % free_port(), encoding="utf-8")
        serve = await asyncio.create_subprocess_exec(
            *rproxy_command(),
            "serve",
            "--demo",
            "-c",
            str(home / "config.yaml"),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert serve.stdout is not None and b" on " in await asyncio.wait_for(serve.stdout.readline(), 10)
            status, _, err = await rproxy_codex(home, "--write")
            assert status == 0, err
            process = await asyncio.create_subprocess_exec(
                REAL,
                "--profile",
                "rproxy",
                *EXEC,
                "Say hello",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, error = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0 and b"You said" in out and b"metadata" not in out, (out, error)
        finally:
            serve.terminate()
            await serve.communicate()
