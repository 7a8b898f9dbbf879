"""The bytes of a provider's answer to chunks.

A provider that answers with status 200 may send an event stream, JSON lines, one JSON document or an HTML
page, whatever its Content-Type says.  So only the bytes decide: the first line that is not blank shows which
one it is.  The decoder works by lines, and handles each line once and completely as soon as it ends, so the
result cannot depend on how the network cut the bytes.  A JSON document ends with its last brace, and
``[DONE]`` with its bracket: some servers send no line end after them and leave the connection open.

Event streams are read more leniently than the standard asks for.  A ``data:`` line that is a whole JSON value
is a chunk at once, without waiting for the blank line.  This serves providers that separate events by one
newline, and saves latency with all others.  Only a line that is not JSON by itself waits for the rest of its
event.  Every byte is scanned a bounded number of times, even when they arrive one by one.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Generator, List, Optional, Union

from ...json_codec import parser
from ...types import Json
from ..json_end import JsonEnd
from ..json_reader import parse_steps

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t"
_NO_BLANK = re.compile(r"[^ \t]|\Z")
_OPENS = re.compile(rb"(?:\xef\xbb\xbf[ \t]{0,8})?[{\[]")
_DONE_LINE = re.compile(rb"data:[ \t]{0,8}\[DONE\]")
_DONE_SIZE = 19  # the most bytes that this matches
_UNREADABLE = (ValueError, RecursionError)  # what JSON text can raise; also a ValueError: integers too long

LARGE = 1 << 18  # bytes of a chunk that is left to be parsed in steps
_STRIPPED = " \t\r\n\ufeff"
_GARBAGE = object()
# NaN and Infinity are not JSON, and must not leave again.
_decoder = json.JSONDecoder(parse_constant=lambda word: None)
_parse = parser(lambda word: None)


def _values(text: str) -> List[Any]:
    """The JSON values at the beginning of ``text``; the last is ``_GARBAGE`` if the rest is unreadable."""
    values: List[Any] = []
    text = text.strip(_STRIPPED)
    position = 0
    try:
        while position < len(text):
            value, position = _decoder.raw_decode(text, position)
            values.append(value)
            while text[position : position + 1].isspace():
                position += 1
    except _UNREADABLE:
        values.append(_GARBAGE)
    return values


def _str(line: bytes) -> str:
    return str(line, "utf-8", "replace")


def _protocol_error(message: str) -> Json:
    return {"error": {"message": message, "type": "protocol"}}


class Unparsed(Dict[str, Any]):
    """A chunk that is too large to be parsed in one go; ``data`` is its JSON."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data

    def steps(self) -> Generator[None, None, Json]:
        """The chunk; empty if it is no JSON.  Yields while there is more to do."""
        try:
            return (yield from parse_steps([self.data], lambda word: None))
        except _UNREADABLE:
            return {}


