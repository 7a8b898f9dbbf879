"""The errors of rproxy, and what a client gets to see of them.

Theory of operation.  Everything that can end a turn badly becomes one :class:`ApiError`.  What went wrong at
the provider is read by :mod:`rproxy.providers.failures`, which knows the many spellings of the providers and
answers with the name of a *kind* ("quota", "rate", "context", ...).  The table ``KINDS`` here turns a kind
into the status, type and codes that clients of the Responses API act upon; no other module holds an HTTP
status.  An error is written in one of four forms: a JSON body with a status, ``response.failed`` in a stream
(``stream_code`` and :meth:`ApiError.failed_message`), an ``error`` event (:func:`error_event`) or a WebSocket
frame (:func:`ws_error`).

Codex acts upon statuses in its own way: it repeats a 401 six times and a 500 thirty times, and it gives up at
once on a 429 without ``Retry-After``.  :func:`for_codex` rewrites an error so that Codex repeats what is
worth repeating, and shows the provider's own words otherwise.
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import ssl
from typing import TYPE_CHECKING, Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Type

from .providers.failure_text import COUNTED, clean, sentence, without_login

if TYPE_CHECKING:
    from .providers.failures import (
        Finding,
    )  # elsewhere imported when needed: its patterns take a while to compile

Json = Dict[str, Any]


class Kind(NamedTuple):
    """What clients get for one kind of failure.

    ``code`` None: the provider's own code, when it is a word.
    """

    status: int
    type: str
    code: Optional[str]
    stream_code: str
    retryable: bool = False  # rproxy may ask again while the client has seen nothing


KINDS: Mapping[str, Kind] = {
    "context": Kind(400, "invalid_request_error", "context_length_exceeded", "context_length_exceeded"),
    "quota": Kind(429, "insufficient_quota", "insufficient_quota", "insufficient_quota"),
    "key": Kind(401, "authentication_error", "invalid_api_key", "invalid_api_key"),
    "rate": Kind(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_exceeded"),
    "model": Kind(404, "invalid_request_error", "model_not_found", "model_not_found"),
    "request": Kind(400, "invalid_request_error", None, "invalid_prompt"),
    "forbidden": Kind(403, "permission_error", "permission_denied", "invalid_prompt"),
    "filter": Kind(400, "invalid_request_error", "content_filter", "invalid_prompt"),
    "tool_call": Kind(400, "invalid_request_error", "tool_use_failed", "invalid_prompt"),
    "overload": Kind(503, "server_error", "server_error", "server_error", True),
    "internal": Kind(500, "server_error", "server_error", "server_error", True),
    "gateway": Kind(502, "server_error", "server_error", "server_error", True),
    "timeout": Kind(504, "server_error", "server_error", "server_error", True),
    "redirect": Kind(502, "server_error", "server_error", "server_error"),
}

OWN_CODES = frozenset(kind.code for kind in KINDS.values())
RATE_LIMIT_PAUSE = 5.0  # seconds; for a 429 whose provider names no delay
BUSY_PAUSE = 2.0  # seconds; for Codex, which repeats a 503 thirty times

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
    answer had begun.
    """

    got_head = False

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
        return self.retryable or self.stream_code in (
            "insufficient_quota",
            "invalid_api_key",
            "rate_limit_exceeded",
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


def not_found(message: str, param: Optional[str] = None, code: Optional[str] = None) -> ApiError:
    """404: no such response, conversation or path."""
    return ApiError(404, message, param=param, code=code)


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


def conflict(message: str, code: Optional[str] = None) -> ApiError:
    """409: the object is in a state that does not allow this."""
    return ApiError(409, message, code=code)


def too_large(message: str) -> ApiError:
    """413: the client's body is over the configured limit."""
    return ApiError(413, message, code="request_too_large")


def unavailable(message: str, retry_after: float = 1.0) -> ApiError:
    """503: rproxy itself is shutting down or full; another try, perhaps at another instance, may help."""
    return ApiError(503, message, type="server_error", code="server_error", retry_after=retry_after)


def internal(message: str = "rproxy has made a mistake; its log says more.") -> ApiError:
    """500: a bug of rproxy."""
    return ApiError(500, message, type="server_error", code="server_error")


# ---- failures of the provider
def provider_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    provider: str,
    base_url: str = "",
    now: float = 0.0,
    secrets: Sequence[str] = (),
) -> ApiError:
    """The error for a provider's answer that is not 2xx.  Never raises.

    ``now`` is Unix time, needed for a ``Retry-After`` that is a date (the answer's own ``Date`` is
    preferred); ``secrets`` are texts that must not reach the client, such as the provider's key.
    """
    from .providers import failures as provider_errors

    finding = provider_errors.read_answer(status, headers, body, now)
    return _told(finding, provider, base_url, secrets)


def stream_error(raw: Any, provider: str, base_url: str = "", secrets: Sequence[str] = ()) -> ApiError:
    """The error for an error object found in a 2xx answer: a chunk, its ``error``, a string or a list of
    these."""
    from .providers import failures as provider_errors

    return _told(provider_errors.read_object(raw), provider, base_url, secrets)


def broken(provider: str, reason: str) -> ApiError:
    """502: the provider began to answer and did not end it properly; ``reason`` is a clause such as "the
    stream ended early"."""
    return _of_kind("gateway", f"{provider}: {reason}")


