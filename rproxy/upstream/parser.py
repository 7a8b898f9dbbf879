"""An incremental parser for one HTTP/1.1 response: bytes in, a head and body bytes out; no sockets, no clock.

``feed`` takes whatever has arrived and returns the body bytes in it, with the chunked coding removed.
``head`` is set as soon as the head is complete, and ``done`` as soon as the body is.  The parser's state is
the method that reads the next thing: a line of the head, a chunk, the rest of a sized body.  It returns the
position after what it took, or ``WAIT`` if a line is not complete.  Only such an incomplete line is kept, and
every line has a limit, so that memory stays bounded whatever a server sends.

The contract, tested with arbitrary bytes: the response is parsed, or :class:`ProtocolError` is raised, and it
makes no difference how the bytes were cut into reads.  Tolerated, because real servers send them: bare LF as
line end, folded header lines, spaces before the colon, chunk extensions, trailers, a missing reason phrase,
and 100, 102 or 103 before the response.  Source: RFC 9112 sections 4 to 7.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from ..errors import RproxyError

MAX_HEAD = 65536  # bytes of status line and headers, those of 1xx responses included; also of the trailers
MAX_CHUNK_LINE = 4096  # bytes of a chunk size with its extensions
MAX_INFLATED = 8 << 20  # bytes that one read of a compressed body may expand to

WAIT = -1
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: (.*))?")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# The whole head of a final response, as nearly all servers write it; any other is read line by line.
_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([2-9][0-9][0-9])(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*)\r\n"
)
_DIGITS = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_NO_BODY = frozenset({204, 304})


class ProtocolError(RproxyError):
    """The bytes are not an HTTP/1.1 response.

    ``truncated``: they are the beginning of one, but the connection was closed.
    """

    def __init__(self, message: str, truncated: bool = False) -> None:
        super().__init__(message)
        self.truncated = truncated


class Head(NamedTuple):
    """Status line and headers of the final (not 1xx) response.

    Names are as the server wrote them, values are latin-1 text.  ``joined``: the values of all headers of one
    name, joined with commas, by the name in lower case.
    """

    version: str  # "HTTP/1.1" or "HTTP/1.0"
    status: int
    reason: str
    headers: List[Tuple[str, str]]
    joined: Dict[str, str]

    def values(self, name: str) -> List[str]:
        """The comma-separated values of all headers of this name, in lower case.

        :param name: in lower case
        """
        line = self.joined.get(name)
        if line is None:
            return []
        return [part for part in map(str.strip, line.lower().split(",")) if part]


@lru_cache(maxsize=4096)
def _size_line(length: int) -> bytes:
    """The first line of a chunk, as servers write it.

    :param length: of the whole chunk, with its framing
    """
    for digits in range(1, 9):
        size = length - digits - 4
        if size > 0 and len(b"%x" % size) == digits:
            return b"%x\r\n" % size
    return b"?" * (length + 1)  # there is no such chunk


class ResponseParser:
    """One response.

    :param method: of the request; a response to HEAD and a 2xx response to CONNECT have no body

    ``head``: None until it is complete.  ``done``: the response is complete.  ``reusable``: it is, and the
    connection can carry the next request.
    """

    def __init__(self, method: str = "GET") -> None:
        self.head: Optional[Head] = None
        self.done = False
        self._method = method
        self._persistent = False
        self._state: Callable[[ResponseParser, bytes, int], int] = ResponseParser._status_line
        self._rest = b""  # an incomplete line
        self._extra = False  # bytes arrived after the end
        self._budget = MAX_HEAD  # bytes left for lines of the head, then of the trailers
        self._start: Tuple[str, int, str] = ("", 0, "")
        self._headers: List[Tuple[str, str]] = []
        self._left = 0  # bytes of a sized body or of the current chunk that are still to come
        self._body: List[bytes] = []

    @property
    def reusable(self) -> bool:
        return self.done and self._persistent and not self._extra

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes.

        :returns: the body bytes in them
        :raises ProtocolError: the response is not valid
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if self._state is ResponseParser._chunk_line:  # often a read is exactly one chunk
            line = _size_line(len(data))
            if data.startswith(line) and data.endswith(b"\r\n"):
                return data[len(line) : -2]
        position, end = 0, len(data)
        while position < end and not self.done:
            after = self._state(self, data, position)
            if after == WAIT:
                self._rest = data[position:]
                break
            position = after
        else:
            self._extra = self._extra or position < end
        return self.take_body()

    def take_body(self) -> bytes:
        """The body bytes before the place where :meth:`feed` raised."""
        body, self._body = self._body, []
        return body[0] if len(body) == 1 else b"".join(body)

    def feed_eof(self) -> bytes:
        """The server has closed the connection.

        :returns: b"", as a counterpart to :meth:`feed`
        :raises ProtocolError: ``truncated``, unless that is how this response ends
        """
        if self._state is ResponseParser._until_close:
            self.done = True
        elif self.head is not None and not self.done:
            raise ProtocolError("the connection was closed in the middle of the response", truncated=True)
        elif self.head is None:
            begun = self._rest or self._budget < MAX_HEAD
            where = "in the middle of the head" if begun else "without a response"
            raise ProtocolError(f"the connection was closed {where}", truncated=True)
        return b""

    # ---- Lines of the head
    def _line(self, data: bytes, position: int) -> Tuple[bytes, int]:
        end = data.find(b"\n", position)
        size = (end + 1 if end >= 0 else len(data)) - position
        if size > self._budget:
            raise ProtocolError(f"the head of the response is longer than {MAX_HEAD} bytes")
        if end < 0:
            return b"", WAIT
        self._budget -= size
        line = data[position:end]
        line = line[:-1] if line.endswith(b"\r") else line
        if _CONTROL.search(line):
            raise ProtocolError(f"a control character in the head of the response: {line[:80]!r}")
        return line, end + 1

    def _status_line(self, data: bytes, position: int) -> int:
        head = _HEAD.match(data, position, position + self._budget)
        if head is not None:
            minor, status, reason, lines = head.groups()
            self._begin(minor, status, reason)
            fields = [line.partition(":") for line in lines.decode("latin-1").split("\r\n")[:-1]]
            self._headers = [(name, value.strip(" \t")) for name, _, value in fields]
            self._end_of_head()
            return head.end()
        line, after = self._line(data, position)
        if after != WAIT:
            match = _STATUS.fullmatch(line)
            if match is None:
                raise ProtocolError(f"the response is not HTTP/1.1, it begins with {line[:80]!r}")
            self._begin(*match.groups())
            self._state = ResponseParser._header_line
        return after

    def _begin(self, minor: bytes, status: bytes, reason: Optional[bytes]) -> None:
        self._start = ("HTTP/1." + minor.decode(), int(status), (reason or b"").decode("latin-1").strip())
        self._headers = []

    def _header_line(self, data: bytes, position: int) -> int:
        line, after = self._line(data, position)
        if after != WAIT:
            if not line:
                self._end_of_head()
            elif line[:1] in b" \t":
                self._continue_header(line)
            else:
                self._add_header(line)
        return after

    def _add_header(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        if not colon or not _TOKEN.fullmatch(name):
            raise ProtocolError(f"not a header line: {line[:80]!r}")
        self._headers.append((name.decode("ascii"), value.strip(b" \t").decode("latin-1")))

    def _continue_header(self, line: bytes) -> None:
        if not self._headers:
            raise ProtocolError(f"the head of the response begins with a folded line: {line[:80]!r}")
        name, value = self._headers[-1]
        self._headers[-1] = (name, (value + " " + line.strip(b" \t").decode("latin-1")).strip())

    def _end_of_head(self) -> None:
        joined: Dict[str, str] = {}
        for name, value in self._headers:
            name = name.lower()
            joined[name] = f"{joined[name]},{value}" if name in joined else value
        head = Head(*self._start, self._headers, joined)
        if head.status == 101:
            raise ProtocolError("the server switched protocols unasked (101)")
        if head.status < 200:
            self._state = ResponseParser._status_line
            return
        self.head = head
        self._persistent = head.version == "HTTP/1.1" and "close" not in head.values("connection")
        self._budget = MAX_HEAD
        self._frame(head)

    def _frame(self, head: Head) -> None:
        """Determine the length of the body: RFC 9112 section 6.3."""
        coding, lengths = head.values("transfer-encoding"), head.values("content-length")
        tunnel = self._method == "CONNECT" and head.status < 300
        if self._method == "HEAD" or tunnel or head.status in _NO_BODY:
            self.done = True
        elif coding:
            if coding != ["chunked"]:
                raise ProtocolError(f"Transfer-Encoding {', '.join(coding)[:80]!r} is not supported")
            # with a Content-Length beside it, the chunks count, but what follows them cannot be trusted
            self._persistent = self._persistent and not lengths
            self._state = ResponseParser._chunk_line
        elif lengths:
            if len(set(lengths)) > 1 or not _DIGITS.fullmatch(lengths[0]):
                raise ProtocolError(f"Content-Length {', '.join(lengths)[:80]!r} is not one number")
            self._left = int(lengths[0])
            self.done = self._left == 0
            self._state = ResponseParser._sized
        else:
            self._persistent = False
            self._state = ResponseParser._until_close

    # ---- Bytes of the body
    def _until_close(self, data: bytes, position: int) -> int:
        self._body.append(data[position:])
        return len(data)

    def _sized(self, data: bytes, position: int) -> int:
        piece = data[position : position + self._left]
        self._body.append(piece)
        self._left -= len(piece)
        self.done = self._left == 0
        return position + len(piece)

    def _chunk_line(self, data: bytes, position: int) -> int:
        match = _CHUNK.match(data, position)
        if match is None:
            return self._bad_chunk_line(data, position)
        while match is not None:  # whole chunks
            start = match.end()
            end = start + int(match[1], 16)
            if start == end or not data.startswith(b"\r\n", end):
                self._left = end - start
                self._state = ResponseParser._chunk if self._left else ResponseParser._trailer_line
                return start
            self._body.append(data[start:end])
            position = end + 2
            match = _CHUNK.match(data, position)
        return position

    def _bad_chunk_line(self, data: bytes, position: int) -> int:
        line = data[position : position + MAX_CHUNK_LINE]
        if b"\n" in line or len(line) == MAX_CHUNK_LINE:
            raise ProtocolError(f"not a chunk size: {line[:80]!r}")
        return WAIT

    def _chunk(self, data: bytes, position: int) -> int:
        piece = data[position : position + self._left]
        self._body.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._state = ResponseParser._chunk_end
        return position + len(piece)

    def _chunk_end(self, data: bytes, position: int) -> int:
        for end in (b"\r\n", b"\n"):
            if data.startswith(end, position):
                self._state = ResponseParser._chunk_line
                return position + len(end)
        if data[position:] == b"\r":
            return WAIT
        raise ProtocolError(f"a chunk is longer than its size: {data[position : position + 80]!r}")

    def _trailer_line(self, data: bytes, position: int) -> int:
        line, after = self._line(data, position)
        self.done = after != WAIT and not line
        return after


class GzipDecoder:
    """Decodes a gzip body while it arrives.

    It is an error if one read expands to more than :data:`MAX_INFLATED` bytes.
    """

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(31)
        self._started = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes.

        :returns: the decoded bytes
        :raises ProtocolError: the data is damaged, or expands too much
        """
        plain: List[bytes] = []
        room = MAX_INFLATED
        while data:
            if self._inflate.eof:  # RFC 1952 section 2.2: members follow one another
                self._inflate = zlib.decompressobj(31)
            self._started = True
            try:
                plain.append(self._inflate.decompress(data, room))
            except zlib.error as error:
                raise ProtocolError(f"the gzip body is damaged: {error}") from None
            room -= len(plain[-1])
            if self._inflate.unconsumed_tail or room <= 0:
                raise ProtocolError(f"the gzip body expands to more than {MAX_INFLATED} bytes in one read")
            data = self._inflate.unused_data
        return b"".join(plain)

    def close(self) -> None:
        """The body is complete.

        :raises ProtocolError: the gzip data is not
        """
        if self._started and not self._inflate.eof:
            raise ProtocolError("the gzip body ends too early", truncated=True)
