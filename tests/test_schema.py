"""Schemas of tools: what every provider takes, and the repairs that single ones need."""

from __future__ import annotations

import copy
import json
from typing import Any, Dict, List

import pytest
from chat_rules import schema_problems
from histories import JSON
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import examples

from rproxy.convert.profile import Profile
from rproxy.convert.request import schema as schema_module
from rproxy.convert.request.response_format import response_format
from rproxy.convert.request.schema import REPAIRS, function_schema, has_numbers, repaired

Json = Dict[str, Any]
STRING: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}


def obj(properties: Json, **more: Any) -> Json:
    return {"type": "object", "properties": properties, **more}


# what comes -> what every provider gets
ROOTS: Dict[str, Any] = {
    "a good one stays": (
        obj({"a": STRING}, required=["a"], additionalProperties=False),
        obj({"a": STRING}, required=["a"], additionalProperties=False),
    ),
    "nothing": (None, obj({})),
    "something else": ([1], obj({})),
    "an empty one": ({}, obj({})),
    "an object without properties": (
        {"type": "object", "additionalProperties": True},
        obj({}, additionalProperties=True),
    ),
    "an object or nothing": ({"type": ["object", "null"], "properties": {"a": STRING}}, obj({"a": STRING})),
    "properties without a type": ({"properties": {"a": STRING}}, obj({"a": STRING})),
    "properties that are none": ({"type": "object", "properties": [1]}, obj({})),
    "no object": ({"type": "string", "description": "d"}, obj({}, description="d")),
    "no object and no description": ({"type": "array", "items": STRING}, obj({})),
    "alternatives": (
        {
            "anyOf": [
                obj({"a": STRING, "b": STRING}, required=["a", "b"]),
                obj({"b": NUMBER, "c": NUMBER}, required=["b"]),
            ],
            "description": "d",
        },
        {"description": "d", **obj({"a": STRING, "b": STRING, "c": NUMBER}, required=["b"])},
    ),
    "one of several": (
        {"oneOf": [obj({"a": STRING}, required=["a"]), obj({"b": STRING})]},
        obj({"a": STRING, "b": STRING}),
    ),
    "all of several": (
        {"allOf": [obj({"a": STRING}, required=["a"]), obj({"b": STRING}, required=["b"])]},
        obj({"a": STRING, "b": STRING}, required=["a", "b"]),
    ),
    "alternatives beside properties": (
        obj(
            {"a": STRING, "b": STRING, "c": STRING},
            required=["c"],
            anyOf=[{"required": ["a"]}, {"required": ["b"]}],
        ),
        obj({"a": STRING, "b": STRING, "c": STRING}, required=["c"]),
    ),
    "alternatives that say nothing": ({"anyOf": [True, 5]}, obj({})),
    "alternatives by reference": (
        {"$defs": {"A": obj({"a": STRING})}, "anyOf": [{"$ref": "#/$defs/A"}]},
        {"$defs": {"A": obj({"a": STRING})}, **obj({"a": STRING})},
    ),
    "a reference to an alternative": (
        {"anyOf": [obj({"a": STRING}), obj({"b": {"$ref": "#/anyOf/0/properties/a"}})]},
        obj({"a": STRING, "b": {}}),
    ),
    "a reference": (
        {"$ref": "#/$defs/A", "$defs": {"A": obj({"a": STRING})}},
        {**obj({"a": STRING}), "$defs": {"A": obj({"a": STRING})}},
    ),
    "a reference to itself": ({"$ref": "#"}, obj({})),
    "a chain of references that ends nowhere": (
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
        obj({}),
    ),
    "a reference into no schema": (
        {"x": {"properties": 5, "enum": []}, "anyOf": [{"$ref": "#/x"}]},
        {"x": {"properties": 5, "enum": []}, **obj({})},
    ),
}


@pytest.mark.parametrize("title", ROOTS)
def test_the_root_becomes_one_object(title: str) -> None:
    schema, wanted = ROOTS[title]
    before = copy.deepcopy(schema)
    assert function_schema(schema) == wanted
    assert schema == before


