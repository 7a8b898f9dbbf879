"""One turn: from a converted request to its terminal event.

:meth:`Turn.run` is the life of every request.  It asks a provider, feeds the bytes of the answer through decoder and converter as they
come, and writes the events of one read at once.  How events are written is the business of :class:`Out`; without one (JSON mode) only
the final Response object counts.

**Nothing is promised early.**  ``out.begin`` waits for the first event that shows something, so that whatever fails before can still be
an HTTP error, or be tried again in silence.  Only when the provider keeps silent the client gets its first events without
substance, after at most ``COMMIT_AFTER`` seconds, and then a heartbeat whenever nothing was sent for ``heartbeat_interval``: clients
(Codex) give up on a stream without events, and comments do not count as such.

**The end** of an answer is ``[DONE]``, the end of the body, or a while of silence after a finish_reason, because some servers forget to close.
"""
from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any, Awaitable, Callable, Dict, List, Mapping, MutableMapping, Optional, Protocol, Sequence

from .config import Provider, Server
from .convert.request import Conversion
from .convert.sse import ChunkDecoder, encode_json
from .convert.stream import StreamConverter
from .errors import ApiError, broken, error_event, for_codex, provider_error, stream_error
from .upstream import EndOfInterest, Upstream

Json = Dict[str, Any]

COMMIT_AFTER = 10.0                              # seconds
GRACE = 5.0                                      # seconds of silence after a finish_reason that end an answer
PAUSES = (0.5, 2.0)                              # seconds before rproxy tries again
LONGEST_PAUSE = 10.0                             # seconds; a provider that asks for more is not waited for


class Out(Protocol):
    """Where the events of a turn go."""

    def begin(self, response: Json, headers: Mapping[str, str]) -> None:
        """Commit: the answer is a stream of events."""

    def send(self, events: List[Json]) -> Optional[Awaitable[None]]:
        """Write whole events in one go. :returns: something to wait for when the client does not keep up"""


@dataclass
class Client:
    """Who asks, and how. ``owner`` is "" when there is no auth, else a digest of the key.

    ``local`` holds the responses of a WebSocket connection; ``interrupt`` is set when the user wants to say something.
    """

    owner: str
    codex: bool
    transport: str                               # json, sse, ws
    request_id: str
    headers: Mapping[str, str]
    local: Optional[MutableMapping[str, Json]] = None
    interrupt: Optional[asyncio.Event] = None


@dataclass
class Facts:
    """What the log line says of a turn."""

    provider: str = ""
    retries: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    first_event: Optional[float] = None          # seconds after the start
    warnings: List[str] = field(default_factory=list)


