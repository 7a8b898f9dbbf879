"""A provider that plays a script on a real socket, and refuses what DeepSeek refuses; and rproxy as a process
of its own.

A test says what the provider answers, turn by turn::

    provider.turns += [[think("Look."), call("exec_command", cmd="ls")], [say("Done.")]]

Everything it was asked stands in ``provider.requests``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections import deque
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Deque, Dict, Iterator, List, Optional, Sequence

from forkserver import rproxy_command
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from rproxy.cli.demo.rules import refusal
from rproxy.config.load import parse_config
from rproxy.server.app import embedded

Json = Dict[str, Any]
KEY = "sk-scripted-provider-key"
ROOT = Path(__file__).resolve().parent.parent
END_TIMEOUT = 60.0  # seconds until a process that was told to end has ended, on a busy machine
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 12,
    "total_tokens": 42,
    "prompt_cache_hit_tokens": 20,
    "prompt_cache_miss_tokens": 10,
    "completion_tokens_details": {"reasoning_tokens": 4},
}


# ---- steps of a turn
def think(text: str) -> Json:
    return {"delta": {"reasoning_content": text}}


def say(text: str) -> Json:
    return {"delta": {"content": text}}


def call(name: str, call_id: str = "", index: int = 0, **arguments: Any) -> Json:
    return {"call": (name, call_id, index, json.dumps(arguments))}


def gate(event: Optional[asyncio.Event] = None) -> Json:
    """Nothing more until the test sets the event; without one, until the client goes."""
    return {"gate": event or asyncio.Event()}


def head_gate(event: Optional[asyncio.Event] = None) -> Json:
    """The same before the status line; the first step."""
    return {"head gate": event or asyncio.Event()}


def pace(seconds: float) -> Json:
    """For a stream that flows slowly. What has to wait for something has a :func:`gate`."""
    return {"pace": seconds}


def comment(text: str) -> Json:
    return {"comment": text}


def finish(reason: str) -> Json:
    return {"finish": reason}


def tokens(prompt: int) -> Json:
    """What the usage of this turn says of the prompt."""
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1}}


def error(status: int, message: str, headers: Optional[Dict[str, str]] = None, **fields: Any) -> Json:
    told = dict({"message": message, "type": None, "param": None, "code": None}, **fields)
    return {"status": status, "headers": headers or {}, "body": {"error": told}}


CUT: Json = {"cut": True}  # the connection ends here


class ScriptedProvider:
    """Plays ``turns``, the first for the first request. ``gone`` counts answers whose client went away."""

    def __init__(self, strict: bool = True) -> None:
        self.turns: Deque[List[Json]] = deque()
        self.aside: Callable[[Json], Optional[List[Json]]] = lambda body: (
            None
        )  # answers some requests out of turn
        self.requests: List[Json] = []
        self.headers: List[Any] = []
        self.refusals: List[str] = []
        self.gone = 0
        self.strict = strict
        sock, self.port = bind_unused_port()
        self._server = HTTPServer(
            Application(
                [(r".*/chat/completions", _Chat, {"provider": self})], log_function=lambda handler: None
            )
        )
        self._server.add_socket(sock)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()


class _Chat(RequestHandler):
    def initialize(self, provider: ScriptedProvider) -> None:
        self.provider = provider
        self.task: Optional[asyncio.Task[None]] = None

    def on_connection_close(self) -> None:
        self.provider.gone += 1
        if self.task is not None:
            self.task.cancel()

    async def post(self) -> None:
        self.task = asyncio.current_task()  # type: ignore[assignment]
        provider, body = self.provider, json.loads(self.request.body)
        provider.requests.append(body)
        provider.headers.append(self.request.headers)
        refused = refusal(body) if provider.strict else None
        if refused:
            provider.refusals.append(refused)
        if self.request.headers.get("Authorization") != "Bearer " + KEY:
            refused = "Authentication Fails"
        steps = [error(400, refused)] if refused else provider.aside(body) or self.next_turn()
        with contextlib.suppress(asyncio.CancelledError):
            await self.play(steps, bool(body.get("stream")))

    async def play(self, steps: List[Json], stream: bool) -> None:
        if "head gate" in steps[0]:
            await steps[0]["head gate"].wait()
            steps = steps[1:]
        if "status" in steps[0]:
            self.set_status(steps[0]["status"])
            for name, value in steps[0]["headers"].items():
                self.set_header(name, value)
            self.finish(steps[0]["body"])
            return
        await (self.stream(steps) if stream else self.whole(steps))

    def next_turn(self) -> List[Json]:
        return (
            self.provider.turns.popleft() if self.provider.turns else [say("No turn is left in the script.")]
        )

    async def stream(self, steps: List[Json]) -> None:
        self.set_header("Content-Type", "text/event-stream")
        reason, usage = "stop", USAGE
        for step in steps:
            if "pace" in step:
                await asyncio.sleep(step["pace"])
                continue
            if "gate" in step:
                await self.flush()  # the head, when nothing else has been sent
                await step["gate"].wait()
                continue
            if "comment" in step:
                self.write(": {}\n\n".format(step["comment"]))
                await self.flush()
                continue
            if "cut" in step:
                self.request.connection.stream.close()
                return
            if "finish" in step or "usage" in step:
                reason, usage = step.get("finish", reason), step.get("usage", usage)
                continue
            reason = "tool_calls" if "call" in step else reason
            for delta in _deltas(step):
                await self.chunk(
                    {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None}
                )
        await self.chunk(
            {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": reason}], "usage": usage}
        )
        self.write("data: [DONE]\n\n")
        await self.flush()

    async def chunk(self, chunk: Json) -> None:
        self.write(
            "data: {}\n\n".format(
                json.dumps(
                    dict({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}, **chunk)
                )
            )
        )
        await self.flush()

    async def whole(self, steps: List[Json]) -> None:
        message: Json = {"role": "assistant", "content": ""}
        reason = "stop"
        for step in steps:
            if "gate" in step:
                await step["gate"].wait()
            reason = step.get("finish", "tool_calls" if "call" in step else reason)
            for key, value in step.get("delta", {}).items():
                message[key] = message.get(key, "") + value
            if "call" in step:
                message.setdefault("tool_calls", []).append(
                    {k: v for k, v in _whole_call(step).items() if k != "index"}
                )
        self.finish(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "usage": USAGE,
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            }
        )


def _whole_call(step: Json) -> Json:
    name, call_id, index, arguments = step["call"]
    return {
        "index": index,
        "id": call_id or f"call_{index}_{os.urandom(6).hex()}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _deltas(step: Json) -> Iterator[Json]:
    if "call" in step:
        whole = _whole_call(step)
        arguments = whole["function"]["arguments"]
        yield {"tool_calls": [dict(whole, function=dict(whole["function"], arguments=""))]}
        for i in range(0, len(arguments), 7):
            yield {"tool_calls": [{"index": whole["index"], "function": {"arguments": arguments[i : i + 7]}}]}
        return
    for key, text in step["delta"].items():
        for i in range(0, len(text), 5):
            yield {key: text[i : i + 5]}


# ---- rproxy as a process
CONFIG = """
server:
  listen_addr: "127.0.0.1:{port}"
  request_timeout: 30
{server}models:
  - model: gpt-5.5
    provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY}}
    downstream_model: deepseek-v4-pro
  - model: deepseek-v4-pro
    provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY}}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def served(base_url: str, server: str = "", config: str = CONFIG) -> AsyncIterator[str]:
    """Rproxy in this process, in front of the provider at ``base_url``; gives its own base URL."""
    text = config.format(port=0, base_url=base_url, server=server)
    async with embedded(parse_config(text.encode(), "test.yaml", {"SCRIPTED_KEY": KEY})) as url:
        yield url + "/v1"


class Running:
    """A running ``rproxy serve``."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    base_url: str,
    server: str = "",
    config: str = CONFIG,
    command: Sequence[str] = (),
    options: Sequence[str] = (),
) -> AsyncIterator[Running]:
    """Start ``rproxy serve`` in front of the provider at ``base_url``; stop it in the end, and look at how it
    ended.

    :param command: instead of what :mod:`forkserver` gives
    """
    port = free_port()
    path, log = folder / "config.yaml", folder / "rproxy.log"
    path.write_text(config.format(port=port, base_url=base_url, server=server), encoding="utf-8")
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(command or rproxy_command()),
            "serve",
            "--config",
            str(path),
            *options,
            cwd=str(ROOT),
            env=dict(os.environ, SCRIPTED_KEY=KEY),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    try:
        await listening(port, process)
        yield Running(process, port, log)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), END_TIMEOUT) == 0, log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = log.read_text()
    assert "Traceback" not in said, said[said.index("Traceback") - 200 :][:4000]
    assert KEY not in said


async def listening(port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until the process listens on the port."""
    for _ in range(1200):  # a minute, on a busy machine
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        assert process.returncode is None, "the process has ended"
        await asyncio.sleep(0.05)
    raise AssertionError("the process does not listen")
