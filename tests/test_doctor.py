"""``rproxy doctor`` as a process, against providers on real sockets: what it finds, its remedies, its exit
status, and that it shows no key.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
from forkserver import rproxy_command
from rawserver import Peer, RawServer, make_certificate
from scripted import KEY, ROOT, ScriptedProvider, call, error, free_port, running, say, think, tokens

from rproxy.cli import live
from rproxy.cli.doctor.check import ERROR, Check
from rproxy.cli.doctor.command import as_text
from rproxy.cli.doctor.providers import examine
from rproxy.config.schema import Provider
from rproxy.upstream.client import Upstream

Json = Dict[str, Any]
STAND_IN = Path(__file__).with_name("fixtures") / "codex_stand_in.py"
MODEL = """\
models:
  - model: gpt-5.5
    downstream_model: deepseek-v4-pro
    provider: {{base_url: "{url}", api_key: $DOCTOR_KEY, profile: deepseek, name: deep{more}}}
"""


class Patient:
    """Runs the doctor in a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"PATH": str(folder / "bin"), "HOME": str(folder), "DOCTOR_KEY": KEY}
        (folder / "bin").mkdir()

    async def __call__(self, text: str, *options: str, **variables: str) -> Tuple[int, List[Json], str]:
        """:returns: exit status, checks, stderr"""
        path = self.folder / "config.yaml"
        path.write_text(
            f'server: {{listen_addr: "127.0.0.1:{free_port()}"}}\n{text}' if "server:" not in text else text
        )
        path.chmod(0o600)
        return await self.run("--json", "--config", str(path), *options, **variables)

    async def run(self, *options: str, **variables: str) -> Tuple[int, List[Json], str]:
        status, out, err = await self.raw(*options, **variables)
        report = json.loads(out)
        assert list(report) == ["ok", "checks"] and report["ok"] is (status == 0)
        for check in report["checks"]:
            assert list(check) == ["name", "status", "message", "remedy"]
            assert check["status"] in ("ok", "warning", "error") and check["message"]
            assert bool(check["remedy"]) is (check["status"] != "ok"), check
        return status, report["checks"], err

    async def raw(self, *options: str, **variables: str) -> Tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *rproxy_command("doctor", *options),
            cwd=str(ROOT),
            env={**self.environ, **variables},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert KEY.encode() not in out + err and b"Traceback" not in err, err
        return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


def on_port(port: int, url: str) -> str:
    return f'server: {{listen_addr: "127.0.0.1:{port}"}}\n' + MODEL.format(url=url, more="")


def of(checks: List[Json], name: str) -> Json:
    (found,) = [check for check in checks if check["name"] == name]
    return found


def bad(checks: List[Json]) -> List[Tuple[str, str]]:
    return [(check["name"], check["status"]) for check in checks if check["status"] != "ok"]


NO_CODEX = ("Codex", "warning")


def models(status: int = 200, skew: float = 0.0, body: Optional[Json] = None) -> RawServer:
    """A provider that knows ``GET /models`` only."""
    answer = json.dumps(body or {"data": [{"id": "deepseek-v4-pro"}]}).encode()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=skew), usegmt=True)
            head = f"HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Length: {len(answer)}\r\n\r\n"
            await peer.send(head.encode() + answer)

    return RawServer(script)


# ---- Providers


async def test_all_is_well_but_codex_is_missing(patient: Patient) -> None:
    async with models().running() as server:
        status, checks, err = await patient(MODEL.format(url=server.url, more=""))
    assert status == 0 and bad(checks) == [NO_CODEX] and err == ""
    names = {check["name"] for check in checks}
    assert {
        "configuration",
        "deep: key",
        "deep: proxy",
        "deep: models",
        "clock",
        "port",
        "store",
        "extras",
    } <= names
    assert "npm install" in of(checks, "Codex")["remedy"]
    assert of(checks, "deep: key")["message"] == "present, and accepted"


async def test_a_missing_key(patient: Patient) -> None:
    async with models().running() as server:
        status, checks, _ = await patient(MODEL.format(url=server.url, more=""), DOCTOR_KEY="")
    assert status == 1 and ("deep: key", "error") in bad(checks)
    assert of(checks, "deep: key")["remedy"] == "export DOCTOR_KEY=..."


@pytest.mark.parametrize(
    "code, name, level",
    [
        (401, "key", "error"),
        (403, "key", "error"),
        (429, "models", "warning"),
        (402, "models", "warning"),
        (500, "models", "error"),
        (404, "models", "ok"),
    ],
)
async def test_what_the_provider_says(patient: Patient, code: int, name: str, level: str) -> None:
    async with models(code, body={"error": {"message": f"no, {KEY}"}}).running() as server:
        status, checks, _ = await patient(MODEL.format(url=server.url, more=""))
    assert status == (1 if level == "error" else 0)
    assert of(checks, f"deep: {name}")["status"] == level


