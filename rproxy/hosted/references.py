"""The names of search results and of pages that were read: ``turn0search1``, ``turn2view0``.

A client uses such a name in a later request of the same session.  Names belong to an owner and a session, and
are unknown to all others.  All of this is in memory and bounded; the least recently used goes first.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from typing import Any, Iterator, Optional, Tuple

from .page_text import Page

MAX_SESSIONS = 10_000
MAX_NAMES = 50_000
MAX_PAGE_TEXT = 32 << 20  # characters
MAX_SEARCHED = 500_000  # characters and values of a conversation
_TURN = re.compile(r"\bturn(\d{1,6})(?:search|view)\d")

Scope = bytes


class References:
    """The names of all sessions."""

    def __init__(self) -> None:
        self._turns: OrderedDict[Scope, int] = OrderedDict()
        self._urls: OrderedDict[Tuple[Scope, str], str] = OrderedDict()
        self._pages: OrderedDict[Tuple[Scope, str], Tuple[Page, int]] = OrderedDict()
        self._size = 0

    def turn(self, owner: str, session: str, items: Any) -> SearchTurn:
        """A new turn of a session.

        :param items: of the conversation; a process that does not know the session counts on from the names
            in it
        """
        scope = hashlib.sha256(repr((owner, session)).encode("utf-8", "replace")).digest()
        number = self._turns.pop(scope, None)
        if number is None:
            number = max(_turns_in(items), default=-1) + 1
        self._turns[scope] = number + 1
        if len(self._turns) > MAX_SESSIONS:
            self._turns.popitem(last=False)
        return SearchTurn(self, scope, number)

    def url(self, scope: Scope, name: str) -> Optional[str]:
        """The address behind a name."""
        if (scope, name) in self._urls:
            self._urls.move_to_end((scope, name))
        return self._urls.get((scope, name))

    def add(self, scope: Scope, name: str, url: str) -> None:
        """Give a name to an address, which from now on is also known by itself."""
        self._urls[scope, name] = self._urls[scope, url] = url
        while len(self._urls) > MAX_NAMES:
            self._urls.popitem(last=False)

    def page(self, scope: Scope, url: str) -> Optional[Page]:
        """The page at an address, if it is remembered."""
        known = self._pages.get((scope, url))
        if known is None:
            return None
        self._pages.move_to_end((scope, url))
        return known[0]

    def keep(self, scope: Scope, url: str, page: Page) -> None:
        """Remember a page."""
        size = len(page.title) + sum(map(len, page.lines)) + sum(map(len, page.links))
        self._size += size - self._pages.pop((scope, url), (page, 0))[1]
        self._pages[scope, url] = page, size
        while self._size > MAX_PAGE_TEXT:
            self._size -= self._pages.popitem(last=False)[1][1]


class SearchTurn:
    """One request of a session, and the names that it gives."""

    def __init__(self, references: References, scope: Scope, number: int) -> None:
        self._references, self._scope, self._number = references, scope, number
        self._counts = {"search": 0, "view": 0}

    def name(self, kind: str, url: str) -> str:
        """A new name for an address.

        :param kind: ``search`` or ``view``
        """
        name = f"turn{self._number}{kind}{self._counts[kind]}"
        self._counts[kind] += 1
        self._references.add(self._scope, name, url)
        return name

    def url(self, name: str) -> Optional[str]:
        """The address behind a name of this session, or an address that it has found."""
        return self._references.url(self._scope, name)

    def page(self, url: str) -> Optional[Page]:
        """The page, if the session has read it."""
        return self._references.page(self._scope, url)

    def keep(self, url: str, page: Page) -> None:
        """Remember a page that the session has read."""
        self._references.keep(self._scope, url, page)


def _turns_in(items: Any) -> Iterator[int]:
    """The numbers of the turns in the last names of a JSON value."""
    room, values = MAX_SEARCHED, [items]
    while values and room > 0:
        value = values.pop()
        if isinstance(value, str):
            yield from (int(number) for number in _TURN.findall(value[:room]))
            room -= len(value)
        elif isinstance(value, (dict, list)):
            values += value.values() if isinstance(value, dict) else value
            room -= len(value)
