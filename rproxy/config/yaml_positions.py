"""YAML whose errors name ``file:line:col`` and say what to do.

PyYAML composes the text into nodes, which carry their marks.  :func:`load` turns them into a
:class:`Document`: plain values, and beside them the position of every key and value under its path, a tuple
such as ``("models", 0, "provider")``.  PyYAML alone would recurse without limit on a deep file, expand
aliases without limit, and let the second of two equal keys win in silence; here these are errors.

Only what a configuration needs is accepted: mappings with text keys, lists, text, numbers, booleans, null,
anchors and merge keys (``<<``).  Dates and sexagesimal numbers (``12:30``) stay text.  No other module
imports yaml.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, NamedTuple, Tuple, Union

import yaml

from ..errors import ConfigError

Path = Tuple[Union[str, int], ...]
Position = Tuple[int, int]  # line and column, counted from 1

MAX_DEPTH = 50
MAX_VALUES = 100_000  # an alias counts as everything it stands for
_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_SCALARS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null")}
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")  # no text, for some version of YAML
_NEEDS_QUOTES = re.compile(r"(:|-)\s+[\[{*&!%@`|>]")  # a value that begins like YAML's own syntax


def path_text(path: Path) -> str:
    """``models[0].provider`` for ``("models", 0, "provider")``."""
    return "".join(f"[{step}]" if isinstance(step, int) else "." + step for step in path).lstrip(".")


class Document:
    """The plain values of a file (``data``) and where they are in it."""

    def __init__(self, name: str) -> None:
        self.name, self.data = name, None  # type: str, Any
        self.keys: Dict[Path, Position] = {}
        self.values: Dict[Path, Position] = {}

    def position(self, path: Path, key: bool = False) -> Position:
        """Where a value is, or the nearest enclosing value that is in the file.

        :param key: where the value's key is
        """
        while path:
            for table in (self.keys, self.values) if key else (self.values, self.keys):
                if path in table:
                    return table[path]
            path, key = path[:-1], False
        return self.values.get((), (1, 1))

    def error(self, path: Path, text: str, key: bool = False) -> ConfigError:
        """The error ``file:line:col: path: text`` for the value at ``path`` (``key``: for its key)."""
        what = path_text(path[:-1] if key else path)
        return self.error_at(self.position(path, key), what + ": " + text if what else text)

    def error_at(self, position: Position, text: str) -> ConfigError:
        """The error ``file:line:col: text``."""
        return ConfigError(f"{self.name}:{position[0]}:{position[1]}: {text}")


def dump(data: Any) -> str:
    """Plain values as YAML, in their order; collections that hold no others take one line."""
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return text


def load(text: Union[str, bytes], name: str) -> Document:
    """Read YAML.

    :param name: of the file, for messages
    :raises ConfigError: whatever is wrong with the text
    """
    document = Document(name)
    decoded = _decode(text, document)
    loader: Any = yaml.SafeLoader("")
    try:
        loader = _Loader(decoded, document)
        if not loader.check_node():
            raise document.error_at((1, 1), "the file is empty")
        document.data = _Builder(loader, document).build(loader.get_node(), ()).value
        if loader.check_node():
            position = _position(loader.peek_event().start_mark)
            raise document.error_at(position, "a second YAML document begins here; there may be only one")
    except yaml.reader.ReaderError as error:
        position = _find(decoded, chr(error.character))
        text = f"the character U+{error.character:04X} is not allowed in YAML"
        raise document.error_at(position, text) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise document.error_at(_position(mark) if mark else (1, 1), _explain(error, decoded, mark)) from None
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF", a number of 10,000 digits
        raise document.error_at(_position(loader.get_mark()), f"cannot be read: {error}") from None
    return document


class _Alias(yaml.Node):
    """An alias where it is used: ``tag`` is the name of the anchor, ``value`` the node behind it."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with a limit of depth, aliases with marks of their own, and fewer types of scalars."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rows if tag in _SCALARS or tag == _MERGE]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, document: Document) -> None:
        super().__init__(text)
        self._document = document
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if self._depth > MAX_DEPTH:
            raise self._document.error_at(
                _position(event.start_mark), f"nested deeper than {MAX_DEPTH} levels"
            )
        if self.check_event(yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            name = event.anchor
            if name not in self.anchors:
                text = f"the alias *{name} has no anchor &{name} before it"
                raise self._document.error_at(_position(event.start_mark), text)
            return _Alias(name, self.anchors[name], event.start_mark, event.end_mark)
        self.anchors.pop(event.anchor, None)  # an anchor may be set again
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Built(NamedTuple):
    value: Any
    size: int  # how many values it stands for


class _Builder:
    """Builds plain values from nodes, each node once: aliases share what they stand for."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self._loader, self._document = loader, document
        self._built: Dict[int, _Built] = {}  # by the id of the node

    def build(self, node: Any, path: Path) -> _Built:
        position = self._document.values[path] = _position(node.start_mark)
        if isinstance(node, _Alias):
            if id(node.value) not in self._built:
                raise self._error(node, f"the alias *{node.tag} is inside its own anchor &{node.tag}")
            built = self._built[id(node.value)]
        else:
            if isinstance(node, yaml.ScalarNode):
                built = _Built(self._scalar(node), 1)
            else:
                built = self._sequence(node, path) if node.id == "sequence" else self._mapping(node, path)
            self._built[id(node)] = built
        if built.size > MAX_VALUES:
            raise self._document.error_at(position, f"stands for more than {MAX_VALUES} values")
        return built

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> _Built:
        self._check_tag(node, _TAG + "seq")
        items = [self.build(item, path + (i,)) for i, item in enumerate(node.value)]
        return _Built([item.value for item in items], 1 + sum(item.size for item in items))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> _Built:
        self._check_tag(node, _TAG + "map")
        own: Dict[str, Any] = {}
        inherited: Dict[str, Any] = {}
        size = 1
        for key_node, value_node in node.value:
            key = self._key(key_node)
            here = path + (key,)
            if key in own:
                first = self._document.keys[here][0]
                raise self._error(key_node, f"the key {key!r} is here a second time (first in line {first})")
            self._document.keys[here] = _position(key_node.start_mark)
            value = self.build(value_node, here)
            size += value.size
            if key_node.tag == _MERGE:
                self._merge(inherited, value.value, here)
            else:
                own[key] = value.value
        return _Built({**inherited, **own}, size)

    def _merge(self, inherited: Dict[str, Any], value: Any, path: Path) -> None:
        """``<<: *other`` or ``<<: [*one, *two]``: what is named first wins."""
        for other in value if isinstance(value, list) else [value]:
            if not isinstance(other, dict):
                raise self._document.error(path, "needs a mapping, or a list of mappings")
            for key, item in other.items():
                inherited.setdefault(key, item)

    def _key(self, node: Any) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a key must be plain text")
        key = self._scalar(node)
        if isinstance(key, str):
            return key
        kind = {bool: "true or false", type(None): "null"}.get(type(key), "a number")
        text = f'YAML reads the key {node.value} as {kind}; write it in quotes: "{node.value}"'
        raise self._error(node, text)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if re.search("[\ud800-\udfff]", node.value):
            raise self._error(node, "half of a surrogate pair is not a character")
        if node.tag == _MERGE:
            return node.value
        self._check_tag(node, *_SCALARS)
        if node.style is None and ":" in node.value:
            return node.value  # 12:30
        try:
            return self._loader.construct_object(node)
        except (ValueError, KeyError, IndexError):
            raise self._error(node, f"this cannot be read as {_short(node.tag)}") from None

    def _check_tag(self, node: yaml.Node, *allowed: str) -> None:
        if node.tag not in allowed:
            raise self._error(node, f"the tag {_short(node.tag)} is not allowed here; remove it")

    def _error(self, node: yaml.Node, text: str) -> ConfigError:
        return self._document.error_at(_position(node.start_mark), text)


def scalar(text: str) -> str:
    """One line of text as it is written in a file: in quotes where it needs them."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def _decode(text: Union[str, bytes], document: Document) -> str:
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8")
        position = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise document.error_at(position, "the file is not UTF-8 text") from None
    return decoded[1:] if decoded.startswith("\ufeff") else decoded


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1


def _find(text: str, character: str) -> Position:
    position = max(text.find(character), 0)
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


def _explain(error: yaml.MarkedYAMLError, text: str, mark: Any) -> str:
    """PyYAML's error in words that say what to do."""
    problem = error.problem or error.context or "not valid YAML"
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "'\\t'" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab cannot be used for indentation; use spaces"
    if _NEEDS_QUOTES.search(line):
        return f"not valid YAML: {problem} (a value that begins with [ {{ * & ! % @ ` | or > needs quotes)"
    return "not valid YAML: " + problem
