"""Input items -> chat messages, in an order that every provider accepts.

A history of items is flat: reasoning, text, calls and outputs stand one after another, and clients
interleave, repeat and drop some of them.  Chat wants turns: one assistant message with its reasoning, text
and calls, directly followed by one tool message for each call.  So this works in two passes:

1. :func:`_turns` folds the items into turns (:class:`_Turn`, the assistant's) and other messages; an output
   is hung on its call wherever it stood.
2. :class:`_Writer` writes them as messages in the profile's dialect.

Two items belong to one turn when their ids share the stem of one response of ours (see :func:`stem`),
wherever they stand; without our ids, when nothing but assistant items stands between them and no reasoning
begins anew.

Rules and their sources: the message-order table of the provider study (OpenAI, DeepSeek, Kimi, Mistral, chat
templates).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from ...errors import ApiError
from ...types import Json
from ..profile import Profile
from ..sealed import unseal
from ..tools.kind import Kind
from ..tools.kinds import CALLS, OUTPUTS
from ..tools.table import ToolTable
from .content import Content, ContentWriter, invalid, parts_of, text_of
from .dialect import TOOL_CALL_IDS, in_dialect, reasoning_field


class CallKey(NamedTuple):
    """What a call is known by.

    The id alone is not enough: some providers number the calls of every answer alike.
    """

    call_id: str
    name: str  # of the chat function
    arguments: str
    asked: str  # the user's last text before the answer


Recall = Callable[
    [CallKey], Optional[Json]
]  # -> {"text", "details", "extra_content"} of the turn that made the call

ROLES = ("system", "developer", "user", "assistant")
SILENT_ITEMS = (
    "additional_tools",
    "compaction_trigger",
    "configuration_update",
)  # they act elsewhere and say nothing
NO_OUTPUT = "(no output)"
INTERRUPTED = "(no output: the call was interrupted)"
SEE_BELOW = "(the result follows as an attachment)"
ATTACHED = "Attached from the tool result:"
SUMMARY = "Summary of the conversation so far:\n\n"

_STEM = re.compile(r"[a-z]+_([0-9a-f]{32})[0-9a-f]{4}")


def stem(item: Json) -> Optional[str]:
    """What all items of one response of ours have in common: 32 hex digits of their ids.

    None for an item of anybody else.
    """
    match = _STEM.fullmatch(str(item.get("id")))
    return match.group(1) if match else None


class _Call:
    __slots__ = ("id", "name", "arguments", "outputs")

    def __init__(self, call_id: str, name: str, arguments: str) -> None:
        self.id, self.name, self.arguments = call_id, name, arguments if arguments.strip() else "{}"
        self.outputs: List[Any] = []


class _Turn:
    """One answer of the model, on its way to one assistant message."""

    __slots__ = ("stem", "asked", "reasoning", "details", "texts", "calls")

    def __init__(self, item_stem: Optional[str], asked: str) -> None:
        self.stem = item_stem
        self.asked = asked  # the user's last text before it
        self.reasoning: List[str] = []
        self.details: List[Json] = []
        self.texts: List[str] = []
        self.calls: List[_Call] = []

    def takes(self, item: Json) -> bool:
        """Does the item belong to this turn?"""
        item_stem = stem(item)
        if item_stem and self.stem:
            return item_stem == self.stem
        if item.get("type") == "reasoning":
            return not self.texts and not self.calls
        return bool(self.calls) or not self.texts or _is_call(item)


class _Note:
    """A message that is not the assistant's."""

    __slots__ = ("role", "parts")

    def __init__(self, role: str, parts: List[Json]) -> None:
        self.role, self.parts = role, parts


