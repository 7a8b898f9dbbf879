"""The memory of hosted calls: the texts that the model has read, which no item contains.

The memory is bounded; the least recently used result goes first.  Stored responses contain the same for as
long as they are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Optional, Tuple

from ..types import HostedResult

MAX_COUNT = 50_000
MAX_BYTES = 64 << 20

_Key = Tuple[str, str]  # owner, id of the item


class ResultMemory:
    """The results of hosted calls that this process remembers.

    :param max_bytes: of all texts together, counted in characters
    """

    def __init__(self, max_count: int = MAX_COUNT, max_bytes: int = MAX_BYTES) -> None:
        self._max_count, self._max_bytes = max_count, max_bytes
        self._bytes = 0
        self._known: OrderedDict[_Key, HostedResult] = OrderedDict()

    def remember(self, owner: str, item_id: str, result: HostedResult) -> None:
        """Keep the result of a call, in place of an earlier one."""
        key = owner, item_id
        if key in self._known:
            self._bytes -= _size(self._known.pop(key))
        self._known[key] = result
        self._bytes += _size(result)
        while len(self._known) > self._max_count or self._bytes > self._max_bytes:
            self._bytes -= _size(self._known.popitem(last=False)[1])

    def recall(self, owner: str, item_id: str) -> Optional[HostedResult]:
        """The result that is remembered for this owner's item."""
        known = self._known.get((owner, item_id))
        if known is not None:
            self._known.move_to_end((owner, item_id))
        return known


def _size(result: HostedResult) -> int:
    sources = sum(len(text) for source in result["sources"] for text in source)
    return len(result["text"]) + len(result["arguments"]) + sources
