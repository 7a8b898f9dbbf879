"""What clients of the WebSocket edge may do wrong."""

from __future__ import annotations

from ..errors import ApiError, invalid
from ..types import Json

MAX_CHANNELS = 32


def no_upgrade() -> ApiError:
    """400: it is an ordinary request, perhaps because a reverse proxy has made it one."""
    return invalid(
        "A WebSocket handshake needs the header 'Connection: Upgrade'. "
        "If there is a reverse proxy in front of this server, make it pass that header on."
    )


def bad_stream_id() -> ApiError:
    """400: the name of a channel cannot be one."""
    return invalid(
        "The 'stream_id' field must be a non-empty string with at most 256 characters and may only contain "
        "letters, numbers, underscores, hyphens, and periods.",
        param="stream_id",
        code="invalid_stream_id",
    )


def too_many_channels() -> ApiError:
    """400: there are ``MAX_CHANNELS`` already."""
    return invalid(
        "This WebSocket connection has reached its maximum number of distinct stream IDs "
        f"({MAX_CHANNELS}). Reuse an existing stream_id or open a new WebSocket connection.",
        param="stream_id",
        code="websocket_stream_limit_reached",
    )


def queue_full() -> ApiError:
    """429: ``server.max_queue`` turns are waiting."""
    return ApiError(
        429,
        "Too many requests are waiting on this connection. Wait for one to finish, or raise "
        "server.max_queue.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=1.0,
    )


def no_steering(request: Json) -> Json:
    """The answer to ``response.steer``: Chat Completions takes no input while it answers."""
    error = {
        "type": "invalid_request_error",
        "code": "steering_not_supported",
        "param": None,
        "message": "This server cannot steer a running response; interrupt it, or send the input when it has "
        "finished.",
    }
    steer = {key: request[key] for key in ("previous_response_id", "input") if key in request}
    return {"type": "response.steer.failed", "sequence_number": 0, "error": error, "steer": steer}
