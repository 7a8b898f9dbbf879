"""The documentation is true: what it names exists, and what exists is named.

``README.md``, the pages in ``docs/`` and ``scripts/README.md`` are read as a user would use them: every
command line is parsed, every snippet is loaded, every link is followed. Tables that describe the code (the
configuration keys, the options of a command, the packages) are compared with it.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

import pytest
from test_imports import layer

from rproxy import __version__
from rproxy.cli.exit_status import MEANINGS
from rproxy.cli.main import COMMANDS, make_parser
from rproxy.cli.serve import LEVEL_VARIABLE
from rproxy.config.checks import Place, keys_of
from rproxy.config.hosted_schema import HostedLimits
from rproxy.config.load import parse_config
from rproxy.config.mcp_schema import McpServer
from rproxy.config.schema import Auth, Config, Key, Model, Price, Provider, Server, StoreConfig, UsageConfig
from rproxy.config.search_schema import Search
from rproxy.config.tls import Tls
from rproxy.config.yaml_positions import load
from rproxy.convert import json_reader, sealed
from rproxy.convert.answer import reader, tool_calls
from rproxy.convert.request import validate
from rproxy.hosted import approvals, memory, references
from rproxy.providers.local_servers import LOCAL_KINDS
from rproxy.providers.profiles import ZERO_CONFIG
from rproxy.server import connections, http, local_responses, recent_bodies, websocket, websocket_errors
from rproxy.server.pending import FULL_BUDGETS
from rproxy.server.routes import ROUTES
from rproxy.service import (
    attempt,
    background,
    catalog,
    conversations,
    file_text,
    history,
    links,
    reasoning_cache,
    recent_messages,
    sealer,
)
from rproxy.store import write_behind
from rproxy.telemetry import contents

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100  # columns of a terminal


class Page(NamedTuple):
    path: str
    text: str

    def blocks(self, language: str) -> List[str]:
        """The fenced blocks of a language."""
        fenced = re.findall(r"^```(\w*)\n(.*?)^```$", self.text, re.M | re.S)
        return [block for found, block in fenced if found == language]

    def section(self, heading: str) -> str:
        """The text below a heading, down to the next heading of the same level or a higher one."""
        start = re.search(rf"^(#+) {re.escape(heading)}$", self.prose, re.M)
        assert start, f"{self.path} has no heading {heading!r}"
        rest = self.prose[start.end() :]
        end = re.search(rf"^#{{1,{len(start[1])}}} ", rest, re.M)
        return rest[: end.start()] if end else rest

    @property
    def prose(self) -> str:
        """The text without its fenced blocks, in which a # is no heading and a bracket no link."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.M | re.S)

    @property
    def anchors(self) -> Set[str]:
        """What a link may name after the #, by GitHub's rule."""
        found: List[str] = []
        for heading in re.findall(r"^#+ (.*)$", self.prose, re.M):
            plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            found.append(f"{plain}-{found.count(plain)}" if plain in found else plain)
        return set(found)


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


README = Page("README.md", read("README.md"))
PAGES = [
    README,
    *(Page(f"docs/{path.name}", read(f"docs/{path.name}")) for path in sorted((ROOT / "docs").glob("*.md"))),
]
DOCS = {page.path: page for page in PAGES}
LINKED = [*PAGES, *(Page(path, read(path)) for path in ("scripts/README.md", "CHANGELOG.md", "SECURITY.md"))]
ALL = "\n".join(page.text for page in PAGES)
EXAMPLE = read("etc/config.yaml")
SETUP = read("setup.py")

by_path = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path))


