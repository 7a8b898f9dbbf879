"""Repairs of the JSON Schemas of tools: what clients send and providers refuse.

Always: a missing or typeless root becomes an object, a root of alternatives is loosened to one object, Codex' ``encrypted`` marks go.
Only where a profile asks for it (:data:`REPAIRS`): references inlined, missing types added, the ``$schema`` key dropped.
Functions return new objects; the client's own are never changed.
"""
from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Optional

Json = Dict[str, Any]
EMPTY: Json = {"type": "object", "properties": {}}
MAX_DEPTH = 24                                   # of inlined references: a schema may refer to itself


def function_schema(schema: Any) -> Json:
    """``parameters`` of a function that every provider takes: an object at the root.

    :arg schema: whatever the client sent
    """
    if not isinstance(schema, dict) or not schema:
        return dict(EMPTY)
    schema = _without_marks(schema)
    kind = schema.get("type")
    if kind == "object":
        return schema if isinstance(schema.get("properties"), dict) else dict(schema, properties={})
    if "properties" in schema or (kind is None and "$ref" in schema):
        return dict(schema, type="object")
    for word in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(word), list):
            return _loosened(schema, word)
    return {**EMPTY, **({"description": schema["description"]} if "description" in schema else {})}


def _loosened(schema: Json, word: str) -> Json:
    """One object that admits every alternative: all properties, and as required only what each one requires."""
    variants = [v for v in schema[word] if isinstance(v, dict)]
    properties: Json = {}
    for variant in variants:
        for name, value in (variant.get("properties") or {}).items():
            properties.setdefault(name, value)
    lists = [set(v.get("required") or ()) for v in variants] or [set()]
    required = set.union(*lists) if word == "allOf" else set.intersection(*lists)
    rest = {k: v for k, v in schema.items() if k != word}
    return {**rest, "type": "object", "properties": properties, **({"required": sorted(required)} if required else {})}


def _without_marks(value: Any) -> Any:
    """Without the ``encrypted: true`` that Codex puts on parameters of its own services."""
    if isinstance(value, dict):
        return {k: _without_marks(v) for k, v in value.items() if not (k == "encrypted" and v is True)}
    if isinstance(value, list):
        return [_without_marks(v) for v in value]
    return value


def has_numbers(schema: Optional[Json]) -> bool:
    """Does any parameter take a number?"""
    properties = (schema or {}).get("properties")
    return isinstance(properties, dict) and any(_is_number(p) for p in properties.values())


def _is_number(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    return "integer" in kinds or "number" in kinds or any(_is_number(s) for word in ("anyOf", "oneOf") for s in schema.get(word) or ())


# ---- repairs by name, for profiles
def _inline_refs(schema: Json) -> Json:
    """Replace local references by what they point to (GLM 5.3 answers with strings otherwise); keep what recurses too deep."""
    def walk(value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            ref = value.get("$ref")
            if isinstance(ref, str):
                target = _lookup(schema, ref)
                if depth >= MAX_DEPTH or not isinstance(target, dict):
                    return {"type": "object"}
                return walk({**target, **{k: v for k, v in value.items() if k != "$ref"}}, depth + 1)
            return {k: walk(v, depth + 1) for k, v in value.items() if k not in ("$defs", "definitions")}
        return [walk(v, depth + 1) for v in value] if isinstance(value, list) else value

    result = walk(schema, 0)
    return result if isinstance(result, dict) else dict(EMPTY)


def _lookup(schema: Json, ref: str) -> Any:
    """What a local reference (``#/$defs/x``) points to, or None."""
    value: Any = schema if ref.startswith("#/") else None
    for key in ref[2:].split("/"):
        value = value.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
    return value


def _add_types(schema: Json) -> Json:
    """Give every property a type, and move a type beside ``anyOf`` into its branches (Kimi)."""
    def walk(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        out = {k: v for k, v in value.items()}
        branches = out.get("anyOf")
        if isinstance(branches, list):
            kind = out.pop("type", None)
            out["anyOf"] = [walk(b if not isinstance(b, dict) or "type" in b or kind is None else dict(b, type=kind)) for b in branches]
        if isinstance(out.get("properties"), dict):
            out["properties"] = {k: walk(v) for k, v in out["properties"].items()}
        if "items" in out:
            out["items"] = walk(out["items"])
        if not ({"type", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"} & set(out)):
            out["type"] = "object" if "properties" in out else "array" if "items" in out else "string"
        return out

    result: Json = walk(schema)
    return result


def _drop_schema_key(schema: Json) -> Json:
    """Without ``$schema`` (Kimi K2.5 fails on it)."""
    return {k: v for k, v in schema.items() if k != "$schema"}


REPAIRS: Dict[str, Callable[[Json], Json]] = {"inline_refs": _inline_refs, "add_types": _add_types, "drop_schema_key": _drop_schema_key}


def repaired(schema: Json, names: Iterable[str]) -> Json:
    """``schema`` after the repairs that a profile names. :raises KeyError: for a name that is not in :data:`REPAIRS`"""
    for name in names:
        schema = REPAIRS[name](schema)
    return schema
