"""The responses that a WebSocket connection remembers for ``previous_response_id``.

They exist even with ``store: false``, and only as long as the connection.  The input of warm-ups counts
against the connection's budget (:mod:`.pending`) until no response is left that contains it.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, Iterator, MutableMapping, NamedTuple, Optional

from ..types import LocalRecord
from .pending import Charge

KEPT_PER_CHANNEL = 2  # the last but one allows a retry
KEPT = 64
KEPT_BYTES = 256 << 20  # of their requests; the last response is always kept


class _Kept(NamedTuple):
    """A record that is kept.

    ``channel`` added it; ``charges`` are for the warm-ups that it continues; ``size``: of its request.
    """

    channel: Optional[str]
    record: LocalRecord
    charges: FrozenSet[Charge]
    size: int


class LocalResponses:
    """The records of one connection, oldest first."""

    def __init__(self) -> None:
        self.records: Dict[str, _Kept] = {}
        self._charges: FrozenSet[Charge] = frozenset()

    def add(self, key: str, kept: _Kept) -> None:
        """Remember a record and forget the oldest ones, of its channel and of the connection."""
        self.records.pop(key, None)
        self.records[key] = kept
        mine = [old for old, other in self.records.items() if other.channel == kept.channel]
        for old in mine[:-KEPT_PER_CHANNEL] + list(self.records)[:-KEPT]:
            self.records.pop(old, None)
        size = sum([other.size for other in self.records.values()])
        for old in list(self.records)[:-1]:
            if size > KEPT_BYTES:
                size -= self.records.pop(old).size
        self.release_unheld(kept.charges)

    def release_unheld(self, charges: FrozenSet[Charge] = frozenset()) -> None:
        """Release the charges that no record holds any more.

        :param charges: new ones
        """
        charges |= self._charges
        if charges:  # only warm-ups have any
            self._charges = frozenset().union(*(kept.charges for kept in self.records.values()))
            for charge in charges - self._charges:
                charge.release()


class ChannelResponses(MutableMapping[str, LocalRecord]):
    """The view of one channel: it sees every record of the connection, and adds and drops only its own.

    A failed turn drops the response that it continued.  When that response belongs to another channel, the
    other channel must still be able to continue it.
    """

    def __init__(self, local: LocalResponses, channel: Optional[str]) -> None:
        self._local = local
        self._channel = channel
        self._charges: FrozenSet[Charge] = frozenset()
        self._size = 0

    def begin(self, previous: object, charge: Optional[Charge], size: int = 0) -> None:
        """A turn begins, whose record will be added if it succeeds.

        :param previous: its ``previous_response_id``
        :param charge: of a warm-up
        :param size: bytes of its request
        """
        self._size = size
        kept = self._local.records.get(str(previous))
        self._charges = (kept.charges if kept is not None else frozenset()) | ({charge} if charge else set())

    def end(self) -> None:
        """The turn has ended."""
        self._local.release_unheld(self._charges)
        self._charges = frozenset()

    def __getitem__(self, key: str) -> LocalRecord:
        return self._local.records[key].record

    def __setitem__(self, key: str, record: LocalRecord) -> None:
        self._local.add(key, _Kept(self._channel, record, self._charges, self._size))

    def __delitem__(self, key: str) -> None:
        if self._local.records[key].channel == self._channel:
            del self._local.records[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._local.records)

    def __len__(self) -> int:
        return len(self._local.records)
