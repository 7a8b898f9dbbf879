"""Quotas: the turns of each key within a minute, and its tokens within a day.

The minute is a sliding window, the day is a day of UTC.  A turn counts when it begins, its tokens when it has
ended; so concurrent turns may together exceed the tokens of a day.  Keys are distinguished by their name and
owner, whatever their limits: the counters stay right when a new configuration changes those.  They are those
of this process only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Callable, Deque, Dict, Mapping, Optional, Sequence, Set, Tuple

from ..config.schema import Key
from ..cooperative import in_thread
from ..errors import ApiError, whole_seconds
from ..telemetry.records import TurnRecord
from ..types import Json
from .token_estimate import estimate_any

MINUTE = 60.0  # seconds
DAY = 86_400  # seconds
LARGE = 1 << 16  # bytes of a request, above which its tokens are estimated in a thread


@dataclass
class _Used:
    """What one key has used.

    ``begun``: when the turns of the last minute began.  ``tokens``: those of ``day`` (days since 1970).
    """

    begun: Deque[float] = field(default_factory=deque)
    day: int = 0
    tokens: int = 0


class Quotas:
    """The counters of all keys.  Without a key nothing is counted.

    :param now: seconds since the epoch
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._used: Dict[Tuple[str, str], _Used] = {}
        self._counting: Set[asyncio.Future[None]] = set()

    def begin_turn(self, key: Optional[Key]) -> None:
        """Count a turn.

        :raises ApiError: 429, the key has reached a limit; the turn does not count
        """
        if key is None:
            return
        now, used = self._now(), self._used_by(key)
        if key.tokens_per_day is not None and used.tokens >= key.tokens_per_day:
            raise _over_the_day(key, now)
        if key.turns_per_minute is not None:
            while used.begun and not now - MINUTE < used.begun[0] <= now:
                used.begun.popleft()
            if len(used.begun) >= key.turns_per_minute:
                raise _over_the_minute(key, used.begun[-key.turns_per_minute] + MINUTE - now)
            used.begun.append(now)

    def restore(self, keys: Sequence[Key], tokens: Mapping[str, int]) -> None:
        """Add the tokens that earlier processes have counted today.

        :param tokens: by name of the key
        """
        for key in keys:
            self._used_by(key).tokens += tokens.get(key.name, 0)

    def end_turn(self, key: Optional[Key], record: TurnRecord, sent: Json) -> None:
        """Count the tokens of a turn that has ended.

        :param sent: the request; if the provider began to answer but did not report its tokens, an estimate
            counts: otherwise a client could leave before the end, and its tokens would not count
        """
        if key is None:
            return
        used = self._used_by(key)
        used.tokens += record.total_tokens
        answered = record.upstream_status is not None and 200 <= record.upstream_status < 300
        if not answered or record.input_tokens is not None:
            return
        if record.request_bytes <= LARGE:
            used.tokens += estimate_any(sent)
            return

        async def count() -> None:
            used.tokens += await in_thread(partial(estimate_any, sent))

        counting = asyncio.ensure_future(count())
        self._counting.add(counting)
        counting.add_done_callback(self._counting.discard)

    def _used_by(self, key: Key) -> _Used:
        used = self._used.setdefault((key.name, key.owner), _Used())
        today = int(self._now() // DAY)
        if used.day != today:
            used.day, used.tokens = today, 0
        return used


def _over_the_minute(key: Key, pause: float) -> ApiError:
    return ApiError(
        429,
        f"The API key '{key.name}' has reached its limit of {key.turns_per_minute} turns within a minute "
        f"(turns_per_minute). Please try again in {whole_seconds(pause)}s.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=pause,
    )


def _over_the_day(key: Key, now: float) -> ApiError:
    reset = (now // DAY + 1) * DAY
    error = ApiError(
        429,
        f"The API key '{key.name}' has reached its limit of {key.tokens_per_day} tokens a day "
        f"(tokens_per_day). It resets at {datetime.fromtimestamp(reset, timezone.utc):%Y-%m-%d %H:%M} UTC.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=reset - now,
        # No client should wait for hours: Codex shows the text and stops, and SDKs do not retry.
        stream_code="insufficient_quota",
    )
    error.answer_headers = {"x-should-retry": "false"}
    return error
