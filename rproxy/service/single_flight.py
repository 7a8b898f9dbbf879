"""A request that is repeated while its turn still runs gets the result of that turn, not a second turn.

SDKs repeat a request when the answer did not arrive in time.  Behind a reverse proxy the first one may still
be running, and be paid for.  Two requests are the same when they have the same API key, the same bytes as
their body and the same ``Idempotency-Key``.  Without that header, a request joins another one only if it
calls itself a retry (``X-Stainless-Retry-Count``, the OpenAI SDKs), because a client may send the same
request twice on purpose. Turns that have ended are not remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Dict, Mapping, NamedTuple, Optional, Tuple


class DedupKey(NamedTuple):
    """Recognises repeated requests.

    ``key`` is equal for equal requests.  ``joins``: may this request share the turn of another one?
    """

    key: str
    joins: bool


async def dedup_key(
    headers: Mapping[str, str], owner: str, digest: Callable[[], Awaitable[str]]
) -> Optional[DedupKey]:
    """The key that recognises a repeated request.

    :param digest: returns a digest of the body
    :returns: None for a client that does not mark its retries
    """
    named, count = headers.get("Idempotency-Key", ""), headers.get("X-Stainless-Retry-Count")
    if not named and count is None:
        return None
    key = hashlib.sha256(f"{owner} {await digest()} {named}".encode("utf-8", "replace")).hexdigest()
    return DedupKey(key, bool(named) or count != "0")


@dataclass
class _Turn:
    task: asyncio.Future[Any]
    waiting: int = 0


class SingleFlight:
    """The running turns of one server that other requests can join."""

    def __init__(self) -> None:
        self._turns: Dict[str, _Turn] = {}

    def joins(self, repeat: Optional[DedupKey]) -> bool:
        """Would this request join a running turn?"""
        return repeat is not None and repeat.joins and repeat.key in self._turns

    async def run(
        self,
        repeat: Optional[DedupKey],
        start: Callable[[], Awaitable[Any]],
        lasting: Callable[[Any], Optional[asyncio.Future[Any]]] = lambda result: None,
    ) -> Tuple[Any, bool]:
        """Run ``start()``, or wait for the turn of another request that is the same.

        The turn is cancelled when the last request that waits for it is.

        :param lasting: the task that the result leaves running; while it runs, the turn can be joined
        :returns: the result, and whether ``start`` made it
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
        try:
            return turn.task.result(), mine
        finally:
            del turn  # it holds the error, which refers to this frame

    def _ended(
        self, key: str, done: asyncio.Future[Any], lasting: Callable[[Any], Optional[asyncio.Future[Any]]]
    ) -> None:
        more = None if done.cancelled() or done.exception() is not None else lasting(done.result())
        if more is None:
            self._turns.pop(key, None)
        else:
            more.add_done_callback(lambda _: self._turns.pop(key, None))
