"""``rproxy key``: make a key for a client."""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys

from ..config.keys import MAX_NAME
from ..config.yaml_positions import scalar
from .command import Command, Environ
from .exit_status import OK

PREFIX = "sk-rproxy-"  # so that it is masked as a key in every log
SIZE = 32  # bytes


def run(args: argparse.Namespace, environ: Environ) -> int:
    key = PREFIX + secrets.token_urlsafe(SIZE)
    print(f"The key of {args.name}; it is shown only now:", file=sys.stderr, flush=True)
    print(key, flush=True)
    print("The line for server.auth.keys in the configuration:", file=sys.stderr, flush=True)
    print(
        f'- {{name: {scalar(args.name)}, key_sha256: "{hashlib.sha256(key.encode()).hexdigest()}"}}',
        flush=True,
    )
    return OK


def _name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise argparse.ArgumentTypeError(f"a name has 1 to {MAX_NAME} printable characters")
    return name


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=_name, metavar="NAME", help="whose key it is")


COMMAND = Command(
    "make a key for a client, and its line for the configuration", "rproxy key ann", run, add_options
)
