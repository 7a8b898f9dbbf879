"""Stores that are locked, frozen, slow, full, lost or evicted: what a request waits for, and what is kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Iterator, List, Optional

import pytest
from redis_server import Line, RedisServer, redis_server

from rproxy.errors import ApiError, StoreError
from rproxy.service.conversations import Conversations
from rproxy.store import Store, open_store, time_limit
from rproxy.store import redis as redis_store  # which copies REQUEST_LIMIT, before a test changes it
from rproxy.store import sqlite as sqlite_store
from rproxy.store.memory import MemoryStore
from rproxy.store.time_limit import limit_store_time
from rproxy.store.write_behind import WriteBehindStore
from rproxy.types import Json

pytestmark = pytest.mark.timeout(seconds=120)

ROOT = Path(__file__).resolve().parent.parent
LIMITS: Json = {"max_responses": 10_000, "max_bytes": 1 << 28, "ttl": 3600.0}
SHORT = 0.4  # seconds: the limit of requests in these tests


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait ``SHORT`` for the store, so that a test can compare times without taking long."""
    monkeypatch.setattr(time_limit, "REQUEST_LIMIT", SHORT)


@contextlib.asynccontextmanager
async def opened(kind: str, where: str) -> AsyncIterator[Store]:
    store = open_store(
        kind, where if kind == "sqlite" else None, where if kind == "redis" else None, **LIMITS
    )
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class SqliteLock:
    """Another process's lock on a file: this one's, on a connection of its own, is no different."""

    def __init__(self, path: Path, how: str = "BEGIN IMMEDIATE") -> None:
        self._db = sqlite3.connect(str(path), isolation_level=None)
        if how == "exclusive mode":
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            how = "BEGIN EXCLUSIVE"
        self._db.execute(how)

    def release(self) -> None:
        self._db.execute("COMMIT")
        self._db.close()


async def seconds(work: Awaitable[Any]) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def request(work: Callable[[], Awaitable[Any]]) -> Optional[BaseException]:
    """Some work with a limit of its own, as each request has it; what it raises."""

    async def limited() -> None:
        limit_store_time()
        await work()

    return (await asyncio.gather(asyncio.ensure_future(limited()), return_exceptions=True))[0]


async def all_fail_within_one_limit(works: List[Callable[[], Awaitable[Any]]]) -> None:
    """However many wait, each of them ends with an error when its own limit is over."""
    alone = await seconds(request(works[0]))
    failures: List[Optional[BaseException]] = []

    async def all_at_once() -> None:
        failures.extend(await asyncio.gather(*(request(work) for work in works)))

    together = await seconds(all_at_once())
    assert together < 4 * max(alone, SHORT), (alone, together)
    assert all(
        isinstance(one, StoreError) or isinstance(one, ApiError) and one.status == 503 for one in failures
    ), failures


# ---- A lock on the file
async def test_a_locked_file_ends_every_write_in_time_and_no_read(tmp_path: Path, short_limit: None) -> None:
    async with opened("sqlite", str(tmp_path / "r.db")) as raw:
        store = WriteBehindStore(raw)
        for n in range(40):
            await store.put(f"resp_{n}", {"n": n})
        lock = SqliteLock(tmp_path / "r.db")
        await all_fail_within_one_limit(
            [lambda n=n: store.delete(f"resp_{n}") for n in range(20)]  # type: ignore[misc]
            + [lambda n=n: store.update(f"resp_{n}", dict) for n in range(20)]  # type: ignore[misc]
            + [lambda n=n: store.put(f"new_{n}", {}) for n in range(20)]  # type: ignore[misc]
            + 20 * [lambda: store.update("resp_39", dict)]
        )
        assert [await store.get(f"resp_{n}") for n in range(40)] == [{"n": n} for n in range(40)]
        lock.release()
        assert await store.get("new_0") is None  # what was told to have failed has not happened
        assert await store.update("resp_0", lambda record: {"n": -1}) == {"n": -1}


