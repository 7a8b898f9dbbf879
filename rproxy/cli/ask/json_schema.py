"""Does a JSON value fit a JSON Schema?  The keywords of draft 2020-12 that constrain values, and their older
spellings; ``format`` and ``unevaluated*`` are not checked, as in most validators.

:func:`first_problem` is the entry.  A keyword is a row of ``KEYWORDS``: a function that yields what is wrong,
each with the path of the value (``$.a[0]``).
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import partial
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional

Problems = Iterator[str]
MAX_DEPTH = 200  # schemas within schemas, so that one that refers to itself ends
IDENTIFIER = re.compile(r"[A-Za-z_]\w*")

TYPES: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": lambda value: _is_number(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def first_problem(value: Any, schema: Any) -> Optional[str]:
    """What is wrong with a value; None if it fits."""
    return next(Validator(schema).problems(value, schema, "$", 0), None)


def is_strict(schema: Any) -> bool:
    """Can a provider enforce the schema in OpenAI's strict mode?  There, objects have all of their properties
    and no others.
    """
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties")
        if schema.get("additionalProperties") is not False or not isinstance(properties, dict):
            return False
        required = schema.get("required", [])
        if not isinstance(required, list) or sorted(map(str, required)) != sorted(properties):
            return False
    return all(map(is_strict, schema.values()))


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _same(one: Any, other: Any) -> bool:
    """Are they the same JSON?  For Python, 1 and True are equal."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _matches(pattern: str, text: str) -> bool:
    """Does the regular expression match?  One that Python cannot parse always does."""
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return True


class Where(NamedTuple):
    """The place of a value: its path, the schema that it is checked against, and how deep that is."""

    path: str
    schema: Mapping[str, Any]
    depth: int

    def part(self, keyword: str) -> Any:
        """Another keyword of the schema, empty if it has none that can be used."""
        found = self.schema.get(keyword)
        return found if isinstance(found, FORMS[keyword]) else FORMS[keyword]()

    def at(self, step: Any) -> str:
        """The path of a part of the value."""
        if isinstance(step, int):
            return f"{self.path}[{step}]"
        return f"{self.path}.{step}" if IDENTIFIER.fullmatch(step) else f"{self.path}[{step!r}]"


