"""Why a provider could not be reached: exceptions of sockets, TLS and name resolution as an ApiError."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import NamedTuple, Sequence, Tuple, Type

from ..errors import ApiError
from ..log import clean, without_login
from ..providers.provider_errors import of_kind


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
    Reason((ValueError,), (), "gateway", "the request cannot be sent", True),
    Reason((Exception,), (), "gateway", "the connection failed", True),
)


def connect_error(
    exc: BaseException, provider: str, base_url: str = "", secrets: Sequence[str] = ()
) -> ApiError:
    """The error for a provider that could not be connected to, or whose answer broke off.

    :param exc: what happened; its attribute ``response`` is what had come of an answer, if its head had
    :returns: an error of status 502, or 504 for a timeout
    """
    cause = getattr(exc, "real_error", None) or exc
    # Timeouts of an HTTP client library have types of their own that are not TimeoutErrors.
    timed_out = "timeout" in type(cause).__name__.lower()
    row = next((r for r in REASONS if _caused(r, cause, timed_out)), REASONS[-1])
    detail = clean(str(cause), secrets).rstrip(".")
    detail = f" ({detail})" if detail else ""
    if getattr(exc, "response", None) is not None:
        how = "fell silent" if row.kind == "timeout" else "broke off"
        message = f"{provider}: the answer {how} before it was complete{detail}. Try again."
    else:
        where = without_login(base_url) or "its base_url"
        message = (
            f"{provider}: cannot reach the provider at {where}: {row.text}{detail}. "
            "Check base_url, and that the provider is up."
        )
    error = of_kind(row.kind, message)
    error.retryable = row.retryable
    return error


def _caused(row: Reason, exc: BaseException, timed_out: bool) -> bool:
    if timed_out:
        return row.kind == "timeout"
    return isinstance(exc, row.types) and (not row.numbers or getattr(exc, "errno", None) in row.numbers)
