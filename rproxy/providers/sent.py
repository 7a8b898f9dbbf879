"""A request as it was sent to a provider, with the questions that the diagnosis asks about it.

They work for both APIs: ``messages`` of Chat Completions, ``input`` of the Responses API.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, Optional, Set, Tuple

from ..convert.profile import Profile
from ..convert.request.schema import LISTS, MAPS, SINGLES
from ..types import Json

THINKING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "reasoning_text", "thinking")
MEDIA = {  # type of a content part -> kind of medium
    "image_url": "image",
    "input_image": "image",
    "file": "file",
    "input_file": "file",
    "input_audio": "audio",
}
SCHEMA_PLACES = ("tools", "response_format")


class Sent:
    """A request as it was sent.

    ``body`` is what the provider received, ``profile`` what it was made with.
    """

    def __init__(self, body: Json, profile: Profile) -> None:
        self.body = body
        self.profile = profile

    @cached_property
    def messages(self) -> List[Json]:
        entries = self.body.get("messages", self.body.get("input"))
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []

    def message(self, path: Tuple[str, ...]) -> Optional[Json]:
        """The message that a path leads into."""
        index = next((int(step) for step in path if step.isdigit()), -1)
        return self.messages[index] if 0 <= index < len(self.messages) else None

    @cached_property
    def roles(self) -> Set[str]:
        roles = {str(message.get("role")) for message in self.messages}
        return roles | ({"system"} if self.body.get("instructions") else set())

    # ---- Thinking
    def value(self, dotted: str) -> Any:
        """The value at a dotted key of the request."""
        found: Any = self.body
        for key in dotted.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return found

    @property
    def effort(self) -> Optional[str]:
        """The level that the request asks for."""
        for key in ("reasoning_effort", "reasoning.effort"):
            level = self.value(key)
            if isinstance(level, str):
                return level
        own = self.profile.thinking.effort
        return self.value(own) if own else None

    @cached_property
    def thinking_keys(self) -> FrozenSet[str]:
        """The keys of the request that control thinking."""
        rule = self.profile.thinking
        keys = {*rule.enable, *(rule.disable or ()), *((rule.effort or "").split(".")[:1])}
        return frozenset(keys | {"reasoning_effort", "reasoning"}) & frozenset(self.body)

    @cached_property
    def thinking_fields(self) -> FrozenSet[str]:
        """The keys under which messages carry earlier thinking."""
        return frozenset(key for message in self.messages for key in THINKING_FIELDS if key in message)

    @property
    def carries_thinking(self) -> bool:
        """Is earlier thinking sent back, in any form?"""
        parts = any(part.get("type") == "thinking" for part in self._parts)
        items = any(message.get("type") == "reasoning" for message in self.messages)
        tags = self.profile.reasoning.field == "think_tags"
        return bool(self.thinking_fields) or parts or items or tags

    # ---- Content
    @property
    def _parts(self) -> Iterator[Json]:
        for message in self.messages:
            for key in ("content", "output"):
                parts = message.get(key)
                yield from (p for p in parts if isinstance(p, dict)) if isinstance(parts, list) else ()

    def media(self, message: Optional[Json] = None) -> Dict[str, List[Json]]:
        """The content parts that are not text, by kind: of one message, or of all."""
        found: Dict[str, List[Json]] = {}
        for part in Sent({"messages": [message]}, self.profile)._parts if message else self._parts:
            kind = MEDIA.get(str(part.get("type")))
            if kind is not None:
                found.setdefault(kind, []).append(part)
        return found

    @property
    def has_empty_content(self) -> bool:
        """Is there a message with calls but no text, or an assistant message with neither?"""
        return any(m.get("role") == "assistant" and not (m.get("content") or "").strip() for m in self._plain)

    @property
    def _plain(self) -> Iterator[Json]:
        return (m for m in self.messages if isinstance(m.get("content", ""), (str, type(None))))

    @property
    def has_calls(self) -> bool:
        return any(m.get("tool_calls") or m.get("type") == "function_call" for m in self.messages)

    # ---- Tools and schemas
    @cached_property
    def tools(self) -> Dict[str, Json]:
        """The tools by name, in their order."""
        found: Dict[str, Json] = {}
        for tool in self.body.get("tools") or ():
            name = (tool.get("function") or tool).get("name")
            found[str(name or tool.get("type"))] = tool
        return found

    @property
    def functions(self) -> List[Json]:
        """The function definitions of the tools, in either API."""
        return [tool.get("function") or tool for tool in self.tools.values()]

    @property
    def format(self) -> Optional[Mapping[str, Any]]:
        """``response_format``, or ``text.format``."""
        form = self.body.get("response_format") or (self.body.get("text") or {}).get("format")
        return form if isinstance(form, dict) and form.get("type") not in (None, "text") else None

    def schemas(self, place: str) -> List[Json]:
        """The JSON Schemas of the tools, or that of the format."""
        if place == "tools":
            found = [function.get("parameters") for function in self.functions]
        else:
            form = self.format or {}
            found = [(form.get("json_schema") or form).get("schema")]
        return [schema for schema in found if isinstance(schema, dict)]

    def keywords(self, place: str) -> Set[str]:
        """The keywords of the schemas there; the names of properties are not keywords."""
        return {keyword for schema in self.schemas(place) for keyword in _keywords(schema)}


def _keywords(schema: Any) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        yield key
        if key in MAPS and isinstance(value, dict):
            inner = list(value.values())
        elif key in LISTS and isinstance(value, list):
            inner = value
        else:
            inner = [value] if key in SINGLES else []
        for one in inner:
            yield from _keywords(one)
