"""A Responses request to a chat request.

:func:`to_chat_request` combines the parts that the other modules convert (messages, tools, text.format), and
maps the remaining fields by tables.  All differences between providers come from the
:class:`~rproxy.convert.profile.Profile`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ...errors import invalid, invalid_value
from ...types import AnyItem, Json
from ..answer.chat import ChunkReader
from ..answer.reader import AnswerReader
from ..profile import Profile
from ..sealed import CHECKSUM, Room, Sealer
from ..tools.table import ToolTable
from .content import parts_of, text_of
from .optional_fields import given_fields, left_out, sent_fields
from .response_format import response_format
from .writer import Recall, to_messages

# Fields that are passed on unchanged.
SAME = (
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "seed",
    "logit_bias",
)
# The next level to try for one that the provider does not know.
NEAREST = {
    "ultra": "max",
    "max": "xhigh",
    "xhigh": "high",
    "minimal": "low",
    "low": "medium",
    "medium": "high",
    "high": "medium",
}
# The meaning of tool_choice as instructions for models whose providers do not accept it.
TOOL_CHOICE_PROMPTS = {
    "required": "Answer by calling one of the tools.",
    "function": "Answer by calling the tool {name}.",
    "none": "Answer without calling a tool.",
}
_USER_ID = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass
class Conversion:
    """A chat request, and everything that is needed to read its answer.

    ``body`` has no ``stream``, see :meth:`chat_request`.  ``warnings`` has a short line for everything that
    was dropped or changed.  ``strip_fences``: the provider was only asked for JSON, so there may be a code
    fence around it.  ``left_out`` names the optional fields that the provider does not get
    (:mod:`.optional_fields`).
    """

    body: Json
    tools: ToolTable
    profile: Profile
    strip_fences: bool = False
    warnings: List[str] = field(default_factory=list)
    left_out: List[str] = field(default_factory=list)

    def chat_request(self, stream: bool) -> Json:
        """The chat request, as a stream or as one answer."""
        if not self._streams(stream):
            return self.body
        body = dict(self.body, stream=True)
        if self.profile.include_usage and "stream_options" not in self.profile.drop:
            body["stream_options"] = {"include_usage": True}
        if "tools" in body:
            body.update(self.profile.extra)
        return body

    def _streams(self, wanted: bool) -> bool:
        profile = self.profile
        return profile.stream != "never" and (wanted or profile.non_stream == "force_stream")

    @property
    def history(self) -> List[Json]:
        """The messages, which are the largest part of the body."""
        messages: List[Json] = self.body["messages"]
        return messages

    @property
    def logprobs(self) -> bool:
        """Are the probabilities of the tokens requested?"""
        return "logprobs" in self.body

    def reader(self) -> AnswerReader:
        """A reader for the answer."""
        offered = [tool["function"] for tool in self.tools.chat_tools if tool["type"] == "function"]
        return ChunkReader(
            self.profile.answer, {function["name"]: function["parameters"] for function in offered}
        )


def input_items(request: Mapping[str, Any]) -> List[AnyItem]:
    """The request's own input as items; a string is one message of the user."""
    given = request.get("input", [])
    if not isinstance(given, str):
        return list(given)
    return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]


def to_chat_request(
    request: Mapping[str, Any],
    items: Sequence[AnyItem],
    profile: Profile,
    *,
    downstream_model: str,
    allow: Optional[Sequence[str]] = None,
    recall: Recall = lambda key: None,
    resends: bool = True,
    phases: bool = False,
    sealer: Sealer = CHECKSUM,
    room: Optional[Room] = None,
) -> Conversion:
    """Convert a request.

    :param request: a create request without nulls; its ``input`` is ignored
    :param items: the whole history, which ends with the request's own input items
    :param allow: the allowed types of Responses tools; None for the default
    :param recall: see :func:`~rproxy.convert.request.writer.to_messages`
    :param resends: see :func:`~rproxy.convert.request.writer.to_messages`
    :param phases: see :func:`~rproxy.convert.request.writer.to_messages`
    :param room: see :func:`~rproxy.convert.request.writer.to_messages`
    :raises ApiError: 400 for what cannot be expressed
    """
    try:
        messages = partial(
            to_messages,
            profile=profile,
            recall=recall,
            resends=resends,
            phases=phases,
            sealer=sealer,
            room=room,
        )
        return _converted(_updated(request, items), items, profile, downstream_model, allow, messages)
    except RecursionError:
        raise invalid_value("The request is nested too deeply.") from None


