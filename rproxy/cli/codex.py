"""``rproxy codex``: run Codex with rproxy, or write a profile for that."""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import shlex
from typing import Optional, Sequence

from .. import log
from . import codex_run
from .codex_install import find_codex
from .codex_profile import CodexProfile
from .command import KEY_VARIABLE, Command, Environ, demo_config, read_config, warn, with_v1
from .exit_status import OK


def run(args: argparse.Namespace, environ: Environ) -> int:
    profile = CodexProfile.of(args.profile, environ)
    if args.restore:
        print("\n".join(profile.restore()))
        return OK
    codex_args = args.args[1:] if args.args[:1] == ["--"] else args.args
    call = codex_run.Call(codex_args, codex_run.wanted_model(codex_args) or args.model)
    url = f"http://127.0.0.1:{args.port}" if args.port else args.url
    base_url = with_v1(url) if url else None
    if args.print or args.write:
        return show_profile(args, call, profile, base_url, environ)
    if args.demo:
        set_up_log(args)
        call = announced(call, "the demo provider", args)
        return asyncio.run(run_on_demo(args.config, call, environ))
    installed = find_codex(environ)
    if base_url:
        set_up_log(args)
        call = announced(call, f"the server at {base_url}", args)
        return asyncio.run(codex_run.run_on(base_url, installed, call, environ))
    found = read_config(args, environ)
    set_up_log(args, found.config.secrets)
    warn(found.config.warnings)
    call = announced(call, found.source, args)
    if not args.quiet:
        found.say_source(used=False)  # the line at the start names them
    return asyncio.run(codex_run.run_embedded(found.config, installed, call, environ))


def announced(call: codex_run.Call, source: str, args: argparse.Namespace) -> codex_run.Call:
    """The call with the text for the line at the start: where the models are from, and where the log is."""
    if args.quiet:
        return call
    kept = "the server's" if args.url or args.port else "none (--log-file FILE keeps one)"
    return call._replace(about=f"{source}; rproxy's log: {args.log_file or kept}")


async def run_on_demo(path: Optional[str], call: codex_run.Call, environ: Environ) -> int:
    """Codex, rproxy and the demo provider, all in this terminal."""
    from .demo.server import serve_demo  # loaded for the demo only

    with serve_demo() as url:
        config = demo_config(url, path, environ)
        return await codex_run.run_embedded(config, find_codex(environ), call, environ)


def show_profile(
    args: argparse.Namespace,
    call: codex_run.Call,
    profile: CodexProfile,
    base_url: Optional[str],
    environ: Environ,
) -> int:
    """``--print`` and ``--write``: the settings of Codex for a running ``rproxy serve``."""
    if base_url:
        settings, entries = codex_run.fetched_settings(base_url, profile, call, environ)
    else:
        config = read_config(args, environ).config
        settings, entries = codex_run.configured_settings(config, profile, call)
    use = f"{settings.key_prefix}codex --profile {args.profile}"
    if args.print:
        command = settings.key_prefix + shlex.join(["codex", *settings.overrides(), *call.args])
        print(f"# {profile.toml}, for: {use}\n{settings.profile()}")
        print(f"# or without a profile, once --write has written the catalog:\n{command}")
    if args.write:
        catalog = codex_run.catalog_text(find_codex(environ), entries, environ)
        print("\n".join(profile.write(settings.profile(), catalog)))
        print(f"Use it with: rproxy serve, and: {use}")
    return OK


def set_up_log(args: argparse.Namespace, secrets: Sequence[str] = ()) -> None:
    """Send the log to a file or nowhere: the terminal belongs to Codex."""
    if args.log_file:
        stream = open(args.log_file, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 -- until the process ends
        log.setup(args.log_level or "info", stream=stream, secrets=secrets)
    else:
        logging.getLogger().addHandler(logging.NullHandler())


def profile_name(text: str) -> str:
    """A name that ``codex --profile`` accepts."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} may only have letters, digits, - and _")
    return text


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "args",
        nargs=argparse.REMAINDER,
        metavar="ARGS",
        help="arguments for codex: everything from the first word on, or after --",
    )
    parser.add_argument("-m", "--model", metavar="NAME", help="the model; default: the first configured one")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--url",
        help="use an rproxy that is already running, such as http://127.0.0.1:3000; its key: "
        f"${KEY_VARIABLE}",
    )
    where.add_argument("--port", type=int, help="... on this port of this machine")
    where.add_argument(
        "--demo", action="store_true", help="use a built-in scripted provider; needs no key and no file"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--print",
        action="store_true",
        help="show Codex's settings for a running rproxy serve, and start nothing",
    )
    what.add_argument(
        "--write",
        action="store_true",
        help="write these settings as a profile to ~/.codex; a file of that name is kept aside",
    )
    what.add_argument(
        "--restore", action="store_true", help="remove the profile, and put back the file that was kept aside"
    )
    parser.add_argument(
        "--profile",
        type=profile_name,
        default="rproxy",
        metavar="NAME",
        help="the name of the profile; default: rproxy",
    )
    parser.add_argument(
        "--log-file", metavar="FILE", help="the file for rproxy's own log; without it, nothing is logged"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="do not print the line about the model and the log at the start"
    )
    parser.add_argument("--log-level", choices=tuple(log.LEVELS), help="how much is logged")


COMMAND = Command(
    "run Codex on the configured models, in one command",
    'rproxy codex -- exec "list the files"',
    run,
    add_options,
)
