"""No configured secret leaves rproxy in what a provider says about a failure, nor in rproxy's own messages.

The provider of these tests repeats every secret of the configuration in every place where providers tell of
failures.  The table is each of its ways to fail times each way out of rproxy: JSON, SSE, WebSocket, chat
completions, background responses as they are stored, the log in both formats.  The model's own text passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import logging
import time
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List, Tuple
from urllib.parse import quote, quote_plus

import pytest
from rawserver import CHUNKED, END, Peer, RawServer, chunk, until
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.testing import bind_unused_port
from tornado.websocket import websocket_connect

from rproxy import log
from rproxy.config.load import parse_config
from rproxy.config.schema import Key
from rproxy.server.app import make_app, make_server
from rproxy.service.error_frames import MAX_HELD, ErrorFrames
from rproxy.service.service import Service
from rproxy.store.memory import MemoryStore
from rproxy.upstream.client import Upstream

Json = Dict[str, Any]

CLIENT_KEY, SEAL_KEY = "client/key+of=somebody", "0123456789abcdef" * 4
CONFIG = f"""
server: {{listen_addr: "127.0.0.1:0", seal_key: "{SEAL_KEY}", retries: 0}}
models:
  - {{model: "r-*", provider: {{base_url: "BASE", api_key: k3y-of-the-provider, wire: responses}}}}
  - model: "*"
    provider:
      base_url: "BASE?zone=zone-of-secret-query"
      api_key: k3y-of-the-provider
      headers: {{X-Tenant: tenant-of-header, Cf-Access-Token: Token tok-of-header, Cookie: s=cookie-value-1}}
      query: {{sub: 'qu"ery/of secret'}}
      http_proxy: ""
