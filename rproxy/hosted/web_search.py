"""``web_search`` in all its names: the model gets a function, and the configured service answers.

With ``search.open_pages`` there are two more functions: for pages that a search has found, to which an opened
page links, or that the user has named.
"""

from __future__ import annotations

import json
from typing import Dict, List, Sequence, Set, Tuple

from ..config.search_schema import Search
from ..convert.tools.kind import loads, loads_object
from ..cooperative import in_thread
from ..types import AnyItem, Json
from .addresses import host_of, named_by_user, urls_in
from .backend import Backend, Moved, Query, SearchFailed, SearchResult, SearchResults
from .kind import HostedCall, HostedFunction, HostedKind, HostedRequest, KindSession, Outcome, function_call
from .page_text import Page
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

ITEM = "web_search_call"
LOST = "These results are no longer available; search again if you need them."
SEARCH, OPEN, FIND = "web_search", "open_page", "find_in_page"
MAX_LINKS = 50  # of a page that are listed for the model
DESCRIPTION = (
    "Search the web. Use it for what you do not know or what may have changed. In your answer, cite what you "
    "use of the results as Markdown links: [title](url)."
)
_LOCATION = ("city", "region", "country", "timezone")


def _parameters(required: Json, optional: Json) -> Json:
    """The schema of a function's arguments."""
    properties = {**required, **optional}
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


def _string(description: str) -> Json:
    return {"type": "string", "description": description}


_URL = _string("The address of a page: of a result, or one that the user named.")
_LINE = {"type": "integer", "description": "The first line to read."}
SEARCH_PARAMETERS = _parameters(
    {"query": _string("What to search for, as you would type it into a search engine.")}, {}
)
OPEN_PARAMETERS = _parameters({"url": _URL}, {"lineno": _LINE})
FIND_PARAMETERS = _parameters({"url": _URL, "pattern": _string("The text to look for.")}, {})
FIND_DESCRIPTION = "Find a text in a page of the web; gives the lines that have it."


class WebSearch(HostedKind):
    """The kind ``web_search``.

    :param backend: asks the service that the configuration ``search`` names
    """

    types = ("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11")
    items = (ITEM,)

    def __init__(self, search: Search, backend: Backend) -> None:
        self.search, self.backend = search, backend

    def echo(self, tool: Json) -> Json:
        """The entry with the defaults that OpenAI's answers have."""
        location = mapping(tool.get("user_location"))
        place = {"type": "approximate", **{key: location.get(key) for key in _LOCATION}}
        shown_tool = {
            **tool,
            "search_context_size": tool.get("search_context_size") or "medium",
            "user_location": place,
        }
        if "preview" not in str(tool.get("type")):
            shown_tool["filters"] = tool.get("filters")
        return shown_tool

    def session(self, request: HostedRequest) -> KindSession:
        tool = next((tool for tool in request.tools if tool.get("type") in self.types), {})
        return _Session(self, request, tool)


class _Session(KindSession):
    def __init__(self, kind: WebSearch, request: HostedRequest, tool: Json) -> None:
        self.search, self.backend = kind.search, kind.backend
        self._request, self._tool = request, tool
        filters = mapping(tool.get("filters"))
        self._only, self._blocked = domains(filters, "allowed_domains"), domains(filters, "blocked_domains")
        self._most = most_results(self.search.max_results, text_of(tool.get("search_context_size")))
        self.cached_only = tool.get("external_web_access") is False and not self.search.cached
        self.with_sources = "web_search_call.action.sources" in request.include
        self.with_results = "web_search_call.results" in request.include
        self.pages: Dict[str, Page] = {}

    def query(self, text: str) -> Query:
        only = [self._only] if self._only else []
        return Query(" ".join(text.split()), self._most, only, self._blocked)

    # ---- What the model gets
    def functions(self) -> Sequence[HostedFunction]:
        name = self._request.name
        search = HostedFunction(name(SEARCH), self._description(), SEARCH_PARAMETERS, self._search)
        if not self.search.open_pages:
            return [search]
        return [
            search,
            HostedFunction(name(OPEN), "Read a page of the web.", OPEN_PARAMETERS, self._open),
            HostedFunction(name(FIND), FIND_DESCRIPTION, FIND_PARAMETERS, self._find),
        ]

    def _description(self) -> str:
        location = mapping(self._tool.get("user_location"))
        where = ", ".join(str(location[key])[:100] for key in _LOCATION if location.get(key))
        return f"{DESCRIPTION} The user is in or near: {where}." if where else DESCRIPTION

    def chosen(self, choice: Json, forced: bool) -> Sequence[str]:
        names = [SEARCH] if forced or not self.search.open_pages else [SEARCH, OPEN, FIND]
        return [self._request.name(name) for name in names]

    def _search(self, arguments: str) -> HostedCall:
        return _Search(self, _query(arguments))

    def _open(self, arguments: str) -> HostedCall:
        given = loads_object(arguments)
        return _View(self, text_of(given.get("url")), first=line_of(given.get("lineno")))

    def _find(self, arguments: str) -> HostedCall:
        given = loads_object(arguments)
        return _View(self, text_of(given.get("url")), text_of(given.get("pattern")), find=True)

    # ---- Histories
    def history(self, items: Sequence[AnyItem]) -> List[AnyItem]:
        written: List[AnyItem] = []
        theirs = self._request.native & set(WebSearch.types)  # ran by the provider, mostly
        for number, item in enumerate(items):
            known = self._request.known.get(str(item.get("id")))
            if item.get("type") != ITEM or known is None and theirs:
                written.append(item)
                continue
            name, arguments, text = (
                (known["name"], known["arguments"], known["text"]) if known is not None else _lost(item)
            )
            written += function_call(item, self._request.name(name), arguments, text, number)
        return written

    def may_open(self, url: str) -> bool:
        """Did the model get this address from a tool or from the user?"""
        known: Set[str] = set()
        for result in self._request.known.values():
            known.update(result["text"].split())  # as with the links of a page, which may end in any way
            known.update(address for _, address in urls_in(result["text"]))
            known.update(source[0] for source in result["sources"])
        return url in known or named_by_user(url, list(self._request.items))


