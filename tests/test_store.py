"""Response stores: one table of tests for memory, sqlite and a real Redis; then what only one of them
promises.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest
from redis_server import redis_server
from tornado.ioloop import IOLoop

from rproxy.convert import json_reader
from rproxy.errors import ConfigError, StoreError
from rproxy.store import Store, encode, encoding, redis, sqlite, valid_id
from rproxy.store import open_store as open_any_store
from rproxy.store.memory import MemoryStore
from rproxy.store.time_limit import limit_store_time
from rproxy.store.write_behind import WriteBehindStore
from rproxy.types import Json

PIECE = 1000  # bytes of a large record that are read and written together, in some tests
ROOT = Path(__file__).resolve().parent.parent
RECORD = {
    "response": {"id": "resp_1", "output": [{"text": "Grüße 🎯 \ud800 \u0000"}]},
    "input": [{"n": 1.5, "x": None}],
    "owner": "k1",
}
# a record of 100 kB, cut; the start of a zip file; JSON of other kinds, and too deep
DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"n": 1} {}',
    b"\xff\xfe",
    b"PK\x03\x04\0\0",
    b"[" * 100_000,
    b'{"input":[' + b'{"text":"x"},' * 8000,
    b'{"a":' * 100_000,
]
BAD_IDS = ["", "a/b", "../x", "a b", "a\n", "ä", "x" * 129, "a:b", "*", "a\0"]

# A process that does what the arguments say with the store in the file argv[1].
CHILD = """
import asyncio, sys
from rproxy.store import open_store
async def main(path, command, *ids):
    store = open_store("sqlite", path, max_responses=10_000, max_bytes=1 << 28, ttl=3600.0)
    for n in range(10**9 if command == "forever" else 1):
        for one in ids:
            key = one + str(n) if command == "forever" else one
            if command == "get":
                print((await store.get(key) or {}).get("n"), flush=True)
            else:
                await store.put(key, {"n": key, "pad": "x" * 20000})
                print(key, flush=True)
    await store.close()
asyncio.run(main(*sys.argv[1:]))
"""


def open_store(kind: str, path: Optional[str] = None, url: Optional[str] = None, **limits: Any) -> Store:
    """A store with limits that do not matter, but for the given ones."""
    return open_any_store(
        kind, path, url, **{"max_responses": 10_000, "max_bytes": 1 << 28, "ttl": 3600.0, **limits}
    )


class Clock:
    """Unix time that a test turns by hand."""

    def __init__(self) -> None:
        self.time = 1790000000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis of our own."""
    with redis_server() as server:
        yield server.url


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path, io_loop: IOLoop) -> Iterator[Callable[..., Store]]:
    """Makes stores of the kind that ``request.param`` names, all with the same content; closes them at the
    end.
    """
    made: List[Store] = []

    def open_one(**limits: Any) -> Store:
        kind = request.param
        url = request.getfixturevalue("redis_url") if kind == "redis" else None
        store = open_store(
            kind, str(tmp_path / "deep" / "responses.db") if kind == "sqlite" else None, url, **limits
        )
        made.append(store)
        return store

    yield open_one
    for store in made:
        io_loop.asyncio_loop.run_until_complete(store.close())


every_store = pytest.mark.parametrize("make", ["memory", "sqlite", "redis"], indirect=True)
shared_store = pytest.mark.parametrize("make", ["sqlite", "redis"], indirect=True)
own_store = pytest.mark.parametrize("make", ["memory", "sqlite"], indirect=True)
sqlite_store = pytest.mark.parametrize("make", ["sqlite"], indirect=True)


# ---- every store
@every_store
async def test_what_is_put_is_got(make: Callable[..., Store]) -> None:
    store = make()
    assert await store.get("resp_1") is None
    await store.put("resp_1", RECORD)
    assert await store.get("resp_1") == RECORD
    await store.put("resp_1", {"n": 2})
    assert await store.get("resp_1") == {"n": 2}
    assert await store.delete("resp_1") is True
    assert await store.delete("resp_1") is False
    assert await store.get("resp_1") is None


