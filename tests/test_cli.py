"""The command: arguments, exit statuses, and a server that really runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import pty
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, AsyncIterator, List, Tuple

import pytest
import tornado
from forkserver import rproxy_command
from tornado.httpclient import AsyncHTTPClient

from rproxy import __version__
from rproxy.cli.exit_status import MEANINGS
from rproxy.cli.main import COMMANDS, main
from rproxy.config.load import parse_config
from rproxy.errors import AddressInUse, ConfigError, KeyRefused, StoreError, Unreachable
from rproxy.log import mask
from rproxy.providers.profiles import choose_profile, list_profiles
from rproxy.server.speedups import packages_in_use

ROOT = Path(__file__).resolve().parent.parent
GOOD = """\
models:
  - model: gpt-5.5
    provider: {base_url: "https://api.deepseek.com", api_key: $MY_KEY}
    downstream_model: deepseek-v4-pro
  - model: "*"
    provider: {base_url: "http://127.0.0.1:9/v1"}
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key and no configuration of the person who runs the tests."""
    for name in list(os.environ):
        if (
            name.endswith("_API_KEY")
            or name.startswith(("RPROXY_", "XDG_CONFIG"))
            and name != "RPROXY_PURE"
            or name.lower().endswith("_proxy")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)


def config_file(tmp_path: Path, text: str = GOOD) -> str:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# ---- arguments


def test_version(capsys: Any) -> None:
    for option in ("--version", "-V"):
        with pytest.raises(SystemExit) as stop:
            main([option])
        lines = capsys.readouterr().out.splitlines()
        assert stop.value.code == 0 and lines[0] == f"rproxy {__version__}"
        assert f"Python {platform.python_version()}, Tornado {tornado.version}," in lines[1]
        assert re.search(r"redis \(redis \d.*seal \(cryptography \d", lines[2])
        assert lines[3].startswith("installed as: ")


def test_help_is_a_command(capsys: Any) -> None:
    shown = []
    for argv in (["help"], ["--help"], ["help", "serve"], ["serve", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != shown[2] == shown[3]
    with pytest.raises(SystemExit) as stop:
        main(["help", "dance"])
    assert stop.value.code == 2


def test_no_command_prints_the_commands(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and all(f"    {name} " in err for name in COMMANDS)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_ends_with_an_example(command: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"] if command else ["--help"])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("example: rproxy " + command)


@pytest.mark.parametrize(
    "argv", [[], ["dance"], ["serve", "--port", "1"], ["serve", "--log-level", "loud"], ["check", "--demo"]]
)
def test_wrong_usage_is_2(argv: List[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2 and "usage: rproxy" in capsys.readouterr().err


# ---- check


def test_check_shows_where_the_models_lead(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("MY_KEY", "sk-0123456789")
    assert main(["check", "-c", config_file(tmp_path)]) == 0
    first, *models = capsys.readouterr().out.splitlines()
    assert first.endswith("my.yaml: good")
    assert [" ".join(line.split()) for line in models] == [
        "gpt-5.5 -> deepseek-v4-pro @ deepseek (deepseek)",
        "* -> the same name @ 127.0.0.1:9 (generic)",
    ]


def test_check_tells_that_serve_would_refuse_an_open_address(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    assert main(["check", "-c", config_file(tmp_path, "server: {listen_addr: '0.0.0.0:3000'}\n" + GOOD)]) == 0
    out, err = capsys.readouterr()
    assert "--insecure" in err
    assert "Listens on 0.0.0.0:3000 (open to other machines, WITHOUT a key)" in out.splitlines()


def test_check_prints_warnings(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    (tmp_path / "config.yaml").write_text(GOOD, encoding="utf-8")
    monkeypatch.setenv(
        "RPROXY_CONFIG", config_file(tmp_path, "server:\n  tool_type_allowlist: [function]\n" + GOOD)
    )
    assert main(["check"]) == 0
    assert "warning: " in capsys.readouterr().err
    monkeypatch.delenv("RPROXY_CONFIG")
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-0123456789")
    assert main(["check"]) == 0
    assert "--config config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, text, complaint",
    [
        (["check"], GOOD.replace("api_key", "api_kay"), r"my\.yaml:3:\d+: .*did you mean 'api_key'"),
        (["check"], GOOD, r"my\.yaml:3:\d+: .*MY_KEY"),
        (["serve"], "models: []", "models"),
        (["serve", "--listen", "0.0.0.0:0"], GOOD.replace("$MY_KEY", "k"), "--insecure"),
        (
            ["serve", "--listen", "nonsense"],
            GOOD.replace("$MY_KEY", "k"),
            "--listen: 'nonsense' must be HOST:PORT",
        ),
        (["serve", "--listen", "127.0.0.1:0", "--listen", ":0"], GOOD.replace("$MY_KEY", "k"), "--insecure"),
    ],
)
def test_an_unusable_configuration_is_78(
    argv: List[str], text: str, complaint: str, tmp_path: Path, capsys: Any
) -> None:
    assert main([*argv, "-c", config_file(tmp_path, text)]) == 78
    out, err = capsys.readouterr()
    assert not out and err.startswith("rproxy: ") and re.search(complaint, err)


def test_no_file_and_no_key_is_78(capsys: Any) -> None:
    assert main(["check"]) == 78
    assert "DEEPSEEK_API_KEY" in capsys.readouterr().err
    assert main(["check", "-c", "missing.yaml"]) == 78
    assert "missing.yaml" in capsys.readouterr().err


def test_errors_and_warnings_show_no_secrets(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert main(["check", "-c", "csk-0123456789abcdef"]) == 78
    assert "csk-***: No such file" in capsys.readouterr().err
    monkeypatch.setenv("MY_KEY", "k")
    folder = tmp_path / "pplx-0123456789abcdef"
    folder.mkdir()
    text = "server:\n  tool_type_allowlist: [function]\n" + GOOD
    assert main(["check", "-c", config_file(folder, text)]) == 0
    assert "pplx-***" in capsys.readouterr().err.replace("\n", "")


def test_level_from_the_environment(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("RPROXY_LOG_LEVEL", "loud")
    assert main(["serve", "--demo", "--listen", "127.0.0.1:0"]) == 78
    assert "$RPROXY_LOG_LEVEL is 'loud'; use one of trace," in capsys.readouterr().err


def test_a_port_in_use_is_69_and_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        argv = [sys.executable, "-m", "rproxy", "serve", "--demo", "--listen", address]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (
        done.returncode == 69
        and "another program uses this port" in done.stderr
        and "--listen" in done.stderr
        and not done.stdout
    )


@pytest.mark.parametrize(
    "error, status",
    [
        (AddressInUse("taken"), 69),
        (Unreachable("away"), 69),
        (KeyRefused("no"), 77),
        (ConfigError("wrong"), 78),
        (StoreError("broken"), 1),
        (PermissionError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_an_exit_status(
    error: BaseException, status: int, monkeypatch: Any, capsys: Any
) -> None:
    def fail(args: Any, environ: Any) -> int:
        raise error

    monkeypatch.setitem(COMMANDS, "check", COMMANDS["check"]._replace(run=fail))
    assert main(["check"]) == status in MEANINGS
    assert capsys.readouterr().err == ("" if status == 130 else f"rproxy: {error}\n")


# ---- key


def test_a_key_is_made_and_works(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    for name in ("ann", "Ann Müller", "null", 'a "b"'):
        assert main(["key", name]) == 0
        out, err = capsys.readouterr()
        key, line = out.splitlines()
        assert key not in err and mask(key) == "sk-***" and line.startswith("- {name: ")
        text = f"server:\n  auth:\n    keys:\n    {line}\n{GOOD}"
        found = parse_config(text.encode(), "c.yaml", {"MY_KEY": "k"}).server.auth
        assert found.enabled and found.keys[0].name == name
        assert found.keys[0].digest == hashlib.sha256(key.encode()).hexdigest()
    for wrong in ("", " ", "a\nb", "x" * 65):
        with pytest.raises(SystemExit) as stop:
            main(["key", wrong])
        assert stop.value.code == 2


# ---- serve


class Server:
    """A running ``rproxy serve``: its process, banner and base URL (with ``/v1``)."""

    def __init__(self, process: asyncio.subprocess.Process, banner: str) -> None:
        self.process, self.banner = process, banner
        self.url = banner.split(" on ", 1)[1].split(maxsplit=1)[0]

    async def post(self, **body: Any) -> Any:
        return await AsyncHTTPClient().fetch(
            self.url + "/responses",
            method="POST",
            body=json.dumps(body),
            raise_error=False,
            headers={"Content-Type": "application/json"},
        )

    async def stop(self, number: int = signal.SIGINT) -> Tuple[int, str]:
        """Exit status and log."""
        self.process.send_signal(number)
        _, log = await asyncio.wait_for(self.process.communicate(), 10)
        assert self.process.returncode is not None
        return self.process.returncode, log.decode()


@contextlib.asynccontextmanager
async def served(*options: str) -> AsyncIterator[Server]:
    """``rproxy serve`` with a terminal for its banner."""
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *rproxy_command("serve", "--listen", "127.0.0.1:0", *options), stdout=slave, stderr=subprocess.PIPE
    )
    os.close(slave)
    banner = ""
    try:
        while "Stop:" not in banner:
            try:
                piece = await asyncio.get_running_loop().run_in_executor(None, os.read, master, 4096)
            except OSError:  # nobody has the other end any more
                piece = b""
            assert piece, f"it ended: {(await process.communicate())[1].decode()}"
            banner += piece.decode().replace("\r\n", "\n")
        yield Server(process, banner)
    finally:
        os.close(master)
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_demo_serves_what_the_banner_says() -> None:
    async with served("--demo") as server:
        assert f'openai_base_url="{server.url}"' in server.banner and "gpt-5.5" in server.banner
        page = server.url.replace("/v1", "/")
        assert f"Look:   {page} in a browser" in server.banner
        whole = json.loads(
            (await server.post(model="gpt-5.5", input="What is 2+2? Reply with just the number.")).body
        )
        assert whole["status"] == "completed" and whole["output"][-1]["content"][0]["text"] == "4"
        assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
        stream = (await server.post(model="any name", input="hello", stream=True)).body.decode()
        types = re.findall(r"^event: (.+)$", stream, re.M)
        assert (
            types[0] == "response.created"
            and types[-1] == "response.completed"
            and "response.output_text.delta" in types
        )
        tool = {
            "type": "function",
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
        asked = json.loads((await server.post(model="gpt-5.5", input="Weather in Oslo?", tools=[tool])).body)
        call = asked["output"][-1]
        assert (call["type"], call["name"], json.loads(call["arguments"])) == (
            "function_call",
            "get_weather",
            {"city": "Oslo"},
        )
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "3 degrees"}
        told = json.loads(
            (
                await server.post(
                    model="gpt-5.5", input=[output], tools=[tool], previous_response_id=asked["id"]
                )
            ).body
        )
        assert "3 degrees" in told["output"][-1]["content"][0]["text"]
        models = json.loads((await AsyncHTTPClient().fetch(server.url + "/models")).body)
        assert [m["id"] for m in models["data"]] == ["gpt-5.5", "codex-auto-review"]
        status, log = await server.stop()
    assert status == 0 and log.count("turn ") == 4 and "model=gpt-5.5" in log and "Oslo" not in log


async def test_the_banner_says_what_is_open_to_other_machines(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    async with served("--demo", "--listen", "0.0.0.0:0", "--listen", f"unix:{path}", "--insecure") as server:
        line = next(line for line in server.banner.splitlines() if line.startswith("Listens on "))
        note = r"\(open to other machines, WITHOUT a key\)"
        assert re.fullmatch(rf"Listens on 127.0.0.1:\d+, 0\.0\.0\.0:\d+ {note}, unix:{path}", line)
        assert path.exists()
        assert (await server.stop())[0] == 0 and not path.exists()


def test_the_banner_is_one_line_without_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    command = [sys.executable, "-m", "rproxy", "serve", "--demo", "--listen", f"unix:{path}"]
    command += ["--listen", "0.0.0.0:0", "--insecure"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        banner = process.stdout.readline()  # no terminal: one line
        process.terminate()
        url = r"http://127\.0\.0\.1:(\d+)/v1 = 0\.0\.0\.0:\1 \(open to other machines, WITHOUT a key\)"
        packages = packages_in_use()
        fast = f"; with {' and '.join(packages)}" if packages else ""
        source = rf"\(the demo provider: [^;]*; models: 3{fast}\)"
        assert re.fullmatch(rf"rproxy \S+ on unix:{path}, {url}    {source}\n", banner)
    assert process.returncode == 0 and not path.exists()


async def test_serves_a_file_and_stops_on_term(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_KEY", "sk-0123456789")
    text = "server:\n  log_format: json\n  auth: {enabled: true, keys: [sk-client]}\n" + GOOD
    async with served("--config", config_file(tmp_path, text), "--log-level", "debug") as server:
        assert (
            "my.yaml" in server.banner
            and "Authorization: Bearer" in server.banner
            and "CODEX_API_KEY=YOUR_KEY codex exec" in server.banner
            and f"RPROXY_API_KEY=YOUR_KEY rproxy codex --url {server.url} --write" in server.banner
            and "sk-" not in server.banner
        )
        assert (await server.post(model="gpt-5.5", input="hi")).code == 401
        status, log = await server.stop(signal.SIGTERM)
    assert status == 0
    for line in log.splitlines():
        assert json.loads(line)["level"] in ("debug", "info", "warning"), line


def test_profiles_are_listed(capsys: Any) -> None:
    assert main(["profiles"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_profiles()
    deepseek = next(line for line in lines if line.startswith("deepseek"))
    assert "api.deepseek.com" in deepseek and any("also called kimi" in line for line in lines)


@pytest.mark.parametrize(
    "name, model, wire",
    [
        ("deepseek", "", "chat"),
        ("openrouter", "deepseek/deepseek-v4-pro", "chat"),
        ("kimi", "", "responses"),
        ("openai", "gpt-5.5", "responses"),
    ],
)
def test_a_profile_can_be_copied(name: str, model: str, wire: str, capsys: Any) -> None:
    assert main(["profiles", name, model, "--wire", wire]) == 0
    printed = capsys.readouterr().out
    text = f"models:\n- model: m\n  provider:\n    base_url: http://h\n    profile: {name}\n"
    copied = (
        parse_config((text + textwrap.indent(printed, "    ")).encode(), "c", {})
        .models[0]
        .providers[0]
        .profile
    )
    assert copied == choose_profile(name, "", model, wire=wire)


def test_a_profile_that_does_not_exist(capsys: Any) -> None:
    assert main(["profiles", "deepsek"]) == 78
    assert "did you mean 'deepseek'?" in capsys.readouterr().err


async def test_demo_with_a_file_takes_its_server_section(tmp_path: Path) -> None:
    text = "server:\n  auth: {enabled: true, keys: [sk-client]}\n" + GOOD.replace("$MY_KEY", "k")
    async with served("--demo", "-c", config_file(tmp_path, text)) as server:
        assert (await server.post(model="gpt-5.5", input="hi")).code == 401
        assert "demo (deepseek)" in server.banner
