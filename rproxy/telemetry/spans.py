"""When what happened within one turn: the bars of a waterfall.

A :class:`Timeline` notes a moment at each step of a turn, and two for each output item; nothing for a delta.
A kind of step is a word and no more, so that a new one needs no change here.
"""

from __future__ import annotations

import time
from typing import Dict, List, NamedTuple, Optional

from ..types import AnyItem

MOST = 100  # spans of a turn; an answer may have a thousand calls
LONGEST = 80  # characters of a label
ITEM_KINDS: Dict[str, str] = {"reasoning": "thinking", "message": "text"}  # calls: tool


class Span(NamedTuple):
    """One step.  The times are in milliseconds after the request came."""

    kind: str  # queue, attempt, connect, first_byte, thinking, text, tool, pause
    start: float
    end: float
    label: str = ""


class Timeline:
    """Makes the spans of one turn.

    :param began: when its request came, in monotonic seconds
    """

    __slots__ = ("_began", "_free", "_open", "_since", "spans")

    def __init__(self, began: float) -> None:
        self._began = began
        self._open: Optional[AnyItem] = None
        self._since = self._free = began
        self.spans: List[Span] = []

    def add(self, kind: str, start: float, end: float, label: str = "") -> None:
        """A step that is over.

        :param start: monotonic seconds, as ``end``
        """
        if len(self.spans) < MOST:
            began = self._began
            self.spans.append(
                Span(kind, round((start - began) * 1e3, 1), round((end - began) * 1e3, 1), label[:LONGEST])
            )

    def attempt(self, label: str, started: float, sent: float, answered: Optional[float]) -> None:
        """An attempt has ended just now, and so has its open item.

        :param label: whose it was, and how it ended
        :param started: when it began, in monotonic seconds; ``sent``: when its request was on its way;
            ``answered``: when the answer began, None: never
        """
        self.close()
        now = time.monotonic()
        self.add("queue" if self._free == self._began else "pause", self._free, started)
        self.add("attempt", started, now, label)
        if sent > started:
            self.add("connect", started, sent)
            self.add("first_byte", sent, now if answered is None else answered)
        self._free = now

    def watch(self, item: AnyItem, done: bool) -> None:
        """An output item was announced, or is done; they never overlap."""
        if done:
            self.close()
        else:
            self._open, self._since = item, time.monotonic()

    def close(self) -> None:
        """The item that is open, if there is one, gets nothing more."""
        item, self._open = self._open, None
        if item is not None:
            kind = str(item["type"])
            label = "" if kind in ITEM_KINDS else str(item.get("name") or kind)
            what = ITEM_KINDS.get(kind) or ("tool" if kind.endswith("_call") else "text")
            self.add(what, self._since, time.monotonic(), label)
