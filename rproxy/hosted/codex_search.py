"""``POST /alpha/search``: the search that Codex runs itself, with the model's commands.

Codex offers its model a tool, sends each call of it here, and puts ``output`` into the conversation.
A failed command becomes a line of that text: Codex does not repeat the request, and a model
can do more with a sentence than with a status.  Source of the fields: Codex 0.171,
``codex-api/src/endpoint/search.rs``.

Texts from the web cannot be made harmless.  They are framed as data, cut, and together never longer than the
client asks for.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ..config.search_schema import Search
from ..cooperative import in_thread
from ..errors import invalid
from ..types import Json
from .addresses import host_of, named_by_user
from .backend import Backend, Moved, Query, SearchFailed, SearchResult
from .page_text import Page
from .references import References, SearchTurn
from .result_text import (
    CACHED_ONLY,
    FRAME,
    MAX_SNIPPET,
    domains,
    line_of,
    lines_from,
    mapping,
    matches,
    most_results,
    numbered,
    shown,
    snippet,
    text_of,
)

NOTHING = "No command was given; use search_query."
MAX_COMMANDS = 16  # in one request
DEFAULT_TOKENS, MAX_TOKENS, CHARACTERS = 10_000, 25_000, 4  # of output; characters of a token
MIN_SNIPPET = 200  # characters of a result's text, however many results there are
SETTINGS = ("response_length",)  # keys among the commands that are not commands
_NAME = re.compile(r"[a-z_]{1,40}")


class SearchAnswer(NamedTuple):
    """The body of the answer, and how many requests to the service succeeded and failed."""

    body: Json
    completed: int
    failed: int


class _Results(NamedTuple):
    """The results of one command.

    ``text``: the service's own text, instead of results.
    """

    query: str
    found: Sequence[SearchResult]
    text: str = ""


class _View(NamedTuple):
    """Some lines of a page.

    ``chosen``: their numbers, from 0 on; ``note``: a remark about the others.
    """

    url: str
    page: Page
    chosen: Sequence[int]
    note: str


_Done = Union[str, _Results, _View]


class CodexSearch:
    """Answers the requests of all clients."""

    def __init__(self, search: Search, backend: Backend, references: References) -> None:
        self._search, self._backend, self._references = search, backend, references

    async def answer(self, body: Json, owner: str) -> SearchAnswer:
        """Run the commands of one request, side by side.

        :raises ApiError: 400, the body has another form
        """
        commands, settings = _mapping(body, "commands"), _mapping(body, "settings")
        turn = self._references.turn(owner, str(body.get("id") or ""), body.get("input"))
        request = _Request(self._search, self._backend, turn, body, commands, settings)
        done = await asyncio.gather(*(request.run(kind, entry) for kind, entry in request.entries()))
        lines = [*done, *request.unavailable()] or [NOTHING]
        text, results = _written(turn, lines, _room(body))
        answer = {"output": text, "encrypted_output": None, "results": results}
        return SearchAnswer(answer, request.completed, request.failed)


def _mapping(body: Json, name: str) -> Json:
    """:raises ApiError: 400, the field is not an object"""
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise invalid(f"{name} must be an object.", name, "invalid_type")
    return value or {}


def _room(body: Json) -> int:
    """The number of characters that the output may have."""
    tokens = body.get("max_output_tokens")
    if tokens is None:
        tokens = DEFAULT_TOKENS
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise invalid("max_output_tokens must be a whole number above 0.", "max_output_tokens")
    return min(tokens, MAX_TOKENS) * CHARACTERS


# ---- Commands
class _Request:
    """The commands of one request."""

    def __init__(
        self, search: Search, backend: Backend, turn: SearchTurn, body: Json, commands: Json, settings: Json
    ) -> None:
        self._search, self._backend, self._turn = search, backend, turn
        self._items = body.get("input")
        self._commands = commands
        self._filters = mapping(settings.get("filters"))
        self._cached_only = settings.get("external_web_access") is False
        size = text_of(commands.get("response_length")) or text_of(settings.get("search_context_size"))
        self._most = most_results(search.max_results, size)
        self.completed = self.failed = 0

    def entries(self) -> List[Tuple[str, Any]]:
        """The commands that can be run: kind and arguments."""
        known = [
            (kind, entry)
            for kind, entries in self._commands.items()
            if kind in COMMANDS
            for entry in (entries if isinstance(entries, list) else [entries])
            if entry is not None
        ]
        return known[:MAX_COMMANDS]

    def unavailable(self) -> List[str]:
        """A line for every kind of command that does not exist, and one if there were too many."""
        lines = [
            f"{kind if _NAME.fullmatch(kind) else 'This command'} is not available on this proxy."
            for kind, entries in self._commands.items()
            if entries and kind not in COMMANDS and kind not in SETTINGS
        ]
        count = sum(len(v) for k, v in self._commands.items() if k in COMMANDS and isinstance(v, list))
        if count > MAX_COMMANDS:
            lines.append(f"Only the first {MAX_COMMANDS} commands were run; send the others again.")
        return lines[:MAX_COMMANDS]

    async def run(self, kind: str, entry: Any) -> _Done:
        """Run one command; an error is a text, too."""
        if not isinstance(entry, dict):
            return f"{kind}: its entries must be objects."
        done: _Done = await COMMANDS[kind](self, entry)
        return done

    async def search(self, entry: Json) -> _Done:
        text = text_of(entry.get("q"))
        if not text:
            return "search_query: q must be a string."
        if self._cached_only and not self._search.cached:
            return CACHED_ONLY
        only = (domains(entry, "domains"), domains(self._filters, "allowed_domains"))
        days = entry.get("recency")
        query = Query(
            " ".join(text.split()),
            self._most,
            [given for given in only if given],
            domains(self._filters, "blocked_domains"),
            days if isinstance(days, int) and not isinstance(days, bool) and 0 < days < 36_500 else None,
        )
        try:
            found = await self._backend.search(query)
        except SearchFailed as error:
            self.failed += 1
            return f"The search for {shown(text)} failed: {error}."
        self.completed += 1
        return _Results(query.text, found.found, found.text)

    async def open(self, entry: Json) -> _Done:
        return await self._view(entry, line_of(entry.get("lineno")))

    async def find(self, entry: Json) -> _Done:
        pattern = text_of(entry.get("pattern"))
        if not pattern:
            return "find: pattern must be a string."
        return await self._view(entry, pattern=pattern)

    async def click(self, entry: Json) -> _Done:
        number, url = entry.get("id"), self._address(entry)
        page = self._turn.page(url) if url is not None else None
        if url is None or page is None:
            return f"{shown(entry.get('ref_id'))} has not been opened as a page; use open first."
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(page.links):
            return f"{shown(entry.get('ref_id'))} has no link {shown(number)}."
        return await self._read(page.links[number], 1, "")

    async def _view(self, entry: Json, line: int = 1, pattern: str = "") -> _Done:
        url = self._address(entry)
        if url is None:
            return (
                f"{shown(entry.get('ref_id'))} is not known. Only results of this session, links of pages "
                "that were opened, and addresses that the user has written can be opened; search again."
            )
        return await self._read(url, line, pattern)

    def _address(self, entry: Json) -> Optional[str]:
        """The address that a command refers to, by the name of a result or a page, or by itself."""
        name = text_of(entry.get("ref_id"))
        known = self._turn.url(name)
        return name if known is None and host_of(name) and named_by_user(name, self._items) else known

    async def _read(self, url: str, line: int, pattern: str) -> _Done:
        page = self._turn.page(url)
        if page is None:
            if not self._search.open_pages:
                return "Pages cannot be opened on this proxy; use what the searches have found."
            if self._cached_only and not self._search.cached:
                return "Only cached pages were asked for (external_web_access), and this proxy has none."
            try:
                page = await self._backend.page(url)
            except Moved as moved:
                self.completed += 1
                return self._moved(url, str(moved))
            except SearchFailed as error:
                self.failed += 1
                return f"{shown(url)} cannot be opened: {error}."
            self.completed += 1
            self._turn.keep(url, page)
        lines = page.lines
        if pattern:
            return _View(url, page, *await in_thread(lambda: matches(lines, pattern)))
        return _View(url, page, *lines_from(lines, line))

    def _moved(self, url: str, target: str) -> str:
        """A redirect is not followed, but the model may open its target, which is checked like any other."""
        if not host_of(target):
            return f"{shown(url)} cannot be opened: it redirects to an address outside the web."
        return f"{shown(url)} has moved to {target}; open {self._turn.name('view', target)}."


COMMANDS: Mapping[str, Any] = {
    "search_query": _Request.search,
    "open": _Request.open,
    "click": _Request.click,
    "find": _Request.find,
}


# ---- The output
def _written(turn: SearchTurn, done: Sequence[_Done], room: int) -> Tuple[str, List[Json]]:
    """The text for the model, and the results as Codex shows them."""
    count = sum(len(one.found) for one in done if isinstance(one, _Results))
    most = max(MIN_SNIPPET, min(MAX_SNIPPET, room * 3 // 4 // max(1, count)))
    parts: List[str] = []
    results: List[Json] = []
    for one in done:
        if isinstance(one, str):
            parts.append(one)
        elif isinstance(one, _Results):
            named = [_result(turn, found, most) for found in one.found]
            results += named
            parts.append(_results_text(one, named, room))
        else:
            parts.append(_view_text(turn, one))
    if any(not isinstance(one, str) for one in done):
        parts.insert(0, FRAME)
    text = "\n\n".join(parts)
    note = "\n(cut here)"
    return text if len(text) <= room else text[: max(0, room - len(note))] + note, results


def _result(turn: SearchTurn, found: SearchResult, most: int) -> Json:
    return {
        "type": "text_result",
        "ref_id": turn.name("search", found.url),
        "url": found.url,
        "title": found.title,
        "snippet": snippet(found)[:most],
        "domain": found.host,
    }


def _results_text(results: _Results, named: Sequence[Json], room: int) -> str:
    if results.text:
        names = [f"[{one['ref_id']}] {one['url']}" for one in named]
        return "\n\n".join([f"Results for {shown(results.query)}:", results.text[:room], *names])
    if not named:
        return f"The search for {shown(results.query)} found nothing."
    entries = [f"[{one['ref_id']}] {one['title']}\n{one['url']}\n{one['snippet']}".rstrip() for one in named]
    return "\n\n".join([f"Results for {shown(results.query)}:", *entries])


def _view_text(turn: SearchTurn, view: _View) -> str:
    name = turn.name("view", view.url)
    heading = f"[{name}] {view.page.title}".rstrip()
    lines = numbered(view.page.lines, view.chosen)
    return "\n".join([heading, view.url, *lines, *([view.note] if view.note else [])])
