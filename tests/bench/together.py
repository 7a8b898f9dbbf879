"""Servers that belong together: ``python together.py '[["redis-server", "--port", "1"], 1]' ...``.

Each argument is a command and the port that it opens.  They are started in that order, each when the port of
the one before is open, and all end with this process.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from typing import List


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(commands: List[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    started: List[subprocess.Popen[bytes]] = []
    try:
        for argv, port in map(json.loads, commands):
            started.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL))
            while not is_open(port):
                if started[-1].poll() is not None:
                    return 1
                time.sleep(0.01)
        return started[-1].wait()
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
