"""How late the event loop runs its callbacks: a delay that every client sees."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Deque, Optional, Tuple

INTERVAL = 0.5  # seconds between measurements
WINDOW = 60.0  # seconds


class LoopLag:
    """The worst delay of the event loop within the last minute."""

    def __init__(self) -> None:
        self._lags: Deque[Tuple[float, float]] = deque()  # (when, seconds), the seconds in descending order
        self._due = 0.0
        self._timer: Optional[asyncio.TimerHandle] = None

    def start(self) -> None:
        """Begin to measure, on the running loop."""
        self._due = time.monotonic() + INTERVAL
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = time.monotonic()
        late = max(now - self._due, 0.0)
        while self._lags and self._lags[-1][1] <= late:
            self._lags.pop()
        self._lags.append((now, late))
        self.start()

    @property
    def worst(self) -> float:
        """Seconds; a callback that is overdue right now counts, too."""
        now = time.monotonic()
        while self._lags and self._lags[0][0] < now - WINDOW:
            self._lags.popleft()
        recent = self._lags[0][1] if self._lags else 0.0
        return max(recent, now - self._due if self._due else 0.0)
