"""What requests of one kind to one provider have in common, made once: where they lead, and the bytes of
their head.

Writing a head (URL, proxy, TLS context, credentials, a check of every character) takes as long as converting
a short request, and the next one has the same.
"""

from __future__ import annotations

import base64
import re
import ssl
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import SplitResult, unquote, urlsplit

from tornado import httputil
from tornado.httpclient import HTTPRequest

from .connect import Route
from .proxy import Proxy

_PORTS = {"https": 443, "http": 80, "http+unix": 0}
_UNSUPPORTED = ("body_producer", "expect_100_continue", "network_interface", "prepare_curl_callback")
_NOT_IN_HEAD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_IN_TARGET = re.compile(r"[\x00-\x20\x7f]")
BAD_HEADER = (
    "a line break, a control character or a character outside of latin-1 in a request header or in the URL"
)


class Prepared(NamedTuple):
    """A request without its body.

    ``head``: all but the length of the body and the blank line; ``connect_timeout`` in seconds
    """

    route: Route
    method: str
    connect_timeout: Optional[float]
    head: bytes

    def written(self, body: Optional[bytes]) -> List[bytes]:
        """The pieces to send: the head, and the body if there is one."""
        if body is None:
            return [self.head + b"\r\n"]
        return [b"%bContent-Length: %d\r\n\r\n" % (self.head, len(body)), body]


class Preparation:
    """Prepares requests.

    It keeps the TLS contexts: making one costs milliseconds, and it belongs to the key of the pool.
    """

    def __init__(self) -> None:
        self._contexts: Dict[Tuple[Any, ...], ssl.SSLContext] = {}

    def prepare(self, request: HTTPRequest) -> Prepared:
        """:raises ValueError: (UnicodeError is one) something cannot be written on the wire.

        :raises OSError: TLS files
        """
        unsupported = [name for name in _UNSUPPORTED if getattr(request, name)]
        if unsupported:
            raise ValueError("this client does not support " + ", ".join(unsupported))
        url = _split(request.url)
        route = self._route(request, url)
        try:
            headers = httputil.HTTPHeaders(request.headers)
        except httputil.HTTPInputError:
            raise ValueError(BAD_HEADER) from None
        for name, value in _implied_headers(request, url, route):
            if name not in headers:
                headers[name] = value
        path = (url.path or "/") + ("?" + url.query if url.query else "")
        if (
            route.proxy is not None and route.tls is None
        ):  # RFC 9112 section 3.2.2: a proxy gets the absolute form
            path = "http://{}{}".format(url.netloc.rpartition("@")[2], path)
            headers.update(route.proxy.authorization())
        lines = [f"{request.method} {path} HTTP/1.1"]
        lines += ["{}: {}".format(*header) for header in headers.get_all() if header[0] != "Content-Length"]
        return Prepared(route, request.method, request.connect_timeout, _encode(lines))

    def _route(self, request: HTTPRequest, url: SplitResult) -> Route:
        if url.scheme == "http+unix":
            return Route("http", "localhost", 0, unix_path=unquote(url.netloc))
        host = (url.hostname or "").encode("idna").decode("ascii")
        tls = self._tls_context(request) if url.scheme == "https" else None
        proxy = None
        if getattr(request, "proxy_host", None):
            proxy = Proxy(
                str(request.proxy_host),
                request.proxy_port or 80,
                request.proxy_username,
                request.proxy_password or "",
            )
        return Route(url.scheme, host, url.port or _PORTS[url.scheme], tls=tls, proxy=proxy)

    def _tls_context(self, request: HTTPRequest) -> ssl.SSLContext:
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
        context = ssl.create_default_context(
            cafile=ca_file
        )  # without a file: the system's, or SSL_CERT_FILE and SSL_CERT_DIR
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
    if _NOT_IN_TARGET.search(url):  # urlsplit would just remove line breaks
        raise ValueError("a blank or control character in the URL")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.netloc:
        raise ValueError("the URL must begin with https://, http:// or http+unix:// and a host")
    return parts


def _encode(lines: List[str]) -> bytes:
    try:
        if not any(_NOT_IN_HEAD.search(line) for line in lines):
            return "\r\n".join(lines + [""]).encode("latin-1")
    except UnicodeEncodeError:
        pass
    raise ValueError(BAD_HEADER)  # without the culprit: it may be the key


def _implied_headers(request: HTTPRequest, url: SplitResult, route: Route) -> List[Tuple[str, str]]:
    headers = [
        (
            "Host",
            "localhost" if route.unix_path else url.netloc.rpartition("@")[2].encode("idna").decode("ascii"),
        ),
        ("Accept-Encoding", "gzip" if request.decompress_response else "identity"),
    ]
    if request.user_agent:
        headers.append(("User-Agent", request.user_agent))
    username, password = request.auth_username, request.auth_password
    if url.username is not None and not route.unix_path:
        username, password = unquote(url.username), unquote(url.password or "")
    if username:
        pair = ("{}:{}".format(username, password or "")).encode("utf-8")
        headers.append(("Authorization", "Basic " + base64.b64encode(pair).decode("ascii")))
    return headers
