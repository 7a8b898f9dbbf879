"""Halves of surrogate pairs: JSON can spell them one by one (``"\\ud83c"``), UTF-8 cannot.

Providers cut an escaped emoji between two deltas, and models produce lone halves.  Nothing that leaves rproxy
may contain one.
"""

from __future__ import annotations

from typing import Tuple

from ..json_codec import is_well_formed, mend

REPLACEMENT = "\ufffd"


def mend_piece(text: str) -> Tuple[str, str]:
    """:func:`~rproxy.json_codec.mend` for a piece of a longer text.

    :returns: the text, and the first half of a pair at its end, which must wait for the next piece ("": none)
    """
    if is_well_formed(text):
        return text, ""
    half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
    return mend(text[: len(text) - len(half)]), half
