"""Removes the client's content from what a provider says about a request.

A provider may quote the request that it refuses, and a prompt may speak of ``stream_options`` or of images.
What is learned from a refusal must come from the provider's own words, so everything that the client has
written is taken out before the diagnosis: texts that are quoted whole, and every run of ``RUN`` or more
characters of one.  The words of the API are not content, even if a client has written nothing else; texts
shorter than ``MIN_TEXT`` may occur in any sentence.
"""

from __future__ import annotations

import json
import re
from typing import Any, Container, Iterable, Iterator, List, Sequence, Set

from ..types import Json

RUN, BLOCK = 24, 12  # characters; wherever a run of 24 begins, it covers a block of 12 at a multiple of 12
MIN_TEXT = 4
CUT = " … "
# Values of these keys are words of the API, or names and ids.
STRUCTURE = frozenset(
    (
        "role", "type", "name", "id", "call_id", "tool_call_id", "status", "model", "detail", "format",
        "mime_type", "mimeType", "object", "phase",
    )
)  # fmt: skip
# The keys of a request whose values are, or hold, what the client has written.
CONTENT = (
    "messages", "input", "instructions", "metadata", "user", "user_id", "safety_identifier",
    "prompt_cache_key", "stop", "prediction",
)  # fmt: skip
# The keys within tools and formats whose values are prose or data.
PROSE = ("description", "title", "const", "default", "example", "examples", "enum", "$comment")


def client_texts(body: Json) -> List[str]:
    """All texts in a request, as it was sent, that its client has written, without repetitions."""
    texts = [text for key in CONTENT for text in _strings(body.get(key))]
    texts += [text for key in ("tools", "response_format", "text") for text in _prose(body.get(key))]
    return [text for text in dict.fromkeys(texts) if len(text) >= MIN_TEXT]


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


class Redaction:
    """Cuts the content of one request out of texts.

    :param texts: all texts that are to be cut
    :param contents: see :func:`client_texts`
    :param words: the words of the API, in lower case, which are never cut out as a whole
    """

    def __init__(self, texts: Sequence[str], contents: Sequence[str], words: Container[str]) -> None:
        forms = list(dict.fromkeys(form for content in contents for form in _spellings(content)))
        self._whole = [form for form in forms if len(form) < RUN and form.lower() not in words]
        self._runs = shared_runs(texts, (form for form in forms if len(form) >= RUN))

    def cut(self, text: str) -> str:
        """``text``, which must be one of ``texts``, without what it quotes."""
        text = without_runs(text, self._runs)
        for form in self._whole:
            if form in text:
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", CUT, text)
        return text


def _spellings(content: str) -> List[str]:
    """The content as it is, and as JSON spells it."""
    escaped = [json.dumps(content, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)]
    return list(dict.fromkeys([content, *escaped]))


def without_runs(text: str, runs: Set[str]) -> str:
    """``text`` with ``…`` in place of these runs of ``RUN`` characters, and of longer ones made of them."""
    covered = {i + k for i in range(len(text)) if text[i : i + RUN] in runs for k in range(RUN)}
    if not covered:
        return text
    return re.sub("\0+", CUT, "".join("\0" if i in covered else c for i, c in enumerate(text)))


def shared_runs(texts: Sequence[str], contents: Iterable[str]) -> Set[str]:
    """The runs of RUN characters that texts and contents share.

    Contents may be long, so they are walked in steps of BLOCK; only around a block that occurs in a text are
    the neighbours compared.
    """
    grams = {text[i : i + RUN] for text in texts for i in range(len(text) - RUN + 1)}
    blocks = {gram[i : i + BLOCK] for gram in grams for i in range(RUN - BLOCK + 1)}
    windows: Set[str] = set()
    for content in contents if grams else ():
        for i in range(0, len(content) - BLOCK + 1, BLOCK):
            if content[i : i + BLOCK] in blocks:
                windows.add(content[max(i - RUN + BLOCK, 0) : i + RUN])
    return grams & {w[i : i + RUN] for w in windows for i in range(len(w) - RUN + 1)}
