"""``custom``: freeform tools (Codex's ``apply_patch`` and ``exec``); their input is raw text, which a grammar
may restrict.

A function takes JSON, so the text travels as ``{"input": "..."}``.  The grammar, which cannot be enforced
here, becomes part of the description.  On the way back the text is unwrapped while it streams, and leniently,
because models forget the wrapping.
"""

from __future__ import annotations

import re
from typing import List, Optional, Tuple

from ...types import AnyItem, Json
from ..json_steps import json_text
from .kind import ArgumentsReader, Offer, ToolKind, described, loads

_KEYS = ("input", "patch", "code", "content")  # names that models give to the text, the right one first
_FENCE = re.compile(r"\A\s*```[^\n]*\n(.*?)\n?```\s*\Z", re.S)


class Custom(ToolKind):
    types = ("custom",)
    call_type = "custom_tool_call"
    output_type = "custom_tool_call_output"
    needs_name = True
    prefix = "ctc"
    text_field = "input"
    delta_type = "response.custom_tool_call_input.delta"
    done_type = "response.custom_tool_call_input.done"

    def function(self, tool: Json) -> Json:
        description = described(tool)
        form = tool.get("format")
        if isinstance(form, dict) and form.get("definition"):
            syntax = form.get("syntax") or "lark"
            description += f"\n\nThe input must match this {syntax} grammar:\n{form['definition']}"
        return {
            "description": description.strip(),
            "parameters": {
                "type": "object",
                "additionalProperties": False,
                "required": ["input"],
                "properties": {
                    "input": {
                        "type": "string",
                        "description": "The raw text of the input, without Markdown fences.",
                    }
                },
            },
        }

    def reader(self, offer: Offer) -> ArgumentsReader:
        return InputReader()

    def call_arguments(self, item: AnyItem) -> str:
        return json_text({"input": item.get("input") or ""})


class InputReader(ArgumentsReader):
    """Streams the value of ``input`` out of ``{"input": "..."}`` and un-escapes it.

    Anything that begins differently is held until the end and interpreted as well as possible: another key, a
    bare JSON string, raw text, a Markdown fence around the text.  The result does not depend on how the text
    was cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self._raw: List[str] = []
        self._head: Optional[str] = ""  # what was read before the value; None: the value streams
        self._tail = ""  # an escape that is not complete
        self._hold = False  # decided: nothing streams
        self._ended = False

    def feed(self, fragment: str) -> str:
        self._raw.append(fragment)
        if self._hold or self._ended:
            return ""
        if self._head is not None:
            self._head += fragment
            start = _value_start(self._head)
            if start is None:
                return ""
            if start < 0:
                self._hold = True
                return ""
            fragment, self._head = self._head[start:], None
        text, self._tail, self._ended = _unescape(self._tail + fragment)
        return super().feed(text)

    def close(self) -> Tuple[str, str]:
        sent = super().close()[1]
        if self._head is None:
            return "", sent
        whole = unwrap("".join(self._raw))
        return whole, whole


_KEY = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_KEY_TEXT = '{"input":"'
_FENCE_HEAD = re.compile(r"(?: |\\[nrt])*```")
_MAYBE_FENCE_HEAD = re.compile(r"(?: |\\[nrt])*(?:`{0,2}|\\)")


def _value_start(head: str) -> Optional[int]:
    """Where the value of ``input`` begins.

    :returns: None: not known yet; -1: this is something else, or it begins with a fence
    """
    match = _KEY.match(head)
    if match is None:
        return None if _KEY_TEXT.startswith("".join(head.split())) else -1
    if _MAYBE_FENCE_HEAD.fullmatch(head, match.end()):
        return None
    return -1 if _FENCE_HEAD.match(head, match.end()) else match.end()


_HEX = re.compile("[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _unescape(text: str) -> Tuple[str, str, bool]:
    """Un-escape the inside of a JSON string: (text, incomplete escape at the end, closing quote seen)."""
    out: List[str] = []
    i, n = 0, len(text)
    while i < n:
        stop = min((k for k in (text.find("\\", i), text.find('"', i)) if k >= 0), default=n)
        out.append(text[i:stop])
        if stop == n:
            break
        if text[stop] == '"':
            return "".join(out), "", True
        size = 6 if text[stop + 1 : stop + 2] == "u" else 2
        if stop + size > n:
            return "".join(out), text[stop:], False
        escape = text[stop : stop + size]
        if size == 6:
            unit = _hex(escape[2:])
            if 0xD800 <= unit < 0xDC00:  # half of a pair: take the other half, too
                if stop + 12 > n and "\\u".startswith(text[stop + 6 : stop + 8]):
                    return "".join(out), text[stop:], False
                low = _hex(text[stop + 8 : stop + 12]) if text[stop + 6 : stop + 8] == "\\u" else 0
                if 0xDC00 <= low < 0xE000:
                    unit, size = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), 12
            out.append("\ufffd" if 0xD800 <= unit < 0xE000 else chr(unit))
        else:
            out.append(_ESCAPES.get(escape[1], escape))
        i = stop + size
    return "".join(out), "", False


def _hex(digits: str) -> int:
    return int(digits, 16) if _HEX.fullmatch(digits) else 0xFFFD


def unwrap(raw: str) -> str:
    """The text that a model means by the arguments ``raw`` of a freeform tool."""
    value = loads(raw)
    text = value if isinstance(value, str) else raw
    if isinstance(value, dict):
        candidates = [value[key] for key in _KEYS if key in value] + list(
            value.values() if len(value) == 1 else ()
        )
        text = next((v for v in candidates if isinstance(v, str)), raw if value else "")
    fenced = _FENCE.match(text)
    return fenced.group(1) + "\n" if fenced else text
