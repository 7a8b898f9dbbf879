"""The two ways to get an answer: in this process, without a server, and from a server of the Responses
API.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import AsyncIterator, Iterator, List, Optional, Protocol, cast
from urllib.parse import urlsplit

from ...config.schema import Config, Provider
from ...convert.answer.decoder import ChunkDecoder
from ...convert.answer.unparsed import Unparsed
from ...errors import ApiError, RproxyError, UsageError
from ...json_codec import UNREADABLE
from ...log import clean
from ...server.app import open_service
from ...server.base import new_request_id
from ...service.client import Client
from ...service.service import Service
from ...types import Event, Json
from ...upstream.client import Result, Upstream
from ...upstream.os_errors import reason_for
from ..command import KEY_VARIABLE, Environ, nothing_answers
from .output import Printer

NO_MODEL = "no model is named; name one with -m"


class Responder(Protocol):
    """The source of answers."""

    async def first_model(self) -> str:
        """The model to ask when none is named.

        :raises RproxyError: there is none
        """

    async def answer(self, body: Json, printer: Printer) -> None:
        """Run one turn.

        :raises ApiError: it failed before its stream began
        """


class InProcess:
    """rproxy's own service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def first_model(self) -> str:
        named = self._service.catalog.of(None).first
        models = self._service.config.models
        found = named or next((model.model for model in models if model.downstream_model), "")
        if not found:
            raise UsageError(NO_MODEL)
        return found

    async def answer(self, body: Json, printer: Printer) -> None:
        client = Client(
            key=None, codex=False, transport="sse", request_id=new_request_id(), headers={}, remote="ask"
        )
        printer.response = (await self._service.create(body, client, printer)).response
        recent = self._service.telemetry.recent
        if recent is not None and recent.turns:
            printer.warnings = recent.turns[-1].record.warnings


@contextlib.asynccontextmanager
async def in_process(config: Config) -> AsyncIterator[Responder]:
    """The service of a configuration, as long as the context lasts."""
    # The inspector keeps the warnings of a turn.
    config = replace(config, server=replace(config.server, inspector="on"))
    async with open_service(config) as service:
        yield InProcess(service)


class Remote:
    """A server of the Responses API."""

    def __init__(self, upstream: Upstream, server: Provider) -> None:
        self._upstream = upstream
        self._server = server

    async def first_model(self) -> str:
        with self._reached():
            result = await self._upstream.get(self._server, "/models")
        if result.status != 200:
            raise self._error(result)
        try:
            return str(json.loads(result.body)["data"][0]["id"])
        except (*UNREADABLE, LookupError, TypeError):
            raise UsageError(f"{self._server.base_url} lists no models; name one with -m") from None

    async def answer(self, body: Json, printer: Printer) -> None:
        decoder = ChunkDecoder()  # reads any JSON in an event stream

        def take(chunks: List[Json]) -> None:
            parts = [chunk.parsed() if isinstance(chunk, Unparsed) else [chunk] for chunk in chunks]
            printer.send([cast(Event, _event(one)) for part in parts for one in part])

        with self._reached():
            result = await self._upstream.chat(
                self._server,
                json.dumps(body).encode(),
                on_head=lambda status, headers: None,
                on_data=lambda data: take(decoder.feed(data)),
                path="/responses",
            )
        if not 200 <= result.status < 300:
            raise self._error(result)
        take(decoder.close())
        if printer.response is None and printer.error is None:
            raise RproxyError(f"{self._server.base_url}: the answer broke off before its end")

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """:raises Unreachable: the server of a request within this context cannot be reached"""
        try:
            yield
        except ApiError as error:
            if not error.unreachable:
                raise
            cause = getattr(error.__cause__, "real_error", None) or error.__cause__ or error
            raise nothing_answers(self._server.base_url, reason_for(cause).text) from None

    def _error(self, result: Result) -> ApiError:
        """An answer with another status than 2xx."""
        try:
            message = str(json.loads(result.body)["error"]["message"])
        except (*UNREADABLE, LookupError, TypeError):
            message = result.body[:200].decode("utf-8", "replace")
        text = clean(f"{self._server.base_url} answers {result.status}: {message}".rstrip(": "))
        if result.status == 401:
            text = f"{text.rstrip('.')}. Put one of its keys into ${KEY_VARIABLE}"
        return ApiError(result.status, text)


def _event(chunk: Json) -> Json:
    """The event in a chunk; a server that does not stream sends the Response object itself."""
    if "type" not in chunk and chunk.get("object") == "response":
        return {"type": f"response.{chunk.get('status')}", "response": chunk}
    return {"type": "error", **chunk} if "type" not in chunk and "error" in chunk else chunk


@contextlib.asynccontextmanager
async def remote(base_url: str, key: Optional[str], environ: Environ) -> AsyncIterator[Responder]:
    """The server at an address, as long as the context lasts.

    :param base_url: with ``/v1``
    :param environ: may name a proxy
    """
    upstream = Upstream(environ=environ)
    server = Provider(base_url=base_url, name=urlsplit(base_url).netloc, api_key=key)
    try:
        yield Remote(upstream, server)
    finally:
        upstream.close()
