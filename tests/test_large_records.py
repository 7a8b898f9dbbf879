"""Whoever reads or changes a large record of the store keeps nobody waiting for long.

The longest step of the event loop is compared with all of them, in CPU time.
"""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import contextmanager
from typing import Any, Awaitable, Callable, Coroutine, Dict, Iterator, List, Optional, Tuple

import pytest
from rawserver import until

from rproxy.config.load import parse_config
from rproxy.cooperative import large_values
from rproxy.service.background import Background
from rproxy.service.client import Client
from rproxy.service.conversations import Conversations
from rproxy.service.create_request import ConversationContext
from rproxy.service.history import History
from rproxy.service.retrieval import ResponseRetrieval
from rproxy.service.service import Service
from rproxy.store import open_store
from rproxy.store.write_behind import WriteBehindStore
from rproxy.upstream.client import Upstream

COUNT = 40_000
STEM = "0" * 31 + "1"
RESPONSE, CONVERSATION = f"resp_{STEM}", f"conv_{STEM}"
CLIENT = Client(None, False, "json", "req_1", {})
SHORT = 0.025  # seconds; a slow machine has longer steps, but not a larger part of the whole in one


class Stored:
    """A response and a conversation of many items, and all that uses them."""

    def __init__(self) -> None:
        self.plain = open_store("memory", max_responses=10, max_bytes=1 << 28, ttl=1000)
        self.store = WriteBehindStore(self.plain)
        self.conversations = Conversations(self.store, lambda: "2" * 32, time.time)
        background = Background(self.store, time.time)
        self.history = History(self.store, self.conversations, background)
        self.retrieval = ResponseRetrieval(self.store, self.history, background)

    async def fill(self) -> None:
        message = {"type": "message", "role": "user", "content": "x"}
        answer = {"type": "message", "id": f"msg_{STEM}0000", "role": "assistant", "content": []}
        response = {"id": RESPONSE, "status": "completed", "output": [answer]}
        record: Any = {"response": response, "input": [message] * COUNT, "owner": ""}
        await self.store.put(RESPONSE, record)
        items = [{**message, "id": f"msg_{number}", "status": "completed"} for number in range(COUNT)]
        conversation: Any = {"conversation": {"id": CONVERSATION}, "items": items, "owner": ""}
        await self.store.put(CONVERSATION, conversation)

    async def input_items(self, **query: str) -> List[str]:
        page = await self.retrieval.input_items(RESPONSE, query, "")
        return [item["id"] for item in page["data"]]

    async def items(self, **query: str) -> List[str]:
        page = await self.conversations.items(CONVERSATION, query, "")
        return [item["id"] for item in page["data"]]

    async def resolved(self, *ids: str) -> List[Optional[str]]:
        references: Any = [{"type": "item_reference", "id": item_id} for item_id in ids]
        found = await self.history.resolved(references, ConversationContext(), "")
        return [item.get("id") for item in found]

    async def context(self, conversation: Optional[str] = None, **body: str) -> int:
        return len((await self.history.context(body, conversation, CLIENT)).items)


def input_id(number: int) -> str:
    return f"msg_{STEM}i{number:03x}"


NEW: Any = {"items": [{"role": "user", "content": "new"}]}
LAST = [f"msg_{COUNT - 1}", f"msg_{COUNT - 2}"]
# what -> (how, what comes of it; None: this is not looked at)
USES: Dict[str, Tuple[Callable[[Stored], Awaitable[Any]], Any]] = {
    "retrieve": (lambda there: there.retrieval.retrieve(RESPONSE, ""), None),
    "delete": (lambda there: there.retrieval.delete(RESPONSE, ""), None),
    "input items": (lambda there: there.input_items(limit="2"), [input_id(COUNT - 1), input_id(COUNT - 2)]),
    "input items, oldest first": (
        lambda there: there.input_items(order="asc", limit="2"),
        [input_id(0), input_id(1)],
    ),
    "input items after": (lambda there: there.input_items(after=input_id(2)), [input_id(1), input_id(0)]),
    "input items before": (
        lambda there: there.input_items(order="asc", before=input_id(2), after=input_id(0)),
        [input_id(1)],
    ),
    "references": (
        lambda there: there.resolved(input_id(1), f"msg_{STEM}0000", input_id(COUNT - 1)),
        [input_id(1), f"msg_{STEM}0000", input_id(COUNT - 1)],
    ),
    "previous response": (lambda there: there.context(previous_response_id=RESPONSE), COUNT + 1),
    "conversation": (lambda there: there.context(CONVERSATION), COUNT),
    "items": (lambda there: there.items(limit="2"), LAST),
    "items after": (lambda there: there.items(order="asc", limit="2", after="msg_1"), ["msg_2", "msg_3"]),
    "item": (lambda there: there.conversations.item(CONVERSATION, LAST[0], ""), None),
    "new items": (lambda there: there.conversations.add(CONVERSATION, NEW, ""), None),
    "metadata": (lambda there: there.conversations.update(CONVERSATION, {"metadata": {"a": "b"}}, ""), None),
    "item deleted": (lambda there: there.conversations.delete_item(CONVERSATION, LAST[0], ""), None),
    "conversation deleted": (lambda there: there.conversations.delete(CONVERSATION, ""), None),
}


@contextmanager
def steps() -> Iterator[List[float]]:
    """The CPU time of each step of the event loop meanwhile, without collections of the tests' garbage."""
    taken: List[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        taken.append(time.thread_time() - began)

    gc.disable()
    asyncio.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield taken
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.enable()


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test on asyncio's own event loop: the steps of uvloop cannot be measured."""
    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


@pytest.mark.parametrize("use", USES)
def test_no_step_is_long(use: str) -> None:
    run(no_step_is_long(use))


async def no_step_is_long(use: str) -> None:
    there = Stored()
    await there.fill()
    work, expected = USES[use]
    with steps() as taken:
        found = await work(there)
        assert expected is None or found == expected
        del found
        await until(lambda: large_values.count == 0)
        await asyncio.sleep(0)  # the step that ends is measured, too
    assert max(taken) < max(SHORT, sum(taken) / 16)


def test_the_items_that_a_turn_adds_to_a_conversation_are_freed_in_steps() -> None:
    run(freed_in_steps())


async def freed_in_steps() -> None:
    there = Stored()
    await there.fill()
    config = parse_config(b"models: [{model: m, provider: {base_url: 'http://127.0.0.1:1'}}]", "c", {})
    upstream = Upstream()
    service = Service(config, upstream, there.plain)
    items = [{"role": "user", "content": str(number)} for number in range(3 * COUNT)]
    with steps() as taken:
        body = {"model": "m", "conversation": CONVERSATION, "input": items}
        assert (await service.input_tokens(body, CLIENT))["input_tokens"] > 3 * COUNT
        await until(lambda: large_values.count == 0)
        await asyncio.sleep(0)
    assert max(taken) < max(SHORT, sum(taken) / 16)
    upstream.close()
