"""One turn: the life of every create request, up to its terminal event.

:meth:`Turn.run` makes attempts (:mod:`.attempt`) until one succeeds or the retry policy (:mod:`.retry`)
decides that the error is final.  Its plan (:mod:`.plan`) knows the request.  An
:class:`~rproxy.service.client.EventSink` writes the events; without one (JSON mode) only the final Response
object counts.

**Nothing is promised early.**  ``sink.begin`` waits for the first event that shows something, so that any
failure before it can still be an HTTP error, or be retried silently.  Only while the provider is silent does
the client get its first events, without content, after at most ``COMMIT_AFTER`` seconds, and then a heartbeat
whenever nothing was sent for ``heartbeat_interval``: clients (Codex) give up on a stream without events, and
comments do not count as such.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Awaitable, List, Mapping, Optional, Sequence

from ..config.schema import Provider
from ..convert.events.converter import StreamConverter
from ..convert.events.items import Watch
from ..convert.events.response import write_response
from ..convert.json_steps import is_large
from ..convert.request.chat import Conversion
from ..cooperative import large_values
from ..errors import ApiError, error_event
from ..log import mask
from ..providers.provider_errors import Refusal
from ..types import Event, Json
from .attempt import LARGE_ANSWER, Attempt
from .client import Client, EventSink, TurnResult
from .codex_errors import for_codex, uses_codex_form
from .plan import TurnDeps, TurnPlan
from .request_form import Prepared, RequestForm
from .retry import RetryLoop
from .stats import TurnStats

if TYPE_CHECKING:
    from ..telemetry.recording import Recording

COMMIT_AFTER = 10.0  # seconds
SMALL = 1 << 16  # bytes of a request and its answer, whose JSON is made without measuring it
BEFORE_CONVERSION = 0.05  # seconds between checks while nothing can be sent yet

# Codex repeats a request that fails with these. As an HTTP error it would do so thirty times, or without its
# text; in a stream, six times.
SENT_IN_STREAM = ("server_error", "rate_limit_exceeded")


class Turn:
    """One request on its way through the providers.

    :param sink: takes the events; None in JSON mode, where only the result counts
    """

    recording: Optional[Recording] = None  # see rproxy.service.recording_turn

    def __init__(self, deps: TurnDeps, plan: TurnPlan, client: Client, sink: Optional[EventSink]) -> None:
        server = deps.config.server
        self._deps = deps
        self._plan = plan
        self._client = client
        self._codex = uses_codex_form(server.errors, client.codex)
        self._retries = RetryLoop(deps.failover, server.retries)
        self._form = RequestForm(deps.overrides, plan, client.owner)
        self._asked: Optional[Provider] = None  # the provider of the attempt, as it is configured
        self._prepared: Optional[Prepared] = None  # the request that it gets
        self._attempt: Optional[Attempt] = None  # the one that is under way, or was the last
        self.stats = TurnStats(timeline=deps.telemetry.timeline(client.arrived))
        # ---- What the client gets
        self._sink = sink
        self.converter: Optional[StreamConverter] = None  # the latest
        self._begun = False
        self._held: List[Event] = []  # the first events, until there is something to show
        self._interval = server.heartbeat_interval or float("inf")
        self._started = self._last_sent = time.monotonic()
        self._timer: Optional[asyncio.TimerHandle] = None

    async def run(self) -> TurnResult:
        """Make attempts until there is a response.

        :returns: the final Response object, also that of a turn that failed after its stream had begun
        :raises ApiError: it failed before ``sink.begin``, or, without a sink, at all
        """
        if self._sink is not None:
            self._arm(min(COMMIT_AFTER, self._interval))
        try:
            await self._run_to_the_end()
            return self._result()
        except ApiError as error:
            self.stats.error = error
            if not await self._fail(error):
                raise
            await self._keep_unfinished()
            return self._result()
        except asyncio.CancelledError:
            await self._keep_unfinished()  # the client has left
            raise
        finally:
            self.stats.retries += self._retries.state.retries
            self._attempt = None  # breaks the cycle, so no garbage collection is needed
            if self._timer is not None:
                self._timer.cancel()

    async def _run_to_the_end(self) -> None:
        """Make attempts, for a compaction with a shorter history as often as the plan has one.

        :raises ApiError: the last error
        """
        while True:
            try:
                return await self._retries.run(self)
            except ApiError as error:
                overflow = error.stream_code == "context_length_exceeded" and not self.visible
                if not (overflow and self._plan.shorten()):
                    raise
                self._retries = RetryLoop(self._deps.failover, self._retries.state.retries_left)

    async def _keep_unfinished(self) -> None:
        """Store the part of an unfinished answer that the client has seen, so that it can be continued."""
        converter = self._latest
        if self._begun and converter is not None and converter.shown:
            await self._plan.keep_unfinished(converter)

    @property
    def _latest(self) -> Optional[StreamConverter]:
        """The converter of the present attempt, or of the last one."""
        return self._attempt.converter if self._attempt is not None else self.converter

    def _result(self) -> TurnResult:
        assert self.converter is not None
        return TurnResult(self.converter.response, self._headers)

    @property
    def _headers(self) -> Mapping[str, str]:
        return self._attempt.headers if self._attempt is not None else {}

    @property
    def sent(self) -> Json:
        """The body of the last attempt; empty before the first."""
        return self._prepared.conversion.body if self._prepared is not None else {}

    # ---- Attempts (Retryable)
    @property
    def providers(self) -> Sequence[Provider]:
        return self._plan.providers

    @property
    def visible(self) -> bool:
        return self.converter is not None and self.converter.visible

    def conversation_key(self) -> str:
        return self._plan.conversation_key()

    async def attempt(self, provider: Provider) -> None:
        """Try one provider, and pass its answer on to the client."""
        self._attempt = None
        self._asked, self._prepared = provider, await self._form.prepared(provider)
        fitted, conversion = self._prepared
        self.stats.warnings, self.stats.left_out = conversion.warnings, conversion.left_out
        self.stats.attempts += 1
        self.stats.provider = provider.name
        attempt = self._attempt = Attempt(
            fitted,
            conversion,
            partial(self._new_converter, conversion),
            self._send,
            self._send_in_steps,
            self._deps.config.secrets,
            self._deps.config.server.content_timeout,
            self._plan.small,
            partial(self._deps.recent_messages.write, self._client.owner),
        )
        interrupt, timeline = self._client.interrupt, self.stats.timeline
        if timeline is not None:
            timeline.begin_attempt(attempt)
        try:
            await attempt.run(self._deps.upstream, stream=self._sink is not None, interrupt=interrupt)
        finally:
            record = attempt.record(self._client.request_id)
            self._deps.telemetry.attempt_ended(record)
            if timeline is not None:
                timeline.end_attempt(record.provider, record.status)
            self.stats.request_bytes = attempt.request_bytes
            self.stats.upstream_status = attempt.status
            self.stats.answer_bytes += attempt.answer_bytes
        converter = attempt.converter
        if interrupt is not None and interrupt.cancelled:
            return await self._end(converter.interrupt())
        await attempt.close()
        await attempt.check(codex=self._codex)
        self._form.confirm(provider)
        if not self._goes_on(converter):
            await self._end(converter.finish())

    def _goes_on(self, converter: StreamConverter) -> bool:
        """Does the response continue after this complete answer?"""
        return False

    async def _end(self, last_events: Sequence[Event]) -> None:
        """Keep the response of the last attempt, then send its last events."""
        assert self._attempt is not None and self._prepared is not None
        converter, (fitted, conversion) = self._attempt.converter, self._prepared
        small = self._attempt.answer_bytes + self._client.size <= SMALL
        if small:
            write_response(converter.response)
        kept = await self._plan.keep(converter, conversion, fitted, small)
        self.stats.warnings = conversion.warnings + kept
        await self._send_last(last_events)

    async def reason(self, error: ApiError) -> str:
        return await self._plan.reason(error)

    async def cure(self, refusal: Refusal) -> bool:
        """Learn from a refusal which form of requests this provider accepts."""
        if self._attempt is None or self._prepared is None or self._asked is None:
            return False  # it was not the provider who refused
        return await self._form.change(self._asked, refusal, self._prepared, self._sink is not None)

    def _new_converter(self, conversion: Conversion) -> StreamConverter:
        sequence = self.converter.sequence if self.converter is not None and self._begun else 0
        converter = self.converter = self._plan.converter(conversion, sequence, self._watch)
        if not self._begun:
            self._held = converter.start()
            if self._client.size <= SMALL and self._sink is not None:  # the provider is thinking meanwhile
                write_response(self._held[0]["response"])
        return converter

    @property
    def _watch(self) -> Optional[Watch]:
        return self.stats.timeline.watch if self.stats.timeline is not None else None

    async def _fail(self, error: ApiError) -> bool:
        """Send a final error in the stream, if that has begun or is better for Codex.

        :returns: False: it is to be raised
        """
        error.apply(partial(mask, secrets=self._deps.config.secrets))
        shown = for_codex(error) if self._codex else error
        in_stream = self._begun or self._codex and shown.stream_code in SENT_IN_STREAM
        converter = self._latest
        if self._sink is None or converter is None or not in_stream:
            error.answer_headers = self._headers
            return False
        if not self._codex and self._client.transport == "sse":
            self._sink.send([error_event(shown, converter.next_sequence())])
        last = converter.fail(shown.stream_code, shown.failed_message(), type=shown.type, param=shown.param)
        await self._send_last(last)
        return True

    # ---- Writing
    def _send(self, events: Sequence[Event]) -> Optional[Awaitable[None]]:
        """Write the events of one read; the first ones take the opening events along."""
        if self._sink is None:
            return None
        if not self._begun:
            if not (events or self._held):
                return None
            assert self.converter is not None
            self._begun = True
            self.stats.first_event = time.monotonic() - self._started
            self._sink.begin(self.converter.response, self._headers)
            events, self._held = [*self._held, *events], []
        self._last_sent = time.monotonic()
        return self._sink.send(events)

    async def _send_last(self, events: Sequence[Event]) -> None:
        """Write events that have the whole text of the answer, some of them several times."""
        attempt = self._attempt
        if attempt is not None and attempt.answer_bytes > LARGE_ANSWER and is_large(events):
            await self._send_in_steps(events)
        else:
            self._send(events)

    async def _send_in_steps(self, events: Sequence[Event]) -> None:
        """Write events that may be too large for one step, as the client takes them."""
        if self._sink is None:
            self._send(events)
            return
        if not self._begun:
            self._send([])
        interval, self._interval = self._interval, float("inf")  # no heartbeat within an event
        large_values.begin()
        try:
            await self._sink.send_large(events)
        finally:
            large_values.end()
            self._interval, self._last_sent = interval, time.monotonic()
            if self._timer is not None:
                self._timer.cancel()
            self._arm(interval)

    def _arm(self, delay: float) -> None:
        if delay < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(delay, self._beat)

    def _beat(self) -> None:
        """Send a heartbeat, if nothing else was sent for a while."""
        due = self._last_sent + self._interval if self._begun else 0.0
        converter = self._latest
        if converter is None:
            due = time.monotonic() + BEFORE_CONVERSION
        elif self._sink is not None and self._sink.blocked:
            due = time.monotonic() + self._interval
        elif time.monotonic() >= due - 0.01:
            self._send(converter.heartbeat() if self._begun else [])
            due = self._last_sent + self._interval
        self._arm(max(due - time.monotonic(), 0.01))
