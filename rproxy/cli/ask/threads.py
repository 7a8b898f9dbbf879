"""The conversations that ``rproxy ask --continue`` continues, in ``$XDG_STATE_HOME/rproxy``.

A thread is a file ``ask-thread-...`` with all of its messages, so that it can be continued anywhere: in this
process, or at any server.  Three kinds of small files name one: ``ask-last``, ``ask-terminal-...`` for each
terminal, ``ask-session-...`` for each ``--session``.  All have the mode 0600.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional
from urllib.parse import quote

from ...config.load import state_folder
from ...errors import RproxyError
from ...types import Json

LIFETIME = 30 * 86_400  # seconds after its last answer that a thread is kept
MAX_NAME = 64  # characters of a session's name
PREFIX = "ask-"  # of all files
LAST = PREFIX + "last"


class Thread(NamedTuple):
    """A conversation.  ``items``: its messages.  ``session``: its name, or ""."""

    id: str
    session: str
    model: str
    instructions: Optional[str]
    items: List[Json]

    @classmethod
    def new(cls, session: str) -> Thread:
        return cls(secrets.token_hex(8), session, "", None, [])


class Threads:
    """The threads of a user."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._folder = state_folder(environ)
        self._terminal = terminal_name(environ)

    def find(self, session: str) -> Thread:
        """The thread of a session; without a name that of the last answer in this terminal, else the last.

        :raises RproxyError: there is none
        """
        names = [f"{PREFIX}session-{quote(session, safe='')}"] if session else [self._terminal, LAST]
        for name in filter(None, names):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                thread_id = (self._folder / name).read_text(encoding="utf-8")
                return Thread(**json.loads(self._file(thread_id).read_text(encoding="utf-8")))
        if session:
            raise RproxyError(f"there is no session {session!r} yet; begin it without --continue")
        raise RproxyError("there is no answer to continue; ask without --continue first")

    def keep(self, thread: Thread) -> None:
        """Save a thread as the last one, and delete those that are too old."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write(self._file(thread.id), json.dumps(thread._asdict(), ensure_ascii=False))
        named = f"{PREFIX}session-{quote(thread.session, safe='')}" if thread.session else ""
        for name in filter(None, [LAST, self._terminal, named]):
            self._write(self._folder / name, thread.id)
        oldest = time.time() - LIFETIME
        for path in self._folder.glob(PREFIX + "*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _file(self, thread_id: str) -> Path:
        return self._folder / f"{PREFIX}thread-{quote(thread_id, safe='')}.json"

    def _write(self, path: Path, text: str) -> None:
        """Readers see the old file or the new one, never half of one."""
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.replace(draft, path)


def terminal_name(environ: Mapping[str, str]) -> str:
    """A file name for the terminal of this process; "" without one.

    A terminal's device name is reused; the time of its creation distinguishes the terminals.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stream.isatty():
                status = os.fstat(stream.fileno())
                made = f"{status.st_rdev}:{status.st_ctime_ns}:{environ.get('WT_SESSION', '')}"
                return f"{PREFIX}terminal-" + hashlib.sha256(made.encode()).hexdigest()[:16]
    return ""
