"""``GET /`` in a browser, and ``/inspector/...``: the page that shows the turns, and its data.

It is read-only.  Without authentication it is for clients on this machine, like ``/metrics``.  With it the
page, which has no data, is public, and the data need a key.  Other sites have no access, not even those in
``server.allowed_origins``.  :mod:`rproxy.inspector` is loaded on first use.
"""

from __future__ import annotations

import asyncio
import os
import time
from itertools import chain
from typing import TYPE_CHECKING, Iterable, Iterator, List, Optional, Tuple

from tornado.web import Finish

from .. import __version__
from ..config.schema import Model
from ..cooperative import run_cooperatively
from ..errors import ApiError, forbidden, invalid, not_found
from ..json_codec import encode_json
from ..telemetry.recent import RecentTurns
from ..telemetry.records import TurnRecord
from ..types import Json
from .http import ROUTES_HINT, HttpHandler, StreamedBody

if TYPE_CHECKING:
    from ..inspector.feed import Feed
    from ..inspector.viewer import Viewer
    from ..telemetry.contents import Content

SCOPE = "This process only: with several, each shows its own turns."
MISSING = "It may be too old, or have run in another process."
UNRECORDED = "With server.inspector: content, the content of new turns is kept, for the key that asked."
OWN_SITE = ("same-origin", "none")  # values of Sec-Fetch-Site; none: the user has typed the address
UPDATE_INTERVAL = 0.1  # seconds of which all changes are sent together
CHECK_INTERVAL = 5.0  # seconds between checks of the providers' states, and between keep-alives


class InspectorHandler(HttpHandler):
    """The base of the inspector's handlers."""

    def set_default_headers(self) -> None:
        super().set_default_headers()
        for name in ("Access-Control-Allow-Origin", "Access-Control-Expose-Headers"):
            self.clear_header(name)  # an origin that may use the models may not see this
        self.set_header("Cache-Control", "no-store")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")

    def check_verb(self) -> None:
        """:raises ApiError: 404, the inspector is not for this client; 403, another site asks; 405"""
        if self._recent is None or not (self.state.config.server.auth.enabled or self.is_local):
            raise not_found("Path", self.request.path, hint=ROUTES_HINT)
        if not self.public and self.request.headers.get("Sec-Fetch-Site", "none") not in OWN_SITE:
            # It could not read the answer, but measure its time and its size.
            raise forbidden("Only the inspector's own page may ask for its data from a browser.")
        super().check_verb()

    @property
    def _recent(self) -> Optional[RecentTurns]:
        return self.state.service.telemetry.recent

    @property
    def recent(self) -> RecentTurns:
        """The turns; :meth:`check_verb` has found them, but the inspector may have been switched off since.

        :raises ApiError: 404
        """
        recent = self._recent
        if recent is None:
            raise not_found("Path", self.request.path, hint=ROUTES_HINT)
        return recent

    @property
    def viewer(self) -> Viewer:
        from ..inspector.viewer import Viewer

        return Viewer(self.key)

    @property
    def process(self) -> Json:
        """The process that answers."""
        recent = self.recent
        return {
            "id": recent.id,
            "pid": os.getpid(),
            "version": __version__,
            "began": round(recent.began, 3),
            "turns_kept": recent.turns.maxlen,
            "content": self.state.config.server.inspector == "content",
            "scope": SCOPE,
        }

    def providers(self) -> List[Json]:
        """The providers that this client may see."""
        viewer = self.viewer
        models: List[Model] = [model for model in self.state.config.models if viewer.may_use(model.model)]
        return self.state.service.provider_states(models)

    def number(self, name: str, default: Optional[int], most: int) -> Optional[int]:
        """A whole number of the query.

        :raises ApiError: 400
        """
        text = self.query().get(name)
        if text is None:
            return default
        if not (text.isdecimal() and text.isascii() and 0 < int(text[:18]) <= most):
            raise invalid(f"{name} must be a whole number from 1 to {most}.", name)
        return int(text)


class PageHandler(InspectorHandler):
    """``/``: the page, for clients that ask for HTML"""

    public = True  # it has no data

    def check_verb(self) -> None:
        from ..inspector.page import asks_for_html

        if not asks_for_html(self.request.headers.get("Accept", "")) or self.request.method not in self.verbs:
            raise not_found("Path", self.request.path, hint=ROUTES_HINT)
        super().check_verb()

    async def show(self) -> None:
        from ..inspector.page import page

        body, headers = page()
        for name, value in headers.items():
            self.set_header(name, value)
        await self.finish(body)

    verbs = {"GET": show, "HEAD": show}


class TurnsHandler(InspectorHandler):
    """``/inspector/turns``: the turns, the newest first"""

    async def list_turns(self) -> None:
        from ..inspector.turns import LISTED, MAX_LISTED, page_steps, running_turns, wanted_of

        limit = self.number("limit", LISTED, MAX_LISTED) or LISTED
        before = self.number("before", None, 1 << 53)
        wanted = wanted_of(self.query())
        found = await run_cooperatively(page_steps(self.recent, self.viewer, wanted, before, limit))
        running = [] if before is not None else list(running_turns(self.recent, self.viewer))
        await self.put_json({"process": self.process, "running": running, **found})

    verbs = {"GET": list_turns, "HEAD": list_turns}


