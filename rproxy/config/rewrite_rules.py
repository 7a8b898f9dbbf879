"""Checks the ``rewrite`` lists of the configuration; what the rules do is in
:mod:`rproxy.convert.request.rewrite`.

Each entry has one key, the kind of rule: ``set: {path: value}``, ``remove: [path]``, ``rename: {path: new
name}``, ``replace: {path, pattern, with}``.  An entry may have several rules.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Tuple

from ..convert.request.rewrite import Path, Rule, parse_path, remove_rule, rename_rule, replace_rule, set_rule
from ..types import light_dataclass
from . import checks as c
from .checks import REQUIRED, Place, key


def _path(place: Place) -> Path:
    return _parsed(c.text(place), place)


def _parsed(text: str, place: Place, key: bool = False) -> Path:
    try:
        return parse_path(text)
    except ValueError as error:
        raise place.error(str(error), key=key) from None


@light_dataclass(frozen=True)
class _Replace:
    path: Path = key(_path, REQUIRED, "where, for example messages[*].content")
    pattern: str = key(c.text, REQUIRED, "a regular expression")
    replacement: str = key(lambda place: _any_text(place), REQUIRED, "the text instead", name="with")


def _any_text(place: Place) -> str:
    """Text, or an empty text, which deletes what the pattern matches."""
    return place.value if place.value == "" else c.text(place)


def _members(place: Place) -> Iterator[Tuple[Path, Place]]:
    """(path, place of the value) for each entry of a mapping from paths."""
    for name in c.any_mapping(place):
        yield _parsed(name, place.step(name), key=True), place.step(name)


def _set(place: Place) -> List[Rule]:
    return [set_rule(path, value.value) for path, value in _members(place)]


def _remove(place: Place) -> List[Rule]:
    return [remove_rule(path) for path in c.list_of(_path, "a list of paths")(place)]


def _rename(place: Place) -> List[Rule]:
    rules = []
    for path, value in _members(place):
        try:
            rules.append(rename_rule(path, c.text(value)))
        except ValueError as error:
            raise value.error(str(error), key=True) from None
    return rules


def _replace(place: Place) -> List[Rule]:
    found = c.section(_Replace)(place)
    try:
        return [replace_rule(found.path, found.pattern, found.replacement)]
    except ValueError as error:
        raise place.step("pattern").error(f"cannot be used: {error}") from None


RULE_KINDS: Dict[str, Callable[[Place], List[Rule]]] = {
    "set": _set,
    "remove": _remove,
    "rename": _rename,
    "replace": _replace,
}


def _rule(place: Place) -> List[Rule]:
    names: List[Any] = list(c.any_mapping(place))
    if len(names) != 1 or names[0] not in RULE_KINDS:
        raise place.error(f"must have one key, the kind of rule: {', '.join(RULE_KINDS)}")
    return RULE_KINDS[names[0]](place.step(names[0]))


def rewrite_rules(place: Place) -> Tuple[Rule, ...]:
    """The rules of a list, in their order."""
    return tuple(rule for rules in c.list_of(_rule, "a list of rules")(place) for rule in rules)
