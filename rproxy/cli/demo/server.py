"""A scripted Chat Completions provider, for people without a key and for the tests.

On the wire it behaves as DeepSeek does: it thinks first, streams small pieces, reports cached tokens, and
refuses what DeepSeek refuses (:mod:`rproxy.cli.demo.rules`).  There is no model in it; its replies come from
:mod:`rproxy.cli.demo.script`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections import OrderedDict
from contextlib import contextmanager
from hashlib import sha256
from typing import Awaitable, Iterator, List, Optional

from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from ...json_codec import UNREADABLE
from ...server.tornado_patches import NoDelayServer
from ...types import Json
from .rules import refusal
from .script import ScriptedReply, script

MODELS = ("demo", "deepseek-v4-pro", "deepseek-v4-flash")
KEY = "sk-demo"  # the key that rproxy sends; any key is accepted
DELAY = 0.01  # seconds between two pieces of a stream
REMEMBERED = 1000  # message prefixes that count as cached
CACHE_BLOCK = 64  # tokens of a block, in which the cache counts


# ---- Chunks and messages
def deltas(reply: ScriptedReply) -> List[Json]:
    """The deltas of a stream, in DeepSeek's shapes: the role comes first, later fragments of a call have only
    arguments.
    """
    out: List[Json] = [{"role": "assistant", "content": None, "reasoning_content": ""}]
    out += [{"content": None, "reasoning_content": piece} for piece in reply.reasoning]
    out += [{"content": piece, "reasoning_content": None} for piece in reply.text]
    if reply.tool:
        out.append(
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "call_00_" + uuid.uuid4().hex[:24],
                        "type": "function",
                        "function": {"name": reply.tool, "arguments": ""},
                    }
                ]
            }
        )
        out += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in reply.arguments]
    return out


def message(reply: ScriptedReply) -> Json:
    """The whole answer as one message."""
    out: Json = {"role": "assistant", "content": "".join(reply.text)}
    if reply.reasoning:
        out["reasoning_content"] = "".join(reply.reasoning)
    if reply.tool:
        out["tool_calls"] = [
            {
                "index": 0,
                "id": "call_00_" + uuid.uuid4().hex[:24],
                "type": "function",
                "function": {"name": reply.tool, "arguments": "".join(reply.arguments)},
            }
        ]
    return out


class PrefixCache:
    """DeepSeek's context cache: the beginnings of conversations that were seen before."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def usage(self, body: Json, reply: ScriptedReply) -> Json:
        """DeepSeek's usage object for this request and answer; remembers the request."""
        total, hit, digest = 0, 0, sha256(json.dumps(body.get("tools")).encode())
        for entry in body["messages"]:
            data = json.dumps(entry, sort_keys=True).encode()
            digest.update(data)
            total += len(data) // 4 + 1
            if digest.digest() in self._seen:
                hit = total
            self._seen[digest.digest()] = None
            self._seen.move_to_end(digest.digest())
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        hit -= hit % CACHE_BLOCK
        return {
            "prompt_tokens": total,
            "completion_tokens": reply.tokens,
            "total_tokens": total + reply.tokens,
            "prompt_tokens_details": {"cached_tokens": hit},
            "completion_tokens_details": {"reasoning_tokens": len(reply.reasoning)},
            "prompt_cache_hit_tokens": hit,
            "prompt_cache_miss_tokens": total - hit,
        }


class _Handler(RequestHandler):
    def initialize(self, cache: PrefixCache, delay: float) -> None:
        self.cache, self.delay = cache, delay

    def prepare(self) -> None:
        if not re.match(r"Bearer \S+", self.request.headers.get("Authorization", "")):
            self.refuse(401, "Authentication Fails (governor)", "authentication_error")

    def refuse(self, status: int, text: str, kind: str = "invalid_request_error") -> None:
        self.set_status(status)
        self.finish(
            {"error": {"message": text, "type": kind, "param": None, "code": "invalid_request_error"}}
        )


class ModelsHandler(_Handler):
    def get(self) -> None:
        self.finish(
            {
                "object": "list",
                "data": [{"id": name, "object": "model", "owned_by": "rproxy"} for name in MODELS],
            }
        )


class ChatHandler(_Handler):
    async def post(self) -> None:
        try:
            body = json.loads(self.request.body)
        except UNREADABLE as exc:
            return self.refuse(400, f"Failed to parse the request body as JSON: {exc}")
        problem = refusal(body)
        if problem:
            return self.refuse(400, problem)
        reply = script(body)
        head = {
            "id": str(uuid.uuid4()),
            "created": int(time.time()),
            "model": body["model"],
            "system_fingerprint": "fp_demo",
        }
        usage = self.cache.usage(body, reply)
        if body.get("stream"):
            return await self.stream(head, reply, usage)
        choice = {"index": 0, "message": message(reply), "logprobs": None, "finish_reason": reply.finish}
        self.finish(dict(head, object="chat.completion", choices=[choice], usage=usage))

    async def stream(self, head: Json, reply: ScriptedReply, usage: Json) -> None:
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.write(": keep-alive\n\n")
        try:
            for delta in deltas(reply):
                await self.chunk(head, delta, None, None)
                await asyncio.sleep(self.delay)
            await self.chunk(head, {"content": "", "reasoning_content": None}, reply.finish, usage)
            await self.finish("data: [DONE]\n\n")
        except StreamClosedError:
            pass  # the client has hung up

    def chunk(self, head: Json, delta: Json, finish: Optional[str], usage: Optional[Json]) -> Awaitable[None]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = dict(head, object="chat.completion.chunk", choices=[choice], usage=usage)
        self.write(f"data: {json.dumps(chunk)}\n\n")
        return self.flush()


def make_demo_app(delay: float = DELAY) -> Application:
    """The provider as an application: ``/chat/completions`` and ``/models``, with and without ``/v1``.

    :param delay: seconds between two pieces of a stream
    """
    arguments = {"cache": PrefixCache(), "delay": delay}
    return Application(
        [
            (r"(?:/v1)?/chat/completions", ChatHandler, arguments),
            (r"(?:/v1)?/models", ModelsHandler, arguments),
        ],
        log_function=lambda handler: None,
    )


@contextmanager
def serve_demo(host: str = "127.0.0.1", delay: float = DELAY) -> Iterator[str]:
    """Serve the provider in the running event loop, on a free port of ``host``, as long as the context lasts.

    :returns: a context with the base URL
    """
    server = NoDelayServer(make_demo_app(delay))
    sockets = bind_sockets(0, host)
    server.add_sockets(sockets)
    try:
        yield f"http://{host}:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()
