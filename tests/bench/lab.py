"""Processes under measurement: start them, read their processor time and memory from /proc, stop them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

HERE = Path(__file__).resolve().parent
Json = Dict[str, Any]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Process:
    """A server. ``started``: seconds from its start until the port could be connected to."""

    def __init__(
        self,
        argv: List[str],
        port: int,
        log: Path,
        env: Optional[Mapping[str, str]] = None,
        patience: float = 60.0,
    ) -> None:
        self.port = port
        self.log = log
        self.argv = argv
        self.env = {**os.environ, **(env or {})}
        self.patience = patience
        self.start()

    def start(self) -> None:
        begin = time.monotonic()
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.argv, stdout=subprocess.DEVNULL, stderr=out, cwd=self.log.parent, env=self.env
            )
        while not self.answers():
            if self.popen.poll() is not None or time.monotonic() - begin > self.patience:
                tail = self.log.read_text(errors="replace")[-1000:]
                self.stop()
                raise RuntimeError(f"{Path(self.argv[0]).name} does not start: {tail}")
            time.sleep(0.003)
        self.started = time.monotonic() - begin

    def answers(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def tree(self) -> List[int]:
        """This process and its descendants."""
        pids = [self.popen.pid]
        for pid in pids:
            for file in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += map(int, file.read_text().split())
        return pids

    def cpu(self) -> float:
        """Seconds of processor time so far, user and system."""
        files = (file for pid in self.tree() for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9

    def rss(self) -> float:
        """Resident memory in MB."""
        sizes = (re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in self.tree())
        return sum(int(size[1]) for size in sizes if size) / 1024

    def stop(self) -> None:
        self.popen.terminate()
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Provider(Process):
    """The scripted provider, with or without TLS."""

    def __init__(self, folder: Path, certificate: Optional[Path] = None) -> None:
        port = free_port()
        self.ca = certificate
        self.url = "http%s://127.0.0.1:%d/v1" % ("s" if certificate else "", port)
        super().__init__(
            [
                sys.executable,
                str(HERE / "provider.py"),
                str(port),
                *([str(certificate)] if certificate else []),
            ],
            port,
            folder / "provider.log",
        )

    def stats(self) -> Json:
        context = ssl.create_default_context(cafile=str(self.ca)) if self.ca else None
        with urllib.request.urlopen(self.url.replace("/v1", "/stats"), context=context) as answer:
            stats: Json = json.load(answer)
            return stats


def make_certificate(folder: Path) -> Path:
    """A throw-away certificate and its key in one file."""
    file = folder / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(file),
            "-out",
            str(folder / "only.pem"),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + (folder / "only.pem").read_text())
    return file


def load(options: Json, patience: float = 90.0) -> Json:
    """Run the load client to its end."""
    done = subprocess.run(
        [sys.executable, str(HERE / "client.py"), json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=patience,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    result: Json = json.loads(done.stdout.splitlines()[-1])
    return result


@contextlib.contextmanager
def held(options: Json) -> Iterator[None]:
    """The load client with all its streams open; they are dropped at the end."""
    argv = [sys.executable, str(HERE / "client.py"), json.dumps({**options, "hold": True})]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        assert popen.stdin is not None and popen.stdout is not None
        try:
            line = popen.stdout.readline()
            if line != "ready\n":
                raise RuntimeError(f"the streams did not begin: {line[:300]}")
            yield
        finally:
            popen.stdin.close()
            popen.stdout.read()


def machine() -> str:
    """What the figures depend on; no names of hosts or users."""
    import platform

    import tornado

    cpus = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*: (.*)", cpus)
    return "%s, %d cores, Linux %s, Python %s, Tornado %s" % (
        found[1].strip() if found else platform.machine(),
        os.cpu_count() or 0,
        platform.release().split("-")[0],
        platform.python_version(),
        tornado.version,
    )
