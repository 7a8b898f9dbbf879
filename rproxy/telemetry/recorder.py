"""Who records turns: the tap between a turn and its provider, and the folder that recordings are kept in.

This is loaded, and costs something per delta, only while turns are recorded.  A turn that is recorded
(:class:`rproxy.service.recording_turn.RecordingTurn`) asks its providers through a
:class:`RecordingUpstream`.
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path
from typing import Awaitable, Callable, Mapping, Optional, Protocol

from ..config.schema import Provider
from ..cooperative import in_thread
from ..errors import ApiError, ConfigError
from ..upstream.client import CancelToken, ChatClient, OnData, Result, endpoint, request_headers
from .recording import Recording
from .records import TurnRecord

SUFFIX = ".jsonl"


class Recorder(Protocol):
    """Takes recordings; :attr:`rproxy.telemetry.telemetry.Telemetry.recorders` has those in use."""

    def begin(self, recording: Recording) -> None:
        """A turn begins; its recording grows until :meth:`end`."""

    async def end(self, recording: Recording, record: TurnRecord) -> None:
        """The turn has ended, and its recording is complete.

        :raises OSError: it could not be kept, which is logged
        """


class FolderRecorder:
    """Writes each turn to a file of its own.

    :param folder: created if it does not exist
    :param errors_only: only turns that failed
    :raises ConfigError: the folder cannot be used
    """

    def __init__(self, folder: Path, *, errors_only: bool = False) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--record: cannot make the folder {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"--record: this user may not write in {folder}")
        self._folder = folder
        self._errors_only = errors_only

    def begin(self, recording: Recording) -> None:
        """Nothing to write yet."""

    async def end(self, recording: Recording, record: TurnRecord) -> None:
        if record.worrying or not self._errors_only:
            await in_thread(partial(self.write, recording))

    def write(self, recording: Recording) -> Path:
        """Write the file, which only this user can read.

        :raises OSError: that is not possible
        """
        content = "".join(recording.lines()).encode("utf-8")
        path = self._folder / file_name(recording)
        flags = (
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        )
        with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
        return path


def file_name(recording: Recording) -> str:
    """A name that sorts by time: ``20261129T041500.123Z-req_....jsonl``."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(recording.started))
    return f"{stamp}.{int(recording.started % 1 * 1000):03d}Z-{recording.request_id}{SUFFIX}"


class RecordingUpstream:
    """The provider's side of a turn that is recorded (:class:`~rproxy.upstream.client.ChatClient`)."""

    def __init__(self, upstream: ChatClient, recording: Recording) -> None:
        self._upstream = upstream
        self._recording = recording

    async def chat(
        self,
        provider: Provider,
        body: bytes,
        *,
        on_head: Callable[[int, Mapping[str, str]], object],
        on_data: OnData,
        on_sent: Optional[Callable[[], object]] = None,
        path: str = "/chat/completions",
        stop: Optional[CancelToken] = None,
    ) -> Result:
        """See :meth:`rproxy.upstream.client.Upstream.chat`."""
        recording = self._recording
        number = recording.attempt(provider, endpoint(provider, path), request_headers(provider), body)

        def head(status: int, headers: Mapping[str, str]) -> None:
            recording.head(number, status, headers)
            on_head(status, headers)

        def data(piece: bytes) -> Optional[Awaitable[None]]:
            recording.data(number, bytes(piece))
            return on_data(piece)

        try:
            result = await self._upstream.chat(
                provider, body, on_head=head, on_data=data, on_sent=on_sent, path=path, stop=stop
            )
        except ApiError as error:
            recording.end(number, "failed", error)
            raise
        except asyncio.CancelledError:
            recording.end(number, "cancelled")
            raise
        if not 200 <= result.status < 300:
            recording.head(number, result.status, result.headers)
            recording.data(number, result.body)
        recording.end(number, "stopped" if stop is not None and stop.cancelled else "complete")
        return result
