"""Codex on this machine: is it installed, does it use this rproxy, and would it ask the user to sign in?

Its files are only read, and the secrets in them are not shown.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional
from urllib.parse import urlsplit

from ...config.addresses import is_loopback
from ...config.schema import Config
from ..codex_install import INSTALL, find_codex
from ..codex_profile import CodexError, CodexProfile
from ..command import Environ
from .check import OK, WARNING, Check

RUN = "rproxy codex runs it on rproxy without changing a file"
DAEMON = (
    "codex app-server daemon restart, in a shell that has the variable; rproxy codex does without that server"
)
_SETTING = re.compile(r'^[ \t]*(openai_base_url|base_url|env_key)\s*=\s*"([^"]*)"', re.M)


class Target(NamedTuple):
    """Where one file of Codex sends its requests.  ``env_key``: the variable for the key; ``own``: rproxy is
    a separate provider, for which Codex needs no login.
    """

    file: Path
    url: str
    env_key: str = ""
    own: bool = False


def codex_checks(config: Optional[Config], environ: Environ) -> Iterator[Check]:
    """The checks of Codex; a missing Codex is not an error.

    :param config: None if it cannot be used
    """
    try:
        installed = find_codex(environ)
    except CodexError as error:
        yield Check("Codex", WARNING, str(error), f"{INSTALL}, unless you do not want to use Codex")
        return
    yield Check("Codex", OK, f"{installed.path}, version {installed.version}")
    profile = CodexProfile.of("rproxy", environ)
    home = profile.toml.parent
    found = []
    for file in (home / "config.toml", profile.toml):
        try:
            found += _targets(file)
        except ValueError as error:
            yield Check("Codex: configuration", WARNING, f"{file}: {error}", "correct the file")
    here = next((one for one in found if config is not None and _is_here(one.url, config)), None)
    yield _configuration_check(here, found)
    if here is not None and here.env_key:
        yield _key_check(here, environ)
    yield _login_check(here, home, environ)
    yield _daemon_check(here, home, environ)


# ---- Its configuration
def _targets(file: Path) -> List[Target]:
    """:raises ValueError: it is not TOML"""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return []
    try:
        toml = import_module("tomllib")
    except ImportError:  # before Python 3.11
        return _targets_in_text(file, text)
    data: Dict[str, Any] = toml.loads(text)
    found = [Target(file, data["openai_base_url"])] if isinstance(data.get("openai_base_url"), str) else []
    chosen = (data.get("model_providers") or {}).get(data.get("model_provider"))
    if isinstance(chosen, dict) and isinstance(chosen.get("base_url"), str):
        found.insert(0, Target(file, chosen["base_url"], str(chosen.get("env_key") or ""), True))
    return found


def _targets_in_text(file: Path, text: str) -> List[Target]:
    """The same without a parser for TOML, from single lines."""
    lines = _SETTING.findall(text)
    key = next((value for name, value in lines if name == "env_key"), "")
    return [
        Target(file, value, key if name == "base_url" else "", name == "base_url")
        for name, value in lines
        if name != "env_key"
    ]


def _is_here(url: str, config: Config) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return False
    for address in config.server.listen_addr:
        same = is_loopback(parts.hostname or "") and (address.is_local or address.is_wildcard)
        if address.port == port and (same or parts.hostname == address.host):
            return True
    return False


def _configuration_check(here: Optional[Target], found: List[Target]) -> Check:
    name = "Codex: configuration"
    if here is not None:
        how = "" if here.file.name == "config.toml" else " (codex --profile rproxy)"
        return Check(name, OK, f"{here.file} points to this rproxy{how}")
    if found:
        where = f"{found[0].file} points to {found[0].url}, where this configuration does not listen"
        return Check(name, WARNING, where, f"rproxy codex --write, or correct the URL; {RUN}")
    remedy = f"{RUN}; for a profile: rproxy codex --write, then codex --profile rproxy"
    return Check(name, WARNING, "it does not point to this rproxy", remedy)


def _key_check(here: Target, environ: Environ) -> Check:
    name = "Codex: key"
    if environ.get(here.env_key):
        return Check(name, OK, f"${here.env_key} is set")
    remedy = f"export {here.env_key}=..., a key of server.auth, or any text if that is off"
    return Check(name, WARNING, f"${here.env_key}, from which Codex takes its key, is not set", remedy)


def _login_check(here: Optional[Target], home: Path, environ: Environ) -> Check:
    name, login = "Codex: login", _login(home)
    if login:
        return Check(name, OK, f"logged in with {login}")
    if here is None or here.own:
        return Check(name, OK, "not logged in, which is not needed on rproxy")
    return Check(
        name,
        WARNING,
        "not logged in: with openai_base_url, its terminal interface asks to sign in",
        "echo any | codex login --with-api-key (only rproxy checks the text)",
    )


def _login(home: Path) -> str:
    with suppress(OSError, ValueError):
        data = json.loads((home / "auth.json").read_text(encoding="utf-8"))
        if isinstance(data, dict):
            return "an API key" if data.get("OPENAI_API_KEY") else "ChatGPT" if data.get("tokens") else ""
    return ""


# ---- Its background server
def _daemon_check(here: Optional[Target], home: Path, environ: Environ) -> Check:
    """Does a background server have another key in its environment than a Codex that starts now?"""
    name, variable = "Codex: background server", here.env_key if here is not None else ""
    running = list(_daemons())
    if not running:
        left = (home / "app-server-daemon").exists() and not Path("/proc/self/environ").exists()
        return Check(name, OK, "whether one runs cannot be seen on this system" if left else "none runs")
    stale = [pid for pid, known in running if variable and known.get(variable) != environ.get(variable)]
    if not stale:
        return Check(name, OK, f"it runs (process {running[0][0]})")
    about = f"process {stale[0]} was started with another ${variable}, and Codex uses that one"
    return Check(name, WARNING, about, DAEMON)


def _daemons() -> Iterator[tuple[int, Dict[str, str]]]:
    """The processes of this user that are Codex's background server, and their environments."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = os.fsdecode((folder / "cmdline").read_bytes()).split("\0")
            programs = [os.path.basename(word) for word in words[:2]]
            if "app-server" not in words or not any(one.startswith("codex") for one in programs):
                continue
            variables = os.fsdecode((folder / "environ").read_bytes()).split("\0")
            yield int(folder.name), dict(one.split("=", 1) for one in variables if "=" in one)
