"""The reasoning of recent turns, for clients that send calls back without the reasoning that led to them.

Some providers refuse a call whose reasoning is missing (DeepSeek, Kimi) or whose signature is (Gemini), and
not every client sends back what it got.  A call is found again by its whole context: the client, the
provider, the last message of the user, and the call's id, name and arguments.  Less would not be enough,
because ids such as ``functions.ls:0`` are repeated in every conversation.  Only digests of these are kept.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from contextlib import suppress
from typing import Iterable, Optional, Tuple

from ..convert.json_steps import is_large
from ..convert.request.turns import CallKey
from ..json_codec import encode_json
from ..types import CachedReasoning

Scope = Tuple[str, str, str]  # owner, downstream model, base_url

MAX_COUNT = 20_000  # calls
MAX_BYTES = 64 << 20  # of reasoning, as JSON
MAX_THOUGHT = 4 << 20  # characters of the reasoning of one answer


class ReasoningCache:
    """Bounded by count and by size; the least recently used are dropped first."""

    def __init__(self, max_count: int = MAX_COUNT, max_bytes: int = MAX_BYTES) -> None:
        self._max_count, self._max_bytes = max_count, max_bytes
        self._bytes = 0
        self._known: OrderedDict[bytes, Tuple[CachedReasoning, int]] = OrderedDict()

    def remember(self, scope: Scope, keys: Iterable[CallKey], reasoning: CachedReasoning) -> None:
        """Keep the reasoning that led to some calls.

        :param reasoning: what :data:`~rproxy.convert.request.writer.Recall` returns
        """
        if is_large(reasoning, MAX_THOUGHT):
            return
        size = len(encode_json(reasoning))
        for key in keys:
            digest = _digest(scope, key)
            if digest in self._known:
                self._bytes -= self._known.pop(digest)[1]
            self._bytes += size
            self._known[digest] = reasoning, size
        while len(self._known) > self._max_count or self._bytes > self._max_bytes:
            self._bytes -= self._known.popitem(last=False)[1][1]

    def recall(self, scope: Scope, key: CallKey) -> Optional[CachedReasoning]:
        """The reasoning that led to a call; thread-safe."""
        if not self._known:
            return None
        digest = _digest(scope, key)
        known = self._known.get(digest)
        if known is None:
            return None
        with suppress(KeyError):  # another thread has just removed it
            self._known.move_to_end(digest)
        return known[0]


def _digest(scope: Scope, key: CallKey) -> bytes:
    return hashlib.sha256(encode_json([*scope, *key])).digest()
