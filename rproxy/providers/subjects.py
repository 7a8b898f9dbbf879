"""What a refusal can be about: the table of subjects, and which of them a complaint names.

A path that the provider names counts more than words, and a word that is marked as one of the request more
than a common word; each counts only if the request has what it means.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from .cures import fields, messages, thinking, tools
from .cures.ladder import Ladder
from .refusal_words import Reading, normalized
from .sent import SCHEMA_PLACES, Sent

THINK = r"\bthink|reasoning effort|\beffort\b|\breasoning\b|chat template|思考|推理"
SCHEMA = (
    r"schema (?:field|keyword|error|conversion|is not|must)"
    r"|(?:invalid|unsupported|bad|flavored) (?:json )?schema|\bkeywords?\b"
    r"|function declarations|\bgrammar\b|\$ref|any ?of|additional properties|json payload|every object"
    r"|in context"
)
HISTORY = r"reasoning (?:content|details|text)|think chunk|thinking (?:chunk|part|block|content)"


class Subject(NamedTuple):
    """What a refusal may be about.

    ``words``: its names, as a pattern for the normalized words that are blamed.  ``sent``: does the request
    have it?  ``form``: which later requests have it, too, a key of :data:`rproxy.providers.forms.FORMS`.
    """

    name: str
    words: str
    sent: Callable[[Sent], object]
    ladder: Ladder
    form: str
    needs: Optional[str] = None  # the kind of objection that it has to be
    phrase: bool = False  # the words are an objection by themselves, wherever they occur


# The first one wins among subjects that are named equally clearly.
SUBJECTS: Tuple[Subject, ...] = (
    Subject(
        "the limit of the answer",
        r"max (?:completion |output |new )?tokens",
        lambda sent: any(key in sent.body for key in fields.LIMITS),
        fields.limit,
        "limit",
    ),
    Subject(
        "tool_choice",
        r"tool ?choice|(?:forced?|named) (?:tool|function)",
        lambda sent: "tool_choice" in sent.body,
        tools.tool_choice,
        "tool_choice",
    ),
    Subject(
        "a JSON Schema",
        SCHEMA,
        lambda sent: sent.schemas("tools") or sent.schemas("response_format"),
        tools.schema,
        "schema",
    ),
    Subject(
        "response_format",
        r"response format|json (?:schema|object|mode)|structured outputs?|response mime|text format",
        lambda sent: sent.format,
        tools.response_format,
        "format",
    ),
    Subject(
        "strict", r"\bstrict\b", lambda sent: sent.tools or sent.format, tools.strict, "schema", "unsupported"
    ),
    Subject(
        "answers in one piece",
        r"non stream|stream(?:ing)? (?:mode )?(?:only|is required|must)|only support\w* stream"
        r"|must .{0,20}stream|enable .{0,10}stream",
        lambda sent: not sent.body.get("stream"),
        fields.streaming_only,
        "whole",
        phrase=True,
    ),
    Subject(
        "earlier thinking",
        HISTORY,
        lambda sent: sent.carries_thinking or sent.has_calls,
        thinking.earlier_thinking,
        "history",
    ),
    Subject(
        "thinking",
        THINK,
        lambda sent: sent.thinking_keys or sent.tools and sent.profile.thinking.with_tools,
        thinking.thinking,
        "thinking",
    ),
    Subject(
        "the role developer",
        r"\bdeveloper\b",
        lambda sent: "developer" in sent.roles,
        messages.developer,
        "system",
    ),
    Subject(
        "the order of messages",
        r"alternat|consecutive|in a row|role \W?(\w+)\W? after role \W?\1\b|same role",
        lambda sent: True,
        messages.alternation,
        "messages",
        phrase=True,
    ),
    Subject(
        "the message after a tool's",
        r"user\W{0,2} (?:role |messages? )?(?:directly |immediately )?after (?:the |a )?(?:role )?\W?tool"
        r"|user .{0,25}follow\w* (?:a |the )?(?:role )?\W?tool",
        lambda sent: True,
        messages.after_tool,
        "history",
        phrase=True,
    ),
    Subject(
        "the first message",
        r"(?:start|begin)\w* with (?:a |the )?(?:role )?\W?user|first .{0,20}must be .{0,20}\buser",
        lambda sent: {"system", "developer"} & sent.roles,
        messages.first_message,
        "system",
        phrase=True,
    ),
    Subject(
        "the last message",
        r"prefill|(?:must|should) end with|(?:last|final) (?:message|role)",
        lambda sent: True,
        messages.last_message,
        "messages",
        phrase=True,
    ),
    Subject(
        "the user's message",
        r"no user (?:query|message|role)"
        r"|(?:at least )?(?:one|a) (?:\w+ )?(?:with )?(?:the )?(?:role )?user\b|user message",
        lambda sent: "user" not in sent.roles,
        messages.user_message,
        "messages",
        phrase=True,
    ),
    Subject(
        "system messages",
        r"system (?:message|prompt|role|instruction)|roles?\W+system\b|system\W+ role|系统消息",
        lambda sent: {"system", "developer"} & sent.roles,
        messages.system,
        "system",
    ),
    Subject(
        "roles",
        r"\broles?\b",
        lambda sent: {"system", "developer"} & sent.roles,
        messages.system,
        "system",
        "unsupported",
    ),
    Subject(
        "ids of calls",
        r"calls? ids?\b.{0,60}(?:a z|length|characters|long|pattern|format|match)|must be a z|a z, 0 9",
        lambda sent: sent.has_calls,
        messages.call_id,
        "history",
    ),
    Subject(
        "images and files",
        r"image|vision|multi ?modal|\bpng\b|jpe?g|\bbmp\b|webp|\bgif\b|picture|\bfiles?\b|\bpdf\b|audio|图"
        r"|untagged enum"
        r"|content (?:\w+ )?(?:part|type|block|must be|should be|array|list)",
        lambda sent: sent.media(),
        messages.media,
        "content",
    ),
    Subject(
        "content",
        r"\bcontents?\b|\btext\b|none ?type",
        lambda sent: sent.has_empty_content or sent.media(),
        messages.content,
        "history",
    ),
    Subject(
        "streaming",
        r"\bstream(?:ing|ed)?\b(?! options)",
        lambda sent: sent.body.get("stream"),
        fields.streaming,
        "always",
        "unsupported",
    ),
    Subject(
        "tools",
        r"(?:support|allow|accept|enable|use)\w* (?:\w+ ){0,2}(?:tools?|functions?)\b"
        r"|\b(?:tools?|functions?)(?: \w+){0,2} (?:(?:is|are) )?"
        r"(?:not |un)(?:support|allow|available|enabl|accept|permit)",
        lambda sent: sent.tools,
        tools.tools,
        "content",
        "unsupported",
    ),
)
BY_NAME: Dict[str, Subject] = {subject.name: subject for subject in SUBJECTS}
FIELDS = Subject("a field", "", lambda sent: True, fields.fields, "fields")
TOOL = Subject("a tool", "", lambda sent: sent.tools, tools.tool, "content")

# The first step of a path (normalized) -> the subject. Steps inside messages and tools are examined one by
# one.
HEADS: Dict[str, str] = {
    **dict.fromkeys(map(normalized, fields.LIMITS), "the limit of the answer"),
    "tool choice": "tool_choice",
    "response format": "response_format",
    **dict.fromkeys(
        (
            "reasoning effort",
            "reasoning",
            "thinking",
            "enable thinking",
            "think",
            "chat template kwargs",
            "chat template",
        ),
        "thinking",
    ),
    "stream": "streaming",
    "system": "system messages",
}
MESSAGE_STEPS: Tuple[Tuple[str, str], ...] = (
    (r"reasoning|thinking", "earlier thinking"),
    (r"image|file|audio", "images and files"),
    (r"call id|^id$", "ids of calls"),
    (r"content|^text$|^parts?$", "content"),
)
# Subjects that no path into messages can mean.
ABOVE_MESSAGES = ("thinking", "tools", "streaming", "response_format", "the limit of the answer", "strict")
ROLES = {"developer": "the role developer", "system": "system messages"}  # others: their order

BY_PATH, BY_MARK, BY_WORDS, ANYWHERE = 4, 3, 2, 1  # how clearly a subject is named


def named_subjects(reading: Reading, sent: Sent) -> Iterator[Tuple[int, Subject]]:
    """The subjects that a complaint names, each with how clearly it does so."""
    by_path = _of_path(reading, sent) if reading.path else None
    if by_path is not None:
        yield BY_PATH, by_path
    inside_messages = reading.path[:1] in (("messages",), ("message",), ("input",))
    yield from _of_values(reading, sent, inside_messages)
    for subject in SUBJECTS:
        if not subject.sent(sent) or subject.needs and not reading.objects(subject.needs):
            continue
        if inside_messages and subject.name in ABOVE_MESSAGES:
            continue
        if reading.blames(subject.words) or subject.phrase and reading.says(subject.words):
            yield BY_WORDS, subject
        elif reading.says(subject.words):
            yield ANYWHERE, subject
    named = [key for key in _named_fields(reading, sent) if key not in sent.thinking_keys]
    if named and not inside_messages:
        yield (BY_MARK if any(map(reading.marks, named)) else BY_WORDS), FIELDS
    if any(map(reading.marks, sent.tools)):
        yield ANYWHERE, TOOL


def _named_fields(reading: Reading, sent: Sent) -> List[str]:
    return [key for key in fields.optional_fields(sent) if fields.names_field(reading, key)]


def _of_values(reading: Reading, sent: Sent, inside_messages: bool) -> Iterator[Tuple[int, Subject]]:
    """Subjects whose values in the request are named."""
    marked = any(reading.marks(field) for field in sent.thinking_fields if field not in sent.body)
    if marked or inside_messages and sent.carries_thinking and reading.blames(r"reasoning|thinking"):
        yield BY_MARK, BY_NAME["earlier thinking"]
    elif sent.carries_thinking and reading.blames(r"\breasoning\b|\bthinking\b"):
        yield ANYWHERE, BY_NAME["earlier thinking"]
    if reading.says("schema") and any(tools.named_keywords(sent, [reading], p) for p in SCHEMA_PLACES):
        yield BY_MARK, BY_NAME["a JSON Schema"]
    level = sent.effort
    if level is not None and (reading.marks(level) or len(reading.allowed(thinking.LEVELS)) > 1):
        yield BY_MARK, BY_NAME["thinking"]


# ---- By path
def _of_path(reading: Reading, sent: Sent) -> Optional[Subject]:
    path = reading.path
    head, steps = normalized(path[0]), [normalized(step) for step in path[1:]]
    if head in ("messages", "message", "input"):
        return _of_message(path, steps, sent)
    if head in ("tools", "functions", "tool"):
        return _of_tool(reading, steps, sent)
    if head in ("response format", "text") and sent.format:
        return _of_format(reading, steps, sent)
    subject = BY_NAME.get(HEADS.get(head, ""))
    inside = len(path) > 1 and path[1] != "effort" and sent.value(".".join(path[:2])) is not None
    if subject is not None and not inside:
        return subject if subject.sent(sent) else None
    return FIELDS if _named_fields(reading, sent) else None


def _of_message(path: Tuple[str, ...], steps: Sequence[str], sent: Sent) -> Optional[Subject]:
    if "role" in steps:
        role = (sent.message(path) or {}).get("role")
        return BY_NAME[ROLES.get(str(role), "the order of messages")]
    for step in reversed(steps):
        for pattern, name in MESSAGE_STEPS:
            if re.search(pattern, step) and BY_NAME[name].sent(sent):
                return BY_NAME[name]
    return None


def _of_tool(reading: Reading, steps: Sequence[str], sent: Sent) -> Optional[Subject]:
    if "strict" in steps or reading.marks("strict"):
        return BY_NAME["strict"]
    inside_schema = {"parameters", "schema", "input schema"}.intersection(steps)
    if inside_schema or tools.named_keywords(sent, [reading], "tools"):
        return BY_NAME["a JSON Schema"]
    if any(step.isdigit() for step in steps):
        return TOOL
    return BY_NAME["tools"] if reading.objects("unsupported") else None


def _of_format(reading: Reading, steps: Sequence[str], sent: Sent) -> Subject:
    about_schema = "schema" in steps or reading.blames(SCHEMA)
    if about_schema or tools.named_keywords(sent, [reading], "response_format"):
        return BY_NAME["a JSON Schema"]
    return BY_NAME["strict" if "strict" in steps else "response_format"]