def to_messages(
    items: Sequence[Json],
    tools: ToolTable,
    profile: Profile,
    *,
    instructions: Optional[str] = None,
    recall: Recall = lambda key: None,
    resends: bool = True,
    warnings: Optional[List[str]] = None,
) -> List[Json]:
    """The ``messages`` of a chat request.

    :arg items: the whole history, earlier responses' items included
    :arg instructions: text of the first system message
    :arg recall: what is still known about the turn that made a call, for clients that did not send its
        reasoning back
    :arg resends: the client sends what it got of an answer that broke off, when it repeats the request (Codex
        does)
    :arg warnings: gets a line for everything left out
    :raises ApiError: 400 for an item that cannot be understood
    """
    warnings = [] if warnings is None else warnings
    entries = _turns(items, tools, warnings)
    writer = _Writer(profile, recall, warnings)
    if instructions:
        writer.note(_Note("system", [{"type": "input_text", "text": instructions}]))
    for entry, following in zip(entries, [*entries[1:], None]):
        if isinstance(entry, _Note):
            writer.note(entry)
        elif not _broken_off(entry, following, resends):
            writer.turn(entry)
    return in_dialect(writer.messages, profile)


def _broken_off(turn: _Turn, following: Union[_Turn, _Note, None], resends: bool) -> bool:
    """Is this the rest of an answer of ours that was asked for once more?

    It stands at the end when the request is repeated, and before the complete answer ever after.  To leave it
    out both times keeps the prefix stable, and some providers refuse an assistant message at the end.
    """
    if turn.calls or isinstance(following, _Note):
        return False
    if following is None and not turn.texts:
        return True
    return resends and turn.stem is not None and (following is None or following.stem is not None)


# ---- pass 1: items -> turns
def _turns(items: Iterable[Json], tools: ToolTable, warnings: List[str]) -> List[Union[_Turn, _Note]]:
    items = list(items)
    entries: List[Union[_Turn, _Note]] = []
    results = _Results(items)
    ours: Dict[str, _Turn] = {}  # by stem
    seen: Set[str] = set()  # ids of our items: clients may send one twice, or refer to it as well
    turn: Optional[_Turn] = None  # the one that is open
    asked = ""
    for item in items:
        kind = _type(item)
        if kind == "reasoning" or _is_call(item) or kind == "message" and item.get("role") == "assistant":
            item_stem = stem(item)
            if item_stem and item["id"] in seen:
                continue
            turn = ours.get(item_stem or "", turn)
            if turn is None or not turn.takes(item):
                turn = _Turn(item_stem, asked)
                entries.append(turn)
            if item_stem:
                turn.stem = item_stem
                ours[item_stem] = turn
                seen.add(item["id"])
            _add_to_turn(turn, item, kind, tools, results)
        elif _is_output(item):
            if not results.take(item, kind):
                entries.append(_orphan(item, kind))
            turn = None
        elif kind == "message":
            entries.append(_Note(_role(item), parts_of(item.get("content"), "content of a message")))
            turn, asked = None, _user_text(item, asked)
        elif kind == "compaction":
            entries.extend(_compaction(item, warnings))
            turn = None
        elif kind not in SILENT_ITEMS:
            warnings.append(f"input item {kind} left out")
    return entries


class _Results:
    """Brings calls and outputs together, in whatever order they come."""

    def __init__(self, items: Sequence[Json]) -> None:
        self._calls: Dict[
            str, _Call
        ] = {}  # the last of each id: some providers number the calls of every answer alike
        self._early: Dict[str, List[Any]] = {}  # outputs whose call stands further down
        self._to_come = Counter(_call_id(item) for item in items if _is_call(item))

    def add(self, call: _Call) -> None:
        self._calls[call.id] = call
        self._to_come[call.id] -= 1
        call.outputs = self._early.pop(call.id, [])

    def take(self, item: Json, kind: str) -> bool:
        """Hang an output on its call. :returns: False if there is none"""
        call_id, output = str(item.get("call_id")), OUTPUTS.get(kind, _FOREIGN).output(item)
        if call_id in self._calls:
            self._calls[call_id].outputs.append(output)
        elif self._to_come[call_id]:
            self._early.setdefault(call_id, []).append(output)
        else:
            return False
        return True


def _type(item: Json) -> str:
    kind = item.get("type")
    if kind is None and "role" in item:
        return "message"
    if not isinstance(kind, str):
        raise invalid("Every input item needs a type or a role.")
    return kind


def _role(item: Json) -> str:
    if item.get("role") not in ROLES:
        raise invalid(
            "A message's role must be one of {}, not {!r}.".format(
                ", ".join(ROLES), str(item.get("role"))[:40]
            )
        )
    return str(item["role"])


