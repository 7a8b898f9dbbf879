"""``rproxy check``: is the configuration right, would a server start, and where do its models lead?"""

from __future__ import annotations

import argparse
import asyncio
import time

from ..errors import ConfigErrors
from . import live, preflight
from .command import Command, Environ, address_lines, model_lines, read_config, warn
from .exit_status import OK

EXPOSED = "server.listen_addr: open to other machines without auth; serve refuses that unless --insecure"


def run(args: argparse.Namespace, environ: Environ) -> int:
    config, source, note, _ = read_config(args, environ)
    errors = asyncio.run(preflight.errors_of(config, environ))
    if errors:
        raise errors[0] if len(errors) == 1 else ConfigErrors(errors)
    print(f"{source}: good")
    addresses = address_lines(config.server.listen_addr, config.server.auth.enabled)
    print("\n".join([*addresses, *model_lines(config)]))
    warn([*config.warnings, *preflight.warnings_of(config, time.time())])
    warn([*([EXPOSED] if config.server.is_open else []), *([note] if note else [])])
    if not args.live:
        return OK
    answers = asyncio.run(live.ask_all(config, environ))
    print("\n".join(["Providers:", *live.lines(answers)]))
    return live.exit_status(answers)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--live", action="store_true", help="also ask every provider for its models, with the key"
    )


COMMAND = Command(
    "check a configuration and show its models", "rproxy check --config config.yaml", run, add_options
)
