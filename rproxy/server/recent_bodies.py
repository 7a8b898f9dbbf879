"""Request bodies that continue an earlier one.

An agent sends its whole history with each request: the body begins with the bytes of the previous one, up to
the last item of ``input``; a few new items follow, and usually the same end.  So only the new items of such a
body are parsed, and all other values are taken from the previous body.

**Why this is the same** as parsing all of it: after the same beginning a JSON parser is in the same state,
which is in the array ``input`` of the outermost object, after an item.  The new items are parsed as an array
of their own, and the end as an object of its own, so neither can reach beyond itself.  Any other body, and
any invalid one, is parsed as a whole.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, List, Sequence

from ..json_codec import encode_json
from ..service.mcp_credentials import has_servers
from ..service.owner_cache import OwnerCache, text_memory
from ..types import Json
from .body import parse_json, parse_object
from .speedups import enabled

MIN_SIZE = 1 << 16  # bytes; parsing a smaller body takes little time
MAX_BYTES = 32 << 20  # of memory for all bodies
MAX_BYTES_OF_OWNER = MAX_BYTES // 2

_input = re.compile(rb'"input"[ \t\r\n]*:[ \t\r\n]*\[').search
_BLANKS = b" \t\r\n"


class RecentBodies:
    """The most recent bodies, by the owner of the key that came with them.  A body with MCP servers is not
    kept, because it may contain credentials.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_bytes_of_owner: int = MAX_BYTES_OF_OWNER) -> None:
        self._bodies: OwnerCache[_Body] = OwnerCache(max_bytes, max_bytes_of_owner)
        self._least = MIN_SIZE if enabled("bodies") else float("inf")

    def parse(self, owner: str, data: bytes) -> Json:
        """:func:`~rproxy.server.body.parse_object`; the values in the object must not be changed."""
        if len(data) < self._least:
            return parse_object(data)
        begun = [body for body in self._bodies.of(owner) if body.begins(data)]
        with suppress(ValueError, RecursionError):
            if begun:
                before = max(begun, key=lambda body: body.length)
                body = _following(before, data)
                self._bodies.forget(owner, [before])
                return self._keep(owner, body)
        value = parse_object(data)
        with suppress(ValueError, RecursionError):
            self._keep(owner, _first(data, value))
        return value

    def _keep(self, owner: str, body: _Body) -> Json:
        self._bodies.keep(owner, [(body, body, body.size)])
        return {**body.before, "input": [*body.items], **body.after}


@dataclass(eq=False)
class _Body:
    """The most recent body of a conversation.

    ``pieces``: its bytes up to the last item, ``length`` of them.  ``before``, ``items`` and ``after``: its
    fields up to ``input``, the value of that, and the fields behind it.  ``end``: the bytes behind the items.
    """

    pieces: List[bytes]
    length: int
    before: Json
    items: List[Any]
    after: Json
    end: bytes
    size: int  # in memory

    def begins(self, data: bytes) -> bool:
        """Does a body have the same beginning as this one, up to its last item?"""
        at = 0
        for piece in self.pieces:
            if not data.startswith(piece, at):
                return False
            at += len(piece)
        return True


def _first(data: bytes, value: Json) -> _Body:
    """The first body of a conversation.

    :param value: what it holds
    :raises ValueError: it is not to be kept
    """
    begin, names = _input(data), list(value)
    end = _end(data, names[names.index("input") + 1 :]) if value.get("input") else -1
    if begin is None or end < begin.end():
        raise ValueError("it has no items")
    before, after = parse_json(data[: begin.start()] + b'"input":0}'), _fields(data[end:])
    if [*before, *after] != names:
        raise ValueError("'input' begins or ends elsewhere")
    size = _memory(value["input"], [before, after], len(data))
    return _Body([data[:end]], end, before, [*value["input"]], after, data[end:], len(data) + size)


def _following(last: _Body, data: bytes) -> _Body:
    """The next body of a conversation.

    :raises ValueError: it is not to be kept, or wrong
    """
    end, after, size = len(data) - len(last.end), last.after, 0
    if not data.endswith(last.end):
        end = _end(data, list(after))
        after = _fields(data[end:])
        size = _memory([], [after], len(data) - end)
    new = data[last.length : end]
    text = new.lstrip(_BLANKS)
    items = parse_json(b"[%b]" % text[1:])
    if text[:1] not in (b"", b",") or bool(text) is not bool(items) or end < last.length:
        raise ValueError("no items follow")
    size += last.size + len(new) + _memory(items, [], len(new))
    return _Body([*last.pieces, new], end, last.before, [*last.items, *items], after, data[end:], size)


def _end(data: bytes, names: Sequence[str]) -> int:
    """Where the items of a body end, if it is one of the usual form.

    :param names: of the fields behind ``input``
    """
    bracket = data.rfind(b"]")
    if names:
        name = encode_json(names[0])
        bracket = data.rfind(b"],%b:" % name)
        bracket = data.rfind(b"], %b:" % name) if bracket < 0 else bracket
    while bracket > 0 and data[bracket - 1] in _BLANKS:
        bracket -= 1
    return bracket


def _fields(end: bytes) -> Json:
    """The fields behind ``input``.

    :param end: the bytes behind its last item
    :raises ValueError: they are wrong
    """
    bracket, rest = end.lstrip(_BLANKS)[:1], end.lstrip(_BLANKS)[1:].lstrip(_BLANKS)
    more = rest[:1] == b","
    fields: Json = parse_json(b"{" + rest[more:])
    if bracket != b"]" or bool(fields) is not more:
        raise ValueError("no fields follow")
    return fields


def _memory(items: List[Any], fields: List[Json], length: int) -> int:
    """The memory of a part of a body.

    :param length: of its bytes
    :raises ValueError: it is not to be kept: it holds MCP servers, or little text
    """
    tools = [{"type": "additional_tools", "tools": one.get("tools")} for one in fields]
    if not all(type(item) is dict for item in items) or has_servers([*items, *tools]):
        raise ValueError("it holds something else than items, or MCP servers")
    return text_memory([items, fields], length)
