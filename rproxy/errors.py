"""The errors of rproxy, and the forms in which a client sees them.

Every failure of a turn becomes one :class:`ApiError`, which is written in one of four forms: a JSON body with
a status, ``response.failed`` in a stream (``stream_code`` and :meth:`ApiError.failed_message`), an ``error``
event (:func:`error_event`) or a WebSocket frame (:func:`ws_error`).

Elsewhere: what a provider's failure means (:mod:`rproxy.providers.provider_errors`), why a connection cannot
be made (:mod:`rproxy.upstream.os_errors`), and how Codex reacts to an error
(:mod:`rproxy.service.codex_errors`).
"""

from __future__ import annotations

import math
import re
from typing import Callable, Dict, Mapping, Optional, Sequence

from .types import ErrorBody, ErrorObject, Event, Json

RATE_LIMIT_PAUSE = 5.0  # seconds; for a 429 whose provider names no delay
# What Codex and users look for in the message of a rate limit.
_NAMES_DELAY = re.compile(r"try again in\s*\d+(?:\.\d+)?\s*(?:ms|s)", re.I)
# Codes that mean the same in response.failed as in an HTTP body.
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
    """``text`` with a full stop, unless it ends a sentence already."""
    return text if not text or text[-1] in ".!?。！？…" else text + "."


class RproxyError(Exception):
    """Base of all errors that rproxy raises on purpose."""


class ConfigError(RproxyError):
    """The configuration cannot be used; the text says where, why, and what to do."""

    @property
    def each(self) -> Sequence[ConfigError]:
        """The errors in it: itself, or those that it collects."""
        return (self,)


class NothingConfigured(ConfigError):
    """There is neither a configuration file nor a key nor a local model server."""


class ConfigErrors(ConfigError):
    """Several errors of one file, in its order."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self._each = tuple(errors)

    @property
    def each(self) -> Sequence[ConfigError]:
        return self._each


class AddressInUse(ConfigError):
    """An address of the configuration is taken; another attempt may succeed later."""


class Unreachable(RproxyError):
    """A provider, or a running rproxy, does not answer."""


class KeyRefused(RproxyError):
    """A provider, or a running rproxy, does not accept the key."""


class UsageError(RproxyError):
    """The command line asks for something impossible."""


class TryLater(RproxyError):
    """Only the moment is wrong: another attempt may succeed."""


class StoreError(RproxyError):
    """A response store could not do its work; the turn continues with a warning."""


class ApiError(RproxyError):
    """A failure as a client of the Responses API sees it.

    ``answer_headers``: for the head of the HTTP answer; set by a turn that reached a provider.
    ``no_answer``: why there was no HTTP answer: ``connect``, ``timeout`` or ``reset``.  ``unreachable``:
    there was not even a connection.  ``reason``: the message without what the request contains, for the log.
    ``reported``: the log has a line about it.  ``ours``: it has nothing to do with the provider.

    :param status: the HTTP status
    :param message: for people
    :param type: ``error.type``
    :param code: ``error.code``
    :param param: the path of the field that is wrong
    :param retry_after: seconds until another attempt makes sense
    :param stream_code: ``error.code`` in ``response.failed``; None: what ``code`` and ``status`` suggest
    :param retryable: rproxy itself may try again while the client has received nothing
    """

    no_answer = ""
    unreachable = False
    reason: Optional[str] = None
    reported = False
    ours = False
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

    def copy(self) -> ApiError:
        """A copy of the error, to be raised by whoever stores this one.

        An error refers to the frames that it passed through.  If one of them refers to the error, none is
        freed until the garbage collector runs.
        """
        copy = type(self).__new__(type(self), *self.args)
        copy.__dict__.update(self.__dict__)
        return copy

    @property
    def elsewhere(self) -> bool:
        """Can another provider or another key succeed?"""
        return (
            self.retryable
            or self.status >= 500
            or self.stream_code in ("insufficient_quota", "invalid_api_key", "rate_limit_exceeded")
        )

    def body(self) -> ErrorBody:
        """The JSON body of the HTTP answer; it always has all four keys."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> Dict[str, str]:
        """``Retry-After`` in whole seconds, at least 1, if a delay is known."""
        return {} if self.retry_after is None else {"Retry-After": str(whole_seconds(self.retry_after))}

    def apply(self, mask: Callable[[str], str]) -> ApiError:
        """Mask what a client reads of it.

        :param mask: removes the secrets from a text
        :returns: this error
        """
        self.message = mask(self.message)
        self.param = self.param and mask(self.param)
        self.code = self.code and mask(self.code)
        return self

    def failed_message(self) -> str:
        """The message for ``response.failed``: Codex reads the delay of a rate limit from its text."""
        if self.stream_code != "rate_limit_exceeded" or _NAMES_DELAY.search(self.message):
            return self.message
        pause = RATE_LIMIT_PAUSE if self.retry_after is None else self.retry_after
        return f"{sentence(self.message)} Please try again in {whole_seconds(pause)}s."


