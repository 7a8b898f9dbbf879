"""Who may import whom: the layers of the house, and the purity of ``convert``, kept by reading the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Set, Tuple

PACKAGE = Path(__file__).resolve().parent.parent / "rproxy"

# The layers, lowest first. A room is a package or a loose module; it imports from itself and from the layers
# below it. Rooms that share a row do not know each other, but for the loose modules of the first row.
LAYERS: List[Set[str]] = [
    {"__init__", "types", "json_codec", "errors", "log", "cooperative"},
    {"convert"},
    {"providers"},
    {"config", "store"},
    {"upstream"},
    {"telemetry"},
    {"hosted"},
    {"inspector"},
    {"service"},
    {"server"},
    {"cli"},
    {"__main__"},
]
# packages from outside -> the rooms, packages or modules that may import them
FOREIGN = {
    "tornado": {"server", "upstream", "cli.demo"},
    "yaml": {"config.yaml_positions"},
    "pypdf": {"service.pdf_worker"},
    "redis": {"store.redis"},  # these are optional
    "zstandard": {"server.body"},
    "cryptography": {"service.sealer"},
    "orjson": {"json_codec"},
    "uvloop": {"server.speedups"},
}
# What of rproxy the pure part may import beside itself, and what of Python it must not: clocks, chance,
# files, sockets, processes, the environment.
PURE = {"convert", "errors", "json_codec", "types"}
IMPURE = {
    "asyncio", "datetime", "logging", "os", "pathlib", "random", "secrets", "select", "shutil", "socket",
    "ssl", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip

# What a server with the default configuration does not load before it is used -> who uses it.
LATER = {
    "tornado.websocket": "a WebSocket",
    "tornado.simple_httpclient": "nobody",
    "rproxy.server.websocket": "a WebSocket",
    "rproxy.server.conversations": "its requests",
    "rproxy.server.chat": "its requests",
    "rproxy.server.search": "its requests",
    "rproxy.server.models": "its requests",
    "rproxy.server.metrics": "its requests",
    "rproxy.server.inspector": "its requests",
    "rproxy.inspector": "its requests",
    "rproxy.hosted": "tools that rproxy runs itself",
    "rproxy.telemetry.recorder": "serve --record",
    "rproxy.telemetry.ledger": "usage.path",
    "rproxy.store.sqlite": "store.kind",
    "rproxy.store.redis": "store.kind",
    "rproxy.providers.diagnosis": "a refusal",
    "rproxy.providers.failure_text": "a failure",
    "rproxy.providers.local_servers": "a start without a configuration file",
    "rproxy.providers.redaction": "a failure",
    "rproxy.providers.search_table": "search",
    "rproxy.config.changes": "a reload",
    "rproxy.config.mcp_schema": "mcp_servers",
    "rproxy.config.rewrite_rules": "rewrite",
    "rproxy.config.tls": "server.tls",
    "rproxy.convert.events.hosted_items": "tools that rproxy runs itself",
    "rproxy.convert.events.code_fence": "an answer in JSON that was asked for in words",
    "rproxy.convert.request.shorten": "a compaction",
    "rproxy.telemetry.usage": "a limit of tokens a day",
    "rproxy.config.search_schema": "search",
    "rproxy.config.zero_config": "a start without a configuration file",
    "rproxy.convert.answer.leaked_calls": "heal_tool_text",
    "rproxy.convert.answer.responses": "wire: responses",
    "rproxy.convert.request.responses": "wire: responses",
    "rproxy.telemetry.reason": "a failure",
    "rproxy.upstream.web": "tools that rproxy runs itself",
    "curses": "nobody",
    "ctypes": "a large request or answer",
    "cryptography": "reasoning that is sealed or opened",
    "sqlite3": "store.kind",
    "zstandard": "a compressed request",
    "difflib": "a mistake in the configuration",
    "pkgutil": "a request for the models",
    "platform": "rproxy --version",
}
IDLE = """
import asyncio, sys
from rproxy.cli import serve
from rproxy.config.load import parse_config
from rproxy.server.app import embedded
TEXT = b"models: [{model: '*', provider: {base_url: 'http://127.0.0.1:9/v1', api_key: k, profile: generic}}]"
async def main():
    async with embedded(parse_config(TEXT, "c.yaml", {})):
        print(*sys.modules)
