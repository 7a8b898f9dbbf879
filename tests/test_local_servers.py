"""Without a file: the model servers of this machine, and what ``rproxy init`` writes."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from local_machine import models, needs_network, on_machine
from rawserver import RawServer

from rproxy.cli.init import file_text
from rproxy.cli.main import main
from rproxy.config.load import parse_config
from rproxy.config.schema import Config
from rproxy.config.zero_config import default_config, key_sources
from rproxy.providers.local_servers import LOCAL_KINDS, LocalKind, LocalModel, local_server
from rproxy.providers.profiles import ZERO_CONFIG
from rproxy.upstream.discovery import TIMEOUT, find_local_servers

ROOT = Path(__file__).resolve().parent.parent
OLLAMA, LM_STUDIO, LLAMA_CPP, VLLM = LOCAL_KINDS
RPROXY = [sys.executable, "-m", "rproxy"]

own_network = pytest.mark.skipif(bool(needs_network()), reason=needs_network())


def environ(tmp_path: Path, **more: str) -> Dict[str, str]:
    """Nothing of whoever runs the tests."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        **more,
    }


# ---- What a server says


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>hello</html>",
        "[]",
        "null",
        '{"models": []}',
        '{"data": {}}',
        '{"data": ["a"]}',
        "[" * 100_000,
        b"\xff\xfe".decode("latin-1"),
    ],
)
def test_what_is_no_list_of_models_is_no_server(body: str) -> None:
    assert local_server(VLLM, body.encode("latin-1")) is None


def test_the_models_of_a_server() -> None:
    entries = [
        {"id": "qwen3:8b", "owned_by": "library"},
        {"id": "qwen3:8b", "owned_by": "library"},
        {"id": "nomic-embed-text:latest"},
        {"id": "*"},
        {"id": " "},
        {"id": "a\nb"},
        {"id": 7},
        {},
        {"id": "gpt-oss:20b", "max_model_len": 131072},
        {"id": "odd", "max_model_len": True},
    ]
    found = local_server(OLLAMA, json.dumps({"data": entries}).encode())
    assert found is not None and found.kind is OLLAMA and found.base_url == "http://127.0.0.1:11434/v1"
    assert found.models == (
        LocalModel("qwen3:8b", None),
        LocalModel("gpt-oss:20b", 131072),
        LocalModel("odd", None),
    )
    assert str(found) == "Ollama at http://127.0.0.1:11434/v1 (3 models)"


def test_the_owner_of_the_models_tells_the_server_on_another_ones_port() -> None:
    found = local_server(LLAMA_CPP, models("a", "b", owned_by="vllm").encode())
    assert found is not None and found.kind is VLLM and found.base_url == "http://127.0.0.1:8080/v1"


def test_a_server_without_models_is_found_and_of_no_use() -> None:
    for body in ('{"object": "list", "data": null}', '{"data": []}'):
        found = local_server(OLLAMA, body.encode())
        assert found is not None and found.models == ()
        with pytest.raises(Exception, match="Ollama runs at http://127.0.0.1:11434/v1, but has no model yet"):
            default_config({}, [found])


# ---- The search


async def test_all_are_asked_at_once_directly_and_not_for_long() -> None:
    body = models("m").encode()
    asked: List[Any] = []

    async def answer(peer: Any) -> None:
        asked.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def refuse(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}")

    async def drip(peer: Any) -> None:  # a byte now and then, for ever
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await peer.send(*[b" "] * 1000, pause=0.1)

    one, two, three = RawServer(answer), RawServer(refuse), RawServer(drip)
    async with one.running(), two.running(), three.running():
        ports = [int(server.url.rsplit(":", 1)[1]) for server in (three, two, one, three, three)]
        kinds = [LocalKind(f"kind {n}", "generic", port) for n, port in enumerate(ports)]
        started = time.monotonic()
        found = await find_local_servers(
            {"http_proxy": "http://127.0.0.1:9", "all_proxy": "socks://x"}, kinds
        )
        took = time.monotonic() - started
    assert [server.kind.name for server in found] == ["kind 2"]
    assert asked[0][0] == "GET /v1/models HTTP/1.1" and "authorization" not in asked[0][1]
    assert took < 3 * TIMEOUT  # one after the other would be three times as long at least