def _lost(item: AnyItem) -> Tuple[str, str, str]:
    """Name, arguments and text of a call that is only known by its item."""
    action = mapping(item.get("action"))
    name = {"open_page": OPEN, "find_in_page": FIND}.get(str(action.get("type")), SEARCH)
    keys = {SEARCH: ("query",), OPEN: ("url",), FIND: ("url", "pattern")}[name]
    queries = action.get("queries")
    if "query" not in action and isinstance(queries, list):
        action = {**action, "query": " ".join(map(str, queries))}
    arguments = {key: str(action.get(key) or "") for key in keys}
    return name, json.dumps(arguments, ensure_ascii=False), LOST


def _query(arguments: str) -> str:
    """The query in the arguments, which a model may have written in another form."""
    value = loads(arguments)
    if isinstance(value, dict):
        value = next((value[name] for name in ("query", "q", "queries") if name in value), "")
    if isinstance(value, list):
        value = " ".join(text for text in value if isinstance(text, str))
    return text_of(value)


# ---- Calls
class _Call(HostedCall):
    tool = "web_search"

    def __init__(self, session: _Session, function: str, action: Json) -> None:
        self.function = function
        self._session = session
        self._action = action
        self.server = session.search.kind
        self.item = {"type": ITEM}

    def stopped(self, reason: str) -> Outcome:
        return self._failed(reason)

    def _failed(self, text: str) -> Outcome:
        return Outcome({"status": "failed", "action": self._action}, text)


class _Search(_Call):
    def __init__(self, session: _Session, text: str) -> None:
        super().__init__(session, SEARCH, {"type": "search", "query": text})
        self._text = text

    async def run(self) -> Outcome:
        session = self._session
        if not self._text:
            return self._failed("web_search: query must be a string.")
        if session.cached_only:
            return self._failed(CACHED_ONLY)
        try:
            findings = await session.backend.search(session.query(self._text))
        except SearchFailed as error:
            return self._failed(f"The search for {shown(self._text)} failed: {error}.")
        action, found = self._action, findings.found
        item: Json = {}
        if session.with_sources:
            action = {**action, "sources": [{"type": "url", "url": one.url} for one in found]}
        if session.with_results:
            item["results"] = [_result(one) for one in found]
        item = {"status": "completed", "action": action, **item}
        return Outcome(item, self._written(findings), [(one.url, one.title) for one in found])

    def _written(self, findings: SearchResults) -> str:
        found = findings.found
        if not found and not findings.text:
            return f"The search for {shown(self._text)} found nothing."
        entries = [f"[{_label(one)}]({one.url})\n{snippet(one)[:MAX_SNIPPET]}".rstrip() for one in found]
        if findings.text:
            entries = [findings.text]
        return "\n\n".join([FRAME, f"Results for {shown(self._text)}:", *entries])


def _result(found: SearchResult) -> Json:
    return {
        "type": "text_result",
        "url": found.url,
        "title": found.title,
        "snippet": snippet(found)[:MAX_SNIPPET],
    }


def _label(found: SearchResult) -> str:
    """The title, so that it can be the text of a link."""
    return found.title.replace("[", "(").replace("]", ")") or found.host


class _View(_Call):
    """Some lines of a page.

    :param pattern: selects the lines that contain it
    """

    def __init__(
        self, session: _Session, url: str, pattern: str = "", first: int = 1, find: bool = False
    ) -> None:
        function = FIND if find else OPEN
        action: Json = {"type": function, "url": url}
        super().__init__(session, function, {**action, "pattern": pattern} if find else action)
        self._url, self._pattern, self._first, self._find = url, pattern, first, find

    async def run(self) -> Outcome:
        url = self._url
        if self._find and not self._pattern:
            return self._failed("find_in_page: pattern must be a string.")
        if not host_of(url) or not self._session.may_open(url):
            return self._failed(
                f"{shown(url)} cannot be opened. Only addresses that a search has found, links of pages that "
                "were opened, and addresses that the user has written can be; search again."
            )
        if self._session.cached_only:
            return self._failed(CACHED_ONLY)
        try:
            page = self._session.pages.get(url) or await self._session.backend.page(url)
        except Moved as moved:
            target = str(moved)
            where = f"to {target}; open that" if host_of(target) else "to an address outside the web"
            return self._failed(f"{shown(url)} has moved {where}.")
        except SearchFailed as error:
            return self._failed(f"{shown(url)} cannot be opened: {error}.")
        self._session.pages[url] = page
        text = await self._written(page)
        return Outcome({"status": "completed", "action": self._action}, text, [(url, page.title or url)])

    async def _written(self, page: Page) -> str:
        lines = page.lines
        if self._find:
            pattern = self._pattern
            chosen, note = await in_thread(lambda: matches(lines, pattern))
        else:
            chosen, note = lines_from(lines, self._first)
        links = [f"link {number}: {link}" for number, link in enumerate(page.links[:MAX_LINKS])]
        parts = [FRAME, f"{page.title}\n{self._url}".strip(), "\n".join(numbered(lines, chosen)), note]
        return "\n\n".join(filter(None, [*parts, "" if self._find else "\n".join(links)]))