"""
# What is configured and must not be seen, by its kind.
KINDS: Dict[str, str] = {
    "api_key": "k3y-of-the-provider",
    "client key": CLIENT_KEY,
    "seal key": SEAL_KEY,
    "header": "tenant-of-header",
    "token": "tok-of-header",
    "cookie": "cookie-value-1",
    "query": 'qu"ery/of secret',
    "query of base_url": "zone-of-secret-query",
    "store password": "pass-of-store",
    "key by its form": "sk-0123456789abcdef",
}
PROXY_KINDS = {"proxy password": "pass@of-proxy", "proxy credentials": "dXNlcjpwYXNzQG9mLXByb3h5"}
FORMS: List[Callable[[str], str]] = [
    lambda s: s,
    lambda s: json.dumps(s)[1:-1],
    lambda s: quote(s, safe=""),
    quote_plus,
]


def forms(kinds: Dict[str, str]) -> Dict[str, str]:
    return {form(secret): kind for kind, secret in kinds.items() for form in FORMS}


TEXT = "You sent: " + " | ".join(forms(KINDS))
PLAIN = "You sent: " + " | ".join(secret for secret in KINDS.values())
HEADERS = "".join(
    f"{name}: {secret}\r\n"
    for secret in KINDS.values()
    for name in ("x-request-id", "x-ratelimit-" + quote(secret, safe=""), "retry-after", "x-should-retry")
)


def plain_answer(status: int, body: bytes, headers: str = HEADERS) -> bytes:
    return f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def stream(*events: bytes) -> bytes:
    return CHUNKED + b"".join(map(chunk, events)) + END


def event(value: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


BEGIN = event({"choices": [{"index": 0, "delta": {"content": "He"}}]})
ERROR = {"error": {"message": TEXT, "code": "tenant-of-header", "param": "tools." + KINDS["header"]}}
R_BEGIN = event({"type": "response.output_text.delta", "delta": "He", "output_index": 0, "content_index": 0})
# By the name of the model: what the provider answers.
FAILURES: Dict[str, bytes] = {
    "refused": plain_answer(400, json.dumps(ERROR).encode()),
    "refused-late": plain_answer(400, json.dumps({"error": {"message": "x" * 1900 + TEXT}}).encode()),
    "refused-param": plain_answer(400, b'{"error": {"param": "%btenant-of-header"}}' % (b"p" * 190)),
    "key": plain_answer(401, json.dumps(ERROR).encode()),
    "busy": plain_answer(429, json.dumps(ERROR).encode()),
    "failed": plain_answer(500, TEXT.encode()),
    "html": plain_answer(502, f"<html><body>{TEXT}</body></html>".encode()),
    "moved": plain_answer(302, b"", f"Location: http://x.test/?q={PLAIN}\r\n"),
    "document": plain_answer(200, json.dumps(ERROR, indent=1).encode()),
    "one-line": plain_answer(200, json.dumps(ERROR).encode(), "Content-Type: application/json\r\n" + HEADERS),
    "in-stream": stream(BEGIN, event(ERROR)),
    "event": stream(BEGIN, event({"message": TEXT}, "error")),
    "field": stream(BEGIN, b"error: " + json.dumps({"message": TEXT}).encode() + b"\n\n"),
    "in-pieces": stream(BEGIN, *(event(ERROR)[i : i + 7] for i in range(0, len(event(ERROR)), 7))),
    "r-refused": plain_answer(400, json.dumps(ERROR).encode()),
    "r-failed": stream(R_BEGIN, event({"type": "response.failed", "response": ERROR}, "response.failed")),
    "r-error": stream(R_BEGIN, event({"type": "error", "code": "x", "message": TEXT}, "error")),
}  # fmt: skip


async def provider(peer: Peer) -> None:
    while True:
        _, _, body = await peer.request()
        model = json.loads(body)["model"]
        if model == "fine":
            said = {"choices": [{"index": 0, "delta": {"content": PLAIN}, "finish_reason": "stop"}]}
            await peer.send(stream(event({**said, "error": None}), b"data: [DONE]\n\n"))
        else:
            await peer.send(FAILURES[model])


class Lab:
    """rproxy in front of that provider. ``log`` has its lines in both formats."""

    def __init__(self, url: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.provider_url = url
        self.logs = {"text": io.StringIO(), "json": io.StringIO()}
        self._http = AsyncHTTPClient(force_instance=True)

    async def ask(self, method: str, path: str, body: Any = None) -> Tuple[int, str]:
        """Status, and everything that is seen of the answer."""
        request = HTTPRequest(
            self.url + path,
            method,
            body=None if body is None else json.dumps(body),
            headers={"Authorization": "Bearer none"},
            follow_redirects=False,
        )
        answer = await self._http.fetch(request, raise_error=False)
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.get_all())
        return answer.code, f"{answer.code} {answer.reason}\n{head}\n\n" + (answer.body or b"").decode()


@contextlib.asynccontextmanager
async def lab(config: str = CONFIG) -> AsyncIterator[Lab]:
    server = RawServer(provider)
    async with server.running():
        settings = parse_config(config.replace("BASE", server.url).encode(), "test.yaml", {})
        keys = (Key(name="somebody", value=CLIENT_KEY),)
        auth = dataclasses.replace(settings.server.auth, keys=keys)  # configured, but switched off
        settings = dataclasses.replace(
            settings,
            server=dataclasses.replace(settings.server, auth=auth),
            store=dataclasses.replace(settings.store, url="redis://user:pass-of-store@127.0.0.1/0"),
        )
        upstream = Upstream(environ={})
        service = Service(settings, upstream, MemoryStore(100, 1 << 24, 3600.0, time.time))
        socket, port = bind_unused_port()
        addresses = tuple(address._replace(port=port) for address in settings.server.listen_addr)
        http = make_server(settings, make_app(settings, service, addresses))
        http.add_sockets([socket])
        running, handlers = Lab(server.url, port), []
        for kind, formatter in (("text", log.TextFormatter), ("json", log.JsonFormatter)):
            handlers.append(logging.StreamHandler(running.logs[kind]))
            handlers[-1].setFormatter(formatter(settings.secrets))
            logging.getLogger().addHandler(handlers[-1])
        logging.getLogger("rproxy").setLevel(logging.INFO)  # log_guard sets it back
        try:
            yield running
        finally:
            for handler in handlers:
                logging.getLogger().removeHandler(handler)
            http.stop()
            await http.close_all_connections()
            await service.close()
            upstream.close()


# ---- The ways out
async def as_json(lab: Lab, model: str) -> str:
    return (await lab.ask("POST", "/responses", {"model": model, "input": "hi"}))[1]


async def as_sse(lab: Lab, model: str) -> str:
    return (await lab.ask("POST", "/responses", {"model": model, "input": "hi", "stream": True}))[1]


async def as_websocket(lab: Lab, model: str) -> str:
    socket = await websocket_connect(lab.url.replace("http", "ws") + "/responses")
    socket.write_message(json.dumps({"type": "response.create", "model": model, "input": "hi"}))
    seen, kind = "", ""
    while kind not in ("error", "response.failed", "response.completed"):
        message = str(await socket.read_message())
        seen, kind = seen + message, json.loads(message)["type"]
    socket.close()
    return seen


async def as_chat(lab: Lab, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    return (await lab.ask("POST", "/chat/completions", body))[1]


async def as_stored(lab: Lab, model: str) -> str:
    """In the background, and what is told of it later: the response and its events."""
    body = {"model": model, "input": "hi", "background": True}
    seen = (await lab.ask("POST", "/responses", body))[1]
    path = "/responses/" + json.loads(seen.partition("\n\n")[2])["id"]
    while '"queued"' in seen or '"in_progress"' in seen:
        await asyncio.sleep(0.01)
        seen = (await lab.ask("GET", path))[1]
    return seen + (await lab.ask("GET", path + "?stream=true"))[1]


WAYS: Dict[str, Callable[[Lab, str], Awaitable[str]]] = {
    "json": as_json,
    "sse": as_sse,
    "websocket": as_websocket,
    "chat": as_chat,
    "stored": as_stored,
}


def leaks(seen: str, kinds: Dict[str, str] = KINDS) -> List[str]:
    """The kinds of secrets in a text, also where it was cut within one."""
    found = {kind for form, kind in forms(kinds).items() if form in seen}
    return sorted(found | {kind + " (cut)" for kind, secret in kinds.items() if secret[:-1] in seen})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", FAILURES)
async def test_no_secret_leaves(model: str, way: str, expect_log: Any) -> None:
    expect_log(".", required=False)
    async with lab() as running:
        seen = await WAYS[way](running, model)
        assert leaks(seen) == []
        if model not in ("moved", "refused-param") and (way, model) not in (("chat", "document"),):
            assert "***" in seen or "answer is a web page" in seen or model == "refused-late"
        await until(lambda: "status=" in running.logs["text"].getvalue(), 2)
        for lines in running.logs.values():
            assert leaks(lines.getvalue()) == []


@pytest.mark.parametrize("way", WAYS)
async def test_the_text_of_the_model_is_not_searched(way: str) -> None:
    async with lab() as running:
        assert json.dumps(PLAIN)[1:-1] in await WAYS[way](running, "fine")


async def test_no_secret_in_the_log_of_a_bug(expect_log: Any) -> None:
    expect_log("failed")
    async with lab() as running:
        try:
            raise RuntimeError(TEXT)
        except RuntimeError:
            logging.getLogger("rproxy.test").exception("failed: %s", TEXT)
        for lines in running.logs.values():
            assert "failed" in lines.getvalue() and leaks(lines.getvalue()) == []


@pytest.mark.parametrize("place", ["configuration", "environment"])
async def test_what_a_proxy_says_shows_no_credentials(place: str) -> None:
    """A proxy repeats its credentials when it refuses the tunnel."""
    text = " | ".join(forms(PROXY_KINDS))

    async def refuse(peer: Peer) -> None:
        await peer.request()
        await peer.send(f"HTTP/1.1 403 {text}\r\nContent-Length: 0\r\n\r\n".encode())

    server = RawServer(refuse)
    async with server.running():
        url = server.url.replace("http://", "http://user:pass%40of-proxy@")
        configured = f'http_proxy: "{url}"' if place == "configuration" else ""
        config = f'models: [{{model: m, provider: {{base_url: "https://x.test", {configured}}}}}]'
        parsed = parse_config(config.encode(), "test.yaml", {})
        upstream = Upstream(environ={"https_proxy": url} if place == "environment" else {})
        with pytest.raises(Exception) as caught:
            await upstream.preconnect(parsed.route("m").providers[0])  # type: ignore[union-attr]
        upstream.close()
        assert "403" in str(caught.value) and leaks(str(caught.value), PROXY_KINDS) == []
        if place == "configuration":
            assert leaks(log.mask(text, parsed.secrets), PROXY_KINDS) == []


def test_a_passed_through_error_is_found_wherever_it_is_cut() -> None:
    body = BEGIN + event(ERROR) + b": a comment\n\n" + event({"message": TEXT}, "error") + BEGIN
    secrets = list(KINDS.values())

    def passed(*pieces: bytes) -> bytes:
        frames = ErrorFrames(secrets)
        return b"".join(map(frames.feed, pieces)) + frames.close()

    whole = passed(body)
    assert leaks(whole.decode()) == [] and whole.startswith(BEGIN) and whole.endswith(BEGIN)
    for i in range(1, len(body)):
        assert passed(body[:i], body[i:]) == whole
    assert passed(b"error:", b"x" * MAX_HELD, b"y" + secrets[0].encode()).endswith(b"***")
