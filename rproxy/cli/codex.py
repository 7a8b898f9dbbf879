"""``rproxy codex``: from a key to a running Codex.

A run starts rproxy on a free port of this machine, with a key made for this run, and the installed Codex
beside it, told by ``-c`` overrides to use it (:mod:`rproxy.cli.codex_profile`).  No file of the user is read
or written by rproxy; the one file that Codex needs, a catalog of the configured models, lies in a temporary
folder that ends with the run.  The catalog is built from an entry that the installed Codex brings along
(``codex debug models --bundled``), so that Codex' own prompt stays whole (:mod:`rproxy.service.catalog`).

Signals go on to Codex, and its exit status comes back.

Sources: Codex CLI 0.169, measured; profiles as files exist since 0.134.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ..config.addresses import is_loopback, split_address
from ..config.schema import Auth, Config
from ..server.app import embedded
from ..service.catalog import codex_entry, models_body, with_prompt_of
from ..types import Json
from .codex_profile import CodexError, Profile, Settings

Environ = Mapping[str, str]

OLDEST = (0, 134, 0)  # the first Codex that reads profile files
INSTALL = "npm install -g @openai/codex"
KEY_VARIABLE = "RPROXY_API_KEY"  # where Codex finds the key for rproxy
ANY_KEY = "rproxy"  # for a server without authentication: Codex wants a key with env_key
PATIENCE = 30.0  # seconds for the short calls of Codex, and for a running rproxy to answer
PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
# Where the npm package keeps the program that its launcher starts; a killed launcher may leave it running.
NATIVE = (
    "node_modules/@openai/codex-*/vendor/*/bin/codex*",
    "../codex-*/vendor/*/bin/codex*",
    "vendor/*/bin/codex*",
)
PROGRAMS = ("codex", "codex.exe")


# ---- the installed Codex
class Installed(NamedTuple):
    """The program and its version."""

    path: str
    version: str

    def bundled(self, environ: Environ) -> List[Json]:
        """The models that Codex knows by itself, with its prompts; an empty list if it does not tell."""
        done = _call([self.path, "debug", "models", "--bundled"], environ)
        with contextlib.suppress(ValueError, LookupError, TypeError):
            return [model for model in json.loads(done.stdout)["models"] if isinstance(model, dict)]
        return []


def find_codex(environ: Environ) -> Installed:
    """The Codex that $CODEX_BIN names, else the one in $PATH.

    :raises CodexError: when there is none, or it is too old
    """
    named = environ.get("CODEX_BIN")
    path = shutil.which(named or "codex", path=environ.get("PATH"))
    if path is None:
        raise CodexError(
            f"$CODEX_BIN is {named}, which is no program that can be run"
            if named
            else f"there is no codex in $PATH. Install it ({INSTALL}), or name its program in $CODEX_BIN"
        )
    path = _native(path)
    said = _call([path, "--version"], environ).stdout
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    if not found:
        raise CodexError(f"{path} does not look like Codex: its --version says {said.strip()[:100]!r}")
    if tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise CodexError(
            f"{path} is Codex {found[0]}; rproxy needs {oldest} or newer. Update it: {INSTALL}@latest"
        )
    return Installed(path, found[0])


def _native(path: str) -> str:
    """The native program behind npm's launcher; the path itself if it is none."""
    launcher = Path(path).resolve()
    if launcher.name != "codex.js":
        return path
    package = launcher.parent.parent
    return next(
        (str(found) for pattern in NATIVE for found in _glob(package, pattern) if found.name in PROGRAMS),
        path,
    )


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
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CodexError(f"cannot run {shlex.join(argv)}: {error}") from None


# ---- the models
def wanted_model(args: Sequence[str]) -> Optional[str]:
    """The model that the arguments for Codex name: ``-m NAME``, ``--model NAME``, ``--model=NAME``."""
    for here, after in zip(args, [*args[1:], ""]):
        if here in ("-m", "--model"):
            return after
        if here.startswith("--model="):
            return here[len("--model=") :]
    return None


def entries_of(config: Config, wanted: Optional[str]) -> List[Json]:
    """The catalog's entries for the configured models, and for the ``wanted`` one if a glob answers for it."""
    entries: List[Json] = models_body(config)["models"]
    if wanted and all(entry["slug"] != wanted for entry in entries):
        model = config.route(wanted)
        if model is not None:
            entries.append(codex_entry(model, len(entries) + 1, config, wanted))
    return entries


def fetched_entries(base_url: str, environ: Environ) -> List[Json]:
    """The entries of a running rproxy. :raises CodexError: when it does not answer as one"""
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        base_url + "/models", headers={"Authorization": "Bearer " + environ.get(KEY_VARIABLE, ANY_KEY)}
    )
    proxies: Optional[Dict[str, str]] = {} if is_loopback(urlsplit(base_url).hostname or "") else None
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler(proxies)).open(
            request, timeout=PATIENCE
        ) as answer:
            entries = json.load(answer)["models"]
            return [{**entry, "base_instructions": entry["base_instructions"]} for entry in entries]
    except urllib.error.HTTPError as error:
        hint = f"; put one of its keys into ${KEY_VARIABLE}" if error.code == 401 else ""
        raise CodexError(f"{base_url}/models answers {error.code}{hint}") from None
    except OSError as error:
        raise CodexError(
            "nobody answers at {} ({}). Start it with: rproxy serve".format(
                base_url, getattr(error, "reason", error)
            )
        ) from None
    except (ValueError, LookupError, TypeError):
        raise CodexError(f"{base_url} is not an rproxy: its /models lists no models for Codex") from None


