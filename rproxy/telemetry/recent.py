"""The latest turns of this process, and the running ones: what the inspector shows.

A turn costs one entry in a bounded list.  How an entry looks to a viewer is computed when the viewer asks.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from dataclasses import replace
from typing import Callable, Deque, List, NamedTuple, Optional, Set

from .records import MAX_WARNINGS, TurnRecord, first_warnings

MAX_TURNS = 10_000  # turns


class RecentTurn(NamedTuple):
    """A turn that has ended.

    ``number`` counts the turns of this process in the order of their ends, from 1; ``ended`` is in seconds
    since the epoch; ``cost`` is None when the model has no price.
    """

    number: int
    ended: float
    record: TurnRecord
    cost: Optional[float]
    currency: str


class RunningTurn:
    """A turn that runs while the context lasts.

    :param view: its record as it is now, with the status ``in_progress``
    """

    __slots__ = ("_recent", "began", "view")

    def __init__(self, recent: RecentTurns, view: Callable[[], TurnRecord]) -> None:
        self._recent = recent
        self.began = recent.now()
        self.view = view

    def __enter__(self) -> None:
        self._recent.running.add(self)
        self._recent.changed()

    def __exit__(self, *error: object) -> None:
        self._recent.running.discard(self)
        self._recent.changed()


class RecentTurns:
    """The turns of one process since the inspector was switched on.

    ``id`` distinguishes this list from that of another process, and from an earlier one.  ``listeners`` are
    set whenever something has changed.  ``began``: seconds since the epoch.

    :param most: the number of turns that are kept
    :param now: seconds since the epoch
    """

    def __init__(self, most: int = MAX_TURNS, now: Callable[[], float] = time.time) -> None:
        self.id = secrets.token_hex(4)
        self.now = now
        self.began = now()
        self.turns: Deque[RecentTurn] = deque(maxlen=most)
        self.running: Set[RunningTurn] = set()
        self.listeners: Set[asyncio.Event] = set()
        self.count = 0

    def add(self, record: TurnRecord, cost: Optional[float], currency: str) -> None:
        """Keep a turn."""
        if len(record.warnings) > MAX_WARNINGS:
            record = replace(record, warnings=first_warnings(record.warnings))
        self.count += 1
        self.turns.append(RecentTurn(self.count, self.now(), record, cost, currency))
        self.changed()

    def find(self, request_id: str) -> Optional[RecentTurn]:
        """The turn with this id."""
        return next((turn for turn in reversed(self.turns) if turn.record.request_id == request_id), None)

    def since(self, number: int) -> List[RecentTurn]:
        """The turns after that number, newest first."""
        found: List[RecentTurn] = []
        for turn in reversed(self.turns):
            if turn.number <= number:
                break
            found.append(turn)
        return found

    def changed(self) -> None:
        """Tell the listeners."""
        for listener in self.listeners:
            listener.set()
