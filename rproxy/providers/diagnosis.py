"""From a provider's refusal to a request that it takes: what it is about, and what helps against that.

1. :mod:`.complaints` takes the refusal apart; :mod:`.redaction` cuts the client's content out of its words.
2. :mod:`.refusal_words` reads each complaint: the words that it blames, the kind of its objection, what it allows.
3. A table here finds the subject: which of the request's own words is blamed, in any spelling, or which synonym. A path
   that the provider names counts more than words, and what is asked for by a distinct name more than what any sentence
   may hold. A subject counts only if the request has it at all.
4. :mod:`.cures` has a ladder for each subject.

Pure: the same refusal of the same request leads to the same cures.
"""

from __future__ import annotations

import re
from typing import (
    Callable,
    Collection,
    Dict,
    FrozenSet,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from ..convert.profile import Profile
from ..types import Json
from . import cures
from .complaints import Complaint
from .cures import Cure
from .redaction import client_texts, without_content
from .refusal_words import Reading, normalized
from .sent import SCHEMA_PLACES, Sent

THINK = r"\bthink|reasoning effort|\beffort\b|\breasoning\b|chat template|思考|推理"
SCHEMA = (
    r"schema (?:field|keyword|error|conversion|is not|must)|(?:invalid|unsupported|bad|flavored) (?:json )?schema|\bkeywords?\b"
    r"|function declarations|\bgrammar\b|\$ref|any ?of|additional properties|json payload|every object|in context"
)
HISTORY = r"reasoning (?:content|details|text)|think chunk|thinking (?:chunk|part|block|content)"


class Subject(NamedTuple):
    """What a refusal may be about.

    ``words``: what it is called, as a pattern over the normalized words that are blamed. ``sent``: does the request have
    it? ``form`` says which later requests have it, too: a key of :data:`rproxy.providers.forms.FORMS`.
    """

    name: str
    words: str
    sent: Callable[[Sent], object]
    ladder: cures.Ladder
    form: str
    needs: Optional[str] = None  # a kind of objection, without which it is not about this
    phrase: bool = False  # the words are an objection by themselves, wherever they stand


# The first that fits wins among those that are named alike.
SUBJECTS: Tuple[Subject, ...] = (
    Subject(
        "the limit of the answer",
        r"max (?:completion |output |new )?tokens",
        lambda sent: any(key in sent.body for key in cures.LIMITS),
        cures.limit,
        "limit",
    ),
    Subject(
        "tool_choice",
        r"tool ?choice|(?:forced?|named) (?:tool|function)",
        lambda sent: "tool_choice" in sent.body,
        cures.tool_choice,
        "tool_choice",
    ),
    Subject(
        "a JSON Schema",
        SCHEMA,
        lambda sent: sent.schemas("tools") or sent.schemas("response_format"),
        cures.schema,
        "schema",
    ),
    Subject(
        "response_format",
        r"response format|json (?:schema|object|mode)|structured outputs?|response mime|text format",
        lambda sent: sent.format,
        cures.response_format,
        "format",
    ),
    Subject(
        "strict", r"\bstrict\b", lambda sent: sent.tools or sent.format, cures.strict, "schema", "unsupported"
    ),
    Subject(
        "answers in one piece",
        r"non stream|stream(?:ing)? (?:mode )?(?:only|is required|must)|only support\w* stream|must .{0,20}stream|enable .{0,10}stream",
        lambda sent: not sent.body.get("stream"),
        cures.streaming_only,
        "whole",
        phrase=True,
    ),
    Subject(
        "earlier thinking",
        HISTORY,
        lambda sent: sent.carries_thinking or sent.has_calls,
        cures.history_thinking,
        "history",
    ),
    Subject(
        "thinking",
        THINK,
        lambda sent: sent.thinking_keys or sent.tools and sent.profile.thinking.with_tools,
        cures.thinking,
        "thinking",
    ),
    Subject(
        "the role developer",
        r"\bdeveloper\b",
        lambda sent: "developer" in sent.roles,
        cures.developer,
        "system",
    ),
    Subject(
        "the order of messages",
        r"alternat|consecutive|in a row|role \W?(\w+)\W? after role \W?\1\b|same role",
        lambda sent: True,
        cures.alternation,
        "messages",
        phrase=True,
    ),
    Subject(
        "the message after a tool's",
        r"user\W{0,2} (?:role |messages? )?(?:directly |immediately )?after (?:the |a )?(?:role )?\W?tool"
        r"|user .{0,25}follow\w* (?:a |the )?(?:role )?\W?tool",
        lambda sent: True,
        cures.after_tool,
        "history",
        phrase=True,
    ),
    Subject(
        "the first message",
        r"(?:start|begin)\w* with (?:a |the )?(?:role )?\W?user|first .{0,20}must be .{0,20}\buser",
        lambda sent: {"system", "developer"} & sent.roles,
        cures.first_message,
        "system",
        phrase=True,
    ),
    Subject(
        "the last message",
        r"prefill|(?:must|should) end with|(?:last|final) (?:message|role)",
        lambda sent: True,
        cures.last_message,
        "messages",
        phrase=True,
    ),
    Subject(
        "the user's message",
        r"no user (?:query|message|role)|(?:at least )?(?:one|a) (?:\w+ )?(?:with )?(?:the )?(?:role )?user\b|user message",
        lambda sent: "user" not in sent.roles,
        cures.user_message,
        "messages",
        phrase=True,
    ),
    Subject(
        "system messages",
        r"system (?:message|prompt|role|instruction)|roles?\W+system\b|system\W+ role|系统消息",
        lambda sent: {"system", "developer"} & sent.roles,
        cures.system,
        "system",
    ),
    Subject(
        "roles",
        r"\broles?\b",
        lambda sent: {"system", "developer"} & sent.roles,
        cures.system,
        "system",
        "unsupported",
    ),
    Subject(
        "ids of calls",
        r"calls? ids?\b.{0,60}(?:a z|length|characters|long|pattern|format|match)|must be a z|a z, 0 9",
        lambda sent: sent.has_calls,
        cures.call_id,
        "history",
    ),
    Subject(
        "images and files",
        r"image|vision|multi ?modal|\bpng\b|jpe?g|\bbmp\b|webp|\bgif\b|picture|\bfiles?\b|\bpdf\b|audio|untagged enum|图",
        lambda sent: sent.media(),
        cures.media,
        "content",
    ),
    Subject(
        "content",
        r"\bcontents?\b|\btext\b",
        lambda sent: sent.has_empty_content or sent.media(),
        cures.content,
        "history",
    ),
    Subject(
        "streaming",
        r"\bstream(?:ing|ed)?\b(?! options)",
        lambda sent: sent.body.get("stream"),
        cures.streaming,
        "always",
        "unsupported",
    ),
    Subject(
        "tools",
        r"(?:support|allow|accept|enable|use)\w* (?:\w+ ){0,2}(?:tools?|functions?)\b"
        r"|\b(?:tools?|functions?)(?: \w+){0,2} (?:(?:is|are) )?(?:not |un)(?:support|allow|available|enabl|accept|permit)",
        lambda sent: sent.tools,
        cures.tools,
        "content",
        "unsupported",
    ),
)
BY_NAME: Dict[str, Subject] = {subject.name: subject for subject in SUBJECTS}
FIELDS = Subject("a field", "", lambda sent: True, cures.fields, "fields")
TOOL = Subject("a tool", "", lambda sent: sent.tools, cures.tool, "content")

# The first step of a path (normalized) -> the subject. Steps inside messages and tools are looked at one by one.
HEADS: Dict[str, str] = {
    **dict.fromkeys(map(normalized, cures.LIMITS), "the limit of the answer"),
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


# Those that no path into messages can mean.
ABOVE_MESSAGES = ("thinking", "tools", "streaming", "response_format", "the limit of the answer", "strict")


class Diagnosis(NamedTuple):
    """What a refusal is about, and the cure. ``form``: see :class:`Subject`."""

    subject: str
    form: str
    cure: Cure


def diagnose(
    complaints: Sequence[Complaint], body: Json, profile: Profile, tried: Collection[Tuple[str, str]] = ()
) -> List[Diagnosis]:
    """What helps against a refusal.

    :param complaints: what the provider objects to
    :param body: the request that it refused
    :param profile: what the request was made with
    :param tried: (subject, rung) of the cures that this turn has tried in vain
    :returns: a cure for each subject that the provider named by a path, or the one that fits its words best; [] for a
        refusal that is not about the form of the request, or that nothing helps against
    """
    sent, contents = Sent(body, profile), client_texts(body)
    vocabulary = _vocabulary(sent)
    readings = [Reading(c, without_content(c.text, contents, vocabulary)) for c in complaints]
    named: Dict[str, Tuple[int, Subject, List[Reading]]] = {}
    for reading in readings:
        for strength, subject in _subjects(reading, sent):
            best, _, about = named.get(subject.name, (0, subject, []))
            named[subject.name] = max(best, strength), subject, [*about, reading]
    ranked = sorted(named.values(), key=lambda entry: -entry[0])
    found: List[Diagnosis] = []
    for strength, subject, about in ranked:
        if found and strength < BY_PATH:
            break
        cure = _first_that_changes(subject, about, sent, tried)
        if cure is not None:
            found.append(Diagnosis(subject.name, subject.form, cure))
    return found


def _first_that_changes(
    subject: Subject, about: Sequence[Reading], sent: Sent, tried: Collection[Tuple[str, str]]
) -> Optional[Cure]:
    for cure in subject.ladder(sent, about):
        changes = cure.refused or sent.profile.override(cure.override) != sent.profile
        if changes and (subject.name, cure.rung) not in tried:
            return cure
    return None


# ---- Which subject
BY_PATH, BY_MARK, BY_WORDS, ANYWHERE = 4, 3, 2, 1  # how clearly a subject is named


def _subjects(reading: Reading, sent: Sent) -> Iterator[Tuple[int, Subject]]:
    """The subjects that a complaint names, each with how clearly it does so."""
    if not (reading.is_objection or reading.path):
        return
    path = reading.path or _path_in(reading.text, sent)
    by_path = _of_path(path, reading, sent)
    if by_path is not None:
        yield BY_PATH, by_path
        if by_path.name not in ("a field", "a JSON Schema", "response_format"):
            return
    inside_messages = path[:1] in (("messages",), ("message",), ("input",))
    yield from _of_values(reading, sent, inside_messages)
    for subject in SUBJECTS:
        if not subject.sent(sent) or subject.needs and not reading.objects(subject.needs):
            continue
        if inside_messages and subject.name in ABOVE_MESSAGES:
            continue
        if re.search(subject.words, reading.words if subject.phrase else reading.blamed):
            yield BY_WORDS, subject
        elif re.search(subject.words, reading.words):
            yield ANYWHERE, subject
    fields = [key for key in cures.optional_fields(sent) if cures.names_field(reading, key)]
    fields = [key for key in fields if key not in sent.thinking_keys]
    if fields and not inside_messages:
        yield (BY_MARK if any(reading.marks(key) for key in fields) else BY_WORDS), FIELDS
    if any(reading.marks(name) for name in sent.tools):
        yield ANYWHERE, TOOL


def _of_values(reading: Reading, sent: Sent, inside_messages: bool) -> Iterator[Tuple[int, Subject]]:
    """Subjects that are named by what the request has under them."""
    fields = [field for field in sent.thinking_fields if field not in sent.body and reading.marks(field)]
    if fields or inside_messages and sent.carries_thinking and reading.blames(r"reasoning|thinking"):
        yield BY_MARK, BY_NAME["earlier thinking"]
    elif sent.carries_thinking and reading.blames(r"\breasoning\b|\bthinking\b"):
        yield ANYWHERE, BY_NAME["earlier thinking"]
    if reading.says("schema") and any(cures.named_keywords(sent, [reading], p) for p in SCHEMA_PLACES):
        yield BY_MARK, BY_NAME["a JSON Schema"]
    level = sent.effort
    if level is not None and (reading.marks(level) or len(reading.allowed(cures.LEVELS)) > 1):
        yield BY_MARK, BY_NAME["thinking"]


def _of_path(path: Tuple[str, ...], reading: Reading, sent: Sent) -> Optional[Subject]:
    if not path:
        return None
    head, steps = normalized(path[0]), [normalized(step) for step in path[1:]]
    if head in ("messages", "message", "input") and (len(path) > 1 or sent.messages):
        return _of_message(path, steps, sent)
    if head in ("tools", "functions", "tool"):
        return _of_tool(reading, steps, sent)
    if head in ("response format", "text") and sent.format:
        named = cures.named_keywords(sent, [reading], "response_format")
        about_schema = "schema" in steps or named or reading.blames(SCHEMA)
        return BY_NAME[
            "a JSON Schema" if about_schema else "strict" if "strict" in steps else "response_format"
        ]
    subject = BY_NAME.get(HEADS.get(head, ""))
    inside = len(path) > 1 and path[1] != "effort" and sent.value(".".join(path[:2])) is not None
    if subject is not None and not inside:
        return subject if subject.sent(sent) else None
    return FIELDS if any(cures.names_field(reading, key) for key in cures.optional_fields(sent)) else None


def _of_message(path: Tuple[str, ...], steps: Sequence[str], sent: Sent) -> Optional[Subject]:
    message = sent.message(path) or {}
    if "role" in steps:
        role = message.get("role")
        return BY_NAME[
            "the role developer"
            if role == "developer"
            else "system messages"
            if role == "system"
            else "the order of messages"
        ]
    for step in reversed(steps):
        for pattern, name in MESSAGE_STEPS:
            if re.search(pattern, step) and BY_NAME[name].sent(sent):
                return BY_NAME[name]
    return None


def _of_tool(reading: Reading, steps: Sequence[str], sent: Sent) -> Optional[Subject]:
    if "strict" in steps:
        return BY_NAME["strict"]
    if {"parameters", "schema", "input schema"} & set(steps) or cures.named_keywords(
        sent, [reading], "tools"
    ):
        return BY_NAME["a JSON Schema"]
    if any(step.isdigit() for step in steps):
        return TOOL
    return BY_NAME["tools"] if reading.objects("unsupported") else None


_PATH = re.compile(
    r"(?<![\w.])\$?\.?([A-Za-z_]\w*(?:(?:\[\d+\]|[.\[/]['\"]?[A-Za-z_$]\w*['\"]?\]?|[./]\d+)+))"
)


def _path_in(text: str, sent: Sent) -> Tuple[str, ...]:
    """The first path into the request that stands in a text: ``messages.1``, ``tools[0].function.name``."""
    for match in _PATH.finditer(text):
        steps = tuple(re.findall(r"[\w$]+", match[1]))
        while steps and steps[0] in ("body", "request"):
            steps = steps[1:]
        if steps and (steps[0] in sent.body or steps[0] in ("messages", "message", "tools")):
            return steps
    return ()


def _vocabulary(sent: Sent) -> FrozenSet[str]:
    """The words of the API that stand in this request, in lower case: they are not content."""
    words: List[str] = [*sent.body, *sent.roles, *sent.tools, *cures.LEVELS, *cures.FORMATS, *cures.CHOICES]
    words += [key for message in sent.messages for key in message]
    words += [keyword for place in ("tools", "response_format") for keyword in sent.keywords(place)]
    return frozenset(word.lower() for word in words)
