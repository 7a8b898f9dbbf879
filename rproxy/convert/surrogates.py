"""Halves of surrogate pairs: JSON can spell them one by one (``"\\ud83c"``), UTF-8 cannot.

Providers cut an escaped emoji between two deltas, and models produce lone halves.  Nothing that leaves may
contain one.
"""

from __future__ import annotations

from typing import Tuple

REPLACEMENT = "\ufffd"


def mend(text: str) -> str:
    """``text`` with the halves of pairs joined and each lone half replaced by U+FFFD: it can be written as
    UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mend_piece(text: str) -> Tuple[str, str]:
    """The same for a piece of a longer text, and the first half of a pair at its end, which must wait for the
    next piece (else "")."""
    try:
        text.encode()
    except UnicodeEncodeError:
        half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        return mend(text[: len(text) - len(half)]), half
    return text, ""
