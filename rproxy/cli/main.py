"""The command ``rproxy``: what the arguments mean, and what the exit status says.

Exit status: 0 done, 1 failed, 2 wrong usage, 78 the configuration cannot be used (EX_CONFIG), 130
interrupted.  Each sub-command is a row of ``COMMANDS``; its function gets the parsed arguments and the
environment, and returns the status.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import re
import shlex
import sys
from dataclasses import replace
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .. import __version__, log
from ..config.load import find_config, load_config, parse_config
from ..config.schema import Config
from ..config.yaml_positions import dump
from ..errors import ConfigError, RproxyError
from ..providers.profiles import profile_dict, profile_lines
from ..server.app import serve
from . import codex, codex_profile

OK, FAILED, BAD_CONFIG, INTERRUPTED = 0, 1, 78, 130
LEVELS = ("trace", "debug", "info", "warn", "error")
LEVEL_VARIABLE = "RPROXY_LOG_LEVEL"
Environ = Mapping[str, str]

# What --demo answers for: Codex' own model names, and every other one.
DEMO_CONFIG = """\
models:
  - model: gpt-5.5
    downstream_model: deepseek-v4-pro
    provider: &demo {{name: demo, base_url: "{url}", api_key: {key}, profile: deepseek}}
  - {{model: codex-auto-review, downstream_model: deepseek-v4-flash, provider: *demo}}
  - {{model: "*", provider: *demo}}
"""
BANNER = """\
rproxy {version} on {url}    ({source})
{models}
Codex:  codex exec -c 'openai_base_url="{url}"' "list the files"
        or, to stay, put this line at the top of ~/.codex/config.toml:  openai_base_url = "{url}"
Try:    curl {url}/responses -H 'Content-Type: application/json'{auth} \\
          -d '{{"model": "{model}", "input": "What is 2+2? Reply with just the number."}}'
        curl -N {url}/responses -H 'Content-Type: application/json'{auth} \\
          -d '{{"model": "{model}", "input": "Tell me about yourself.", "stream": true}}'
