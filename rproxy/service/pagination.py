"""Items as the API lists them: each complete, with an id, in pages.

Clients send items in short forms: a message without a type, its content as a string, a call without an id.
The API returns items with every field that the SDKs' types require.  A missing id is made from the stem of
the response that the item belongs to and from its place in it, so it is the same each time and shows where to
look (:mod:`rproxy.convert.ids`).
"""

from __future__ import annotations

import re
from typing import List, Mapping, Sequence, cast

from ..convert.ids import input_item_id
from ..errors import invalid
from ..types import AnyItem, Item, ItemPage, Json

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

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
    if not isinstance(full.get("id"), str) or not full["id"]:
        full["id"] = input_item_id(PREFIXES.get(str(kind), "item"), stem, number)
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


def _part(part: Json, text: str) -> Json:
    kind = text if part.get("type") == "text" else part.get("type", text)  # perhaps not even text
    return {
        **PART_DEFAULTS.get(str(kind), {}),
        **{key: value for key, value in part.items() if value is not None},
        "type": kind,
    }


def page(items: Sequence[Item], query: Mapping[str, str]) -> ItemPage:
    """A ``list`` object with the part of ``items`` (oldest first) that the query asks for.

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
    line = list(items) if order == "asc" else list(reversed(items))
    ids = [item["id"] for item in line]
    if "before" in query:
        line = line[: _place(ids, query, "before")]
    if "after" in query:
        line = line[_place(ids, query, "after") + 1 :]
    shown = line[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(line) > limit,
    }


def _place(ids: Sequence[str], query: Mapping[str, str], name: str) -> int:
    if query[name] not in ids:
        raise invalid(f"{name} is not the id of an item in this list: '{query[name][:100]}'.", name)
    return ids.index(query[name])


def number(query: Mapping[str, str], name: str, default: int) -> int:
    """A whole number of the query.

    :raises ApiError: 400
    """
    text = query.get(name, str(default))
    if not re.fullmatch(r"-?\d{1,15}", text):
        raise invalid(f"{name} must be a whole number.", name)
    return int(text)
