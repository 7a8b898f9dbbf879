"""Items as the API lists them: each complete, with an id, in pages.

Clients send items in short forms: a message without a type, its content as a string, a call without an id.
The API returns items with every field that the SDKs' types require.  A missing id is made from the stem of
the response that the item belongs to and from its place in it, so it is the same each time and shows where to
look (:mod:`rproxy.convert.ids`).

A stored response may have hundreds of thousands of items, of which a page or a reference shows a few.  So
only those are completed, and a search for an id among many is done in a thread.
"""

from __future__ import annotations

import re
from bisect import bisect
from functools import partial
from itertools import accumulate
from typing import Collection, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, cast

from ..convert.ids import input_item_id
from ..convert.json_steps import is_large
from ..cooperative import free_later, in_thread, in_thread_if
from ..errors import invalid
from ..types import AnyItem, Item, ItemPage, Json

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
MANY_ITEMS = 500  # a search among more takes a while

# type -> the prefix of its ids; the items that have no status; what else the SDKs' types require
PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "compaction": "cmp",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
}
WITHOUT_STATUS = ("reasoning", "compaction", "additional_tools", "configuration_update", "compaction_trigger")
DEFAULTS: Mapping[str, Json] = {"reasoning": {"summary": []}}
PART_DEFAULTS: Mapping[str, Json] = {
    "output_text": {"annotations": [], "logprobs": []},
    "input_image": {"detail": "auto"},
}


class Stretch(NamedTuple):
    """Items that follow each other.

    ``stem``: 32 hex digits for the ids that are missing; None: the items are complete.
    """

    items: Sequence[AnyItem]
    stem: Optional[str] = None


Entry = Tuple[AnyItem, Optional[str], int]  # an item with the stem of its stretch and its place in that


def listed(items: Sequence[AnyItem], stem: str) -> List[Item]:
    """The items in their complete form.

    :param stem: 32 hex digits for the ids that are missing
    """
    return [_complete(item, stem, number) for number, item in enumerate(items)]


def _complete(item: AnyItem, stem: str, number: int) -> Item:
    kind = item.get("type") or "message"  # in a failed request, perhaps not even text
    full: Json = {
        **DEFAULTS.get(str(kind), {}),
        **{key: value for key, value in item.items() if value is not None},
        "type": kind,
    }
    full["id"] = _id(item, stem, number)
    if kind not in WITHOUT_STATUS:
        full.setdefault("status", "completed")
    text = "output_text" if full.get("role") == "assistant" else "input_text"
    for key in ("content", "output"):
        value = full.get(key)
        if isinstance(value, str) and kind == "message":
            value = [{"type": text, "text": value}]
        if isinstance(value, list):
            full[key] = [_part(part, text) if isinstance(part, dict) else part for part in value]
    return cast(Item, full)


def _id(item: AnyItem, stem: Optional[str], number: int) -> str:
    name = item.get("id")
    if isinstance(name, str) and name:
        return name
    return input_item_id(PREFIXES.get(str(item.get("type") or "message"), "item"), stem or "", number)


def _part(part: Json, text: str) -> Json:
    kind = text if part.get("type") == "text" else part.get("type", text)  # perhaps not even text
    return {
        **PART_DEFAULTS.get(str(kind), {}),
        **{key: value for key, value in part.items() if value is not None},
        "type": kind,
    }


async def completed(entries: Collection[Entry]) -> List[Item]:
    """These items in their complete form."""

    def complete() -> List[Item]:
        return [
            cast(Item, item) if stem is None else _complete(item, stem, number)
            for item, stem, number in entries
        ]

    if not is_large([item for item, stem, _ in entries if stem is not None]):
        return complete()
    items = await in_thread(complete)
    free_later([items], levels=1)
    return items


async def named(stretches: Sequence[Stretch], ids: Collection[str]) -> Dict[str, Item]:
    """The first item with each of these ids, by id, as far as there are any."""

    def search() -> Dict[str, Entry]:
        found: Dict[str, Entry] = {}
        for items, stem in stretches:
            for number, item in enumerate(items):
                name = _id(item, stem, number)
                if name in ids:
                    found.setdefault(name, (item, stem, number))
        return found

    found = await in_thread_if(_count(stretches) > MANY_ITEMS, search)
    return dict(zip(found, await completed(found.values())))


async def page(stretches: Sequence[Stretch], query: Mapping[str, str]) -> ItemPage:
    """A ``list`` object with the part of these items (oldest first) that the query asks for.

    :param query: ``limit`` (1 to 100, default 20), ``order`` (``asc``, or ``desc``, the default), ``after``
        and ``before`` (ids of items)
    :raises ApiError: 400 for values that make no sense
    """
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("order must be asc or desc.", "order")
    limit = number(query, "limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid(f"limit must be a number from 1 to {MAX_LIMIT}.", "limit")
    line, first, end = _Line(stretches, order), 0, _count(stretches)
    long = end > MANY_ITEMS
    if "before" in query:
        end = await in_thread_if(long, partial(line.place, query, "before"))
    if "after" in query:
        first = 1 + await in_thread_if(long, partial(line.place, query, "after"))
    shown = await completed([line.entry(place) for place in range(first, min(end, first + limit))])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": end - first > limit,
    }


def _count(stretches: Sequence[Stretch]) -> int:
    return sum([len(items) for items, _ in stretches])


class _Line:
    """Items in an order, with their places in it from 0 on.

    :param stretches: the items, oldest first
    :param order: asc or desc
    """

    def __init__(self, stretches: Sequence[Stretch], order: str) -> None:
        self._stretches = stretches
        self._ends = [*accumulate([len(items) for items, _ in stretches])]
        self._descends = order == "desc"

    def entry(self, place: int) -> Entry:
        """The item at a place that there is."""
        age = self._turned(place)
        which = bisect(self._ends, age)
        items, stem = self._stretches[which]
        number = age - self._ends[which] + len(items)
        return items[number], stem, number

    def place(self, query: Mapping[str, str], name: str) -> int:
        """The place of the first item with the id that a parameter of a query has.

        :raises ApiError: 400 if there is none
        """
        for age, item_id in self._ids():
            if item_id == query[name]:
                return self._turned(age)
        raise invalid(f"{name} is not the id of an item in this list: '{query[name][:100]}'.", name)

    def _turned(self, place: int) -> int:
        """A place in this order, counted from the oldest item; or the other way round."""
        return self._ends[-1] - 1 - place if self._descends else place

    def _ids(self) -> Iterator[Tuple[int, str]]:
        """All ids in this order, each with its place counted from the oldest item."""
        step = -1 if self._descends else 1
        for (items, stem), end in [*zip(self._stretches, self._ends)][::step]:
            for number in range(len(items))[::step]:
                yield end - len(items) + number, _id(items[number], stem, number)


def number(query: Mapping[str, str], name: str, default: int) -> int:
    """A whole number of the query.

    :raises ApiError: 400
    """
    text = query.get(name, str(default))
    if not re.fullmatch(r"-?\d{1,15}", text):
        raise invalid(f"{name} must be a whole number.", name)
    return int(text)
