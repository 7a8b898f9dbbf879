"""The documentation is true: what README and etc/config.yaml name exists, and what exists is named."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from rproxy import __version__, log
from rproxy.cli.main import COMMANDS, LEVEL_VARIABLE, LEVELS, make_parser
from rproxy.config.checks import keys_of
from rproxy.config.schema import Auth, Config, Model, Provider, Server, Store, Usage, parse_config
from rproxy.server.app import ROUTES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "etc" / "config.yaml").read_text(encoding="utf-8")
SECTIONS = (Config, Server, Auth, Model, Provider, Store, Usage)


def code_blocks(language: str) -> List[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def shell_lines() -> Iterator[List[str]]:
    """The words of every command in README, continued lines joined, several commands of a line apart."""
    for block in code_blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                yield words[:end]
                words = words[end + 1 :]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: str(section.__name__))
def test_every_key_is_in_the_example(section: type) -> None:
    missing = [name for name in keys_of(section) if not re.search(rf"^[\s#-]*{name}:", EXAMPLE, re.M)]
    assert not missing


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    config = parse_config(EXAMPLE.encode(), "etc/config.yaml", {"DEEPSEEK_API_KEY": "k"})
    assert (config.server, config.store, config.usage, config.warnings) == (Server(), Store(), Usage(), ())


def test_every_key_of_the_example_is_known() -> None:
    known = {name for section in SECTIONS for name in keys_of(section)}
    shown = set(re.findall(r"^[\s#-]*(\w+): ", EXAMPLE.split("\n\n", 1)[1], re.M))
    assert shown <= known


def options(parser: argparse.ArgumentParser) -> Iterator[Tuple[str, argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from ((name, found) for _, found in options(sub))
        else:
            yield "", action


def test_every_command_and_option_is_in_the_readme() -> None:
    for command in COMMANDS:
        assert f"`rproxy {command}`" in README
    for command, action in options(make_parser()):
        for option in action.option_strings:
            assert option == "-h" or re.search(rf"(?<![\w-]){option}(?![\w-])", README), f"{command} {option}"
    assert "$" + LEVEL_VARIABLE in README
    assert set(LEVELS) <= set(log.LEVELS)


def test_every_route_is_in_the_readme() -> None:
    for pattern, _ in ROUTES:
        path = (
            pattern.replace("(?:/v1)?", "")
            .replace("/?", "")
            .replace("(.+)", "{id}")
            .replace("([^/]+)", "{id}")
        )
        assert re.search(rf"`((GET|POST) )?(/v1)?{re.escape(path)}`", README), path


def test_scripts_named_in_the_readme_exist_and_the_other_way_round() -> None:
    scripts = {path.name for path in (ROOT / "scripts").iterdir() if path.suffix != ".md"}
    assert set(re.findall(r"scripts/(\w+)\b(?!\.md)", README)) - {"README"} <= scripts
    listed = re.findall(r"^- `(\w+)`", (ROOT / "scripts" / "README.md").read_text(encoding="utf-8"), re.M)
    assert set(listed) == scripts
    assert "`scripts/`: " + ", ".join(f"`{name}`" for name in listed) in README.replace(
        " (lint and types)", ""
    )


def test_rproxy_commands_in_the_readme_parse() -> None:
    lines = [
        words
        for words in shell_lines()
        if re.search(r"(^|/)(rproxy|rproxy\.pyz)$", words[0]) or words[1:2] == ["rproxy.pyz"]
    ]
    assert len(lines) >= 2
    for words in lines:
        make_parser().parse_args(words[2:] if words[0].startswith("python") else words[1:])


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


def test_curl_lines_of_the_readme_hold_json() -> None:
    bodies = [words[words.index("-d") + 1] for words in shell_lines() if words[0] == "curl"]
    assert len(bodies) == 2 and all(json.loads(body)["model"] == "gpt-5.5" for body in bodies)


def test_the_six_lines_of_yaml_are_six_and_valid() -> None:
    block = code_blocks("yaml")[0]
    assert len(block.splitlines()) == 6
    config = parse_config(block.encode(), "config.yaml", {"DEEPSEEK_API_KEY": "k"})
    model = config.route("gpt-5.5")
    assert model is not None and (model.downstream_model, model.providers[0].profile.name) == (
        "deepseek-v4-pro",
        "deepseek",
    )


def test_settings_named_in_the_readme_exist() -> None:
    tables: Dict[str, Any] = {
        "server": Server,
        "auth": Auth,
        "usage": Usage,
        "provider": Provider,
        "store": Store,
    }
    for dotted in set(re.findall(r"`((?:server|usage|provider|store)(?:\.\w+)+)[`:]", README)):
        section, name = dotted.split(".")[-2:]
        assert name in keys_of(tables[section]), dotted


def test_python_block_compiles() -> None:
    for block in code_blocks("python"):
        compile(block, "README.md", "exec")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_changelog_knows_the_version() -> None:
    assert re.search(
        rf"^## \[{re.escape(__version__)}\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M
    )
