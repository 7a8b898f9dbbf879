"""The links of chains, and a memory of the recent ones.

A response that continues another is the end of a chain, and a turn that continues it needs the items of every
link.  Reading all their records in each turn would cost more and more, mostly for tools and instructions,
which the responses repeat from their requests.  So the links of this process's last turns stay in memory.

The store still decides what exists: a record may expire, or another process may delete it.  So before links
from memory are used, the store is asked whether it has their records, all of them at once
(:meth:`rproxy.store.Store.has`).  The links themselves cannot be out of date: only those of responses with an
answer (:data:`~rproxy.convert.status.ANSWERED`) are remembered, which do not change.
"""

from __future__ import annotations

from typing import Iterable, List, NamedTuple, Optional

from ..convert.ids import response_stem
from ..convert.status import ANSWERED
from ..types import AnyItem, Item, ResponseRecord
from .owner_cache import OwnerCache, counted_memory
from .pagination import Stretch

MAX_BYTES = 32 << 20  # of memory for all links
MAX_BYTES_OF_OWNER = MAX_BYTES // 2
LINK_BYTES = 500  # a link without its items


class Link(NamedTuple):
    """The parts of a response's record that a chain needs; its items are never changed."""

    id: str
    status: str
    input: List[AnyItem]
    output: List[Item]
    previous: Optional[str]
    conversation: Optional[str]
    owner: str
    size: int  # bytes of memory, which are more than its characters; above MAX_BYTES only that it is

    def stretches(self) -> List[Stretch]:
        """The input and the output, as the API lists them."""
        return [Stretch(self.input, response_stem(self.id)), Stretch(self.output)]


async def link_of(record: ResponseRecord) -> Link:
    """The link for a record; old records may lack keys that would be null."""
    response = record["response"]
    items = [record["input"], response["output"]]
    try:
        size = await counted_memory(items, MAX_BYTES)
    except ValueError:
        size = MAX_BYTES
    return Link(
        response["id"],
        response["status"],
        record["input"],
        response["output"],
        record.get("previous"),
        record.get("conversation"),
        record["owner"],
        LINK_BYTES + size,
    )


class RecentLinks(OwnerCache[Link]):
    """Bounded by the memory that the items take."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_bytes_of_owner: int = MAX_BYTES_OF_OWNER) -> None:
        super().__init__(max_bytes, max_bytes_of_owner)

    def remember(self, owner: str, chain: Iterable[Link]) -> None:
        """Keep links of one owner as the most recently used ones.

        :param chain: oldest first: if there are too many, its end is kept
        """
        self.keep(owner, ((link.id, link, link.size) for link in chain if link.status in ANSWERED))
