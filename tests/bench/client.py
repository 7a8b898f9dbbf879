"""The load: ``python client.py '{"port": 3000, ...}'`` runs clients in a bare selector loop and prints one
JSON object at the end.

Options (JSON object): ``port``, ``path``, ``model``, ``form`` (sse, ws, json, chat), ``workers`` that work
side by side, each one turn after another on one connection; ``seconds`` until no new turn begins, or 0: one
turn each; ``spread``: seconds over which the workers begin; ``expect``: deltas a turn must have, or -1;
``hold``: print ``ready`` when all have their first delta, go on until stdin ends; ``body``: one of
:mod:`bodies`; ``chain``: so many turns of one worker instead, each of which continues the last (the first
continues ``previous``).

The result: ``turns``, ``deltas``, ``seconds``, ``first`` (milliseconds from request to first delta, sorted),
``errors`` (text -> count), ``last`` (the id of the last response of a chain).
"""

from __future__ import annotations

import base64
import collections
import json
import os
import re
import selectors
import socket
import struct
import sys
import time
from typing import Any, Counter, Dict, List, NamedTuple, Optional

from bodies import BODIES

Json = Dict[str, Any]


class Form(NamedTuple):
    """How an answer is told apart from the bytes of it; the marks may be cut anywhere."""

    delta: bytes
    end: bytes
    framed: bool  # the body ends with the last chunk of HTTP


FORMS = {
    "sse": Form(b'.delta"', b'response.completed"', True),
    "ws": Form(b'.delta"', b'response.completed"', False),
    "json": Form(b"\x00", b'"completed"', False),
    "chat": Form(b'"delta":{"content":" ', b"[DONE]", True),
}
FAILED = (b'response.failed"', b'response.incomplete"', b'"type":"error"')
ID = re.compile(rb'"id":"(resp_\w+)"')
LONGEST = 40  # no mark is longer
STALLED = 20.0  # seconds without any byte


def masked(payload: bytes) -> bytes:
    """A text frame of a client; the mask is zero, as any mask would do."""
    size = len(payload)
    head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBQ", 0x81, 0xFF, size)
    return head + bytes(4) + payload


