"""The kinds of items that hold text, and the words for them in the item, its part, and its events."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Tuple

from ...types import Json


class TextForm(NamedTuple):
    """The words of one kind of item that holds text."""

    prefix: str  # of the item's id
    head: Json  # the keys of a new item
    lists: Tuple[str, ...]  # ... and those that begin as empty lists
    holder: str  # the list that gets the part
    counter: str  # the key of the part's number, in events
    part: str  # the type of the part
    field: str  # the part's key for the text
    part_event: str  # + .added, .done
    delta_event: str
    text_event: str  # + .done, .annotation.added
    annotated: bool = False  # has annotations and logprobs

    def new_part(self, text: str, annotations: List[Json], logprobs: List[Json]) -> Json:
        part: Json = {"type": self.part, self.field: text}
        if self.annotated:
            part.update(annotations=annotations, logprobs=logprobs)
        return part


_MESSAGE = {"type": "message", "status": "in_progress", "role": "assistant"}
_REASONING = {"type": "reasoning"}
TEXT_FORMS: Dict[str, TextForm] = {
    "text": TextForm(
        "msg",
        _MESSAGE,
        ("content",),
        "content",
        "content_index",
        "output_text",
        "text",
        "response.content_part",
        "response.output_text.delta",
        "response.output_text",
        annotated=True,
    ),
    "refusal": TextForm(
        "msg",
        _MESSAGE,
        ("content",),
        "content",
        "content_index",
        "refusal",
        "refusal",
        "response.content_part",
        "response.refusal.delta",
        "response.refusal",
    ),
    "summary": TextForm(
        "rs",
        _REASONING,
        ("summary",),
        "summary",
        "summary_index",
        "summary_text",
        "text",
        "response.reasoning_summary_part",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text",
    ),
    "content": TextForm(
        "rs",
        _REASONING,
        ("summary",),
        "content",
        "content_index",
        "reasoning_text",
        "text",
        "response.content_part",
        "response.reasoning_text.delta",
        "response.reasoning_text",
    ),
}
