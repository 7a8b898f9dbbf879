"""The provider of the attacks, in a process of its own: the model's name says what it answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import multiprocessing
from itertools import chain
from typing import Any, Callable, Dict, Iterator, List, Tuple

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: %b\r\n\r\n"
REFUSED = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n"
LIMITS = b"".join(b"X-RateLimit-%d: %d\r\n" % (n, n) for n in range(2500))  # as long as a head may be
PIECE = 1 << 16  # bytes of one write
MB = 1 << 20
DSML = "｜DSML｜"


def sse(delta: Any, finish: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"choices": [choice]}, ensure_ascii=False).encode()


def event(type_: str, **fields: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps({"type": type_, **fields}, ensure_ascii=False).encode()


def call(number: int, **more: Any) -> Dict[str, Any]:
    return {"index": number, "id": f"c{number}", "function": {"name": "f", "arguments": "{}"}, **more}


END = sse({}, "stop") + b"data: [DONE]\n\n"


def streamed(*deltas: Any) -> Iterator[bytes]:
    for delta in deltas:
        yield sse(delta)
    yield END


def texts(text: str, times: int) -> Iterator[bytes]:
    piece = sse({"content": text})
    for _ in range(times):
        yield piece
    yield END


def calls(times: int) -> Iterator[bytes]:
    for number in range(times):
        yield sse({"tool_calls": [call(number)]})
    yield END


def whole(**message: Any) -> Iterator[bytes]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    yield json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def response_items(items: List[Any]) -> Iterator[bytes]:
    """An answer of a provider with the Responses API: items added and done, then all of them again."""
    for number, item in enumerate(items):
        yield event("response.output_item.added", output_index=number, item=item)
        yield event("response.output_item.done", output_index=number, item=item)
    yield event("response.completed", response={"object": "response", "status": "completed", "output": items})


def messages(times: int) -> List[Any]:
    return [
        {"type": "message", "id": f"m{n}", "content": [{"type": "output_text", "text": "x"}]}
        for n in range(times)
    ]


def function_calls(times: int) -> List[Any]:
    return [
        {"type": "function_call", "id": f"f{n}", "call_id": f"c{n}", "name": "f", "arguments": "{}"}
        for n in range(times)
    ]


def closed_by(delta: str, times: int) -> Iterator[bytes]:
    """Deltas, and a message that repeats them all."""
    for _ in range(times):
        yield sse({"content": delta})
    message = {"role": "assistant", "content": delta * times + "!"}
    yield b"data: %b\n\n" % json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    yield b"data: [DONE]\n\n"


def raw(*pieces: bytes) -> Iterator[bytes]:
    yield from pieces
    yield END


def indented(**message: Any) -> Iterator[bytes]:
    """A completion in many lines."""
    yield from (
        line + b"\n"
        for line in json.dumps(json.loads(next(whole(**message))), indent=1).encode().split(b"\n")
    )


def packed(data: bytes) -> Iterator[bytes]:
    yield gzip.compress(data, 9)


def logprobs(times: int) -> List[Any]:
    top = [{"token": "x", "logprob": -1.5, "bytes": [120]}] * 5
    return [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": top}] * times


def leaked(opens: str, piece: str, times: int, closes: str) -> Iterator[bytes]:
    yield sse({"content": opens})
    yield sse({"content": piece * times})
    yield sse({"content": closes})
    yield END


def hostile_words() -> bytes:
    """A refusal that quotes, nests and repeats whatever a diagnosis looks for."""
    words = " ".join(
        f"messages[{n}].content 'input_text' is not allowed, use one of [a, b]" for n in range(60)
    )
    reprs = "".join("{'loc': ('body', 'messages', 0), 'msg': '{{{{', 'type': 'x'}" for _ in range(60))
    return json.dumps(
        {"error": {"message": words + reprs + "{[" * 500, "detail": [{"msg": words}] * 60}}
    ).encode()


Answer = Tuple[bytes, Callable[[], Iterator[bytes]]]
EVENTS, JSON = HEAD % b"text/event-stream", HEAD % b"application/json"
ANSWERS: Dict[str, Answer] = {
    "hi": (EVENTS, lambda: streamed({"content": "hi"})),
    "delta-30mb": (EVENTS, lambda: streamed({"content": "x" * (30 << 20)})),
    "delta-30mb-escaped": (EVENTS, lambda: streamed({"content": 'é"\n' * (6 << 20)})),
    "arguments-30mb": (
        EVENTS,
        lambda: streamed(
            {"tool_calls": [call(0, function={"name": "f", "arguments": '{"a":"%s"}' % ("x" * (30 << 20))})]}
        ),
    ),
    "arguments-numbers": (
        EVENTS,
        lambda: streamed(
            {
                "tool_calls": [
                    call(0, function={"name": "n", "arguments": '{"a":[%s]}' % ",".join(["1.0"] * 2_000_000)})
                ]
            }
        ),
    ),
    "delta-30mb-widening": (
        EVENTS,
        lambda: streamed({"content": "x" * (10 * MB) + "é" * (3 * MB) + "中" * (3 * MB) + "😀" * MB}),
    ),
    "two-choices": (
        EVENTS,
        lambda: raw(
            b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": "x" * (15 * MB)}}] * 2}).encode()
        ),
    ),
    "closing-message": (EVENTS, lambda: closed_by("x" * 10_000, 3_000)),
    "text-100mb-in-tokens": (EVENTS, lambda: texts("x" * 100, 1_000_000)),
    "text-100mb-widening": (EVENTS, lambda: chain(texts("x" * 10_000, 5_000), texts("中" * 3_000, 5_000))),
    "reasoning-50mb": (
        EVENTS,
        lambda: chain(
            [sse({"reasoning_content": "some thoughts " * 700})] * 5_000, streamed({"content": "x"})
        ),
    ),
    "details-30mb": (
        EVENTS,
        lambda: streamed(
            {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "x" * (30 * MB)}]},
            {"content": "x"},
        ),
    ),
    "logprobs": (
        EVENTS,
        lambda: raw(
            b"data: %b\n\n"
            % json.dumps(
                {"choices": [{"delta": {"content": "x"}, "logprobs": {"content": logprobs(60_000)}}]}
            ).encode()
        ),
    ),
    "reasoning-30mb": (EVENTS, lambda: streamed({"reasoning_content": "x" * (30 << 20)})),
    "text-100mb": (EVENTS, lambda: texts("x" * 10_000, 10_000)),
    "calls-in-one-delta": (EVENTS, lambda: streamed({"tool_calls": [call(n) for n in range(60_000)]})),
    "most-calls-in-one-delta": (EVENTS, lambda: streamed({"tool_calls": [call(n) for n in range(400_000)]})),
    "nameless-calls": (
        EVENTS,
        lambda: streamed(
            {"tool_calls": [call(n, function={"name": "", "arguments": "{}"}) for n in range(60_000)]}
        ),
    ),
    "idless-calls": (
        EVENTS,
        lambda: streamed(
            {
                "tool_calls": [
                    {"index": n, "function": {"name": "f", "arguments": "{}"}} for n in range(60_000)
                ]
            }
        ),
    ),
    "million-calls": (EVENTS, lambda: calls(1_000_000)),
    "choices": (
        EVENTS,
        lambda: iter(
            [b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": "x"}}] * 300_000}).encode(), END]
        ),
    ),
    "pieces": (
        EVENTS,
        lambda: streamed(
            {"content": [{"type": "text", "text": "x"}, {"type": "thinking", "text": "y"}] * 200_000}
        ),
    ),
    "annotations": (
        EVENTS,
        lambda: streamed({"content": "x", "annotations": [{"type": "url_citation", "url": "u"}] * 200_000}),
    ),
    "details": (
        EVENTS,
        lambda: streamed(
            {
                "reasoning_details": [
                    {"type": "reasoning.encrypted", "id": f"r{n}", "index": n, "data": "x"}
                    for n in range(60_000)
                ]
            },
            {"content": "x"},
        ),
    ),
    "images": (
        EVENTS,
        lambda: streamed({"images": [{"image_url": {"url": f"u{n}"}} for n in range(200_000)]}),
    ),
    "nested": (EVENTS, lambda: iter([b"data: " + b"[" * (8 << 20) + b"\n\n", END])),
    "lines": (EVENTS, lambda: iter([b"\n" * PIECE] * 400 + [b"data: x\n" * 8000] * 100 + [END])),
    "list": (EVENTS, lambda: raw(b"data: [%b{}]\n\n" % (b'{"choices":[]},' * (2 * MB)))),
    "list-brackets": (EVENTS, lambda: raw(b"data: [%b[]]\n\n" % (b"[]," * (10 * MB)))),
    "string": (EVENTS, lambda: raw(b'data: "%b"\n\n' % (b"x" * (30 * MB)))),
    "no-json": (EVENTS, lambda: raw(b"data: {%b\n\n" % (b'"a":[],' * (4 * MB)))),
    "values": (EVENTS, lambda: raw(b"data: %b\n\n" % (b"{}" * MB))),
    "bare-values": (EVENTS, lambda: raw(b"data: {}\n\n", b"{}" * MB + b"\n\n")),
    "event-of-lines": (
        EVENTS,
        lambda: raw(b'data: {"choices":[\n', *[b"data: {},\n"] * 2_000_000, b"data: {}]}\n\n"),
    ),
    "error-event": (EVENTS, lambda: raw(b'event: error\ndata: {"message":"%b"}\n\n' % (b"x y" * (10 * MB)))),
    "error-line": (EVENTS, lambda: raw(b'error: {"message":"%b"}\n\n' % (b"x y" * (10 * MB)))),
    "error-chunk": (EVENTS, lambda: raw(b'data: {"error":{"message":"%b"}}\n\n' % (b"x y" * (10 * MB)))),
    "error-brackets": (
        EVENTS,
        lambda: raw(b'data: {"error":{"message":"x","a":[%b[]]}}\n\n' % (b"[]," * (9 * MB))),
    ),
    "head": (HEAD % b"text/event-stream\r\n%b" % LIMITS[:60_000].rpartition(b"\r\n")[0], lambda: raw()),
    "gzip": (
        HEAD % b"text/event-stream\r\nContent-Encoding: gzip",
        lambda: packed(b"".join(texts("x" * 1_000, 14_000))),
    ),
    "gzip-lines": (
        HEAD % b"text/event-stream\r\nContent-Encoding: gzip",
        lambda: packed(b"".join(texts("x", 200_000))),
    ),
    "gzip-bomb": (HEAD % b"text/event-stream\r\nContent-Encoding: gzip", lambda: packed(b" " * (600 * MB))),
    "indented": (JSON, lambda: indented(content="x", tool_calls=[call(n) for n in range(150_000)])),
    "indented-text": (JSON, lambda: indented(content="x" * (30 * MB))),
    "brackets": (JSON, lambda: iter([b'{"choices":[%b]}' % (b"[]," * (9 << 20) + b"[]")])),
    "leaked-dsml": (
        EVENTS,
        lambda: leaked(f"<{DSML}tool_calls>", f'<{DSML}invoke name="f">', 25_000, f"</{DSML}tool_calls>"),
    ),
    "leaked-dsml-parameter": (
        EVENTS,
        lambda: leaked(
            f'<{DSML}tool_calls><{DSML}invoke name="f">',
            f'<{DSML}parameter name="a">',
            25_000,
            f"</{DSML}invoke></{DSML}tool_calls>",
        ),
    ),
    "leaked-parameter": (EVENTS, lambda: leaked("<function=f>", "<parameter=a>", 70_000, "</function>")),
    "leaked-open": (EVENTS, lambda: texts("<function=f>\n```", 100_000)),
    "think-tags": (EVENTS, lambda: streamed({"content": "<think>x</think>\n" * 300_000})),
    "whole-30mb": (JSON, lambda: whole(content="x" * (30 << 20))),
    "whole-calls": (JSON, lambda: whole(content="", tool_calls=[call(n) for n in range(60_000)])),
    "items": (EVENTS, lambda: response_items(messages(20_000))),
    "function-calls": (EVENTS, lambda: response_items(function_calls(20_000))),
    "response-30mb": (
        EVENTS,
        lambda: response_items(
            [{"type": "message", "id": "m", "content": [{"type": "output_text", "text": "x" * (10 << 20)}]}]
        ),
    ),
    "response-text-100mb": (
        EVENTS,
        lambda: iter(
            [
                event(
                    "response.output_text.delta",
                    item_id="m",
                    output_index=0,
                    content_index=0,
                    delta="x" * 10_000,
                )
            ]
            * 10_000
            + [
                event(
                    "response.completed", response={"object": "response", "status": "completed", "output": []}
                )
            ]
        ),
    ),
    "response-whole-30mb": (
        EVENTS,
        lambda: response_items(
            [
                {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "x" * (5 * MB)}]},
                {
                    "type": "function_call",
                    "id": "f",
                    "call_id": "c",
                    "name": "f",
                    "arguments": "x" * (5 * MB),
                },
            ]
        ),
    ),
    "refusal": (REFUSED, lambda: iter([hostile_words()])),
    "refusal-30mb": (
        REFUSED,
        lambda: iter([b'{"error":{"message":"%b"}}' % (b"not allowed [a, b] " * (3 * MB // 2))]),
    ),
    "refusal-brackets": (
        REFUSED,
        lambda: iter([b'{"error":{"message":"x","a":[%b[]]}}' % (b"[]," * (10 * MB))]),
    ),
    "refusal-page": (REFUSED, lambda: iter([b"<html><body>" + b"<p>an error &amp; more " * MB])),
}
OF_THE_RESPONSES_API = frozenset(("items", "function-calls")) | {
    name for name in ANSWERS if name.startswith("response-")
}


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        tail = body[-400:] if b'"model":"' not in body[:400] else body[:400]
        name = tail.split(b'"model":"')[1].split(b'"')[0].decode()
        start, make = ANSWERS[name.partition(".")[2]]
        writer.write(start)
        for piece in make():
            for begin in range(0, len(piece), PIECE):
                writer.write(piece[begin : begin + PIECE])
                await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def _serve(port: Any) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, limit=1 << 20)
    port.send(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


def run(port: Any) -> None:
    """The process.

    :param port: a pipe that takes the port
    """
    asyncio.run(_serve(port))


def start() -> Tuple[multiprocessing.process.BaseProcess, int]:
    """:returns: the process, and its port"""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run, args=(theirs,), daemon=True)
    process.start()
    port: int = ours.recv()
    return process, port
