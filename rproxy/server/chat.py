"""``POST /chat/completions``: the provider's own API, passed through; see :mod:`rproxy.service.passthrough`."""

from __future__ import annotations

from typing import Awaitable, Mapping, Optional

from tornado.web import Finish

from ..errors import ApiError
from .base import HttpHandler, SSESink
from .writer import drained


class _Relay:
    """The answer on its way: every read of the provider's bytes is one write."""

    def __init__(self, handler: HttpHandler) -> None:
        self.begun = False
        self._handler = handler
        self._out = SSESink(handler)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.begun = True
        self._handler.set_status(status)
        for name, value in {**headers, "cache-control": "no-cache", "x-accel-buffering": "no"}.items():
            self._handler.set_header(name, value)
        self._handler.put_time()

    def data(self, data: bytes) -> Optional[Awaitable[None]]:
        return self._out.write(data) if data else None


class ChatHandler(HttpHandler):
    """``POST /chat/completions``"""

    verbs = ("POST",)

    async def post(self) -> None:
        relay, request = _Relay(self), await self.body().parsed()
        try:
            await self.run_turn(self.state.service.passthrough.chat(request, self.client("chat"), relay))
        except ApiError as error:
            if not relay.begun:
                raise
            self.log_exception(ApiError, error, None)
            self.stream.close()  # the only way to say that the rest is missing
            raise Finish() from error
        await drained(self.finish())
        if self.request.version != "HTTP/1.1":
            self.stream.close()
