"""The links of chains, and a memory of the recent ones.

A response that continues another is the end of a chain, and a turn that continues it needs the items of every
link.  To read all their records in each turn would cost more and more, most of it for what their responses
repeat of their requests: tools and instructions.  So the links of this process's last turns stay in memory.

The store decides all the same what is there: a record may expire, or another process may delete it.  Whoever
uses links from memory asks the store whether it still has their records, all of them at once
(:meth:`rproxy.store.Store.has`).  What a record says cannot be out of date, because the answer of a response
that was given (:data:`~rproxy.convert.status.ANSWERED`) does not change; others are not remembered.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any, Iterable, List, NamedTuple, Optional

from ..convert.ids import response_stem
from ..convert.status import ANSWERED
from ..types import AnyItem, Item, ResponseRecord
from .pagination import listed

MAX_BYTES = 32 << 20  # of memory for all links
MAX_BYTES_OF_OWNER = MAX_BYTES // 2
LINK_BYTES = 500  # a link without its items


class Link(NamedTuple):
    """What a chain needs of the record of a response; nobody changes its items."""

    id: str
    status: str
    input: List[AnyItem]
    output: List[Item]
    previous: Optional[str]
    conversation: Optional[str]
    owner: str
    size: int  # bytes of memory, which are more than its characters

    def listed_input(self) -> List[Item]:
        """The input in the form of the API."""
        return listed(self.input, response_stem(self.id))


def link_of(record: ResponseRecord) -> Link:
    """The link that a record is; old ones may lack what does not lead anywhere."""
    response = record["response"]
    return Link(
        response["id"],
        response["status"],
        record["input"],
        response["output"],
        record.get("previous"),
        record.get("conversation"),
        record["owner"],
        LINK_BYTES + memory_of([record["input"], response["output"]]),
    )


class RecentLinks:
    """Bounded by the memory that the items take: those of each owner, and all.

    The least recently used links of an owner go first; when there are too many in all, those of the owner
    who has used none for the longest time.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_bytes_of_owner: int = MAX_BYTES_OF_OWNER) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_of_owner = max_bytes_of_owner
        self._owners: OrderedDict[str, _Links] = OrderedDict()  # without empty ones, the last used at the end
        self.bytes = 0

    def get(self, response_id: str, owner: str) -> Optional[Link]:
        """The link of this owner's response, if it is remembered."""
        links = self._owners.get(owner)
        return links.get(response_id) if links is not None else None

    def remember(self, owner: str, chain: Iterable[Link]) -> None:
        """Keep links of one owner as the last used ones.

        :param chain: the oldest first: what is left when there are too many is its end
        """
        links = self._owners.pop(owner, None) or _Links()
        self.bytes -= links.bytes
        for link in chain:
            if link.status in ANSWERED:
                links.use(link)
        while links.bytes > self._max_bytes_of_owner:
            links.drop(links.oldest())
        self._put_back(owner, links)
        while self.bytes > self._max_bytes:
            owner, links = self._owners.popitem(last=False)
            self.bytes -= links.bytes
            links.drop(links.oldest())
            self._put_back(owner, links, last=False)

    def forget(self, owner: str, ids: Iterable[str]) -> None:
        """Drop links."""
        links = self._owners.pop(owner, None) or _Links()
        self.bytes -= links.bytes
        for response_id in ids:
            links.drop(response_id)
        self._put_back(owner, links)

    def _put_back(self, owner: str, links: _Links, last: bool = True) -> None:
        if links.bytes:
            self._owners[owner] = links
            self._owners.move_to_end(owner, last)
            self.bytes += links.bytes


class _Links:
    """Those of one owner, by the ids of their responses; the last used are at the end."""

    def __init__(self) -> None:
        self._links: OrderedDict[str, Link] = OrderedDict()
        self.bytes = 0

    def get(self, response_id: str) -> Optional[Link]:
        return self._links.get(response_id)

    def use(self, link: Link) -> None:
        if link.id in self._links:
            self._links.move_to_end(link.id)
        else:
            self._links[link.id] = link
            self.bytes += link.size

    def oldest(self) -> str:
        return next(iter(self._links))

    def drop(self, response_id: str) -> None:
        link = self._links.pop(response_id, None)
        self.bytes -= 0 if link is None else link.size


def memory_of(value: Any) -> int:
    """The bytes that a JSON value takes in memory, as if it shared nothing."""
    size, found = 0, [value]
    for inner in found:
        size += sys.getsizeof(inner)
        if isinstance(inner, dict):
            size += sum(map(sys.getsizeof, inner))
            found += inner.values()
        elif isinstance(inner, list):
            found += inner
    return size
