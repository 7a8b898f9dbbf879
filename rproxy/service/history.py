"""What came before a request: the items of earlier responses.

A response is kept as a record ``{"response", "input", "previous", "conversation", "last", "owner"}``
(``last``: the number of its last event).  Its history is the chain of ``previous``, or what stood before it
in its conversation.  A WebSocket keeps the last responses of its own in ``client.local`` with the whole
history beside them (``items``), whether or not they are stored, and they end with the connection.

Item references need no index: our items carry the hex digits of their response's id (see
:func:`rproxy.service.pagination.owner_of`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, List, Mapping, MutableMapping, Optional

from ..convert.events.replay import RUNNING
from ..errors import ApiError, StoreError, invalid, previous_response_not_found, unavailable
from ..store.write_behind import WriteBehindStore
from ..types import Json
from .pagination import listed, owner_of

log = logging.getLogger("rproxy.history")

STORE_FAILS = (
    "The store of this proxy does not work at the moment, so what came before is not known. Try again."
)
MAX_CHAIN = 10_000  # responses; a longer chain is a loop
KEPT_BY_WARM_UP = ("instructions", "tools")  # what a warm-up says once for the turns that follow


@dataclass
class ConversationContext:
    """``items``: everything before the request's own input.

    ``inherited``: fields of a warm-up that the request may leave out.
    """

    items: List[Json] = field(default_factory=list)
    inherited: Json = field(default_factory=dict)


class History:
    """Finds and keeps the past of one client's requests."""

    def __init__(self, store: WriteBehindStore) -> None:
        self._store = store

    async def past(
        self, request: Mapping[str, Any], owner: str, local: Optional[Mapping[str, Json]]
    ) -> ConversationContext:
        """What the request continues. :raises ApiError: 400 previous_response_not_found, 503"""
        previous = request.get("previous_response_id")
        if previous is None:
            return ConversationContext()
        record = (local or {}).get(previous)
        if record is not None:
            return ConversationContext(record["items"], record["inherited"])
        return ConversationContext(await self._chain(previous, owner))

    async def _chain(self, response_id: str, owner: str) -> List[Json]:
        records = await self._records(response_id, owner)
        if records[-1]["response"]["status"] in RUNNING:
            raise invalid(
                f"Previous response with id '{response_id[:100]}' has not ended yet; wait until its status is completed.",
                "previous_response_id",
                "response_not_completed",
            )
        before = await self._before(records[0])
        return before + [
            item for record in records for item in record["input"] + record["response"]["output"]
        ]

    async def _records(self, response_id: str, owner: str) -> List[Json]:
        """The record of a response and those it continues, the oldest first.

        :raises ApiError: 400 when one is missing
        """
        records: List[Json] = []
        link: Optional[str] = response_id
        while link is not None:
            record = await self.stored(link, owner)
            if record is None or "response" not in record or len(records) >= MAX_CHAIN:
                raise previous_response_not_found(response_id)
            records.append(record)
            link = record.get("previous")
        return records[::-1]

    async def _before(self, record: Json) -> List[Json]:
        """What stood in the conversation before the input of this response; nothing is known when it was
        deleted."""
        name, own = (
            record.get("conversation"),
            {item.get("id") for item in record["input"] + record["response"]["output"]},
        )
        conversation = await self.stored(name, record["owner"]) if name else None
        items = conversation["items"] if conversation is not None else []
        first = next((place for place, item in enumerate(items) if item["id"] in own), 0)
        found: List[Json] = items[:first]
        return found

    async def seen(self, response_id: str, owner: str) -> List[Json]:
        """The input of a response with everything before it, as :func:`rproxy.service.pagination.listed`
        items, the oldest first."""
        try:
            records = await self._records(response_id, owner)
        except ApiError:
            record = await self.stored(response_id, owner)  # what it continues is gone; its own input is not
            records = [record] if record is not None else []
        items = await self._before(records[0]) if records else []
        for number, record in enumerate(records, 1):
            items = (
                items
                + listed(record["input"], _stem_of(record))
                + (record["response"]["output"] if number < len(records) else [])
            )
        return items

    async def stored(self, response_id: str, owner: str) -> Optional[Json]:
        """The record of a stored response, None when there is none or it is somebody else's.

        :raises ApiError: 503 when the store fails, because a client gives up a response that it is told is
            gone
        """
        try:
            record = await self._store.get(response_id)
        except StoreError as error:
            log.warning("%s", error)
            raise unavailable(STORE_FAILS) from error
        return record if record is not None and record.get("owner") == owner else None

    async def resolved(self, items: List[Json], past: ConversationContext, owner: str) -> List[Json]:
        """The items with every ``item_reference`` replaced by what it means.

        :raises ApiError: 404 for an unknown one, 503
        """
        return [await self._referenced(item, past, owner) if is_reference(item) else item for item in items]

    async def _referenced(self, item: Json, past: ConversationContext, owner: str) -> Json:
        wanted = item.get("id")
        for candidate in past.items:
            if candidate.get("id") == wanted:
                return candidate
        of = owner_of(wanted)
        record = await self.stored("resp_" + of, owner) if of else None
        for candidate in (
            listed(record["input"], _stem_of(record)) + record["response"]["output"]
            if record is not None
            else ()
        ):
            if candidate.get("id") == wanted:
                found: Json = candidate
                return found
        raise ApiError(
            404,
            f"Item with id '{wanted}' not found. Items are not persisted when `store` is set to false. "
            "Send the item itself, or store the response it belongs to.",
            param="input",
        )

    def keep_local(
        self,
        local: MutableMapping[str, Json],
        request: Mapping[str, Any],
        past: ConversationContext,
        new: List[Json],
        response: Json,
    ) -> None:
        """Keep a response for the continuation on its own connection."""
        said = (
            {key: request[key] for key in KEPT_BY_WARM_UP if key in request}
            if request.get("generate") is False
            else {}
        )
        local[response["id"]] = {
            "items": past.items + new + response["output"],
            "inherited": {**past.inherited, **said},
        }

    async def keep(self, record: Json) -> Optional[str]:
        """Store a response. :returns: a warning when that failed; the answer is worth more than its record"""
        warning = await self._store.keep(record["response"]["id"], record)
        return f"response {warning}" if warning else None


def new_record(
    owner: str, request: Mapping[str, Any], new: List[Json], conversation: Optional[str], response: Json
) -> Json:
    """What is stored of a response."""
    return {
        "response": response,
        "input": new,
        "previous": request.get("previous_response_id"),
        "conversation": conversation,
        "owner": owner,
    }


def _stem_of(record: Json) -> str:
    return str(record["response"]["id"])[len("resp_") :]


def is_reference(item: Json) -> bool:
    """An ``item_reference``; the SDKs may leave its type out."""
    return (
        item.get("type") == "item_reference"
        or "type" not in item
        and "role" not in item
        and isinstance(item.get("id"), str)
    )
