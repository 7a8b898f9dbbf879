"""PDF files in the items: finding them, and putting their texts beside them.

Reading a PDF file takes a library, time and care, so it is not done here.  To convert a request for a
provider that accepts no files, read the files that :func:`pdf_files` finds, and convert the items of
:func:`with_texts`.
"""

from __future__ import annotations

import re
from typing import Any, Iterator, List, Mapping, Sequence, Tuple

from ...types import AnyItem

_PDF = re.compile(r"(?:data:[^,]{0,200},)?\s*JVBERi[0-3]")  # "%PDF-" in base64


def pdf_files(items: Sequence[AnyItem]) -> Iterator[Tuple[str, str]]:
    """(file name, ``file_data``) of each PDF file in messages and in the results of tools."""
    for item in items:
        for part in _parts(item):
            if _is_pdf(part):
                yield str(part.get("filename") or "file"), part["file_data"]


def with_texts(items: Sequence[AnyItem], texts: Mapping[str, str]) -> List[AnyItem]:
    """The items with a ``text`` in each ``input_file`` part whose ``file_data`` is a key of ``texts``."""
    return [_with_texts(item, texts) if any(map(_is_pdf, _parts(item))) else item for item in items]


def _parts(item: AnyItem) -> List[Any]:
    """The parts of an item's content and output; none for plain texts."""
    parts: List[Any] = []
    for value in (item.get("content"), item.get("output")):
        if value and not isinstance(value, str):
            inner = value.get("content") if isinstance(value, dict) else value  # a dict: of an MCP tool
            parts += inner if isinstance(inner, list) else ()
    return parts


def _is_pdf(part: Any) -> bool:
    if not isinstance(part, dict) or part.get("type") != "input_file":
        return False
    data = part.get("file_data")
    return isinstance(data, str) and _PDF.match(data) is not None


def _with_texts(item: AnyItem, texts: Mapping[str, str]) -> AnyItem:
    copy = dict(item)
    for key in ("content", "output"):
        value = item.get(key)
        if isinstance(value, list):
            copy[key] = _filled(value, texts)
        elif isinstance(value, dict) and isinstance(value.get("content"), list):
            copy[key] = {**value, "content": _filled(value["content"], texts)}
    return copy


def _filled(parts: List[Any], texts: Mapping[str, str]) -> List[Any]:
    return [
        {**part, "text": texts[part["file_data"]]} if _is_pdf(part) and part["file_data"] in texts else part
        for part in parts
    ]
