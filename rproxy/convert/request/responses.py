"""A Responses request to the request for a provider with the Responses API (``wire: responses``).

It is made from the chat request: its messages are in an order that every provider accepts, its tools are
functions, its fields fit the profile, and it comes with all warnings.  Only the form changes.  The detour
costs little and keeps the rules in one place.  Most of them apply here as well: DeepSeek refuses an output
that does not directly follow its calls, and in the end a chat template reads these items.

The provider keeps no state: the whole history goes out as items, with ``store: false``, and without
previous_response_id, conversation, background and prompt.  Earlier reasoning goes back as the profile's
``reasoning.replay`` says, as reasoning items with content; encrypted reasoning goes only to its maker.
Custom tools stay custom tools if ``native_tools`` names them.

Sources: OpenAI's reference of POST /responses; DeepSeek's guide to its own (stateless; effort none, low,
high, max); vLLM's schema.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ...types import AnyItem, Json
from ..answer.responses import EventReader
from ..profile import MaxTokens, Profile, Reasoning, Thinking
from ..sealed import CHECKSUM, Room, Sealer
from ..tools.custom import unwrap
from ..tools.table import DEFAULT_ALLOW, ToolTable, later_tools
from .chat import Conversion, drop_path, to_chat_request
from .optional_fields import given_fields, left_out
from .writer import Recall, taken_from

# Fields that pass unchanged.
SAME = (
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "metadata",
    "truncation",
    "max_tool_calls",
)
LEVELS = {level: level for level in ("low", "medium", "high")}  # of effort; every provider knows these
SEALED, LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"


@dataclass
class ResponsesConversion(Conversion):
    """A converted request, and what is needed to read its answer.

    ``body`` is a Responses request without ``stream``; ``origin`` identifies the provider.
    """

    origin: str = ""

    def chat_request(self, stream: bool) -> Json:
        return dict(self.body, stream=True) if self._streams(stream) else self.body

    @property
    def logprobs(self) -> bool:
        return LOGPROBS in self.body.get("include", ())

    @property
    def history(self) -> List[Json]:
        items: List[Json] = self.body["input"]
        return items

    def reader(self) -> EventReader:
        return EventReader(self.origin)


def to_responses_request(
    request: Mapping[str, Any],
    items: Sequence[AnyItem],
    profile: Profile,
    *,
    downstream_model: str,
    origin: str = "",
    allow: Optional[Sequence[str]] = None,
    recall: Recall = lambda key: None,
    resends: bool = True,
    sealer: Sealer = CHECKSUM,
    room: Optional[Room] = None,
) -> ResponsesConversion:
    """Convert a request.

    The other parameters and the errors are those of :func:`~rproxy.convert.request.chat.to_chat_request`.

    :param origin: base_url of the provider; see :class:`~rproxy.convert.answer.responses.EventReader`
    """
    if allow is None:
        allow = DEFAULT_ALLOW + profile.native_tools
    chat = to_chat_request(
        request,
        items,
        _fitted(profile),
        downstream_model=downstream_model,
        allow=allow,
        recall=recall,
        resends=resends,
        phases=True,
        sealer=sealer,
        room=room,
    )
    customs = _customs(request, items, allow) if "custom" in profile.native_tools else {}
    # A digest, because blobs are not encrypted, and clients must not learn the provider's address.
    origin = hashlib.sha256(origin.encode()).hexdigest()[:16]
    body = _body(chat, request, _Writer(profile, chat.tools, customs, origin))
    return ResponsesConversion(
        body,
        chat.tools,
        profile,
        strip_fences=chat.strip_fences,
        warnings=chat.warnings,
        left_out=left_out(given_fields(request), {**body, **body.get("text", {})}),
        origin=origin,
    )


def _body(chat: Conversion, request: Mapping[str, Any], writer: _Writer) -> Json:
    """The body of a chat request with the fields of this API."""
    body, customs = dict(chat.body), writer.customs
    history = list(_items(body.pop("messages"), writer))
    if history[0].get("role") == "system" and len(history) > 1:
        body["instructions"] = history.pop(0)["content"]
    body.update(input=history, store=False, include=[SEALED])
    if "max_tokens" in body:
        body["max_output_tokens"] = body.pop("max_tokens")
    if body.pop("logprobs", False):
        body["include"] = [SEALED, LOGPROBS]
    if "tools" in body:
        body["tools"] = [_tool(tool, customs) for tool in body["tools"]]
    if isinstance(body.get("tool_choice"), dict):
        name = body["tool_choice"]["function"]["name"]
        body["tool_choice"] = {"type": customs.get(name, {"type": "function"})["type"], "name": name}
    _add_text(body, request.get("text") or {})
    _add_summary(body, request.get("reasoning") or {})
    body.update({key: request[key] for key in SAME if key in request})
    for key in writer.profile.drop:
        drop_path(body, key)
    return body


def _fitted(profile: Profile) -> Profile:
    """The profile for the chat request, which must keep everything in a form that can be converted."""
    rule = profile.reasoning
    only = rule.reasoning_only if rule.replay == "always" else "drop"
    return replace(
        profile,
        max_tokens=MaxTokens("max_tokens", profile.max_tokens.most),
        thinking=_effort(profile.thinking),
        optional_fields=(),
        include_usage=False,
        extra={},
        keep_extra_content=False,
        reasoning=Reasoning(
            "reasoning_content", "always", rule.required_on_tool_calls, only, ("response_items",)
        ),
    )


def _effort(thinking: Thinking) -> Thinking:
    """The one field that this API has for thinking, whatever the chat request has; nothing if that has
    none.
    """
    if thinking.effort is None and not thinking.enable and not thinking.disable:
        return replace(thinking, efforts={}, with_tools=True)
    disable = None if thinking.disable is None else {"reasoning": {"effort": "none"}}
    return Thinking(thinking.default, {}, disable, "reasoning.effort", thinking.efforts or LEVELS)


# ---- Tools
def _customs(request: Mapping[str, Any], items: Sequence[AnyItem], allow: Sequence[str]) -> Dict[str, Json]:
    """The custom tools that are passed on unchanged, by name."""
    own = request.get("tools")
    tools = [*(own if isinstance(own, list) else ()), *later_tools(items)]
    return {
        tool["name"]: tool
        for tool in tools
        if isinstance(tool, dict)
        and tool.get("type") == "custom" in allow
        and isinstance(tool.get("name"), str)
    }


def _tool(tool: Json, customs: Mapping[str, Json]) -> Json:
    if tool.get("type") != "function":
        return tool  # a hosted one
    name = tool["function"]["name"]
    return customs.get(name) or {"type": "function", **tool["function"]}


# ---- Fields
def _add_text(body: Json, text: Mapping[str, Any]) -> None:
    form = body.pop("response_format", None)
    if form is not None:
        body["text"] = {"format": {"type": form["type"], **form.get("json_schema", {})}}
    if isinstance(text.get("verbosity"), str):
        body.setdefault("text", {})["verbosity"] = text["verbosity"]


def _add_summary(body: Json, reasoning: Mapping[str, Any]) -> None:
    summary = reasoning.get("summary") or reasoning.get("generate_summary")
    if summary is not None:
        body["reasoning"] = {**body.get("reasoning", {}), "summary": summary}


# ---- Messages to items
class _Writer:
    def __init__(self, profile: Profile, tools: ToolTable, customs: Mapping[str, Json], origin: str) -> None:
        self.profile, self.tools, self.customs, self.origin = profile, tools, customs, origin
        self.freeform: Dict[str, bool] = {}  # call id -> is it a call of a custom tool?


def _items(messages: List[Json], writer: _Writer) -> Iterator[Json]:
    """The items that messages become; empties the list."""
    for message in taken_from(messages):
        role, content = message["role"], message.get("content")
        if role == "tool":
            kind = (
                "custom_tool_call_output"
                if writer.freeform.get(message["tool_call_id"])
                else "function_call_output"
            )
            yield {"type": kind, "call_id": message["tool_call_id"], "output": content}
            continue
        if role == "assistant":
            yield from _thinking(message, writer)
        if content:
            yield {
                "type": "message",
                "role": role,
                "content": content if isinstance(content, str) else [_part(part) for part in content],
                **({"phase": message["phase"]} if "phase" in message else {}),
            }
        for call in message.get("tool_calls", ()):
            yield _call(call, writer)


def _call(call: Json, writer: _Writer) -> Json:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    writer.freeform[call["id"]] = custom = name in writer.customs
    if custom:
        return {"type": "custom_tool_call", "call_id": call["id"], "name": name, "input": unwrap(arguments)}
    return {"type": "function_call", "call_id": call["id"], "name": name, "arguments": arguments}


def _thinking(message: Json, writer: _Writer) -> Iterator[Json]:
    """Reasoning items: those that this provider encrypted, or else the text if it wants that."""
    details = [
        detail["item"]
        for detail in message.get("response_items", ())
        if detail.get("origin") == writer.origin and isinstance(detail.get("item"), dict)
    ]
    yield from details
    rule, calls, text = writer.profile.reasoning, "tool_calls" in message, message.get("reasoning_content")
    wanted = rule.replay == "always" or rule.replay == "tool_turns" and calls
    if (
        wanted
        and not details
        and text is not None
        and (text or calls and rule.required_on_tool_calls is not None)
    ):
        # The same text must always get the same id.
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:40]
        yield {
            "type": "reasoning",
            **({"id": "rs_" + digest} if rule.ids else {}),
            "summary": [],
            "content": [{"type": "reasoning_text", "text": text}],
        }


def _part(part: Json) -> Json:
    kind = part["type"]
    if kind == "text":
        return {"type": "input_text", "text": part["text"]}
    if kind == "image_url":
        return {
            "type": "input_image",
            "image_url": part["image_url"]["url"],
            "detail": part["image_url"].get("detail", "auto"),
        }
    return {"type": "input_file", **part["file"]} if kind == "file" else part
