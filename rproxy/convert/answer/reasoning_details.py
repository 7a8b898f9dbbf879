"""Joins the pieces of ``reasoning_details``: providers want them back as if they had not been streamed.

Rules of OpenRouter: the pieces of one detail follow each other and have the same type and index; text and
summary grow, a signature comes with the last piece.  An encrypted detail is whole, and goes back verbatim.
"""

from __future__ import annotations

from typing import Any, Dict, List

from ...types import Json
from .fields import text_of

MAX_PIECES = 4096  # pieces in one chunk; more than a few are not to be expected
_GROWING = ("text", "summary")


class ReasoningDetails:
    """The ``reasoning_details`` of one answer.

    ``entries`` are the details; the last one lacks its text until :meth:`complete`.

    :param cumulative: a piece may repeat everything before it (MiniMax)
    """

    def __init__(self, cumulative: bool = False) -> None:
        self.entries: List[Json] = []
        self._cumulative = cumulative
        self._open = False  # may the last entry grow?
        self._growing: Dict[str, List[str]] = {}

    def read(self, pieces: List[Any]) -> str:
        """Keep the pieces.

        :returns: their text
        """
        texts = []
        for piece in pieces[:MAX_PIECES]:
            if type(piece) is dict:
                texts.append(text_of(piece.get("text")) or text_of(piece.get("summary")))
                self._keep(piece)
        return "".join(texts)

    def complete(self) -> None:
        """Complete the last entry: nothing is added to it any more."""
        if self._open:
            for key, texts in self._growing.items():
                self.entries[-1][key] = "".join(texts)
            self._open = False

    def _keep(self, piece: Json) -> None:
        if not self._continues(piece):
            self.complete()
            self.entries.append({})
            self._growing = {}
            self._open = not piece.get("data")
        entry = self.entries[-1]
        for key, value in piece.items():
            if self._open and key in _GROWING and type(value) is str:
                self._grow(key, value)
            elif value is not None or key not in entry:
                entry[key] = value

    def _continues(self, piece: Json) -> bool:
        if not self._open or piece.get("data"):
            return False
        last = self.entries[-1]
        return (
            piece.get("type") == last.get("type")
            and piece.get("index") == last.get("index")
            and (piece.get("id") == last.get("id") or not piece.get("id") or not last.get("id"))
        )

    def _grow(self, key: str, text: str) -> None:
        texts = self._growing.setdefault(key, [])
        if self._cumulative and texts and text.startswith(texts[0]):
            texts[:] = [text]
        else:
            texts.append(text)
