"""Notices when an answer goes on, but has no content any more.

A provider that is stuck may send comments, blank lines or empty chunks for hours.  Any byte of these restarts
the limits on silence, which are the business of :mod:`rproxy.upstream.connection`.  So the answer is looked
at now and then, which costs nothing per delta.
"""

from __future__ import annotations

import asyncio
import time
from typing import Callable, Optional, Tuple

LOOKS = 10  # within the limit


class ContentWatch:
    """Watches one answer from its first bytes on.

    :param limit: seconds without content
    :param seen: gives what has come so far: how much content, and how many bytes
    :param on_expired: called once, when bytes still come after ``limit`` seconds without content.  Silence
        alone is no reason: it may be the client that does not read.
    """

    def __init__(
        self, limit: float, seen: Callable[[], Tuple[int, int]], on_expired: Callable[[], None]
    ) -> None:
        self.limit = limit
        self.expired = False
        self._seen = seen
        self._on_expired = on_expired
        self._content, self._bytes = seen()
        self._since = time.monotonic()
        self._timer: Optional[asyncio.TimerHandle] = None
        self._wait()

    def stop(self) -> None:
        """The answer is over."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.limit / LOOKS, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        content, size = self._seen()
        if content != self._content:
            self._content, self._since = content, now
        elif size != self._bytes and now - self._since >= self.limit:
            self.expired = True
            self._on_expired()
            return
        self._bytes = size
        self._wait()
