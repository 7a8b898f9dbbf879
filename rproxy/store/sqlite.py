"""Responses in an sqlite file, shared by the processes of one machine.

A thread of its own owns the connection, so the event loop never waits for a disk.  The file is in WAL mode:
readers and the writer of other processes do not block each other, and a committed write survives a ``kill
-9`` of any of them (``synchronous=NORMAL``: a loss of power may take the last writes, but never the file).
Writers wait for each other up to ``BUSY`` seconds.  ``user_version`` holds the version of the schema; a file
of a newer rproxy is refused.  :meth:`SqliteStore.get` does not see records that are too old; these and the
records over the limits are deleted every ``SWEEP_INTERVAL`` seconds while there are writes.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional, TypeVar

from ..errors import ConfigError, StoreError
from ..types import Json
from . import Change, decode, encode, encode_cooperatively, valid_id

T = TypeVar("T")
VERSION = 1
BUSY = 10.0  # seconds
WAL_PAUSE = 0.05  # seconds
SWEEP_INTERVAL = 60.0  # seconds
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, stored REAL NOT NULL, size INTEGER NOT NULL, record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_by_age ON responses (stored, size);
PRAGMA user_version = {VERSION};
"""
# Counted from the newest to the oldest, these are over the limit of number or of bytes.
SURPLUS = """
DELETE FROM responses WHERE rowid IN (SELECT rowid FROM (
    SELECT rowid, row_number() OVER newest AS n, sum(size) OVER newest AS bytes FROM responses
    WINDOW newest AS (ORDER BY stored DESC, rowid DESC ROWS UNBOUNDED PRECEDING)
) WHERE n > ? OR bytes > ?)
"""


class SqliteStore:
    """The store of ``kind: sqlite``; the arguments are those of :func:`rproxy.store.open_store`.

    The file and its directories are made when they are missing, readable by this user only.

    :raises ConfigError: the file cannot be opened, or is something else
    """

    instant = False

    def __init__(
        self, path: str, max_responses: int, max_bytes: int, ttl: float, now: Callable[[], float]
    ) -> None:
        self._path = path
        self._limits = (max_responses, max_bytes)
        self._ttl = ttl
        self._now = now
        self._swept = now()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rproxy-store")
        try:
            self._db = self._thread.submit(self._open).result()
        except (sqlite3.Error, OSError, ConfigError) as error:
            self._thread.shutdown()
            raise ConfigError(f"store.path: cannot use {path}: {error}") from error

    async def get(self, record_id: str) -> Optional[Json]:
        if not valid_id(record_id):
            return None
        return await self._run(lambda: self._get(record_id))

    async def put(self, record_id: str, record: Json) -> None:
        blob = await encode_cooperatively(record_id, record)
        await self._run(lambda: self._put(record_id, blob))

    async def update(self, record_id: str, change: Change) -> Optional[Json]:
        return await self._run(lambda: self._update(record_id, change)) if valid_id(record_id) else None

    async def delete(self, record_id: str) -> bool:
        return valid_id(record_id) and await self._run(lambda: self._delete(record_id))

    async def close(self) -> None:
        """End the thread when its work is done; may be called again."""
        try:
            await self._run(self._db.close)
        except StoreError:
            pass  # closed before
        self._thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError, RuntimeError) as error:  # RuntimeError: the thread has ended
            raise StoreError(f"sqlite store {self._path}: {error}") from error

    # ---- In the thread
    def _open(self) -> sqlite3.Connection:
        os.makedirs(os.path.dirname(os.path.abspath(self._path)), mode=0o700, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # it holds conversations
        db = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise ConfigError(
                    f"it was written by a newer rproxy (schema {version}, this one knows {VERSION})"
                )
            _start_wal(db)
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript("BEGIN IMMEDIATE;" + SCHEMA + "COMMIT;")
        except BaseException:
            db.close()
            raise
        return db

    def _get(self, record_id: str) -> Optional[Json]:
        row = self._db.execute(
            "SELECT record FROM responses WHERE id = ? AND stored > ?", (record_id, self._oldest())
        ).fetchone()
        return None if row is None else decode(record_id, row[0])

    def _put(self, record_id: str, blob: bytes) -> None:
        if len(blob) > self._limits[1]:
            raise StoreError(
                f"response {record_id} has {len(blob)} bytes, more than store.max_bytes ({self._limits[1]})"
            )
        self._db.execute(
            "INSERT OR REPLACE INTO responses (id, stored, size, record) VALUES (?, ?, ?, ?)",
            (record_id, self._now(), len(blob), blob),
        )
        if not 0 <= self._now() - self._swept < SWEEP_INTERVAL:
            self._sweep()

    def _update(self, record_id: str, change: Change) -> Optional[Json]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            record = self._get(record_id)
            if record is not None:
                record = change(record)
                self._put(record_id, encode(record_id, record))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return record

    def _delete(self, record_id: str) -> bool:
        deleted = self._db.execute(
            "DELETE FROM responses WHERE id = ? AND stored > ?", (record_id, self._oldest())
        )
        return deleted.rowcount > 0

    def _sweep(self) -> None:
        self._swept = self._now()
        self._db.execute("DELETE FROM responses WHERE stored <= ?", (self._oldest(),))
        self._db.execute(SURPLUS, self._limits)

    def _oldest(self) -> float:
        return self._now() - self._ttl


def _start_wal(db: sqlite3.Connection) -> None:
    """Change the mode of the file; while another process does the same, sqlite fails instead of waiting."""
    give_up = time.monotonic() + BUSY
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(WAL_PAUSE)
