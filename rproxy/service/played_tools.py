"""The hosted tools of a recorded turn: their calls have the recorded outcomes.

The turn goes from round to round as usual (:mod:`.hosted_turn`), but no tool is run.
"""

from __future__ import annotations

import asyncio
from typing import Any, Iterator, List, Optional, Sequence

from ..convert.tools.tool_lists import ToolLists
from ..hosted.kind import (
    HostedCall,
    HostedFunction,
    HostedKind,
    HostedRequest,
    KindSession,
    Outcome,
    function_call,
)
from ..hosted.session import HostedSession
from ..telemetry.recording_file import RecordedCall
from ..types import AnyItem, HostedResult, Json
from ..upstream.client import CancelToken
from .client import Client
from .create_request import CreateRequest
from .hosted import HostedTools


class PlayedTools(HostedTools):
    """Hosted tools whose outcomes are recorded.

    :param hosted: see ``hosted`` in :mod:`rproxy.telemetry.recording`
    :param interrupt: cancelled at the call that the recorded client interrupted
    """

    def __init__(self, hosted: Json, calls: Sequence[RecordedCall], interrupt: Optional[CancelToken]) -> None:
        self._hosted, self._calls, self._interrupt = hosted, calls, interrupt

    def configure(self, *_: object) -> None:
        """Nothing to do."""

    async def session(self, request: CreateRequest, client: Client) -> Optional[HostedSession]:
        kind = _PlayedKind(self._hosted, self._calls, self._interrupt)
        before: HostedResult = {"name": "", "arguments": "", "text": "", "sources": self._hosted["sources"]}
        items = request.context.items + request.items
        hosted = HostedRequest(request.body, items, "", {"": before}, permitted={*kind.types})
        return HostedSession([kind], hosted, ToolLists())

    def remember(self, owner: str, item_id: str, result: HostedResult) -> None:
        """Nothing to do: it is not needed again."""


class _PlayedKind(HostedKind):
    """All kinds of the turn together."""

    def __init__(self, hosted: Json, calls: Sequence[RecordedCall], interrupt: Optional[CancelToken]) -> None:
        self.types, self.items = tuple(hosted["types"]), tuple(hosted["items"])
        self._functions, self._calls, self._interrupt = hosted["functions"], calls, interrupt

    def session(self, request: HostedRequest) -> KindSession:
        calls = [_PlayedCall(call, self._interrupt) for call in self._calls]
        return _PlayedSession(self.items, self._functions, calls)


class _PlayedSession(KindSession):
    def __init__(
        self, items: Sequence[str], functions: Sequence[Sequence[Any]], calls: Sequence[_PlayedCall]
    ) -> None:
        self._items, self._calls = items, calls
        self._next: Iterator[_PlayedCall] = (call for call in calls if call.round)
        self._functions = [
            HostedFunction(name, description, parameters, self._call)
            for name, description, parameters in functions
        ]

    def before(self) -> Sequence[HostedCall]:
        return [call for call in self._calls if not call.round]

    def functions(self) -> Sequence[HostedFunction]:
        return self._functions

    def chosen(self, choice: Json, forced: bool) -> Sequence[str]:
        return [function.name for function in self._functions]

    def history(self, items: Sequence[AnyItem]) -> List[AnyItem]:
        """The items; the texts of the calls do not matter here."""
        written: List[AnyItem] = []
        for number, item in enumerate(items):
            own = item.get("type") in self._items
            written += function_call(item, "hosted", "{}", "", number) if own else [item]
        return written

    def _call(self, arguments: str) -> HostedCall:
        return next(self._next, _LostCall())


class _LostCall(HostedCall):
    """A call that the recorded model did not make."""

    item: Json = {"type": "web_search_call"}

    async def run(self) -> Outcome:
        return self.stopped("")


class _PlayedCall(HostedCall):
    def __init__(self, call: RecordedCall, interrupt: Optional[CancelToken]) -> None:
        self.item, self.function, self.held, self.pauses = call.item, call.function, call.held, call.pauses
        self.round = call.round
        self._recorded, self._interrupt = call, interrupt

    def stopped(self, reason: str) -> Outcome:
        outcome = self._recorded.outcome
        if outcome is None:
            return super().stopped(reason)
        return Outcome(outcome["item"], "", outcome["sources"], self._recorded.error)

    async def run(self) -> Outcome:
        if self._recorded.outcome is not None:
            return self.stopped("")
        if self._interrupt is None:
            raise asyncio.CancelledError  # the recorded client left
        self._interrupt.cancel()
        return self.stopped("")
