"""A rough estimate of the tokens of a chat request.

Chat Completions providers have no endpoint that counts tokens, and every model family has its own tokenizer.
The figures here are those of the large BPE vocabularies (100,000 to 200,000 entries): English and code have
about four characters a token, scripts beyond Latin about one and a half.  Expect an error of up to a quarter;
the exact figure is in the ``usage`` of an answer.
"""

from __future__ import annotations

import json
from typing import Any, List, Mapping, Sequence

from ..convert.json_steps import write_steps
from ..types import Json

ASCII_PER_TOKEN = 4.0
LATIN_PER_TOKEN = 2.5  # accented letters, Greek, Cyrillic: up to U+07FF
OTHER_PER_TOKEN = 1.5
MESSAGE = 4  # the markers around one message
WRITTEN = ("text", "refusal", "arguments", "input")  # the keys of output items with text of the model
PIECE = 1 << 16  # characters that are counted at once
SAMPLES = 16  # pieces of a long text that stand for all of it
MEDIA = 1000  # an image, a file or a sound, whatever its size


def estimate(chat: Json) -> int:
    """The tokens of the input of a chat request: its messages, its tools, and the schema of its answer."""
    total = sum(MESSAGE + _content(message) for message in chat["messages"])
    for key in ("tools", "response_format"):
        if key in chat:
            total += _json(chat[key])
    return max(1, round(total))


def estimate_any(request: Json) -> int:
    """:func:`estimate` for a request that has not been checked."""
    try:
        return estimate(request)
    except (LookupError, TypeError, AttributeError):
        return max(1, round(len(json.dumps(request)) / ASCII_PER_TOKEN))


def estimate_output(output: Sequence[Mapping[str, Any]]) -> int:
    """The tokens of output items: all text of the model."""
    total = 0.0
    todo: List[Sequence[Any]] = [output]
    while todo:
        for value in todo.pop():
            for key, inner in value.items() if isinstance(value, dict) else ():
                if type(inner) is str:
                    total += _text(inner) if key in WRITTEN else 0.0
                elif isinstance(inner, dict):
                    todo.append([inner])
                elif isinstance(inner, list) and key != "annotations":
                    todo.append(inner)  # there may be very many annotations, and none is the model's text
    return max(1, round(total))


def _content(message: Json) -> float:
    total = _json(message["tool_calls"]) if message.get("tool_calls") else 0.0
    for key in ("content", "reasoning_content"):
        value = message.get(key)
        for part in value if isinstance(value, list) else [{"text": value}]:
            total += _text(str(part["text"])) if part.get("text") else MEDIA if part.get("type") else 0
    return total


def _json(value: Any) -> float:
    """The tokens of a value as JSON.  A large one is written in pieces, so that this can run in a thread."""
    pieces: List[bytes] = []
    for _ in write_steps(value, pieces):
        pass
    return sum(_text(piece.decode()) for piece in pieces)


def _text(text: str) -> float:
    if text.isascii():
        return len(text) / ASCII_PER_TOKEN
    pieces = range(0, len(text), PIECE)
    some = pieces[:: max(1, len(pieces) // SAMPLES)]
    return sum(_piece(text[at : at + PIECE]) for at in some) * len(pieces) / len(some)


def _piece(text: str) -> float:
    # A character has 1 to 4 bytes in UTF-8, and 2 or 4 in UTF-16: this is much faster than examining each.
    size, plain = len(text), len(text.encode("ascii", "ignore"))
    four = len(text.encode("utf-16-le", "surrogatepass")) // 2 - size
    more = size - plain - four  # characters of two or three bytes
    three = len(text.encode("utf-8", "surrogatepass")) - plain - 4 * four - 2 * more
    return plain / ASCII_PER_TOKEN + (more - three) / LATIN_PER_TOKEN + (three + four) / OTHER_PER_TOKEN
