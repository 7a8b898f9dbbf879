"""A create request that has been checked, with everything that it refers to: its model and its history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, List, Mapping, NamedTuple, Optional

from ..config.schema import Model
from ..convert.events.response import response_object
from ..convert.ids import Ids
from ..convert.request.chat import input_items
from ..convert.request.validate import check_request
from ..errors import invalid
from ..types import AnyItem, Json, Response, ResponseRecord
from .conversations import check_metadata


@dataclass
class ConversationContext:
    """The history of a request.

    ``items``: everything before the request's own input.  ``inherited``: fields of a warm-up that the request
    may leave out.  ``size``: an upper bound of the characters in the items; None: not known.
    """

    items: List[AnyItem] = field(default_factory=list)
    inherited: Json = field(default_factory=dict)
    size: Optional[int] = 0


class CreateRequest(NamedTuple):
    """A create request, ready for its turn.

    ``body``: its fields, with inherited ones.  ``items``: its own input.  ``conversation``: the id of the
    one it belongs to.  ``created_at``: seconds since the epoch.  ``shown_tools``, ``shown_items``: the tools
    as the response repeats them, and the items as they are stored; None: as they came.
    """

    body: Json
    model: Model
    context: ConversationContext
    items: List[AnyItem]
    ids: Ids
    conversation: Optional[str]
    created_at: int
    shown_tools: Optional[List[Json]] = None
    shown_items: Optional[List[AnyItem]] = None

    @property
    def warms_up(self) -> bool:
        """Is the request a warm-up, which is remembered without an answer?"""
        body = self.body
        if "prompt_cache_options" not in body:
            return "generate" in body and body["generate"] is False
        return body.get("generate") is False or bool((body["prompt_cache_options"] or {}).get("prewarm"))

    @property
    def stored_items(self) -> List[AnyItem]:
        """Its own input as it is stored."""
        return self.items if self.shown_items is None else self.shown_items

    def response(self) -> Response:
        """The Response object at the beginning."""
        body = self.body if self.shown_tools is None else {**self.body, "tools": self.shown_tools}
        response = response_object(body, id=self.ids.response, created_at=self.created_at)
        if self.conversation is not None:
            response = {**response, "conversation": {"id": self.conversation}}
        return response

    def record(self, owner: str, response: Response) -> ResponseRecord:
        """The stored record of a response to this request."""
        return {
            "response": response,
            "input": self.stored_items,
            "previous": self.body.get("previous_response_id"),
            "conversation": self.conversation,
            "owner": owner,
        }


def checked_input(body: Json) -> List[AnyItem]:
    """The own input of a create request without nulls, as items.

    :raises ApiError: 400, a field of the request is wrong
    """
    check_request(body)
    check_metadata(body)
    return input_items(body)


def need_input(body: Mapping[str, Any], *instead: str) -> None:
    """Insist on an input.

    :param instead: fields that may stand in for it, beside previous_response_id
    :raises ApiError: 400
    """
    if not any(name in body for name in ("input", "previous_response_id", *instead)):
        raise invalid(
            "input is required: a string or a list of items.", "input", "missing_required_parameter"
        )
