"""The usage ledger: one row a turn in an sqlite file, without content.

Rows wait in memory until a thread has written them, within a second, all in one transaction.  While the file
is locked or cannot be written they keep waiting, up to ``MAX_WAITING``, with one warning.  Old rows are
deleted once a day.  :mod:`.usage` reads the file, also while it is being written (WAL mode).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List, Optional, Sequence, Tuple

from ..errors import ConfigError
from ..json_codec import mend
from ..store.sqlite_connection import check_version, create_private
from .records import TurnRecord

log = logging.getLogger("rproxy.ledger")

FLUSH = 0.5  # seconds that a row waits for others
RETRY = 1.0  # seconds before another attempt to write
LOCK_TIMEOUT = 2.0  # seconds that a writer waits for another process
MAX_WAITING = 100_000  # rows, some 30 MB
DAY = 86_400.0  # seconds
VERSION = 1
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS turns (
    time REAL NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, downstream_model TEXT NOT NULL,
    provider TEXT NOT NULL, transport TEXT NOT NULL, status TEXT NOT NULL, input INTEGER NOT NULL,
    cached INTEGER NOT NULL, output INTEGER NOT NULL, reasoning INTEGER NOT NULL, cost REAL, currency TEXT,
    ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS turns_by_time ON turns (time);
PRAGMA user_version = {VERSION};
"""
Row = Tuple[Any, ...]


class Ledger:
    """Writes the file.

    :param path: the file, made when it is missing, readable by this user only
    :param keep: seconds that rows are kept
    :param now: seconds since the epoch
    :raises ConfigError: the file cannot be opened
    """

    def __init__(self, path: str, keep: float, now: Callable[[], float]) -> None:
        self._path = path
        self._keep = keep
        self._now = now
        self._waiting: List[Row] = []
        self._lost = 0
        self._swept = 0.0
        self._complained = False
        self._task: Optional[asyncio.Task[None]] = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rproxy-ledger")
        try:
            self._db = self._thread.submit(_open, path).result()
        except (sqlite3.Error, OSError, ConfigError) as error:
            self._thread.shutdown()
            raise ConfigError(f"usage.path: cannot use {path}: {error}") from error

    def add(self, record: TurnRecord, cost: Optional[float], currency: str) -> None:
        """Keep a turn; must run on the event loop."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(_row(self._now(), record, cost, currency if cost is not None else None))
        if self._task is None:
            self._task = asyncio.ensure_future(self._flush())

    async def close(self) -> None:
        """Write the waiting rows, unless the file cannot be written now."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._write()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown()
        left = len(self._waiting) + self._lost
        if left:
            log.warning("%d turns are missing from the usage ledger %s", left, self._path)

    async def _flush(self) -> None:
        """Write the waiting rows a moment later, so that one transaction has many of them."""
        pause = FLUSH
        while self._waiting:
            await asyncio.sleep(pause)
            pause = FLUSH if await self._write() else RETRY
        self._task = None

    async def _write(self) -> bool:
        """:returns: whether all rows that were waiting are in the file"""
        rows = self._waiting[:]
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._insert, rows)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})  # the rows are written, or they are not: find out which
            if work.exception() is None:
                del self._waiting[: len(rows)]
            raise
        except sqlite3.Error as error:
            if not self._complained:
                log.warning(
                    "cannot write the usage ledger %s: %s; its rows wait in memory", self._path, error
                )
            self._complained = True
            return False
        del self._waiting[: len(rows)]
        if self._complained:
            log.info("the usage ledger %s is written again", self._path)
        self._complained = False
        return True

    def _insert(self, rows: Sequence[Row]) -> None:
        """In the thread."""
        # The name of a model may hold anything that a client can send.
        writable = [[mend(value) if isinstance(value, str) else value for value in row] for row in rows]
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(f"INSERT INTO turns VALUES ({', '.join('?' * 14)})", writable)
            if not 0 <= self._now() - self._swept < DAY:
                self._db.execute("DELETE FROM turns WHERE time < ?", (self._now() - self._keep,))
                self._swept = self._now()


def _row(now: float, record: TurnRecord, cost: Optional[float], currency: Optional[str]) -> Row:
    return (
        now,
        record.key,
        record.model,
        record.downstream_model,
        record.provider,
        record.transport,
        record.status,
        record.input_tokens or 0,
        record.cached_tokens or 0,
        record.output_tokens or 0,
        record.reasoning_tokens or 0,
        cost,
        currency,
        round(record.total_ms),
    )


def _open(path: str) -> sqlite3.Connection:
    create_private(path)
    db = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        check_version(db, VERSION)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript("BEGIN IMMEDIATE;" + SCHEMA + "COMMIT;")
    except BaseException:
        db.close()
        raise
    return db
