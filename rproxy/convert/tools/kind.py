"""The interface of a kind of tool, for both directions.

The Responses API has a dozen kinds of tools, Chat Completions has one: the function.  A :class:`ToolKind`
knows how its tools are offered as functions, which item a call of one becomes, and how earlier calls and
results of that kind are written in the history.  Each kind is a module of this package and a row in
:mod:`.kinds`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, List, Optional, Tuple

from ...json_codec import parser
from ...types import AnyItem, Json
from ..json_reader import parse_steps
from ..json_steps import LONG, json_text
from ..request.schema import has_numbers
from ..text_buffer import TextBuffer

MAX_NAME = 64  # characters of a function's name; OpenAI's limit, which every provider copied
_LEGAL = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME}}}")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]+")
_parse = parser(float)
PLAIN_NAMESPACE = "functions"  # Codex's name for "no namespace"


def plain(namespace: Any) -> Optional[str]:
    """The namespace as a part of a name; None if there is none (a client may send anything)."""
    return namespace if isinstance(namespace, str) and namespace not in ("", PLAIN_NAMESPACE) else None


def flat_form(tool: Json) -> Json:
    """The tool in the form of the Responses API.

    Clients mix in the form of Chat (``{"type": "function", "function": {...}}``), or leave out the type of a
    function.
    """
    inner = tool.get("function")
    if isinstance(inner, dict) and tool.get("type", "function") == "function":
        return {**inner, "type": "function"}
    return {**tool, "type": "function"} if tool.get("type") is None else tool


def marks_encrypted(tool: Json) -> bool:
    """Is one of the tool's parameters marked ``"encrypted": true``, as in Codex's messages between agents?"""
    schema = tool.get("parameters")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return isinstance(properties, dict) and any(
        isinstance(about, dict) and about.get("encrypted") is True for about in properties.values()
    )


def flatten(namespace: Optional[str], name: str) -> str:
    """The function name of a tool: ``namespace__name``, legal and short enough.

    It depends only on the arguments, so a history has the same names in every turn, even when the tool is no
    longer offered.
    """
    full = name if namespace is None else f"{namespace}__{name}"
    return full if _LEGAL.fullmatch(full) else hashed(full)


def hashed(full: str) -> str:
    """A stable legal name for ``full``, different from that of any other text."""
    digest = hashlib.sha1(full.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{_ILLEGAL.sub('_', full)[: MAX_NAME - 9]}_{digest}"


class ArgumentsReader:
    """Turns the fragments of a call's arguments into the text for the client.  This one passes them on."""

    def __init__(self) -> None:
        self._text = TextBuffer()

    def feed(self, fragment: str) -> str:
        self._text.append(fragment)
        return fragment

    def close(self) -> Tuple[str, str]:
        """:returns: the text still to be streamed, and the whole text"""
        return "", self._text.text()


@dataclass(frozen=True)
class Offer:
    """One function that the model may call, and what it stands for."""

    chat_name: str
    kind: ToolKind
    name: str
    namespace: Optional[str] = None
    schema: Optional[Json] = None
    encrypted: bool = False  # the client marks parameters that OpenAI would encrypt

    @cached_property
    def has_numbers(self) -> bool:
        """Can there be a number anywhere in the arguments?"""
        return has_numbers(self.schema)

    def item(self, item_id: str, call_id: str) -> Json:
        """The item as ``response.output_item.added`` announces it."""
        return self.kind.item(self, item_id, call_id)

    def reader(self) -> ArgumentsReader:
        return self.kind.reader(self)

    def finish(self, item: AnyItem, whole: str) -> Json:
        """The completed item.

        :param whole: the arguments, as the reader returned them
        """
        return self.kind.finish(item, whole)


class ToolKind:
    """One kind of tool.

    The class attributes are a table row; the methods are for differences that a value cannot express.
    """

    types: Tuple[str, ...] = ()  # of the entries of a request's `tools`
    call_type = ""  # the item of a call
    output_type = ""  # the item of its result
    prefix = "fc"  # of the item's id
    text_field = "arguments"  # the item's key for what the model wrote
    delta_type: Optional[str] = None  # None: only the finished item is sent
    done_type: Optional[str] = None
    needs_name = False  # tools of this kind have names of their own

    # ---- Request: tools to functions
    def members(self, tool: Json) -> List[Tuple[Optional[str], Json]]:
        """The tools in this entry, as (namespace, tool).  Only a namespace has several."""
        return [(None, tool)]

    def tool_name(self, tool: Json) -> str:
        name = tool.get("name")
        return name if isinstance(name, str) else ""

    def function(self, tool: Json) -> Json:
        """The chat function without its name: description, parameters, perhaps strict."""
        raise NotImplementedError

    # ---- Answer: calls to items
    def item(self, offer: Offer, item_id: str, call_id: str) -> Json:
        item: Json = {"id": item_id, "type": self.call_type, "status": "in_progress", "call_id": call_id}
        self.describe(offer, item)
        return item

    def describe(self, offer: Offer, item: Json) -> None:
        """Add the keys of this kind to a new item."""
        item["name"] = offer.name
        item[self.text_field] = ""
        if offer.namespace is not None:
            item["namespace"] = offer.namespace

    def reader(self, offer: Offer) -> ArgumentsReader:
        return ArgumentsReader()

    def finish(self, item: AnyItem, whole: str) -> Json:
        return dict(item, status="completed", **{self.text_field: whole})

    # ---- History: items to tool calls and tool messages
    def call_name(self, item: AnyItem) -> str:
        """The bare name of the tool that an earlier call item called."""
        name = item.get("name")
        return name if isinstance(name, str) else ""

    def call_arguments(self, item: AnyItem) -> str:
        """The arguments of an earlier call, as the model wrote them."""
        value = item.get("arguments")
        return value if isinstance(value, str) else json_text({} if value is None else value)

    def output(self, item: AnyItem) -> Any:
        """The result of an earlier call: a string, or a list of content parts."""
        return item.get("output")


def loads_object(text: str) -> Json:
    """The JSON object in ``text``, or an empty one, for items that need an object."""
    value = loads(text)
    return value if isinstance(value, dict) else {}


def is_object(text: str) -> bool:
    """Is ``text`` a JSON object?

    A long text is read in small steps: one large step would keep other threads from working.
    """
    if len(text) <= LONG:
        return isinstance(loads(text), dict)
    try:
        for _ in parse_steps(text, float):
            pass
    except (ValueError, RecursionError):
        return False
    return True


def loads(text: str) -> Any:
    """The JSON value in ``text``; ``text`` itself if it is not JSON.

    A model may write anything, even brackets that nest too deep for the parser.
    """
    try:
        return _parse(text)
    except (ValueError, RecursionError):
        return text


def described(tool: Json) -> str:
    """The description of a tool: a string, whatever was sent."""
    description = tool.get("description")
    return description if isinstance(description, str) else ""