def first_model(entries: Sequence[Json]) -> str:
    """The model that Codex uses when nobody names one. :raises CodexError: when there is none"""
    slug = next((str(entry["slug"]) for entry in entries if entry.get("visibility") == "list"), None)
    if slug is None:
        raise CodexError("no model is configured by name; name one: rproxy codex -- -m NAME")
    return slug


# ---- a run
async def run_embedded(config: Config, codex: Installed, args: Sequence[str], environ: Environ) -> int:
    """Start rproxy on a free port and Codex on it. :returns: Codex' exit status"""
    key, wanted = secrets.token_urlsafe(24), wanted_model(args)
    server = replace(config.server, listen_addr="127.0.0.1:0", auth=Auth(enabled=True, keys=(key,)))
    entries = entries_of(config, wanted)
    model = wanted or first_model(entries)
    with contextlib.ExitStack() as last, catalog_file(codex, entries, environ) as catalog:
        async with embedded(replace(config, server=server)) as url:
            return await run_codex(
                codex,
                Settings(url + "/v1", model, catalog, KEY_VARIABLE),
                args,
                {**environ, KEY_VARIABLE: key},
                last,
            )


async def run_on(base_url: str, codex: Installed, args: Sequence[str], environ: Environ) -> int:
    """Start Codex on the rproxy that runs at ``base_url``. :returns: Codex' exit status"""
    entries = fetched_entries(base_url, environ)
    model = wanted_model(args) or first_model(entries)
    with contextlib.ExitStack() as last, catalog_file(codex, entries, environ) as catalog:
        return await run_codex(
            codex,
            Settings(base_url, model, catalog, KEY_VARIABLE),
            args,
            {KEY_VARIABLE: ANY_KEY, **environ},
            last,
        )


@contextlib.contextmanager
def catalog_file(codex: Installed, entries: Sequence[Json], environ: Environ) -> Iterator[str]:
    """The path of a catalog that exists as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="rproxy-codex-") as folder:
        path = os.path.join(folder, "models.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write(catalog_text(codex, entries, environ))
        yield path


def catalog_text(codex: Installed, entries: Sequence[Json], environ: Environ) -> str:
    """The entries with Codex' own prompt, where it tells it."""
    bundled = codex.bundled(environ)
    if not bundled:
        print(
            f"rproxy: Codex {codex.version} does not show its own prompt (codex debug models --bundled); rproxy's takes its place",
            file=sys.stderr,
        )
    return json.dumps(
        {"models": with_prompt_of(entries, bundled) if bundled else list(entries)}, ensure_ascii=False
    )


async def run_codex(
    codex: Installed, settings: Settings, args: Sequence[str], environ: Environ, last: contextlib.ExitStack
) -> int:
    """Run Codex in our terminal, and pass signals on to it. :returns: its exit status; 128 + N when signal N
    ended it

    :arg last: is left when everything else is closed; until then a second Ctrl-C must not end rproxy
    """
    argv = [codex.path, *settings.overrides(), *args]
    process = await asyncio.create_subprocess_exec(*argv, env=_reachable(settings.base_url, environ))
    try:
        last.enter_context(passed_on(process))
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
    return status if status >= 0 else 128 - status


def _reachable(base_url: str, environ: Environ) -> Dict[str, str]:
    """The environment with an exception from the user's HTTP proxy: an rproxy on this machine is not to be
    asked for through it."""
    host = urlsplit(base_url).hostname or ""
    if not is_loopback(host):
        return dict(environ)
    named = environ.get("NO_PROXY") or environ.get("no_proxy")
    direct = f"{named},{host}" if named else host
    return {**environ, "NO_PROXY": direct, "no_proxy": direct}


@contextlib.contextmanager
def passed_on(process: asyncio.subprocess.Process) -> Iterator[None]:
    """Signals that come to rproxy go to ``process`` instead."""
    loop = asyncio.get_running_loop()
    numbers = [getattr(signal, name) for name in PASSED_ON if hasattr(signal, name)]

    def receive(number: int) -> None:
        if number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground():
            return  # the terminal has told Codex, too
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    with contextlib.suppress(NotImplementedError):  # Windows
        for number in numbers:
            loop.add_signal_handler(number, receive, number)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)


def _in_foreground() -> bool:
    """Does the terminal send its signals to this process and its children?"""
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False


# ---- the profile, for a running rproxy serve
def profile_settings(config: Config, profile: Profile, args: Sequence[str]) -> Tuple[Settings, List[Json]]:
    """What ``--print`` and ``--write`` tell of: Codex on ``rproxy serve`` with this configuration; and its
    catalog's entries."""
    entries = entries_of(config, wanted_model(args))
    host, port = split_address(config.server.listen_addr)
    if host in ("", "0.0.0.0", "::"):
        host = "127.0.0.1"
    base_url = "http://%s:%d/v1" % (f"[{host}]" if ":" in host else host, port)
    return Settings(
        base_url,
        wanted_model(args) or first_model(entries),
        str(profile.catalog),
        KEY_VARIABLE if config.server.auth.enabled else None,
    ), entries


def fetched_settings(
    base_url: str, profile: Profile, args: Sequence[str], environ: Environ
) -> Tuple[Settings, List[Json]]:
    """The same for the rproxy that runs at ``base_url``. :raises CodexError: when it does not answer"""
    entries = fetched_entries(base_url, environ)
    return Settings(
        base_url,
        wanted_model(args) or first_model(entries),
        str(profile.catalog),
        KEY_VARIABLE if environ.get(KEY_VARIABLE) else None,
    ), entries
