"""How a response ends: its terminal status, or why an answer cannot be completed."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional

from ..answer.reader import AnswerReader


class TerminalStatus(NamedTuple):
    """How a response ends."""

    status: str  # of the response
    reason: Optional[str] = None  # incomplete_details.reason


COMPLETED = TerminalStatus("completed")
OUT_OF_TOKENS = TerminalStatus("incomplete", "max_output_tokens")
INTERRUPTED = TerminalStatus("incomplete", "interrupted")
FAILED = TerminalStatus("failed")

# By finish reason.  "context" means a full context window: with some output the answer is merely cut off;
# without any, it is a failure.
TERMINAL_STATUSES: Dict[Optional[str], TerminalStatus] = {
    None: COMPLETED,  # only [DONE]
    "stop": COMPLETED,
    "tool_calls": COMPLETED,
    "length": OUT_OF_TOKENS,
    "context": OUT_OF_TOKENS,
    "content_filter": TerminalStatus("incomplete", "content_filter"),
    "error": FAILED,
}


class Failure(NamedTuple):
    """Why an answer cannot be completed.

    ``raw`` is the provider's error object if it sent one; it is more precise than ``code``.
    """

    code: str
    message: str
    raw: Any = None


def failure_of(reader: AnswerReader, *, done: bool, is_empty: bool, nameless_call: bool) -> Optional[Failure]:
    """Why an answer cannot be completed, now that the provider has stopped.

    :param done: the provider has marked the end (``[DONE]``, or a whole JSON document); it did not just close
        the connection
    :param is_empty: the answer has no output
    :param nameless_call: a call has no name, so it cannot be run
    :returns: None if the answer can be completed
    """
    finish = reader.finish
    if reader.error is not None:
        return Failure(
            "server_error", "The provider reported an error instead of an answer.", raw=reader.error
        )
    if not reader.chunks:
        return Failure(
            "server_error",
            "The provider answered 200 but sent nothing. Try again; if it happens again, check base_url.",
        )
    if finish == "error":
        return Failure("server_error", "The provider broke off its answer (finish_reason error). Try again.")
    if finish == "context" and is_empty:
        return Failure(
            "context_length_exceeded", "The input exceeds the context window of the model. Shorten it."
        )
    if finish is None and not done:
        return Failure(
            "server_error",
            "The provider's stream was truncated: it ended without finish_reason and [DONE]. Try again.",
        )
    if nameless_call and TERMINAL_STATUSES[finish] is COMPLETED:
        return Failure(
            "server_error", "The provider sent a tool call without a name, which cannot be run. Try again."
        )
    return None
