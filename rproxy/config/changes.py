"""What a new configuration changes in a running server, and what needs a restart."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Iterator, List, Mapping, NamedTuple, Tuple

from .schema import Config

# Section -> the keys that are read once, when the server starts. None: all of them.
FIXED: Mapping[str, Any] = {
    "server": ("listen_addr", "socket_mode", "seal_key", "pid_file"),
    "store": None,
    "usage": ("path", "keep_days"),
    "search": (),
    "hosted_tools": (),
}


class Changes(NamedTuple):
    """The differences between two configurations.

    ``config`` is the new configuration with the old values where they cannot change.

    ``made``: what changes, such as ``models +fast -old`` or ``server.retries``.  ``refused``: the keys that
    need a restart.
    """

    config: Config
    made: List[str]
    refused: List[str]

    def __str__(self) -> str:
        parts = list(self.made)
        if self.refused:
            parts.append("needs a restart: " + ", ".join(self.refused))
        return "; ".join(parts) or "nothing has changed"


def changes(old: Config, new: Config) -> Changes:
    """Compare two configurations."""
    kept = replace(new, **{section: _with_fixed(old, new, section) for section in FIXED})
    made = [
        *_named("models", {m.model: m for m in old.models}, {m.model: m for m in new.models}),
        *_named("keys", _keys(old), _keys(kept)),
        *_named("mcp_servers", {s.name: s for s in old.mcp_servers}, {s.name: s for s in new.mcp_servers}),
        *(name for section in FIXED for name in _different(old, kept, section)),
    ]
    refused = [name for section in FIXED for name in _different(kept, new, section)]
    return Changes(kept, made, refused)


def _with_fixed(old: Config, new: Config, section: str) -> Any:
    before, after = getattr(old, section), getattr(new, section)
    names = FIXED[section]
    if names == ():
        return after
    return before if names is None else replace(after, **{name: getattr(before, name) for name in names})


def _keys(config: Config) -> Mapping[str, Any]:
    auth = config.server.auth
    return {key.name: key for key in auth.keys} if auth.enabled else {}


def _different(one: Config, other: Config, section: str) -> Iterator[str]:
    """The keys of a section that differ, except the clients' keys, which are named separately; the section
    itself if it is a single value.
    """
    first, second = getattr(one, section), getattr(other, section)
    if first is None or second is None:
        if first is not second:
            yield section
        return
    for field in fields(first):
        if field.name == "auth":
            if first.auth.enabled != second.auth.enabled:
                yield f"{section}.auth.enabled"
        elif getattr(first, field.name) != getattr(second, field.name):
            yield f"{section}.{field.metadata.get('name') or field.name}"


def _named(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """``models +new -gone ~changed``, or nothing."""
    marks: List[Tuple[str, str]] = [("+", name) for name in new if name not in old]
    marks += [("-", name) for name in old if name not in new]
    marks += [("~", name) for name in new if name in old and old[name] != new[name]]
    if marks:
        yield " ".join([what, *(mark + name for mark, name in marks)])
