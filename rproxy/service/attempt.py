"""One attempt: a chat request to one provider, and the bytes of its answer on their way to the client.

The bytes of each read go through decoder and converter at once, and the resulting events leave in one
write (:meth:`Attempt.data`, the hot path: a plain function, without an await, a task or a model object per
delta).

**The end** of an answer is ``[DONE]``, the end of the body, or a while of silence after a finish_reason,
because some servers forget to close.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, Awaitable, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..config.schema import Provider
from ..convert.events.converter import StreamConverter
from ..convert.events.fastpath import DeltaBatch, FastPath
from ..convert.json_steps import Steps, is_large, write_large
from ..convert.request.chat import Conversion
from ..convert.request.rewrite import rewritten
from ..cooperative import Slices, collect, free_later, in_thread, large_values
from ..errors import ApiError
from ..json_codec import SHARED, encode_json
from ..log import mask
from ..providers.provider_errors import broken, of_kind, provider_error, stream_error
from ..telemetry.records import AttemptRecord, milliseconds
from ..types import Event, Json
from ..upstream.client import CancelToken, ChatClient, Result, StopReading
from .content_watch import ContentWatch

PATHS = {"chat": "/chat/completions", "responses": "/responses"}  # by wire
PROVIDER_HEADER = "x-rproxy-provider"  # the provider that answered
UPSTREAM_ID_HEADER = "x-upstream-request-id"  # the provider's id of this request
REQUEST_IDS = ("x-request-id", "x-ds-trace-id", "x-trace-id", "request-id")
RATE_LIMITS = "x-ratelimit-"
MAX_HEADERS = 64  # of a provider's answer that are passed on
GRACE = 5.0  # seconds without data after a finish_reason that end an answer
LONG_GRACE = 20.0  # ... when it is still empty: some servers send "stop" first, and then the answer
LARGE_REQUEST = 1 << 20  # bytes; what the response repeats of a larger one may be too large for one step
LARGE_ANSWER = 1 << 18  # bytes; the events of a larger one may be too large for one step
MAX_ANSWER = 512 << 20  # bytes; the longest real answers, a token in each chunk, are below 150 MiB


class Attempt:
    """One chat request to one provider, and its answer.

    :param conversion: the request in the provider's terms
    :param new_converter: makes the converter of the answer
    :param send: takes the events of one read; returns something to wait for when the client does not keep up
    :param send_in_steps: takes events that are too large for that
    :param secrets: texts to mask in the provider's errors and in the head of its answer
    :param content_timeout: seconds that the answer may continue without content, 0 for no limit
    :param small: the request is known to be small, so it need not be measured
    :param write: writes a large request

    ``status`` is that of the provider's answer, None before there is one.  ``started``, ``sent`` and
    ``answered`` are when the attempt began, the request was on its way, and the answer began, in monotonic
    seconds.  ``headers`` are for the head of the client's answer.  Sizes are in bytes.
    """

    _fast_path: FastPath  # from :meth:`_prepare` on

    def __init__(
        self,
        provider: Provider,
        conversion: Conversion,
        new_converter: Callable[[], StreamConverter],
        send: Callable[[Sequence[Event]], Optional[Awaitable[None]]],
        send_in_steps: Callable[[Sequence[Event]], Awaitable[None]],
        secrets: Sequence[str],
        content_timeout: float = 0.0,
        small: bool = False,
        write: Callable[[Json, List[bytes]], Steps] = write_large,
    ) -> None:
        self.provider = provider
        self.conversion = conversion
        self.status: Optional[int] = None
        self._no_answer = ""
        self.started = time.monotonic()
        self.sent: Optional[float] = None
        self.answered: Optional[float] = None
        self.headers: Mapping[str, str] = {PROVIDER_HEADER: provider.name}
        self.request_bytes = 0
        self.answer_bytes = 0
        self._new_converter = new_converter
        self._prepared = False
        self._small = small
        self._write = write
        self._send = send
        self._send_in_steps = send_in_steps
        self._secrets = secrets
        self._stop = CancelToken()  # cancelled when the rest is not worth reading
        self._grace: Optional[asyncio.TimerHandle] = None
        self._content_timeout = content_timeout
        self._watch: Optional[ContentWatch] = None

    @property
    def converter(self) -> StreamConverter:
        """Makes the events.  It is made on first use; there is time for that while the provider thinks."""
        self._prepare()
        return self._fast_path.converter

    # ---- The request
    async def run(self, upstream: ChatClient, *, stream: bool, interrupt: Optional[CancelToken]) -> None:
        """Send the request and read until the answer is over, or until ``interrupt`` is cancelled.

        :raises ApiError: there was no 2xx answer, or it broke off
        """
        try:
            await self._exchange(upstream, stream, interrupt)
        except ApiError as error:
            self._no_answer = error.no_answer
            over = self._stop.cancelled or self.converter.finish_seen or self._fast_path.done
            if not over:  # else it does not matter how the connection ended
                raise
        finally:
            if self._grace is not None:
                self._grace.cancel()
            watch = self._watch
            self._watch = None  # breaks the cycle, so no garbage collection is needed
            if watch is not None:
                watch.stop()
        if watch is not None and watch.expired:
            raise self._without_content()

    async def _exchange(self, upstream: ChatClient, stream: bool, interrupt: Optional[CancelToken]) -> None:
        exchange = upstream.chat(
            self.provider,
            await self._encoded(stream),  # without a name: it may be large, and the answer may take long
            on_sent=self._on_sent,
            on_head=self._head,
            on_data=self.data,
            path=PATHS[self.provider.wire],
            stop=self._stop,
        )
        if interrupt is not None:
            interrupt.on_cancel(self._stop.cancel)
        result = await exchange
        if not self._stop.cancelled and not 200 <= result.status < 300:
            self._head(result.status, result.headers)
            raise await refusal(self.provider, result, self._secrets)

    async def _encoded(self, stream: bool) -> bytes:
        request = rewritten(self.conversion.chat_request(stream), self.provider.rewrite)
        if not self._small and is_large(request):
            body = await collect(lambda pieces: self._write(request, pieces))
            if len(body) > LARGE_REQUEST:
                await self._write_repeated()
        else:
            body = encode_json(request)
        self.request_bytes = len(body)
        return body

    async def _write_repeated(self) -> None:
        """Make the JSON of what the response repeats of a large request, such as its tools, in steps."""
        repeated: List[Any] = list(self.converter.response.values())
        for value in repeated:
            if type(value) in SHARED and is_large(value):
                value.keep(await collect(partial(write_large, value)))

    def _on_sent(self) -> None:
        self.sent = time.monotonic()
        self._prepare()

    def _prepare(self) -> None:
        """Make what the answer needs, if it is not there yet."""
        # No cached_property: it would make every attribute of this object slower (Python 3.11 and 3.12).
        if not self._prepared:
            self._fast_path = FastPath(self._new_converter())
            self._prepared = True

    def record(self, request_id: str) -> AttemptRecord:
        """The record of the attempt, when :meth:`run` has ended."""
        return AttemptRecord(
            request_id=request_id,
            provider=self.provider.name,
            status=self._no_answer if self.status is None else str(self.status),
            request_bytes=self.request_bytes,
            answer_bytes=self.answer_bytes,
            total_ms=milliseconds(self.started),
        )

    # ---- The answer
    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.answered = time.monotonic()
        self.headers = answer_headers(self.provider, headers, self._secrets)

    def _seen(self) -> Tuple[int, int]:
        return self.converter.content, self.answer_bytes

    def data(self, data: bytes) -> Optional[Awaitable[None]]:
        """Take what was read at once.

        :returns: something to wait for when the client does not keep up
        :raises StopReading: the answer is over
        """
        self.answer_bytes += len(data)
        batches = self._fast_path.feed(data)
        if len(batches) == 1 and type(batches[0]) is DeltaBatch and self.answer_bytes <= MAX_ANSWER:
            return self._send(batches[0])  # text, and nothing else
        written: Optional[Awaitable[None]] = None
        if batches:  # of several kinds, as when the text ends: still one write
            events = batches[0] if len(batches) == 1 else [event for events in batches for event in events]
            written = self.write(events)
            if written is not None and self.answer_bytes > LARGE_ANSWER:
                return self._work_off(written)  # which waits before it checks whether the answer is over
        if self._fast_path.pending:
            return self._work_off(written)
        self._fast_path.learn()
        converter = self._fast_path.converter
        if self._fast_path.done or converter.reader.error is not None or converter.reader.over:
            raise StopReading
        if self._content_timeout and self._watch is None:  # an answer of one read needs none
            self._watch = ContentWatch(self._content_timeout, self._seen, self._stop.cancel)
        if converter.finish_seen and (batches or self._grace is None):
            self._wait_for_more()
        if self.answer_bytes > MAX_ANSWER:
            raise self._too_large()
        return written

    def write(self, events: Sequence[Event]) -> Optional[Awaitable[None]]:
        """Send events, in steps if they are large, as only those of a large answer can be."""
        large = self.answer_bytes > LARGE_ANSWER and is_large(events)
        return self._send_in_steps(events) if large else self._send(events)

    async def _work_off(self, written: Optional[Awaitable[None]] = None) -> None:
        """Convert data that is too large to be converted at once, in slices; nothing is read meanwhile."""
        if self._grace is not None:
            self._grace.cancel()  # the client may take its time
        if written is not None:
            await written
        if self._fast_path.pending:
            large_values.begin()  # the garbage collector would examine all of it, and find nothing
            try:
                await self._convert_later()
            finally:
                large_values.end()
        converter = self._fast_path.converter
        if self._fast_path.done or converter.reader.error is not None or converter.reader.over:
            self._stop.cancel()
        elif converter.finish_seen:
            self._wait_for_more()

    async def _convert_later(self) -> None:
        slices = Slices()
        for events in self._fast_path.later():
            blocked = self.write(events) if events else None
            if blocked is not None:
                await blocked
            await slices.pause()
        if self._fast_path.spent:
            free_later(self._fast_path.spent)
            self._fast_path.spent.clear()

    def _wait_for_more(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
        self._grace = asyncio.get_running_loop().call_later(
            LONG_GRACE if self.converter.is_empty else GRACE, self._stop.cancel
        )

    def _too_large(self) -> ApiError:
        limit = f"the answer has more than {MAX_ANSWER >> 20} MiB so far."
        error = broken(self.provider.name, limit)
        error.retryable = False
        return error

    def _without_content(self) -> ApiError:
        error = of_kind(
            "timeout",
            f"{self.provider.name}: the answer had no content for {self._content_timeout:g} s, only signs of "
            "life. Try again. If the model needs that long, raise server.content_timeout.",
        )
        error.retryable = False  # another attempt could take as long; another provider is tried
        return error

    # ---- The end
    async def close(self) -> None:
        """The body has ended: convert the data that the decoder still holds."""
        rest = self._fast_path.close()
        if rest:
            self._send(rest)
        await self._work_off()

    async def check(self, *, codex: bool) -> None:
        """Judge the whole answer.

        :param codex: the errors are for Codex
        :raises ApiError: it is not one that the client can use
        """
        name, converter = self.provider.name, self.converter
        failure = converter.failure(self._fast_path.done)
        if failure is not None:
            if failure.raw is not None:
                read = partial(stream_error, failure.raw, name, self.provider.base_url, self._secrets)
                raise await in_thread(read)  # the patterns are loaded when first needed
            if failure.code != "server_error":
                raise ApiError(400, f"{name}: {failure.message}", code=failure.code)
            raise broken(name, failure.message)
        if codex and converter.reader.finish == "content_filter":
            # Codex repeats an incomplete answer six times, and a filter will not change its mind.
            raise ApiError(
                400,
                f"{name}: the provider's content filter stopped the answer. Rephrase the request.",
                code="content_filter",
                stream_code="invalid_prompt",
            )
        if converter.is_empty and (codex or self.conversion.profile.empty_answer == "error"):
            mistake = self.conversion.profile.empty_answer == "error"
            raise ApiError(
                502,
                f"{name}: the provider gave an empty answer. Try again, or rephrase the request.",
                type="server_error",
                code="server_error" if mistake else "empty_answer",  # retried once
                # rproxy has tried again already; Codex should not do so six times more
                stream_code="invalid_prompt",
                retryable=mistake,
            )


async def refusal(provider: Provider, result: Result, secrets: Sequence[str]) -> ApiError:
    """The error for an answer that is not 2xx.  For a thread: the patterns are loaded when first needed."""
    return await in_thread(
        partial(
            provider_error,
            result.status,
            result.headers,
            result.body,
            provider.name,
            provider.base_url,
            time.time(),
            secrets,
        )
    )


def answer_headers(provider: Provider, headers: Mapping[str, str], secrets: Sequence[str]) -> Dict[str, str]:
    """The headers of a provider's answer that a client may want, and no others.

    :param secrets: see :func:`rproxy.log.mask`
    :returns: the provider's name, its id for the request, and its rate limits
    """
    wanted = {PROVIDER_HEADER: provider.name}
    for given, value in headers.items():
        name = given.lower()
        if name.startswith(RATE_LIMITS) and len(wanted) < MAX_HEADERS:
            wanted[mask(name, secrets)] = mask(value, secrets)
        elif name in REQUEST_IDS:
            wanted[UPSTREAM_ID_HEADER] = mask(value, secrets)
    return wanted
