"""Checking a configuration file against dataclasses.

A section of the file is a dataclass, and each of its fields is a row: ``key(type, default, doc)``.  A type is
a function from a :class:`Place` (a value and where it stands) to the checked value; it raises the ConfigError
that the place makes.  Fields that were not declared with :func:`key` are not keys of the file.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple, TypeVar

from ..convert.profile import suggestion
from ..errors import ConfigError
from .yaml_positions import Document, Path

T = TypeVar("T")
REQUIRED = object()
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_WHOLE_REFERENCE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PATH_REFERENCE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Place(NamedTuple):
    """A value of the file and where it stands."""

    document: Document
    path: Path
    value: Any
    environ: Mapping[str, str]
    warnings: List[str]

    def error(self, text: str, key: bool = False) -> ConfigError:
        """A complaint about this value (``key``: about its key)."""
        return self.document.error(self.path, text, key)

    def warn(self, text: str) -> None:
        """Something the user should know that does not stop the start."""
        self.warnings.append(str(self.error(text)))

    def step(self, step: Any) -> Place:
        """The value under a key or an index of this one."""
        return self._replace(path=self.path + (step,), value=self.value[step])

    def expected(self, what: str) -> ConfigError:
        """``must be WHAT, not ...``; the value itself is not shown, it may be a key."""
        value = self.value
        if value is None:
            return self.error(f"must be {what}, but nothing stands here")
        if isinstance(value, bool):
            return self.error(
                f"must be {what}, not true or false (YAML reads on, off, yes and no as that, unless they are in quotes)"
            )
        kinds: Dict[type, str] = {dict: "a mapping", list: "a list", str: "text"}
        kind = kinds.get(type(value), "a number")
        return self.error(
            "must be {}, not {}{}".format(
                what, kind, " (write it in quotes)" if kind == "a number" and what == "text" else ""
            )
        )


Check = Callable[[Place], T]


def key(check: Check[Any], default: Any, doc: str, name: Optional[str] = None) -> Any:
    """One key of the file: its type, its default (or REQUIRED), one line of documentation, its name if not
    the field's."""
    metadata = {"check": check, "doc": doc, "name": name, "required": default is REQUIRED}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def secret(check: Check[Any], default: Any, doc: str) -> Any:
    """A key whose value must not show in a repr."""
    made = key(check, default, doc)
    made.repr = False
    return made


def keys_of(section: type) -> Dict[str, dataclasses.Field[Any]]:
    """The keys of a section's dataclass: name in the file -> field."""
    return {f.metadata["name"] or f.name: f for f in dataclasses.fields(section) if "check" in f.metadata}


def values_of(section: type, place: Place) -> Dict[str, Any]:
    """The checked values of a mapping, by field name; keys that are absent or null are left to the defaults."""
    if not isinstance(place.value, dict):
        raise place.expected("a mapping")
    known = keys_of(section)
    values: Dict[str, Any] = {}
    for name, value in place.value.items():  # in the file's order: the first complaint is the topmost one
        if name not in known:
            raise place.step(name).error(f"unknown key {name!r}{_hint(name, known)}", key=True)
        if value is not None:
            values[known[name].name] = known[name].metadata["check"](place.step(name))
    for name, f in known.items():
        if f.metadata["required"] and f.name not in values:
            raise place.error("{!r} is missing: {}".format(name, f.metadata["doc"]))
    return values


def _hint(name: str, known: Mapping[str, Any]) -> str:
    return suggestion(name, known) or "; known here: " + ", ".join(known)


def section(cls: Callable[..., T]) -> Check[T]:
    """A mapping that becomes an instance of a dataclass."""

    def check(place: Place) -> T:
        return cls(**values_of(cls, place))  # type: ignore[arg-type]

    return check


def list_of(item: Check[T], what: str = "a list", at_least: int = 0) -> Check[Tuple[T, ...]]:
    def check(place: Place) -> Tuple[T, ...]:
        if not isinstance(place.value, list):
            raise place.expected(what)
        if len(place.value) < at_least:
            raise place.error("must have at least %d entr%s" % (at_least, "y" if at_least == 1 else "ies"))
        return tuple(item(place.step(i)) for i in range(len(place.value)))

    return check


def text(place: Place) -> str:
    """Text that is not blank."""
    if not isinstance(place.value, str):
        raise place.expected("text")
    if not place.value.strip():
        raise place.error("must not be empty")
    return place.value


def boolean(place: Place) -> bool:
    if not isinstance(place.value, bool):
        raise place.expected("true or false")
    return place.value


