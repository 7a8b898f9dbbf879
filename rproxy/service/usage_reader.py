"""The token usage of a chat answer that is passed through as bytes.

``usage`` is at the end of an answer, in its last chunk or as the last field of its JSON, so only the last
bytes are kept.  Streaming clients get it only on request; otherwise the output is estimated, one token for
each chunk.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Deque

from ..convert.answer.fields import counts_tokens
from ..convert.events.response import usage_object
from ..types import Json
from .stats import usage_fields
from .token_estimate import ASCII_PER_TOKEN

TAIL = 1 << 14  # bytes
_USAGE = re.compile(r'"usage"\s*:\s*(?=\{)')


class UsageReader:
    """Reads one answer on its way; ``size`` is the number of its bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._chunks = 0
        self._pieces: Deque[bytes] = deque()  # the last ones, with at least TAIL bytes if there are so many
        self._kept = 0

    def feed(self, piece: bytes) -> None:
        """Take a piece of the answer."""
        self.size += len(piece)
        self._chunks += piece.count(b"data:")
        self._pieces.append(piece)
        self._kept += len(piece)
        while self._kept - len(self._pieces[0]) >= TAIL:
            self._kept -= len(self._pieces.popleft())

    def fields(self) -> Json:
        """The tokens as fields of a :class:`~rproxy.telemetry.records.TurnRecord`."""
        tail = b"".join(self._pieces)[-TAIL:].decode("utf-8", "replace")
        for match in reversed(list(_USAGE.finditer(tail))):
            try:
                usage, _ = json.JSONDecoder().raw_decode(tail, match.end())
            except ValueError:
                continue
            if counts_tokens(usage):
                return usage_fields(usage_object(usage))
        if not self.size:
            return {}
        return {
            "output_tokens": self._chunks or round(self.size / ASCII_PER_TOKEN) or 1,
            "usage": "estimated",
        }
