"""Chains of ``previous_response_id``: what is remembered of them changes nothing but the work."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, cast

import pytest
from inputs import EVERYTHING
from redis_server import redis_server
from scripted import CONFIG, KEY, ScriptedProvider, say
from tornado.ioloop import IOLoop

from rproxy.config.load import parse_config
from rproxy.convert.events.response import response_object, shared_response
from rproxy.convert.ids import Ids
from rproxy.convert.json_steps import is_large
from rproxy.errors import ApiError
from rproxy.service.background import Background
from rproxy.service.client import Client
from rproxy.service.conversations import Conversations
from rproxy.service.create_request import CreateRequest
from rproxy.service.history import History
from rproxy.service.links import LINK_BYTES, Link, RecentLinks, link_of
from rproxy.service.pagination import page
from rproxy.service.service import Service
from rproxy.store import Store, encode, encoding, open_store
from rproxy.store.encoding import decode, encode_cooperatively
from rproxy.store.write_behind import WriteBehindStore
from rproxy.types import Json
from rproxy.upstream.client import Upstream

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
        seen = await page(await self.history.seen(response, owner), {"order": "asc", "limit": "100"})
        return [item["content"][0]["text"] for item in seen["data"]]


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
    seeds = range(1, 5 if EVERYTHING else 2)
    assert sum([await same_as_without_memory(stores, seed, limits) for seed in seeds]) > 5 * len(seeds)


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


# ---- What a response repeats of its request is not decoded for a chain
NESTED = {
    "instructions": "y" * 3000,
    "tools": TOOLS,
    "cut": [1, 2, 3],
    "output": [],
    "service_tier": "default",
}
OUTPUTS: List[List[Json]] = [
    [],
    [{"id": "msg_1", "type": "message", "content": [{"text": 'Grüße 🎯 \ud800 ,"tools":[', "logprobs": []}]}],
    [{"id": "sh_1", "type": "shell_call", "action": NESTED}],
]


def stored_record(output: List[Json], instructions: Any, tools: List[Json], **more: Any) -> Any:
    request = {"model": "m", "instructions": instructions, "tools": tools, "user": ',"cut":[1,2,3]}'}
    response: Json = dict(response_object(request, id="resp_1", created_at=1))
    response.update(output=output, status="completed")
    record = {"response": shared_response(cast(Any, response)), "input": [{"content": NESTED}], "owner": "k1"}
    return {**record, "previous": "resp_0", "conversation": None, **more}


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("output", OUTPUTS, ids=["empty", "text", "nested"])
@pytest.mark.parametrize("instructions", [None, "short", "y" * 3000], ids=["none", "short", "long"])
@pytest.mark.parametrize("tools", [[], TOOLS[:1], TOOLS], ids=["none", "one", "many"])
async def test_a_record_is_the_same_briefly(output: List[Json], instructions: Any, tools: List[Json]) -> None:
    record = stored_record(output, instructions, tools, last=7)
    store = open_store("memory", max_responses=10, max_bytes=1 << 24, ttl=TTL)
    await store.put("resp_1", record)
    whole, brief = await store.get("resp_1"), await store.get_brief("resp_1")
    assert whole is not None and brief is not None
    text = json.dumps(plain(record))
    assert json.dumps(whole) == (text.replace("\\ud800", "\\ufffd") if "\\ud800" in text else text)
    saved = len(json.dumps(whole)) - len(json.dumps(brief))
    assert saved > (3000 if instructions and len(instructions) > 5 else 0) + 2000 * len(tools) - 200
    for response in (whole["response"], brief["response"]):
        for name in ("instructions", "tools", "top_p", "user", "metadata", "truncation", "text", "reasoning"):
            response.pop(name, None)
    assert {key: brief["response"][key] for key in ("id", "status", "output")} == {
        key: whole["response"][key] for key in ("id", "status", "output")
    }
    assert {**brief, "response": 0} == {**whole, "response": 0}


async def test_records_of_other_versions_are_read_as_a_whole() -> None:
    record = stored_record(OUTPUTS[2], "y" * 3000, TOOLS)
    blob = await encode_cooperatively("resp_1", record)
    assert b',"cut":[' in blob[-40:]
    old = encode("resp_1", plain(record))  # without "cut"
    assert await decode("resp_1", old, brief=True) == await decode("resp_1", blob) == plain(record)
    changed = json.loads(blob)  # by a program that keeps what it does not know
    changed["response"]["output"] += changed["response"]["output"]
    kept = encode("resp_1", changed)
    assert (await decode("resp_1", kept, brief=True) or {})["response"] == changed["response"]
    for cut in (b"[5,4,%d]", b"[0,9999999,%d]", b"[1,2,3]"):
        spoilt = old[:-1] + b',"cut":' + (cut % (len(old) - 1) if b"%d" in cut else cut) + b"}"
        assert await decode("resp_1", spoilt, brief=True) == plain(record)


async def test_what_a_turn_of_a_cold_chain_decodes_is_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: List[int] = []
    parse = encoding._parse
    monkeypatch.setattr(encoding, "_parse", lambda text: decoded.append(len(text)) or parse(text))
    provider = ScriptedProvider()
    text = CONFIG.format(port=0, base_url=provider.base_url, server="").encode()
    config = parse_config(text, "c", {"SCRIPTED_KEY": KEY})
    upstream, store = Upstream(), open_store("memory", max_responses=100, max_bytes=1 << 28, ttl=TTL)
    last: Optional[str] = None
    for number in range(10):
        service = Service(config, upstream, store)  # one that has seen nothing yet
        provider.turns.append([say("Well.")])
        body: Json = {
            "model": "gpt-5.5",
            "input": f"question {number}",
            "instructions": "y" * 3000,
            "tools": TOOLS,
        }
        decoded.clear()
        asks = Client(None, False, "json", "req_1", {})
        turn = await service.create({**body, **({"previous_response_id": last} if last else {})}, asks, None)
        last = turn.response["id"]
        assert len(decoded) == number and all(size < 1500 for size in decoded)
        decoded.clear()
        assert len((await service.retrieval.retrieve(last, ""))["tools"]) == len(TOOLS)
        assert decoded[0] > 30_000
        await service.close()
    assert len(provider.requests[-1]["messages"]) == 1 + 2 * 10 - 1
    upstream.close()
    await provider.close()


# ---- The memory of links
def link(number: int, owner: str = "k1", text: str = "x" * 1000, status: str = "completed") -> Link:
    response = {"id": f"resp_{number}", "status": status, "output": []}
    record = cast(Any, {"response": response, "input": [{"content": text}], "owner": owner})
    return asyncio.run(link_of(record))


def test_the_memory_of_links_is_bounded_in_all_and_for_each_owner() -> None:
    size = link(1).size
    assert 1500 < size < 2500
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
    recent.remember("k1", [link(9, text="x" * 10_000)])  # too large, which costs the others nothing
    assert recent.bytes == 7 * size and recent.get("resp_9", "k1") is None


def test_the_size_of_a_link_is_more_than_its_characters() -> None:
    response = {"id": "r", "status": "", "output": []}
    values = [{"k" * 90: "v" * 70}, {"": ""}, [None] * 50, [0.5] * 50, ["é" * 10, {"a": [[], {}]}], "x" * 200]
    for value in values:
        found = asyncio.run(link_of(cast(Any, {"response": response, "input": [value], "owner": ""})))
        assert not is_large([value], found.size - LINK_BYTES) and is_large([value], found.size // 40)


def test_only_what_cannot_change_is_remembered() -> None:
    recent = RecentLinks()
    recent.remember("k1", [link(1, status="queued"), link(2, status="cancelled"), link(3, status="failed")])
    assert recent.bytes == 0
    recent.remember("k1", [link(4, status="incomplete")])
    assert recent.get("resp_4", "k1") is not None
