"""The bytes of a provider's answer to chunks.

A provider that answers with status 200 may send an event stream, JSON lines, one JSON document or an HTML
page, whatever its Content-Type says.  So only the bytes decide: the first line that is not blank shows which
of these it is.  The decoder works by lines, and handles each line once and completely as soon as it ends, so
the result cannot depend on how the network cut the bytes.  A JSON document ends with its last brace, and
``[DONE]`` with its bracket: some servers send no line end after them and leave the connection open.

Event streams are read more leniently than the standard asks for.  A ``data:`` line that is a whole JSON value
is a chunk at once, without waiting for the blank line.  This serves providers that separate events by one
newline, and saves latency with all others.  Only a line that is not JSON by itself waits for the rest of its
event.  Every byte is scanned a bounded number of times, even when they arrive one by one.

Large data is neither copied nor parsed here: an :class:`Unparsed` takes the place of its chunks.
"""

from __future__ import annotations

import re
from typing import Any, List, Optional, Union

from ...json_codec import UNREADABLE, parser
from ...types import Json
from ..json_end import JsonEnd
from .unparsed import GARBAGE, STRIPPED, Unparsed, chunks_of, protocol_error, values_of

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t"
_NO_BLANK = re.compile(r"[^ \t]|\Z")
_OPENS = re.compile(rb"(?:\xef\xbb\xbf[ \t]{0,8})?[{\[]")
_DONE_LINE = re.compile(rb"data:[ \t]{0,8}\[DONE\]")
_DONE_SIZE = 19  # the maximum length of a match
_DATA = re.compile(rb"[ \t]*data:[ \t]*")

LARGE = 1 << 18  # bytes of a value that is left to be parsed in steps
MAX_ERROR = 1 << 14  # bytes of an error
MAX_VALUES = 2048  # values in one read that have no line ends between them
# NaN and Infinity are not JSON, and must not be sent on.
_parse = parser(lambda word: None)


Bytes = Union[bytes, bytearray]  # a large line is a bytearray, to spare a copy


def _str(line: Bytes) -> str:
    return str(line, "utf-8", "replace")


