"""Writing, for both edges.

:class:`SocketWriter` puts bytes straight into the socket when nothing is queued there, because a write
through IOStream costs an iteration of the event loop for every delta.  :class:`EventWriter` remembers how far
a turn has come, so that the edge can end it when the service cannot.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial
from typing import Awaitable, Optional, Sequence

from tornado.iostream import IOStream, StreamClosedError

from ..convert.status import TERMINAL_TYPES
from ..errors import ApiError
from ..types import Event, Response, ResponseError


class SocketWriter:
    """Ordered writes to one client: into the socket when it takes them, else into the stream's queue."""

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream

    @property
    def blocked(self) -> bool:
        """Is output still waiting for the client?"""
        return self._stream.writing()

    def send(self, data: bytes) -> Optional[Awaitable[None]]:
        """Send all of ``data``; this never fails.

        :returns: None, or what to wait for when the client does not keep up
        """
        stream, sent = self._stream, 0
        sock: Optional[socket.socket] = stream.socket
        if sock is None:
            return None  # closed; the close callback cancels the turn
        if not stream.writing():
            try:
                sent = sock.send(data)
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            except OSError as error:
                stream.close(error)
                return None
            if sent == len(data):
                return None
        try:
            return written_or_closed(stream.write(memoryview(data)[sent:]))
        except StreamClosedError:
            return None


def written_or_closed(written: asyncio.Future[None]) -> asyncio.Future[None]:
    """A future that is done when ``written`` is, but never raises: a client that left is not a failure."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    written.add_done_callback(partial(_set_done, done))
    return done


def _set_done(done: asyncio.Future[None], written: asyncio.Future[None]) -> None:
    if not written.cancelled():
        written.exception()  # marks it as retrieved, so that asyncio does not log it
    if not done.done():
        done.set_result(None)


class EventWriter:
    """What every event sink remembers about its turn: whether it has begun, and how to end it if need be."""

    def __init__(self) -> None:
        self.response: Optional[Response] = None
        self._next = 0
        self.ended = False  # the terminal event was sent

    @property
    def open(self) -> bool:
        """Is the stream between its first and its terminal event?"""
        return self.response is not None and not self.ended

    def note(self, events: Sequence[Event]) -> None:
        """Remember the position in the stream."""
        last = events[-1]
        self._next = last["sequence_number"] + 1
        self.ended = last["type"] in TERMINAL_TYPES

    def failed(self, error: ApiError) -> Event:
        """The terminal event of a turn that rproxy itself cuts short after it has begun."""
        assert self.response is not None
        shown: ResponseError = {"code": error.stream_code, "message": error.failed_message()}
        response: Response = {**self.response, "status": "failed", "error": shown}
        return {"type": "response.failed", "sequence_number": self._next, "response": response}
