"""The HTTP edge: one request in, one JSON body or one stream out.

**The request body.**  Every handler streams its body (``@stream_request_body``), so that
:meth:`~rproxy.server.base.BaseHandler.admit` can refuse a request as soon as its header is there.
:class:`BodyPolicy` decides what happens to the body that follows.  A refusal is sent at once, but the
connection stays open until the body has passed, up to ``MAX_DISCARDED`` bytes: closing a socket that is still
receiving makes TCP drop the very response that explains the refusal.

**The turn.**  ``service.create`` runs in the handler's task.  When the client disconnects, Tornado calls
``on_connection_close`` and the turn is cancelled, whether or not the provider is sending.  When the server
stops, whatever still runs after the grace period is cancelled, too.

**Writing.**  The head leaves with the first piece of the body in one write; everything after that goes
through :mod:`rproxy.server.writer`.
"""

from __future__ import annotations

import asyncio
import time
from itertools import chain
from typing import Any, Awaitable, Callable, ClassVar, Coroutine, Dict, Iterable, Mapping, Optional, TypeVar

from tornado.iostream import IOStream
from tornado.web import Finish, stream_request_body

from ..convert.json_steps import json_blocks
from ..cooperative import Slices
from ..errors import ApiError, invalid, not_found, unavailable
from ..store.time_limit import limit_store_time
from ..types import Json
from .base import STOPPING, BaseHandler
from .body import CONTENT_LENGTH, BodyReader
from .connections import NEVER, ClientStream
from .writer import SocketWriter, written_or_closed

ROUTES_HINT = "This is a Responses API server: POST /v1/responses, GET /v1/models, GET /health."

T = TypeVar("T")
Method = Callable[..., Optional[Awaitable[None]]]

BODY_TIMEOUT = 600.0  # seconds a request body may take to arrive; Tornado's own limit costs a task a request
MAX_DISCARDED = 8 << 20  # bytes of an unwanted body that are read and discarded
DISCARD_TIMEOUT = 10.0  # seconds a body that nobody reads may take to arrive
LARGE_BODY = 1 << 20  # bytes of JSON; more is encoded while the client takes it
UNLIMITED = 1 << 60  # Tornado's own limit closes the connection without a response; BodyReader counts instead


def has_body(headers: Mapping[str, str]) -> bool:
    """Do the headers announce a request body?"""
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"


class BodyPolicy:
    """What happens to the body of one request while it arrives.

    At first it is ignored; :meth:`read` keeps it within a size limit; :meth:`refuse` discards it because the
    response has been sent already.  In each case the connection is closed when the body takes too long, which
    is soon unless it is read, and when more than ``MAX_DISCARDED`` bytes had to be thrown away.  A body that
    came with the head of its request is there before any of this.

    :param stream: the connection, which keeps the time limit
    :param headers: of the request
    """

    def __init__(self, stream: IOStream, headers: Mapping[str, str]) -> None:
        assert isinstance(stream, ClientStream)
        self._stream = stream
        self._whole = stream.whole
        self._early = b""  # the body of a whole request
        self._expected = not self._whole and has_body(headers)
        self._discarded = 0
        self.reader: Optional[BodyReader] = None
        self.refused = False
        self._limit(DISCARD_TIMEOUT, wanted=False)

    def read(self, reader: BodyReader) -> None:
        """Keep the body.

        :raises ApiError: 413, the body is larger than the reader's limit
        """
        self.reader = reader
        self._limit(BODY_TIMEOUT, wanted=True)
        if self._early:
            reader.feed(self._early)

    def refuse(self) -> None:
        """Discard the rest of the body, within a shorter time."""
        self.reader = None
        self.refused = True
        self._limit(DISCARD_TIMEOUT, wanted=False)

    def receive(self, piece: bytes) -> None:
        """Take the next piece.

        :raises ApiError: 413, the body is larger than the reader's limit
        """
        if self.reader is not None:
            self.reader.feed(piece)
            return
        if self._whole:
            self._early += piece
            return
        self._discarded += len(piece)
        if self._discarded > MAX_DISCARDED:
            self._stream.close()

    def over(self) -> None:
        """The body has arrived, or is not wanted any more."""
        self._stream.body_due = NEVER

    def _limit(self, seconds: float, wanted: bool) -> None:
        if self._expected:
            self._stream.body_due, self._stream.body_wanted = time.monotonic() + seconds, wanted


