"""WebSocket frames (RFC 6455, 5): how ours are written, and which of a client's are refused.

Tornado unmasks what is masked and takes the rest as it is, and it closes the connection without a word when a
frame breaks the rules.  :class:`StrictProtocol` says why, in a close frame with the code 1002.
"""

from __future__ import annotations

import struct
from typing import Optional

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

PROTOCOL_ERROR = 1002
OPCODES = (0x0, 0x1, 0x2, 0x8, 0x9, 0xA)


def frame(data: bytes) -> bytes:
    """One unmasked text frame (RFC 6455, 5.2)."""
    size = len(data)
    if size < 126:
        return bytes((0x81, size)) + data
    if size < 65536:
        return struct.pack("!BBH", 0x81, 126, size) + data
    return struct.pack("!BBQ", 0x81, 127, size) + data


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
        data = await super()._read_bytes(n)
        if self._at_beginning:
            self._at_beginning = False
            wrong = fault(data[0], data[1])
            if wrong is not None:
                self.close(PROTOCOL_ERROR, wrong)
                raise StreamClosedError  # ends the connection
        return data
