"""Texts that arrive in pieces: one for each token, or megabytes at once.

Small pieces wait in a list, because that is the fastest.  Once there are enough of them they are added to one
text, which CPython extends in place as long as there is no other reference to it.  So a hundred megabytes are
never copied at once.
"""

from __future__ import annotations

from typing import List

ENOUGH = 1 << 20  # characters that wait
REMEMBERED = 1 << 20  # characters at the beginning of a text that a repetition is compared with


class TextBuffer:
    """A text that grows.  False while it is empty."""

    __slots__ = ("_pieces", "_waiting", "_whole")

    def __init__(self) -> None:
        self._whole = ""
        self._pieces: List[str] = []
        self._waiting = 0  # characters in the pieces

    def append(self, text: str) -> None:
        self._pieces.append(text)
        self._waiting += len(text)
        if self._waiting > ENOUGH:
            self._merge()

    def _merge(self) -> None:
        whole, self._whole = self._whole, ""  # the only reference, which makes the addition cheap
        whole += "".join(self._pieces)
        self._whole = whole
        self._pieces.clear()
        self._waiting = 0

    def text(self) -> str:
        """All of it."""
        if self._pieces:
            self._merge()
        return self._whole

    def __bool__(self) -> bool:
        return bool(self._whole or self._pieces)


class Received:
    """The length and the beginning of a text that has arrived.  False while it is empty."""

    __slots__ = ("_beginning", "_size")

    def __init__(self) -> None:
        self._beginning: List[str] = []
        self._size = 0

    def append(self, text: str) -> None:
        if self._size < REMEMBERED:
            self._beginning.append(text)
        self._size += len(text)

    def more(self, whole: str) -> str:
        """The part of the whole text that has not arrived yet; "" if it is another text."""
        if len(whole) <= self._size:
            return ""
        beginning = "".join(self._beginning)
        self._beginning = [beginning]
        return whole[self._size :] if whole.startswith(beginning) else ""

    def __bool__(self) -> bool:
        return self._size > 0
