"""Many writers of one conversation: nothing is lost, nothing comes twice, and what belongs together stands
together, whatever the store, the size, and the number of processes.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from api import site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inputs import EVERYTHING, examples
from redis_server import RedisServer, redis_server
from scripted import say

from rproxy.errors import ApiError
from rproxy.service.conversations import Conversations
from rproxy.store import Store, open_store
from rproxy.store.time_limit import limit_store_time
from rproxy.store.write_behind import WriteBehindStore
from rproxy.types import Json

pytestmark = pytest.mark.timeout(seconds=180)

ROOT = Path(__file__).resolve().parent.parent
LIMITS: Json = {"max_responses": 10_000, "max_bytes": 1 << 28, "ttl": 3600.0}
KINDS = ["memory", "sqlite", "redis"]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def where(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("redis").url if kind == "redis" else folder / "r.db")


def opened(kind: str, place: str) -> Store:
    return open_store(kind, place if kind == "sqlite" else None, place if kind == "redis" else None, **LIMITS)


_stems = itertools.count(1)


def stem() -> str:
    return f"{next(_stems):032x}"


def conversations(store: Store) -> Conversations:
    return Conversations(WriteBehindStore(store), stem, lambda: 1790000000.0)


def message(text: str) -> Json:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def texts(items: List[Json]) -> List[str]:
    return [item["content"][0]["text"].strip() for item in items]


# ---- Size
@pytest.mark.parametrize(
    "kind,megabytes",
    [("memory", 1), ("memory", 8), ("sqlite", 1), ("sqlite", 4), ("redis", 1), ("redis", 4)]
    if EVERYTHING
    else [("memory", 2), ("sqlite", 2), ("redis", 2)],
)
async def test_concurrent_requests_add_to_a_large_conversation(
    kind: str, megabytes: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A large one takes a while to be written as JSON, in which others run."""
    store = opened(kind, where(kind, tmp_path, request))
    talks = conversations(store)
    # As many items as make it several slices of work.
    pieces = [message("x" * (megabytes << 20 >> 5)) for _ in range(32)]
    name = "conv_" + stem()
    record = {
        "conversation": {"id": name, "object": "conversation", "created_at": 1, "metadata": {}},
        "items": [{**piece, "id": f"msg_{n}"} for n, piece in enumerate(pieces)],
        "owner": "",
    }
    limit_store_time(60.0)  # the machine may be busy; how long is tested elsewhere
    await store.put(name, record)
    await asyncio.gather(
        *(talks.add(name, {"items": [message(f"{n}a"), message(f"{n}b")]}, "") for n in range(10))
    )
    found = texts(await talks.past(name, ""))[32:]
    assert sorted(found) == sorted(f"{n}{half}" for n in range(10) for half in "ab")
    assert all(found[at + 1] == found[at][:-1] + "b" for at in range(0, 20, 2))
    await store.close()


# ---- Any order of work
# A step of a writer: how many items it adds; or -1: it deletes its last item; 0: it changes the metadata.
STEPS = st.lists(st.integers(-1, 4), min_size=1, max_size=6)


class Writer:
    """One client, or one turn after the other (``turns``), in a conversation."""

    def __init__(self, number: int, talks: Conversations, turns: bool) -> None:
        self.number, self._talks, self._turns = number, talks, turns
        self.blocks: List[List[str]] = []  # what was acknowledged
        self.ids: Dict[str, str] = {}

    async def work(self, name: str, steps: List[int]) -> None:
        for place, count in enumerate(steps):
            if count == 0:
                await self._talks.update(name, {"metadata": {"writer": str(self.number)}}, "")
            elif count < 0:
                await self._delete_last(name)
            else:
                await self._add(name, [f"{self.number}.{place}.{n}" for n in range(count)])

    async def _add(self, name: str, block: List[str]) -> None:
        new = [{**message(text), "id": f"msg_{text}"} for text in block]
        if self._turns:
            assert await self._talks.append(name, new, "") is None
        else:
            assert texts((await self._talks.add(name, {"items": new}, ""))["data"]) == block
        self.blocks.append(block)

    async def _delete_last(self, name: str) -> None:
        if self.blocks and self.blocks[-1]:
            await self._talks.delete_item(name, f"msg_{self.blocks[-1].pop()}", "")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=st.lists(st.tuples(st.booleans(), STEPS), min_size=2, max_size=6), data=st.data())