async def test_who_is_locked_out_of_a_new_file_ends_in_time(
    tmp_path: Path, short_limit: None, expect_log: Callable[..., Any]
) -> None:
    """Whoever has a file for himself holds up reads, too."""
    expect_log("r.db was deleted or replaced while it was in use")
    path, other = tmp_path / "deep" / "r.db", tmp_path / "other.db"
    store_of_another_process(other)
    async with opened("sqlite", str(path)) as store:
        lose_everything(path, tmp_path)
        other.rename(path)
        lock = SqliteLock(path, "exclusive mode")
        await all_fail_within_one_limit(
            20 * [lambda: store.get("resp_other")] + 20 * [lambda: store.update("resp_other", dict)]
        )
        lock.release()
        assert await store.get("resp_other") == {"n": "other"}


async def test_what_a_turn_leaves_is_written_when_the_lock_goes(
    tmp_path: Path, short_limit: None, expect_log: Callable[..., Any]
) -> None:
    expect_log("earlier work on the same record has not ended in time")
    async with opened("sqlite", str(tmp_path / "r.db")) as raw:
        store = WriteBehindStore(raw)
        talks = Conversations(store, lambda: "0" * 32, time.time)
        talk = (await talks.create({}, ""))["id"]
        lock = SqliteLock(tmp_path / "r.db")

        async def turn(number: int) -> None:
            assert await store.keep(f"resp_{number}", {"n": number}) == "not stored yet: the store is slow"
            items = [{"id": f"{number}-{place}"} for place in "ab"]
            assert "not added to the conversation: not stored yet" in str(await talks.append(talk, items, ""))

        async def turns(*numbers: int) -> None:
            works = [request(lambda n=n: turn(n)) for n in numbers]  # type: ignore[misc]
            assert await asyncio.gather(*works) == [None for _ in numbers]

        alone = await seconds(turns(0))
        assert await seconds(turns(*range(1, 20))) < 4 * max(alone, SHORT)
        assert await store.get("resp_7") == {"n": 7}  # as if it were stored
        failed = await request(lambda: talks.items(talk, {}, ""))
        assert isinstance(failed, ApiError) and failed.status == 503  # not the items of before
        lock.release()
        items = (await talks.items(talk, {"order": "asc", "limit": "100"}, ""))["data"]
        assert [item["id"] for item in items] == [f"{n}-{place}" for n in range(20) for place in "ab"]
        await store.close()
        assert [await raw.get(f"resp_{n}") for n in range(20)] == [{"n": n} for n in range(20)]


# ---- A slow store
class SlowStore(MemoryStore):
    """Each read takes ``pause``."""

    instant = False
    pause = 0.0
    reads = 0

    async def _read(self, record_id: str) -> Optional[bytes]:
        self.reads += 1
        await asyncio.sleep(self.pause)
        return await super()._read(record_id)


async def test_the_delays_of_one_request_do_not_add_up(short_limit: None) -> None:
    store = SlowStore(100, 1 << 20, 60.0, time.monotonic)
    store.pause = SHORT / 2.5

    async def chain() -> None:
        for _ in range(20):
            await store.get("resp_1")

    assert isinstance(await request(chain), StoreError)
    assert 2 <= store.reads <= 3
    store.reads = 0
    for _ in range(5):  # each a request of its own
        assert await request(lambda: store.get("resp_1")) is None
    assert store.reads == 5


async def test_quick_answers_are_free(short_limit: None) -> None:
    """A long chain on a busy event loop must not fail while the store is well."""
    store = SlowStore(100, 1 << 20, 60.0, time.monotonic)
    store.pause = time_limit.QUICK / 4

    async def chain() -> None:
        for _ in range(int(3 * SHORT / store.pause)):
            await store.get("resp_1")

    assert await request(chain) is None


class MovingStore(SlowStore):
    """A store that takes a ``pause`` for each of many pieces of any record, and may stop after some."""

    stops_after = 0

    async def _read(self, record_id: str) -> Optional[bytes]:
        for number in range(1, 20):
            await asyncio.sleep(self.pause)
            self.moved = time.monotonic()
            if number == self.stops_after:
                await asyncio.Event().wait()
        return await super()._read(record_id)


