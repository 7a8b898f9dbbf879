"""One turn: from a converted request to its terminal event.

:meth:`Turn.run` is the life of every request.  It asks a provider, feeds the bytes of the answer through
decoder and converter as they come, and writes the events of one read at once.  How events are written is the
business of :class:`EventSink`; without one (JSON mode) only the final Response object counts.

**Nothing is promised early.**  ``out.begin`` waits for the first event that shows something, so that whatever
fails before can still be an HTTP error, or be tried again in silence.  Only when the provider keeps silent
the client gets its first events without substance, after at most ``COMMIT_AFTER`` seconds, and then a
heartbeat whenever nothing was sent for ``heartbeat_interval``: clients (Codex) give up on a stream without
events, and comments do not count as such.

**The end** of an answer is ``[DONE]``, the end of the body, or a while of silence after a finish_reason,
because some servers forget to close.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Awaitable, Callable, Dict, List, Mapping, MutableMapping, Optional, Protocol, Sequence

from ..config.schema import Provider, Server
from ..convert.answer.decoder import ChunkDecoder
from ..convert.events.converter import StreamConverter
from ..convert.events.fastpath import DeltaBatch, FastPath
from ..convert.json_steps import encode_steps
from ..convert.request.chat import Conversion
from ..convert.request.rewrite import rewritten
from ..convert.sse import Written
from ..cooperative import run_cooperatively
from ..errors import ApiError, error_event
from ..providers.provider_errors import broken, provider_error, stream_error
from ..service.codex_errors import for_codex
from ..types import Json
from ..upstream.client import CancelToken, StopReading, Upstream
from ..upstream.failover import Failover
from ..upstream.learned_overrides import MOST as MOST_REPAIRS
from ..upstream.learned_overrides import LearnedOverrides

COMMIT_AFTER = 10.0  # seconds
PATHS = {"chat": "/chat/completions", "responses": "/responses"}  # by wire
PROVIDER_HEADER = "x-rproxy-provider"  # which one answered
UPSTREAM_ID_HEADER = "x-upstream-request-id"  # how the provider calls this request
REQUEST_IDS = ("x-request-id", "x-ds-trace-id", "x-trace-id", "request-id")
RATE_LIMITS = "x-ratelimit-"
GRACE = 5.0  # seconds without news after a finish_reason that end an answer
LONG_GRACE = 20.0  # ... when it has said nothing yet: some servers send "stop" first, and then the answer
MAX_ANSWER = 512 << 20  # bytes; the longest real answers, a token in each chunk, are below 150 MiB
PAUSES = (0.5, 2.0)  # seconds before rproxy tries again
ONCE = ("tool_use_failed",)  # codes of bad luck: the model wrote a call that its server could not read
LONGEST_PAUSE = 10.0  # seconds; a provider that asks for more is not waited for

# Codex repeats a request that fails with these. As an HTTP error it would do so thirty times, or without its
# text; in a stream, six times.
TOLD_IN_STREAM = ("server_error", "rate_limit_exceeded")


class EventSink(Protocol):
    """Where the events of a turn go."""

    def begin(self, response: Json, headers: Mapping[str, str]) -> None:
        """Commit: the answer is a stream of events."""

    def send(self, events: Sequence[Json]) -> Optional[Awaitable[None]]:
        """Write whole events in one go. :returns: something to wait for when the client does not keep up"""


@dataclass
class Client:
    """Who asks, and how. ``owner`` is "" when there is no auth, else a digest of the key.

    ``local`` holds the responses of a WebSocket connection; ``interrupt`` is cancelled when the user wants to
    say something; ``answer_headers`` gets what the turn wants to say in the head of its HTTP answer.
    """

    owner: str
    codex: bool
    transport: str  # json, sse, ws
    request_id: str
    headers: Mapping[str, str]
    local: Optional[MutableMapping[str, Json]] = None
    interrupt: Optional[CancelToken] = None
    answer_headers: Dict[str, str] = field(default_factory=dict)


@dataclass
class TurnStats:
    """What the log line says of a turn."""

    provider: str = ""
    retries: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    first_event: Optional[float] = None  # seconds after the start
    warnings: List[str] = field(default_factory=list)
    learned: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class TurnDeps:
    """What all turns of a process share."""

    upstream: Upstream
    server: Server
    failover: Failover
    repairs: LearnedOverrides


@dataclass(frozen=True)
class TurnPlan:
    """What one turn has to do.

    ``model``: the downstream model. ``conversation`` tells what the turns of one conversation have in common.
    ``convert`` makes the chat request for a provider (raises ApiError 400); ``converter`` makes a converter
    for its answer, given the first sequence number; ``keep`` is called with the converter of the final
    Response object, before its terminal event is sent.
    """

    providers: Sequence[Provider]
    model: str
    conversation: Callable[[], str]
    convert: Callable[[Provider], Awaitable[Conversion]]
    converter: Callable[[Conversion, int], StreamConverter]
    keep: Callable[[StreamConverter, Conversion, Provider], Awaitable[None]]


class Turn:
    """One request on its way through the providers. :arg out: None in JSON mode: only the result counts"""

    def __init__(
        self, means: TurnDeps, job: TurnPlan, client: Client, out: Optional[EventSink], facts: TurnStats
    ) -> None:
        server = means.server
        self._means = means
        self._job = job
        self._client = client
        self._out = out
        self._facts = facts
        self._retries = server.retries
        self._interval = server.heartbeat_interval or float("inf")
        self._codex = server.errors == "codex" or server.errors == "auto" and client.codex
        self._started = time.monotonic()
        self._begun = False
        self._held: List[Json] = []  # the first events, until there is something to show
        self._answer: Optional[_Answer] = None  # the one that is awaited
        self._converter: Optional[StreamConverter] = None
        self._last_sent = self._started
        self._timer: Optional[asyncio.TimerHandle] = None

    async def run(self) -> Json:
        """:returns: the final Response object.

        :raises ApiError: when it failed before ``out.begin``, or, without ``out``, at all
        """
        if self._out is not None:
            self._arm(min(COMMIT_AFTER, self._interval))
        try:
            return await self._tries()
        finally:
            self._answer = None  # which knows this turn: so both go without the garbage collector
            if self._timer is not None:
                self._timer.cancel()

    async def _tries(self) -> Json:
        while True:
            error = await self._round()
            if error is None:
                assert self._converter is not None
                return self._converter.response
            pause = self._pause(error)
            if pause is None:
                return await self._fail(error)
            self._facts.retries += 1
            await asyncio.sleep(pause)

    async def _round(self) -> Optional[ApiError]:
        """Ask one provider after another, as long as nothing is seen and another one may do better.

        :returns: the last error
        """
        error: Optional[ApiError] = None
        providers = self._job.providers
        for provider in self._means.failover.order(
            providers, self._job.conversation() if len(providers) > 1 else ""
        ):
            try:
                await self._repaired(provider)
                self._means.failover.succeeded(provider)
                return None
            except ApiError as failure:
                error = failure
                if not failure.elsewhere:
                    self._means.failover.released(provider)
                    break
                self._means.failover.failed(provider, failure)
                if self._visible:
                    break
            except BaseException:
                self._means.failover.released(provider)
                raise
        return error

    async def _repaired(self, provider: Provider) -> None:
        """Try a provider; when its refusal teaches something about it, try once more in another form."""
        for left in range(MOST_REPAIRS, -1, -1):
            fitted = self._means.repairs.applied(provider, self._job.model)
            try:
                return await self._try(fitted)
            except ApiError as error:
                may_learn = left and not self._visible and error.status in (400, 422)
                learned = (
                    self._means.repairs.learn(fitted, self._job.model, error.message) if may_learn else None
                )
                if learned is None:
                    raise
                self._facts.learned.append(f"repaired: {learned}")

    @property
    def _visible(self) -> bool:
        return self._converter is not None and self._converter.visible

    def _pause(self, error: ApiError) -> Optional[float]:
        """Seconds to wait before another round; None: this is final."""
        tries = self._facts.retries
        wanted = error.retryable or tries == 0 and error.code in ONCE
        if not wanted or self._visible or tries >= self._retries:
            return None
        pause = (
            error.retry_after
            if error.retry_after is not None
            else PAUSES[min(tries, len(PAUSES) - 1)] * random.uniform(0.8, 1.2)
        )
        return pause if pause <= LONGEST_PAUSE and self._means.failover.may_repeat() else None

    # ---- one try
    async def _try(self, provider: Provider) -> None:
        conversion = await self._job.convert(provider)
        answer = self._answer = _Answer(partial(self._new_converter, conversion), self._send, self._facts)
        self._facts.provider = provider.name
        self._client.answer_headers[PROVIDER_HEADER] = provider.name
        self._facts.warnings = conversion.warnings
        request = rewritten(conversion.chat_request(self._out is not None), provider.rewrite)
        await self._exchange(provider, await run_cooperatively(encode_steps(request)), answer)
        converter = answer.converter
        if self._client.interrupt is not None and self._client.interrupt.cancelled:
            await self._finish(converter, conversion, provider, converter.interrupt())
            return
        rest = answer.close()
        if rest:
            self._send(rest)
        failure = converter.failure(answer.done)
        if failure is not None:
            if failure.raw is not None:
                raise stream_error(failure.raw, provider.name, provider.base_url, provider.secrets)
            if failure.code != "server_error":
                raise ApiError(400, f"{provider.name}: {failure.message}", code=failure.code)
            raise broken(provider.name, failure.message)
        if self._codex and converter.reader.finish == "content_filter":
            # Codex repeats an incomplete answer six times, and a filter will not change its mind.
            raise ApiError(
                400,
                f"{provider.name}: the provider's content filter stopped the answer. Put the request in other words.",
                code="content_filter",
                stream_code="invalid_prompt",
            )
        if conversion.profile.empty_answer == "error" and converter.is_empty:
            raise _empty(provider.name, final=self._facts.retries >= self._retries)
        await self._finish(converter, conversion, provider, converter.finish())

    def _new_converter(self, conversion: Conversion) -> StreamConverter:
        sequence = self._converter.sequence if self._converter is not None and self._begun else 0
        converter = self._converter = self._job.converter(conversion, sequence)
        if not self._begun:
            self._held = list(map(Written, converter.start())) if self._out is not None else converter.start()
        return converter

    async def _exchange(self, provider: Provider, body: bytes, answer: _Answer) -> None:
        """Ask, until the answer is over.

        :raises ApiError: for anything but a 2xx answer that came to its end
        """
        self._facts.request_bytes = len(body)
        sending = self._means.upstream.chat(
            provider,
            body,
            on_sent=answer.begin,
            on_head=self._head,
            on_data=answer.data,
            path=PATHS[provider.wire],
            stop=answer.stop,
        )
        del body  # it may be large, and this may take long
        if self._client.interrupt is not None:
            self._client.interrupt.on_cancel(answer.stop.cancel)
        try:
            result = await sending
        except ApiError:
            if answer.complete or answer.stop.cancelled:
                return  # how the connection ended does not matter
            raise
        finally:
            answer.begin()
            answer.settle()
        if answer.stop.cancelled:
            return  # interrupted, or over without the end of the body
        if not 200 <= result.status < 300:
            self._head(result.status, result.headers)
            raise provider_error(
                result.status,
                result.headers,
                result.body,
                provider.name,
                provider.base_url,
                time.time(),
                provider.secrets,
            )

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        pass_on(headers, self._client.answer_headers)

    # ---- the ends
    async def _finish(
        self, converter: StreamConverter, conversion: Conversion, provider: Provider, events: List[Json]
    ) -> None:
        await self._job.keep(converter, conversion, provider)
        self._send(events)

    async def _fail(self, error: ApiError) -> Json:
        told = for_codex(error) if self._codex else error
        if (
            self._out is None
            or self._converter is None
            or not (self._begun or self._codex and told.stream_code in TOLD_IN_STREAM)
        ):
            raise error
        if not self._codex and self._client.transport == "sse":
            self._out.send([error_event(told, self._converter.next_sequence())])
        self._send(
            self._converter.fail(told.stream_code, told.failed_message(), type=told.type, param=told.param)
        )
        return self._converter.response

    # ---- writing
    def _send(self, events: Sequence[Json]) -> Optional[Awaitable[None]]:
        if self._out is None:
            return None
        if not self._begun:
            if not (events or self._held):
                return None
            assert self._converter is not None
            self._begun = True
            self._facts.first_event = time.monotonic() - self._started
            self._out.begin(self._converter.response, self._client.answer_headers)
            events, self._held = [*self._held, *events], []
        self._last_sent = time.monotonic()
        return self._out.send(events)

    def _arm(self, delay: float) -> None:
        if delay < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(delay, self._beat)

    def _beat(self) -> None:
        """Nothing was sent for a while? Then say that the turn is alive."""
        due = self._last_sent + self._interval if self._begun else 0.0
        if time.monotonic() >= due - 0.01 and self._answer is not None:
            self._answer.begin()
            self._send(self._answer.converter.heartbeat() if self._begun else [])
            due = self._last_sent + self._interval
        self._arm(max(due - time.monotonic(), 0.01))


def pass_on(headers: Mapping[str, str], told: Dict[str, str]) -> None:
    """Put into ``told`` what a client may want of the head of the provider's answer, and nothing else."""
    for name, value in headers.items():
        if name.lower().startswith(RATE_LIMITS):
            told[name.lower()] = value
        elif name.lower() in REQUEST_IDS:
            told[UPSTREAM_ID_HEADER] = value


