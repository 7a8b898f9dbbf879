"""``text.format`` to ``response_format``, in the strongest form that the provider accepts, or else as
instructions.

A provider may know ``json_schema`` and not ``json_object`` (LM Studio), or the other way round (DeepSeek), or
neither.  A schema that the provider does not accept goes into the prompt; where only schemas are known, JSON
without a schema becomes the schema of any object.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Tuple

from ...errors import ApiError, invalid_value
from ...types import AnyItem, Json
from ..json_steps import json_contains, json_text
from ..profile import Profile
from .schema import answer_schema

JSON_PROMPT = "Answer with one JSON object and nothing else: no Markdown fence, no comment."


def response_format(
    request: Mapping[str, Any], items: Sequence[AnyItem], profile: Profile
) -> Tuple[Optional[Json], str]:
    """The ``response_format`` of a request.

    :returns: ``response_format`` or None, and instructions for the prompt if the provider does not accept the
        format, or requires them
    :raises ApiError: 400 for a format that cannot be understood
    """
    form = (request.get("text") or {}).get("format") or {}
    if not isinstance(form, dict):  # check_request cannot see what a configuration_update brings
        raise invalid_value("text.format must be an object.", "text.format")
    kind = form.get("type", "text")
    if kind == "json_schema" and form.get("schema") is None:
        # The schema is optional in Open Responses; the AI SDK's provider for it leaves it out.
        kind = "json_object"
    if kind == "text":
        return None, ""
    if kind == "json_schema":
        return _schema(form, profile)
    if kind == "json_object":
        return _object(request, items, profile)
    raise invalid_value(
        f"text.format.type must be text, json_object or json_schema, not {str(kind)[:40]!r}.",
        "text.format.type",
    )


def _schema(form: Json, profile: Profile) -> Tuple[Optional[Json], str]:
    if not isinstance(form.get("schema"), dict):
        raise ApiError(
            400,
            "text.format of type json_schema needs a schema (an object).",
            code="invalid_type",
            param="text.format.schema",
        )
    if "json_schema" in profile.response_format:
        known = {k: form[k] for k in ("name", "description", "schema", "strict") if form.get(k) is not None}
        known["schema"] = answer_schema(
            form["schema"], profile.response_schema, profile.drop_keywords.response_format
        )
        return {"type": "json_schema", "json_schema": {"name": "response", **known}}, ""
    schema = json_text(form["schema"])
    note = f"{JSON_PROMPT} It must be valid against this JSON Schema:\n{schema}"
    return _weaker(profile), note


def _object(
    request: Mapping[str, Any], items: Sequence[AnyItem], profile: Profile
) -> Tuple[Optional[Json], str]:
    if "json_object" in profile.response_format:
        return _weaker(profile), "" if _mentions_json(request, items) else JSON_PROMPT
    if "json_schema" in profile.response_format:
        any_object = {"name": "response", "schema": {"type": "object"}}
        return {"type": "json_schema", "json_schema": any_object}, JSON_PROMPT
    return None, JSON_PROMPT


def _weaker(profile: Profile) -> Optional[Json]:
    return {"type": "json_object"} if "json_object" in profile.response_format else None


def _mentions_json(request: Mapping[str, Any], items: Sequence[AnyItem]) -> bool:
    """Does the beginning of the conversation mention JSON?  If nothing does, OpenAI and DeepSeek refuse
    json_object.

    The rest must not count, because the prompt must not change when the conversation continues.
    """
    beginning = [request.get("instructions")]
    for item in items:
        beginning.append(item.get("content"))
        if item.get("role") == "user":
            break
    return json_contains(beginning, b"json")
