"""One search, or one page, from the configured service.

How to query a service, and where the results are in its answer, is data
(:mod:`rproxy.providers.search_table`).  Results are not trusted: those without a web address, and those of
unwanted domains, are dropped, and texts are cut.  A request that fails temporarily is sent once more.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import re
import time
from datetime import datetime, timezone
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from ..config.search_schema import Search
from ..convert.json_reader import USUAL, parse_steps
from ..cooperative import in_thread, run_cooperatively
from ..errors import RproxyError
from ..json_codec import encode_json
from ..log import LONG, clean, mask_known
from ..providers.search_table import AFTER, PageEndpoint, SearchService
from ..upstream.client import Upstream
from ..upstream.web import WebAnswer, WebError, WebRequest
from .addresses import host_of, in_ascii, refusal, within
from .page_text import Page, html_page, plain, text_page

MAX_ANSWER = 8 << 20  # bytes of a service's answer; long texts in it are cut
LARGE_ANSWER = 1 << 18  # ... above which it is read in slices
MAX_ENTRIES = 1000  # of its results that are read
MAX_PAGE_BYTES = 1 << 20  # of a page; the rest is left out
MAX_TITLE, MAX_TEXT, MAX_DATE = 200, 2000, 40  # characters
MAX_QUERY_DOMAINS = 20  # that are sent to a service; results are filtered by all domains
MAX_RUNNING = 32  # requests at the same time; others wait
PAUSE, MAX_PAUSE = 0.5, 2.0  # seconds before the second attempt
DAY = 86_400  # seconds
PAGE_HEADERS = {
    "Accept": "text/html, text/markdown, text/plain, application/json;q=0.9, */*;q=0.1",
    "Connection": "close",
}
TEXT_TYPES = re.compile(r"text/|application/([\w.+-]+\+)?(json|xml|yaml|javascript|x-yaml|toml)\b")
# Python's other codecs can be slow, or are not encodings of text.
CHARSETS = re.compile(
    "utf-?(8|16)|us-ascii|latin-?1|iso-?8859-|windows-|cp125|gb|big5|shift_jis|euc-|koi8-", re.I
)
_TIME_OF_DAY = re.compile(r"(?<=\d\d\d\d-\d\d-\d\d)T.*")
_CHARSET = re.compile(r"""charset=["']?([\w.:-]{1,40})""", re.I)


class SearchFailed(RproxyError):
    """No results, or no page; the text says why."""


class Moved(RproxyError):
    """The page has moved; the text is its new address."""


class Query(NamedTuple):
    """A search.  ``most``: the maximum number of results.  ``only``: lists of domains; a result must match
    each list.  ``days``: the maximum age of results; None: any age.
    """

    text: str
    most: int
    only: Sequence[Sequence[str]] = ()
    blocked: Sequence[str] = ()
    days: Optional[int] = None


class SearchResult(NamedTuple):
    """One result."""

    url: str
    title: str
    text: str
    date: str
    host: str


class SearchResults(NamedTuple):
    """The results of a search.  ``text``: the service's own text, instead of results."""

    found: Sequence[SearchResult]
    text: str = ""


