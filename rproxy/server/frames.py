"""WebSocket frames (RFC 6455, 5): how ours are written, and which of a client's are refused.

Tornado unmasks what is masked and takes the rest as it is, and it closes the connection without a word when a
frame breaks the rules.  :class:`StrictProtocol` says why, in a close frame with the code 1002, or 1007 for a
text that is not UTF-8.

Tornado also joins, unmasks and decodes a message as a whole, however long it is.  Here a long one stays in
pieces, which :func:`~rproxy.server.body.parse_large` takes as it takes those of a request body.
"""

from __future__ import annotations

import codecs
import struct
from asyncio import Future
from collections import deque
from typing import Any, Awaitable, Callable, Deque, Iterable, Iterator, NoReturn, Optional

from tornado import websocket
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

from ..cooperative import Slices
from .body import LARGE, MAYBE_LARGE, is_dense

# Codes of close frames (7.4.1).
PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
TOO_BIG = 1009

PIECE = 1 << 18  # bytes of a long frame that are read at once; a multiple of the mask's four
FIN = 0x80
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OPCODES = (0x0, 0x1, 0x2, 0x8, 0x9, 0xA)
NOT_IN_ORDER = "a message begins within another, or continues without a beginning"
NOT_UTF8 = "the text is not UTF-8"

Pieces = Iterator[bytes]
OnLargeText = Callable[[Pieces, int], Awaitable[None]]


def frame(data: bytes, first: int = FIN | TEXT) -> bytes:
    """One unmasked frame (5.2).

    :param first: its first byte
    """
    size = len(data)
    if size < 126:
        return bytes((first, size)) + data
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + data
    return struct.pack("!BBQ", first, 127, size) + data


def fragments(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The frames of one message."""
    opcode, held = TEXT, b""
    for piece in pieces:
        if held:
            yield frame(held, opcode)
            opcode = CONTINUATION
        held = piece
    yield frame(held, FIN | opcode)


def fault(first: int, second: int) -> Optional[str]:
    """What is wrong with a client's frame that begins with these two bytes."""
    opcode = first & 0x0F
    if not second & 0x80:
        return "the frames of a client must be masked"
    if first & 0x70:
        return "a reserved bit is set, but no extension was agreed on"
    if opcode not in OPCODES:
        return f"the opcode {opcode} is reserved"
    if opcode & 0x8 and (not first & 0x80 or second & 0x7F > 125):
        return "a control frame must be whole and have at most 125 bytes"
    return None


class Message:
    """A message whose frames are being read: its bytes, unmasked, in pieces.

    A text is checked piece by piece.  Nothing is kept of what cannot be used: a text that is not UTF-8, and a
    binary message, which is refused whatever it holds.
    """

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.size = 0  # in bytes, of all its frames so far
        self.is_utf8 = True
        self._pieces: Deque[bytearray] = deque()
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def add(self, data: bytes, final: bool = False) -> None:
        """Take the next bytes, at most a piece of them; none follow the final ones."""
        if self.opcode != TEXT or not self.is_utf8:
            return
        try:
            self._decode(data, final)
        except UnicodeDecodeError:
            self.is_utf8 = False
            self._pieces.clear()
            return
        if self._pieces and len(self._pieces[-1]) + len(data) <= PIECE:  # there may be very many short frames
            self._pieces[-1] += data
        else:
            self._pieces.append(bytearray(data))

    def pieces(self) -> Pieces:
        """What was added; it is given up."""
        while self._pieces:
            yield bytes(self._pieces.popleft())


class StrictProtocol(WebSocketProtocol13):
    """The protocol of one connection, which refuses frames that have a :func:`fault`.

    It reads all frames itself, long ones in pieces.  Compression is never agreed on.

    :param on_large_text: takes the pieces and the size of a text that takes long to parse;
        ``handler.on_message`` takes all other messages
    """

    def __init__(self, handler: Any, params: Any, on_large_text: OnLargeText) -> None:
        super().__init__(handler, False, params)
        self._on_large_text = on_large_text
        self._unmask: Callable[[bytes, bytes], bytes] = vars(websocket)["_websocket_mask"]
        self._message: Optional[Message] = None  # of which more frames follow

    async def _receive_frame(self) -> None:
        if self.stream.closed():
            raise StreamClosedError  # although more messages have arrived: nobody reads their answers
        first, second = await self.stream.read_bytes(2)
        wrong = fault(first, second)
        if wrong is not None:
            self._refuse(PROTOCOL_ERROR, wrong)
        opcode, size = first & 0x0F, second & 0x7F
        if size > 125:
            size = int.from_bytes(await self.stream.read_bytes(2 if size == 126 else 8), "big")
        self._wire_bytes_in += size  # after some of which Tornado gives others their turn
        message = self._message
        if opcode < CLOSE:
            if (opcode == CONTINUATION) is not (message is not None):
                self._refuse(PROTOCOL_ERROR, NOT_IN_ORDER)
            if size + (0 if message is None else message.size) > self.params.max_message_size:
                self._refuse(TOO_BIG, "message too big")
            if message is not None or not first & FIN or size > LARGE:
                await self._read_part(message or Message(opcode), size, first & FIN > 0)
                return
        masked = await self.stream.read_bytes(4 + size)
        handled = self._handle_message(opcode, self._unmask(masked[:4], masked[4:]))
        if handled is not None:
            await handled

    async def _read_part(self, message: Message, size: int, final: bool) -> None:
        """Read the rest of a frame that is long, or one of several of its message.

        :param size: of its payload
        :param final: the message is complete with it
        """
        mask, slices = await self.stream.read_bytes(4), Slices()
        for left in range(size, 0, -PIECE):
            data = await self.stream.read_bytes(min(PIECE, left))
            message.add(self._unmask(mask, data))
            await slices.pause()
        message.size += size
        if final:
            message.add(b"", True)
        self._message = None if final else message
        if not message.is_utf8:
            self._refuse(INVALID_DATA, NOT_UTF8)
        if final:
            await self._hand_over(message)

    async def _hand_over(self, message: Message) -> None:
        if message.size > LARGE and message.opcode == TEXT:
            handled = self._run_callback(self._on_large_text, message.pieces(), message.size)
        else:
            handled = self._handle_message(message.opcode, b"".join(message.pieces()))
        if handled is not None:
            await handled

    def _handle_message(self, opcode: int, data: bytes) -> Optional[Future[None]]:
        if opcode != TEXT or self.client_terminated:
            return super()._handle_message(opcode, data)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._refuse(INVALID_DATA, NOT_UTF8)
        if len(data) > MAYBE_LARGE and is_dense(data):
            return self._run_callback(self._on_large_text, iter([data]), len(data))
        return self._run_callback(self.handler.on_message, text)

    def _refuse(self, code: int, why: str) -> NoReturn:
        """End the connection."""
        self.close(code, why)
        raise StreamClosedError
