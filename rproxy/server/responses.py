"""``/responses`` and what lies below it: create, read, follow, cancel, delete, count, compact.

A response that runs in the background has a life of its own; what a client has is a view of it
(:func:`follow`), which may end and begin again.
"""

from __future__ import annotations

import asyncio
from typing import AsyncIterator, List, Optional

from ..convert.events.replay import events as replayed
from ..convert.sse import encode_json
from ..errors import ApiError, invalid
from ..service.pagination import number
from ..service.single_flight import DedupKey, dedup_key
from ..types import Json
from .base import HttpHandler, SSESink

TRUE = ("true", "1")


async def follow(batches: AsyncIterator[List[Json]], out: SSESink) -> None:
    """Write batches of events as they come; an empty one is a sign of life."""
    async for batch in batches:
        if batch and out.response is None:
            out.begin({}, {})
        full = out.send(batch) if batch else out.idle()
        if full is not None:
            await full
    if not out.begun:
        out.idle()  # there is nothing to tell, but the answer is a stream all the same


class ResponsesHandler(HttpHandler):
    """``/responses``: POST creates a response, as JSON or as a stream.

    The upgrade of GET is in ``websocket``.
    """

    verbs = ("POST", "GET", "HEAD")

    async def post(self) -> None:
        body = self.body()
        repeat = dedup_key(self.request.headers, self.owner, body.digest)
        request = await body.parsed()
        stream = request.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise invalid("'stream' must be true or false.", param="stream")
        if request.get("background") is True and request.get("generate") is not False:
            await self.in_background(request, bool(stream), repeat)
        elif stream:
            await self.send_events(lambda out: self.stream_turn(request, repeat, out))
        else:
            client = self.client("json")
            create = self.state.sharing.run(repeat, lambda: self.state.service.create(request, client, None))
            result, _ = await self.run_turn(create)
            await self.put_json(result.response, result.headers)

    async def stream_turn(self, request: Json, repeat: Optional[DedupKey], out: SSESink) -> None:
        """One turn as a stream; a turn that another request began is told from its result."""
        sharing, client = self.state.sharing, self.client("sse")
        if repeat is None:
            await self.state.service.create(request, client, out)
            return
        joins = sharing.joins(repeat)
        turn = asyncio.ensure_future(
            sharing.run(repeat, lambda: self.state.service.create(request, client, out))
        )
        try:
            while not turn.done():
                await asyncio.wait(
                    {turn}, timeout=self.state.config.server.heartbeat_interval or None if joins else None
                )
                if not turn.done():
                    out.idle()
        except asyncio.CancelledError:
            turn.cancel()
            await asyncio.wait({turn})
            raise
        result, mine = turn.result()
        if not mine:
            out.begin(result.response, result.headers)
            out.send(replayed(result.response))

    async def in_background(self, request: Json, stream: bool, repeat: Optional[DedupKey]) -> None:
        """Begin a turn that goes on without this client."""
        client = self.client("json")
        start = self.state.sharing.run(
            repeat,
            lambda: self.state.service.background(request, client),
            lasting=lambda running: running.task,
        )
        running, _ = await self.run_turn(start)
        self.state.track(running.task, running.task)
        if stream:
            await self.send_events(lambda out: follow(running.follow(-1), out), lasts=True)
        else:
            await self.put_json(running.queued)

    def get(self) -> None:
        self.set_status(426)
        self.set_header("Upgrade", "websocket")
        self.set_header("Connection", "Upgrade")
        error = ApiError(
            426,
            "GET on this path opens a WebSocket: send 'Upgrade: websocket', or use POST.",
            code="upgrade_required",
        )
        self.finish(encode_json(error.body()))

    def head(self) -> None:
        self.finish()


class CompactHandler(HttpHandler):
    """``POST /responses/compact``: the conversation as one sealed item."""

    verbs = ("POST",)

    async def post(self) -> None:
        compaction = self.state.service.compact(await self.body().parsed(), self.client("json"))
        result = await self.run_turn(compaction)
        await self.put_json(result.response, result.headers)


class InputTokensHandler(HttpHandler):
    """``POST /responses/input_tokens``: how long the input is. The header says that it is an estimate."""

    verbs = ("POST",)

    async def post(self) -> None:
        counted = await self.state.service.input_tokens(await self.body().parsed(), self.client("json"))
        self.set_header("x-rproxy-estimate", "input_tokens")
        await self.put_json(counted)


class StoredResponseHandler(HttpHandler):
    """``/responses/{id}``: GET reads it, or its events with ``?stream=true``; DELETE forgets it."""

    verbs = ("GET", "HEAD", "DELETE")

    async def get(self, response_id: str) -> None:
        query = self.query()
        stored = self.state.service.retrieval
        response = await stored.retrieve(response_id, self.owner)
        if query.get("stream", "").lower() not in TRUE:
            await self.put_json(response)
            return
        after = number(query, "starting_after", -1)
        await self.send_events(
            lambda out: follow(stored.events(response_id, after, self.owner), out), lasts=True
        )

    head = get

    async def delete(self, response_id: str) -> None:
        await self.put_json(await self.state.service.retrieval.delete(response_id, self.owner))


class InputItemsHandler(HttpHandler):
    """``GET /responses/{id}/input_items``"""

    async def get(self, response_id: str) -> None:
        await self.put_json(
            await self.state.service.retrieval.input_items(response_id, self.query(), self.owner)
        )

    head = get


class CancelHandler(HttpHandler):
    """``POST /responses/{id}/cancel``"""

    verbs = ("POST",)

    async def post(self, response_id: str) -> None:
        await self.put_json(await self.state.service.retrieval.cancel(response_id, self.owner))
