"""Our own state in the client's hands: the ``encrypted_content`` of reasoning and compaction items.

A blob is ``rproxy1.`` and base64url text without padding: a checksum of 16 bytes, and a zlib stream of the
JSON ``[kind, payload]``.  The checksum (HMAC-SHA256 with an empty key, truncated) finds damage.  The text is
not encrypted, since it came from the client's own conversation.  Blobs of other makers are recognised and
refused.
"""

from __future__ import annotations

import base64
import hmac
import json
import zlib
from typing import Any, Optional, Tuple

from ..types import Json
from .sse import encode_json

_PREFIX = "rproxy1."
_CHECKSUM = 16  # bytes
_MAX = 16 << 20  # bytes of JSON; a small blob may unfold into gigabytes


def seal(kind: str, payload: Json) -> str:
    """``payload`` as a URL-safe string for :func:`unseal`; the same arguments give the same string.

    :param kind: ``reasoning`` or ``compaction``
    """
    packed = zlib.compress(encode_json([kind, payload]))
    return _PREFIX + base64.urlsafe_b64encode(_checksum(packed) + packed).rstrip(b"=").decode("ascii")


def unseal(blob: Any) -> Optional[Tuple[str, Json]]:
    """The kind and the payload of a blob.  Raises nothing.

    :returns: None if the blob is damaged, foreign or larger than 16 MiB
    """
    if not isinstance(blob, str) or not blob.startswith(_PREFIX):
        return None
    text = blob[len(_PREFIX) :]
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        checksum, packed = raw[:_CHECKSUM], raw[_CHECKSUM:]
        if checksum != _checksum(packed):
            return None
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(packed, _MAX)
        if not unpacker.eof or unpacker.unused_data:
            return None
        kind, payload = json.loads(plain)
    except (ValueError, TypeError, RecursionError, zlib.error):
        return None
    return (kind, payload) if isinstance(kind, str) and isinstance(payload, dict) else None


def _checksum(packed: bytes) -> bytes:
    return hmac.digest(b"", packed, "sha256")[:_CHECKSUM]
