"""Reads large JSON in steps, between which the event loop can do other work (:mod:`rproxy.cooperative`).

What fits into a window of the text is read by :mod:`json` in one go; only a larger value is taken apart.  So
every step is short, whatever the text is, and little slower than all of them at once.  A long string grows by
pieces: CPython extends a string in place as long as there is no other reference to it.

The reader counts what it reads.  A few megabytes can hold millions of values, each of which takes fifty bytes
and more of memory, and time wherever the request is examined.  Very many entries of one object or array
take long even without that: an object grows, and both are copied, in one step.
"""

from __future__ import annotations

import codecs
import json
import re
from itertools import chain
from typing import Any, Callable, Generator, Iterable, Iterator, List, NamedTuple, Optional, Union

from ..types import Json

WINDOW = 1 << 16  # characters that are read in one step
TINY = 24  # characters of an entry that is read together with its neighbours
APART = 500  # entries that are read one by one after reading some together has failed
MAX_DEPTH = 64  # of values that are larger than a window
MAX_MEMBERS = 50_000  # of one object
MAX_ENTRIES = 500_000  # of one array

VALUES = ("", '"', "[", "t", "f", "n", "-", *"0123456789")  # how other values begin

_mark = re.compile(r"[ \t\n\r]*([^ \t\n\r])[ \t\n\r]*").match
_blanks = re.compile(r"[ \t\n\r]*").match
_string = re.compile(r'[^"\\]*(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*)*', re.S).match

Steps = Generator[None, None, None]
Bytes = Union[bytes, memoryview]


class Bounds(NamedTuple):
    """How many objects and arrays there may be in a text, and how many values in all."""

    containers: int
    values: int


USUAL = Bounds(500_000, 2_000_000)
# The probabilities of 32,768 tokens, with twenty alternatives each, are 1.4 and 6 million.
OF_ANSWER = Bounds(2_000_000, 8_000_000)


class TooManyValues(ValueError):
    """The text has too many objects, arrays or other values; the message says which."""


class NotAnObject(ValueError):
    """The text is something else, as its first character shows; "": there is nothing."""

    def __init__(self, first: str) -> None:
        super().__init__(first)
        self.first = first


def parse_steps(
    data: Union[str, Iterable[Bytes]],
    parse_constant: Callable[[str], Any],
    *,
    bounds: Optional[Bounds] = None,
    unfinished: Optional[List[Any]] = None,
    errors: str = "strict",
) -> Generator[None, None, Json]:
    """``json.loads`` of an object.

    :param data: a text, or pieces of one in UTF-8, perhaps with a byte order mark
    :param bounds: the text comes from outside: it may not hold more than this, :data:`MAX_MEMBERS` and
        :data:`MAX_ENTRIES`
    :param unfinished: holds the large objects and arrays that are not complete; when reading fails, what was
        read
    :param errors: how to treat bytes that are not UTF-8, see :mod:`codecs`
    :raises TooManyValues: it holds more than ``bounds`` allow
    :raises NotAnObject: it is not an object
    :raises UnicodeDecodeError: it is not UTF-8; ``start`` counts from the beginning of the data
    :raises RecursionError: it is nested too deeply
    :raises ValueError: it is not JSON, in the words of ``json.loads``
    """
    texts = _windows(data) if isinstance(data, str) else _decoded(data, errors)
    return (yield from _Reader(texts, parse_constant, bounds, unfinished).read())


def _windows(text: str) -> Iterator[str]:
    return (text[begin : begin + WINDOW] for begin in range(0, len(text), WINDOW))


def _decoded(pieces: Iterable[Bytes], errors: str) -> Iterator[str]:
    decoder, before = codecs.getincrementaldecoder("utf-8-sig")(errors), 0
    for piece in chain(pieces, (b"",)):
        for begin in range(0, len(piece) or 1, WINDOW):
            part = piece[begin : begin + WINDOW]
            held = len(decoder.getstate()[0])
            try:
                yield decoder.decode(part, final=not piece)
            except UnicodeDecodeError as error:
                error.start += before - held
                raise
            before += len(part)


