"""Conversations: items under an id, which turns continue and append to.

A conversation is one :class:`~rproxy.types.ConversationRecord` in the store.  Every change is one atomic
update, so that requests, and processes that share a store, never overwrite each other's changes, and the
items that one of them adds are contiguous.  Items are kept in their complete form
(:mod:`rproxy.service.pagination`), oldest first.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, List, Mapping, Optional, cast

from ..convert.ids import CONVERSATION, is_conversation_id
from ..convert.json_steps import is_large
from ..convert.request.turns import type_of
from ..cooperative import free_later, in_thread, in_thread_if
from ..errors import ApiError, invalid, not_found
from ..store.write_behind import WriteBehindStore
from ..types import AnyRecord, Conversation, ConversationRecord, Deleted, Item, ItemPage, Json
from .mcp_credentials import stored
from .pagination import Stretch, listed, named, page
from .records import has_many_items, owned_conversation, store_errors

MAX_NEW_ITEMS = 20  # in one request
METADATA = (16, 64, 512)  # pairs, characters of a key, characters of a value


class Conversations:
    """The endpoints below ``/conversations``, and the methods that turns need.

    :param stem: makes 32 hex digits
    :param now: seconds since the epoch
    """

    def __init__(self, store: WriteBehindStore, stem: Callable[[], str], now: Callable[[], float]) -> None:
        self._store = store
        self._stem = stem
        self._now = now

    # ---- The endpoints
    # They raise ApiError: 404 for a missing conversation or item, 400 for a wrong request, 503 when the store
    # fails.
    async def create(self, request: Json, owner: str) -> Conversation:
        """POST /conversations: ``items`` and ``metadata``, both optional."""
        check_metadata(request)
        conversation: Conversation = {
            "id": CONVERSATION + self._stem(),
            "object": "conversation",
            "created_at": int(self._now()),
            "metadata": request.get("metadata") or {},
        }
        record: ConversationRecord = {
            "conversation": conversation,
            "items": await self._new(request),
            "owner": owner,
        }
        with store_errors():
            await self._store.put(conversation["id"], record)
        return conversation

    async def retrieve(self, name: str, owner: str) -> Conversation:
        """GET /conversations/{id}"""
        return (await self._record(name, owner))["conversation"]

    async def update(self, name: str, request: Json, owner: str) -> Conversation:
        """POST /conversations/{id}: the metadata, as a whole."""
        if not isinstance(request.get("metadata"), dict):
            raise invalid(
                "metadata is required: an object of strings.", "metadata", "missing_required_parameter"
            )
        check_metadata(request)
        changed = await self._change(
            name,
            owner,
            lambda record: {
                **record,
                "conversation": {**record["conversation"], "metadata": request["metadata"]},
            },
        )
        return changed["conversation"]

    async def delete(self, name: str, owner: str) -> Deleted:
        """DELETE /conversations/{id}"""
        await self._record(name, owner)
        with store_errors():
            await self._store.delete(name)
        return {"id": name, "object": "conversation.deleted", "deleted": True}

    async def items(self, name: str, query: Mapping[str, str], owner: str) -> ItemPage:
        """GET /conversations/{id}/items: a page of them."""
        return await page([Stretch((await self._record(name, owner))["items"])], query)

    async def add(self, name: str, request: Json, owner: str) -> ItemPage:
        """POST /conversations/{id}/items

        :returns: the list of the new items
        """
        if "items" not in request:
            raise invalid("items is required: a list of items.", "items", "missing_required_parameter")
        new = await self._new(request)
        await self._change(name, owner, lambda record: _with_items(record, new))
        return await page([Stretch(new)], {"order": "asc", "limit": str(MAX_NEW_ITEMS)})

    async def item(self, name: str, item_id: str, owner: str) -> Item:
        """GET /conversations/{id}/items/{item}"""
        found = await named([Stretch((await self._record(name, owner))["items"])], (item_id,))
        if item_id not in found:
            raise _no_item(name, item_id)
        return found[item_id]

    async def delete_item(self, name: str, item_id: str, owner: str) -> Conversation:
        """DELETE /conversations/{id}/items/{item}

        :returns: the conversation
        """

        def without(record: ConversationRecord) -> ConversationRecord:
            left = [item for item in record["items"] if item["id"] != item_id]
            if len(left) == len(record["items"]):
                raise _no_item(name, item_id)
            return {**record, "items": left}

        return (await self._change(name, owner, without))["conversation"]

    # ---- For turns
    async def past(self, name: str, owner: str) -> List[Item]:
        """All items of a conversation.

        :raises ApiError: 404, 503
        """
        return (await self._record(name, owner))["items"]

    async def past_or_nothing(self, name: str, owner: str) -> List[Item]:
        """All items of a conversation; none if it was deleted.

        :raises ApiError: 503
        """
        with store_errors():
            found = await self._store.get(name)
        record = await in_thread_if(has_many_items(found), partial(owned_conversation, found, owner))
        return record["items"] if record is not None else []

    async def append(self, name: str, items: List[Item], owner: str) -> Optional[str]:
        """Add the input and the output of a turn.

        :returns: a warning when that failed, or is not done yet
        """
        warning = await self._store.keep_changed(
            name, lambda record: _with_items(_checked(record, name, owner), items)
        )
        return f"not added to the conversation: {warning}" if warning else None

    # ---- Records
    async def _record(self, name: str, owner: str) -> ConversationRecord:
        with store_errors():
            record = await self._store.get(name) if is_conversation_id(name) else None
        return await in_thread_if(has_many_items(record), partial(_checked, record, name, owner))

    async def _change(
        self, name: str, owner: str, change: Callable[[ConversationRecord], ConversationRecord]
    ) -> ConversationRecord:
        if not is_conversation_id(name):
            raise _no_conversation(name)
        with store_errors():
            changed = await self._store.update(name, lambda record: change(_checked(record, name, owner)))
        if changed is None:
            raise _no_conversation(name)
        return cast(ConversationRecord, changed)

    async def _new(self, request: Json) -> List[Item]:
        items = request.get("items") or []
        if isinstance(items, list) and len(items) > MAX_NEW_ITEMS:
            raise invalid(
                f"items may have at most {MAX_NEW_ITEMS} elements at a time, not {len(items)}.", "items"
            )
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise ApiError(400, "items must be a list of objects.", code="invalid_type", param="items")
        if any(type_of(item) is None for item in items):
            raise invalid("Every item needs a type or a role.", "items")
        if any(item.get("type") == "item_reference" for item in items):
            raise invalid("items must be the items themselves, not references to them.", "items")
        stem = self._stem()
        if not is_large(items):
            return listed(stored(items), stem)
        new = await in_thread(lambda: listed(stored(items), stem))
        free_later([new], levels=2)
        return new


def _checked(record: Optional[AnyRecord], name: str, owner: str) -> ConversationRecord:
    """The record, if it is a conversation of this owner.

    :raises ApiError: 404
    """
    checked = owned_conversation(record, owner)
    if checked is None:
        raise _no_conversation(name)
    return checked


def _with_items(record: ConversationRecord, new: List[Item]) -> ConversationRecord:
    return {**record, "items": record["items"] + new}


def _no_conversation(name: str) -> ApiError:
    return not_found("Conversation with id", name)


def _no_item(name: str, item_id: str) -> ApiError:
    return not_found(f"Conversation '{name[:100]}': item with id", item_id)


def conversation_id(request: Mapping[str, Any]) -> Optional[str]:
    """The conversation that a create request names, by its id or as an object.

    :raises ApiError: 400 beside previous_response_id
    """
    given = request.get("conversation")
    if given is None:
        return None
    if "previous_response_id" in request:
        raise invalid(
            "conversation and previous_response_id exclude each other: send only one of them.", "conversation"
        )
    return str(given["id"] if isinstance(given, dict) else given)


def check_metadata(request: Mapping[str, Any]) -> None:
    """Allow at most 16 pairs of strings, with keys of 64 and values of 512 characters.

    :raises ApiError: 400
    """
    metadata = request.get("metadata")
    if not metadata:
        return
    pairs, key_size, value_size = METADATA
    if isinstance(metadata, dict) and len(metadata) > pairs:
        raise invalid(f"metadata may have at most {pairs} pairs, not {len(metadata)}.", "metadata")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ApiError(400, "metadata must be an object of strings.", code="invalid_type", param="metadata")
    for key, value in metadata.items():
        if len(key) > key_size or len(value) > value_size:
            raise invalid(
                f"metadata: keys have at most {key_size} characters, values at most {value_size}; "
                f"'{key[:key_size]}' has more.",
                "metadata",
            )
