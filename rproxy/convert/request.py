"""Responses request -> chat request.

:func:`to_chat_request` puts together what the other modules make of their parts (messages, tools) and maps the rest by tables.
Sources: the request fields of the Responses API; the provider's side is all in the :class:`~rproxy.convert.profile.Profile`.
"""
from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..errors import ApiError
from .content import Json
from .messages import Recall, to_messages
from .profile import Profile
from .tools import ToolTable

SAME = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "stop", "seed", "logit_bias")      # both APIs' own words
NEAREST = {"ultra": "max", "max": "xhigh", "xhigh": "high", "minimal": "low", "low": "medium", "medium": "high", "high": "medium"}
_USER_ID = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(frozen=True)
class Conversion:
    """A chat request and what is needed to understand its answer.

    ``body``: without ``stream``, see :meth:`chat_request`. ``warnings``: what was dropped or changed, one short line each.
    ``strip_fences``: the answer is JSON by persuasion, so a Markdown fence around it has to go.
    """

    body: Json
    tools: ToolTable
    profile: Profile
    strip_fences: bool = False
    warnings: List[str] = field(default_factory=list)

    def chat_request(self, stream: bool) -> Json:
        """The chat request, as a stream or as one answer."""
        if not stream and self.profile.non_stream != "force_stream":
            return self.body
        body = dict(self.body, stream=True)
        if self.profile.include_usage and "stream_options" not in self.profile.drop:
            body["stream_options"] = {"include_usage": True}
        if "tools" in body:
            body.update(self.profile.extra)
        return body


def to_chat_request(request: Mapping[str, Any], items: Sequence[Json], profile: Profile, *, downstream_model: str,
                    allow: Optional[Sequence[str]] = None, recall: Recall = lambda call_id: None) -> Conversion:
    """Convert a request.

    :arg request: a create request without nulls; its ``input`` is not looked at
    :arg items: the whole history: what went before and the request's own input items
    :arg allow: kinds of Responses tools that pass, None for the default
    :arg recall: see :func:`~rproxy.convert.messages.to_messages`
    :raises ApiError: 400 for what cannot be expressed
    """
    request = _updated(request, items)
    tools = ToolTable.build(request, items, profile, allow)
    warnings = list(dict.fromkeys(tools.warnings))
    response_format, note = _response_format(request, profile)
    messages = to_messages(items, tools, profile, instructions=_instructions(request, note), recall=recall, warnings=warnings)
    if not any(message["role"] != "system" or len(messages) == 1 for message in messages):
        raise ApiError(400, "input is empty: there is nothing to answer.", code="missing_required_parameter", param="input")
    if response_format == {"type": "json_object"} and not _mentions_json(messages):
        messages.append({"role": "system", "content": "Answer with a JSON object."})
    body: Json = {"model": downstream_model, "messages": messages}
    if tools.chat_tools:
        body["tools"] = tools.chat_tools
        if "parallel_tool_calls" in request:
            body["parallel_tool_calls"] = request["parallel_tool_calls"]
    body.update((key, request[key]) for key in SAME if key in request)
    if "max_output_tokens" in request:
        body[profile.max_tokens.field] = request["max_output_tokens"]
    if request.get("top_logprobs") or "message.output_text.logprobs" in request.get("include", ()):
        body.update(logprobs=True, **({"top_logprobs": request["top_logprobs"]} if request.get("top_logprobs") else {}))
    user = request.get("user") or request.get("safety_identifier")
    if user:
        body[profile.user_field] = _USER_ID.sub("_", user)[:512] if profile.user_field == "user_id" else user
    if response_format:
        body["response_format"] = response_format
    thinking = _think(body, request.get("reasoning") or {}, profile, warnings)
    _set_tool_choice(body, tools.chat_tool_choice, thinking, profile, warnings)
    for key in profile.drop + (profile.drop_thinking if thinking else ()):
        body.pop(key, None)
    fenced = bool(note) or response_format == {"type": "json_object"}
    return Conversion(body, tools, profile, strip_fences=fenced, warnings=warnings)


