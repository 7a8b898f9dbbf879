"""A fast scripted Chat Completions provider: ``python provider.py PORT [CERTIFICATE]``.

It must cost much less than what it measures, so it is a bare selector loop that sends bytes made beforehand.
The model's name is the script, letters with numbers behind ``bench``::

    bench-n1000          1000 deltas as fast as they are taken, each a chunk of its own
    bench-n100-r20       100 deltas, 20 a second, the first at once
    bench-n5-k3          3 of the deltas are reasoning_content
    bench-n9-t4          the last 4 deltas are arguments of a tool call
    bench-n5-s200        200 characters a delta (default 5)
    bench-n1-q1          the deltas, then silence for ever
    bench-n1-w60         60 seconds of silence before the deltas

Without ``"stream": true`` the answer is one JSON document.  ``GET /stats``: connections that are open, deltas
sent.
"""

from __future__ import annotations

import heapq
import itertools
import json
import re
import selectors
import socket
import ssl
import sys
import time
from functools import cache
from typing import Dict, List, Tuple

BLOCK = 100  # deltas of a burst in one piece of bytes, which is sent again and again
MODEL = re.compile(rb'"model": ?"(bench[^"]*)"')
LENGTH = re.compile(rb"content-length: *(\d+)", re.I)
STREAM = re.compile(rb'"stream": ?true')
CHUNK = (
    '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    '"choices":[{"index":0,"delta":%s,"finish_reason":%s}]%s}'
)
USAGE = '{"prompt_tokens":10,"completion_tokens":10,"total_tokens":20}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"


def script(model: str) -> Dict[str, int]:
    """``bench-n5-r20`` -> {"n": 5, "r": 20, ...}"""
    found = {letter: int(number) for letter, number in re.findall(r"-([a-z])(\d+)", model)}
    return {"n": 1, "r": 0, "k": 0, "t": 0, "s": 5, "q": 0, "w": 0, **found}


