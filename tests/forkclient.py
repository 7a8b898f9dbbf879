"""The program that stands in for ``python -m rproxy`` in tests, see :mod:`forkserver`.  Its first argument is
the socket of the server, the others are rproxy's.

It hands over what a process is made of, passes signals on, and ends as rproxy ended.  It is started hundreds
of times, and importing ``socket`` and ``signal`` would double what it costs.
"""

from __future__ import annotations

import _signal
import _socket
import marshal
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, List, Optional, Tuple

NOT_PASSED_ON = {_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD}


def open_files() -> List[int]:
    """The descriptors that the process was started with."""
    found = []
    for name in os.listdir("/dev/fd"):
        try:
            os.fstat(int(name))
        except OSError:  # the one that listed the folder
            continue
        found.append(int(name))
    return sorted(found)


def text_form(stream: Any) -> Optional[Tuple[Any, ...]]:
    """How a standard stream encodes and buffers; None for one that is closed."""
    return stream and (stream.encoding, stream.errors, stream.line_buffering, stream.write_through)


def main() -> int:
    files = open_files()
    passed_on = [n for n in range(1, _signal.NSIG) if n in _signal.valid_signals() - NOT_PASSED_ON]
    ignored = [n for n in passed_on if _signal.getsignal(n) == _signal.SIG_IGN and n != _signal.SIGPIPE]
    umask = os.umask(0)
    process = marshal.dumps(
        {
            "argv": sys.argv[2:],
            "environ": dict(os.environ),
            "cwd": os.getcwd(),
            "umask": umask,
            "streams": [text_form(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)],
            "file names": sys.getfilesystemencoding(),
            "ignored": ignored,
            "files": files,
        }
    )
    _signal.pthread_sigmask(_signal.SIG_BLOCK, passed_on)  # until there is somebody to pass them to
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    server.connect(sys.argv[1])
    numbers = b"".join(n.to_bytes(4, sys.byteorder) for n in files)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)] if files else []
    server.sendmsg([len(process).to_bytes(4, "big")], rights)
    server.sendall(process)
    child = int.from_bytes(server.recv(4), "big")
    if not child:  # it needs an interpreter of its own
        os.umask(umask)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, passed_on)
        os.execv(sys.executable, [sys.executable, "-m", "rproxy", *sys.argv[2:]])
    for number in files:  # they are rproxy's now: who waits for the end of one waits for rproxy alone
        os.close(number)

    def pass_on(number: int, frame: object) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:  # its status is under way
            pass

    for number in passed_on:
        if number not in ignored:
            _signal.signal(number, pass_on)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, passed_on)
    status = int.from_bytes(server.recv(4), "big", signed=True)
    if status < 0:
        if -status not in NOT_PASSED_ON:
            _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


os._exit(main())
