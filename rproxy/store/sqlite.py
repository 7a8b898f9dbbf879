"""Responses in an sqlite file, shared by the processes of one machine.

Two threads own a connection each (:mod:`.sqlite_connection`), one for reads and one for writes, so neither
the event loop nor a read waits for a write.  The file is in WAL mode: readers and the writer of other
processes do not block each other, and a committed write survives a ``kill -9`` of any of them
(``synchronous=NORMAL``: a loss of power may take the last writes, but never the file).  ``user_version``
holds the version of the schema; a file of a newer rproxy is refused.

Reads do not see records that are too old; these and the records over the limits are deleted every
``SWEEP_INTERVAL`` seconds while there are writes.  Ages are measured with the system's time, the only one
that processes share and that outlives them.  When the clock is set back, records would be from the future and
outlive all others, so the sweep gives them the present time.

A large record is read and written in pieces: for a value, Python holds its interpreter, and with it the event
loop, while sqlite copies it, but not for a piece of a blob (Python 3.11 or newer; older ones have no such
pieces).
"""

from __future__ import annotations

import sqlite3
import time
from io import BytesIO
from typing import Any, Callable, Optional, Sequence, Tuple

from ..errors import ConfigError
from . import Store, log
from .encoding import check_size
from .sqlite_connection import SqliteConnection, SqliteFile, is_locked

SWEEP_INTERVAL = 60.0  # seconds
PIECE = 1 << 20  # bytes of a record that are copied at once
WHOLE_READ = "SELECT record FROM responses WHERE id = ? AND stored > ?"
# The record, unless it is read in pieces; a value that another program wrote may be text.
READ = """
SELECT rowid, CASE WHEN length(record) <= ? OR typeof(record) <> 'blob' THEN record END
FROM responses WHERE id = ? AND stored > ?
"""
WRITE = "INSERT OR REPLACE INTO responses (id, stored, size, record) VALUES (?, ?, ?, ?)"
WRITE_LARGE = "INSERT OR REPLACE INTO responses (id, stored, size, record) VALUES (?, ?, ?, zeroblob(?))"
MAX_PARAMETERS = 500  # of a query; older builds of sqlite take 999
# Counted from the newest to the oldest, these are over the limit of number or of bytes.
SURPLUS = """
DELETE FROM responses WHERE rowid IN (SELECT rowid FROM (
    SELECT rowid, row_number() OVER newest AS n, sum(size) OVER newest AS bytes FROM responses
    WINDOW newest AS (ORDER BY stored DESC, rowid DESC ROWS UNBOUNDED PRECEDING)
) WHERE n > ? OR bytes > ?)
"""
PIECES = hasattr(sqlite3.Connection, "blobopen")  # Python 3.11


