"""Recurring lists of tools.

An agent sends the same tools in every turn, and they are most of its request: Codex's are 30 KB of schemas.
:class:`ToolLists` gives equal lists the same :class:`ToolList`, which keeps what was computed from it: its
form in the Response object, and the functions that a provider is offered.  Both depend on nothing else that a
client sends, so it does not matter in whose turn they were computed.
"""

from __future__ import annotations

import marshal
from typing import Any, Callable, Dict, Hashable, List, TypeVar

from ...types import Json

T = TypeVar("T")

MAX_BYTES = 1 << 20  # of the lists that are remembered; values computed from them take about ten times more
MAX_LIST_BYTES = MAX_BYTES // 4  # bytes of one list
CREDENTIALS = frozenset(("authorization", "headers"))  # keys of tools that are not remembered
MAX_FORMS = 8  # of one list, for as many kinds of providers

# Writes an object that occurs twice as two objects, so that equal lists have equal bytes.
_VERSION = 2


class ToolList(List[Json]):
    """The ``tools`` of requests, with values computed from them.  Do not change it."""

    def __init__(self, tools: List[Json]) -> None:
        super().__init__(tools)
        self._made: Dict[Hashable, Any] = {}

    def made(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value that ``make`` computes from these tools, cached.

        :param key: everything else that the result depends on
        """
        found = self._made.get(key)
        if found is None:
            found = make()
            while len(self._made) >= MAX_FORMS:
                self._made.pop(next(iter(self._made)))
            self._made[key] = found
        result: T = found
        return result


class ToolLists:
    """The most recently used tool lists."""

    def __init__(self) -> None:
        self._lists: Dict[bytes, ToolList] = {}  # most recently used last
        self._size = 0

    def of(self, tools: List[Json]) -> List[Json]:
        """A list that equals ``tools``: a remembered one, or ``tools`` itself if that must not be remembered,
        because it is too large, or has credentials.

        Takes a millisecond for a megabyte.
        """
        if not all(map(CREDENTIALS.isdisjoint, tools)):
            return tools
        try:
            key = marshal.dumps(tools, _VERSION)
        except ValueError:
            return tools  # nested too deeply
        if len(key) > MAX_LIST_BYTES:
            return tools
        known = self._lists.pop(key, None)
        if known is None:
            known = ToolList(tools)
            self._size += len(key)
        self._lists[key] = known
        while self._size > MAX_BYTES:
            oldest = next(iter(self._lists))
            del self._lists[oldest]
            self._size -= len(oldest)
        return known
