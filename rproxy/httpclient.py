"""Tornado's asynchronous HTTP client with what the stock ones lack for a streaming proxy.

:class:`PooledHTTPClient` is an ``AsyncHTTPClient`` through ``fetch_impl``, Tornado's extension point, so ``fetch``, ``HTTPRequest``,
``streaming_callback`` and ``header_callback`` are what its documentation says.  Different are:

* connections are kept and used again, the one used last first; a kept connection that dies before a byte of the answer came is
  replaced once, silently, because the server had closed it and never saw the request;
* cancelling the future of ``fetch`` closes the socket at once, in every state;
* ``connect_timeout`` is joined by limits on silence (of the client, not of a request); ``request_timeout``, the limit on the whole,
  is off unless it is given;
* the body of an answer that is not 2xx is found in ``response.body`` even if there is a ``streaming_callback``;
* a ``streaming_callback`` may return an awaitable (with every Tornado) and nothing is read until it is done; it may raise
  :class:`EndOfInterest`; any other exception of it is raised by ``fetch``;
* ``proxy_host`` and its relatives work; so do Unix sockets: ``http+unix://%2Fpath%2Fof%2Fsocket/path``;
* redirects are never followed (they would carry the key away); everything that goes wrong is one :class:`TransportError`.

The work is divided: ``dial`` opens sockets, ``connection`` moves bytes over one of them, ``http1`` parses, and here requests are
written, answers decoded and connections pooled.
"""
from __future__ import annotations

import asyncio
import base64
import collections
import io
import re
import ssl
import time
from typing import Any, Awaitable, Callable, Deque, Dict, List, NamedTuple, Optional, Tuple, Type, Union, cast
from urllib.parse import SplitResult, unquote, urlsplit

from tornado import httputil
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from .connection import READ_SIZE, Connection, EndOfInterest, State, TransportError
from .dial import Route, dial
from .http1 import GzipDecoder, Head, ProtocolError, ResponseParser
from .proxytunnel import Proxy

__all__ = ["Answer", "EndOfInterest", "HeadCallback", "PooledHTTPClient", "Stats", "TransportError"]

MAX_ERROR_BODY = 1 << 20    # bytes of a non-2xx body that are kept
MAX_BODY = 100 << 20        # bytes of a 2xx body without streaming_callback; Tornado's own limit
IDLE_TTL = 45.0             # seconds; providers and load balancers close idle connections after 60 or more
MAX_IDLE = 32               # connections kept per route
_PORTS = {"https": 443, "http": 80, "http+unix": 0}
_BAD_HEADER = "a line break, a control character or a character outside of latin-1 in a request header or in the URL"
_UNSUPPORTED = ("body_producer", "expect_100_continue", "network_interface", "prepare_curl_callback")
_NOT_IN_HEAD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_IN_TARGET = re.compile(r"[\x00-\x20\x7f]")


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


class _Message(NamedTuple):
    """A request as it goes out. ``pieces`` is emptied when it is not needed any more."""

    route: Route
    method: str
    connect_timeout: Optional[float]
    pieces: List[bytes]


class HeadCallback:
    """A ``header_callback`` that wants the head in one piece and parsed, not line by line."""

    def __call__(self, line: str) -> None:
        """Not called by this client."""

    def on_head(self, status: int, headers: httputil.HTTPHeaders) -> None:
        raise NotImplementedError


