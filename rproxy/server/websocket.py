"""The WebSocket edge: one socket, many turns.

**Lanes.**  A client may name a lane with ``stream_id``; requests without one share the unnamed lane.  Inside
a lane turns run one after another in the order they came, lanes run side by side, at most ``MAX_RUNNING``
turns at once.  A lane has a queue, and a task that exists as long as the queue holds something.

**Reading never waits for a turn.**  ``on_message`` only files the request.  While it would wait, Tornado
could read neither a close frame nor a pong, and would in the end cut a healthy client off; and
``response.interrupt`` would come too late.  It waits in one case: when the client does not even read the
errors it provokes.

**State of the connection.**  The last responses of each lane stay here for ``previous_response_id`` even with
``store: false`` (:class:`LocalResponses`); the service reads and writes them through a mapping, one per lane.

**Ends.**  An error of a turn is an ``error`` frame and leaves the socket open.  After
``server.websocket_max_age`` seconds, and when the server stops, running turns are finished, then the socket
is closed with a code that makes clients connect again.

Sources: the WebSocket guide of the Responses API; the behaviour of Codex CLI and of the OpenAI SDKs.
"""

from __future__ import annotations

import asyncio
import logging
import re
import struct
from collections import deque
from typing import (
    Any,
    Awaitable,
    Callable,
    Deque,
    Dict,
    Iterator,
    Mapping,
    MutableMapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from tornado.iostream import IOStream
from tornado.websocket import WebSocketHandler

from ..convert.events.fastpath import DeltaBatch
from ..convert.sse import encode_json
from ..errors import ApiError, invalid, unavailable, ws_error
from ..types import Json
from ..upstream.client import CancelToken
from .base import STOPPING, BaseHandler, new_request_id
from .body import LARGE, parse_large, parse_object
from .writer import EventWriter, SocketWriter

log = logging.getLogger("rproxy.websocket")


MAX_LANES = 32
MAX_RUNNING = 16
KEPT_PER_LANE = 2  # responses; the one before the last allows for a retry
KEPT = 64
PING_INTERVAL = 30.0  # seconds; against middle boxes that forget idle connections
STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}\Z")
NOT_FOR_TURNS = ("type", "stream_id", "stream", "background")  # they belong to the transport

RECONNECT = 1001
INTERNAL_ERROR = 1011
RESTART = 1012

BAD_STREAM_ID = (
    "The 'stream_id' field must be a non-empty string with at most 256 characters and may only contain letters, "
    "numbers, underscores, hyphens, and periods."
)
TOO_MANY_LANES = (
    f"This WebSocket connection has reached its maximum number of distinct stream IDs ({MAX_LANES}). "
    "Reuse an existing stream_id or open a new WebSocket connection."
)


def frame(data: bytes) -> bytes:
    """One unmasked text frame (RFC 6455, 5.2)."""
    size = len(data)
    if size < 126:
        return bytes((0x81, size)) + data
    if size < 65536:
        return struct.pack("!BBH", 0x81, 126, size) + data
    return struct.pack("!BBQ", 0x81, 127, size) + data


class LocalResponses:
    """The records this connection remembers: the last ones of each lane, oldest first."""

    def __init__(self) -> None:
        self.records: Dict[str, Tuple[Optional[str], Any]] = {}

    def add(self, lane: Optional[str], key: str, record: Any) -> None:
        """Remember ``record``; what is over the limits of the lane and of the connection is forgotten."""
        self.records.pop(key, None)
        self.records[key] = (lane, record)
        mine = [old for old, (name, _) in self.records.items() if name == lane]
        for old in mine[:-KEPT_PER_LANE] + list(self.records)[:-KEPT]:
            self.records.pop(old, None)


class LaneResponses(MutableMapping[str, Any]):
    """The view of one lane: it sees every record of the connection, and adds and drops its own.

    A lane that forks off another lane's response and fails must not take it away from that lane.
    """

    def __init__(self, local: LocalResponses, lane: Optional[str]) -> None:
        self._local = local
        self._lane = lane

    def __getitem__(self, key: str) -> Any:
        return self._local.records[key][1]

    def __setitem__(self, key: str, record: Any) -> None:
        self._local.add(self._lane, key, record)

    def __delitem__(self, key: str) -> None:
        if self._local.records[key][0] == self._lane:
            del self._local.records[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._local.records)

    def __len__(self) -> int:
        return len(self._local.records)


