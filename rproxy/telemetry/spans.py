"""The timing of one turn: the bars of a waterfall chart.

A :class:`Timeline` notes a moment at each step of a turn, and two for each output item; nothing for a delta.
A kind of step is just a word, so a new one needs no change here.
"""

from __future__ import annotations

import time
from typing import Dict, List, Optional, Protocol, Tuple

from ..types import AnyItem

MAX_SPANS = 100  # spans of a turn; an answer may have a thousand calls
MAX_LABEL = 80  # characters of a label
MIN_WAIT = 0.001  # seconds before an item that count as a wait
ITEM_KINDS: Dict[str, str] = {"reasoning": "thinking", "message": "text", "compaction": "text"}  # else: tool


# One step: its kind (queue, attempt, connect, first_byte, thinking, text, tool, pause), its begin and its end
# in milliseconds after the request came, and a label. A plain tuple, which costs a tenth of a named one.
Span = Tuple[str, float, float, str]


class Timed(Protocol):
    """An attempt: when it began, when its request was on its way, and when the answer began, in monotonic
    seconds; None: not yet.
    """

    started: float
    sent: Optional[float]
    answered: Optional[float]


class Timeline:
    """Makes the spans of one turn.

    :param began: when its request came, in monotonic seconds

    ``spans``: of the steps that are over.
    """

    __slots__ = ("_attempt", "_began", "_free", "_item", "_since", "_wait", "spans")

    def __init__(self, began: float) -> None:
        self._began = began
        self._free = began  # when the last attempt, or the step after it, ended
        self._wait = "queue"  # what the time since then is
        self._attempt: Optional[Timed] = None  # the one under way
        self._item: Optional[AnyItem] = None  # the one that is open
        self._since = began
        self.spans: List[Span] = []

    def begin_attempt(self, attempt: Timed) -> None:
        self._attempt = attempt

    def end_attempt(self, provider: str, status: str) -> None:
        """The attempt has ended just now, and so has its open item.

        :param status: how it ended; "" if that is not known
        """
        self._close_item()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            now = time.monotonic()
            self._add_attempt(self.spans, attempt, now, f"{provider} {status}".strip())
            self._free, self._wait = now, "pause"

    def watch(self, item: AnyItem, done: bool) -> None:
        """An output item was announced, or is done; they never overlap."""
        if done:
            self._close_item()
        else:
            self._item, self._since = item, time.monotonic()
            if self._attempt is None and self._since - self._free > MIN_WAIT:
                self._add_wait(self.spans, self._since)

    def so_far(self) -> List[Span]:
        """The spans of a running turn, as if its open steps ended now."""
        now, spans = time.monotonic(), self.spans[:]
        if self._item is not None:
            self._add_item(spans, self._item, now)
        if self._attempt is not None:
            self._add_attempt(spans, self._attempt, now, "")
        return spans

    def _close_item(self) -> None:
        item, self._item = self._item, None
        if item is not None:
            now = time.monotonic()
            self._add_item(self.spans, item, now)
            if self._attempt is None:  # a tool that rproxy ran itself: the time was not a pause
                self._free, self._wait = now, "queue"

    def _add_item(self, spans: List[Span], item: AnyItem, end: float) -> None:
        kind = item["type"]
        what = ITEM_KINDS.get(kind)
        if what is not None:
            self._add(spans, what, self._since, end, "")
        else:
            names = filter(None, (item.get("server_label"), item.get("name")))
            self._add(spans, "tool", self._since, end, ".".join(map(str, names)) or kind)

    def _add_wait(self, spans: List[Span], end: float) -> None:
        self._add(spans, self._wait, self._free, end, "")

    def _add_attempt(self, spans: List[Span], attempt: Timed, end: float, label: str) -> None:
        started, sent, answered = attempt.started, attempt.sent, attempt.answered
        self._add_wait(spans, started)
        self._add(spans, "attempt", started, end, label)
        self._add(spans, "connect", started, end if sent is None else sent, "")
        if sent is not None:
            self._add(spans, "first_byte", sent, end if answered is None else answered, "")

    def _add(self, spans: List[Span], kind: str, start: float, end: float, label: str) -> None:
        if end > start and len(spans) < MAX_SPANS:
            began = self._began
            spans.append((kind, (start - began) * 1e3, (end - began) * 1e3, label[:MAX_LABEL]))
