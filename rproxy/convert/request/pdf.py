"""The text of simple PDF files, for providers that take no files.

A page is a stream of operators, often compressed with zlib; text stands in it as strings before the operators
that show it, and the codes of these strings are letters as long as the fonts keep a common encoding.  That is
all that is read here.  A scanned, encrypted or otherwise compressed file, or one whose fonts number their
glyphs as they like, has no readable text: better none than a wrong one.
"""

from __future__ import annotations

import re
import zlib
from typing import Iterator, List

MAX_BYTES = 16 << 20  # of the file, and of each stream of it

_STREAM = re.compile(rb"\bobj\b(.{0,2000}?)\bstream\r?\n", re.S)
_NOT_A_PAGE = re.compile(rb"/(?:Image|XRef|ObjStm|Metadata|Length1|CIDInit|FunctionType)\b")
_TOKEN = re.compile(
    rb"\((?P<text>(?:[^()\\]|\\.|\((?:[^()\\]|\\.)*\))*)\)"  # a string; brackets inside may be nested once
    rb"|<(?P<hex>[0-9A-Fa-f\s]*)>"
    rb"|(?P<number>[+-]?[0-9.]+)"
    rb"|(?P<operator>[A-Za-z]+\*?|['\"])"
    rb"|/[^\s/()<>\[\]]*|%[^\r\n]*",
    re.S,
)  # names and comments mean nothing here
_SHOW = {b"Tj", b"TJ", b"'", b'"'}
_NEW_LINE = {b"Td", b"TD", b"T*", b"Tm", b"ET", b"'", b'"'}
_GAP = -200.0  # in thousandths of the font's size: a move as wide as a space
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(\r\n|.))", re.S)
_ESCAPES = {
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"b": b"\b",
    b"f": b"\f",
    b"\n": b"",
    b"\r": b"",
    b"\r\n": b"",
}
_UNREADABLE = re.compile(r"[\x00-\x08\x0b-\x1f\ufffd]")
_TOLERATED = 0.02  # of the characters: ligatures, mostly, have codes of their own


def pdf_text(data: bytes) -> str:
    """The text of a PDF file, a line for each line; "" when there is none that can be read. Never raises."""
    if len(data) > MAX_BYTES or b"/Encrypt" in data:
        return ""
    text = "\n".join(filter(None, ("".join(_shown(page)).strip() for page in _pages(data))))
    text, unreadable = _UNREADABLE.subn("\ufffd", text)
    return re.sub(r"\n{2,}", "\n", text) if unreadable <= _TOLERATED * len(text) else ""


def _pages(data: bytes) -> Iterator[bytes]:
    """The streams that may be pages, uncompressed."""
    end = 0
    while True:
        start = _STREAM.search(data, end)
        end = data.find(b"endstream", start.end()) if start else -1
        if start is None or end < 0:
            return
        head, body = start[1], data[start.end() : end]
        if _NOT_A_PAGE.search(head):
            continue
        if b"/FlateDecode" in head:
            try:
                body = zlib.decompressobj().decompress(body, MAX_BYTES)
            except zlib.error:
                continue
        elif b"/Filter" in head:
            continue
        yield body


def _shown(page: bytes) -> Iterator[str]:
    """The strings that the operators of a page show, and the ends of lines."""
    inside = False
    pieces: List[bytes] = []  # what stands before an operator
    for token in _TOKEN.finditer(page):
        operator = token["operator"]
        if operator is None:
            if token["text"] is not None:
                pieces.append(_ESCAPE.sub(_unescaped, token["text"]))
            elif token["hex"] is not None:
                digits = b"".join(token["hex"].split())
                pieces.append(bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode("ascii")))
            elif token["number"] is not None and pieces and _number(token["number"]) < _GAP:
                pieces.append(b" ")
            continue
        inside = operator == b"BT" or inside and operator != b"ET"
        if operator in _NEW_LINE:
            yield "\n"
        if inside and operator in _SHOW:
            yield b"".join(pieces).decode("cp1252", "replace")
        pieces.clear()


def _number(digits: bytes) -> float:
    try:
        return float(digits)
    except ValueError:
        return 0.0


def _unescaped(match: re.Match[bytes]) -> bytes:
    octal, char = match.groups()
    return bytes([int(octal, 8) & 255]) if octal else _ESCAPES.get(char, char)