def rows(text: str) -> List[List[str]]:
    """The cells of the tables in a text, without their heads."""
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    lines = [line for table in tables for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def code(cell: str) -> str:
    """The text between backticks, or "" for a cell that is not all code."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    return found[1] if found else ""


# ---- The pages themselves


@pytest.mark.parametrize(
    "path",
    [
        *DOCS,
        "scripts/README.md",
        "SECURITY.md",
        *(f"etc/{p.name}" for p in (ROOT / "etc").iterdir() if p.suffix != ".json"),
    ],
)
def test_lines_fit_a_terminal(path: str) -> None:
    wide = [f"{n}: {line}" for n, line in enumerate(read(path).splitlines(), 1) if len(line) > WIDTH]
    assert not wide


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.path))
def test_links_lead_somewhere(page: Page) -> None:
    known = {other.path: other.anchors for other in LINKED}
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.prose):
        path, _, anchor = target.partition("#")
        file = (ROOT / page.path).parent / path if path else ROOT / page.path
        assert file.exists(), target
        name = file.resolve().relative_to(ROOT).as_posix()
        assert not anchor or anchor in known[name], target


def test_every_page_is_linked_from_the_readme() -> None:
    for path in DOCS:
        assert path == README.path or f"]({path})" in README.text, path


@by_path
def test_paths_in_the_documents_exist(page: Page) -> None:
    for path in re.findall(r"(?<![\w/.])((?:rproxy|tests|scripts|etc|docs)/[\w./@-]*)", page.prose):
        assert (ROOT / path.rstrip(".")).exists(), path


def test_the_readme_is_short_and_says_what_conforming_means() -> None:
    assert len(README.text.splitlines()) <= 320
    about = README.text.partition("## What conforming means")[2].partition("\n## ")[0]
    for words in ("Open Responses", "17 of 17", "`server.reasoning: summary`", "`reasoning_text`"):
        assert words in about
    for page in ("docs/differences.md", "SECURITY.md", "docs/operating.md#troubleshooting"):
        assert f"]({page})" in README.text


# ---- Command lines


REDIRECTIONS = {"<", ">"}


def shell_lines() -> Iterator[List[str]]:
    """The words of every command, continued lines joined, several commands of a line apart."""
    for block in (block for page in PAGES for block in page.blocks("sh")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = next((i for i, word in enumerate(words) if word in ("&&", "|")), len(words))
                yield [word for i, word in enumerate(words[:end]) if not {word, words[i - 1]} & REDIRECTIONS]
                words = words[end + 1 :]


def test_rproxy_command_lines_parse() -> None:
    lines = [
        words
        for words in shell_lines()
        if re.search(r"(^|/)rproxy$", words[0]) or words[1:2] == ["rproxy.pyz"]
    ]
    assert {"serve", "codex", "check", "profiles"} <= {word for words in lines for word in words}
    for words in lines:
        make_parser().parse_args(words[2:] if words[0].startswith("python") else words[1:])


def test_the_first_commands_are_those_of_the_scripts() -> None:
    first = [block.split() for block in README.blocks("sh")[:3]]
    assert first[0] == ["scripts/demo"] and first[1][0] == "codex" and first[2] == ["scripts/test"]


def options(parser: argparse.ArgumentParser) -> Iterator[Tuple[str, argparse.Action]]:
    """(name of the command, option) for every option; "" is rproxy itself."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from ((name, found) for _, found in options(sub))
        else:
            yield "", action


def test_every_command_and_option_is_documented() -> None:
    page = DOCS["docs/configuration.md"]
    common = page.section("Command line").split("###")[0]
    for command, action in options(make_parser()):
        text = common + (page.section(f"`rproxy {command}`") if command else "")
        for option in action.option_strings:
            assert option == "-h" or re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{command} {option}"
    headings = re.findall(r"^### `rproxy (\w+)`$", page.text, re.M)
    assert set(headings) == set(COMMANDS)
    assert "$" + LEVEL_VARIABLE in page.text


def test_the_exit_statuses_are_documented() -> None:
    shown = {int(row[0]): row[1] for row in rows(DOCS["docs/configuration.md"].section("Exit status"))}
    assert shown == MEANINGS


def messages() -> Iterator[str]:
    """All string constants of the package that are not documentation."""
    for path in (ROOT / "rproxy").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        yield from (
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documentation
        )


def test_messages_name_commands_that_exist() -> None:
    named = {
        command
        for text in messages()
        for command in re.findall(r"\brproxy (serve|check|init|ask|models|codex|doctor)\b", text)
    }
    assert named and named <= set(COMMANDS)


def test_scripts_are_documented_and_exist() -> None:
    scripts = {path.name for path in (ROOT / "scripts").iterdir() if path.suffix != ".md"}
    listed = re.findall(r"^- `(\w+)`", read("scripts/README.md"), re.M)
    assert set(listed) == scripts
    assert "`scripts/`: " + ", ".join(f"`{name}`" for name in listed) in " ".join(README.text.split())


def test_the_tests_that_security_names_exist() -> None:
    text = read("SECURITY.md")
    named = re.findall(r"`(test_\w+)::(test_\w+)`", text)
    assert named and len(named) == text.count("::")
    for module, test in named:
        assert re.search(rf"^(?:async )?def {test}\(", read(f"tests/{module}.py"), re.M), f"{module}::{test}"
    threats = re.findall(r"^- .*(?:\n  .*)*", text.partition("## Threats")[2].partition("## What")[0], re.M)
    assert threats and not [threat for threat in threats if "`test_" not in threat]


def test_extras_are_documented_and_exist() -> None:
    extras = set(re.findall(r'^        "(\w+)": \[', SETUP, re.M)) - {"test", "check"}
    assert set(re.findall(r"rproxy-responses\[(\w+)\]", ALL)) == extras


# ---- The API


def route_patterns() -> List[str]:
    return [pattern for pattern, _ in ROUTES]


def test_every_route_is_documented() -> None:
    text = DOCS["docs/api.md"].section("Endpoints")
    for pattern in route_patterns():
        path = pattern.replace("(?:/v1)?", "").replace("/?", "")
        path = path.replace("(.+)", "{id}").replace("([^/]+)", "{id}")
        assert re.search(rf"`(GET|POST|HEAD|DELETE) (/v1)?{re.escape(path)}`", text), path


def test_documented_paths_are_routes() -> None:
    for path in re.findall(r"`(?:GET|POST|HEAD|DELETE) (/[^`?]*)", ALL):
        assert any(re.fullmatch(pattern, path.replace("{id}", "x")) for pattern in route_patterns()), path


def test_curl_lines_hold_json() -> None:
    lines = [words for words in shell_lines() if words[0] == "curl"]
    assert len(lines) == 2
    for words in lines:
        assert json.loads(words[words.index("-d") + 1])["model"] == "gpt-5.5"
        url = next(word for word in words if word.startswith("http"))
        path = url.replace("http://127.0.0.1:3000", "")
        assert any(re.fullmatch(pattern, path) for pattern in route_patterns()), url


# ---- Snippets


class Environment(Dict[str, str]):
    """Every variable has a value, so that any $NAME in an example can be read."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, "value")

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return "value"


@by_path
def test_yaml_snippets_load(page: Page) -> None:
    for block in page.blocks("yaml"):
        text = (
            block
            if "models:" in block
            else block + 'models: [{model: "*", provider: {base_url: http://x}}]\n'
        )
        parse_config(text.encode(), page.path, Environment())


def test_the_six_lines_of_yaml_are_six_and_valid() -> None:
    block = README.blocks("yaml")[0]
    assert len(block.splitlines()) == 6
    config = parse_config(block.encode(), "config.yaml", {"DEEPSEEK_API_KEY": "k"})
    model = config.route("gpt-5.5")
    assert model is not None and (model.downstream_model, model.providers[0].profile.name) == (
        "deepseek-v4-pro",
        "deepseek",
    )


@by_path
def test_python_snippets_compile(page: Page) -> None:
    for block in page.blocks("python"):
        compile(block, page.path, "exec")


@by_path
def test_toml_snippets_load(page: Page) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is new in Python 3.11")
    import tomllib

    for block in page.blocks("toml"):
        tomllib.loads(block)


# ---- The configuration

# heading in docs/configuration.md -> the section of the file that its table describes
SECTIONS: Dict[str, Any] = {
    "Keys": Config,
    "server": Server,
    "server.tls": Tls,
    "server.auth": Auth,
    "server.auth.keys": Key,
    "models": Model,
    "provider": Provider,
    "store": StoreConfig,
    "usage": UsageConfig,
    "search": Search,
    "mcp_servers": McpServer,
    "hosted_tools": HostedLimits,
    "price": Price,
}
by_section = pytest.mark.parametrize("heading", SECTIONS)


def table_of(heading: str) -> List[List[str]]:
    return rows(DOCS["docs/configuration.md"].section(heading).split("\n#")[0])


@by_section
def test_every_key_is_documented(heading: str) -> None:
    assert [code(row[0]) for row in table_of(heading)] and set(keys_of(SECTIONS[heading])) == {
        code(row[0]) for row in table_of(heading)
    }


@by_section
def test_documented_defaults_are_the_defaults(heading: str) -> None:
    fields = keys_of(SECTIONS[heading])
    for name, default, _ in table_of(heading):
        field = fields[code(name)]
        factory = field.default_factory
        actual = field.default if factory is dataclasses.MISSING else factory()
        if field.metadata["required"]:
            assert default == "required", name
        elif code(default):
            document = load(f"value: {code(default)}".encode(), "docs")
            place = Place(document, ("value",), document.data["value"], {}, [])
            assert field.metadata["check"](place) == actual, name
        else:
            assert not actual or dataclasses.is_dataclass(actual), name


@by_section
def test_every_key_is_in_the_example(heading: str) -> None:
    keys = keys_of(SECTIONS[heading])
    assert not [name for name in keys if not re.search(rf"^[\s#-]*{name}:", EXAMPLE, re.M)]


# What the table of limits says -> the limits without a key.
LIMITS: Dict[str, Any] = {
    "request headers, from their first byte": connections.HEADER_TIMEOUT,
    "the body of a request": http.BODY_TIMEOUT,
    "... that nobody reads": http.DISCARD_TIMEOUT,
    "... how much of it is thrown away": http.MAX_DISCARDED,
    "channels of a WebSocket (`stream_id`)": websocket_errors.MAX_CHANNELS,
    "turns at the same time on a WebSocket": websocket.MAX_RUNNING,
    "the name of a model (characters)": catalog.MAX_NAME,
    "objects and arrays in a request": json_reader.USUAL.containers,
    "values in a request": json_reader.USUAL.values,
    "members of one object in a request": json_reader.MAX_MEMBERS,
    "entries of one array in a request": json_reader.MAX_ENTRIES,
    "tools of a request, with namespaces": validate.MAX_ENTRIES["tools"],
    "what its sealed items hold, in all": sealed.MAX_SEALED,
    "entries of `include`": validate.MAX_ENTRIES["include"],
    "new items of a conversation, at a time": conversations.MAX_NEW_ITEMS,
    "responses in a chain, from the first": history.MAX_CHAIN,
    "a PDF file in a request": file_text.MAX_FILE,
    "background responses at the same time": background.MAX_RUNNING,
    "tool calls in an answer": tool_calls.MAX_CALLS,
    "items in an answer": reader.MAX_ITEMS,
    "objects and arrays in one event of it": json_reader.OF_ANSWER.containers,
    "turns that a WebSocket remembers [6]": local_responses.KEPT_BYTES,
    "... all WebSockets": local_responses.KEPT_BYTES_IN_ALL,
    "records that wait for the store": write_behind.MAX_PENDING_BYTES,
    "events of a background response": background.MAX_EVENTS,
    "text in kept background deltas": background.MAX_DELTAS,
    "... of all responses that have ended": background.MAX_ENDED_TEXT,
    "a provider's answer": attempt.MAX_ANSWER,
}


def number_of(text: str) -> float:
    """A number as the table of limits writes it."""
    amount, _, unit = text.replace(",", "").partition(" ")
    return float(amount.rstrip(":")) * {"MiB": 1 << 20, "mil.": 1_000_000}.get(unit, 1)


def test_the_table_of_limits_says_what_holds() -> None:
    table = rows(DOCS["docs/operating.md"].section("Limits"))
    said = {row[0]: row[2] for row in table if not code(row[1])}
    assert {name: number_of(said[name]) for name in LIMITS} == LIMITS
    server = keys_of(Server)
    keyed = {code(row[1]): row[2] for row in table if code(row[1])}
    assert {
        name for name in server if name.startswith("max_") or name.endswith(("_timeout", "_max_age"))
    } == {
        *keyed,
        "drain_timeout",  # of the end of the process
    }
    assert {name: number_of(text) for name, text in keyed.items() if text != "[1]"} == {
        name: server[name].default for name in keyed if server[name].default is not None
    }


# What docs/performance.md says that a process keeps at most, in the order of its table.
KEPT = {
    "finished turns of WebSockets": local_responses.KEPT_BYTES_IN_ALL,
    "messages that wait on WebSockets (`max_pending_bytes`)": FULL_BUDGETS * Server().max_pending_bytes,
    "the memory store (`store.max_bytes`)": StoreConfig().max_bytes,
    "records on their way to a slow store": write_behind.MAX_PENDING_BYTES,
    "reasoning that goes back to providers": reasoning_cache.MAX_BYTES,
    "deltas of background responses that have ended": background.MAX_ENDED_TEXT,
    "turns with their content, in the inspector": contents.MAX_BYTES,
    "results of hosted tools": memory.MAX_BYTES,
    "texts of pages": references.MAX_PAGE_TEXT,
    "chains of responses": links.MAX_BYTES,
    "requests": recent_bodies.MAX_BYTES,
    "messages for providers": recent_messages.MAX_BYTES,
    "texts of PDF files": file_text.MAX_REMEMBERED,
    "results of approved calls": approvals.MAX_BYTES,
    "opened `encrypted_content`": sealer.MAX_OPENED,
}


def test_what_a_process_keeps_at_most() -> None:
    kept = [row for row in rows(DOCS["docs/performance.md"].section("Sizing")) if len(row) == 2]
    (_, total), said = kept[-1], dict(kept[:-1])
    assert {name: number_of(text) for name, text in said.items()} == KEPT
    assert total == f"{sum(KEPT.values()) / (1 << 30):.1f} GiB"
    for one in (links, recent_bodies, recent_messages):
        assert 2 * one.MAX_BYTES_OF_OWNER == one.MAX_BYTES  # one key leaves room for others
    assert local_responses.KEPT_BYTES < local_responses.KEPT_BYTES_IN_ALL


def test_the_readme_has_the_limits_with_a_key() -> None:
    listed = {
        code(row[1]): row[2] for row in rows(DOCS["docs/operating.md"].section("Limits")) if code(row[1])
    }
    shown = re.findall(r"`(\w+)` +\| ([^|]+?) +\|", README.section("Operating"))
    assert {**dict(shown), "max_connections": "[1]"} == listed


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    config = parse_config(EXAMPLE.encode(), "etc/config.yaml", {"DEEPSEEK_API_KEY": "k"})
    assert (config.server, config.store, config.usage, config.warnings) == (
        Server(),
        StoreConfig(),
        UsageConfig(),
        (),
    )


def test_every_key_of_the_example_is_known() -> None:
    known = {name for section in SECTIONS.values() for name in keys_of(section)}
    shown = set(re.findall(r"^[\s#-]*(\w+): ", EXAMPLE.split("\n\n", 1)[1], re.M))
    assert shown <= known


def test_the_keys_in_the_environment_are_documented_in_their_order() -> None:
    table = rows(DOCS["docs/providers.md"].section("Keys in the environment"))
    assert [tuple(re.findall(r"`(\w+)`", row[1])) for row in table] == [known.env for known in ZERO_CONFIG]


def test_the_local_servers_are_documented_in_their_order() -> None:
    table = rows(DOCS["docs/providers.md"].section("Local model servers"))
    assert [(row[0], code(row[1]) + "/v1") for row in table] == [(k.name, k.base_url) for k in LOCAL_KINDS]


def test_settings_named_in_the_documents_exist() -> None:
    tables = {
        "server": Server,
        "auth": Auth,
        "usage": UsageConfig,
        "provider": Provider,
        "store": StoreConfig,
        "search": Search,
        "hosted_tools": HostedLimits,
    }
    named = set(re.findall(r"`((?:server|usage|provider|store|search|hosted_tools)(?:\.\w+)+)[`:]", ALL))
    assert named
    for dotted in named:
        section, name = dotted.split(".")[-2:]
        assert name in keys_of(tables[section]), dotted


# ---- How it works


def test_the_readme_shows_every_package_in_the_order_of_the_layers() -> None:
    tree = next(block for block in README.blocks("") if block.startswith("rproxy/\n"))
    shown: List[str] = []
    inside: Set[str] = set()
    for line in tree.splitlines()[1:]:
        names = [name.rstrip("/") for name in re.split(r" {2,}", line.strip())[0].split()]
        if line.startswith("    "):
            inside.add(f"{shown[-1]}/{names[0]}")
        else:
            shown += names
    package = ROOT / "rproxy"
    rooms = {
        path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(shown) == rooms - {"__init__", "__main__"} and len(shown) == len(set(shown))
    assert [layer(room) for room in shown] == sorted(layer(room) for room in shown)
    parts = {f"convert/{path.parent.name}" for path in package.glob("convert/*/__init__.py")}
    assert inside == parts


# ---- The benchmark's tables


def bench_tables() -> Any:
    spec = importlib.util.spec_from_file_location("bench_tables", ROOT / "tests" / "bench" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and NamedTuples look their module up
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_can_renew_its_tables(tmp_path: Path) -> None:
    """The marks are there, the tables fit, and those that are shown have today's columns."""
    tables = bench_tables()
    figures = dict.fromkeys(tables.COLUMNS, 9999.0)
    names = {name for ratio in tables.RATIOS for name in (ratio.mine, ratio.other)} | {"a peer"}
    about = {name: f"what {name} is" for name in names}
    blocks = tables.blocks(dict.fromkeys(sorted(names), figures), ["a peer"], about, "a machine", 5)
    (tmp_path / "docs").mkdir()
    for path, _ in tables.DOCUMENTS:
        (tmp_path / path).write_text(read(path), encoding="utf-8")
    tables.update_documents(tmp_path, blocks)
    for path, name in tables.DOCUMENTS:
        assert blocks[name] in (tmp_path / path).read_text(encoding="utf-8")
        assert all(len(line) <= WIDTH for line in blocks[name].splitlines())
        assert heads(blocks[name]) <= heads(read(path)), "run scripts/bench --readme"


def test_the_benchmark_compares_two_commits() -> None:
    medians = {
        "rproxy, SSE": {"turn": 3.0, "rss": 30.0},
        "rproxy, JSON": {"turn": 1.0, "live": 2.0},
        "earlier, SSE": {"turn": 2.0},
        "earlier, JSON": {"live": 4.0},
    }
    table = bench_tables().comparison(medians, "rproxy", "earlier")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [cells[0], *cells[2:]] == [
        ["divided by: earlier", "live", "ms/turn"],
        ["rproxy, SSE", "", "1.50"],
        ["rproxy, JSON", "0.50", ""],
    ]


def heads(text: str) -> Set[Tuple[str, ...]]:
    """The heads of the tables in a text."""
    found = re.findall(r"^\|(.*)\|\n\|-", text, re.M)
    return {tuple(cell.strip() for cell in head.split("|")) for head in found}


# ---- The guide to the tests


def test_the_guide_names_every_shared_module_and_only_tests_that_exist() -> None:
    guide = ast.get_docstring(ast.parse(read("tests/conftest.py"))) or ""
    named = set(re.findall(r"``(\w+)``", guide)) - {"test_"}
    modules = {path.stem for path in (ROOT / "tests").glob("*.py")} - {"conftest"}
    assert {name for name in modules if not name.startswith("test_")} <= named
    assert {name for name in named if name.startswith("test_")} <= modules


# ---- The changelog


def test_changelog_knows_the_version() -> None:
    text = read("CHANGELOG.md")
    assert re.search(rf"^## \[{re.escape(__version__)}\]", text, re.M)
    assert text.index("## [Unreleased]") < text.index(f"## [{__version__}]")


def test_changelog_has_one_sentence_per_line() -> None:
    entries = read("CHANGELOG.md").split("\n## ", 1)[1].splitlines()[1:]
    for line in entries:
        assert re.fullmatch(r"|## \[.*|### (Added|Changed|Deprecated|Removed|Fixed|Security)|- .*\.", line), (
            line
        )
