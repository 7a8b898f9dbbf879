"""A provider that fails at any byte of its answer, and clients that tell how a turn ended.

The model's name says what the provider does: ``KIND/FORM/POSITION``, see :data:`KINDS` and :data:`FORMS`, or
``slow/DELTAS/MILLISECONDS``, or ``refuse/any/STATUS``.  A prefix ``tls/`` or ``wire/`` only chooses the way
to it (:data:`CONFIG`).
Used by ``scripts/faults``, ``scripts/fuzz`` and ``scripts/soak``.
"""

from __future__ import annotations

import asyncio
import gzip
import http.client
import io
import json
import random
import zlib
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from grammar import check_response, check_sse, check_stream
from rawserver import CHUNKED, END, Peer, chunk
from wsclient import HANDSHAKE, TERMINAL, masked

Json = Dict[str, Any]
HELLO = "Hello world"
ARGUMENTS = '{"city": "Oslo"}'
TOOL: Json = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
PATIENCE = 30.0  # seconds until a turn counts as one that hangs, on a busy machine
REFUSAL = b'HTTP/1.1 %d No\r\nContent-Length: 41\r\n\r\n{"error": {"message": "Not like this."}}\n'
BUG = b"because of a bug"  # in every error that is rproxy's own fault

# What the provider does at the position: closes, resets, sends nothing more until the other side leaves, or
# sends another byte than this one.
KINDS = ("cut", "reset", "stall", "garble")


# ---- Answers
class Form(NamedTuple):
    """A good answer. ``enough``: so many bytes of it tell that it is complete. ``says``: its text, or the
    arguments of its call.
    """

    data: bytes
    enough: int
    says: str


def sse(*values: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(value).encode() for value in values)


def delta(finish: Optional[str] = None, **fields: Any) -> Json:
    return {"id": "c", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def _form(head: bytes, body: bytes, says: str, last: bytes, framed: bool = False) -> Form:
    """:param last: the bytes with which an answer can be complete; ``framed``: send the body in chunks"""
    if framed:
        body = b"".join(chunk(body[at : at + 50]) for at in range(0, len(body), 50)) + END
    data = head + body
    return Form(data, data.rindex(last) + len(last), says)


def forms() -> Dict[str, Form]:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    ok = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"
    stream = ok % b"text/event-stream"
    text = sse(
        delta(content="Hello"), delta(content=" world"), delta("stop"), {"choices": [], "usage": usage}
    )
    text += b"data: [DONE]\n\n"
    pieces = [{"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": ARGUMENTS[:5]}}]
    rest = [{"index": 0, "function": {"arguments": ARGUMENTS[5:]}}]
    calls = sse(delta(reasoning_content="Hm."), delta(tool_calls=pieces), delta(tool_calls=rest))
    calls += sse(delta("tool_calls")) + b"data: [DONE]\n\n"
    message = {"role": "assistant", "content": HELLO}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    document = json.dumps(whole).encode()
    packed = gzip.compress(document, mtime=0)
    gzip_head = ok % b"application/json" + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(
        packed
    )
    unpacked = next(
        size for size in range(len(packed)) if zlib.decompressobj(31).decompress(packed[:size]) == document
    )
    plain = CHUNKED[:-2] + b"Content-Type: text/event-stream\r\n\r\n"
    return {
        "sized": _form(stream + b"Content-Length: %d\r\n\r\n" % len(text), text, HELLO, b'"stop"'),
        "chunked": _form(plain, text, HELLO, b'stop"', framed=True),
        "open": _form(stream + b"Connection: close\r\n\r\n", text, HELLO, b'"stop"'),
        "calls": _form(stream + b"Connection: close\r\n\r\n", calls, ARGUMENTS, b'"tool_calls"'),
        "json": _form(
            ok % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(document), document, HELLO, b"}"
        ),
        "gzip": Form(gzip_head + packed, len(gzip_head) + unpacked, HELLO),
    }


