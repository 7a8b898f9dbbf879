"""Where Tornado is slower than it need be for this server, and what is done about it.

The replacements do what the originals do; each says what it saves.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import tornado.websocket
from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.httputil import format_timestamp
from tornado.iostream import IOStream


def speed_up() -> None:
    """Put the replacements of functions in their places."""
    use_fast_dates()
    use_fast_unmask()


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return format_timestamp(second)


def dated(when: Any) -> str:
    """:func:`tornado.httputil.format_timestamp`, which remembers the date of this second."""
    return _date(int(when)) if isinstance(when, (int, float)) else format_timestamp(when)


def use_fast_dates() -> None:
    """Tornado writes the Date of every answer anew, through the email package: a tenth of the time to the
    first event."""
    setattr(httputil, "format_timestamp", dated)  # noqa: B010


def unmask(mask: bytes, data: bytes) -> bytes:
    """XOR ``data`` with the repeated four bytes of ``mask``, as one large integer (4 ms a megabyte)."""
    size = len(data)
    key = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def use_fast_unmask() -> None:
    """Where Tornado came without its C module, its own Python loop takes 140 ms a megabyte; replace it by
    :func:`unmask`."""
    try:
        import_module("tornado.speedups")
    except ImportError:
        setattr(tornado.websocket, "_websocket_mask", unmask)  # noqa: B010


class NoDelayServer(HTTPServer):
    """Nagle's algorithm stays off: it holds events back for 40 ms, and Tornado would switch it on and off for
    each answer."""

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        stream.set_nodelay(True)
        stream.set_nodelay = lambda value: None  # type: ignore[method-assign]
        super().handle_stream(stream, address)