class Backend:
    """The configured service.

    :param now: seconds since the epoch
    """

    def __init__(self, search: Search, upstream: Upstream, now: Callable[[], float]) -> None:
        self._search, self._service = search, search.service
        self._upstream = upstream
        self._secrets = search.secrets
        self._now = now
        self._running = asyncio.Semaphore(MAX_RUNNING)

    # ---- A search
    async def search(self, query: Query) -> SearchResults:
        """The results that match, at most ``query.most``.

        :raises SearchFailed: the service did not answer, or not with results
        """
        service = self._service
        answer = await self._json(service.path, self._parameters(query), service.method)
        found = _at(answer, service.results)
        if not isinstance(found, list):
            raise SearchFailed("its answer has no list of results")
        return SearchResults(fitting(service, found, query))

    def _parameters(self, query: Query) -> Dict[str, Any]:
        service = self._service
        only = query.only[0] if query.only else ()
        parameters: Dict[str, Any] = dict(service.constants)
        operators: List[str] = []
        for key, domains, operator in (
            (service.include_key, only, " OR site:"),
            (service.exclude_key, query.blocked, " -site:"),
        ):
            if domains and len(domains) <= MAX_QUERY_DOMAINS:
                if key:
                    parameters[key] = list(domains)
                else:
                    operators.append("".join(operator + domain for domain in domains).replace(" OR", "", 1))
        if query.days is not None:
            self._add_recency(query.days, parameters, operators)
        text = query.text[: service.max_query]
        for operator in operators:  # those that fit; results are filtered in any case
            if len(text) + len(operator) <= service.max_query:
                text += operator
        parameters[service.query_key] = text
        if service.count_key:
            wanted = query.most * (2 if query.only or query.blocked else 1)
            parameters[service.count_key] = min(wanted, service.max_count)
        return parameters

    def _add_recency(self, days: int, parameters: Dict[str, Any], operators: List[str]) -> None:
        """Tell the service how old results may be."""
        service = self._service
        date = datetime.fromtimestamp(max(0.0, self._now() - days * DAY), timezone.utc).strftime("%Y-%m-%d")
        if service.recency_words:
            word = next((word for most, word in service.recency_words if days <= most), None)
            if word is not None:
                parameters[service.recency_key] = word
        elif service.recency_key == AFTER:
            operators.append(f" {AFTER}{date}")
        else:
            parameters[service.recency_key] = date

    # ---- A page
    async def page(self, url: str) -> Page:
        """A page, read by the service if it has an endpoint for that.

        :raises SearchFailed: it cannot be read
        :raises Moved: it redirects to another address
        """
        problem = refusal(url, self._search.url)
        if problem:
            raise SearchFailed(problem)
        if self._service.page is not None:
            return await self._page_of_service(self._service.page, url)
        own = refusal(url, "") != ""  # it is at the search service itself, which may be private
        answer = await self._fetch(
            WebRequest(
                in_ascii(url), self._search.timeout, MAX_PAGE_BYTES, headers=PAGE_HEADERS, public=not own
            )
        )
        location = answer.headers.get("Location", "")
        if 300 <= answer.status < 400 and location:
            raise Moved(_target(url, location))
        if not 200 <= answer.status < 300:
            raise SearchFailed(f"its server answers with status {answer.status}")
        return await _page(url, answer)

    async def _page_of_service(self, endpoint: PageEndpoint, url: str) -> Page:
        parameters = {**endpoint.constants, endpoint.url_key: [url] if endpoint.many else url}
        answer = await self._json(endpoint.path, parameters, "POST")
        pages = _at(answer, endpoint.results) if endpoint.results else [answer]
        page = pages[0] if isinstance(pages, list) and pages else None
        text = page.get(endpoint.text) if isinstance(page, dict) else None
        if not isinstance(page, dict) or not isinstance(text, str) or not text.strip():
            raise SearchFailed("the search service has no text of it")
        content = text[:MAX_PAGE_BYTES]
        title = plain(str(page.get("title") or ""))[:MAX_TITLE]
        return await in_thread(lambda: text_page(title, content))

    # ---- Requests
    async def _json(self, path: str, parameters: Mapping[str, Any], method: str) -> Any:
        """The answer of the service.

        :raises SearchFailed: it did not answer, or not with JSON
        """
        request = self._request(path, parameters, method)
        answer = await self._fetch(request)
        if not 200 <= answer.status < 300:
            raise SearchFailed(_status_text(answer, self._secrets))
        if len(answer.body) >= MAX_ANSWER:
            raise SearchFailed(f"its answer is longer than {MAX_ANSWER >> 20} MiB")
        # Only our own keys are masked: pages show those of others, and a short one may be a common word.
        secrets = [secret for secret in self._secrets if len(secret) >= LONG]
        read = partial(_read, answer.body, secrets)
        try:
            if len(answer.body) <= LARGE_ANSWER:
                return json.loads(read())
            return await run_cooperatively(parse_steps(await in_thread(read), float, bounds=USUAL))
        except (ValueError, RecursionError):
            raise SearchFailed("its answer is not JSON") from None

    def _request(self, path: str, parameters: Mapping[str, Any], method: str) -> WebRequest:
        search, service = self._search, self._service
        base = urlsplit(search.url)
        query: List[Tuple[str, str]] = parse_qsl(base.query)
        headers = {"Accept": "application/json"}
        body = None
        if method == "POST":
            headers["Content-Type"], body = "application/json", encode_json(parameters)
        else:
            query += [(key, str(value)) for key, value in parameters.items()]
        if search.api_key:
            bearer = "Bearer " if service.auth_header == "Authorization" else ""
            headers[service.auth_header] = bearer + search.api_key
        url = urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + path, urlencode(query), ""))
        return WebRequest(url, search.timeout, MAX_ANSWER, method, headers, body)

    async def _fetch(self, request: WebRequest) -> WebAnswer:
        """Send a request, and once more if it fails temporarily, all within its time limit.

        :raises SearchFailed: there is no answer
        """
        end = time.monotonic() + request.timeout
        async with self._running:
            outcome = await self._attempt(request, end)
            pause = _pause(outcome)
            if pause is not None and end - time.monotonic() > pause:
                await asyncio.sleep(pause)
                outcome = await self._attempt(request, end)
        if isinstance(outcome, WebError):
            raise SearchFailed(clean(str(outcome), self._secrets))
        return outcome

    async def _attempt(self, request: WebRequest, end: float) -> Union[WebAnswer, WebError]:
        left = max(0.001, end - time.monotonic())
        try:
            return await self._upstream.fetch(request._replace(timeout=left))
        except WebError as error:
            return error