@every_store
async def test_a_record_is_a_copy(make: Callable[..., Store]) -> None:
    store = make()
    record = {"input": [1]}
    await store.put("resp_copy", record)
    record["input"].append(2)
    first = await store.get("resp_copy")
    assert first == {"input": [1]}
    first["input"].append(3)
    assert await store.get("resp_copy") == {"input": [1]}


@every_store
async def test_updates_do_not_lose_each_other(make: Callable[..., Store]) -> None:
    shared = "Memory" not in type(make()).__name__
    stores = [make(), make()] if shared else [make()]
    assert await stores[0].update("resp_n", dict) is None
    await stores[0].put("resp_n", {"n": 0})
    await asyncio.gather(
        *(
            store.update("resp_n", lambda record: {"n": record["n"] + 1})
            for _ in range(20)
            for store in stores
        )
    )
    assert await stores[-1].get("resp_n") == {"n": 20 * len(stores)}
    assert await stores[0].update("no id", dict) is None

    def fail(record: Json) -> Json:
        raise StoreError("no")

    with pytest.raises(StoreError):
        await stores[0].update("resp_n", fail)
    assert await stores[0].update("resp_n", lambda record: {"n": -1}) == {"n": -1}


@every_store
async def test_updates_of_a_large_record_do_not_lose_each_other(make: Callable[..., Store]) -> None:
    """Writing it as JSON takes a while, in which others run."""
    store = make()
    await store.put("resp_n", {"items": [{"text": "x" * 1000}] * 2000})

    def change(record: Json) -> Json:
        return {"items": [*record["items"], {}]}

    await asyncio.gather(*(store.update("resp_n", change) for _ in range(4)))
    record = await store.get("resp_n")
    assert record is not None and len(record["items"]) == 2004


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (sqlite, redis):
        monkeypatch.setattr(kind, "PIECE", PIECE)


def of_size(size: int, of: str = "x") -> Json:
    """A record whose stored form has this many bytes."""
    record = {"response": of * (size - len(encode("r", {"response": ""})))}
    assert len(encode("r", record)) == size
    return record


@every_store
@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE + 7])
async def test_records_of_several_pieces(make: Callable[..., Store], small_pieces: None, size: int) -> None:
    store, large = make(), of_size(size)
    await store.put("resp_n", large)
    assert await store.get("resp_n") == large
    for new in (of_size(size + 1), of_size(size + PIECE), {"n": 1}, large, of_size(size - 1)):
        assert await store.update("resp_n", lambda record: new) == new  # noqa: B023
        assert await store.get("resp_n") == new
    await store.put("resp_n", {"n": 1})
    assert await store.get("resp_n") == {"n": 1}
    await store.put("resp_n", large)
    assert await store.delete("resp_n") is True
    assert await store.get("resp_n") is None and await store.delete("resp_n") is False


@shared_store
async def test_writers_and_readers_of_several_pieces(make: Callable[..., Store], small_pieces: None) -> None:
    """Who reads finds one whole record, and no change is lost, whoever else writes."""
    stores = [make(), make()]
    await stores[0].put("resp_n", {"n": 0, "text": "0" * 5 * PIECE})

    def change(record: Json) -> Json:
        n = record["n"] + 1
        return {"n": n, "text": str(n % 10) * 5 * PIECE}

    async def read() -> None:
        for _ in range(20):
            record = await stores[1].get("resp_n")
            assert record is not None and record["text"] == str(record["n"] % 10) * 5 * PIECE

    await asyncio.gather(
        *(store.update("resp_n", change) for _ in range(5) for store in stores), *(read() for _ in range(3))
    )
    record = await stores[0].get("resp_n")
    assert record is not None and record["n"] == 10


@every_store
@pytest.mark.parametrize("bad", BAD_IDS)
async def test_what_is_no_id_is_never_looked_up(make: Callable[..., Store], bad: str) -> None:
    store = make()
    assert not valid_id(bad)
    assert await store.get(bad) is None
    assert await store.delete(bad) is False
    with pytest.raises(StoreError, match="not an id"):
        await store.put(bad, {})