Stop:   Ctrl-C"""
AUTH_HEADER = " -H 'Authorization: Bearer YOUR_KEY'"


def model_lines(config: Config) -> List[str]:
    """One line for each model: ``name -> downstream model @ provider (profile)``."""
    width = max(len(model.model) for model in config.models)
    lines = []
    for model in config.models:
        resolved = model.resolved(model.model)
        providers = ", ".join(f"{p.name} ({p.profile.name})" for p in resolved.providers)
        downstream = model.downstream_model or "the same name"
        lines.append("  %-*s -> %s @ %s" % (width, model.model, downstream, providers))
    return lines


def banner(config: Config, url: str, source: str) -> str:
    """What is printed when the server listens: a list of things to do. ``url`` is without ``/v1``."""
    model = next((model.model for model in config.models if not model.is_glob), "gpt-5.5")
    return BANNER.format(
        version=__version__,
        url=url + "/v1",
        source=source,
        models="\n".join(model_lines(config)),
        model=model,
        auth=AUTH_HEADER if config.server.auth.enabled else "",
    )


# ---- serve


def demo_config(url: str, path: Optional[str], environ: Environ) -> Config:
    """The configuration of ``--demo``: the models go to the demo provider at ``url``; the rest is that of the
    file ``path``, if named."""
    from .demo.server import (
        KEY,
    )  # here, because most do without it, and it would cost them time at each start

    demo = parse_config(DEMO_CONFIG.format(url=url, key=KEY).encode(), "demo", environ)
    return replace(load_config(path, environ), models=demo.models) if path else replace(demo, path=None)


def read_config(args: argparse.Namespace, environ: Environ) -> Tuple[Config, str]:
    """The configuration that the arguments and the environment name, and a hint for the user or "".

    Raises ConfigError.
    """
    found = find_config(args.config, environ)
    return load_config(found.path, environ), found.note


def with_options(config: Config, args: argparse.Namespace, environ: Environ) -> Config:
    """The configuration with what the command line and the environment change. Raises ConfigError."""
    level = args.log_level or environ.get(LEVEL_VARIABLE) or config.server.log_level
    if level not in log.LEVELS:
        raise ConfigError("${} is {!r}; use one of {}".format(LEVEL_VARIABLE, level, ", ".join(LEVELS)))
    server = replace(config.server, log_level=level, listen_addr=args.listen or config.server.listen_addr)
    return replace(config, server=server)


async def serve_config(
    config: Config, note: str, source: str, args: argparse.Namespace, environ: Environ
) -> None:
    """Serve until a signal comes; the banner is printed when the port is open."""
    config = with_options(config, args, environ)
    log.setup(config.server.log_level, config.server.log_format, secrets=config.secrets)
    for text in [*("warning: " + warning for warning in config.warnings), *([note] if note else [])]:
        print("rproxy: " + text, file=sys.stderr)

    def ready(url: str) -> None:
        # What exists now stays, and a turn leaves no cycles behind: it is enough to look for those of errors
        # now and then.
        gc.freeze()
        gc.set_threshold(5000, 20, 20)
        print(banner(config, url, source), flush=True)

    await serve(config, insecure=args.insecure, reuse_port=args.reuse_port, ready=ready)


async def serve_demo_config(args: argparse.Namespace, environ: Environ) -> None:
    """Serve with the demo provider in this process."""
    from .demo.server import serve_demo

    with serve_demo() as url:
        await serve_config(
            demo_config(url, args.config, environ),
            "",
            "the demo provider: a script, no key needed",
            args,
            environ,
        )


def command_serve(args: argparse.Namespace, environ: Environ) -> int:
    if args.demo:
        asyncio.run(serve_demo_config(args, environ))
    else:
        config, note = read_config(args, environ)
        asyncio.run(
            serve_config(
                config, note, config.path or "no configuration file: keys from the environment", args, environ
            )
        )
    return OK


def add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="address to listen on, for server.listen_addr; port 0: a free one",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="answer with a built-in scripted provider; needs no key and no file",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow an address beyond this machine although authentication is off",
    )
    parser.add_argument(
        "--reuse-port",
        action="store_true",
        help="share the port with other processes that have this option, too",
    )
    parser.add_argument("--log-level", choices=LEVELS, help=f"how much is logged; also ${LEVEL_VARIABLE}")


# ---- check


def command_check(args: argparse.Namespace, environ: Environ) -> int:
    config, note = read_config(args, environ)
    print("%s: good" % (config.path or "no configuration file, keys from the environment"))
    print("\n".join(model_lines(config)))
    exposed = "server.listen_addr: open to other machines without auth; serve refuses that unless --insecure"
    for warning in [
        *config.warnings,
        *([exposed] if config.server.is_open else []),
        *([note] if note else []),
    ]:
        print("rproxy: warning: " + warning, file=sys.stderr)
    return OK


def add_nothing(parser: argparse.ArgumentParser) -> None:
    """``check`` has no options of its own."""


# ---- profiles

PROFILE_HEAD = """\
# The profile %s%s. Copy what shall be different under a provider or a model of the configuration.
"""


def command_profiles(args: argparse.Namespace, environ: Environ) -> int:
    if args.name is None:
        print("\n".join(profile_lines()))
        return OK
    data = profile_dict(args.name, args.model, args.wire)
    print(
        PROFILE_HEAD % (args.name, " for the model " + args.model if args.model else "")
        + dump({"override": data}),
        end="",
    )
    return OK


def add_profiles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="show this one, as YAML; default: list them all"
    )
    parser.add_argument("model", nargs="?", default="", metavar="MODEL", help="... for this downstream model")
    parser.add_argument(
        "--wire", choices=("chat", "responses"), default="chat", help="... with this wire; default: chat"
    )


# ---- codex


async def codex_on_demo(args: argparse.Namespace, environ: Environ) -> int:
    """Codex, rproxy and the demo provider, all in this terminal."""
    from .demo.server import serve_demo

    with serve_demo() as url:
        return await codex.run_embedded(
            demo_config(url, args.config, environ), codex.find_codex(environ), args.args, environ
        )


def command_codex(args: argparse.Namespace, environ: Environ) -> int:
    profile = codex_profile.Profile.of(args.profile, environ)
    if args.restore:
        print("\n".join(profile.restore()))
        return OK
    url = f"http://127.0.0.1:{args.port}" if args.port else args.url
    base_url = re.sub(r"(/v1)?/*$", "/v1", url, count=1) if url else None
    if args.print or args.write:
        return show_profile(args, profile, base_url, environ)
    quiet_log(args.log_file, args.log_level or "info")
    if args.demo:
        return asyncio.run(codex_on_demo(args, environ))
    installed = codex.find_codex(environ)
    if base_url:
        return asyncio.run(codex.run_on(base_url, installed, args.args, environ))
    config, _ = read_config(args, environ)
    for warning in config.warnings:
        print("rproxy: warning: " + warning, file=sys.stderr)
    return asyncio.run(codex.run_embedded(config, installed, args.args, environ))


def show_profile(
    args: argparse.Namespace, profile: codex_profile.Profile, base_url: Optional[str], environ: Environ
) -> int:
    """``--print`` and ``--write``: the settings of Codex for a running ``rproxy serve``."""
    settings, entries = (
        codex.fetched_settings(base_url, profile, args.args, environ)
        if base_url
        else codex.profile_settings(read_config(args, environ)[0], profile, args.args)
    )
    if args.print:
        print(f"# {profile.toml}, for: codex --profile {args.profile}\n{settings.profile()}")
        print(
            "# or without a file, once the catalog is written:\n"
            + shlex.join(["codex", *settings.overrides(), *args.args])
        )
    if args.write:
        done = profile.write(
            settings.profile(), codex.catalog_text(codex.find_codex(environ), entries, environ)
        )
        print("\n".join([*done, f"Start it with: rproxy serve, and: codex --profile {args.profile}"]))
    return OK


def quiet_log(path: Optional[str], level: str) -> None:
    """The log goes to a file or nowhere: the terminal is Codex'."""
    if path:
        log.setup(level, stream=open(path, "a", encoding="utf-8", buffering=1))  # noqa: SIM115 -- open as long as the process lives
    else:
        logging.getLogger().addHandler(logging.NullHandler())


