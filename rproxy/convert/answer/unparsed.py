"""A large piece of an answer, parsed in steps: one value, or the lines of an event or a document.

It is as lenient as the decoder is with small pieces: the objects in a list count, and data that cannot be
parsed as a whole is parsed line by line, because there may be a damaged line between good ones.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Dict, Generator, Iterator, List, Optional, Union

from ...json_codec import UNREADABLE
from ...types import Json
from ..json_reader import OF_ANSWER, TooManyValues, parse_steps

LARGE_LINE = 1 << 16  # bytes; it is parsed in steps
MAX_CHUNKS = 100_000  # in lines
TOO_MANY = "The answer has a chunk of too many values."
GARBAGE = object()

STRIPPED = " \t\r\n\ufeff"
# NaN and Infinity are not JSON, and must not leave again.
_decoder = json.JSONDecoder(parse_constant=lambda word: None)

Steps = Generator[None, None, List[Json]]


def values_of(text: str) -> List[Any]:
    """The JSON values at the beginning of a text; the last is ``GARBAGE`` if the rest is unreadable."""
    values: List[Any] = []
    text = text.strip(STRIPPED)
    position = 0
    try:
        while position < len(text):
            value, position = _decoder.raw_decode(text, position)
            values.append(value)
            while text[position : position + 1].isspace():
                position += 1
    except UNREADABLE:
        values.append(GARBAGE)
    return values


def chunks_of(value: Any) -> List[Json]:
    """The objects in a JSON value that can be chunks: itself, or those in the list."""
    return [one for one in (value if type(value) is list else [value]) if type(one) is dict]


def protocol_error(message: str) -> Json:
    """A chunk that ends the answer."""
    return {"error": {"message": message, "type": "protocol"}}


class Unparsed(Dict[str, Any]):
    """Takes the place of the chunks in a large piece of JSON.

    :param data: belongs to this object from now on
    :param begin: where the JSON begins in it
    :param lines: there may be several lines
    """

    def __init__(
        self, data: Union[bytes, bytearray, memoryview], begin: int = 0, lines: bool = False
    ) -> None:
        super().__init__()
        self._data = memoryview(data)[begin:]
        self._lines = lines

    def parsed(self) -> List[Json]:
        """The chunks; none if it is not JSON."""
        steps = self.steps()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return list(end.value)

    def steps(self, unfinished: Optional[List[Any]] = None) -> Steps:
        """Parse it; yields while there is more to do.

        :param unfinished: see :func:`~rproxy.convert.json_reader.parse_steps`
        :returns: the chunks; none if it is not JSON
        """
        data, self._data = self._data, memoryview(b"")  # not needed any more once it is parsed
        try:
            return (yield from _objects(data, unfinished))
        except TooManyValues:
            return [protocol_error(TOO_MANY)]
        except UNREADABLE:
            return (yield from _by_lines(data)) if self._lines else []


def _by_lines(data: memoryview) -> Steps:
    chunks: List[Json] = []
    for line in _cut(data):
        yield
        if len(line) <= LARGE_LINE:
            for value in values_of(str(line, "utf-8", "replace")):
                chunks += chunks_of(value)
        else:
            with suppress(*UNREADABLE):
                chunks += yield from _objects(line)
        if len(chunks) > MAX_CHUNKS:
            return [protocol_error(TOO_MANY)]
    return chunks


def _objects(data: memoryview, unfinished: Optional[List[Any]] = None) -> Steps:
    """The object, or those of the list.

    :raises ValueError: it is not JSON
    :raises RecursionError: it is nested too deeply
    """
    pieces = (b'{"":', data, b"}")
    found = yield from parse_steps(
        pieces, lambda word: None, bounds=OF_ANSWER, unfinished=unfinished, errors="replace"
    )
    if len(found) != 1:
        raise ValueError("not one value")
    return chunks_of(found[""])


def _cut(data: memoryview) -> Iterator[memoryview]:
    """The lines, without a copy of all of them."""
    begin = 0
    for block in range(0, len(data), 1 << 16):
        found = bytes(data[block : block + (1 << 16)])
        end = found.find(b"\n")
        while end >= 0:
            yield data[begin : block + end]
            begin = block + end + 1
            end = found.find(b"\n", end + 1)
    yield data[begin:]
