"""YAML whose complaints say ``file:line:col`` and what to do.

The text is read event by event, not by PyYAML's composer: that one recurses (a deep file ends in
RecursionError), expands aliases without limit, and lets the second of two equal keys win in silence.  The
result is a :class:`Document`: plain values, and beside them the place of every key and value under its path.
A path is a tuple such as ``("models", 0, "provider")``.

Only what a configuration needs is accepted: mappings with text keys, lists, text, numbers, booleans, null,
anchors, merge keys (``<<``).  Dates and sexagesimal numbers (``12:30``) stay text.  This is the only module
that imports yaml.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

import yaml

from ..errors import ConfigError

Path = Tuple[Union[str, int], ...]
Place = Tuple[int, int]  # line and column, counted from 1

MAX_DEPTH = 50
MAX_VALUES = 100_000  # with every alias counted as what it stands for
_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null")}
_NEEDS_QUOTES = re.compile(r"(:|-)\s+[\[{*&!%@`|>]")  # a value that begins like YAML's own syntax


def path_text(path: Path) -> str:
    """``models[0].provider`` for ``("models", 0, "provider")``."""
    return "".join(f"[{step}]" if isinstance(step, int) else "." + step for step in path).lstrip(".")


class Document:
    """A file's plain values (``data``) and the places where they stand."""

    def __init__(self, name: str) -> None:
        self.name, self.data = name, None  # type: str, Any
        self.keys: Dict[Path, Place] = {}
        self.values: Dict[Path, Place] = {}

    def place(self, path: Path, key: bool = False) -> Place:
        """Line and column of a value (``key``: of its key), or of the nearest thing around it that is in the
        file."""
        while path:
            for table in (self.keys, self.values) if key else (self.values, self.keys):
                if path in table:
                    return table[path]
            path, key = path[:-1], False
        return self.values.get((), (1, 1))

    def error(self, path: Path, text: str, key: bool = False) -> ConfigError:
        """The complaint ``file:line:col: path: text``."""
        what = path_text(path[:-1] if key else path)
        return self.error_at(self.place(path, key), what + ": " + text if what else text)

    def error_at(self, place: Place, text: str) -> ConfigError:
        """The complaint ``file:line:col: text``."""
        return ConfigError(f"{self.name}:{place[0]}:{place[1]}: {text}")


def dump(data: Any) -> str:
    """Plain values as YAML, in their order; what holds nothing but plain values stands in one line."""
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return text


class _Built(NamedTuple):
    value: Any
    size: int  # how many values it stands for