class CloseReason(NamedTuple):
    """Why a connection ends: what further requests are told, and the close frame."""

    error: ApiError
    code: int
    reason: str


class WebSocketSink(EventWriter):
    """Events of one turn as text frames (:class:`rproxy.service.service.EventSink`)."""

    def __init__(self, session: ResponsesSocket, stream_id: Optional[str]) -> None:
        super().__init__()
        self._session = session
        self._stream_id = stream_id
        self.interrupt = CancelToken()

    def begin(self, response: Json, headers: Mapping[str, str]) -> None:
        """The turn is going to be answered with events.  A frame has no headers."""
        self.response = response

    def send(self, events: Sequence[Json]) -> Optional[Awaitable[None]]:
        """Write whole events, at once.  Returns what to wait for when the client does not keep up."""
        if type(events) is DeltaBatch:
            self._next = events.after
        elif events:
            self.note(events)
        else:
            return None
        return self._session.write_events(events, self._stream_id)


class Channel:
    """Requests that are answered one after another."""

    def __init__(self, name: Optional[str], local: LocalResponses) -> None:
        self.name = name
        self.queue: Deque[Json] = deque()
        self.responses = LaneResponses(local, name)
        self.task: Optional[asyncio.Task[None]] = None
        self.out: Optional[WebSocketSink] = None  # of the turn that runs


def read_message(message: Union[str, bytes]) -> Json:
    """The JSON object in a message. Raises ApiError 400."""
    if isinstance(message, bytes):
        raise invalid("Binary frames are not part of the protocol; send JSON in text frames.")
    return parse_object(message, "message")


