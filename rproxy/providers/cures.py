"""What helps against a refusal, for each subject that one can be about: a short ladder, the mildest cure first.

A ladder is a generator of :class:`Cure`; the first one that changes something and was not tried in this turn is taken.
Most cures are overrides of profile fields, so the log can name the lines that make them permanent.  The others leave
out a part of what the client has sent, and name it by its fingerprint.
"""

from __future__ import annotations

import re
from typing import Any, Callable, FrozenSet, Iterable, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from ..convert.request.chat import NEAREST
from ..convert.request.omit import fingerprint
from ..types import Json
from .refusal_words import Reading, normalized
from .sent import THINKING_FIELDS, Sent

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")
FORMATS = ("text", "json_object", "json_schema")
CHOICES = ("auto", "none", "required", "function")
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class Cure(NamedTuple):
    """A change of the request.

    ``rung``: its name, the same for the same step of a ladder. ``override``: fields of the profile. ``refused``:
    fingerprints of what is left out, see :mod:`rproxy.convert.request.omit`.
    """

    rung: str
    override: Json = {}
    refused: FrozenSet[str] = frozenset()


Ladder = Callable[[Sent, Sequence[Reading]], Iterator[Cure]]


def _says(readings: Iterable[Reading], pattern: str) -> bool:
    return any(reading.says(pattern) for reading in readings)


def _objects(readings: Iterable[Reading], kind: str) -> bool:
    return any(reading.objects(kind) for reading in readings)


def _allowed(readings: Iterable[Reading], vocabulary: Sequence[str]) -> List[str]:
    return list(dict.fromkeys(word for reading in readings for word in reading.allowed(vocabulary)))


