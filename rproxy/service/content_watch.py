"""Notices when an answer goes on without any content.

A stuck provider may send comments, blank lines or empty chunks for hours.  Any byte of these restarts the
limits on silence of :mod:`rproxy.upstream.connection`.  So the answer is checked periodically, which costs
nothing per delta.
"""

from __future__ import annotations

import asyncio
import time
from typing import Callable, Optional, Tuple

LOOKS = 10  # checks within the limit


class ContentWatch:
    """Watches one answer from its first bytes on.

    :param limit: seconds without content
    :param seen: returns the amounts of content and of bytes so far
    :param on_expired: called once, when bytes still come after ``limit`` seconds without content.  Silence
        alone does not count: maybe the client does not read.
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
