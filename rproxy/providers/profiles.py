"""Which profile a provider gets: by name, by the host of base_url, by the downstream model, or generic.

The rows are data (:mod:`rproxy.providers.profile_table`).  The result is one frozen
:class:`~rproxy.convert.profile.Profile`: the row, then what the row says about this model, then the overrides
of the configuration in their order.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from functools import cache
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from ..convert.profile import Profile, Thinking, suggestion
from ..errors import ConfigError
from .profile_names import ABOUT, ALIASES, MODEL_NAMES
from .profile_table import ROWS

_NO_FIELDS = {"match", "wire", "extends", "models", "responses", "thinking"}


class Known(NamedTuple):
    """What rproxy knows about a provider without a configuration file.

    ``env``: the environment variables that may hold its key.  ``models``: the main model, the small one, then
    globs whose requests keep their own names.
    """

    profile: str
    env: Tuple[str, ...]
    base_url: str
    models: Tuple[str, ...]


# In the order in which keys are looked for; the first provider found also answers for every other name.
ZERO_CONFIG: Tuple[Known, ...] = (
    Known(
        "deepseek",
        ("DEEPSEEK_API_KEY",),
        "https://api.deepseek.com",
        ("deepseek-v4-pro", "deepseek-v4-flash", "deepseek-*"),
    ),
    Known(
        "moonshot",
        ("MOONSHOT_API_KEY", "KIMI_API_KEY"),
        "https://api.moonshot.ai/v1",
        ("kimi-k3", "kimi-k2.6", "kimi-*", "moonshot-*"),
    ),
    Known(
        "zai",
        ("ZAI_API_KEY", "Z_AI_API_KEY", "ZHIPU_API_KEY", "ZHIPUAI_API_KEY"),
        "https://api.z.ai/api/paas/v4",
        ("glm-5.3", "glm-5.3-flash", "glm-*"),
    ),
    Known(
        "dashscope",
        ("DASHSCOPE_API_KEY",),
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        ("qwen3.8-max", "qwen-plus", "qwen*"),
    ),
    Known("minimax", ("MINIMAX_API_KEY",), "https://api.minimax.io/v1", ("MiniMax-M3", "MiniMax-*")),
    Known(
        "openrouter",
        ("OPENROUTER_API_KEY",),
        "https://openrouter.ai/api/v1",
        ("deepseek/deepseek-v4-pro", "deepseek/deepseek-v4-flash", "*/*"),
    ),
    Known(
        "gemini",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "https://generativelanguage.googleapis.com/v1beta/openai",
        ("gemini-3.8-pro", "gemini-*"),
    ),
    Known("xai", ("XAI_API_KEY",), "https://api.x.ai/v1", ("grok-4.7", "grok-4.3", "grok-*")),
    Known(
        "mistral",
        ("MISTRAL_API_KEY",),
        "https://api.mistral.ai/v1",
        (
            "mistral-medium-latest",
            "mistral-small-latest",
            "mistral-*",
            "magistral-*",
            "codestral-*",
            "devstral-*",
            "ministral-*",
        ),
    ),
    Known(
        "groq",
        ("GROQ_API_KEY",),
        "https://api.groq.com/openai/v1",
        ("openai/gpt-oss-120b", "openai/gpt-oss-20b"),
    ),
    Known("cerebras", ("CEREBRAS_API_KEY",), "https://api.cerebras.ai/v1", ("gpt-oss-120b",)),
    Known(
        "openai",
        ("OPENAI_API_KEY",),
        "https://api.openai.com/v1",
        ("gpt-5.5", "gpt-5.4-mini", "gpt-*", "o3*", "o4*"),
    ),
)


def glob_matches(pattern: str, name: str) -> bool:
    """Does ``name`` match ``pattern``? ``*`` stands for any text; nothing else is special."""
    first, *others = pattern.split("*")
    if not others:
        return name == first
    *middle, last = others
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for text in middle:
        found = name.find(text, at, end)
        if found < 0:
            return False
        at = found + len(text)
    return True


def list_profiles() -> List[str]:
    """The names of all profiles."""
    return sorted(ROWS)


def profile_lines() -> List[str]:
    """A line about each profile: its name, what it is, and the hosts for which it is chosen."""
    width = max(map(len, ROWS))
    others = {name: sorted(alias for alias, row in ALIASES.items() if row == name) for name in ROWS}
    lines = []
    for name in list_profiles():
        hosts = f" ({', '.join(ROWS[name]['match'])})" if "match" in ROWS[name] else ""
        also = f"; also called {', '.join(others[name])}" if others[name] else ""
        lines.append(f"{name:{width}}  {ABOUT[name]}{hosts}{also}")
    return lines


def profile_dict(name: str, downstream_model: str = "", wire: str = "chat") -> Dict[str, Any]:
    """A profile as plain data, in the form of ``override`` in the configuration.

    :raises ConfigError: there is no such profile
    """
    data = asdict(choose_profile(name, "", downstream_model, wire=wire))
    del data["name"]
    plain: Dict[str, Any] = _plain(data)
    return plain


def choose_profile(
    name: Optional[str],
    base_url: str,
    downstream_model: str,
    *overrides: Mapping[str, Any],
    wire: str = "chat",
) -> Profile:
    """The profile of a model at a provider.

    :param name: ``profile`` of the configuration, or None
    :param overrides: fields of the profile; later ones win
    :param wire: the provider's API, ``chat`` or ``responses``
    :raises ConfigError: there is no profile with this name
    :raises FieldError: an override is wrong
    :raises ValueError: base_url is not a URL
    """
    row = (
        row_name(name)
        if name is not None
        else row_of_host(base_url) or _row_of_model(downstream_model) or "generic"
    )
    profile = _build(row, downstream_model)
    on_the_wire = [layer.get(wire, {}) for layer in _layers(row)]
    for override in (*on_the_wire, *overrides):
        profile = profile.override(override) if override else profile
    return profile


def row_of_host(base_url: str) -> Optional[str]:
    """The row whose ``match`` is the address or a part of it; the longest match wins."""
    parts = urlsplit(base_url)
    netloc, path = parts.netloc.rpartition("@")[2].lower(), parts.path
    host = re.sub(r":\d*$", "", netloc)
    found = [
        (len(match), name)
        for name, row in ROWS.items()
        for match in row.get("match", ())
        if _host_fits(match, host, netloc, path)
    ]
    return max(found)[1] if found else None


def default_wire(base_url: str) -> str:
    """The API of a provider for which the configuration does not name one: that of its address."""
    row = row_of_host(base_url)
    wire: str = "chat" if row is None else ROWS[row].get("wire", "chat")
    return wire


def _host_fits(match: str, host: str, netloc: str, path: str) -> bool:
    wanted, slash, prefix = match.partition("/")
    if slash and not (path.strip("/") + "/").startswith(prefix.strip("/") + "/"):
        return False
    return (
        wanted in (host, netloc)
        or host.endswith("." + wanted)
        or "*" in wanted
        and glob_matches(wanted, host)
    )


def _row_of_model(downstream_model: str) -> Optional[str]:
    name = downstream_model.lower()
    return next((row for pattern, row in MODEL_NAMES if glob_matches(pattern, name)), None)


def row_name(name: str) -> str:
    """The row with that name or alias.

    :raises ConfigError: there is none
    """
    row = ALIASES.get(name.lower(), name.lower())
    if row not in ROWS:
        hint = suggestion(name, [*ROWS, *ALIASES])
        raise ConfigError(f"there is no profile {name!r}{hint}; known: {', '.join(sorted(ROWS))}")
    return row


def _build(row: str, downstream_model: str) -> Profile:
    """The profile of a row, with the row's fields for this model."""
    pattern = next((p for p in _models(row) if glob_matches(p.lower(), downstream_model.lower())), None)
    return _row_profile(row, pattern)


