"""The fast path for the common delta: one more piece of the text that is being written.

In a stream nearly all events differ in one string only.  So the first one takes the plain path (decoder,
reader, converter), and what surrounds its string is kept as a template, on the provider's side and on
ours.  As long as the next bytes match the template, the string is copied from one into the other in its JSON
spelling; nothing is parsed and nothing is built.

**Why the result is the same.**  A template is checked when it is made: with another string in it, it must
parse to the same chunk with another text.  A string is copied only if it is a legal JSON string of valid
UTF-8, without surrogates and not empty.  Templates are only made while the converter passes text on
unchanged. Everything else takes the plain path, after the converter got the text that bypassed it; since this
may change what the next bytes mean, the template is dropped and made again.  ``tests/test_fastpath.py``
compares both paths on arbitrary streams, cut anywhere.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import (
    Any,
    Deque,
    Generator,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
    overload,
)

from ...json_codec import encode_json
from ...types import Event, Json
from ..answer.decoder import ChunkDecoder
from ..answer.unparsed import Unparsed
from .converter import StreamConverter
from .text_forms import TEXT_FORMS

Events = Sequence[Event]

MAX_CANDIDATES = 8  # templates of an answer that may be made without being worthwhile
WORTHWHILE = 16  # deltas that a template must serve to be worthwhile
MAX_UNSYNCED = 1 << 17  # bytes that bypass the converter before it gets their text
TOGETHER = 128  # chunks of one read that are converted in one step, in a few milliseconds
LONG_READ = 1 << 13  # bytes; its first events make a template for the others
PROBE = 1 << 10  # bytes of these first events, at least
MAX_HELD = 1 << 16  # bytes of an unfinished event that are held here; the decoder holds longer ones

_DELTA_EVENTS = frozenset(kind.delta_event for kind in TEXT_FORMS.values())
_ENDS = (b"\n\n", b"\r\n\r\n")
_MARK = "\ue000"
_PLAIN = rb'[^"\\\x00-\x1f]*'
_ESCAPE = rb'\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4})'
_STRING = rb"(?![\0\"]|\Z)" + _PLAIN + rb"(?:" + _ESCAPE + _PLAIN + rb")*(?=[\0\"]|\Z)"
_STRINGS = re.compile(_STRING + rb"(?:\0" + _STRING + rb")*")  # separated by NUL


class DeltaBatch(Sequence[Event]):
    """Delta events that differ only in their number and text; a sequence like any other list of events.

    :param form: what they have in common
    :param texts: the text of each, as JSON spells it between the quotes
    :param first: the sequence_number of the first
    .. attribute:: after    the sequence_number behind the last
    """

    __slots__ = ("_first", "_form", "_texts", "after")

    def __init__(self, form: EventForm, texts: List[bytes], first: int) -> None:
        self._form = form
        self._texts = texts
        self._first = first
        self.after = first + len(texts)

    def sse(self) -> bytes:
        """As :func:`~rproxy.convert.sse.encode_sse` writes them."""
        head, middle, end = self._form.sse
        if len(self._texts) == 1:
            return b"%b%d%b%b%b" % (head, self._first, middle, self._texts[0], end)
        return b"".join(
            [
                b"%b%d%b%b%b" % (head, number, middle, text, end)
                for number, text in enumerate(self._texts, self._first)
            ]
        )

    def payloads(self) -> List[bytes]:
        """Each as JSON."""
        head, middle, end = self._form.json
        return [
            b"%b%d%b%b%b" % (head, number, middle, text, end)
            for number, text in enumerate(self._texts, self._first)
        ]

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> List[Event]: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[Event, List[Event]]:
        return list(self)[index]

    def __iter__(self) -> Iterator[Event]:
        return map(json.loads, self.payloads())


class Parts(NamedTuple):
    """The text before the number, between number and text, and after the text."""

    head: bytes
    middle: bytes
    end: bytes


class EventForm(NamedTuple):
    """An event of ours without its number and text."""

    json: Parts
    sse: Parts


class Template:
    """An event of the provider without its text (``prefix`` and ``suffix``), and ours."""

    __slots__ = ("form", "prefix", "suffix")

    def __init__(self, prefix: bytes, suffix: bytes, form: EventForm) -> None:
        self.prefix = prefix
        self.suffix = suffix
        self.form = form

    def texts(self, data: bytes) -> Tuple[List[bytes], int]:
        """The texts of the events at the beginning of ``data``, and where the last of them ends.

        :returns: no texts if ``data`` begins with something else
        """
        prefix, suffix = self.prefix, self.suffix
        begin = len(prefix)
        end = data.rfind(suffix, begin)
        if end <= begin or not data.startswith(prefix):
            return [], 0
        text, after = data[begin:end], end + len(suffix)
        try:
            # Nearly always it is one event, whose text has no escapes: faster than the regular expression.
            if b'"' not in text and b"\\" not in text and text.decode().isprintable():
                return [text], after
        except UnicodeDecodeError:
            return [], 0
        strings = b"\0" not in text and _STRINGS.match(b"\0".join(text.split(suffix + prefix)))
        if not strings:
            return [], 0
        texts = strings.group().split(b"\0")
        between = len(suffix) + len(prefix)
        end = begin + strings.end() + (len(texts) - 1) * (between - 1)
        if not data.startswith(suffix, end):  # the last one is of another form
            end -= len(texts.pop()) + between
        return (texts, end + len(suffix)) if texts and _is_utf8(data[begin:end]) else ([], 0)

    def chunk(self, text: bytes) -> Json:
        """The chunk with this text, which is spelled as in JSON."""
        chunk: Json = json.loads(b"%b%b%b" % (self.prefix[len(b"data:") :], text, self.suffix))
        return chunk

    def begins(self, data: bytes) -> bool:
        """May this become an event of the template when more bytes arrive?"""
        if not data.startswith(self.prefix):
            return self.prefix.startswith(data)
        return data[-1:] not in b"\r}" and b"\n" not in data


class FastPath:
    """The decoder and the converter of one answer, with the fast path between them.

    :param converter: converts the answer.  While text takes the fast path the converter does not see it; use
        :attr:`converter`, which brings it up to date.
    """

    def __init__(self, converter: StreamConverter) -> None:
        self._converter = converter
        self._decoder = ChunkDecoder()
        self._template: Optional[Template] = None
        self._candidate: Optional[Tuple[bytes, Json, Event]] = None  # arguments of template_of
        self._candidates_left = MAX_CANDIDATES
        self._unsynced: List[bytes] = []  # texts in the present template that the converter has not seen
        self._unsynced_bytes = 0
        self._served = 0  # texts in it that the converter got afterwards
        self._held = b""  # the beginning of an event
        self.spent: List[Any] = []  # what was parsed in steps, which takes as long to free
        self._later: Deque[Json] = deque()  # chunks from a large one on, or beyond TOGETHER

    @property
    def converter(self) -> StreamConverter:
        """The converter, up to date."""
        if self._unsynced:
            self._sync()
        return self._converter

    @property
    def done(self) -> bool:
        """Has the provider marked the end?  Later bytes are ignored."""
        return self._decoder.done

    def feed(self, data: bytes) -> List[Events]:
        """Take bytes of the provider.

        :returns: lists of events, none of them empty
        """
        if self._candidate is not None:
            self.learn()
        template = self._template
        if template is None:
            return self._plain(data)
        if self._held:
            data, self._held = self._held + data, b""
        texts, end = template.texts(data)
        if not texts:
            return self._leave(template, data)
        batch = DeltaBatch(template.form, texts, self._converter.advance(len(texts)))
        self._unsynced += texts
        self._unsynced_bytes += end
        if self._unsynced_bytes > MAX_UNSYNCED:
            self._sync()
        return [batch] if end == len(data) else [batch, *self._leave(template, data[end:])]

    def learn(self) -> None:
        """Make a template of the last event, if it lends itself to that.

        :meth:`feed` does this as well; calling it before, when the events are on their way, saves latency.
        """
        if self._candidate is not None:
            candidate, self._candidate = self._candidate, None
            self._template = template_of(*candidate)

    def close(self) -> List[Event]:
        """The body has ended.

        :returns: the events of what still waited for more bytes
        """
        held, self._held = self._held, b""
        events = [event for batch in self._plain(held) for event in batch]
        for chunk in self._decoder.close():
            if type(chunk) is Unparsed or self._later:
                self._later.append(chunk)
            else:
                events += self._converter.feed(chunk)
        return events

    @property
    def pending(self) -> bool:
        """Is something left for :meth:`later`?  It comes before everything that is fed after it."""
        return bool(self._later)

    def later(self) -> Iterator[List[Event]]:
        """The events of what is too large to be converted at once; an empty list is a step without any."""
        while self._later:
            chunk = self._later.popleft()
            if isinstance(chunk, Unparsed):
                chunks = yield from _in_steps(chunk.steps(self.spent))
                self.spent += chunks
                for whole in chunks:
                    for part in self._converter.reader.parts(whole):
                        yield [] if part is None else self._converter.feed(part)
                continue
            events = self._converter.feed(chunk)
            for _ in range(TOGETHER):
                if not self._later or isinstance(self._later[0], Unparsed):
                    break
                events += self._converter.feed(self._later.popleft())
            yield events

    def _sync(self) -> None:
        """Give the converter the text that bypassed it."""
        if self._unsynced and self._template is not None:
            texts, self._unsynced, self._unsynced_bytes = self._unsynced, [], 0
            self._served += len(texts)
            self._converter.feed(self._template.chunk(b"".join(texts)))
            self._converter.advance(-1)  # this event and this chunk were counted before

    def _leave(self, template: Template, data: bytes) -> List[Events]:
        """Something else follows, or an event that is not complete."""
        if len(data) <= MAX_HELD and template.begins(data):
            self._held = data
            return []
        return self._plain(data)

    def _plain(self, data: bytes) -> List[Events]:
        self._forget()
        if len(data) > LONG_READ and self._candidates_left and not self._later:
            first = _end_of_event(data, PROBE)
            batches = self._convert(data[:first])
            self.learn()
            if self._template is not None:
                return batches + self.feed(data[first:])
            data = data[first:]
        else:
            batches = []
        cut = data.rfind(b"\n") + 1
        if cut:
            batches += self._convert(data[:cut])
        if cut < len(data):
            self.learn()
            batches += self._begin(data[cut:])
        return batches

    def _begin(self, data: bytes) -> List[Events]:
        """The beginning of a line."""
        return self._convert(data) if self._template is None else self._leave(self._template, data)

    def _forget(self) -> None:
        """The next bytes may mean something else than before."""
        self._sync()
        if self._served >= WORTHWHILE:
            self._candidates_left += 1
        self._template, self._candidate, self._served = None, None, 0

    def _convert(self, data: bytes) -> List[Events]:
        """The plain path itself; the last event may become a candidate."""
        events: List[Event] = []
        chunk: Json = {}
        new: List[Event] = []
        for number, chunk in enumerate(self._decoder.feed(data)):
            if type(chunk) is Unparsed or number >= TOGETHER or self._later:
                self._later.append(chunk)
                continue
            new = self._converter.feed(chunk)
            events += new
        if (
            new
            and new[-1]["type"] in _DELTA_EVENTS
            and self._candidates_left
            and not (self._decoder.done or self._later)
            and self._converter.transparent
        ):
            self._candidates_left -= 1
            self._candidate = data, chunk, new[-1]
        return [events] if events else []


def _end_of_event(data: bytes, begin: int) -> int:
    """Where the first event ends that does so behind ``begin``; 0 if there is none."""
    ends = [found + len(end) for end in _ENDS for found in (data.find(end, begin),) if found >= 0]
    return min(ends, default=0)


def _in_steps(steps: Generator[None, None, List[Json]]) -> Generator[List[Event], None, List[Json]]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: List[Json] = end.value
            return found
        yield []


def template_of(data: bytes, chunk: Json, event: Event) -> Optional[Template]:
    """The template of the last event in ``data``.

    :param chunk: what it says
    :param event: what it became
    :returns: None if no template can be made of it
    """
    key = _key(chunk, event["delta"])
    separator = next((end for end in _ENDS if data.endswith(end)), None)
    if key is None or separator is None:
        return None
    begin = data.rfind(separator, 0, -len(separator))
    last = data[begin + len(separator) if begin >= 0 else 0 :]
    line = last[: -len(separator)]
    if not line.startswith(b"data:") or b"\n" in line or b"\r" in line or _parsed(line[5:]) != chunk:
        return None
    form = _form(event)
    for spelling in {json.dumps(event["delta"]), json.dumps(event["delta"], ensure_ascii=False)}:
        prefix, found, suffix = line.rpartition(spelling.encode())
        if found and _parsed(b'%b"%b"%b' % (prefix[5:], _MARK.encode(), suffix)) == _with_text(
            chunk, key, _MARK
        ):
            return Template(prefix + b'"', b'"' + suffix + separator, form)
    return None


def _key(chunk: Json, text: str) -> Optional[str]:
    """The key of the delta that holds the text, provided that nothing else in this chunk matters."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        return None
    choice = choices[0]
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(delta, dict) or any(
        value and name not in ("delta", "index") for name, value in choice.items()
    ):
        return None
    keys = [name for name, value in delta.items() if value and name != "role"]
    return keys[0] if len(keys) == 1 and delta[keys[0]] == text else None


def _with_text(chunk: Json, key: str, text: str) -> Json:
    choice = chunk["choices"][0]
    return {**chunk, "choices": [{**choice, "delta": {**choice["delta"], key: text}}]}


def _form(event: Event) -> EventForm:
    whole = encode_json({**event, "sequence_number": _MARK, "delta": _MARK})
    head, middle, end = whole.split(b'"%b"' % _MARK.encode())
    parts = Parts(head, middle + b'"', b'"' + end)
    return EventForm(
        parts,
        Parts(b"event: %b\ndata: %b" % (event["type"].encode(), head), parts.middle, parts.end + b"\n\n"),
    )


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False
