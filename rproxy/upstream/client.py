"""The provider's side: one chat request goes out, and the bytes of its response come back as they arrive.

No field of the Chat Completions API is known here.  A 2xx response is announced by ``on_head`` and streamed
to ``on_data``.  Any other comes back as a whole in the :class:`Result`, for the caller to judge.  If there is
no response, that is an ApiError.  The caller ends a request early by cancelling its own task or a
:class:`CancelToken`.  Either closes the connection, which makes the provider stop generating.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Tuple,
)
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders

from .. import __version__
from ..config.addresses import proxy_secrets
from ..config.provider_cache import ProviderCache
from ..config.schema import Provider
from ..errors import ApiError, ConfigError
from .connect import ConnectTimeout, Route
from .http_client import PooledHTTPClient
from .os_errors import connect_error
from .pool import UNLIMITED
from .proxy import find_proxy
from .request import OnHead, PreparedRequest
from .transport import CancelToken, OnData, StopReading, TransportError

if TYPE_CHECKING:
    from .web import WebAnswer, WebRequest

__all__ = ["CancelToken", "ChatClient", "OnData", "Result", "StopReading", "Upstream"]

_STANDARD_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream, application/json",
    "User-Agent": "rproxy/" + __version__,
}


class Result(NamedTuple):
    """How the provider responded.  ``body`` is empty if the body of a 2xx response was streamed, and at most
    1 MiB if ``status`` is not 2xx.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class ChatClient(Protocol):
    """The interface through which a turn calls its providers: :class:`Upstream`, or an object that records or
    plays answers.
    """

    async def chat(
        self,
        provider: Provider,
        body: bytes,
        *,
        on_head: Callable[[int, Mapping[str, str]], object],
        on_data: OnData,
        on_sent: Optional[Callable[[], object]] = None,
        path: str = "/chat/completions",
        stop: Optional[CancelToken] = None,
    ) -> Result:
        """See :meth:`Upstream.chat`."""