def _empty(provider: str, final: bool) -> ApiError:
    """An answer without anything, from a provider that does not mean it.

    ``final``: Codex shall not ask six times more.
    """
    return ApiError(
        502,
        f"{provider}: the provider gave an empty answer. Try again, or in other words.",
        type="server_error",
        code="server_error",
        stream_code="invalid_prompt" if final else "server_error",
        retryable=True,
    )


class _Answer:
    """The bytes of one answer on their way to the client.

    ``stop`` is cancelled when nothing more is worth reading. ``converter`` is there from :meth:`begin` on.
    """

    converter: StreamConverter

    def __init__(
        self,
        make: Callable[[], StreamConverter],
        send: Callable[[Sequence[Json]], Optional[Awaitable[None]]],
        facts: TurnStats,
    ) -> None:
        self.stop = CancelToken()
        self._make = make
        self._begun = False
        self._send = send
        self._facts = facts
        self._decoder = ChunkDecoder()
        self._shortcut: FastPath
        self._grace: Optional[asyncio.TimerHandle] = None

    def begin(self) -> None:
        """Get ready to read, if that is not done.

        There is time for it while the provider thinks, but none when it has answered.
        """
        if not self._begun:
            self.converter = self._make()
            self._shortcut = FastPath(self._decoder, self.converter)
            self._begun = True

    @property
    def done(self) -> bool:
        return self._decoder.done

    @property
    def complete(self) -> bool:
        """Has everything come?"""
        return self._begun and (self.done or self.converter.finish_seen)

    def data(self, data: bytes) -> Optional[Awaitable[None]]:
        """Called by the provider client for every read; a plain function, for this is the hot path."""
        self._facts.answer_bytes += len(data)
        batches = self._shortcut.feed(data)
        if len(batches) == 1 and type(batches[0]) is DeltaBatch and self._facts.answer_bytes <= MAX_ANSWER:
            return self._send(batches[0])  # text, and nothing else
        written: Optional[Awaitable[None]] = None
        if batches:  # of several kinds, as when the text ends: one write all the same
            written = self._send(
                batches[0] if len(batches) == 1 else [event for events in batches for event in events]
            )
        if self._shortcut.candidate is not None:
            self._shortcut.learn()
        if self._decoder.done or self.converter.reader.error is not None or self.converter.reader.over:
            raise StopReading
        if self.converter.finish_seen and (batches or self._grace is None):
            self._wait_for_more()
        if self._facts.answer_bytes > MAX_ANSWER:
            error = broken(
                self._facts.provider, f"the answer has more than {MAX_ANSWER >> 20} MiB and still goes on."
            )
            error.retryable = False
            raise error
        return written

    def close(self) -> List[Json]:
        """The events of what the decoder still holds when the body has ended."""
        return self._shortcut.close()

    def _wait_for_more(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
        self._grace = asyncio.get_running_loop().call_later(
            LONG_GRACE if self.converter.is_empty else GRACE, self.stop.cancel
        )

    def settle(self) -> None:
        """Nothing is read any more."""
        self._shortcut.settle()
        if self._grace is not None:
            self._grace.cancel()
