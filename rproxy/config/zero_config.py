"""The configuration without a file: the providers whose keys are in the environment; without any, the model
servers of this machine.

A :class:`Source` is a provider that was found.  The first one also answers for every name that no other one
claims, so that Codex works with its own model names.  ``rproxy init`` writes the same configuration to a
file.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..errors import ConfigError, NothingConfigured
from ..providers.local_servers import LOCAL_KINDS, LocalServer
from ..providers.profiles import ZERO_CONFIG, Known, default_wire
from . import checks as c
from .schema import Config, Model, Provider

# What Codex asks for by itself: its first model, and a small one.
CODEX_MAIN, CODEX_SMALL = "gpt-5.5", "codex-auto-review"
NOTHING = """\
no configuration file and no provider's key in the environment, and on this machine none of
{servers} answers. Do one of these:
  try it without a key:      {demo}
  use a provider's key:      export DEEPSEEK_API_KEY=sk-...
  then, or with one of these servers running, write a configuration file: rproxy init
Keys that are known: {keys}"""


class Source(NamedTuple):
    """A provider that was found.

    ``models``: the main model, the small one if there is one, then others and globs.  ``variable``: the
    environment variable with its key; "" for a local server.  ``windows``: the context windows, as far as the
    server names them.
    """

    provider: Provider
    models: Tuple[str, ...]
    variable: str
    windows: Mapping[str, Optional[int]] = {}


def default_config(environ: Mapping[str, str], local: Sequence[LocalServer] = ()) -> Config:
    """The configuration without a file.

    :param local: the model servers of this machine; they count where there is no key
    :raises ConfigError: nothing was found, or a key cannot be sent
    """
    sources = key_sources(environ) or local_sources(local)
    if not sources:
        raise NothingConfigured(nothing_text(local))
    routes = routes_of(sources)
    return Config(
        models=tuple(model if model.is_glob else model.resolved(name) for name, model in routes.items())
    )


def routes_of(sources: Sequence[Source]) -> Dict[str, Model]:
    """The models of the sources, and those names of Codex that lead to the first one."""
    routes: Dict[str, Model] = {}
    for source in sources:
        for name in source.models:
            window = source.windows.get(name)
            routes.setdefault(name, Model(model=name, providers=(source.provider,), context_window=window))
    first = sources[0]
    main = first.models[0]
    small = next((name for name in first.models[1:2] if first.variable and "*" not in name), main)
    for name, downstream in ((CODEX_MAIN, main), (CODEX_SMALL, small), ("*", main)):
        window = first.windows.get(downstream)
        model = Model(
            model=name, providers=(first.provider,), downstream_model=downstream, context_window=window
        )
        routes.setdefault(name, model)
    return routes


def key_sources(environ: Mapping[str, str]) -> List[Source]:
    """The providers whose keys are in the environment.

    :raises ConfigError: a key cannot be sent
    """
    return [source for known in ZERO_CONFIG for source in _with_key(known, environ)]


def _with_key(known: Known, environ: Mapping[str, str]) -> List[Source]:
    name = next((name for name in known.env if environ.get(name, "").strip()), None)
    if name is None:
        return []
    found = environ[name].strip()
    if not c.is_sendable(found):
        raise ConfigError(f"${name} {c.NOT_SENDABLE}")
    provider = Provider(
        base_url=known.base_url,
        name=known.profile,
        api_key=found,
        profile_name=known.profile,
        wire=default_wire(known.base_url),
    )
    return [Source(provider, known.models, name)]


def local_sources(servers: Sequence[LocalServer]) -> List[Source]:
    """The local servers that have a model."""
    return [
        Source(
            Provider(base_url=server.base_url, name=server.kind.profile, profile_name=server.kind.profile),
            tuple(model.name for model in server.models),
            "",
            {model.name: model.context_window for model in server.models},
        )
        for server in servers
        if server.models
    ]


def nothing_text(local: Sequence[LocalServer], demo: str = "rproxy serve --demo") -> str:
    """What to do when nothing is configured.

    :param local: servers without a model
    :param demo: a command that needs nothing
    """
    servers = ", ".join(f"{kind.name} ({kind.port})" for kind in LOCAL_KINDS)
    keys = ", ".join(known.env[0] for known in ZERO_CONFIG)
    return "\n".join(
        [NOTHING.format(servers=servers, demo=demo, keys=keys), *map(no_model_text, empty(local))]
    )


def empty(local: Sequence[LocalServer]) -> List[LocalServer]:
    """The local servers that have no model yet."""
    return [server for server in local if not server.models]


def no_model_text(server: LocalServer) -> str:
    """What to do about a server without a model."""
    return f"{server.kind.name} runs at {server.base_url}, but has no model yet: load one there"
