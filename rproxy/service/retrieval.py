"""Operations on a response after its request: read it, list its input, follow, cancel and delete it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import AsyncIterator, List, Mapping, Optional

from ..convert.events.replay import opening, tail
from ..convert.status import RUNNING
from ..cooperative import in_thread_if
from ..errors import ApiError, StoreError, not_found
from ..store.time_limit import limit_store_time
from ..store.write_behind import WriteBehindStore
from ..types import AnyRecord, Deleted, Event, ItemPage, Response, ResponseError, ResponseRecord
from .background import Background, Running
from .history import History
from .pagination import page
from .records import has_many_items, owned_response, store_errors

POLL_INTERVAL = 1.0  # seconds between two reads of a response that runs in another process
LOST: ResponseError = {
    "code": "server_error",
    "message": "The process that worked on this response has died. Send the request again.",
}


class ResponseRetrieval:
    """All methods raise ApiError: 404 for a response that does not exist or is another owner's, 503 when the
    store fails.
    """

    def __init__(self, store: WriteBehindStore, history: History, background: Background) -> None:
        self._store = store
        self._history = history
        self._background = background

    async def retrieve(self, response_id: str, owner: str) -> Response:
        """GET /responses/{id}"""
        running = await self._running(response_id, owner)
        return running.response if running is not None else (await self._seen(response_id, owner))["response"]

    async def input_items(self, response_id: str, query: Mapping[str, str], owner: str) -> ItemPage:
        """GET /responses/{id}/input_items: everything the model saw, earlier turns included."""
        seen = await self._history.seen(response_id, owner)
        if not seen:
            raise _no_response(response_id)
        return await page(seen, query)

    async def delete(self, response_id: str, owner: str) -> Deleted:
        """DELETE /responses/{id}: a running one is stopped first."""
        response = await self.retrieve(response_id, owner)
        here = await self._background.stop(response_id, owner, "delete")
        if not here and response["status"] in RUNNING:
            await self._background.ask_to_stop(response_id, "delete")
        with store_errors():
            await self._store.delete(response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    async def cancel(self, response_id: str, owner: str) -> Response:
        """POST /responses/{id}/cancel; a response that has ended stays as it is.

        :raises ApiError: 400 if it never ran in the background
        """
        response = await self.retrieve(response_id, owner)
        if not response.get("background"):
            raise ApiError(
                400,
                "Only responses that were created with background: true can be cancelled. "
                "End any other by closing its connection.",
                param="response_id",
            )
        if response["status"] not in RUNNING:
            return response
        if await self._background.stop(response_id, owner, "cancel"):
            return await self.retrieve(response_id, owner)
        await self._background.ask_to_stop(response_id, "cancel")
        with store_errors():
            changed = await self._store.update(
                response_id, lambda record: _cancelled(_checked(record, response_id, owner))
            )
        if changed is None:
            return {**response, "status": "cancelled"}
        return _checked(changed, response_id, owner)["response"]

    async def events(self, response_id: str, after: int, owner: str) -> AsyncIterator[List[Event]]:
        """GET /responses/{id}?stream=true: the events after the number ``after``; those of a running response
        as they arrive.
        """
        running = await self._running(response_id, owner)
        if running is not None:
            async for batch in running.follow(after):
                yield batch
            return
        record = await self._seen(response_id, owner)
        response = record["response"]
        if response["status"] in RUNNING:
            early = [event for event in opening(response) if event["sequence_number"] > after]
            if early:
                yield early
                after = early[-1]["sequence_number"]
        while response["status"] in RUNNING:
            await asyncio.sleep(POLL_INTERVAL)
            limit_store_time()
            record = await self._seen(response_id, owner)
            response = record["response"]
        rest = tail(response, after, record.get("last"), record.get("hosted", ()))
        if rest:
            yield rest

    async def _seen(self, response_id: str, owner: str) -> ResponseRecord:
        """The record, with the present state of the response."""
        record = await self._record(response_id, owner)
        return {**record, "response": await self._present(record["response"])}

    async def _running(self, response_id: str, owner: str) -> Optional[Running]:
        """A background response of this process, unless it has ended and was deleted since, by any
        process.
        """
        running = self._background.running(response_id, owner)
        if running is not None and running.ended:
            try:
                return running if await self._store.get(response_id) is not None else None
            except StoreError:
                pass  # this process's own knowledge is better than nothing
        return running

    async def _record(self, response_id: str, owner: str) -> ResponseRecord:
        with store_errors():
            record = await self._store.get(response_id)
        return await in_thread_if(has_many_items(record), partial(_checked, record, response_id, owner))

    async def _present(self, response: Response) -> Response:
        """The stored response, with its present status.

        It is stored as queued until it ends, but is not queued for long: while its process lives it is in
        progress, and after that it has failed.
        """
        if response["status"] not in RUNNING:
            return response
        with store_errors():
            alive = await self._background.alive(response["id"])
        return (
            {**response, "status": "in_progress"}
            if alive
            else {**response, "status": "failed", "error": LOST}
        )


def _checked(record: Optional[AnyRecord], response_id: str, owner: str) -> ResponseRecord:
    """The record, if it is a response of this owner.

    :raises ApiError: 404
    """
    checked = owned_response(record, owner)
    if checked is None:
        raise _no_response(response_id)
    return checked


def _no_response(response_id: str) -> ApiError:
    return not_found("Response with id", response_id, "response_id")


def _cancelled(record: ResponseRecord) -> ResponseRecord:
    response = record["response"]
    return (
        {**record, "response": {**response, "status": "cancelled"}}
        if response["status"] in RUNNING
        else record
    )