@cache
def _row_profile(row: str, pattern: Optional[str]) -> Profile:
    profile = Profile(name=row)
    for layer in _layers(row) + ([_models(row)[pattern]] if pattern is not None else []):
        if "thinking" in layer:  # replaced as a whole: two ways to control thinking must not be mixed
            profile = replace(profile, thinking=Thinking()).override({"thinking": layer["thinking"]})
        profile = profile.override({key: value for key, value in layer.items() if key not in _NO_FIELDS})
    return profile


def _layers(row: str) -> List[Mapping[str, Any]]:
    """The row and those that it extends, the most general first."""
    data = ROWS[row]
    return (_layers(data["extends"]) if "extends" in data else []) + [data]


def _models(row: str) -> Dict[str, Mapping[str, Any]]:
    """The models of a row, followed by those of the rows that it extends."""
    tables: Dict[str, Mapping[str, Any]] = {}
    for layer in reversed(_layers(row)):
        for pattern, fields in layer.get("models", {}).items():
            tables.setdefault(pattern, fields)
    return tables


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def profile_of(data: Mapping[str, Any]) -> Profile:
    """The profile that ``dataclasses.asdict`` turned into ``data``; unknown fields are ignored.

    :raises FieldError: a value is wrong
    """
    bare = replace(Profile(name=str(data.get("name"))), thinking=Thinking())  # nothing to be merged with
    known = {key: value for key, value in data.items() if key != "name" and hasattr(bare, key)}
    return bare.override(known)
