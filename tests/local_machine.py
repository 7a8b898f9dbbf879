"""Stubs of model servers on their usual ports, in a network of their own, so that the machine that runs the
tests does not count: ``python tests/local_machine.py PORT,PORT -- COMMAND...``.

A stub answers ``GET /v1/models`` with what ``$STUB_MODELS`` says (JSON), and a chat request with one word.
:func:`on_machine` runs a command there; :func:`needs_network` is the reason why that is not possible, or "".
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Sequence

CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


class Stub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self.send_error(404)
            return
        self.put(os.environ.get("STUB_MODELS", "{}").encode(), "application/json")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = f"I am {body['model']} on {self.server.server_address[1]}"
        choice: Dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        if body.get("stream"):
            lines = [json.dumps({**CHUNK, "choices": [one]}) for one in (choice, last)]
            self.put(
                "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode(), "text/event-stream"
            )
        else:
            message = {"role": "assistant", "content": text}
            whole = {**CHUNK, "object": "chat.completion", "choices": [{**last, "message": message}]}
            self.put(json.dumps(whole).encode(), "application/json")

    def put(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def models(*names: str, **more: Any) -> str:
    """A list of models, as JSON."""
    return json.dumps({"object": "list", "data": [{"id": name, "object": "model", **more} for name in names]})


@functools.cache
def needs_network() -> str:
    """Why there cannot be a network of its own; "" if there can."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "unshare and ip are not installed"
    done = subprocess.run(
        ["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False
    )
    return "" if done.returncode == 0 else "this user may not make a network"


def on_machine(
    ports: Sequence[int], argv: Sequence[str], environ: Dict[str, str], **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command where stubs answer on ``ports`` and nothing else does."""
    inside = [sys.executable, __file__, ",".join(map(str, ports)), "--", *argv]
    return subprocess.run(
        ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *inside],
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        **options,
    )


def main() -> int:
    split = sys.argv.index("--")
    for port in filter(None, ",".join(sys.argv[1:split]).split(",")):
        server = ThreadingHTTPServer(("127.0.0.1", int(port)), Stub)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    return subprocess.run(sys.argv[split + 1 :], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
