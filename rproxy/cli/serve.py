"""``rproxy serve``: run the server until a signal comes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Sequence

from .. import __version__, log
from ..config.addresses import ListenAddress, parse_listen_address, proxy_secrets
from ..config.schema import Config
from ..errors import ConfigError, UsageError
from ..server.app import serve
from ..server.listen import Listener
from ..server.reload import survive_hangup
from ..server.speedups import packages_in_use
from ..server.speedups import run as run_loop
from .command import (
    Command,
    Environ,
    address_lines,
    complain,
    demo_config,
    exposure,
    model_lines,
    read_config,
    warn,
)
from .exit_status import OK

if TYPE_CHECKING:
    from ..telemetry.recorder import Recorder

LEVEL_VARIABLE = "RPROXY_LOG_LEVEL"
BANNER = """\
rproxy {version} on {url}    ({source})
{lines}
Codex:  {codex}
Try:    curl {target}/responses -H 'Content-Type: application/json'{auth} \\
          -d '{{"model": "{model}", "input": "What is 2+2? Reply with just the number."}}'
        curl -N {target}/responses -H 'Content-Type: application/json'{auth} \\
          -d '{{"model": "{model}", "input": "Tell me about yourself.", "stream": true}}'
{look}Stop:   Ctrl-C"""
CODEX = """\
codex exec -c 'openai_base_url="{url}"' "list the files"
        or permanently, with this line at the top of ~/.codex/config.toml:  openai_base_url = "{url}\""""
# With openai_base_url alone, Codex sends no key; `codex exec` takes one from its own variable.
CODEX_WITH_KEY = """\
CODEX_API_KEY=YOUR_KEY codex exec -c 'openai_base_url="{url}"' "list the files"
        or permanently, with a profile:  RPROXY_API_KEY=YOUR_KEY rproxy codex --url {url} --write"""
LOOK = "Look:   {url}/ in a browser shows every turn\n"
NO_CODEX = "needs a TCP address: --listen 127.0.0.1:3000"
AUTH_HEADER = " -H 'Authorization: Bearer YOUR_KEY'"


def banner(config: Config, addresses: Sequence[ListenAddress], source: str, terminal: bool) -> str:
    """The text that is printed when the server listens: its addresses, and how to use it.

    :param addresses: the ones that it listens on
    :param source: where the configuration comes from
    :param terminal: whether it is shown on a terminal; in a log it is one line
    """
    tls, auth = config.server.tls is not None, config.server.auth.enabled
    packages = packages_in_use()
    more = [f"with {' and '.join(packages)}"] if packages else []
    if config.search is not None:
        more.append(f"web search: {config.search.kind}")
    if config.mcp_servers:
        more.append(f"MCP: {', '.join(server.name for server in config.mcp_servers)}")
    if not terminal:
        urls = ", ".join(one_line(address, tls, auth) for address in addresses)
        notes = [source, f"models: {len(config.models)}", *more]
        return f"rproxy {__version__} on {urls}    ({'; '.join(notes)})"
    model = next((model.model for model in config.models if not model.is_glob), "gpt-5.5")
    first = next((one for one in addresses if not one.path), addresses[0])
    url = first.url(tls) + "/v1"
    if first.path:
        codex, url, target = NO_CODEX, str(first), f"--unix-socket {first.path} http://localhost/v1"
    else:
        codex, target = (CODEX_WITH_KEY if auth else CODEX).format(url=url), url
    return BANNER.format(
        version=__version__,
        url=url,
        source="; ".join([source, *more]),
        lines="\n".join([*address_lines(addresses, auth), *model_lines(config)]),
        model=model,
        codex=codex,
        target=target,
        auth=AUTH_HEADER if auth else "",
        look="" if first.path or config.server.inspector == "off" else LOOK.format(url=first.url(tls)),
    )


def one_line(address: ListenAddress, tls: bool, auth: bool) -> str:
    """An address as its URL; one that other machines can reach also as it is."""
    url = address.url(tls) + ("" if address.path else "/v1")
    return url if address.is_local else f"{url} = {address}{exposure(address, auth)}"