FORMS = forms()


def events_of_responses() -> Form:
    """A good answer of a provider that speaks the Responses API itself."""
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    part = {"type": "output_text", "text": HELLO, "annotations": []}
    response = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "output": [{**item, "content": [part]}],
    }
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    events = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": HELLO},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "content": [part]}},
        {"type": "response.completed", "response": {**response, "usage": usage}},
    ]
    head = CHUNKED[:-2] + b"Content-Type: text/event-stream\r\n\r\n"
    body = b"".join(b"event: %b\n%b" % (event["type"].encode(), sse(event)) for event in events)  # type: ignore
    return _form(head, body, HELLO, b"}}", framed=True)


FORMS["responses"] = events_of_responses()


# ---- The provider
async def play(peer: Peer) -> None:
    """A script for :class:`rawserver.RawServer`: what the model's name says."""
    while True:
        _, _, body = await peer.request()
        try:
            words = json.loads(body)["model"].split("/")
            kind, form, position = words[-3], words[-2], int(words[-1])
        except (ValueError, KeyError, IndexError, AttributeError, TypeError):
            kind, form, position = "cut", "chunked", len(FORMS["chunked"].data)  # a good answer
        if kind == "slow":
            await _slowly(peer, int(form), position / 1000)
            continue
        if kind == "refuse":
            await peer.send(REFUSAL % position)
            continue
        data = FORMS.get(form, FORMS["chunked"]).data
        if kind == "garble":
            data = garbled(data, position)
        await peer.send(data if kind == "garble" else data[:position])
        if kind == "stall":
            await peer.wait_gone()
        elif kind == "reset":
            peer.reset()
        if kind != "cut" or position < len(data) or form == "open":
            return


async def _slowly(peer: Peer, count: int, pause: float) -> None:
    await peer.send(CHUNKED)
    for number in range(count):
        await peer.send(chunk(sse(delta(content=f"{number} "))), pause=pause)
    await peer.send(chunk(sse(delta("stop")) + b"data: [DONE]\n\n") + END)


def garbled(data: bytes, position: int) -> bytes:
    """``data`` with another byte at the position, which is always the same one."""
    position %= len(data)
    other = data[position] ^ random.Random(position).randint(1, 255)
    return data[:position] + bytes([other]) + data[position + 1 :]


# For :func:`observed.observed`: every model goes to the provider, ``wire/*`` by the Responses API.
CONFIG = """
server:
  listen_addr: "127.0.0.1:{port}"
  log_level: error
  retries: 0
  connect_timeout: 5
  seal_key: "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"
  inspector: off    # its list grows up to 10,000 turns, which looks like a leak
{server}store: {{kind: memory, max_responses: 50}}
models:
  - model: wire/*
    provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY, wire: responses}}
  - model: "*"
    provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY}}
"""


def silence(seconds: float) -> str:
    """Lines of the section ``server``: how long rproxy bears a provider that says nothing."""
    return f"  request_timeout: {seconds:g}\n  first_byte_timeout: {seconds:g}\n"


def with_tls(url: str, ca: str) -> str:
    """The configuration in which ``tls/*`` goes to this address."""
    provider = f'{{{{base_url: "{url}", api_key: $SCRIPTED_KEY, ca_file: "{ca}"}}}}'
    return CONFIG.replace("models:\n", f"models:\n  - model: tls/*\n    provider: {provider}\n")


# ---- Clients
class Turn(NamedTuple):
    """How a turn ended. ``status``: that of the response, or ``error``; ``said``: all text and arguments."""

    status: str
    said: str


class Wrong(Exception):
    """A turn that ended as none may end; the text says how."""


class Endless(Wrong):
    """The other side neither answers nor closes."""


def request_bytes(body: Any, path: str = "/v1/responses") -> bytes:
    content = json.dumps(body).encode()
    return (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(content), content)
    )


def create(model: str, **more: Any) -> Json:
    return {"model": model, "input": "Hi", "tools": [TOOL], "store": False, **more}


