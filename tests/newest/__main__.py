"""``scripts/newest``: rproxy with the newest releases of its clients, so that drift is found by one command.

The newest releases are installed into a cache, and brought up to date there by each run:

* ``clients``: OpenAI's SDKs for Python and Node, openai-agents and the AI SDK, which a judge knows;
* ``codex``: Codex, whose end-to-end scenarios a judge plays;
* ``langchain``, ``pydantic``: langchain-openai and pydantic-ai, with small checks of our own.

The judges are not part of this project: they are looked for in ``$JUDGES``, otherwise in ``../shared/tools``.
Without them, ``clients`` and ``codex`` are not checked.

Prints a table: the version that was checked before (what the judges or ``.ci/run`` pin, otherwise that of
the last run), the newest one, and the result.  Exit status 0: nothing failed; 1: something did; 3: nothing
failed, but not everything could be checked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from frameworks import check_framework  # noqa: E402
from judges import Result, find_judges, judge_clients, judge_codex  # noqa: E402
from packages import (  # noqa: E402
    NotInstalled,
    Seen,
    Versions,
    codex_binary,
    codex_pin,
    install_node,
    install_python,
    name_of,
    python_pins,
    requirements,
    unpinned,
)

ROOT = HERE.parent.parent
FAILED, INCOMPLETE = 1, 3
NO_JUDGES = "not checked: the judges are neither in $JUDGES nor in ../shared/tools"
# The scripts of the judge -> the packages that they are about.
CLIENTS: Dict[str, Tuple[str, ...]] = {
    "openai_py": ("py:openai",),
    "openai_py_ws": ("py:openai",),
    "openai_agents_py": ("py:openai-agents",),
    "openai_node": ("js:openai",),
    "ai_sdk_node": ("js:ai", "js:@ai-sdk/openai", "js:@ai-sdk/open-responses"),
}
FRAMEWORKS = {
    "langchain": ("langchain-openai", "client_langchain.py"),
    "pydantic": ("pydantic-ai-slim[openai]", "client_pydantic.py"),
}


class Row(NamedTuple):
    """A line of the table. ``result`` None: nothing was checked, for the reason in ``note``."""

    package: str
    old: str
    new: str
    result: Optional[Result] = None
    note: str = ""


class Run(NamedTuple):
    """What all parts need. ``seen``: the versions of the last run."""

    cache: Path
    judges: Optional[Path]
    seen: Seen
    scenarios: str


# ---- The parts
def check_clients(run: Run) -> List[Row]:
    """OpenAI's SDKs and the AI SDK, by the judge."""
    if run.judges is None:
        return [Row("OpenAI's SDKs, openai-agents, the AI SDK", "", "", note=NO_JUDGES)]
    folder = run.judges / "judge" / "clients"
    lines = requirements(folder / "requirements.txt")
    pinned_js: Versions = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    environment = run.cache / "clients"
    old = {f"py:{name}": version for name, version in python_pins(lines).items()}
    old.update((f"js:{name}", version) for name, version in pinned_js.items())
    new = {f"py:{name}": v for name, v in _python(environment / "py", [unpinned(x) for x in lines]).items()}
    new.update((f"js:{name}", v) for name, v in install_node(environment / "js", [*pinned_js]).items())
    results = judge_clients(run.judges, environment)
    rows = []
    for script, packages in CLIENTS.items():
        for package in packages:
            note = f"by {script}" if script in results else f"not checked: the judge did not run {script}"
            rows.append(Row(package, old.get(package, ""), new.get(package, ""), results.get(script), note))
    return rows


def check_codex(run: Run) -> List[Row]:
    """Codex, by the judge."""
    if run.judges is None:
        return [Row("@openai/codex", codex_pin(ROOT / ".ci" / "run") or "", "", note=NO_JUDGES)]
    folder = run.cache / "codex"
    (version,) = install_node(folder, ["@openai/codex"]).values()
    result = judge_codex(run.judges, codex_binary(folder), run.scenarios)
    return [Row("@openai/codex", codex_pin(ROOT / ".ci" / "run") or "", version, result)]


def framework(name: str) -> Callable[[Run], List[Row]]:
    """The check of one framework."""
    package, script = FRAMEWORKS[name]

    def check(run: Run) -> List[Row]:
        folder = run.cache / name
        (version,) = _python(folder, [package]).values()
        result = asyncio.run(check_framework(folder / "bin" / "python", script))
        old = run.seen.versions.get(name_of(package), "")
        run.seen.remember({name_of(package): version})
        return [Row("py:" + name_of(package), old, version, result)]

    return check


PARTS: Dict[str, Callable[[Run], List[Row]]] = {
    "langchain": framework("langchain"),
    "pydantic": framework("pydantic"),
    "clients": check_clients,
    "codex": check_codex,
}


def _python(folder: Path, packages: List[str]) -> Versions:
    print(f"installing {', '.join(packages)} ...", flush=True)
    return install_python(folder, packages)


# ---- The table
def print_table(rows: List[Row]) -> None:
    head = ("package", "before", "newest", "result")
    lines = [head, *((row.package, row.old or "-", row.new or "-", _told(row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    print()
    for number, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for note in dict.fromkeys(note for row in rows if row.result for note in row.result.notes):
        print(note)


def _told(row: Row) -> str:
    return row.note if row.result is None else f"{row.result} {row.note}".strip()


def main() -> int:
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rproxy-newest"
    parser = argparse.ArgumentParser(
        prog="scripts/newest", description="Test rproxy with the newest releases of its clients."
    )
    parser.add_argument("parts", nargs="*", help="any of {} (default: all)".format(", ".join(PARTS)))
    parser.add_argument(
        "--cache", type=Path, default=default, help="where they are installed (default: %(default)s)"
    )
    parser.add_argument(
        "--scenarios", default=".", metavar="REGEX", help="only these scenarios of Codex (default: all)"
    )
    args = parser.parse_args()
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error("there is no part {}; use any of {}".format(", ".join(unknown), ", ".join(PARTS)))
    args.cache.mkdir(parents=True, exist_ok=True)
    run = Run(args.cache.resolve(), find_judges(), Seen(args.cache), args.scenarios)
    rows: List[Row] = []
    for part in args.parts or PARTS:
        print(f"== {part}", flush=True)
        try:
            rows += PARTS[part](run)
        except NotInstalled as error:
            rows.append(Row(part, "", "", note=f"not checked: {error}"))
    print_table(rows)
    if any(row.result is not None and row.result.failed for row in rows):
        return FAILED
    return INCOMPLETE if any(row.result is None for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
