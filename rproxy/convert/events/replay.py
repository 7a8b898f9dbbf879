"""The events of a finished response, recreated from its Response object.

A stored response has no log of its events.  Its stream follows from its content, except for the way in which
the text was split: here every part is one delta.  So the numbers of the events differ from those of the first
stream if that had more deltas; :func:`tail` handles this for a client that lost its connection.
"""

from __future__ import annotations

from typing import Any, Container, Iterator, List, Mapping, Optional, Sequence

from ...types import AnyItem, Event, Json, Response
from ..status import TERMINAL_EVENTS
from ..tools.kind import Offer, ToolKind
from ..tools.kinds import CALL_KINDS
from .text_forms import TEXT_FORMS

AnyEvent = Mapping[str, Any]  # an event that may not have its number yet
TEXT_ITEMS = ("message", "reasoning")  # the items with parts; other items may hold anything
_PARTS = {kind.part: kind for kind in TEXT_FORMS.values()}


def opening(response: Response) -> List[Event]:
    """The events before the first item; a background response is queued first."""
    early: Response = {
        **response,
        "status": "in_progress",
        "output": [],
        "usage": None,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
    }
    if not response.get("background"):
        return _numbered(
            [
                {"type": "response.created", "response": early},
                {"type": "response.in_progress", "response": early},
            ]
        )
    queued: Response = {**early, "status": "queued"}
    return _numbered(
        [
            {"type": "response.created", "response": queued},
            {"type": "response.queued", "response": queued},
            {"type": "response.in_progress", "response": early},
        ]
    )


def events(response: Response, hosted: Container[str] = ()) -> List[Event]:
    """All events of a response that has ended, numbered from 0.

    :param hosted: the ids of the items that rproxy made itself
    """
    found: List[AnyEvent] = [*opening(response)]
    for index, item in enumerate(response["output"]):
        found += _hosted_item(index, item) if item["id"] in hosted else _item(index, item)
    found.append({"type": TERMINAL_EVENTS[response["status"]], "response": response})
    return _numbered(found)


def tail(response: Response, after: int, last: Optional[int], hosted: Container[str] = ()) -> List[Event]:
    """The events after the one with the number ``after`` (-1: all of them).

    :param last: the number of the last event of the first stream, None if it is not known.  If it differs
        from the number of our last event, a client in the middle of that stream cannot get the rest of it; it
        gets the terminal event, which has everything.
    :param hosted: see :func:`events`
    """
    found = events(response, hosted)
    if after < 0 or last is None or last == found[-1]["sequence_number"]:
        return found[after + 1 :]
    return [{**found[-1], "sequence_number": last}] if after < last else []


def _numbered(unnumbered: Sequence[AnyEvent]) -> List[Event]:
    numbered: List[Any] = [
        {
            "type": event["type"],
            "sequence_number": number,
            **{k: v for k, v in event.items() if k not in ("type", "sequence_number")},
        }
        for number, event in enumerate(unnumbered)
    ]
    return numbered


def _item(index: int, item: AnyItem) -> Iterator[Json]:
    at = {"item_id": item["id"], "output_index": index}
    kind = CALL_KINDS.get(item["type"]) if "call_id" in item else None
    holders = ("summary", "content") if item["type"] in TEXT_ITEMS else ()
    announced = _announced(item, holders) if kind is None else _announced_call(item, kind)
    yield {"type": "response.output_item.added", "output_index": index, "item": announced}
    for holder in holders:
        for number, part in enumerate(item.get(holder, ())):
            yield from _part(at, number, part)
    if kind is not None and kind.delta_type:
        text = item[kind.text_field]
        if text:
            yield {"type": kind.delta_type, **at, "delta": text}
        yield {"type": kind.done_type, **at, kind.text_field: text, "name": item["name"]}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _hosted_item(index: int, item: AnyItem) -> Iterator[Json]:
    from .hosted_items import HOSTED_FORMS  # few responses have such items

    form, at = HOSTED_FORMS[item["type"]], {"item_id": item["id"], "output_index": index}
    announced = form.announced(item)
    yield {"type": "response.output_item.added", "output_index": index, "item": announced}
    for type_, more in (*form.opening(item), *form.closing(item)):
        yield {"type": type_, **at, **more}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _announced(item: AnyItem, holders: Sequence[str]) -> Json:
    announced = {key: [] if key in holders else value for key, value in item.items()}
    if "status" in item:
        announced["status"] = "in_progress"
    if item["type"] == "reasoning":
        announced.pop("content", None)
        announced.pop("encrypted_content", None)
    return announced


def _announced_call(item: AnyItem, kind: ToolKind) -> Json:
    """A call as its kind announces it."""
    offer = Offer(
        "", kind, item.get("name", ""), item.get("namespace"), encrypted="encrypted_function_args" in item
    )
    return offer.item(item["id"], item["call_id"])


def _part(at: Json, number: int, part: Json) -> Iterator[Json]:
    kind = _PARTS[part["type"]]
    at = {**at, kind.counter: number}
    text, logprobs = part[kind.field], {"logprobs": part.get("logprobs", [])} if kind.annotated else {}
    yield {"type": kind.part_event + ".added", **at, "part": kind.new_part("", [], [])}
    if text:
        yield {"type": kind.delta_event, **at, "delta": text, **logprobs}
    for count, annotation in enumerate(part.get("annotations") or ()):
        yield {
            "type": kind.text_event + ".annotation.added",
            **at,
            "annotation_index": count,
            "annotation": annotation,
        }
    yield {"type": kind.text_event + ".done", **at, kind.field: text, **logprobs}
    yield {"type": kind.part_event + ".done", **at, "part": part}
