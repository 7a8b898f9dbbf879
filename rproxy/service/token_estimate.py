"""How many tokens a chat request has, roughly.

Chat Completions providers have no endpoint that counts, and every model family has a tokenizer of its own.
The figures here are those of the large BPE vocabularies (100,000 to 200,000 entries): English and code have
about four characters a token, scripts beyond Latin about one and a half.  Expect an error of up to a quarter;
the exact figure is in the ``usage`` of an answer.
"""

from __future__ import annotations

import json
from typing import Any, List, Mapping, Sequence

from ..types import Json

ASCII_PER_TOKEN = 4.0
LATIN_PER_TOKEN = 2.5  # accented letters, Greek, Cyrillic: up to U+07FF
OTHER_PER_TOKEN = 1.5
MESSAGE = 4  # for the markers around one message
WRITTEN = ("text", "refusal", "arguments", "input")  # the keys of output items with what a model has written
MEDIA = 1000  # an image, a file or a sound, whatever its size


def estimate(chat: Json) -> int:
    """The tokens of the input of a chat request: its messages, its tools, and the schema of its answer."""
    total = sum(MESSAGE + _content(message) for message in chat["messages"])
    for key in ("tools", "response_format"):
        if key in chat:
            total += _text(json.dumps(chat[key], ensure_ascii=False))
    return max(1, round(total))


def estimate_any(request: Json) -> int:
    """:func:`estimate` of a request of any form, which nobody need have checked."""
    try:
        return estimate(request)
    except (LookupError, TypeError, AttributeError):
        return max(1, round(len(json.dumps(request)) / ASCII_PER_TOKEN))


def estimate_output(output: Sequence[Mapping[str, Any]]) -> int:
    """The tokens of output items: everything that a model has written."""
    total = 0.0
    todo: List[Sequence[Any]] = [output]
    while todo:
        for value in todo.pop():
            if isinstance(value, dict):
                total += sum(
                    _text(text) for key, text in value.items() if key in WRITTEN and type(text) is str
                )
                todo += [inner for inner in value.values() if isinstance(inner, list)]
                todo += [[inner] for inner in value.values() if isinstance(inner, dict)]
    return max(1, round(total))


def _content(message: Json) -> float:
    total = _text(json.dumps(message["tool_calls"], ensure_ascii=False)) if message.get("tool_calls") else 0.0
    for key in ("content", "reasoning_content"):
        value = message.get(key)
        for part in value if isinstance(value, list) else [{"text": value}]:
            total += _text(str(part["text"])) if part.get("text") else MEDIA if part.get("type") else 0
    return total


def _text(text: str) -> float:
    plain = sum(1 for c in text if c < "\x80") if not text.isascii() else len(text)
    latin = sum(1 for c in text if "\x80" <= c < "\u0800") if plain < len(text) else 0
    return plain / ASCII_PER_TOKEN + latin / LATIN_PER_TOKEN + (len(text) - plain - latin) / OTHER_PER_TOKEN