@pytest.mark.parametrize(
    "inner, wanted",
    [
        ({"type": "string", "encrypted": True}, STRING),
        (True, True),
        (None, {}),
        (5, {}),
        ([], {}),
        ({"type": None}, {}),
        ({"type": "any"}, {}),
        ({"type": []}, {}),
        ({"type": ["string", "any"]}, {}),
        ({"type": {"a": 1}}, {}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"enum": []}, {}),
        ({"enum": "ab"}, {}),
        ({"enum": ["a"]}, {"enum": ["a"]}),
        ({"required": "a"}, {}),
        ({"required": [1]}, {}),
        ({"description": 5}, {}),
        ({"anyOf": []}, {}),
        ({"properties": []}, {}),
        ({"type": "array", "items": None}, {"type": "array", "items": {}}),
        ({"items": [STRING, None]}, {"items": [STRING, {}]}),
        ({"anyOf": [STRING, None]}, {"anyOf": [STRING, {}]}),
        ({"additionalProperties": {"type": None}}, {"additionalProperties": {}}),
        ({"$ref": "#/$defs/gone"}, {}),
        ({"$ref": "https://example.com/schema"}, {}),
        ({"$ref": 5}, {}),
        ({"$ref": "#/properties/a~1b/x~0y"}, {}),
        ({"$ref": "#"}, {"$ref": "#"}),
        ({"$ref": "#/properties/other"}, {"$ref": "#/properties/other"}),
        (
            obj({"encrypted": True, "type": STRING, "enum": STRING}),
            obj({"encrypted": True, "type": STRING, "enum": STRING}),
        ),
        # names, not keywords
    ],
)
def test_keywords_that_mean_nothing_go(inner: Any, wanted: Any) -> None:
    schema = function_schema(obj({"a": inner, "other": STRING}))
    assert schema == obj({"a": wanted, "other": STRING})
    assert schema_problems(schema, schema) == []


def test_a_reference_may_spell_slashes_and_tildes() -> None:
    schema = obj({"a": {"$ref": "#/$defs/a~1b~0c"}}, **{"$defs": {"a/b~c": STRING}})
    assert function_schema(schema) == schema
    assert repaired(schema, ["inline_refs"]) == obj({"a": STRING})


@pytest.mark.parametrize(
    "schema, numbers",
    [
        (None, False),
        ({}, False),
        (obj({"a": STRING}), False),
        (obj({"a": NUMBER}), True),
        (obj({"a": {"type": ["integer", "null"]}}), True),
        (obj({"a": {"type": "array", "items": obj({"b": {"type": "integer"}})}}), True),
        (obj({"a": {"anyOf": [STRING, NUMBER]}}), True),
        (obj({"number": STRING, "type": STRING}), False),
    ],
)
def test_numbers_are_found_wherever_they_are(schema: Any, numbers: bool) -> None:
    assert has_numbers(schema) is numbers


# ---- for single providers
def test_references_are_inlined() -> None:
    schema = obj(
        {"a": {"$ref": "#/$defs/A", "description": "mine"}, "definitions": STRING, "on": True},
        **{
            "$defs": {"A": obj({"b": {"$ref": "#/definitions/B"}}, description="its")},
            "definitions": {"B": STRING},
        },
    )
    assert repaired(schema, ["inline_refs"]) == obj(
        {"a": obj({"b": STRING}, description="mine"), "definitions": STRING, "on": True}
    )


def test_a_schema_that_contains_itself_ends_in_any_object() -> None:
    node = obj({"next": {"$ref": "#/$defs/Node"}, "all": {"type": "array", "items": {"$ref": "#"}}})
    flat = repaired({**obj({"node": {"$ref": "#/$defs/Node"}}), "$defs": {"Node": node}}, ["inline_refs"])
    inner = flat["properties"]["node"]["properties"]
    assert inner["next"] == {"type": "object"}
    assert inner["all"]["items"]["properties"]["node"] == {"type": "object"}


def test_a_schema_that_doubles_at_every_step_stays_small() -> None:
    defs = {
        str(n): obj({"l": {"$ref": f"#/$defs/{n + 1}"}, "r": {"$ref": f"#/$defs/{n + 1}"}}) for n in range(40)
    }
    flat = repaired({**obj({"a": {"$ref": "#/$defs/0"}}), "$defs": {**defs, "40": STRING}}, ["inline_refs"])
    assert len(json.dumps(flat)) < 50_000


@pytest.mark.parametrize(
    "inner, wanted",
    [
        ({}, STRING),
        ({"description": "d"}, {"description": "d", "type": "string"}),
        ({"properties": {"b": {}}}, {"properties": {"b": STRING}, "type": "object"}),
        ({"items": {}}, {"items": STRING, "type": "array"}),
        ({"enum": ["a"]}, {"enum": ["a"], "type": "string"}),
        ({"enum": [1, 2]}, {"enum": [1, 2], "type": "integer"}),
        ({"const": True}, {"const": True, "type": "boolean"}),
        ({"const": 1.5}, {"const": 1.5, "type": "number"}),
        ({"enum": [None]}, {"enum": [None], "type": "string"}),
        (
            {"type": "string", "anyOf": [{"enum": ["a"]}, {"type": "null"}, True]},
            {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}, True]},
        ),
        ({"anyOf": [{}, NUMBER]}, {"anyOf": [STRING, NUMBER]}),
        ({"type": "object", "additionalProperties": {}}, {"type": "object", "additionalProperties": {}}),
        (
            {"type": "object", "additionalProperties": {"description": "d"}},
            {"type": "object", "additionalProperties": {"description": "d", "type": "string"}},
        ),
        ({"$ref": "#"}, {"$ref": "#"}),
        (True, True),
    ],
)
def test_missing_types_are_added(inner: Any, wanted: Any) -> None:
    assert repaired(obj({"a": inner}), ["add_types"]) == obj({"a": wanted})


