"""Search services as data: how to query each, and where its results are.

A service that reads operators in the query (``site:``, ``after:``) gets domains and dates that way; in any
case the results are filtered again (:mod:`rproxy.hosted.backend`).  Sources: the services' API documentation.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional, Sequence, Tuple

AFTER = "after:"  # as ``recency_key``: an operator in the query


class PageEndpoint(NamedTuple):
    """How a service returns the text of a page.

    ``url_key`` has the address, in a list if ``many``.  ``results``: the path to the pages in the answer,
    empty if the answer is the page.
    """

    path: str
    url_key: str
    text: str
    many: bool = False
    results: Sequence[str] = ()
    constants: Mapping[str, Any] = {}


class SearchService(NamedTuple):
    """One kind of service.

    ``url``: the base address, "" if every user has a different one.  ``auth_header`` gets the key, as a
    bearer token if it is ``Authorization``.  ``results``: the path to the list of results; ``link``,
    ``title``, ``texts``, ``more`` and ``date`` are keys of a result: the first of the texts that is not empty
    is used, and ``more`` is added.  ``include_key`` and ``exclude_key`` have lists of domains; without them,
    operators in the query are used.  ``shares_key``: without a key of its own, it uses that of the provider
    at the same host.  ``recency_words``: (days, the service's word for that period); without them,
    ``recency_key`` gets the date.
    """

    path: str
    query_key: str
    results: Sequence[str]
    texts: Sequence[str]
    url: str = ""
    method: str = "POST"
    auth_header: str = "Authorization"
    needs_key: bool = True
    shares_key: bool = False
    constants: Mapping[str, Any] = {}
    count_key: str = ""
    max_count: int = 20
    max_query: int = 400  # characters
    link: str = "url"
    title: str = "title"
    more: str = ""
    date: str = ""
    include_key: str = ""
    exclude_key: str = ""
    recency_key: str = ""
    recency_words: Sequence[Tuple[int, str]] = ()
    page: Optional[PageEndpoint] = None


SEARCH_SERVICES: Mapping[str, SearchService] = {
    # JSON must be among search.formats in its settings, or it answers 403.
    "searxng": SearchService(
        method="GET",
        path="/search",
        needs_key=False,
        query_key="q",
        constants={"format": "json"},
        results=("results",),
        texts=("content",),
        date="publishedDate",
        recency_key="time_range",
        recency_words=((1, "day"), (31, "month"), (366, "year")),
    ),
    "deepseek": SearchService(
        url="https://api.deepseek.com",
        path="/v1/tools/search",
        shares_key=True,
        query_key="query",
        max_query=128,
        count_key="count",
        max_count=50,
        results=("results",),
        texts=("summary", "snippet", "content"),
        date="date",
        recency_key=AFTER,
        page=PageEndpoint(path="/v1/tools/fetch", url_key="url", text="content"),
    ),
    "brave": SearchService(
        url="https://api.search.brave.com",
        method="GET",
        path="/res/v1/web/search",
        auth_header="X-Subscription-Token",
        query_key="q",
        count_key="count",
        results=("web", "results"),
        texts=("description",),
        more="extra_snippets",
        date="age",
        recency_key="freshness",
        recency_words=((1, "pd"), (7, "pw"), (31, "pm"), (366, "py")),
    ),
    "tavily": SearchService(
        url="https://api.tavily.com",
        path="/search",
        query_key="query",
        count_key="max_results",
        results=("results",),
        texts=("content",),
        date="published_date",
        include_key="include_domains",
        exclude_key="exclude_domains",
        recency_key="time_range",
        recency_words=((1, "day"), (7, "week"), (31, "month"), (366, "year")),
        page=PageEndpoint(
            path="/extract", url_key="urls", many=True, results=("results",), text="raw_content"
        ),
    ),
    "exa": SearchService(
        url="https://api.exa.ai",
        path="/search",
        auth_header="x-api-key",
        query_key="query",
        constants={"contents": {"text": {"maxCharacters": 2000}}},
        count_key="numResults",
        results=("results",),
        texts=("text", "highlights"),
        date="publishedDate",
        include_key="includeDomains",
        exclude_key="excludeDomains",
        recency_key="startPublishedDate",
        page=PageEndpoint(
            path="/contents",
            url_key="urls",
            many=True,
            results=("results",),
            text="text",
            constants={"text": True},
        ),
    ),
    "serper": SearchService(
        url="https://google.serper.dev",
        path="/search",
        auth_header="X-API-KEY",
        query_key="q",
        count_key="num",
        results=("organic",),
        link="link",
        texts=("snippet",),
        date="date",
        recency_key="tbs",
        recency_words=((1, "qdr:d"), (7, "qdr:w"), (31, "qdr:m"), (366, "qdr:y")),
    ),
}

# What an MCP server's tool has found, in the form that rproxy.hosted.mcp_search makes of it.
MCP_RESULTS = SearchService(
    path="", query_key="", results=(), texts=("content",), date="date", needs_key=False
)
