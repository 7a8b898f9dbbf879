"""Validation of records, and the error for a store that fails.

The store is shared with other programs and versions, so a record (:data:`~rproxy.types.AnyRecord`) is checked
before it is used; an incomplete one counts as missing.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from itertools import repeat
from operator import itemgetter
from typing import Any, Iterator, List, Optional, cast

from ..errors import StoreError, unavailable
from ..types import AnyRecord, ConversationRecord, ResponseRecord

log = logging.getLogger("rproxy.store")

PORTION = 1000  # items that are checked at a time
MANY_ITEMS = 10_000  # which take a few milliseconds
STORE_FAILS = "The response store of this proxy is not available at the moment. Try again."


@contextmanager
def store_errors() -> Iterator[None]:
    """A failure of the store is a 503, not a 404, after which a client would give up its history."""
    try:
        yield
    except StoreError as error:
        log.warning("%s", error)
        raise unavailable(STORE_FAILS) from error


def owned_response(record: Optional[AnyRecord], owner: str) -> Optional[ResponseRecord]:
    """The record, if it is a response of this owner."""
    if record is None or "response" not in record or record.get("owner") != owner:
        return None
    response = record["response"]
    whole = (
        isinstance(response, dict)
        and isinstance(response.get("id"), str)
        and isinstance(response.get("status"), str)
        and _is_list_of_items(response.get("output"))
        and _is_list_of_items(record.get("input"))
        and all(isinstance(record.get(link), (str, type(None))) for link in ("previous", "conversation"))
    )
    if not whole:
        _warn(response)
        return None
    return cast(ResponseRecord, record)


def owned_conversation(record: Optional[AnyRecord], owner: str) -> Optional[ConversationRecord]:
    """The record, if it is a conversation of this owner."""
    if record is None or "items" not in record or record.get("owner") != owner:
        return None
    conversation = record.get("conversation")
    whole = (
        isinstance(conversation, dict) and _is_list_of_items(record["items"]) and _have_ids(record["items"])
    )
    if not whole:
        _warn(conversation)
        return None
    return cast(ConversationRecord, record)


def _is_list_of_items(value: Any) -> bool:
    return isinstance(value, list) and all(
        all(map(isinstance, some, repeat(dict))) for some in _portions(value)
    )


def _have_ids(items: List[Any]) -> bool:
    try:
        return all(
            all(map(isinstance, map(itemgetter("id"), some), repeat(str))) for some in _portions(items)
        )
    except KeyError:
        return False


def _portions(values: List[Any]) -> Iterator[List[Any]]:
    """The values in lists that a C function goes through in a moment: other threads wait for it."""
    if len(values) <= PORTION:
        return iter((values,))
    return (values[begin : begin + PORTION] for begin in range(0, len(values), PORTION))


def has_many_items(record: Optional[AnyRecord]) -> bool:
    """Does it take so long to check this record that a thread should do it?"""
    lists = (record.get("items"), record.get("input")) if record is not None else ()
    return any(isinstance(items, list) and len(items) > MANY_ITEMS for items in lists)


def _warn(found: Any) -> None:
    name = found.get("id") if isinstance(found, dict) else found
    log.warning("the stored record of %.80r is damaged and counts as missing", name)
