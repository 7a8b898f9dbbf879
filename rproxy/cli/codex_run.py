"""A run of Codex on rproxy: its models, its settings, and the two processes.

:func:`run_embedded` starts rproxy on a free port of this machine, with a key made for this run, and the
installed Codex beside it, with ``-c`` settings that point to rproxy (:mod:`rproxy.cli.codex_profile`).  No
file of the user is changed; the one file that Codex needs, a catalog of the configured models, is in a
temporary folder that is removed after the run.  The catalog is built from an entry that the installed Codex
brings along (``codex debug models --bundled``), so that Codex keeps its own prompt
(:mod:`rproxy.service.catalog`).

Signals are passed on to Codex, and its exit status is passed back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import tempfile
from dataclasses import replace
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ..config.addresses import ListenAddress, is_loopback
from ..config.schema import Auth, Config, Key
from ..errors import KeyRefused
from ..json_codec import UNREADABLE
from ..server.app import embedded
from ..service.catalog import SEARCH_FIELD, codex_entry, models_body, with_prompt_of
from ..types import Json
from .codex_install import CALL_TIMEOUT, Installed
from .codex_profile import CodexError, CodexProfile, Settings
from .command import KEY_VARIABLE, Environ, complain, key_of, nothing_answers

ANY_KEY = "rproxy"  # for a server without authentication: Codex wants a key all the same
PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
FROM_TERMINAL = ("SIGINT", "SIGQUIT")


class Call(NamedTuple):
    """How the user calls Codex: its arguments, and the model that the user has named.

    ``about``: the text of the line at the start besides the model; None: there is no such line.
    """

    args: Sequence[str]
    model: Optional[str]
    about: Optional[str] = None


# ---- Models
def wanted_model(args: Sequence[str]) -> Optional[str]:
    """The model that the arguments for Codex name: ``-m NAME``, ``--model NAME``, ``--model=NAME``."""
    for here, after in zip(args, [*args[1:], ""]):
        if here in ("-m", "--model"):
            return after
        if here.startswith("--model="):
            return here[len("--model=") :]
    return None


def entries_of(config: Config, wanted: Optional[str]) -> List[Json]:
    """The catalog entries of the configured models, and of the ``wanted`` one if a glob answers for it."""
    entries: List[Json] = models_body(config)["models"]
    if wanted and all(entry["slug"] != wanted for entry in entries):
        model = config.route(wanted)
        if model is not None:
            entries.append(codex_entry(model, len(entries) + 1, config, wanted))
    return entries


def fetched_entries(base_url: str, environ: Environ) -> List[Json]:
    """The catalog entries of a running rproxy.

    :raises ConfigError: the user's key cannot be sent
    :raises Unreachable: nothing answers there
    :raises KeyRefused: it does not take the key
    :raises CodexError: something else answers
    """
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        base_url + "/models", headers={"Authorization": f"Bearer {key_of(environ) or ANY_KEY}"}
    )
    proxies: Optional[Dict[str, str]] = {} if is_loopback(urlsplit(base_url).hostname or "") else None
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler(proxies)).open(
            request, timeout=CALL_TIMEOUT
        ) as answer:
            entries = json.load(answer)["models"]
            return [{**entry, "base_instructions": entry["base_instructions"]} for entry in entries]
    except urllib.error.HTTPError as error:
        text = f"{base_url}/models answers {error.code}"
        if error.code == 401:
            raise KeyRefused(f"{text}; put one of its keys into ${KEY_VARIABLE}") from None
        raise CodexError(text) from None
    except OSError as error:
        raise nothing_answers(base_url, getattr(error, "reason", error)) from None
    except (*UNREADABLE, LookupError, TypeError):
        raise CodexError(f"{base_url} is not an rproxy: its /models lists no models for Codex") from None


def first_model(entries: Sequence[Json]) -> str:
    """The model that Codex uses when none is named.

    :raises CodexError: when there is none
    """
    slug = next((str(entry["slug"]) for entry in entries if entry.get("visibility") == "list"), None)
    if slug is None:
        raise CodexError("no model is configured by name; name one: rproxy codex -m NAME")
    return slug


def has_search(entries: Sequence[Json]) -> bool:
    """Does the rproxy of these catalog entries answer web searches?"""
    return any(SEARCH_FIELD in entry for entry in entries)


# ---- A run
async def run_embedded(config: Config, codex: Installed, call: Call, environ: Environ) -> int:
    """Start rproxy on a free port, and Codex on it.

    :returns: Codex's exit status
    """
    key = secrets.token_urlsafe(24)
    server = replace(
        config.server,
        listen_addr=(ListenAddress("127.0.0.1"),),
        tls=None,
        auth=Auth(True, (Key("codex", key),)),
    )
    entries = entries_of(config, call.model)
    model = call.model or first_model(entries)
    with contextlib.ExitStack() as last, catalog_file(codex, entries, environ) as catalog:
        async with embedded(replace(config, server=server)) as url:
            return await run_codex(
                codex,
                Settings(url + "/v1", model, catalog, KEY_VARIABLE, has_search(entries)),
                call,
                {**environ, KEY_VARIABLE: key},
                last,
            )


async def run_on(base_url: str, codex: Installed, call: Call, environ: Environ) -> int:
    """Start Codex on the rproxy that runs at ``base_url``.

    :returns: Codex's exit status
    """
    entries = fetched_entries(base_url, environ)
    model = call.model or first_model(entries)
    with contextlib.ExitStack() as last, catalog_file(codex, entries, environ) as catalog:
        return await run_codex(
            codex,
            Settings(base_url, model, catalog, KEY_VARIABLE, has_search(entries)),
            call,
            {**environ, KEY_VARIABLE: key_of(environ) or ANY_KEY},
            last,
        )


@contextlib.contextmanager
def catalog_file(codex: Installed, entries: Sequence[Json], environ: Environ) -> Iterator[str]:
    """A context with the path of a catalog that exists while it lasts."""
    with tempfile.TemporaryDirectory(prefix="rproxy-codex-") as folder:
        path = os.path.join(folder, "models.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write(catalog_text(codex, entries, environ))
        yield path


def catalog_text(codex: Installed, entries: Sequence[Json], environ: Environ) -> str:
    """A catalog of the entries, with Codex's own prompt if it shows that."""
    bundled = codex.bundled(environ)
    if not bundled:
        complain(
            f"Codex {codex.version} does not show its own prompt (codex debug models --bundled); rproxy's "
            "takes its place"
        )
    models = with_prompt_of(entries, bundled) if bundled else list(entries)
    return json.dumps({"models": models}, ensure_ascii=False)