class SqliteStore(Store):
    """The store of ``kind: sqlite``; the arguments are those of :func:`rproxy.store.open_store`.

    The file and its directories are made when they are missing, readable by this user only.

    :raises ConfigError: the file cannot be opened, or is something else
    """

    def __init__(
        self, path: str, max_responses: int, max_bytes: int, ttl: float, now: Callable[[], float]
    ) -> None:
        self.name = f"sqlite store {path}"
        self._limits = (max_responses, max_bytes)
        self._ttl = ttl
        self._now = now
        self._swept = now()
        file = SqliteFile(path)
        try:
            self._writer = SqliteConnection(file, writes=True)
            self._reader = SqliteConnection(file, writes=False)
        except (sqlite3.Error, OSError, ConfigError) as error:
            raise ConfigError(f"store.path: cannot use {path}: {error}") from error

    async def close(self) -> None:
        """End the threads when their work is done; may be called again."""
        await self._reader.close()
        await self._writer.close()

    async def _read(self, record_id: str) -> Optional[bytes]:
        return await self._reader.run(lambda db: self._select(db, record_id))

    async def _write(self, record_id: str, blob: bytes) -> None:
        check_size(record_id, blob, self._limits[1])
        await self._writer.run(lambda db: self._insert(db, record_id, blob))
        await self._sweep_if_due()

    async def _swap(self, record_id: str, old: bytes, new: bytes) -> bool:
        check_size(record_id, new, self._limits[1])
        swapped = await self._writer.run(lambda db: self._replace(db, record_id, old, new))
        await self._sweep_if_due()
        return swapped

    async def _delete(self, record_id: str) -> bool:
        query = "DELETE FROM responses WHERE id = ? AND stored > ?"
        deleted = await self._writer.run(lambda db: db.execute(query, (record_id, self._oldest())).rowcount)
        return deleted > 0

    async def _count(self, ids: Sequence[str]) -> int:
        return await self._reader.run(lambda db: self._count_rows(db, ids))

    async def _size(self) -> Tuple[int, int]:
        query = "SELECT count(*), coalesce(sum(size), 0) FROM responses WHERE stored > ?"
        row = await self._reader.run(lambda db: db.execute(query, (self._oldest(),)).fetchone())
        return int(row[0]), int(row[1])

    async def _sweep_if_due(self) -> None:
        if not 0 <= self._now() - self._swept < SWEEP_INTERVAL:
            await self._writer.run(self._sweep)

    # ---- In the threads
    def _select(self, db: sqlite3.Connection, record_id: str) -> Optional[bytes]:
        wanted = (record_id, self._oldest())
        row = db.execute(*((READ, (PIECE, *wanted)) if PIECES else (WHOLE_READ, wanted))).fetchone()
        if row is None:
            return None
        record = row[-1]
        if record is None:
            if not db.in_transaction:  # in one, no other process changes the record meanwhile
                db.execute("BEGIN")
                record = self._select(db, record_id)
                db.execute("COMMIT")
                return record
            return self._pieces_of(db, row[0])
        return record if isinstance(record, bytes) else str(record).encode("utf-8", "surrogatepass")

    def _pieces_of(self, db: sqlite3.Connection, row: int) -> bytes:
        whole = BytesIO()
        with _blob(db, row) as record:
            for piece in iter(lambda: record.read(PIECE), b""):
                whole.write(piece)
                self.moved = time.monotonic()
        return whole.getvalue()  # no copy

    def _count_rows(self, db: sqlite3.Connection, ids: Sequence[str]) -> int:
        found, oldest = 0, self._oldest()
        for begin in range(0, len(ids), MAX_PARAMETERS):
            some = ids[begin : begin + MAX_PARAMETERS]
            places = ",".join("?" * len(some))
            query = f"SELECT count(*) FROM responses WHERE id IN ({places}) AND stored > ?"
            found += db.execute(query, (*some, oldest)).fetchone()[0]
        return found

    def _insert(self, db: sqlite3.Connection, record_id: str, blob: bytes) -> None:
        values = (record_id, self._now(), len(blob))
        if len(blob) <= PIECE or not PIECES:
            db.execute(WRITE, (*values, blob))
            return
        alone = not db.in_transaction
        if alone:
            db.execute("BEGIN IMMEDIATE")
        row = db.execute(WRITE_LARGE, (*values, len(blob))).lastrowid
        whole = memoryview(blob)
        with _blob(db, row) as record:
            for begin in range(0, len(blob), PIECE):
                record.write(whole[begin : begin + PIECE])
                self.moved = time.monotonic()
        if alone:
            db.execute("COMMIT")

    def _replace(self, db: sqlite3.Connection, record_id: str, old: bytes, new: bytes) -> bool:
        db.execute("BEGIN IMMEDIATE")
        same = self._select(db, record_id) == old
        if same:
            self._insert(db, record_id, new)
        db.execute("COMMIT")
        return same

    def _sweep(self, db: sqlite3.Connection) -> None:
        """Delete what is too old or too much.  A failure is not a failure of the write before it, which is
        done.
        """
        now = self._now()
        try:
            db.execute("UPDATE responses SET stored = ? WHERE stored > ?", (now, now))
            db.execute("DELETE FROM responses WHERE stored <= ?", (self._oldest(),))
            db.execute(SURPLUS, self._limits)
        except sqlite3.Error as error:
            if is_locked(error):
                return  # the next write tries again
            log.warning("%s: old responses could not be deleted: %s", self.name, error)
        self._swept = now

    def _oldest(self) -> float:
        return self._now() - self._ttl


def _blob(db: Any, row: Optional[int]) -> Any:
    """The blob of a row, which is read and written without the interpreter."""
    return db.blobopen("responses", "record", row)
