"""Chat Completions as they are: a request goes to its model's provider, the answer comes back byte for byte.

Many tools want this API of the same base URL.  Nothing is translated: the model's name becomes the
provider's, the client's key is replaced by the provider's, and of the headers only those pass that a turn
passes, too.  A provider that cannot be reached is replaced by the next one.
"""

from __future__ import annotations

import time
from typing import Awaitable, Dict, Mapping, Optional, Protocol

from ..config.schema import Config, Model, Provider
from ..convert.json_steps import encode_steps
from ..cooperative import run_cooperatively
from ..errors import ApiError, invalid, model_not_found
from ..log import log_turn, mask
from ..types import Json
from ..upstream.client import Result
from .turn import PROVIDER_HEADER, Client, TurnDeps, pass_on

ERROR_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")


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

    def __init__(self, config: Config, means: TurnDeps) -> None:
        self._config = config
        self._means = means

    async def chat(self, request: Json, client: Client, answer: Answer) -> None:
        """Pass one request on.

        :raises ApiError: when no provider has answered, or, with ``got_head``, when the answer broke off
        """
        name = request.get("model")
        if not isinstance(name, str) or not name:
            raise invalid(
                "model is required: the name of one of the models of GET /v1/models.",
                "model",
                "missing_required_parameter",
            )
        model = self._config.route(name)
        if model is None:
            raise model_not_found(name, [m.model for m in self._config.models])
        body = await run_cooperatively(encode_steps({**request, "model": model.downstream_model}))
        failover, error = (
            self._means.failover,
            ApiError(502, "No provider is configured for this model.", type="server_error"),
        )
        for provider in failover.order(model.providers, name):
            try:
                await self._ask(provider, model, body, name, client, answer)
                failover.succeeded(provider)
                return
            except ApiError as failure:
                failover.failed(provider, failure)
                error = failure
                if failure.got_head:
                    break
            except BaseException:
                failover.released(provider)
                raise
        raise error

    async def _ask(
        self, provider: Provider, model: Model, body: bytes, name: str, client: Client, answer: Answer
    ) -> None:
        started, status, read = time.monotonic(), "cancelled", 0

        def head(code: int, headers: Mapping[str, str]) -> None:
            answer.head(
                code, {"content-type": headers.get("Content-Type", "application/json"), **told(headers)}
            )

        def told(headers: Mapping[str, str]) -> Dict[str, str]:
            passed = {PROVIDER_HEADER: provider.name}
            pass_on(headers, passed)
            return passed

        def data(piece: bytes) -> Optional[Awaitable[None]]:
            nonlocal read
            read += len(piece)
            return answer.data(piece)

        try:
            result = await self._means.upstream.chat(provider, body, on_head=head, on_data=data)
            status = "completed" if 200 <= result.status < 300 else str(result.status)
            if status != "completed":
                _refusal(result, provider, told(result.headers), answer)
        except ApiError as error:
            status = str(error.status)
            raise
        finally:
            log_turn(
                {
                    "model": name,
                    "downstream_model": model.downstream_model,
                    "provider": provider.name,
                    "transport": "chat",
                    "status": status,
                    "request_id": client.request_id,
                    "request_bytes": len(body),
                    "answer_bytes": read,
                    "total_ms": round((time.monotonic() - started) * 1000),
                }
            )


def _refusal(result: Result, provider: Provider, told: Mapping[str, str], answer: Answer) -> None:
    """The provider's own words, with secrets masked."""
    kept = {name.lower(): value for name, value in result.headers.items() if name.lower() in ERROR_HEADERS}
    answer.head(
        result.status,
        {"content-type": result.headers.get("Content-Type", "application/json"), **told, **kept},
    )
    masked = mask(result.body.decode("utf-8", "surrogateescape"), provider.secrets)
    answer.data(masked.encode("utf-8", "surrogateescape"))
