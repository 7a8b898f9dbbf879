"""Responses that run in the background: nobody has to stay connected for them.

A :class:`Running` response is the :class:`~rproxy.service.client.EventSink` of such a turn.  It keeps the
events, so that any number of clients may follow them, from any number on, and come back after a lost
connection.  The response is stored as ``queued`` before the client gets its id, and again when it has ended,
by whatever way.

**Several processes.**  Beside the record of a running response lie two small ones in the store.  ``ID-alive``
says until when its process will surely have reported again: a response whose process died is told as failed,
and nobody polls for ever.  ``ID-stop`` is put there by another process that is asked to cancel or delete it.

**Bounds.**  So many jobs at once; so many events of one job (of more, the oldest deltas go: what they said is
said again by the ``done`` events); and ended jobs are forgotten after a while, since their streams can be
made again (:mod:`rproxy.convert.events.replay`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import AsyncIterator, Awaitable, Callable, List, Mapping, Optional, Sequence

from ..convert.events.replay import opening
from ..convert.status import ANSWERED, TERMINAL_EVENTS, TERMINAL_TYPES
from ..errors import ApiError, StoreError, internal, unavailable
from ..store.write_behind import WriteBehindStore
from ..types import Json

log = logging.getLogger("rproxy.background")

MOST_RUNNING = 500
MOST_EVENTS = 10_000  # of one job
MOST_ENDED = 50
KEEP_ENDED = 600.0  # seconds
WATCH_INTERVAL = 2.0  # seconds
LAST_WORDS = 5.0  # seconds
LEASE = 30.0  # seconds that a process may be silent about its jobs


class Running:
    """One response in the making.

    ``response`` is its present state, ``task`` runs its turn and never fails.
    """

    task: asyncio.Task[None]

    def __init__(self, response: Json, record: Json) -> None:
        self.record = record
        self.stopped: Optional[str] = None  # "cancel" or "delete": somebody does not want it any more
        self.ended = False
        self.stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opening = opening(response)
        self._events: List[Json] = []
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.response = self.queued = self._opening[0]["response"]
        self._tell(self._opening[:2])

    # ---- what the turn says
    def begin(self, response: Json, headers: Mapping[str, str]) -> None:
        """There is nobody to promise anything to."""

    def send(self, events: Sequence[Json]) -> None:
        """Take events, without those of the opening: the job has told them already."""
        self._tell([event for event in events if event["sequence_number"] >= len(self._opening)])

    def in_progress(self) -> None:
        """The turn begins."""
        self.response = self._opening[2]["response"]
        self._tell(self._opening[2:])

    def end(self, response: Json) -> None:
        """The response has ended; its last event is added, if the turn has not told it."""
        self.response = response
        last = self._events[-1]
        if last["type"] not in TERMINAL_TYPES:
            self._tell(
                [
                    {
                        "type": TERMINAL_EVENTS[response["status"]],
                        "sequence_number": self.last + 1,
                        "response": response,
                    }
                ]
            )
        self.ended = True
        self._wake()

    @property
    def last(self) -> int:
        """The number of the latest event."""
        return int(self._events[-1]["sequence_number"])

    def _tell(self, events: List[Json]) -> None:
        self._events += events
        if len(self._events) > MOST_EVENTS:
            half = MOST_EVENTS // 2
            self._events = [
                event for event in self._events[:half] if not event["type"].endswith(".delta")
            ] + self._events[half:]
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.get_running_loop().create_future()
        news.set_result(None)

    # ---- what clients hear
    async def follow(self, after: int) -> AsyncIterator[List[Json]]:
        """The events behind the one with the number ``after``, as they come, to the end."""
        while True:
            news, batch = self._news, self._since(after)
            if batch:
                after = batch[-1]["sequence_number"]
                yield batch
            elif self.ended:
                return
            else:
                await asyncio.wait({news})  # unlike awaiting the future itself this never cancels it

    def _since(self, after: int) -> List[Json]:
        begin = len(self._events)
        while begin and self._events[begin - 1]["sequence_number"] > after:
            begin -= 1
        return self._events[begin:]


class Background:
    """All jobs of this process. :arg now: seconds since the epoch"""

    def __init__(self, store: WriteBehindStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._responses: OrderedDict[str, Running] = OrderedDict()

    def running(self, response_id: str, owner: str) -> Optional[Running]:
        """The job of a response, if it runs here or has ended a short while ago."""
        job = self._responses.get(response_id)
        return job if job is not None and job.record["owner"] == owner and job.stopped != "delete" else None

    async def start(self, response: Json, record: Json, run: Callable[[Running], Awaitable[Json]]) -> Running:
        """Store the response as queued, and run its turn.

        :arg record: as it will be stored, see :mod:`rproxy.service.history`
        :arg run: the turn. :raises ApiError: 429 when too many run already
        """
        if sum(not job.ended for job in self._responses.values()) >= MOST_RUNNING:
            raise ApiError(
                429,
                f"{MOST_RUNNING} responses run in the background already. Try again when some have ended.",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=5,
            )
        job = Running(response, record)
        self._responses[response["id"]] = job
        job.task = asyncio.ensure_future(
            self._run(job, run)
        )  # of its own: a client that leaves right now does not stop it
        await asyncio.wait({job.task, job.stored}, return_when=asyncio.FIRST_COMPLETED)
        return job

    async def stop(self, response_id: str, owner: str, how: str) -> bool:
        """End a job early, ``how``: cancel or delete.

        :returns: is it (or was it until now) running in this process?
        """
        job = self.running(response_id, owner)
        if job is None or job.ended:
            return False
        self._stop(job, how)
        await asyncio.wait({job.task})
        return True

    async def ask_to_stop(self, response_id: str, how: str) -> None:
        """Ask the process that runs it to end a response early."""
        await self._store.keep(response_id + "-stop", {"how": how})

    async def close(self) -> None:
        """The process ends: what still runs is told as failed."""
        tasks = {job.task for job in self._responses.values() if not job.ended}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS)

    async def alive(self, response_id: str) -> bool:
        """Does any process still work on this response?"""
        report = await self._store.get(response_id + "-alive")
        return report is not None and report["until"] > self._now()

    # ---- the life of a job
    async def _run(self, job: Running, run: Callable[[Running], Awaitable[Json]]) -> None:
        watch = asyncio.ensure_future(self._watch(job))
        try:
            await self._queue(job)
            job.in_progress()
            response = await run(job)
        except asyncio.CancelledError:
            response = (
                {**job.response, "status": "cancelled"}
                if job.stopped
                else _failed(
                    job,
                    unavailable(
                        "The server was stopped while it worked on this response. Send the request again."
                    ),
                )
            )
        except ApiError as error:
            response = _failed(job, error)
        except Exception:
            log.error("background response %s failed", job.response["id"], exc_info=True)
            response = _failed(job, internal())
        watch.cancel()
        kept = response["status"] in ANSWERED  # the turn has done it
        job.end(response)
        await self._tidy(job, kept)

    async def _queue(self, job: Running) -> None:
        """Store it as queued. Who asked for it is told then, and not of the turn's first steps."""
        await self._report(job)
        warning = await self._store.keep(job.response["id"], {**job.record, "response": job.response})
        if warning:
            log.warning("background response %s: %s", job.response["id"], warning)
        job.stored.set_result(None)
        await asyncio.sleep(0)

    async def _tidy(self, job: Running, kept: bool) -> None:
        response_id = job.response["id"]
        try:
            if not kept and job.stopped != "delete":
                await self._store.keep(
                    response_id, {**job.record, "response": job.response, "last": job.last}
                )
            for name in ("-alive", "-stop"):
                await self._store.delete(response_id + name)
        except StoreError as error:
            log.warning("background response %s: %s", response_id, error)
        asyncio.get_running_loop().call_later(KEEP_ENDED, self._responses.pop, response_id, None)
        ended = [name for name, one in self._responses.items() if one.ended]
        for name in ended[:-MOST_ENDED] + ([response_id] if job.stopped == "delete" else []):
            self._responses.pop(name, None)

    async def _watch(self, job: Running) -> None:
        """Say that the process lives, and look whether another one wants the job to stop."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            await self._report(job)
            try:
                asked = await self._store.get(job.response["id"] + "-stop")
            except StoreError:
                continue
            if asked is not None:
                self._stop(job, asked["how"])

    async def _report(self, job: Running) -> None:
        await self._store.keep(job.response["id"] + "-alive", {"until": self._now() + LEASE})

    def _stop(self, job: Running, how: str) -> None:
        job.stopped = job.stopped or how
        job.task.cancel()


def _failed(job: Running, error: ApiError) -> Json:
    told = {
        "code": error.stream_code,
        "message": error.failed_message(),
        "type": error.type,
        "param": error.param,
    }
    return {**job.response, "status": "failed", "error": told}
