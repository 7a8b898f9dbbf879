"""Server-sent events: one turn, or the view of one, written to an HTTP client.

A stream that has begun ends with a terminal event, whatever happens: clients must never have to guess how a
turn ended.
"""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Awaitable, Callable, Coroutine, Mapping, Optional, Sequence

from tornado.web import Finish

from ..convert.events.fastpath import DeltaBatch
from ..convert.json_steps import sse_blocks
from ..convert.sse import DONE, encode_sse
from ..errors import error_event
from ..types import Event, Response
from .http import HttpHandler, StreamedBody
from .writer import EventWriter

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class SSESink(EventWriter):
    """The events of one turn as a server-sent event stream (:class:`rproxy.service.client.EventSink`)."""

    def __init__(self, handler: HttpHandler) -> None:
        super().__init__()
        self._handler = handler
        self.body = StreamedBody(handler)
        self.done = False  # [DONE] was sent, together with the terminal event

    @property
    def begun(self) -> bool:
        """True when the head of the response has been sent, or will be with the next event."""
        return self.response is not None or self.body.begun

    @property
    def blocked(self) -> bool:
        """Is output still waiting for the client?"""
        return self._handler.stream.writing()

    def begin(self, response: Response, headers: Mapping[str, str]) -> None:
        """Commit to status 200; the head leaves with the first events."""
        if not self.begun:
            self.put_head(headers)
        self.response = response

    def idle(self) -> Optional[Awaitable[None]]:
        """Send a comment, so that no intermediary takes the connection for dead, unless output is waiting."""
        if self.blocked:
            return None
        if not self.begun:
            self.put_head({})
        return self.body.write(b": wait\n\n")

    def put_head(self, headers: Mapping[str, str]) -> None:
        """Set the headers of an event stream."""
        for name, value in {**self._handler.codex_headers, **headers}.items():
            self._handler.set_header(name, value)
        self._handler.put_headers(STREAM_HEADERS)
        self._handler.put_time()

    def send(self, events: Sequence[Event]) -> Optional[Awaitable[None]]:
        """Write whole events at once.

        :returns: what to wait for when the client does not keep up
        """
        if type(events) is DeltaBatch:
            self._next = events.after
            return self.body.write(events.sse())
        if not events:
            return None
        self.note(events)
        self.done = self.ended
        return self.body.write(encode_sse(events) + (DONE if self.done else b""))

    async def send_large(self, events: Sequence[Event]) -> None:
        """Write events piece by piece, as the client takes them."""
        self.note(events)
        self.done = self.ended
        try:
            await self.body.write_all(chain(sse_blocks(events), [DONE] if self.done else []))
        except asyncio.CancelledError:
            self.body.abort()  # within an event
            raise


async def send_events(
    handler: HttpHandler, work: Callable[[SSESink], Coroutine[None, None, None]], *, resumable: bool = False
) -> None:
    """Answer with the event stream that ``work`` writes, or with an HTTP error when it fails before its first
    event.

    :param resumable: the turn continues without this client, which can ask for the rest: it must not see a
        terminal event when only this stream breaks off
    """
    sink = SSESink(handler)
    try:
        await handler.run_turn(work(sink))
    except Exception as error:
        if not sink.begun or handler.client_left:
            raise
        handler.log_exception(type(error), error, error.__traceback__)
        if resumable:
            sink.body.abort()
            raise Finish() from error
        if sink.open:
            sink.send([sink.failed(handler.as_api_error(error))])
        elif sink.response is None:
            sink.body.write(encode_sse([error_event(handler.as_api_error(error), 0)]))
    await sink.body.finish(b"" if sink.done else DONE)