async def test_nobody_is_there(patient: Patient) -> None:
    status, checks, _ = await patient(MODEL.format(url=f"http://127.0.0.1:{free_port()}", more=""))
    assert status == 1 and bad(checks) == [("deep: connection", "error"), NO_CODEX]
    status, checks, _ = await patient(MODEL.format(url="https://no-such-host.invalid", more=""))
    assert status == 1 and bad(checks) == [("deep: DNS", "error"), NO_CODEX]


async def test_a_certificate_that_nobody_trusts(patient: Patient, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = models()
    async with server.running(context):
        status, checks, _ = await patient(MODEL.format(url=server.url, more=""))
        assert status == 1 and bad(checks) == [("deep: TLS", "error"), NO_CODEX]
        assert "ca_file" in of(checks, "deep: TLS")["remedy"]
        status, checks, _ = await patient(MODEL.format(url=server.url, more=f", ca_file: {cert}"))
        assert status == 0 and of(checks, "deep: TLS")["status"] == "ok"


async def test_a_proxy_that_cannot_be_used(patient: Patient) -> None:
    text = MODEL.format(url="https://api.example.com", more="")
    status, checks, _ = await patient(text, HTTPS_PROXY="socks5://127.0.0.1:1")
    assert status == 1 and bad(checks) == [("deep: proxy", "error"), NO_CODEX]
    status, checks, _ = await patient(text, HTTPS_PROXY=f"http://127.0.0.1:{free_port()}")
    assert "through 127.0.0.1" in of(checks, "deep: proxy")["message"]
    assert bad(checks) == [("deep: TLS", "error"), NO_CODEX]


async def test_a_clock_that_is_wrong(patient: Patient) -> None:
    for skew, way in ((3600, "behind"), (-3600, "ahead")):
        async with models(skew=skew).running() as server:
            status, checks, _ = await patient(MODEL.format(url=server.url, more=""))
        assert status == 0 and bad(checks) == [("clock", "warning"), NO_CODEX]
        assert way in of(checks, "clock")["message"]


# ---- Configuration and machine


async def test_without_a_configuration_it_is_78(patient: Patient, tmp_path: Path) -> None:
    for options in ((), ("--config", str(tmp_path / "none.yaml"))):
        status, checks, _ = await patient.run("--json", *options)
        assert status == 78 and ("configuration", "error") in bad(checks)
        assert {"clock", "extras", "Codex"} <= {check["name"] for check in checks}
    status, out, _ = await patient.raw()
    assert status == 78 and "rproxy init" in out


async def test_a_broken_configuration_is_an_error(patient: Patient) -> None:
    status, checks, _ = await patient("models: [{model: a, colour: red}]")
    assert status == 1 and "colour" in of(checks[:1], "configuration")["message"]


async def test_keys_of_the_environment_are_enough(patient: Patient) -> None:
    variables = {"GROQ_API_KEY": "gsk_0123456789abcdef", "HTTPS_PROXY": f"http://127.0.0.1:{free_port()}"}
    status, checks, _ = await patient.run("--json", **variables)
    assert status == 1 and of(checks, "groq: key")["status"] == "ok"
    assert "gsk_0" not in json.dumps(checks)


async def test_ports(patient: Patient) -> None:
    async with models().running() as server:
        with socket.create_server(("127.0.0.1", 0)) as other:
            status, checks, _ = await patient(on_port(other.getsockname()[1], server.url))
        assert status == 1 and bad(checks) == [("port", "error"), NO_CODEX]


async def test_the_port_of_a_running_rproxy(patient: Patient, tmp_path: Path) -> None:
    provider = ScriptedProvider()
    try:
        async with running(tmp_path, provider.base_url) as rproxy:
            status, checks, _ = await patient(on_port(rproxy.port, provider.base_url))
        assert status == 0 and "serves on" in of(checks, "port")["message"]
    finally:
        await provider.close()


async def test_stores(patient: Patient, tmp_path: Path) -> None:
    broken = tmp_path / "text.db"
    broken.write_text("no database, but long enough for one")
    for store in (f"{{kind: sqlite, path: {broken}}}", "{kind: redis, url: redis://127.0.0.1:9/0}"):
        async with models().running() as server:
            status, checks, _ = await patient(MODEL.format(url=server.url, more="") + f"store: {store}\n")
        assert status == 1 and bad(checks) == [("store", "error"), NO_CODEX]


# ---- Codex


def codex(patient: Patient, toml: str, version: str = "0.170.0") -> None:
    program = patient.folder / "bin" / "codex"
    program.write_text(f"#!{sys.executable} -S\n" + STAND_IN.read_text().replace('"0.169.0"', f'"{version}"'))
    program.chmod(0o755)
    (patient.folder / ".codex").mkdir(exist_ok=True)
    (patient.folder / ".codex" / "config.toml").write_text(toml)


async def test_codex_that_leads_here(patient: Patient) -> None:
    port = free_port()
    async with models().running() as server:
        text = on_port(port, server.url)
        codex(patient, f'openai_base_url = "http://127.0.0.1:{port}/v1"\n')
        status, checks, _ = await patient(text)
        assert status == 0 and of(checks, "Codex")["message"].endswith("version 0.170.0")
        assert of(checks, "Codex: configuration")["status"] == "ok"
        assert bad(checks) == [("Codex: login", "warning")]
        (patient.folder / ".codex" / "auth.json").write_text(
            json.dumps({"OPENAI_API_KEY": "a-secret-of-codex"})
        )
        status, checks, _ = await patient(text)
        assert bad(checks) == [] and "secret-of-codex" not in json.dumps(checks)
        codex(patient, f'openai_base_url = "http://127.0.0.1:{port + 1}/v1"\n')
        _, checks, _ = await patient(text)
        assert bad(checks) == [("Codex: configuration", "warning")]
        codex(patient, "")
        _, checks, _ = await patient(text)
        assert bad(checks) == [("Codex: configuration", "warning")]
        codex(patient, "", "0.1.0")
        _, checks, _ = await patient(text)
        assert bad(checks) == [NO_CODEX] and "needs 0.134.0" in of(checks, "Codex")["message"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows it")
async def test_a_background_server_with_another_key(patient: Patient, tmp_path: Path) -> None:
    port = free_port()
    codex(
        patient,
        'model_provider = "r"\n[model_providers.r]\nenv_key = "RPROXY_API_KEY"\n'
        f'base_url = "http://localhost:{port}/v1"\n',
    )
    daemon = tmp_path / "daemon"
    daemon.mkdir()
    (daemon / "codex").write_text("import time; time.sleep(60)")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(daemon / "codex"), "app-server", "daemon"),
        env={**os.environ, "RPROXY_API_KEY": "an-old-key-0123456789"},
    )
    try:
        async with models().running() as server:
            text = on_port(port, server.url)
            _, checks, _ = await patient(text, RPROXY_API_KEY="a-new-key-0123456789")
            assert bad(checks) == [("Codex: background server", "warning")]
            assert "key-0123456789" not in json.dumps(checks)
            _, checks, _ = await patient(text, RPROXY_API_KEY="an-old-key-0123456789")
            assert bad(checks) == []
            _, checks, _ = await patient(text)
            assert ("Codex: key", "warning") in bad(checks)
    finally:
        process.kill()
        await process.wait()


