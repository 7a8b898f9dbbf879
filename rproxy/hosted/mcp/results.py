"""What a tool of an MCP server has answered, as text for a model."""

from __future__ import annotations

import json
from typing import Any, Iterator, List, NamedTuple, Sequence

from ...json_codec import mend
from ...types import Json
from .protocol import is_deep

MAX_IMAGES = 8
_CUT = "\n[... {} bytes of this result are left out ...]\n"
EMPTY = "The tool has answered with nothing."


class Result(NamedTuple):
    """``failed``: the tool says that it has.  ``content``: its parts, cut as the text is.  ``images``: data
    URLs.
    """

    text: str
    failed: bool
    images: Sequence[str] = ()


def read_result(result: Json, max_bytes: int) -> Result:
    """The result of ``tools/call``.

    :param max_bytes: of the text; what is beyond that is cut out of its middle
    """
    content = result.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    texts = [text for part in parts for text in _texts(part)]
    images = [url for part in parts for url in _images(part)][:MAX_IMAGES]
    structured = result.get("structuredContent")
    if not texts and structured is not None and not is_deep(structured):
        texts = [json.dumps(structured, ensure_ascii=False)]
    text = cut_middle(mend("\n".join(texts)), max_bytes) or EMPTY
    return Result(text, result.get("isError") is True, images)


def _texts(part: Json) -> Iterator[str]:
    """The text of a part, or a note that there is something else."""
    kind = part.get("type")
    if kind == "text":
        yield str(part.get("text") or "")
    elif kind == "resource":
        resource = part.get("resource")
        inner = resource if isinstance(resource, dict) else {}
        text = inner.get("text")
        yield text if isinstance(text, str) else f"[resource {_word(inner.get('uri'))}, not text]"
    elif kind == "resource_link":
        yield f"[resource {_word(part.get('name'))}: {_word(part.get('uri'))}]"
    else:
        yield f"[{_word(kind)}, {_word(part.get('mimeType'))}]"


def _images(part: Json) -> Iterator[str]:
    if part.get("type") == "image" and isinstance(part.get("data"), str):
        yield f"data:{_word(part.get('mimeType')) or 'image/png'};base64,{part['data']}"


def _word(value: Any) -> str:
    return " ".join(value.split())[:300] if isinstance(value, str) else ""


def cut_middle(text: str, max_bytes: int) -> str:
    """The text, if it is short enough; otherwise its beginning and its end, with a note between them."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text
    half = max_bytes // 2
    ends: List[str] = [piece.decode("utf-8", "ignore") for piece in (data[:half], data[len(data) - half :])]
    return _CUT.format(len(data) - 2 * half).join(ends)