def _is_call(item: Json) -> bool:
    kind = str(item.get("type"))
    return kind in CALLS or kind.endswith("_call") and isinstance(item.get("call_id"), str)


def _call_id(item: Json) -> str:
    """The id of a call; the item's own where it has none (``local_shell_call`` of old clients).

    :raises ApiError: 400
    """
    call_id = item.get("call_id") or item.get("id")
    if not isinstance(call_id, str):
        raise invalid("An input item of type {} needs a call_id.".format(item["type"]))
    return call_id


def _is_output(item: Json) -> bool:
    kind = str(item.get("type"))
    return kind in OUTPUTS or kind.endswith("_call_output") and isinstance(item.get("call_id"), str)


class _Foreign(Kind):
    """Calls of kinds that nobody here knows, kept as calls of a function of that name so that nothing is
    lost."""

    def call_name(self, item: Json) -> str:
        return str(item.get("type"))

    def call_arguments(self, item: Json) -> str:
        return json.dumps(
            {k: v for k, v in item.items() if k not in ("type", "id", "call_id", "status")},
            ensure_ascii=False,
        )

    def output(self, item: Json) -> Any:
        output = item.get("output")
        return output if isinstance(output, (str, list)) else json.dumps(output, ensure_ascii=False)


_FOREIGN = _Foreign()


def _add_to_turn(turn: _Turn, item: Json, kind: str, tools: ToolTable, results: _Results) -> None:
    if kind == "reasoning":
        text, details = _reasoning(item)
        turn.reasoning.append(text)
        turn.details.extend(details)
    elif kind == "message":
        text = "".join(text_of(part) for part in parts_of(item.get("content"), "content of a message"))
        if text and turn.texts and stem(item) is None:
            turn.texts.append("\n")
        turn.texts += [text] if text else []
    else:
        call = _call(item, tools)
        if all(known.id != call.id for known in turn.calls):  # else the client repeats itself
            turn.calls.append(call)
            results.add(call)


def _call(item: Json, tools: ToolTable) -> _Call:
    of = CALLS.get(item["type"], _FOREIGN)
    return _Call(_call_id(item), tools.chat_name(of, item), of.call_arguments(item))


def _user_text(item: Json, otherwise: str) -> str:
    if item.get("role") != "user":
        return otherwise
    return "\n".join(text_of(part) for part in parts_of(item.get("content"), "content of a message"))


def call_keys(items: Iterable[Json], output: Iterable[Json], tools: ToolTable) -> List[CallKey]:
    """The keys by which the calls in ``output`` will be asked for, once it stands in the history behind
    ``items``."""
    asked = ""
    for item in items:
        asked = _user_text(item, asked)
    calls = [_call(item, tools) for item in output if _is_call(item)]
    return [CallKey(call.id, call.name, call.arguments, asked) for call in calls]


def _reasoning(item: Json) -> Tuple[str, List[Json]]:
    """The thinking in a reasoning item, best source first: our sealed copy, the raw text, the summary."""
    blob = item.get("encrypted_content")
    opened = unseal(blob) if isinstance(blob, str) else None
    if opened is not None and opened[0] == "reasoning":
        details = opened[1].get("details")
        return str(opened[1].get("text") or ""), details if isinstance(details, list) else []
    text = "".join(text_of(part) for part in parts_of(item.get("content"), "content of a reasoning item"))
    return text or "\n".join(
        text_of(part) for part in parts_of(item.get("summary"), "summary of a reasoning item")
    ), []


def _orphan(item: Json, kind: str) -> _Note:
    """An output without its call, as text of the user: a provider refuses the tool message."""
    parts = parts_of(OUTPUTS.get(kind, _FOREIGN).output(item), "output")
    head = "Tool output for the call {}, which is missing:".format(item.get("call_id"))
    return _Note(
        "user",
        [{"type": "input_text", "text": head}] + (parts or [{"type": "input_text", "text": NO_OUTPUT}]),
    )


