"""The provider side: one chat request goes out, the bytes of its answer come back while they arrive.

No field of the Chat Completions API is known here.  An answer that is 2xx is announced by ``on_head`` and
streamed to ``on_data``; any other comes back whole in the :class:`Result`, for the caller to judge.  No
answer at all is an ApiError.  The caller's control is the task, or a :class:`CancelToken`: cancelling the one
and calling the other closes the connection, which makes the provider stop generating.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Protocol, Tuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders

from .. import __version__
from ..convert.profile import Profile
from ..errors import ApiError, ConfigError
from ..upstream.os_errors import connect_error
from .parser import Head
from .pool import CancelToken, OnData, PooledHTTPClient, Stats, StopReading, TransportError
from .proxy import find_proxy

__all__ = ["StopReading", "Provider", "Result", "CancelToken", "Upstream"]

OnHead = Callable[[int, Mapping[str, str]], None]
MOST_KNOWN = 256  # prepared requests; a model name with a glob makes new providers again and again
_STANDARD_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream, application/json",
    "User-Agent": "rproxy/" + __version__,
}


class Provider(Protocol):
    """What of ``config.Provider`` matters here."""

    @property
    def name(self) -> str: ...
    @property
    def base_url(self) -> str: ...
    @property
    def api_key(self) -> Optional[str]: ...
    @property
    def profile(self) -> Profile: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def query(self) -> Mapping[str, str]: ...
    @property
    def ca_file(self) -> Optional[str]: ...
    @property
    def client_cert(self) -> Optional[str]: ...
    @property
    def client_key(self) -> Optional[str]: ...
    @property
    def http_proxy(self) -> Optional[str]: ...
    @property
    def secrets(self) -> Tuple[str, ...]: ...


class Result(NamedTuple):
    """How the provider answered. ``body`` (at most 1 MiB) only if ``status`` is not 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def _nothing() -> None:
    """There is nothing to do."""


class Upstream:
    """All connections to all providers.

    :arg connect_timeout: seconds for name resolution, TCP, a proxy's tunnel and TLS together
    :arg first_byte_timeout: seconds of silence before the answer begins; idle_timeout: within it. Both are
        re-armed by any byte.
    :arg http_client: ``pooled``, or ``stock`` or ``curl`` of :mod:`rproxy.upstream.tornado_client`. :raises
        ConfigError: there is no pycurl
    :arg environ: where HTTPS_PROXY and its relatives are looked up
    """

    def __init__(
        self,
        *,
        connect_timeout: float = 10.0,
        first_byte_timeout: float = 600.0,
        idle_timeout: float = 300.0,
        environ: Mapping[str, str] = os.environ,
        http_client: str = "pooled",
    ) -> None:
        self._connect_timeout = connect_timeout
        self._environ = environ
        self._known: Dict[
            Tuple[int, str], Tuple[Provider, Any]
        ] = {}  # by the identity of the provider and the path
        self._client: Any
        if http_client == "pooled":
            self._client = PooledHTTPClient(
                force_instance=True, first_byte_timeout=first_byte_timeout, idle_timeout=idle_timeout
            )
        else:
            from .tornado_client import TornadoClient

            self._client = TornadoClient(http_client, first_byte_timeout, idle_timeout)

    async def chat(
        self,
        provider: Provider,
        body: bytes,
        *,
        on_head: OnHead,
        on_data: OnData,
        on_sent: Callable[[], None] = _nothing,
        path: str = "/chat/completions",
        stop: Optional[CancelToken] = None,
    ) -> Result:
        """POST ``body`` to the provider's ``path``.

        :arg on_sent: called when the request is on its way, which is the time for whatever the answer will
            need; perhaps twice
        :arg on_head: called once, with status and headers, when a 2xx answer begins
        :arg on_data: called with each piece of a 2xx body. It may return an awaitable, and nothing is read
            until that is done. It may raise :class:`StopReading` after the last piece it wants: chat()
            returns at once, and the connection can be used again if the end of the body comes soon, while
            cancelling the task closes it. Its other exceptions come out of chat().
        :arg stop: ends it early, in every state; the result is what has come, and its status 599 if nothing
            has
        :raises ApiError: 502 or 504, there was no complete answer; ``got_head`` tells whether a 2xx answer
            had begun
        """
        watch = _HeadWatch(on_head)
        try:
            sending = self._client.send(
                self._prepared(provider, path), body, on_sent, watch, on_data, stop or CancelToken()
            )
            del body  # a long history; nobody needs it any more when the answer begins
            return Result(*await sending)
        except (TransportError, ConfigError) as error:
            raise _api_error(error, provider, watch.announced) from error

    async def preconnect(self, provider: Provider) -> None:
        """Open a connection, so that the next chat() saves the time for it.

        :raises ApiError: that is not possible
        """
        try:
            await self._client.preconnect(self._prepared(provider, "/chat/completions"))
        except (TransportError, ConfigError) as error:
            raise _api_error(error, provider, False) from error

    def stats(self) -> Stats:
        stats: Stats = self._client.stats()
        return stats

    def close(self) -> None:
        """Close all connections; turns that still run fail."""
        self._client.close()

    def _prepared(self, provider: Provider, path: str) -> Any:
        known = self._known.get((id(provider), path))
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[id(provider), path] = (
                provider,
                self._client.prepare(self._request(provider, path)),
            )
        return known[1]

    def _request(self, provider: Provider, path: str) -> HTTPRequest:
        url = endpoint(provider, path)
        proxy = find_proxy(url, self._environ, provider.http_proxy)
        request = HTTPRequest(
            url,
            method="POST",
            headers=request_headers(provider),
            connect_timeout=self._connect_timeout,
            decompress_response=False,
            ca_certs=provider.ca_file,
            client_cert=provider.client_cert,
            client_key=provider.client_key,
        )
        if proxy is not None:
            request.proxy_host, request.proxy_port = proxy.host, proxy.port
            request.proxy_username, request.proxy_password = proxy.username, proxy.password
        return request


class _HeadWatch:
    """Announces the head of a 2xx answer, and remembers that it did."""

    def __init__(self, on_head: OnHead) -> None:
        self.announced = False
        self._announce = on_head

    def __call__(self, head: Head, headers: HTTPHeaders) -> None:
        if 200 <= head.status < 300:
            self.announced = True
            self._announce(head.status, headers)


def endpoint(provider: Provider, path: str) -> str:
    """base_url + path. Query parameters of base_url, profile and provider are merged; the later ones win."""
    base = urlsplit(provider.base_url)
    query: Dict[str, str] = dict(parse_qsl(base.query, keep_blank_values=True))
    query.update(provider.profile.query)
    query.update(provider.query)
    return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + path, urlencode(query), ""))


def request_headers(provider: Provider) -> HTTPHeaders:
    """Standard headers and the key, then those of profile and provider; the later ones win."""
    headers = HTTPHeaders(_STANDARD_HEADERS)
    if provider.api_key:
        name = provider.profile.auth_header
        headers[name] = "Bearer " + provider.api_key if name.lower() == "authorization" else provider.api_key
    for more in (provider.profile.headers, provider.headers):
        headers.update(more)
    return headers


def _api_error(error: Exception, provider: Provider, got_head: bool) -> ApiError:
    result = connect_error(error, provider.name, provider.base_url, provider.secrets)
    result.got_head = got_head
    return result