class PooledHTTPClient(AsyncHTTPClient):
    """See the module. Make one with ``PooledHTTPClient(force_instance=True, ...)``.

    :arg first_byte_timeout: seconds of silence before the head of the answer is complete; 0 is no limit
    :arg idle_timeout: seconds of silence within the body
    :arg max_idle: connections kept per route; idle_ttl: seconds that one is kept
    """

    def initialize(self, defaults: Optional[Dict[str, Any]] = None, first_byte_timeout: float = 600.0, idle_timeout: float = 300.0,
                   max_idle: int = MAX_IDLE, idle_ttl: float = IDLE_TTL) -> None:
        super().initialize(defaults={"request_timeout": 0.0, **(defaults or {})})
        self.first_byte_timeout, self.idle_timeout = first_byte_timeout, idle_timeout
        self._max_idle, self._idle_ttl = max_idle, idle_ttl
        self._buffer = bytearray(READ_SIZE)
        self._idle: Dict[Route, Deque[Connection]] = {}
        self._routes: Dict[Connection, Route] = {}              # of every open connection
        self._expiry: Dict[Connection, asyncio.TimerHandle] = {}
        self._fetches: Dict[asyncio.Task[None], Optional[asyncio.Future[HTTPResponse]]] = {}
        self._latest: Optional[asyncio.Task[None]] = None
        self._contexts: Dict[Tuple[Any, ...], ssl.SSLContext] = {}
        self._connects = self._reused = self._retried = 0

    def stats(self) -> Stats:
        return Stats(len(self._routes), sum(map(len, self._idle.values())), self._connects, self._reused, self._retried)

    def close(self) -> None:
        """Close every socket. Running fetches fail with a :class:`TransportError`."""
        if not self._closed:
            super().close()
            for task in list(self._fetches):
                task.cancel()
            for connection in list(self._routes):
                connection.close()

    # fetch...

    def fetch(self, request: Union[str, HTTPRequest], raise_error: bool = True, **kwargs: Any) -> asyncio.Future[HTTPResponse]:
        """As Tornado documents it; and cancelling the future closes the socket. :raises TransportError: there is no answer"""
        try:
            future = super().fetch(request, raise_error, **kwargs)
        except httputil.HTTPInputError:                         # its text shows the header, and so perhaps the key
            raise TransportError("connect", "this request cannot be sent: %s" % _BAD_HEADER) from None
        task = self._latest                                     # fetch_impl ran just now
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
        receiver = _Receiver(request)
        error: Optional[BaseException] = None
        try:
            with _Limit(request.request_timeout or 0, "no complete answer within"):
                await self._perform(self._message(request), receiver)
        except asyncio.CancelledError:
            future = self._fetches.get(asyncio.current_task())  # type: ignore[arg-type]
            if future is None or future.cancelled():
                raise
            error = TransportError("reset", "the request was abandoned")
        except Exception as exc:
            error = exc
        callback(receiver.response(request, error, start_time, time.monotonic() - start))

    async def send(self, request: HTTPRequest) -> Answer:
        """:meth:`fetch` for a caller with a task of its own: it saves a task, a future, and memory while the answer comes.

        Fields of the request that are not set are not filled from the defaults. :raises TransportError: there is no answer
        """
        message, receiver, limit = self._message(request), _Receiver(request), request.request_timeout or 0
        del request
        task = asyncio.current_task()
        assert task is not None
        self._fetches[task] = None                              # so that close() finds it
        try:
            with _Limit(limit, "no complete answer within"):
                await self._perform(message, receiver)
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

    def _message(self, request: HTTPRequest) -> _Message:
        try:
            url = _split(request.url)
            route = self._route(request, url)
            return _Message(route, request.method, request.connect_timeout, _write_request(request, url, route))
        except (ValueError, OSError) as error:                  # UnicodeError and SSLError, too
            raise TransportError("connect", "this request cannot be sent: %s" % error, real_error=error) from None

    async def _perform(self, message: _Message, receiver: _Receiver) -> None:
        receiver.sent = message.pieces
        connection = self._take(message.route)
        if connection is not None:
            try:
                return await self._exchange(connection, message, receiver)
            except TransportError as error:
                if error.kind != "reset" or error.answered:
                    raise
                self._retried += 1
        await self._exchange(await self._connect(message.route, message.connect_timeout), message, receiver)

    async def _exchange(self, connection: Connection, message: _Message, receiver: _Receiver) -> None:
        await connection.exchange(message.pieces, ResponseParser(message.method), receiver, self.first_byte_timeout, self.idle_timeout)

    # The pool...

    async def preconnect(self, request: Union[str, HTTPRequest]) -> None:
        """Have a connection ready for requests like this one, unless there is one. :raises TransportError: it cannot be opened"""
        if not isinstance(request, HTTPRequest):
            request = HTTPRequest(request)
        try:
            route = self._route(request, _split(request.url))
        except (ValueError, OSError) as error:
            raise TransportError("connect", str(error), real_error=error) from None
        if not self._idle.get(route):
            self._on_state(await self._connect(route, request.connect_timeout or 10.0))

    async def _connect(self, route: Route, timeout: Optional[float]) -> Connection:
        try:
            with _Limit(timeout or 0, "no connection to %s within" % (route,)):
                sock = await dial(route)
        except OSError as error:
            # without a proxy the cause says it all; with one, who could not be reached is half of the news
            raise TransportError("connect", "cannot connect to %s: %s" % (route, error),
                                 real_error=None if route.proxy else error) from error
        self._connects += 1
        connection = Connection(sock, self._buffer, self._on_state)
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
        self._expiry.pop(connection).cancel()
        self._reused += 1
        return connection

    def _on_state(self, connection: Connection) -> None:
        """A connection became free or was closed."""
        if connection.state is State.FREE:
            waiting = self._idle.setdefault(self._routes[connection], collections.deque())
            if len(waiting) < self._max_idle:
                waiting.append(connection)
                self._expiry[connection] = asyncio.get_running_loop().call_later(self._idle_ttl, connection.close)
            else:
                connection.close()
            return
        route = self._routes.pop(connection)
        timer = self._expiry.pop(connection, None)
        if timer is not None:                                   # it was idle
            timer.cancel()
            self._idle[route].remove(connection)
        if route in self._idle and not self._idle[route]:
            del self._idle[route]

    # Routes...

    def _route(self, request: HTTPRequest, url: SplitResult) -> Route:
        if url.scheme == "http+unix":
            return Route("http", "localhost", 0, unix_path=unquote(url.netloc))
        host = (url.hostname or "").encode("idna").decode("ascii")
        tls = self._tls_context(request) if url.scheme == "https" else None
        proxy = None
        if getattr(request, "proxy_host", None):
            proxy = Proxy(str(request.proxy_host), request.proxy_port or 80, request.proxy_username, request.proxy_password or "")
        return Route(url.scheme, host, url.port or _PORTS[url.scheme], tls=tls, proxy=proxy)

    def _tls_context(self, request: HTTPRequest) -> ssl.SSLContext:
        """One context per combination of files, since making one costs milliseconds and belongs to the pool's key."""
        if isinstance(request.ssl_options, ssl.SSLContext):
            return request.ssl_options
        key = (request.validate_cert is not False, request.ca_certs, request.client_cert, request.client_key)
        if key not in self._contexts:
            self._contexts[key] = _new_context(*key)
        return self._contexts[key]


