"""What came before a request: the items of earlier responses.

A response is kept as a record ``{"response", "input", "previous", "owner"}``; its history is the chain of ``previous``.  A WebSocket keeps the
last responses of its own in ``client.local`` with the whole history beside them (``items``), whether or not they are stored, and they
end with the connection.

Item references need no index: our items carry the hex digits of their response's id (see ``convert.messages.stem``).
"""
from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, MutableMapping, Optional, Protocol

from .convert.messages import stem
from .errors import ApiError, StoreError, previous_response_not_found

Json = Dict[str, Any]
log = logging.getLogger("rproxy.history")

MAX_CHAIN = 10_000                               # responses; a longer chain is a loop
KEPT_BY_WARM_UP = ("instructions", "tools")      # what a warm-up says once for the turns that follow


class Records(Protocol):
    """What history needs of a response store."""

    async def get(self, response_id: str) -> Optional[Json]: ...

    async def put(self, response_id: str, record: Json) -> None: ...


@dataclass
class Past:
    """``items``: everything before the request's own input. ``inherited``: fields of a warm-up that the request may leave out."""

    items: List[Json] = field(default_factory=list)
    inherited: Json = field(default_factory=dict)


def input_items(request: Mapping[str, Any]) -> List[Json]:
    """The request's own input as items; a string is one message of the user."""
    given = request.get("input", [])
    return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}] if isinstance(given, str) else list(given)


class History:
    """Finds and keeps the past of one client's requests."""

    def __init__(self, store: Records) -> None:
        self._store = store

    async def past(self, request: Mapping[str, Any], owner: str, local: Optional[Mapping[str, Json]]) -> Past:
        """What the request continues. :raises ApiError: 400 previous_response_not_found"""
        previous = request.get("previous_response_id")
        if previous is None:
            return Past()
        record = (local or {}).get(previous)
        if record is not None:
            return Past(record["items"], record["inherited"])
        return Past(await self._chain(previous, owner))

    async def _chain(self, response_id: str, owner: str) -> List[Json]:
        records: List[Json] = []
        link: Optional[str] = response_id
        while link is not None:
            record = await self.stored(link, owner)
            if record is None or len(records) >= MAX_CHAIN:
                raise previous_response_not_found(response_id)
            records.append(record)
            link = record.get("previous")
        return [item for record in reversed(records) for item in record["input"] + record["response"]["output"]]

    async def stored(self, response_id: str, owner: str) -> Optional[Json]:
        """The record of a stored response, None when there is none or it is somebody else's."""
        try:
            record = await self._store.get(response_id)
        except StoreError as error:
            log.warning("%s", error)
            return None
        return record if record is not None and record.get("owner") == owner else None

    async def resolved(self, items: List[Json], past: Past, owner: str) -> List[Json]:
        """The items with every ``item_reference`` replaced by what it means. :raises ApiError: 404 for an unknown one"""
        return [await self._referenced(item, past, owner) if is_reference(item) else item for item in items]

    async def _referenced(self, item: Json, past: Past, owner: str) -> Json:
        wanted = item.get("id")
        candidates = past.items
        of = stem(item)
        record = await self.stored("resp_" + of, owner) if of else None
        if record is not None:
            candidates = candidates + record["response"]["output"]
        for candidate in candidates:
            if candidate.get("id") == wanted:
                return candidate
        raise ApiError(404, "Item with id '%s' not found. Items are not persisted when `store` is set to false. "
                            "Send the item itself, or store the response it belongs to." % wanted, param="input")

    def keep_local(self, local: MutableMapping[str, Json], request: Mapping[str, Any], past: Past, new: List[Json], response: Json) -> None:
        """Keep a response for the continuation on its own connection."""
        said = {key: request[key] for key in KEPT_BY_WARM_UP if key in request} if request.get("generate") is False else {}
        local[response["id"]] = {"items": past.items + new + response["output"], "inherited": {**past.inherited, **said}}

    async def keep(self, owner: str, request: Mapping[str, Any], new: List[Json], response: Json) -> Optional[str]:
        """Store a response. :returns: a warning when that failed; the answer is worth more than its record"""
        try:
            await self._store.put(response["id"], {"response": response, "input": new, "previous": request.get("previous_response_id"), "owner": owner})
        except StoreError as error:
            return "response not stored: %s" % error
        return None


def is_reference(item: Json) -> bool:
    """An ``item_reference``; the SDKs may leave its type out."""
    return item.get("type") == "item_reference" or "type" not in item and "role" not in item and isinstance(item.get("id"), str)
