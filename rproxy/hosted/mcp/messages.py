"""The messages of MCP in the bytes of an answer: one JSON document, lines, or server-sent events.

Nothing here does input or output.  Servers are not trusted: an answer is the message with our id, whatever
comes before it, and every buffer has a limit.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from ...errors import RproxyError
from ...types import Json

HTTP, PROTOCOL, TOOL = "http_error", "mcp_protocol_error", "mcp_tool_execution_error"
NO_ANSWER = 424  # the code of an http_error without an answer: Failed Dependency
# Codes of JSON-RPC.
METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32601, -32602, -32603
MAX_TEXT = 500  # characters of a server's own words


class McpError(RproxyError):
    """A request to a server has failed; the text says why.

    ``kind`` and ``code`` are those of the ``error`` of an ``mcp_call``: HTTP with a status, PROTOCOL with a
    JSON-RPC code.  ``answered``: the server has answered.  ``sent``: it may have received the request.
    """

    def __init__(self, kind: str, code: int, text: str, data: Any = None, *, answered: bool = True) -> None:
        super().__init__(text)
        self.kind, self.code, self.data, self.answered = kind, code, data, answered
        self.sent = True


def unreachable(reason: str, sent: bool = True) -> McpError:
    """The error of a request that got no answer."""
    error = McpError(HTTP, NO_ANSWER, reason, answered=False)
    error.sent = sent
    return error


class ServerEvent(NamedTuple):
    """An event of an event stream."""

    type: str
    data: str


class EventDecoder:
    """Server-sent events, as the HTML standard defines them.

    :param max_bytes: of one event

    .. attribute:: last_id    where a broken stream can be resumed, or ""
    .. attribute:: retry      seconds to wait before that
    """

    def __init__(self, max_bytes: int) -> None:
        self.last_id, self.retry = "", 1.0
        self._max = max_bytes
        self._after_cr = False  # an LF that follows belongs to it
        self._partial = bytearray()
        self._type = ""
        self._data: List[str] = []
        self._size = 0  # of the event so far

    def feed(self, data: bytes) -> List[ServerEvent]:
        """The events that ``data`` completes.

        :raises McpError: one is too long
        """
        found: List[ServerEvent] = []
        if not data:
            return found
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        self._after_cr = data[-1:] == b"\r"
        lines = data.splitlines()
        rest = b"" if data[-1:] in b"\r\n" else lines.pop()
        for line in lines:
            if self._partial:
                line = bytes(self._partial + line)
                self._partial.clear()
            self._line(line.decode("utf-8", "replace").lstrip("\ufeff"), found)
        self._partial += rest
        if self._size + len(self._partial) > self._max:
            raise too_long(self._max)
        return found

    def _line(self, line: str, found: List[ServerEvent]) -> None:
        if not line:
            if self._data:
                found.append(ServerEvent(self._type or "message", "\n".join(self._data)))
            self._type, self._data, self._size = "", [], 0
            return
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            self._data.append(value)
            self._size += len(value) + 1
            if self._size > self._max:
                raise too_long(self._max)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self.last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = min(int(value[:9]) / 1000, 60.0)


class LineDecoder:
    """Messages as lines, which is how they come through pipes.

    :param max_bytes: of one line, and of everything between two messages that is not a message
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._partial = bytearray()
        self._noise = 0  # bytes

    def feed(self, data: bytes) -> List[Json]:
        """The messages that ``data`` completes; other lines, which programs print, are skipped.

        :raises McpError: a line is too long, or there are too many others
        """
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._partial + lines[0])
            self._partial.clear()
        self._partial += rest
        found: List[Json] = []
        for line in filter(None, lines):
            messages = list(messages_in(line.decode("utf-8", "replace"))) if line[:1] in b"{[" else []
            self._noise = 0 if messages else self._noise + len(line)
            found += messages
        if max(self._noise, len(self._partial), *map(len, lines), 0) > self._max:
            raise too_long(self._max)
        return found


class MessageReader:
    """Reads the body of the answer to one request over HTTP.

    :param wanted: the id of the request; None: the message was not a request
    :param events: the body is an event stream
    :param max_bytes: of the whole body

    .. attribute:: answer      the answer, as soon as it has come
    .. attribute:: requests    the server's own requests
    """

    def __init__(self, wanted: Optional[int], events: bool, max_bytes: int) -> None:
        self.answer: Optional[Json] = None
        self.requests: List[Json] = []
        self._wanted, self._room, self._max = wanted, max_bytes, max_bytes
        self.events = EventDecoder(max_bytes) if events else None
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """:raises McpError: the body is too long"""
        self._room -= len(data)
        if self._room < 0:
            raise too_long(self._max)
        if self.events is None:
            self._body += data
            return
        for event in self.events.feed(data):
            self._take(event.data)

    def close(self) -> None:
        """The body is complete."""
        if self.events is None and self._body:
            self._take(self._body.decode("utf-8", "replace"))
            self._body.clear()

    def _take(self, text: str) -> None:
        for message in messages_in(text):
            if is_request(message):
                self.requests.append(message)
            elif self.answer is None and answers(message, self._wanted):
                self.answer = message


def too_long(most: int) -> McpError:
    """The error of an answer that is longer than ``most`` bytes."""
    return McpError(HTTP, NO_ANSWER, f"its answer is longer than {most} bytes")


def messages_in(text: str) -> Iterator[Json]:
    """The messages in a JSON text, which may be a batch (2025-03-26); none if it is not JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    for message in value if isinstance(value, list) else (value,):
        if isinstance(message, dict) and message.get("jsonrpc") == "2.0":
            yield message


def is_request(message: Json) -> bool:
    """Does the server expect an answer to it?"""
    return isinstance(message.get("method"), str) and message.get("id") is not None


def answers(message: Json, wanted: Optional[int]) -> bool:
    """Is it the answer to the request with this id?  An error without an id counts as one."""
    if wanted is None or "method" in message:
        return False
    if isinstance(message.get("error"), dict):
        return message.get("id") in (wanted, None)
    return type(message.get("id")) is int and message["id"] == wanted and "result" in message


def reply_to(message: Json) -> Json:
    """The reply to the server's own request: only ``ping`` is supported."""
    reply: Dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "ping":
        return {**reply, "result": {}}
    return {**reply, "error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}
