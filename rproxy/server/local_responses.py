"""The responses that a WebSocket connection remembers for ``previous_response_id``.

They exist even with ``store: false``, and only as long as the connection.  The input of warm-ups counts
against the connection's budget (:mod:`.pending`) until no response is left that contains it.

**Bytes.**  A response counts with the memory that its whole history takes, as if it shared nothing with the
response that it continues; it is weighed when its turn has ended.  A connection forgets its oldest responses
beyond ``KEPT_BYTES``, but never the last one.  Beyond ``KEPT_BYTES_IN_ALL``, the connection that remembers
most forgets its oldest one; a client that continues it gets the usual error, unless it was stored.
"""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Iterator, List, MutableMapping, NamedTuple, Optional, Set

from ..service.owner_cache import counted_memory
from ..types import LocalRecord
from .pending import Charge

KEPT_PER_CHANNEL = 2  # the last but one allows a retry
KEPT = 64
KEPT_BYTES = 256 << 20  # of one connection; the last response is always kept
KEPT_BYTES_IN_ALL = 512 << 20


class _Kept(NamedTuple):
    """A record that is kept.

    ``channel`` added it; ``charges`` are for the warm-ups that it continues; ``size``: of its history.
    """

    channel: Optional[str]
    record: LocalRecord
    charges: FrozenSet[Charge]
    size: int


class Remembered:
    """What all connections of a process remember.  ``size``: in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self.connections: Set[LocalResponses] = set()

    def shrink(self) -> None:
        """Forget the oldest responses of the connections that remember most."""
        while self.size > KEPT_BYTES_IN_ALL:
            most = max(self.connections, key=lambda one: one.size)
            most.forget(next(iter(most.records)))
            most.release_unheld()


class LocalResponses:
    """The records of one connection, oldest first.

    :param remembered: by all connections
    """

    def __init__(self, remembered: Remembered) -> None:
        self.records: Dict[str, _Kept] = {}
        self.size = 0  # bytes of all records
        self.open = True
        self._remembered = remembered
        self._charges: FrozenSet[Charge] = frozenset()

    def add(self, key: str, kept: _Kept) -> None:
        """Remember a record and forget the oldest ones, of its channel and of the connection."""
        self.forget(key)
        self.records[key] = kept
        self._remembered.connections.add(self)
        self._grow(kept.size)
        mine = [old for old, other in self.records.items() if other.channel == kept.channel]
        for old in mine[:-KEPT_PER_CHANNEL] + list(self.records)[:-KEPT]:
            self.forget(old)
        self._shrink()
        self.release_unheld(kept.charges)

    def resize(self, key: str, size: int) -> None:
        """Note the bytes of a record, if it is still there."""
        kept = self.records.get(key)
        if kept is not None:
            self.records[key] = kept._replace(size=size)
            self._grow(size - kept.size)
            self._shrink()
            self.release_unheld()

    def forget(self, key: str) -> None:
        """Forget a record, if it is still there."""
        kept = self.records.pop(key, None)
        if kept is not None:
            self._grow(-kept.size)
            if not self.records:
                self._remembered.connections.discard(self)

    def close(self) -> None:
        """The connection has ended: forget everything, and remember nothing more."""
        self.open = False
        for key in [*self.records]:
            self.forget(key)

    def release_unheld(self, charges: FrozenSet[Charge] = frozenset()) -> None:
        """Release the charges that no record holds any more.

        :param charges: new ones
        """
        charges |= self._charges
        if charges:  # only warm-ups have any
            self._charges = frozenset().union(*(kept.charges for kept in self.records.values()))
            for charge in charges - self._charges:
                charge.release()

    def _grow(self, size: int) -> None:
        self.size += size
        self._remembered.size += size

    def _shrink(self) -> None:
        """Forget what is more than the limits allow."""
        while self.size > KEPT_BYTES and len(self.records) > 1:
            self.forget(next(iter(self.records)))
        self._remembered.shrink()


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
        self._previous: Optional[_Kept] = None
        self._added = ""

    def begin(self, previous: object, charge: Optional[Charge], size: int = 0) -> None:
        """A turn begins, whose record will be added if it succeeds.

        :param previous: its ``previous_response_id``
        :param charge: of a warm-up
        :param size: bytes of its request
        """
        kept = self._previous = self._local.records.get(str(previous))
        self._added = ""
        self._size = size + (kept.size if kept is not None else 0)
        self._charges = (kept.charges if kept is not None else frozenset()) | ({charge} if charge else set())

    async def weigh(self) -> None:
        """Count the bytes of the record that was added; until then, the size of its request stands in."""
        kept, previous, key = self._local.records.get(self._added), self._previous, self._added
        if kept is not None:
            new = _new_in(kept.record, previous and previous.record)
            size = await counted_memory(new)
            self._local.resize(key, size + (previous.size if previous is not None else 0))

    def end(self) -> None:
        """The turn has ended."""
        self._local.release_unheld(self._charges)
        self._charges, self._previous = frozenset(), None

    def __getitem__(self, key: str) -> LocalRecord:
        return self._local.records[key].record

    def __setitem__(self, key: str, record: LocalRecord) -> None:
        if self._local.open:
            self._local.add(key, _Kept(self._channel, record, self._charges, self._size))
            self._added = key

    def __delitem__(self, key: str) -> None:
        if self._local.records[key].channel == self._channel:
            self._local.forget(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._local.records)

    def __len__(self) -> int:
        return len(self._local.records)


def _new_in(record: LocalRecord, previous: Optional[LocalRecord]) -> List[Any]:
    """What a record holds that the one which it continues does not."""
    if previous is None:
        return [record["items"], record["inherited"]]
    before = previous["inherited"]
    inherited = [value for name, value in record["inherited"].items() if before.get(name) is not value]
    return [record["items"][len(previous["items"]) :], inherited]
