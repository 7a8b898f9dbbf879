"""YAML whose errors name ``file:line:col`` and say what to do.

PyYAML composes the text into nodes, which carry their marks.  :func:`load` builds a :class:`Document` from
them: plain values, and beside them the position of every key and value under its path, a tuple such as
``("models", 0, "provider")``.  Where PyYAML would recurse without limit, expand aliases without limit or let
the second of two equal keys win in silence, there are errors.

A configuration needs mappings with text keys, lists, text, numbers, booleans, null, anchors and merge keys
(``<<``); nothing else is accepted.  Dates and sexagesimal numbers (``12:30``) stay text.  No other module
imports yaml.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Tuple, Union

import yaml

from ..errors import ConfigError

Path = Tuple[Union[str, int], ...]
Position = Tuple[int, int]  # line and column, counted from 1

MAX_DEPTH = 50
MAX_VALUES = 100_000  # an alias counts as everything it stands for
_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null")}
_TAGS = {"scalar": _SCALARS, "sequence": {_TAG + "seq"}, "mapping": {_TAG + "map"}}  # that a node may have
_WORDS = r"true|false|yes|no|on|off|null|y|n"  # not text in some version of YAML
_PLAIN = re.compile(rf"(?!(?:{_WORDS})\Z)[a-z][a-z0-9_./-]*", re.IGNORECASE | re.ASCII)
_NEEDS_QUOTES = re.compile(r"(:|-)\s+[\[{*&!%@`|>]")  # a value that begins like YAML's own syntax


class Document:
    """The plain values of a file (``data``) and where they are in it."""

    def __init__(self, name: str) -> None:
        self.name, self.data = name, None  # type: str, Any
        self.keys: Dict[Path, Position] = {}
        self.values: Dict[Path, Position] = {}

    def position(self, path: Path, key: bool = False) -> Position:
        """Where a value (``key``: its key) is, or the nearest enclosing value that is in the file."""
        while path:
            for table in (self.keys, self.values) if key else (self.values, self.keys):
                if path in table:
                    return table[path]
            path, key = path[:-1], False
        return self.values.get((), (1, 1))

    def error(self, path: Path, text: str, key: bool = False) -> ConfigError:
        """The error ``file:line:col: models[0].path: text`` for a value (``key``: for its key)."""
        inside = path[:-1] if key else path
        what = "".join(f"[{step}]" if isinstance(step, int) else "." + step for step in inside).lstrip(".")
        return self.error_at(self.position(path, key), what + ": " + text if what else text)

    def error_at(self, position: Position, text: str) -> ConfigError:
        """The error ``file:line:col: text``."""
        return ConfigError(f"{self.name}:{position[0]}:{position[1]}: {text}")


def dump(data: Any) -> str:
    """Plain values as YAML, in their order; collections that hold no others take one line."""
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120))


def scalar(text: str) -> str:
    """One line of text as it is written in a file: in quotes where it needs them."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def load(text: Union[str, bytes], name: str) -> Document:
    """Read YAML.

    :param name: of the file, for messages
    :raises ConfigError: whatever is wrong with the text
    """
    document = Document(name)
    try:
        decoded = (text.decode("utf-8") if isinstance(text, bytes) else text).removeprefix("\ufeff")
        loader = _Loader(decoded, document)
        root = loader.get_single_node()
        if root is None:
            raise document.error_at((1, 1), "the file is empty")
        document.data = loader.build(root, ())
    except UnicodeDecodeError as error:
        position = _after(error.object[: error.start].decode("utf-8"))
        raise document.error_at(position, "the file is not UTF-8 text") from None
    except yaml.reader.ReaderError as error:
        problem = f"the character U+{error.character:04X} is not allowed in YAML"
        raise document.error_at(_after(decoded[: error.position]), problem) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise document.error_at(_position(mark) if mark else (1, 1), _explain(error, decoded, mark)) from None
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF", a number of 10,000 digits
        raise document.error_at(_position(loader.get_mark()), f"cannot be read: {error}") from None
    return document


