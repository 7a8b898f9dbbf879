"""How much hosted tools may do for one response."""

from __future__ import annotations

from typing import Optional

from ..config.hosted_schema import HostedLimits


class Budget:
    """What is left for one response.

    :param max_calls: what the client allows (``max_tool_calls``); None: no limit of its own
    """

    def __init__(self, limits: HostedLimits, max_calls: Optional[int] = None) -> None:
        self._rounds = limits.max_rounds
        self._calls = limits.max_calls if max_calls is None else min(max_calls, limits.max_calls)
        self.seconds = limits.max_seconds
        self.rounds = self.calls = 0  # so far

    @property
    def spent(self) -> bool:
        """Is nothing left?  Then the model has to answer with what it has."""
        return self.rounds >= self._rounds or self.calls_left <= 0 or self.seconds <= 0

    @property
    def calls_left(self) -> int:
        return self._calls - self.calls

    def ends_with(self, calls: int) -> bool:
        """Is nothing left after a round of so many calls, however long they take?"""
        return self.rounds + 1 >= self._rounds or calls >= self.calls_left

    def round(self, calls: int, seconds: float) -> None:
        """Count a round of so many calls, which took so long."""
        self.rounds += 1
        self.calls += calls
        self.seconds -= seconds
