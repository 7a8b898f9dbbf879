"""Where the configuration comes from: a file, or else what is found on this machine.

:func:`find_config` chooses the file, :func:`load_config` reads it; its keys are in
:mod:`rproxy.config.schema`.  The configuration without a file is in :mod:`rproxy.config.zero_config`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, List, Mapping, NamedTuple, Optional, Sequence

from ..errors import ConfigError
from . import checks as c
from .checks import Place
from .keys import useless_globs
from .schema import Config
from .yaml_positions import load

if TYPE_CHECKING:
    from ..providers.local_servers import LocalServer

SYSTEM_CONFIG = "/etc/rproxy/config.yaml"
UNREAD = "./config.yaml is not read unless you name it: rproxy {command} --config config.yaml"


class Found(NamedTuple):
    """Which file to read (None: there is none), and a note for the user or ""."""

    path: Optional[str]
    note: str


def user_config(environ: Mapping[str, str]) -> Path:
    """The user's own file, whether there is one or not."""
    return _user_folder(environ, "XDG_CONFIG_HOME", ".config") / "config.yaml"


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where rproxy keeps what has to outlive its processes, whether the folder exists or not."""
    return _user_folder(environ, "XDG_STATE_HOME", ".local/state")


def _user_folder(environ: Mapping[str, str], variable: str, otherwise: str) -> Path:
    """The folder ``rproxy`` in the one that the variable names, or in ``otherwise`` in the user's home."""
    named = environ.get(variable, "")
    if not os.path.isabs(named):  # the XDG specification: ignore relative paths
        named = os.path.join(environ.get("HOME") or os.path.expanduser("~"), otherwise)
    return Path(named, "rproxy")


def find_config(
    cli_path: Optional[str],
    environ: Mapping[str, str],
    cwd: str = ".",
    system: str = SYSTEM_CONFIG,
    command: str = "serve",
) -> Found:
    """The first of ``--config``, ``$RPROXY_CONFIG``, ``$XDG_CONFIG_HOME/rproxy/config.yaml`` and
    ``/etc/rproxy/config.yaml`` that is named or exists.

    Never a file in the working directory, because a cloned repository must not redirect the keys; the note
    says how ``rproxy COMMAND`` would use such a file.
    """
    named = cli_path or environ.get("RPROXY_CONFIG")
    if named:
        return Found(named, "")
    found = next((path for path in (str(user_config(environ)), system) if os.path.isfile(path)), None)
    unread = os.path.isfile(os.path.join(cwd, "config.yaml"))
    return Found(found, UNREAD.format(command=command) if unread else "")


def load_config(path: Optional[str], environ: Mapping[str, str], local: Sequence[LocalServer] = ()) -> Config:
    """Read a configuration file.

    :param path: None: there is no file; see :func:`rproxy.config.zero_config.default_config`
    :param local: the model servers of this machine, for a configuration without a file
    :raises ConfigError: ``file:line:col: path.of.the.key: what is wrong``
    """
    if path is None:
        from .zero_config import default_config

        return default_config(environ, local)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from None
    return parse_config(content, path, environ)


def parse_config(content: bytes, path: str, environ: Mapping[str, str]) -> Config:
    """The configuration in the ``content`` of a file.

    :param path: of the file; names it in messages, and relative paths in it start from its folder
    :raises ConfigError: see :func:`load_config`
    """
    warnings: List[str] = []
    document = load(content, path)
    whole = Place(document, (), document.data, environ, warnings)
    config = Config(**c.values_of(Config, whole))
    if config.search is not None:
        from .search_schema import completed

        providers = (provider for model in config.models for provider in model.providers)
        servers = [server.name for server in config.mcp_servers]
        search = completed(config.search, providers, servers, whole.step("search"))
        config = replace(config, search=search)
    warnings += [
        f"{path}: server.auth.keys: {text}"
        for text in useless_globs(config.server.auth.keys, [model.model for model in config.models])
    ]
    return replace(config, path=path, warnings=tuple(warnings))
