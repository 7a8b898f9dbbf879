"""Deltas of an answer in, Responses events out.

The items of a response wait in a queue, in the order of their first appearance.  Only the first item of the
queue is *live*: what arrives for it is sent at once; what arrives for the others is held.  Text belongs to
the last item of the queue if that is of the same kind, and opens a new item otherwise, so text that continues
after a call is an item of its own.  An item may close as soon as another one follows it.  A call must
have complete arguments as well, because providers interleave the fragments of parallel calls, and clients
lose the arguments when items interleave.

A finish_reason ends nothing, because usage and even more text may follow.  The caller knows when the provider
has stopped; it then asks :meth:`StreamConverter.failure` and calls exactly one of ``finish``, ``fail`` and
``interrupt``.  A whole completion (the answer to a request without ``stream``) is a stream of one chunk.

Whatever the chunks are, the events are a well-formed stream; nothing here raises.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, Iterable, List, Optional, Sequence

from ...types import CallPiece, Delta, Event, Json, Response, ResponseError, Usage
from ..answer.chat import ChunkReader
from ..answer.fields import is_keep_alive
from ..answer.reader import MAX_ITEMS, AnswerReader, too_many
from ..answer.unparsed import Unparsed
from ..json_steps import is_large
from ..profile import AnswerForm
from ..status import TERMINAL_EVENTS
from ..tools.table import ToolTable
from .annotations import annotation_of, logprobs_of
from .items import CallItem, EventBuilder, GrowingItem, OpaqueItem, TextItem, Watch
from .response import heartbeat_object, shared_response, usage_object
from .terminal import FAILED, INTERRUPTED, TERMINAL_STATUSES, Failure, TerminalStatus, failure_of
from .text_forms import TEXT_FORMS, TextForm

if TYPE_CHECKING:
    from .code_fence import CodeFenceFilter

COMMENTARY, FINAL_ANSWER = "commentary", "final_answer"  # phases of a message
MAX_SEALED = 1 << 20  # characters of reasoning that a client can bring back; to seal more takes too long


class StreamConverter:
    """One answer of a provider, as the events of one response.

    ``start()`` once, ``feed(chunk)`` for each chunk, then ``finish()``, ``fail()`` or ``interrupt()`` once;
    each returns a list of events, and all return nothing after the last event.  Events may share objects with
    each other and with ``response``: do not change them.

    :param response: as :func:`~rproxy.convert.events.response.response_object` makes it
    :param tools: what the calls of the answer stand for
    :param ids: makes a new id for a prefix (``msg``, ``rs``, ``fc``, ``ctc``, ..., ``call``)
    :param now: returns the time in seconds since the epoch
    :param reasoning: ``summary`` or ``content``: in which of its two forms reasoning is shown
    :param seal: makes ``encrypted_content`` of ``{"text": ..., "details": ...}``; None: the client does not
        want any
    :param reader: reads what is fed; default: a ChunkReader without any of the forms of a profile
    :param refusal_as_text: write refusals as text, because Codex loses messages with a refusal part
    :param strip_fences: the client wants JSON, but the provider could only be asked for it in the prompt
    :param logprobs: the client asked for the probabilities of the tokens
    :param phases: mark each message as ``commentary`` (a call follows) or ``final_answer``, so that clients
        that want JSON do not parse a preamble
    :param cached: see :func:`~rproxy.convert.events.response.usage_object`
    :param sequence: the first sequence_number; above 0 after an attempt of which the client saw the first
        events, but no item
    :param watch: called with each item when it is announced, and when it is done
    """

    def __init__(
        self,
        response: Response,
        tools: ToolTable,
        *,
        ids: Callable[[str], str],
        now: Callable[[], int],
        reasoning: str = "summary",
        seal: Optional[Callable[[Json], str]] = None,
        reader: Optional[AnswerReader] = None,
        refusal_as_text: bool = False,
        strip_fences: bool = False,
        logprobs: bool = False,
        phases: bool = False,
        cached: str = "hit",
        sequence: int = 0,
        watch: Optional[Watch] = None,
    ) -> None:
        self.response = response
        self.reader: AnswerReader = reader or ChunkReader(AnswerForm())
        self._tools = tools
        self._now = now
        self._seal = seal
        self._strip_fences = strip_fences
        self._cached = cached
        self._builder = EventBuilder(ids, sequence, watch)
        self._queue: Deque[GrowingItem] = deque()
        self._calls: Dict[int, CallItem] = {}
        self._reasoning_items: List[TextItem] = []  # the reasoning items
        self._details_seen = self._details_sealed = 0
        self._keep_alives = 0
        self._reader_ended = self._ended = False
        self._reasoning = TEXT_FORMS[reasoning]
        self._text_forms: Dict[str, TextForm] = {
            "text": TEXT_FORMS["text"],
            "reasoning": self._reasoning,
            "refusal": TEXT_FORMS["text" if refusal_as_text else "refusal"],
        }
        self._logprobs = logprobs
        self._phases = phases
        self._cite: Optional[Callable[[str], List[Json]]] = None  # finds the annotations of a text

    @classmethod
    def empty(cls, response: Response, *, now: Callable[[], int]) -> StreamConverter:
        """The converter of an answer that is complete and empty: no provider was called.

        Ready for ``start()`` and ``finish()``.
        """
        stream = cls(response, ToolTable(), ids=str, now=now)
        stream.feed({"choices": []})
        return stream

    @property
    def visible(self) -> bool:
        """Has the client seen a part of the answer?  Then asking again would not go unnoticed."""
        return self._builder.added > self._builder.first

    @property
    def shown(self) -> bool:
        """Has the client seen a part of the response?"""
        return self._builder.added > 0

    @property
    def content(self) -> int:
        """How many chunks had content; keep-alives do not count."""
        return self.reader.chunks - self._keep_alives

    @property
    def is_empty(self) -> bool:
        """Is there no output so far?"""
        return not (self.visible or self._queue)

    @property
    def finish_seen(self) -> bool:
        """Has the provider given a finish_reason?  More may follow."""
        return self.reader.finish is not None

    @property
    def reasoning_text(self) -> str:
        """The reasoning so far, for a provider that wants it back."""
        return "".join(item.text for item in self._reasoning_items)

    @property
    def extra_content(self) -> Dict[str, Json]:
        """Call id -> what the provider wants back with that call (Gemini: the signature of its thinking)."""
        return {
            call.call_id: call.extra_content
            for call in self._calls.values()
            if call.call_id and call.extra_content
        }

    @property
    def counted(self) -> Optional[Usage]:
        """The tokens that the provider has counted so far, hits as ``cached_tokens``; None: it has not."""
        if self.reader.usage is None:
            return None
        shown = self.response["usage"]
        return shown if shown is not None and self._cached == "hit" else usage_object(self.reader.usage)

    @property
    def transparent(self) -> bool:
        """Would more text go out as it comes, in the item that is open?"""
        return (
            self.reader.transparent
            and not (self._strip_fences or self._logprobs or self._ended)
            and len(self._queue) == 1
        )

    def advance(self, count: int) -> int:
        """Reserve the numbers of delta events that :mod:`.fastpath` writes, each from a chunk of its own.

        :returns: the first of them
        """
        first = self._builder.sequence
        self._builder.sequence = first + count
        self.reader.chunks += count
        return first

    @property
    def sequence(self) -> int:
        """The sequence_number of the next event, for a converter that continues after this one."""
        return self._builder.sequence

    def next_sequence(self) -> int:
        """Reserve the number of an event that the caller makes: the ``error`` event before
        ``response.failed``.
        """
        self._builder.sequence += 1
        return self._builder.sequence - 1

    def start(self) -> List[Event]:
        """``response.created`` and ``response.in_progress``."""
        response = shared_response(self.response)
        self._builder.emit("response.created", {}, response=response)
        self._builder.emit("response.in_progress", {}, response=response)
        return self._builder.take()

    def heartbeat(self) -> List[Event]:
        """An event without content, for a client that would give up on a silent stream."""
        if not self._ended:
            self._builder.emit("response.in_progress", {}, response=heartbeat_object(self.response))
        return self._builder.take()

    def feed(self, chunk: Json) -> List[Event]:
        """The events of a chunk, or of all chunks in one that the decoder has left unparsed."""
        if not self._ended:
            if type(chunk) is Unparsed:
                return [event for part in chunk.parsed() for event in self.feed(part)]
            deltas = self.reader.read(chunk)
            if not deltas and is_keep_alive(chunk):
                self._keep_alives += 1
            self._apply(deltas)
        return self._builder.take()

    def failure(self, done: bool) -> Optional[Failure]:
        """Why this answer cannot be completed, now that the provider has stopped.

        :param done: see :func:`~rproxy.convert.events.terminal.failure_of`
        :returns: None if it can: call :meth:`finish`
        """
        self._end_reader()
        return failure_of(
            self.reader,
            done=done,
            is_empty=not (self.visible or self._queue),
            nameless_call=any(isinstance(item, CallItem) and not item.name for item in self._queue),
        )

    def finish(self) -> List[Event]:
        """Close what is open and end the response: ``response.completed`` or ``response.incomplete``.

        What :meth:`failure` calls a failure becomes ``response.failed``.
        """
        if self._ended:
            return []
        failure = self.failure(True)
        if failure is not None:
            return self.fail(failure.code, failure.message)
        ending = TERMINAL_STATUSES[self.reader.finish]
        while self._queue:
            if self._phases:
                self._set_phase(FINAL_ANSWER)
            item = self._queue.popleft()
            item.start()
            item.close(cut=ending.status == "incomplete" and not (self._queue and item.may_close))
        return self._end(ending)

    def fail(
        self, code: str, message: str, *, type: str = "server_error", param: Optional[str] = None
    ) -> List[Event]:
        """``response.failed``.  What is open stays open, and is not part of the output.

        :param code: what clients branch on, e.g. ``rate_limit_exceeded``, ``context_length_exceeded``,
            ``server_error``
        """
        if self._ended:
            return []
        self._end_reader()
        return self._end(FAILED, error={"code": code, "message": message, "type": type, "param": param})

    def interrupt(self) -> List[Event]:
        """``response.incomplete`` with the reason ``interrupted``: the user wants to say something.

        Only finished items are part of the output.  Codex first gets an event that accepts its
        ``response.interrupt``, and one that names the item that stays unfinished.
        """
        if self._ended:
            return []
        whose = {"response_id": self.response["id"]}
        self._builder.emit("response.interrupt.accepted", whose)
        if self._builder.open:
            at = {key: self._builder.open[key] for key in ("item_id", "output_index")}
            self._builder.emit("response.output_item.interrupted", whose, **at)
        return self._end(INTERRUPTED)

    def unfinished_response(self) -> Response:
        """The response as far as it came, with the item that was announced but not finished.

        For the store, when the answer broke off (after :meth:`fail`) or its client left.
        """
        self._end_reader()
        partial: Any = self._queue[0].partial() if self._queue else None
        response: Response = {
            **self.response,
            "output": [*self._builder.done, *([partial] if partial else [])],
        }
        if not self._ended:
            response["status"] = "incomplete"  # without a reason: the SDKs know none for this
            response["usage"] = self._usage() or usage_object(None)
        return response

    # ---- Deltas to items
    def _apply(self, deltas: Sequence[Delta]) -> None:
        if self._seal is not None and len(self.reader.reasoning_details) > self._details_seen:
            self._details_seen = len(self.reader.reasoning_details)
            self._last(self._reasoning)
        if self._logprobs:
            # First, because they belong to text that comes with them.
            for delta in deltas:
                if delta[0] == "logprobs":
                    self._builder.logprobs += logprobs_of(delta[1])
        for delta in deltas:
            if delta[0] in ("text", "reasoning", "refusal"):
                self._last(self._text_forms[delta[0]]).feed(delta[1])
            elif delta[0] == "call":
                self._call(delta[1], delta[2])
            elif delta[0] == "annotations":
                self._annotate(delta[1])
            elif delta[0] == "begin":
                self._open(self._text_forms[delta[1]], delta[2])
            elif delta[0] == "detail":
                self._detail(delta[1])
            elif delta[0] == "item":
                self._append(OpaqueItem(self._builder, delta[1]))

    def _last(self, kind: TextForm) -> TextItem:
        """The last item of the queue if it is of this kind, else a new one."""
        last = self._queue[-1] if self._queue else None
        if isinstance(last, TextItem) and last.kind is kind:
            return last
        return self._open(kind)

    def _open(self, kind: TextForm, keys: Optional[Json] = None) -> TextItem:
        if kind is self._reasoning:
            item = TextItem(self._builder, kind, seal=self._sealed)
            self._reasoning_items.append(item)
        else:
            fence = _code_fence() if self._strip_fences and kind is TEXT_FORMS["text"] else None
            if self._phases and not keys and not self._tools.chat_tools:
                keys = {"phase": FINAL_ANSWER}  # nothing can follow
            cite = self._cite if kind is TEXT_FORMS["text"] else None
            item = TextItem(self._builder, kind, fence, keys=keys, cite=cite)
        self._append(item)
        return item

    def _detail(self, detail: Json) -> None:
        self.reader.reasoning_details.append(detail)
        if self._seal is not None:
            self._details_seen += 1
            self._last(self._reasoning)

    def _call(self, number: int, piece: CallPiece) -> None:
        call = self._calls.get(number)
        if call is None:
            call = self._calls[number] = self._new_call()
            self._append(call)
        call.feed(piece)
        self._close_first()

    def _new_call(self) -> CallItem:
        return CallItem(self._builder, self._tools)

    def _annotate(self, annotations: Iterable[object]) -> None:
        self._builder.annotations += filter(None, map(annotation_of, annotations))
        live = self._queue[0] if self._queue else None
        if isinstance(live, TextItem):
            live.annotate()

    def _append(self, item: GrowingItem) -> None:
        if self._builder.added - self._builder.first + len(self._queue) >= MAX_ITEMS:
            self.reader.error = self.reader.error or too_many("items", MAX_ITEMS)
        self._queue.append(item)
        if len(self._queue) == 1:
            item.start()
        self._close_first()

    def _close_first(self) -> None:
        """Close the first item if others wait for it and it may be closed; then the next one, and so on."""
        while len(self._queue) > 1 and self._queue[0].may_close:
            if self._phases and not self._set_phase(None):
                return
            self._queue.popleft().close()
            self._queue[0].start()

    def _set_phase(self, otherwise: Optional[str]) -> bool:
        """Give the first item its phase, if it is a message.

        :param otherwise: the phase when nothing but reasoning follows it
        :returns: False if its phase is not known yet
        """
        first = self._queue[0]
        if not isinstance(first, TextItem) or first.kind is self._reasoning:
            return True
        for item in islice(self._queue, 1, None):
            if not (isinstance(item, TextItem) and item.kind is self._reasoning):
                first.phase = COMMENTARY if isinstance(item, CallItem) else FINAL_ANSWER
                return True
        first.phase = otherwise
        return otherwise is not None

    def _sealed(self, text: str) -> Json:
        """The keys that let a client give the reasoning back; each detail of the provider goes into one item
        only.
        """
        if self._seal is None:
            return {}
        details = self.reader.reasoning_details[self._details_sealed :]
        self._details_sealed += len(details)
        payload: Json = {"text": text}
        if details:
            payload["details"] = details
        if not (text or details) or is_large(payload, MAX_SEALED):
            return {}
        return {"encrypted_content": self._seal(payload)}

    # ---- The end
    def _end_reader(self) -> None:
        """Apply what the reader held back.  The events leave with the next ones."""
        if not self._reader_ended:
            self._reader_ended = True
            self._apply(self.reader.end())

    def _end(self, ending: TerminalStatus, *, error: Optional[ResponseError] = None) -> List[Event]:
        self._ended = True
        status, reason = ending
        usage = self._usage()
        response: Response = {
            **self.response,
            "status": status,
            "completed_at": self._now() if status == "completed" else None,
            "error": error,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": self._builder.done,
            "usage": usage_object(None) if usage is None and status != "failed" else usage,
        }
        self.response = shared_response(response)  # the record and the last event
        self._builder.emit(TERMINAL_EVENTS[status], {}, response=self.response)
        return self._builder.take()

    def _usage(self) -> Optional[Usage]:
        """The tokens as the client sees them; None: the provider has counted none."""
        return None if self.reader.usage is None else usage_object(self.reader.usage, self._cached)


def _code_fence() -> CodeFenceFilter:
    from .code_fence import CodeFenceFilter  # for providers that were asked for JSON in words only

    return CodeFenceFilter()
