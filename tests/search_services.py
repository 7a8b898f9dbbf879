"""A server that speaks as the search services do, and has the pages that they find.

The n-th result for a query is ``/page/<query>-<n>`` on this very server.  :attr:`SearchServices.results`, if
set, gives other ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, AsyncIterator, Callable, Dict, List, NamedTuple, Optional

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from rproxy.config.load import parse_config
from rproxy.config.schema import Config
from rproxy.providers.search_table import SEARCH_SERVICES
from rproxy.server.app import embedded

Json = Dict[str, Any]

KEY = "search-key-0123456789"
# path -> the header with the key
SERVICES = {
    "/search": "Authorization",
    "/extract": "Authorization",
    "/contents": "x-api-key",
    "/v1/tools/search": "Authorization",
    "/v1/tools/fetch": "Authorization",
    "/res/v1/web/search": "X-Subscription-Token",
}
PAGE = """<!doctype html><html><head><title>Page {name}</title><style>p{{}}</style></head><body>
<script>alert('no')</script><h1>Page &amp; more</h1><p>All about {name}.</p><pre>def f():
    return 1</pre><a href="/page/next_(one)">next</a> <a href="file:///etc/passwd">file</a></body></html>"""


class ReceivedRequest(NamedTuple):
    """One request: ``body`` is that of a POST, otherwise the query."""

    method: str
    path: str
    body: Json
    request: HTTPServerRequest


class SearchServices:
    """``statuses`` are answered first, one for each search.  ``pages``: path -> status, headers and body."""

    def __init__(self) -> None:
        self.asked: List[ReceivedRequest] = []
        self.statuses: List[int] = []
        self.gate: Optional[asyncio.Event] = None
        self.gone = 0
        self.running = self.most = 0
        self.results: Optional[Callable[[str], List[Any]]] = None
        self.answer: Optional[bytes] = None
        self.pages: Dict[str, Any] = {}
        sock, self.port = bind_unused_port()
        application = Application([(r".*", _Handler, {"services": self})], log_function=lambda handler: None)
        self._server = HTTPServer(application)
        self._server.add_socket(sock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> List[str]:
        return [asked.path for asked in self.asked]

    def found(self, query: str) -> List[Any]:
        """Results in the words of all services at once."""
        if self.results is not None:
            return self.results(query)
        return [self.result(f"{self.url}/page/{query.replace(' ', '-')}-{n}", n) for n in (1, 2, 3)]

    def result(self, url: str, n: int = 1, text: str = "") -> Json:
        text = text or f"text {n}"
        return {
            "url": url, "link": url, "title": f"title {n}", "content": text, "summary": text,
            "description": text, "snippet": text, "text": text,
        }  # fmt: skip

    async def close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()


@contextlib.asynccontextmanager
async def search_services() -> AsyncIterator[SearchServices]:
    services = SearchServices()
    try:
        yield services
    finally:
        await services.close()


class _Handler(RequestHandler):
    def initialize(self, services: SearchServices) -> None:
        self.services = services

    def on_connection_close(self) -> None:
        self.services.gone += 1

    async def get(self) -> None:
        services, path = self.services, self.request.path
        body = {name: self.get_argument(name) for name in self.request.arguments}
        if self.request.method == "POST":
            body = json.loads(self.request.body)
        services.asked.append(ReceivedRequest(str(self.request.method), path, body, self.request))
        services.running += 1
        services.most = max(services.most, services.running)
        try:
            if services.gate is not None:
                await services.gate.wait()
        except asyncio.CancelledError:
            return  # the test is over; with Python 3.9 Tornado would log this
        finally:
            services.running -= 1
        if path == "/page/endless":
            return await self._endless()
        if path.startswith("/page/"):
            return self._page(path)
        if services.statuses:
            self.set_status(services.statuses.pop(0))
            self.set_header("Retry-After", "0")
            self.finish({"error": {"message": f"unwell, and your key is {self._key()}"}})
            return None
        if services.answer is not None:
            self.finish(services.answer)
            return None
        self.finish(self._served(path, body))
        return None

    post = get

    def _key(self) -> str:
        return self.request.headers.get(SERVICES[self.request.path], "").replace("Bearer ", "")

    def _served(self, path: str, body: Json) -> Json:
        if path in ("/extract", "/contents"):
            return {
                "results": [{"raw_content": f"Text of {u}", "text": f"Text of {u}"} for u in body["urls"]]
            }
        if path == "/v1/tools/fetch":
            return {
                "title": "Fetched",
                "content": f"Text of {body['url']} and [more](https://example.com/m).",
            }
        found = self.services.found(body.get("q") or body.get("query") or "")
        return {"results": found, "web": {"results": found}, "organic": found}

    async def _endless(self) -> None:
        """A page that has no end."""
        while not self.request.connection.stream.closed():  # type: ignore[union-attr]
            self.write(b"<p>" + b"y" * 65536)
            with contextlib.suppress(StreamClosedError):
                await self.flush()

    def _page(self, path: str) -> None:
        status, headers, body = self.services.pages.get(
            path, (200, {"Content-Type": "text/html; charset=utf-8"}, PAGE.format(name=path[6:]))
        )
        self.set_status(status)
        for name, value in headers.items():
            self.set_header(name, value)
        self.finish(body)


# ---- rproxy in front of it
CONFIG = """\
server: {{listen_addr: "127.0.0.1:0", auth: {{keys: [first-client, second-client]}}}}
models: [{{model: m, provider: {{base_url: "http://127.0.0.1:1", api_key: sk-provider}}}}]
{search}
"""


def config(search: str) -> Config:
    return parse_config(CONFIG.format(search=search).encode(), "test.yaml", {})


class Lab(NamedTuple):
    """rproxy, and the service that it searches with."""

    url: str
    services: SearchServices

    async def post(
        self, body: Json, *, key: str = "first-client", path: str = "/v1/alpha/search"
    ) -> HTTPResponse:
        return await AsyncHTTPClient(force_instance=True).fetch(
            self.url + path,
            method="POST",
            headers={"Authorization": "Bearer " + key},
            body=json.dumps(body),
            raise_error=False,
        )

    async def run(self, key: str = "first-client", session: str = "s", **commands: Any) -> Json:
        """The answer to commands."""
        return await self.ask({"commands": commands}, key, session)

    async def ask(self, body: Json, key: str = "first-client", session: str = "s") -> Json:
        response = await self.post({"id": session, "model": "m", **body}, key=key)
        assert response.code == 200, response.body
        answer: Json = json.loads(response.body)
        assert answer["encrypted_output"] is None
        assert KEY not in response.body.decode()
        return answer

    async def text(self, **commands: Any) -> str:
        return str((await self.run(**commands))["output"])


@contextlib.asynccontextmanager
async def lab(kind: str = "searxng", more: str = "") -> AsyncIterator[Lab]:
    """:param more: further keys of the section"""
    key = f"api_key: {KEY}, " if SEARCH_SERVICES[kind].needs_key else ""
    async with search_services() as services:
        search = f"search: {{kind: {kind}, {key}url: '{services.url}', open_pages: true{more}}}"
        async with embedded(config(search)) as url:
            yield Lab(url, services)


def query(text: str, **more: Any) -> List[Json]:
    return [{"q": text, **more}]


def ref(name: str, **more: Any) -> List[Json]:
    return [{"ref_id": name, **more}]