@every_store
async def test_what_is_no_json_is_refused(make: Callable[..., Store]) -> None:
    store = make()
    with pytest.raises(StoreError, match="resp_odd"):
        await store.put("resp_odd", {"x": object()})
    assert await store.get("resp_odd") is None


@every_store
async def test_many_at_once(make: Callable[..., Store]) -> None:
    store = make()
    await asyncio.gather(*(store.put(f"resp_{n}", {"n": n}) for n in range(200)))
    assert await asyncio.gather(*(store.get(f"resp_{n}") for n in range(200))) == [
        {"n": n} for n in range(200)
    ]


@every_store
async def test_age(make: Callable[..., Store]) -> None:
    store = make(ttl=1.0)
    began = time.monotonic()
    await store.put("resp_old", {"n": 1})
    assert await store.get("resp_old") == {"n": 1}
    while await store.get("resp_old") is not None:
        assert time.monotonic() - began < 20
        await asyncio.sleep(0.02)
    assert time.monotonic() - began > 0.9
    assert await store.delete("resp_old") is False


@shared_store
async def test_two_stores_continue_each_other(make: Callable[..., Store]) -> None:
    one, two = make(), make()
    await one.put("resp_a", {"n": 1})
    assert await two.get("resp_a") == {"n": 1}
    await two.put("resp_b", {"n": 2})
    await two.close()
    assert await one.get("resp_b") == {"n": 2}


# ---- bounds that the store keeps itself
@own_store
async def test_number(make: Callable[..., Store]) -> None:
    clock = Clock()
    store = make(max_responses=3, now=clock)
    for n in range(5):
        clock.time += 61  # sqlite sweeps once a minute
        await store.put(f"resp_{n}", {"n": n})
    assert [n for n in range(5) if await store.get(f"resp_{n}")] == [2, 3, 4]


@own_store
async def test_bytes(make: Callable[..., Store]) -> None:
    clock = Clock()
    store = make(max_bytes=1000, now=clock)
    for n in range(5):
        clock.time += 61
        await store.put(f"resp_{n}", {"pad": "x" * 300})
    assert [n for n in range(5) if await store.get(f"resp_{n}")] == [2, 3, 4]
    with pytest.raises(StoreError, match="max_bytes"):
        await store.put("resp_4", {"pad": "x" * 1000})
    assert await store.get("resp_4") is not None


@own_store
async def test_the_old_are_forgotten(make: Callable[..., Store]) -> None:
    clock = Clock()
    store = make(ttl=10, now=clock)
    await store.put("resp_1", {"n": 1})
    clock.time += 6
    await store.put("resp_2", {"n": 2})
    await store.get("resp_1")  # being read makes it no younger
    clock.time += 6
    assert [await store.get("resp_1"), await store.get("resp_2")] == [None, {"n": 2}]


async def test_memory_keeps_what_is_used() -> None:
    store = open_store("memory", max_responses=2)
    await store.put("a", {})
    await store.put("b", {})
    await store.get("a")
    await store.put("c", {})
    assert [await store.get(i) for i in "abc"] == [{}, None, {}]
    await store.close()
    assert await store.get("a") is None


async def test_memory_is_quick_with_many() -> None:
    store = open_store("memory", max_responses=5000)
    began = time.process_time()
    for n in range(20000):
        await store.put(f"resp_{n}", {"n": n})
        await store.get(f"resp_{max(0, n - 4000)}")
    assert time.process_time() - began < 3


# ---- sqlite
@sqlite_store
async def test_sqlite_sweeps_while_it_writes(make: Callable[..., Store], tmp_path: Path) -> None:
    clock = Clock()
    store = make(ttl=100, now=clock)
    await store.put("resp_1", {})
    clock.time += 101
    await store.put("resp_2", {})
    with sqlite3.connect(str(tmp_path / "deep" / "responses.db")) as db:
        assert db.execute("SELECT id FROM responses").fetchall() == [("resp_2",)]
    db.close()


