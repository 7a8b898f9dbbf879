"""``scripts/stalls``: attack a proxy, and measure how long others wait.

Prints a line for each attack: the longest time that a request for ``/health`` took meanwhile and the 99th
percentile, in milliseconds; the 99th percentile of the CPU time that the proxy used during such a request,
for whatever it was, in milliseconds; the longest step of the event loop and the longest time that one thread
held the interpreter, in milliseconds of CPU time (:mod:`watched`); what the attack got; how long it took; and
the most memory of the process in MiB.  Other work on the machine changes the first two figures, but not the
CPU times.  The exit status is 1 when a percentile of the time is above the limit.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import attacks
import probe
import provider

ROOT = Path(__file__).resolve().parents[2]
WATCHED = Path(__file__).with_name("watched.py")
TIMEOUT = 120.0  # seconds for one attack
ENOUGH = 2.0  # seconds; a shorter attack is made again, or one wait of hundreds would be the percentile
LONGEST = 20.0  # seconds for very many messages
END = rb'"type":"(?:response\.)?(completed|failed|incomplete|error|steer\.failed)"'
SLOW = 0.002  # seconds that a client waits that reads slowly
SLOW_PIECE = 1 << 15  # bytes that it reads then
HEALING = "{heal_tool_text: true, think_tags: true}"
CONFIG = """
server:
  listen_addr: 127.0.0.1:{port}
  retries: 0
  accept_unsealed: true
store: {store}
models:
  - {{model: "chat.*", provider: {{base_url: "{url}", profile: generic, override: {{modalities: [text]}}}}}}
  - {{model: "heal.*", provider: {{base_url: "{url}", override: {{answer: {healing}}}}}}}
  - {{model: "kimi.*", provider: {{base_url: "{url}", profile: moonshot}}}}
  - {{model: "wire.*", provider: {{base_url: "{url}", wire: responses}}}}
