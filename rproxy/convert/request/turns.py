"""Input items to turns: a history in the order that Chat Completions needs, and its repair.

A history of items is flat: reasoning, text, calls and outputs follow one another, and clients interleave,
repeat and drop some of them.  Chat wants turns: one assistant message with its reasoning, text and calls,
directly followed by one tool message for each call.  :func:`fold_items` makes an :class:`AssistantTurn` of
the items of one answer and attaches each output to its call, wherever it was; :mod:`.writer` makes messages
of the turns.

Two items belong to one turn when their ids share the stem of one answer of ours (see :func:`stem`), wherever
they are.  Without our ids, they do when only assistant items are between them and no new reasoning begins.

The rules are those of OpenAI, DeepSeek, Kimi, Mistral and the chat templates of open models.
"""

from __future__ import annotations

from functools import partial
from itertools import compress
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from ...errors import ApiError, invalid_value
from ...types import AnyItem, Json
from ..ids import round_stem
from ..json_steps import json_text
from ..sealed import DAMAGED, FAMILY, Opened, Room, Sealer
from ..tools.kind import ToolKind, is_object
from ..tools.kinds import CALL_KINDS, OUTPUT_KINDS
from ..tools.table import ToolTable
from .content import is_part, output_parts, parts_of, text_of
from .matching import OutputMatcher, ToolCall
from .pairing import is_call, is_output, with_call_ids

ROLES = ("system", "developer", "user", "assistant")
# These act elsewhere and are not part of the conversation.
CONTROL_ITEMS = ("additional_tools", "compaction_trigger", "configuration_update")
NO_OUTPUT = "(no output)"
SUMMARY = "Summary of the conversation so far:\n\n"

Unseal = Callable[[Any], Opened]  # opens a blob, see Sealer.open


def stem(item: AnyItem) -> Optional[str]:
    """The part that the ids of all items of one of our answers share; None for any other item."""
    item_id = item.get("id")
    return round_stem(item_id) if item_id else None


class CallKey(NamedTuple):
    """What identifies a call.

    The id alone is not enough: some providers number the calls of every answer alike.
    """

    call_id: str
    name: str  # of the chat function
    arguments: str
    asked: str  # the user's last text before the answer, the question


class AssistantTurn:
    """One answer of the model, which becomes one assistant message and its tool messages."""

    __slots__ = ("stem", "_question", "reasoning", "details", "texts", "phase", "calls", "call_ids")

    def __init__(self, item_stem: Optional[str], question: Optional[AnyItem]) -> None:
        self.stem = item_stem
        self._question = question
        self.reasoning: List[str] = []
        self.details: List[Json] = []
        self.texts: List[str] = []
        self.phase: Optional[str] = None  # commentary or final_answer, of its last message that has one
        self.calls: List[ToolCall] = []
        self.call_ids: Set[str] = set()

    @property
    def asked(self) -> str:
        """The user's last text before it."""
        return "" if self._question is None else _text(self._question)

    def takes(self, item_type: str, item_stem: Optional[str], call: Optional[ToolCall]) -> bool:
        """Does the item belong to this turn?"""
        if item_stem and self.stem:
            return item_stem == self.stem
        if item_type == "reasoning":
            return not self.texts and not self.calls
        return call is not None or bool(self.calls) or not self.texts

    def add(
        self, item: AnyItem, item_type: str, item_stem: Optional[str], unseal: Unseal, warnings: List[str]
    ) -> None:
        """Append reasoning or text."""
        if item_type == "reasoning":
            text, details = _reasoning(item, unseal, warnings)
            self.reasoning.append(text)
            self.details.extend(details)
        else:
            text = "".join(map(text_of, parts_of(item.get("content"), "content of a message")))
            if text and self.texts and item_stem is None:
                self.texts.append("\n")
            self.texts += [text] if text else []
            self.phase = item["phase"] if isinstance(item.get("phase"), str) else self.phase

    def add_call(self, call: ToolCall) -> bool:
        """Append a call.

        :returns: False if its id is in the turn already: the client repeats itself
        """
        if call.id in self.call_ids:
            return False
        self.call_ids.add(call.id)
        self.calls.append(call)
        return True


