"""``/responses`` and the paths below it: create, retrieve, stream again, cancel, delete, count, compact.

A background response is independent of its clients; each has a view of it (:func:`follow`), which may end and
begin again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import AsyncIterator, List, Optional

from ..convert.events.replay import events as replayed
from ..convert.json_steps import is_large
from ..errors import ApiError, invalid
from ..json_codec import encode_json
from ..service.pagination import number
from ..service.single_flight import DedupKey, dedup_key
from ..types import Event, Json
from .http import HttpHandler
from .sse import SSESink, send_events

TRUE = ("true", "1")


async def follow(batches: AsyncIterator[List[Event]], sink: SSESink) -> None:
    """Write batches of events as they come; an empty batch is a heartbeat."""
    async for batch in batches:
        if batch and not sink.begun:
            sink.put_head({})
        if is_large(batch):
            await sink.send_large(batch)
            continue
        blocked = sink.send(batch) if batch else sink.idle()
        if blocked is not None:
            await blocked
    if not sink.begun:
        sink.idle()  # no events at all, but the response is still a stream


class ResponsesHandler(HttpHandler):
    """``/responses``: POST creates a response, as JSON or as a stream.

    The WebSocket upgrade of GET is in :mod:`rproxy.server.websocket`.
    """

    async def create(self) -> None:
        dedup = await dedup_key(self.request.headers, self.owner, self.body.digest)
        request = await self.body.parsed(partial(self.state.recent_bodies.parse, self.owner))
        stream = request.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise invalid("'stream' must be true or false.", param="stream")
        if request.get("background") is True and request.get("generate") is not False:
            await self.create_in_background(request, bool(stream), dedup)
        elif stream:
            await send_events(self, lambda sink: self.stream_turn(request, dedup, sink))
        else:
            client = self.client("json", self.body.json_size)
            turn = self.state.single_flight.run(
                dedup, lambda: self.state.service.create(request, client, None)
            )
            result, _ = await self.run_turn(turn)
            await self.put_json(result.response, result.headers)

    async def stream_turn(self, request: Json, dedup: Optional[DedupKey], sink: SSESink) -> None:
        """One turn as a stream; a client that joins another request's turn gets the events of its result."""
        single_flight, client = self.state.single_flight, self.client("sse", self.body.json_size)
        if dedup is None:
            await self.state.service.create(request, client, sink)
            return
        joins = single_flight.joins(dedup)
        turn = asyncio.ensure_future(
            single_flight.run(dedup, lambda: self.state.service.create(request, client, sink))
        )
        try:
            while not turn.done():
                await asyncio.wait(
                    {turn}, timeout=self.state.config.server.heartbeat_interval or None if joins else None
                )
                if not turn.done():
                    sink.idle()
        except asyncio.CancelledError:
            turn.cancel()
            await asyncio.wait({turn})
            raise
        try:
            result, mine = turn.result()
        finally:
            del turn  # it holds the error, which refers to this frame
        if not mine:
            sink.begin(result.response, result.headers)
            sink.send(replayed(result.response))

    async def create_in_background(self, request: Json, stream: bool, dedup: Optional[DedupKey]) -> None:
        """Begin a turn that runs independently of this client."""
        client = self.client("json", self.body.json_size)
        start = self.state.single_flight.run(
            dedup,
            lambda: self.state.service.background(request, client),
            lasting=lambda running: running.task,
        )
        running, _ = await self.run_turn(start)
        self.state.track(running.task, running.task)
        if stream:
            await send_events(self, lambda sink: follow(running.follow(-1), sink), resumable=True)
        else:
            await self.put_json(running.queued)

    def upgrade_required(self) -> None:
        self.set_status(426)
        self.set_header("Upgrade", "websocket")
        self.set_header("Connection", "Upgrade")
        error = ApiError(
            426,
            "GET on this path opens a WebSocket: send 'Upgrade: websocket', or use POST.",
            code="upgrade_required",
        )
        self.finish(encode_json(error.body()))

    def probe(self) -> None:
        self.finish()

    verbs = {"POST": create, "GET": upgrade_required, "HEAD": probe}


class CompactHandler(HttpHandler):
    """``/responses/compact``: the conversation as one sealed item"""

    async def compact(self) -> None:
        body = await self.body.parsed()
        turn = self.state.service.compact(body, self.client("json", self.body.json_size))
        compaction, headers = await self.run_turn(turn)
        await self.put_json(compaction, headers)

    verbs = {"POST": compact}


class InputTokensHandler(HttpHandler):
    """``/responses/input_tokens``: how long the input is; a header says that it is an estimate"""

    async def count(self) -> None:
        body = await self.body.parsed()
        counted = await self.state.service.input_tokens(body, self.client("json", self.body.json_size))
        self.set_header("x-rproxy-estimate", "input_tokens")
        await self.put_json(counted)

    verbs = {"POST": count}


class StoredResponseHandler(HttpHandler):
    """``/responses/{id}``: GET reads the response, or its events with ``?stream=true``"""

    async def retrieve(self, response_id: str) -> None:
        query = self.query()
        stored = self.state.service.retrieval
        response = await stored.retrieve(response_id, self.owner)
        if query.get("stream", "").lower() not in TRUE:
            await self.put_json(response)
            return
        after = number(query, "starting_after", -1)
        await send_events(
            self, lambda sink: follow(stored.events(response_id, after, self.owner), sink), resumable=True
        )

    async def remove(self, response_id: str) -> None:
        await self.put_json(await self.state.service.retrieval.delete(response_id, self.owner))

    verbs = {"GET": retrieve, "HEAD": retrieve, "DELETE": remove}


class InputItemsHandler(HttpHandler):
    """``/responses/{id}/input_items``"""

    async def list_items(self, response_id: str) -> None:
        items = await self.state.service.retrieval.input_items(response_id, self.query(), self.owner)
        await self.put_json(items)

    verbs = {"GET": list_items, "HEAD": list_items}


class CancelHandler(HttpHandler):
    """``/responses/{id}/cancel``"""

    async def cancel(self, response_id: str) -> None:
        await self.put_json(await self.state.service.retrieval.cancel(response_id, self.owner))

    verbs = {"POST": cancel}
