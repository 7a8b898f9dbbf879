"""The provider of a recording: it gives the recorded answers, piece by piece and in the recorded time.

The first request gets the answer of the recorded turn's first attempt, the next one that of the second, and
so on; then it begins again.  The content of the requests does not matter.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager
from typing import Any, Iterator, Optional

from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from ...errors import ConfigError
from ...server.tornado_patches import NoDelayServer
from ...telemetry.recording_file import RecordedAttempt, RecordedTurn

# Headers that belong to the recorded connection, or are masked.
NOT_PLAYED = ("content-length", "transfer-encoding", "connection", "content-encoding", "keep-alive", "date")


class _Answers(RequestHandler):
    def initialize(self, attempts: Iterator[RecordedAttempt]) -> None:
        self.attempts = attempts

    async def post(self) -> None:
        attempt = next(self.attempts)
        if attempt.status is None:
            self.hang_up()
            return
        self.set_status(attempt.status)
        for name, value in attempt.headers.items():
            if name not in NOT_PLAYED:
                self.set_header(name, value)
        before: Optional[float] = None
        try:
            for at, piece in attempt.pieces:
                if before is not None:
                    await asyncio.sleep((at - before) / 1000)
                before = at
                self.write(piece)
                await self.flush()
            if attempt.how == "failed":
                self.hang_up()
            else:
                await self.finish()
        except StreamClosedError:
            pass  # the client has hung up

    def hang_up(self) -> None:
        connection: Any = self.request.connection
        connection.stream.close()


class _Models(RequestHandler):
    def initialize(self, model: str) -> None:
        self.model = model

    def get(self) -> None:
        self.finish({"object": "list", "data": [{"id": self.model, "object": "model"}]})


@contextmanager
def serve_recorded(recorded: RecordedTurn, host: str, port: int) -> Iterator[str]:
    """Serve in the running event loop as long as the context lasts.

    :returns: a context with the base URL
    :raises ConfigError: there is no answer to give, or the address cannot be used
    """
    if not recorded.attempts:
        raise ConfigError("no provider was called in this turn, so there is none to play")
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    model = recorded.turn["downstream_model"]
    server = NoDelayServer(
        Application(
            [
                (r".*/chat/completions", _Answers, {"attempts": itertools.cycle(recorded.attempts)}),
                (r".*/responses", _Answers, {"attempts": itertools.cycle(recorded.attempts)}),
                (r".*/models", _Models, {"model": model}),
            ],
            log_function=lambda handler: None,
        )
    )
    server.add_sockets(sockets)
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{sockets[0].getsockname()[1]}/v1"
    finally:
        server.stop()
