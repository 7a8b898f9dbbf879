"""Takes reasoning out of the text that a provider wrote as ``<think>...</think>``.

Pieces of text go in, ``(kind, text)`` pairs come out, with the kind ``text`` or ``reasoning``.  A tag may be
cut anywhere, so the end of a piece that could become a tag is held back.  An opening tag counts only at the
beginning of a line; in the middle of a sentence, the text is about such tags.  White space around the
reasoning belongs to the tags and not to the text; reasoning that is only white space is dropped.  Providers:
MiniMax M2 (``<think>``), Gemini's compatible endpoint (``<thought>``), fine-tuned models on any server.
"""

from __future__ import annotations

import re
from typing import List, Literal, Tuple

Piece = Tuple[Literal["text", "reasoning"], str]

_NAMES = ("think", "thinking", "thought")
_TAGS = {f"<{name}>": f"</{name}>" for name in _NAMES}
_SOLID = re.compile(r"\S")
_MAX_BLANK = 64  # characters of white space that wait for a first opening tag


class ThinkTagFilter:
    """The state of one text: outside, or inside until ``_close`` comes."""

    def __init__(self) -> None:
        self._close = ""  # the tag that ends the open reasoning
        self._held = ""  # the end of the text so far, which may be the beginning of a tag
        self._blank = True  # only white space so far on this line
        self._idle = True  # only white space before the first tag, or in this reasoning; it is held
        self._trim = False  # after a closing tag: white space is dropped

    def feed(self, text: str) -> List[Piece]:
        """The pieces that are certain now; none is empty."""
        text = self._held + text
        self._held = ""
        out: List[Piece] = []
        position = 0
        while position < len(text):
            position = (
                self._inside(text, position, out) if self._close else self._outside(text, position, out)
            )
        return out

    def close(self) -> List[Piece]:
        """What was held back: nothing follows, or something other than text."""
        held, self._held = self._held, ""
        if not held or (self._idle and held.isspace()):
            return []
        self._idle = False
        return [("reasoning" if self._close else "text", held)]

    def _inside(self, text: str, begin: int, out: List[Piece]) -> int:
        """Read reasoning from ``begin`` on.

        :returns: where to continue
        """
        end = text.find(self._close, begin)
        if end >= 0:
            after = end + len(self._close)
            self._close, self._trim, self._blank = "", True, True
        else:
            after = len(text)
            end = _partial(text, begin, (self._close,))
            self._held = text[end:]
        thought = text[begin:end]
        if self._idle and not thought.strip() and len(thought) < _MAX_BLANK:
            self._held = text[begin:] if self._close else ""
        elif thought:
            self._idle = False
            out.append(("reasoning", thought))
        self._idle = self._idle and bool(self._close)
        return after

    def _outside(self, text: str, begin: int, out: List[Piece]) -> int:
        """Read text from ``begin`` on.

        :returns: where to continue
        """
        if self._trim:
            solid = _SOLID.search(text, begin)
            if not solid:
                return len(text)
            self._trim, begin = False, solid.start()
        end, after = self._find_tag(text, begin)
        lead = text[begin:end]
        if self._idle and not lead.strip() and len(lead) < _MAX_BLANK:
            self._held = "" if self._close else text[begin:]
        else:
            self._held = "" if self._close else text[end:]
            self._idle = False
            if lead:
                out.append(("text", lead))
        self._idle = self._idle or bool(self._close)
        return after

    def _find_tag(self, text: str, begin: int) -> Tuple[int, int]:
        """Where the next opening tag, which the end of the text may cut, begins and ends.

        :returns: twice the end of the text if there is no tag
        """
        while True:
            at = text.find("<", begin)
            self._look(text[begin:at] if at >= 0 else text[begin:])
            if at < 0:
                return len(text), len(text)
            if self._blank:
                for tag, closing in _TAGS.items():
                    if text.startswith(tag, at):
                        self._close = closing
                        return at, at + len(tag)
                if _partial(text, at, tuple(_TAGS)) == at:
                    return at, len(text)
            self._blank = False
            begin = at + 1

    def _look(self, passed: str) -> None:
        """Update ``_blank`` for text that was skipped."""
        line = passed.rfind("\n")
        if line >= 0:
            self._blank = passed[line:].isspace()
        elif passed and self._blank:
            self._blank = passed.isspace()


def _partial(text: str, begin: int, tags: Tuple[str, ...]) -> int:
    """Where the beginning of a tag, at or after ``begin``, ends the text; the length of the text if none
    does.
    """
    at = text.rfind("<", max(begin, len(text) - max(map(len, tags)) + 1))
    if at >= 0 and any(tag.startswith(text[at:]) for tag in tags):
        return at
    return len(text)
