"""Chat Completions passed through: a request goes to its model's provider, the answer comes back byte for
byte.

Many tools expect this API at the same base URL.  Nothing is translated: the model's name becomes the
provider's, the client's key is replaced by the provider's, and only the headers that turns pass on are passed
on.  A provider that cannot be reached is replaced by the next one.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Awaitable, Mapping, Optional, Protocol, Sequence

from ..config.schema import Model, Provider
from ..convert.json_steps import write_steps
from ..convert.request.mixed import as_chat_request
from ..convert.request.validate import check_request, without_nulls
from ..cooperative import collect
from ..errors import ApiError, invalid
from ..log import mask
from ..providers.provider_errors import Refusal
from ..telemetry.records import AttemptRecord, TurnRecord, milliseconds
from ..telemetry.telemetry import Telemetry
from ..types import Json
from ..upstream.client import Result, Upstream
from ..upstream.failover import Failover
from .attempt import answer_headers, refusal
from .catalog import Catalog
from .client import Client
from .error_frames import ErrorFrames
from .quota import Quotas
from .retry import RetryLoop
from .running_turns import RunningTurns
from .usage_reader import UsageReader

ERROR_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
OTHER_MODELS = ("models", "fallbacks")  # fields that name further models to OpenRouter and LiteLLM


class AnswerSink(Protocol):
    """Where the answer goes."""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The answer begins."""

    def data(self, data: bytes) -> Optional[Awaitable[None]]:
        """A piece of its body, as it was read.

        :returns: something to wait for when the client does not keep up
        """


class Passthrough:
    """``POST /chat/completions``"""

    def __init__(
        self,
        catalog: Catalog,
        running: RunningTurns,
        quotas: Quotas,
        upstream: Upstream,
        failover: Failover,
        telemetry: Telemetry,
        secrets: Sequence[str],
    ) -> None:
        self._secrets = secrets
        self._catalog = catalog
        self._running = running
        self._quotas = quotas
        self._upstream = upstream
        self._failover = failover
        self._telemetry = telemetry

    async def chat(self, request: Json, client: Client, answer: AnswerSink) -> None:
        """Pass one request on.

        :raises ApiError: the request is wrong, its key may not use the model, no provider has answered, or
            the answer broke off
        """
        name = request.get("model")
        if not isinstance(name, str) or not name:
            raise invalid(
                "model is required: the name of one of the models of GET /v1/models.",
                "model",
                "missing_required_parameter",
            )
        model = self._catalog.of(client.key).find(name)
        if client.key is not None and client.key.models:
            _check_other_models(request)
        if "input" in request and "messages" not in request:
            check_request(without_nulls(request))
        end = self._running.begin(client.key)
        relayed = _Relayed(
            self._upstream, self._telemetry, model, name, request, client, answer, self._secrets
        )
        try:
            with self._telemetry.running(relayed.record):
                await RetryLoop(self._failover).run(relayed)
            relayed.status = "completed" if relayed.error is None else "failed"
        except ApiError as error:
            relayed.status, relayed.error, error.reported = "failed", error, True
            raise
        except BaseException:
            relayed.status = "cancelled"
            raise
        finally:
            end()
            record = await relayed.report()
            self._quotas.end_turn(client.key, record, request)


def _check_other_models(request: Json) -> None:
    """For a key that is limited to some models, refuse fields that name other models to the provider.

    :raises ApiError: 400
    """
    for field in OTHER_MODELS:
        if request.get(field):
            raise invalid(
                f"This API key is limited to some models, so it may not send '{field}'. Name one model, in "
                "'model'.",
                field,
            )