# ---- Answers of a service
def _read(body: bytes, secrets: Sequence[str]) -> str:
    return mask_known(body.decode("utf-8", "replace"), secrets)


def fitting(service: SearchService, entries: Sequence[Any], query: Query) -> List[SearchResult]:
    """The results among the entries of an answer that match the query, each address once."""
    results: Dict[str, SearchResult] = {}
    for entry in entries[:MAX_ENTRIES]:
        result = _result(service, entry)
        if result is not None and _fits(query, result.host):
            results.setdefault(result.url, result)
    return list(results.values())[: query.most]


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _result(service: SearchService, entry: Any) -> Optional[SearchResult]:
    """An entry as a result; None if it has no web address."""
    url = entry.get(service.link) if isinstance(entry, dict) else None
    host = host_of(url) if isinstance(url, str) else ""
    if not isinstance(url, str) or not host:
        return None
    texts = [_text(entry.get(key)) for key in service.texts]
    text = next(filter(None, texts), "")
    if service.more:
        text = " ".join(filter(None, [text, _text(entry.get(service.more))]))
    title = _text(entry.get(service.title))[:MAX_TITLE] or host
    date = _TIME_OF_DAY.sub("", _text(entry.get(service.date)))[:MAX_DATE]
    return SearchResult(url, title, text[:MAX_TEXT], date, host)


def _text(value: Any) -> str:
    """A text, or a list of texts, in one line."""
    parts = value if isinstance(value, list) else [value]
    return plain(" ".join(part[: 4 * MAX_TEXT] for part in parts[:20] if isinstance(part, str)))


def _fits(query: Query, host: str) -> bool:
    return all(within(host, domains) for domains in query.only) and not within(host, query.blocked)


def _pause(outcome: Union[WebAnswer, WebError]) -> Optional[float]:
    """Seconds to wait before a second attempt, within limits; None: do not try again."""
    if isinstance(outcome, WebError):
        return PAUSE
    if outcome.status < 500 and outcome.status != 429:
        return None
    try:
        return min(MAX_PAUSE, max(0.0, float(outcome.headers.get("Retry-After", PAUSE))))
    except ValueError:
        return PAUSE


def _status_text(answer: WebAnswer, secrets: Sequence[str]) -> str:
    """An error status explained: what to do about it, or the service's own words."""
    if answer.status in (401, 403):
        hint = "check search.api_key" + (
            ", or the formats that it allows (SearXNG: search.formats in its settings needs json)"
            if answer.status == 403
            else ""
        )
        return f"it refuses the request with status {answer.status}; {hint}"
    words = clean(answer.body[:2000].decode("utf-8", "replace"), secrets)
    words = " ".join(words.split())[:300]
    return f"it answers with status {answer.status}" + (f": {words}" if words else "")


# ---- Answers of a page's server
def _target(url: str, location: str) -> str:
    """The address to which a page redirects; "" if there is none."""
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


async def _page(url: str, answer: WebAnswer) -> Page:
    content_type = answer.headers.get("Content-Type", "text/html").strip().lower()
    is_html = content_type.startswith(("text/html", "application/xhtml"))
    if not is_html and not TEXT_TYPES.match(content_type):
        raise SearchFailed(f"it is not text but {plain(content_type)[:80]}")
    text = _decoded(answer.body, content_type)
    return await in_thread(partial(html_page, text, url) if is_html else partial(text_page, "", text))


def _decoded(body: bytes, content_type: str) -> str:
    named = _CHARSET.search(content_type) or _CHARSET.search(body[:2048].decode("latin-1"))
    charset = named[1] if named is not None and CHARSETS.match(named[1]) else "utf-8"
    try:
        codecs.lookup(charset)
    except LookupError:
        charset = "utf-8"
    return body.decode(charset, "replace")