class ChunkDecoder:
    """Reads the body of a 2xx answer incrementally; raises nothing, whatever the bytes are.

    :param max_line: the most bytes that are held for one line, one event or one JSON document; more become an
        error chunk, which ends the answer

    An error of the framing (HTML, an event of type ``error``, an ``error:`` field) becomes a chunk
    ``{"error": ...}``.  Frames that are no JSON object are skipped.

    .. attribute:: done    ``[DONE]`` was seen; later bytes are ignored
    """

    def __init__(self, max_line: int = 32 << 20) -> None:
        self.done = False
        self._max = max_line
        # What the body is: "?" while it is blank, "document", "next" after a document, "lines" (of events, or
        # of JSON), "over".
        self._kind = "?"
        self._after_cr = False  # the last byte was CR; an LF that follows belongs to it
        self._partial = bytearray()  # the line without its end
        self._end = JsonEnd("{[")  # of the document in these lines, or in the partial line
        self._scanned = 0  # bytes of the partial line that self._end has read
        self._held = bytearray()  # data lines of an unfinished event, or lines of a document
        self._alarm = False  # inside an event of type "error"

    def feed(self, data: bytes) -> List[Json]:
        """The chunks that ``data`` completes."""
        out: List[Json] = []
        if not data or self._kind == "over":
            return out
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        self._after_cr = data[-1:] == b"\r"
        lines = data.splitlines()
        rest = b"" if data[-1:] in b"\r\n" else lines.pop()
        if self._partial and lines:
            lines[0] = bytes(self._partial + lines[0])
            self._partial.clear()
        for line in lines:
            self._line(line, out)
            if self._kind == "over":
                return out
        if rest:
            self._rest(rest, out)
        return out

    def close(self) -> List[Json]:
        """The chunks that still waited for more bytes when the body ended."""
        out: List[Json] = []
        if self._partial:
            self._line(bytes(self._partial), out)
        if self._kind != "over":
            self._flush(out)
        self._stop()
        return out

    def _line(self, line: bytes, out: List[Json]) -> None:
        if self._kind == "lines" and line[:5] == b"data:" and len(line) <= self._max:
            self._data(line[5:], out)
            return
        line = line.lstrip(_BLANKS)
        if self._is_json(line):
            end = self._end.find(str(line, "latin-1"), self._scanned)
            if end >= 0:
                line = line[self._values(line, end, out) :]
            if self._kind != "over" and self._is_json(line):
                self._open_end(line, out)
                return
        if self._kind != "over":
            self._other(line, out)

    def _other(self, line: bytes, out: List[Json]) -> None:
        """A line that does not begin with a JSON value."""
        if len(line) > self._max and not _DONE_LINE.match(line):
            self._too_long(out)
        elif self._kind != "lines":
            self._first(line, out)
        elif line[:5] == b"data:":
            self._data(line[5:], out)
        elif line:
            self._field(line, out)
        elif self._held or self._alarm:
            self._flush(out)

    def _rest(self, rest: bytes, out: List[Json]) -> None:
        """The beginning of a line, or more of it; what is complete need not wait for its end."""
        self._partial += rest if self._partial else rest.lstrip(_BLANKS)
        if self._is_json(self._partial):
            end = self._end.find(str(self._partial[self._scanned :], "latin-1"))
            if end >= 0:
                line, end = bytes(self._partial), self._scanned + end
                self._partial = bytearray(line[self._values(line, end, out) :])
            self._scanned = len(self._partial) if self._is_json(self._partial) else 0
        if self._kind != "over" and _DONE_LINE.match(self._partial) and self._kind != "document":
            self._other(bytes(self._partial), out)
        if self._kind != "over" and len(self._partial) > max(self._max, _DONE_SIZE):
            self._too_long(out)

    # ---- JSON without a field name
    def _is_json(self, line: Union[bytes, bytearray]) -> bool:
        return self._kind == "document" or _OPENS.match(line) is not None

    def _values(self, line: bytes, end: int, out: List[Json]) -> int:
        """Take the JSON values at the beginning of a line.

        :param end: where the first of them ends
        :returns: where the rest of the line begins.  If that is JSON, it does not end on this line, and
            ``_end`` has read it
        """
        text, begin = str(line, "latin-1"), 0
        while end >= 0:
            self._value(line[begin:end], out)
            self._end, self._scanned = JsonEnd("{["), 0
            begin = _NO_BLANK.search(text, end).start()  # type: ignore[union-attr]
            if self._kind == "over" or not _OPENS.match(line, begin):
                break
            end = self._end.find(text, begin)
        return begin

    def _value(self, piece: bytes, out: List[Json]) -> None:
        """A complete value, or the end of a document of several lines."""
        if self._kind == "document":
            self._hold(piece, out)
            if self._kind == "document":
                self._flush(out)
                self._kind = "next"
        elif len(piece) > self._max:
            self._too_long(out)
        elif piece == b"[DONE]":
            self._finish()
        else:
            self._kind = "lines"
            self._emit_whole(piece, out)

    def _open_end(self, line: bytes, out: List[Json]) -> None:
        """A value that continues in the next line, as only a document does."""
        if len(line) > self._max:
            self._too_long(out)
        elif self._kind == "lines":
            self._end = JsonEnd("{[")
        else:
            self._kind = "document"
            self._hold(line, out)
        self._scanned = 0

    # ---- Lines of an event stream
    def _first(self, line: bytes, out: List[Json]) -> None:
        """Decide what the body is."""
        while line.startswith(_BOM):
            line = line[len(_BOM) :]
        if line[:1] == b"<" and self._kind == "?":
            out.append(
                _protocol_error(
                    "The answer is an HTML page, not a completion: check base_url, and proxies on the way."
                )
            )
            self._stop()
        elif line:
            self._kind = "lines"
            self._line(line, out)

    def _data(self, payload: bytes, out: List[Json]) -> None:
        if not self._held and not self._alarm and self._emit_whole(payload, out):
            return
        payload = payload.strip()
        if payload.startswith(b"[DONE]"):
            self._flush(out)
            self._finish()
        elif payload:
            self._hold(payload, out)

    def _field(self, line: bytes, out: List[Json]) -> None:
        """A line of an event stream that is neither blank nor data."""
        name, _, value = line.partition(b":")
        value = value.strip()
        if name == b"event":
            self._flush(out)  # some servers forget the blank line
            self._alarm = value == b"error"
        elif name == b"error" and value:  # llama.cpp before its pull request 16109
            self._emit_error(_str(value), out)

    def _hold(self, line: bytes, out: List[Json]) -> None:
        self._held += line
        self._held += b"\n"
        if len(self._held) > self._max:
            self._too_long(out)

    def _flush(self, out: List[Json]) -> None:
        """The end of an event, or of the document."""
        text, alarm = str(self._held, "utf-8", "replace").strip(), self._alarm
        self._held, self._alarm = bytearray(), False
        if alarm:
            self._emit_error(text, out)
            return
        values = _values(text)
        if values[:1] != [_GARBAGE]:
            self._emit_values(values, out)
        else:  # there may be a damaged line between good ones
            for line in text.split("\n"):
                self._emit_values(_values(line), out)

    def _emit_whole(self, payload: bytes, out: List[Json]) -> bool:
        """Emit the payload if it is JSON by itself.

        :returns: False if it is not
        """
        if len(payload) > LARGE and payload[:8].lstrip()[:1] == b"{" and payload[-8:].rstrip()[-1:] == b"}":
            out.append(Unparsed(payload))
            return True
        text = str(payload, "utf-8", "replace").strip(_STRIPPED)
        try:
            value = _parse(text)
        except _UNREADABLE:
            return False
        if type(value) is dict:
            out.append(value)
        else:
            self._emit_values([value], out)
        return True

    def _emit_values(self, values: List[Any], out: List[Json]) -> None:
        """Emit the objects among the values, and those in lists."""
        for value in values:
            if value == "[DONE]":  # in quotes
                self._finish()
                return
            out.extend(item for item in (value if type(value) is list else [value]) if type(item) is dict)

    def _emit_error(self, text: str, out: List[Json]) -> None:
        values = _values(text)
        error: Optional[Any] = values[0] if len(values) == 1 and type(values[0]) is dict else None
        if error is None:
            out.append({"error": {"message": text or "The provider reported an error without a message."}})
        else:
            out.append(error if error.get("error") else {"error": error})

    def _finish(self) -> None:
        self.done = True
        self._stop()

    def _stop(self) -> None:
        self._kind = "over"
        self._partial.clear()
        self._held.clear()

    def _too_long(self, out: List[Json]) -> None:
        self._stop()
        out.append(
            _protocol_error(f"The answer has a line, event or document of more than {self._max} bytes.")
        )
