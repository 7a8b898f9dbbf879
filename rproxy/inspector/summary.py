"""Sums over the turns of a period: for all of them, for each model, and for each key."""

from __future__ import annotations

from typing import Dict, Generator, List, Optional, Sequence

from ..telemetry.recent import RecentTurn
from ..types import Json

WINDOW = 3600.0  # seconds
BUCKETS = 30  # parts of the window, for the sparklines
TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
LINES = ("turns", "failed", "tokens", "cost")
MAX_GROUPS = 200  # models may have any name
OTHERS = "(others)"
AT_A_TIME = 200  # turns, a fraction of a millisecond


class Sums:
    """The sums over some turns.

    :param since: seconds since the epoch, when the first bucket begins
    :param width: seconds of a bucket
    """

    def __init__(self, since: float, width: float) -> None:
        self._since = since
        self._width = width
        self._turns = 0
        self._statuses: Dict[str, int] = {}
        self._tokens = dict.fromkeys(TOKENS, 0)
        self._cost: Optional[float] = None
        self._totals: List[float] = []
        self._firsts: List[float] = []
        self._lines: Dict[str, List[float]] = {name: [0] * BUCKETS for name in LINES}
        self._times: List[List[float]] = [[] for _ in range(BUCKETS)]

    def add(self, turn: RecentTurn) -> None:
        record = turn.record
        self._turns += 1
        self._statuses[record.status] = self._statuses.get(record.status, 0) + 1
        for name in TOKENS:
            self._tokens[name] += getattr(record, name) or 0
        if turn.cost is not None:
            self._cost = (self._cost or 0.0) + turn.cost
        self._totals.append(record.total_ms)
        if record.first_event_ms is not None:
            self._firsts.append(record.first_event_ms)
        bucket = min(max(int((turn.ended - self._since) / self._width), 0), BUCKETS - 1)
        self._lines["turns"][bucket] += 1
        self._lines["failed"][bucket] += record.status == "failed"
        self._lines["tokens"][bucket] += record.total_tokens
        self._lines["cost"][bucket] += turn.cost or 0.0
        self._times[bucket].append(record.total_ms)

    def json(self) -> Json:
        failed = self._statuses.get("failed", 0)
        tokens = self._tokens
        return {
            "turns": self._turns,
            "statuses": self._statuses,
            "error_rate": round(failed / self._turns, 4) if self._turns else None,
            **tokens,
            "cache_hit": (
                round(tokens["cached_tokens"] / tokens["input_tokens"], 4) if tokens["input_tokens"] else None
            ),
            "cost": None if self._cost is None else round(self._cost, 6),
            "total_ms": _percentiles(self._totals),
            "first_event_ms": _percentiles(self._firsts),
            "sparklines": {**self._lines, "total_ms": [_percentile(times, 50) for times in self._times]},
        }


def summary_steps(turns: Sequence[RecentTurn], now: float, window: float) -> Generator[None, None, Json]:
    """The sums, in steps for :func:`rproxy.cooperative.run_cooperatively`.

    :param turns: the newest first
    :param now: seconds since the epoch
    :param window: only turns that ended within these last seconds
    """
    since, width = now - window, window / BUCKETS
    total, currency = Sums(since, width), ""
    models: Dict[str, Sums] = {}
    keys: Dict[str, Sums] = {}
    for place, turn in enumerate(turns, 1):
        if turn.ended < since:
            break
        currency = turn.currency or currency
        total.add(turn)
        for table, name in ((models, turn.record.model), (keys, turn.record.key)):
            if name not in table and len(table) >= MAX_GROUPS:
                name = OTHERS
            if name not in table:
                table[name] = Sums(since, width)
            table[name].add(turn)
        if place % AT_A_TIME == 0:
            yield
    result: Json = {"since": round(since, 3), "bucket_seconds": width, "currency": currency}
    result["total"] = total.json()
    for kind, table in (("models", models), ("keys", keys)):
        result[kind] = []
        for name in sorted(table):
            result[kind].append({"name": name, **table[name].json()})
            yield
    return result


def _percentiles(values: List[float]) -> Json:
    return {f"p{percent}": _percentile(values, percent) for percent in (50, 95)}


def _percentile(values: List[float], percent: int) -> Optional[float]:
    """By the nearest rank."""
    values.sort()
    return values[max(-(-len(values) * percent // 100) - 1, 0)] if values else None