@sqlite_store
async def test_sqlite_file_is_private(make: Callable[..., Store], tmp_path: Path) -> None:
    await make().put("resp_1", {})
    for name in os.listdir(tmp_path / "deep"):
        assert stat.S_IMODE(os.stat(tmp_path / "deep" / name).st_mode) == 0o600, name
    assert stat.S_IMODE(os.stat(tmp_path / "deep").st_mode) == 0o700


@sqlite_store
async def test_sqlite_never_holds_the_loop(make: Callable[..., Store], tmp_path: Path) -> None:
    store = make()
    other = sqlite3.connect(str(tmp_path / "deep" / "responses.db"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    put = asyncio.ensure_future(store.put("resp_1", {}))
    for _ in range(10):  # were the loop held, the write would have failed after the first round
        await asyncio.sleep(0.005)
        assert not put.done()
    other.execute("COMMIT")
    other.close()
    await put
    assert await store.get("resp_1") == {}


@sqlite_store
@pytest.mark.skipif(not sqlite.PIECES, reason="sqlite3 reads and writes blobs in pieces from Python 3.11 on")
async def test_sqlite_copies_large_records_in_pieces(
    make: Callable[..., Store], small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is a value of a statement or of its result is copied by the interpreter as a whole."""
    values: List[Any] = []

    class Observed(sqlite3.Connection):
        def execute(self, query: str, parameters: Any = ()) -> sqlite3.Cursor:
            values.extend(parameters)
            return super().execute(query, parameters)

    def note(cursor: sqlite3.Cursor, row: Any) -> Any:
        values.extend(row)
        return row

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        db = real(*args, factory=Observed, **options)
        db.row_factory = note
        return db

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    store = make()
    await store.put("resp_small", of_size(PIECE))
    assert PIECE in {len(value) for value in values if isinstance(value, bytes)}
    await store.put("resp_n", of_size(5 * PIECE))
    assert await store.get("resp_n") == of_size(5 * PIECE)
    await store.update("resp_n", lambda record: of_size(6 * PIECE))
    assert await store.get("resp_n") == of_size(6 * PIECE)
    assert max(len(value) for value in values if isinstance(value, bytes)) == PIECE


@sqlite_store
async def test_sqlite_after_close(make: Callable[..., Store]) -> None:
    store = make()
    await store.close()
    await store.close()
    for work in (store.get("resp_1"), store.put("resp_1", {}), store.delete("resp_1")):
        with pytest.raises(StoreError, match="responses.db"):
            await work


@sqlite_store
async def test_a_damaged_record_in_sqlite_counts_as_missing(
    make: Callable[..., Store], tmp_path: Path, expect_log: Callable[..., Any]
) -> None:
    expect_log("record resp_1 is damaged and counts as missing")
    store = make()
    await store.put("resp_1", {"n": 1})
    db = sqlite3.connect(str(tmp_path / "deep" / "responses.db"), isolation_level=None)
    for value in DAMAGED + ["text", "", 17, 1.5]:
        db.execute("UPDATE responses SET record = ?", (value,))
        assert await store.get("resp_1") is None
        assert await store.update("resp_1", dict) is None
    await store.put("resp_1", {"n": 2})
    assert await store.get("resp_1") == {"n": 2}
    db.execute("UPDATE responses SET record = ?", ('{"n": 3}',))  # somebody's repair
    assert await store.get("resp_1") == {"n": 3}
    db.execute("DROP TABLE responses")
    db.close()
    with pytest.raises(StoreError, match="no such table"):
        await store.put("resp_1", {})


def test_sqlite_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    newer, other = tmp_path / "newer.db", tmp_path / "other.db"
    db = sqlite3.connect(str(newer))
    db.execute("PRAGMA user_version = 99")
    db.close()
    other.write_bytes(b"this is a letter, not a database" * 100)
    for path, words in (
        (newer, "newer rproxy"),
        (other, "not a database"),
        (tmp_path, "directory"),
        (other / "x.db", "other.db"),
    ):
        with pytest.raises(ConfigError, match=words):
            open_store("sqlite", str(path))


def child(path: Path, command: str, *ids: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), command, *ids],
        stdout=subprocess.PIPE,
        text=True,
        cwd=str(ROOT),
    )


async def test_sqlite_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    acknowledged: List[str] = []
    for run in ("a", "b", "c"):
        with child(path, "forever", run) as process:
            assert process.stdout is not None
            for _ in range(40):
                acknowledged.append(process.stdout.readline().strip())
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    store = open_store("sqlite", str(path))
    assert len(acknowledged) >= 120 and all(acknowledged)
    for key in acknowledged:
        record = await store.get(key)
        assert record is not None and record["n"] == key
    await store.close()
    db = sqlite3.connect(str(path))
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


async def test_sqlite_is_shared_by_processes(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    writers = [
        child(path, "put", *(f"p{n}_{i}" for i in range(30))) for n in range(4)
    ]  # they also make the file at once
    for writer in writers:
        assert len(writer.communicate(timeout=60)[0].split()) == 30 and writer.returncode == 0
    store = open_store("sqlite", str(path))
    for n in range(4):
        assert await store.get(f"p{n}_29") is not None
    await store.put("mine", {"n": "from the parent"})
    with child(path, "get", "mine", "p0_0", "nobody") as reader:
        assert reader.communicate(timeout=60)[0].splitlines() == ["from the parent", "p0_0", "None"]
    await store.close()


# ---- redis
async def test_redis_that_does_not_answer(redis_url: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = open_store("redis", url=f"redis://user:hush@127.0.0.1:{port}/0")
    began = time.perf_counter()
    for work in (store.get("resp_1"), store.put("resp_1", {}), store.delete("resp_1")):
        with pytest.raises(StoreError, match="redis store redis://127.0.0.1") as caught:
            await work
        assert "hush" not in str(caught.value)
    assert time.perf_counter() - began < 2
    await store.close()


async def test_redis_keys_are_prefixed_and_expire(redis_url: str) -> None:
    import redis.asyncio as redis

    store = open_store("redis", url=redis_url, ttl=60)
    await store.put("resp_key", {"n": 1})
    client = redis.Redis.from_url(redis_url)
    assert await client.get("rproxy:response:resp_key") == encode("resp_key", {"n": 1})
    assert 0 < await client.pttl("rproxy:response:resp_key") <= 60000
    await client.aclose()
    await store.close()


async def test_redis_gets_large_records_in_pieces(redis_url: str, small_pieces: None) -> None:
    from redis.asyncio import Redis

    store, client = open_store("redis", url=redis_url, ttl=60), Redis.from_url(redis_url)
    await client.config_resetstat()
    await store.put("resp_n", of_size(5 * PIECE))
    assert await store.get("resp_n") == of_size(5 * PIECE)
    await store.update("resp_n", lambda record: of_size(6 * PIECE))
    asked = await client.info("commandstats")
    assert asked["cmdstat_append"]["calls"] == 4 + 5
    assert asked["cmdstat_set"]["calls"] == 2
    assert not {"cmdstat_get", "cmdstat_eval"} & asked.keys()
    assert 30_000 < await client.pttl("rproxy:response:resp_n") <= 60_000
    assert await client.keys("rproxy:response:resp_n*") == [b"rproxy:response:resp_n"]  # nothing is left
    await client.aclose()
    await store.close()


@pytest.mark.parametrize("event", ["expired", "changed"])
async def test_redis_does_not_mix_two_records(
    redis_url: str, small_pieces: None, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens between two pieces of a record is noticed."""
    from redis.asyncio import Redis

    store, client = open_store("redis", url=redis_url), Redis.from_url(redis_url)
    other = open_store("redis", url=redis_url)
    key, pieces = "rproxy:response:resp_n", redis._pieces
    times: List[int] = []

    async def slow_pieces(client: Any, key: str) -> Any:
        async for piece in pieces(client, key):
            yield piece
            if not times:
                times.append(1)
                if event == "changed":
                    await other.put("resp_n", of_size(6 * PIECE, "y"))
                else:
                    await client.execute_command("PEXPIRE", key, 1)
                    await asyncio.sleep(0.01)

    monkeypatch.setattr(redis, "_pieces", slow_pieces)
    await store.put("resp_n", of_size(5 * PIECE))
    assert await store.get("resp_n") == (of_size(6 * PIECE, "y") if event == "changed" else None)
    times.clear()
    await store.put("resp_n", of_size(5 * PIECE))
    changed = await store.update("resp_n", lambda record: {**record, "n": 1})
    assert (changed is None) == (event == "expired")
    found = await client.get(key)
    assert found == (encode("r", changed) if changed is not None else None)
    await client.aclose()
    await store.close()
    await other.close()


async def test_what_is_no_record_in_redis_counts_as_missing(
    redis_url: str, expect_log: Callable[..., Any]
) -> None:
    import redis.asyncio as redis

    expect_log("record resp_odd is damaged and counts as missing")
    expect_log("rproxy:response:resp_odd is not ours and counts as missing")
    key, store, client = (
        "rproxy:response:resp_odd",
        open_store("redis", url=redis_url),
        redis.Redis.from_url(redis_url),
    )
    for command in (
        *(("SET", key, value) for value in DAMAGED),
        ("RPUSH", key, "x"),
        ("HSET", key, "x", "y"),
        ("SADD", key, "x"),
        ("ZADD", key, 1, "x"),
        ("XADD", key, "*", "x", "y"),
        ("SETBIT", key, 7, 1),
        ("PFADD", key, "x"),
    ):
        await client.delete(key)
        await client.execute_command(*command)
        assert await store.get("resp_odd") is None
        assert await store.update("resp_odd", dict) is None
    await store.put("resp_odd", {"n": 1})
    assert await store.get("resp_odd") == {"n": 1}
    await client.aclose()
    await store.close()


def test_redis_needs_a_url_and_a_package(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    with pytest.raises(ConfigError, match="not a Redis URL"):
        open_store("redis", url="http://u:hush@h/")
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match="pip install"):
        open_store("redis", url=redis_url)


@pytest.mark.parametrize(
    "kind,path,url",
    [("disk", None, None), ("sqlite", None, None), ("sqlite", "", None), ("redis", None, None)],
)
def test_unknown_kind(kind: str, path: str, url: str) -> None:
    with pytest.raises(ConfigError, match="kind must be"):
        open_store(kind, path, url)


# ---- a store that is slow or fails
class SlowStore(MemoryStore):
    """Its puts wait for ``gate``; ``failure``: what they raise then. ``begun``: the records of all puts."""

    instant = False

    def __init__(self) -> None:
        super().__init__(100, 1 << 20, 60.0, Clock())
        self.gate = asyncio.Event()
        self.failure: List[StoreError] = []
        self.begun: List[Json] = []

    async def put(self, record_id: str, record: Json, small: bool = False) -> None:
        self.begun.append(record)
        await self.gate.wait()
        if self.failure:
            raise self.failure.pop(0)
        await super().put(record_id, record, small)


async def test_a_slow_store_holds_nobody_up() -> None:
    slow = SlowStore()
    store = WriteBehindStore(slow)
    limit_store_time(0.05)
    began = time.perf_counter()
    assert await store.keep("resp_1", {"n": 1}) == "not stored yet: the store is slow"
    assert await store.keep("resp_1", {"n": 2}) == "not stored yet: the store is slow"
    assert time.perf_counter() - began < 0.5
    limit_store_time()
    assert await store.get("resp_1") == {"n": 2} and await slow.get("resp_1") is None
    gone = asyncio.ensure_future(store.delete("resp_1"))
    slow.gate.set()
    assert await gone is True and await store.get("resp_1") is None
    assert await store.keep("resp_3", {"n": 3}) is None and await slow.get("resp_3") == {"n": 3}


async def test_what_waits_is_written_in_order_before_the_end() -> None:
    slow = SlowStore()
    store = WriteBehindStore(slow)
    limit_store_time(0.0)
    for n in range(5):
        await store.keep("resp_1", {"n": n})
    await store.keep("resp_2", {"n": "another"})
    assert slow.begun == [{"n": 0}, {"n": "another"}]  # the writes to one id wait for each other
    limit_store_time()
    changed = asyncio.ensure_future(store.update("resp_1", lambda record: {"n": record["n"] + 10}))
    closing = asyncio.ensure_future(store.close())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not closing.done()
    slow.gate.set()
    await closing
    assert [record["n"] for record in slow.begun if record["n"] != "another"] == [0, 1, 2, 3, 4]
    assert await changed == {"n": 14}
    await store.close()


async def test_a_failing_store_is_a_warning(expect_log: Callable[..., Any]) -> None:
    slow = SlowStore()
    store = WriteBehindStore(slow)
    limit_store_time(0.05)
    slow.failure = [StoreError("disk full"), StoreError("disk full")]
    assert await store.keep("resp_1", {"n": 1}) == "not stored yet: the store is slow"
    expect_log("resp_1 was not stored: disk full")
    slow.gate.set()
    limit_store_time()
    assert await store.update("resp_1", dict) is None  # which waits for the write
    assert await store.keep("resp_2", {"n": 1}) == "not stored: disk full"
    assert await store.get("resp_2") is None
    assert "is not an id" in str(await store.keep("no id", {}))


async def test_puts_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rproxy.store.write_behind.MAX_PENDING", 3)
    store = WriteBehindStore(SlowStore())
    limit_store_time(0.0)
    warnings = [await store.keep(f"resp_{n}", {}) for n in range(5)]
    assert [str(warning)[:15] for warning in warnings] == 3 * ["not stored yet:"] + 2 * ["not stored: 3 e"]


async def test_puts_that_wait_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rproxy.store.write_behind.FEW", 1)
    monkeypatch.setattr("rproxy.store.write_behind.COUNTED", 10)
    monkeypatch.setattr("rproxy.store.write_behind.MAX_PENDING_BYTES", 1000)
    slow = SlowStore()
    store = WriteBehindStore(slow)
    limit_store_time(0.0)
    records: List[Any] = [{"text": "x" * size} for size in (5000, 300, 300, 10, 5000)]
    warnings = [await store.keep(f"resp_{n}", record) for n, record in enumerate(records)]
    assert [str(warning)[:13] for warning in warnings] == [
        "not stored ye",
        "not stored ye",
        "not stored: 2",
        "not stored ye",
        "not stored: 3",
    ]
    slow.gate.set()
    await store.close()
    assert await store.keep("resp_9", records[1]) in (None, "not stored yet: the store is slow")


@pytest.mark.parametrize("brief", [False, True])
async def test_large_records_are_read_from_their_bytes(brief: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "WINDOW", 16)
    monkeypatch.setattr(encoding, "LARGE", 0)
    for size in range(20):
        record: Any = {"text": "x" * size + "\ud83d" + "é" * size + "\udc00", "n": [1.5, "€"]}
        assert await encoding.decode("resp_1", encode("resp_1", record), brief) == record


async def test_a_large_record_is_not_copied_before_it_is_read() -> None:
    if sys.gettrace() is not None:
        pytest.skip("a text that grows is copied while coverage traces the program")
    blob = b'{"text":"%b","cut":[9,%d,%d]}' % (b"x" * (8 << 20), (8 << 20) + 8, (8 << 20) + 10)
    for brief in (False, True):
        tracemalloc.start()
        try:
            record: Any = await encoding.decode("resp_1", blob, brief)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert record is not None and peak < len(record["text"] or "") + (2 << 20)
