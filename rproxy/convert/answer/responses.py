"""Events of a provider with the Responses API to the same deltas that :mod:`~rproxy.convert.answer.chat`
makes.

The provider's events are read, not passed on: the converter makes our own events from the deltas, with our
ids and in our grammar.  So events that a provider leaves out do no harm as long as another one has the same
content: a text may come in deltas, with the end of its part, with the end of its item, or in the last event
alone; each time, what is new becomes a delta.  A whole Response object (the answer to a request without
``stream``) is read like a last event.

Freeform input (``custom_tool_call``) is wrapped as the arguments of a function with one text, which is how it
travels in Chat Completions as well.  Nothing here raises, whatever an event is.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ...json_codec import encode_json, mend
from ...types import CallPiece, Delta, Json, TextKind
from ..request.dialect import RESPONSE_ITEM
from ..status import ANSWERED, TERMINAL_EVENTS
from ..surrogates import mend_piece
from ..text_buffer import Received
from ..tools.kind import flatten, plain
from .fields import counts_tokens, error_of
from .reader import MAX_ITEMS, too_many
from .split import split_event

Place = Tuple[str, int]  # of a text in its item: its kind, and the number of its part


class TextEvent(NamedTuple):
    """An event that carries text."""

    item: str  # the type of the item that it belongs to
    kind: str  # of text
    counter: str  # the key of the part's number
    key: str  # of the text
    whole: bool  # not only a piece


def _texts(item: str, kind: str, counter: str, key: str, *names: str) -> Dict[str, TextEvent]:
    rows = {}
    for name in names:
        rows[f"response.{name}.delta"] = TextEvent(item, kind, counter, "delta", False)
        rows[f"response.{name}.done"] = TextEvent(item, kind, counter, key, True)
    return rows


TEXT_EVENTS: Dict[str, TextEvent] = {
    **_texts("message", "text", "content_index", "text", "output_text"),
    **_texts("message", "refusal", "content_index", "refusal", "refusal"),
    **_texts("reasoning", "content", "content_index", "text", "reasoning_text", "reasoning"),
    **_texts("reasoning", "summary", "summary_index", "text", "reasoning_summary_text", "reasoning_summary"),
    **_texts("function_call", "arguments", "", "arguments", "function_call_arguments"),
    **_texts("custom_tool_call", "arguments", "", "input", "custom_tool_call_input"),
}
# The parts of an item: (item, list) -> {type of the part: (kind of text, key of the text)}.
PARTS: Dict[Tuple[str, str], Dict[Any, Tuple[str, str]]] = {
    ("message", "content"): {
        "output_text": ("text", "text"),
        "text": ("text", "text"),
        "refusal": ("refusal", "refusal"),
    },
    ("reasoning", "content"): {"reasoning_text": ("content", "text"), "text": ("content", "text")},
    ("reasoning", "summary"): {"summary_text": ("summary", "text")},
}
# Type of a call -> the key for what the model wrote.
CALLS = {"function_call": "arguments", "custom_tool_call": "input", "tool_search_call": "arguments"}
CONVERTED = {"message", "reasoning", *CALLS}  # types of items that are converted; others pass as they are
# Kind of text -> kind of delta.
DELTA_KINDS: Dict[str, TextKind] = {
    "text": "text",
    "refusal": "refusal",
    "content": "reasoning",
    "summary": "reasoning",
}
# Reason of an incomplete response -> finish reason.
FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


class _Item:
    """What is known about one item of the answer."""

    def __init__(self, type_: str, number: int) -> None:
        self.type = type_
        self.number = number  # of its call
        self.keys: Json = {}  # further keys of our item
        self.texts: Dict[Place, Received] = {}  # so far
        self.form: Optional[str] = None  # of reasoning: content or summary; the other one repeats it
        self.half = ""  # the first half of a surrogate pair
        self.annotations = 0
        self.named = self.done = False


class EventReader:
    """The state of one answer; see :class:`~rproxy.convert.answer.reader.AnswerReader`.

    :param origin: the provider (base_url); only it can decrypt its encrypted reasoning
    """

    transparent = False

    def __init__(self, origin: str = "") -> None:
        self.chunks = 0
        self.finish: Optional[str] = None
        self.error: Optional[Json] = None
        self.usage: Optional[Json] = None
        # The converter fills this, so that the order is the order of its items.
        self.reasoning_details: List[Json] = []
        self.over = False
        self._origin = origin
        self._items: List[_Item] = []
        self._by_id: Dict[str, _Item] = {}
        self._by_index: Dict[Any, _Item] = {}
        self._current: Optional[_Item] = None  # of the last delta
        self._hosted: List[Json] = []  # what the provider ran since its last encrypted reasoning
        self._out: List[Delta] = []

    def read(self, event: Json) -> List[Delta]:
        self.chunks += 1
        if not self.over:
            type_ = str(event.get("type"))
            if type_ in TEXT_EVENTS:
                self._text(TEXT_EVENTS[type_], event)
            elif type_ in _HANDLERS:
                _HANDLERS[type_](self, event)
            elif event.get("object") == "response":
                self._end(event)
            elif event.get("choices"):
                self._fail({"message": "It answered with Chat Completions: remove wire: responses."})
            elif not type_.startswith("response."):
                self._fail(error_of(event))
        return self._take()

    def parts(self, event: Json) -> Iterator[Optional[Json]]:
        return split_event(event)

    def end(self) -> List[Delta]:
        """What was held back, now that the provider has stopped.

        Freeform input whose end was not announced counts as complete if the answer does.
        """
        if self.finish in (None, "stop"):
            for item in self._items:
                self._close_input(item)
        return self._take()

    def _take(self) -> List[Delta]:
        out, self._out = self._out, []
        return out

    # ---- Events
    def _added(self, event: Json) -> None:
        item = event.get("item")
        if type(item) is dict:
            self._describe(self._find(event, item), item)

    def _item_done(self, event: Json) -> None:
        item = event.get("item")
        if type(item) is dict:
            self._complete(self._find(event, item), item)

    def _text(self, row: TextEvent, event: Json) -> None:
        item = self._find(event, {"type": row.item})
        text = event.get(row.key)
        if type(text) is not str or item.done:
            return
        if event.get("logprobs") and type(event["logprobs"]) is list and not row.whole:
            self._out.append(("logprobs", event["logprobs"]))
        number = event.get(row.counter) if row.counter else 0
        self._add_text(item, (row.kind, number if type(number) is int else 0), text, row.whole)

    def _annotation(self, event: Json) -> None:
        item = self._find(event, {"type": "message"})
        item.annotations += 1
        self._out.append(("annotations", [event.get("annotation")]))

    def _last(self, event: Json) -> None:
        response = event.get("response")
        status = event["type"].rpartition(".")[2]
        self._end({**response, "status": status} if type(response) is dict else {"status": status})

    def _end(self, response: Json) -> None:
        """The whole Response object."""
        status = response.get("status")
        if counts_tokens(response.get("usage")):
            self.usage = response["usage"]
        if status not in ANSWERED:
            error = response.get("error")
            self._fail(
                error
                if error and type(error) is dict
                else {"message": f"It ended its response with the status {status}."}
            )
            return
        output = response.get("output")
        given = [item for item in output if type(item) is dict] if type(output) is list else []
        for known, item in zip(self._known(given), given):
            self._complete(known, item)
        details = response.get("incomplete_details")
        reason = details.get("reason") if type(details) is dict else None
        self.finish = "stop" if status == "completed" else FINISH.get(str(reason), "length")
        self.over = True

    def _fail(self, error: Optional[Json]) -> None:
        if error is not None:
            self.error = error
            self.over = True

    # ---- Which item is it?
    def _find(self, event: Json, given: Json) -> _Item:
        """The item of an event, by its id, its place in the output or its type."""
        type_, index = str(given.get("type")), event.get("output_index")
        item_id = event.get("item_id") or given.get("id")
        item_id = item_id if type(item_id) is str else ""
        index = index if type(index) is int else None
        item = self._by_id.get(item_id)
        if item is None:
            item = self._by_index.get(index) if index is not None or not item_id else None
            if item is None or item.type != type_ or item.done:
                item = self._new(type_)
        if item_id:
            self._by_id[item_id] = item
        self._by_index[index] = item
        return item

    def _new(self, type_: str) -> _Item:
        if len(self._items) == MAX_ITEMS:
            self._fail(too_many("items", MAX_ITEMS))
        item = _Item(type_, len(self._items))
        self._items.append(item)
        return item

    def _known(self, output: List[Json]) -> List[_Item]:
        """The items of the final output, found by their ids, or else by their order among those of their
        type.
        """
        by_id = [self._by_id.get(item["id"]) if type(item.get("id")) is str else None for item in output]
        taken = {known.number for known in by_id if known is not None}
        free: Dict[str, Deque[_Item]] = {}  # by type
        for item in self._items:
            if item.number not in taken:
                free.setdefault(item.type, deque()).append(item)
        found = []
        for given, known in zip(output, by_id):
            others = free.get(str(given.get("type")))
            found.append(known or (others.popleft() if others else self._new(str(given.get("type")))))
        return found

    # ---- What is new about it?
    def _describe(self, item: _Item, given: Json) -> None:
        if given.get("phase") and type(given["phase"]) is str:
            item.keys = {"phase": mend(given["phase"])}
        if item.type in CALLS and not item.named:
            name = "tool_search" if item.type == "tool_search_call" else given.get("name")
            if name and type(name) is str:
                item.named = True
                call_id = given.get("call_id") or given.get("id")
                namespace = plain(given.get("namespace"))
                name = mend(name) if namespace is None else flatten(namespace, name)
                self._call(item, id=mend(call_id) if type(call_id) is str else None, name=name)

    def _complete(self, item: _Item, given: Json) -> None:
        """A finished item; its events may have been incomplete."""
        if item.done:
            return
        if item.type not in CONVERTED:  # where it began, the type may have been damaged
            item.type = str(given.get("type"))
        self._describe(item, given)
        if item.type in CALLS:
            whole = given.get(CALLS[item.type])
            if whole is not None:
                self._add_text(
                    item, ("arguments", 0), whole if type(whole) is str else encode_json(whole).decode(), True
                )
            if given.get("status") != "incomplete":
                self._close_input(item)
        elif item.type == "message":
            self._message(item, given)
        elif item.type == "reasoning":
            self._parts(item, given, "content")
            self._parts(item, given, "summary")
            self._detail(item, given)
        elif given.get("type") and type(given["type"]) is str:
            self._current = item
            self._hosted.append(given)
            self._out.append(("item", given))
        item.done = True

    def _message(self, item: _Item, given: Json) -> None:
        content = given.get("content")
        parts = [part for part in content if type(part) is dict] if type(content) is list else []
        if not item.texts:
            self._out += [
                ("logprobs", part["logprobs"])
                for part in parts
                if part.get("logprobs") and type(part["logprobs"]) is list
            ]
        self._parts(
            item,
            {"content": [{"type": "output_text", "text": content}] if type(content) is str else content},
            "content",
        )
        lists = [part["annotations"] for part in parts if type(part.get("annotations")) is list]
        new = [annotation for annotations in lists for annotation in annotations][item.annotations :]
        if new:
            self._out.append(("annotations", new))

    def _parts(self, item: _Item, given: Json, name: str) -> None:
        for number, kind, text in _parts(given.get(name), PARTS[item.type, name]):
            self._add_text(item, (kind, number), text, True)

    def _detail(self, item: _Item, given: Json) -> None:
        """Encrypted reasoning, which is sent back to its provider."""
        blob = given.get("encrypted_content")
        if blob and type(blob) is str:
            self._select(item, "reasoning")
            summary = given.get("summary")
            kept = {
                "type": "reasoning",
                "summary": summary if type(summary) is list else [],
                "encrypted_content": blob,
            }
            # The provider's own search between two pieces of reasoning goes back with the second one.
            for sealed in (*self._hosted, kept):
                self._out.append(("detail", {"type": RESPONSE_ITEM, "origin": self._origin, "item": sealed}))
            self._hosted = []

    # ---- Deltas
    def _add_text(self, item: _Item, place: Place, text: str, whole: bool) -> None:
        """A piece of a text; or all of it, of which only the rest is new."""
        before = item.texts.get(place)
        if item.half or not text.isascii():
            text, item.half = (mend(text), "") if whole else mend_piece(item.half + text)
        if whole and before:
            text = before.more(text)
        if not text:
            return
        if place[0] == "arguments":
            item.texts.setdefault(place, Received()).append(text)
            if item.type == "custom_tool_call":
                text = _wrapped(text, begin=not before)
            self._call(item, arguments=text)
            return
        if item.type == "reasoning":
            item.form = item.form or place[0]
            if item.form != place[0]:
                return
        kind = DELTA_KINDS[place[0]]
        self._select(item, kind)
        if not before and item.texts and item.form == "summary":
            self._out.append((kind, "\n\n"))  # the parts of a summary are paragraphs
        item.texts.setdefault(place, Received()).append(text)
        self._out.append((kind, text))

    def _select(self, item: _Item, kind: TextKind) -> None:
        """The next deltas belong to this item."""
        if self._current is not item:
            self._current = item
            self._out.append(("begin", kind, item.keys))

    def _call(
        self, item: _Item, *, id: Optional[str] = None, name: Optional[str] = None, arguments: str = ""
    ) -> None:
        self._current = item
        piece: CallPiece = {"id": id, "name": name, "arguments": arguments, "extra_content": None}
        self._out.append(("call", item.number, piece))

    def _close_input(self, item: _Item) -> None:
        if item.type == "custom_tool_call" and item.named and not item.done:
            item.done = True
            self._call(item, arguments='"}' if item.texts else '{"input":""}')


_HANDLERS: Dict[Any, Callable[[EventReader, Json], None]] = {
    "response.output_item.added": EventReader._added,
    "response.output_item.done": EventReader._item_done,
    "response.output_text.annotation.added": EventReader._annotation,
    **{f"response.{status}": EventReader._last for status in TERMINAL_EVENTS},
}


def _parts(parts: Any, kinds: Dict[Any, Tuple[str, str]]) -> Iterator[Tuple[int, str, str]]:
    """(number, kind of text, text) for each part with text."""
    for number, part in enumerate(parts if type(parts) is list else ()):
        kind, key = kinds.get(
            part.get("type") if type(part) is dict and type(part.get("type")) is str else None, ("", "")
        )
        if kind and type(part.get(key)) is str:
            yield number, kind, part[key]


def _wrapped(text: str, begin: bool) -> str:
    """A piece of freeform input as a piece of ``{"input": "..."}``."""
    inside = json.dumps(text, ensure_ascii=False)[1:-1]
    return '{"input":"' + inside if begin else inside