def test_whatever_writers_do_at_once(
    kind: str, plans: List[Tuple[bool, List[int]]], data: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Two stores in one place are two processes."""

    async def main() -> None:
        stores = [opened(kind, where(kind, tmp_path, request)) for _ in range(1 if kind == "memory" else 2)]
        edges = [conversations(store) for store in stores]
        name = (await edges[0].create({}, ""))["id"]
        writers = [Writer(n, edges[n % len(edges)], turns) for n, (turns, _) in enumerate(plans)]
        await asyncio.gather(*(writer.work(name, steps) for writer, (_, steps) in zip(writers, plans)))
        found = texts(await edges[-1].past(name, ""))
        check(found, writers)
        for store in stores:
            await store.close()

    asyncio.run(main())


def check(found: List[str], writers: List[Writer]) -> None:
    """Is this what one order of all that the writers did would leave?"""
    blocks = [[block for block in writer.blocks if block] for writer in writers]
    assert sorted(found) == sorted(text for one in blocks for block in one for text in block)
    for one in blocks:
        starts = [found.index(block[0]) for block in one]
        assert starts == sorted(starts), "the order of one writer's own work"
        for start, block in zip(starts, one):
            assert found[start : start + len(block)] == block, "a block is in pieces"


# ---- Over HTTP
@pytest.mark.parametrize("kind", KINDS)
async def test_turns_requests_and_deletions_at_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = where(kind, tmp_path, request)
    more = {"memory": "", "sqlite": f"path: '{place}'", "redis": f"url: '{place}'"}[kind]
    async with site(tmp_path, more=f"store: {{{{kind: {kind}, {more}}}}}\n") as (provider, api, _):
        provider.aside = lambda body: [say("answer to " + body["messages"][-1]["content"])]
        talk = (await api("POST", "/conversations", {"items": [message("first")]}))["id"]
        path, body = f"/conversations/{talk}/items", {"model": "gpt-5.5", "conversation": talk}
        first = (await api("GET", path))["data"][0]["id"]

        async def turn(number: int) -> None:
            made = await api("POST", "/responses", {**body, "input": f"turn {number}"})
            assert made["status"] == "completed"

        await asyncio.gather(
            *(turn(number) for number in range(12)),
            *(api("POST", path, {"items": [message(f"{n} a"), message(f"{n} b")]}) for n in range(12)),
            api("DELETE", f"{path}/{first}"),
        )
        found = texts((await api("GET", path + "?order=asc&limit=100"))["data"])
        pairs = [(found[at], found[at + 1]) for at in range(0, len(found), 2)]
        assert sorted(pairs) == sorted(
            [(f"turn {n}", f"answer to turn {n}") for n in range(12)]
            + [(f"{n} a", f"{n} b") for n in range(12)]
        )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_that_is_deleted_in_between(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It does not come back, whoever writes to it at that moment."""
    store = opened(kind, where(kind, tmp_path, request))
    talks = conversations(store)
    for round_ in range(20):
        name = (await talks.create({"items": [message("x" * 20_000)] * 20}, ""))["id"]
        works = [talks.add(name, {"items": [message("new")]}, "") for _ in range(4)]
        works.insert(round_ % 5, talks.delete(name, ""))
        for outcome in await asyncio.gather(*works, return_exceptions=True):
            assert isinstance(outcome, dict) or isinstance(outcome, ApiError) and outcome.status == 404, (
                outcome
            )
        with pytest.raises(ApiError):
            await talks.past(name, "")
    await store.close()


# ---- Several processes
# Adds blocks of three to the conversation argv[3] as writer argv[4], for ever, and tells what is done.
CHILD = """
import asyncio, itertools, sys
from rproxy.service.conversations import Conversations
from rproxy.store import open_store
from rproxy.store.time_limit import limit_store_time
from rproxy.store.write_behind import WriteBehindStore
async def main(kind, place, name, writer):
    store = open_store(kind, place if kind == "sqlite" else None, place if kind == "redis" else None,
                       max_responses=10_000, max_bytes=1 << 28, ttl=3600.0)
    talks = Conversations(WriteBehindStore(store), lambda: "0" * 32, lambda: 1.0)
    async def add(half, number):
        limit_store_time(30.0)
        block = [f"{writer}{half}.{number}.{place}" for place in range(3)]
        await talks.add(name, {"items": [{"role": "user", "content": text} for text in block]}, "")
        print(" ".join(block), flush=True)
    for number in itertools.count():
        await asyncio.gather(add("a", number), add("b", number))
asyncio.run(main(*sys.argv[1:]))
"""


def start(command: List[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_processes_that_are_killed_lose_nothing_that_was_acknowledged(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = where(kind, tmp_path, request)
    store = opened(kind, place)
    name = (await conversations(store).create({}, ""))["id"]
    command = [sys.executable, "-c", CHILD, kind, place, name]
    told: List[List[str]] = []
    chance = random.Random(17)
    for generation in range(2):
        writers = [start([*command, f"{generation}{n}"]) for n in range(3)]
        for writer in writers:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(chance.randrange(3, 12))]
            writer.send_signal(signal.SIGKILL)
            lines += list(writer.stdout)
            told += [line.split() for line in lines if line.endswith("\n")]
            writer.stdout.close()
            writer.wait(30)
    limit_store_time(60.0)
    found = texts(await conversations(store).past(name, ""))
    assert len(told) > 15 and all(len(block) == 3 for block in told)
    assert len(found) == len(set(found)), "something came twice"
    places = {text: at for at, text in enumerate(found)}
    for block in told:
        assert [found[places[block[0]] + n] for n in range(3)] == block
    assert len(found) % 3 == 0  # what was not acknowledged is whole, or not there
    await store.close()
    if kind == "sqlite":
        db = sqlite3.connect(place)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