def _converted(
    request: Mapping[str, Any],
    items: Sequence[AnyItem],
    profile: Profile,
    downstream_model: str,
    allow: Optional[Sequence[str]],
    write_messages: Callable[..., List[Json]],
) -> Conversion:
    tools = ToolTable.build(request, items, profile, allow)
    warnings = list(tools.warnings)
    form, note = response_format(request, items, profile)
    choice, reasoning, prompt = _forced(
        tools.chat_tool_choice, request.get("reasoning") or {}, profile, warnings
    )
    messages = write_messages(
        _with_prompt(items, prompt),
        tools,
        warnings=warnings,
        instructions="\n\n".join(filter(None, (_instructions(request), note))),
    )
    if not messages:
        raise invalid("input is empty: there is nothing to answer.", "input", "missing_required_parameter")
    given = given_fields(request)
    options = {**_options(request, profile), **sent_fields(given, profile)}
    body = _body(downstream_model, messages, options, tools.chat_tools, form, choice)
    thinking = _think(body, reasoning, profile, warnings)
    for key in profile.drop + (profile.drop_thinking if thinking else ()):
        if key in body or "." in key:
            drop_path(body, key)
    if profile.user_field in body and "user" not in request:
        given.pop("safety_identifier", None)  # which it stands for
    return Conversion(
        body,
        tools,
        profile,
        strip_fences=bool(note) or form == {"type": "json_object"},
        warnings=list(dict.fromkeys(warnings)),
        left_out=left_out(given, body),
    )


def _body(
    model: str, messages: List[Json], options: Json, tools: List[Json], form: Optional[Json], choice: Any
) -> Json:
    body: Json = {"model": model, "messages": messages, **options}
    if tools:
        body["tools"] = tools
    else:
        body.pop("parallel_tool_calls", None)
    if form:
        body["response_format"] = form
    if choice is not None:
        body["tool_choice"] = choice
    return body


def _options(request: Mapping[str, Any], profile: Profile) -> Json:
    """The fields that are converted one by one."""
    options = {key: request[key] for key in SAME if key in request}
    if "max_output_tokens" in request:
        most = profile.max_tokens.most
        wanted = request["max_output_tokens"]
        options[profile.max_tokens.field] = wanted if most is None else min(wanted, most)
    if request.get("top_logprobs") or "message.output_text.logprobs" in request.get("include", ()):
        options.update(
            logprobs=True,
            **({"top_logprobs": request["top_logprobs"]} if request.get("top_logprobs") else {}),
        )
    user = request.get("user")
    if not user and "safety_identifier" not in profile.optional_fields:
        user = request.get("safety_identifier")
    if user:
        options[profile.user_field] = (
            _USER_ID.sub("_", user)[:512] if profile.user_field == "user_id" else user
        )
    return options


def _updated(request: Mapping[str, Any], items: Sequence[AnyItem]) -> Mapping[str, Any]:
    """The request after the ``configuration_update`` items of its input, which change effort and format."""
    updates: Dict[str, Json] = {}
    for item in items:
        if item.get("type") == "configuration_update":
            for key in ("reasoning", "text"):
                if isinstance(item.get(key), dict):
                    updates.setdefault(key, dict(request.get(key) or {})).update(item[key])
    return {**request, **updates}