search: {{kind: searxng, url: "{url}"}}
mcp_servers: {{docs: {{url: "{url}/mcp"}}}}
"""


class Outcome(NamedTuple):
    """``steps``: see :mod:`watched`.  ``peak``: in MiB."""

    stalls: probe.Stalls
    steps: Dict[str, Any]
    answer: str
    seconds: float
    peak: int


class Proxy(NamedTuple):
    """A running rproxy; ``watch`` is the file in which it reports its steps, ``health`` asks it."""

    pid: int
    port: int
    watch: Path
    health: probe.Probe

    def conversation(self) -> str:
        """A new conversation.

        :returns: its id
        """
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/conversations", b"{}", method="POST")
        ) as answer:
            return str(json.load(answer)["id"])

    def steps(self) -> Dict[str, Any]:
        """What there was since the last time."""
        self.watch.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        for _ in range(2000):
            if self.watch.exists():
                found: Dict[str, Any] = json.loads(self.watch.read_text())
                return found
            time.sleep(0.005)
        raise SystemExit("rproxy does not report its steps")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def proxy(url: str, store: str) -> Iterator[Proxy]:
    """A running rproxy.

    :param url: of the provider
    :param store: the kind of its store
    """
    port = free_port()
    with contextlib.ExitStack() as until_the_end:
        folder = until_the_end.enter_context(tempfile.TemporaryDirectory())
        path = Path(folder, "config.yaml")
        kept = STORES[store](until_the_end, folder)
        path.write_text(CONFIG.format(port=port, url=url, healing=HEALING, store=kept))
        argv = [sys.executable, str(WATCHED), "serve", "--config", str(path)]
        watch = Path(folder, "steps")
        environ = {
            **os.environ,
            "XDG_STATE_HOME": folder,
            "STALLS_WATCH": str(watch),
            "PYTHONPATH": str(ROOT),
            "RPROXY_PURE": "1",  # uvloop's steps cannot be watched
        }
        with Path(folder, "log").open("w+") as log:
            process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env=environ)
            try:
                _wait(process, port, Path(folder, "log"))
                health = probe.Probe(port, process.pid)
                until_the_end.callback(health.stop)
                yield Proxy(process.pid, port, watch, health)
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
                log.seek(0)
                for line in re.findall(r"(?m)^.*(?:Traceback|Error\b).*$", log.read())[:20]:
                    print(line)


def _redis(until_the_end: contextlib.ExitStack, folder: str) -> str:
    port = free_port()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(argv, cwd=folder, stdout=subprocess.DEVNULL)
    until_the_end.callback(process.wait)
    until_the_end.callback(process.kill)
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return f"{{kind: redis, url: 'redis://127.0.0.1:{port}/0'}}"
        time.sleep(0.05)
    raise SystemExit("redis-server does not start")


# Kind of store -> what the configuration says of it.
STORES: Dict[str, Callable[[contextlib.ExitStack, str], str]] = {
    "memory": lambda until_the_end, folder: "{kind: memory}",
    "sqlite": lambda until_the_end, folder: f"{{kind: sqlite, path: '{folder}/store.db'}}",
    "redis": _redis,
}


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(400):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None:
            raise SystemExit("rproxy did not start: " + log.read_text())
        time.sleep(0.05)
    raise SystemExit("rproxy does not listen")


def prepared(attack: attacks.Attack, running: Proxy) -> tuple[attacks.Attack, bytes]:
    """An attack and its body, with the ids of what there is to attack."""
    body, names = attack.body(), {}
    if attack.before is not None:
        fields = {"model": "chat.hi", "input": attack.before()}
        if not attack.alone:
            names["CONVERSATION"] = fields["conversation"] = running.conversation()
        with socket.create_connection(("127.0.0.1", running.port), timeout=TIMEOUT) as client:
            first = attacks.Attack(attacks.CREATE, attack.body)
            names["RESPONSE"] = _request(client, first, json.dumps(fields).encode())[1]
        names["STEM"] = names["RESPONSE"][5:]
    for name, value in names.items():
        attack = attack._replace(path=attack.path.replace(name, value))
        body = body.replace(name.encode(), value.encode())
    return attack, body


def run(attack: attacks.Attack, running: Proxy) -> Outcome:
    attack, body = prepared(attack, running)
    Path(f"/proc/{running.pid}/clear_refs").write_text("5")  # the peak is that of this attack
    running.health.stalls()
    running.steps()
    started, times = time.monotonic(), 0
    while time.monotonic() - started < ENOUGH:
        path = attack.path
        if "CONVERSATION" in path:
            path = path.replace("CONVERSATION", running.conversation())
        try:
            answer = _attacked(running.port, attack._replace(path=path), body)
        except OSError as error:
            answer = str(error)
        times += 1
    seconds = (time.monotonic() - started) / times
    status = Path(f"/proc/{running.pid}/status").read_text()
    peak = int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) >> 10
    return Outcome(running.health.stalls(), running.steps(), answer, seconds, peak)


def _attacked(port: int, attack: attacks.Attack, body: bytes) -> str:
    """:returns: what came of it, and, if the attack wants that, of two requests for the stored response"""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
        if attack.ws:
            return _message(client, attack, body)
        answer, response_id = _request(client, attack, body)
    for query in ("", "?stream=true") if attack.again and response_id else ():
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
            again = attack._replace(method="GET", path=f"{attacks.CREATE}/{response_id}{query}")
            answer += f", {_request(client, again, b'')[0]}"
    return answer


def _read(client: socket.socket, attack: attacks.Attack) -> bytes:
    if attack.slow:
        time.sleep(SLOW)
    return client.recv(SLOW_PIECE if attack.slow else 1 << 20)


def _request(client: socket.socket, attack: attacks.Attack, body: bytes) -> tuple[str, str]:
    """:returns: the status and the beginning of the body, or the type of the last event; the response's id"""
    head = f"{attack.method} {attack.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    head += f"Content-Type: application/json\r\n{attack.headers}Content-Length: {len(body)}\r\n"
    if attack.times > 1:
        asked = f"{head}\r\n".encode() + body
        return _many(client, asked, attack.times, rb"HTTP/1.1 (...)"), ""
    client.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
    first = last = b""
    ends: List[bytes] = []
    while True:
        piece = _read(client, attack)
        if not piece:
            break
        ends += re.findall(rb"event: response\.(completed|failed|incomplete)", last[-100:] + piece)
        first, last = (first or piece)[:4000], (last + piece)[-4000:]
    status, found = first[9:12].decode(), re.search(rb'"id":"(resp_[^"]*)"', first)
    response_id = found[1].decode() if found is not None else ""
    ends = ends or re.findall(rb'"status":"(completed|failed|incomplete)"', first + last)
    if ends:
        return f"{status} {ends[-1].decode()}", response_id
    said = re.findall(rb'"message":"([^"]{0,60})', last)
    return f"{status} {said[0].decode(errors='replace') if said else ''}", response_id


