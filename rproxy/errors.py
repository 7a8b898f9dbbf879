"""The errors of rproxy, and the forms in which a client sees them.

Everything that can end a turn badly becomes one :class:`ApiError`.  It is written in one of four forms: a JSON
body with a status, ``response.failed`` in a stream (``stream_code`` and :meth:`ApiError.failed_message`), an
``error`` event (:func:`error_event`) or a WebSocket frame (:func:`ws_error`).  What a provider's failure means
is in :mod:`rproxy.providers.provider_errors`, a connection that cannot be made in
:mod:`rproxy.upstream.os_errors`, and what Codex makes of an error in :mod:`rproxy.service.codex_errors`.
"""

from __future__ import annotations

import math
import re
from typing import Dict, Mapping, Optional, Sequence

from .types import Json

RATE_LIMIT_PAUSE = 5.0  # seconds; for a 429 whose provider names no delay

# What Codex and the SDKs' users look for in the message of a rate limit.
COUNTED = re.compile(r"try again in\s*\d+(?:\.\d+)?\s*(?:ms|s)", re.I)
# Codes that mean the same in a response.failed as in an HTTP body.
STREAM_CODES = frozenset(
    (
        "context_length_exceeded",
        "insufficient_quota",
        "rate_limit_exceeded",
        "model_not_found",
        "invalid_api_key",
        "previous_response_not_found",
        "websocket_connection_limit_reached",
    )
)


def sentence(text: str) -> str:
    """``text`` with a full stop, unless it has an end of its own."""
    return text if not text or text[-1] in ".!?。！？…" else text + "."


class RproxyError(Exception):
    """Base of all errors that rproxy raises on purpose."""


class ConfigError(RproxyError):
    """The configuration cannot be used; the text names the place, the reason and the way out."""


class StoreError(RproxyError):
    """A response store could not do its work; the turn goes on, the service logs a warning."""


class ApiError(RproxyError):
    """A failure as a client of the Responses API sees it.

    ``status`` is an HTTP status, ``retry_after`` a delay in seconds (float), ``stream_code`` the
    ``error.code`` of a ``response.failed``.  ``retryable`` tells that rproxy itself may ask the provider
    again as long as nothing was sent to the client.  ``got_head`` is set by the provider client when a 2xx
    answer had begun.  ``answer_headers`` are for the head of the HTTP answer, set by a turn that got as far as a
    provider.
    """

    got_head = False
    answer_headers: Mapping[str, str] = {}

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: Optional[str] = None,
        param: Optional[str] = None,
        retry_after: Optional[float] = None,
        stream_code: Optional[str] = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.stream_code = stream_code or _stream_code(status, code)
        self.retryable = retryable

    @property
    def elsewhere(self) -> bool:
        """May another provider, or another key, do better?"""
        return (
            self.retryable
            or self.status >= 500
            or self.stream_code in ("insufficient_quota", "invalid_api_key", "rate_limit_exceeded")
        )

    def body(self) -> Json:
        """The JSON body of the HTTP answer; all four keys are always there."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> Dict[str, str]:
        """``Retry-After`` in whole seconds (at least 1) when a delay is known."""
        return {} if self.retry_after is None else {"Retry-After": str(whole_seconds(self.retry_after))}

    def failed_message(self) -> str:
        """The message for ``response.failed``: Codex reads the delay of a rate limit from its text."""
        if self.stream_code != "rate_limit_exceeded" or COUNTED.search(self.message):
            return self.message
        pause = RATE_LIMIT_PAUSE if self.retry_after is None else self.retry_after
        return f"{sentence(self.message)} Please try again in {whole_seconds(pause)}s."


def _stream_code(status: int, code: Optional[str]) -> str:
    if code in STREAM_CODES:
        return str(code)
    return "server_error" if status >= 500 else "rate_limit_exceeded" if status == 429 else "invalid_prompt"


def whole_seconds(delay: float) -> int:
    """Rounded up, at least 1.

    A tenth of a second is less than the way to the provider takes and does not count.
    """
    return max(1, math.ceil(delay - 0.1))


# ---- refusals of rproxy itself
def invalid(message: str, param: Optional[str] = None, code: Optional[str] = None) -> ApiError:
    """400: the request itself is wrong; ``param`` is the path of the field."""
    return ApiError(400, message, param=param, code=code)


def unauthorized(message: str) -> ApiError:
    """401: the client's own key is missing or unknown here."""
    return ApiError(401, message, code="invalid_api_key")


def forbidden(message: str) -> ApiError:
    """403: not allowed here, whatever the key (a foreign Origin, for instance)."""
    return ApiError(403, message, type="permission_error", code="permission_denied")


def not_found(what: str, name: str, param: Optional[str] = None, hint: str = "") -> ApiError:
    """404: a response, conversation, item or path that does not exist, or belongs to somebody else.

    :param what: what was looked for, such as ``Response with id``
    :param name: the id or path, as the client gave it
    :param hint: a further sentence
    """
    return ApiError(404, f"{what} '{name[:100]}' not found. {hint}".rstrip(), param=param)


def model_not_found(model: str, known: Sequence[str] = ()) -> ApiError:
    """404: the client asks for a model that no configured entry serves; at most ten of the known names are
    told."""
    names = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    return ApiError(
        404,
        "The model '{}' is not configured.{}".format(model[:200], f" Configured: {names}." if names else ""),
        param="model",
        code="model_not_found",
    )


def previous_response_not_found(response_id: str) -> ApiError:
    """400, with the words of OpenAI's WebSocket guide; Codex answers it by sending its whole history."""
    return ApiError(
        400,
        f"Previous response with id '{response_id[:200]}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def too_large(message: str) -> ApiError:
    """413: the client's body is over the configured limit."""
    return ApiError(413, message, code="request_too_large")


def unavailable(message: str, retry_after: float = 1.0) -> ApiError:
    """503: rproxy itself is shutting down or full; another try, perhaps at another instance, may help."""
    return ApiError(503, message, type="server_error", code="server_error", retry_after=retry_after)


def internal(message: str = "rproxy has made a mistake; its log says more.") -> ApiError:
    """500: a bug of rproxy."""
    return ApiError(500, message, type="server_error", code="server_error")


# ---- the forms
def ws_error(error: ApiError, stream_id: Optional[str] = None) -> Json:
    """The WebSocket frame: always with ``status`` (Codex waits for ever without it), ``error.code`` never
    empty."""
    told = error.body()["error"]
    told["code"] = error.code or error.stream_code
    frame: Json = {"type": "error", "status": error.status, "error": told}
    headers = {name.lower(): value for name, value in error.headers().items()}
    if headers:
        frame["headers"] = headers
    if stream_id is not None:
        frame["stream_id"] = stream_id
    return frame


def error_event(error: ApiError, sequence_number: int) -> Json:
    """The ``error`` event of a stream, flat and nested at once: some SDKs raise on the one form, some on the
    other."""
    told = error.body()["error"]
    told["code"] = error.code or error.stream_code
    return {
        "type": "error",
        "sequence_number": sequence_number,
        "code": told["code"],
        "message": told["message"],
        "param": told["param"],
        "error": told,
    }
