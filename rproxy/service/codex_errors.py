"""Errors in the form that suits Codex best.

Codex reacts to statuses in its own way: it retries a 401 six times and a 500 thirty times, and it gives up at
once on a 429 without ``Retry-After``.  :func:`for_codex` rewrites an error so that Codex retries if this
makes sense, and otherwise shows the provider's own words.
"""

from __future__ import annotations

from typing import Mapping, Tuple

from ..errors import RATE_LIMIT_PAUSE, ApiError

BUSY_PAUSE = 2.0  # seconds; Codex repeats a 503 thirty times

# The form that suits Codex (0.169, measured) best: stream code -> status, code. Everything else is a 400
# invalid_prompt: one request, and only the message is shown. So is a quota error: for insufficient_quota
# Codex would show a text of its own.
CODEX: Mapping[str, Tuple[int, str]] = {
    "context_length_exceeded": (400, "context_length_exceeded"),
    "model_not_found": (404, "model_not_found"),
    "rate_limit_exceeded": (429, "rate_limit_exceeded"),
    "previous_response_not_found": (400, "previous_response_not_found"),
    "websocket_connection_limit_reached": (400, "websocket_connection_limit_reached"),
    "server_error": (503, "server_error"),
}
CODEX_PAUSES: Mapping[int, float] = {429: RATE_LIMIT_PAUSE, 503: BUSY_PAUSE}


def uses_codex_form(style: str, codex: bool) -> bool:
    """Whether a client gets its errors in Codex's form.

    :param style: ``server.errors``
    :param codex: the client is Codex
    """
    return style == "codex" or (style == "auto" and codex)


def for_codex(error: ApiError) -> ApiError:
    """The same error in the form that suits Codex best: permanent failures cost one request and show their
    text, others get a delay.

    With 503 Codex shows the text (with 500 it does not); ``server_is_overloaded`` is never used, because
    Codex gives up on it.
    """
    status, code = CODEX.get(error.stream_code, (400, "invalid_prompt"))
    pause = error.retry_after if error.retry_after is not None else CODEX_PAUSES.get(status)
    shown = ApiError(
        status,
        error.message,
        type=error.type if status in CODEX_PAUSES else "invalid_request_error",
        code=code,
        param=error.param,
        retry_after=pause if status in CODEX_PAUSES else None,
        retryable=error.retryable,
        stream_code=error.stream_code if error.stream_code in CODEX else "invalid_prompt",
    )
    shown.answer_headers = error.answer_headers
    return shown
