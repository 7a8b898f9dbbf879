"""Where the configuration comes from: a file, or without one the keys in the environment.

:func:`find_config` chooses the file, :func:`load_config` reads it; its keys are in
:mod:`rproxy.config.schema`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Dict, List, Mapping, NamedTuple, Optional

from ..errors import ConfigError
from ..providers.profiles import ZERO_CONFIG, Known, default_wire
from . import checks as c
from .checks import Place
from .keys import useless_globs
from .schema import Config, Model, Provider
from .search_schema import with_key
from .yaml_positions import load

SYSTEM_CONFIG = "/etc/rproxy/config.yaml"


class Found(NamedTuple):
    """Which file to read (None: there is none), and a note for the user or ""."""

    path: Optional[str]
    note: str


def find_config(
    cli_path: Optional[str], environ: Mapping[str, str], cwd: str = ".", system: str = SYSTEM_CONFIG
) -> Found:
    """The first of ``--config``, ``$RPROXY_CONFIG``, ``$XDG_CONFIG_HOME/rproxy/config.yaml`` and
    ``/etc/rproxy/config.yaml`` that is named or exists.

    Never a file in the working directory, because a cloned repository must not redirect the keys; the note
    mentions such a file.
    """
    named = cli_path or environ.get("RPROXY_CONFIG")
    if named:
        return Found(named, "")
    home = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):  # the XDG specification: ignore relative paths
        home = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    found = next(
        (path for path in (os.path.join(home, "rproxy", "config.yaml"), system) if os.path.isfile(path)), None
    )
    note = (
        "./config.yaml is not read unless you name it: rproxy serve --config config.yaml"
        if os.path.isfile(os.path.join(cwd, "config.yaml"))
        else ""
    )
    return Found(found, note)


def load_config(path: Optional[str], environ: Mapping[str, str]) -> Config:
    """Read a configuration file (None: :func:`default_config`).

    :raises ConfigError: ``file:line:col: path.of.the.key: what is wrong``
    """
    if path is None:
        return default_config(environ)
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
        providers = (provider for model in config.models for provider in model.providers)
        config = replace(config, search=with_key(config.search, providers, whole.step("search")))
    warnings += [
        f"{path}: server.auth.keys: {text}"
        for text in useless_globs(config.server.auth.keys, [model.model for model in config.models])
    ]
    return replace(config, path=path, warnings=tuple(warnings))


def default_config(environ: Mapping[str, str]) -> Config:
    """The configuration without a file: every provider whose key is in the environment.

    The first of them also answers for every name that no other one claims, so that Codex works with its own
    model names.

    :raises ConfigError: if there is no key, or one that cannot be sent
    """
    candidates = [(known, _provider_of(known, environ)) for known in ZERO_CONFIG]
    providers = [(known, provider) for known, provider in candidates if provider is not None]
    if not providers:
        raise ConfigError(
            "no configuration file and no provider's key in the environment. Set one, for example: export "
            f"DEEPSEEK_API_KEY=sk-... (known: {', '.join(known.env[0] for known in ZERO_CONFIG)}), or write "
            "a file"
        )
    known, first = providers[0]
    routes: Dict[str, Model] = {}
    for row, provider in providers:
        for name in row.models:
            routes.setdefault(name, Model(model=name, providers=(provider,)))
    main = known.models[0]
    small = next((name for name in known.models[1:2] if "*" not in name), main)
    for name, downstream in (("gpt-5.5", main), ("codex-auto-review", small), ("*", main)):
        routes.setdefault(name, Model(model=name, providers=(first,), downstream_model=downstream))
    return Config(
        models=tuple(model if model.is_glob else model.resolved(name) for name, model in routes.items())
    )


def _provider_of(known: Known, environ: Mapping[str, str]) -> Optional[Provider]:
    name = next((name for name in known.env if environ.get(name, "").strip()), None)
    if name is None:
        return None
    found = environ[name].strip()
    if not c.is_sendable(found):
        raise ConfigError(f"${name} {c.NOT_SENDABLE}")
    return Provider(
        base_url=known.base_url,
        name=known.profile,
        api_key=found,
        profile_name=known.profile,
        wire=default_wire(known.base_url),
    )