class ChunkDecoder:
    """Reads the body of a 2xx answer incrementally; raises nothing, whatever the bytes are.

    :param max_line: the most bytes that are held for one line, one event or one JSON document; more become an
        error chunk, which ends the answer

    An error of the framing (HTML, an event of type ``error``, an ``error:`` field) becomes a chunk
    ``{"error": ...}``.  Frames that are not JSON objects are skipped.

    .. attribute:: done    ``[DONE]`` was seen; later bytes are ignored
    """

    def __init__(self, max_line: int = 64 << 20) -> None:
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
        lines: List[Any] = data.splitlines()
        rest = b"" if data[-1:] in b"\r\n" else lines.pop()
        if self._partial and lines:
            begun, self._partial = self._partial, bytearray()
            begun += lines[0]
            lines[0] = bytes(begun) if len(begun) <= LARGE else begun
        for line in lines:
            self._line(line, out)
            if self._kind == "over":
                return out
        if rest:
            self._rest(rest, out)
        return out

    def close(self) -> List[Json]:
        """The chunks that were still waiting for more bytes when the body ended."""
        out: List[Json] = []
        if self._partial:
            self._line(bytes(self._partial), out)
        if self._kind != "over":
            self._flush(out)
        self._stop()
        return out

    def _line(self, line: Bytes, out: List[Json]) -> None:
        if len(line) > LARGE and self._large_data(line, out):
            return
        if self._kind == "lines" and line[:5] == b"data:" and len(line) <= self._max:
            self._data(line[5:], out)
            return
        if line[:1] in (b" ", b"\t"):
            line = line.lstrip(_BLANKS)
        if self._is_json(line):
            end = self._end.find(str(memoryview(line)[self._scanned :], "latin-1"))
            if end >= 0:
                line = line[self._values(line, self._scanned + end, out) :]
            if self._kind != "over" and self._is_json(line):
                self._open_end(line, out)
                return
        if self._kind != "over":
            self._other(line, out)

    def _large_data(self, line: Bytes, out: List[Json]) -> bool:
        """Take a long line of an event stream, without a copy.

        :returns: False if it is something else, or too long
        """
        match = _DATA.match(line)
        if match is None or self._kind == "document" or len(line) > self._max:
            return False
        begin = match.end()
        ends = line[begin : begin + 1] + line[-8:].rstrip()[-1:]
        self._kind = "lines"
        if ends in (b"{}", b"[]") and not (self._held or self._alarm):
            out.append(Unparsed(line, begin))
        else:
            if not self._held and isinstance(line, bytearray):
                self._held, line, begin = line, b"", 0
                del self._held[: match.end()]
            self._hold(memoryview(line)[begin:], out)
        return True

    def _other(self, line: Bytes, out: List[Json]) -> None:
        """A line that does not begin with a JSON value."""
        if len(line) > self._max and not _DONE_LINE.match(line):
            self._too_long(out)
        elif self._kind != "lines":
            self._first(line, out)
        elif line[:5] == b"data:":
            self._data(line[5:], out)
        elif line:
            self._field(bytes(line[:MAX_ERROR]), out)
        elif self._held or self._alarm:
            self._flush(out)

    def _rest(self, rest: bytes, out: List[Json]) -> None:
        """The beginning of a line, or more of it; a complete value need not wait for the line's end."""
        self._partial += rest if self._partial else rest.lstrip(_BLANKS)
        if self._is_json(self._partial):
            end = self._end.find(str(self._partial[self._scanned :], "latin-1"))
            if end >= 0:
                line, self._partial = self._partial, bytearray()
                begin = self._values(line, self._scanned + end, out)
                self._partial += memoryview(line)[begin:]
            self._scanned = len(self._partial) if self._is_json(self._partial) else 0
        if self._kind != "over" and _DONE_LINE.match(self._partial) and self._kind != "document":
            self._other(bytes(self._partial), out)
        if self._kind != "over" and len(self._partial) > max(self._max, _DONE_SIZE):
            self._too_long(out)

    # ---- JSON without a field name
    def _is_json(self, line: Bytes) -> bool:
        return self._kind == "document" or _OPENS.match(line) is not None

    def _values(self, line: Bytes, end: int, out: List[Json]) -> int:
        """Take the JSON values at the beginning of a line.

        :param end: where the first of them ends
        :returns: where the rest of the line begins.  If that is JSON, it does not end on this line, and
            ``_end`` has read it
        """
        view, begin = memoryview(line), 0
        self._value(view[:end], out)
        text, after = str(view[end:], "latin-1"), end  # where the text begins
        for _ in range(MAX_VALUES):
            self._end, self._scanned = JsonEnd("{["), 0
            begin = after + _NO_BLANK.search(text, end - after).start()  # type: ignore[union-attr]
            if self._kind == "over" or not _OPENS.match(line, begin):
                return begin
            end = after + self._end.find(text, begin - after)
            if end < after:
                return begin
            self._value(view[begin:end], out)
        self._stop()
        out.append(protocol_error(f"The answer has more than {MAX_VALUES} JSON values in one piece."))
        return len(line)

    def _value(self, piece: memoryview, out: List[Json]) -> None:
        """A complete value, or the end of a document of several lines."""
        if self._kind == "document":
            self._hold(piece, out)
            if self._kind == "document":
                self._flush(out)
                self._kind = "next"
        elif len(piece) > self._max:
            self._too_long(out)
        elif bytes(piece[:7]) == b"[DONE]":
            self._finish()
        else:
            self._kind = "lines"
            self._emit_whole(piece, out)

    def _open_end(self, line: Bytes, out: List[Json]) -> None:
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
    def _first(self, line: Bytes, out: List[Json]) -> None:
        """Decide what the body is."""
        while line.startswith(_BOM):
            line = line[len(_BOM) :]
        if line[:1] == b"<" and self._kind == "?":
            out.append(
                protocol_error(
                    "The answer is an HTML page, not a completion: check base_url, and proxies on the way."
                )
            )
            self._stop()
        elif line:
            self._kind = "lines"
            self._line(line, out)

    def _data(self, payload: Bytes, out: List[Json]) -> None:
        plain = not self._held and not self._alarm and payload[:7] != b" [DONE]"  # which fails as JSON
        if plain and self._emit_whole(payload, out):
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

    def _hold(self, line: Union[Bytes, memoryview], out: List[Json]) -> None:
        self._held += line
        self._held += b"\n"
        if len(self._held) > self._max:
            self._too_long(out)

    def _flush(self, out: List[Json]) -> None:
        """The end of an event, or of the document."""
        held, alarm = self._held, self._alarm
        self._held, self._alarm = bytearray(), False
        if alarm:
            self._emit_error(_str(held[:MAX_ERROR]).strip(), out)
            return
        if len(held) > LARGE:
            out.append(Unparsed(held, lines=True))
            return
        text = _str(held).strip()
        values = values_of(text)
        if values[:1] != [GARBAGE]:
            self._emit_values(values, out)
        else:  # there may be a damaged line between good ones
            for line in text.split("\n"):
                self._emit_values(values_of(line), out)

    def _emit_whole(self, payload: Union[Bytes, memoryview], out: List[Json]) -> bool:
        """Emit the payload if it is JSON by itself.

        :returns: False if it is not
        """
        if len(payload) > LARGE:  # a value from its first bracket to its last
            out.append(Unparsed(payload))
            return True
        text = str(payload, "utf-8", "replace").strip(STRIPPED)
        try:
            value = _parse(text)
        except UNREADABLE:
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
            out += chunks_of(value)

    def _emit_error(self, text: str, out: List[Json]) -> None:
        values = values_of(text)
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
            protocol_error(
                f"The answer has a line, event or JSON document of more than {self._max} bytes, the limit of "
                "this proxy. Ask for a stream, or for a shorter answer."
            )
        )
