"""The base of the sub-commands: their form, and how they read the configuration."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, List, Mapping, NamedTuple, Optional, Sequence

from ..config import checks
from ..config.addresses import ListenAddress, server_name
from ..config.load import find_config, load_config, parse_config
from ..config.schema import Config
from ..errors import ConfigError, NothingConfigured, Unreachable
from ..log import clean, printable

if TYPE_CHECKING:
    from ..providers.local_servers import LocalServer

NO_FILE = "no configuration file: keys from the environment"
NO_KEY = "no configuration file, no key: found "
# A command that needs neither key nor file, to suggest when there is neither.
DEMOS = {"serve": "rproxy serve --demo", "codex": "rproxy codex --demo", "ask": 'rproxy ask --demo "hello"'}
KEY_VARIABLE = "RPROXY_API_KEY"  # the key that a running rproxy wants
Environ = Mapping[str, str]

# The models of --demo: Codex's own model names, and every other name.
DEMO_CONFIG = """\
models:
  - model: gpt-5.5
    downstream_model: deepseek-v4-pro
    provider: &demo {{name: demo, base_url: "{url}", api_key: {key}, profile: deepseek}}
  - {{model: codex-auto-review, downstream_model: deepseek-v4-flash, provider: *demo}}
  - {{model: "*", provider: *demo}}
"""


class Command(NamedTuple):
    """A sub-command.

    ``run`` gets the parsed arguments and the environment, and returns the exit status; see
    :mod:`rproxy.cli.exit_status`.
    """

    about: str
    example: str
    run: Callable[[argparse.Namespace, Environ], int]
    add_options: Optional[Callable[[argparse.ArgumentParser], None]] = None  # besides --config


class ReadConfig(NamedTuple):
    """A configuration.

    ``source``: where it comes from.  ``note``: for the user, or "".  ``local``: the model servers of this
    machine, if they were looked for.
    """

    config: Config
    source: str
    note: str
    local: Sequence[LocalServer] = ()

    def say_source(self, used: bool) -> None:
        """Tell the user what is in no file: which local servers are used, and which file is not read.

        :param used: name the servers
        """
        if self.local and used:
            complain(self.source)
        if self.note and self.config.path is None:
            complain(self.note)


# ---- The configuration
def read_config(
    args: argparse.Namespace, environ: Environ, local: Optional[Sequence[LocalServer]] = None
) -> ReadConfig:
    """The configuration that the arguments or the environment name, or else one for the model servers of this
    machine.

    :param local: these servers; None: look for them if they are needed, which starts an event loop
    :raises ConfigError: nothing is configured, or it cannot be used
    """
    found = find_config(args.config, environ, command=args.command)
    try:
        config = load_config(found.path, environ, local or ())
        return ReadConfig(config, found.path or _without_file(config, local), found.note, local or ())
    except NothingConfigured:
        if local is not None:
            from ..config.zero_config import nothing_text

            demo = DEMOS.get(args.command, DEMOS["serve"])
            text = "\n".join([nothing_text(local, demo), *filter(None, [found.note])])
            raise NothingConfigured(text) from None
    import asyncio  # loaded only here, as is the HTTP client

    from ..upstream.discovery import find_local_servers

    return read_config(args, environ, asyncio.run(find_local_servers(environ)))


def _without_file(config: Config, local: Optional[Sequence[LocalServer]]) -> str:
    """Where a configuration without a file comes from."""
    if any(provider.api_key for model in config.models for provider in model.providers):
        return NO_FILE
    return NO_KEY + ", ".join(str(server) for server in local or () if server.models)


def demo_config(url: str, path: Optional[str], environ: Environ) -> Config:
    """The configuration of ``--demo``: all models are those of the demo provider.

    :param url: of the demo provider
    :param path: a file with all other settings, or None
    :raises ConfigError: when the file cannot be used
    """
    from .demo.server import KEY  # loaded for the demo only

    demo = parse_config(DEMO_CONFIG.format(url=url, key=KEY).encode(), "demo", environ)
    return replace(load_config(path, environ), models=demo.models) if path else replace(demo, path=None)


def with_v1(url: str) -> str:
    """The base URL of a server whose address was given with or without ``/v1``."""
    base = url.strip().rstrip("/")
    return base if base.endswith("/v1") else base + "/v1"


# ---- A running rproxy
def key_of(environ: Environ) -> Optional[str]:
    """The user's key for a running rproxy, if there is one.

    :raises ConfigError: it cannot be sent in a header
    """
    key = environ.get(KEY_VARIABLE, "").strip()
    if not checks.is_sendable(key):
        raise ConfigError(f"${KEY_VARIABLE} {checks.NOT_SENDABLE}")
    return key or None


def nothing_answers(base_url: str, reason: object) -> Unreachable:
    """The error for a server that cannot be reached."""
    return Unreachable(f"nothing answers at {base_url} ({reason}). Start it with: rproxy serve")


# ---- Texts for people
def model_lines(config: Config) -> List[str]:
    """One line for each model: ``name -> downstream model @ provider (profile)``."""
    width = max(len(model.model) for model in config.models)
    lines = []
    for model in config.models:
        providers = ", ".join(f"{p.name} ({p.profile.name})" for p in model.resolved(model.model).providers)
        downstream = model.downstream_model or "the same name"
        lines.append(f"  {model.model:{width}} -> {downstream} @ {providers}")
    return [*lines, *hosted_lines(config)]


def hosted_lines(config: Config) -> List[str]:
    """Lines for the search service and the MCP servers, if there are any."""
    search = [] if config.search is None else [f"  web search @ {config.search.kind}"]
    servers = [
        (one.name, one.command[0] if one.command else server_name(one.url)) for one in config.mcp_servers
    ]
    return [*search, *(f"  mcp {name} @ {where}" for name, where in servers)]


def counted(count: int, noun: str) -> str:
    """``1 model``, ``2 models``"""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def columns(rows: Sequence[Sequence[str]], left: int) -> List[str]:
    """Rows as lines, in columns: the first ones flush left, the others flush right.

    Names of models may come from clients and servers, so control characters are escaped.

    :param left: how many are flush left
    """
    rows = [[*map(printable, row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    pads = [str.ljust] * left + [str.rjust] * (len(widths) - left)
    return [
        "  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths)).rstrip() for row in rows
    ]


def address_lines(addresses: Sequence[ListenAddress], auth: bool) -> List[str]:
    """Where the server listens, for people; none for a single address that only this machine can reach."""
    if len(addresses) == 1 and addresses[0].is_local:
        return []
    return ["Listens on " + ", ".join(f"{one}{exposure(one, auth)}" for one in addresses)]


def exposure(address: ListenAddress, auth: bool) -> str:
    """A note for an address that other machines can reach; for others, nothing."""
    note = f" (open to other machines, {'with' if auth else 'WITHOUT'} a key)"
    return "" if address.is_local else note


def complain(text: object) -> None:
    """Write ``text`` to stderr, with secrets masked."""
    print("rproxy: " + printable_lines(clean(str(text))), file=sys.stderr)


def printable_lines(text: str) -> str:
    """A text of several lines with its control characters escaped, except the line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def warn(texts: Sequence[str]) -> None:
    """Write each text to stderr as a warning."""
    for text in texts:
        complain("warning: " + text)


def discard_stdout() -> None:
    """Let what is left for stdout go nowhere, so that the end of the process is quiet."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