class OneTurnHandler(InspectorHandler):
    """The base of the handlers for one turn."""

    def find(self, request_id: str) -> Tuple[TurnRecord, Json]:
        """A turn that this client may see, and its JSON.

        :raises ApiError: 404
        """
        from ..inspector.turns import running_json, turn_json

        ended = self.recent.find(request_id)
        found = (ended.record, turn_json(ended)) if ended is not None else None
        if found is None:
            for running in self.recent.running:
                record = running.view()
                if record.request_id == request_id:
                    found = record, running_json(running)
        if found is None or not self.viewer.may_see(found[0]):
            raise not_found("Turn", request_id, hint=MISSING)
        return found

    async def content(self, record: TurnRecord) -> Optional[Content]:
        """The content of a turn; None if it is not kept, or not for this client."""
        contents = self.state.service.telemetry.contents
        if contents is None or not self.viewer.may_read(record):
            return None
        return await contents.content(record.request_id)


class TurnHandler(OneTurnHandler):
    """``/inspector/turns/ID``: one turn; with ``server.inspector: content`` also its recording"""

    async def show(self, request_id: str) -> None:
        record, shown = self.find(request_id)
        content = await self.content(record)
        shown = {"process": self.process, **shown, "recording": content.name if content else None}
        if content is None:
            await self.put_json({**shown, "content": None})
            return
        body = StreamedBody(self)
        head = encode_json(shown)[:-1] + b',"content":['
        await body.write_all(chain([head], entries(content.pieces()), [b"]}"]))
        await body.finish()

    verbs = {"GET": show}


class RecordingHandler(OneTurnHandler):
    """``/inspector/turns/ID/recording``: what ``rproxy replay`` plays"""

    async def show(self, request_id: str) -> None:
        record, _ = self.find(request_id)
        content = await self.content(record)
        if content is None:
            raise not_found("Recording of turn", request_id, hint=UNRECORDED)
        self.set_header("Content-Type", "application/jsonl")
        self.set_header("Content-Disposition", f'attachment; filename="{content.name}"')
        body = StreamedBody(self)
        await body.write_all(content.pieces())
        await body.finish()

    verbs = {"GET": show}


def entries(lines: Iterable[bytes]) -> Iterator[bytes]:
    """JSON lines as the entries of an array; both in pieces that are not empty."""
    before = b""
    for piece in lines:
        whole = piece.endswith(b"\n")
        entry = before + (piece[:-1] if whole else piece).replace(b"\n", b",")
        if entry:
            yield entry
        before = b"," if whole else b""


class SummaryHandler(InspectorHandler):
    """``/inspector/summary``: sums, and the states of the providers"""

    async def show(self) -> None:
        from ..inspector.summary import WINDOW, summary_steps

        seconds = self.number("window", int(WINDOW), 10**9) or WINDOW
        recent, viewer = self.recent, self.viewer
        turns = [turn for turn in reversed(recent.turns) if viewer.may_see(turn.record)]
        sums = await run_cooperatively(summary_steps(turns, time.time(), seconds))
        running = sum(viewer.may_see(one.view()) for one in recent.running)
        process = self.process
        await self.put_json({"process": process, "running": running, **sums, "providers": self.providers()})

    verbs = {"GET": show, "HEAD": show}


class StreamHandler(InspectorHandler):
    """``/inspector/stream``: what happens, as server-sent events; see :mod:`rproxy.inspector.feed`"""

    def initialize(self) -> None:
        super().initialize()
        self._wake = asyncio.Event()  # something has happened, or the client has left

    async def follow(self) -> None:
        from ..inspector.feed import Feed

        recent = self.recent
        after = self.query().get("after", self.request.headers.get("Last-Event-ID", ""))
        feed = Feed(recent, self.viewer, self.process, self.providers, after)
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("X-Accel-Buffering", "no")
        body = StreamedBody(self)
        recent.listeners.add(self._wake)
        try:
            await self._follow(recent, feed, body)
        except asyncio.CancelledError:  # the process ends
            body.abort()
            raise Finish() from None
        finally:
            recent.listeners.discard(self._wake)

    async def _follow(self, recent: RecentTurns, feed: Feed, body: StreamedBody) -> None:
        mode = self.state.config.server.inspector
        while not (self.client_left or self.state.stopping) and self._still_may(recent, mode):
            self._wake.clear()
            await body.write_all(feed.updates())
            try:
                await asyncio.wait_for(self._wake.wait(), CHECK_INTERVAL)
            except asyncio.TimeoutError:
                await body.write_all([b": alive\n\n"])
            else:
                await asyncio.sleep(UPDATE_INTERVAL)
        if not self.client_left:
            await body.finish()

    def _still_may(self, recent: RecentTurns, mode: str) -> bool:
        """May the client still see the stream?  Its key may have expired or been removed from the
        configuration, and ``server.inspector`` may have changed.
        """
        if self._recent is not recent or self.state.config.server.inspector != mode:
            return False
        try:
            return self.state.access.key(self.request.headers) == self.key
        except ApiError:
            return False

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._wake.set()

    verbs = {"GET": follow}
