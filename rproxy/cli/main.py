"""The command ``rproxy``: the table of its sub-commands, and how their errors become exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Sequence

from ..errors import ConfigError
from .command import Command, Environ, complain, discard_stdout
from .exit_status import ERRORS, MEANINGS, OK, USAGE, status_of


def show_help(args: argparse.Namespace, environ: Environ) -> int:
    """:raises SystemExit: always, as argparse does"""
    make_parser().parse_args([*([args.topic] if args.topic else []), "--help"])
    return OK


def add_topic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="the command; without it, all commands")


# name -> its module, which is loaded when it is used: most commands need no server
MODULES: Mapping[str, str] = {
    "serve": ".serve",
    "codex": ".codex",
    "ask": ".ask.command",
    "init": ".init",
    "check": ".check",
    "doctor": ".doctor.command",
    "key": ".key",
    "models": ".models",
    "convert": ".convert",
    "profiles": ".profiles",
    "usage": ".usage",
    "reload": ".reload",
    "replay": ".replay",
    "completion": ".completion",
    "help": __name__,
}
COMMAND = Command("show how a command is used", "rproxy help serve", show_help, add_topic)  # that is help


class Commands(Dict[str, Command]):
    """The commands by name; each is loaded when it is looked up first."""

    def __missing__(self, name: str) -> Command:
        command: Command = import_module(MODULES[name], __package__).COMMAND
        self[name] = command
        return command

    def __contains__(self, name: object) -> bool:
        return name in MODULES

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


COMMANDS = Commands()


class ShowVersion(argparse.Action):
    """``--version``; unlike argparse's own, it looks for the packages only when it is used."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        from .version import version_text

        print(version_text())
        parser.exit(OK)


def make_parser(names: Iterable[str] = MODULES) -> argparse.ArgumentParser:
    """The parser of the command; every help text ends with an example.

    :param names: the sub-commands that it is for
    """
    raw: Any = argparse.RawDescriptionHelpFormatter
    statuses = "\n".join(f"  {status:<4}{meaning}" for status, meaning in MEANINGS.items())
    parser = argparse.ArgumentParser(
        prog="rproxy",
        description="The OpenAI Responses API in front of any Chat Completions provider.",
        epilog=f"exit status:\n{statuses}\n\nexample: rproxy serve --demo",
        formatter_class=raw,
    )
    parser.add_argument(
        "-V", "--version", action=ShowVersion, nargs=0, help="show the versions of rproxy and what it runs on"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in names:
        command = COMMANDS[name]
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
    except BrokenPipeError:  # the reader of stdout has gone, such as head -1
        discard_stdout()
        return OK
    except OSError as error:  # such as a full disk
        discard_stdout()
        complain(error)
        return status_of(error)


def needed(argv: Sequence[str]) -> Iterable[str]:
    """The commands whose modules these arguments need."""
    first = argv[0] if argv else ""
    return () if first in ("-V", "--version") else [first] if first in MODULES else MODULES


def _run(argv: Optional[Sequence[str]]) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, TextIOWrapper):  # a name that the locale cannot encode is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = make_parser(needed(argv))
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
