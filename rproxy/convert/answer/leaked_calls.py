"""Tool calls that a server left in the text of the answer, taken out of it again. Only for providers whose
profile says so.

A server whose parser does not know the model's own notation passes calls on as text: ``<｜DSML｜tool_calls>``
(DeepSeek on foreign hosts, with full-width bars), ``<tool_call>{"name": ...}</tool_call>`` (Hermes, Qwen),
``<function=name><parameter=key>`` (Qwen Coder). A text filter like the one for thinking: pieces go in,
``("text", str)`` and ``("call", (name, arguments))`` come out.

It must be certain: the notation begins a line outside of a code fence, it is complete and well-formed, and
each name is that of a tool that was offered.  Anything else is given back as the text that it was, unchanged.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Tuple

from ...types import Json

Piece = Tuple[str, Any]
Found = Optional[List[Tuple[str, Json]]]  # (name, arguments) of each call; None: it is no call

_FENCE = "```"
_MAX_BLOCK = 1 << 20  # characters of a call
_MAX_BLANK = 64  # characters of white space that wait for a call


class Row(NamedTuple):
    """A notation. ``read(inside, tools)`` understands what stands between ``opens`` and ``closes``."""

    opens: str
    closes: str
    read: Callable[[str, Mapping[str, Json]], Found]
    open_ended: bool = False  # complete without the closing tag, too: servers swallow it as a stop word


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
    for match in _all(_INVOKE, inside) or ():
        arguments = _parameters(_DSML, match["inside"], tools.get(match["name"], {}), _says_string)
        if arguments is None:
            return None
        calls.append((match["name"], arguments))
    return calls or None


_INVOKE = re.compile(r'<｜DSML｜invoke name="(?P<name>[^"\n]+)">(?P<inside>.*?)</｜DSML｜invoke>', re.S)
_DSML = re.compile(
    r'<｜DSML｜parameter name="(?P<key>[^"\n]+)"(?: string="(?P<string>true|false)")?>'
    r"(?P<value>.*?)</｜DSML｜parameter>",
    re.S,
)
_ENDS = re.compile(r"\A\n|\n\Z")
_QWEN = re.compile(r"<parameter=(?P<key>[^>\n]+)>(?P<value>.*?)</parameter>", re.S)

ROWS: Tuple[Row, ...] = (
    Row("<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>", _dsml),
    Row("<｜DSML｜function_calls>", "</｜DSML｜function_calls>", _dsml),
    Row("<tool_call>", "</tool_call>", _one_json, open_ended=True),
    Row("<function=", "</function>", _function),
)


def _says_string(parameter: re.Match[str]) -> Optional[bool]:
    return None if parameter["string"] is None else parameter["string"] == "false"


def _all(pattern: re.Pattern[str], text: str) -> Optional[List[re.Match[str]]]:
    """The matches that a text consists of, with nothing but white space between them; None if there is
    anything else."""
    matches = list(pattern.finditer(text))
    return None if pattern.sub("", text).strip() else matches


def _parameters(
    pattern: re.Pattern[str], text: str, schema: Json, is_json: Callable[[re.Match[str]], Optional[bool]]
) -> Optional[Json]:
    """The arguments that are written as tags.

    Values are JSON or plain text: as ``is_json`` says, or else the tool's schema.
    """
    arguments: Json = {}
    matches = _all(pattern, text)
    if matches is None:
        return None
    for match in matches:
        if match["key"] in arguments:
            return None
        value, declared = match["value"], is_json(match)
        if declared is None:
            value, declared = _ENDS.sub("", value), _wants_json(schema, match["key"])
        try:
            arguments[match["key"]] = _loads(value) if declared else value
        except (ValueError, RecursionError):
            return None
    return arguments


def _wants_json(schema: Json, key: str) -> bool:
    """Is the parameter something else than text?"""
    properties = schema.get("properties")
    known = properties.get(key) if isinstance(properties, dict) else None
    kinds = known.get("type", "string") if isinstance(known, dict) else "string"
    return "string" not in (kinds if isinstance(kinds, list) else [kinds])


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


class LeakedCallFilter:
    """The state of one text. :arg tools: the offered functions, name -> JSON Schema of the parameters"""

    def __init__(self, tools: Mapping[str, Json]) -> None:
        self._tools = tools
        self._row: Optional[Row] = None  # of the block that we are in
        self._block: List[str] = []  # its text, the opening tag included
        self._size = 0
        self._tail = ""  # the end of the block: perhaps the beginning of the closing tag
        self._held = ""  # the beginning of a line: perhaps that of an opening tag or of a fence
        self._blank = ""  # white space that belongs to the call that may follow
        self._begins = True  # nothing but blanks so far on this line
        self._fenced = False
        self._trim = False  # behind a call: white space goes

    def feed(self, text: str) -> List[Piece]:
        """The pieces that are certain now."""
        out: List[Piece] = []
        text, self._held = self._held + text, ""
        while text:
            text = self._outside(text, out) if self._row is None else self._inside(self._row, text, out)
        return out

    def close(self) -> List[Piece]:
        """What was held back; something else than text follows, or nothing."""
        out: List[Piece] = []
        row, whole = self._row, "".join(self._block)
        if row is not None:
            calls = self._calls(row, whole[len(row.opens) :]) if row.open_ended else None
            self._leave(calls, whole, "", out)
        self._say(self._held, out)
        self._held, self._begins = "", False
        if self._blank:
            out.append(("text", self._blank))
            self._blank = ""
        return out

    # ---- outside of a block
    def _outside(self, text: str, out: List[Piece]) -> str:
        """Read on as far as it is certain. :returns: what is still to be read"""
        if not self._begins:
            end = text.find("\n") + 1
            self._begins = end > 0
            self._say(text[:end] if end else text, out)
            return text[end:] if end else ""
        blanks = len(text) - len(text.lstrip())
        start = text[blanks:]
        if not start:
            self._say(text, out)
            return ""
        self._say(text[:blanks], out)
        row = next((row for row in ROWS if start.startswith(row.opens)), None)
        if row is not None and not self._fenced:
            self._row, self._block, self._size, self._tail = row, [row.opens], len(row.opens), ""
            return start[len(row.opens) :]
        if any(
            mark.startswith(start) for mark in (*(row.opens for row in ROWS if not self._fenced), _FENCE[:-1])
        ):
            self._held = start
            return ""
        self._fenced ^= start.startswith(_FENCE)
        self._begins = False
        return start

    def _say(self, text: str, out: List[Piece]) -> None:
        """Text; the white space at its end waits."""
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

    # ---- inside
    def _inside(self, row: Row, text: str, out: List[Piece]) -> str:
        at = (self._tail + text).find(row.closes)
        if at < 0:
            self._block.append(text)
            self._size += len(text)
            self._tail = (self._tail + text)[1 - len(row.closes) :]
            if self._size > _MAX_BLOCK:
                self._leave(None, "".join(self._block), "", out)
            return ""
        end = at + len(row.closes) - len(self._tail)
        self._block.append(text[:end])
        whole = "".join(self._block)
        return self._leave(self._calls(row, whole[len(row.opens) : -len(row.closes)]), whole, text[end:], out)

    def _calls(self, row: Row, inside: str) -> Found:
        calls = row.read(inside, self._tools)
        return calls if calls and all(name in self._tools for name, _ in calls) else None

    def _leave(self, calls: Found, whole: str, rest: str, out: List[Piece]) -> str:
        self._row, self._block, self._begins = None, [], False
        if calls is None:
            self._say(whole, out)
        else:
            out += [("call", (name, json.dumps(arguments, ensure_ascii=False))) for name, arguments in calls]
            self._blank, self._trim, self._begins = "", True, True
        return rest
