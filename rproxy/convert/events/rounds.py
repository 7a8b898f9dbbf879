"""One of several answers that make one response: the rounds of hosted tools.

The model calls a tool that rproxy runs itself, gets the result in another request, and continues.  Each round
has a converter of its own, which continues the numbers of events and items; a failed attempt at a round shows
nothing of it, so a round can be tried again like any answer.

A call of a hosted function waits in the queue and holds back what follows it until the caller has run it:
:meth:`RoundConverter.hosted_calls`, then for each call :meth:`~RoundConverter.open` and
:meth:`~RoundConverter.close`.  The caller provides the item that it becomes, without its id.
"""

from __future__ import annotations

from typing import Any, Callable, List, NamedTuple, Optional, Sequence

from ...types import Event, Item, Json, Response, Usage
from ..ids import hosted_call_id
from ..tools.kinds import HOSTED
from ..tools.table import ToolTable
from .converter import FINAL_ANSWER, StreamConverter
from .hosted_items import HostedItem
from .items import CallItem, TextItem
from .response import added, usage_object
from .terminal import COMPLETED, OUT_OF_TOKENS, TERMINAL_STATUSES


class Earlier(NamedTuple):
    """The earlier rounds of a response together.

    ``number``: how many there were.  ``counted``: their tokens in all; ``shown``: the same as the client sees
    them (see ``cached`` in :func:`~rproxy.convert.events.response.usage_object`).
    """

    number: int = 0
    items: Sequence[Item] = ()
    counted: Optional[Usage] = None
    shown: Optional[Usage] = None


class RoundCall(CallItem):
    """A call; one of a hosted function is not announced, and never closes by itself."""

    item_id: Optional[str] = None  # of the item that a hosted call became
    unoffered = False  # the model was offered no tools

    @property
    def hosted(self) -> bool:
        return self.unoffered or bool(self.name) and self._tools.offer(self.name).kind is HOSTED

    @property
    def function(self) -> str:
        """The name of the tool that it calls."""
        return self._tools.offer(self.name).name

    @property
    def arguments(self) -> str:
        return "".join(self._waiting)

    @property
    def call_id(self) -> Optional[str]:
        return super().call_id if self.item_id is None else hosted_call_id(self.item_id, 0)

    def _announce_if_known(self) -> None:
        if not self.hosted:
            super()._announce_if_known()

    def close(self, cut: bool = False) -> None:
        if not self.hosted:
            super().close(cut)


class RoundConverter(StreamConverter):
    """The converter of one round.  The further options are those of :class:`StreamConverter`.

    :param earlier: the rounds before
    :param cite: finds the annotations of a text
    :param no_tools: the model was offered no tools, so any call is treated like that of a hosted function
    :param last_usage: the response has the tokens of its last round, not the sum: Codex takes them for the
        length of the conversation
    """

    def __init__(
        self,
        response: Response,
        tools: ToolTable,
        *,
        earlier: Earlier = Earlier(),
        cite: Optional[Callable[[str], List[Json]]] = None,
        no_tools: bool = False,
        last_usage: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(response, tools, **options)
        self._builder.go_on(earlier.items)
        self._cite = cite
        self._earlier = earlier
        self._no_tools = no_tools
        self._last_usage = last_usage

    def _new_call(self) -> RoundCall:
        call = RoundCall(self._builder, self._tools)
        call.unoffered = self._no_tools
        return call

    # ---- The calls of the round, when the provider has stopped
    @property
    def cut(self) -> bool:
        """Did the answer end before it was complete?  Then its calls are not run."""
        return TERMINAL_STATUSES[self.reader.finish] is not COMPLETED

    def hosted_calls(self) -> List[RoundCall]:
        """The waiting calls of hosted functions."""
        return [item for item in self._queue if isinstance(item, RoundCall) and item.hosted]

    @property
    def calls_client(self) -> bool:
        """Has the model called a function that the client runs?"""
        return any(isinstance(call, RoundCall) and not call.hosted for call in self._calls.values())

    @property
    def has_text(self) -> bool:
        """Is there any text in this round?"""
        messages = [item for item in self.round_items if item["type"] == "message"]
        said = [part.get("text") or part.get("refusal") for item in messages for part in item["content"]]
        said += [
            item.received
            for item in self._queue
            if isinstance(item, TextItem) and item.kind is not self._reasoning
        ]
        return any(text and text.strip() for text in said)

    @property
    def round_items(self) -> List[Item]:
        """The finished items of this round."""
        return self._builder.done[self._builder.first :]

    @property
    def open_id(self) -> str:
        """The id of the item that is open."""
        hosted = self._queue[0]
        assert isinstance(hosted, HostedItem)
        return hosted.id

    def leave_out(self, call: RoundCall) -> None:
        """Leave out a call that is not run."""
        was_live = self._queue[0] is call
        self._queue.remove(call)
        if was_live and self._queue:
            self._queue[0].start()
            self._close_first()

    def open(self, item: Json, call: Optional[RoundCall] = None) -> List[Event]:
        """Close the items before a call, and announce the item that it becomes.

        :param item: without id and status
        :param call: the model's; None: rproxy does this by itself
        """
        if call is not None:
            while self._queue[0] is not call:
                self._close_one()
            self._queue.popleft()
        hosted = HostedItem(self._builder, item)
        if call is not None:
            call.item_id = hosted.id
        self._queue.appendleft(hosted)
        hosted.start()
        return self._builder.take()

    def close(self, known: Json) -> List[Event]:
        """Finish the item that is open.

        :param known: the keys of the finished item that were not known before
        """
        hosted = self._queue.popleft()
        assert isinstance(hosted, HostedItem)
        hosted.finish(known)
        if self._queue:
            self._queue[0].start()
            self._close_first()
        return self._builder.take()

    def close_rest(self) -> List[Event]:
        """Close the items after the last hosted call."""
        while self._queue:
            self._close_one()
        return self._builder.take()

    def _close_one(self) -> None:
        if self._phases:
            self._set_phase(FINAL_ANSWER)
        item = self._queue.popleft()
        item.start()
        item.close()

    # ---- The end
    def finish_out_of_tokens(self) -> List[Event]:
        """``response.incomplete``: the client allows no further token."""
        return self._end(OUT_OF_TOKENS)

    def to_next(self) -> Earlier:
        """The rounds so far, this one included."""
        number = self._earlier.number + bool(self.round_items)
        return Earlier(number, tuple(self._builder.done), self.counted, self._shown_usage())

    @property
    def counted(self) -> Optional[Usage]:
        raw = self.reader.usage
        return added(self._earlier.counted, None if raw is None else usage_object(raw))

    def _shown_usage(self) -> Optional[Usage]:
        return added(self._earlier.shown, super()._usage())

    def _usage(self) -> Optional[Usage]:
        return super()._usage() if self._last_usage else self._shown_usage()
