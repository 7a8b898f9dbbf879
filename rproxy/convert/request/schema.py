"""Repairs JSON Schemas of tools that clients send and providers refuse.

In every case the root becomes one object (a root of alternatives is loosened to one that admits each of
them), keywords with meaningless values are removed (``type: null``, an empty ``enum``, a dangling reference),
and so are Codex's ``encrypted`` marks.  Other repairs (:data:`REPAIRS`, :func:`without_keywords`) are made
where a profile asks for them.  Functions return new objects; the client's own are never changed.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Sequence, Set, Tuple

from ...types import Json

MAX_INLINED = 200  # references in one schema, which may fan out or be circular
GROWTH = 8  # times its own size: how far a schema may grow where its references are followed
SMALL = 200  # keywords, properties and entries: any schema may grow by this many
ANY_OBJECT: Json = {"type": "object"}  # when there is no room
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
ALTERNATIVES = ("anyOf", "oneOf", "allOf")
# The keywords that hold other schemas.
DEFINITIONS = ("$defs", "definitions")
MAPS = ("properties", "patternProperties", "dependentSchemas", *DEFINITIONS)
LISTS = ALTERNATIVES + ("prefixItems", "items")
SINGLES = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")


def _is_type(value: Any) -> bool:
    return (
        value in TYPES
        if isinstance(value, str)
        else isinstance(value, list) and bool(value) and all(v in TYPES for v in value)
    )


def _is_filled(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


# Keyword -> is this value meaningful?  Other keywords pass unchanged.
SOUND: Dict[str, Callable[[Any], bool]] = {
    "type": _is_type,
    "required": lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    "enum": _is_filled,
    "description": lambda value: isinstance(value, str),
    "encrypted": lambda value: False,  # Codex marks parameters of its own services
    **{word: lambda value: isinstance(value, dict) for word in MAPS},
    **dict.fromkeys(ALTERNATIVES, _is_filled),
}


def function_schema(schema: Any) -> Json:
    """``parameters`` of a function that every provider accepts: an object at the root.

    :param schema: whatever the client sent
    """
    root = _sound(schema, schema) if isinstance(schema, dict) else {}
    if "$ref" in root or any(word in root for word in ALTERNATIVES):
        room, followed = _Room(root), set()
        while "$ref" in root and root["$ref"] not in followed:  # a root that is only a reference
            followed.add(root["$ref"])
            root = _dereferenced(root, root, room)
        if any(word in root for word in ALTERNATIVES):
            root = _loosened(root, room)
            root = _sound(root, root)  # something may have referred to an alternative
    if root.get("type") == "object" or "properties" in root:
        return {**root, "type": "object", "properties": root.get("properties", {})}
    return {
        "type": "object",
        "properties": {},
        **({"description": root["description"]} if "description" in root else {}),
    }


class _Room:
    """How much a schema may still grow: many references to one large definition make it large."""

    def __init__(self, schema: Json) -> None:
        self._left = SMALL + GROWTH * _size(schema)
        self._copies: Dict[Tuple[int, int], _Copy] = {}  # by the identities of root and target

    def take(self, target: Json, root: Json) -> Json:
        """Make room for a copy of a schema.

        :param root: the schema that its references point into
        :returns: the copy; the schema of any object when there is no room
        """
        if self._left <= 0:
            return ANY_OBJECT
        key = id(root), id(target)
        if key not in self._copies:
            self._copies[key] = _Copy(root, target, _size(target), _sound(target, root))
        copy = self._copies[key]
        self._left -= copy.size
        return copy.sound if self._left > 0 else ANY_OBJECT


class _Copy(NamedTuple):
    """A schema that has been measured, so that this need not be repeated; ``root`` and ``target`` stay
    alive.
    """

    root: Json
    target: Json
    size: int
    sound: Json


def _size(schema: Any) -> int:
    """The keywords, properties and entries in a schema."""
    size, found = 0, [schema]
    for value in found:
        size += 1
        if isinstance(value, (dict, list)):
            found += value.values() if isinstance(value, dict) else value
    return size


def _sound(schema: Json, root: Json) -> Json:
    """The schema without meaningless values, all the way down.

    :param root: the schema that its references point into
    """

    def walk(key: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return value if isinstance(value, bool) else {}
        good = {k: v for k, v in value.items() if k not in SOUND or SOUND[k](v)}
        if "$ref" in good and not isinstance(_lookup(root, good["$ref"]), dict):
            del good["$ref"]
        return _mapped(good, walk)

    result: Json = walk("", schema)
    return result


def _mapped(schema: Json, change: Callable[[str, Any], Any]) -> Json:
    """A copy in which ``change(keyword, schema)`` replaces every schema directly inside."""
    out = dict(schema)
    for key, value in schema.items():
        if key in MAPS and isinstance(value, dict):
            out[key] = {name: change(key, v) for name, v in value.items()}
        elif key in LISTS and isinstance(value, list):
            out[key] = [change(key, v) for v in value]
        elif key in SINGLES:
            out[key] = change(key, value)
    return out


def _lookup(schema: Json, ref: Any) -> Any:
    """What a local reference (``#``, ``#/$defs/x``) points to, or None."""
    if not isinstance(ref, str) or ref != "#" and not ref.startswith("#/"):
        return None
    value: Any = schema
    for key in ref[2:].split("/") if ref != "#" else ():
        value = value.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
    return value


def _dereferenced(root: Json, schema: Json, room: _Room) -> Json:
    """``schema`` merged with the target of its reference, if there is room for it; its own keywords win."""
    target = _lookup(root, schema["$ref"])
    rest = {k: v for k, v in schema.items() if k != "$ref"}
    if not isinstance(target, dict) or target is schema:
        return rest
    return {**room.take(target, root), **rest}


def _loosened(schema: Json, room: _Room) -> Json:
    """One object that admits every alternative: with all properties, requiring what all of them require."""
    properties = dict(schema.get("properties", {}))
    required = set(schema.get("required", ()))
    for word in ALTERNATIVES:
        variants = [
            _dereferenced(schema, v, room) if "$ref" in v else v
            for v in schema.get(word, ())
            if isinstance(v, dict)
        ]
        for variant in variants:
            for name, value in variant.get("properties", {}).items():
                properties.setdefault(name, value)
        lists: List[Set[str]] = [set(v.get("required", ())) for v in variants] or [set()]
        required |= set.union(*lists) if word == "allOf" else set.intersection(*lists)
    rest = {k: v for k, v in schema.items() if k not in ALTERNATIVES + ("required",)}
    return {
        **rest,
        "type": "object",
        "properties": properties,
        **({"required": sorted(required)} if required else {}),
    }


def has_numbers(schema: Any) -> bool:
    """Does the schema describe a number anywhere?"""
    if isinstance(schema, dict):
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        return "integer" in kinds or "number" in kinds or any(map(has_numbers, schema.values()))
    return isinstance(schema, list) and any(map(has_numbers, schema))


# ---- Repairs by name, for profiles
def _inline_refs(schema: Json) -> Json:
    """Replace references by their targets (GLM 5.3 answers with strings otherwise); a recursive one becomes
    any object.
    """
    left, room = MAX_INLINED, _Room(schema)

    def walk(value: Any, within: FrozenSet[str]) -> Any:
        nonlocal left
        if not isinstance(value, dict):
            return value
        ref = value.get("$ref")
        if ref is not None:
            if ref in within or left == 0:
                return ANY_OBJECT
            left -= 1
            return walk(_dereferenced(schema, value, room), within | {ref})
        return _mapped(
            {k: v for k, v in value.items() if k not in DEFINITIONS}, lambda key, v: walk(v, within)
        )

    result: Json = walk(schema, frozenset())
    return result


def _add_types(schema: Json) -> Json:
    """Give every property a type, and move a type beside alternatives into them (Kimi)."""

    def walk(key: str, value: Any) -> Any:
        if not isinstance(value, dict) or not value and key == "additionalProperties":
            return value
        out = dict(value)
        for word in ("anyOf", "oneOf"):
            if word in out and "type" in out:
                kind = out.pop("type")
                out[word] = [
                    {"type": kind, **branch} if isinstance(branch, dict) else branch for branch in out[word]
                ]
        if not ({"type", "$ref", *ALTERNATIVES} & set(out)):
            out["type"] = _guessed(out)
        return _mapped(out, walk)

    result: Json = walk("", schema)
    return result


def _guessed(schema: Json) -> str:
    """The type of a schema that does not name one."""
    for word, kind in (("properties", "object"), ("items", "array")):
        if word in schema:
            return kind
    example = schema["enum"][0] if "enum" in schema else schema.get("const")
    kinds = {bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    return kinds.get(type(example), "string")


def _drop_schema_key(schema: Json) -> Json:
    """Without ``$schema`` (Kimi K2.5 fails on it)."""
    return {k: v for k, v in schema.items() if k != "$schema"}


def _close_objects(schema: Json) -> Json:
    """``additionalProperties: false`` in every object ("must be set on every object": Cerebras, Groq)."""

    def walk(key: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        closed = (
            {"additionalProperties": False} if value.get("type") == "object" or "properties" in value else {}
        )
        return _mapped({**value, **closed}, walk)

    result: Json = walk("", schema)
    return result


# The keywords that are kept for a server that fails on others (llama.cpp's grammars, Gemini's protos).
ESSENTIALS = ("type", "properties", "required", "items", "enum", "description", "anyOf", "$ref", *DEFINITIONS)


def _essentials(schema: Json) -> Json:
    """Names, types, enumerations and descriptions; of several types the first that is not null."""

    def walk(key: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        out = {k: v for k, v in value.items() if k in ESSENTIALS}
        if isinstance(out.get("type"), list):
            out["type"] = next((kind for kind in out["type"] if kind != "null"), "string")
        return _mapped(out, walk)

    result: Json = walk("", schema)
    return result


REPAIRS: Dict[str, Callable[[Json], Json]] = {
    "inline_refs": _inline_refs,
    "add_types": _add_types,
    "drop_schema_key": _drop_schema_key,
    "close_objects": _close_objects,
    "essentials": _essentials,
}


def repaired(schema: Json, names: Iterable[str], drop: Sequence[str] = ()) -> Json:
    """A schema after the repairs that a profile names, and without the keywords in ``drop``.

    :param schema: sound, as :func:`function_schema` makes it
    :raises KeyError: for a name that is not in :data:`REPAIRS`
    """
    for name in names:
        schema = REPAIRS[name](schema)
    return without_keywords(schema, drop) if drop else schema


def answer_schema(schema: Json, repairs: Sequence[str], drop: Sequence[str]) -> Json:
    """The schema of an answer, as the client sent it, for :func:`repaired`: unchanged if nothing is to be
    repaired.
    """
    return repaired(_sound(schema, schema) if repairs else schema, repairs, drop)


def without_keywords(schema: Json, drop: Sequence[str]) -> Json:
    """``schema`` without some keywords; properties with such names stay."""

    def walk(key: str, value: Any) -> Any:
        return (
            _mapped({k: v for k, v in value.items() if k not in drop}, walk)
            if isinstance(value, dict)
            else value
        )

    result: Json = walk("", schema)
    return result
