"""A configuration that names variables that are not set, for the commands that show what is missing.

``rproxy serve`` refuses such a configuration.  Here every unset variable gets a stand-in, which shows where
it is used; if the configuration is refused even so, its own error is raised.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Iterator, List, Mapping

from ..config.load import find_config, load_config
from ..config.schema import Provider
from ..errors import ConfigError
from .command import Environ, ReadConfig, read_config

STAND_IN = "rproxy-not-set-"


class _Tolerant(Mapping[str, str]):
    """An environment in which every variable has a value."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return self._environ.get(name) or STAND_IN + name

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def read_tolerantly(args: argparse.Namespace, environ: Environ) -> ReadConfig:
    """The configuration, with stand-ins for variables that are not set.

    :raises ConfigError: there is none, or it cannot be used for another reason
    """
    try:
        return read_config(args, environ)
    except ConfigError as error:
        found = find_config(args.config, environ, command=args.command)
        if found.path is None:
            raise
        with suppress(ConfigError):
            return ReadConfig(load_config(found.path, _Tolerant(environ)), found.path, found.note)
        raise error


def missing_variables(provider: Provider) -> List[str]:
    """The variables of a provider's credentials that are not set."""
    found = {
        value[value.index(STAND_IN) + len(STAND_IN) :]
        for value in (provider.api_key or "", *provider.headers.values(), *provider.query.values())
        if STAND_IN in value
    }
    return sorted(found)