class Validator:
    """A schema with the targets of its references."""

    def __init__(self, root: Any) -> None:
        self._root = root

    def problems(self, value: Any, schema: Any, path: str, depth: int) -> Problems:
        """All that is wrong with ``value``."""
        if schema is False:
            yield f"{path} must not be there"
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return
        where = Where(path, schema, depth)
        for keyword, wanted in schema.items():
            rule = KEYWORDS.get(keyword)
            if rule is not None and isinstance(wanted, FORMS.get(keyword, object)):
                yield from rule(self, value, wanted, where)

    def fits(self, value: Any, schema: Any, where: Where) -> bool:
        """Does the whole value fit another schema?"""
        return next(self.problems(value, schema, where.path, where.depth + 1), None) is None

    def within(self, value: Any, schema: Any, where: Where, step: Any) -> Problems:
        """What is wrong with a part of the value."""
        return self.problems(value, schema, where.at(step), where.depth + 1)

    def referred(self, reference: Any) -> Any:
        """The schema at ``#/$defs/name``; True, which everything fits, if there is none."""
        found = self._root
        for step in str(reference).lstrip("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdigit() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                return True
        return found


Rule = Callable[[Validator, Any, Any, Where], Problems]


# ---- Any value
def _type(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    names = [name for name in (wanted if isinstance(wanted, list) else [wanted]) if str(name) in TYPES]
    if names and not any(TYPES[name](value) for name in names):
        yield f"{where.path} must be {' or '.join(map(str, names))}"


def _enum(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if not any(_same(value, one) for one in wanted):
        yield f"{where.path} must be one of {', '.join(map(repr, wanted))}"


def _const(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if not _same(value, wanted):
        yield f"{where.path} must be {wanted!r}"


def _ref(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    yield from validator.problems(value, validator.referred(wanted), where.path, where.depth + 1)


def _all_of(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    for schema in wanted:
        yield from validator.problems(value, schema, where.path, where.depth + 1)


def _any_of(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if not any(validator.fits(value, schema, where) for schema in wanted):
        yield f"{where.path} fits none of anyOf"


def _one_of(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    fitting = sum(validator.fits(value, schema, where) for schema in wanted)
    if fitting != 1:
        yield f"{where.path} fits {fitting} of oneOf, not one"


def _not(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if validator.fits(value, wanted, where):
        yield f"{where.path} is what 'not' excludes"


def _if(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    then = where.schema.get("then" if validator.fits(value, wanted, where) else "else", True)
    yield from validator.problems(value, then, where.path, where.depth + 1)


# ---- Objects
def _properties(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, dict):
        for name, schema in wanted.items():
            if name in value:
                yield from validator.within(value[name], schema, where, name)


def _required(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, dict):
        names = [name for name in wanted if isinstance(name, str)]
        yield from (f"{where.at(name)} is missing" for name in names if name not in value)


def _pattern_properties(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, dict):
        for pattern, schema in wanted.items():
            for name in value:
                if _matches(pattern, name):
                    yield from validator.within(value[name], schema, where, name)


def _additional_properties(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, dict):
        patterns, named = where.part("patternProperties"), where.part("properties")
        for name in value:
            if name not in named and not any(_matches(pattern, name) for pattern in patterns):
                yield from validator.within(value[name], wanted, where, name)


def _property_names(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, dict):
        for name in value:
            yield from validator.within(name, wanted, where, name)


def _dependent_required(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, dict):
        for name, others in wanted.items():
            if name in value and isinstance(others, list):
                yield from _required(validator, value, others, where)


# ---- Arrays
def _items(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, list):
        before = len(where.part("prefixItems"))
        for n, item in enumerate(value):
            if isinstance(wanted, list):  # until draft 2019-09
                yield from validator.within(item, wanted[n] if n < len(wanted) else True, where, n)
            elif n >= before:
                yield from validator.within(item, wanted, where, n)


def _prefix_items(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, list):
        for n, (item, schema) in enumerate(zip(value, wanted)):
            yield from validator.within(item, schema, where, n)


def _contains(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, list) and not any(validator.fits(item, wanted, where) for item in value):
        yield f"{where.path} has no item that 'contains' describes"


def _unique_items(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if wanted is True and isinstance(value, list):
        for n, item in enumerate(value):
            if any(_same(item, other) for other in value[:n]):
                yield f"{where.at(n)} is there already"


# ---- Limits
def _limit(kind: type, measure: Callable[[Any], Any], fits: Callable[[Any, Any], bool], text: str) -> Rule:
    """A keyword whose value is a number."""

    def rule(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
        applies = _is_number(value) if kind is float else isinstance(value, kind)
        if applies and _is_number(wanted) and not fits(measure(value), wanted):
            yield f"{where.path} must {text} {wanted}"

    return rule


def _itself(value: Any) -> Any:
    return value


def _is_multiple(value: Any, wanted: Any) -> bool:
    """Of the decimal numbers as they are written: 1.3 is a multiple of 0.1."""
    return wanted <= 0 or Fraction(repr(value)) % Fraction(repr(wanted)) == 0


def _pattern(validator: Validator, value: Any, wanted: Any, where: Where) -> Problems:
    if isinstance(value, str) and not _matches(str(wanted), value):
        yield f"{where.path} must match {wanted!r}"


def _at_least(value: Any, wanted: Any) -> bool:
    return bool(value >= wanted)


def _at_most(value: Any, wanted: Any) -> bool:
    return bool(value <= wanted)


_number, _text, _array, _object = (
    partial(_limit, kind, measure)
    for kind, measure in ((float, _itself), (str, len), (list, len), (dict, len))
)

# The types that keywords need to have a meaning; the others accept anything.
FORMS: Mapping[str, type] = {
    **dict.fromkeys(("properties", "patternProperties", "dependentRequired"), dict),
    **dict.fromkeys(("enum", "allOf", "anyOf", "oneOf", "required", "prefixItems"), list),
}
KEYWORDS: Dict[str, Rule] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "$ref": _ref,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "properties": _properties,
    "required": _required,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "dependentRequired": _dependent_required,
    "items": _items,
    "prefixItems": _prefix_items,
    "contains": _contains,
    "uniqueItems": _unique_items,
    "pattern": _pattern,
    "minimum": _number(_at_least, "be at least"),
    "maximum": _number(_at_most, "be at most"),
    "exclusiveMinimum": _number(lambda value, wanted: value > wanted, "be above"),
    "exclusiveMaximum": _number(lambda value, wanted: value < wanted, "be below"),
    "multipleOf": _number(_is_multiple, "be a multiple of"),
    "minLength": _text(_at_least, "have a length of at least"),
    "maxLength": _text(_at_most, "have a length of at most"),
    "minItems": _array(_at_least, "have a length of at least"),
    "maxItems": _array(_at_most, "have a length of at most"),
    "minProperties": _object(_at_least, "have a number of properties of at least"),
    "maxProperties": _object(_at_most, "have a number of properties of at most"),
}
