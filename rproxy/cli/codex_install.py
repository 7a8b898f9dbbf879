"""The installed Codex: where it is, whether it is new enough, and the models that it brings along.

Sources: Codex CLI 0.169 and 0.171, measured.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import List, NamedTuple, Sequence

from ..json_codec import UNREADABLE
from ..types import Json
from .codex_profile import CodexError
from .command import Environ

OLDEST = (0, 134, 0)  # the first Codex that reads profile files
INSTALL = "npm install -g @openai/codex"
CALL_TIMEOUT = 30.0  # seconds, for the short calls
# The place of the program that the npm package's launcher starts; killing the launcher may leave the program
# running.
NATIVE = (
    "node_modules/@openai/codex-*/vendor/*/bin/codex*",
    "../codex-*/vendor/*/bin/codex*",
    "vendor/*/bin/codex*",
)
NO_DAEMON = "--no-daemon"
PROGRAMS = ("codex", "codex.exe")


class Installed(NamedTuple):
    """The program and its version."""

    path: str
    version: str

    def bundled(self, environ: Environ) -> List[Json]:
        """The models that Codex knows by itself, with its prompts; empty if it cannot list them."""
        done = _call([self.path, "debug", "models", "--bundled"], environ)
        with contextlib.suppress(*UNREADABLE, LookupError, TypeError):
            return [model for model in json.loads(done.stdout)["models"] if isinstance(model, dict)]
        return []

    def without_daemon(self, args: Sequence[str], environ: Environ) -> List[str]:
        """The option that runs Codex without its background server, where this version has it.

        Settings on the command line already keep Codex from using that server; with the option, Codex does
        not warn about it at each start.

        :param args: the user's own arguments; Codex takes the option only once, and not with ``--remote``
        """
        if any(arg.split("=", 1)[0] in (NO_DAEMON, "--remote") for arg in args):
            return []
        options = _call([self.path, "--help"], environ).stdout.split()
        return [NO_DAEMON] if NO_DAEMON in options else []


def find_codex(environ: Environ) -> Installed:
    """The Codex that $CODEX_BIN names, otherwise the one in $PATH.

    :raises CodexError: when there is none, or it is too old
    """
    named = environ.get("CODEX_BIN")
    path = shutil.which(named or "codex", path=environ.get("PATH"))
    if path is None:
        raise CodexError(
            f"$CODEX_BIN is {named}, which is not an executable program"
            if named
            else f"there is no codex in $PATH. Install it ({INSTALL}), or name the program in $CODEX_BIN"
        )
    path = _native(path)
    output = _call([path, "--version"], environ).stdout
    found = re.search(r"(?<!\d)(\d+)\.(\d+)\.(\d+)", output)
    if not found:
        raise CodexError(f"{path} does not look like Codex: its --version prints {output.strip()[:100]!r}")
    if tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise CodexError(
            f"{path} is Codex {found[0]}; rproxy needs {oldest} or newer. Update it: {INSTALL}@latest"
        )
    return Installed(path, found[0])


def _native(path: str) -> str:
    """The native program behind npm's launcher; ``path`` itself if it is not a launcher."""
    launcher = Path(path).resolve()
    if launcher.name != "codex.js":
        return path
    package = launcher.parent.parent
    candidates = (found for pattern in NATIVE for found in _glob(package, pattern))
    return next((str(found) for found in candidates if found.name in PROGRAMS), path)


def _glob(package: Path, pattern: str) -> List[Path]:
    while pattern.startswith("../"):
        package, pattern = package.parent, pattern[3:]
    return sorted(package.glob(pattern))


def _call(argv: List[str], environ: Environ) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=CALL_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CodexError(f"cannot run {shlex.join(argv)}: {error}") from None
