"""Sums of the usage ledger, which :mod:`.ledger` writes."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any, Dict, List, Sequence, Tuple
from urllib.parse import quote

from ..types import Json

LOCK_TIMEOUT = 2.0  # seconds to wait for a process that locks the file
# What usage can be grouped by -> its column. Days are those of UTC, as for tokens_per_day.
GROUPS = {
    "key": "key",
    "model": "model",
    "provider": "provider",
    "day": "strftime('%Y-%m-%d', time, 'unixepoch')",
}


def usage(path: str, since: float, groups: Sequence[str]) -> List[Json]:
    """The sums of the ledger, largest number of tokens first.

    :param since: seconds since the epoch
    :param groups: keys of ``GROUPS``
    :returns: one object for each combination: the groups, ``turns``, tokens by kind, ``cost`` and
        ``currency`` (null without prices)
    :raises OSError: the file cannot be read
    """
    columns = [f"{GROUPS[name]} AS {name}" for name in groups]
    sums = [f"sum({kind}) AS {kind}" for kind in ("input", "cached", "output", "reasoning", "cost")]
    selected = ", ".join([*columns, "count(*) AS turns", *sums, "currency"])
    by = ", ".join([GROUPS[name] for name in groups] + ["currency"])
    import sqlite3  # loaded only where it is used

    # Those without a currency come last.
    query = f"SELECT {selected} FROM turns WHERE time >= ? GROUP BY {by} ORDER BY currency IS NULL"
    try:
        uri = f"file:{quote(os.path.abspath(path))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT)) as db:
            db.row_factory = sqlite3.Row
            entries = [dict(row) for row in db.execute(query, (since,))]
    except sqlite3.Error as error:
        raise OSError(str(error)) from error
    return sorted(_merged(entries, groups), key=lambda entry: -(entry["input"] + entry["output"]))


def _merged(entries: Sequence[Json], groups: Sequence[str]) -> List[Json]:
    """The entries, with the turns without a price added to those of the same group that have one."""
    merged: Dict[Tuple[Any, ...], Json] = {}
    for entry in entries:
        group = tuple(entry[name] for name in groups)
        same = merged.get(group) if entry["currency"] is None else None
        if same is None:
            merged[group if group not in merged else (*group, entry["currency"])] = entry
        else:
            for name in ("turns", "input", "cached", "output", "reasoning"):
                same[name] += entry[name]
    return list(merged.values())


def tokens_by_key(path: str, since: float) -> Dict[str, int]:
    """Name of a key -> its input and output tokens since then.

    :raises OSError: the file cannot be read
    """
    return {entry["key"]: entry["input"] + entry["output"] for entry in usage(path, since, ["key"])}
