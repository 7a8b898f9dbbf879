r"""Rewrite rules: small changes to an outgoing request, for quirks that no profile covers.

A rule acts at the places that its path selects: keys with dots between them, ``[n]`` for one entry of a list
(``[-1]`` is the last), ``[*]`` for all.  ``messages[*].content`` is the content of every message.  If a
request lacks the place, the rule does nothing; this is not an error.  Requests share parts with each other
and with stored records, so nothing is changed in place; changed parts are copied.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Iterable, List, NamedTuple, Tuple, Union

from ...types import Json

Step = Union[str, int, None]  # a key, an index, all entries
Path = Tuple[Step, ...]
Change = Callable[[Any], Any]  # of a value

GONE = object()  # returned by a change to remove the value

MAX_STEPS = 32
_STEP = re.compile(r"(?:^|\.)(?P<key>[^.\[\]]+)|\[(?:(?P<index>-?\d{1,6})|\*)\]")


class Rule(NamedTuple):
    """One rewrite rule.

    ``change`` makes a new value of the one at ``path``, or GONE; ``makes``: create mappings that are
    missing on the way there.
    """

    path: Path
    change: Change
    makes: bool = False


def parse_path(text: str) -> Path:
    """``a.b[0].c[*]`` as steps.

    :raises ValueError: it is not a path; the text says why
    """
    steps: List[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None or text[0] in ".[":
            raise ValueError(
                f"{text!r} is not a path such as tools, metadata.user, messages[0].content or"
                " messages[*].content"
            )
        steps.append(
            match["key"]
            if match["key"] is not None
            else None
            if match["index"] is None
            else int(match["index"])
        )
        at = match.end()
    if not 0 < len(steps) <= MAX_STEPS:
        raise ValueError(f"a path must have 1 to {MAX_STEPS} steps")
    return tuple(steps)


def set_rule(path: Path, value: Any) -> Rule:
    """Put ``value`` there, in place of any other."""
    return Rule(path, lambda old: value, makes=True)


def remove_rule(path: Path) -> Rule:
    """Remove the value there."""
    return Rule(path, lambda old: GONE)


def rename_rule(path: Path, name: str) -> Rule:
    """Rename the last key of ``path``; a value that has the new name already is replaced.

    :raises ValueError: the path does not end with a key
    """
    last = path[-1]
    if not isinstance(last, str):
        raise ValueError("only a key can be renamed, not an entry of a list")

    def change(mapping: Any) -> Any:
        if not isinstance(mapping, dict) or last not in mapping:
            return mapping
        return {
            name if key == last else key: value
            for key, value in mapping.items()
            if key == last or key != name
        }

    return Rule(path[:-1], change)


def replace_rule(path: Path, pattern: str, replacement: str) -> Rule:
    r"""Replace the matches of the regular expression in the text there; ``replacement`` may refer to groups
    (``\1``).

    :raises ValueError: one of the two is invalid
    """
    try:
        compiled = re.compile(pattern)
        compiled.sub(replacement, "")
    except (re.error, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return Rule(path, lambda old: compiled.sub(replacement, old) if isinstance(old, str) else old)


def rewritten(request: Json, rules: Iterable[Rule]) -> Json:
    """A copy of the request with all rules applied, in order.  Raises nothing."""
    for rule in rules:
        request = _applied(request, rule.path, rule)
    return request


def _applied(node: Any, path: Path, rule: Rule) -> Any:
    if not path:
        return rule.change(node)
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        return (
            _in_mapping(node, step, rest, rule)
            if isinstance(node, dict) and (rule.makes or step in node)
            else node
        )
    if not isinstance(node, list) or step is not None and not -len(node) <= step < len(node):
        return node
    chosen = range(len(node)) if step is None else (step % len(node),)
    return [
        new
        for i, old in enumerate(node)
        for new in [_applied(old, rest, rule) if i in chosen else old]
        if new is not GONE
    ]


def _in_mapping(node: Json, key: str, rest: Path, rule: Rule) -> Json:
    old = node.get(key)
    if old is None and rule.makes and rest and isinstance(rest[0], str):
        old = {}
    new = _applied(old, rest, rule)
    if new is GONE:
        return {name: value for name, value in node.items() if name != key}
    return node if new is old and (rest or key in node) else {**node, key: new}
