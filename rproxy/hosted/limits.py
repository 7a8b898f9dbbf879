"""The limits on the hosted tools of one response."""

from __future__ import annotations

from typing import Optional

from ..config.hosted_schema import HostedLimits


class Budget:
    """The calls, rounds and seconds that are left for one response.

    :param max_calls: the client's own limit (``max_tool_calls``); None: it has none
    """

    def __init__(self, limits: HostedLimits, max_calls: Optional[int] = None) -> None:
        self._rounds = limits.max_rounds
        self._calls = limits.max_calls if max_calls is None else min(max_calls, limits.max_calls)
        self.seconds = limits.max_seconds
        self.rounds = self.calls = 0  # so far

    @property
    def spent(self) -> bool:
        """Is nothing left?  Then the model must answer with what it has."""
        return self.rounds >= self._rounds or self.calls_left <= 0 or self.seconds <= 0

    @property
    def calls_left(self) -> int:
        """The number of calls that may still begin."""
        return self._calls - self.calls

    def begin(self, calls: int, rounds: int = 1) -> bool:
        """Count calls that begin.

        :param rounds: 0 for calls before the first round
        :returns: whether nothing is left after them, however long they take
        """
        self.rounds += rounds
        self.calls += calls
        return self.rounds >= self._rounds or self.calls_left <= 0

    def took(self, seconds: float) -> None:
        """Add the time that calls took."""
        self.seconds -= seconds
