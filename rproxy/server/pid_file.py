"""The pid file, by which ``rproxy reload`` finds a running server.

The server holds a lock on its file as long as it lives, so a file that a killed process left behind never
counts as a server, even when another program has its process id.
"""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from pathlib import Path
from typing import Iterator, List, Mapping, NamedTuple, Optional

from ..errors import ConfigError

NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # another user may have put a link there, in a folder such as /tmp
MAX_SIZE = 64  # bytes of a file that may be one of these
DIGITS = b"0123456789\n"


class RunningServer(NamedTuple):
    """A running server."""

    pid: int
    path: Path


def pid_directory(environ: Mapping[str, str]) -> Optional[Path]:
    """The folder for pid files without ``server.pid_file``: ``$XDG_RUNTIME_DIR/rproxy``, if there is one."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) / "rproxy" if runtime and os.path.isdir(runtime) else None


@contextlib.contextmanager
def pid_file(configured: Optional[str], environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Keep a pid file while the context lasts.

    :param configured: ``server.pid_file``
    :raises ConfigError: that file cannot be written, or belongs to another running server
    """
    directory = pid_directory(environ)
    path = Path(configured) if configured else directory / f"{os.getpid()}.pid" if directory else None
    if path is None:
        yield
        return
    file: Optional[int] = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o644)
    except OSError as error:
        if configured:
            raise ConfigError(f"server.pid_file: cannot write {path}: {error.strerror}") from error
    if file is None:  # it is not configured, and optional
        yield
        return
    try:
        if not _lock(file):
            raise ConfigError(f"server.pid_file: {path} belongs to another rproxy that is running")
        if os.read(file, MAX_SIZE).strip(DIGITS):
            raise ConfigError(f"server.pid_file: {path} is another file, which rproxy does not write over")
        os.lseek(file, 0, os.SEEK_SET)
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()  # before the lock goes
    finally:
        os.close(file)


def running_servers(
    configured: Optional[str], environ: Mapping[str, str] = os.environ
) -> List[RunningServer]:
    """The running servers with a pid file.

    :param configured: ``server.pid_file``; without it, all files of the default directory are examined
    """
    directory = pid_directory(environ)
    paths = [Path(configured)] if configured else sorted(directory.glob("*.pid")) if directory else []
    return [RunningServer(pid, path) for path in paths for pid in _pid_of_running(path)]


def _pid_of_running(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDWR | NO_LINK)
    except OSError:
        return
    try:
        text = os.read(file, MAX_SIZE)
        if not _lock(file) and text.strip().isdigit():
            yield int(text)
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    """:returns: False: another process holds the lock"""
    try:
        fcntl = import_module("fcntl")
    except ImportError:  # Windows has no SIGHUP either
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
