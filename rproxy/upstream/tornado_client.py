"""Providers through one of Tornado's own HTTP clients, for odd environments: ``server.http_client: stock`` or
``curl``.

``curl`` (libcurl, from the package pycurl) knows ways through proxies and TLS set-ups that :mod:`.httpclient`
does not; ``stock`` is the plainest client there is.  :class:`TornadoClient` makes them do what a turn needs,
as :class:`~rproxy.upstream.pool.PooledHTTPClient` does: limits on silence instead of one on the whole, a
refusal's body, an end from outside.  What they lack remains lacking: ``stock`` opens a connection for each
request and knows no proxies, and with ``curl`` (with ``stock`` before Tornado 6.6, too) a client that reads
slowly does not slow its provider down.  Neither has a way to end a request, so that this takes a look at
their insides (Tornado 6.5 and 6.6).
"""

from __future__ import annotations

import asyncio
import copy
import time
from functools import partial
from importlib import import_module
from typing import Any, Awaitable, Callable, List, Optional, Set

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders, HTTPInputError
from tornado.ioloop import IOLoop
from tornado.simple_httpclient import SimpleAsyncHTTPClient, _HTTPConnection

from ..errors import ConfigError
from .connection import CancelToken, OnData, StopReading, TransportError, silence
from .parser import Head
from .pool import MAX_ERROR_BODY, Answer, OnHead, Stats

MOST = {"stock": 10_000, "curl": 500}  # requests at once; curl makes so many handles in advance
UNLIMITED = 1 << 50  # bytes; Turn has the limit


class TornadoClient:
    """:arg kind: ``stock`` or ``curl``.

    The timeouts, in seconds, are those of PooledHTTPClient.
    :raises ConfigError: no pycurl
    """

    def __init__(self, kind: str, first_byte_timeout: float, idle_timeout: float) -> None:
        self._kind = kind
        self._limits = first_byte_timeout, idle_timeout
        self._client = _new_client(kind)
        self._running: Set[_Exchange] = set()
        self._connects = 0
        self._closed = False

    def stats(self) -> Stats:
        return Stats(len(self._running), 0, self._connects, 0, 0)

    def close(self) -> None:
        for exchange in list(self._running):
            exchange.end(TransportError("reset", "the client is closed"))
            exchange.close()
        if not self._closed:
            self._closed = True
            IOLoop.current().add_callback(self._client.close)  # after what it has to do just now

    def prepare(self, request: HTTPRequest) -> HTTPRequest:
        """What :meth:`send` needs. :raises TransportError: this client cannot do it"""
        if request.url.startswith("http+unix:"):
            raise TransportError("connect", f"http_client: {self._kind} knows no Unix sockets; use pooled")
        if request.proxy_host and self._kind == "stock":
            raise TransportError("connect", "http_client: stock knows no proxies; use pooled or curl")
        request.request_timeout, request.follow_redirects = 0.0, False
        return request

    async def preconnect(self, prepared: HTTPRequest) -> None:
        """Not with these clients."""

    async def send(
        self,
        prepared: HTTPRequest,
        body: bytes,
        on_sent: Callable[[], None],
        on_head: OnHead,
        on_data: OnData,
        stop: CancelToken,
    ) -> Answer:
        """As :meth:`rproxy.upstream.pool.PooledHTTPClient.send`."""
        exchange = _Exchange(self._limits, on_head, on_data)
        request = copy.copy(prepared)
        request.body, request.header_callback, request.streaming_callback = (
            body,
            exchange.header,
            exchange.data,
        )
        if self._kind == "curl":
            request.prepare_curl_callback = partial(
                exchange.tune, self._client, request.proxy_host is not None
            )
        else:
            setattr(request, "exchange", exchange)  # noqa: B010
        del body
        self._connects += 1
        self._running.add(exchange)
        stop.on_cancel(exchange.end)
        try:
            if not stop.cancelled:
                self._begin(request, exchange)
                on_sent()
                await exchange.ended
        finally:
            stop.on_cancel(None)
            self._running.discard(exchange)
            exchange.close()
        return exchange.answer()

    def _begin(self, request: HTTPRequest, exchange: _Exchange) -> None:
        try:
            self._client.fetch(request, raise_error=False).add_done_callback(exchange.fetched)
        except (HTTPInputError, ValueError, RuntimeError):  # without its text, which may show the key
            raise TransportError("connect", "this request cannot be sent") from None


