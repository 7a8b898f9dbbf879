"""The plan of a turn with hosted tools, which may have several rounds.

The output of earlier rounds is history in the next one, in the same form in which a later turn
sends it back.
"""

from __future__ import annotations

from functools import partial
from typing import Callable, Mapping, Optional, Sequence

from ..config.schema import Provider
from ..convert.events.converter import StreamConverter
from ..convert.events.items import Watch
from ..convert.events.rounds import Earlier, RoundConverter
from ..convert.request.chat import Conversion
from ..convert.tools.table import ToolTable
from ..hosted.session import FREE, LAST, NO_TOOLS, HostedSession
from ..types import AnyItem, HostedResult, Json, Response
from .client import Client
from .create_request import CreateRequest
from .plan import TurnDeps, TurnPlan, for_history, native_tools


class HostedPlan(TurnPlan):
    """The plan of a turn with hosted tools.

    :param session: the hosted tools of the request

    ``stage``: what the model may do in the round; see :meth:`HostedSession.body`.  ``earlier``: the rounds so
    far.
    """

    def __init__(
        self, deps: TurnDeps, request: CreateRequest, client: Client, first: int, session: HostedSession
    ) -> None:
        super().__init__(deps, request, client, first)
        self.session = session
        # A call that the client has forbidden is not run, even if the model makes it.
        self.stage = LAST if request.body.get("tool_choice") == "none" else FREE
        self.earlier = Earlier()

    @property
    def max_tool_calls(self) -> Optional[int]:
        """How many calls of hosted tools the client allows."""
        limit = self._request.body.get("max_tool_calls")
        return None if limit is None else int(limit)

    @property
    def compacts(self) -> bool:
        """Is the conversation only to be compacted?  Then nothing is run."""
        return self._compacts

    async def write(self, more: Sequence[AnyItem] = ()) -> None:
        """Write the history with calls of functions in place of the items of hosted tools.

        :param more: items that are added to it
        """
        items = [*self._items, *more]
        self._items = self._whole = await for_history(items, partial(self.session.history, items))

    # ---- The request
    def _allow(self, provider: Provider) -> Sequence[str]:
        return self.session.allow(super()._allow(provider), native_tools(provider))

    def _body(self, native: Sequence[str] = ()) -> Json:
        body = self.session.body(super()._body(native), native, self.stage, not self.earlier.number)
        limit = self.tokens_left()
        if limit is not None:
            body["max_output_tokens"] = min(body["max_output_tokens"], limit)
        return body

    def _is_small(self) -> bool:
        return False  # it grows with each round, and has tools of other servers

    def tokens_left(self) -> Optional[int]:
        """How many tokens the client still allows the model to write; None: it sets no limit."""
        limit = self._request.body.get("max_output_tokens")
        spent = self.earlier.counted["output_tokens"] if self.earlier.counted is not None else 0
        return None if limit is None else int(limit) - spent

    # ---- The answers
    def _converter_kind(self) -> Callable[..., StreamConverter]:
        if self._compacts:
            return super()._converter_kind()
        cite = self.session.citations().of
        return partial(
            RoundConverter,
            earlier=self.earlier,
            cite=cite,
            no_tools=self.stage == NO_TOOLS,
            last_usage=self._client.codex,
        )

    def before(self, watch: Optional[Watch]) -> RoundConverter:
        """The converter of what is shown before the provider is asked.

        :param watch: called with each item
        """
        return RoundConverter(
            self._request.response(),
            ToolTable(),
            ids=self._ids,
            now=self._seconds,
            sequence=self.first,
            watch=watch,
        )

    async def shown_before(self, converter: RoundConverter) -> None:
        """Begin the first round with what was shown before it."""
        await self.write(converter.round_items)
        self.earlier = converter.to_next()._replace(number=0)

    async def next_round(self, done: RoundConverter, conversion: Conversion, provider: Provider) -> None:
        """Go on after a round whose calls have run."""
        self._remember_reasoning(done, self._answer(done), conversion, provider)
        await self.write(done.round_items)
        self.earlier = done.to_next()
        self._ids = self._request.ids.in_round(self.earlier.number)

    def _answer(self, done: StreamConverter) -> Sequence[AnyItem]:
        items = done.round_items if isinstance(done, RoundConverter) else done.response["output"]
        return self.session.history(items)

    def _hosted(self, response: Response) -> Mapping[str, HostedResult]:
        return self.session.results(item["id"] for item in response["output"])
