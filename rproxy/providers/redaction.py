"""The client's content, cut out of what a provider says about a request.

A provider may quote the request that it refuses, and a prompt may speak of ``stream_options`` or of images.  What is
learned from a refusal must come from the provider's own words, so everything that the client has written is taken out
before the diagnosis: texts that are quoted whole, and every run of ``RUN`` or more characters of one.  The words of the
API are not content, even if a client has written nothing else, and texts shorter than ``SHORTEST`` stand in any sentence.
"""

from __future__ import annotations

import json
import re
from typing import Any, Container, Iterator, List, Sequence

from ..types import Json

RUN, BLOCK = 24, 12  # characters; a run of 24 covers a block of 12 at a multiple of 12, wherever it begins
SHORTEST = 4
CUT = " … "
# Values of these keys are words of the API, or names that the two sides gave to things.
STRUCTURE = frozenset(
    [
        "role",
        "type",
        "name",
        "id",
        "call_id",
        "tool_call_id",
        "status",
        "model",
        "detail",
        "format",
        "mime_type",
        "mimeType",
        "object",
        "phase",
    ]
)
# The keys of a request whose values are, or hold, what the client has written.
CONTENT = (
    "messages", "input", "instructions", "metadata", "user", "user_id", "safety_identifier", "prompt_cache_key", "stop",
    "prediction",
)  # fmt: skip
# The keys within tools and formats that hold prose or data and not form.
PROSE = ("description", "title", "const", "default", "example", "examples", "enum", "$comment")


def client_texts(body: Json) -> List[str]:
    """Everything in a request, as it was sent, that its client has written, without repetitions."""
    texts = [text for key in CONTENT for text in _strings(body.get(key))]
    texts += [text for key in ("tools", "response_format", "text") for text in _prose(body.get(key))]
    return [text for text in dict.fromkeys(texts) if len(text) >= SHORTEST]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value.strip()
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in STRUCTURE or not isinstance(inner, str):
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _prose(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner) if key in PROSE else _prose(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _prose(inner)


def without_content(text: str, contents: Sequence[str], words: Container[str]) -> str:
    """``text`` without what it quotes of ``contents``.

    :param words: the words of the API, in lower case, which are never cut out as a whole
    """
    for content in contents:
        for form in _spellings(content):
            text = _without_runs(text, form)
            if len(form) < RUN and form in text and form.lower() not in words:
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", CUT, text)
    return text


def _spellings(content: str) -> List[str]:
    """As it is, and as it stands inside JSON."""
    escaped = [json.dumps(content, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)]
    return list(dict.fromkeys([content, *escaped]))


def _without_runs(text: str, content: str) -> str:
    if len(content) < RUN:
        return text
    covered: List[range] = []
    for start in range(0, len(text) - BLOCK + 1, BLOCK):
        if text[start : start + BLOCK] in content:
            first, last = max(start - RUN + BLOCK, 0), min(start, len(text) - RUN)
            covered += [range(i, i + RUN) for i in range(first, last + 1) if text[i : i + RUN] in content]
    cut = {i for run in covered for i in run}
    marked = "".join("\0" if i in cut else char for i, char in enumerate(text)) if cut else text
    return re.sub("\0+", CUT, marked)