class PlainMessage:
    """A message that is not the assistant's."""

    __slots__ = ("role", "parts")

    def __init__(self, role: str, parts: List[Json]) -> None:
        self.role, self.parts = role, parts

    @classmethod
    def of_text(cls, role: str, text: str) -> PlainMessage:
        return cls(role, [{"type": "input_text", "text": text}])


Entry = Union[AssistantTurn, PlainMessage]


def fold_items(
    items: Iterable[AnyItem],
    tools: ToolTable,
    *,
    resends: bool,
    sealer: Sealer,
    warnings: List[str],
    room: Optional[Room] = None,
) -> List[Entry]:
    """The turns and messages of a history, in the order in which they are sent.

    :param items: the whole history, including the items of earlier responses
    :param resends: see :func:`~rproxy.convert.request.writer.to_messages`
    :param sealer: opens what earlier turns have sealed
    :param warnings: gets a line for everything that is left out
    :param room: for what is sealed; by default 16 MiB
    :raises TooMuchSealed: there is no room for it
    :raises ApiError: 400 for an item that cannot be understood, or a summary that cannot be opened
    """
    unseal = partial(sealer.open, room=room or Room())
    entries = _entries(list(items), tools, unseal, warnings)
    return [
        entry
        for entry, following in zip(entries, [*entries[1:], None])
        if isinstance(entry, PlainMessage) or not _abandoned(entry, following, resends)
    ]


def _entries(items: Sequence[AnyItem], tools: ToolTable, unseal: Unseal, warnings: List[str]) -> List[Entry]:
    items = with_call_ids(items)
    calls = list(map(is_call, items))
    entries = _Entries()
    matcher = OutputMatcher(compress(items, calls))
    ours: Dict[str, AssistantTurn] = {}  # stem -> turn
    seen: Set[str] = set()  # ids of our items: a client may send one and also refer to it
    turn: Optional[AssistantTurn] = None  # the one that is open
    question: Optional[AnyItem] = None  # the user's last message
    for item, calls_tool in zip(items, calls):
        item_type = item["type"] if isinstance(item.get("type"), str) else _type(item)
        if calls_tool or _is_answer(item, item_type):
            item_stem = stem(item)
            call = _tool_call(item, tools, warnings) if calls_tool else None
            if item_stem and item["id"] in seen or call is not None and matcher.repeats(call, item_stem):
                continue
            entries.reorder()
            turn = ours.get(item_stem or "", turn)
            if turn is None or not turn.takes(item_type, item_stem, call):
                turn = AssistantTurn(item_stem, question)
                entries.append(turn)
            if item_stem:
                turn.stem = item_stem
                ours[item_stem] = turn
                seen.add(item["id"])
            if call is None:
                turn.add(item, item_type, item_stem, unseal, warnings)
            elif turn.add_call(call):
                matcher.add(call, item_stem)
        elif is_output(item):
            if matcher.match(item, OUTPUT_KINDS.get(item_type, _UNKNOWN).output(item)):
                entries.answered(str(item["call_id"]))
            else:
                entries.append(_orphan(item, item_type))
            turn = None
        elif item_type in ("message", "agent_message"):
            entries.append(_plain_message(item, item_type))
            entries.keep_order()
            turn, question = None, item if _asks(item) else question
        elif item_type == "compaction":
            entries.append(_compaction(item, unseal))
            entries.keep_order()
            turn = None
        elif item_type not in CONTROL_ITEMS:
            warnings.append(f"input item {item_type} left out")
    entries.reorder()
    return entries