async def test_a_large_record_may_take_longer_as_long_as_it_moves(
    short_limit: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MovingStore(100, 1 << 20, 60.0, time.monotonic)
    store.pause = SHORT / 8
    assert await request(lambda: store.get("resp_1")) is None

    slow = SlowStore(100, 1 << 20, 60.0, time.monotonic)
    slow.pause = SHORT * 0.7

    async def both() -> None:
        await store.get("resp_1")
        await slow.get("resp_1")  # which has its full time still

    assert await request(both) is None
    monkeypatch.setattr(time_limit, "LONGEST", SHORT * 1.5)
    assert isinstance(await request(lambda: store.get("resp_1")), StoreError)


async def test_a_record_that_stops_moving_is_given_up(short_limit: None) -> None:
    store = MovingStore(100, 1 << 20, 60.0, time.monotonic)
    store.stops_after, store.pause = 12, SHORT / 8
    assert isinstance(await request(lambda: store.get("resp_1")), StoreError)
    assert store.moved > 0 and store.reads == 0


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_each_piece_of_a_large_record_counts_as_progress(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "sqlite" and not sqlite_store.PIECES:
        pytest.skip("sqlite3 of this Python reads and writes no pieces")
    where = str(tmp_path / "a.db") if kind == "sqlite" else request.getfixturevalue("redis").url
    async with opened(kind, where) as store:
        for small in (True, False):
            record = {"response": {"id": "resp_1"}, "a": "x" * (1 if small else 5 << 20)}
            for work in (store.put("resp_1", record), store.get("resp_1")):  # type: ignore[arg-type]
                before = time.monotonic()
                await work
                assert (store.moved > before) is not small


# ---- A file that is lost
def lose_everything(path: Path, folder: Path) -> None:
    for name in os.listdir(path.parent):
        (path.parent / name).unlink()


def lose_the_file(path: Path, folder: Path) -> None:
    path.unlink()


def lose_the_latest(path: Path, folder: Path) -> None:
    Path(f"{path}-wal").unlink()


def lose_the_folder(path: Path, folder: Path) -> None:
    shutil.rmtree(path.parent)


def move_it_away(path: Path, folder: Path) -> None:
    path.rename(folder / "elsewhere.db")


def put_another_in_its_place(path: Path, folder: Path) -> None:
    other = folder / "other.db"
    store_of_another_process(other)
    lose_everything(path, folder)
    other.rename(path)


def store_of_another_process(path: Path) -> None:
    """A file of rproxy with one record, made by another process and closed."""
    code = (
        "import asyncio, sys; from rproxy.store import open_store\n"
        "async def main():\n"
        "    store = open_store('sqlite', sys.argv[1], max_responses=9, max_bytes=10**6, ttl=3600.0)\n"
        "    await store.put('resp_other', {'n': 'other'}); await store.close()\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=str(ROOT), check=True, timeout=60)


@pytest.mark.parametrize(
    "lose",
    [
        lose_everything,
        lose_the_file,
        lose_the_latest,
        lose_the_folder,
        move_it_away,
        put_another_in_its_place,
    ],
)
async def test_nothing_is_written_to_a_lost_file(
    lose: Callable[[Path, Path], None], tmp_path: Path, expect_log: Callable[..., Any]
) -> None:
    expect_log("r.db was deleted or replaced while it was in use")
    path = tmp_path / "deep" / "r.db"
    async with opened("sqlite", str(path)) as store:
        await store.put("resp_before", {"n": 0})
        lose(path, tmp_path)
        await store.put("resp_after", {"n": 1})
        assert await store.get("resp_after") == {"n": 1}
        assert await store.update("resp_after", lambda record: {"n": 2}) == {"n": 2}
        async with opened("sqlite", str(path)) as another:  # as another process does
            assert await another.get("resp_after") == {"n": 2}
            found = await another.get("resp_other")
            assert found == ({"n": "other"} if lose is put_another_in_its_place else None)
        lose_everything(path, tmp_path)
        assert await store.get("resp_after") is None
        await store.put("resp_last", {"n": 3})
        assert await store.get("resp_last") == {"n": 3}


async def test_a_process_that_ends_leaves_the_others_their_file(tmp_path: Path) -> None:
    """The last one to close the file removes its log of writes; who is not the last must see that."""
    path, wal = tmp_path / "r.db", tmp_path / "r.db-wal"
    async with opened("sqlite", str(path)) as store:
        await store.put("resp_1", {"n": 1})
        before = wal.stat().st_ino
        store_of_another_process(path)
        assert wal.exists() and wal.stat().st_ino == before
        assert await store.get("resp_1") == {"n": 1} and await store.get("resp_other") == {"n": "other"}


async def test_a_file_that_is_no_database_any_more(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    async with opened("sqlite", str(path)) as store:
        await store.put("resp_1", {})
        lose_everything(path, tmp_path)
        path.write_bytes(b"this is a letter, not a database" * 100)
        for work in (store.get("resp_1"), store.put("resp_1", {}), store.update("resp_1", dict)):
            with pytest.raises(StoreError, match="r.db: file is not a database"):
                await work


# ---- A file that cannot be written
# A process with the store in argv[2]; argv[1]: what it may write, in bytes, or the user that it is.
BOUNDED = """
import asyncio, os, resource, sys
from rproxy.errors import ConfigError, StoreError
from rproxy.store import open_store, sqlite
async def main(how, path):
    kind, number = how.split("=")
    if kind == "user" and os.getuid() == 0:
        os.setuid(int(number))
    try:
        store = open_store("sqlite", path, max_responses=10**6, max_bytes=1 << 30, ttl=3600.0)
    except ConfigError as error:
        print("config error:", error)
        return
    if kind == "bytes":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), resource.RLIM_INFINITY))
    kept, failed, record = 0, "", {"pad": "x" * 20_000}
    await store.put("resp_first", {"n": 0})
    while not failed and kept < 10_000:
        try:
            await store.put(f"resp_{kept}", record)
            kept += 1
        except StoreError as error:
            failed = str(error)
    for work in (store.put("resp_x", record), store.update("resp_0", lambda old: {**old, "n": 1})):
        try:
            await work
        except StoreError as error:
            assert "transaction" not in str(error), error
    assert kept > 10 and all([await store.get(f"resp_{n}") for n in range(kept)])
    assert await store.get("resp_first") == {"n": 0}
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.put("resp_later", record)
    assert await store.update("resp_first", lambda old: {"n": 1}) == {"n": 1}
    assert await store.get("resp_later") == record
    print("kept", kept, failed)
    await store.close()
asyncio.run(main(*sys.argv[1:]))
"""


def bounded(how: str, path: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-c", BOUNDED, how, str(path)],
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    return run.stdout


def test_a_full_disk_fails_writes_and_no_reads(tmp_path: Path) -> None:
    told = bounded("bytes=4000000", tmp_path / "r.db")
    assert told.startswith("kept ") and ("full" in told or "I/O error" in told), told
    db = sqlite3.connect(str(tmp_path / "r.db"))
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_cannot_be_written_is_an_error_at_the_start(what: str, tmp_path: Path) -> None:
    folder = Path("/tmp") / f"rproxy-readonly-{os.getpid()}-{what}"  # pytest's own may not be entered
    folder.mkdir()
    try:
        store_of_another_process(folder / "r.db")
        if what == "file":
            (folder / "r.db").chmod(0o444)
            folder.chmod(0o777)
        else:
            (folder / "r.db").unlink()
            folder.chmod(0o555)
        told = bounded("user=65534", folder / "r.db")
        assert told.startswith("config error: store.path: cannot use"), told
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


# ---- Redis
async def test_a_frozen_redis_ends_every_request_in_time(redis: RedisServer, short_limit: None) -> None:
    async with opened("redis", redis.url) as raw:
        store = WriteBehindStore(raw)
        for n in range(60):
            await store.put(f"resp_{n}", {"n": n})
        redis.freeze()
        await all_fail_within_one_limit(
            [lambda n=n: store.get(f"resp_{n}") for n in range(60)]  # type: ignore[misc]
            + [lambda n=n: store.delete(f"resp_{n}") for n in range(30)]  # type: ignore[misc]
            + [lambda n=n: store.put(f"new_{n}", {}) for n in range(30)]  # type: ignore[misc]
            + 30 * [lambda: store.update("resp_59", dict)]
        )
        kept = asyncio.ensure_future(request(lambda: store.keep("resp_turn", {"n": "turn"})))
        assert await kept is None
        redis.thaw()
        limit_store_time(20.0)
        # No connection holds the answer to a question of before.
        found = await asyncio.gather(*(store.get(f"resp_{n}") for n in range(60)))
        assert found[30:] == [{"n": n} for n in range(30, 60)]
        assert all(one in (None, {"n": n}) for n, one in enumerate(found[:30]))
        await store.close()
        assert await raw.get("resp_turn") == {"n": "turn"}


async def test_redis_restarts(redis: RedisServer) -> None:
    async with opened("redis", redis.url) as store:
        await asyncio.gather(*(store.put(f"resp_{n}", {"n": n}) for n in range(20)))
        redis.kill()
        for work in (store.get("resp_1"), store.put("resp_1", {}), store.delete("resp_1")):
            with pytest.raises(StoreError, match="redis store redis://127.0.0.1"):
                await work
        redis.start()
        # At once, and on each of the old connections
        await asyncio.gather(*(store.put(f"resp_{n}", {"n": -n}) for n in range(20)))
        assert await asyncio.gather(*(store.get(f"resp_{n}") for n in range(20))) == [
            {"n": -n} for n in range(20)
        ]
        assert await store.update("resp_1", lambda record: {"n": 5}) == {"n": 5}


async def test_a_connection_that_is_reset_loses_and_doubles_nothing(redis: RedisServer) -> None:
    """What may be asked twice is; a swap that may have happened is not."""
    async with Line(redis.port).running() as line, opened("redis", line.url) as store:
        await store.put("resp_1", {"items": []})
        for command in (b"GET", b"SET", b"DEL"):
            line.cut_after = command
            if command == b"DEL":
                assert await store.delete("resp_1") is False  # it was deleted by the first one
            else:
                await store.put("resp_1", {"items": []})
                assert await store.get("resp_1") == {"items": []}
            assert line.cut_after is None
        await store.put("resp_1", {"items": []})
        line.cut_after = b"EVAL"
        with pytest.raises(StoreError):
            await store.update("resp_1", lambda record: {"items": [*record["items"], 1]})
        assert await store.get("resp_1") == {"items": [1]}
        await store.update("resp_1", lambda record: {"items": [*record["items"], 2]})
        assert await store.get("resp_1") == {"items": [1, 2]}


async def test_a_large_record_is_swapped_once_or_not_at_all(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "PIECE", 1000)
    text = "x" * 5000

    def change(record: Any) -> Any:
        return {"text": text, "n": record["n"] + 1}

    async with Line(redis.port).running() as line, opened("redis", line.url) as store:
        await store.put("resp_1", {"text": text, "n": 0})
        for count, command in enumerate((b"RENAME", b"APPEND", b"WATCH"), 1):
            line.cut_after = command
            with contextlib.suppress(StoreError):
                await store.update("resp_1", change)
            assert line.cut_after is None
            record = await store.get("resp_1")
            assert record is not None and record["n"] <= count and record["text"] == text
            await store.put("resp_1", {"text": text, "n": count})


async def test_after_a_failover_writes_go_to_the_new_master(redis: RedisServer) -> None:
    with redis_server() as new:
        async with Line(redis.port).running() as line, opened("redis", line.url) as store:
            await asyncio.gather(*(store.put(f"resp_{n}", {"n": n}) for n in range(5)))
            redis.ask("REPLICAOF", "127.0.0.1", str(new.port))  # it takes no writes any more
            with pytest.raises(StoreError, match="read only replica"):
                await store.put("resp_1", {"n": 1})
            line.target = new.port  # as the name does, or the address of a load balancer
            await store.put("resp_1", {"n": 1})
            assert b'{"n":1}' in new.ask("GET", "rproxy:response:resp_1")


LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


async def test_a_redis_that_still_loads_is_an_error_of_the_store() -> None:
    pytest.importorskip("redis")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(65536):
                writer.write(LOADING)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with opened("redis", f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0") as store:
        for work in (store.get("resp_1"), store.put("resp_1", {}), store.update("resp_1", dict)):
            with pytest.raises(StoreError, match="loading the dataset"):
                await work
    server.close()


async def test_what_redis_evicts_is_missing() -> None:
    with redis_server("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru") as server:
        async with opened("redis", server.url) as raw:
            store = WriteBehindStore(raw)
            talks = Conversations(store, lambda: "0" * 32, time.time)
            talk = (await talks.create({"items": [{"role": "user", "content": "Hi"}]}, ""))["id"]
            for n in range(200):
                await store.put(f"resp_{n}", {"pad": "x" * 50_000})
            found = [await store.get(f"resp_{n}") is not None for n in range(200)]
            assert not all(found) and found[-1]
            for work in (
                talks.items(talk, {}, ""),
                talks.add(talk, {"items": []}, ""),
                talks.delete(talk, ""),
            ):
                with pytest.raises(ApiError) as missing:
                    await work
                assert missing.value.status == 404
            assert "does not exist any more" in str(await talks.append(talk, [{"id": "x"}], ""))


async def test_a_redis_without_room_is_an_error_of_the_store() -> None:
    with redis_server("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server:
        async with opened("redis", server.url) as store:
            with pytest.raises(StoreError, match="OOM|maxmemory"):
                for n in range(200):
                    await store.put(f"resp_{n}", {"pad": "x" * 50_000})
            assert await store.get("resp_0") is not None


# ---- Clocks
class Clock:
    """The system's time, which a test sets."""

    def __init__(self) -> None:
        self.time = 1790000000.0

    def __call__(self) -> float:
        return self.time


async def test_the_memory_store_does_not_notice_when_the_clock_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    store = open_store("memory", **LIMITS)
    await store.put("resp_1", {"n": 1})
    for number, jump in enumerate((10**8, -2 * 10**8)):
        clock.time += jump
        assert await store.get("resp_1") == {"n": 1}
        await store.put(f"jump_{number}", {})
    assert await store.get("resp_1") == {"n": 1}


async def test_sqlite_when_the_clock_is_set_back(tmp_path: Path) -> None:
    """What was stored in the future is neither kept for ever, nor dearer than what comes now."""
    clock, kept = Clock(), {**LIMITS, "max_responses": 3, "ttl": 1000.0}
    store = open_store("sqlite", str(tmp_path / "r.db"), now=clock, **kept)
    for n in range(3):
        clock.time += 1
        await store.put(f"future_{n}", {})
    clock.time -= 10**8
    for n in range(3):
        clock.time += 61
        await store.put(f"present_{n}", {})
    assert [await store.get(f"present_{n}") for n in range(3)] == 3 * [{}]
    assert [await store.get(f"future_{n}") for n in range(3)] == 3 * [None]
    await store.close()


async def test_sqlite_when_the_clock_is_set_forwards(tmp_path: Path) -> None:
    clock = Clock()
    store = open_store("sqlite", str(tmp_path / "r.db"), now=clock, **LIMITS)
    await store.put("resp_1", {})
    clock.time += 10**8
    assert await store.get("resp_1") is None
    assert await store.update("resp_1", dict) is None and await store.delete("resp_1") is False
    await store.put("resp_2", {})
    assert await store.get("resp_2") == {}
    await store.close()