def _many(client: socket.socket, data: bytes, times: int, end: bytes) -> str:
    """Send the same many times at once, and read as much as there are answers, or until it takes too long.

    :param end: matches once in each answer, with a word that tells its kind
    :returns: how many there were of each kind
    """
    sender = threading.Thread(target=_send, args=(client, data * times), daemon=True)
    sender.start()
    found: Counter[str] = Counter()
    rest, until = b"", time.monotonic() + LONGEST
    while found.total() < times and time.monotonic() < until:
        piece = client.recv(1 << 20)
        if not piece:
            break
        text, last = rest + piece, 0
        for match in re.finditer(end, text):
            found[match[1].decode()] += 1
            last = match.end()
        rest = text[max(last, len(text) - 100) :]
    return " ".join(f"{count} {kind}" for kind, count in found.items())


def _send(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # it is closed when there is enough
        client.sendall(data)


def _message(client: socket.socket, attack: attacks.Attack, body: bytes) -> str:
    """Send one WebSocket message.

    :returns: the type of the event that ended it
    """
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {attack.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    client.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    client.recv(65536)
    message = struct.pack("!BBQL", 0x81, 0xFF, len(body), 0) + body  # masked with zeros
    if attack.times > 1:
        return _many(client, message, attack.times, END)
    client.sendall(message)
    last = b""
    while True:
        piece = _read(client, attack)
        last = last[-4000:] + piece
        end = re.search(END, last)
        if end is not None or not piece:
            return end[1].decode() if end is not None else "closed"


def show(name: str, outcome: Outcome, where: bool) -> None:
    (worst, p99, cpu, _), steps = outcome.stalls, outcome.steps
    print(
        f"{name:24} {worst:6.0f} {p99:6.0f} {cpu:6.0f} {steps['step']:6.0f} {steps['hold']:6.0f} "
        f"{outcome.seconds:8.1f} {outcome.peak:6}  {outcome.answer}",
        flush=True,
    )
    if where:
        for what in ("where", "held"):
            print("".join(f"    {what}: {line}\n" for line in steps[what][:12]), end="")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/stalls", description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="attacks, how their names begin, or patterns")
    parser.add_argument("--limit", type=float, default=50.0, help="milliseconds (default: %(default)g)")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument(
        "--everywhere",
        action="store_true",
        help="also those with a / in their names, each shape of a value in each place; these are many",
    )
    parser.add_argument("--where", action="store_true", help="print what the longest steps did")
    options = parser.parse_args()
    chosen = {
        name: attack
        for name, attack in attacks.attacks(options.everywhere or bool(options.names)).items()
        if not options.names
        or name.startswith(tuple(options.names))
        or any(fnmatch(name, pattern) for pattern in options.names)
    }
    if options.list:
        print("\n".join(chosen))
        return 0
    process, port = provider.start()
    over = []
    print(
        f"{'attack':24} {'worst':>6} {'p99':>6} {'cpu':>6} {'step':>6} {'hold':>6} "
        f"{'seconds':>8} {'MiB':>6}  answer"
    )
    for store in STORES:
        mine = {name: attack for name, attack in chosen.items() if attack.store == store}
        if not mine:
            continue
        with proxy(f"http://127.0.0.1:{port}/v1", store) as running:
            for name, attack in mine.items():
                outcome = run(attack, running)
                show(name, outcome, options.where)
                over += [name] if outcome.stalls.p99 > options.limit else []
    process.terminate()
    print(
        f"{len(over)} of {len(chosen)} attacks keep others waiting: {' '.join(over)}"
        if over
        else "none is over the limit"
    )
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())
