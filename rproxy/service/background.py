"""Responses that run in the background, without a client that stays connected.

A :class:`Running` response is the :class:`~rproxy.service.client.EventSink` of such a turn.  It keeps the
events, so that any number of clients can follow them, from any number on, and come back after a lost
connection.  The response is stored as ``queued`` before the client gets its id, and again when it has ended,
in whatever way.

**Several processes.**  Beside the record of a running response the store holds two small ones.  ``ID-alive``
is a lease that its process keeps renewing: when it has expired and is not renewed (a clock may have been
set), the process is dead, and the response counts as failed, so that clients do not poll forever.
``ID-stop`` is written by another process that was asked to cancel or delete the response.

**Bounds.**  The number of running responses, the events of each, and the text in its deltas are limited (the
oldest deltas are dropped first, since the ``done`` events repeat their text).  Ended responses are dropped
after a while, or when all together have too much text, since their streams can be recreated
(:mod:`rproxy.convert.events.replay`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import AsyncIterator, Awaitable, Callable, List, Mapping, Optional, Sequence, Tuple

from ..convert.events.replay import opening
from ..convert.status import ANSWERED, TERMINAL_EVENTS, TERMINAL_TYPES
from ..errors import ApiError, StoreError, internal, unavailable
from ..store.time_limit import limit_store_time
from ..store.write_behind import WriteBehindStore
from ..types import Event, Response, ResponseError, ResponseRecord

log = logging.getLogger("rproxy.background")

MAX_RUNNING = 500
MAX_EVENTS = 10_000  # of one response
MAX_DELTAS = 8 << 20  # characters in the deltas of one response
MAX_ENDED = 50
MAX_ENDED_TEXT = 64 << 20  # characters, of all that have ended
KEEP_ENDED = 600.0  # seconds
WATCH_INTERVAL = 2.0  # seconds between two renewals of a lease
CONFIRMATION = WATCH_INTERVAL + 1.0  # seconds within which another renewal must come
STOP_TIMEOUT = 5.0  # seconds for running responses to end when the process stops
LEASE = 30.0  # seconds; a process that has not renewed a lease for so long is dead


class Running:
    """A running response.

    ``response`` is its present state, ``task`` runs its turn and never fails.
    """

    task: asyncio.Task[None]
    blocked = False  # there is no client that has to keep up

    def __init__(self, response: Response, record: ResponseRecord) -> None:
        self.record = record
        self.stopped: Optional[str] = None  # "cancel" or "delete", if a client has requested it
        self.ended = False
        self.stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opening = opening(response)
        self._events: List[Event] = []
        self._deltas = 0  # characters in the deltas among them
        self.text = 0  # characters in all deltas, about as many as in the response
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.response = self.queued = self._opening[0]["response"]
        self._add(self._opening[:2])

    # ---- EventSink, for the turn
    def begin(self, response: Response, headers: Mapping[str, str]) -> None:
        """Nothing to do: there is no client whose answer could begin."""

    def send(self, events: Sequence[Event]) -> None:
        """Add events, except the opening ones, which are already there."""
        self._add([event for event in events if event["sequence_number"] >= len(self._opening)])

    async def send_large(self, events: Sequence[Event]) -> None:
        self.send(events)

    def in_progress(self) -> None:
        """The turn begins."""
        self.response = self._opening[2]["response"]
        self._add(self._opening[2:])

    def end(self, response: Response) -> None:
        """The response has ended; a terminal event is added, unless the turn has sent one."""
        self.response = response
        if self._events[-1]["type"] not in TERMINAL_TYPES:
            terminal_event: Event = {
                "type": TERMINAL_EVENTS[response["status"]],
                "sequence_number": self.last + 1,
                "response": response,
            }
            self._add([terminal_event])
        self.ended = True
        self._notify()

    @property
    def last(self) -> int:
        """The number of the latest event."""
        return self._events[-1]["sequence_number"]

    def _add(self, events: List[Event]) -> None:
        self._events += events
        size = _in_deltas(events)
        self.text += size
        self._deltas += size
        if len(self._events) > MAX_EVENTS or self._deltas > MAX_DELTAS:
            half = len(self._events) // 2
            older = [event for event in self._events[:half] if not event["type"].endswith(".delta")]
            self._events = older + self._events[half:]
            self._deltas = _in_deltas(self._events)
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    # ---- For clients
    async def follow(self, after: int) -> AsyncIterator[List[Event]]:
        """The events after the number ``after``, as they arrive, up to the last one."""
        while True:
            changed, batch = self._changed, self._since(after)
            if batch:
                after = batch[-1]["sequence_number"]
                yield batch
            elif self.ended:
                return
            else:
                await asyncio.wait({changed})  # unlike awaiting the future itself this never cancels it

    def _since(self, after: int) -> List[Event]:
        begin = len(self._events)
        while begin and self._events[begin - 1]["sequence_number"] > after:
            begin -= 1
        return self._events[begin:]


def _in_deltas(events: Sequence[Event]) -> int:
    return sum(len(event["delta"]) for event in events if "delta" in event)


class Background:
    """All responses that run in the background of this process.

    :param now: seconds since the epoch
    """

    def __init__(self, store: WriteBehindStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._responses: OrderedDict[str, Running] = OrderedDict()
        self._dead: OrderedDict[Tuple[str, float], None] = OrderedDict()  # leases that were not renewed

    def running(self, response_id: str, owner: str) -> Optional[Running]:
        """The response with this id, if it runs here or ended a short while ago."""
        running = self._responses.get(response_id)
        if running is None or running.record["owner"] != owner or running.stopped == "delete":
            return None
        return running

    async def start(
        self,
        response: Response,
        record: ResponseRecord,
        run: Callable[[Running], Awaitable[Response]],
        ended: Callable[[], None],
    ) -> Running:
        """Store the response as queued, and run its turn.

        :param record: as it will be stored
        :param run: the turn
        :param ended: called once, when the turn has ended, or cannot begin
        :raises ApiError: 429 when too many run already
        """
        if sum(not running.ended for running in self._responses.values()) >= MAX_RUNNING:
            ended()
            raise ApiError(
                429,
                f"{MAX_RUNNING} responses are running in the background already. "
                "Try again when some have ended.",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=5,
            )
        running = Running(response, record)
        self._responses[response["id"]] = running
        # A task of its own, so that a client that leaves right now does not stop it.
        running.task = asyncio.ensure_future(self._run(running, run))
        running.task.add_done_callback(lambda _: ended())
        await asyncio.wait({running.task, running.stored}, return_when=asyncio.FIRST_COMPLETED)
        return running

    async def stop(self, response_id: str, owner: str, how: str) -> bool:
        """Stop a response and wait until it is stored.

        :param how: ``cancel`` or ``delete``
        :returns: whether it ran in this process; if it had already ended, it is unchanged
        """
        running = self.running(response_id, owner)
        if running is None:
            return False
        if not running.ended:
            self._stop(running, how)
        await asyncio.wait({running.task})
        return True

    async def ask_to_stop(self, response_id: str, how: str) -> None:
        """Ask the process that runs a response to stop it."""
        await self._store.keep(response_id + "-stop", {"how": how})

    async def close(self) -> None:
        """The process ends: running responses fail."""
        tasks = {running.task for running in self._responses.values() if not running.ended}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT)

    async def alive(self, response_id: str) -> bool:
        """Is any process still working on this response?

        :raises StoreError: that is not known
        """
        until = await self._until(response_id)
        if until is None or 0 < until - self._now() <= LEASE or (response_id, until) in self._dead:
            return until is not None and (response_id, until) not in self._dead
        # It has expired, or is from the future: its process has died, or a clock was set.
        await asyncio.sleep(CONFIRMATION)
        if await self._until(response_id) not in (until, None):
            return True
        self._dead[response_id, until] = None
        while len(self._dead) > MAX_RUNNING:
            self._dead.popitem(last=False)
        return False

    async def _until(self, response_id: str) -> Optional[float]:
        """The end of the lease, in seconds since the epoch by the clock of its process."""
        report = await self._store.get(response_id + "-alive")
        until = report.get("until") if report is not None else None
        return until if isinstance(until, (int, float)) else None

    # ---- The life of one response
    async def _run(self, running: Running, run: Callable[[Running], Awaitable[Response]]) -> None:
        watch = asyncio.ensure_future(self._watch(running))
        try:
            await self._queue(running)
            limit_store_time()  # the request that began this has ended
            running.in_progress()
            response = await run(running)
        except asyncio.CancelledError:
            response = _stopped(running)
        except ApiError as error:
            response = _failed(running, error)
        except Exception:
            log.error("background response %s failed", running.response["id"], exc_info=True)
            response = _failed(running, internal())
        watch.cancel()
        running.end(response)
        await self._clean_up(running)

    async def _queue(self, running: Running) -> None:
        """Store it as queued, and let the client get its id before the turn begins."""
        record: ResponseRecord = {**running.record, "response": running.response}
        await self._report(running)
        warning = await self._store.keep(running.response["id"], record)
        if warning:
            log.warning("background response %s: %s", running.response["id"], warning)
        running.stored.set_result(None)
        await asyncio.sleep(0)

    async def _clean_up(self, running: Running) -> None:
        limit_store_time()
        response_id = running.response["id"]
        try:
            # A response with an answer was stored by its turn.
            if running.response["status"] not in ANSWERED and running.stopped != "delete":
                record: ResponseRecord = {
                    **running.record,
                    "response": running.response,
                    "last": running.last,
                }
                await self._store.keep(response_id, record)
            for suffix in ("-alive", "-stop"):
                await self._store.delete(response_id + suffix)
        except StoreError as error:
            log.warning("background response %s: %s", response_id, error)
        asyncio.get_running_loop().call_later(KEEP_ENDED, self._responses.pop, response_id, None)
        self._drop_ended()
        if running.stopped == "delete":
            self._responses.pop(response_id, None)

    def _drop_ended(self) -> None:
        """Drop the oldest of the ended responses, but never the last one."""
        room = MAX_ENDED_TEXT
        ended = [name for name, one in self._responses.items() if one.ended]
        for number, name in enumerate(reversed(ended)):
            room -= self._responses[name].text
            if number >= MAX_ENDED or number and room < 0:
                del self._responses[name]

    async def _watch(self, running: Running) -> None:
        """Renew the lease, and check whether another process wants the response to stop."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            limit_store_time()
            await self._report(running)
            try:
                wanted = await self._store.get(running.response["id"] + "-stop")
            except StoreError:
                continue
            if wanted is not None:
                self._stop(running, "delete" if wanted.get("how") == "delete" else "cancel")

    async def _report(self, running: Running) -> None:
        await self._store.keep(running.response["id"] + "-alive", {"until": self._now() + LEASE})

    def _stop(self, running: Running, how: str) -> None:
        running.stopped = running.stopped or how
        running.task.cancel()


def _stopped(running: Running) -> Response:
    """The final response after its task was cancelled: on request, or because the process ends."""
    if running.stopped:
        return {**running.response, "status": "cancelled"}
    text = "The server was stopped while it worked on this response. Send the request again."
    return _failed(running, unavailable(text))


def _failed(running: Running, error: ApiError) -> Response:
    shown: ResponseError = {
        "code": error.stream_code,
        "message": error.failed_message(),
        "type": error.type,
        "param": error.param,
    }
    return {**running.response, "status": "failed", "error": shown}