async def exchange(port: int, data: bytes, patience: float = PATIENCE) -> bytes:
    """Send these bytes, and read until the server closes.

    :raises Wrong: it resets the connection
    :raises Endless: it does not close it
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), patience)
    except asyncio.TimeoutError:
        raise Endless(f"no end after {patience:g} s") from None
    except ConnectionError as error:
        raise Wrong(f"{type(error).__name__} instead of an answer") from None
    finally:
        writer.transport.abort()


class _Received:
    """Bytes as a socket, for http.client."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def parsed(data: bytes) -> Tuple[int, str, bytes]:
    """Status, content type and body of an answer. :raises Wrong: it is not a whole one, or tells of a bug"""
    if not data:
        raise Wrong("the connection was closed without an answer")
    try:
        answer = http.client.HTTPResponse(_Received(data))  # type: ignore[arg-type]
        answer.begin()
        body = answer.read()
    except http.client.HTTPException as error:
        raise Wrong(f"not a whole answer: {error!r} in {data[:300]!r}") from None
    if answer.status == 500 or BUG in body:
        raise Wrong(f"a bug: {body[-500:]!r}")
    return answer.status, answer.headers.get("Content-Type", ""), body


def _said(response: Json) -> str:
    """The text and the arguments of a response, without its thinking."""
    items = [item for item in response["output"] if item["type"] != "reasoning"]
    parts = [part.get("text", "") for item in items for part in item.get("content") or ()]
    return "".join(parts + [item.get("arguments", "") for item in items])


def ended(data: bytes) -> Turn:
    """How a turn over HTTP ended. :raises Wrong: in a way that no turn may end"""
    status, kind, body = parsed(data)
    try:
        if status == 200:
            response = (
                check_sse(body) if kind.startswith("text/event-stream") else check_response(json.loads(body))
            )
            return Turn(response["status"], _said(response))
        error = json.loads(body)["error"]
        assert status >= 400 and set(error) == {"message", "type", "param", "code"} and error["message"]
    except (AssertionError, ValueError, KeyError, TypeError) as problem:
        raise Wrong(f"{problem!r} in {body[-500:]!r}") from None
    return Turn("error", "")


class WebSocket:
    """One connection for turns one after another."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: Optional[asyncio.StreamWriter] = None

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 26)
        self._writer.write(("\r\n".join(HANDSHAKE) + "\r\n\r\n").encode())
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE)
        if b" 101 " not in head:
            raise Wrong(f"no WebSocket: {head!r}")

    async def turn(self, body: Json) -> Turn:
        """:raises Wrong: it ended in a way that no turn may end"""
        if self._writer is None:
            await self.connect()
        assert self._writer is not None
        self._writer.write(masked(json.dumps({"type": "response.create", **body}).encode()))
        events: List[Json] = []
        try:
            while not events or events[-1]["type"] not in (*TERMINAL, "error"):
                message = await asyncio.wait_for(self._message(), PATIENCE)
                if BUG in message:
                    raise Wrong(f"a bug: {message[-500:]!r}")
                events.append(json.loads(message))
            if events[-1]["type"] == "error":
                assert len(events) == 1, f"an error frame after {len(events) - 1} events"
                return Turn("error", "")
            response = check_stream(events)
            return Turn(response["status"], _said(response))
        except (
            AssertionError,
            ValueError,
            KeyError,
            TypeError,
            OSError,
            EOFError,
            asyncio.TimeoutError,
        ) as problem:
            self.close()
            raise Wrong(f"{problem!r} after {str(events[-1:])[:500]}") from None

    async def _message(self) -> bytes:
        """The next text frame; pings need no answer here."""
        while True:
            first, size = await self._reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
            data = await self._reader.readexactly(size)
            if first & 15 == 1:
                return data
            if first & 15 == 8:
                raise EOFError(f"the WebSocket was closed: {data!r}")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
