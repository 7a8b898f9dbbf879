"""``rproxy check``: is the configuration right, and where do its models lead?"""

from __future__ import annotations

import argparse

from .command import NO_FILE, Command, Environ, address_lines, model_lines, read_config, warn
from .exit_status import OK

EXPOSED = "server.listen_addr: open to other machines without auth; serve refuses that unless --insecure"


def run(args: argparse.Namespace, environ: Environ) -> int:
    config, note = read_config(args, environ)
    print(f"{config.path or NO_FILE}: good")
    addresses = address_lines(config.server.listen_addr, config.server.auth.enabled)
    print("\n".join([*addresses, *model_lines(config)]))
    warn([*config.warnings, *([EXPOSED] if config.server.is_open else []), *([note] if note else [])])
    return OK


COMMAND = Command("check a configuration and show its models", "rproxy check --config config.yaml", run)
