"""Chat Completions chunks in, Responses events out.

The items of a response stand in a queue, in the order of their first appearance.  Only the first of the queue
is *live*: what arrives for it is sent at once; what arrives for the others waits.  Text belongs to the last
item of the queue if that is of its kind, and opens a new item otherwise, so text that comes back after a call
is an item of its own.  An item may close as soon as another one stands behind it; a call only when its
arguments are a complete JSON object as well, because providers interleave the fragments of parallel calls,
and clients lose the arguments when items interleave.

A finish_reason ends nothing, because usage and even more text may follow.  The caller knows when the provider
has stopped; then it asks :meth:`StreamConverter.failure` and calls exactly one of ``finish``, ``fail`` and
``interrupt``.  A whole completion (what a provider answers without ``stream``) is a stream of one chunk.

Whatever the chunks are, the events are a well-formed stream; nothing here raises.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Protocol, Tuple

from ...types import Json
from ..answer.chat import ChunkReader
from ..profile import Answer
from ..tools.table import ToolTable
from .code_fence import Fences
from .items import KINDS, Call, EventBuilder, Item, Kind, OpaqueItem, TextItem
from .response import usage_object


class TerminalStatus(NamedTuple):
    status: str  # of the response; also the terminal event
    reason: Optional[str]  # incomplete_details.reason


COMPLETED = TerminalStatus("completed", None)
ENDINGS: Dict[Optional[str], TerminalStatus] = {
    None: COMPLETED,  # [DONE] alone
    "stop": COMPLETED,
    "tool_calls": COMPLETED,
    "length": TerminalStatus("incomplete", "max_output_tokens"),
    "context": TerminalStatus(
        "incomplete", "max_output_tokens"
    ),  # with some output; without, it is a failure
    "content_filter": TerminalStatus("incomplete", "content_filter"),
    "error": TerminalStatus("failed", None),
}


OWN_ANNOTATIONS = ("file_citation", "container_file_citation", "file_path")  # of the Responses API alone


class Reader(Protocol):
    """Makes deltas of what a provider sends; see :class:`~rproxy.convert.answer.chat.ChunkReader` for the
    meaning of all this."""

    chunks: int
    finish: Optional[str]
    error: Optional[Json]
    usage: Optional[Json]
    reasoning_details: List[Json]
    over: bool  # what comes after this is of no interest

    @property
    def transparent(self) -> bool: ...  # does text pass unchanged from now on?

    def read(self, chunk: Json) -> List[Tuple[Any, ...]]: ...

    def end(self) -> List[Tuple[Any, ...]]: ...


class Failure(NamedTuple):
    """Why an answer cannot be completed.

    ``raw`` is the provider's error object, when it sent one: it knows better than ``code``.
    """

    code: str
    message: str
    raw: Any = None


class StreamConverter:
    """One answer of a provider, as the events of one response.

    ``start()`` once, ``feed(chunk)`` for each chunk, then ``finish()``, ``fail()`` or ``interrupt()`` once;
    each returns a list of events, and all return nothing after the last event.  Events may share objects with
    each other and with ``response``: do not change them.

    :arg response: as :func:`~rproxy.convert.events.response.response_object` makes it
    :arg tools: what the calls of the answer stand for
    :arg ids: gives a new id for a prefix (``msg``, ``rs``, ``fc``, ``ctc``, ..., ``call``)
    :arg now: the time in seconds since the epoch
    :arg reasoning: ``summary`` or ``content``: in which of its two forms the thinking is shown
    :arg seal: makes ``encrypted_content`` of ``{"text": ..., "details": ...}``; None: the client does not
        want any
    :arg answer: how the provider writes its answers
    :arg reader: reads what is fed; default: a ChunkReader for ``answer``
    :arg refusal_as_text: Codex loses messages with a refusal part
    :arg strip_fences: the client wants JSON that the provider was only asked for in words
    :arg logprobs: the client asked for the probabilities of the tokens
    :arg cached: see :func:`~rproxy.convert.events.response.usage_object`
    :arg sequence: the first sequence_number; more than 0 after a try of which the client saw the first
        events, but no item
    """

    def __init__(
        self,
        response: Json,
        tools: ToolTable,
        *,
        ids: Callable[[str], str],
        now: Callable[[], int],
        reasoning: str = "summary",
        seal: Optional[Callable[[Json], str]] = None,
        answer: Answer = Answer(),
        reader: Optional[Reader] = None,
        refusal_as_text: bool = False,
        strip_fences: bool = False,
        logprobs: bool = False,
        cached: str = "hit",
        sequence: int = 0,
    ) -> None:
        self.response = response
        self.reader: Reader = reader or ChunkReader(answer)
        self._tools = tools
        self._now = now
        self._seal = seal
        self._strip_fences = strip_fences
        self._cached = cached
        self._builder = EventBuilder(ids, sequence)
        self._queue: Deque[Item] = deque()
        self._calls: Dict[int, Call] = {}
        self._thoughts: List[TextItem] = []
        self._details_seen = self._details_sealed = 0
        self._drained = self._ended = False
        self._reasoning = KINDS[reasoning]
        self._texts: Dict[str, Kind] = {
            "text": KINDS["text"],
            "reasoning": self._reasoning,
            "refusal": KINDS["text" if refusal_as_text else "refusal"],
        }
        self._logprobs = logprobs

    @classmethod
    def empty(cls, response: Json, *, now: Callable[[], int]) -> StreamConverter:
        """The converter of an answer that is complete and empty: nobody was asked.

        Ready for ``start()`` and ``finish()``.
        """
        stream = cls(response, ToolTable(), ids=str, now=now)
        stream.feed({"choices": []})
        return stream

    @property
    def visible(self) -> bool:
        """Has the client seen something of the answer? Then it cannot be asked for again in silence."""
        return self._builder.added > 0

    @property
    def is_empty(self) -> bool:
        """Has the provider said nothing at all so far?"""
        return not (self._builder.added or self._queue)

    @property
    def finish_seen(self) -> bool:
        return self.reader.finish is not None

    @property
    def reasoning_text(self) -> str:
        """The thinking so far, for a provider that wants it back."""
        return "".join(thought.text for thought in self._thoughts)

    @property
    def extra_content(self) -> Dict[str, Json]:
        """Call id -> what the provider wants back with that call (Gemini: the signature of its thinking)."""
        return {
            call.call_id: call.extra_content
            for call in self._calls.values()
            if call.call_id and call.extra_content
        }

    @property
    def transparent(self) -> bool:
        """Would more text go out as it comes, in the item that is open?"""
        return (
            self.reader.transparent
            and not (self._strip_fences or self._logprobs or self._ended)
            and len(self._queue) == 1
        )

    def advance(self, count: int) -> int:
        """Deltas are told by somebody else (:mod:`.fastpath`), each from a chunk of its own.

        :returns: the number of the first
        """
        first = self._builder.sequence
        self._builder.sequence = first + count
        self.reader.chunks += count
        return first

    @property
    def sequence(self) -> int:
        """The sequence_number of the next event, for a converter that goes on after this one."""
        return self._builder.sequence

    def next_sequence(self) -> int:
        """Takes a sequence_number for an event that the caller makes: the ``error`` event before
        ``response.failed``."""
        self._builder.sequence += 1
        return self._builder.sequence - 1

    def start(self) -> List[Json]:
        self._builder.emit("response.created", {}, response=self.response)
        return self.heartbeat()

    def heartbeat(self) -> List[Json]:
        """An event without news, for a client that would give up on a silent stream."""
        if not self._ended:
            self._builder.emit("response.in_progress", {}, response=self.response)
        return self._builder.take()

    def feed(self, chunk: Json) -> List[Json]:
        if not self._ended:
            self._apply(self.reader.read(chunk))
        return self._builder.take()

    def failure(self, done: bool) -> Optional[Failure]:
        """Why this answer cannot be completed, now that the provider has stopped; None: call :meth:`finish`.

        :arg done: the provider said so (``[DONE]``, or a whole JSON document), and did not just hang up
        """
        self._drain()
        finish = self.reader.finish
        if self.reader.error is not None:
            return Failure(
                "server_error", "The provider reported an error instead of an answer.", self.reader.error
            )
        if not self.reader.chunks:
            return Failure(
                "server_error",
                "The provider answered 200, but sent nothing. Try again; if it stays so, check base_url.",
            )
        if finish == "error":
            return Failure(
                "server_error", "The provider broke off its answer (finish_reason error). Try again."
            )
        if finish == "context" and not (self.visible or self._queue):
            return Failure(
                "context_length_exceeded",
                "The input is longer than the context window of the model. Shorten it.",
            )
        if finish is None and not done:
            return Failure(
                "server_error",
                "The provider's stream was truncated: it ended without finish_reason and [DONE]. Try again.",
            )
        if ENDINGS[finish] is COMPLETED and any(
            isinstance(item, Call) and not item.name for item in self._queue
        ):
            return Failure(
                "server_error",
                "The provider sent a tool call without a name, which nobody can run. Try again.",
            )
        return None

    def finish(self) -> List[Json]:
        """Close what is open, and say how it ended: ``response.completed`` or ``response.incomplete``.

        What :meth:`verdict` calls a failure becomes one here, too.
        """
        if self._ended:
            return []
        failure = self.failure(True)
        if failure is not None:
            return self.fail(failure.code, failure.message)
        status, reason = ENDINGS[self.reader.finish]
        while self._queue:
            item = self._queue.popleft()
            item.start()
            item.close(cut=status == "incomplete" and not (self._queue and item.may_close))
        return self._end(status, reason=reason)

    def fail(
        self, code: str, message: str, *, type: str = "server_error", param: Optional[str] = None
    ) -> List[Json]:
        """``response.failed``. What is open stays open, and is not part of the output.

        :arg code: what clients branch on, e.g. ``rate_limit_exceeded``, ``context_length_exceeded``,
            ``server_error``
        """
        if self._ended:
            return []
        self._drain()
        return self._end("failed", error={"code": code, "message": message, "type": type, "param": param})

    def interrupt(self) -> List[Json]:
        """``response.incomplete`` with the reason ``interrupted``: the user wants to say something. Only
        finished items count.

        Codex is told before that its ``response.interrupt`` was heard, and which item it will not get to the
        end.
        """
        if self._ended:
            return []
        whose = {"response_id": self.response["id"]}
        self._builder.emit("response.interrupt.accepted", whose)
        if self._builder.open:
            at = {key: self._builder.open[key] for key in ("item_id", "output_index")}
            self._builder.emit("response.output_item.interrupted", whose, **at)
        return self._end("incomplete", reason="interrupted")

    # ---- from chunks to items
    def _apply(self, deltas: Iterable[Tuple[Any, ...]]) -> None:
        if self._seal is not None and len(self.reader.reasoning_details) > self._details_seen:
            self._details_seen = len(self.reader.reasoning_details)
            self._last(self._reasoning)
        if self._logprobs:
            # First, because they belong to text that comes with them.
            self._builder.logprobs += [
                entry for delta in deltas if delta[0] == "logprobs" for entry in _logprobs(delta[1])
            ]
        for delta in deltas:
            kind = self._texts.get(delta[0])
            if kind is not None:
                self._last(kind).feed(delta[1])
            elif delta[0] == "call":
                self._call(delta[1], delta[2])
            elif delta[0] == "annotations":
                self._annotate(delta[1])
            elif delta[0] in _RARE:
                _RARE[delta[0]](self, *delta[1:])

    def _last(self, kind: Kind) -> TextItem:
        """The last item of the queue if it is of this kind, else a new one."""
        last = self._queue[-1] if self._queue else None
        if isinstance(last, TextItem) and last.kind is kind:
            return last
        return self._open(kind)

    def _open(self, kind: Kind, head: Optional[Json] = None) -> TextItem:
        if kind is self._reasoning:
            item = TextItem(self._builder, kind, seal=self._sealed)
            self._thoughts.append(item)
        else:
            item = TextItem(
                self._builder,
                kind,
                Fences() if self._strip_fences and kind is KINDS["text"] else None,
                head=head,
            )
        self._append(item)
        return item

    # what only a provider with the Responses API says
    def _begin(self, kind: str, head: Json) -> None:
        self._open(self._texts[kind], head)

    def _detail(self, detail: Json) -> None:
        self.reader.reasoning_details.append(detail)
        if self._seal is not None:
            self._details_seen += 1
            self._last(self._reasoning)

    def _whole(self, item: Json) -> None:
        self._append(OpaqueItem(self._builder, item))

    def _call(self, key: int, news: Json) -> None:
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = Call(self._builder, self._tools)
            self._append(call)
        call.feed(news)
        self._advance()

    def _annotate(self, annotations: Iterable[Any]) -> None:
        self._builder.annotations += filter(None, map(_annotation, annotations))
        live = self._queue[0] if self._queue else None
        if isinstance(live, TextItem):
            live.annotate()

    def _append(self, item: Item) -> None:
        self._queue.append(item)
        if len(self._queue) == 1:
            item.start()
        self._advance()

    def _advance(self) -> None:
        """Close the first of the queue if it stands in the way of others and may be closed; and the next, and
        so on."""
        while len(self._queue) > 1 and self._queue[0].may_close:
            self._queue.popleft().close()
            self._queue[0].start()

    def _sealed(self, text: str) -> Json:
        """The keys that let a client give the thinking back; each detail of the provider goes into one item
        only."""
        if self._seal is None:
            return {}
        details = self.reader.reasoning_details[self._details_sealed :]
        self._details_sealed += len(details)
        payload: Json = {"text": text}
        if details:
            payload["details"] = details
        return {"encrypted_content": self._seal(payload)} if text or details else {}

    # ---- the end
    def _drain(self) -> None:
        """What the reader held back. The events go out with the next ones."""
        if not self._drained:
            self._drained = True
            self._apply(self.reader.end())

    def _end(self, status: str, *, reason: Optional[str] = None, error: Optional[Json] = None) -> List[Json]:
        self._ended = True
        usage = self.reader.usage
        self.response = {
            **self.response,
            "status": status,
            "completed_at": self._now() if status == "completed" else None,
            "error": error,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": self._builder.done,
            "usage": None if usage is None and status == "failed" else usage_object(usage, self._cached),
        }
        self._builder.emit("response." + status, {}, response=self.response)
        return self._builder.take()


_RARE: Dict[str, Callable[..., None]] = {
    "begin": StreamConverter._begin,
    "detail": StreamConverter._detail,
    "item": StreamConverter._whole,
}


def _annotation(raw: Any) -> Optional[Json]:
    """An annotation in the words of Responses; None for what is none.

    Chat knows only ``url_citation``, with an object inside.
    """
    if not isinstance(raw, dict):
        return None
    if raw.get("type") in OWN_ANNOTATIONS:
        return raw
    found = raw.get("url_citation", raw)
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        return None
    start, end = (
        found[key] if isinstance(found.get(key), int) else 0 for key in ("start_index", "end_index")
    )
    title = found.get("title")
    return {
        "type": "url_citation",
        "url": found["url"],
        "title": title if isinstance(title, str) else "",
        "start_index": start,
        "end_index": end,
    }


def _logprobs(entries: List[Any]) -> List[Json]:
    """Chat logprobs as Responses logprobs: the same, but complete."""
    return [
        {**token, "top_logprobs": [top for _, top in _tokens(entry.get("top_logprobs"))]}
        for entry, token in _tokens(entries)
    ]


def _tokens(entries: Any) -> Iterator[Tuple[Json, Json]]:
    """Each entry that is one, and what Responses tells of it."""
    for entry in entries if isinstance(entries, list) else ():
        token, logprob = (
            (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        )
        if isinstance(token, str) and isinstance(logprob, (int, float)):
            raw = entry.get("bytes")
            yield (
                entry,
                {
                    "token": token,
                    "logprob": logprob,
                    "bytes": raw if isinstance(raw, list) else list(token.encode("utf-8", "replace")),
                },
            )
