"""TLS on the clients' side: every transport, real clients, renewed certificates, files that do not fit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import ssl
import subprocess
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest
from rawserver import make_certificate, until
from scripted import CONFIG, Running, ScriptedProvider, gate, running, say, served
from test_codex import CODEX, codex
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from rproxy.config.load import parse_config
from rproxy.config.tls import Tls
from rproxy.errors import ConfigError

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=90)
HI: Json = {"model": "gpt-5.5", "input": "hi"}


def server_of(folder: Path) -> str:
    return f"  tls: {{cert: {folder}/cert.pem, key: {folder}/key.pem}}\n"


def https(one: Running) -> str:
    return one.base_url.replace("http:", "https:")


async def peer_certificate(port: int) -> bytes:
    """What a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return shown


async def test_every_transport(tmp_path: Path) -> None:
    cert, _ = make_certificate(tmp_path)
    provider = ScriptedProvider()
    async with served(provider.base_url, server=server_of(tmp_path)) as base_url:
        assert base_url.startswith("https://127.0.0.1:")
        http = AsyncHTTPClient(force_instance=True, defaults={"ca_certs": str(cert)})
        for stream in (False, True):
            provider.turns += [[say("x" * 60_000)]]
            body = json.dumps({**HI, "stream": stream})
            answer = await http.fetch(base_url + "/responses", method="POST", body=body)
            assert answer.body.count(b"x" * 60_000) >= 1
        ws = await websocket_connect(
            HTTPRequest(base_url.replace("https:", "wss:") + "/responses", ca_certs=str(cert))
        )
        for text in ("one", "two"):
            provider.turns += [[say(text)]]
            await ws.write_message(json.dumps({"type": "response.create", **HI}))
            event: Json = {}
            while event.get("type") != "response.completed":
                event = json.loads(str(await ws.read_message()))
            assert event["response"]["output"][0]["content"][0]["text"] == text
        ws.close()
        http.close()
    await provider.close()


async def test_bytes_that_are_no_handshake_end_the_connection_and_fill_no_log(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    async with served("http://127.0.0.1:1", server=server_of(tmp_path)) as base_url:
        port = int(base_url.split(":")[2].split("/")[0])
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\xff" * 100):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 20)
            writer.close()


async def test_a_client_that_reads_slowly_gets_everything(tmp_path: Path) -> None:
    """TLS repeats a write that did not fit with the same bytes, or fails."""
    cert, _ = make_certificate(tmp_path)
    provider, text = ScriptedProvider(), "abcde" * 8
    provider.turns += [[say(text)] * 4000]
    async with served(provider.base_url, server=server_of(tmp_path)) as base_url:
        port = int(base_url.rsplit(":", 1)[1].split("/")[0])
        context = ssl.create_default_context(cafile=str(cert))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 12)
        body = json.dumps({**HI, "stream": True}).encode()
        head = f"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        received = 0
        last = b""
        while not last.endswith(b"0\r\n\r\n"):
            piece = await reader.read(1 << 12)
            assert piece, "cut"
            received, last = received + len(piece), (last + piece)[-100:]
        assert b"data: [DONE]" in last and received > 4000 * len(text)
        writer.close()
    await provider.close()