class Reason(NamedTuple):
    """One way to fail before a status is there."""

    types: Tuple[Type[BaseException], ...]
    numbers: Tuple[int, ...]  # errno; empty: any
    kind: str
    text: str
    retryable: bool


# The order matters: TLS and DNS errors are OSErrors too, and a bare OSError says the least.
REASONS: Sequence[Reason] = (
    Reason((ssl.SSLCertVerificationError,), (), "gateway", "its TLS certificate is not trusted", False),
    Reason((ssl.SSLError,), (), "gateway", "the TLS handshake failed", True),
    Reason((socket.gaierror,), (), "gateway", "the name of the host cannot be resolved", True),
    Reason(
        (asyncio.TimeoutError, TimeoutError, socket.timeout), (), "timeout", "it did not answer in time", True
    ),
    Reason((ConnectionRefusedError,), (), "gateway", "the connection was refused", True),
    Reason(
        (ConnectionResetError, BrokenPipeError, ConnectionAbortedError),
        (),
        "gateway",
        "the connection was cut",
        True,
    ),
    Reason(
        (OSError,),
        (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN),
        "gateway",
        "the host cannot be reached",
        True,
    ),
    Reason((Exception,), (), "gateway", "the connection failed", True),
)


def connect_error(
    exc: BaseException, provider: str, base_url: str = "", secrets: Sequence[str] = ()
) -> ApiError:
    """The error for a provider that could not be connected to, or that fell silent: 502, or 504 for a
    timeout."""
    cause = getattr(exc, "real_error", None) or exc
    # Timeouts of an HTTP client library have types of their own that are not TimeoutErrors.
    timed_out = "timeout" in type(cause).__name__.lower()
    row = next((r for r in REASONS if _caused(r, cause, timed_out)), REASONS[-1])
    said = clean(str(cause), secrets)
    message = (
        "{}: cannot reach the provider at {}: {}{}. Check base_url, and that the provider is up.".format(
            provider,
            without_login(base_url) or "its base_url",
            row.text,
            " ({})".format(said.rstrip(".")) if said else "",
        )
    )
    error = _of_kind(row.kind, message)
    error.retryable = row.retryable
    return error


def _caused(row: Reason, exc: BaseException, timed_out: bool) -> bool:
    if timed_out:
        return row.kind == "timeout"
    return isinstance(exc, row.types) and (not row.numbers or getattr(exc, "errno", None) in row.numbers)


def _told(finding: Finding, provider: str, base_url: str, secrets: Sequence[str]) -> ApiError:
    pause = finding.retry_after
    if finding.kind == "rate" and pause is None:
        pause = RATE_LIMIT_PAUSE
    elif finding.kind != "rate" and not KINDS[finding.kind].retryable:
        pause = None  # a delay invites a repetition that cannot help
    from .providers import failures as provider_errors

    message = provider_errors.message(finding, provider, base_url, secrets)
    code, param = (
        None if word is None or clean(word, secrets) != word else word
        for word in (finding.code, finding.param)
    )
    return _of_kind(finding.kind, message, code, param, pause)


def _of_kind(
    name: str,
    message: str,
    code: Optional[str] = None,
    param: Optional[str] = None,
    retry_after: Optional[float] = None,
) -> ApiError:
    kind = KINDS[name]
    if code in OWN_CODES:  # the status says something else, and clients believe the code
        code = None
    return ApiError(
        kind.status,
        message,
        type=kind.type,
        code=kind.code or code or kind.type,
        param=param if name == "request" else None,
        retry_after=retry_after,
        stream_code=kind.stream_code,
        retryable=kind.retryable,
    )


# ---- the forms
# What Codex (0.169, measured) does best with: stream code -> status, code. Everything else: 400 invalid_prompt, one request,
# and the message alone is shown. A quota is told that way too: for insufficient_quota Codex would show a text of its own.
CODEX: Mapping[str, Tuple[int, str]] = {
    "context_length_exceeded": (400, "context_length_exceeded"),
    "model_not_found": (404, "model_not_found"),
    "rate_limit_exceeded": (429, "rate_limit_exceeded"),
    "previous_response_not_found": (400, "previous_response_not_found"),
    "websocket_connection_limit_reached": (400, "websocket_connection_limit_reached"),
    "server_error": (503, "server_error"),
}
CODEX_PAUSES: Mapping[int, float] = {429: RATE_LIMIT_PAUSE, 503: BUSY_PAUSE}


def for_codex(error: ApiError) -> ApiError:
    """The same error as Codex takes it best: permanent failures cost one request and show their text, others
    get a delay.

    With 503 Codex shows the text (with 500 it does not); ``server_is_overloaded`` is never used, for Codex
    gives up on it.
    """
    status, code = CODEX.get(error.stream_code, (400, "invalid_prompt"))
    pause = error.retry_after if error.retry_after is not None else CODEX_PAUSES.get(status)
    return ApiError(
        status,
        error.message,
        type=error.type if status in CODEX_PAUSES else "invalid_request_error",
        code=code,
        param=error.param,
        retry_after=pause if status in CODEX_PAUSES else None,
        retryable=error.retryable,
        stream_code=error.stream_code if error.stream_code in CODEX else "invalid_prompt",
    )


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