class Worker:
    """One client: one connection, one turn at a time."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.sock: Optional[socket.socket] = None
        self.tail = b""
        self.deltas = 0
        self.began = 0.0
        self.first = self.ended = self.answered = False

    def connect(self) -> None:
        options = self.load.options
        sock = self.sock = socket.create_connection(("127.0.0.1", options["port"]), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if options["form"] == "ws":
            key = base64.b64encode(os.urandom(16))
            sock.sendall(
                b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: "
                b"Upgrade\r\nSec-WebSocket-Key: %b\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n" % (options["path"].encode(), options["port"], key)
            )
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(1)
            if b" 101 " not in head:
                raise OSError(f"no WebSocket: {head[:60]!r}")
        self.load.selector.register(sock, selectors.EVENT_READ, self)

    def start(self) -> None:
        if self.sock is None:
            self.connect()
        assert self.sock is not None
        self.tail, self.deltas, self.first, self.ended = b"", 0, False, False
        self.answered = self.load.form is FORMS["ws"]
        self.began = time.monotonic()
        self.sock.setblocking(True)
        self.sock.sendall(self.load.request)
        self.sock.setblocking(False)

    def close(self) -> None:
        if self.sock is not None:
            self.load.selector.unregister(self.sock)
            self.sock.close()
            self.sock = None

    def read(self) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(1 << 18)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            return self.fail(type(error).__name__)
        if not data:
            return self.finish(gone=True) if self.ended else self.fail("closed early")
        if not self.answered:
            if not data.startswith(b"HTTP/1.1 200") and not data.startswith(b"HTTP/1.0 200"):
                return self.fail("answer {!r}".format(data[:60].split(b"\r\n")[0]))
            self.answered = True
        self.look(data)

    def look(self, data: bytes) -> None:
        form = self.load.form
        both = self.tail + data
        if self.load.options["chain"] and not self.first:
            found_id = ID.search(both)
            self.load.last = found_id[1].decode() if found_id else self.load.last
        cut = len(form.delta) - 1
        found = both.count(form.delta, max(0, len(self.tail) - cut))
        if found:
            if not self.first:
                self.first = True
                self.load.first.append((time.monotonic() - self.began) * 1000)
            self.deltas += found
            self.load.deltas += found
        if not self.ended:
            self.ended = form.end in both
            if any(mark in both for mark in FAILED):
                return self.fail("failed turn")
        self.tail = both[-LONGEST:]
        if self.ended and (not form.framed or both.endswith(b"0\r\n\r\n")):
            self.finish()

    def finish(self, gone: bool = False) -> None:
        load = self.load
        if not self.first:
            load.first.append((time.monotonic() - self.began) * 1000)
        if load.options["expect"] >= 0 and self.deltas != load.options["expect"]:
            load.errors["%d deltas, not %d" % (self.deltas, load.options["expect"])] += 1
        load.turns += 1
        if gone:
            self.close()
        self.again()

    def fail(self, why: str) -> None:
        self.load.errors[why] += 1
        self.close()
        self.again()

    def again(self) -> None:
        if self.load.goes_on() and sum(self.load.errors.values()) < 100:
            try:
                return self.start()
            except OSError as error:
                self.load.errors[type(error).__name__] += 1
        self.load.running -= 1
        self.close()


class Load:
    def __init__(self, options: Json) -> None:
        self.options: Json = {
            "path": "/v1/responses",
            "form": "sse",
            "workers": 1,
            "seconds": 0.0,
            "spread": 0.0,
            "expect": -1,
            "hold": False,
            "pad": 0,
            "body": "plain",
            "chain": 0,
            "previous": "",
            **options,
        }
        self.form = FORMS[self.options["form"]]
        self.selector = selectors.DefaultSelector()
        self.last: str = self.options["previous"]
        self.request = self.make_request()
        self.turns = self.deltas = 0
        self.running = self.options["workers"]
        self.first: List[float] = []
        self.errors: Counter[str] = collections.Counter()
        self.until = 0.0

    def make_request(self) -> bytes:
        options, form = self.options, self.options["form"]
        said = "hello" + "x" * options["pad"]
        body: Json = {"model": options["model"]}
        if form == "chat":
            body["messages"] = [{"role": "user", "content": said}]
        else:
            body.update(BODIES[options["body"]](said))
        if options["chain"]:
            body.update({"store": True, "previous_response_id": self.last or None})
        if form == "ws":
            return masked(json.dumps({"type": "response.create", **body}).encode())
        payload = json.dumps({**body, "stream": form != "json"}).encode()
        return (
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: "
            b"%d\r\n\r\n%b" % (options["path"].encode(), options["port"], len(payload), payload)
        )

    def goes_on(self) -> bool:
        """Is another turn to begin, now that one has ended?"""
        if not self.options["chain"]:
            return time.monotonic() < self.until
        self.request = self.make_request()
        return self.turns < self.options["chain"]

    def run(self) -> Json:
        began = time.monotonic()
        self.until = began + self.options["seconds"]
        waiting = [Worker(self) for _ in range(self.options["workers"])]
        gap = self.options["spread"] / len(waiting)
        due, last, told = began, began, False
        if self.options["hold"]:
            self.selector.register(sys.stdin, selectors.EVENT_READ)
        while self.running:
            while waiting and time.monotonic() >= due:
                try:
                    waiting.pop().start()
                except OSError as error:
                    self.errors[type(error).__name__] += 1
                    self.running -= 1
                due += gap
            events = self.selector.select(max(0.0, due - time.monotonic()) if waiting else 1.0)
            for key, _ in events:
                if key.data is None:
                    return self.result(began)
                key.data.read()
            now = time.monotonic()
            last = now if events else last
            if self.options["hold"] and not told and len(self.first) >= self.options["workers"]:
                told = True
                print("ready", flush=True)
            if now - last > STALLED and not told:
                self.errors["stalled"] += self.running
                break
        return self.result(began)

    def result(self, began: float) -> Json:
        return {
            "turns": self.turns,
            "deltas": self.deltas,
            "seconds": time.monotonic() - began,
            "first": sorted(self.first),
            "errors": self.errors,
            "last": self.last,
        }


if __name__ == "__main__":
    print(json.dumps(Load(json.loads(sys.argv[1])).run()), flush=True)
