"""The stream of changes, as server-sent events.

========== =================================================================================
hello      which process it is, and what it shows
providers  their states; again when one has changed
turns      several turns that have ended, newest first: those before the stream began
turn       one turn that has begun (``in_progress``) or ended
gone       ``{"id"}`` of a turn that ended without a record
========== =================================================================================

The ``id`` of an event is a position in the stream; with it (``Last-Event-ID``, or ``?after=``) a client
continues where it was, unless it is from another process, or from before a restart.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, Optional

from ..json_codec import encode_json
from ..telemetry.recent import RecentTurns, RunningTurn
from ..types import Json
from .turns import batches, running_json, turn_json
from .viewer import Viewer

BATCH = 100  # turns in one event
FEW = 20  # turns that get an event each
MAX_NUMBER = 18  # digits of the number of a turn


class Feed:
    """The events for one client.

    :param hello: the first event
    :param providers: returns their current states
    :param after: the id of the last event that it got; "" for events from now on, ``0`` for all
    """

    def __init__(
        self,
        recent: RecentTurns,
        viewer: Viewer,
        hello: Json,
        providers: Callable[[], List[Json]],
        after: str,
    ) -> None:
        self._recent = recent
        self._viewer = viewer
        self._hello: Optional[Json] = hello
        self._providers = providers
        self._states: Optional[List[Json]] = None
        self._number = recent.count if not after else _number(after, recent.id)
        self._running: Dict[RunningTurn, str] = {}  # the turns that were shown -> their ids

    def updates(self) -> Iterator[bytes]:
        """The events since the last call, in pieces that are made one by one."""
        if self._hello is not None:
            yield _event("hello", self._hello)
            self._hello = None
        states = self._providers()
        if states != self._states:
            self._states = states
            yield _event("providers", {"providers": states})
        yield from self._ended()
        yield from self._began_or_left()

    def _ended(self) -> Iterator[bytes]:
        new = self._recent.since(self._number)
        if not new:
            return
        self._number = new[0].number
        cursor = f"{self._recent.id}-{self._number}"
        new = [turn for turn in new if self._viewer.may_see(turn.record)]
        if len(new) > FEW:
            for batch in batches(new, BATCH):
                last = batch[-1]["number"] == new[-1].number
                yield _event("turns", {"turns": batch}, cursor if last else "")
        else:
            for turn in reversed(new):
                yield _event("turn", turn_json(turn), f"{self._recent.id}-{turn.number}")

    def _began_or_left(self) -> Iterator[bytes]:
        for turn in [turn for turn in self._running if turn not in self._recent.running]:
            yield _event("gone", {"id": self._running.pop(turn)})
        for turn in self._recent.running - self._running.keys():
            if self._viewer.may_see(turn.view()):
                shown = running_json(turn)
                self._running[turn] = shown["id"]
                yield _event("turn", shown)


def _number(after: str, process: str) -> int:
    """The position of a client, from the id of an event; 0 if that belongs to another list of turns."""
    whose, _, number = after.partition("-")
    known = whose == process and number.isdecimal() and len(number) <= MAX_NUMBER
    return int(number) if known else 0


def _event(kind: str, data: Json, cursor: str = "") -> bytes:
    head = f"id: {cursor}\nevent: {kind}" if cursor else f"event: {kind}"
    return b"%b\ndata: %b\n\n" % (head.encode(), encode_json(data))
