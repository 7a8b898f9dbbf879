"""The events of a finished response, made again from its Response object.

A stored response has no log of its events.  Its stream follows from its content, except for how the text was
cut: here every part is one delta.  So the numbers of the events differ from those of the first stream if that
had more deltas; :func:`tail` handles this for a client that lost its connection.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Optional

from ...types import Json
from ..status import TERMINAL_EVENTS
from .items import TEXT_KINDS

_PARTS = {kind.part: kind for kind in TEXT_KINDS.values()}
_CALLS = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
}


def opening(response: Json) -> List[Json]:
    """The events before the first item; a background response is queued first."""
    early = {
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
    queued = {**early, "status": "queued"}
    return _numbered(
        [
            {"type": "response.created", "response": queued},
            {"type": "response.queued", "response": queued},
            {"type": "response.in_progress", "response": early},
        ]
    )


def events(response: Json) -> List[Json]:
    """All events of a response that has ended, numbered from 0."""
    found = opening(response)
    for index, item in enumerate(response["output"]):
        found += _item(index, item)
    found.append({"type": TERMINAL_EVENTS[response["status"]], "response": response})
    return _numbered(found)


def tail(response: Json, after: int, last: Optional[int]) -> List[Json]:
    """The events after the one with the number ``after`` (-1: all of them).

    :param last: the number of the last event of the first stream, None if it is not known.  If it is not the
        number of our last one, a client in the middle of that stream cannot be given the rest of it; it gets
        the terminal event with everything in it.
    """
    found = events(response)
    if after < 0 or last is None or last == found[-1]["sequence_number"]:
        return found[after + 1 :]
    return [{**found[-1], "sequence_number": last}] if after < last else []


def _numbered(unnumbered: List[Json]) -> List[Json]:
    return [
        {
            "type": event["type"],
            "sequence_number": number,
            **{k: v for k, v in event.items() if k not in ("type", "sequence_number")},
        }
        for number, event in enumerate(unnumbered)
    ]


def _item(index: int, item: Json) -> Iterator[Json]:
    at = {"item_id": item["id"], "output_index": index}
    empty: Json = {
        key: _emptied(key, value)
        for key, value in item.items()
        if key != "encrypted_content" or item["type"] == "compaction"
    }
    if "status" in item:
        empty["status"] = "in_progress"
    if item["type"] == "reasoning":
        empty.pop("content", None)
    yield {"type": "response.output_item.added", "output_index": index, "item": empty}
    for holder in ("summary", "content"):
        for number, part in enumerate(item.get(holder) or ()):
            yield from _part(at, number, part)
    base, field = _CALLS.get(item["type"], ("", ""))
    if base:
        yield {"type": base + ".delta", **at, "delta": item[field]}
        yield {"type": base + ".done", **at, field: item[field], "name": item["name"]}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _emptied(key: str, value: Any) -> Any:
    """What the item is announced with."""
    if key in ("content", "summary"):
        return []
    return "" if key in ("arguments", "input") and isinstance(value, str) else value


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
