"""An MCP server over HTTP: each message is a POST, and its answer is JSON or an event stream.

Redirects are not followed, an answer has a limit in bytes and in seconds, and a server that a client has
named is only looked for on the internet (:mod:`rproxy.upstream.web`).  A tool's call is sent on a connection
of its own: one that was kept may turn out to be closed, and a request that is sent again could run the tool
twice.

A server that refuses the POST may speak the transport of 2024-11-05, which is :class:`EventStream`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Callable, Mapping, NamedTuple, Optional
from urllib.parse import urljoin

from ...json_codec import encode_json
from ...log import clean
from ...types import Json
from ...upstream.client import StopReading, Upstream
from ...upstream.web import WebAnswer, WebError, WebRequest
from ..addresses import origin
from .connection import NOTIFY_TIMEOUT, Duplex, McpConnection
from .messages import HTTP, METHOD_NOT_FOUND, EventDecoder, McpError, MessageReader, messages_in, unreachable
from .protocol import Exchange, Peer, Reply, cancelled, reply_headers

CONNECT = 10.0  # seconds
MAX_RESUMED = 5  # times that a broken stream is resumed
NO_POST = (400, 404, 405)  # how servers of the old transport refuse a message


class Endpoint(NamedTuple):
    """A server's address, and what every request to it carries.

    ``public``: it must be on the internet.  ``secrets``: texts that no message may show.  ``max_bytes``: of
    an answer.
    """

    url: str
    headers: Mapping[str, str]
    public: bool
    secrets: Any
    max_bytes: int

    def request(self, method: str, seconds: float, headers: Mapping[str, str], **more: Any) -> WebRequest:
        """A request to it; ``seconds``: 0 for no limit."""
        return WebRequest(
            self.url,
            seconds,
            self.max_bytes,
            method,
            {**self.headers, **headers},
            public=self.public,
            connect_timeout=min(CONNECT, seconds) if seconds else CONNECT,
            **more,
        )


class HttpConnection(McpConnection):
    """A conversation by POSTs."""

    def __init__(self, peer: Peer, endpoint: Endpoint, upstream: Upstream) -> None:
        super().__init__(peer)
        self._endpoint, self._upstream = endpoint, upstream
        self._old: Optional[EventStream] = None  # the server speaks the transport of 2024-11-05

    async def _meet(self, deadline: float) -> None:
        if self._old is None:
            try:
                return await super()._meet(deadline)
            except McpError as error:
                if error.kind != HTTP or error.code not in NO_POST:
                    raise
                old = EventStream(self.peer, self._endpoint, self._upstream)
                try:
                    await old.open(max(0.001, min(CONNECT, deadline - time.monotonic())))
                except McpError:
                    raise error from None
                self._old = old
        self.peer.legacy_first = True
        return await super()._meet(deadline)

    async def close(self) -> None:
        await super().close()
        if self._old is not None:
            await self._old.close()
        elif self.peer.session:
            session, self.peer.session = reply_headers(self.peer), ""
            try:
                await self._upstream.fetch(self._endpoint.request("DELETE", NOTIFY_TIMEOUT, session))
            except WebError:
                pass  # it has gone already

    async def exchange(self, exchange: Exchange, seconds: float) -> Reply:
        if self._old is not None:
            return await self._old.exchange(exchange, seconds)
        try:
            return await self._post(exchange, time.monotonic() + seconds)
        except asyncio.CancelledError:
            self._give_up(exchange)
            raise
        except WebError as error:
            self._give_up(exchange)
            raise unreachable(clean(str(error), self._endpoint.secrets)) from None

    def _give_up(self, exchange: Exchange) -> None:
        """Cancel a call.  Without sessions, the closed connection is enough."""
        if self.peer.era == "legacy" and exchange.message.get("method") == "tools/call":
            self._notify(cancelled(self.peer, exchange.message["id"]))

    async def _post(self, exchange: Exchange, deadline: float) -> Reply:
        message = exchange.message
        wanted = message.get("id") if "method" in message else None
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            **exchange.headers,
        }
        request = self._endpoint.request(
            "POST",
            max(0.001, deadline - time.monotonic()),
            headers,
            body=encode_json(message),
            fresh=message.get("method") == "tools/call",
        )
        answer = _Answer(self._endpoint, wanted, self._answer)
        await answer.read(self._upstream, request)
        resumed = 0
        while answer.message is None and wanted is not None:
            if not answer.last_id or resumed >= MAX_RESUMED or "Mcp-Method" in exchange.headers:
                raise unreachable("its answer broke off" if answer.began else "its answer has no result")
            resumed += 1
            await asyncio.sleep(min(answer.retry, max(0.0, deadline - time.monotonic())))
            more = {**exchange.headers, "Accept": "text/event-stream", "Last-Event-ID": answer.last_id}
            left = max(0.001, deadline - time.monotonic())
            await answer.read(self._upstream, self._endpoint.request("GET", left, more))
        return Reply(answer.message or {}, answer.session)


class _Answer:
    """The answer to one request; a broken stream takes further requests to read."""

    def __init__(self, endpoint: Endpoint, wanted: Optional[int], reply: Callable[[Json], None]) -> None:
        self._endpoint, self._wanted, self._reply_to = endpoint, wanted, reply
        self._reader: Optional[MessageReader] = None
        self.message: Optional[Json] = None
        self.session = self.last_id = ""
        self.retry = 1.0
        self.began = False  # an event stream

    async def read(self, upstream: Upstream, request: WebRequest) -> None:
        """Send a request and read the part of the answer that it brings.

        :raises McpError: the answer is an error without a message, or too long
        :raises WebError: there is no answer
        """
        try:
            answer = await upstream.stream(request, self._on_data, self._on_head)
        except WebError:
            if not self.last_id:
                raise
            return  # the stream broke off, and can be resumed
        if not 200 <= answer.status < 300:
            self._refused(answer)
        elif self._reader is not None:
            self._reader.close()
            self._look(self._reader)

    def _on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.session = headers.get("Mcp-Session-Id", "") or self.session
        self.began = _is_event_stream(headers)
        self._reader = MessageReader(self._wanted, self.began, self._endpoint.max_bytes)

    def _on_data(self, data: bytes) -> None:
        reader = self._reader
        assert reader is not None
        reader.feed(data)
        self._look(reader)
        if self.message is not None or self._wanted is None:
            raise StopReading  # a server may keep the stream open

    def _look(self, reader: MessageReader) -> None:
        self.message = reader.answer
        for request in reader.requests:
            self._reply_to(request)
        reader.requests.clear()
        if reader.events is not None and reader.events.last_id:
            self.last_id, self.retry = reader.events.last_id, reader.events.retry

    def _refused(self, answer: WebAnswer) -> None:
        """A status other than 2xx, which is still an answer if the body is a JSON-RPC error.

        :raises McpError: it is not
        """
        readable = answer.status not in (401, 403) and not 300 <= answer.status < 400
        if answer.status == 404:  # of a lost session, unless the method was not found
            readable = str(METHOD_NOT_FOUND).encode() in answer.body
        if readable:
            reader = MessageReader(self._wanted, False, len(answer.body))
            reader.feed(answer.body)
            reader.close()
            if reader.answer is not None and "error" in reader.answer:
                self.message = reader.answer
                return
        raise McpError(HTTP, answer.status, _status_text(answer.status))


def _status_text(status: int) -> str:
    """An explanation of a status.  The body is not shown, because it may repeat what was sent."""
    if 300 <= status < 400:
        return f"it answers with status {status}, a redirect, which is not followed"
    meaning = {
        401: "it wants other credentials",
        403: "it does not allow this",
        404: "MCP is not served here",
    }
    return f"it answers with status {status}" + (f": {meaning[status]}" if status in meaning else "")


class EventStream(Duplex):
    """The transport of 2024-11-05: the event stream of a GET names the address to POST to, and carries all
    answers.
    """

    def __init__(self, peer: Peer, endpoint: Endpoint, upstream: Upstream) -> None:
        super().__init__(peer)
        self._endpoint, self._upstream = endpoint, upstream
        self._target = endpoint  # of messages
        self._events: Optional[EventDecoder] = None

    async def _listen(self) -> None:
        request = self._endpoint.request("GET", 0, {"Accept": "text/event-stream"})
        try:
            answer = await self._upstream.stream(request, self._on_data, self._on_head)
        except WebError as error:
            raise unreachable(clean(str(error), self._endpoint.secrets)) from None
        if not 200 <= answer.status < 300:
            raise McpError(HTTP, answer.status, _status_text(answer.status))
        raise unreachable("its event stream has ended")

    def _on_head(self, status: int, headers: Mapping[str, str]) -> None:
        if not _is_event_stream(headers):
            raise unreachable("it does not speak MCP")
        self._events = EventDecoder(self._endpoint.max_bytes)

    def _on_data(self, data: bytes) -> None:
        assert self._events is not None
        for event in self._events.feed(data):
            if event.type == "endpoint":
                self._take_endpoint(event.data)
            else:
                for message in messages_in(event.data):
                    self._received(message)

    def _take_endpoint(self, target: str) -> None:
        """:raises McpError: it is at another server, which must not get the credentials"""
        try:
            url = urljoin(self._endpoint.url, target.strip())
            same = origin(url) == origin(self._endpoint.url)
        except ValueError:
            same = False
        if not same:
            raise unreachable("it wants messages to be sent to another server")
        self._target = self._endpoint._replace(url=url)
        self._opened()

    async def _send(self, message: Json, seconds: float) -> None:
        request = self._target.request(
            "POST",
            seconds,
            {"Content-Type": "application/json", **reply_headers(self.peer)},
            body=encode_json(message),
            fresh=message.get("method") == "tools/call",
        )
        try:
            answer = await self._upstream.fetch(request)
        except WebError as error:
            raise unreachable(clean(str(error), self._endpoint.secrets)) from None
        if not 200 <= answer.status < 300:
            raise McpError(HTTP, answer.status, _status_text(answer.status))

    async def close(self) -> None:
        await super().close()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})


def _is_event_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/event-stream"
