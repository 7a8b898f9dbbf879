"""The newest releases of the clients, in a cache: what is installed, and which versions were known before."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
INSTALL_TIME = 900  # seconds
NODE = 22  # the oldest major version that the JavaScript clients of the judge run on
Versions = Dict[str, str]


class NotInstalled(Exception):
    """A package manager could not do it here; the text says why."""


# ---- Installing
def _run(argv: Sequence[str], cwd: Path) -> None:
    """:raises NotInstalled: the command is missing, fails, or takes too long"""
    try:
        done = subprocess.run(
            argv, cwd=str(cwd), timeout=INSTALL_TIME, capture_output=True, encoding="utf-8", errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{argv[0]}: {error}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise NotInstalled(f"{argv[0]} ended with status {done.returncode}: {lines[-1] if lines else ''}")


def install_python(folder: Path, packages: Sequence[str]) -> Versions:
    """The newest releases from PyPI that fit each other, in a virtual environment.

    :returns: the versions that are there now
    :raises NotInstalled: pip could not do it, or this Python is too old for the clients
    """
    if sys.version_info < (3, 10):
        raise NotInstalled("the clients need Python 3.10 or newer; set PYTHON and VENV for scripts/install")
    python = folder / "bin" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(folder)], folder)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--upgrade", "--upgrade-strategy", "eager", *packages], folder)
    listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, check=True).stdout
    there = {_normal(entry["name"]): entry["version"] for entry in json.loads(listed)}
    return {name: there[name] for name in map(name_of, packages)}


def install_node(folder: Path, packages: Sequence[str]) -> Versions:
    """The newest releases from npm, and Node itself where the installed one is too old.

    :returns: the versions that are there now
    :raises NotInstalled: npm could not do it
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "package.json"
    if not manifest.exists():
        manifest.write_text('{"private": true}\n', encoding="utf-8")
    npm = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
    _run([*npm, *(name + "@latest" for name in packages)], folder)
    if not _node_is_new():
        _run([*npm, f"node@{NODE}"], folder)
    return {name: _node_version(folder, name) for name in packages}


def _node_is_new() -> bool:
    try:
        told = subprocess.run(["node", "--version"], capture_output=True, encoding="utf-8").stdout
    except OSError:
        return False
    found = re.match(r"v(\d+)", told)
    return found is not None and int(found[1]) >= NODE


def _node_version(folder: Path, name: str) -> str:
    manifest = folder / "node_modules" / name / "package.json"
    return str(json.loads(manifest.read_text(encoding="utf-8"))["version"])


def codex_binary(folder: Path) -> Path:
    """The native program of Codex; npm's launcher could leave it running.

    :raises NotInstalled: it is not there
    """
    found = sorted(folder.glob("node_modules/@openai/codex*/vendor/*/bin/codex"))
    if not found:
        raise NotInstalled(f"no native codex below {folder}")
    return found[0]


# ---- Names and the versions known before
def name_of(requirement: str) -> str:
    """``openai[realtime]==3.54.0`` -> ``openai``"""
    return _normal(re.split(r"[\[<>=!~; ]", requirement.strip(), maxsplit=1)[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unpinned(requirement: str) -> str:
    """``openai[realtime]==3.54.0`` -> ``openai[realtime]``"""
    return re.split(r"[<>=!~; ]", requirement.strip(), maxsplit=1)[0]


def requirements(path: Path) -> List[str]:
    """The lines of a requirements file that name a package."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def python_pins(lines: Sequence[str]) -> Versions:
    """The exact versions in the lines of a requirements file."""
    return {name_of(line): line.split("==")[1] for line in lines if "==" in line}


def codex_pin(script: Path) -> Optional[str]:
    """The version of Codex that the script of the whole check names."""
    if not script.exists():
        return None
    found = re.search(r"^CODEX_VERSION=([\d.]+)", script.read_text(encoding="utf-8"), re.M)
    return found[1] if found else None


class Seen:
    """The versions of the last run, for the packages that nothing pins; a file in the cache."""

    def __init__(self, cache: Path) -> None:
        self._path = cache / "seen.json"
        self.versions: Versions = {}
        if self._path.exists():
            self.versions = json.loads(self._path.read_text(encoding="utf-8"))

    def remember(self, versions: Mapping[str, str]) -> None:
        self.versions.update(versions)
        fresh = self._path.with_name("seen.json.new")
        fresh.write_text(json.dumps(self.versions, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(fresh, self._path)
