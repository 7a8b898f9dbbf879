"""The statuses of a Response, and the events that end its stream."""

from __future__ import annotations

RUNNING = ("queued", "in_progress")
ANSWERED = ("completed", "incomplete")  # there is an answer, perhaps an incomplete one
# Final status -> terminal event. A cancelled response has none of its own: it ended early, but did not fail.
TERMINAL_EVENTS = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
    "cancelled": "response.incomplete",
}
TERMINAL_TYPES = frozenset(TERMINAL_EVENTS.values())