@stream_request_body
class HttpHandler(BaseHandler):
    """The handler of one path.  ``verbs`` of a subclass maps HTTP methods to its own methods."""

    verbs: ClassVar[Mapping[str, Method]]

    def initialize(self) -> None:
        super().initialize()
        self._body_policy = BodyPolicy(self.stream, self.request.headers)
        self._turn: Optional[asyncio.Task[Any]] = None
        self.client_left = False

    # ---- The connection
    def on_finish(self) -> None:
        self._body_policy.over()
        task, stream = asyncio.current_task(), self.connection.stream
        if task is not None and task in self.state.turns:
            if stream is not None and stream.writing():
                self.state.track(task, None)
            else:
                del self.state.turns[task]

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._body_policy.over()
        self.client_left = True
        if self._turn is not None:
            self._turn.cancel()

    # ---- The request
    def prepare(self) -> None:
        self.connection.set_max_body_size(UNLIMITED)
        headers = self.request.headers
        if not CONTENT_LENGTH.fullmatch(headers.get("Content-Length", "0")):
            self.refuse_length()
            return
        try:
            if self.request.method == "OPTIONS" and headers.get("Origin"):
                return  # a CORS preflight carries no key
            self.check_verb()
            self.admit()
            if self.request.method == "POST":
                limit = self.state.config.server.max_body_size
                length, encoding = headers.get("Content-Length"), headers.get("Content-Encoding", "")
                self._body_policy.read(BodyReader(limit, length, encoding))
        except ApiError as error:
            self.refuse(error)

    def check_verb(self) -> None:
        """:raises ApiError: 405, this path has no such method"""
        if self.request.method not in self.verbs:
            allowed = ", ".join(self.verbs)
            self.set_header("Allow", allowed)
            raise ApiError(
                405,
                f"{self.request.path[:200]} does not support {self.request.method}; it supports {allowed}.",
                code="method_not_allowed",
            )

    def refuse_length(self) -> None:
        """Send a 400 and close the connection: the beginning of the next request is unknown."""
        error = invalid(
            "The header Content-Length must be one whole number of bytes. Send the length of the body, or "
            "'Transfer-Encoding: chunked'."
        )
        self.log_exception(type(error), error, None)
        self.set_header("Connection", "close")
        self.finish(self.put_error(self.for_client(error)))

    def refuse(self, error: ApiError) -> None:
        """Send the error response before the body has arrived; see the module docstring."""
        self.log_exception(type(error), error, None)
        body, headers = self.put_error(self.for_client(error)), self.request.headers
        if headers.get("Expect", "").lower() == "100-continue" or not has_body(headers):
            self.finish(body)  # no body will follow
            return
        self._body_policy.refuse()
        self.set_header("Content-Length", str(len(body)))
        self.write(body)
        self.flush()

    def data_received(self, chunk: bytes) -> None:
        try:
            self._body_policy.receive(chunk)
        except ApiError as error:
            self.refuse(error)

    def dispatch(self, *args: str) -> Optional[Awaitable[None]]:
        """Answer the request; Tornado calls this when the whole body has arrived."""
        self._body_policy.over()
        if self._body_policy.refused:
            return self.finish_now()
        if self.request.method == "OPTIONS":
            self.answer_preflight()
            return None
        limit_store_time()
        return self.verbs[str(self.request.method)](self, *args)

    # Tornado's names for it.  A subclass must not define any of them: it would answer refused requests, too.
    get = head = post = put = patch = delete = options = dispatch

    def answer_preflight(self) -> None:
        """Answer a browser's CORS preflight; only listed origins get headers that permit anything."""
        self.set_status(204)
        self.clear_header("Content-Type")
        self.set_header("Allow", ", ".join(self.verbs))
        if "Access-Control-Allow-Origin" in self._headers:
            self.set_header("Access-Control-Allow-Methods", ", ".join(self.verbs))
            self.set_header(
                "Access-Control-Allow-Headers",
                self.request.headers.get("Access-Control-Request-Headers", "*"),
            )

    @property
    def body(self) -> BodyReader:
        """The body of a POST request."""
        reader = self._body_policy.reader
        assert reader is not None
        return reader

    @property
    def read_body(self) -> Json:
        reader = self._body_policy.reader
        return reader.value if reader is not None else {}

    def query(self) -> Dict[str, str]:
        """The query parameters of the URL; the last value wins when a name is repeated."""
        return {name: self.get_query_argument(name) for name in self.request.query_arguments}

    # ---- The response
    async def run_turn(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``; cancel it when the client disconnects or the grace period of a shutdown ends.

        :raises Finish: the client has disconnected
        :raises ApiError: 503, the server stops; or what ``work`` raises
        """
        # Tornado does not report a connection that was reset with the request.
        if self.client_left or self.stream.closed():
            work.close()
            raise Finish()
        task = self._turn = current_task()
        self.state.turns[task] = task  # until on_finish(), which Tornado always calls
        try:
            return await work
        except asyncio.CancelledError:
            raise (Finish() if self.client_left else unavailable(STOPPING)) from None
        finally:
            self._turn = None
            self.state.turns[task] = None

    async def put_json(self, value: Any, headers: Mapping[str, str] = {}) -> None:
        """Finish with ``value``, and wait until the client has it.

        :param headers: added to the response
        """
        self.put_time()
        for name, header in {**self.codex_headers, **headers}.items():
            self.set_header(name, header)
        blocks, first, slices = json_blocks(value), b"", Slices()
        for block in blocks:
            first += block
            if len(first) > LARGE_BODY:  # too large to be in memory as a whole
                body = StreamedBody(self)
                await body.write_all(chain([first], blocks))
                await body.finish()
                return
            await slices.pause()
        written = self.finish_now(first)
        if written is not None:
            await written

    def finish_now(self, data: bytes = b"") -> Optional[Awaitable[None]]:
        """Finish with ``data``.

        :returns: what to wait for when the client does not keep up
        """
        stream = self.stream
        written = self.finish(data or None)
        return written_or_closed(written) if stream.writing() else None

    def flush(self, include_footers: bool = False) -> asyncio.Future[None]:
        """Tornado's method, except for the last call of a stream, which would write nothing."""
        if include_footers and self._headers_written and not self._write_buffer and not self.stream.writing():
            nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        return super().flush(include_footers)

    def put_time(self) -> None:
        """Set ``openai-processing-ms``: the milliseconds that the request has taken so far."""
        milliseconds = max(0, int(self.request.request_time() * 1000))
        self.put_headers({"openai-processing-ms": str(milliseconds)})


def current_task() -> asyncio.Task[Any]:
    """The running task; handlers always run in one."""
    task = asyncio.current_task()
    assert task is not None
    return task


class StreamedBody:
    """A response body that is written in pieces.

    The first piece leaves together with the head.  Each piece is one HTTP chunk; an HTTP/1.0 client gets the
    bytes as they are, until the connection closes.
    """

    def __init__(self, handler: HttpHandler) -> None:
        self._handler = handler
        self._chunked = handler.request.version == "HTTP/1.1"
        self._writer: Optional[SocketWriter] = None

    @property
    def begun(self) -> bool:
        """Has the head been written?"""
        return self._writer is not None

    def write(self, data: bytes) -> Optional[Awaitable[None]]:
        """Write ``data`` at once.

        :returns: what to wait for when the client does not keep up
        """
        if self._writer is not None:
            return self._writer.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        stream = self._handler.stream
        if stream.closed():
            return None
        self._writer = SocketWriter(stream)
        self._handler.write(data)
        written = self._handler.flush()
        return written_or_closed(written) if stream.writing() else None

    async def write_all(self, pieces: Iterable[bytes]) -> None:
        """Write pieces as the client takes them; other work runs in between."""
        slices = Slices()
        for piece in pieces:
            await (self.write(piece) or slices.pause())

    async def finish(self, data: bytes = b"") -> None:
        """Write the last piece and end the body."""
        written = self._handler.finish_now(data)
        if written is not None:
            await written
        if not self._chunked:
            self.abort()  # only this ends the body, for any client

    def abort(self) -> None:
        """Close the connection, which is the only way to say that the rest is missing."""
        self._handler.stream.close()


class NotFoundHandler(HttpHandler):
    """Every path that no other handler answers."""

    public = True

    def check_verb(self) -> None:
        raise not_found("Path", self.request.path, hint=ROUTES_HINT)

    verbs = {"GET": check_verb, "HEAD": check_verb}  # for preflights; no request gets this far
