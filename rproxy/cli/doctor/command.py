"""``rproxy doctor``: check everything that can be wrong in one run, with a remedy for each problem."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from typing import List, Optional, Tuple

from ...config.load import find_config
from ...config.schema import Config
from ...errors import ConfigError, NothingConfigured
from ...log import clean
from .. import exit_status
from ..command import Command, Environ, counted, printable_lines
from .check import ERROR, OK, WARNING, Check

NOTHING_REMEDY = (
    "export a provider's key, such as DEEPSEEK_API_KEY=sk-..., or start a model server; then rproxy init. "
    "Without a key: rproxy serve --demo"
)
UNREAD_REMEDY = "name the file, or move it away"


def run(args: argparse.Namespace, environ: Environ) -> int:
    logging.getLogger().addHandler(logging.NullHandler())  # the checks below report what providers refuse
    config, checks, status = read(args, environ)
    checks += asyncio.run(all_checks(config, args, environ))
    secrets = () if config is None else config.secrets
    checks = [Check(*(clean(part, secrets) for part in check)) for check in checks]
    good = all(check.status != ERROR for check in checks)
    print(json.dumps(as_json(checks, good), indent=2) if args.json else as_text(checks, good))
    return status or (exit_status.OK if good else exit_status.FAILED)


def read(args: argparse.Namespace, environ: Environ) -> Tuple[Optional[Config], List[Check], int]:
    """The configuration, its checks, and the exit status if there is none."""
    from ..missing_keys import read_tolerantly
    from ..preflight import key_warnings

    name = "configuration"
    try:
        found = read_tolerantly(args, environ)
    except NothingConfigured as error:
        what = " ".join(str(error).partition(" Do one of these")[0].split())
        note = find_config(args.config, environ, command=args.command).note
        unread = [Check(name, WARNING, note, UNREAD_REMEDY)] if note else []
        return None, [Check(name, ERROR, what, NOTHING_REMEDY), *unread], exit_status.BAD_CONFIG
    except ConfigError as error:
        path = find_config(args.config, environ, command=args.command).path
        missing = path is not None and not os.path.exists(path)
        remedy = "name a file that exists" if missing else "correct the file; etc/config.yaml shows every key"
        checks = [Check(name, ERROR, str(one), remedy) for one in error.each]
        return None, checks, exit_status.BAD_CONFIG if missing else exit_status.OK
    checks = [Check(name, OK, found.source)]
    texts = [*found.config.warnings, *key_warnings(found.config, time.time())]
    checks += [Check(name, WARNING, text, "change that place of the configuration") for text in texts]
    if found.note:
        checks.append(Check(name, WARNING, found.note, UNREAD_REMEDY))
    return found.config, checks, exit_status.OK


async def all_checks(config: Optional[Config], args: argparse.Namespace, environ: Environ) -> List[Check]:
    """All checks except those of the configuration."""
    from .codex import codex_checks
    from .machine import clock_check, extras_check

    found = [] if config is None else await checks_of(config, args, environ)
    if config is None:
        found.append(clock_check([], time.time()))
    return [*found, extras_check(), *codex_checks(config, environ)]


async def checks_of(config: Config, args: argparse.Namespace, environ: Environ) -> List[Check]:
    """The checks that a configuration makes possible."""
    from .. import live
    from ..preflight import distinct_providers
    from .machine import clock_check, port_checks, store_checks
    from .providers import examine
    from .turns import try_models

    upstream = live.probing_upstream(config, environ)
    try:
        providers = distinct_providers(config)
        examined = await asyncio.gather(*(examine(one, upstream, environ) for one in providers))
        found = [check for one in examined for check in one.checks]
        found.append(clock_check([one.date for one in examined], time.time()))
        found += await port_checks(config, upstream)
        found += await store_checks(config)
        if args.live:
            usable = [provider for provider, one in zip(providers, examined) if one.usable]
            found += await try_models(config, usable, upstream, report)
    finally:
        upstream.close()
    return found


def report(text: str) -> None:
    """Show the user what is being done."""
    print(text, file=sys.stderr, flush=True)


# ---- Output
def as_json(checks: List[Check], good: bool) -> object:
    return {"ok": good, "checks": [check._asdict() for check in checks]}


def as_text(checks: List[Check], good: bool) -> str:
    from ..live import marks_for

    marks, lines = marks_for(sys.stdout), []
    for check in checks:
        lines.append(f"{marks[check.status]} {check.name}: {check.message}")
        if check.remedy:
            lines.append(f"    {check.remedy}")
    bad = sum(check.status == ERROR for check in checks)
    doubtful = sum(check.status == WARNING for check in checks)
    lines.append(f"{len(checks)} checks: {bad} failed, {counted(doubtful, 'warning')}")
    return printable_lines("\n".join(lines))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--live",
        action="store_true",
        help="also run three small turns with each model: a streamed one, one with a tool, one that thinks; "
        "they cost tokens",
    )
    parser.add_argument("--json", action="store_true", help="print an object: ok, checks")


COMMAND = Command("find out what is wrong, and what to do about it", "rproxy doctor --live", run, add_options)
