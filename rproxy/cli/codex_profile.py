"""The settings with which Codex uses rproxy, as arguments or as a profile in ``~/.codex``.

A profile is a file of settings beside Codex's own (``NAME.config.toml``, chosen with ``codex --profile
NAME``), so that no file of the user has to be edited.  Ours begins with ``MARK``: only such a file is ever
overwritten or removed, any other is kept aside.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from ..errors import RproxyError
from .command import Environ

MARK = "# Written by rproxy codex --write"
# From 0.169 on, Codex sends the model's searches to rproxy; an older one accepts the settings and does not.
SEARCH: Mapping[str, Any] = {
    "web_search": "live",
    "features.standalone_web_search": True,
    "suppress_unstable_features_warning": True,
}
NO_SEARCH: Mapping[str, Any] = {"web_search": "disabled"}  # there is no search service
HINT = f"{MARK}; rproxy codex --restore removes it."


class CodexError(RproxyError):
    """Codex cannot be started, or its files cannot be written; the text says what to do."""


@dataclass(frozen=True)
class Settings:
    """Codex's settings.  ``env_key`` None: rproxy asks for no key.  ``search``: it answers web searches."""

    base_url: str
    model: str
    catalog: str
    env_key: Optional[str]
    search: bool

    @property
    def key_prefix(self) -> str:
        """What precedes ``codex`` on a command line, so that it has the key."""
        return f"{self.env_key}=YOUR_KEY " if self.env_key else ""

    def table(self) -> Dict[str, Any]:
        """The settings as a table of Codex's configuration file."""
        provider: Dict[str, Any] = {
            "name": "rproxy",
            "base_url": self.base_url,
            "wire_api": "responses",
            "supports_websockets": True,
        }
        if self.env_key:
            provider["env_key"] = self.env_key
        if self.search:
            provider["supports_standalone_web_search"] = True
        return {
            "model": self.model,
            "model_provider": "rproxy",
            "model_catalog_json": self.catalog,
            **(SEARCH if self.search else NO_SEARCH),
            "model_providers": {"rproxy": provider},
        }

    def overrides(self) -> List[str]:
        """The settings as arguments of ``codex``."""
        table = self.table()
        providers = table.pop("model_providers")
        lines = [f"{key}={_toml(value)}" for key, value in table.items()]
        lines += [f"model_providers.{name}={_toml(value)}" for name, value in providers.items()]
        return [part for line in lines for part in ("-c", line)]

    def profile(self) -> str:
        """The settings as a file in ``~/.codex``."""
        table = self.table()
        providers = table.pop("model_providers")
        lines = [HINT] + [f"{key} = {_toml(value)}" for key, value in table.items()]
        for name, provider in providers.items():
            lines += ["", f"[model_providers.{name}]"] + [
                f"{key} = {_toml(value)}" for key, value in provider.items()
            ]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}={_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


class CodexProfile(NamedTuple):
    """The files of one profile in Codex's home."""

    toml: Path
    catalog: Path
    backup: Path

    @classmethod
    def of(cls, name: str, environ: Environ) -> CodexProfile:
        home = Path(environ.get("CODEX_HOME") or Path(environ.get("HOME") or Path.home()) / ".codex")
        return cls(
            home / (name + ".config.toml"),
            home / (name + ".models.json"),
            home / (name + ".config.toml.before-rproxy"),
        )

    @property
    def ours(self) -> bool:
        with contextlib.suppress(OSError):
            return self.toml.read_text(encoding="utf-8", errors="replace").startswith(MARK)
        return False

    def write(self, text: str, catalog: str) -> List[str]:
        """Write the profile; a file of the user is kept as ``backup``.

        :returns: what was done, for the user
        :raises CodexError: when there is a backup already
        """
        done = []
        if self.toml.exists() and not self.ours:
            if self.backup.exists():
                raise CodexError(
                    f"{self.toml} is not rproxy's, and {self.backup} exists already; move one of them away"
                )
            self.toml.rename(self.backup)
            done.append(f"kept {self.toml.name} as {self.backup}")
        self.toml.parent.mkdir(parents=True, exist_ok=True)
        for path, content in ((self.catalog, catalog), (self.toml, text)):
            fresh = path.with_name(path.name + ".new")
            fresh.write_text(content, encoding="utf-8")
            fresh.replace(path)  # Codex reads the old file or the new one, never a part of one
            done.append(f"wrote {path}")
        return done

    def restore(self) -> List[str]:
        """Remove the profile, and put the user's file back.

        :returns: what was done, for the user
        :raises CodexError: when it is not ours
        """
        if not self.ours:
            raise CodexError(f"{self.toml} was not written by rproxy codex --write; nothing was changed")
        self.toml.unlink()
        with contextlib.suppress(FileNotFoundError):
            self.catalog.unlink()
        if not self.backup.exists():
            return [f"removed {self.toml}"]
        self.backup.rename(self.toml)
        return [f"restored {self.toml}"]