class _Reader:
    """Reads one JSON object from pieces of text.

    :param texts: pieces of the text, none much longer than a window
    """

    def __init__(
        self,
        texts: Iterator[str],
        parse_constant: Callable[[str], Any],
        bounds: Optional[Bounds],
        unfinished: Optional[List[Any]] = None,
    ) -> None:
        self._texts = texts
        self._decoder = json.JSONDecoder(parse_constant=parse_constant)
        self._text = ""
        self._at = 0  # the position in the text from which to read
        self._whole = False  # nothing follows the text
        self._apart = 0  # entries that are still to be read one by one
        self._bounds = bounds
        self._unfinished = [] if unfinished is None else unfinished
        self._containers, self._values = bounds or (0, 0)  # that may still come
        # ---- The position of the text in the whole
        self._before = 0  # characters
        self._lines = 0
        self._line_start = 0

    def read(self) -> Generator[None, None, Json]:
        """The object."""
        yield from self._skip_blanks()
        first = self._text[self._at : self._at + 1]
        if first in VALUES:
            raise NotAnObject(first)
        if first != "{":
            raise self._error("")
        value: Json = yield from self._value(0)
        yield from self._skip_blanks()
        if self._at < len(self._text):
            raise self._error("{}")
        return value

    # ---- The text
    def _fill(self) -> None:
        """Make sure that there is at least a window of text, or all that is left."""
        while not self._whole and len(self._text) - self._at < WINDOW:
            more = next(self._texts, None)
            if more is None:
                self._whole = True
                return
            lines = self._text.count("\n", 0, self._at)
            if lines:
                self._lines += lines
                self._line_start = self._before + self._text.rfind("\n", 0, self._at) + 1
            self._before += self._at
            self._text, self._at = self._text[self._at :] + more, 0

    def _skip_blanks(self) -> Steps:
        while True:
            self._fill()
            self._at = _blanks(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._whole:
                return
            yield

    def _next(self, marks: str, context: str) -> Generator[None, None, bool]:
        """Read one of these marks, and the white space around it.

        :param context: JSON that this could be the continuation of
        :returns: whether it was the first of them
        """
        match = _mark(self._text, self._at)
        if match is None:
            yield from self._skip_blanks()
            match = _mark(self._text, self._at)
        if match is None or match[1] not in marks:
            raise self._error(context)
        self._at = match.end()
        if self._at == len(self._text):
            yield from self._skip_blanks()
        return match[1] == marks[0]

    def _error(self, context: str) -> ValueError:
        """The error of ``json.loads`` for the text after ``context``."""
        message, at = "Invalid JSON", len(context)
        try:
            json.loads(context + self._text[self._at : self._at + WINDOW])
        except json.JSONDecodeError as error:  # must not stay in a variable: it refers to this frame
            message, at = error.msg, error.pos
        return self._placed(message, at - len(context) + self._at)

    def _placed(self, message: str, at: int) -> ValueError:
        """An error with its place in the whole text.

        :param at: in the present text
        """
        lines = self._text.count("\n", 0, at)
        start = self._before + self._text.rfind("\n", 0, at) + 1 if lines else self._line_start
        place = self._before + at
        return ValueError(
            f"{message}: line {self._lines + lines + 1} column {place - start + 1} (char {place})"
        )

    # ---- Values
    def _value(self, depth: int) -> Generator[None, None, Any]:
        if len(self._text) - self._at < WINDOW:
            self._fill()
        text, at = self._text, self._at
        try:
            value, end = self._decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            if self._whole or text[at] not in '"[{':
                raise self._placed(error.msg, error.pos) from None
        else:
            if end == len(text) and not self._whole and type(value) in (int, float):
                raise ValueError("a number has too many digits")
            self._at = end
            self._count(value)
            return value
        if depth > MAX_DEPTH:
            raise RecursionError
        if text[at] == '"':
            return (yield from self._long_string())
        self._take(1, 1)
        return (yield from (self._list(depth + 1) if text[at] == "[" else self._object(depth + 1)))

    def _object(self, depth: int) -> Generator[None, None, Json]:
        result: Json = {}
        self._unfinished.append(result)
        more = yield from self._next("{", "")
        if self._text[self._at : self._at + 1] == "}":
            more = yield from self._next(",}", "{")
        while more:
            begin = self._at
            if self._text[begin : begin + 1] != '"':
                raise self._error('{"":0,' if result else "{")
            key = yield from self._value(depth)
            yield from self._next(":", '{""')
            result[key] = yield from self._value(depth)
            yield
            more = yield from self._next(",}", '{"":0')
            if more and 0 < self._at - begin < TINY:
                result.update((yield from self._neighbours("{}")))
            if self._bounds and len(result) > MAX_MEMBERS:
                raise TooManyValues(f"an object with more than {MAX_MEMBERS} members")
        self._unfinished.pop()
        return result

    def _list(self, depth: int) -> Generator[None, None, List[Any]]:
        result: List[Any] = []
        self._unfinished.append(result)
        more = yield from self._next("[", "")
        if self._text[self._at : self._at + 1] == "]":
            more = yield from self._next(",]", "[")
        while more:
            begin = self._at
            result.append((yield from self._value(depth)))
            yield
            more = yield from self._next(",]", "[0")
            if more and 0 < self._at - begin < TINY:
                result += yield from self._neighbours("[]")
            if self._bounds and len(result) > MAX_ENTRIES:
                raise TooManyValues(f"an array with more than {MAX_ENTRIES} entries")
        self._unfinished.pop()
        return result

    def _neighbours(self, brackets: str) -> Generator[None, None, Any]:
        """Read small entries together, as far as a comma that stands between two of them.

        :param brackets: around the entries
        :returns: a list or an object of them, which may be empty
        """
        if self._apart:
            self._apart -= 1
            return ()
        cut = self._text.rfind(",", self._at, self._at + WINDOW // 8)
        try:
            entries = self._decoder.decode(f"{brackets[0]}{self._text[self._at : cut]}{brackets[1]}")
        except ValueError:
            entries = ()
        if cut > 0 and entries:
            self._at = cut + 1
            self._count(entries)
            self._take(-1, -1)  # what is around them
            yield from self._skip_blanks()
            return entries
        self._apart = APART
        return ()

    def _long_string(self) -> Generator[None, None, str]:
        begin = self._before + self._at
        self._at += 1
        result = half = ""
        while True:
            self._fill()
            text, at = self._text, self._at
            end = _string(text, at, at + WINDOW).end()  # type: ignore[union-attr]
            closed = text[end : end + 1] == '"'
            if end == at and not closed:
                raise self._unterminated(begin)
            try:
                piece: str = self._decoder.decode(f'"{half}{text[at:end]}"')
            except json.JSONDecodeError as error:
                raise self._placed(error.msg, error.pos - 1 - len(half) + at) from None
            half = ""
            if "\ud800" <= piece[-1:] <= "\udbff" and not closed:  # the other half may follow
                piece, half = piece[:-1], f"\\u{ord(piece[-1]):04x}"
            result += piece
            self._at = end
            if closed:
                self._at += 1
                self._take(0, 1)
                return result
            yield

    def _unterminated(self, begin: int) -> ValueError:
        """:param begin: where the string begins in the whole text"""
        error = self._error('"')
        if str(error).startswith("Unterminated"):
            return ValueError(f"Unterminated string starting at: char {begin}")
        return error

    # ---- Limits
    def _count(self, value: Any) -> None:
        if self._bounds is None:
            return
        if type(value) is not dict and type(value) is not list:
            self._take(0, 1)
            return
        found, values = [value], 1
        for inner in found:
            entries = inner.values() if type(inner) is dict else inner
            values += len(entries)
            found += [entry for entry in entries if type(entry) is dict or type(entry) is list]
        self._take(len(found), values)

    def _take(self, containers: int, values: int) -> None:
        self._containers -= containers
        self._values -= values
        if self._bounds and self._containers < 0:
            raise TooManyValues(f"more than {self._bounds.containers} objects and arrays")
        if self._bounds and self._values < 0:
            raise TooManyValues(f"more than {self._bounds.values} values")