def _new_context(validate: bool, ca_file: Optional[str], cert: Optional[str], key: Optional[str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)    # without a file: the system's, or SSL_CERT_FILE and SSL_CERT_DIR
        if not validate:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if cert:
            context.load_cert_chain(cert, key)
    except OSError as error:
        names = ", ".join(name for name in (ca_file, cert, key) if name)
        raise ValueError("cannot use the certificate files (%s): %s" % (names, error)) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def _split(url: str) -> SplitResult:
    if _NOT_IN_TARGET.search(url):                              # urlsplit would just remove line breaks
        raise ValueError("a blank or control character in the URL")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.netloc:
        raise ValueError("the URL must begin with https://, http:// or http+unix:// and a host")
    return parts


def _write_request(request: HTTPRequest, url: SplitResult, route: Route) -> List[bytes]:
    """The bytes to send: the head, and the body. :raises ValueError: something in it cannot be written on the wire"""
    unsupported = [name for name in _UNSUPPORTED if getattr(request, name)]
    if unsupported:
        raise ValueError("this client does not support " + ", ".join(unsupported))
    body = cast(Optional[bytes], request.body)                  # None is possible, whatever Tornado's annotation says
    if body is None and request.method in ("POST", "PUT", "PATCH"):
        body = b""
    try:
        headers = httputil.HTTPHeaders(request.headers)
    except httputil.HTTPInputError:
        raise ValueError(_BAD_HEADER) from None
    for name, value in _implied_headers(request, url, route, body):
        if name not in headers:
            headers[name] = value
    path = (url.path or "/") + ("?" + url.query if url.query else "")
    if route.proxy is not None and route.tls is None:           # RFC 9112 section 3.2.2: a proxy gets the absolute form
        path = "http://%s%s" % (url.netloc.rpartition("@")[2], path)
        headers.update(route.proxy.authorization())
    lines = ["%s %s HTTP/1.1" % (request.method, path)]
    lines += ["%s: %s" % header for header in headers.get_all()]
    return [_encode(lines), body or b""]


def _encode(lines: List[str]) -> bytes:
    try:
        if not any(_NOT_IN_HEAD.search(line) for line in lines):
            return "\r\n".join(lines + ["", ""]).encode("latin-1")
    except UnicodeEncodeError:
        pass
    raise ValueError(_BAD_HEADER)                               # without the culprit: it may be the key


def _implied_headers(request: HTTPRequest, url: SplitResult, route: Route, body: Optional[bytes]) -> List[Tuple[str, str]]:
    headers = [("Host", "localhost" if route.unix_path else url.netloc.rpartition("@")[2].encode("idna").decode("ascii")),
               ("Accept-Encoding", "gzip" if request.decompress_response else "identity")]
    if body is not None:
        headers.append(("Content-Length", str(len(body))))
    if request.user_agent:
        headers.append(("User-Agent", request.user_agent))
    username, password = request.auth_username, request.auth_password
    if url.username is not None and not route.unix_path:
        username, password = unquote(url.username), unquote(url.password or "")
    if username:
        pair = ("%s:%s" % (username, password or "")).encode("utf-8")
        headers.append(("Authorization", "Basic " + base64.b64encode(pair).decode("ascii")))
    return headers


class _Receiver:
    """Receives one answer: calls the request's callbacks with a 2xx answer, keeps the body otherwise.

    ``sent``: the request's bytes; they are given up as soon as there is an answer.
    """

    def __init__(self, request: HTTPRequest) -> None:
        self.sent: List[bytes] = []
        self._header_callback, self._streaming_callback = request.header_callback, request.streaming_callback
        self._head: Optional[Head] = None
        self._headers = httputil.HTTPHeaders()
        self._decoder: Optional[GzipDecoder] = None
        self._callback: Optional[Callable[[bytes], Optional[Awaitable[None]]]] = None
        self._good = False
        self._body = bytearray()
        self._room = MAX_ERROR_BODY

    def on_head(self, head: Head) -> Callable[[bytes], Optional[Awaitable[None]]]:
        self._head = head
        self.sent.clear()
        for name, value in head.headers:
            self._headers.add(name, value)
        self._good = 200 <= head.status < 300
        if self._good:
            self._callback = self._streaming_callback
            self._room = MAX_BODY
        coding = [name for name in head.values("content-encoding") if name != "identity"]
        if coding in (["gzip"], ["x-gzip"]):
            self._decoder = GzipDecoder()
        elif coding and self._good:
            raise ProtocolError("the answer has the Content-Encoding %r, which was not asked for" % ", ".join(coding)[:80])
        elif coding:
            self._room = 0                                      # the status says more than a body that nobody can read
        self._announce(head)
        return self._callback if self._callback is not None and self._decoder is None else self._take

    def _announce(self, head: Head) -> None:
        callback = self._header_callback
        if isinstance(callback, HeadCallback):
            callback.on_head(head.status, self._headers)
        elif callback is not None:
            callback("%s %d %s\r\n" % (head.version, head.status, head.reason))
            for name, value in head.headers:
                callback("%s: %s\r\n" % (name, value))
            callback("\r\n")

    def _take(self, data: bytes) -> Optional[Awaitable[None]]:
        if self._decoder is not None:
            data = self._decode(self._decoder, data)
        if not data:
            return None
        if self._callback is not None:
            return self._callback(data)
        if self._good and len(self._body) + len(data) > MAX_BODY:
            raise ProtocolError("the body is longer than %d bytes" % MAX_BODY)
        self._body += data[:self._room - len(self._body)]
        if not self._good and len(self._body) >= self._room:
            raise EndOfInterest
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

    def response(self, request: HTTPRequest, error: Optional[BaseException], start_time: float, seconds: float) -> HTTPResponse:
        """What ``fetch`` gives to its caller: the answer, or Tornado's 599 with the error.

        An answer that is not 2xx and breaks off is one: its status says more than the way it ended.
        """
        if self._head is None or error is not None and not (self.refused and isinstance(error, TransportError)):
            return HTTPResponse(request, 599, error=error, request_time=seconds, start_time=start_time)
        return HTTPResponse(request, self._head.status, headers=self._headers, buffer=io.BytesIO(self._body),
                            reason=self._head.reason, request_time=seconds, start_time=start_time)


class _Limit:
    """``with _Limit(10, "no connection within"):`` cancels what is awaited inside after 10 s (0: never) and raises a TransportError.

    asyncio.timeout came with Python 3.11, and wait_for of older ones can lose a cancellation, and with it a socket.
    """

    def __init__(self, seconds: float, what: str) -> None:
        self._seconds, self._what = seconds, what
        self._expired = False
        self._timer: Optional[asyncio.TimerHandle] = None

    def __enter__(self) -> None:
        if self._seconds:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire, asyncio.current_task())

    def _expire(self, task: Optional[asyncio.Task[Any]]) -> None:
        self._expired = True
        assert task is not None
        task.cancel()

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._expired and kind is asyncio.CancelledError:
            text = "%s %g s" % (self._what, self._seconds)
            raise TransportError("timeout", text, real_error=TimeoutError(text)) from None
