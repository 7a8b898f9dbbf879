"""Turns to chat messages, in the dialect of the provider."""

from __future__ import annotations

from typing import Callable, Iterator, List, Optional, Sequence, Tuple, TypeVar

from ...types import AnyItem, CachedReasoning, Json
from ..profile import Profile
from ..sealed import CHECKSUM, Room, Sealer
from ..tools.table import ToolTable
from .content import Content, ContentWriter, output_parts
from .dialect import TOOL_CALL_IDS, in_dialect, reasoning_field
from .matching import ToolCall
from .turns import NO_OUTPUT, AssistantTurn, CallKey, PlainMessage, fold_items

T = TypeVar("T")
# Finds what is remembered of the turn that made a call.
Recall = Callable[[CallKey], Optional[CachedReasoning]]

INTERRUPTED = "(no output: the call was interrupted)"
SEE_BELOW = "(the result follows as an attachment)"
ATTACHED = "Attached from the tool result:"


def taken_from(entries: List[T]) -> Iterator[T]:
    """The entries of a list, each removed and thereby freed separately: freeing all of them at once would
    keep other threads waiting.
    """
    entries.reverse()
    while entries:
        yield entries.pop()


def to_messages(
    items: Sequence[AnyItem],
    tools: ToolTable,
    profile: Profile,
    *,
    instructions: Optional[str] = None,
    recall: Recall = lambda key: None,
    resends: bool = True,
    phases: bool = False,
    sealer: Sealer = CHECKSUM,
    warnings: Optional[List[str]] = None,
    room: Optional[Room] = None,
) -> List[Json]:
    """The ``messages`` of a chat request.

    :param items: the whole history, including the items of earlier responses
    :param instructions: text of the first system message
    :param recall: finds the reasoning of earlier turns for clients that did not send it back
    :param resends: when the client repeats a request, it sends the part of the answer that it got before the
        answer broke off (Codex does)
    :param phases: let messages keep their ``phase``, which only the Responses API knows
    :param sealer: opens what earlier turns have sealed
    :param warnings: receives a line for everything that is left out
    :param room: for what is sealed; by default 16 MiB
    :raises TooMuchSealed: there is no room for it
    :raises ApiError: 400 for an item that cannot be understood
    """
    warnings = [] if warnings is None else warnings
    writer = _MessageWriter(profile, recall, phases, warnings)
    entries = fold_items(items, tools, resends=resends, sealer=sealer, warnings=warnings, room=room)
    if instructions:
        writer.plain(PlainMessage.of_text("system", instructions))
    for entry in taken_from(entries):
        if isinstance(entry, PlainMessage):
            writer.plain(entry)
        else:
            writer.turn(entry)
    return in_dialect(writer.messages, profile)


class _MessageWriter:
    def __init__(self, profile: Profile, recall: Recall, phases: bool, warnings: List[str]) -> None:
        self.messages: List[Json] = []
        self._phases = phases
        self._profile = profile
        self._recall = recall
        self._warnings = warnings
        self._content = ContentWriter(profile, warnings)

    def plain(self, message: PlainMessage) -> None:
        role = message.role
        if role == "user":
            content: Content = self._content.user(message.parts)
        else:
            texts, others = self._content.split(message.parts)
            content = "\n".join(texts)
            if others:
                self._warnings.append(f"something other than text left out of a {role} message")
        if content:
            if role == "developer":
                role = self._profile.developer_role
            self.messages.append({"role": role, "content": content})

    def turn(self, turn: AssistantTurn) -> None:
        """The assistant message, a tool message for each call, and a user message with what tool messages
        cannot hold.
        """
        recalled: List[CachedReasoning] = [
            self._recall(CallKey(call.id, call.name, call.arguments, turn.asked)) or {} for call in turn.calls
        ]
        known = next(filter(None, recalled), CachedReasoning())
        text = "".join(turn.texts)
        if turn.calls and not text.strip():
            text = ""  # only line ends between thinking and a call, which some providers refuse
        thought = "".join(turn.reasoning) or str(known.get("text") or "")
        details = turn.details or known.get("details") or []
        if not text and not turn.calls and (not thought or not self._keeps_bare_reasoning()):
            return
        message: Json = {
            "role": "assistant",
            "content": text or (self._profile.empty_content if turn.calls else ""),
        }
        if self._phases and turn.phase is not None:
            message["phase"] = turn.phase
        self._add_reasoning(message, thought, details, bool(turn.calls))
        if turn.calls:
            message["tool_calls"] = [self._call(call, known) for call, known in zip(turn.calls, recalled)]
        self.messages.append(message)
        self._results(turn.calls)

    def _keeps_bare_reasoning(self) -> bool:
        rule = self._profile.reasoning
        return rule.reasoning_only == "keep" and rule.replay == "always"

    def _add_reasoning(self, message: Json, thought: str, details: List[Json], has_calls: bool) -> None:
        rule = self._profile.reasoning
        if rule.replay == "never" or rule.replay == "tool_turns" and not has_calls:
            return
        if thought or details:
            for key in (rule.field,) + rule.also:
                reasoning_field(key)(message, thought, details)
        if has_calls and rule.required_on_tool_calls is not None:
            message.setdefault(rule.field, rule.required_on_tool_calls)

    def _call(self, call: ToolCall, known: CachedReasoning) -> Json:
        chat: Json = {
            "id": self._id(call.id),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        if self._profile.keep_extra_content:
            extra = (known.get("extra_content") or {}).get(call.id)
            if extra:
                chat["extra_content"] = extra
        return chat

    def _results(self, calls: Sequence[ToolCall]) -> None:
        attachments: List[Json] = []
        for call in calls:
            texts, others = self._result(call)
            attachments += others
            content = "\n".join(texts) or (SEE_BELOW if others else NO_OUTPUT)
            self.messages.append({"role": "tool", "tool_call_id": self._id(call.id), "content": content})
        if attachments:
            parts = [{"type": "text", "text": ATTACHED}, *attachments]
            self.messages.append({"role": "user", "content": parts})

    def _result(self, call: ToolCall) -> Tuple[List[str], List[Json]]:
        """The texts of a tool message, and the parts that are not text."""
        if not call.outputs:
            return [INTERRUPTED], []
        texts: List[str] = []
        others: List[Json] = []
        for output in call.outputs:
            if isinstance(output, str):
                texts += [output] if output else []
                continue
            more_texts, more_others = self._content.split(output_parts(output))
            texts += more_texts
            others += more_others
        return texts, others

    def _id(self, call_id: str) -> str:
        return TOOL_CALL_IDS[self._profile.tool_call_id](call_id)
