"""``rproxy init``: write the configuration that is found to a file, to start from.  It is the configuration
that applies without a file (:mod:`rproxy.config.zero_config`): the providers whose keys are in the
environment, and the model servers of this machine.  No provider on the internet is asked, and the file names
the variables, not the keys.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from pathlib import Path
from typing import Iterator, List, Optional, Sequence

from ..config.load import user_config
from ..config.schema import Model
from ..config.yaml_positions import scalar
from ..config.zero_config import (
    Source,
    empty,
    key_sources,
    local_sources,
    no_model_text,
    nothing_text,
    routes_of,
)
from ..errors import NothingConfigured, RproxyError
from ..providers.profile_names import ABOUT
from ..upstream.discovery import find_local_servers
from .command import Command, Environ, counted, warn
from .exit_status import OK

MODE = 0o600
HEAD = """\
# The configuration of rproxy, written by rproxy init from what it found on this machine.
# Try it:  rproxy check    rproxy ask "hello"    rproxy serve    rproxy codex
# All other keys are in etc/config.yaml of the source, and in docs/configuration.md.

# The server listens on 127.0.0.1:3000. For other machines it needs keys, which rproxy key NAME makes:
# server:
#   listen_addr: "0.0.0.0:3000"
#   auth: {keys: [{name: ann, key_sha256: "..."}]}

# model: the name that clients ask for.  downstream_model: the provider's own name, if that is another one.
models:
"""


def run(args: argparse.Namespace, environ: Environ) -> int:
    path = Path(args.config or environ.get("RPROXY_CONFIG") or user_config(environ))
    if not args.force and os.path.lexists(path):
        raise RproxyError(f"{path} exists and stays as it is; rproxy init --force keeps it as a backup")
    local = asyncio.run(find_local_servers(environ))
    sources = key_sources(environ) + local_sources(local)
    if not sources:
        raise NothingConfigured(nothing_text(local))
    backup = write(path, file_text(sources), args.force)
    if backup is not None:
        print(f"kept the former file as {backup}")
    print(f"wrote {path}, which only you can read:")
    print("\n".join("  " + about(source) for source in sources))
    print('Next: rproxy ask "hello", rproxy serve or rproxy codex')
    warn([no_model_text(server) for server in empty(local)])
    return OK


def about(source: Source) -> str:
    """One line about a source: what it is, where, and its models or its key."""
    name = ABOUT[source.provider.name]
    if source.variable:
        return f"{name}; its key is in ${source.variable}"
    return f"{name} at {source.provider.base_url}; {counted(len(source.models), 'model')}"


# ---- The text
def file_text(sources: Sequence[Source]) -> str:
    """The configuration of the sources, with comments."""
    routes = list(routes_of(sources).values())
    anchors = {id(source.provider): f"provider{n}" for n, source in enumerate(sources, 1)}
    lines: List[str] = []
    for source in sources:
        own = [
            model for model in routes if model.providers[0] is source.provider and not model.downstream_model
        ]
        if own:
            lines += [f"  # ---- {about(source)}", *_first(own[0], source, anchors[id(source.provider)])]
            lines += [_further(model, anchors[id(source.provider)]) for model in own[1:]]
            lines += [""]
    lines += ["  # ---- The names that Codex asks for, and every other one"]
    lines += [_further(model, anchors[id(model.providers[0])]) for model in routes if model.downstream_model]
    return HEAD + "\n".join(lines) + "\n"


def _first(model: Model, source: Source, anchor: str) -> Iterator[str]:
    """The first model of a provider, with the provider itself."""
    provider = source.provider
    yield f"  - model: {scalar(model.model)}"
    if model.context_window is not None:
        yield f"    context_window: {model.context_window}"
    yield f"    provider: &{anchor}"
    yield f"      name: {scalar(provider.name)}"
    yield f"      base_url: {provider.base_url}"
    if source.variable:
        yield f"      api_key: ${source.variable}   # set it wherever rproxy starts"
    yield f"      profile: {scalar(provider.profile_name or '')}"


def _further(model: Model, anchor: str) -> str:
    """Another model of a provider that is already in the text."""
    entries = [f"model: {scalar(model.model)}", f"provider: *{anchor}"]
    if model.downstream_model:
        entries.append(f"downstream_model: {scalar(model.downstream_model)}")
    if model.context_window is not None:
        entries.append(f"context_window: {model.context_window}")
    return f"  - {{{', '.join(entries)}}}"


# ---- The file
def write(path: Path, text: str, force: bool) -> Optional[Path]:
    """Write the file, never over another one.

    :param force: an existing file becomes a backup
    :returns: the backup, if there is one
    :raises RproxyError: the file has been made in the meantime
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    backup = _free_name(path) if force and os.path.lexists(path) else None
    if backup is not None:
        path.rename(backup)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RproxyError(f"{path} exists and stays as it is") from None
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            if backup is not None:
                backup.rename(path)
        raise
    return backup


def _free_name(path: Path) -> Path:
    """An unused name beside ``path``."""
    names = (path.with_name(f"{path.name}.backup{f'-{n}' if n else ''}") for n in range(1000))
    return next(name for name in names if not os.path.lexists(name))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="write even if there is a file; that is kept as a backup"
    )


COMMAND = Command(
    "write a configuration file from the keys in the environment and the model servers of this machine",
    "rproxy init",
    run,
    add_options,
)
