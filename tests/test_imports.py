"""Who may import whom: the border between the pure core and the edges, kept by reading the source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Iterator, List, Set, Tuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "rproxy"

# From the bottom up: a module imports from its own row and from the rows above it in this table. A package
# stands for its modules.
LAYERS: List[Set[str]] = [
    {"__init__"},
    {"error_text", "errors", "provider_errors"},
    {"convert"},
    {
        "access",
        "bodies",
        "codex_profile",
        "demo_rules",
        "gently",
        "http1",
        "listing",
        "log",
        "marked_yaml",
        "profile_rows",
        "profiles",
        "proxytunnel",
        "replay",
        "sharing",
        "store",
        "thoughts",
        "tokens",
        "tornado_speed",
    },
    {"background", "checks", "conversations", "demo", "dial", "history", "wire"},
    {"addresses", "rewrite_rules", "stored"},
    {"config", "connection", "prepared"},
    {"catalog", "httpclient"},
    {"tornado_client"},
    {"failover", "repairs", "upstream"},
    {"turn"},
    {"passing"},
    {"service"},
    {"handlers", "websocket"},
    {"handlers_chat", "handlers_conversations", "handlers_responses", "handlers_small"},
    {"app"},
    {"codex"},
    {"cli"},
    {"__main__"},
]
# packages from outside -> the modules that may import them
FOREIGN = {
    "tornado": {
        "app",
        "connection",
        "demo",
        "dial",
        "handlers",
        "handlers_chat",
        "httpclient",
        "prepared",
        "tornado_client",
        "tornado_speed",
        "upstream",
        "websocket",
        "wire",
    },
    "yaml": {"marked_yaml"},
    "redis": {"store"},  # these are optional
    "zstandard": {"bodies"},
    "pycurl": {"tornado_client"},
}
# What the pure part must not touch: clocks, chance, files, sockets, processes, the environment.
IMPURE = {
    "asyncio",
    "datetime",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def parts(path: Path) -> Tuple[str, ...]:
    """``("rproxy", "convert", "tools")`` for rproxy/convert/tools/__init__.py."""
    names = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return names[:-1] if names[-1] == "__init__" and len(names) > 2 else names


def imported(path: Path) -> Iterator[Tuple[str, ...]]:
    """The absolute names of everything a module imports, ``from . import x`` resolved to ``rproxy.x``."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            yield from ((*module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                yield tuple(str(argument.value).split("."))


def layer(name: str) -> int:
    """The row of a module of rproxy."""
    rows = [n for n, row in enumerate(LAYERS) if name in row]
    assert rows, f"rproxy.{name} has no place in LAYERS"
    return rows[0]


def module_of(target: Tuple[str, ...]) -> str:
    """The row's name for an import from rproxy: ``from rproxy import __version__`` is ``__init__``."""
    name = target[1] if len(target) > 1 else "__init__"
    return name if (PACKAGE / name).is_dir() or (PACKAGE / (name + ".py")).exists() else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: ".".join(parts(path)[1:]))
def test_imports_obey_the_table(path: Path) -> None:
    me = parts(path)[1]
    standard = getattr(sys, "stdlib_module_names", None)  # from Python 3.10 on
    for target in imported(path):
        top = target[0]
        if top == "rproxy":
            assert layer(module_of(target)) <= layer(me), "{} imports {}".format(me, ".".join(target))
        elif top in FOREIGN:
            assert me in FOREIGN[top], f"{me} imports {top}"
        else:
            assert standard is None or top in standard or top == "compression", f"{me} imports {top}"
            assert me != "convert" or top not in IMPURE, f"convert is pure, but {path.name} imports {top}"


def test_the_table_has_no_dead_rows() -> None:
    names = {parts(path)[1] for path in MODULES}
    assert set().union(*LAYERS) <= names
    assert set().union(*FOREIGN.values()) <= names
