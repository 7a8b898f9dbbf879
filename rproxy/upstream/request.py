"""A request that is ready to be sent: its route, and the bytes of its head.

Writing a head (URL, proxy, TLS context, credentials, a check of every character) takes as long as converting
a short chat request, and the next request to the same provider has the same one.  So it is written once, in a
:class:`PreparedRequest`, and :meth:`PreparedRequest.with_body` makes each request from that.
"""

from __future__ import annotations

import re
import ssl
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple
from urllib.parse import SplitResult, unquote, urlsplit

from tornado import httputil
from tornado.httpclient import HTTPRequest

from .connect import Route
from .proxy import Proxy, basic_auth
from .transport import CancelToken, OnData, TransportError

OnHead = Callable[[int, httputil.HTTPHeaders], object]

_PORTS = {"https": 443, "http": 80, "http+unix": 0}
_UNSUPPORTED = ("body_producer", "expect_100_continue", "network_interface", "prepare_curl_callback")
_BODY_METHODS = ("POST", "PUT", "PATCH")  # a request without a body has an empty one
_NOT_IN_HEAD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_IN_TARGET = re.compile(r"[\x00-\x20\x7f]")
_BAD_HEADER = "the URL or a header holds a line break, a control character or a character outside latin-1"


class PreparedRequest(HTTPRequest):
    """An ``HTTPRequest`` with more callbacks than Tornado's, made by ``PooledHTTPClient.prepare``.

    ``on_sent`` is called without arguments when the request is on its way, which is the time to get ready for
    the response; a second time if the request has to be sent again.  ``on_head`` is called with status and
    headers when a 2xx response begins.  Cancelling ``cancel_token`` ends the fetch early.  ``fresh``: on a
    new connection, because on a kept one it may be sent twice.
    """

    route: Route
    on_sent: Optional[Callable[[], object]] = None
    on_head: Optional[OnHead] = None
    cancel_token: Optional[CancelToken] = None
    fresh = False
    _head: bytes  # all but Content-Length and the empty line

    def __init__(self, request: HTTPRequest, defaults: Mapping[str, Any], contexts: TLSContexts) -> None:
        """Prepare a request.

        :param request: stays as it is
        :param defaults: values of attributes that are None in the request
        :raises TransportError: the request cannot be sent
        """
        self.__dict__ = {**request.__dict__}
        for name, value in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        try:
            self._prepare(contexts)
        except (ValueError, OSError) as error:  # UnicodeError and SSLError, too
            text = f"this request cannot be sent: {error}"
            raise TransportError("connect", text, real_error=error) from None

    def with_body(
        self,
        body: bytes,
        *,
        on_data: OnData,
        on_head: Optional[OnHead] = None,
        on_sent: Optional[Callable[[], object]] = None,
        cancel_token: Optional[CancelToken] = None,
    ) -> PreparedRequest:
        """The same request with another body and other callbacks.

        :param on_data: the ``streaming_callback``
        """
        request = PreparedRequest.__new__(PreparedRequest)
        request.__dict__ = self.__dict__.copy()  # three times as fast as update()
        request.body = body
        request.streaming_callback = on_data
        request.on_head, request.on_sent, request.cancel_token = on_head, on_sent, cancel_token
        return request

    def take_body(self) -> List[bytes]:
        """The pieces to send.  The request gives its body up, which may be a long history."""
        body: Optional[bytes] = self.body
        self.body = None  # type: ignore[assignment]  # Tornado's setter takes None
        if body is None and self.method not in _BODY_METHODS:
            return [self._head + b"\r\n"]
        body = body or b""
        return [b"%bContent-Length: %d\r\n\r\n" % (self._head, len(body)), body]

    def _prepare(self, contexts: TLSContexts) -> None:
        unsupported = [name for name in _UNSUPPORTED if getattr(self, name)]
        if unsupported:
            raise ValueError("this client does not support " + ", ".join(unsupported))
        url = _split(self.url)
        self.route = route = _route(self, url, contexts)
        try:
            headers = httputil.HTTPHeaders(self.headers)
        except httputil.HTTPInputError:  # its text shows the header, and with it perhaps the key
            raise ValueError(_BAD_HEADER) from None
        for name, value in _implied_headers(self, url, route):
            if name not in headers:
                headers[name] = value
        path = (url.path or "/") + ("?" + url.query if url.query else "")
        if route.proxy is not None and route.tls is None:
            # RFC 9112 section 3.2.2: a proxy gets the absolute form
            path = f"http://{url.netloc.rpartition('@')[2]}{path}"
            headers.update(route.proxy.authorization())
        lines = [f"{self.method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.get_all() if name != "Content-Length"]
        self._head = _encode(lines)


class TLSContexts:
    """The TLS contexts of one client, by the files they are made from.

    Making one takes milliseconds, and connections of different contexts are not exchangeable.
    """

    def __init__(self) -> None:
        self._contexts: Dict[Tuple[bool, Optional[str], Optional[str], Optional[str]], ssl.SSLContext] = {}

    def of(self, request: HTTPRequest) -> ssl.SSLContext:
        """The context for this request.

        :raises ValueError: a file cannot be used
        """
        if isinstance(request.ssl_options, ssl.SSLContext):
            return request.ssl_options
        key = (request.validate_cert is not False, request.ca_certs, request.client_cert, request.client_key)
        if key not in self._contexts:
            self._contexts[key] = _new_context(*key)
        return self._contexts[key]


def _new_context(
    validate: bool, ca_file: Optional[str], cert: Optional[str], key: Optional[str]
) -> ssl.SSLContext:
    try:
        # without a file: the system's, or those of SSL_CERT_FILE and SSL_CERT_DIR
        context = ssl.create_default_context(cafile=ca_file)
        if not validate:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if cert:
            context.load_cert_chain(cert, key)
    except OSError as error:
        names = ", ".join(name for name in (ca_file, cert, key) if name)
        raise ValueError(f"cannot use the certificate files ({names}): {error}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def _split(url: str) -> SplitResult:
    if _NOT_IN_TARGET.search(url):  # urlsplit would silently remove line breaks
        raise ValueError("the URL holds a space or a control character")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.netloc:
        raise ValueError("the URL must begin with https://, http:// or http+unix:// and a host")
    return parts


def _route(request: HTTPRequest, url: SplitResult, contexts: TLSContexts) -> Route:
    if url.scheme == "http+unix":
        return Route("http", "localhost", 0, unix_path=unquote(url.netloc))
    host = (url.hostname or "").encode("idna").decode("ascii")
    tls = contexts.of(request) if url.scheme == "https" else None
    proxy = None
    if request.proxy_host:
        proxy = Proxy(
            request.proxy_host, request.proxy_port or 80, request.proxy_username, request.proxy_password or ""
        )
    return Route(url.scheme, host, url.port or _PORTS[url.scheme], tls=tls, proxy=proxy)


def _encode(lines: List[str]) -> bytes:
    try:
        if not any(_NOT_IN_HEAD.search(line) for line in lines):
            return "\r\n".join(lines + [""]).encode("latin-1")
    except UnicodeEncodeError:
        pass
    raise ValueError(_BAD_HEADER)  # without showing it: it may be the key


def _implied_headers(request: HTTPRequest, url: SplitResult, route: Route) -> List[Tuple[str, str]]:
    host = "localhost" if route.unix_path else url.netloc.rpartition("@")[2].encode("idna").decode("ascii")
    headers = [("Host", host), ("Accept-Encoding", "gzip" if request.decompress_response else "identity")]
    if request.user_agent:
        headers.append(("User-Agent", request.user_agent))
    username, password = request.auth_username, request.auth_password
    if url.username is not None and not route.unix_path:
        username, password = unquote(url.username), unquote(url.password or "")
    if username:
        headers.append(("Authorization", basic_auth(username, password or "")))
    return headers
