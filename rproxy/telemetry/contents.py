"""The requests and answers of the latest turns, for ``server.inspector: content``.

A :class:`~rproxy.telemetry.recorder.Recorder` like the one that writes files, but it keeps its recordings in
memory, compressed, and drops the oldest when there are too many bytes.  Loaded only if content is kept.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from functools import partial
from typing import Dict, Iterator, NamedTuple, Optional

from ..cooperative import in_thread
from .recorder import file_name
from .recording import Recording
from .records import TurnRecord

MAX_BYTES = 64 << 20  # of packed recordings, which are several times as large
PACKED_PIECE = 1 << 14  # bytes that are unpacked together: each piece copies what is left of them
PIECE = 1 << 16  # bytes


class Content(NamedTuple):
    """The recording of one turn.

    ``name``: a file name for it.  It stays packed, because many clients may read it slowly.
    """

    name: str
    packed: bytes

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, in pieces of at most ``PIECE``: JSON lines, masked."""
        unpack = zlib.decompressobj()
        for begin in range(0, len(self.packed), PACKED_PIECE):
            part = self.packed[begin : begin + PACKED_PIECE]
            while not unpack.eof:
                piece = unpack.decompress(part, PIECE)
                part = unpack.unconsumed_tail
                if not piece:
                    break
                yield piece


class Contents:
    """The recordings of one process.

    :param most: bytes that are kept of turns that have ended

    ``size``: the bytes that are kept now.
    """

    def __init__(self, most: int = MAX_BYTES) -> None:
        self._most = most
        self._running: Dict[str, Recording] = {}
        self._ended: OrderedDict[str, Content] = OrderedDict()
        self.size = 0

    def begin(self, recording: Recording) -> None:
        self._running[recording.request_id] = recording

    async def end(self, recording: Recording, record: TurnRecord) -> None:
        try:
            content = await in_thread(partial(_pack, recording))
        finally:
            self._running.pop(recording.request_id, None)
        self._drop(recording.request_id)
        self._ended[recording.request_id] = content
        self.size += len(content.packed)
        while self.size > self._most:
            self._drop(next(iter(self._ended)))

    def _drop(self, request_id: str) -> None:
        content = self._ended.pop(request_id, None)
        self.size -= 0 if content is None else len(content.packed)

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._ended or request_id in self._running

    async def content(self, request_id: str) -> Optional[Content]:
        """The content of a turn, also while it runs; None if there is none, or none any more."""
        ended, running = self._ended.get(request_id), self._running.get(request_id)
        return ended if ended is not None or running is None else await in_thread(partial(_pack, running))


def _pack(recording: Recording) -> Content:
    lines = "".join(recording.lines()).encode("utf-8")
    return Content(file_name(recording), zlib.compress(lines, 1))
