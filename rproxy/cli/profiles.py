"""``rproxy profiles``: how each kind of provider behaves, as YAML that can be copied into a configuration."""

from __future__ import annotations

import argparse

from ..config.provider_schema import WIRES
from ..config.yaml_positions import dump
from ..providers.profiles import profile_dict, profile_lines
from .command import Command, Environ
from .exit_status import OK


def run(args: argparse.Namespace, environ: Environ) -> int:
    if args.name is None:
        print("\n".join(profile_lines()))
        return OK
    data = profile_dict(args.name, args.model, args.wire)
    model = f" for the model {args.model}" if args.model else ""
    print(f"# The profile {args.name}{model}. Copy what is different under a provider or a model.")
    print(dump({"override": data}), end="")
    return OK


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="show this profile as YAML; without it, list all profiles"
    )
    parser.add_argument("model", nargs="?", default="", metavar="MODEL", help="... for this downstream model")
    parser.add_argument("--wire", choices=WIRES, default="chat", help="... with this wire; default: chat")


COMMAND = Command(
    "list the profiles of providers, or show one",
    "rproxy profiles deepseek deepseek-v4-pro",
    run,
    add_options,
)