async def test_nothing_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        kind = LocalKind("nobody", "generic", closed.getsockname()[1])
        assert await find_local_servers({}, [kind]) == []


# ---- The configuration that follows


def test_a_key_counts_more_than_a_local_server() -> None:
    found = local_server(OLLAMA, models("qwen3:8b").encode())
    assert found is not None
    config = default_config({"DEEPSEEK_API_KEY": "k"}, [found])
    assert {provider.name for model in config.models for provider in model.providers} == {"deepseek"}


def test_the_first_server_answers_for_every_other_name() -> None:
    bodies = {OLLAMA: models("qwen3:8b", "shared"), VLLM: models("shared", "big", max_model_len=32768)}
    servers = [local_server(kind, body.encode()) for kind, body in bodies.items()]
    config = default_config({}, [server for server in servers if server is not None])
    routes = {}
    for name in ("qwen3:8b", "shared", "big", "gpt-5.5", "codex-auto-review", "anything"):
        model = config.route(name)
        assert model is not None
        routes[name] = (model.providers[0].name, model.downstream_model, model.providers[0].profile.name)
    assert routes == {
        "qwen3:8b": ("ollama", "qwen3:8b", "ollama"),
        "shared": ("ollama", "shared", "ollama"),
        "big": ("vllm", "big", "vllm"),
        "gpt-5.5": ("ollama", "qwen3:8b", "ollama"),
        "codex-auto-review": ("ollama", "qwen3:8b", "ollama"),
        "anything": ("ollama", "qwen3:8b", "ollama"),
    }
    big = config.route("big")
    assert big is not None and big.context_window == 32768


# ---- The commands


@own_network
def test_check_says_what_was_found(tmp_path: Path) -> None:
    env = environ(tmp_path, STUB_MODELS=models("qwen3:8b", "gpt-oss:20b"), HTTP_PROXY="http://127.0.0.1:9")
    done = on_machine([11434, 8000], [*RPROXY, "check"], env)
    first, *lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert first == (
        "no configuration file, no key: found Ollama at http://127.0.0.1:11434/v1 (2 models), "
        "vLLM at http://127.0.0.1:8000/v1 (2 models): good"
    )
    assert lines[0].split() == ["qwen3:8b", "->", "qwen3:8b", "@", "ollama", "(ollama)"]


