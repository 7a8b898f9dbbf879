"""Our own state in the client's hands: the ``encrypted_content`` of reasoning and compaction items.

A :class:`Sealer`, which is passed in, protects the blobs; the keys are not kept here.  Every blob holds a
zlib stream of the JSON ``[kind, payload]`` and begins with the prefix of its sealer, so foreign blobs are
recognised.  The :class:`ChecksumSealer` here only detects damage: it is for use as a library, and for blobs
of older versions (``rproxy1.``).

A small blob may expand to a thousand times its size, and a request may hold any number of blobs.  So what all
blobs of a request hold is bounded together: a :class:`Room` counts it before it is in memory.
"""

from __future__ import annotations

import base64
import hmac
import zlib
from typing import Any, NamedTuple, Optional, Protocol, Tuple

from ..errors import ApiError
from ..json_codec import encode_json, parser
from ..types import Json
from .json_reader import USUAL, parse_steps

FAMILY = "rproxy"  # the beginning of every sealer's prefix
FOREIGN = "another service made it"
DAMAGED = "it is damaged"

_parse = parser(float)
MUCH = 1 << 20  # bytes of JSON, beyond which good compression takes too long
MAX_SEALED = 16 << 20  # bytes of JSON in all sealed items of a request
AT_ONCE = 1 << 19  # bytes of JSON that are parsed in some milliseconds, whatever they are


class TooMuchSealed(ApiError):
    """400: the sealed items of a request hold more than ``most`` bytes."""

    def __init__(self, most: int) -> None:
        super().__init__(
            400,
            "The sealed items of this request (the encrypted_content of reasoning and compaction items) hold "
            f"more than {most} bytes in all, the limit of this proxy. "
            "Send each item once and leave out old reasoning, or start a new conversation.",
            code="invalid_encrypted_content",
            param="input",
        )


class Room:
    """How many bytes of JSON the sealed items of one request may hold.

    :param most: in all
    """

    def __init__(self, most: int = MAX_SEALED) -> None:
        self._most = self.left = most

    def take(self, size: int) -> None:
        """Count so many bytes.

        :raises TooMuchSealed: there is no room for them
        """
        self.left -= size
        if self.left < 0:
            raise TooMuchSealed(self._most)


class Opened(NamedTuple):
    """The content of a blob.  ``problem``: a clause that says why it cannot be opened; "" if it was."""

    kind: str = ""  # reasoning or compaction
    payload: Json = {}
    problem: str = ""


class Sealer(Protocol):
    """Protects data that one client keeps for us.  Equal content gives equal blobs: prompt caches depend on
    it.
    """

    def seal(self, kind: str, payload: Json) -> str:
        """``payload`` as URL-safe text. ``kind`` is ``reasoning`` or ``compaction``."""

    def open(self, blob: Any, room: Optional[Room] = None) -> Opened:
        """The content of a blob.

        :param room: for this one and others; by default it has room of its own
        :raises TooMuchSealed: there is no room for it; nothing else, whatever the text is
        """


def pack(kind: str, payload: Json) -> bytes:
    """The content of a blob as bytes, for a sealer to protect."""
    plain = encode_json([kind, payload])
    return zlib.compress(plain, zlib.Z_BEST_SPEED if len(plain) > MUCH else zlib.Z_DEFAULT_COMPRESSION)


def unpack(packed: bytes, room: Room) -> Optional[Tuple[str, Json]]:
    """The arguments of :func:`pack`; None if the bytes are something else.

    :raises TooMuchSealed: there is no room for what they hold
    """
    return read_plain(inflate(packed, room))


def inflate(packed: bytes, room: Room) -> bytes:
    """The JSON in the bytes of :func:`pack`; empty for other bytes.

    :raises TooMuchSealed: there is no room for it
    """
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, room.left + 1)
    except zlib.error:
        return b""
    room.take(len(plain))
    return plain if unpacker.eof and not unpacker.unused_data else b""


def read_plain(plain: bytes) -> Optional[Tuple[str, Json]]:
    """The kind and the payload in the JSON of :func:`inflate`."""
    try:
        kind, payload = _parse(plain.decode()) if len(plain) <= AT_ONCE else _parse_large(plain)
    except (ValueError, TypeError, RecursionError):
        return None
    return (kind, payload) if isinstance(kind, str) and isinstance(payload, dict) else None


def _parse_large(plain: bytes) -> Any:
    """The same in short steps, for a thread: others wait while :mod:`json` reads.

    :raises ValueError: it is not JSON, or has too many values
    """
    steps = parse_steps((b'{"":', plain, b"}"), float, bounds=USUAL)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value[""]


def to_text(prefix: str, raw: bytes) -> str:
    """``prefix`` and base64url without padding."""
    return prefix + base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def from_text(prefix: str, blob: str) -> Optional[bytes]:
    """The bytes after ``prefix``; None if the rest is not base64url."""
    text = blob[len(prefix) :]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError:
        return None


class ChecksumSealer:
    """Detects damage, but neither hides nor authenticates a blob (HMAC-SHA256 with an empty key)."""

    prefix = "rproxy1."
    _size = 16  # bytes of the checksum

    def seal(self, kind: str, payload: Json) -> str:
        packed = pack(kind, payload)
        return to_text(self.prefix, self._checksum(packed) + packed)

    def open(self, blob: Any, room: Optional[Room] = None) -> Opened:
        if not isinstance(blob, str) or not blob.startswith(self.prefix):
            return Opened(problem=FOREIGN)
        raw = from_text(self.prefix, blob) or b""
        checksum, packed = raw[: self._size], raw[self._size :]
        content = unpack(packed, room or Room()) if checksum == self._checksum(packed) else None
        return Opened(problem=DAMAGED) if content is None else Opened(*content)

    def _checksum(self, packed: bytes) -> bytes:
        return hmac.digest(b"", packed, "sha256")[: self._size]


CHECKSUM = ChecksumSealer()


def seal(kind: str, payload: Json) -> str:
    """``payload`` as text for :func:`unseal`, by the :class:`ChecksumSealer`."""
    return CHECKSUM.seal(kind, payload)


def unseal(blob: Any) -> Optional[Tuple[str, Json]]:
    """The kind and the payload of a blob of :func:`seal`; None if it cannot be opened."""
    try:
        opened = CHECKSUM.open(blob)
    except TooMuchSealed:
        return None
    return None if opened.problem else (opened.kind, opened.payload)
