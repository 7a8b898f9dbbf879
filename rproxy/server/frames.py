"""WebSocket frames (RFC 6455, 5): how ours are written, and which of a client's are refused.

Tornado unmasks what is masked and takes the rest as it is, and it closes the connection without a word when a
frame breaks the rules.  :class:`StrictProtocol` says why, in a close frame with the code 1002.
"""

from __future__ import annotations

import struct
from typing import Iterable, Iterator, Optional

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

from ..cooperative import Slices

PROTOCOL_ERROR = 1002
PIECE = 1 << 18  # bytes that are read at once
OPCODES = (0x0, 0x1, 0x2, 0x8, 0x9, 0xA)
_FIN, _TEXT, _CONTINUATION = 0x80, 0x1, 0x0


def frame(data: bytes, first: int = _FIN | _TEXT) -> bytes:
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
    opcode, held = _TEXT, b""
    for piece in pieces:
        if held:
            yield frame(held, opcode)
            opcode = _CONTINUATION
        held = piece
    yield frame(held, _FIN | opcode)


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


class StrictProtocol(WebSocketProtocol13):
    """The protocol of one connection, which refuses frames that have a :func:`fault`."""

    _at_beginning = False  # of a frame

    async def _receive_frame(self) -> None:
        self._at_beginning = True
        await super()._receive_frame()

    async def _read_bytes(self, n: int) -> bytes:
        if n > PIECE:
            return await self._read_long(n)
        data = await super()._read_bytes(n)
        if self._at_beginning:
            self._at_beginning = False
            wrong = fault(data[0], data[1])
            if wrong is not None:
                self.close(PROTOCOL_ERROR, wrong)
                raise StreamClosedError  # ends the connection
        return data

    async def _read_long(self, size: int) -> bytes:
        """Read in pieces, so that a fast client does not keep the others waiting."""
        pieces, slices = [], Slices()
        for begin in range(0, size, PIECE):
            pieces.append(await super()._read_bytes(min(PIECE, size - begin)))
            await slices.pause()
        return b"".join(pieces)
