"""Checking a configuration file against dataclasses.

A section of the file is a dataclass, and each of its fields is a row: ``key(type, default, doc)``.  A type is
a function from a :class:`Place` (a value and where it is in the file) to the checked value; it raises the
ConfigError that the place makes.  Fields that are not declared with :func:`key` are not keys of the file.
Errors are collected (:class:`Mistakes`), so that one run shows all of them.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, TypeVar

from ..convert.profile import suggestion
from ..errors import ConfigError, ConfigErrors
from .yaml_positions import Document, Path

T = TypeVar("T")
REQUIRED = object()
NOT_SENDABLE = "has a character that HTTP headers cannot have (a line break, or one outside ASCII)"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_DURATION = re.compile(r"(?<![0-9])([0-9]+(?:\.[0-9]+)?) ?(ms|[smhd])")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_WHOLE_REFERENCE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PATH_REFERENCE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Place(NamedTuple):
    """A value and where it is in the file."""

    document: Document
    path: Path
    value: Any
    environ: Mapping[str, str]
    warnings: List[str]

    def error(self, text: str, key: bool = False) -> ConfigError:
        """An error of this value (``key``: of its key)."""
        return self.document.error(self.path, text, key)

    def warn(self, text: str) -> None:
        """Add a warning, which does not prevent the start."""
        self.warnings.append(str(self.error(text)))

    def step(self, step: Any) -> Place:
        """The value under a key or an index of this one."""
        return self._replace(path=self.path + (step,), value=self.value[step])

    def expected(self, what: str) -> ConfigError:
        """``must be WHAT, not ...``; the value itself is not shown because it may be a key."""
        value = self.value
        if value is None:
            return self.error(f"must be {what}, but it is empty")
        if isinstance(value, bool):
            return self.error(
                f"must be {what}, not true or false (in YAML, on, off, yes and no mean the same unless they "
                "are in quotes)"
            )
        kinds: Dict[type, str] = {dict: "a mapping", list: "a list", str: "text"}
        kind = kinds.get(type(value), "a number")
        hint = " (write it in quotes)" if kind == "a number" and what == "text" else ""
        return self.error(f"must be {what}, not {kind}{hint}")


class Mistakes:
    """Collects the errors of the parts of a value."""

    def __init__(self) -> None:
        self._found: List[ConfigError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """A context in which one part is read; its error is kept, and the parts after it are still read."""
        try:
            yield
        except ConfigError as error:
            self._found += error.each

    def check(self) -> None:
        """Call this before using the parts.

        :raises ConfigError: if there were errors
        """
        found = list({str(error): error for error in self._found}.values())
        if found:
            raise found[0] if len(found) == 1 else ConfigErrors(found)


Check = Callable[[Place], T]


def key(check: Check[Any], default: Any, doc: str, name: Optional[str] = None) -> Any:
    """A field of a section that is a key in the file.

    :param check: its type
    :param default: its default value, or ``REQUIRED``
    :param doc: one line about it
    :param name: its name in the file, if that differs from the field's
    """
    metadata = {"check": check, "doc": doc, "name": name, "required": default is REQUIRED}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def secret(check: Check[Any], default: Any, doc: str, name: Optional[str] = None) -> Any:
    """A key whose value must not show in a repr."""
    made = key(check, default, doc, name)
    made.repr = False
    return made


def keys_of(section: type) -> Dict[str, dataclasses.Field[Any]]:
    """The keys of a section's dataclass: name in the file -> field."""
    return {f.metadata["name"] or f.name: f for f in dataclasses.fields(section) if "check" in f.metadata}


def values_of(section: type, place: Place) -> Dict[str, Any]:
    """The checked values of a mapping, by field name, without keys that are absent or null."""
    if not isinstance(place.value, dict):
        raise place.expected("a mapping")
    known, mistakes = keys_of(section), Mistakes()
    values: Dict[str, Any] = {}
    for name, value in place.value.items():  # in the file's order, so that the topmost error comes first
        with mistakes.collected():
            if name not in known:
                raise place.step(name).error(f"unknown key {name!r}{_hint(name, known)}", key=True)
            if value is not None:
                values[known[name].name] = known[name].metadata["check"](place.step(name))
    unknown = [name for name in place.value if name not in known]
    for name, f in known.items():
        with mistakes.collected():
            misspelt = any(suggestion(other, [name]) for other in unknown)  # that error names this key
            if f.metadata["required"] and place.value.get(name) is None and not misspelt:
                raise place.error(f"{name!r} is missing: {f.metadata['doc']}")
    mistakes.check()
    return values


def _hint(name: str, known: Mapping[str, Any]) -> str:
    return suggestion(name, known) or "; known here: " + ", ".join(known)


def section(cls: Callable[..., T]) -> Check[T]:
    """A mapping that becomes an instance of a dataclass."""

    def check(place: Place) -> T:
        return cls(**values_of(cls, place))  # type: ignore[arg-type]

    return check


def later(module: str, name: str) -> Check[Any]:
    """The check ``name`` of another module in this package, which is loaded only when a file has the key."""

    def check(place: Place) -> Any:
        return getattr(import_module(f".{module}", __package__), name)(place)

    return check


