"""Cures for tools, tool_choice, response formats, and the JSON Schemas of tools and formats."""

from __future__ import annotations

import re
from typing import Iterator, List, Sequence, Tuple

from ..refusal_words import Reading, normalized
from ..sent import SCHEMA_PLACES, Sent
from .ladder import Cure, allowed, dropped, says, without

FORMATS = ("text", "json_object", "json_schema")
CHOICES = ("auto", "none", "required", "function")


def tool_choice(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """Not with thinking, then in another form, then not at all."""
    rule, choice = sent.profile.tool_choice, sent.body.get("tool_choice")
    word = choice if isinstance(choice, str) else "function"
    word = next((ours for ours, theirs in rule.rename.items() if theirs == word), word)
    words = Cure("words", {"tool_choice": {"any": ["auto", "none"]}})
    if says(readings, r"think|reason"):
        yield Cure("while thinking", {"tool_choice": {"thinking": ["auto", "none"]}})
        yield words
    permitted = [w for w in allowed(readings, CHOICES) if w != word]
    left = [
        w for w in rule.any or CHOICES if w != word and (not permitted or w in ("auto", "none", *permitted))
    ]
    yield Cure(f"not {word}", {"tool_choice": {"any": left}})
    yield words


def response_format(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """The type that is named as allowed, or else the next weaker one, then instructions in the prompt."""
    kind, permitted = str((sent.format or {}).get("type")), allowed(readings, FORMATS)
    left = [
        f for f in sent.profile.response_format if f != kind and (not permitted or f in (*permitted, "text"))
    ]
    yield Cure(f"not {kind}", {"response_format": left})
    yield Cure("words", {"response_format": ["text"]})


def strict(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    if "tools" in _places(sent, readings) and any("strict" in tool for tool in sent.functions):
        yield Cure("of tools", {"strict_tools": "omit"})
    yield from dropped(sent, ["response_format.json_schema.strict", "text.format.strict"])


# ---- Schemas
SCHEMA_FIELD = {"tools": "schema", "response_format": "response_schema"}
# Words of a complaint (normalized) -> the repair that helps.
REPAIRS: Tuple[Tuple[str, str], ...] = (
    (r"\$ref|\bref\b|references?|\$defs|definitions", "inline_refs"),
    (
        r"types? (?:is |are )?(?:not defined|missing|required|undefined)|missing (?:the )?['`\"]?type|any ?of"
        r"|should have a type",
        "add_types",
    ),
    (r"additional properties\W*(?::? ?false|(?:is|are) required|must|should|to be|needs)", "close_objects"),
)
STRICTNESS = r"supplied|every key in properties|must be required|all (?:fields|properties) must"
GRAMMAR = ("pattern", "format", "minLength", "maxLength", "minItems", "maxItems")
# Keywords that are common words, too; they count only when they are marked as words of the request.
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


def schema(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """The repair that fits, without the keywords that are named, then a schema that every server reads, then
    none.
    """
    for place in _places(sent, readings):
        field = SCHEMA_FIELD[place]
        present: Tuple[str, ...] = getattr(sent.profile, field)
        for words, repair in REPAIRS:
            if repair not in present and says(readings, words):
                yield Cure(f"{repair} of {place}", {field: [*present, repair]})
        if says(readings, STRICTNESS):
            yield from strict(sent, readings)
        keywords = named_keywords(sent, readings, place)
        if not keywords and says(readings, r"grammar|regex|pattern"):
            keywords = [word for word in GRAMMAR if word in sent.keywords(place)]
        if keywords:
            known = getattr(sent.profile.drop_keywords, place)
            yield Cure(f"keywords of {place}", {"drop_keywords": {place: sorted({*known, *keywords})}})
        yield Cure(f"essentials of {place}", {field: [*present, "inline_refs", "essentials"]})
    if says(readings, r"\bstrict\b"):
        yield from strict(sent, readings)
    if sent.format is not None:
        yield from response_format(sent, readings)
    yield from tool(sent, readings)


def named_keywords(sent: Sent, readings: Sequence[Reading], place: str) -> List[str]:
    """The schema keywords in that place that a refusal blames."""
    candidates = sorted(sent.keywords(place).difference(NEVER_DROPPED))
    return [word for word in candidates if any(_blames_keyword(reading, word) for reading in readings)]


def _blames_keyword(reading: Reading, word: str) -> bool:
    bare = word not in ORDINARY and reading.says(rf"(?<!\w){re.escape(normalized(word))}\b")
    return bare or word in reading.path[2:] or reading.marks(word)


def _places(sent: Sent, readings: Sequence[Reading]) -> List[str]:
    """The places of the schema that a refusal is about."""
    heads = {reading.path[0] for reading in readings if reading.path}
    about_format = says(readings, r"response format|response schema|text format|structured output")
    about_tools = says(readings, r"\btools?\b|function|parameters")
    if heads & {"response_format", "text"} or about_format:
        places = ["response_format"]
    elif heads & {"tools", "functions"} or about_tools:
        places = ["tools"]
    else:
        places = []
    there = [place for place in SCHEMA_PLACES if sent.schemas(place)]
    return [place for place in there if place in places] or there


# ---- Which tools
def tool(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """The one tool that is named, by its name or by its place."""
    entries = list(sent.tools.values())
    named = [entry for name, entry in sent.tools.items() if any(reading.marks(name) for reading in readings)]
    for reading in readings:
        steps = [int(step) for step in reading.path[1:] if step.isdigit()]
        if reading.path[:1] == ("tools",) and steps and steps[-1] < len(entries):
            named.append(entries[steps[-1]])
    if named and len(named) < len(entries):
        yield without("without it", "tool", named)


def tools(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """No tools, for a model without tools; a client that insists on a call must get the error."""
    if sent.body.get("tool_choice") in (None, "auto", "none"):
        yield without("without them", "tool", sent.tools.values())
