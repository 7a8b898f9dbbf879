"""Writes the messages of one WebSocket.

A message is one frame, unless it is too large to be encoded as a whole: then it is a fragmented one
(RFC 6455, 5.4), which is written as the client takes it.  Between its fragments there may be control frames,
but no other messages: those wait.
"""

from __future__ import annotations

import asyncio
from typing import Awaitable, Iterable, List, Optional

from tornado.iostream import IOStream

from ..cooperative import Slices
from .frames import fragments, frame
from .writer import SocketWriter


class FrameWriter:
    """Writes messages to one client, in order."""

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream
        self._writer = SocketWriter(stream)
        self._lock = asyncio.Lock()  # held while fragments are written
        self._held: List[bytes] = []  # messages that arrived meanwhile
        self._written: Optional[asyncio.Future[None]] = None  # when that is over

    @property
    def blocked(self) -> bool:
        """Is output still waiting for the client?"""
        return self._written is not None or self._writer.blocked

    def send(self, messages: Iterable[bytes]) -> Optional[Awaitable[None]]:
        """Write messages at once.

        :returns: what to wait for when the client does not keep up
        """
        data = b"".join(map(frame, messages))
        if self._written is None:
            return self._writer.send(data)
        self._held.append(data)
        return asyncio.shield(self._written)

    async def send_large(self, messages: Iterable[Iterable[bytes]]) -> None:
        """Write messages that are given in pieces."""
        async with self._lock:
            self._written = asyncio.get_running_loop().create_future()
            slices = Slices()
            try:
                for pieces in messages:
                    for data in fragments(pieces):
                        await (self._writer.send(data) or slices.pause())
            except asyncio.CancelledError:
                self._stream.close()  # within a message
                raise
            finally:
                self._written.set_result(None)
                held, self._held, self._written = self._held, [], None
                self._writer.send(b"".join(held))
