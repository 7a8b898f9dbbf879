"""Chat Completions as they are: a request goes to its model's provider, the answer comes back byte for byte.

Many tools want this API of the same base URL.  Nothing is translated: the model's name becomes the
provider's, the client's key is replaced by the provider's, and of the headers only those pass that a turn
passes, too.  A provider that cannot be reached is replaced by the next one.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Awaitable, Mapping, Optional, Protocol, Sequence

from ..config.schema import Model, Provider
from ..convert.json_steps import encode_steps
from ..convert.request.mixed import as_chat_request
from ..convert.request.validate import check_request, without_nulls
from ..cooperative import run_cooperatively
from ..errors import ApiError, invalid
from ..log import log_turn, mask
from ..providers.provider_errors import Refusal
from ..types import Json
from ..upstream.client import Result, Upstream
from ..upstream.failover import Failover
from .attempt import answer_headers
from .catalog import Catalog
from .client import Client
from .error_frames import ErrorFrames
from .quota import Quotas
from .retry import RetryLoop

ERROR_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")
OTHER_MODELS = ("models", "fallbacks")  # fields in which OpenRouter and LiteLLM take models to fall back to


class Answer(Protocol):
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
        self, catalog: Catalog, quotas: Quotas, upstream: Upstream, failover: Failover, secrets: Sequence[str]
    ) -> None:
        self._secrets = secrets
        self._catalog = catalog
        self._quotas = quotas
        self._upstream = upstream
        self._failover = failover

    async def chat(self, request: Json, client: Client, answer: Answer) -> None:
        """Pass one request on.

        :raises ApiError: the request is wrong, its key may not, no provider has answered, or the answer broke
            off
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
        self._quotas.begin_turn(client.key)
        relayed = _Relayed(self._upstream, model, name, request, client, answer, self._secrets)
        await RetryLoop(self._failover).run(relayed)


def _check_other_models(request: Json) -> None:
    """Refuse what would name further models to the provider, for a key that is limited to some.

    :raises ApiError: 400
    """
    for field in OTHER_MODELS:
        if request.get(field):
            raise invalid(
                f"This API key may use some models only, so that '{field}' is not allowed; name one in "
                "'model'.",
                field,
            )


class _Relayed:
    """One request on its way through the providers (:class:`~rproxy.service.retry.Retryable`).

    ``visible``: the head of the answer has gone out.
    """

    def __init__(
        self,
        upstream: Upstream,
        model: Model,
        name: str,
        request: Json,
        client: Client,
        answer: Answer,
        secrets: Sequence[str],
    ) -> None:
        self.providers = model.providers
        self.visible = False
        self._upstream = upstream
        self._model = model
        self._name = name
        self._request = request
        self._body = b""
        self._client = client
        self._answer = answer
        self._secrets = secrets
        self._read = 0  # bytes of the answer
        self._frames = ErrorFrames(secrets)

    def conversation_key(self) -> str:
        return self._name

    async def cure(self, refusal: Refusal) -> bool:
        return False  # the client's request is its own business

    async def attempt(self, provider: Provider) -> None:
        """Ask one provider.

        :raises ApiError: it did not answer, or not to the end
        """
        started, status, self._read = time.monotonic(), "cancelled", 0
        self._frames = ErrorFrames(self._secrets)
        chat = as_chat_request(self._request, provider.profile, self._model.downstream_model)
        self._body = await run_cooperatively(encode_steps(chat))
        try:
            result = await self._upstream.chat(
                provider, self._body, on_head=partial(self._head, provider), on_data=self._data
            )
            status = "completed" if 200 <= result.status < 300 else str(result.status)
            if status != "completed":
                self._refuse(provider, result)
            written = self._answer.data(self._frames.close())
            if written is not None:
                await written
        except ApiError as error:
            status = str(error.status)
            raise
        finally:
            log_turn(
                {
                    "model": self._name,
                    "downstream_model": self._model.downstream_model,
                    "provider": provider.name,
                    "transport": "chat",
                    "status": status,
                    "request_id": self._client.request_id,
                    "request_bytes": len(self._body),
                    "answer_bytes": self._read,
                    "total_ms": round((time.monotonic() - started) * 1000),
                }
            )

    def _head(
        self, provider: Provider, status: int, headers: Mapping[str, str], kept: Sequence[str] = ()
    ) -> None:
        """:param kept: names of headers that are passed on beside those of :func:`answer_headers`"""
        self.visible = True
        more = {
            name.lower(): mask(value, self._secrets)
            for name, value in headers.items()
            if name.lower() in kept
        }
        content_type = mask(headers.get("Content-Type", "application/json"), self._secrets)
        known = answer_headers(provider, headers, self._secrets)
        self._answer.head(status, {"content-type": content_type, **known, **more})

    def _data(self, piece: bytes) -> Optional[Awaitable[None]]:
        self._read += len(piece)
        return self._answer.data(self._frames.feed(piece))

    def _refuse(self, provider: Provider, result: Result) -> None:
        """Pass on the provider's own words, with secrets masked."""
        self._head(provider, result.status, result.headers, ERROR_HEADERS)
        masked = mask(result.body.decode("utf-8", "surrogateescape"), self._secrets)
        self._answer.data(masked.encode("utf-8", "surrogateescape"))