@own_network
@pytest.mark.parametrize("command", ["serve", "ask hello", "check", "models"])
def test_without_anything_the_error_names_three_next_steps(command: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("models: []", encoding="utf-8")
    done = on_machine([], [*RPROXY, *command.split()], environ(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, ""), done.stderr
    name = command.split(maxsplit=1)[0]
    demo = {"ask": 'rproxy ask --demo "hello"'}.get(name, "rproxy serve --demo")
    for step in (demo, "export DEEPSEEK_API_KEY=", "rproxy init"):
        assert step in done.stderr
    assert f"./config.yaml is not read unless you name it: rproxy {name} --config config.yaml" in done.stderr


@own_network
def test_doctor_names_three_next_steps_and_the_file_that_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("models: []", encoding="utf-8")
    done = on_machine([], [*RPROXY, "doctor", "--json"], environ(tmp_path), cwd=tmp_path)
    assert done.returncode == 78
    nothing, unread, *_ = json.loads(done.stdout)["checks"]
    for step in ("--demo", "DEEPSEEK_API_KEY=", "rproxy init"):
        assert step in nothing["remedy"]
    assert (unread["status"], "rproxy doctor --config config.yaml" in unread["message"]) == ("warning", True)
    assert unread["remedy"]


@own_network
def test_models_says_what_was_found_and_which_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("models: []", encoding="utf-8")
    env = environ(tmp_path, STUB_MODELS=models("qwen3:8b"))
    done = on_machine([1234], [*RPROXY, "models", "--json"], env, cwd=tmp_path)
    assert json.loads(done.stdout)[0]["model"] == "qwen3:8b"
    assert "found LM Studio" in done.stderr and "rproxy models --config config.yaml" in done.stderr


@own_network
def test_ask_uses_what_was_found_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("models: []", encoding="utf-8")
    env = environ(tmp_path, STUB_MODELS=models("qwen3:8b"))
    done = on_machine([1234], [*RPROXY, "ask", "hello"], env, stdin=subprocess.DEVNULL, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "I am qwen3:8b on 1234\n")
    assert done.stderr == (
        "rproxy: no configuration file, no key: found LM Studio at http://127.0.0.1:1234/v1 (1 model)\n"
        "rproxy: ./config.yaml is not read unless you name it: rproxy ask --config config.yaml\n"
    )


# ---- rproxy init


def written(path: Path) -> Config:
    """The configuration in a file, whose variables all have a value."""
    keys = {name: "k" for known in ZERO_CONFIG for name in known.env}
    return parse_config(path.read_bytes(), str(path), keys)


@own_network
def test_init_writes_what_was_found_and_nothing_else(tmp_path: Path) -> None:
    env = environ(
        tmp_path,
        MOONSHOT_API_KEY="secret-of-the-moon",
        STUB_MODELS=models("qwen3:8b", "a/b", "on", max_model_len=4096),
    )
    done = on_machine([11434], [*RPROXY, "init"], env)
    path = tmp_path / ".config" / "rproxy" / "config.yaml"
    assert (done.returncode, done.stderr) == (0, "") and str(path) in done.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text(encoding="utf-8")
    assert "secret" not in text and "$MOONSHOT_API_KEY" in text and "DEEPSEEK" not in text
    found = {model.model: (model.providers[0].name, model.context_window) for model in written(path).models}
    assert found["qwen3:8b"] == found["a/b"] == found["on"] == ("ollama", 4096)
    assert found["kimi-k3"][0] == found["*"][0] == "moonshot"
    assert on_machine([11434], [*RPROXY, "check"], env).returncode == 0


def init(*options: str) -> int:
    return main(["init", *options])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the configuration of a user who has a key."""
    for name in [name for name in os.environ if name.endswith("_API_KEY") or name.startswith("RPROXY_C")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    return tmp_path / "rproxy"


def test_init_never_overwrites_a_file(home: Path, capsys: Any) -> None:
    path = home / "config.yaml"
    assert init() == 0
    path.write_text("mine", encoding="utf-8")
    assert init() == 1 and path.read_text(encoding="utf-8") == "mine"
    assert "rproxy init --force" in capsys.readouterr().err
    assert init("--force") == 0
    path.write_text("mine again", encoding="utf-8")
    assert init("--force") == 0
    assert "config.yaml.backup-1" in capsys.readouterr().out
    kept = [
        (home / name).read_text(encoding="utf-8") for name in ("config.yaml.backup", "config.yaml.backup-1")
    ]
    assert kept == ["mine", "mine again"] and written(path).models
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_init_writes_where_the_command_or_the_environment_says(home: Path, monkeypatch: Any) -> None:
    assert init("-c", str(home / "one" / "here.yaml")) == 0
    monkeypatch.setenv("RPROXY_CONFIG", str(home / "there.yaml"))
    assert init() == 0
    assert written(home / "one" / "here.yaml").models and written(home / "there.yaml").models
    assert not (home / "config.yaml").exists()


def test_init_leaves_a_link_that_leads_nowhere_alone(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").symlink_to(home / "nothing")
    assert init() == 1 and not (home / "nothing").exists()


@pytest.mark.parametrize("names", [["OPENAI"], ["DEEPSEEK", "OPENAI"], ["ZAI", "OPENROUTER", "GROQ"]])
def test_the_file_means_what_counted_without_it(names: List[str], home: Path) -> None:
    keys = {name + "_API_KEY": "k" for name in names}
    text = file_text(key_sources(keys))
    with_file, without = parse_config(text.encode(), "c.yaml", keys), default_config(keys)
    assert [(m.model, m.downstream_model, m.providers) for m in with_file.models] == [
        (m.model, m.downstream_model, m.providers)
        for m in sorted(without.models, key=with_file_order(with_file))
    ]


def with_file_order(config: Config) -> Callable[[Any], int]:
    names = [model.model for model in config.models]
    return lambda model: names.index(model.model)


@own_network
def test_init_with_nothing_to_write(tmp_path: Path) -> None:
    done = on_machine([], [*RPROXY, "init"], environ(tmp_path))
    assert (done.returncode, done.stdout) == (78, "") and "export DEEPSEEK_API_KEY=" in done.stderr
    assert not (tmp_path / ".config").exists()