class _Loader(yaml.SafeLoader):
    """Composes nodes and builds plain values from them, each once: aliases share what they stand for."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rows if tag in _SCALARS]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, document: Document) -> None:
        super().__init__(text)
        self._document = document
        self._depth = self._count = 0  # of the nodes around this one, of the values built
        self._built: Dict[int, Tuple[Any, int]] = {}  # id of a node: its value and how many values it has

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if self._depth > MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH} levels")
        if self.check_event(yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            name = event.anchor
            if name not in self.anchors:
                raise self._error(event, f"the alias *{name} has no anchor &{name} before it")
            return yaml.Node(name, self.anchors[name], event.start_mark, event.end_mark)
        self.anchors.pop(event.anchor, None)  # an anchor may be set again
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def build(self, node: Any, path: Path) -> Any:
        """The value of a node; its position, and those inside it, are in the document then."""
        self._document.values[path] = _position(node.start_mark)
        before = self._count
        if type(node) is yaml.Node:  # an alias: its name, and the node that it stands for
            if id(node.value) not in self._built:
                raise self._error(node, f"the alias *{node.tag} is inside its own anchor &{node.tag}")
            value, size = self._built[id(node.value)]
            self._count += size
        else:
            self._count += 1
            value = self._value(node, path)
            self._built[id(node)] = value, self._count - before
        if self._count - before > MAX_VALUES:
            raise self._error(node, f"stands for more than {MAX_VALUES} values")
        return value

    def _value(self, node: Any, path: Path) -> Any:
        tag = node.tag.replace(_TAG, "!!")
        if node.tag not in _TAGS[node.id]:
            raise self._error(node, f"the tag {tag} is not allowed here; remove it")
        if node.id == "sequence":
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        if node.id == "mapping":
            return self._mapping(node, path)
        if re.search("[\ud800-\udfff]", node.value):
            raise self._error(node, "half of a surrogate pair is not a character")
        if node.style is None and ":" in node.value:
            return node.value  # 12:30
        try:
            return self.construct_object(node)
        except (ValueError, KeyError, IndexError):
            raise self._error(node, f"this cannot be read as {tag}") from None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> Dict[str, Any]:
        own: Dict[str, Any] = {}
        inherited: Dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            here = (*path, key)
            if key in own:
                first = self._document.keys[here][0]
                raise self._error(key_node, f"the key {key!r} is here a second time (first in line {first})")
            self._document.keys[here] = _position(key_node.start_mark)
            value = self.build(value_node, here)
            if key != "<<" or key_node.style is not None:
                own[key] = value
                continue
            for other in value if isinstance(value, list) else [value]:
                if not isinstance(other, dict):
                    raise self._document.error(here, "needs a mapping, or a list of mappings")
                for name, item in other.items():
                    inherited.setdefault(name, item)
        return {**inherited, **own}

    def _key(self, node: Any) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a key must be plain text")
        key = self._value(node, ())
        if isinstance(key, str):
            return key
        kind = {bool: "true or false", type(None): "null"}.get(type(key), "a number")
        text = f'YAML reads the key {node.value} as {kind}; write it in quotes: "{node.value}"'
        raise self._error(node, text)

    def _error(self, place: Any, text: str) -> ConfigError:
        return self._document.error_at(_position(place.start_mark), text)


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1


def _after(text: str) -> Position:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _explain(error: yaml.MarkedYAMLError, text: str, mark: Any) -> str:
    """PyYAML's error in words that say what to do."""
    problem = error.problem or error.context or "not valid YAML"
    line = "".join(text.split("\n")[mark.line :][:1]) if mark else ""
    if "another document" in problem:
        return "a second YAML document begins here; there may be only one"
    if "'\\t'" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab cannot be used for indentation; use spaces"
    if _NEEDS_QUOTES.search(line):
        return f"not valid YAML: {problem} (a value that begins with [ {{ * & ! % @ ` | or > needs quotes)"
    return "not valid YAML: " + problem
