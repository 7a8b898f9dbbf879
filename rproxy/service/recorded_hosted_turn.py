"""A turn with hosted tools that is recorded."""

from __future__ import annotations

from .hosted_turn import HostedTurn
from .recorded_turn import RecordedTurn


class RecordedHostedTurn(RecordedTurn, HostedTurn):
    """Both at once; the constructor's parameters are those of the first, then those of the second."""
