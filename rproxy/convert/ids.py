"""Names for what one response is made of.

All items of a response share the 32 hex digits of its id (the stem), so that a later request, which brings
the items back one by one, still tells which of them were one answer (see ``messages.stem``).  The source of
randomness is the caller's.
"""

from __future__ import annotations

import itertools


class Ids:
    """Makes the ids of one response out of ``stem`` (32 hex digits)."""

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
        number = next(self._count)
        return (
            f"call_{self.stem[:24]}{number:04x}" if prefix == "call" else f"{prefix}_{self.stem}{number:04x}"
        )
