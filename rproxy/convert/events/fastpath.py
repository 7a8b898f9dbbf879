"""A short cut for the common delta: one more piece of the text that is being written.

In a stream nearly all events differ in nothing but a string.  So the first one is read and converted by the
plain path (decoder, reader, converter), and what stands around its string is kept as a template, on the
provider's side and on ours.  While the bytes that follow are that template again, the string is copied from
the one into the other, still in its JSON spelling; nothing is parsed and nothing built.

**Why this is the same.**  The cut is proved when it is learned: the template with another string in it,
parsed, must be the chunk with another text.  A string is copied only if it is a legal JSON string of valid
UTF-8 without surrogates, and not empty.  Templates are only learned while the converter passes text on
unchanged.  Whatever else comes goes the plain path, after :meth:`FastPath.sync` has given the converter the
text that passed it by; that may have changed what follows, so the template is learned again.
``tests/test_fastpath.py`` compares both paths over arbitrary streams, cut anywhere.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union, overload

from ...types import Json
from ..answer.decoder import ChunkDecoder
from ..sse import encode_json
from .converter import StreamConverter
from .items import TEXT_KINDS

Events = Sequence[Json]

MAX_CANDIDATES = 8  # templates that may be learned in vain, by an answer whose chunks all differ
WORTHWHILE = 16  # deltas after which a template was not in vain
MAX_HELD = 1 << 16  # bytes of an unfinished event that are held here, and not by the decoder

_DELTAS = frozenset(kind.delta_event for kind in TEXT_KINDS.values())
_ENDS = (b"\n\n", b"\r\n\r\n")
_MARK = "\ue000"
_PLAIN = rb'[^"\\\x00-\x1f]*'
_STRING = (
    rb"(?!\0|\Z)" + _PLAIN + rb'(?:\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4})' + _PLAIN + rb")*"
)
_STRINGS = re.compile(_STRING + rb"(?:\0" + _STRING + rb")*")  # what a NUL separates


class DeltaBatch(Sequence[Json]):
    """Delta events that differ in their number and their text only; a sequence like any other list of events.

    :arg form: what they have in common
    :arg texts: the text of each, as JSON spells it between the quotes
    :arg first: the sequence_number of the first
    .. attribute:: after    the one behind the last
    """

    __slots__ = ("_first", "_form", "_texts", "after")

    def __init__(self, form: Form, texts: List[bytes], first: int) -> None:
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
    def __getitem__(self, index: int) -> Json: ...
    @overload
    def __getitem__(self, index: slice) -> List[Json]: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[Json, List[Json]]:
        return list(self)[index]

    def __iter__(self) -> Iterator[Json]:
        return map(json.loads, self.payloads())


class Parts(NamedTuple):
    """What stands before the number, between number and text, and behind the text."""

    head: bytes
    middle: bytes
    end: bytes


class Form(NamedTuple):
    """Our event without its number and text."""

    json: Parts
    sse: Parts


class Template:
    """An event of the provider without its text, ``prefix`` and ``suffix``, and ours."""

    __slots__ = ("form", "prefix", "suffix")

    def __init__(self, prefix: bytes, suffix: bytes, form: Form) -> None:
        self.prefix = prefix
        self.suffix = suffix
        self.form = form

    def texts(self, data: bytes) -> Tuple[List[bytes], int]:
        """The texts of the events that ``data`` consists of, and where the last of them ends; none: it begins
        with something else."""
        prefix, suffix = self.prefix, self.suffix
        begin = len(prefix)
        end = data.rfind(suffix, begin)
        if end <= begin or not data.startswith(prefix):
            return [], 0
        text, after = data[begin:end], end + len(suffix)
        try:
            # One event whose text is a legal JSON string without escapes, as nearly always: quicker than the
            # regular expression.
            if b'"' not in text and b"\\" not in text and text.decode().isprintable():
                return [text], after
        except UnicodeDecodeError:
            return [], 0
        texts = text.split(suffix + prefix)
        return (texts, after) if _STRINGS.fullmatch(b"\0".join(texts)) and _is_utf8(text) else ([], 0)

    def chunk(self, text: bytes) -> Json:
        """The chunk with this text in it, as JSON spells it."""
        chunk: Json = json.loads(b"%b%b%b" % (self.prefix[len(b"data:") :], text, self.suffix))
        return chunk

    def begins(self, data: bytes) -> bool:
        """May this become an event of the template, when more comes?"""
        return self.prefix.startswith(data) or data.startswith(self.prefix) and data[-1:] not in b"\r\n}"


class FastPath:
    """Decoder and converter of one answer, with the short cut between them.

    ``used``: deltas that went this way.  ``candidate``: what the next template can be made of, see
    :func:`template_of`.
    """

    def __init__(self, decoder: ChunkDecoder, converter: StreamConverter) -> None:
        self._decoder = decoder
        self._converter = converter
        self._template: Optional[Template] = None
        self.candidate: Optional[Tuple[bytes, Json, Json]] = None
        self._lessons = MAX_CANDIDATES
        self._unsettled: List[
            bytes
        ] = []  # texts of the present template that the converter does not know yet
        self._settled = 0
        self._held = b""  # the beginning of an event

    @property
    def used(self) -> int:
        return self._settled + len(self._unsettled)

    def feed(self, data: bytes) -> List[Events]:
        """What the provider sent, as lists of events, none of them empty."""
        if self.candidate is not None:
            self.learn()
        template = self._template
        if template is None:
            return self._plain(data)
        if self._held:
            data, self._held = self._held + data, b""
        texts, end = template.texts(data)
        if not texts:
            return self._leave(template, data)
        run = DeltaBatch(template.form, texts, self._converter.advance(len(texts)))
        self._unsettled += texts
        return [run] if end == len(data) else [run, *self._leave(template, data[end:])]

    def learn(self) -> None:
        """Make the template for what follows of ``candidate``. To be called when the events of :meth:`feed`
        are on their way, which shall not wait for this.
        """
        if self.candidate is not None:
            candidate, self.candidate = self.candidate, None
            self._template = template_of(*candidate)

    def settle(self) -> None:
        """Give the converter the text that passed it by.

        To be called before anything is asked of it but the number of the next event.
        """
        if self._unsettled and self._template is not None:
            texts, self._unsettled = self._unsettled, []
            self._settled += len(texts)
            self._converter.feed(self._template.chunk(b"".join(texts)))
            self._converter.advance(-1)  # that was counted before

    def close(self) -> List[Json]:
        """The end of the body: what was still waiting for more."""
        held, self._held = self._held, b""
        events = [event for batch in self._plain(held) for event in batch]
        for chunk in self._decoder.close():
            events += self._converter.feed(chunk)
        return events

    def _leave(self, template: Template, data: bytes) -> List[Events]:
        """Something else, or not yet a whole event."""
        if len(data) <= MAX_HELD and template.begins(data):
            self._held = data
            return []
        return self._plain(data)

    def _plain(self, data: bytes) -> List[Events]:
        self._forget()
        cut = data.rfind(b"\n") + 1
        batches = self._taught(data[:cut]) if cut else []
        if cut < len(data):
            self.learn()
            batches += self._rest(data[cut:])
        return batches

    def _rest(self, data: bytes) -> List[Events]:
        return self._taught(data) if self._template is None else self._leave(self._template, data)

    def _forget(self) -> None:
        """What follows may mean something else than before."""
        if len(self._unsettled) >= WORTHWHILE:
            self._lessons += 1
        self.settle()
        self._template, self.candidate = None, None

    def _taught(self, data: bytes) -> List[Events]:
        """The plain path itself, with an eye on the last event."""
        events: List[Json] = []
        chunk: Json = {}
        new: List[Json] = []
        for chunk in self._decoder.feed(data):
            new = self._converter.feed(chunk)
            events += new
        if (
            new
            and new[-1]["type"] in _DELTAS
            and self._lessons
            and self._decoder.between
            and self._converter.transparent
        ):
            self._lessons -= 1
            self.candidate = data, chunk, new[-1]
        return [events] if events else []


def template_of(data: bytes, chunk: Json, event: Json) -> Optional[Template]:
    """The template of the last event in ``data``, which is ``chunk`` and became ``event``; None: it does not
    lend itself to that."""
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
    """The key of the delta that holds the text, if nothing else in this chunk matters."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        return None
    choice = choices[0]
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(delta, dict) or any(
        value and name not in ("delta", "index") for name, value in choice.items()
    ):
        return None
    told = [name for name, value in delta.items() if value and name != "role"]
    return told[0] if len(told) == 1 and delta[told[0]] == text else None


def _with_text(chunk: Json, key: str, text: str) -> Json:
    choice = chunk["choices"][0]
    return {**chunk, "choices": [{**choice, "delta": {**choice["delta"], key: text}}]}


def _form(event: Json) -> Form:
    whole = encode_json({**event, "sequence_number": _MARK, "delta": _MARK})
    head, middle, end = whole.split(b'"%b"' % _MARK.encode())
    parts = Parts(head, middle + b'"', b'"' + end)
    return Form(
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
