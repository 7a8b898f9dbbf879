"""``rproxy reload``: have a running server read its configuration again."""

from __future__ import annotations

import argparse
import os
import signal
from contextlib import suppress

from ..errors import ConfigError
from ..server.pid_file import running_servers
from .command import Command, Environ, complain, read_config
from .exit_status import FAILED, OK, USAGE


def run(args: argparse.Namespace, environ: Environ) -> int:
    if not hasattr(signal, "SIGHUP"):
        complain("this system has no SIGHUP; restart the server instead")
        return FAILED
    pid = args.pid
    if pid is None:
        configured = None
        with suppress(ConfigError):  # a bad file is the server's business: its log says what is wrong
            configured = read_config(args, environ, local=()).config.server.pid_file
        servers = running_servers(configured, environ)
        if not servers:
            complain("no running rproxy has a pid file here; name the process with --pid")
            return FAILED
        if len(servers) > 1:
            complain("several are running; choose one with --pid:")
            for server in servers:
                print(f"{server.pid}  {server.path}")
            return USAGE
        pid = servers[0].pid
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        complain(f"cannot signal process {pid}: {error.strerror}")
        return FAILED
    print(f"process {pid} reads its configuration again; its log says what has changed")
    return OK


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pid", type=int, metavar="N", help="the process; default: found by its pid file")


COMMAND = Command("have a running server read its configuration again", "rproxy reload", run, add_options)
