"""``POST /chat/completions``: the provider's own API; see :mod:`rproxy.service.passthrough`."""

from __future__ import annotations

from typing import Awaitable, Mapping, Optional

from tornado.web import Finish

from ..errors import ApiError
from .http import HttpHandler, StreamedBody


class _Relay:
    """The response on its way: every read of the provider's bytes is one write."""

    def __init__(self, handler: HttpHandler) -> None:
        self.begun = False
        self.body = StreamedBody(handler)
        self._handler = handler

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.begun = True
        self._handler.set_status(status)
        for name, value in {**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}.items():
            self._handler.set_header(name, value)
        self._handler.put_time()

    def data(self, data: bytes) -> Optional[Awaitable[None]]:
        return self.body.write(data) if data else None


class ChatHandler(HttpHandler):
    """``POST /chat/completions``"""

    async def create(self) -> None:
        relay, request = _Relay(self), await self.body.parsed()
        try:
            client = self.client("chat", self.body.json_size)
            await self.run_turn(self.state.service.passthrough.chat(request, client, relay))
        except ApiError as error:
            if not relay.begun:
                raise
            self.log_exception(ApiError, error, None)
            relay.body.abort()
            raise Finish() from error
        await relay.body.finish()

    verbs = {"POST": create}