async def run_codex(
    codex: Installed, settings: Settings, call: Call, environ: Environ, last: contextlib.ExitStack
) -> int:
    """Run Codex in our terminal, and pass signals on to it.

    :param last: left when everything else is closed; until then a second Ctrl-C must not end rproxy
    :returns: its exit status; 128 + N when signal N ended it
    """
    daemon = codex.without_daemon(call.args, environ)
    argv = [codex.path, *settings.overrides(), *daemon, *call.args]
    if call.about is not None:
        complain(f"Codex {codex.version} on {settings.model}, {call.about}")
    process = await asyncio.create_subprocess_exec(*argv, env=_reachable(settings.base_url, environ))
    try:
        last.enter_context(passed_on(process))
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
    return status if status >= 0 else 128 - status


def _reachable(base_url: str, environ: Environ) -> Dict[str, str]:
    """The environment, with an exception from the user's HTTP proxy if rproxy runs on this machine."""
    host = urlsplit(base_url).hostname or ""
    if not is_loopback(host):
        return dict(environ)
    named = environ.get("NO_PROXY") or environ.get("no_proxy")
    direct = f"{named},{host}" if named else host
    return {**environ, "NO_PROXY": direct, "no_proxy": direct}


@contextlib.contextmanager
def passed_on(process: asyncio.subprocess.Process) -> Iterator[None]:
    """A context in which signals to rproxy go to ``process`` instead."""
    loop = asyncio.get_running_loop()
    names = {getattr(signal, name): name for name in PASSED_ON if hasattr(signal, name)}

    def send(number: int) -> None:
        if names[number] in FROM_TERMINAL and _in_foreground():
            return  # the terminal has sent it to Codex, too
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    # not every loop of asyncio can handle signals
    former = {
        number: signal.signal(number, lambda number, frame: loop.call_soon_threadsafe(send, number))
        for number in names
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Does the terminal send its signals to this process and its children?"""
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False


# ---- The profile, for a running rproxy serve
def configured_settings(config: Config, profile: CodexProfile, call: Call) -> Tuple[Settings, List[Json]]:
    """The settings of Codex for ``rproxy serve`` with this configuration, and the entries of its catalog."""
    entries = entries_of(config, call.model)
    address = next((one for one in config.server.listen_addr if not one.path), None)
    if address is None:
        raise CodexError("Codex needs a TCP address in server.listen_addr; it cannot use a Unix socket")
    return Settings(
        address.url(config.server.tls is not None) + "/v1",
        call.model or first_model(entries),
        str(profile.catalog),
        KEY_VARIABLE if config.server.auth.enabled else None,
        has_search(entries),
    ), entries


def fetched_settings(
    base_url: str, profile: CodexProfile, call: Call, environ: Environ
) -> Tuple[Settings, List[Json]]:
    """The settings of Codex for the rproxy that runs at ``base_url``, and the entries of its catalog.

    :raises RproxyError: see :func:`fetched_entries`
    """
    entries = fetched_entries(base_url, environ)
    return Settings(
        base_url,
        call.model or first_model(entries),
        str(profile.catalog),
        KEY_VARIABLE if key_of(environ) else None,
        has_search(entries),
    ), entries
