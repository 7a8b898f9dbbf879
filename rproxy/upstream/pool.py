"""Tornado's asynchronous HTTP client with what the stock ones lack for a streaming proxy.

:class:`PooledHTTPClient` is an ``AsyncHTTPClient`` through ``fetch_impl``, Tornado's extension point, so
``fetch``, ``HTTPRequest``, ``streaming_callback`` and ``header_callback`` are what its documentation says.
Different are:

* connections are kept and used again, the one used last first; a kept connection that dies before a byte of
  the answer came is replaced once, silently, because the server had closed it and never saw the request;
* cancelling the future of ``fetch`` closes the socket at once, in every state;
* ``connect_timeout`` is joined by limits on silence (of the client, not of a request); ``request_timeout``,
  the limit on the whole, is off unless it is given; ``Content-Length`` is always that of the body;
* the body of an answer that is not 2xx is found in ``response.body`` even if there is a
  ``streaming_callback``;
* a ``streaming_callback`` may return an awaitable (with every Tornado) and nothing is read until it is done;
  it may raise :class:`StopReading`; any other exception of it is raised by ``fetch``;
* ``proxy_host`` and its relatives work; so do Unix sockets: ``http+unix://%2Fpath%2Fof%2Fsocket/path``;
* redirects are never followed (they would carry the key away); everything that goes wrong is one
  :class:`TransportError`.

The work is divided: ``prepared`` writes the heads of requests, ``dial`` opens sockets, ``connection`` moves
bytes over one of them, ``http1`` parses, and here answers are decoded and connections pooled.
"""

from __future__ import annotations

import asyncio
import collections
import io
import socket
import time
from functools import partial
from typing import Any, Awaitable, Callable, Deque, Dict, List, NamedTuple, Optional, Type, Union, cast

from tornado import httputil
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from .connect import Route, dial
from .connection import CancelToken, Connection, OnData, State, StopReading, TransportError
from .parser import GzipDecoder, Head, ProtocolError, ResponseParser
from .request import BAD_HEADER, Preparation, Prepared

__all__ = ["Answer", "StopReading", "OnData", "PooledHTTPClient", "Stats", "CancelToken", "TransportError"]

MAX_ERROR_BODY = 1 << 20  # bytes of a non-2xx body that are kept
MAX_BODY = 100 << 20  # bytes of a 2xx body without streaming_callback; Tornado's own limit
IDLE_TTL = 45.0  # seconds; providers and load balancers close idle connections after 60 or more
MAX_IDLE = 32  # connections kept per route
BODY_METHODS = ("POST", "PUT", "PATCH")  # which have a body, if only an empty one
OnHead = Callable[[Head, httputil.HTTPHeaders], None]


class Stats(NamedTuple):
    """``open`` and ``idle`` are numbers of now, the others count since the client was made."""

    open: int
    idle: int
    connects: int
    reused: int
    retried: int


class Answer(NamedTuple):
    """What :meth:`PooledHTTPClient.send` gives. ``body``: what a ``streaming_callback`` has not got."""

    status: int
    headers: httputil.HTTPHeaders
    body: bytes