class Upstream:
    """All connections to all providers."""

    def __init__(
        self,
        *,
        connect_timeout: float = 10.0,
        first_byte_timeout: float = 600.0,
        idle_timeout: float = 300.0,
        max_open: int = UNLIMITED,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Set up; nothing is connected yet.

        :param connect_timeout: seconds for name resolution, TCP, a proxy's tunnel and TLS together
        :param first_byte_timeout: seconds of silence before the response begins; any byte restarts them
        :param idle_timeout: seconds of silence within the response; any byte restarts them
        :param max_open: connections to all providers together; a request beyond waits for ``connect_timeout``
        :param environ: where HTTPS_PROXY and its relatives are looked up
        """
        self._connect_timeout = connect_timeout
        self._environ = environ
        self._requests: ProviderCache[PreparedRequest] = ProviderCache()
        self._client = PooledHTTPClient(
            force_instance=True,
            first_byte_timeout=first_byte_timeout,
            idle_timeout=idle_timeout,
            max_open=max_open,
        )

    def configure(self, *, connect_timeout: float, first_byte_timeout: float, idle_timeout: float) -> None:
        """Change the limits of requests that begin from now on, and read certificates again."""
        self._connect_timeout = connect_timeout
        self._client.first_byte_timeout, self._client.idle_timeout = first_byte_timeout, idle_timeout
        self._requests.clear()

    def __repr__(self) -> str:
        return f"<Upstream: {self._client!r}>"

    async def chat(
        self,
        provider: Provider,
        body: bytes,
        *,
        on_head: OnHead,
        on_data: OnData,
        on_sent: Optional[Callable[[], object]] = None,
        path: str = "/chat/completions",
        stop: Optional[CancelToken] = None,
    ) -> Result:
        """POST ``body`` to the provider's ``path``.

        :param on_sent: called when the request is on its way, which is the time to get ready for the
            response; perhaps twice
        :param on_head: called once, with status and headers, when a 2xx response begins
        :param on_data: called with each piece of a 2xx body.  It may return an awaitable: nothing is read
            until that is done.  It may raise :class:`StopReading` after the last piece it wants: chat()
            returns at once, and the connection can be used again if the end of the body arrives soon.
            chat() raises whatever else it raises.
        :param stop: ends the request early, in every state.  The result is what has arrived, with the status
            599 if that is nothing
        :raises ApiError: 502 or 504, there is no complete response
        """
        future = None
        try:
            future = self._client.fetch(
                self._prepared(provider, path).with_body(
                    body, on_data=on_data, on_head=on_head, on_sent=on_sent, cancel_token=stop
                ),
                raise_error=False,
            )
            del body  # it may be a long history, and the fetch releases it when the response begins
            response = await future
        except (TransportError, ConfigError) as error:
            raise self._api_error(error, provider) from error
        finally:
            del future  # it refers to the error, which refers to this frame
        response.error = None  # it refers to the response
        return Result(response.code, response.headers, response.body)

    async def get(self, provider: Provider, path: str) -> Result:
        """GET the provider's ``path``; ``body`` is the whole one, whatever the status.

        :raises ApiError: 502 or 504, there is no complete response
        """
        try:
            response = await self._client.fetch(self._prepare(provider, path, "GET"), raise_error=False)
        except (TransportError, ConfigError) as error:
            raise self._api_error(error, provider) from error
        response.error = None  # it refers to the response
        return Result(response.code, response.headers, response.body)

    async def fetch(self, request: WebRequest) -> WebAnswer:
        """Send a request to a server that is not a provider; see :mod:`.web`.

        :raises WebError: there is no complete answer
        """
        from .web import WebError, fetch  # loaded for hosted tools only

        try:
            return await fetch(self._client, request, self._environ)
        except ConfigError as error:
            raise WebError(str(error)) from error

    async def stream(
        self, request: WebRequest, on_data: OnData, on_head: Optional[OnHead] = None
    ) -> WebAnswer:
        """Send such a request, and read its answer while it arrives; see :func:`.web.stream`.

        :raises WebError: there is no complete answer
        """
        from .web import WebError, stream

        try:
            return await stream(self._client, request, self._environ, on_data, on_head)
        except ConfigError as error:
            raise WebError(str(error)) from error

    def check(self, provider: Provider) -> None:
        """Prepare everything for a request, such as the TLS context from its files.

        :raises ApiError: that is not possible
        """
        try:
            self._prepared(provider, "/chat/completions")
        except (TransportError, ConfigError) as error:
            raise self._api_error(error, provider) from error

    async def preconnect(self, provider: Provider) -> None:
        """Open a connection unless one is idle, so that the next chat() saves the time for it.

        :raises ApiError: that is not possible
        """
        try:
            await self._client.preconnect(self._prepared(provider, "/chat/completions"))
        except (TransportError, ConfigError) as error:
            raise self._api_error(error, provider) from error

    def connections(self, providers: Iterable[Provider]) -> Dict[Tuple[str, str], float]:
        """The numbers of connections: (name of the provider, ``busy`` or ``idle``) -> number.

        The connections that several providers share are those of the first.
        """
        found: Dict[Tuple[str, str], float] = {}
        seen: List[Route] = []
        for provider in providers:
            with suppress(ConfigError):
                route = self._prepared(provider, "/chat/completions").route
                if route not in seen:
                    seen.append(route)
                    busy, idle = self._client.pool.count(route)
                    found[provider.name, "busy"] = found.get((provider.name, "busy"), 0) + busy
                    found[provider.name, "idle"] = found.get((provider.name, "idle"), 0) + idle
        return found

    def close(self) -> None:
        """Close all connections; running requests fail."""
        self._client.close()

    def _api_error(self, error: Exception, provider: Provider) -> ApiError:
        secrets = (*provider.secrets, *proxy_secrets(self._environ))
        result = connect_error(error, provider.name, provider.base_url, secrets)
        kind = getattr(error, "kind", "connect")
        answered = getattr(error, "response", None) is not None
        result.unreachable = kind == "connect" or isinstance(
            getattr(error, "real_error", None), ConnectTimeout
        )
        result.no_answer = "" if answered else kind if kind in ("connect", "timeout") else "reset"
        return result

    def _prepared(self, provider: Provider, path: str) -> PreparedRequest:
        return self._requests.get(provider, path, self._prepare)

    def _prepare(self, provider: Provider, path: str, method: str = "POST") -> PreparedRequest:
        url = endpoint(provider, path)
        request = HTTPRequest(
            url,
            method=method,
            headers=request_headers(provider),
            connect_timeout=self._connect_timeout,
            decompress_response=False,
            ca_certs=provider.ca_file,
            client_cert=provider.client_cert,
            client_key=provider.client_key,
        )
        proxy = find_proxy(url, self._environ, provider.http_proxy)
        if proxy is not None:
            request.proxy_host, request.proxy_port = proxy.host, proxy.port
            request.proxy_username, request.proxy_password = proxy.username, proxy.password
        return self._client.prepare(request)


def endpoint(provider: Provider, path: str) -> str:
    """base_url + path.  Query parameters of base_url, profile and provider are merged; later ones win."""
    base = urlsplit(provider.base_url)
    query: Dict[str, str] = dict(parse_qsl(base.query, keep_blank_values=True))
    query.update(provider.profile.query)
    query.update(provider.query)
    return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + path, urlencode(query), ""))


def request_headers(provider: Provider) -> HTTPHeaders:
    """Standard headers and the key, then those of profile and provider; later ones win."""
    headers = HTTPHeaders(_STANDARD_HEADERS)
    if provider.api_key:
        name = provider.profile.auth_header
        headers[name] = "Bearer " + provider.api_key if name.lower() == "authorization" else provider.api_key
    for more in (provider.profile.headers, provider.headers):
        headers.update(more)
    return headers
