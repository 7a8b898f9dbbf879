"""``rproxy`` as a process, without the half second that a new interpreter needs to import it.

:func:`rproxy_command` gives the command.  It starts a small program (``forkclient``), which hands its
arguments, environment, folder and descriptors over to a server; the server has imported rproxy and forks a
child that becomes the process.  Exit status, output and signals are the child's.  Process ids, ``kill -9``,
process groups, limits and networks are not: tests that look at those start :data:`REAL`, and so do the tests
of the start itself.  What changes how an interpreter starts, such as ``PYTHONDEVMODE``, is seen by the
server, and the program starts a real one.

``$RPROXY_REAL_PROCESSES`` makes all of them real.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import io
import marshal
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

ROOT = Path(__file__).resolve().parent.parent
CLIENT = Path(__file__).with_name("forkclient.py")
REAL = (sys.executable, "-m", "rproxy")
# what the commands import when they need it
LATER = ("uvloop", "orjson", "cryptography.hazmat.primitives.ciphers.aead", "encodings.idna", "sqlite3")
ANY_VALUE = {
    "PYTHONPATH",  # looked at below
    *("PYTHONUNBUFFERED", "PYTHONIOENCODING"),  # the streams say what these did
    *(
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
    ),  # whoever runs the tests may have them; no command shows it
}
HIGH = 512  # above the descriptors of every process here


# ---- For tests
def rproxy_command(*argv: str) -> List[str]:
    """``rproxy`` with these arguments."""
    return [*_command(), *argv]


@functools.cache
def _command() -> List[str]:
    if os.environ.get("RPROXY_REAL_PROCESSES") or not hasattr(os, "fork"):
        return list(REAL)
    folder = tempfile.mkdtemp(prefix="rproxy-fork-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    place = os.path.join(folder, "socket")
    command = [sys.executable, __file__, place]
    server = subprocess.Popen(command, cwd=str(ROOT), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None and server.stdout is not None
    assert server.stdout.read(1) == b"."  # it listens
    server.stdout.close()

    def stop() -> None:
        server.stdin.close()  # type: ignore[union-attr]
        server.wait()

    atexit.register(stop)
    return [sys.executable, "-S", str(CLIENT), place]


# ---- The server
class Server:
    """Forks a child for each client, and tells the client how it ended."""

    def __init__(self, place: str) -> None:
        self.environ = interpreter(os.environ)
        self.clients: Dict[int, socket.socket] = {}  # by the child's process id
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(place)
        self.listener.listen(100)
        self.woken, wakes = socket.socketpair()
        for one in (self.woken, wakes):
            one.setblocking(False)
        self.wakes = wakes
        self.selector = selectors.DefaultSelector()
        for source in (self.listener, self.woken, sys.stdin):
            self.selector.register(source, selectors.EVENT_READ)

    def serve(self) -> Optional[Dict[str, Any]]:
        """Fork until the test process ends.

        :returns: in a child, what it shall become; None at the end
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wakes.fileno())
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    for child in self.clients:
                        os.kill(child, signal.SIGKILL)
                    return None
                if key.fileobj is self.listener:
                    process = self.accept()
                    if process is not None:
                        return process
                elif key.fileobj is not self.woken:  # a client is gone: kill -9
                    for child, client in self.clients.items():
                        if client is key.fileobj:
                            self.selector.unregister(client)
                            os.kill(child, signal.SIGKILL)
            self.reap()

    def accept(self) -> Optional[Dict[str, Any]]:
        """:returns: in the child, what it shall become"""
        client, _ = self.listener.accept()
        head, files, _, _ = socket.recv_fds(client, 4, 250)
        with client.makefile("rb") as reader:
            process: Dict[str, Any] = marshal.loads(reader.read(int.from_bytes(head, "big")))
        needs = interpreter(process["environ"])
        alike = needs == self.environ and process["file names"] == sys.getfilesystemencoding()
        child = os.fork() if alike else -1
        if child == 0:
            self.close()
            client.close()
            place_files(files, process["files"])
            return process
        for number in files:
            os.close(number)
        client.sendall(max(child, 0).to_bytes(4, "big"))
        if child > 0:
            self.clients[child] = client
            self.selector.register(client, selectors.EVENT_READ)
        else:
            client.close()
        return None

    def reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.woken.recv(4096)
        while self.clients:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            client = self.clients.pop(child)
            with contextlib.suppress(KeyError):
                self.selector.unregister(client)
            with contextlib.suppress(OSError):
                client.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
            client.close()

    def close(self) -> None:
        """In a child: nothing of the server is left."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.selector.close()
        for one in (self.listener, self.woken, self.wakes, *self.clients.values()):
            one.close()


def interpreter(environ: Any) -> Dict[str, str]:
    """The variables that an interpreter, or the import of rproxy, depends on."""
    found = {k: v for k, v in environ.items() if k.startswith("PYTHON") and k not in ANY_VALUE}
    found["RPROXY_PURE"] = environ.get("RPROXY_PURE", "")
    for name, usual in (("PYTHONPATH", str(ROOT)), ("LISTEN_FDS", "")):
        if environ.get(name, usual) != usual:
            found[name] = environ[name]
    return found


# ---- What a child becomes
def place_files(files: List[int], numbers: List[int]) -> None:
    """Leave exactly these descriptors open, under the numbers that they had."""
    high = [fcntl.fcntl(number, fcntl.F_DUPFD, HIGH) for number in files]
    os.closerange(0, HIGH)
    for number, wanted in zip(high, numbers):
        os.dup2(number, wanted)
    os.closerange(HIGH, HIGH + 250)


def become(process: Dict[str, Any]) -> None:
    """Take over everything else that makes a process."""
    os.chdir(process["cwd"])
    os.umask(process["umask"])
    os.environ.clear()
    os.environ.update(process["environ"])
    time.tzset()
    for number in (signal.SIGINT, *process["ignored"]):
        usual = signal.default_int_handler
        signal.signal(number, signal.SIG_IGN if number in process["ignored"] else usual)
    sys.argv = [str(ROOT / "rproxy" / "__main__.py"), *process["argv"]]
    sys.path[0] = process["cwd"]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = opened(number, process["streams"][number])
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def opened(number: int, form: Any) -> Any:
    """A standard stream as an interpreter opens it."""
    if form is None:
        return None
    encoding, errors, line_buffering, unbuffered = form
    mode = "rb" if number == 0 else "wb"
    buffering = 0 if unbuffered and number else -1
    raw: Any = open(number, mode, buffering=buffering, closefd=False)  # noqa: SIM115 -- it stays open
    return io.TextIOWrapper(
        raw, encoding, errors, newline="\n", line_buffering=line_buffering, write_through=unbuffered
    )


def end(status: object) -> None:
    """End as an interpreter does, but for the freeing of its objects, half of what a small command costs.

    Returns if that needs a real end: something is to be printed, or a stream cannot be written.
    """
    if not isinstance(status, (int, type(None))):
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit((status or 0) & 255)


if __name__ == "__main__":
    from rproxy.cli.main import main, make_parser

    make_parser()
    for module in LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    made = Server(sys.argv[1])
    os.write(1, b".")
    gc.freeze()
    wanted = made.serve()
    if wanted is None:
        sys.exit()
    del made
    become(wanted)
    try:
        sys.exit(main())
    except SystemExit as ended:
        end(ended.code)
        raise
