"""What a WebSocket client is told when its message cannot be used."""

from __future__ import annotations

MAX_CHANNELS = 32

BAD_STREAM_ID = (
    "The 'stream_id' field must be a non-empty string with at most 256 characters and may only contain "
    "letters, numbers, underscores, hyphens, and periods."
)
TOO_MANY_CHANNELS = (
    f"This WebSocket connection has reached its maximum number of distinct stream IDs ({MAX_CHANNELS}). "
    "Reuse an existing stream_id or open a new WebSocket connection."
)
NO_UPGRADE = (
    "A WebSocket handshake needs the header 'Connection: Upgrade'. "
    "If there is a reverse proxy in front of this server, make it pass that header on."
)
NO_STEERING = (
    "This server cannot steer a running response; interrupt it, or send the input when it has finished."
)
QUEUE_FULL = (
    "Too many requests are waiting on this connection. Wait for one to finish, or raise server.max_queue."
)