class ResponsesSocket(BaseHandler, WebSocketHandler):
    """``GET /responses`` with ``Upgrade: websocket``."""

    def initialize(self) -> None:
        super().initialize()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lanes: Dict[Optional[str], Channel] = {}
        self._local = LocalResponses()
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._wire: Optional[SocketWriter] = None
        self._farewell: Optional[CloseReason] = None  # set: no new turns; said when the last one is done
        self._age: Optional[asyncio.TimerHandle] = None

    # ---- the handshake
    def prepare(self) -> None:
        self.admit()

    async def get(self, *args: Any, **kwargs: Any) -> None:
        headers = self.request.headers
        if "upgrade" not in [word.strip().lower() for word in headers.get("Connection", "").split(",")]:
            raise invalid(
                "A WebSocket handshake needs the header 'Connection: Upgrade'. If a reverse proxy is in between, let it pass on."
            )
        if not headers.get("Sec-WebSocket-Key") or headers.get("Sec-WebSocket-Version") != "13":
            raise invalid("A WebSocket handshake needs Sec-WebSocket-Key and 'Sec-WebSocket-Version: 13'.")
        for name, value in self.catalog_headers.items():
            self.set_header(name, value)
        await super().get(*args, **kwargs)

    def check_origin(self, origin: str) -> bool:
        return True  # admit() has asked already

    def open(self, *args: str, **kwargs: str) -> None:
        assert self.ws_connection is not None and isinstance(self.ws_connection.stream, IOStream)
        self._wire = SocketWriter(self.ws_connection.stream)
        self._age = asyncio.get_running_loop().call_later(
            self.state.config.server.websocket_max_age, self.expire
        )
        self.state.sessions.add(self)

    # ---- what the client says
    def on_message(self, message: Union[str, bytes]) -> Optional[Awaitable[None]]:
        if isinstance(message, str) and len(message) > LARGE:
            return self.on_large_message(message)
        return self.dispatch(lambda: read_message(message))

    async def on_large_message(self, message: str) -> None:
        try:
            request = await parse_large(message, "message")
        except ApiError as error:
            waits = self.write_error_event(error, None)
        else:
            waits = self.dispatch(lambda: request)
        if waits is not None:
            await waits

    def dispatch(self, read: Callable[[], Json]) -> Optional[Awaitable[None]]:
        """Do what a message says; an error becomes an event."""
        stream_id = None
        try:
            request = read()
            given = request.get("stream_id")
            if "stream_id" in request and (not isinstance(given, str) or not STREAM_ID.match(given)):
                raise invalid(BAD_STREAM_ID, param="stream_id", code="invalid_stream_id")
            stream_id = given
            action = ACTIONS.get(str(request.get("type")))
            if action is None:
                raise invalid(
                    f"This server does not know messages of type {str(request.get('type'))[:100]!r}; "
                    f"it knows {', '.join(ACTIONS)}.",
                    param="type",
                )
            return action(self, request, stream_id)
        except ApiError as error:
            return self.write_error_event(error, stream_id)
        except Exception:
            log.error("%s: a message could not be handled", self.request_id, exc_info=True)
            self.write_error_event(self.as_api_error(RuntimeError()), stream_id)
            self.close(INTERNAL_ERROR, "internal error")
        return None

    def create(self, request: Json, stream_id: Optional[str]) -> None:
        """``response.create``: queue a turn.  Raises ApiError when there is no room for it."""
        if self._farewell is not None:
            raise self._farewell.error
        lane = self.lane(stream_id)
        if self.waiting() >= self.state.config.server.max_queue:
            raise ApiError(
                429,
                "Too many requests are waiting on this connection. Wait for one to finish, or raise server.max_queue.",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=1.0,
            )
        lane.queue.append({key: value for key, value in request.items() if key not in NOT_FOR_TURNS})
        if lane.task is None:
            lane.task = asyncio.ensure_future(self.run_lane(lane))
            self.state.track(lane.task, lane.task)

    def waiting(self) -> int:
        """How many requests wait; those whose lane has only not got round to starting them do not count."""
        lanes = self._lanes.values()
        running = sum(lane.out is not None for lane in lanes)
        starting = sum(lane.out is None and lane.task is not None and len(lane.queue) > 0 for lane in lanes)
        return sum(len(lane.queue) for lane in lanes) - min(starting, MAX_RUNNING - running)

    def lane(self, stream_id: Optional[str]) -> Channel:
        """The lane of that name; made when new.  Raises ApiError when there are too many."""
        if stream_id not in self._lanes:
            if stream_id is not None and sum(name is not None for name in self._lanes) >= MAX_LANES:
                raise invalid(TOO_MANY_LANES, param="stream_id", code="websocket_stream_limit_reached")
            self._lanes[stream_id] = Channel(stream_id, self._local)
        return self._lanes[stream_id]

    def interrupt(self, request: Json, stream_id: Optional[str]) -> None:
        """``response.interrupt`` and ``response.cancel``: end a running response early, with what it has.

        One that is not running is not an error: the message and the end of the turn may have crossed on the
        way.
        """
        wanted = request.get("response_id")
        for lane in self._lanes.values():
            running = lane.out.response if lane.out is not None else None
            if lane.out is None or running is None:
                continue
            if running.get("id") == wanted if wanted is not None else lane.name == stream_id:
                lane.out.interrupt.cancel()

    def steer(self, request: Json, stream_id: Optional[str]) -> Optional[Awaitable[None]]:
        """``response.steer``: Chat Completions cannot take input while it answers."""
        error = {
            "type": "invalid_request_error",
            "code": "steering_not_supported",
            "param": None,
            "message": "This server cannot steer a running response; interrupt it, or send the input when it is finished.",
        }
        told = {key: request[key] for key in ("previous_response_id", "input") if key in request}
        event = {"type": "response.steer.failed", "sequence_number": 0, "error": error, "steer": told}
        return self.write_events([event], stream_id)

    # ---- turns
    async def run_lane(self, lane: Channel) -> None:
        """Answer what is in the lane's queue, in order."""
        try:
            while lane.queue:
                async with self._slots:
                    await self.run_turn(lane, lane.queue.popleft())
        except Exception:  # not the turn, which has its own errors: telling the client has failed
            log.error("%s: closing the WebSocket", self.request_id, exc_info=True)
            self.close(INTERNAL_ERROR, "internal error")
        finally:
            lane.task = None
            self.close_if_idle()

    async def run_turn(self, lane: Channel, request: Json) -> None:
        """One response: its events, or one error frame."""
        request_id = new_request_id()
        out = lane.out = WebSocketSink(self, lane.name)
        client = self.client("ws", request_id=request_id, local=lane.responses, interrupt=out.interrupt)
        try:
            await self.state.service.create(request, client, out)
        except asyncio.CancelledError:
            self.break_off(out, unavailable(STOPPING), lane.name)
            raise
        except ApiError as error:
            self.break_off(out, error, lane.name)
        except Exception as error:
            log.error("%s failed", request_id, exc_info=True)
            self.break_off(out, error, lane.name)
        finally:
            lane.out = None

    def break_off(self, out: WebSocketSink, error: Exception, stream_id: Optional[str]) -> None:
        """Tell the client that the turn failed: with its terminal event if it had begun, else with an error
        frame."""
        if out.open:
            out.send([out.failed(self.as_api_error(error))])
        elif out.response is None:
            self.write_error_event(self.as_api_error(error), stream_id)

    # ---- what the client hears
    def write_events(
        self, events: Sequence[Json], stream_id: Optional[str] = None
    ) -> Optional[Awaitable[None]]:
        """Write events as frames, at once.  Returns what to wait for when the client does not keep up."""
        if self._wire is None or self.ws_connection is None or self.ws_connection.is_closing():
            return None
        if stream_id is not None:
            events = [{**event, "stream_id": stream_id} for event in events]
        payloads = events.payloads() if type(events) is DeltaBatch else map(encode_json, events)
        return self._wire.send(b"".join(map(frame, payloads)))

    def write_error_event(self, error: ApiError, stream_id: Optional[str]) -> Optional[Awaitable[None]]:
        """Write an ``error`` frame; the socket stays open."""
        error = self.for_client(error)
        log.info("%s WebSocket error: %d %s", self.request_id, error.status, error.code or error.type)
        return self.write_events([ws_error(error, stream_id)])

    # ---- the end
    def expire(self) -> None:
        """The connection is as old as it may get."""
        minutes = round(self.state.config.server.websocket_max_age / 60)
        error = ApiError(
            400,
            f"Responses websocket connection limit reached ({minutes} minutes). "
            "Create a new websocket connection to continue.",
            code="websocket_connection_limit_reached",
        )
        self.drain(CloseReason(error, RECONNECT, "connection limit reached"))

    def shut_down(self) -> None:
        """The server stops: finish what runs, then close."""
        self.drain(CloseReason(unavailable(STOPPING), RESTART, "server restart"))

    def drain(self, close_reason: CloseReason) -> None:
        """Refuse what waits, finish what runs, then close."""
        self._farewell = close_reason
        for lane in self._lanes.values():
            while lane.queue:
                lane.queue.pop()
                self.write_error_event(close_reason.error, lane.name)
        self.close_if_idle()

    def close_if_idle(self) -> None:
        """Say farewell if that is due and nothing runs."""
        if self._farewell is None or any(lane.task is not None for lane in self._lanes.values()):
            return
        if self._farewell.code == RECONNECT:
            self.write_error_event(self._farewell.error, None)
        self.close(self._farewell.code, self._farewell.reason)

    def on_close(self) -> None:
        self.state.sessions.discard(self)
        if not self.closed.done():
            self.closed.set_result(None)
        if self._age is not None:
            self._age.cancel()
        for lane in self._lanes.values():
            lane.queue.clear()
            if lane.task is not None:
                lane.task.cancel()


Action = Callable[[ResponsesSocket, Json, Optional[str]], Optional[Awaitable[None]]]

ACTIONS: Dict[str, Action] = {
    "response.create": ResponsesSocket.create,
    "response.interrupt": ResponsesSocket.interrupt,
    "response.cancel": ResponsesSocket.interrupt,
    "response.steer": ResponsesSocket.steer,
}
