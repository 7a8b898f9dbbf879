"""Chains of ``previous_response_id``: what is remembered of them changes nothing but the work."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, cast

import pytest
from redis_server import redis_server
from tornado.ioloop import IOLoop

from rproxy.convert.ids import Ids
from rproxy.errors import ApiError
from rproxy.service.background import Background
from rproxy.service.client import Client
from rproxy.service.conversations import Conversations
from rproxy.service.create_request import CreateRequest
from rproxy.service.history import History
from rproxy.service.links import Link, RecentLinks, memory_of
from rproxy.store import Store, open_store
from rproxy.store.write_behind import WriteBehindStore
from rproxy.types import Json

TOOLS = [{"type": "function", "name": f"tool_{n}", "description": "x" * 2000} for n in range(15)]
TTL = 1000.0


class Owner:
    """Stands for an API key."""

    def __init__(self, owner: str) -> None:
        self.owner = owner


def client(owner: str = "k1") -> Client:
    return Client(cast(Any, Owner(owner)), False, "json", "req_1", {})


class Clock:
    def __init__(self) -> None:
        self.time = 1790000000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def stores(request: pytest.FixtureRequest, tmp_path: Path, io_loop: IOLoop) -> Iterator[Tuple[Store, Store]]:
    """Two stores with the same content, as two processes have them; in memory, one."""
    made = []
    clock = Clock()
    for _ in range(1 if request.param == "memory" else 2):
        url = request.getfixturevalue("redis_url") if request.param == "redis" else None
        path = str(tmp_path / "responses.db")
        store = open_store(
            request.param, path, url, max_responses=10_000, max_bytes=1 << 28, ttl=TTL, now=clock
        )
        cast(Any, store).clock = clock
        made.append(store)
    yield made[0], made[-1]
    for store in made:
        io_loop.asyncio_loop.run_until_complete(store.close())


class Process:
    """What a process does with chains.

    ``read``: how often it has asked the store for a record; ``asked``: for anything.
    """

    def __init__(self, store: Store, recent: Optional[RecentLinks] = None) -> None:
        self.read = self.asked = 0
        self.store = WriteBehindStore(self._counting(store))
        conversations = Conversations(self.store, lambda: "0" * 32, lambda: 0)
        self.history = History(self.store, conversations, Background(self.store, lambda: 0))
        if recent is not None:
            self.history._recent = recent

    def _counting(self, store: Store) -> Store:
        process = self

        class Counting(Store):
            name, instant = store.name, store.instant

            async def _read(self, record_id: str) -> Optional[bytes]:
                process.read += 1
                process.asked += 1
                return await store._read(record_id)

            async def _count(self, ids: Sequence[str]) -> int:
                process.asked += 1
                return await store._count(ids)

            async def _write(self, record_id: str, blob: bytes) -> None:
                await store._write(record_id, blob)

            async def _delete(self, record_id: str) -> bool:
                return await store._delete(record_id)

        return Counting()

    async def turn(self, number: int, previous: Optional[str], owner: str = "k1") -> str:
        """A turn that continues ``previous``. :returns: the id of its response"""
        body: Json = {"instructions": "y" * 3000, "tools": TOOLS}
        if previous is not None:
            body["previous_response_id"] = previous
        context = await self.history.context(body, None, client(owner))
        ids = Ids(f"{number:032x}")
        items = [{"role": "user", "content": f"question {number}"}]
        request = CreateRequest(body, cast(Any, None), context, cast(Any, items), ids, None, 0)
        output = [{"id": ids("msg"), "type": "message", "content": [{"text": f"answer {number}"}]}]
        response: Any = {"id": ids.response, "status": "completed", "output": output, **body}
        assert await self.history.keep(request, client(owner), response, 1) == []
        return ids.response

    async def past(self, previous: str, owner: str = "k1") -> Any:
        """What comes before a turn: the texts, or the error."""
        try:
            context = await self.history.context({"previous_response_id": previous}, None, client(owner))
        except ApiError as error:
            return error.code
        return [
            item["content"] if type(item["content"]) is str else item["content"][0]["text"]
            for item in context.items
        ]

    async def seen(self, response: str, owner: str = "k1") -> List[str]:
        return [item["content"][0]["text"] for item in await self.history.seen(response, owner)]


async def same_as_without_memory(stores: Tuple[Store, Store], seed: int, limits: List[int]) -> int:
    """Many steps of two processes, at random. :returns: how often a chain was whole"""
    dice, number, whole = random.Random(seed), 1000 * seed, 0
    processes = [Process(store, RecentLinks(*limits)) for store in stores]
    made: List[Tuple[str, str]] = []  # id, owner
    clock = cast(Any, stores[0]).clock
    for _ in range(150):
        process, number, owner = dice.choice(processes), number + 1, dice.choice(["k1", "k1", "k2"])
        step = dice.random()
        mine = [name for name, its_owner in made if its_owner == owner]
        if step < 0.6:
            previous = dice.choice(mine[-3:]) if mine and dice.random() < 0.9 else None
            if previous is None or isinstance(await process.past(previous, owner), list):
                made.append((await process.turn(number, previous, owner), owner))
        elif step < 0.65 and mine:
            await process.store.delete(dice.choice(mine))
        elif step < 0.68:
            clock.time += TTL / 8
        elif mine:
            name, asks = dice.choice(mine[-8:]), dice.choice(["k1", "k2"])
            fresh = Process(stores[0])
            expected = await fresh.past(name, asks)
            assert await process.past(name, asks) == expected
            assert await process.seen(name, asks) == await fresh.seen(name, asks)
            whole += type(expected) is list and len(expected) > 2
    return whole


@pytest.mark.parametrize("limits", [[], [6000, 3000], [0, 0]], ids=["ample", "tight", "none"])
async def test_chains_are_what_the_store_has(stores: Tuple[Store, Store], limits: List[int]) -> None:
    """Forks, deletions by the same and by another process, age, and other owners."""
    assert sum([await same_as_without_memory(stores, seed, limits) for seed in range(1, 5)]) > 20


async def test_a_turn_of_a_chain_asks_the_store_once_and_reads_nothing(stores: Tuple[Store, Store]) -> None:
    process, last = Process(stores[0]), None
    asked: List[Tuple[int, int]] = []
    for number in range(40):
        before = process.read, process.asked
        last = await process.turn(number, last)
        asked.append((process.read - before[0], process.asked - before[1]))
    assert asked == [(0, 0), (1, 1), *[(0, 1)] * 38]
    assert await process.past(cast(str, last)) == [
        text for number in range(40) for text in (f"question {number}", f"answer {number}")
    ]


async def test_a_turn_reads_only_what_another_process_has_added(stores: Tuple[Store, Store]) -> None:
    one, other, last = Process(stores[0]), Process(stores[1]), None
    for number in range(20):
        last = await one.turn(2 * number, last)
        last = await other.turn(2 * number + 1, last)
    assert one.read + other.read == 40 and one.asked + other.asked < 80


@pytest.mark.parametrize("where", [0, 10, 19])
async def test_a_response_that_another_process_deletes_ends_the_chain(
    stores: Tuple[Store, Store], where: int
) -> None:
    one, other = Process(stores[0]), Process(stores[1])
    names: List[str] = []
    for number in range(20):
        names.append(await one.turn(number, names[-1] if names else None))
    assert len(await one.past(names[-1])) == 40
    await other.store.delete(names[where])
    for _ in range(2):
        assert await one.past(names[-1]) == "previous_response_not_found"
        assert len(await one.seen(names[-1])) == (0 if where == 19 else 1)
        assert where == 0 or len(await one.past(names[where - 1])) == 2 * where


def link(number: int, owner: str = "k1", text: str = "x" * 1000, status: str = "completed") -> Link:
    return Link(f"resp_{number}", status, [{"content": text}], [], None, None, owner)


def test_the_memory_of_links_is_bounded_in_all_and_for_each_owner() -> None:
    size = memory_of([link(1).input, []])
    assert 1000 < size < 2000
    recent = RecentLinks(10 * size, 4 * size)
    recent.remember("k1", [link(n) for n in range(6)])
    assert [n for n in range(6) if recent.get(f"resp_{n}", "k1")] == [2, 3, 4, 5]
    recent.remember("k1", [link(2)])
    recent.remember("k1", [link(6)])
    assert [n for n in range(7) if recent.get(f"resp_{n}", "k1")] == [2, 4, 5, 6]
    assert recent.bytes == 4 * size and recent.get("resp_2", "k2") is None
    for owner in ("k2", "k3", "k4"):  # the owners that are not there any more make room
        recent.remember(owner, [link(n, owner) for n in range(3)])
    assert recent.bytes == 10 * size
    left: Dict[str, int] = {
        owner: sum(recent.get(f"resp_{n}", owner) is not None for n in range(7))
        for owner in ("k1", "k2", "k3", "k4")
    }
    assert left == {"k1": 1, "k2": 3, "k3": 3, "k4": 3}
    recent.forget("k2", ["resp_0", "resp_1", "resp_2", "resp_9"])
    recent.forget("k5", ["resp_0"])
    assert recent.bytes == 7 * size and recent.get("resp_0", "k2") is None
    recent.remember("k1", [link(9, text="x" * 10_000)])
    assert recent.bytes == 6 * size and not any(recent.get(f"resp_{n}", "k1") for n in range(10))


def test_only_what_cannot_change_is_remembered() -> None:
    recent = RecentLinks()
    recent.remember("k1", [link(1, status="queued"), link(2, status="cancelled"), link(3, status="failed")])
    assert recent.bytes == 0
    recent.remember("k1", [link(4, status="incomplete")])
    assert recent.get("resp_4", "k1") is not None
