"""``POST /responses/compact``: a conversation as one sealed item, besides the user's own messages.

It is a turn like any other, with a trigger after its input; :mod:`rproxy.convert.events.compaction` makes the
sealed item of its answer.
"""

from __future__ import annotations

from typing import Callable, List, Tuple

from ..convert.ids import Ids
from ..convert.request.chat import input_items
from ..convert.request.content import parts_of
from ..convert.request.validate import check_request
from ..types import AnyItem, Compaction, Item, Json, Response
from .create_request import need_input

TAKEN = ("model", "instructions", "previous_response_id", "prompt_cache_key")


def compaction_request(body: Json) -> Tuple[List[AnyItem], Json]:
    """The items that are compacted, and the create request that does it.

    :param body: without nulls
    :raises ApiError: 400
    """
    check_request(body)
    need_input(body)
    items = input_items(body)
    taken = {key: body[key] for key in TAKEN if key in body}
    return items, {**taken, "input": items + [{"type": "compaction_trigger"}], "store": False}


def compaction_object(items: List[AnyItem], response: Response, stem: Callable[[], str]) -> Compaction:
    """The ``response.compaction`` object.

    :param items: the input that was compacted; the user's messages stay in the output
    :param response: the response to :func:`compaction_request`
    :param stem: makes 32 hex digits for the id of a message
    """
    messages: List[Item] = [
        {
            "id": Ids(stem())("msg"),
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": parts_of(item.get("content")),
        }
        for item in items
        if item.get("role") == "user"
    ]
    return {
        "id": response["id"],
        "object": "response.compaction",
        "created_at": response["created_at"],
        "output": messages + response["output"],
        "usage": response["usage"],
    }