def profile_name(text: str) -> str:
    """A name that ``codex --profile`` takes."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not letters, digits, - and _")
    return text


def add_codex(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("args", nargs="*", metavar="ARGS", help="arguments for codex, behind --")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--url",
        help=f"use the rproxy that runs there, such as http://127.0.0.1:3000; its key: ${codex.KEY_VARIABLE}",
    )
    where.add_argument("--port", type=int, help="... on this port of this machine")
    where.add_argument(
        "--demo", action="store_true", help="use a built-in scripted provider; needs no key and no file"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--print",
        action="store_true",
        help="show Codex' settings for a running rproxy serve, and start nothing",
    )
    what.add_argument(
        "--write",
        action="store_true",
        help="write them as a profile into ~/.codex; a file that is there is kept aside",
    )
    what.add_argument("--restore", action="store_true", help="take the profile back")
    parser.add_argument(
        "--profile",
        type=profile_name,
        default="rproxy",
        metavar="NAME",
        help="the profile's name; default: rproxy",
    )
    parser.add_argument(
        "--log-file",
        metavar="FILE",
        help="where rproxy's own log goes; default: nowhere, the terminal is Codex'",
    )
    parser.add_argument("--log-level", choices=LEVELS, help="how much is logged")


# ---- the command


class Command(NamedTuple):
    """A sub-command: one line about it, an example, its options, what it does."""

    about: str
    example: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Environ], int]


COMMANDS: Mapping[str, Command] = {
    "serve": Command(
        "serve the Responses API",
        "rproxy serve --config config.yaml --listen 127.0.0.1:3000",
        add_serve,
        command_serve,
    ),
    "codex": Command(
        "run Codex on the configured models, in one command",
        'rproxy codex -- exec "list the files"',
        add_codex,
        command_codex,
    ),
    "check": Command(
        "check a configuration and show its models",
        "rproxy check --config config.yaml",
        add_nothing,
        command_check,
    ),
    "profiles": Command(
        "list the profiles of providers, or show one",
        "rproxy profiles deepseek deepseek-v4-pro",
        add_profiles,
        command_profiles,
    ),
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
    parser.add_argument("--version", action="version", version="rproxy " + __version__)
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
            "/etc/rproxy/config.yaml, else the keys in the environment",
        )
        command.add_options(sub)
        sub.set_defaults(run=command.run)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command. :returns: the exit status; wrong usage raises SystemExit(2), as argparse does"""
    args = make_parser().parse_args(argv)
    try:
        status: int = args.run(args, os.environ)
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except ConfigError as error:
        print("rproxy: " + log.mask(str(error)), file=sys.stderr)
        return BAD_CONFIG
    except (RproxyError, OSError) as error:
        print("rproxy: " + log.mask(str(error)), file=sys.stderr)
        return FAILED
