"""The responses that a WebSocket connection remembers for ``previous_response_id``.

They are there even with ``store: false``, and go with the connection.
"""

from __future__ import annotations

from typing import Dict, Iterator, MutableMapping, Optional, Tuple

from ..types import LocalRecord

KEPT_PER_CHANNEL = 2  # the one before the last allows for a retry
KEPT = 64


class LocalResponses:
    """The records of one connection, oldest first, each with the channel that added it."""

    def __init__(self) -> None:
        self.records: Dict[str, Tuple[Optional[str], LocalRecord]] = {}

    def add(self, channel: Optional[str], key: str, record: LocalRecord) -> None:
        """Remember ``record`` and forget the oldest ones, of this channel and of the connection."""
        self.records.pop(key, None)
        self.records[key] = (channel, record)
        mine = [old for old, (name, _) in self.records.items() if name == channel]
        for old in mine[:-KEPT_PER_CHANNEL] + list(self.records)[:-KEPT]:
            self.records.pop(old, None)


class ChannelResponses(MutableMapping[str, LocalRecord]):
    """The view of one channel: it sees every record of the connection, and adds and drops only its own.

    A failed turn drops the response that it continued.  When that response belongs to another channel, the
    other channel must still be able to continue it.
    """

    def __init__(self, local: LocalResponses, channel: Optional[str]) -> None:
        self._local = local
        self._channel = channel

    def __getitem__(self, key: str) -> LocalRecord:
        return self._local.records[key][1]

    def __setitem__(self, key: str, record: LocalRecord) -> None:
        self._local.add(self._channel, key, record)

    def __delitem__(self, key: str) -> None:
        if self._local.records[key][0] == self._channel:
            del self._local.records[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._local.records)

    def __len__(self) -> int:
        return len(self._local.records)