# ---- Live


async def test_live_turns(patient: Patient) -> None:
    provider = ScriptedProvider()
    try:
        text = MODEL.format(url=provider.base_url, more="")
        provider.turns += [
            [say("ready")],
            [call("report_status", status="ready")],
            [think("9.9"), say("9.9")],
        ]
        status, checks, err = await patient(text, "--live")
        live = [check for check in checks if check["name"].endswith(" turn")]
        assert status == 0 and [check["name"] for check in live] == [
            f"gpt-5.5 (deepseek-v4-pro at deep): {kind} turn" for kind in ("streamed", "tool", "thinking")
        ]
        assert [check["status"] for check in live] == ["ok"] * 3 and len(err.splitlines()) == 3
        streamed, tool, thinking = provider.requests
        assert streamed["stream"] is True and tool["tools"] and thinking["thinking"] == {"type": "enabled"}
        provider.turns += [[error(500, f"broken {KEY}")], [say("no call")], [say("no thought"), tokens(10)]]
        status, checks, _ = await patient(text, "--live")
        live = [check for check in checks if check["name"].endswith(" turn")]
        assert status == 1 and [check["status"] for check in live] == ["error", "warning", "warning"]
        status, out, err = await patient.raw("--live", "--config", str(patient.folder / "config.yaml"))
        assert "[1/3] gpt-5.5 (deepseek-v4-pro at deep): streamed turn" in err and "⚠ Codex" in out
    finally:
        await provider.close()


async def test_a_terminal_without_signs_gets_words(patient: Patient) -> None:
    status, out, _ = await patient.raw(PYTHONIOENCODING="ascii", LC_ALL="C")
    assert status == 78 and out.startswith("FAILED configuration") and out.isascii()


async def test_the_remedy_follows_from_the_cause_and_not_from_names() -> None:
    upstream = Upstream(environ={})
    try:
        provider = Provider(base_url="http://127.0.0.1:9/proxy/TLS", name="proxy", api_key="k")
        found = await examine(provider, upstream, {})
    finally:
        upstream.close()
    assert found.checks[-1].status == "error" and found.checks[-1].remedy.startswith("check base_url")


def test_a_terminal_obeys_nothing_that_others_have_said() -> None:
    said = "no\x1b[2J\u202eright"
    (line,) = live.lines([live.ProviderCheck(Provider(base_url="http://a.example", name="p"), 1, said)])
    text = as_text([Check("provider", ERROR, said, said)], False)
    assert line.isprintable() and all(map(str.isprintable, text.split("\n")))
    assert "\\u001b[2J\\u202eright" in line and "\\u202eright" in text