def with_options(config: Config, args: argparse.Namespace, environ: Environ) -> Config:
    """The configuration with the changes of the command line and the environment.

    :raises ConfigError: an address cannot be read, or the environment names an unknown log level
    """
    level = args.log_level or environ.get(LEVEL_VARIABLE) or config.server.log_level
    if level not in log.LEVELS:
        raise ConfigError(f"${LEVEL_VARIABLE} is {level!r}; use one of {', '.join(log.LEVELS)}")
    listen_addr = tuple(map(_listen_address, args.listen or ())) or config.server.listen_addr
    return replace(config, server=replace(config.server, log_level=level, listen_addr=listen_addr))


def _listen_address(text: str) -> ListenAddress:
    try:
        return parse_listen_address(text)
    except ValueError as error:
        raise ConfigError(f"--listen: {text!r} {error}") from None


async def serve_config(
    read: Callable[[], Config], source: str, args: argparse.Namespace, environ: Environ
) -> None:
    """Serve until a signal comes; print the banner when the port is open.

    :param read: reads the configuration, now and for each reload
    """

    def load() -> Config:
        return with_options(read(), args, environ)

    config = load()
    secrets = (*config.secrets, *proxy_secrets(environ))
    log.setup(config.server.log_level, config.server.log_format, secrets=secrets)
    warn(config.warnings)

    def ready(listeners: Sequence[Listener]) -> None:
        addresses = [one.address for one in listeners]
        print(banner(config, addresses, source, sys.stdout.isatty()), flush=True)

    await serve(
        config,
        load=load,
        insecure=args.insecure,
        reuse_port=args.reuse_port,
        ready=ready,
        recorders=recorders_of(args),
    )


def recorders_of(args: argparse.Namespace) -> List[Recorder]:
    """The recorders of turns.

    :raises ConfigError: the folder cannot be used
    """
    if args.record is None:
        return []
    from ..telemetry.recorder import FolderRecorder  # loaded only where turns are recorded

    what = "failed turns" if args.record_errors_only else "every turn, with its content,"
    complain(f"recording {what} in {args.record}")
    return [FolderRecorder(args.record, errors_only=args.record_errors_only)]


async def serve_demo_config(args: argparse.Namespace, environ: Environ) -> None:
    """Serve with the demo provider in this process."""
    from .demo.server import serve_demo  # loaded for the demo only

    with serve_demo() as url:
        source = "the demo provider: a script, no key needed"
        await serve_config(lambda: demo_config(url, args.config, environ), source, args, environ)


def run(args: argparse.Namespace, environ: Environ) -> int:
    if args.record_errors_only and args.record is None:
        raise UsageError("--record-errors-only needs --record DIR")
    survive_hangup()
    if args.demo:
        run_loop(serve_demo_config(args, environ))
        return OK
    first = read_config(args, environ)
    if first.note:
        complain(first.note)

    def read() -> Config:
        return read_config(args, environ, first.local).config

    run_loop(serve_config(read, first.source, args, environ))
    return OK


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="listen on HOST:PORT or unix:PATH instead of on server.listen_addr; may be given several times; "
        "port 0: any free one",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="answer with a built-in scripted provider; needs no key and no file",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="listen on an address that other machines can reach, even without authentication",
    )
    parser.add_argument(
        "--reuse-port", action="store_true", help="share the port with other processes that use this option"
    )
    parser.add_argument(
        "--log-level", choices=tuple(log.LEVELS), help=f"how much is logged; also ${LEVEL_VARIABLE}"
    )
    parser.add_argument(
        "--record",
        metavar="DIR",
        type=Path,
        help="write each turn into a file in DIR, with its content but without keys, for rproxy replay",
    )
    parser.add_argument(
        "--record-errors-only", action="store_true", help="write only the turns that fail; needs --record"
    )


COMMAND = Command(
    "serve the Responses API", "rproxy serve --config config.yaml --listen 127.0.0.1:3000", run, add_options
)
