"""One connection to an sqlite file: in a thread of its own, never waiting for a lock, never to a lost file.

**Locks.**  sqlite itself would wait for a lock inside the thread, and all work in the thread's queue would do
so one after the other: with twenty writers, the last would wait twenty times as long.  Here sqlite fails at
once, and the coroutine tries again until its time is up and it is cancelled.  Work that was cancelled while
the file was locked has not happened.

**A lost file.**  Somebody may delete the file (or its ``-wal`` file, where the latest writes are), or put
another one in its place.  The connection would continue with a file that no longer has a name, and everything
in it would be lost with the process.  So the names are looked up before each piece of work, and again after
each write; if they lead elsewhere, the file that is there is opened, or made, with a warning, and the write
is done again.  A new ``-wal`` file can only be opened when every connection to the old one is closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, List, Optional, Tuple, TypeVar

from ..errors import ConfigError, StoreError

log = logging.getLogger("rproxy.store")

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Identity = Tuple[int, int, int, int]
VERSION = 1
START_LIMIT = 10.0  # seconds that a start waits for the starts of other processes
WAL_PAUSE = 0.05  # seconds
PAUSES = (0.001, 0.05)  # seconds between attempts on a locked file: the first pause and the longest
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, stored REAL NOT NULL, size INTEGER NOT NULL, record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_by_age ON responses (stored, size);
PRAGMA user_version = {VERSION};
"""


class SqliteFile:
    """The file of a store, which all its connections share.

    ``identity``: which file is open, see :meth:`found`.  ``lost``: it was missing or replaced since it was
    opened; the next one may get the same inode.  ``connections``: those of this process.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.identity: Optional[Identity] = None
        self.lost = False
        self.connections: List[SqliteConnection] = []
        self._opening = threading.Lock()

    def found(self) -> Optional[Identity]:
        """The devices and inodes of the files that have the names now; None if one is missing."""
        try:
            file, wal = os.stat(self.path), os.stat(self.path + "-wal")
        except FileNotFoundError:
            return None
        return file.st_dev, file.st_ino, wal.st_dev, wal.st_ino

    def open(self, wait: float) -> sqlite3.Connection:
        """Open the file, or make it, with its directories, readable by this user only.

        :param wait: seconds for a lock
        :raises ConfigError: it is not a store's file
        """
        with self._opening:
            create_private(self.path)  # it holds conversations
            return self._connect(wait)

    def _connect(self, wait: float) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=wait, isolation_level=None)
        try:
            check_version(db, VERSION)
            _start_wal(db, wait)
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript("BEGIN IMMEDIATE;" + SCHEMA + "COMMIT;")
            db.execute("PRAGMA busy_timeout = 0")
        except BaseException:
            db.close()
            raise
        identity = self.found()
        if self.lost or self.identity not in (None, identity):
            log.warning(
                "store.path: %s was deleted or replaced while it was in use. What was stored in it may be "
                "lost; the file that is there now is used",
                self.path,
            )
        self.identity, self.lost = identity, False
        return db


class SqliteConnection:
    """A connection that its own thread owns.

    :raises sqlite3.Error, OSError, ConfigError: the file cannot be used
    """

    def __init__(self, file: SqliteFile, *, writes: bool) -> None:
        self._file = file
        self._writes = writes
        self._one_at_a_time = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rproxy-store")
        try:
            self._db: Optional[sqlite3.Connection] = self._thread.submit(file.open, START_LIMIT).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._identity = file.identity
        file.connections.append(self)

    async def run(self, work: Work[T]) -> T:
        """Run work in the thread; an error leaves no transaction open.

        :param work: it may be done more than once
        :raises StoreError: it failed
        """
        loop, (pause, longest) = asyncio.get_running_loop(), PAUSES
        async with self._one_at_a_time:
            while True:
                try:
                    return await loop.run_in_executor(self._thread, self._do, work)
                except (sqlite3.Error, OSError, ConfigError, RuntimeError) as error:
                    # RuntimeError: the thread has ended
                    if not (is_locked(error) or self._db is None and "I/O" in str(error)):
                        raise StoreError(f"sqlite store {self._file.path}: {error}") from error
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)

    async def close(self) -> None:
        """End the thread when its work is done; may be called again."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        except RuntimeError:
            pass  # closed before
        self._thread.shutdown()

    # ---- In the thread
    def _do(self, work: Work[T]) -> T:
        while True:
            db = self._connected()
            try:
                result = work(db)
            except BaseException:
                if db.in_transaction:  # sqlite may have ended it by itself, as when the disk is full
                    db.execute("ROLLBACK")
                raise
            if not self._writes or self._file.found() == self._identity:
                return result

    def _connected(self) -> sqlite3.Connection:
        if self._let_go():
            for other in self._file.connections:
                other._thread.submit(other._let_go)
        if self._db is None:
            self._db = self._file.open(0.0)
            self._identity = self._file.identity
        return self._db

    def _let_go(self) -> bool:
        """Close the file, if it is not the one with the name.

        :returns: whether it was open
        """
        if self._db is None or self._file.found() == self._identity:
            return False
        if self._identity == self._file.identity:  # no other one has been opened yet
            self._file.lost = True
        self._close()
        return True

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def create_private(path: str) -> None:
    """Make a file that only this user can read, with its directories, unless it is there.

    An existing file must not be opened: when a process closes a file, POSIX takes all its locks away,
    including those of sqlite, and to other processes the file would seem unused.

    :raises OSError: the file cannot be made, or is a directory
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if os.path.isdir(path):
            raise IsADirectoryError(f"{path} is a directory") from None


def check_version(db: sqlite3.Connection, known: int) -> None:
    """Refuse a file with a newer schema (``user_version``).

    :param known: the newest version that this rproxy knows
    :raises ConfigError: the file has a newer one
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > known:
        raise ConfigError(f"it was written by a newer rproxy (schema {version}, this one knows {known})")


def is_locked(error: Exception) -> bool:
    """Does another process hold a lock? Then the work has not happened, and may be tried again."""
    return isinstance(error, sqlite3.OperationalError) and "lock" in str(error)


def _start_wal(db: sqlite3.Connection, wait: float) -> None:
    """Change the mode of the file; while another process does the same, sqlite fails instead of waiting."""
    give_up = time.monotonic() + wait
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(WAL_PAUSE)
