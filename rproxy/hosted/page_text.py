"""The visible text of an HTML page, as lines with numbered links.

Pages come from anywhere, so this is one pass, whose time is proportional to the length of any page.  Broken
HTML is read as browsers read it: an element or a comment that never ends takes the rest.
"""

from __future__ import annotations

import html
import re
from typing import Iterator, List, NamedTuple, Sequence, Tuple
from urllib.parse import urljoin

from .addresses import MAX_URL

MAX_LINE = 400  # characters
MAX_LINKS = 300
MAX_PAGE = 200_000  # characters of its text
MAX_TAG = 4096  # characters of a tag that are read
# Elements whose content is not for readers; in most of them it is not even HTML.
HIDDEN = frozenset(("script", "style", "noscript", "template", "svg", "iframe", "textarea", "title"))
BLOCKS = frozenset(
    (
        "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "fieldset", "figcaption",
        "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav",
        "ol", "option", "p", "pre", "section", "table", "tr", "ul",
    )
)  # fmt: skip
_LOWER = {n: n + 32 for n in range(ord("A"), ord("Z") + 1)}  # str.lower() changes the length of some texts
_NAME = re.compile(r"/?[a-zA-Z][a-zA-Z0-9]*")
_HREF = re.compile(r"""\shref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.I)
_LONG_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{8,};?")  # no character has such a number, and int() takes long
_MARKUP = re.compile(
    r"</?(?:a|b|br|code|div|em|font|h[1-6]|i|li|mark|ol|p|script|small|span|strong|sub|sup|u|ul|wbr)"
    r"(?:\s[^<>]{0,500})?/?>",
    re.I,
)
_BLANKS = re.compile(r"\s+")
_MARKDOWN_LINK = re.compile(r"\]\((https?://[^\s()<>]{1,2048})\)")


class Page(NamedTuple):
    """The text of a page.

    ``links``: the addresses behind the numbers in the text.
    """

    title: str
    lines: Sequence[str]
    links: Sequence[str]


def plain(text: str) -> str:
    """A text of one line without markup, entities and control characters, such as a title or a snippet.

    Only the tags with which services mark matches count as markup, so ``List<int>`` stays.
    """
    text = _unescaped(_MARKUP.sub("", text))
    return " ".join(_printable(text).split())


def html_page(source: str, url: str) -> Page:
    """The text of an HTML page.

    :param url: its address, from which relative links start
    """
    parts: List[str] = []
    links: List[str] = []
    title, preformatted, inside_link = "", 0, False
    for kind, content in _tokens(source):
        if kind == "title":
            title = title or plain(content)
        elif kind == "text":
            text = _unescaped(content)
            parts.append(text if preformatted else _BLANKS.sub(" ", text))
        else:
            name = content[: _end_of_name(content)].translate(_LOWER)
            if name == "a" and len(links) < MAX_LINKS:
                target = _target(content, url)
                inside_link = bool(target)
                links += [target] if target else []
            elif name == "/a" and inside_link:
                parts.append(f" (link {len(links) - 1})")
                inside_link = False
            elif name.lstrip("/") in BLOCKS:
                preformatted += {"pre": 1, "/pre": -1}.get(name, 0)
                parts.append("\n- " if name == "li" else "\n")
    return Page(title, _lines("".join(parts)), links)


def text_page(title: str, text: str) -> Page:
    """Plain text or Markdown, whose links also get numbers."""
    links: List[str] = []

    def numbered(match: re.Match[str]) -> str:
        if len(links) >= MAX_LINKS:
            return match[0]
        links.append(match[1])
        return f"](link {len(links) - 1})"

    return Page(title, _lines(_MARKDOWN_LINK.sub(numbered, text)), links)


def _tokens(source: str) -> Iterator[Tuple[str, str]]:
    """("text", as it is), ("tag", without its brackets) and ("title", its content), in order."""
    lowered, position = source.translate(_LOWER), 0
    while position < len(source):
        start = source.find("<", position)
        start = len(source) if start < 0 else start
        if start > position:
            yield "text", source[position:start]
        if source.startswith("<!--", start):
            position = _after(source, "-->", start + 4)
            continue
        name = _NAME.match(lowered, start + 1)
        if name is None and source[start + 1 : start + 2] not in ("!", "?", "/"):
            if start < len(source):
                yield "text", "<"
            position = start + 1
            continue
        end = source.find(">", start)
        end = len(source) if end < 0 else end
        yield "tag", source[start + 1 : min(end, start + MAX_TAG)]
        position = end + 1
        if name is not None and name[0] in HIDDEN:
            close = lowered.find("</" + name[0], position)
            close = len(source) if close < 0 else close
            if name[0] == "title":
                yield "title", source[position:close]
            position = close


def _after(source: str, mark: str, start: int) -> int:
    found = source.find(mark, start)
    return len(source) if found < 0 else found + len(mark)


def _end_of_name(tag: str) -> int:
    name = _NAME.match(tag)
    return name.end() if name is not None else 0


def _target(tag: str, base: str) -> str:
    """The address that a link leads to; "" if it is not one of the web."""
    found = _HREF.search(tag)
    if found is None:
        return ""
    try:
        target = urljoin(base, _unescaped(found[1] or found[2] or found[3] or "").strip())
    except ValueError:
        return ""
    target = target.partition("#")[0]
    return target if target.startswith(("http://", "https://")) and len(target) <= MAX_URL else ""


def _unescaped(text: str) -> str:
    return html.unescape(_LONG_NUMBER.sub("", text)) if "&" in text else text


def _lines(text: str) -> List[str]:
    """The lines that are not empty; long ones are wrapped."""
    lines: List[str] = []
    for line in text[:MAX_PAGE].split("\n"):
        line = _printable(line).rstrip()
        if not line.strip() or line.strip() == "-":
            continue
        while len(line) > MAX_LINE:
            end = line.rfind(" ", 1, MAX_LINE)
            end = MAX_LINE if end < 1 else end
            lines.append(line[:end])
            line = line[end:].lstrip()
        lines.append(line)
    return lines


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
