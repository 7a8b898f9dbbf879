"""Output items while they are growing.

Every kind of item goes through the same events, in the same order::

    output_item.added -> [part.added] -> delta* -> done -> [part.done] -> output_item.done

Only the words differ; those of texts are in :data:`~rproxy.convert.events.text_forms.TEXT_FORMS`, those
of calls come from the offer of the tool.  An item is in one of three states: *waiting* (an item before it
is still open; what arrives is held), *live* (what arrives is sent at once) and *closed*.  It is announced
when it has something to show, because the id, call id and name of an announced item must not change any
more, and it must not stay empty.

Texts are collected in a :class:`~rproxy.convert.text_buffer.TextBuffer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, List, Optional, Protocol, Sequence, Set

from ...types import AnyItem, CallPiece, Event, Item, Json
from ..json_end import JsonEnd
from ..text_buffer import TextBuffer
from ..tools.kind import ArgumentsReader, Offer
from ..tools.table import ToolTable
from .text_forms import TextForm

if TYPE_CHECKING:
    from .code_fence import CodeFenceFilter


Watch = Callable[[AnyItem, bool], None]  # an item, and whether it is done


class EventBuilder:
    """Collects what the items of one response write: numbered events, and the list of finished items."""

    def __init__(self, ids: Callable[[str], str], sequence: int = 0, watch: Optional[Watch] = None) -> None:
        self.ids = ids
        self._watch = watch
        self.sequence = sequence  # of the next event
        self.done: List[Item] = []  # finished items; the events hold the same objects
        self.first = 0  # the number of items of earlier answers
        self.added = 0  # the number of announced items
        self.open: Json = {}  # the keys that all events of the unfinished item repeat; empty: there is none
        self.logprobs: List[Json] = []  # for the next piece of text
        self.annotations: List[Json] = []  # for the live message, or the next one
        self._events: List[Any] = []  # each is an Event
        self._call_ids: Set[str] = set()

    def go_on(self, done: Sequence[Item]) -> None:
        """Number the items after those of earlier answers of the same response."""
        self.done = [*done]
        self.first = self.added = len(done)
        self._call_ids = {item["call_id"] for item in done if "call_id" in item}

    def emit(self, type_: str, at: Json, **fields: Any) -> None:
        """Add an event with the next number.

        :param at: the keys that all events of an item repeat
        """
        self._events.append({"type": type_, "sequence_number": self.sequence, **at, **fields})
        self.sequence += 1

    def add(self, item: AnyItem) -> Json:
        """Announce an item.

        :returns: the keys that all its further events repeat
        """
        at = {"item_id": item["id"], "output_index": self.added}
        self.emit("response.output_item.added", {"output_index": self.added}, item=item)
        if self._watch is not None:
            self._watch(item, False)
        self.added += 1
        self.open = at
        return at

    def finish(self, at: Json, item: AnyItem) -> None:
        """Add ``output_item.done``, and the item to the output."""
        self.emit("response.output_item.done", {"output_index": at["output_index"]}, item=item)
        if self._watch is not None:
            self._watch(item, True)
        self.done.append(item)  # type: ignore[arg-type]  # one that is complete
        self.open = {}

    def call_id(self, wanted: Optional[str]) -> str:
        """The id of a call: the provider's, or a new one if it sent none or a duplicate, which clients
        refuse.
        """
        call_id = wanted if wanted and wanted not in self._call_ids else self.ids("call")
        self._call_ids.add(call_id)
        return call_id

    def take(self) -> List[Event]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events


class TextItem:
    """An item that holds one part with text: a message, a refusal, reasoning.

    :param fence: takes a code fence off the text
    :param seal: makes further keys for the finished item of the whole text
    :param keys: further keys of the item
    :param cite: finds the annotations of the whole text
    """

    may_close = True

    def __init__(
        self,
        builder: EventBuilder,
        kind: TextForm,
        fence: Optional[CodeFenceFilter] = None,
        seal: Optional[Callable[[str], Json]] = None,
        keys: Optional[Json] = None,
        cite: Optional[Callable[[str], List[Json]]] = None,
    ) -> None:
        self.kind = kind
        self.phase: Optional[str] = None  # of a message, once the converter knows it
        self._builder = builder
        self._fence = fence
        self._seal = seal
        self._keys = keys or {}
        self._cite = cite
        self._live = False
        self._waiting: List[str] = []
        self._sent = TextBuffer()
        self._item: Json = {}
        self._at: Json = {}  # the keys that all its events repeat
        self._annotations: List[Json] = []
        self._logprobs: List[Json] = []

    @property
    def text(self) -> str:
        return self._sent.text()

    @property
    def received(self) -> str:
        """The text, including the waiting part."""
        return "".join([self.text, *self._waiting])

    def start(self) -> None:
        """The item before it has closed."""
        self._live = True
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._emit_text("".join(waiting))

    def feed(self, text: str) -> None:
        if self._fence is not None:
            text = self._fence.feed(text)
        if not text:
            return
        if self._live:
            self._emit_text(text)
        else:
            self._waiting.append(text)

    def _emit_text(self, text: str) -> None:
        kind = self.kind
        if not self._sent:
            self._announce()
            self._at[kind.counter] = 0
            self._builder.emit(kind.part_event + ".added", self._at, part=kind.new_part("", [], []))
        self._sent.append(text)
        if not kind.annotated:
            self._builder.emit(kind.delta_event, self._at, delta=text)
            return
        logprobs: List[Json] = []
        if self._builder.logprobs:
            logprobs, self._builder.logprobs = self._builder.logprobs, logprobs
            self._logprobs += logprobs
        self._builder.emit(kind.delta_event, self._at, delta=text, logprobs=logprobs)
        if self._builder.annotations:
            self.annotate()

    def _announce(self) -> None:
        self._item = {
            "id": self._builder.ids(self.kind.prefix),
            **self.kind.head,
            **{name: [] for name in self.kind.lists},
            **self._keys,
        }
        self._at = self._builder.add(self._item)

    def annotate(self) -> None:
        """Send the annotations that have arrived, if this is text that they can belong to."""
        if self.kind.annotated and self._sent:
            for annotation in self._builder.annotations:
                self._builder.emit(
                    self.kind.text_event + ".annotation.added",
                    self._at,
                    annotation_index=len(self._annotations),
                    annotation=annotation,
                )
                self._annotations.append(annotation)
            self._builder.annotations = []

    def close(self, cut: bool = False) -> None:
        """:param cut: the answer ended before it was complete, and this is its last item"""
        rest = self._fence.close() if self._fence is not None else ""
        if rest:
            self._emit_text(rest)
        text = self.text
        seal, self._seal = self._seal, None  # breaks a reference cycle with the converter
        more = seal(text) if seal is not None else {}
        if text:
            if self._cite is not None:
                self._builder.annotations += self._cite(text)
                self.annotate()
            more = {self.kind.holder: [self._close_part(text)], **more}
        elif more:
            self._announce()  # nothing to read, but something to give back: encrypted reasoning
        else:
            return
        if self.phase is not None and "phase" not in self._item:
            more["phase"] = self.phase
        if "status" in self._item:
            more["status"] = "incomplete" if cut else "completed"
        self._builder.finish(self._at, {**self._item, **more})

    def partial(self) -> Optional[Json]:
        """The item as far as it was announced; None if it was not."""
        if not self._item:
            return None
        kind, text = self.kind, self.text
        seal, self._seal = self._seal, None
        part = kind.new_part(text, self._annotations, self._logprobs)
        item = {**self._item, kind.holder: [part], **(seal(text) if seal is not None else {})}
        return {**item, "status": "incomplete"} if "status" in item else item

    def _close_part(self, text: str) -> Json:
        kind = self.kind
        part = kind.new_part(text, self._annotations, self._logprobs)
        repeated = {key: value for key, value in part.items() if key in (kind.field, "logprobs")}
        self._builder.emit(kind.text_event + ".done", self._at, **repeated)
        self._builder.emit(kind.part_event + ".done", self._at, part=part)
        return part


class CallItem:
    """A call of a tool.

    It is announced when its id and its complete name are known, that is when arguments arrive, or else when
    it closes.
    """

    def __init__(self, builder: EventBuilder, tools: ToolTable) -> None:
        self.name = ""
        self.extra_content: Optional[Json] = None
        self._builder = builder
        self._tools = tools
        self._id: Optional[str] = None
        self._live = self._closed = False
        self._waiting: List[str] = []
        self._end = JsonEnd()
        self._offer: Optional[Offer] = None  # None: not announced
        self._reader = ArgumentsReader()
        self._item: Json = {}
        self._at: Json = {}  # the keys that all its events repeat

    @property
    def call_id(self) -> Optional[str]:
        """As the client knows it; None: not announced."""
        return self._item.get("call_id")

    @property
    def may_close(self) -> bool:
        return self._offer is not None and self._end.reached

    def start(self) -> None:
        """The item before it has closed."""
        self._live = True
        self._announce_if_known()

    def feed(self, piece: CallPiece) -> None:
        if self._closed:
            return  # its arguments were a complete object: this is white space or garbage
        self.extra_content = piece["extra_content"] or self.extra_content
        self._id = piece["id"] or self._id
        self.name = (piece["name"] or "").strip() or self.name
        fragment = piece["arguments"]
        if fragment:
            self._end.feed(fragment)
            if self._offer is None:
                self._waiting.append(fragment)
            else:
                self._emit_text(self._reader.feed(fragment))
        self._announce_if_known()

    def _announce_if_known(self) -> None:
        if self._offer is None and self._live and self._id and self.name and self._waiting:
            self._announce()

    def _announce(self) -> Offer:
        offer = self._offer = self._tools.offer(self.name)
        self._reader = offer.reader()
        self._item = offer.item(self._builder.ids(offer.kind.prefix), self._builder.call_id(self._id))
        self._at = self._builder.add(self._item)
        self._emit_text(self._reader.feed("".join(self._waiting)))
        return offer

    def _emit_text(self, text: str) -> None:
        if text and self._offer is not None and self._offer.kind.delta_type:
            self._builder.emit(self._offer.kind.delta_type, self._at, delta=text)

    def close(self, cut: bool = False) -> None:
        """:param cut: the answer ended before it was complete.  An incomplete call must not look complete, so
        it stays open.
        """
        self._closed = True
        if not self.name or cut and not self._end.reached:
            return
        offer = self._offer or self._announce()
        if self._end.untouched:
            # Clients parse the arguments, and take them from the deltas.
            self._emit_text(self._reader.feed("{}"))
        rest, whole = self._reader.close()
        self._emit_text(rest)
        if offer.kind.done_type:
            name = {"name": self._item["name"]} if "name" in self._item else {}
            self._builder.emit(offer.kind.done_type, self._at, **{offer.kind.text_field: whole}, **name)
        self._builder.finish(self._at, offer.finish(self._item, whole))

    def partial(self) -> Optional[Json]:
        """The item as far as it was announced; None if it was not."""
        if self._offer is None:
            return None
        return {**self._offer.finish(self._item, self._reader.close()[1]), "status": "incomplete"}


class OpaqueItem:
    """A complete item of a kind that rproxy does not know (a web search that the provider ran)."""

    may_close = True

    def __init__(self, builder: EventBuilder, item: Json) -> None:
        self._builder = builder
        self._item = item
        self._sent = False

    def start(self) -> None:
        """The item before it has closed."""
        if self._sent:
            return
        self._sent = True
        prefix, found, _ = str(self._item.get("id")).partition("_")
        if not (found and prefix.isalnum() and len(prefix) <= 8):
            prefix = "item"
        item = {**self._item, "id": self._builder.ids(prefix)}
        at = self._builder.add({**item, "status": "in_progress"} if "status" in item else item)
        self._builder.finish(at, item)

    def close(self, cut: bool = False) -> None:
        """Nothing to do: it was complete from the beginning."""

    def partial(self) -> Optional[Json]:
        """Nothing: what was announced is finished."""
        return None


class GrowingItem(Protocol):
    """An item of the queue."""

    @property
    def may_close(self) -> bool:
        """May it close when another item follows?"""

    def start(self) -> None:
        """The item before it has closed."""

    def close(self, cut: bool = False) -> None:
        """:param cut: the answer ended before it was complete, and this is its last item"""

    def partial(self) -> Optional[Json]:
        """The item as far as it was announced; None if it was not."""
