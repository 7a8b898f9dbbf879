"""Replacements for parts of Tornado that are slower than necessary for this server.

Each replacement does what the original does, which a test checks; each says what it saves.  They can be
switched off by name, see :mod:`rproxy.server.speedups`.

* ``dates``: :func:`format_timestamp_cached` replaces ``tornado.httputil.format_timestamp``.
* ``unmask``: :func:`unmask` replaces ``tornado.websocket._websocket_mask`` where Tornado has no C module.
* ``nodelay``: :class:`NoDelayServer` leaves Nagle's algorithm off.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.httputil import format_timestamp
from tornado.iostream import IOStream

from .speedups import enabled


def apply_patches() -> None:
    """Replace the functions whose patches are not switched off, for the whole process."""
    if enabled("dates"):
        setattr(httputil, "format_timestamp", format_timestamp_cached)  # noqa: B010 -- mypy would object


def patch_websocket() -> None:
    """The same, before the first frame is read: ``tornado.websocket`` is loaded for WebSockets only."""
    import tornado.websocket

    if enabled("unmask") and not has_c_module():
        setattr(tornado.websocket, "_websocket_mask", unmask)  # noqa: B010


def has_c_module() -> bool:
    """Whether Tornado was installed with its compiled ``speedups``."""
    try:
        import_module("tornado.speedups")
    except ImportError:
        return False
    return True


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return format_timestamp(second)


def format_timestamp_cached(ts: Any) -> str:
    """:func:`tornado.httputil.format_timestamp`, which remembers the date of this second.

    Tornado formats the ``Date`` of every response anew, through the email package: a tenth of the time to the
    first event.
    """
    return _date(int(ts)) if isinstance(ts, (int, float)) else format_timestamp(ts)


def unmask(mask: bytes, data: bytes) -> bytes:
    """XOR ``data`` with the repeated four bytes of ``mask``, as one large integer.

    This takes 4 ms a megabyte; Tornado's loop in Python takes 140 ms, its C module 0.07 ms.
    """
    size = len(data)
    key = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class NoDelayServer(HTTPServer):
    """An HTTP server whose connections never use Nagle's algorithm.

    The algorithm holds events back for 40 ms, and Tornado switches it off and on again for each response,
    which costs two system calls.
    """

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        if enabled("nodelay"):
            stream.set_nodelay(True)
            stream.set_nodelay = lambda value: None  # type: ignore[method-assign]
        super().handle_stream(stream, address)
