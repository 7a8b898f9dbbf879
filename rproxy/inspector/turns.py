"""Turns as JSON: the same shape in the list, for a single turn, and in the stream."""

from __future__ import annotations

from typing import Dict, Generator, Iterator, List, Mapping, Optional, Sequence

from ..telemetry.recent import RecentTurn, RecentTurns, RunningTurn
from ..telemetry.records import TurnRecord
from ..types import Json
from .viewer import Viewer

LISTED = 100  # turns in one answer, when the client does not say how many
MAX_LISTED = 1000
AT_A_TIME = 50  # turns that are examined in one step
FILTERS = ("model", "downstream_model", "provider", "key", "transport", "status")  # exact values
# The fields of a record that are shown as they are.
FIELDS = (
    "key", "remote", "model", "route", "downstream_model", "provider", "transport", "status", "error",
    "upstream_status", "reason", "request_bytes", "answer_bytes", "input_tokens", "cached_tokens",
    "output_tokens", "reasoning_tokens", "usage", "first_event_ms", "total_ms", "attempts", "retries",
)  # fmt: skip


def turn_json(turn: RecentTurn) -> Json:
    """A turn that has ended."""
    began = turn.ended - turn.record.total_ms / 1000
    return _json(turn.record, turn.number, began, turn.cost, turn.currency)


def running_json(running: RunningTurn) -> Json:
    """A turn that runs; it has no number and no cost yet."""
    return _json(running.view(), None, running.began, None, "")


def _json(
    record: TurnRecord, number: Optional[int], began: float, cost: Optional[float], currency: str
) -> Json:
    shown: Json = {"id": record.request_id, "number": number, "time": round(began, 3)}
    for name in FIELDS:
        shown[name] = getattr(record, name)
    cached, tokens = record.cached_tokens, record.input_tokens
    shown["cache_hit"] = round(cached / tokens, 3) if tokens and cached is not None else None
    shown["cost"] = cost
    shown["currency"] = currency
    shown["tool_calls"] = sum(kind == "tool" for kind, *_ in record.spans)
    shown["warnings"] = list(record.warnings)
    shown["spans"] = [
        {"kind": kind, "start": round(start, 1), "end": round(end, 1), "label": label}
        for kind, start, end, label in record.spans
    ]
    return shown


# ---- Lists
def matches(record: TurnRecord, wanted: Mapping[str, str]) -> bool:
    """Does the record have these values?

    :param wanted: some of :data:`FILTERS`
    """
    return all(getattr(record, name) == value for name, value in wanted.items())


def page_steps(
    recent: RecentTurns, viewer: Viewer, wanted: Mapping[str, str], before: Optional[int], limit: int
) -> Generator[None, None, Json]:
    """A page of the turns that have ended, newest first; in steps for
    :func:`rproxy.cooperative.run_cooperatively`.

    :param before: only turns with a lower number
    """
    found: List[Json] = []
    for place, turn in enumerate(recent.since(0), 1):
        if place % AT_A_TIME == 0:
            yield
        if before is not None and turn.number >= before:
            continue
        if viewer.may_see(turn.record) and matches(turn.record, wanted):
            if len(found) == limit:
                return {"turns": found, "has_more": True}
            found.append(turn_json(turn))
    return {"turns": found, "has_more": False}


def running_turns(recent: RecentTurns, viewer: Viewer) -> Iterator[Json]:
    """The turns that run now."""
    for running in list(recent.running):
        if viewer.may_see(running.view()):
            yield running_json(running)


def batches(turns: Sequence[RecentTurn], size: int) -> Iterator[List[Json]]:
    """Turns as JSON, ``size`` at a time."""
    for first in range(0, len(turns), size):
        yield [turn_json(turn) for turn in turns[first : first + size]]


def wanted_of(query: Mapping[str, str]) -> Dict[str, str]:
    """The filters of a query."""
    return {name: query[name] for name in FILTERS if name in query}