def _compaction(item: Json, warnings: List[str]) -> List[_Note]:
    blob = item.get("encrypted_content")
    opened = unseal(blob) if isinstance(blob, str) else None
    if opened is None or opened[0] != "compaction":
        warnings.append("a compaction item of another service left out")
        return []
    return [_Note("user", [{"type": "input_text", "text": SUMMARY + str(opened[1].get("text") or "")}])]


def check_orphans(history: Iterable[Json], new_items: Sequence[Json]) -> None:
    """Refuse a request that does nothing but answer calls nobody made.

    An orphan inside a longer history is repaired (clients compact and roll back); one that is all the client
    has to say is a mistake it must hear of, as from OpenAI.

    :raises ApiError: 400
    """
    if not new_items or not all(_is_output(item) for item in new_items):
        return
    made = {_call_id(item) for item in history if _is_call(item)}
    for item in new_items:
        call_id = str(item.get("call_id"))
        if call_id not in made:
            raise ApiError(
                400, f"No tool call found for function call output with call_id {call_id}.", param="input"
            )


# ---- pass 2: turns -> messages
class _Writer:
    def __init__(self, profile: Profile, recall: Recall, warnings: List[str]) -> None:
        self.messages: List[Json] = []
        self._profile = profile
        self._recall = recall
        self._warnings = warnings
        self._content = ContentWriter(profile, warnings)

    def note(self, note: _Note) -> None:
        if note.role == "user":
            content: Content = self._content.user(note.parts)
        else:
            texts, others = self._content.split(note.parts)
            content = "\n".join(texts)
            self._warnings += (
                [f"something other than text left out of a {note.role} message"] if others else []
            )
        if content:
            self.messages.append(
                {
                    "role": self._profile.developer_role if note.role == "developer" else note.role,
                    "content": content,
                }
            )

    def turn(self, turn: _Turn) -> None:
        recalled = [
            self._recall(CallKey(call.id, call.name, call.arguments, turn.asked)) or {} for call in turn.calls
        ]
        known: Json = next(filter(None, recalled), {})
        text = "".join(turn.texts)
        thought = "".join(turn.reasoning) or str(known.get("text") or "")
        details = turn.details or known.get("details") or []
        if not text and not turn.calls and (not thought or not self._keeps_bare_reasoning()):
            return
        message: Json = {
            "role": "assistant",
            "content": text or (self._profile.empty_content if turn.calls else ""),
        }
        self._add_reasoning(message, thought, details, bool(turn.calls))
        attachments: List[Json] = []
        if turn.calls:
            message["tool_calls"] = [
                self._tool_call(call, known) for call, known in zip(turn.calls, recalled)
            ]
        self.messages.append(message)
        for call in turn.calls:
            self.messages.append(
                {
                    "role": "tool",
                    "tool_call_id": self._id(call.id),
                    "content": self._result(call, attachments),
                }
            )
        if attachments:
            self.messages.append(
                {"role": "user", "content": [{"type": "text", "text": ATTACHED}] + attachments}
            )

    def _keeps_bare_reasoning(self) -> bool:
        rule = self._profile.reasoning
        return rule.reasoning_only == "keep" and rule.replay == "always"

    def _tool_call(self, call: _Call, known: Json) -> Json:
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

    def _result(self, call: _Call, attachments: List[Json]) -> str:
        """The text of a tool message; what is not text goes to ``attachments``."""
        if not call.outputs:
            return INTERRUPTED
        texts: List[str] = []
        before = len(attachments)
        for output in call.outputs:
            more, others = self._content.split(parts_of(output, "output"))
            texts += more
            attachments += others
        return "\n".join(texts) or (SEE_BELOW if len(attachments) > before else NO_OUTPUT)

    def _add_reasoning(self, message: Json, thought: str, details: List[Json], has_calls: bool) -> None:
        rule = self._profile.reasoning
        if rule.replay == "never" or rule.replay == "tool_turns" and not has_calls:
            return
        if thought or details:
            for key in (rule.field,) + rule.also:
                reasoning_field(key)(message, thought, details)
        if has_calls and rule.required_on_tool_calls is not None:
            message.setdefault(rule.field, rule.required_on_tool_calls)

    def _id(self, call_id: str) -> str:
        return TOOL_CALL_IDS[self._profile.tool_call_id](call_id)
