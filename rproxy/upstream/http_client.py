"""Tornado's asynchronous HTTP client with what the stock ones lack for a streaming proxy.

:class:`PooledHTTPClient` is an ``AsyncHTTPClient``: ``fetch``, ``HTTPRequest``, ``streaming_callback`` and
``header_callback`` are what Tornado's documentation says.  These things are different:

* Connections are kept and used again.  If a kept connection fails before a byte of the response arrived, the
  request is sent once more on a new one: the server had closed it and has not seen the request.
* Cancelling the future of ``fetch`` closes the socket at once, in every state.  A :class:`CancelToken` does
  the same, but what has arrived is the result.
* The client has limits on silence, ``first_byte_timeout`` and ``idle_timeout``.  ``request_timeout``, the
  limit on the whole, is off unless it is given.
* The body of a response that is not 2xx is in ``response.body`` even if there is a ``streaming_callback``.
* A ``streaming_callback`` may return an awaitable (with every Tornado): nothing is read until it is done.  It
  may raise :class:`StopReading`.  ``fetch`` raises whatever else a callback raises.
* ``proxy_host`` and its relatives work.  So do Unix sockets: ``http+unix://%2Fpath%2Fof%2Fsocket/path``.
* Redirects are never followed, because they would carry the key away.
* Everything that goes wrong is a :class:`TransportError`.

Requests of one kind can be prepared once, see :mod:`.request`.

``fetch`` itself is overridden, and not just ``fetch_impl``: the base class copies the headers of a request,
wraps the request, and gives the implementation no way to learn that the future was cancelled.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Dict, List, Optional, Set, Union

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from .connection import Connection
from .parser import Head, ResponseParser
from .pool import IDLE_TTL, MAX_IDLE, UNLIMITED, ConnectionPool
from .request import PreparedRequest, TLSContexts
from .response import ResponseReader
from .transport import OnData, TransportError


class PooledHTTPClient(AsyncHTTPClient):
    """See the module.  Make one with ``PooledHTTPClient(force_instance=True, ...)``."""

    def initialize(
        self,
        defaults: Optional[Dict[str, Any]] = None,
        first_byte_timeout: float = 600.0,
        idle_timeout: float = 300.0,
        max_idle: int = MAX_IDLE,
        idle_ttl: float = IDLE_TTL,
        max_open: int = UNLIMITED,
    ) -> None:
        """Set up, as Tornado does it in place of ``__init__``.

        :param defaults: of the attributes of requests
        :param first_byte_timeout: seconds of silence before the head of the response is complete, 0: no limit
        :param idle_timeout: seconds of silence within the body, 0: no limit
        :param max_idle: idle connections kept per route
        :param idle_ttl: seconds that an idle connection is kept
        :param max_open: connections to all hosts together
        """
        super().initialize(defaults={"request_timeout": 0.0, **(defaults or {})})
        self.first_byte_timeout, self.idle_timeout = first_byte_timeout, idle_timeout
        self.pool = ConnectionPool(max_idle, idle_ttl, max_open)
        self._contexts = TLSContexts()
        self._fetches: Set[_Fetch] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.pool!r}>"

    def close(self) -> None:
        """Close every socket.  Running fetches fail with a :class:`TransportError`."""
        if not self._closed:
            super().close()
            for fetch in list(self._fetches):
                fetch.fail(TransportError("reset", "the HTTP client was closed"))
            self.pool.close()

    def fetch(
        self, request: Union[str, HTTPRequest], raise_error: bool = True, **kwargs: Any
    ) -> asyncio.Future[HTTPResponse]:
        """As Tornado documents it.  On an idle connection the request is sent before this returns.

        :raises RuntimeError: the client is closed
        :raises TransportError: (from the future) there is no complete response
        """
        if self._closed:
            raise RuntimeError("fetch() called on closed AsyncHTTPClient")
        if not isinstance(request, HTTPRequest):
            request = HTTPRequest(request, **kwargs)
        elif kwargs:
            raise ValueError("kwargs can't be used if request is an HTTPRequest object")
        future: asyncio.Future[HTTPResponse] = asyncio.get_running_loop().create_future()
        try:
            prepared = request if isinstance(request, PreparedRequest) else self.prepare(request)
        except TransportError as error:
            future.set_exception(error)
            return future
        fetch = _Fetch(self, prepared, future, raise_error)
        self._fetches.add(fetch)
        fetch.start()
        return future

    def prepare(self, request: HTTPRequest) -> PreparedRequest:
        """Do once what every ``fetch`` of a request of this kind would have to do.

        :raises TransportError: it cannot be sent
        """
        return PreparedRequest(request, self.defaults, self._contexts)

    async def preconnect(self, request: PreparedRequest) -> None:
        """Make sure that an idle connection is waiting for a request.

        :raises TransportError: it cannot be opened
        """
        await self.pool.preconnect(request.route, request.connect_timeout or 0)

    def forget(self, fetch: _Fetch) -> None:
        self._fetches.discard(fetch)


class _Fetch:
    """One ``fetch``: takes or opens a connection, runs the exchange on it, and completes the future.

    It has no task of its own unless it has to wait for a new connection: on an idle one a fetch costs
    callbacks only.
    """

    def __init__(
        self,
        client: PooledHTTPClient,
        request: PreparedRequest,
        future: asyncio.Future[HTTPResponse],
        raise_error: bool,
    ) -> None:
        self._client, self._request, self._future = client, request, future
        self._raise_error = raise_error
        self._reader = ResponseReader(request)
        self._pieces: List[bytes] = request.take_body()  # until the response begins
        self._connecting: Optional[asyncio.Task[None]] = None
        self._connection: Optional[Connection] = None
        self._kept = False  # the connection has been used before
        self._timer: Optional[asyncio.TimerHandle] = None
        self._ended = False
        self._start_time, self._started = time.time(), time.monotonic()

    def start(self) -> None:
        request = self._request
        self._future.add_done_callback(self._on_future_done)
        if request.request_timeout:
            self._timer = asyncio.get_running_loop().call_later(request.request_timeout, self._time_out)
        if request.cancel_token is not None:
            request.cancel_token.on_cancel(self._cancel)
            if self._ended:
                return
        connection = None if request.fresh else self._client.pool.take(request.route)
        if connection is None:
            self._connecting = asyncio.ensure_future(self._connect())
        else:
            self._kept = True
            self._send(connection)

    async def _connect(self) -> None:
        request = self._request
        try:
            connection = await self._client.pool.open(request.route, request.connect_timeout or 0)
        except (Exception, asyncio.CancelledError) as error:
            return self.fail(error)
        if self._ended:
            connection.close()
        else:
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        self._connection, self._connecting = connection, None
        connection.exchange(
            self._pieces,
            ResponseParser(self._request.method),
            self,
            self._client.first_byte_timeout,
            self._client.idle_timeout,
        )
        if self._request.on_sent is not None:
            try:
                self._request.on_sent()
            except Exception as error:
                self.fail(error)

    # ---- What the connection calls
    def on_head(self, head: Head) -> OnData:
        self._pieces.clear()
        return self._reader.on_head(head)

    def on_end(self) -> None:
        self._reader.on_end()

    def on_done(self, error: Optional[BaseException]) -> None:
        self._connection = None
        if isinstance(error, TransportError):
            if self._kept and error.kind == "reset" and not error.answered:
                self._kept = False
                self._connecting = asyncio.ensure_future(self._connect())
                return
            if self._reader.refused:  # the status says more than the way in which the body ended
                error = None
        self._complete(error)

    # ---- How it ends
    def fail(self, error: BaseException) -> None:
        self._abort()
        self._complete(error)

    def _cancel(self) -> None:
        self._abort()
        self._complete(None)

    def _time_out(self) -> None:
        text = f"no complete response within {self._request.request_timeout:g} s"
        self.fail(TransportError("timeout", text, self._reader.has_head, TimeoutError(text)))

    def _on_future_done(self, future: asyncio.Future[HTTPResponse]) -> None:
        if future.cancelled():
            self._abort()
            self._complete(None)

    def _abort(self) -> None:
        connection, self._connection = self._connection, None
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        if connection is not None:
            connection.close()

    def _complete(self, error: Optional[BaseException]) -> None:
        """Let go of everything, and set the result of the future unless it was cancelled."""
        if self._ended:
            return
        self._ended = True
        self._client.forget(self)
        if self._request.cancel_token is not None:
            self._request.cancel_token.on_cancel(None)
        if self._timer is not None:
            self._timer.cancel()
        if not self._future.done():
            self._set_result(error)

    def _set_result(self, error: Optional[BaseException]) -> None:
        if isinstance(error, asyncio.CancelledError):
            error = TransportError("reset", "something that the request waited for was cancelled")
        if error is not None and not (isinstance(error, TransportError) and self._reader.has_head):
            return self._future.set_exception(error)
        response = self._reader.response(self._start_time, time.monotonic() - self._started)
        if isinstance(error, TransportError):
            error.response = response
        elif self._raise_error:
            error = response.error
        if error is None:
            self._future.set_result(response)
        else:
            self._future.set_exception(error)
