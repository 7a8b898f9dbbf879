"""A provider's failure as a client sees it.

:mod:`.failure_body` reads the provider's answer and finds the *kind* of failure ("quota", "rate", "context",
...); the table ``FAILURE_KINDS`` has the status, type and codes on which clients of the Responses API act.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Optional, Sequence, Tuple, Type

from ..errors import RATE_LIMIT_PAUSE, ApiError, sentence
from ..log import clean, without_login

if TYPE_CHECKING:  # imported where they are needed: compiling their patterns takes a while
    from .complaints import Complaint
    from .failures import Finding

MAX_SCANNED = 20000  # characters of a text that patterns are tried on
MAX_MESSAGE = 2000  # characters of a message for the client


class FailureKind(NamedTuple):
    """What clients get for one kind of failure.

    ``code``: None for the provider's own code, unless that is a number.
    """

    status: int
    type: str
    code: Optional[str]
    stream_code: str
    retryable: bool = False  # rproxy may try again while the client has received nothing


FAILURE_KINDS: Mapping[str, FailureKind] = {
    "context": FailureKind(
        400, "invalid_request_error", "context_length_exceeded", "context_length_exceeded"
    ),
    "quota": FailureKind(429, "insufficient_quota", "insufficient_quota", "insufficient_quota"),
    "key": FailureKind(401, "authentication_error", "invalid_api_key", "invalid_api_key"),
    "rate": FailureKind(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_exceeded", True),
    "model": FailureKind(404, "invalid_request_error", "model_not_found", "model_not_found"),
    "request": FailureKind(400, "invalid_request_error", None, "invalid_prompt"),
    "forbidden": FailureKind(403, "permission_error", "permission_denied", "invalid_prompt"),
    "filter": FailureKind(400, "invalid_request_error", "content_filter", "invalid_prompt"),
    "tool_call": FailureKind(400, "invalid_request_error", "tool_use_failed", "invalid_prompt"),
    "overload": FailureKind(503, "server_error", "server_error", "server_error", True),
    "internal": FailureKind(500, "server_error", "server_error", "server_error", True),
    "gateway": FailureKind(502, "server_error", "server_error", "server_error", True),
    "timeout": FailureKind(504, "server_error", "server_error", "server_error", True),
    "redirect": FailureKind(502, "server_error", "server_error", "server_error"),
}


class Refusal(ApiError):
    """The provider rejects the form of the request. ``complaints``: what it objects to."""

    complaints: Sequence[Complaint] = ()


OWN_CODES = frozenset(kind.code for kind in FAILURE_KINDS.values())


def provider_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    provider: str,
    base_url: str = "",
    now: float = 0.0,
    secrets: Sequence[str] = (),
) -> ApiError:
    """The error for a response whose status is not 2xx; never raises.

    :param provider: its name, for the message
    :param now: seconds since the epoch, for a ``Retry-After`` that is a date in an answer without ``Date``
    :param secrets: texts to mask, such as the provider's key
    """
    from . import failure_body

    finding = failure_body.read_answer(status, headers, body, now)
    return as_api_error(finding, provider, base_url, secrets)


def stream_error(raw: Any, provider: str, base_url: str = "", secrets: Sequence[str] = ()) -> ApiError:
    """The error for an error object in a 2xx answer: a chunk, its ``error``, a string, or a list of these."""
    from . import failure_body

    return as_api_error(failure_body.read_object(raw), provider, base_url, secrets)


def broken(provider: str, reason: str) -> ApiError:
    """502: the provider did not complete its answer.

    :param reason: a clause such as "the stream ended early"
    """
    return of_kind("gateway", f"{provider}: {reason}")


def as_api_error(finding: Finding, provider: str, base_url: str, secrets: Sequence[str]) -> ApiError:
    """The error for a finding; see :func:`provider_error`."""
    pause = finding.retry_after
    if finding.kind == "rate" and pause is None:
        pause = RATE_LIMIT_PAUSE
    elif finding.kind != "rate" and not FAILURE_KINDS[finding.kind].retryable:
        pause = None  # a delay would invite a retry that cannot succeed
    text = message(finding, provider, base_url, secrets)
    code, param = (
        None if word is None or clean(word, secrets) != word else word
        for word in (finding.code, finding.param)
    )
    error = of_kind(finding.kind, text, code, param, pause, Refusal if finding.complaints else ApiError)
    if isinstance(error, Refusal):
        error.complaints = finding.complaints
    return error


def of_kind(
    name: str,
    message: str,
    code: Optional[str] = None,
    param: Optional[str] = None,
    retry_after: Optional[float] = None,
    cls: Type[ApiError] = ApiError,
) -> ApiError:
    """The error of a kind.

    :param name: a key of ``FAILURE_KINDS``
    :param code: the provider's own
    """
    kind = FAILURE_KINDS[name]
    if code in OWN_CODES:  # the provider's status contradicts it, and clients trust the code
        code = None
    return cls(
        kind.status,
        message,
        type=kind.type,
        code=kind.code or code or kind.type,
        param=param if name == "request" else None,
        retry_after=retry_after,
        stream_code=kind.stream_code,
        retryable=kind.retryable,
    )


# ---- The message
ANY = ("json", "text", "html", "empty")
# (kind, shapes, next step); message() fills in the words in braces.
HINTS: Sequence[Tuple[str, Tuple[str, ...], str]] = (
    (
        "key",
        ANY,
        "The provider rejected its key, not the client's: check provider.api_key of {name} in the config.",
    ),
    ("quota", ANY, "Check the quota, plan and balance of the account at {name}."),
    ("redirect", ANY, "The provider redirects to {location}: put the address that answers into base_url."),
    ("model", ("text", "html", "empty"), "Check base_url{base_url}{version}."),
    ("model", ("json",), "Check downstream_model in the config, and base_url{base_url}."),
    ("request", ("html",), "The answer is a web page: check base_url{base_url}."),
    (
        "forbidden",
        ("html",),
        "The answer is a web page: check base_url{base_url} and the network in between.",
    ),
    (
        "context",
        ("empty",),
        "The provider gave no reason; most likely the request is too long for the model.",
    ),
)


def message(finding: Finding, name: str, base_url: str = "", secrets: Sequence[str] = ()) -> str:
    """``NAME (status): the provider's own words. Next step.``, at most ``MAX_MESSAGE`` characters."""
    head = f"{name[:200]} ({finding.status}): " if finding.status else f"{name[:200]}: "
    words = clean(finding.text[:MAX_SCANNED], secrets) or _phrase(finding.status)
    hint = next(
        (text for kind, shapes, text in HINTS if kind == finding.kind and finding.shape in shapes), ""
    )
    hint = hint.format(
        name=name[:200],
        base_url=f" ({without_login(base_url)[:200]})" if base_url else "",
        version="" if re.search(r"/v\d", base_url) else ": it may need /v1 at its end",
        location=clean(without_login(finding.location), secrets)[:400] or "an unnamed place",
    )
    tail = clean(hint, secrets)
    room = MAX_MESSAGE - len(head) - len(tail) - 2
    if len(words) > room:
        words = words[: room - 1] + "…"
    return head + (f"{sentence(words)} {tail}" if tail else words)


def _phrase(status: Optional[int]) -> str:
    try:
        return f"{HTTPStatus(status or 0).phrase} (the answer had no text)"
    except ValueError:
        return "The provider failed without an error message"
