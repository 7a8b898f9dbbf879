"""``rproxy reload``: make a running server read its configuration again."""

from __future__ import annotations

import argparse
import os
import signal
from contextlib import suppress
from typing import List

from ..errors import ConfigError, RproxyError
from ..server.pid_file import RunningServer, running_servers
from .command import Command, Environ, complain, read_config
from .exit_status import OK, USAGE


def run(args: argparse.Namespace, environ: Environ) -> int:
    if not hasattr(signal, "SIGHUP"):
        raise RproxyError("this system has no SIGHUP; restart the server instead")
    pid = args.pid
    if pid is None:
        servers = find_servers(args, environ)
        if len(servers) > 1:
            complain("several are running; choose one with --pid:")
            for server in servers:
                print(f"{server.pid}  {server.path}")
            return USAGE
        pid = servers[0].pid
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise RproxyError(f"cannot signal process {pid}: {error.strerror}") from None
    print(f"process {pid} reads its configuration again; its log says what has changed")
    return OK


def find_servers(args: argparse.Namespace, environ: Environ) -> List[RunningServer]:
    """The running servers that have a pid file where one is expected.

    :raises RproxyError: there is none
    """
    configured = None
    with suppress(ConfigError):  # a bad file is not a problem here: the server's log says what is wrong
        configured = read_config(args, environ, local=()).config.server.pid_file
    servers = running_servers(configured, environ)
    if not servers:
        raise RproxyError("no running rproxy has a pid file here; name the process with --pid")
    return servers


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pid", type=int, metavar="N", help="the process; default: found by its pid file")


COMMAND = Command("make a running server read its configuration again", "rproxy reload", run, add_options)