def test_the_schema_key_goes() -> None:
    assert repaired({"$schema": "x", **obj({})}, ["drop_schema_key"]) == obj({})
    assert repaired(obj({}), []) == obj({})
    with pytest.raises(KeyError):
        repaired({}, ["tidy"])


# ---- anything
KEYWORDS = [
    "type",
    "properties",
    "required",
    "items",
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "$defs",
    "definitions",
    "enum",
    "const",
    "description",
    "encrypted",
    "additionalProperties",
    "not",
    "$schema",
    "title",
]
VALUES = st.one_of(
    JSON,
    st.sampled_from(["object", "string", "number", "#", "#/$defs/a", "#/definitions/a", "#/properties/a"]),
    st.just(True),
)
SCHEMAS: Any = st.recursive(
    st.dictionaries(st.sampled_from(KEYWORDS), VALUES, max_size=4),
    lambda inner: st.dictionaries(
        st.sampled_from(KEYWORDS),
        st.one_of(
            VALUES,
            inner,
            st.lists(inner, max_size=2),
            st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=examples(200))
@given(schema=SCHEMAS)
def test_any_schema_becomes_one_that_strict_providers_take(schema: Json) -> None:
    sound = function_schema(schema)
    assert schema_problems(sound, sound) == []
    assert (
        sound["type"] == "object"
        and isinstance(sound["properties"], dict)
        and not {"anyOf", "oneOf", "allOf", "$ref"} & set(sound)
    )
    assert function_schema(sound) == sound
    every: List[str] = sorted(REPAIRS, reverse=True)
    repaired_one = repaired(sound, every)
    assert "$ref" not in repaired_one and repaired_one["type"] == "object"


@settings(max_examples=examples(200))
@given(schema=SCHEMAS, repair=st.sampled_from(sorted(REPAIRS)))
def test_any_schema_of_an_answer_can_be_repaired(schema: Json, repair: str) -> None:
    form = {"type": "json_schema", "schema": schema}
    sent, words = response_format({"text": {"format": form}}, [], Profile(response_schema=(repair,)))
    assert sent is not None and isinstance(sent["json_schema"]["schema"], dict) and words == ""
    sent, _ = response_format({"text": {"format": form}}, [], Profile())
    assert sent is not None and sent["json_schema"]["schema"] is schema


def test_objects_are_closed_all_the_way_down() -> None:
    schema = obj({"a": {"type": "array", "items": obj({})}, "b": {"properties": {"c": STRING}}, "d": True})
    assert repaired(schema, ["close_objects"]) == obj(
        {
            "a": {"type": "array", "items": obj({}, additionalProperties=False)},
            "b": {"properties": {"c": STRING}, "additionalProperties": False},
            "d": True,
        },
        additionalProperties=False,
    )


def test_the_essentials_of_a_schema() -> None:
    schema = obj(
        {
            "pattern": {"type": ["null", "string"], "pattern": "^a", "description": "d"},
            "n": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": ["null"]}]},
            "x": True,
        },
        required=["n"],
        additionalProperties=False,
    )
    assert repaired(schema, ["essentials"]) == obj(
        {
            "pattern": {"type": "string", "description": "d"},
            "n": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "x": True,
        },
        required=["n"],
    )


def test_keywords_go_and_properties_of_their_name_stay() -> None:
    schema = obj({"minimum": {"type": "integer", "minimum": 0, "items": True}}, minimum=3)
    assert repaired(schema, (), ["minimum"]) == obj({"minimum": {"type": "integer", "items": True}})
    assert schema["minimum"] == 3


def test_what_many_alternatives_refer_to_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: List[Any] = []

    def sound(value: Any, root: Any) -> Any:
        looked.append(value)
        return original(value, root)

    original = schema_module._sound
    monkeypatch.setattr(schema_module, "_sound", sound)
    large = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(300)}}
    found = function_schema({"$defs": {"a": large}, "anyOf": [{"$ref": "#/$defs/a"}] * 300})
    assert list(found["properties"]) == list(large["properties"])
    assert len(looked) == 3  # the root, the definition, and the result
