"""The exit statuses of all commands, and the errors that lead to them.

They follow BSD's ``sysexits.h`` where that has one.  They show systemd which failures a restart may cure (69)
and which it cannot (77, 78).
"""

from __future__ import annotations

from typing import Mapping, Tuple, Type

from ..errors import (
    AddressInUse,
    ApiError,
    ConfigError,
    KeyRefused,
    RproxyError,
    TryLater,
    Unreachable,
    UsageError,
)

OK = 0
FAILED = 1
USAGE = 2  # argparse's own
UNAVAILABLE = 69  # EX_UNAVAILABLE
TRY_LATER = 75  # EX_TEMPFAIL
REFUSED = 77  # EX_NOPERM
BAD_CONFIG = 78  # EX_CONFIG
INTERRUPTED = 130  # 128 + SIGINT, as shells do

MEANINGS: Mapping[int, str] = {
    OK: "done",
    FAILED: "failed",
    USAGE: "wrong usage of the command line",
    UNAVAILABLE: "an address is in use, or a provider cannot be reached",
    TRY_LATER: "a limit or a time limit is reached, or a provider fails; try later",
    REFUSED: "a key is refused",
    BAD_CONFIG: "the configuration cannot be used",
    INTERRUPTED: "interrupted",
}
# The first row that matches counts.
_BY_ERROR: Tuple[Tuple[Type[BaseException], int], ...] = (
    (AddressInUse, UNAVAILABLE),
    (Unreachable, UNAVAILABLE),
    (KeyRefused, REFUSED),
    (TryLater, TRY_LATER),
    (UsageError, USAGE),
    (ConfigError, BAD_CONFIG),
    (RproxyError, FAILED),
    (OSError, FAILED),
    (KeyboardInterrupt, INTERRUPTED),
)
ERRORS = tuple(kind for kind, _ in _BY_ERROR)  # all others are bugs


def status_of(error: BaseException) -> int:
    """The exit status after an error, one of ``ERRORS``."""
    if isinstance(error, ApiError):
        return UNAVAILABLE if error.unreachable else status_of_http(error.status)
    return next(status for kind, status in _BY_ERROR if isinstance(error, kind))


def status_of_http(status: int) -> int:
    """The exit status after an HTTP status that is an error."""
    if status in (401, 403):
        return REFUSED
    return TRY_LATER if status == 429 or status >= 500 else FAILED
