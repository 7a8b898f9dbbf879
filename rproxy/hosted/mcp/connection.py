"""A connection to an MCP server over any transport: runs the steps of :mod:`.protocol`.

A :class:`McpConnection` can send a message and wait for its answer.  In a :class:`Duplex`, all messages go
through one channel, and the answers are matched by their ids.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Callable, Dict, Optional, Set

from ...types import Json
from .messages import McpError, answers, is_request, reply_to, unreachable
from .protocol import Exchange, Listed, Peer, Reply, Steps, call, cancelled, meet, reply_headers, tools

NOTIFY_TIMEOUT = 2.0  # seconds for a message without a waiter
MAX_REPLIES = 8  # to questions of a server that are under way


class McpConnection:
    """A connection to one server; its calls may run side by side.

    :param peer: what is known about the server
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._meeting = asyncio.Lock()
        self._notifying: Set[asyncio.Future[Any]] = set()

    async def tools(self, seconds: float) -> Listed:
        """The server's tools.

        :raises McpError: there is no list
        """
        listed: Listed = await self._talk(lambda peer: tools(peer), seconds)
        return listed

    async def call(self, tool: Json, arguments: Json, seconds: float) -> Json:
        """Call a tool once.

        :param tool: from the server's list
        :returns: the result, whether the tool has succeeded or not
        :raises McpError: there is no result
        """
        result: Json = await self._talk(lambda peer: call(peer, tool, arguments), seconds)
        return result

    async def close(self) -> None:
        """Close the connection."""
        for task in list(self._notifying):
            task.cancel()

    # ---- Running steps
    async def _talk(self, make: Callable[[Peer], Steps], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        try:
            return await self._talk_once(make, deadline)
        except McpError as error:
            if error.sent:
                raise
        return await self._talk_once(make, deadline)

    async def _talk_once(self, make: Callable[[Peer], Steps], deadline: float) -> Any:
        if not self.peer.era:
            async with self._meeting:
                if not self.peer.era:
                    await self._meet(deadline)
        return await self._run(make(self.peer), deadline)

    async def _meet(self, deadline: float) -> None:
        await self._run(meet(self.peer), deadline)

    async def _run(self, steps: Steps, deadline: float) -> Any:
        try:
            sent = next(steps)
            while True:
                try:
                    reply = await self.exchange(sent, max(0.001, deadline - time.monotonic()))
                except McpError as error:
                    sent = steps.throw(error)
                else:
                    sent = steps.send(reply)
        except StopIteration as stop:
            return stop.value

    async def exchange(self, exchange: Exchange, seconds: float) -> Reply:
        """Send a message, and wait for the answer if it is a request.

        :raises McpError: there is none
        """
        raise NotImplementedError

    def _answer(self, request: Json) -> None:
        """Answer a request of the server, unless requests come faster than it takes the answers: each answer
        may need a connection of its own.
        """
        if len(self._notifying) < MAX_REPLIES:
            self._notify(Exchange(reply_to(request), reply_headers(self.peer)))

    def _notify(self, exchange: Exchange) -> None:
        """Send a message without waiting for it."""

        async def send() -> None:
            with suppress(McpError):
                await self.exchange(exchange, NOTIFY_TIMEOUT)

        task = asyncio.ensure_future(send())
        self._notifying.add(task)
        task.add_done_callback(self._notifying.discard)


class Duplex(McpConnection):
    """A connection with one channel for all messages, which is opened when it is needed."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        self._waiting: Dict[int, asyncio.Future[Json]] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening: Optional[asyncio.Task[None]] = None
        self._ending = False  # the channel is closed, but not yet cleaned up

    # ---- The channel
    async def open(self, seconds: float) -> None:
        """Open the channel, unless it is open.

        :raises McpError: there is none
        """
        deadline = time.monotonic() + seconds
        while self._ending or self._listening is None or not self._ready.done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise unreachable("it was not ready in time")
            if self._listening is not None and not self._listening.done():
                awaited: asyncio.Future[None] = self._listening if self._ending else self._ready
                await asyncio.wait({awaited}, timeout=left)
            else:
                self._ending = False
                self._ready = asyncio.get_running_loop().create_future()
                self._listening = asyncio.ensure_future(self._live())
            if self._ready.done():
                self._ready.result()

    async def _live(self) -> None:
        error = unreachable("the connection was closed")
        try:
            await self._listen()
        except McpError as failure:
            error = failure
        finally:
            self._closed_by(error)

    def _closed_by(self, error: McpError) -> None:
        """Fail everything that is waiting; the next message opens another channel."""
        self._ending = True
        self.peer.era = ""
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # retrieved, in case nothing waits for it
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    async def _listen(self) -> None:
        """Open the channel, call :meth:`_opened`, and pass on messages until it is closed.

        :raises McpError: why it was closed
        """
        raise NotImplementedError

    async def _send(self, message: Json, seconds: float) -> None:
        """:raises McpError: it could not be sent"""
        raise NotImplementedError

    def _opened(self) -> None:
        """Messages can be sent."""
        if not self._ready.done():
            self._ready.set_result(None)

    # ---- Messages
    async def exchange(self, exchange: Exchange, seconds: float) -> Reply:
        deadline = time.monotonic() + seconds
        await self.open(seconds)
        number = exchange.message.get("id") if "method" in exchange.message else None
        if number is None:
            await self._send(exchange.message, seconds)
            return Reply({})
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self._send(exchange.message, seconds)
            await asyncio.wait({future}, timeout=max(0.0, deadline - time.monotonic()))
            if not future.done():
                self._give_up(exchange.message)
                raise unreachable("it did not answer in time")
            return Reply(future.result())
        except asyncio.CancelledError:
            self._give_up(exchange.message)
            raise
        finally:
            del self._waiting[number]
            if future.done() and not future.cancelled():
                future.exception()  # retrieved, in case nothing has awaited it

    def _give_up(self, message: Json) -> None:
        if message["method"] == "tools/call":
            self._notify(cancelled(self.peer, message["id"]))

    def _received(self, message: Json) -> None:
        if is_request(message):
            return self._answer(message)
        if message.get("id") is None and len(self._waiting) > 1:
            return None  # an error without an id, which may belong to any of them
        for number, future in self._waiting.items():
            if answers(message, number) and not future.done():
                future.set_result(message)
        return None
