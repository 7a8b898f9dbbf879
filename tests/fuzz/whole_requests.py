"""Mutated requests over real sockets, to a running rproxy in front of a provider that answers well.

Whatever is sent, the answer is a whole one, and none is a 500. A turn that succeeds gives a well-formed
response or stream. A connection is never closed without an answer, and none hangs, except where rproxy has to
wait for more: a wrong byte in the head may announce a longer request.
"""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any, List, NamedTuple, Optional

import hostile
from hostile import BUG, HANDSHAKE, Endless, Wrong, create, ended, exchange, masked, parsed
from mutate import mutated, mutated_json
from observed import observed
from rawserver import RawServer
from targets import seeds

NAME = "whole_requests"
PARALLEL = 6
SHORT = 2.0  # seconds for a request that may be unfinished
MEMORY = 64.0  # MiB that all of it may leave behind
GOOD = "cut/chunked/99999"
HEAD = "{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"


class Sent(NamedTuple):
    """A request. ``whole``: it is complete as HTTP, so it must be answered; ``turn``: by a response."""

    data: bytes
    whole: bool
    turn: bool = False


def bodies() -> List[Any]:
    found = [json.loads(data) for data in seeds("request")]
    return [{**body, "model": GOOD} for body in found if len(json.dumps(body)) < 60_000]


# (method, path, its body; None: none)
MESSAGES = {"model": GOOD, "messages": [{"role": "user", "content": "Hi"}]}
REQUESTS: List[Any] = [
    *(("POST", "/v1/responses", create(GOOD, stream=stream)) for stream in (True, False)),
    ("POST", "/v1/responses", create(GOOD, background=True, store=True)),
    ("POST", "/v1/responses/input_tokens", create(GOOD)),
    ("POST", "/v1/responses/compact", create(GOOD)),
    ("POST", "/v1/chat/completions", MESSAGES),
    ("POST", "/v1/chat/completions", {**MESSAGES, "stream": True}),
    ("POST", "/v1/conversations", {"items": [{"type": "message", "role": "user", "content": "Hi"}]}),
    ("POST", "/v1/conversations/conv_0/items", {"items": []}),
    *(("GET", f"/v1/{path}", None) for path in ("models", "models/m", "responses/resp_0")),
    ("GET", "/v1/responses/resp_0/input_items?limit=5&order=asc&after=x", None),
    ("GET", "/v1/conversations/conv_0/items?limit=5", None),
    ("DELETE", "/v1/responses/resp_0", None),
    ("POST", "/v1/responses/resp_0/cancel", {}),
    ("GET", "/health", None),
]


def framed(method: str, path: str, body: bytes) -> bytes:
    head = HEAD.format(method, path)
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def draw(rng: random.Random, histories: List[Any]) -> Sent:
    """A request: its JSON changed, its bytes, or a WebSocket's."""
    method, path, body = rng.choice(REQUESTS)
    if path == "/v1/responses" and rng.random() < 0.6:
        body = {**rng.choice(histories), "stream": rng.random() < 0.5}
    content = b"" if body is None else json.dumps(body).encode()
    kind = rng.random()
    if kind < 0.55 and body is not None:
        body = mutated_json(rng, body, [rng.choice(histories)])
        if isinstance(body, dict) and rng.random() < 0.8 and path.startswith("/v1/responses"):
            body["model"] = GOOD
        return Sent(framed(method, path, json.dumps(body).encode()), True, path == "/v1/responses")
    if kind < 0.7:
        return Sent(framed(method, path, mutated(rng, content, [content])), True, path == "/v1/responses")
    if kind < 0.85:
        whole = framed(method, path, content)
        return Sent(mutated(rng, whole, [whole]), False)
    frames = masked(json.dumps({"type": "response.create", **create(GOOD)}).encode())
    upgrade = ("\r\n".join(HANDSHAKE) + "\r\n\r\n").encode()
    if kind < 0.9:
        return Sent(mutated(rng, upgrade + frames, [frames]), False)
    message = {"type": "response.create", **rng.choice(histories)}
    text = json.dumps(mutated_json(rng, message, [message])).encode()
    return Sent(upgrade + masked(text) + mutated(rng, frames, [frames]), False)


async def judge(port: int, sent: Sent) -> None:
    """:raises Wrong: the answer is not what it may be"""
    try:
        data = await exchange(port, sent.data, hostile.PATIENCE if sent.whole else SHORT)
    except Endless:
        if sent.whole:
            raise
        return
    if data.startswith(b"HTTP/1.1 101"):
        if BUG in data:
            raise Wrong(f"a bug: {data[-500:]!r}")
        return
    status, kind, _ = parsed(data) if b"HEAD" not in sent.data[:20] else (200, "", b"")
    if b'"background": true' in sent.data:
        return  # the request is repeated before it is looked at: a failure will be told in the response
    if sent.turn and (status != 200 or "json" in kind or "event-stream" in kind):
        ended(data)


async def play(seed: str, seconds: float, only_round: Optional[int], folder: Path) -> bool:
    """:returns: did nothing fail?"""
    histories, wrong, number = bodies(), 0, only_round or 0
    provider = RawServer(hostile.play)
    async with (
        provider.running(),
        observed(folder, provider.url, hostile.silence(5), hostile.CONFIG) as rproxy,
    ):
        before = await rproxy.resource_usage()
        end = asyncio.get_running_loop().time() + seconds

        async def work() -> None:
            nonlocal number, wrong
            while asyncio.get_running_loop().time() < end and wrong < 5:
                mine, number = number, number + 1
                sent = draw(random.Random(f"{seed}/{NAME}/{mine}"), histories)
                try:
                    await judge(rproxy.port, sent)
                except Wrong as error:
                    wrong += 1
                    print(
                        f"WRONG whole_requests: --seed {seed} --only whole_requests --round {mine}\n  {error}"
                    )
                    print(f"  {sent.data[:2000]!r}", flush=True)
                if only_round is not None:
                    return

        await asyncio.gather(*(work() for _ in range(1 if only_round is not None else PARALLEL)))
        for peer in provider.peers:
            peer.writer.close()
        left = await rproxy.settled(before, MEMORY)
        print(f"{NAME}: {number - (only_round or 0)} requests; {await rproxy.resource_usage()}")
        for text in left:
            print(f"WRONG {NAME}: left over, {text}")
        return not wrong and not left
