"""Writes large JSON in steps, between which the event loop can do other work (:mod:`rproxy.cooperative`).

A generator yields after a bounded amount of work.  A small value is written by :mod:`json` in one go; only a
value with more than a step's worth of text and entries is taken apart, wherever it is.  :mod:`.json_reader`
is the counterpart.

A thread needs no generator, but short steps all the same: no other thread runs while :mod:`json` writes.
:func:`json_text`, :func:`json_key` and :func:`json_contains` are for threads.
"""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from typing import Any, Callable, Generator, Iterator, List, Optional, Sequence

from ..json_codec import SHARED, encode_exactly, encode_json
from ..types import Event, Json
from .text_buffer import TextBuffer

MANY = 20  # entries of a list or an object that are written together
STEP = 1 << 17  # characters that are written in one step, in about a millisecond
BLOCK = STEP  # bytes
ENTRY = 16  # characters that an entry counts in addition to its text
LONG = 1 << 20  # characters of JSON that take a few milliseconds

Encode = Callable[[Any], bytes]
Steps = Generator[None, None, None]


def is_large(value: Any, room: Optional[int] = None) -> bool:
    """Are there more text and entries than ``room``, by default as many as are written in one step?  Looks at
    no more than that.  A shared value that is written already takes no time to write.
    """
    room, found = STEP if room is None else room, [value]
    for inner in found:
        kind = type(inner)
        if kind in SHARED:
            if inner.written:
                continue
            kind = inner.plain
        if kind is dict:
            room -= ENTRY * len(inner)
            if room > 0:
                room -= sum(map(len, inner))
                for leaf in inner.values():
                    if type(leaf) is str:
                        room -= len(leaf)
                    else:
                        found.append(leaf)
        elif kind is list:
            room -= ENTRY * len(inner)
            if room > 0:
                found += inner
        elif kind is str:
            room -= len(inner)
        if room <= 0:
            return True
    return False


def write_steps(value: Any, pieces: List[bytes], encode: Encode = encode_json) -> Steps:
    """Append ``encode(value)`` to a list, in pieces.

    :param encode: writes any value as JSON without blanks
    """
    if type(value) is list and len(value) > MANY:
        yield from _write_list(value, pieces, encode)  # ... which looks at a few at a time
    elif is_large(value):
        yield  # finding that out is a step, too, on each level of nesting
        yield from write_large(value, pieces, encode)
    else:
        pieces.append(value.json if type(value) in SHARED else encode(value))


def write_large(value: Any, pieces: List[bytes], encode: Encode = encode_json) -> Steps:
    """:func:`write_steps` for a value that :func:`is_large`."""
    if isinstance(value, str):
        yield from _write_text(value, pieces, encode)
    elif isinstance(value, list):
        yield from _write_list(value, pieces, encode)
    else:
        yield from _write_dict(value, pieces, encode)


def _write_list(values: List[Any], pieces: List[bytes], encode: Encode) -> Steps:
    before = b"["
    for begin in range(0, len(values), MANY):
        some = values[begin : begin + MANY]
        if not is_large(some):
            pieces += (before, encode(some)[1:-1])
            before = b","
            yield
            continue
        for inner in some:
            pieces.append(before)
            before = b","
            yield from write_steps(inner, pieces, encode)
            yield
    pieces.append(b"]")


def _write_dict(values: Json, pieces: List[bytes], encode: Encode) -> Steps:
    before, entries = b"{", iter(values.items())
    for some in iter(lambda: dict(islice(entries, MANY)), {}):
        if not is_large(some):
            pieces += (before, encode(some)[1:-1])
            before = b","
            yield
            continue
        for key, inner in some.items():
            pieces.append(b"%b%b:" % (before, encode(str(key))))
            before = b","
            yield from write_steps(inner, pieces, encode)
            yield
    pieces.append(b"}")


def _write_text(text: str, pieces: List[bytes], encode: Encode) -> Steps:
    pieces.append(b'"')
    at = 0
    while at < len(text):
        end = at + STEP
        while "\ud800" <= text[end - 1 : end] <= "\udbff":
            end += 1  # the other half of a surrogate pair belongs to it
        pieces.append(encode(text[at:end])[1:-1])
        at = end
        yield
    pieces.append(b'"')


def json_blocks(value: Any) -> Iterator[bytes]:
    """``encode_json(value)`` in blocks that are worth a write, for values that must not be in memory
    twice.
    """
    pieces: List[bytes] = []
    counted = size = 0  # each piece is counted once: there may be thousands of small ones in a block
    for _ in write_steps(value, pieces):
        size += sum(map(len, islice(pieces, counted, None)))
        counted = len(pieces)
        if size >= BLOCK:
            yield b"".join(pieces)
            pieces.clear()
            counted = size = 0
    yield b"".join(pieces)


def sse_blocks(events: Sequence[Event]) -> Iterator[bytes]:
    """:func:`~rproxy.convert.sse.encode_sse` in blocks."""
    for event in events:
        yield f"event: {event['type']}\ndata: ".encode()
        yield from json_blocks(event)
        yield b"\n\n"


# ---- For threads
def _exact_pieces(value: Any) -> Iterator[bytes]:
    pieces: List[bytes] = []
    for _ in write_steps(value, pieces, encode_exactly):
        yield from pieces
        pieces.clear()
    yield from pieces


def json_text(value: Any) -> str:
    """``json.dumps(value, ensure_ascii=False)``; without blanks if it is long."""
    if not is_large(value, LONG):
        return json.dumps(value, ensure_ascii=False)
    text = TextBuffer()
    for piece in _exact_pieces(value):
        text.append(piece.decode("utf-8", "surrogatepass"))
    return text.text()


def json_key(value: Any) -> str:
    """A text that is the same for equal values, and another one for others.

    Objects whose members are in another order are equal, unless they are large.
    """
    if not is_large(value, LONG):
        return json.dumps(value, sort_keys=True)
    digest = hashlib.sha256()
    for piece in _exact_pieces(value):
        digest.update(piece)
    return digest.hexdigest()


def json_contains(value: Any, word: bytes) -> bool:
    """Is a word of ASCII letters, in lower case, anywhere in the texts of ``value``, in whatever case?"""
    before = b""
    for piece in _exact_pieces(value):
        found = before + piece.lower()
        if word in found:
            return True
        before = found[1 - len(word) :]
    return False
