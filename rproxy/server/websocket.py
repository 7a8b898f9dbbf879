"""The WebSocket edge: one connection, many turns.

**Channels.**  A client may name a channel with ``stream_id``; requests without one share the unnamed channel.
Within a channel turns run one after another in the order they came; channels run side by side, at most
``MAX_RUNNING`` turns at once.  A channel has a queue, and a task while the queue holds something.

**Reading never waits for a turn.**  ``on_message`` only queues the request.  If it waited, Tornado could read
neither a close frame nor a pong, and would in the end close a healthy connection; and
``response.interrupt`` would come too late.  It waits while a large message that has to wait is measured.  And
because thousands of messages may arrive at once, it waits after one that begins no turn, until the client has
read the answer and others have had their turn (:func:`give_way`); so does a queue before its next turn.

**State of the connection.**  The last responses of each channel stay here for ``previous_response_id``, even
with ``store: false``; see :mod:`rproxy.server.local_responses`.

**Ends.**  A turn's error is an ``error`` frame and leaves the connection open.  After
``server.websocket_max_age`` seconds, and when the server stops, running turns are finished, then the
connection is closed with a code that makes clients connect again.

Sources: the WebSocket guide of the Responses API; the behaviour of Codex CLI and of the OpenAI SDKs.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from typing import Any, Awaitable, Callable, Deque, Dict, Mapping, NamedTuple, Optional, Sequence, Union

from tornado.iostream import IOStream
from tornado.websocket import WebSocketHandler, WebSocketProtocol, WebSocketProtocol13

from ..convert.events.fastpath import DeltaBatch
from ..convert.json_steps import json_blocks
from ..cooperative import give_way
from ..errors import ApiError, invalid, unavailable, ws_error
from ..json_codec import encode_json
from ..service.owner_cache import counted_memory, memory_of
from ..store.time_limit import limit_store_time
from ..types import Event, Json, Response
from ..upstream.client import CancelToken
from . import websocket_errors as errors
from .base import STOPPING, BaseHandler, new_request_id
from .body import LARGE, parse_large
from .frame_writer import FrameWriter
from .frames import Pieces, StrictProtocol
from .local_responses import ChannelResponses, LocalResponses
from .pending import MEASURED_AT_ONCE, ByteBudget, Waiting, read_message, size_of
from .tornado_patches import patch_websocket
from .writer import EventWriter

log = logging.getLogger("rproxy.websocket")

MAX_RUNNING = 16
STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}\Z")

RECONNECT = 1001
INTERNAL_ERROR = 1011
RESTART = 1012


class CloseReason(NamedTuple):
    """Why a connection ends: the error for further requests, and the code and text of the close frame."""

    error: ApiError
    code: int
    text: str


class WebSocketSink(EventWriter):
    """Events of one turn as text frames (:class:`rproxy.service.client.EventSink`)."""

    def __init__(self, session: ResponsesSocket, stream_id: Optional[str]) -> None:
        super().__init__()
        self._session = session
        self._stream_id = stream_id
        self.interrupt = CancelToken()

    @property
    def blocked(self) -> bool:
        """Is output still waiting for the client?"""
        return self._session.blocked

    def begin(self, response: Response, headers: Mapping[str, str]) -> None:
        """Commit to an answer with events.  Frames have no headers."""
        self.response = response

    def send(self, events: Sequence[Event]) -> Optional[Awaitable[None]]:
        """Write whole events at once.

        :returns: what to wait for when the client does not keep up
        """
        if type(events) is DeltaBatch:
            self._next = events.after
        elif events:
            self.note(events)
        else:
            return None
        return self._session.write_events(events, self._stream_id)

    async def send_large(self, events: Sequence[Event]) -> None:
        """Write events piece by piece, as the client takes them.

        Who no longer waits for that, because the user has interrupted the turn, does not end it: what is sent
        next comes behind it.
        """
        self.note(events)
        await asyncio.shield(asyncio.ensure_future(self._session.write_large(events, self._stream_id)))

    def fail(self, error: Exception, request: Json) -> None:
        """End the turn with its terminal event if it has begun, else with an error frame."""
        if self.open:
            self.send([self.failed(self._session.as_api_error(error))])
        elif self.response is None:
            self._session.write_error_event(error, self._stream_id, request)


class Channel:
    """Requests that are answered one after another."""

    def __init__(self, name: Optional[str], local: LocalResponses) -> None:
        self.name = name
        self.queue: Deque[Waiting] = deque()
        self.responses = ChannelResponses(local, name)
        self.task: Optional[asyncio.Task[None]] = None
        self.sink: Optional[WebSocketSink] = None  # of the running turn


async def pause_after(written: Optional[Awaitable[None]]) -> None:
    """Wait until the client has taken what was written, if it is not there yet, and others had their turn."""
    if written is not None:
        await written
    await give_way()


class ResponsesSocket(BaseHandler, WebSocketHandler):
    """``GET /responses`` with ``Upgrade: websocket``."""

    def initialize(self) -> None:
        super().initialize()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._channels: Dict[Optional[str], Channel] = {}
        self._local = LocalResponses(self.state.remembered)
        self._pending = ByteBudget(self.state.config.server.max_pending_bytes, self.state.pending)
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._writer: Optional[FrameWriter] = None
        self._close_reason: Optional[CloseReason] = None  # set: no new turns, close after the last one
        self._age_timer: Optional[asyncio.TimerHandle] = None

    # ---- The handshake
    def prepare(self) -> None:
        self.admit()

    async def get(self, *args: Any, **kwargs: Any) -> None:
        headers = self.request.headers
        if "upgrade" not in [word.strip().lower() for word in headers.get("Connection", "").split(",")]:
            raise errors.no_upgrade()
        if not headers.get("Sec-WebSocket-Key") or headers.get("Sec-WebSocket-Version") != "13":
            raise invalid("A WebSocket handshake needs Sec-WebSocket-Key and 'Sec-WebSocket-Version: 13'.")
        for name, value in self.codex_headers.items():
            self.set_header(name, value)
        limit = self.state.config.server.max_message_size
        self.set_header("x-codex-websocket-max-message-bytes", str(limit))
        await super().get(*args, **kwargs)

    def get_websocket_protocol(self) -> Optional[WebSocketProtocol]:
        patch_websocket()
        lenient = super().get_websocket_protocol()
        if not isinstance(lenient, WebSocketProtocol13):
            return None
        return StrictProtocol(self, lenient.params, self.on_large_text)

    def check_origin(self, origin: str) -> bool:
        return True  # admit() has checked it

    def open(self, *args: str, **kwargs: str) -> None:
        assert self.ws_connection is not None and isinstance(self.ws_connection.stream, IOStream)
        self._writer = FrameWriter(self.ws_connection.stream)
        max_age = self.state.config.server.websocket_max_age
        self._age_timer = asyncio.get_running_loop().call_later(max_age, self.expire)
        self.state.sessions.add(self)

    # ---- Messages from the client
    def on_message(self, message: Union[str, bytes]) -> Optional[Awaitable[None]]:
        return self.dispatch(lambda: read_message(message), size_of(message))

    async def on_large_text(self, pieces: Pieces, size: int) -> None:
        """The same for a text that takes long to parse, in UTF-8."""
        try:
            request = await parse_large(pieces, "message", size > LARGE)
        except ApiError as error:
            await self.refuse(error, None)
        else:
            await (self.dispatch(lambda: request, size) or asyncio.sleep(0))

    def dispatch(self, read: Callable[[], Json], size: int) -> Optional[Awaitable[None]]:
        """Act on one message; an error becomes an error frame.

        :param read: gives the message, or raises ApiError
        :param size: of the message in bytes
        :returns: what to wait for before the next one is read
        """
        stream_id = None
        try:
            request = read()
            name = request.get("stream_id")
            if "stream_id" in request and (not isinstance(name, str) or not STREAM_ID.match(name)):
                raise errors.bad_stream_id()
            stream_id = name
            action = ACTIONS.get(str(request.get("type")))
            if action is None:
                raise invalid(
                    f"This server does not support messages of type {str(request.get('type'))[:100]!r}; "
                    f"it supports {', '.join(ACTIONS)}.",
                    param="type",
                )
            return action(self, request, stream_id, size)
        except ApiError as error:
            return self.refuse(error, stream_id)
        except Exception as error:
            log.error("%s: a message could not be handled", self.request_id, exc_info=True)
            self.write_error_event(error, stream_id)
            self.close(INTERNAL_ERROR, "internal error")
        return None

    async def refuse(self, error: ApiError, stream_id: Optional[str]) -> None:
        """Answer a message with an error."""
        await pause_after(self.write_error_event(error, stream_id))

    def create(self, request: Json, stream_id: Optional[str], size: int) -> Optional[Awaitable[None]]:
        """``response.create``: queue a turn.

        :raises ApiError: the connection is about to close, or there is no room for another request
        """
        if self._close_reason is not None:
            raise self._close_reason.error
        channel = self.channel(stream_id)
        if self.waiting() >= self.state.config.server.max_queue:
            raise errors.queue_full()
        waiting = Waiting.now(request, size)
        if waiting.warms_up or not self.starts_at_once(channel):
            if size > MEASURED_AT_ONCE:
                return self.create_later(channel, waiting)
            waiting = waiting._replace(charge=self._pending.take(memory_of(waiting.request)))
        self.enqueue(channel, waiting)
        return None

    async def create_later(self, channel: Channel, waiting: Waiting) -> None:
        """Queue a large turn that has to wait, if there is room for what it holds."""
        held = await counted_memory(waiting.request)
        try:
            if self._close_reason is not None:
                raise self._close_reason.error
            waiting = waiting._replace(charge=self._pending.take(held))
        except ApiError as error:
            await self.refuse(error, channel.name)
        else:
            if not self.closed.done():
                self.enqueue(channel, waiting)

    def enqueue(self, channel: Channel, waiting: Waiting) -> None:
        """Put a turn into the queue of its channel."""
        channel.queue.append(waiting)
        if channel.task is None:
            channel.task = asyncio.ensure_future(self.run_channel(channel))
            self.state.track(channel.task, channel.task)

    def starts_at_once(self, channel: Channel) -> bool:
        """Would the next request of a channel not have to wait?"""
        busy = [one for one in self._channels.values() if one.sink is not None or one.queue]
        return len(busy) < MAX_RUNNING and channel not in busy

    def waiting(self) -> int:
        """How many requests are waiting, without those that start as soon as their channel's task runs."""
        queued = running = starting = 0
        for channel in self._channels.values():
            queued += len(channel.queue)
            running += channel.sink is not None
            starting += channel.sink is None and bool(channel.queue)
        return queued - min(starting, MAX_RUNNING - running)

    def channel(self, stream_id: Optional[str]) -> Channel:
        """The channel of that name, made when it is new.

        :raises ApiError: there are too many
        """
        if stream_id not in self._channels:
            named = sum(name is not None for name in self._channels)
            if stream_id is not None and named >= errors.MAX_CHANNELS:
                raise errors.too_many_channels()
            self._channels[stream_id] = Channel(stream_id, self._local)
        return self._channels[stream_id]

    def interrupt(self, request: Json, stream_id: Optional[str], size: int) -> Awaitable[None]:
        """``response.interrupt`` and ``response.cancel``: end a running response early, with what it has.

        A response that is not running is not an error: the message may have crossed the end of the turn.
        """
        wanted = request.get("response_id")
        for channel in self._channels.values():
            sink = channel.sink
            if sink is None or sink.response is None:
                continue
            if sink.response.get("id") == wanted if wanted is not None else channel.name == stream_id:
                sink.interrupt.cancel()
        return give_way()

    def steer(self, request: Json, stream_id: Optional[str], size: int) -> Awaitable[None]:
        """``response.steer``: refused, because Chat Completions takes no input while it answers."""
        return pause_after(self.write_events([errors.no_steering(request)], stream_id))

    # ---- Turns
    async def run_channel(self, channel: Channel) -> None:
        """Answer what is in the channel's queue, in order."""
        ran = False
        try:
            while channel.queue:
                if ran:
                    await give_way()
                ran = True
                async with self._slots:
                    if channel.queue:  # drain() may have emptied it in the meantime
                        await self.run_turn(channel, channel.queue.popleft())
        except Exception:  # not the turn, which handles its own errors: the error could not be written
            log.error("%s: closing the WebSocket", self.request_id, exc_info=True)
            self.close(INTERNAL_ERROR, "internal error")
        finally:
            channel.task = None
            self.close_if_idle()

    async def run_turn(self, channel: Channel, waiting: Waiting) -> None:
        """One response: its events, or one error frame."""
        request = waiting.request
        channel.responses.begin(request.get("previous_response_id"), waiting.start(), waiting.size)
        limit_store_time()
        request_id = new_request_id()
        sink = channel.sink = WebSocketSink(self, channel.name)
        try:
            self.key = self.state.access.key(self.request.headers)  # it may have expired since the handshake
            came, local = waiting.arrived, channel.responses
            client = self.client("ws", waiting.size, came, request_id, local, sink.interrupt)
            await self.state.service.create(request, client, sink)
            await channel.responses.weigh()
        except asyncio.CancelledError:
            sink.fail(unavailable(STOPPING), request)
            raise
        except ApiError as error:
            sink.fail(error, request)
        except Exception as error:
            log.error("%s failed", request_id, exc_info=True)
            sink.fail(error, request)
        finally:
            channel.sink = None
            channel.responses.end()

    # ---- Messages to the client
    @property
    def blocked(self) -> bool:
        """Is output still waiting for the client?"""
        return self._writer is not None and self._writer.blocked

    def write_events(
        self, events: Sequence[Mapping[str, Any]], stream_id: Optional[str] = None
    ) -> Optional[Awaitable[None]]:
        """Write events as frames, at once.

        :returns: what to wait for when the client does not keep up
        """
        if self._writer is None or self.ws_connection is None or self.ws_connection.is_closing():
            return None
        if stream_id is not None:
            events = [{**event, "stream_id": stream_id} for event in events]
        payloads = events.payloads() if type(events) is DeltaBatch else map(encode_json, events)
        return self._writer.send(payloads)

    async def write_large(self, events: Sequence[Mapping[str, Any]], stream_id: Optional[str]) -> None:
        """Write events piece by piece, as the client takes them."""
        if self._writer is not None:
            more = {} if stream_id is None else {"stream_id": stream_id}
            await self._writer.send_large(json_blocks({**event, **more}) for event in events)

    def write_error_event(
        self, error: Exception, stream_id: Optional[str], request: Optional[Json] = None
    ) -> Optional[Awaitable[None]]:
        """Write an ``error`` frame; the connection stays open.

        :param request: the message that it answers, as far as it could be read
        :returns: what to wait for when the client does not keep up
        """
        shown = self.as_api_error(error)
        if not getattr(error, "reported", False):
            self.log_refusal(error if isinstance(error, ApiError) else shown, "WS", request or {})
        return self.write_events([ws_error(shown, stream_id)])

    # ---- The end
    def expire(self) -> None:
        """Close because the connection has reached its maximum age."""
        minutes = round(self.state.config.server.websocket_max_age / 60)
        error = ApiError(
            400,
            f"Responses websocket connection limit reached ({minutes} minutes). "
            "Create a new websocket connection to continue.",
            code="websocket_connection_limit_reached",
        )
        self.drain(CloseReason(error, RECONNECT, "connection limit reached"))

    def shut_down(self) -> None:
        """Close because the server stops."""
        self.drain(CloseReason(unavailable(STOPPING), RESTART, "server restart"))

    def drain(self, close_reason: CloseReason) -> None:
        """Refuse the waiting requests, let the running ones finish, then close."""
        self._close_reason = close_reason
        for channel in self._channels.values():
            while channel.queue:
                channel.queue.pop().drop()
                self.write_error_event(close_reason.error, channel.name)
        self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close the connection if it is draining and nothing runs any more."""
        if self._close_reason is None or any(channel.task is not None for channel in self._channels.values()):
            return
        if self._close_reason.code == RECONNECT:
            self.write_error_event(self._close_reason.error, None)
        self.close(self._close_reason.code, self._close_reason.text)

    def on_close(self) -> None:
        self.state.sessions.discard(self)
        self._pending.close()
        self._local.close()
        if not self.closed.done():
            self.closed.set_result(None)
        if self._age_timer is not None:
            self._age_timer.cancel()
        for channel in self._channels.values():
            while channel.queue:
                channel.queue.pop().drop()
            if channel.task is not None:
                channel.task.cancel()


Action = Callable[[ResponsesSocket, Json, Optional[str], int], Optional[Awaitable[None]]]
ACTIONS: Dict[str, Action] = {
    "response.create": ResponsesSocket.create,
    "response.interrupt": ResponsesSocket.interrupt,
    "response.cancel": ResponsesSocket.interrupt,
    "response.steer": ResponsesSocket.steer,
}