async def test_the_openai_client_and_curl(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    cert, _ = make_certificate(tmp_path)
    provider = ScriptedProvider()
    async with running(tmp_path, provider.base_url, server=server_of(tmp_path)) as one:
        await until(lambda: f" on {https(one)} " in one.log.read_text())
        http = openai.DefaultAsyncHttpxClient(verify=ssl.create_default_context(cafile=str(cert)))
        client = openai.AsyncOpenAI(base_url=https(one), api_key="any", max_retries=0, http_client=http)
        provider.turns += [[say("Four.")], [say("Five.")]]
        assert (await client.responses.create(model="gpt-5.5", input="2+2?")).output_text == "Four."
        stream = await client.responses.create(model="gpt-5.5", input="2+3?", stream=True)
        events = [event async for event in stream]
        assert events[-1].response.output_text == "Five."
        await client.close()
        if shutil.which("curl"):
            process = await asyncio.create_subprocess_exec(
                "curl", "-s", "--cacert", str(cert), https(one)[:-3] + "/ready", stdout=subprocess.PIPE
            )
            assert (await process.communicate())[0] == b'{"status":"ok"}'
    await provider.close()


@pytest.mark.skipif(not CODEX, reason="CODEX_BIN is not set")
@pytest.mark.parametrize("ws", [False, True], ids=["http", "websocket"])
async def test_codex(tmp_path: Path, ws: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, _ = make_certificate(tmp_path)
    monkeypatch.setenv("CODEX_CA_CERTIFICATE", str(cert))
    provider = ScriptedProvider()
    provider.turns += [[say("Hello from the script.")]]
    async with running(tmp_path, provider.base_url, server=server_of(tmp_path)) as one:
        run = await codex(tmp_path, https(one), "Say hello", ws=ws)
        assert run.code == 0 and run.said == ["Hello from the script."], run.stderr
        assert f"transport={'ws' if ws else 'sse'}" in one.log.read_text()
    await provider.close()


async def test_a_reload_takes_renewed_files_and_closes_nothing(tmp_path: Path) -> None:
    cert, _ = make_certificate(tmp_path)
    provider, may_end = ScriptedProvider(), asyncio.Event()
    provider.turns += [[say("a "), gate(may_end), say("b")], [say("again")]]
    async with running(tmp_path, provider.base_url, server=server_of(tmp_path)) as one:
        context = ssl.create_default_context(cafile=str(cert))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, ssl=context)
        body = json.dumps({**HI, "stream": True}).encode()
        head = f"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readuntil(b'"delta":"a "')
        former = await peer_certificate(one.port)

        make_certificate(tmp_path)  # in place of the former one
        await reload(one, "INFO    reloaded")
        renewed = await peer_certificate(one.port)
        assert renewed != former

        (tmp_path / "key.pem").write_text("nothing")  # half of a renewal, say
        await reload(one, "server.tls: there must be a certificate")
        assert await peer_certificate(one.port) == renewed
        may_end.set()
        assert b"event: response.completed" in await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(head.encode() + body)  # the same connection
        assert b"event: response.completed" in await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
    await provider.close()


async def reload(one: Running, line: str) -> None:
    seen = one.log.read_text().count(line)
    one.process.send_signal(signal.SIGHUP)
    await until(lambda: one.log.read_text().count(line) > seen)


async def test_a_unix_socket_beside_it_speaks_http(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    config = CONFIG.replace('"127.0.0.1:{port}"', f"['127.0.0.1:{{port}}', 'unix:{tmp_path}/r.sock']")
    async with served("http://127.0.0.1:1", server=server_of(tmp_path), config=config):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "r.sock"))
        writer.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


def files(folder: Path) -> Tuple[Path, Path]:
    """A second pair, whose key has a password."""
    other = folder / "other"
    other.mkdir()
    make_certificate(other)
    sealed = other / "sealed.pem"
    command = [
        "openssl",
        "ec",
        "-aes128",
        "-passout",
        "pass:secret",
        "-in",
        other / "key.pem",
        "-out",
        sealed,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return other / "key.pem", sealed


def test_clients_cannot_renegotiate(tmp_path: Path) -> None:
    cert, key = map(str, make_certificate(tmp_path))
    assert Tls(cert, key).context().options & ssl.OP_NO_RENEGOTIATION


def test_what_is_no_certificate(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    foreign, sealed = files(tmp_path)
    both, junk = tmp_path / "both.pem", tmp_path / "junk.pem"
    both.write_text(cert.read_text() + key.read_text())
    junk.write_text("nothing")
    models = "models: [{model: m, provider: {base_url: 'http://h'}}]\n"

    def read(tls: str) -> None:
        parse_config(f"server:\n  tls: {tls}\n{models}".encode(), "c.yaml", {})

    read(f"{{cert: {both}}}")
    for tls, why in (
        (f"{{cert: {cert}, key: {foreign}}}", "does not belong to the certificate"),
        (f"{{cert: {cert}, key: {sealed}}}", "is encrypted"),
        (
            f"{{cert: {cert}, key: {junk}}}",
            "there must be a certificate in .*cert.pem and a key in .*junk.pem",
        ),
        (f"{{cert: {junk}, key: {key}}}", "there must be a certificate in .*junk.pem"),
        (f"{{cert: {cert}}}", "a key in .*cert.pem"),
        (f"{{cert: {tmp_path}/none.pem, key: {key}}}", "cannot read .*none.pem: No such file"),
        (f"{{key: {key}}}", "'cert' is missing"),
    ):
        with pytest.raises(ConfigError, match=rf"^c\.yaml:2:\d+: server\.tls.*{why}"):
            read(tls)