class _Entries(List[Entry]):
    """The entries in their order.

    A user message may have interrupted a turn: it is between a call and its output.  The outputs are
    attached to the turn, so the message would come last, and the model would answer the user instead of the
    outputs, often with the same call again (agents that repeat their question with every request).  When
    nothing else follows the outputs, the turn moves behind the message.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last_turn: Optional[int] = None  # if only messages of the user stand behind it
        self._to_move: Optional[int] = None  # the turn that moves if nothing else follows

    def append(self, entry: Entry) -> None:
        if isinstance(entry, AssistantTurn):
            self._last_turn = len(self)
        elif entry.role != "user":
            self._last_turn = None
        super().append(entry)

    def answered(self, call_id: str) -> None:
        """The output of a call has come."""
        last = self._last_turn
        if last is not None and last < len(self) - 1:
            turn = self[last]
            if isinstance(turn, AssistantTurn) and call_id in turn.call_ids:
                self._to_move = last

    def keep_order(self) -> None:
        """Something else follows."""
        self._to_move = None

    def reorder(self) -> None:
        """Move a turn behind the message that interrupted it."""
        if self._to_move is not None:
            self.append(self.pop(self._to_move))
            self._to_move = None


def _abandoned(turn: AssistantTurn, following: Optional[Entry], resends: bool) -> bool:
    """Is this the remainder of one of our answers whose request was repeated?

    It is at the end when the request is repeated, and before the complete answer from then on.  Leaving
    it out both times keeps the prefix stable, and some providers refuse an assistant message at the end.
    """
    if turn.calls or isinstance(following, PlainMessage):
        return False
    if following is None and not turn.texts:
        return True
    return resends and turn.stem is not None and (following is None or following.stem is not None)


# ---- One item
def type_of(item: AnyItem) -> Optional[str]:
    """The type of an item, which a message may leave out; None for something that is not an item."""
    item_type = item.get("type")
    if item_type is None and "role" in item:
        return "message"
    return item_type if isinstance(item_type, str) else None


def _type(item: AnyItem) -> str:
    item_type = type_of(item)
    if item_type is None:
        raise invalid_value("Every input item needs a type or a role.")
    return item_type


def _role(item: AnyItem) -> str:
    role = item.get("role")
    if role not in ROLES:
        raise invalid_value(f"A message's role must be one of {', '.join(ROLES)}, not {str(role)[:40]!r}.")
    return str(role)


def _is_answer(item: AnyItem, item_type: str) -> bool:
    """Is an item other than a call part of an answer of the model?"""
    return item_type == "reasoning" or item_type == "message" and item.get("role") == "assistant"


class _UnknownKind(ToolKind):
    """Calls of unknown kinds, kept as calls of a function with that name, so that nothing is lost."""

    def call_name(self, item: AnyItem) -> str:
        return str(item.get("type"))

    def call_arguments(self, item: AnyItem) -> str:
        return json_text({k: v for k, v in item.items() if k not in ("type", "id", "call_id", "status")})

    def output(self, item: AnyItem) -> Any:
        output = item.get("output")
        if isinstance(output, (str, list)) or isinstance(output, dict) and is_part(output):
            return output
        return json_text(output)


_UNKNOWN = _UnknownKind()


def _tool_call(item: AnyItem, tools: ToolTable, warnings: List[str]) -> ToolCall:
    kind = CALL_KINDS.get(item["type"], _UNKNOWN)
    name, arguments = tools.chat_name(kind, item), kind.call_arguments(item)
    sound = _sound_arguments(arguments)
    if sound != arguments and arguments.strip():
        warnings.append(
            f"the arguments of an earlier call of {name[:64]} are not a JSON object: sent inside one"
        )
    return ToolCall(item["call_id"], name, sound)


def _sound_arguments(arguments: str) -> str:
    """``arguments``, or an object around them: many providers refuse any other JSON in a history."""
    if not arguments.strip():
        return "{}"
    if is_object(arguments):
        return arguments
    return json_text({"_raw": arguments})


def _plain_message(item: AnyItem, item_type: str) -> PlainMessage:
    """A message, or a text from one Codex agent to another, which the model gets as the user's."""
    parts = parts_of(item.get("content"), "content of a message")
    if item_type == "message":
        return PlainMessage(_role(item), parts)
    text = "".join(text_of(part) for part in parts)  # a header and its payload, which belong together
    others = [part for part in parts if not text_of(part)]
    return PlainMessage("user", [{"type": "input_text", "text": text}, *others])


