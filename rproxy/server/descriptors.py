"""File descriptors: how many the system allows, and how many client connections they suffice for.

Every turn needs two, one for its client and one for its provider.  Some are reserved for everything else:
the store, the log, name resolution, connections to providers that are being opened.
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Optional

RESERVE = 32
MIN_CONNECTIONS = 4  # connections
ENOUGH = 1 << 16  # descriptors; one process has no use for more


def raise_limit() -> None:
    """Raise the soft limit of this process to the hard limit, but at most to ``ENOUGH``.  The usual soft
    limit of 1024 is meant for programs that use ``select()``.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        resource = import_module("resource")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> Optional[int]:
    """The number of file descriptors that this process may have; None: no limit."""
    with contextlib.suppress(ImportError, OSError):
        resource = import_module("resource")
        soft = int(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        return None if soft == resource.RLIM_INFINITY else soft
    return None


def max_connections(descriptors: Optional[int]) -> int:
    """The default for the number of connected clients.

    :param descriptors: see :func:`limit`
    """
    return max(MIN_CONNECTIONS, ((ENOUGH if descriptors is None else descriptors) - RESERVE) // 2)


def max_provider_connections(descriptors: Optional[int], clients: int) -> int:
    """The number of connections to providers that may be open: the descriptors that clients and reserve
    leave.

    :param descriptors: see :func:`limit`
    :param clients: the number of clients that may be connected
    """
    room = (ENOUGH if descriptors is None else descriptors) - RESERVE
    return max(MIN_CONNECTIONS, room - clients, room // 2)
