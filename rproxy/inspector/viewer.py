"""Who may see what.

Without authentication, everybody who reaches the inspector sees everything.  With it, a key without limits
sees the turns of all keys, as ``GET /metrics`` shows their sums to it; a key with limits belongs to one user
of many, and sees its own turns only.  The content of a turn is shown only to the key that asked.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from ..config.schema import Key
from ..telemetry.records import TurnRecord


class Viewer(NamedTuple):
    """A client of the inspector.  ``key`` is None when there is no authentication."""

    key: Optional[Key]

    @property
    def is_limited(self) -> bool:
        """Does the key have limits?"""
        key = self.key
        return key is not None and bool(key.models or key.turns_per_minute or key.tokens_per_day)

    def may_see(self, record: TurnRecord) -> bool:
        """May it see this turn?"""
        return not self.is_limited or self.may_read(record)

    def may_read(self, record: TurnRecord) -> bool:
        """May it read the content of this turn?"""
        return self.key is None or record.owner == self.key.owner

    def may_use(self, model: str) -> bool:
        """May it see the model with this configured name?"""
        return self.key is None or self.key.allows(model)