def _stream_code(status: int, code: Optional[str]) -> str:
    if code in STREAM_CODES:
        return str(code)
    return "server_error" if status >= 500 else "rate_limit_exceeded" if status == 429 else "invalid_prompt"


def whole_seconds(delay: float) -> int:
    """``delay`` rounded up to seconds, at least 1; a tenth of a second more does not count."""
    return max(1, math.ceil(delay - 0.1))


# ---- Errors of rproxy itself
def invalid(message: str, param: Optional[str] = None, code: Optional[str] = None) -> ApiError:
    """400: the request itself is wrong; ``param`` is the path of the field."""
    return ApiError(400, message, param=param, code=code)


def invalid_value(message: str, param: str = "input") -> ApiError:
    """400: the field is present, but rproxy cannot use its value."""
    return invalid(message, param, "invalid_value")


def unauthorized(message: str) -> ApiError:
    """401: the client's own key is missing or unknown here."""
    return ApiError(401, message, code="invalid_api_key")


def forbidden(message: str) -> ApiError:
    """403: not allowed with any key, such as a request from a foreign origin."""
    return ApiError(403, message, type="permission_error", code="permission_denied")


def not_found(what: str, name: str, param: Optional[str] = None, hint: str = "") -> ApiError:
    """404: a response, conversation, item or path that does not exist, or belongs to another owner.

    :param what: what was looked for, such as ``Response with id``
    :param name: the id or path, as the client gave it
    :param hint: a further sentence
    """
    return ApiError(404, f"{what} '{name[:100]}' not found. {hint}".rstrip(), param=param)


def model_not_found(model: str, known: Sequence[str] = ()) -> ApiError:
    """404: no configured model answers for this name.

    :param known: the names that exist; the message shows ten of them
    """
    names = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    message = f"The model '{model[:200]}' is not configured." + (f" Configured: {names}." if names else "")
    return ApiError(404, message, param="model", code="model_not_found")


def previous_response_not_found(response_id: str) -> ApiError:
    """400, worded as in OpenAI's WebSocket guide; Codex then sends its whole history."""
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
    """503: rproxy is shutting down or full; another attempt, or another instance, may succeed."""
    return ApiError(503, message, type="server_error", code="server_error", retry_after=retry_after)


def internal(message: str = "rproxy failed because of a bug; its log says more.") -> ApiError:
    """500: a bug of rproxy."""
    return ApiError(500, message, type="server_error", code="server_error")


# ---- Forms
def ws_error(error: ApiError, stream_id: Optional[str] = None) -> Json:
    """The WebSocket frame of an error.

    It always has ``status``, without which Codex waits forever, and ``error.code``.
    """
    frame: Json = {"type": "error", "status": error.status, "error": _with_code(error)}
    headers = {name.lower(): value for name, value in error.headers().items()}
    if headers:
        frame["headers"] = headers
    if stream_id is not None:
        frame["stream_id"] = stream_id
    return frame


def error_event(error: ApiError, sequence_number: int) -> Event:
    """The ``error`` event of a stream, flat and nested: some SDKs raise on one form, some on the other."""
    nested = _with_code(error)
    return {
        "type": "error",
        "sequence_number": sequence_number,
        "code": nested["code"],
        "message": nested["message"],
        "param": nested["param"],
        "error": nested,
    }


def _with_code(error: ApiError) -> ErrorObject:
    """The error object of the body, always with a code."""
    return {**error.body()["error"], "code": error.code or error.stream_code}
