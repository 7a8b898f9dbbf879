"""Requests to servers that are not providers: search services, MCP servers and web pages.

They are small and short: the whole request has a time limit, and the body of its answer a limit in bytes.
Redirects are not followed.  A request for a page (``public``) goes to addresses on the internet only: those
that a name resolves to are checked, and then connected to.  It goes through no proxy, which would resolve the
name itself.
"""

from __future__ import annotations

from typing import Mapping, NamedTuple, Optional

from tornado.httpclient import HTTPRequest

from .. import __version__
from ..errors import RproxyError
from .http_client import PooledHTTPClient
from .os_errors import reason_for
from .proxy import find_proxy
from .request import OnHead
from .transport import OnData, StopReading, TransportError


class WebRequest(NamedTuple):
    """One request.  ``timeout``: seconds until the end of the answer; 0: no limit.  ``connect_timeout``: of
    these, for the connection; 0: all.  ``fresh``: on a new connection, because on a kept one it may be sent
    twice.
    """

    url: str
    timeout: float
    max_bytes: int
    method: str = "GET"
    headers: Mapping[str, str] = {}
    body: Optional[bytes] = None
    public: bool = False
    connect_timeout: float = 0.0
    fresh: bool = False


class WebAnswer(NamedTuple):
    """The answer to a request.

    ``body``: at most ``max_bytes``, of another status than 2xx at most 1 MiB.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class WebError(RproxyError):
    """There is no complete answer; the text says why, and shows neither an address nor a key."""


async def fetch(client: PooledHTTPClient, request: WebRequest, environ: Mapping[str, str]) -> WebAnswer:
    """Send one request.

    :param environ: names the proxy for requests that may take one
    :raises WebError: there is no complete answer
    :raises ConfigError: the proxy in the environment cannot be used
    """
    body = bytearray()

    def take(data: bytes) -> None:
        body.extend(data[: request.max_bytes - len(body)])
        if len(body) >= request.max_bytes:
            raise StopReading

    answer = await stream(client, request, environ, take)
    return answer._replace(body=bytes(body)) if 200 <= answer.status < 300 else answer


async def stream(
    client: PooledHTTPClient,
    request: WebRequest,
    environ: Mapping[str, str],
    on_data: OnData,
    on_head: Optional[OnHead] = None,
) -> WebAnswer:
    """Send one request whose answer is read while it arrives, without a limit on its bytes.

    :param on_head: called with status and headers when a 2xx answer begins
    :param on_data: called with each piece of its body; it may raise :class:`.StopReading`, and the request
        has succeeded.  Any other exception is raised here, and the connection is closed
    :returns: the answer; its body is empty if it was streamed
    :raises WebError: there is no complete answer
    :raises ConfigError: the proxy in the environment cannot be used
    """
    http = HTTPRequest(
        request.url,
        method=request.method,
        headers={"User-Agent": "rproxy/" + __version__, **request.headers},
        body=request.body,
        connect_timeout=request.connect_timeout or request.timeout,
        request_timeout=request.timeout,
        decompress_response=True,
        streaming_callback=on_data,
    )
    proxy = None if request.public else find_proxy(request.url, environ)
    if proxy is not None:
        http.proxy_host, http.proxy_port = proxy.host, proxy.port
        http.proxy_username, http.proxy_password = proxy.username, proxy.password
    try:
        prepared = client.prepare(http)
        prepared.route = prepared.route._replace(public=request.public)
        prepared.on_head, prepared.fresh = on_head, request.fresh
        response = await client.fetch(prepared, raise_error=False)
    except TransportError as error:
        raise WebError(reason_for(error.real_error or error).text) from error
    response.error = None  # it refers to the response
    return WebAnswer(response.code, response.headers, response.body)
