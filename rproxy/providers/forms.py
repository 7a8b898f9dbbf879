"""Which requests have the form that a provider has refused, so that they need the cure.

A cure is kept for the provider and the model, but not every request has what it changes.  Each row is a kind
of form, with a function that tests whether a create request has it; ``cure`` is the profile override that was
learned.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence

from ..types import AnyItem, Json

Form = Callable[[Mapping[str, Any], Sequence[AnyItem], Json], bool]

# Fields of the chat request that come from fields of another name.
FROM: Dict[str, Sequence[str]] = {
    "user": ("user", "safety_identifier"),
    "user_id": ("user", "safety_identifier"),
    "logprobs": ("top_logprobs", "include"),
    "response_format": ("text",),
    "max_tokens": ("max_output_tokens",),
    "max_completion_tokens": ("max_output_tokens",),
}
ALWAYS = ("stream_options", "store", "include", "tool_stream")  # fields that rproxy adds by itself


def _item_types(items: Sequence[AnyItem]) -> List[str]:
    return [str(item.get("type")) for item in items]


def _always(request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    return True


def _thinks(request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    asked = any(value is not None for value in (request.get("reasoning") or {}).values())
    return asked or cure.get("thinking", {}).get("with_tools") is False and bool(request.get("tools"))


def _has_history(request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    answers = ("reasoning", "function_call", "custom_tool_call", "local_shell_call", "tool_search_call")
    return any(
        kind in answers or item.get("role") == "assistant" for kind, item in zip(_item_types(items), items)
    )


def _has_system(request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    return bool(request.get("instructions")) or any(
        item.get("role") in ("system", "developer") for item in items
    )


def _has_format(request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    kind = ((request.get("text") or {}).get("format") or {}).get("type", "text")
    return kind != "text" and kind not in cure.get("response_format", ())


def _chooses(request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    choice = request.get("tool_choice", "auto")
    word = choice if isinstance(choice, str) else "function"
    return word != "auto" and word not in (cure.get("tool_choice", {}).get("any") or ())


def _has_schema(request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    about_format = {"response_schema", "response_format"} & set(cure) or "response_format" in cure.get(
        "drop_keywords", {}
    )
    return _has_format(request, items, {}) if about_format else bool(request.get("tools"))


def _has_limit(request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    most = cure.get("max_tokens", {}).get("most")
    return "max_output_tokens" in request and (most is None or request["max_output_tokens"] > most)


def _has_fields(request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    keys = [key.split(".")[0] for key in cure.get("drop", ())]
    return "include_usage" in cure or any(
        key in ALWAYS or name in request for key in keys for name in FROM.get(key, (key,))
    )


FORMS: Dict[str, Form] = {
    "always": _always,
    "thinking": _thinks,
    "history": _has_history,
    "system": _has_system,
    "messages": _always,
    "format": _has_format,
    "tool_choice": _chooses,
    "schema": _has_schema,
    "limit": _has_limit,
    "fields": _has_fields,
    "whole": lambda request, items, cure: not request.get("stream"),
    "content": lambda request, items, cure: False,  # each part that is left out has a warning of its own
}


def has_form(form: str, request: Mapping[str, Any], items: Sequence[AnyItem], cure: Json) -> bool:
    """Does the cure for this form change a request?

    :param items: the whole history
    :raises KeyError: for a form that is not in :data:`FORMS`
    """
    return FORMS[form](request, items, cure)