# ---- Thinking
def thinking(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """Another level, then none beside tools, then no keys for it at all."""
    rule, level = sent.profile.thinking, sent.effort
    allowed = _allowed(readings, LEVELS)
    if _objects(readings, "mandatory"):
        yield Cure("not off", {"thinking": {"disable": None}})
    beside_tools = any(reading.blames(r"\btools?\b|function call") for reading in readings)
    if "tools" in sent.body and beside_tools and rule.with_tools:
        off = rule.disable or {"reasoning_effort": "none"}
        yield Cure("off beside tools", {"thinking": {"with_tools": False, "disable": dict(off)}})
    named = [key for key in sent.thinking_keys if any(_names_key(reading, key) for reading in readings)]
    about_level = allowed or level and _says(readings, rf"\b{re.escape(normalized(level))}\b")
    if level is not None and about_level:
        yield from _levels(sent, level, allowed)
    if named and len(named) < len(sent.thinking_keys):
        yield Cure("without " + ", ".join(sorted(named)), {"thinking": _without_keys(rule, named)})
    yield Cure("no keys", {"thinking": {"enable": {}, "disable": {}, "effort": None, "with_tools": True}})


def _names_key(reading: Reading, key: str) -> bool:
    """``chat_template`` also means ``chat_template_kwargs``."""
    start = normalized(key).rsplit(" kwargs", 1)[0]
    return re.search(rf"\b{re.escape(start)}\b", reading.blamed) is not None or key in reading.path


def _levels(sent: Sent, level: str, allowed: Sequence[str]) -> Iterator[Cure]:
    """Every level of ours becomes the nearest one that the provider has left."""
    rule = sent.profile.thinking
    known = [
        word
        for word in LEVELS
        if (word in allowed if allowed else word in rule.efforts.values() and word != level)
    ]
    known = [word for word in known if word != "none"] or known
    if not known:
        return
    efforts = {name: _nearest(word, known) for name, word in rule.efforts.items()}
    change: Json = {"efforts": efforts}
    if level == "none":
        change["disable"] = None
    if known == ["none"]:
        change["disable"] = _nested(rule.effort or "reasoning_effort", "none")
    yield Cure("another level", {"thinking": change})


def _nearest(word: str, known: Sequence[str]) -> str:
    seen = set()
    while word not in known and word not in seen:
        seen.add(word)
        word = NEAREST.get(word, "medium")
    return word if word in known else known[0]


def _without_keys(rule: Any, keys: Sequence[str]) -> Json:
    """A way of thinking without some keys of the request."""
    change: Json = {"enable": {key: value for key, value in rule.enable.items() if key not in keys}}
    if rule.disable is not None:
        change["disable"] = {key: value for key, value in rule.disable.items() if key not in keys}
    if rule.effort and rule.effort.split(".")[0] in keys:
        change["effort"] = None
    return change


def _nested(dotted: str, value: Any) -> Json:
    for key in reversed(dotted.split(".")):
        value = {key: value}
    result: Json = value
    return result


def history_thinking(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """Where it is missing: an empty one, a blank one. Where it is refused: another field, then none."""
    rule = sent.profile.reasoning
    wanted = _objects(readings, "missing") or _says(
        readings, r"passed back|sent back|must be (?:kept|preserved)"
    )
    if wanted and not _says(readings, r"not (?:support|allow|permit)|unsupported|extra|unexpected|unknown"):
        replay = "always" if rule.replay == "never" else rule.replay
        for text in ("", " "):
            yield Cure(
                f"required {text!r}", {"reasoning": {"required_on_tool_calls": text, "replay": replay}}
            )
        yield Cure("always", {"reasoning": {"required_on_tool_calls": " ", "replay": "always"}})
        return
    fields = (rule.field, *rule.also)
    named = [
        f for f in fields if any(normalized(f) in reading.words or f in reading.path for reading in readings)
    ]
    left = [field for field in fields if field not in named and field in THINKING_FIELDS]
    others = [f for f in ("reasoning", "reasoning_content") if f not in named and f not in fields]
    if named and (left or others):
        field, *also = left or others[:1]
        yield Cure(
            "another field", {"reasoning": {"field": field, "also": also, "required_on_tool_calls": None}}
        )
    yield Cure("never", {"reasoning": {"replay": "never", "required_on_tool_calls": None}})


# ---- Roles
def developer(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("system", {"developer_role": "system"})


def system(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """One at the head, neighbours merged, then as the user's own words."""
    if _objects(readings, "order") or not _objects(readings, "unsupported"):
        yield Cure("first", {"developer_role": "system", "system_position": "first"})
        yield Cure("merged", {"system_position": "first", "merge_same_role": True})
    yield Cure("as the user", {"system_position": "user"})
    yield Cure("merged", {"system_position": "user", "merge_same_role": True})


def alternation(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    position = "first" if sent.profile.system_position == "keep" else sent.profile.system_position
    yield Cure("merged", {"merge_same_role": True, "system_position": position})
    yield Cure("as the user", {"merge_same_role": True, "system_position": "user"})


def after_tool(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("answered", {"assistant_after_tool": True})


def first_message(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("as the user", {"system_position": "user"})


def last_message(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("a user at the end", {"user_message": "last"})


def user_message(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("a user", {"user_message": "required"})


# ---- Content
def call_id(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield (
        Cure("of 9", {"tool_call_id": "alnum9"})
        if _says(readings, r"\b9\b|nine")
        else Cure("of 40", {"tool_call_id": "max40"})
    )
    yield Cure("of 9", {"tool_call_id": "alnum9"})


def content(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """An empty text instead of null, then a blank; where it is a list, what it has besides text."""
    if sent.has_empty_content:
        for text in ("", " ")[0 if sent.profile.empty_content is None else 1 :]:
            yield Cure(f"content {text!r}", {"empty_content": text})
    yield from media(sent, readings)


def media(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """The images or files that the refusal can mean: those of the message that it names, of the format, or all."""
    for kind, parts in _media_named(sent, readings).items():
        meant = [part for part in parts if any(r.blames(rf"\b{_subtype(part)}\b") for r in readings)]
        if meant:
            yield _without(f"{kind} of a format", "part", meant)
        yield _without(kind, "part", parts)
    everything = [part for parts in sent.media().values() for part in parts]
    if everything:
        yield _without("all of them", "part", everything)


def _media_named(sent: Sent, readings: Sequence[Reading]) -> Mapping[str, List[Json]]:
    there = next(
        (
            found
            for found in (sent.media(sent.message(r.path)) for r in readings if sent.message(r.path))
            if found
        ),
        sent.media(),
    )
    words = {
        "image": r"image|vision|picture|visual|图",
        "file": r"\bfiles?\b|pdf|document|文件",
        "audio": r"audio|音",
    }
    named = {kind: parts for kind, parts in there.items() if _says(readings, words[kind])}
    return named or there


def _subtype(part: Json) -> str:
    """``bmp`` of a data URL or an address."""
    value = part.get("image_url") or (part.get("file") or part).get("file_data") or ""
    url = value.get("url") if isinstance(value, dict) else value
    found = re.match(r"data:\w+/([\w.+-]+)", str(url)) or re.search(r"\.(\w{2,5})(?:\?|\Z)", str(url)[-20:])
    return re.escape(normalized(found[1])) if found else r"\Z\b"


def _without(rung: str, field: str, values: Iterable[Any]) -> Cure:
    return Cure(rung, refused=frozenset(fingerprint(field, value) for value in values))


# ---- Tools and formats
def tool_choice(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """Not while thinking; not in that shape; not at all."""
    rule, choice = sent.profile.tool_choice, sent.body.get("tool_choice")
    word = choice if isinstance(choice, str) else "function"
    word = next((ours for ours, theirs in rule.rename.items() if theirs == word), word)
    allowed = [w for w in _allowed(readings, CHOICES) if w != word]
    if _says(readings, r"think|reason"):
        yield Cure("while thinking", {"tool_choice": {"thinking": ["auto", "none"]}})
        yield Cure("words", {"tool_choice": {"any": ["auto", "none"]}})
    left = [w for w in rule.any or CHOICES if w != word and (not allowed or w in ("auto", "none", *allowed))]
    yield Cure(f"not {word}", {"tool_choice": {"any": left}})
    yield Cure("words", {"tool_choice": {"any": ["auto", "none"]}})


def response_format(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """The type that is named as allowed, else the next weaker one, then words."""
    kind = str((sent.format or {}).get("type"))
    allowed = _allowed(readings, FORMATS)
    left = [f for f in sent.profile.response_format if f != kind and (not allowed or f in (*allowed, "text"))]
    yield Cure(f"not {kind}", {"response_format": left})
    yield Cure("words", {"response_format": ["text"]})


def strict(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    about_format = any(
        "tools" not in reading.path and reading.says(r"response format|json schema|text format")
        for reading in readings
    )
    if not about_format and any("strict" in (tool.get("function") or tool) for tool in sent.tools.values()):
        yield Cure("of tools", {"strict_tools": "omit"})
    yield from _dropped(sent, ["response_format.json_schema.strict", "text.format.strict"])


def _dropped(sent: Sent, keys: Sequence[str]) -> Iterator[Cure]:
    found = [key for key in keys if sent.value(key) is not None and key not in sent.profile.drop]
    if found:
        yield Cure("without " + ", ".join(found), {"drop": [*sent.profile.drop, *found]})


SCHEMA_FIELD = {"tools": "schema", "response_format": "response_schema"}
# Words of a complaint (normalized) -> the repair that helps.
REPAIRS: Tuple[Tuple[str, str], ...] = (
    (r"\$ref|\bref\b|references?|\$defs|definitions", "inline_refs"),
    (
        r"types? (?:is |are )?(?:not defined|missing|required|undefined)|missing (?:the )?['`\"]?type|any ?of|should have a type",
        "add_types",
    ),
    (r"additional properties\W*(?::? ?false|(?:is|are) required|must|should|to be|needs)", "close_objects"),
)
STRICTNESS = r"supplied|every key in properties|\bstrict\b|must be required|all (?:fields|properties) must"
GRAMMAR = ("pattern", "format", "minLength", "maxLength", "minItems", "maxItems")


def schema(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """The repair that is named, the keywords that are named, then what every server reads, then no schema."""
    for place in _places(sent, readings):
        field = SCHEMA_FIELD[place]
        present: Tuple[str, ...] = getattr(sent.profile, field)
        for words, repair in REPAIRS:
            if repair not in present and _says(readings, words):
                yield Cure(repair, {field: [*present, repair]})
        if _says(readings, STRICTNESS):
            yield from strict(sent, readings)
        named = named_keywords(sent, readings, place)
        if not named and _says(readings, r"grammar|regex|pattern"):
            named = [word for word in GRAMMAR if word in sent.keywords(place)]
        if named:
            dropped = getattr(sent.profile.drop_keywords, place)
            yield Cure(f"keywords of {place}", {"drop_keywords": {place: sorted({*dropped, *named})}})
        if "essentials" not in present:
            yield Cure(f"essentials of {place}", {field: [*present, "inline_refs", "essentials"]})
    if sent.format is not None:
        yield from response_format(sent, readings)
    yield from tool(sent, readings)


# Keywords that are words of any sentence, too; they count only when they are marked as words of the request.
ORDINARY = frozenset(
    [
        "format",
        "default",
        "not",
        "if",
        "then",
        "else",
        "title",
        "items",
        "required",
        "description",
        "const",
        "properties",
        "enum",
        "examples",
        "id",
    ]
)
NEVER_DROPPED = ("type", "properties", "description")


def named_keywords(sent: Sent, readings: Sequence[Reading], place: str) -> List[str]:
    """The keywords of the schemas there that a refusal blames."""
    return [
        word
        for word in sorted(sent.keywords(place))
        if word not in NEVER_DROPPED and any(_blames_keyword(reading, word) for reading in readings)
    ]


def _blames_keyword(reading: Reading, word: str) -> bool:
    if word in reading.path[2:] or reading.marks(word):
        return True
    return (
        word not in ORDINARY
        and re.search(rf"(?<![\w]){re.escape(normalized(word))}\b", reading.words) is not None
    )


def _places(sent: Sent, readings: Sequence[Reading]) -> List[str]:
    """Where the schema stands that a refusal is about."""
    heads = {reading.path[0] for reading in readings if reading.path}
    about_format = heads & {"response_format", "text"} or _says(
        readings, r"response format|response schema|text format|structured output"
    )
    about_tools = heads & {"tools", "functions"} or _says(readings, r"\btools?\b|function|parameters")
    places = (
        ["response_format"] if about_format else ["tools"] if about_tools else ["response_format", "tools"]
    )
    return [place for place in places if sent.schemas(place)] or [p for p in SCHEMA_FIELD if sent.schemas(p)]


def tool(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """The one tool that is named, by its name or by its place."""
    entries = list(sent.tools.values())
    named = [sent.tools[name] for name in sent.tools if any(reading.marks(name) for reading in readings)]
    for reading in readings:
        steps = [int(step) for step in reading.path[1:] if step.isdigit()]
        if reading.path[:1] == ("tools",) and steps and steps[-1] < len(entries):
            named.append(entries[steps[-1]])
    if named and len(named) < len(entries):
        yield _without("a tool", "tool", named)


def tools(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """None at all, for a model that knows none; but a client that insists on a call must hear of it."""
    if sent.body.get("tool_choice") in (None, "auto", "none"):
        yield _without("no tools", "tool", sent.tools.values())


# ---- Single fields
def limit(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """The other field, a lower value, then none."""
    key = next(key for key in LIMITS if key in sent.body)
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}.get(key)
    most = [n for reading in readings for n in _numbers(reading.text) if 0 < n < sent.body[key]]
    if most and not _objects(readings, "unsupported"):
        yield Cure("lower", {"max_tokens": {"most": max(most)}})
    if other is not None:
        yield Cure(other, {"max_tokens": {"field": other}})
    yield from _dropped(sent, [key])


def _numbers(text: str) -> List[int]:
    return [
        int(number.replace(",", "")) for number in re.findall(r"(?<![\w.])\d[\d,]{0,11}(?![\w.]*\w)", text)
    ]


def streaming_only(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("always", {"non_stream": "force_stream"})


def streaming(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("never", {"stream": "never"})


# The provider takes one value only, whatever the client's is.
ANY_VALUE = r"only (?:the )?default|default .{0,12}value is supported|only \W?\d+(?:\.\d+)?\W? is (?:allowed|supported)|\bfixed\b"


def fields(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """Without the fields that are named: always, or where only a value is refused, where that very value comes again."""
    named = [key for key in optional_fields(sent) if any(names_field(reading, key) for reading in readings)]
    if "stream_options" in named:
        yield Cure("no usage", {"include_usage": False})
    if "logprobs" in named and "top_logprobs" in sent.body:
        named.append("top_logprobs")
    values = [
        key for key in named if not _objects(readings, "unsupported") and not _says(readings, ANY_VALUE)
    ]
    if values:
        refused = frozenset(fingerprint(key, sent.body[key]) for key in values)
        yield Cure("without this value of " + ", ".join(values), refused=refused)
    yield from _dropped(sent, [nested for key in named for nested in _innermost(sent, readings, key)])


def _innermost(sent: Sent, readings: Sequence[Reading], key: str) -> List[str]:
    """``reasoning.summary`` where that is named, and not all of ``reasoning``."""
    inner = sent.body.get(key)
    names = [f"{key}.{name}" for name in inner] if isinstance(inner, dict) else []
    return [
        name
        for name in names
        if any(normalized(name) in r.blamed or r.path[:2] == tuple(name.split(".")) for r in readings)
    ] or [key]


NEEDED = frozenset(["model", "messages", "input", "tools", "stream", "instructions"])
# Fields whose names are words of any sentence, too.
PLAIN = frozenset(
    [
        "user",
        "stop",
        "text",
        "include",
        "store",
        "prediction",
        "metadata",
        "reasoning",
        "truncation",
        "seed",
        "thinking",
        "think",
    ]
)


def optional_fields(sent: Sent) -> List[str]:
    """The fields of the request that may be left out and that have no subject of their own."""
    own = {"tool_choice", "response_format", *LIMITS}
    return [key for key in sent.body if key not in NEEDED | own]


def names_field(reading: Reading, key: str) -> bool:
    if reading.path and key in (reading.path[0], ".".join(reading.path)):
        return True
    if reading.marks(key):
        return True
    return key not in PLAIN and re.search(rf"\b{re.escape(normalized(key))}\b", reading.blamed) is not None
