"""The tables of ``scripts/bench``: Markdown that fits a terminal of 100 columns, and where it belongs.

``--readme`` puts the tables between marks in the documents: ``README.md`` has a summary, and
``docs/performance.md`` has all figures. Everything here is a function of the medians:
name of the variant -> name of the figure -> value.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

Medians = Mapping[str, Mapping[str, float]]


class Column(NamedTuple):
    figure: str
    heading: str
    shape: str


COLUMNS = {
    column.figure: column
    for column in (
        Column("live", "live, µs/delta", "%.0f"),
        Column("burst", "burst, µs/delta", "%.1f"),
        Column("rate", "deltas/s", "%.0f"),
        Column("turn", "ms/turn", "%.2f"),
        Column("codex", "Codex, ms", "%.2f"),
        Column("history", "500 KB, ms", "%.2f"),
        Column("chain", "chain, ms", "%.2f"),
        Column("scale_turns", "Codex turns/s", "%.0f"),
        Column("scale_rate", "deltas/s of 8 answers", "%.0f"),
        Column("first50", "first delta p50, ms", "%.1f"),
        Column("first99", "p99, ms", "%.1f"),
        Column("rss", "idle, MB", "%.0f"),
        Column("quiet", "KB/stream", "%.0f"),
        Column("start", "start, s", "%.2f"),
    )
}
CPU = ("live", "burst", "rate", "turn")
LARGE = ("turn", "codex", "history", "chain")
LATENCY_AND_MEMORY = ("first50", "first99", "rss", "quiet", "start")
SCALE = ("scale_turns", "scale_rate")
SUMMARY = ("live", "rate", "first50", "rss")


class Ratio(NamedTuple):
    """One row: ``figure`` of ``mine`` divided by (or minus) that of ``other``."""

    text: str
    figure: str
    mine: str
    other: str
    operator: str
    target: Optional[float]


SSE, FAST, NAIVE = "rproxy, SSE", "rproxy [fast], SSE", "naive Tornado translator"
RATIOS = (
    Ratio("live CPU / nginx relay", "live", SSE, "nginx proxy_pass (bytes)", "/", 2.2),
    Ratio("live CPU / naive translator", "live", SSE, NAIVE, "/", 0.4),
    Ratio("live CPU, WebSocket / SSE", "live", "rproxy, WebSocket", SSE, "/", 1.6),
    Ratio("burst CPU / naive translator", "burst", SSE, NAIVE, "/", 0.35),
    Ratio("live CPU, [fast] / nginx relay", "live", FAST, "nginx proxy_pass (bytes)", "/", 1.95),
    Ratio("CPU per turn, 33 KB, [fast] / without", "codex", FAST, SSE, "/", None),
    Ratio("CPU per turn, 500 KB, [fast] / without", "history", FAST, SSE, "/", None),
    Ratio("CPU per turn, 33 KB, [fast] / codex-relay", "codex", FAST, "codex-relay (Rust)", "/", 1.25),
    Ratio("CPU per turn, 500 KB, [fast] / codex-bridge", "history", FAST, "codex-bridge-python", "/", 0.5),
    Ratio("first delta - no proxy, p50, ms", "first50", SSE, "no proxy", "-", 1.2),
    Ratio("first delta, [fast] - no proxy, p50, ms", "first50", FAST, "no proxy", "-", 1.0),
    Ratio("first delta - no proxy, p99, ms", "first99", SSE, "no proxy", "-", 4.0),
    Ratio("first delta with TLS / naive translator", "first50", SSE + ", TLS", NAIVE + ", TLS", "/", 0.3),
    Ratio("CPU per turn with TLS / naive translator", "turn", SSE + ", TLS", NAIVE + ", TLS", "/", None),
)


def markdown(rows: Sequence[Sequence[str]], left: bool = False) -> List[str]:
    """The lines of a table; the first row is its head. Columns are padded, numbers stand on the right.

    :param left: there are no numbers
    """
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    justify, end = (str.ljust, "-") if left else (str.rjust, ":")
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(justify, row[1:], widths[1:])]) + " |"
        for row in rows
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + end for width in widths[1:])]) + "|"
    return [lines[0], rule, *lines[1:]]


def figures(medians: Medians, names: Sequence[str], columns: Sequence[str]) -> List[str]:
    """The table of these variants and figures; what was not measured stays blank."""
    chosen = [COLUMNS[figure] for figure in columns]
    rows = [["", *(column.heading for column in chosen)]]
    for name in names:
        found = medians[name]
        rows.append([name, *(c.shape % found[c.figure] if c.figure in found else "" for c in chosen)])
    return markdown(rows)


def ratios(medians: Medians, python_peers: Sequence[str]) -> List[str]:
    """The table of ratios; a row whose figures were not measured is left out."""
    rows = [["ratio or difference", "here", "target"]]
    for ratio in RATIOS:
        try:
            mine, other = medians[ratio.mine][ratio.figure], medians[ratio.other][ratio.figure]
        except KeyError:
            continue
        value = mine / other if ratio.operator == "/" else mine - other
        rows.append([ratio.text, f"{value:.2f}", "" if ratio.target is None else f"at most {ratio.target:g}"])
    rates = [medians[name]["rate"] for name in python_peers if "rate" in medians.get(name, {})]
    if rates and "rate" in medians.get(SSE, {}):
        best = medians[SSE]["rate"] / max(rates)
        rows.append(["deltas/s / best Python peer", f"{best:.1f}", "at least 2"])
    return markdown(rows)


def comparison(medians: Medians, mine: str, other: str) -> List[str]:
    """The figures of the rows called ``mine, ...`` divided by those of ``other, ...``.

    What only one of them has stays blank.
    """
    pairs = {name: medians.get(name.replace(mine, other, 1), {}) for name in medians if name.startswith(mine)}
    measured = [
        column for column in COLUMNS.values() if any(column.figure in theirs for theirs in pairs.values())
    ]
    rows = [[f"divided by: {other}", *(column.heading.partition(",")[0] for column in measured)]]
    for name, theirs in pairs.items():
        figures = (column.figure for column in measured)
        rows.append([name, *(f"{medians[name][f] / theirs[f]:.2f}" if f in theirs else "" for f in figures)])
    return markdown([row for row in rows if any(row[1:])])


def blocks(
    medians: Medians, python_peers: Sequence[str], about: Mapping[str, str], machine: str, rounds: int
) -> Dict[str, str]:
    """The text of each marked block, by the name of its mark.

    :param medians: in the order of the rows
    :param about: name of the variant -> what its row stands for
    """
    heading = [f"Measured on {machine}.", f"Medians of {rounds} rounds.", ""]

    def rows(columns: Sequence[str]) -> List[str]:
        return [name for name, found in medians.items() if any(figure in found for figure in columns)]

    compared = [name for name, found in medians.items() if "rate" in found]
    stands_for = [["row", "what it stands for"], *([name, about[name]] for name in medians if name in about)]
    return {
        "summary": "\n".join(figures(medians, compared, SUMMARY)) + "\n",
        "figures": "\n".join(
            [
                *heading,
                *figures(medians, rows(CPU), CPU),
                "",
                *figures(medians, rows(LARGE[1:]), LARGE),
                "",
                *figures(medians, rows(("live", "first50")), LATENCY_AND_MEMORY),
                "",
                *figures(medians, rows(SCALE), SCALE),
                "",
                *ratios(medians, python_peers),
                "",
                *markdown(stands_for, left=True),
                "",
            ]
        ),
    }


# ---- The documents

DOCUMENTS: Tuple[Tuple[str, str], ...] = (("README.md", "summary"), ("docs/performance.md", "figures"))


def replace_block(document: str, name: str, text: str) -> str:
    """The document with ``text`` between the marks called ``name``.

    :raises ValueError: when the marks are missing
    """
    begin, end = f"<!-- scripts/bench: {name} -->\n", "<!-- end -->\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
    changed, count = pattern.subn(lambda _: begin + text + end, document)
    if count != 1:
        raise ValueError(f"the marks {begin.strip()} ... {end.strip()} must occur once, not {count} times")
    return changed


def update_documents(root: Path, found: Mapping[str, str]) -> None:
    """Put the blocks into the documents below ``root``."""
    for path, name in DOCUMENTS:
        file = root / path
        file.write_text(replace_block(file.read_text(encoding="utf-8"), name, found[name]), encoding="utf-8")
