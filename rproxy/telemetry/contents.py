"""What was asked and answered in the turns that ended last, for ``server.inspector: content``.

A :class:`~rproxy.telemetry.recorder.Recorder` like the one that writes files, but it keeps its recordings in
memory, packed, and lets the oldest go when there are too many bytes.  Loaded only where content is wanted.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from functools import partial
from typing import Dict, Optional

from ..cooperative import in_thread
from ..types import NamedTuple
from .recorder import file_name
from .recording import Recording
from .records import TurnRecord

MAX_BYTES = 64 << 20  # of packed recordings, which are several times as large


class _Packed(NamedTuple):
    name: str
    data: bytes


class Content(NamedTuple):
    """``name`` is that of a file for it, ``lines`` are its bytes: JSON lines, masked."""

    name: str
    lines: bytes


class Contents:
    """The recordings of one process.

    :param most: bytes that are kept of turns that have ended

    ``size``: the bytes that are kept now.
    """

    def __init__(self, most: int = MAX_BYTES) -> None:
        self._most = most
        self._running: Dict[str, Recording] = {}
        self._ended: OrderedDict[str, _Packed] = OrderedDict()
        self.size = 0

    def begin(self, recording: Recording) -> None:
        self._running[recording.request_id] = recording

    async def end(self, recording: Recording, record: TurnRecord) -> None:
        try:
            packed = await in_thread(partial(_pack, recording))
        finally:
            self._running.pop(recording.request_id, None)
        self._drop(recording.request_id)
        self._ended[recording.request_id] = packed
        self.size += len(packed.data)
        while self.size > self._most:
            self._drop(next(iter(self._ended)))

    def _drop(self, request_id: str) -> None:
        packed = self._ended.pop(request_id, None)
        self.size -= 0 if packed is None else len(packed.data)

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._ended or request_id in self._running

    async def content(self, request_id: str) -> Optional[Content]:
        """What there is of a turn, also while it runs; None: nothing, or nothing any more."""
        packed, running = self._ended.get(request_id), self._running.get(request_id)
        if packed is not None:
            return Content(packed.name, await in_thread(partial(zlib.decompress, packed.data)))
        return None if running is None else await in_thread(partial(_content, running))


def _content(recording: Recording) -> Content:
    return Content(file_name(recording), "".join(recording.lines()).encode("utf-8"))


def _pack(recording: Recording) -> _Packed:
    name, lines = _content(recording)
    return _Packed(name, zlib.compress(lines, 1))