def frame(delta: str, finish: str = "null", more: str = "") -> bytes:
    event = b"data: %b\n\n" % (CHUNK % (delta, finish, more)).encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def text(size: int) -> str:
    return (" word" * (size // 5 + 1))[:size]


@cache
def deltas(model: str) -> Tuple[Tuple[bytes, int], ...]:
    """The frames of the deltas, in runs of the same one: (frame, how often)."""
    plan = script(model)
    said = text(plan["s"])
    calls = plan["t"]
    function = '{"name":"look","arguments":"{\\"a\\":\\""}'
    first = '{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":' + function + "}]}"
    runs = [
        (frame(f'{{"reasoning_content":"{said}"}}'), plan["k"]),
        (frame(f'{{"content":"{said}"}}'), plan["n"] - plan["k"] - calls),
    ]
    if calls:
        runs += [
            (frame(first), 1),
            (frame(f'{{"tool_calls":[{{"index":0,"function":{{"arguments":"{said}"}}}}]}}'), calls - 2),
            (frame('{"tool_calls":[{"index":0,"function":{"arguments":"\\"}"}}]}'), 1),
        ]
    return tuple(run for run in runs if run[1] > 0)


def ending(model: str) -> bytes:
    finish = '"tool_calls"' if script(model)["t"] else '"stop"'
    done = b"data: [DONE]\n\n"
    return frame("{}", finish, ',"usage":' + USAGE) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done)


def document(model: str) -> bytes:
    """The whole answer to a request without stream."""
    plan = script(model)
    body = (
        '{{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"bench","choices":[{{"index":0,"message":'
        '{{"role":"assistant","content":"{}"}},"finish_reason":"stop"}}],"usage":{}}}'.format(
            text(plan["s"] * plan["n"]), USAGE
        )
    ).encode()
    return HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class Peer:
    """A connection of a client."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = b""
        self.outbox: List[memoryview] = []  # last one first
        self.live: List[Tuple[bytes, int]] = []
        self.interval = 0.0
        self.model = ""
        self.is_empty = self.closed = False


class Server:
    def __init__(self, port: int, certificate: str) -> None:
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.listener.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.timers: List[Tuple[float, int, Peer]] = []
        self.numbers = itertools.count()
        self.open = self.sent = 0

    def run(self) -> None:
        while True:
            now = time.monotonic()
            while self.timers and self.timers[0][0] <= now:
                due, _, peer = heapq.heappop(self.timers)
                if not peer.closed:
                    self.tick(peer, due)
            wait = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            for key, mask in self.selector.select(wait):
                if key.fileobj is self.listener:
                    self.accept()
                    continue
                if mask & selectors.EVENT_WRITE:
                    self.push(key.data)
                if mask & selectors.EVENT_READ and not key.data.closed:
                    self.read(key.data)

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            if self.context is not None:  # the first recv shakes hands
                sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self.open += 1
            self.selector.register(sock, selectors.EVENT_READ, Peer(sock))

    def close(self, peer: Peer) -> None:
        peer.closed = True
        self.open -= 1
        self.selector.unregister(peer.sock)
        peer.sock.close()

    def read(self, peer: Peer) -> None:
        try:
            data = peer.sock.recv(1 << 20)
            while isinstance(peer.sock, ssl.SSLSocket) and peer.sock.pending():
                data += peer.sock.recv(1 << 20)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            data = b""
        if not data:
            return self.close(peer)
        peer.inbox += data
        head, separator, rest = peer.inbox.partition(b"\r\n\r\n")
        found = LENGTH.search(head)
        size = int(found[1]) if found else 0
        if separator and len(rest) >= size:
            peer.inbox = rest[size:]
            self.answer(peer, head, rest[:size])

    def answer(self, peer: Peer, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            stats = json.dumps({"open": self.open - 1, "deltas": self.sent}).encode()
            return self.send(
                peer, [HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n%b" % (len(stats), stats)]
            )
        found = MODEL.search(body)
        model = peer.model = found[1].decode() if found else "bench-n1"
        plan = script(model)
        if not STREAM.search(body):
            return self.send(peer, [document(model)])
        opening = (
            HEAD % b"text/event-stream"
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + frame('{"role":"assistant","content":""}')
        )
        peer.is_empty = bool(plan["q"])
        if plan["r"] or plan["w"]:
            peer.live, peer.interval = list(deltas(model)), 1 / (plan["r"] or 1000)
            self.send(peer, [opening])
            heapq.heappush(self.timers, (time.monotonic() + plan["w"], next(self.numbers), peer))
            return
        self.sent += plan["n"]
        pieces = [opening]
        for piece, count in deltas(model):
            pieces += [piece * BLOCK] * (count // BLOCK) + [piece * (count % BLOCK)]
        self.send(peer, pieces + ([] if plan["q"] else [ending(model)]))

    def tick(self, peer: Peer, due: float) -> None:
        """The next delta of a live stream."""
        if peer.live:
            piece, count = peer.live[0]
            peer.live[:1] = [(piece, count - 1)] if count > 1 else []
            self.sent += 1
            self.send(peer, [piece])
        elif not peer.is_empty:
            return self.send(peer, [ending(peer.model)])
        heapq.heappush(self.timers, (due + peer.interval, next(self.numbers), peer))

    def send(self, peer: Peer, pieces: List[bytes]) -> None:
        waiting = bool(peer.outbox)
        peer.outbox[:0] = [memoryview(piece) for piece in reversed(pieces) if piece]
        if not waiting:
            self.push(peer)

    def push(self, peer: Peer) -> None:
        try:
            while peer.outbox:
                sent = peer.sock.send(peer.outbox[-1])
                if sent < len(peer.outbox[-1]):
                    peer.outbox[-1] = peer.outbox[-1][sent:]
                else:
                    peer.outbox.pop()
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except OSError:
            return self.close(peer)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.outbox else 0)
        if self.selector.get_key(peer.sock).events != wanted:
            self.selector.modify(peer.sock, wanted, peer)


if __name__ == "__main__":
    Server(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "").run()