class _Exchange:
    """One request and its answer. ``ended`` is done when nothing more is of interest."""

    def __init__(self, limits: Any, on_head: OnHead, on_data: OnData) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connection: Optional[_HTTPConnection] = None  # of stock
        self._abort: Callable[[], None] = lambda: None  # of curl
        self._first_byte_timeout, self._idle_timeout = limits
        self._on_head, self._on_data = on_head, on_data
        self._head: Optional[Head] = None  # complete
        self._line = Head("", 599, "", [])  # the status line
        self._headers = HTTPHeaders()
        self._body = bytearray()
        self._early: List[bytes] = []  # curl may have data before it has told the head
        self._last = time.monotonic()
        self._timer: Optional[asyncio.TimerHandle] = None
        self._look()

    # What the client calls...

    def tune(self, client: Any, proxied: bool, curl: Any) -> None:
        """The handle of curl for this request is ready."""
        pycurl, info = import_module("pycurl"), curl.info
        if not proxied:
            curl.setopt(pycurl.NOPROXY, "*")  # rproxy has looked at the environment

        def abort() -> None:
            if curl.info is info:  # otherwise it is done, and the handle may serve another request
                client._finish(curl, pycurl.E_ABORTED_BY_CALLBACK, "ended")
                client._process_queue()

        self._abort = abort

    def header(self, line: str) -> None:
        self._last = time.monotonic()
        if self.ended.done():
            return self.close()
        line = line.rstrip("\r\n")
        if line.startswith("HTTP/"):
            version, _, rest = line.partition(" ")
            status, _, reason = rest.partition(" ")
            self._line, self._headers = Head(version, int(status), reason, []), HTTPHeaders()
        elif line:
            self._headers.parse_line(line)
        elif self._line.status >= 200 and self._head is None:
            self._head = self._line._replace(headers=list(self._headers.get_all()))
            head = self._head
            self._look()
            if 200 <= head.status < 300:
                self._guarded(lambda: self._on_head(head, self._headers))
            for data in self._early:
                self.data(data)

    def data(self, data: bytes) -> Optional[Awaitable[None]]:
        self._last = time.monotonic()
        if self.ended.done():
            self.close()
            return None
        if self._head is None:
            self._early.append(data)
        elif 200 <= self._head.status < 300:
            return self._guarded(lambda: self._on_data(data))
        else:
            self._body += data[: MAX_ERROR_BODY - len(self._body)]
        return None

    def fetched(self, done: asyncio.Future[HTTPResponse]) -> None:
        if done.cancelled() or done.exception() is not None:
            return self.end(
                TransportError(
                    "connect",
                    "the HTTP client failed: %s" % (done.exception() if not done.cancelled() else ""),
                )
            )
        error = done.result().error if done.result().code == 599 else None
        if error is None or self._head is not None and not 200 <= self._head.status < 300:
            return self.end()
        kind = (
            "timeout"
            if "timeout" in type(error).__name__.lower()
            else "connect"
            if self._head is None
            else "reset"
        )
        self.end(TransportError(kind, str(error), self._head is not None, error))

    def _guarded(self, call: Callable[[], Optional[Awaitable[None]]]) -> Optional[Awaitable[None]]:
        try:
            return call()
        except StopReading:
            self.end()
        except Exception as error:  # it belongs to the caller of send()
            self.end(error)
        return None

    # How it ends...

    def end(self, error: Optional[BaseException] = None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

    def _look(self) -> None:
        """Has there been silence for too long?"""
        if self._timer is not None:
            self._timer.cancel()
        limit = self._first_byte_timeout if self._head is None else self._idle_timeout
        left = self._last + limit - time.monotonic() if limit else 60.0
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._look)
        else:
            self.end(silence(limit, self._head is not None, self._head is not None))

    def close(self) -> None:
        """Let go of the provider; further calls do nothing."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.ended.done():
            self.ended.cancel()
        stream = getattr(self.connection, "stream", None)
        if stream is not None:
            stream.close()
        self._abort()

    def answer(self) -> Answer:
        return Answer(self._line.status if self._head is not None else 599, self._headers, bytes(self._body))


class _StockClient(SimpleAsyncHTTPClient):
    """Tells an exchange its connection, for Tornado has no other way to end one."""

    def _connection_class(self) -> type:
        return _StockConnection


class _StockConnection(_HTTPConnection):
    def __init__(self, client: Any, request: Any, *args: Any) -> None:
        request.exchange.connection = self
        super().__init__(client, request, *args)


def _new_client(kind: str) -> AsyncHTTPClient:
    if kind == "stock":
        return _StockClient(force_instance=True, max_clients=MOST[kind], max_body_size=UNLIMITED)
    try:
        from tornado.curl_httpclient import CurlAsyncHTTPClient
    except ImportError as error:
        raise ConfigError(
            f"server.http_client: curl needs the package pycurl: pip install 'rproxy-responses[curl]' ({error})"
        ) from None
    return CurlAsyncHTTPClient(force_instance=True, max_clients=MOST[kind], max_body_size=UNLIMITED)
