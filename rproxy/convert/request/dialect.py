"""The dialects of chat messages: where reasoning is written, how calls are numbered, what chat templates
require.

Each rule is chosen by a field of the profile; its source is beside it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Callable, Dict, List, Optional

from ...types import Json
from ..profile import Profile

WriteReasoning = Callable[[Json, str, List[Json]], None]  # (message, text, details): changes the message

CONTINUE = "Continue."
# The type of a detail of reasoning: {"type", "origin", "item"}; see rproxy.convert.answer.responses.
RESPONSE_ITEM = "responses.item"


# ---- Reasoning
def _as_text(key: str) -> WriteReasoning:
    def write(message: Json, thought: str, details: List[Json]) -> None:
        message[key] = thought

    return write


def _as_details(message: Json, thought: str, details: List[Json]) -> None:
    """OpenRouter and MiniMax: the pieces as they came, or one made of the text."""
    pieces = [detail for detail in details if not _is_response_item(detail)]
    if thought or pieces:
        message["reasoning_details"] = pieces or [{"type": "reasoning.text", "text": thought}]


def _as_response_items(message: Json, thought: str, details: List[Json]) -> None:
    """For :mod:`.responses`: the items that a provider with the Responses API encrypted."""
    message["response_items"] = [detail for detail in details if _is_response_item(detail)]


def _is_response_item(detail: Any) -> bool:
    return isinstance(detail, dict) and detail.get("type") == RESPONSE_ITEM


def _as_tags(message: Json, thought: str, details: List[Json]) -> None:
    if thought:
        content = message["content"] or ""
        message["content"] = "<think>\n" + thought.strip("\n") + f"\n</think>\n\n{content}"


def _as_parts(message: Json, thought: str, details: List[Json]) -> None:
    """Mistral: a part of type thinking before the text."""
    if thought:
        text = [{"type": "text", "text": message["content"]}] if message["content"] else []
        message["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}, *text]


_FIELDS: Dict[str, WriteReasoning] = {
    "reasoning_details": _as_details,
    "response_items": _as_response_items,
    "think_tags": _as_tags,
    "mistral_parts": _as_parts,
}


def reasoning_field(key: str) -> WriteReasoning:
    """How reasoning is written to ``key`` of an assistant message; most keys simply get the text."""
    return _FIELDS.get(key) or _as_text(key)


# ---- Ids of calls
def _nine(call_id: str) -> str:
    """Mistral requires nine letters and digits."""
    return call_id if re.fullmatch("[a-zA-Z0-9]{9}", call_id) else _digest(call_id)[:9]


def _forty(call_id: str) -> str:
    """OpenAI accepts at most 40 characters."""
    return call_id if len(call_id) <= 40 else "call_" + _digest(call_id)[:32]


def _digest(call_id: str) -> str:
    return hashlib.sha1(call_id.encode("utf-8", "replace")).hexdigest()


TOOL_CALL_IDS: Dict[Optional[str], Callable[[str], str]] = {None: str, "alnum9": _nine, "max40": _forty}


# ---- Chat templates
def in_dialect(messages: List[Json], profile: Profile) -> List[Json]:
    """The messages as the provider's chat template requires them."""
    if profile.system_position == "first":
        messages = _system_first(messages)
    if profile.system_position == "user":
        messages = [_as_user(message) for message in messages]
    if profile.user_message != "optional":
        messages = _with_user(messages, profile.user_message == "last")
    if profile.merge_same_role:
        messages = _merged(messages)
    if profile.assistant_after_tool:
        messages = _filled(messages)
    return messages


def _system_first(messages: List[Json]) -> List[Json]:
    """One system message at the head; later ones become user messages ("System message must be at the
    beginning"), and so does the last one of a conversation without others ("No user query found").
    """
    lead = 0
    while lead < len(messages) - 1 and messages[lead]["role"] in ("system", "developer"):
        lead += 1
    head = [{"role": "system", "content": "\n\n".join(m["content"] for m in messages[:lead])}] if lead else []
    return head + [_as_user(message) for message in messages[lead:]]


def _as_user(message: Json) -> Json:
    """A system message as a user message."""
    return dict(message, role="user") if message["role"] in ("system", "developer") else message


def _with_user(messages: List[Json], last: bool) -> List[Json]:
    """Add a user message if there is none (GLM's 1214, "No user query found").

    :param last: add it if an answer ends the conversation ("The conversation must end with a user message")
    """
    roles = [message["role"] for message in messages]
    complete = roles[-1:] != ["assistant"] if last else "user" in roles or not roles
    return messages if complete else [*messages, {"role": "user", "content": CONTINUE}]


def _merged(messages: List[Json]) -> List[Json]:
    """Join neighbours of the same role ("roles must alternate"), but not tool messages."""
    out: List[Json] = []
    for message in messages:
        last = out[-1] if out else {}
        if message["role"] == last.get("role") != "tool":
            out[-1] = {**last, **message, "content": _joined(last["content"], message["content"])}
        else:
            out.append(message)
    return out


def _joined(*contents: Any) -> Any:
    filled = [content for content in contents if content]
    if all(isinstance(content, str) for content in filled):
        return "\n\n".join(filled)
    return [
        part
        for content in filled
        for part in ([{"type": "text", "text": content}] if isinstance(content, str) else content)
    ]


def _filled(messages: List[Json]) -> List[Json]:
    """An assistant message between a tool message and a user message (Mistral: "Unexpected role 'user' after
    role 'tool'").
    """
    out: List[Json] = []
    for message in messages:
        if message["role"] == "user" and out and out[-1]["role"] == "tool":
            out.append({"role": "assistant", "content": "Understood."})
        out.append(message)
    return out