class Turn:
    """One request on its way through the providers.

    :arg convert: makes the chat request for a provider. :raises ApiError: 400
    :arg converter: makes a fresh converter for the answer of a provider, given the conversion and the next sequence number
    :arg keep: called with the final Response object before its terminal event is sent
    """

    def __init__(self, *, upstream: Upstream, server: Server, providers: Sequence[Provider], client: Client, out: Optional[Out], stream: bool,
                 convert: Callable[[Provider], Conversion], converter: Callable[[Conversion, int], StreamConverter],
                 keep: Callable[[StreamConverter, Conversion], Awaitable[None]], headers: Mapping[str, str], facts: Facts) -> None:
        self._upstream = upstream
        self._server = server
        self._providers = providers
        self._client = client
        self._interval = server.heartbeat_interval or float("inf")
        self._codex = server.errors == "codex" or server.errors == "auto" and client.codex
        self._out = out
        self._stream = stream
        self._convert = convert
        self._new_converter = converter
        self._keep = keep
        self._headers = headers
        self._facts = facts
        self._started = time.monotonic()
        self._begun = False
        self._held: List[Json] = []              # the first events, until there is something to show
        self._converter: Optional[StreamConverter] = None
        self._last_sent = self._started
        self._timer: Optional[asyncio.TimerHandle] = None

    async def run(self) -> Json:
        """:returns: the final Response object. :raises ApiError: when it failed before ``out.begin``, or, without ``out``, at all"""
        if self._out is not None:
            self._arm(min(COMMIT_AFTER, self._interval))
        try:
            return await self._tries()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _tries(self) -> Json:
        while True:
            try:
                return await self._try(self._providers[0])
            except ApiError as error:
                pause = self._pause(error)
                if pause is None:
                    return await self._fail(error)
                self._facts.retries += 1
            await asyncio.sleep(pause)

    def _pause(self, error: ApiError) -> Optional[float]:
        """Seconds to wait before another try; None: this is final."""
        tries = self._facts.retries
        seen = self._converter is not None and self._converter.visible
        if not error.retryable or seen or tries >= self._server.retries:
            return None
        pause = error.retry_after if error.retry_after is not None else PAUSES[min(tries, len(PAUSES) - 1)] * random.uniform(0.8, 1.2)
        return pause if pause <= LONGEST_PAUSE else None

    # ---- one try
    async def _try(self, provider: Provider) -> Json:
        conversion = self._convert(provider)
        converter = self._new_converter(conversion, self._converter.sequence if self._converter is not None and self._begun else 0)
        self._converter = converter
        if not self._begun:
            self._held = converter.start()
        answer = _Answer(converter, self._send, self._facts)
        body = encode_json(conversion.chat_request(self._stream))
        self._facts.provider, self._facts.request_bytes = provider.name, len(body)
        self._facts.warnings = conversion.warnings
        await self._exchange(provider, body, answer)
        if self._client.interrupt is not None and self._client.interrupt.is_set():
            return await self._finish(converter, conversion, converter.interrupt())
        rest = answer.close()
        if rest:
            self._send(rest)
        failure = converter.verdict(answer.done)
        if failure is not None:
            secrets = (provider.api_key,) if provider.api_key else ()
            if failure.raw is not None:
                raise stream_error(failure.raw, provider.name, provider.base_url, secrets)
            if failure.code != "server_error":
                raise ApiError(400, "%s: %s" % (provider.name, failure.message), code=failure.code)
            raise broken(provider.name, failure.message)
        if self._codex and converter.reader.finish == "content_filter":
            # Codex repeats an incomplete answer six times, and a filter will not change its mind.
            raise ApiError(400, "%s: the provider's content filter stopped the answer. Put the request in other words." % provider.name,
                           code="content_filter", stream_code="invalid_prompt")
        return await self._finish(converter, conversion, converter.finish())

    async def _exchange(self, provider: Provider, body: bytes, answer: _Answer) -> None:
        """Ask, until the answer is over. :raises ApiError: for anything but a 2xx answer that came to its end"""
        exchange = asyncio.ensure_future(self._upstream.chat(provider, body, headers={}, on_head=answer.head, on_data=answer.data))
        waits: List[asyncio.Future[Any]] = [exchange, answer.over]
        interrupt = self._client.interrupt
        if interrupt is not None:
            waits.append(asyncio.ensure_future(interrupt.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.stop()
            for wait in waits:
                if not wait.done():
                    wait.cancel()
        if not exchange.done() or exchange.cancelled():
            return                               # interrupted, or over without the end of the body
        try:
            result = exchange.result()
        except ApiError:
            if answer.done or answer.converter.finish_seen:
                return                           # everything came; how the connection ended does not matter
            raise
        if not 200 <= result.status < 300:
            secrets = (provider.api_key,) if provider.api_key else ()
            raise provider_error(result.status, result.headers, result.body, provider.name, provider.base_url, time.time(), secrets)

    # ---- the ends
    async def _finish(self, converter: StreamConverter, conversion: Conversion, events: List[Json]) -> Json:
        await self._keep(converter, conversion)
        self._send(events)
        return converter.response

    async def _fail(self, error: ApiError) -> Json:
        if not self._begun or self._out is None or self._converter is None:
            raise error
        told = for_codex(error) if self._codex else error
        if not self._codex and self._client.transport == "sse":
            self._out.send([error_event(told, self._converter.next_sequence())])
        self._send(self._converter.fail(told.stream_code, told.failed_message(), type=told.type, param=told.param))
        return self._converter.response

    # ---- writing
    def _send(self, events: List[Json]) -> Optional[Awaitable[None]]:
        if self._out is None or not (events or self._held):
            return None
        if not self._begun:
            assert self._converter is not None
            self._begun = True
            self._facts.first_event = time.monotonic() - self._started
            self._out.begin(self._converter.response, self._headers)
            events, self._held = self._held + events, []
        self._last_sent = time.monotonic()
        return self._out.send(events)

    def _arm(self, delay: float) -> None:
        if delay < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(delay, self._beat)

    def _beat(self) -> None:
        """Nothing was sent for a while? Then say that the turn is alive."""
        due = self._last_sent + self._interval if self._begun else 0.0
        if time.monotonic() >= due - 0.01 and self._converter is not None:
            self._send(self._converter.heartbeat() if self._begun else [])
            due = self._last_sent + self._interval
        self._arm(max(due - time.monotonic(), 0.01))


class _Answer:
    """The bytes of one answer on their way to the client. ``over`` is done when nothing more is worth reading."""

    def __init__(self, converter: StreamConverter, send: Callable[[List[Json]], Optional[Awaitable[None]]], facts: Facts) -> None:
        self.converter = converter
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send = send
        self._facts = facts
        self._decoder = ChunkDecoder()
        self._grace: Optional[asyncio.TimerHandle] = None

    @property
    def done(self) -> bool:
        return self._decoder.done

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """A 2xx answer begins."""

    def data(self, data: bytes) -> Optional[Awaitable[None]]:
        """Called by the provider client for every read; a plain function, for this is the hot path."""
        self._facts.answer_bytes += len(data)
        events: List[Json] = []
        for chunk in self._decoder.feed(data):
            events += self.converter.feed(chunk)
        written = self._send(events) if events else None
        if self._decoder.done or self.converter.reader.error is not None:
            raise EndOfInterest
        if self.converter.finish_seen:
            self._wait_for_more()
        return written

    def close(self) -> List[Json]:
        """The events of what the decoder still holds when the body has ended."""
        return [event for chunk in self._decoder.close() for event in self.converter.feed(chunk)]

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def _wait_for_more(self) -> None:
        self.stop()
        self._grace = asyncio.get_running_loop().call_later(GRACE, self._end)

    def stop(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
