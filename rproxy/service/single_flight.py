"""A request that comes again while its turn still runs gets the result of that turn, not a second turn.

SDKs repeat a request when the answer did not come in time; behind a reverse proxy the first one may still be
at work, and paid for. Two requests are the same when they have the same key of the proxy, the same body to
the byte, and the same ``Idempotency-Key``.  Without that header only a request that calls itself a repetition
joins another one (``X-Stainless-Retry-Count``, the OpenAI SDKs), because a client may well ask the same thing
twice on purpose.  What has ended is not remembered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Dict, Mapping, NamedTuple, Optional, Tuple


class DedupKey(NamedTuple):
    """``key``: equal for equal requests. ``joins``: may it share the turn of another one?"""

    key: str
    joins: bool


def dedup_key(headers: Mapping[str, str], owner: str, digest: Callable[[], str]) -> Optional[DedupKey]:
    """How to recognise this request when it comes again; None for a client that never says so."""
    named, count = headers.get("Idempotency-Key", ""), headers.get("X-Stainless-Retry-Count")
    if not named and count is None:
        return None
    return DedupKey(f"{owner} {digest()} {named}", bool(named) or count != "0")


@dataclass
class _Turn:
    task: asyncio.Future[Any]
    waiting: int = 0


class SingleFlight:
    """The turns of one server that somebody may join."""

    def __init__(self) -> None:
        self._turns: Dict[str, _Turn] = {}

    def joins(self, repeat: Optional[DedupKey]) -> bool:
        """Is the same turn running already?"""
        return repeat is not None and repeat.joins and repeat.key in self._turns

    async def run(
        self,
        repeat: Optional[DedupKey],
        start: Callable[[], Awaitable[Any]],
        lasting: Callable[[Any], Optional[asyncio.Future[Any]]] = lambda result: None,
    ) -> Tuple[Any, bool]:
        """Run ``start()``, or wait for the same turn of another request. Cancelling the last one that waits
        cancels the turn.

        :arg lasting: what the result leaves running, during which it can still be joined
        :returns: the result, and whether it was ``start`` that made it
        """
        if repeat is None:
            return await start(), True
        turn = self._turns.get(repeat.key)
        mine = not self.joins(repeat)
        if turn is None or mine:
            former, turn = turn, _Turn(asyncio.ensure_future(start()))
            if former is None:
                self._turns[repeat.key] = turn
                turn.task.add_done_callback(lambda done: self._ended(repeat.key, done, lasting))
        turn.waiting += 1
        try:
            await asyncio.wait({turn.task})
        finally:
            turn.waiting -= 1
            if not turn.waiting and not turn.task.done():
                turn.task.cancel()
                await asyncio.wait({turn.task})
        return turn.task.result(), mine

    def _ended(
        self, key: str, done: asyncio.Future[Any], lasting: Callable[[Any], Optional[asyncio.Future[Any]]]
    ) -> None:
        more = None if done.cancelled() or done.exception() is not None else lasting(done.result())
        if more is None:
            self._turns.pop(key, None)
        else:
            more.add_done_callback(lambda _: self._turns.pop(key, None))