class _Relayed:
    """One request on its way through the providers (:class:`~rproxy.service.retry.Retryable`).

    ``visible``: the head of the answer was sent.  ``error``: why it failed.
    """

    def __init__(
        self,
        upstream: Upstream,
        telemetry: Telemetry,
        model: Model,
        name: str,
        request: Json,
        client: Client,
        answer: AnswerSink,
        secrets: Sequence[str],
    ) -> None:
        self.providers = model.providers
        self.visible = False
        self.status = "in_progress"
        self.error: Optional[ApiError] = None
        self._upstream = upstream
        self._telemetry = telemetry
        self._model = model
        self._name = name
        self._request = request
        self._client = client
        self._answer = answer
        self._secrets = secrets
        self._frames = ErrorFrames(secrets)
        self._began = time.monotonic()
        self._first_data: Optional[float] = None
        self._timeline = telemetry.timeline(client.arrived)
        self._attempts = 0
        self._provider = ""  # of the last attempt, as are these:
        self._upstream_status: Optional[int] = None
        self._request_bytes = 0
        self._usage = UsageReader()
        self.started = self._began  # of the last attempt, as are these (rproxy.telemetry.spans.Timed):
        self.sent: Optional[float] = None
        self.answered: Optional[float] = None

    def conversation_key(self) -> str:
        return self._name

    async def cure(self, refusal: Refusal) -> bool:
        return False  # the client's request must not be changed

    async def reason(self, error: ApiError) -> str:
        from ..telemetry.reason import reason_of  # loaded for failures only

        return await reason_of(error, self._request)

    async def attempt(self, provider: Provider) -> None:
        """Try one provider.

        :raises ApiError: there was no complete answer
        """
        self._attempts += 1
        self._provider, self._upstream_status, self._usage = provider.name, None, UsageReader()
        self._frames = ErrorFrames(self._secrets)
        chat = as_chat_request(self._request, provider.profile, self._model.downstream_model)
        body = await collect(lambda pieces: write_steps(chat, pieces))
        self._request_bytes = len(body)
        no_answer = ""
        self.started, self.sent, self.answered = time.monotonic(), None, None
        if self._timeline is not None:
            self._timeline.begin_attempt(self)
        try:
            result = await self._upstream.chat(
                provider,
                body,
                on_sent=self._on_sent,
                on_head=partial(self._head, provider),
                on_data=self._data,
            )
            if not 200 <= result.status < 300:
                await self._refuse(provider, result)
            written = self._answer.data(self._frames.close())
            if written is not None:
                await written
        except ApiError as error:
            no_answer = error.no_answer
            raise
        finally:
            record = AttemptRecord(
                request_id=self._client.request_id,
                provider=provider.name,
                status=no_answer if self._upstream_status is None else str(self._upstream_status),
                request_bytes=self._request_bytes,
                answer_bytes=self._usage.size,
                total_ms=milliseconds(self.started),
            )
            self._telemetry.attempt_ended(record)
            if self._timeline is not None:
                self._timeline.end_attempt(record.provider, record.status)

    def _on_sent(self) -> None:
        self.sent = time.monotonic()

    def _head(
        self, provider: Provider, status: int, headers: Mapping[str, str], kept: Sequence[str] = ()
    ) -> None:
        """:param kept: names of headers that are passed on besides those of :func:`answer_headers`"""
        self.visible = True
        self.answered = time.monotonic()
        self._upstream_status = status
        more = {
            name.lower(): mask(value, self._secrets)
            for name, value in headers.items()
            if name.lower() in kept
        }
        content_type = mask(headers.get("Content-Type", "application/json"), self._secrets)
        known = answer_headers(provider, headers, self._secrets)
        self._answer.head(status, {"content-type": content_type, **known, **more})

    def _data(self, piece: bytes) -> Optional[Awaitable[None]]:
        if self._first_data is None:
            self._first_data = milliseconds(self._began)
        self._usage.feed(piece)
        return self._answer.data(self._frames.feed(piece))

    async def _refuse(self, provider: Provider, result: Result) -> None:
        """Pass on the provider's own words, with secrets masked."""
        self._head(provider, result.status, result.headers, ERROR_HEADERS)
        masked = mask(result.body.decode("utf-8", "surrogateescape"), self._secrets)
        self._answer.data(masked.encode("utf-8", "surrogateescape"))
        self.error = await refusal(provider, result, self._secrets)

    async def report(self) -> TurnRecord:
        """Report the request, now that it has ended."""
        error, reason = self.error, ""
        if error is not None:
            with suppress(asyncio.CancelledError):  # the client has left, or the process is ending
                reason = await self.reason(error)
        record = self.record(reason)
        self.error = None  # breaks the cycle, so no garbage collection is needed
        self._telemetry.turn_ended(record, self._model.price)
        return record

    def record(self, reason: str = "") -> TurnRecord:
        """The record of the request, as it is now."""
        error = self.error
        return TurnRecord(
            request_id=self._client.request_id,
            key=self._client.key_name,
            remote=self._client.remote,
            model=self._name,
            downstream_model=self._model.downstream_model,
            provider=self._provider,
            transport="chat",
            status=self.status,
            error="" if error is None else error.code or error.stream_code,
            upstream_status=self._upstream_status,
            reason=reason,
            request_bytes=self._request_bytes,
            answer_bytes=self._usage.size,
            **self._usage.fields(),
            first_event_ms=self._first_data,
            total_ms=milliseconds(self._began),
            attempts=self._attempts,
            route=self._model.model,
            owner=self._client.owner,
            spans=self._timeline.so_far() if self._timeline is not None else (),
        )