class PooledHTTPClient(AsyncHTTPClient):
    """See the module. Make one with ``PooledHTTPClient(force_instance=True, ...)``.

    :arg first_byte_timeout: seconds of silence before the head of the answer is complete; 0 is no limit
    :arg idle_timeout: seconds of silence within the body
    :arg max_idle: connections kept per route; idle_ttl: seconds that one is kept
    """

    def initialize(
        self,
        defaults: Optional[Dict[str, Any]] = None,
        first_byte_timeout: float = 600.0,
        idle_timeout: float = 300.0,
        max_idle: int = MAX_IDLE,
        idle_ttl: float = IDLE_TTL,
    ) -> None:
        super().initialize(defaults={"request_timeout": 0.0, **(defaults or {})})
        self.first_byte_timeout, self.idle_timeout = first_byte_timeout, idle_timeout
        self._max_idle, self._idle_ttl = max_idle, idle_ttl
        self._idle: Dict[Route, Deque[Connection]] = {}
        self._routes: Dict[Connection, Route] = {}  # of every open connection
        self._since: Dict[Connection, float] = {}  # monotonic time, of idle ones
        self._sweeper: Optional[asyncio.TimerHandle] = None
        self._fetches: Dict[asyncio.Task[None], Optional[asyncio.Future[HTTPResponse]]] = {}
        self._latest: Optional[asyncio.Task[None]] = None
        self._preparation = Preparation()
        self._connects = self._reused = self._retried = 0

    def stats(self) -> Stats:
        return Stats(
            len(self._routes), sum(map(len, self._idle.values())), self._connects, self._reused, self._retried
        )

    def close(self) -> None:
        """Close every socket. Running fetches fail with a :class:`TransportError`."""
        if not self._closed:
            super().close()
            for task in list(self._fetches):
                task.cancel()
            for connection in list(self._routes):
                connection.close()
            if self._sweeper is not None:
                self._sweeper.cancel()

    # fetch...

    def fetch(
        self, request: Union[str, HTTPRequest], raise_error: bool = True, **kwargs: Any
    ) -> asyncio.Future[HTTPResponse]:
        """As Tornado documents it; and cancelling the future closes the socket.

        :raises TransportError: there is no answer
        """
        try:
            future = super().fetch(request, raise_error, **kwargs)
        except httputil.HTTPInputError:  # its text shows the header, and so perhaps the key
            raise TransportError("connect", f"this request cannot be sent: {BAD_HEADER}") from None
        task = self._latest  # fetch_impl ran just now
        assert task is not None
        self._fetches[task] = future
        future.add_done_callback(lambda _: task.cancel())
        return future

    def fetch_impl(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> None:
        self._latest = task = asyncio.ensure_future(self._run(request, callback))
        self._fetches[task] = None
        task.add_done_callback(lambda done: self._fetches.pop(done, None))

    async def _run(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> None:
        start_time, start = time.time(), time.monotonic()
        receiver = _Receiver(partial(_tell_lines, request.header_callback), request.streaming_callback)
        error: Optional[BaseException] = None
        try:
            with _Limit(request.request_timeout or 0, "no complete answer within"):
                body = cast(
                    Optional[bytes], request.body
                )  # None is possible, whatever Tornado's annotation says
                if body is None and request.method in BODY_METHODS:
                    body = b""
                prepared = self.prepare(request)
                await self._perform(prepared, prepared.written(body), receiver, CancelToken())
        except asyncio.CancelledError:
            future = self._fetches.get(asyncio.current_task())  # type: ignore[arg-type]
            if future is None or future.cancelled():
                raise
            error = TransportError("reset", "the request was abandoned")
        except Exception as exc:
            error = exc
        callback(receiver.response(request, error, start_time, time.monotonic() - start))

    async def send(
        self,
        prepared: Prepared,
        body: bytes,
        on_sent: Callable[[], None],
        on_head: OnHead,
        on_data: OnData,
        stop: CancelToken,
    ) -> Answer:
        """:meth:`fetch` for a caller with a task of its own and many requests of one kind: it saves tasks,
        futures, time and memory.

        There is no limit on the whole.

        :arg on_sent: called when the request is on its way, and again if that was in vain on a connection
            that was kept
        :arg on_head: called when the head of the answer has come; on_data: with each piece of a 2xx body, a
            ``streaming_callback``
        :arg stop: ends this early; what has come is returned
        :raises TransportError: there is no answer
        """
        receiver, task = _Receiver(on_head, on_data, on_sent), asyncio.current_task()
        assert task is not None
        pieces = prepared.written(body)
        del body  # the pieces go when the answer begins
        self._fetches[task] = None  # so that close() finds it
        try:
            await self._perform(prepared, pieces, receiver, stop)
        except asyncio.CancelledError:
            if self._closed:
                raise TransportError("reset", "the request was abandoned") from None
            raise
        except TransportError:
            if not receiver.refused:
                raise
        finally:
            self._fetches.pop(task, None)
        return receiver.answer()

    def prepare(self, request: HTTPRequest) -> Prepared:
        """What :meth:`send` needs of a request, whose body does not matter.

        :raises TransportError: it cannot be sent
        """
        try:
            return self._preparation.prepare(request)
        except (ValueError, OSError) as error:  # UnicodeError and SSLError, too
            raise TransportError(
                "connect", f"this request cannot be sent: {error}", real_error=error
            ) from None

    async def _perform(
        self, prepared: Prepared, pieces: List[bytes], receiver: _Receiver, stop: CancelToken
    ) -> None:
        receiver.sent = pieces
        connection = self._take(prepared.route) if not stop.cancelled else None
        if connection is not None:
            try:
                return await self._exchange(connection, prepared, receiver, stop)
            except TransportError as error:
                if error.kind != "reset" or error.answered:
                    raise
                self._retried += 1
        connection = await self._connect(prepared, stop)
        if connection is not None:
            await self._exchange(connection, prepared, receiver, stop)

    async def _exchange(
        self, connection: Connection, prepared: Prepared, receiver: _Receiver, stop: CancelToken
    ) -> None:
        parser = ResponseParser(prepared.method)
        await connection.exchange(
            receiver.sent, parser, receiver, stop, self.first_byte_timeout, self.idle_timeout
        )

    # The pool...

    async def preconnect(self, prepared: Prepared) -> None:
        """Have a connection ready for requests like this one, unless there is one.

        :raises TransportError: it cannot be opened
        """
        connection = None if self._idle.get(prepared.route) else await self._connect(prepared, CancelToken())
        if connection is not None:
            self._on_state(connection)

    async def _connect(self, prepared: Prepared, stop: CancelToken) -> Optional[Connection]:
        """:returns: a new connection; None: stopped"""
        route = prepared.route
        dialing = asyncio.ensure_future(dial(route))
        stop.on_cancel(dialing.cancel)
        try:
            with _Limit(prepared.connect_timeout or 0, f"no connection to {route} within"):
                await asyncio.wait({dialing})
        except BaseException:
            dialing.cancel()
            dialing.add_done_callback(_hang_up)
            raise
        finally:
            stop.on_cancel(None)
        if stop.cancelled:
            _hang_up(dialing)
            return None
        try:
            sock = dialing.result()
        except OSError as error:
            # without a proxy the cause says it all; with one, who could not be reached is half of the news
            raise TransportError(
                "connect", f"cannot connect to {route}: {error}", real_error=None if route.proxy else error
            ) from error
        self._connects += 1
        connection = Connection(sock, self._on_state)
        self._routes[connection] = route
        if self._closed:
            connection.close()
            raise TransportError("connect", "the client is closed")
        return connection

    def _take(self, route: Route) -> Optional[Connection]:
        waiting = self._idle.get(route)
        if not waiting:
            return None
        connection = waiting.pop()
        del self._since[connection]
        self._reused += 1
        return connection

    def _on_state(self, connection: Connection) -> None:
        """A connection became free or was closed."""
        if connection.state is State.FREE:
            waiting = self._idle.setdefault(self._routes[connection], collections.deque())
            if len(waiting) < self._max_idle:
                waiting.append(connection)
                self._since[connection] = time.monotonic()
                if self._sweeper is None:
                    self._sweeper = asyncio.get_running_loop().call_later(self._idle_ttl, self._sweep)
            else:
                connection.close()
            return
        route = self._routes.pop(connection)
        if self._since.pop(connection, None) is not None:  # it was idle
            self._idle[route].remove(connection)
        if route in self._idle and not self._idle[route]:
            del self._idle[route]

    def _sweep(self) -> None:
        """Close what has been idle for too long. One timer for all, which is set for the oldest."""
        self._sweeper = None
        now = time.monotonic()
        for connection, since in list(self._since.items()):
            if since + self._idle_ttl <= now + 0.001:
                connection.close()
        if self._since:
            left = min(self._since.values()) + self._idle_ttl - now
            self._sweeper = asyncio.get_running_loop().call_later(left, self._sweep)


class _Receiver:
    """Receives one answer: calls the request's callbacks with a 2xx answer, keeps the body otherwise.

    ``sent``: the request's bytes; they are given up as soon as there is an answer.
    """

    def __init__(
        self, on_head: OnHead, on_data: Optional[OnData], on_sent: Callable[[], None] = lambda: None
    ) -> None:
        self.sent: List[bytes] = []
        self.on_sent, self._on_head, self._on_data = on_sent, on_head, on_data
        self._head: Optional[Head] = None
        self._headers = httputil.HTTPHeaders()
        self._decoder: Optional[GzipDecoder] = None
        self._callback: Optional[OnData] = None
        self._good = False
        self._body = bytearray()
        self._room = MAX_ERROR_BODY

    def on_head(self, head: Head) -> OnData:
        self._head = head
        self.sent.clear()
        for name, value in head.headers:
            self._headers.add(name, value)
        self._good = 200 <= head.status < 300
        if self._good:
            self._callback = self._on_data
            self._room = MAX_BODY
        coding = [name for name in head.values("content-encoding") if name != "identity"]
        if coding in (["gzip"], ["x-gzip"]):
            self._decoder = GzipDecoder()
        elif coding and self._good:
            raise ProtocolError(
                "the answer has the Content-Encoding {!r}, which was not asked for".format(
                    ", ".join(coding)[:80]
                )
            )
        elif coding:
            self._room = 0  # the status says more than a body that nobody can read
        self._on_head(head, self._headers)
        return self._callback if self._callback is not None and self._decoder is None else self._take

    def _take(self, data: bytes) -> Optional[Awaitable[None]]:
        if self._decoder is not None:
            data = self._decode(self._decoder, data)
        if not data:
            return None
        if self._callback is not None:
            return self._callback(data)
        if self._good and len(self._body) + len(data) > MAX_BODY:
            raise ProtocolError(f"the body is longer than {MAX_BODY} bytes")
        self._body += data[: self._room - len(self._body)]
        if not self._good and len(self._body) >= self._room:
            raise StopReading
        return None

    def _decode(self, decoder: GzipDecoder, data: bytes) -> bytes:
        try:
            return decoder.feed(data)
        except ProtocolError:
            if self._good:
                raise
            self._room = len(self._body)
            return b""

    def on_end(self) -> None:
        if self._decoder is not None and self._good:
            self._decoder.close()

    @property
    def refused(self) -> bool:
        """Did an answer begin that is not 2xx?"""
        return self._head is not None and not self._good

    def answer(self) -> Answer:
        """What came, of a refusal that broke off, too."""
        return Answer(self._head.status if self._head is not None else 599, self._headers, bytes(self._body))

    def response(
        self, request: HTTPRequest, error: Optional[BaseException], start_time: float, seconds: float
    ) -> HTTPResponse:
        """What ``fetch`` gives to its caller: the answer, or Tornado's 599 with the error.

        An answer that is not 2xx and breaks off is one: its status says more than the way it ended.
        """
        if (
            self._head is None
            or error is not None
            and not (self.refused and isinstance(error, TransportError))
        ):
            return HTTPResponse(request, 599, error=error, request_time=seconds, start_time=start_time)
        return HTTPResponse(
            request,
            self._head.status,
            headers=self._headers,
            buffer=io.BytesIO(self._body),
            reason=self._head.reason,
            request_time=seconds,
            start_time=start_time,
        )


def _tell_lines(
    header_callback: Optional[Callable[[str], object]], head: Head, _: httputil.HTTPHeaders
) -> None:
    """The head for a ``header_callback``: line by line, with the line breaks."""
    if header_callback is not None:
        header_callback(f"{head.version} {head.status} {head.reason}\r\n")
        for name, value in head.headers:
            header_callback(f"{name}: {value}\r\n")
        header_callback("\r\n")


def _hang_up(dialing: asyncio.Task[socket.socket]) -> None:
    """A connection that came too late."""
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result().close()


class _Limit:
    """``with _Limit(10, "no connection within"):`` cancels what is awaited inside after 10 s (0: never) and
    raises a TransportError.

    asyncio.timeout came with Python 3.11, and wait_for of older ones can lose a cancellation, and with it a
    socket.
    """

    def __init__(self, seconds: float, what: str) -> None:
        self._seconds, self._what = seconds, what
        self._expired = False
        self._timer: Optional[asyncio.TimerHandle] = None

    def __enter__(self) -> None:
        if self._seconds:
            self._timer = asyncio.get_running_loop().call_later(
                self._seconds, self._expire, asyncio.current_task()
            )

    def _expire(self, task: Optional[asyncio.Task[Any]]) -> None:
        self._expired = True
        assert task is not None
        task.cancel()

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._expired and kind is asyncio.CancelledError:
            text = f"{self._what} {self._seconds:g} s"
            raise TransportError("timeout", text, real_error=TimeoutError(text)) from None
