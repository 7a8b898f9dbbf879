"""The events of the items that rproxy makes itself, by type.

Their order is that of OpenAI's recorded streams.  The AI SDK rejects null inside ``mcp_list_tools``,
pydantic-ai needs the delta of ``mcp_call``'s arguments, and a search is announced without its action.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, NamedTuple, Sequence, Tuple

from ...types import AnyItem, Json
from .items import EventBuilder

Row = Tuple[str, Json]  # type of an event, and the keys of its own


class HostedForm(NamedTuple):
    """One type of item.

    ``event``: the beginning of its events' types.  ``kept``: keys of the item that it is announced with;
    ``early``: further keys, with their values at that time.  ``begun``: the events after that, before those
    of ``arguments``.  ``ended``: the event when it has succeeded, and when it has failed.
    """

    prefix: str  # of the item's id
    event: str
    kept: Sequence[str]
    early: Mapping[str, Any]
    begun: Sequence[str] = ()
    arguments: str = ""  # the beginning of the types of the arguments' events
    ended: Sequence[str] = ()

    def announced(self, item: AnyItem) -> Json:
        kept = {key: item[key] for key in ("id", "type", *self.kept) if key in item}
        return {**kept, **self.early}

    def opening(self, item: AnyItem) -> Iterator[Row]:
        """The events between ``output_item.added`` and the work."""
        for name in self.begun:
            yield f"{self.event}.{name}", {}
        if self.arguments:
            yield f"{self.arguments}.delta", {"delta": item["arguments"]}
            yield f"{self.arguments}.done", {"arguments": item["arguments"]}

    def closing(self, item: AnyItem) -> Iterator[Row]:
        """The events between the work and ``output_item.done``."""
        if self.ended:
            failed = item.get("status") == "failed" or item.get("error") is not None
            yield f"{self.event}.{self.ended[failed]}", {}


HOSTED_FORMS: Mapping[str, HostedForm] = {
    "web_search_call": HostedForm(
        prefix="ws",
        event="response.web_search_call",
        kept=(),
        early={"status": "in_progress"},
        begun=("in_progress", "searching"),
        ended=("completed", "completed"),  # OpenAI has no event for a failure
    ),
    "mcp_list_tools": HostedForm(
        prefix="mcpl",
        event="response.mcp_list_tools",
        kept=("server_label",),
        early={"tools": []},
        begun=("in_progress",),
        ended=("completed", "failed"),
    ),
    "mcp_call": HostedForm(
        prefix="mcp",
        event="response.mcp_call",
        kept=("server_label", "name", "approval_request_id"),
        early={"status": "in_progress", "arguments": "", "output": None, "error": None},
        begun=("in_progress",),
        arguments="response.mcp_call_arguments",
        ended=("completed", "failed"),
    ),
    "mcp_approval_request": HostedForm(
        prefix="mcpr",
        event="response.mcp_approval_request",
        kept=("server_label", "name", "arguments"),
        early={},
    ),
}


class HostedItem:
    """An item that rproxy makes itself, in the queue of the converter.

    :param item: the keys that are known, without id and status
    """

    may_close = False

    def __init__(self, builder: EventBuilder, item: Json) -> None:
        self._builder = builder
        self._form = HOSTED_FORMS[item["type"]]
        self._item: Json = {"id": builder.ids(self._form.prefix), **item}
        self._at: Json = {}  # the keys that all its events repeat

    @property
    def id(self) -> str:
        return str(self._item["id"])

    def start(self) -> None:
        """The previous item has closed: announce this one and the beginning of its work."""
        self._at = self._builder.add(self._form.announced(self._item))
        for type_, more in self._form.opening(self._item):
            self._builder.emit(type_, self._at, **more)

    def finish(self, known: Json) -> None:
        """:param known: the keys of the finished item that were not known before"""
        self._item = {**self._item, **known}
        for type_, more in self._form.closing(self._item):
            self._builder.emit(type_, self._at, **more)
        self._builder.finish(self._at, self._item)

    def close(self, cut: bool = False) -> None:
        """Nothing to do: an unfinished item stays open."""

    def partial(self) -> Json:
        """The unfinished item."""
        return {**self._item, "status": "incomplete"}