def _asks(item: AnyItem) -> bool:
    """Is the item the user's voice?"""
    return item.get("role") == "user" or item.get("type") == "agent_message"


def _text(item: AnyItem) -> str:
    return "\n".join(text_of(part) for part in parts_of(item.get("content"), "content of a message"))


def _reasoning(item: AnyItem, unseal: Unseal, warnings: List[str]) -> Tuple[str, List[Json]]:
    """The thinking in a reasoning item, best source first: our sealed copy, the raw text, the summary."""
    blob = item.get("encrypted_content")
    opened = unseal(blob)
    if opened.kind == "reasoning":
        details = opened.payload.get("details")
        return str(opened.payload.get("text") or ""), details if isinstance(details, list) else []
    if isinstance(blob, str) and blob.startswith(FAMILY) and opened.problem:
        warnings.append(f"sealed reasoning left out: {opened.problem}")
    text = "".join(text_of(part) for part in parts_of(item.get("content"), "content of a reasoning item"))
    if text:
        return text, []
    summary = parts_of(item.get("summary"), "summary of a reasoning item")
    return "\n".join(text_of(part) for part in summary), []


def _orphan(item: AnyItem, item_type: str) -> PlainMessage:
    """An output without its call, as a user message: a provider would refuse a tool message."""
    call_id = item.get("call_id")
    whose = f"the call {call_id}, which is missing" if call_id else "a call that is missing"
    message = PlainMessage.of_text("user", f"Tool output for {whose}:")
    parts = output_parts(OUTPUT_KINDS.get(item_type, _UNKNOWN).output(item))
    message.parts += parts or [{"type": "input_text", "text": NO_OUTPUT}]
    return message


def _compaction(item: AnyItem, unseal: Unseal) -> PlainMessage:
    """The summary in a compaction item.

    :raises ApiError: 400: without it the model would answer as if the conversation began after it
    """
    opened = unseal(item.get("encrypted_content"))
    if opened.kind != "compaction":
        raise ApiError(
            400,
            "The summary of this conversation (a compaction item) cannot be opened:"
            f" {opened.problem or DAMAGED}. "
            "Start a new conversation, or go back to a point before the compaction.",
            code="invalid_encrypted_content",
            param="input",
        )
    return PlainMessage.of_text("user", SUMMARY + str(opened.payload.get("text") or ""))


# ---- Questions about a history
def call_keys(items: Sequence[AnyItem], output: Iterable[AnyItem], tools: ToolTable) -> List[CallKey]:
    """The keys of the calls in ``output``, as later requests ask for them.

    :param items: the history before ``output``
    """
    question = next(filter(_asks, reversed(items)), None)
    asked = "" if question is None else _text(question)
    calls = [_tool_call(item, tools, []) for item in output if is_call(item)]
    return [CallKey(call.id, call.name, call.arguments, asked) for call in calls]


def check_orphans(history: Iterable[AnyItem], new_items: Sequence[AnyItem]) -> None:
    """Refuse a request that only answers calls that were never made.

    An orphan inside a longer history is repaired (clients compact and roll back).  When it is all that the
    client sends, it is a mistake that the client must learn about, as it does from OpenAI.

    :raises ApiError: 400
    """
    if not new_items or not all(map(is_output, new_items)):
        return
    everything = with_call_ids([*history, *new_items])
    made = {item["call_id"] for item in everything if is_call(item)}
    for item in everything[-len(new_items) :]:
        call_id = str(item.get("call_id"))
        if call_id not in made:
            raise ApiError(
                400, f"No tool call found for function call output with call_id {call_id}.", param="input"
            )