def load(text: Union[str, bytes], name: str) -> Document:
    """Read the YAML ``text`` of the file ``name``. :raises ConfigError: whatever is wrong with it"""
    document = Document(name)
    decoded = _decode(text, document)
    loader: Any = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(decoded)
        _Builder(loader, document).build()
    except yaml.reader.ReaderError as error:
        place = _find(decoded, chr(error.character))
        raise document.error_at(
            place, f"the character U+{error.character:04X} is not allowed in YAML"
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise document.error_at(_place(mark) if mark else (1, 1), _explain(error, decoded, mark)) from None
    except (
        ValueError,
        OverflowError,
    ) as error:  # an escape such as "\UFFFFFFFF", a number of ten thousand digits
        raise document.error_at(_place(loader.get_mark()), f"cannot be read: {error}") from None
    return document


class _Builder:
    """Builds plain values from the events of one document."""

    def __init__(self, loader: Any, document: Document) -> None:
        self.loader, self.document = loader, document
        self.anchors: Dict[str, Optional[_Built]] = {}  # None: still open
        self.total = 0

    def build(self) -> None:
        document, loader = self.document, self.loader
        loader.get_event()  # the start of the stream
        if not loader.check_event(yaml.DocumentStartEvent):
            raise document.error_at((1, 1), "the file is empty")
        loader.get_event()
        document.data = self.node((), 0).value
        loader.get_event()  # the end of the document
        if not loader.check_event(yaml.StreamEndEvent):
            raise document.error_at(
                _place(loader.peek_event().start_mark),
                "a second YAML document begins here; there may be only one",
            )

    def node(self, path: Path, depth: int) -> _Built:
        event: Any = self.loader.get_event()
        place = _place(event.start_mark)
        self.document.values[path] = place
        if depth > MAX_DEPTH:
            raise self.document.error_at(place, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._count(self._alias(str(event.anchor), place), place)
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            built = _Built(self._scalar(event, place), 1)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._only_tag(event, "seq", place)
            built = self._sequence(path, depth)
        else:
            self._only_tag(event, "map", place)
            built = self._mapping(path, depth)
        if event.anchor:
            self.anchors[event.anchor] = built
        return self._count(built, place)

    def _count(self, built: _Built, place: Place) -> _Built:
        if built.size > MAX_VALUES:
            raise self.document.error_at(place, f"stands for more than {MAX_VALUES} values")
        return built

    def _alias(self, anchor: str, place: Place) -> _Built:
        if anchor not in self.anchors:
            raise self.document.error_at(place, f"the alias *{anchor} has no anchor &{anchor} before it")
        built = self.anchors[anchor]
        if built is None:
            raise self.document.error_at(place, f"the alias *{anchor} stands inside its own anchor &{anchor}")
        return built

    def _only_tag(self, event: Any, kind: str, place: Place) -> None:
        if event.tag not in (None, "!", _TAG + kind):
            raise self._bad_tag(event.tag, place)

    def _bad_tag(self, tag: str, place: Place) -> ConfigError:
        return self.document.error_at(
            place, "the tag {} is not allowed here; remove it".format(tag.replace(_TAG, "!!"))
        )

    def _sequence(self, path: Path, depth: int) -> _Built:
        items: List[Any] = []
        size = 1
        while not self.loader.check_event(yaml.SequenceEndEvent):
            item = self.node(path + (len(items),), depth + 1)
            items.append(item.value)
            size += item.size
        self.loader.get_event()
        return _Built(items, size)

    def _mapping(self, path: Path, depth: int) -> _Built:
        own: Dict[str, Any] = {}
        inherited: Dict[str, Any] = {}
        size = 1
        while not self.loader.check_event(yaml.MappingEndEvent):
            event = self.loader.get_event()
            key = self._key(event)
            here = path + (key,)
            if key in own:
                raise self.document.error_at(
                    _place(event.start_mark),
                    f"the key {key!r} stands here a second time (first in line {self.document.keys[here][0]})",
                )
            self.document.keys[here] = _place(event.start_mark)
            value = self.node(here, depth + 1)
            size += value.size
            if key == "<<" and event.implicit[0]:
                self._merge(inherited, value.value, here)
            else:
                own[key] = value.value
        self.loader.get_event()
        return _Built({**inherited, **own}, size)

    def _merge(self, inherited: Dict[str, Any], value: Any, path: Path) -> None:
        """``<<: *other`` or ``<<: [*one, *two]``: what is named first wins."""
        for other in value if isinstance(value, list) else [value]:
            if not isinstance(other, dict):
                raise self.document.error(path, "needs a mapping, or a list of mappings")
            for key, item in other.items():
                inherited.setdefault(key, item)

    def _key(self, event: Any) -> str:
        place = _place(event.start_mark)
        if not isinstance(event, yaml.ScalarEvent):
            raise self.document.error_at(place, "a key must be plain text")
        if event.value == "<<" and event.implicit[0]:
            return "<<"
        key = self._scalar(event, place)
        if isinstance(key, str):
            return key
        kind = {bool: "true or false", type(None): "null"}.get(type(key), "a number")
        raise self.document.error_at(
            place, f'YAML reads the key {event.value} as {kind}; write it in quotes: "{event.value}"'
        )

    def _scalar(self, event: Any, place: Place) -> Any:
        if re.search("[\ud800-\udfff]", event.value):
            raise self.document.error_at(place, "half of a surrogate pair is not a character")
        tag = event.tag if event.tag not in (None, "!") else None
        if tag is None:
            if not event.implicit[0]:
                return event.value
            tag = self.loader.resolve(yaml.ScalarNode, event.value, event.implicit)
            if tag not in _SCALARS or (":" in event.value and tag != _TAG + "str"):
                return event.value  # a date, 12:30 and the like
        elif tag not in _SCALARS:
            raise self._bad_tag(tag, place)
        return self._convert(tag, event, place)

    def _convert(self, tag: str, event: Any, place: Place) -> Any:
        node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        try:
            return self.loader.construct_object(node)
        except (ValueError, KeyError, IndexError):
            raise self.document.error_at(
                place, "this cannot be read as {}".format(tag.replace(_TAG, "!!"))
            ) from None


def _decode(text: Union[str, bytes], document: Document) -> str:
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8")
        place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise document.error_at(place, "the file is not UTF-8 text") from None
    return decoded[1:] if decoded.startswith("\ufeff") else decoded


def _place(mark: Any) -> Place:
    return mark.line + 1, mark.column + 1


def _find(text: str, character: str) -> Place:
    position = max(text.find(character), 0)
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


def _explain(error: yaml.MarkedYAMLError, text: str, mark: Any) -> str:
    """PyYAML's complaint in words that say what to do."""
    problem = error.problem or error.context or "not valid YAML"
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "'\\t'" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab cannot be used for indentation; use spaces"
    if _NEEDS_QUOTES.search(line):
        return f"not valid YAML: {problem} (a value that begins with [ {{ * & ! % @ ` | or > needs quotes)"
    return "not valid YAML: " + problem