def whole(minimum: int) -> Check[int]:
    """A whole number."""

    def check(place: Place) -> int:
        if isinstance(place.value, bool) or not isinstance(place.value, int):
            raise place.expected("a whole number")
        if place.value < minimum:
            raise place.error(f"must be at least {minimum}, not {place.value}")
        return place.value

    return check


def seconds(zero: bool = False) -> Check[float]:
    """A duration in seconds, whole or with a fraction; ``zero``: 0 has a meaning."""

    def check(place: Place) -> float:
        value = place.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise place.expected("a number of seconds such as 30 or 0.5")
        if not (0 <= value <= 1e9) or math.isnan(value) or (value == 0 and not zero):
            raise place.error("must be a number of seconds %s" % ("from 0" if zero else "above 0"))
        return float(value)

    return check


def size(place: Place) -> int:
    """Bytes: a whole number, or text such as "128 MiB"."""
    match = re.fullmatch(r"(\d{1,9}) ?(KiB|MiB|GiB)", place.value) if isinstance(place.value, str) else None
    value = int(match[1]) * _UNITS[match[2]] if match else place.value
    if isinstance(value, bool) or not isinstance(value, int):
        raise place.error(
            'must be a number of bytes, or text such as "128 MiB" (units: {})'.format(", ".join(_UNITS))
        )
    if value < 1:
        raise place.error("must be at least 1 byte")
    return value


def one_of(*choices: str) -> Check[str]:
    """One of some words, in any case."""

    def check(place: Place) -> str:
        word = place.value.lower() if isinstance(place.value, str) else place.value
        if word is True or word is False:
            raise place.expected("one of " + ", ".join(choices))
        if word not in choices:
            raise place.error(
                "must be one of {}; not {!r}{}".format(
                    ", ".join(choices), place.value, suggestion(str(word), choices)
                )
            )
        return str(word)

    return check


def reference(place: Place) -> str:
    """Text in which ``$NAME`` (alone) and ``${NAME}`` (anywhere) stand for environment variables; ``$$`` at
    the beginning is a dollar."""
    value = text(place).strip()
    if value.startswith("$$"):
        return value[1:]
    whole_value = _WHOLE_REFERENCE.fullmatch(value)
    if whole_value:
        return _variable(whole_value[1], place)
    return _REFERENCE.sub(lambda match: _variable(match[1], place), value)


def _variable(name: str, place: Place) -> str:
    value = place.environ.get(name)
    if value is None or not value.strip():
        raise place.error(
            "the environment variable {} is {}; set it before the start, for example: export {}=...".format(
                name, "not set" if value is None else "empty", name
            )
        )
    return value.strip()


def header_value(place: Place) -> str:
    """A reference whose value can be sent in an HTTP header."""
    return sendable(reference(place), place)


def sendable(value: str, place: Place) -> str:
    """``value`` unless it holds characters that no HTTP header may have."""
    if not all(" " <= c <= "~" for c in value):
        raise place.error(
            "holds a character that cannot be sent in an HTTP header (a line break, or one outside ASCII)"
        )
    return value


def text_map(header_names: bool) -> Check[Mapping[str, str]]:
    """A mapping of names to references."""

    def check(place: Place) -> Mapping[str, str]:
        if not isinstance(place.value, dict):
            raise place.expected("a mapping of names to text")
        for name in place.value:
            if header_names and not _HEADER_NAME.fullmatch(name):
                raise place.step(name).error(f"{name!r} cannot be the name of an HTTP header", key=True)
        return {name: (header_value if header_names else reference)(place.step(name)) for name in place.value}

    return check


def file_path(place: Place) -> str:
    """A file's path: ``~`` and ``$NAME`` are expanded, and it counts from the folder of the configuration
    file."""
    value = _PATH_REFERENCE.sub(lambda match: _variable(match[1], place), text(place))
    if "\0" in value:
        raise place.error("a path cannot hold a NUL character")
    return os.path.join(os.path.dirname(os.path.abspath(place.document.name)), os.path.expanduser(value))


def existing_file(place: Place) -> str:
    """The path of a file that can be read."""
    read_file(place)
    return file_path(place)


def read_file(place: Place) -> bytes:
    """The bytes of the file that the value names (at most 1 MiB)."""
    name = file_path(place)
    try:
        with open(name, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise place.error(f"cannot read {name}: {error.strerror}") from None


def any_mapping(place: Place) -> Mapping[str, Any]:
    """A mapping that is looked at later."""
    if not isinstance(place.value, dict):
        raise place.expected("a mapping")
    return place.value
