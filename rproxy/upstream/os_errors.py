"""Why a request to a provider failed: exceptions of sockets, TLS, name resolution and HTTP as an ApiError."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import NamedTuple, Sequence, Tuple, Type

from ..errors import ApiError
from ..log import clean, without_login
from ..providers.provider_errors import of_kind
from .transport import PrivateAddress


class Reason(NamedTuple):
    """A kind of failure.

    ``numbers``: the values of errno, empty for all.  ``kind``: see :func:`of_kind`.
    """

    types: Tuple[Type[BaseException], ...]
    kind: str
    text: str
    retryable: bool = True
    numbers: Tuple[int, ...] = ()


_TIMEOUTS = (asyncio.TimeoutError, TimeoutError, socket.timeout)  # one type from Python 3.11 on
_CUT = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)

# The first match counts.  TLS, DNS and timeout errors are OSErrors, too, and a TLS error can be a ValueError.
REASONS: Sequence[Reason] = (
    Reason((PrivateAddress,), "gateway", "its address is not on the internet", retryable=False),
    Reason((ssl.SSLCertVerificationError,), "gateway", "its TLS certificate is not trusted", retryable=False),
    Reason((ssl.SSLError,), "gateway", "the TLS handshake failed"),
    Reason((socket.gaierror,), "gateway", "the name of the host cannot be resolved"),
    Reason(_TIMEOUTS, "timeout", "it did not answer in time"),
    Reason((ConnectionRefusedError,), "gateway", "the connection was refused"),
    Reason(_CUT, "gateway", "the connection was cut"),
    Reason((OSError,), "gateway", "the host cannot be reached", numbers=_NO_ROUTE),
    Reason((OSError,), "overload", "rproxy has no file descriptor left", numbers=OUT_OF_DESCRIPTORS),
    Reason((ValueError,), "gateway", "the request cannot be sent"),
    Reason((Exception,), "gateway", "the connection failed"),
)


def connect_error(
    exc: BaseException, provider: str, base_url: str = "", secrets: Sequence[str] = ()
) -> ApiError:
    """The error for a request that got no complete response.

    :param exc: a TransportError, or the exception that would be behind it
    :param provider: its name
    :param secrets: what must not be in the message
    :returns: 502, 504 for a timeout, or 503 when rproxy itself has no room
    """
    cause = getattr(exc, "real_error", None) or exc
    reason = reason_for(cause)
    detail = clean(str(cause), secrets).rstrip(".")
    detail = f" ({detail})" if detail else ""
    if getattr(exc, "response", None) is not None:
        how = "stalled" if reason.kind == "timeout" else "broke off"
        message = f"{provider}: the answer {how} before it was complete{detail}. Try again."
    elif reason.kind == "overload":
        message = (
            f"{provider}: {reason.text} for a connection{detail}. Try again later. If this happens often, "
            "raise the limit on open files (ulimit -n), or lower server.max_connections."
        )
    else:
        where = without_login(base_url) or "its base_url"
        message = (
            f"{provider}: cannot reach the provider at {where}: {reason.text}{detail}. "
            "Check base_url, and that the provider is up."
        )
    error = of_kind(reason.kind, message)
    error.retryable = reason.retryable
    error.ours = reason.numbers is OUT_OF_DESCRIPTORS
    return error


def reason_for(cause: BaseException) -> Reason:
    """The first reason that matches."""
    return next(reason for reason in REASONS if _fits(reason, cause))


def _fits(reason: Reason, exc: BaseException) -> bool:
    return isinstance(exc, reason.types) and (
        not reason.numbers or getattr(exc, "errno", None) in reason.numbers
    )
