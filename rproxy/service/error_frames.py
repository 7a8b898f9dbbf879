"""Errors in an answer that is passed through: secrets in them are masked; all else stays byte for byte.

An answer with status 200 may still report an error, in an event or as the whole document.  As long as nothing
looks like one, the bytes pass at once.  From then on they pass line by line, and lines with errors are
masked.  The model's text is never searched: JSON without an error is the model's.
"""

from __future__ import annotations

import json
import re
from typing import Sequence

from ..log import mask

# In the text of the model the quotes would be escaped.
_SIGN = re.compile(rb'"error"|^event:[ \t]*error|^error:', re.M)
_LONGEST = 16  # bytes of a marker that the network may cut
MAX_HELD = 1 << 20  # bytes of a line


class ErrorFrames:
    """Masks the errors in one answer.

    :param secrets: see :func:`rproxy.log.mask`
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._by_line = False
        self._inside = False  # an event of type "error"
        self._held = b""  # the beginning of a line; before that, the last bytes that passed

    def feed(self, data: bytes) -> bytes:
        """Take a piece.

        :returns: the bytes that can be passed on
        """
        known = self._held + data
        if not self._by_line:
            self._by_line = _SIGN.search(known) is not None
            if not self._by_line:
                self._held = known[-_LONGEST:]
                return data
            known = data
        end = known.rfind(b"\n") + 1
        if len(known) - end > MAX_HELD:
            end = len(known)
        self._held = known[end:]
        return b"".join(map(self._line, known[:end].splitlines(keepends=True)))

    def close(self) -> bytes:
        """The answer has ended.

        :returns: the rest
        """
        return self._line(self._held) if self._by_line else b""

    def _line(self, line: bytes) -> bytes:
        name, _, value = line.partition(b":")
        if name == b"event":
            self._inside = value.strip() == b"error"
        elif not line.strip():
            self._inside = False
        elif self._inside or _is_error(value if name == b"data" else line):
            text = line.decode("utf-8", "surrogateescape")
            return mask(text, self._secrets).encode("utf-8", "surrogateescape")
        return line


def _is_error(payload: bytes) -> bool:
    """Is it an error, or at least not a whole chunk without one?"""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return True
    if isinstance(value, dict) and isinstance(value.get("response"), dict):  # of the Responses API
        value = value["response"]
    return isinstance(value, dict) and bool(value.get("error"))