asyncio.run(main())
"""

MAX_LINES = 450  # of a module
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """``convert.tools`` for rproxy/convert/tools/__init__.py, ``__init__`` for that of rproxy itself."""
    names = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" and len(names) > 1 else names)


def imported(path: Path) -> Iterator[Tuple[str, ...]]:
    """The absolute names of everything a module imports, ``from . import x`` resolved to ``rproxy.x``."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    for node in ast.walk(tree) if "import_module" in source else statements(tree):
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


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements, without what is in them: expressions are most of a module."""
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for inner in getattr(tree, name, ()):
            yield inner
            yield from statements(inner)


def layer(room: str) -> int:
    """The row of a room, counted from the bottom."""
    rows = [n for n, row in enumerate(LAYERS) if room in row]
    assert rows, f"rproxy.{room} has no place in LAYERS"
    return rows[0]


def room_of(target: Tuple[str, ...]) -> str:
    """The room that an import from rproxy leads to: ``from rproxy import __version__`` is ``__init__``."""
    name = target[1] if len(target) > 1 else "__init__"
    return name if (PACKAGE / name).is_dir() or (PACKAGE / (name + ".py")).exists() else "__init__"


def within(name: str, places: Set[str]) -> bool:
    """Is the module one of ``places``, or does it lie inside one?"""
    return any(name == place or name.startswith(place + ".") for place in places)


def forbidden(path: Path) -> Iterator[str]:
    """What a module must not import."""
    me = name_of(path)
    room = me.split(".")[0]
    standard = getattr(sys, "stdlib_module_names", None)  # from Python 3.10 on
    for target in imported(path):
        top = target[0]
        if top == "rproxy":
            theirs = room_of(target)
            below = layer(theirs) < layer(room) or (layer(theirs) == 0 == layer(room))
            if not (theirs == room or below):
                yield f"{me} imports {'.'.join(target)}"
            if room == "convert" and theirs not in PURE:
                yield f"convert is pure, but {me} imports {'.'.join(target)}"
        elif top in FOREIGN:
            if not within(me, FOREIGN[top]):
                yield f"{me} imports {top}"
        else:
            if not (standard is None or top in standard or top == "compression"):
                yield f"{me} imports {top}"
            if room == "convert" and top in IMPURE:
                yield f"convert is pure, but {me} imports {top}"


def test_no_module_is_long() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_imports_obey_the_table() -> None:
    assert [line for path in MODULES for line in forbidden(path)] == []


def test_the_pure_part_loads_nothing_that_does_input_or_output() -> None:
    heavy = ["asyncio", "ssl", "socket", "tornado", "yaml", "logging"]
    code = f"import sys, rproxy.convert; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_idle_server_has_loaded_only_what_turns_need(tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "RPROXY_PURE": "1"}  # orjson loads platform
    done = subprocess.run(
        [sys.executable, "-c", IDLE], capture_output=True, text=True, check=True, env=environ
    )
    loaded = set(done.stdout.split())
    assert "rproxy.server.responses" in loaded
    assert sorted(name for name in loaded if within(name, set(LATER))) == []


def test_the_tables_have_no_dead_rows() -> None:
    names = {name_of(path) for path in MODULES}
    rooms = {name.split(".")[0] for name in names}
    assert set().union(*LAYERS) <= rooms
    ours = {name[len("rproxy.") :] for name in LATER if name.startswith("rproxy.")}
    assert ours <= names
    assert all(
        any(within(name, {place}) for name in names) for places in FOREIGN.values() for place in places
    )
