"""Compaction: the model writes a summary of the conversation, and a sealed item carries it.

It is requested with ``POST /responses/compact``, or by an input item ``compaction_trigger`` at the end of a
create request (Codex).  The item's ``encrypted_content`` holds the summary itself, so every instance can read
it, also after a restart.
"""

from __future__ import annotations

from functools import partial
from typing import Any, List, Optional, Sequence

from ...types import AnyItem, Delta, Event, Item, Response
from ..sealed import CHECKSUM
from ..text_buffer import TextBuffer
from ..tools.table import ToolTable
from .converter import MAX_SEALED, StreamConverter
from .terminal import COMPLETED, Failure

PROMPT = (
    "Write a hand-off summary of this conversation for another model that continues the work and sees"
    " nothing but your summary. Keep what it needs: the user's goals and preferences, decisions and their"
    " reasons, what has been done and found out (names of files, commands, figures, exact identifiers), what"
    " failed, and what is left to do next. Leave out what no longer matters. Answer with the summary alone;"
    " do not call tools."
)


def is_trigger(items: Sequence[AnyItem]) -> bool:
    """Does the input ask for a compaction?"""
    return bool(items) and items[-1].get("type") == "compaction_trigger"


def prompt_item() -> AnyItem:
    """The request for a summary, as the last item of the history."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": PROMPT}]}


class CompactionConverter(StreamConverter):
    """Makes one ``compaction`` item of the whole answer; shows nothing before it is complete.

    :param note: added to the summary: the parts of the conversation that its writer has not seen
    """

    def __init__(self, response: Response, tools: ToolTable, *, note: str = "", **options: Any) -> None:
        super().__init__(response, tools, **options)
        self._note = note
        self._summary = TextBuffer()

    def _apply(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if delta[0] == "text":
                self._summary.append(delta[1])

    @property
    def is_empty(self) -> bool:
        return not self._summary

    def failure(self, done: bool) -> Optional[Failure]:
        failure = super().failure(done)
        summary = self._summary.text()
        if failure is None and len(summary) > MAX_SEALED:
            limit = f"The summary of the conversation has more than {MAX_SEALED} characters. Try again."
            return Failure("server_error", limit)
        if failure is None and not summary.strip():
            return Failure("server_error", "The model wrote no summary of the conversation. Try again.")
        return failure

    def finish(self) -> List[Event]:
        summary = self._summary.text().strip() + (f"\n\n{self._note}" if self._note else "")
        seal = self._seal or partial(CHECKSUM.seal, "compaction")
        blob = seal({"text": summary})
        item: Item = {"id": self._builder.ids("cmp"), "type": "compaction", "encrypted_content": blob}
        at = self._builder.add(item)
        self._builder.finish(at, item)
        return self._end(COMPLETED)
