"""The command ``rproxy``: the table of its sub-commands, and how their errors become exit statuses."""

from __future__ import annotations

import argparse
import os
from typing import Any, Mapping, Optional, Sequence

from .. import __version__
from ..errors import ConfigError, RproxyError
from . import check, codex, profiles, serve, usage
from .command import BAD_CONFIG, FAILED, INTERRUPTED, Command, complain

COMMANDS: Mapping[str, Command] = {
    "serve": serve.COMMAND,
    "codex": codex.COMMAND,
    "check": check.COMMAND,
    "profiles": profiles.COMMAND,
    "usage": usage.COMMAND,
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; every help text ends with an example."""
    raw: Any = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="rproxy",
        description="The OpenAI Responses API in front of any Chat Completions provider.",
        epilog="example: rproxy serve --demo",
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"rproxy {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.about,
            description=command.about.capitalize() + ".",
            epilog="example: " + command.example,
            formatter_class=raw,
        )
        sub.add_argument(
            "-c",
            "--config",
            metavar="FILE",
            help="the configuration; default: $RPROXY_CONFIG, ~/.config/rproxy/config.yaml, "
            "/etc/rproxy/config.yaml, otherwise the keys in the environment",
        )
        if command.add_options is not None:
            command.add_options(sub)
        sub.set_defaults(run=command.run)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command.

    :param argv: its arguments; those of the process if None
    :returns: the exit status, see :mod:`rproxy.cli.command`
    :raises SystemExit: for wrong usage, as argparse does
    """
    args = make_parser().parse_args(argv)
    try:
        status: int = args.run(args, os.environ)
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except (RproxyError, OSError) as error:
        complain(error)
        return BAD_CONFIG if isinstance(error, ConfigError) else FAILED