def _instructions(request: Mapping[str, Any]) -> str:
    given = request.get("instructions") or ""
    if isinstance(given, str):
        return given
    # The schema allows a list of input items as well.
    return "\n".join(
        text_of(part) for item in given for part in parts_of(item.get("content"), "content of instructions")
    )


# ---- Reasoning effort
def _think(body: Json, reasoning: Mapping[str, Any], profile: Profile, warnings: List[str]) -> bool:
    """Apply ``reasoning`` in the provider's way.

    :returns: will it think, as far as is known?
    """
    rule, effort = profile.thinking, reasoning.get("effort")
    if not rule.with_tools and "tools" in body:
        if effort not in (None, "none"):
            warnings.append(
                f"reasoning.effort {str(effort)[:40]} left out: the provider accepts no tools with it"
            )
        effort = "none"
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
            warnings.append(f"reasoning.effort {str(effort)[:40]} left out: unknown to the provider")
    return bool(rule.default or effort is not None or rule.enable)


def drop_path(body: Json, dotted: str) -> None:
    """Remove ``a.b`` from the request.  The objects around it are copied, because they may be the
    client's.
    """
    key, dot, rest = dotted.partition(".")
    if not dot:
        body.pop(key, None)
    elif isinstance(body.get(key), dict):
        body[key] = dict(body[key])
        drop_path(body[key], rest)


def _nested(dotted: str, value: Any) -> Json:
    """``a.b``, v -> {"a": {"b": v}}"""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    result: Json = value
    return result


def _merge(body: Dict[str, Any], more: Mapping[str, Any]) -> None:
    """Merge copies of nested mappings into the request."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(body.get(key), dict):
            _merge(body[key], value)
        else:
            body[key] = _copy(value)


def _copy(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


# ---- Tool choice
def _forced(
    choice: Any, reasoning: Mapping[str, Any], profile: Profile, warnings: List[str]
) -> Tuple[Any, Mapping[str, Any], str]:
    """The nearest ``tool_choice`` that the provider accepts.  If it accepts none while thinking, thinking is
    switched off, unless the request names an effort.

    :returns: the choice to send, None for the provider's default; the reasoning to request; instructions for
        the prompt if nothing else helps
    """
    if choice is None:
        return None, reasoning, ""
    rule = profile.tool_choice
    word = choice if isinstance(choice, str) else "function"
    ever, thinking = (words is None or word in words for words in (rule.any, rule.thinking))
    sent = rule.rename.get(choice, choice) if isinstance(choice, str) else choice
    if ever and (thinking or not _think({"tools": []}, reasoning, profile, [])):
        return sent, reasoning, ""
    if ever and profile.thinking.disable is not None and not reasoning.get("effort"):
        warnings.append(f"thinking switched off: with it the provider accepts no tool_choice {word}")
        return sent, {"effort": "none"}, ""
    prompt = TOOL_CHOICE_PROMPTS[word].format(
        name=choice["function"]["name"] if isinstance(choice, dict) else ""
    )
    if ever or word != "function":
        warnings.append(
            f"tool_choice {word} became an instruction in the prompt: the provider does not accept it"
        )
        return None, reasoning, prompt
    # The provider accepts no name: any call at all comes nearest, if it accepts that.
    instead, reasoning, _ = _forced("required", reasoning, profile, [])
    what = (
        "an instruction in the prompt" if instead is None else f"{instead}, with an instruction in the prompt"
    )
    warnings.append(f"tool_choice function became {what}: the provider does not accept it")
    return instead, reasoning, prompt


def _with_prompt(items: Sequence[AnyItem], prompt: str) -> Sequence[AnyItem]:
    """The history with ``prompt`` where models heed it most: in the user's message if that is the last item,
    else at the very end.
    """
    if not prompt or not items:
        return items
    last = items[-1]
    if last.get("role") != "user":
        return [*items, {"type": "message", "role": "developer", "content": prompt}]
    content = last.get("content")
    parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else list(content or ())
    return [*items[:-1], dict(last, content=[*parts, {"type": "input_text", "text": prompt}])]
