"""Takes tool calls out of text in which a server left them; only for providers whose profile says so.

A server whose parser does not know the model's own notation passes calls on as text: ``<｜DSML｜tool_calls>``
(DeepSeek on foreign hosts, with full-width bars), ``<tool_call>{"name": ...}</tool_call>`` (Hermes, Qwen),
``<function=name><parameter=key>`` (Qwen Coder).  Pieces of text go in; ``("text", str)`` and
``("call", (name, arguments))`` come out.

Only what is certain becomes a call: the notation begins a line outside of a code fence, it is complete and
well-formed, and each name is that of a tool that was offered.  Everything else stays text, unchanged.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, List, Literal, Mapping, NamedTuple, Optional, Tuple, Union

from ...types import Json

Piece = Union[Tuple[Literal["text"], str], Tuple[Literal["call"], Tuple[str, str]]]
Found = Optional[List[Tuple[str, Json]]]  # (name, arguments) of each call; None: not a call

_FENCE = "```"
_MAX_BLOCK = 1 << 19  # characters of a call, which are parsed in one step
PIECE = 1024  # characters that are read at once, because each line copies the rest of its piece
_MAX_BLANK = 64  # characters of white space that are held back, since a call may follow


class Notation(NamedTuple):
    """How a family of models writes calls; ``read(inside, tools)`` parses what ``opens`` and ``closes``
    enclose.
    """

    opens: str
    closes: str
    read: Callable[[str, Mapping[str, Json]], Found]
    open_ended: bool = False  # the closing tag may be missing at the end: servers swallow it as a stop word


def _one_json(inside: str, tools: Mapping[str, Json]) -> Found:
    """``{"name": ..., "arguments": {...}}``"""
    try:
        call = _loads(inside)
    except (ValueError, RecursionError):
        return _functions(inside, tools)
    if not isinstance(call, dict) or not set(call) <= {"name", "arguments", "parameters", "id", "type"}:
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    return (
        [(call.get("name", ""), arguments)]
        if isinstance(arguments, dict) and isinstance(call.get("name"), str)
        else None
    )


def _function(inside: str, tools: Mapping[str, Json]) -> Found:
    """``name>`` and ``<parameter=key>value</parameter>`` any number of times."""
    name, found, rest = inside.partition(">")
    arguments = _parameters(_QWEN, rest, tools.get(name, {}), lambda parameter: None)
    return None if not found or arguments is None else [(name, arguments)]


def _functions(inside: str, tools: Mapping[str, Json]) -> Found:
    """One ``<function=name>...</function>`` between the tags of a tool_call."""
    inside = inside.strip()
    if not inside.startswith("<function=") or not inside.endswith("</function>"):
        return None
    return _function(inside[len("<function=") : -len("</function>")], tools)


def _dsml(inside: str, tools: Mapping[str, Json]) -> Found:
    """``<｜DSML｜invoke name="...">`` with its parameters, at least once."""
    calls: List[Tuple[str, Json]] = []
    for match, body in _INVOKE.all(inside) or ():
        arguments = _parameters(_DSML, body, tools.get(match["name"], {}), _declared_json)
        if arguments is None:
            return None
        calls.append((match["name"], arguments))
    return calls or None


class Tag(NamedTuple):
    """An opening tag and the next closing tag after it."""

    opens: re.Pattern[str]
    closes: str

    def all(self, text: str) -> Optional[List[Tuple[re.Match[str], str]]]:
        """The tags that make up a text, each with what is inside; None if there is anything but white space
        between them.

        Reads each character once, whatever the text.
        """
        found: List[Tuple[re.Match[str], str]] = []
        at = _BLANKS.match(text, 0).end()  # type: ignore[union-attr]
        while at < len(text):
            match = self.opens.match(text, at)
            end = text.find(self.closes, match.end()) if match is not None else -1
            if match is None or end < 0:
                return None
            found.append((match, text[match.end() : end]))
            at = _BLANKS.match(text, end + len(self.closes)).end()  # type: ignore[union-attr]
        return found


_BLANKS = re.compile(r"\s*")
_INVOKE = Tag(re.compile(r'<｜DSML｜invoke name="(?P<name>[^"\n]+)">'), "</｜DSML｜invoke>")
_DSML = Tag(
    re.compile(r'<｜DSML｜parameter name="(?P<key>[^"\n]+)"(?: string="(?P<string>true|false)")?>'),
    "</｜DSML｜parameter>",
)
_ENDS = re.compile(r"\A\n|\n\Z")
_QWEN = Tag(re.compile(r"<parameter=(?P<key>[^>\n]+)>"), "</parameter>")

NOTATIONS: Tuple[Notation, ...] = (
    Notation("<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>", _dsml),
    Notation("<｜DSML｜function_calls>", "</｜DSML｜function_calls>", _dsml),
    Notation("<tool_call>", "</tool_call>", _one_json, open_ended=True),
    Notation("<function=", "</function>", _function),
)


def _declared_json(parameter: re.Match[str]) -> Optional[bool]:
    return None if parameter["string"] is None else parameter["string"] == "false"


def _parameters(
    tag: Tag, text: str, schema: Json, is_json: Callable[[re.Match[str]], Optional[bool]]
) -> Optional[Json]:
    """The arguments that are written as tags.

    :param is_json: whether a value is JSON and not plain text; None: the tool's schema decides
    """
    arguments: Json = {}
    found = tag.all(text)
    if found is None:
        return None
    for match, value in found:
        if match["key"] in arguments:
            return None
        declared = is_json(match)
        if declared is None:
            value, declared = _ENDS.sub("", value), _wants_json(schema, match["key"])
        try:
            arguments[match["key"]] = _loads(value) if declared else value
        except (ValueError, RecursionError):
            return None
    return arguments


def _wants_json(schema: Json, key: str) -> bool:
    """Is the parameter something other than text?"""
    properties = schema.get("properties")
    known = properties.get(key) if isinstance(properties, dict) else None
    kinds = known.get("type", "string") if isinstance(known, dict) else "string"
    return "string" not in (kinds if isinstance(kinds, list) else [kinds])


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


class LeakedCallFilter:
    """The state of one text.

    :param tools: the offered functions, name -> JSON Schema of the parameters
    """

    def __init__(self, tools: Mapping[str, Json]) -> None:
        self._tools = tools
        self._notation: Optional[Notation] = None  # of the open block
        self._block: List[str] = []  # its text, with the opening tag
        self._size = 0
        self._tail = ""  # the end of the block, which may be the beginning of the closing tag
        self._held = ""  # the beginning of a line, which may be that of an opening tag or of a fence
        self._blank = ""  # white space; it belongs to the call if one follows
        self._begins = True  # only blanks so far on this line
        self._fenced = False
        self._trim = False  # after a call: white space is dropped

    def feed(self, text: str) -> List[Piece]:
        """The pieces that are certain now."""
        out: List[Piece] = []
        for begin in range(0, len(text), PIECE):
            self._feed(text[begin : begin + PIECE], out)
        return out

    def _feed(self, text: str, out: List[Piece]) -> None:
        text, self._held = self._held + text, ""
        while text:
            text = (
                self._outside(text, out)
                if self._notation is None
                else self._inside(self._notation, text, out)
            )

    def close(self) -> List[Piece]:
        """The text that was held back: nothing follows it, or something other than text."""
        out: List[Piece] = []
        notation, whole = self._notation, "".join(self._block)
        if notation is not None:
            calls = self._calls(notation, whole[len(notation.opens) :]) if notation.open_ended else None
            self._leave(calls, whole, "", out)
        self._emit_text(self._held, out)
        self._held, self._begins = "", False
        if self._blank:
            out.append(("text", self._blank))
            self._blank = ""
        return out

    # ---- Outside a block
    def _outside(self, text: str, out: List[Piece]) -> str:
        """Read as far as the meaning is certain.

        :returns: what is still to be read
        """
        if not self._begins:
            end = text.find("\n") + 1
            self._begins = end > 0
            self._emit_text(text[:end] if end else text, out)
            return text[end:] if end else ""
        blanks = len(text) - len(text.lstrip())
        start = text[blanks:]
        if not start:
            self._emit_text(text, out)
            return ""
        self._emit_text(text[:blanks], out)
        notation = next((notation for notation in NOTATIONS if start.startswith(notation.opens)), None)
        if notation is not None and not self._fenced:
            self._notation, self._block, self._size, self._tail = (
                notation,
                [notation.opens],
                len(notation.opens),
                "",
            )
            return start[len(notation.opens) :]
        if any(
            mark.startswith(start)
            for mark in (*(notation.opens for notation in NOTATIONS if not self._fenced), _FENCE[:-1])
        ):
            self._held = start
            return ""
        self._fenced ^= start.startswith(_FENCE)
        self._begins = False
        return start

    def _emit_text(self, text: str, out: List[Piece]) -> None:
        """Emit text; white space at its end is held back."""
        text, self._blank = self._blank + text, ""
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        solid = text.rstrip()
        if len(text) - len(solid) > _MAX_BLANK:
            solid = text
        self._blank = text[len(solid) :]
        if solid:
            out.append(("text", solid))

    # ---- Inside a block
    def _inside(self, notation: Notation, text: str, out: List[Piece]) -> str:
        at = (self._tail + text).find(notation.closes)
        if at < 0:
            self._block.append(text)
            self._size += len(text)
            self._tail = (self._tail + text)[1 - len(notation.closes) :]
            if self._size > _MAX_BLOCK:
                self._leave(None, "".join(self._block), "", out)
            return ""
        end = at + len(notation.closes) - len(self._tail)
        self._block.append(text[:end])
        whole = "".join(self._block)
        return self._leave(
            self._calls(notation, whole[len(notation.opens) : -len(notation.closes)]), whole, text[end:], out
        )

    def _calls(self, notation: Notation, inside: str) -> Found:
        calls = notation.read(inside, self._tools)
        return calls if calls and all(name in self._tools for name, _ in calls) else None

    def _leave(self, calls: Found, whole: str, rest: str, out: List[Piece]) -> str:
        self._notation, self._block, self._begins = None, [], False
        if calls is None:
            self._emit_text(whole, out)
        else:
            out += [("call", (name, json.dumps(arguments, ensure_ascii=False))) for name, arguments in calls]
            self._blank, self._trim, self._begins = "", True, True
        return rest
