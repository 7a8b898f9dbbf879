"""Server-sent events as rproxy writes them."""

from __future__ import annotations

from typing import Sequence

from ..json_codec import encode_json
from ..types import Event

DONE = b"data: [DONE]\n\n"


def encode_sse(events: Sequence[Event]) -> bytes:
    """Responses events as one block of server-sent events, each ``event: <type>`` and ``data: <json>``."""
    return b"".join(
        [
            b"event: %b\ndata: %b\n\n" % (event["type"].encode("utf-8", "replace"), encode_json(event))
            for event in events
        ]
    )
