"""Takes the code fence off a JSON answer while it streams.

Models that are only *asked* for JSON tend to wrap it in ``` ```json ``` lines, which the client's parser
cannot read.  The first line is held until it is clear whether it is a fence.  If it is, everything at the end
that may be the closing fence is held as well.  Text that does not begin with a fence passes unchanged.
"""

from __future__ import annotations

import re
from typing import List

_FENCE = re.compile(r"\s{0,64}```[A-Za-z0-9_-]{0,32}[ \t]{0,8}\r?\n")
# The beginning of one.
_MAYBE_FENCE = re.compile(r"\s{0,64}(`{1,2}|```[A-Za-z0-9_-]{0,32}[ \t]{0,8}\r?)?\Z")
_CLOSING = " \t\r\n`"  # the characters of a closing fence and the space around it


class CodeFenceFilter:
    """Takes a code fence off one text.

    ``feed`` and ``close`` return the text that may be shown.
    """

    def __init__(self) -> None:
        self._head = ""
        self._held: List[str] = []
        self._decided = self._fenced = False

    def feed(self, text: str) -> str:
        if not self._decided:
            text = self._begin(text)
        if not self._fenced:
            return text
        body = text.rstrip(_CLOSING)
        if not body:
            self._held.append(text)
            return ""
        shown = "".join(self._held) + body
        self._held = [text[len(body) :]]
        return shown

    def _begin(self, text: str) -> str:
        """Decide about the first line.

        :returns: the text after it; "" while it is undecided
        """
        self._head += text
        fence = _FENCE.match(self._head)
        if fence is None and _MAYBE_FENCE.match(self._head):
            return ""
        self._decided, self._fenced = True, fence is not None
        return self._head[fence.end() :] if fence else self._head

    def close(self) -> str:
        if not self._decided:
            return self._head
        tail = "".join(self._held)
        return tail.replace("```", "", 1).rstrip() if "```" in tail else tail
