"""The command ``rproxy``: the table of its sub-commands, and how their errors become exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Mapping, Optional, Sequence

from ..errors import ConfigError
from . import check, codex, completion, convert, init, key, models, profiles, reload, replay, serve, usage
from .ask.command import COMMAND as ASK
from .command import Command, Environ, complain, discard_stdout
from .doctor import command as doctor
from .exit_status import ERRORS, OK, USAGE, status_of
from .version import version_text


def show_help(args: argparse.Namespace, environ: Environ) -> int:
    """:raises SystemExit: always, as argparse does"""
    make_parser().parse_args([*([args.topic] if args.topic else []), "--help"])
    return OK


def add_topic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="the command; without it, all commands")


COMMANDS: Mapping[str, Command] = {
    "serve": serve.COMMAND,
    "codex": codex.COMMAND,
    "ask": ASK,
    "init": init.COMMAND,
    "check": check.COMMAND,
    "doctor": doctor.COMMAND,
    "key": key.COMMAND,
    "models": models.COMMAND,
    "convert": convert.COMMAND,
    "profiles": profiles.COMMAND,
    "usage": usage.COMMAND,
    "reload": reload.COMMAND,
    "replay": replay.COMMAND,
    "completion": completion.COMMAND,
    "help": Command("show how a command is used", "rproxy help serve", show_help, add_topic),
}


class ShowVersion(argparse.Action):
    """``--version``; unlike argparse's own, it finds out what there is to say only when it is asked."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        print(version_text())
        parser.exit(OK)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; every help text ends with an example."""
    raw: Any = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="rproxy",
        description="The OpenAI Responses API in front of any Chat Completions provider.",
        epilog="example: rproxy serve --demo",
        formatter_class=raw,
    )
    parser.add_argument(
        "-V", "--version", action=ShowVersion, nargs=0, help="show the versions of rproxy and what it runs on"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.about,
            description=f"{command.about[0].upper()}{command.about[1:]}.",
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
    :returns: the exit status, see :mod:`rproxy.cli.exit_status`
    :raises SystemExit: for wrong usage, as argparse does
    """
    try:
        try:
            return _run(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # whoever read stdout has enough, as head -1 has
        discard_stdout()
        return OK
    except OSError as error:  # such as a full disk
        discard_stdout()
        complain(error)
        return status_of(error)


def _run(argv: Optional[Sequence[str]]) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        parser.exit(USAGE)
    try:
        status: int = args.run(args, os.environ)
        return status
    except BrokenPipeError:
        raise
    except ERRORS as error:
        if not isinstance(error, KeyboardInterrupt):
            for one in error.each if isinstance(error, ConfigError) else (error,):
                complain(one)
        return status_of(error)
