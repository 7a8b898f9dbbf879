"""Our own state in the client's hands: the ``encrypted_content`` of reasoning and compaction items.

A :class:`Sealer`, which is passed in, protects the blobs; the keys are not kept here.  Every blob holds a
zlib stream of the JSON ``[kind, payload]`` and begins with the prefix of its sealer, so foreign blobs are
recognised.  The :class:`ChecksumSealer` here only detects damage: it is for use as a library, and for blobs
of older versions (``rproxy1.``).
"""

from __future__ import annotations

import base64
import hmac
import zlib
from typing import Any, NamedTuple, Optional, Protocol, Tuple

from ..json_codec import encode_json, parser
from ..types import Json

FAMILY = "rproxy"  # the beginning of every sealer's prefix
FOREIGN = "another service made it"
DAMAGED = "it is damaged"

_parse = parser(float)
MUCH = 1 << 20  # bytes of JSON, beyond which good compression takes too long
_MAX = 16 << 20  # bytes of JSON; a small blob may expand to gigabytes


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

    def open(self, blob: Any) -> Opened:
        """The content of a blob.  Raises nothing, whatever the text is."""


def pack(kind: str, payload: Json) -> bytes:
    """The content of a blob as bytes, for a sealer to protect."""
    plain = encode_json([kind, payload])
    return zlib.compress(plain, zlib.Z_BEST_SPEED if len(plain) > MUCH else zlib.Z_DEFAULT_COMPRESSION)


def unpack(packed: bytes) -> Optional[Tuple[str, Json]]:
    """The arguments of :func:`pack`; None if the bytes are something else, or expand to more than 16 MiB."""
    return read_plain(inflate(packed))


def inflate(packed: bytes) -> bytes:
    """The JSON in the bytes of :func:`pack`; empty for other bytes, or for more than 16 MiB."""
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, _MAX)
    except zlib.error:
        return b""
    return plain if unpacker.eof and not unpacker.unused_data else b""


def read_plain(plain: bytes) -> Optional[Tuple[str, Json]]:
    """The kind and the payload in the JSON of :func:`inflate`."""
    try:
        kind, payload = _parse(plain.decode())
    except (ValueError, TypeError, RecursionError):
        return None
    return (kind, payload) if isinstance(kind, str) and isinstance(payload, dict) else None


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

    def open(self, blob: Any) -> Opened:
        if not isinstance(blob, str) or not blob.startswith(self.prefix):
            return Opened(problem=FOREIGN)
        raw = from_text(self.prefix, blob) or b""
        checksum, packed = raw[: self._size], raw[self._size :]
        content = unpack(packed) if checksum == self._checksum(packed) else None
        return Opened(problem=DAMAGED) if content is None else Opened(*content)

    def _checksum(self, packed: bytes) -> bytes:
        return hmac.digest(b"", packed, "sha256")[: self._size]


CHECKSUM = ChecksumSealer()


def seal(kind: str, payload: Json) -> str:
    """``payload`` as text for :func:`unseal`, by the :class:`ChecksumSealer`."""
    return CHECKSUM.seal(kind, payload)


def unseal(blob: Any) -> Optional[Tuple[str, Json]]:
    """The kind and the payload of a blob of :func:`seal`; None if it cannot be opened."""
    opened = CHECKSUM.open(blob)
    return None if opened.problem else (opened.kind, opened.payload)
