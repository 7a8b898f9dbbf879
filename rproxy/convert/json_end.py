"""Finds the end of a JSON value that arrives in pieces.

A backslash has a meaning only in strings.  Outside of them, where JSON has no backslash, it is skipped and
the next character counts as any other, whether or not it arrives in the same piece.
"""

from __future__ import annotations

import re

# A leading set of characters is found much faster than alternatives.
_MARKS = re.compile(r'["{}\[\]\\](?:(?<=\\).)?', re.S)
_BLANKS = " \t\r\n\ufeff\xef\xbb\xbf"  # with the byte order mark, also decoded as Latin-1


class JsonEnd:
    """Finds where the JSON object in a growing text is complete; reads each character once.

    Other values are never complete: ``12`` may become ``123``.

    :param opening: the first characters of the values that count
    """

    def __init__(self, opening: str = "{") -> None:
        self.untouched = True
        self._opening = opening
        self._first = ""
        self._depth = 0
        self._string = self._escaped = False

    @property
    def reached(self) -> bool:
        """Is the value complete?"""
        return self._first != "" and self._first in self._opening and self._depth <= 0 and not self._string

    def find(self, text: str, begin: int = 0) -> int:
        """Read a text from ``begin`` on, up to the end of the value.

        :returns: where the value ends; -1: not in this text
        """
        if not self._first:
            self._first = text[begin : begin + 16].lstrip(_BLANKS)[:1]
        if self._escaped and begin < len(text):
            self._escaped, begin = False, begin + 1
        for match in _MARKS.finditer(text, begin):
            mark = match[0]
            self._mark(mark)
            if mark[-1] in "}]" and self._depth <= 0 and self.reached:
                return match.end()
        return -1

    def feed(self, text: str) -> None:
        """Read the whole text."""
        self.untouched = False
        if not self._first:
            self._first = text.lstrip(_BLANKS)[:1]
        if self._escaped and text:
            text, self._escaped = text[1:], False
        for mark in _MARKS.findall(text):
            self._mark(mark)

    def _mark(self, mark: str) -> None:
        if self._string:
            self._escaped = mark == "\\"  # the character that it escapes has not arrived
            self._string = mark != '"'
        elif mark[-1] == '"':
            self._string = True
        elif mark[-1] in "{[":
            self._depth += 1
        elif mark[-1] in "}]":
            self._depth -= 1
