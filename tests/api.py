"""A plain HTTP client for the tests of the endpoints, and the openai package's own types as a judge of what
comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

from grammar import parse_sse
from scripted import CONFIG, ScriptedProvider, running, served
from tornado.httpclient import AsyncHTTPClient

Json = Dict[str, Any]
AUTH = """  auth: {{enabled: true, keys: [key-one-0123456789, key-two-0123456789]}}
"""


class Api:
    """One client of one server. ``key``: sent with every request"""

    def __init__(self, base_url: str, key: str = "none") -> None:
        self.base_url, self.key = base_url, key
        self.headers: Dict[str, str] = {}  # of the last answer
        self._http = AsyncHTTPClient(force_instance=True, max_clients=50)

    async def __call__(
        self, method: str, path: str, body: Optional[Json] = None, expect: int = 200, **headers: str
    ) -> Json:
        """Ask, and get the JSON answer, whose status must be ``expect``; for an error its error object."""
        status, content = await self.raw(method, path, body, **headers)
        assert status == expect, (status, content[:500])
        value: Json = json.loads(content)
        return value if expect < 400 else value["error"]

    async def raw(
        self,
        method: str,
        path: str,
        body: Optional[Json] = None,
        on_data: Optional[Callable[[bytes], None]] = None,
        **headers: str,
    ) -> Tuple[int, bytes]:
        answer = await self._http.fetch(
            self.base_url + path,
            method=method,
            body=None if body is None else json.dumps(body),
            raise_error=False,
            headers={
                "Authorization": "Bearer " + self.key,
                **{k.replace("_", "-"): v for k, v in headers.items()},
            },
            allow_nonstandard_methods=True,
            streaming_callback=on_data,
            request_timeout=30,
        )
        self.headers = {name.lower(): value for name, value in answer.headers.get_all()}
        return answer.code, answer.body or b""

    async def post_and_keep(
        self, path: str, body: Json, **headers: str
    ) -> Tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request on its own connection, for a client that leaves (``writer.transport.abort``)."""
        url = urlsplit(self.base_url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        content = json.dumps(body).encode()
        lines = [
            f"POST {url.path}{path} HTTP/1.1",
            "Host: " + url.netloc,
            "Authorization: Bearer " + self.key,
            f"Content-Length: {len(content)}",
            *("{}: {}".format(k.replace("_", "-"), v) for k, v in headers.items()),
            "",
            "",
        ]
        writer.write("\r\n".join(lines).encode() + content)
        await writer.drain()
        return reader, writer

    async def events(self, method: str, path: str, body: Optional[Json] = None, **headers: str) -> List[Json]:
        """The events of an SSE answer."""
        status, content = await self.raw(method, path, body, **headers)
        assert status == 200 and self.headers["content-type"].startswith("text/event-stream"), content[:300]
        return parse_sse(content)

    async def listen(
        self, path: str, body: Json, then: Callable[[], object], after: str = "response.in_progress"
    ) -> List[Json]:
        """The events of an SSE answer.

        :param then: is called at the second heartbeat behind the first event of the type ``after``
        """
        told = bytearray()

        def heartbeats() -> int:
            behind = told.partition(b"event: %b\n" % after.encode())[2]
            return behind.count(b"event: response.in_progress\n")

        def hear(data: bytes) -> None:
            before = heartbeats()
            told.extend(data)
            if before < 2 <= heartbeats():
                then()

        await self.raw("POST", path, body, on_data=hear)
        return parse_sse(bytes(told))

    async def until(self, response_id: str, *statuses: str, seconds: float = 10) -> Json:
        """Poll a response until its status is one of these."""
        for _ in range(int(seconds / 0.05)):
            response = await self("GET", "/responses/" + response_id)
            if response["status"] in statuses:
                return response
            await asyncio.sleep(0.05)
        raise AssertionError("{} stays {}".format(response_id, response["status"]))


@contextlib.asynccontextmanager
async def site(
    folder: Path, server: str = "", more: str = "", process: bool = False
) -> AsyncIterator[Tuple[ScriptedProvider, Api, Any]]:
    """A provider, rproxy in front of it, a client.

    :param server: lines of that section
    :param more: further sections
    :param process: run rproxy as a process of its own, which is the third value that is given; starting it
        takes most of a second
    """
    provider = ScriptedProvider()
    settings: Dict[str, Any] = {"server": server.format(), "config": CONFIG + more}
    try:
        if process:
            async with running(folder, provider.base_url, **settings) as rproxy:
                yield provider, Api(rproxy.base_url), rproxy
        else:
            async with served(provider.base_url, **settings) as base_url:
                yield provider, Api(base_url), None
    finally:
        await provider.close()
    assert provider.refusals == []


def valid(kind: Any, value: Any) -> Any:
    """``value`` as the openai package's type ``kind`` (a model or a union), nothing converted or guessed;
    needs that package.
    """
    import pydantic

    adapter = pydantic.TypeAdapter(kind)
    found = adapter.validate_json(json.dumps(value), strict=True)
    told = adapter.dump_python(found, mode="json", exclude_unset=True, warnings="error")
    assert told == value
    return found