def list_of(item: Check[T], what: str = "a list", at_least: int = 0) -> Check[Tuple[T, ...]]:
    def check(place: Place) -> Tuple[T, ...]:
        if not isinstance(place.value, list):
            raise place.expected(what)
        if len(place.value) < at_least:
            raise place.error(f"must have at least {at_least} entr{'y' if at_least == 1 else 'ies'}")
        mistakes, items = Mistakes(), []
        for i in range(len(place.value)):
            with mistakes.collected():
                items.append(item(place.step(i)))
        mistakes.check()
        return tuple(items)

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


def amount(place: Place) -> float:
    """A number that is not negative, such as a price."""
    value = place.value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise place.expected("a number")
    if not 0 <= value < math.inf:
        raise place.error("must be a number that is not negative")
    return float(value)


def whole(minimum: int, maximum: Optional[int] = None) -> Check[int]:
    """A whole number."""

    def check(place: Place) -> int:
        if isinstance(place.value, bool) or not isinstance(place.value, int):
            raise place.expected("a whole number")
        if place.value < minimum:
            raise place.error(f"must be at least {minimum}, not {place.value}")
        if maximum is not None and place.value > maximum:
            raise place.error(f"must be at most {maximum}, not {place.value}")
        return place.value

    return check


def seconds(zero: bool = False) -> Check[float]:
    """A duration: a number of seconds, or text such as ``5m``.

    :param zero: 0 is allowed
    """

    def check(place: Place) -> float:
        value = duration(place.value) if isinstance(place.value, str) else place.value
        if value is None:
            raise place.error(
                'must be a number of seconds such as 30 or 0.5, or text such as "90s", "5m" or "1h"'
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise place.expected("a number of seconds such as 30 or 0.5, or text such as 90s, 5m or 1h")
        if not (0 <= value <= 1e9) or math.isnan(value) or (value == 0 and not zero):
            raise place.error(f"must be a number of seconds {'from 0' if zero else 'above 0'}")
        return float(value)

    return check


def duration(text: str) -> Optional[float]:
    """The seconds of ``90``, ``90s``, ``1.5m``, ``1h30m`` or ``250ms``; None if it is not a duration."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    if not text or _DURATION.sub("", text).strip(" "):
        return None
    return math.fsum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def size(place: Place) -> int:
    """Bytes: a whole number, or text such as "128 MiB"."""
    match = re.fullmatch(r"(\d{1,9}) ?(KiB|MiB|GiB)", place.value) if isinstance(place.value, str) else None
    value = int(match[1]) * _UNITS[match[2]] if match else place.value
    if isinstance(value, bool) or not isinstance(value, int):
        units = ", ".join(_UNITS)
        raise place.error(f'must be a number of bytes, or text such as "128 MiB" (units: {units})')
    if value < 1:
        raise place.error("must be at least 1 byte")
    return value


def one_of(*choices: str) -> Check[str]:
    """One of the given words, in upper or lower case."""

    def check(place: Place) -> str:
        word = place.value.lower() if isinstance(place.value, str) else place.value
        if word is True or word is False:
            raise place.expected("one of " + ", ".join(choices))
        if word not in choices:
            hint = suggestion(str(word), choices)
            raise place.error(f"must be one of {', '.join(choices)}; not {place.value!r}{hint}")
        return str(word)

    return check


def reference(place: Place) -> str:
    """Text in which ``$NAME`` alone and ``${NAME}`` anywhere stand for environment variables; ``$$`` at the
    beginning is a dollar sign.
    """
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
        state = "not set" if value is None else "empty"
        raise place.error(
            f"the environment variable {name} is {state}; set it before the start, for example: "
            f"export {name}=..."
        )
    return value.strip()


def header_value(place: Place) -> str:
    """A reference whose value is allowed in an HTTP header."""
    return sendable(reference(place), place)


def seal_key(place: Place) -> str:
    """A reference to 64 hexadecimal digits."""
    value = reference(place)
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise place.error("must be 64 hexadecimal digits (make some with: openssl rand -hex 32), or $VAR")
    return value


def sendable(value: str, place: Place) -> str:
    """``value``, unless it has a character that is not allowed in an HTTP header."""
    if not is_sendable(value):
        raise place.error(NOT_SENDABLE)
    return value


def is_sendable(value: str) -> bool:
    """Can ``value`` be sent in an HTTP header?"""
    return all(" " <= character <= "~" for character in value)


def is_header_name(name: Any) -> bool:
    """Can an HTTP header have this name?"""
    return isinstance(name, str) and _HEADER_NAME.fullmatch(name) is not None


def text_map(header_names: bool) -> Check[Mapping[str, str]]:
    """A mapping of names to references."""

    def check(place: Place) -> Mapping[str, str]:
        if not isinstance(place.value, dict):
            raise place.expected("a mapping of names to text")
        for name in place.value:
            if header_names and not is_header_name(name):
                raise place.step(name).error(f"{name!r} cannot be the name of an HTTP header", key=True)
        return {name: (header_value if header_names else reference)(place.step(name)) for name in place.value}

    return check


def file_path(place: Place) -> str:
    """The path of a file: ``~`` and ``$NAME`` are expanded, and a relative path starts from the folder of the
    configuration file.
    """
    value = _PATH_REFERENCE.sub(lambda match: _variable(match[1], place), text(place))
    if "\0" in value:
        raise place.error("a path cannot have a NUL character")
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
    """A mapping that is checked later."""
    if not isinstance(place.value, dict):
        raise place.expected("a mapping")
    return place.value