def _updated(request: Mapping[str, Any], items: Sequence[Json]) -> Mapping[str, Any]:
    """The request after the ``configuration_update`` items of its input: they change effort and format from there on."""
    for item in items:
        if item.get("type") == "configuration_update":
            request = dict(request, **{key: dict(request.get(key) or {}, **item[key]) for key in ("reasoning", "text") if isinstance(item.get(key), dict)})
    return request


def _instructions(request: Mapping[str, Any], note: str) -> str:
    given = request.get("instructions") or ""
    if isinstance(given, list):                  # a list of input items, by the letter of the schema
        given = "\n".join(str(part.get("text") or "") for item in given for part in item.get("content") or () if isinstance(part, dict))
    return "\n\n".join(filter(None, (given, note)))


# ---- text.format
def _response_format(request: Mapping[str, Any], profile: Profile) -> Tuple[Optional[Json], str]:
    """(``response_format``, words for the prompt where the provider cannot be asked for it)"""
    form = (request.get("text") or {}).get("format") or {}
    kind = form.get("type", "text")
    if kind == "text":
        return None, ""
    if kind == "json_schema":
        if not isinstance(form.get("schema"), dict):
            raise ApiError(400, "text.format of type json_schema needs a schema (an object).", code="invalid_type", param="text.format.schema")
        if kind in profile.response_format:
            schema = {key: form[key] for key in ("name", "description", "schema", "strict") if form.get(key) is not None}
            return {"type": kind, "json_schema": dict({"name": "response"}, **schema)}, ""
        note = ("Answer with one JSON object and nothing else: no Markdown fence, no comment. It must be valid against this JSON Schema:\n"
                + json.dumps(form["schema"], ensure_ascii=False))
    elif kind == "json_object":
        note = "" if kind in profile.response_format else "Answer with one JSON object and nothing else: no Markdown fence, no comment."
    else:
        raise ApiError(400, "text.format.type must be text, json_object or json_schema, not %r." % kind, code="invalid_value", param="text.format.type")
    return ({"type": "json_object"} if "json_object" in profile.response_format else None), note


def _mentions_json(messages: Sequence[Json]) -> bool:
    """OpenAI and DeepSeek refuse json_object when nobody says the word."""
    return any("json" in json.dumps(message.get("content")).lower() for message in messages)


# ---- reasoning.effort
def _think(body: Json, reasoning: Mapping[str, Any], profile: Profile, warnings: List[str]) -> bool:
    """Turn the provider's knobs. :returns: will it think, as far as is known?"""
    rule, effort = profile.thinking, reasoning.get("effort")
    if effort == "none":
        if rule.disable is not None:
            _merge(body, rule.disable)
            return False
        warnings.append("reasoning.effort none: this model cannot stop thinking")
        effort = next(iter(rule.efforts), None)
    if not any(value is not None for value in reasoning.values()):
        return bool(rule.default)
    _merge(body, rule.enable)
    if effort is not None and rule.effort:
        level, seen = str(effort), set()
        while level not in rule.efforts and level in NEAREST and level not in seen:
            seen.add(level)
            level = NEAREST[level]
        if level in rule.efforts:
            _merge(body, _nested(rule.effort, rule.efforts[level]))
        else:
            warnings.append("reasoning.effort %s left out: unknown to the provider" % effort)
    return bool(rule.default or effort is not None or rule.enable)


def _nested(dotted: str, value: Any) -> Json:
    """``a.b``, v -> {"a": {"b": v}}"""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    result: Json = value
    return result


def _merge(body: Dict[str, Any], more: Mapping[str, Any]) -> None:
    """Merge nested mappings into the request, copying what is put there."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(body.get(key), dict):
            _merge(body[key], value)
        else:
            body[key] = copy.deepcopy(value)


# ---- tool_choice
def _set_tool_choice(body: Json, choice: Any, thinking: bool, profile: Profile, warnings: List[str]) -> None:
    if choice is None:
        return
    rule = profile.tool_choice
    word = choice if isinstance(choice, str) else "function"
    for allowed in (rule.any, rule.thinking if thinking else None):
        if allowed is not None and word not in allowed:
            warnings.append("tool_choice %s became auto: the provider takes %s" % (word, ", ".join(allowed)))
            return
    body["tool_choice"] = rule.rename.get(choice, choice) if isinstance(choice, str) else choice
