"""Our own state in the client's hands: the ``encrypted_content`` of reasoning and compaction items.

A blob is ``rproxy1.`` and base64url text without padding of a 16 byte tag and a zlib stream of the JSON
``[kind, payload]``.  The tag is HMAC-SHA256, truncated, over the zlib stream.  With an empty key it is a mere
checksum that finds damage; with a key nobody else can make a blob.  The text is not encrypted: it came from
the client's own conversation.  Blobs of other makers are recognised and refused.
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
_TAG = 16  # bytes
_MAX = 16 << 20  # bytes of JSON; a small blob may unfold into gigabytes


def seal(kind: str, payload: Json, key: bytes = b"") -> str:
    """``payload`` as a URL-safe string for :func:`unseal`; the same arguments give the same string.

    :param kind: what it is: ``reasoning`` or ``compaction``
    :param key: authenticates the blob; empty: checksum only
    """
    packed = zlib.compress(encode_json([kind, payload]))
    return _PREFIX + base64.urlsafe_b64encode(_tag(packed, key) + packed).rstrip(b"=").decode("ascii")


def unseal(blob: Any, key: bytes = b"") -> Optional[Tuple[str, Json]]:
    """Kind and payload of a blob; None if it is damaged, foreign, sealed with another key or larger than 16
    MiB. Never raises."""
    if not isinstance(blob, str) or not blob.startswith(_PREFIX):
        return None
    text = blob[len(_PREFIX) :]
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        if not hmac.compare_digest(raw[:_TAG], _tag(raw[_TAG:], key)):
            return None
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(raw[_TAG:], _MAX)
        if not unpacker.eof or unpacker.unused_data:
            return None
        kind, payload = json.loads(plain)
    except (ValueError, TypeError, RecursionError, zlib.error):
        return None
    return (kind, payload) if isinstance(kind, str) and isinstance(payload, dict) else None


def _tag(packed: bytes, key: bytes) -> bytes:
    return hmac.digest(key, packed, "sha256")[:_TAG]
