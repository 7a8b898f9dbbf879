"""The ids of a response and of its parts.

All items of a response share the 32 hex digits of its id (the stem).  A later request brings the items back
one by one, and their stems show which of them were one answer (:func:`rproxy.convert.request.turns.stem`).
The caller provides the randomness.
"""

from __future__ import annotations

import itertools


class Ids:
    """Makes the ids of one response from ``stem`` (32 hex digits)."""

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self._count = itertools.count()

    @property
    def response(self) -> str:
        return "resp_" + self.stem

    def __call__(self, prefix: str) -> str:
        """``msg`` -> ``msg_`` + stem + a running number.

        Call ids are kept short: OpenAI takes 40 characters.
        """
        number = f"{next(self._count):04x}"
        return f"call_{self.stem[:24]}{number}" if prefix == "call" else f"{prefix}_{self.stem}{number}"
