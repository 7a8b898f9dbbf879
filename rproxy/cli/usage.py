"""``rproxy usage``: turns, tokens and costs from the ledger."""

from __future__ import annotations

import argparse
import json
import re
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import List, Optional, Sequence

from ..errors import ConfigError, NothingConfigured, RproxyError
from ..telemetry.usage import GROUPS, usage
from ..types import Json
from .command import Command, Environ, columns, counted, read_config
from .exit_status import OK

DEFAULT_GROUPS = ("key", "model")
SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "CNY": "¥", "JPY": "¥"}
SIZES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
DAY = 86_400.0  # seconds
_DAYS = re.compile(r"(\d+)d\Z")


def since(text: str, now: float) -> float:
    """The beginning of a period, in seconds since the epoch.

    :param text: ``today``, ``7d`` or ``2026-11-01``; days are those of UTC
    :raises ValueError: it is something else
    """
    if text == "today":
        return now - now % DAY
    days = _DAYS.match(text)
    if days is not None:
        return now - int(days[1]) * DAY
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc).timestamp()


def table(entries: Sequence[Json], groups: Sequence[str]) -> List[str]:
    """One line for each entry, in columns."""
    rows = [
        [
            *(str(entry[group]) or "-" for group in groups),
            counted(entry["turns"], "turn"),
            f"{_short(entry['input'])} in ({_share(entry)} cached)",
            f"{_short(entry['output'])} out",
            _money(entry["cost"], entry["currency"]),
        ]
        for entry in entries
    ]
    return columns(rows, len(groups))


def _short(count: int) -> str:
    for size, unit in SIZES:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _share(entry: Json) -> str:
    return f"{100 * entry['cached'] / entry['input']:.0f} %" if entry["input"] else "0 %"


def _money(cost: Optional[float], currency: Optional[str]) -> str:
    if cost is None or currency is None:
        return ""
    amount = f"{cost:.2f}" if cost >= 0.01 or cost == 0 else f"{cost:.4f}"
    return f"{SYMBOLS[currency]}{amount}" if currency in SYMBOLS else f"{amount} {currency}"


def run(args: argparse.Namespace, environ: Environ) -> int:
    path = args.path
    if path is None:
        with suppress(NothingConfigured):
            path = read_config(args, environ, local=()).config.usage.path
    if path is None:
        raise ConfigError(
            "there is no usage ledger: set usage.path in the configuration, and each turn is recorded; "
            "or name a ledger with --path"
        )
    groups = tuple(dict.fromkeys(args.by or DEFAULT_GROUPS))
    try:
        entries = usage(path, args.since, groups)
    except OSError as error:
        raise RproxyError(f"cannot read the usage ledger {path}: {error}") from None
    if args.json:
        print(json.dumps(entries, indent=2))
    else:
        print("\n".join(table(entries, groups)) or "no turns in this period")
    return OK


def add_options(parser: argparse.ArgumentParser) -> None:
    def period(text: str) -> float:
        try:
            return since(text, time.time())
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a period; use today, 7d or a date such as 2026-11-01"
            ) from None

    parser.add_argument(
        "--since",
        metavar="WHEN",
        type=period,
        default="30d",
        help="today, 7d, or a date such as 2026-11-01, UTC; default: 30d",
    )
    parser.add_argument(
        "--by",
        action="append",
        choices=tuple(GROUPS),
        help="what to sum up by; may be repeated; default: key and model",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--path", metavar="FILE", help="the ledger, if the configuration does not name it")


COMMAND = Command("show turns, tokens and costs", "rproxy usage --since 7d --by key", run, add_options)
