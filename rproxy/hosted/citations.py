"""The citations of an answer: addresses in its text that hosted tools have found.

Chat models do not name their sources; they are asked to write Markdown links.  An address that no tool has
found is not annotated, so no source is invented.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Sequence, Tuple

from ..types import Json
from .addresses import urls_in

Source = Tuple[str, str]  # address, title

MAX_LABEL = 500  # characters of a link's text
MAX_ANNOTATIONS = 500  # in one text


class Citations:
    """Finds citations.

    :param sources: what the tools have found in this conversation
    """

    def __init__(self, sources: Iterable[Sequence[str]]) -> None:
        self._sources: Dict[str, Source] = {}
        for url, title in sources:
            self._sources[_plain(url)] = url, title

    def of(self, text: str) -> List[Json]:
        """The annotations of a text, in its order.  Indexes count code points, the end is exclusive."""
        if not self._sources or "http" not in text:
            return []
        found: List[Json] = []
        for begin, address in urls_in(text):
            source = self._sources.get(_plain(address))
            if source is None:
                continue
            start, end = _link(text, begin, begin + len(address))
            url, title = source
            cited = {"type": "url_citation", "start_index": start, "end_index": end, "url": url}
            found.append({**cited, "title": title})
            if len(found) == MAX_ANNOTATIONS:
                break
        return found


def _link(text: str, start: int, end: int) -> Tuple[int, int]:
    """Where the link around an address begins and ends; without a link, the address itself."""
    if start >= 2 and text.startswith("](", start - 2):
        close = text.find(")", end, end + MAX_LABEL)
        opening = _label_start(text, start - 2)
        if opening >= 0 and close >= 0 and "\n" not in text[end:close]:
            return opening, close + 1
    elif start and text[start - 1] == "<" and text[end : end + 1] == ">":
        return start - 1, end + 1
    return start, end


def _label_start(text: str, end: int) -> int:
    """Where the text of a link that ends before ``end`` begins; -1: there is no link."""
    depth = 0
    for place in range(end - 1, max(-1, end - MAX_LABEL), -1):
        if text[place] == "]":
            depth += 1
        elif text[place] == "[":
            if not depth:
                return place
            depth -= 1
        elif text[place] == "\n" and text[place - 1 : place] == "\n":
            return -1
    return -1


def _plain(url: str) -> str:
    """A common form of different spellings of one address."""
    return url.partition("#")[0].rstrip("/")
