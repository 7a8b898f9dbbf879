"""The history of a request: the items of earlier responses.

A response is kept as a :class:`~rproxy.types.ResponseRecord`.  Its history is the chain of ``previous``, or
what came before it in its conversation.  A WebSocket connection keeps its own last responses in
``client.local`` with their whole history (``items``), whether or not they are stored, as long as the
connection lasts.  All others share the memory of recent links (:mod:`.links`).

Item references need no index: our items carry the hex digits of their response's id (see
:mod:`rproxy.convert.ids`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Collection, Dict, Iterable, List, Mapping, Optional, Set, Tuple, cast

from ..convert.ids import RESPONSE, item_stem, output_stem
from ..convert.status import RUNNING
from ..cooperative import Slices, in_thread_if
from ..errors import ApiError, invalid, not_found, previous_response_not_found
from ..store.write_behind import WriteBehindStore
from ..types import AnyItem, AnyRecord, HostedResult, Item, LocalRecord, Record, Response, ResponseRecord
from .background import Background
from .client import Client
from .conversations import Conversations
from .create_request import ConversationContext, CreateRequest
from .links import Link, RecentLinks, link_of
from .pagination import Stretch, named
from .records import has_many_items, owned_response, store_errors

NO_ITEM_HINT = (
    "No stored response has it; it may have expired or been deleted. "
    "Send the item itself instead of a reference."
)
LONG_HISTORY = 500  # items; they are converted in 5 ms
MAX_CHAIN = 10_000  # responses; a longer chain is a loop
KEPT_BY_WARM_UP = ("instructions", "tools")  # fields that the turns after a warm-up inherit


class _NotClaimed(Exception):
    """An approval was not claimed.

    ``unknown``: the owner has no such response.
    """

    def __init__(self, unknown: bool) -> None:
        super().__init__()
        self.unknown = unknown


class History:
    """Finds the history of a request, and stores its response.

    :param background: knows which responses are still running
    """

    def __init__(self, store: WriteBehindStore, conversations: Conversations, background: Background) -> None:
        self._store = store
        self._conversations = conversations
        self._background = background
        self._recent = RecentLinks()

    async def context(
        self, body: Mapping[str, Any], conversation: Optional[str], client: Client
    ) -> ConversationContext:
        """The history that a create request continues.

        :param conversation: the id of the conversation it belongs to
        :raises ApiError: 400 previous_response_not_found, 404, 503
        """
        if conversation is not None:
            return ConversationContext(
                [*await self._conversations.past(conversation, client.owner)], size=None
            )
        previous = body.get("previous_response_id")
        if previous is None:
            return ConversationContext()
        record = (client.local or {}).get(previous)
        if record is not None:
            return ConversationContext(record["items"], record["inherited"], size=None)
        return await self._chain(previous, client.owner)

    async def _chain(self, response_id: str, owner: str) -> ConversationContext:
        links = await self._links(response_id, owner)
        if links[-1].status in RUNNING and await self._alive(response_id):
            raise invalid(
                f"Previous response with id '{response_id[:100]}' has not ended yet: "
                "wait until its status is completed.",
                "previous_response_id",
                "response_not_completed",
            )
        history: List[AnyItem] = [*await self._before(links[0])]
        size = None if history else sum(link.size for link in links)
        for link in links:
            history += link.input
            history += link.output
        return ConversationContext(history, size=size)

    async def _links(self, response_id: str, owner: str) -> List[Link]:
        """A response and those that it continues, oldest first.

        :raises ApiError: 400 when one is missing
        """
        links: List[Link] = []
        remembered: List[str] = []
        name: Optional[str] = response_id
        slices = Slices()
        while name is not None:
            await slices.pause()
            link = self._recent.get(name, owner)
            if link is not None:
                remembered.append(name)
            else:
                record = await self.stored(name, owner)
                link = None if record is None else await link_of(record)
            if link is None or len(links) >= MAX_CHAIN:
                raise previous_response_not_found(response_id)
            links.append(link)
            name = link.previous
        if remembered and not await self._has(remembered):
            self._recent.forget(owner, remembered)
            raise previous_response_not_found(response_id)
        links.reverse()
        self._recent.remember(owner, links)
        return links

    async def _before(self, link: Link) -> List[Item]:
        """The items of the conversation before the input of this response; none if the conversation was
        deleted.
        """
        if not link.conversation:
            return []
        items = await self._conversations.past_or_nothing(link.conversation, link.owner)

        def earlier() -> List[Item]:
            own = {item.get("id") for item in [*link.input, *link.output]}
            first = next((place for place, item in enumerate(items) if item["id"] in own), 0)
            return items[:first]

        return await in_thread_if(len(items) + len(link.input) > LONG_HISTORY, earlier)

    async def seen(self, response_id: str, owner: str) -> List[Stretch]:
        """The input of a response with everything before it, the oldest first; nothing at all if there is no
        such response.
        """
        try:
            links = await self._links(response_id, owner)
        except ApiError:
            record = await self.stored(response_id, owner)  # its own input is not gone
            if record is None:
                return []
            links = [await link_of(record)]
        before = Stretch(await self._before(links[0]))
        return [before, *(stretch for link in links for stretch in link.stretches())][:-1]

    async def stored(self, response_id: str, owner: str) -> Optional[ResponseRecord]:
        """The record of a stored response, without most of the fields that repeat its request; None if there
        is none, or it is another owner's.

        :raises ApiError: 503 when the store fails; with a 404 the client would give the response up
        """
        with store_errors():
            record = await self._store.get_brief(response_id)
        return await in_thread_if(has_many_items(record), partial(owned_response, record, owner))

    async def _has(self, ids: List[str]) -> bool:
        with store_errors():
            return await self._store.has(ids)

    async def _alive(self, response_id: str) -> bool:
        with store_errors():
            return await self._background.alive(response_id)

    async def resolved(self, items: List[AnyItem], past: ConversationContext, owner: str) -> List[AnyItem]:
        """The items, with every ``item_reference`` replaced by the item that it names.

        :raises ApiError: 404 for an unknown one, 503
        """
        long = len(items) + len(past.items) > LONG_HISTORY
        wanted, found = await in_thread_if(long, partial(_referred, items, past.items))
        if not wanted:
            return items
        unread = await _by_stem(wanted - found.keys())
        resolved: List[AnyItem] = []
        slices = Slices()
        for number, item in enumerate(items):
            if number % LONG_HISTORY == LONG_HISTORY - 1:
                await slices.pause()
            if is_reference(item):
                name = str(item.get("id"))
                if name not in found:
                    await slices.pause()  # a client may name any number of responses
                    found.update(await self._referenced(unread.pop(item_stem(name) or "", set()), owner))
                if name not in found:
                    raise not_found("Item with id", name, "input", NO_ITEM_HINT)
                item = found[name]
            resolved.append(item)
        return resolved

    async def _referenced(self, wanted: Set[str], owner: str) -> Dict[str, AnyItem]:
        """The items with these ids, by id, as far as they exist.

        :param wanted: ids of the items of one response, which is read once for all of them
        """
        stem = item_stem(next(iter(wanted), ""))
        record = await self.stored(RESPONSE + stem, owner) if stem else None
        if record is None:
            return {}
        found = await named([Stretch(record["input"], stem), Stretch(record["response"]["output"])], wanted)
        return {**found}

    async def hosted_results(self, item_ids: Collection[str], owner: str) -> Dict[str, HostedResult]:
        """The results of these hosted calls in stored responses, by item id.

        :raises ApiError: 503
        """
        found: Dict[str, HostedResult] = {}
        slices = Slices()
        for stem, wanted in (await _by_stem(item_ids)).items():
            await slices.pause()  # a client may name any number of responses
            record = await self.stored(RESPONSE + stem, owner) if stem else None
            known = record.get("hosted") if record is not None else None
            if isinstance(known, dict):
                found.update((name, known[name]) for name in wanted if _is_result(known.get(name)))
        return found

    async def claim_approval(self, owner: str, item_id: str) -> bool:
        """Record in the stored response that asked for an approval that its call is being run.

        :param item_id: of the ``mcp_approval_request``
        :returns: False if this was recorded before, perhaps by another process
        :raises ApiError: 503
        """
        stem = output_stem(item_id)
        if stem is None:
            return True

        def note(record: AnyRecord) -> Record:
            response = owned_response(record, owner)
            claimed = [] if response is None else response.get("approved", [])
            if response is None or item_id in claimed:
                raise _NotClaimed(response is None)
            return {**response, "approved": [*claimed, item_id]}

        try:
            with store_errors():
                await self._store.update(RESPONSE + stem, note)
        except _NotClaimed as refused:
            return refused.unknown
        return True

    # ---- Storing
    async def keep(
        self,
        request: CreateRequest,
        client: Client,
        response: Response,
        last: int,
        hosted: Mapping[str, HostedResult] = {},
        small: bool = False,
    ) -> List[str]:
        """Keep a response that has ended, as far as the client wants it.

        :param last: the number of its last event
        :param hosted: the results of its hosted calls, by item id
        :param small: the request and its response are known to be small
        :returns: warnings instead of errors, because the answer is worth more than its record
        """
        if client.local is not None:
            client.local[response["id"]] = _local_record(request, response)
        if response["status"] == "failed":
            return []
        warnings: List[str] = []
        if request.body.get("store", True):
            record = _record(request, client, response, last, hosted)
            warning = await self._store.keep(response["id"], record, small)
            warnings += [f"response {warning}"] if warning else []
            if record["previous"] is not None and not warning:  # most other responses are not continued
                self._recent.remember(client.owner, [await link_of(record)])
        if request.conversation is not None:
            new = cast(List[Item], request.stored_items)  # complete, as those of a conversation are
            warning = await self._conversations.append(
                request.conversation, new + response["output"], client.owner
            )
            warnings += [warning] if warning else []
        return warnings

    async def keep_unfinished(
        self,
        request: CreateRequest,
        client: Client,
        response: Response,
        last: int,
        hosted: Mapping[str, HostedResult],
    ) -> None:
        """Store an unfinished response, if the client wants its responses stored.

        :param last: the number of the last event that was sent
        :param hosted: see :meth:`keep`
        """
        if request.body.get("store", True):
            record = _record(request, client, response, last, hosted)
            await self._store.keep(response["id"], record)


def _is_result(value: Any) -> bool:
    """Is this a HostedResult?  A record may be damaged."""
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("name", "arguments", "text"))
        and isinstance(value.get("sources"), list)
        and all(isinstance(one, list) and len(one) == 2 for one in value["sources"])
    )


def _record(
    request: CreateRequest, client: Client, response: Response, last: int, hosted: Mapping[str, HostedResult]
) -> ResponseRecord:
    record: ResponseRecord = {**request.record(client.owner, response), "last": last}
    if hosted:
        record["hosted"] = {**hosted}
    return record


def _local_record(request: CreateRequest, response: Response) -> LocalRecord:
    """A response for continuations on its own connection."""
    body, context = request.body, request.context
    kept = {key: body[key] for key in KEPT_BY_WARM_UP if key in body} if body.get("generate") is False else {}
    return {
        "items": [*context.items, *request.items, *response["output"]],
        "inherited": {**context.inherited, **kept},
    }


def _referred(items: List[AnyItem], past: List[AnyItem]) -> Tuple[Set[str], Dict[str, AnyItem]]:
    """The ids that references name, and which of these items are in the history."""
    untyped = (None, "item_reference")
    wanted = {str(item.get("id")) for item in items if item.get("type") in untyped and is_reference(item)}
    return wanted, _chosen(past, wanted) if wanted else {}


def _chosen(items: Iterable[AnyItem], wanted: Set[str]) -> Dict[str, AnyItem]:
    """The first item with each of these ids, by id."""
    chosen: Dict[str, AnyItem] = {}
    for item in items:
        name = item.get("id")
        if type(name) is str and name in wanted:
            chosen.setdefault(name, item)
    return chosen


async def _by_stem(wanted: Collection[str]) -> Dict[str, Set[str]]:
    def sorted_out() -> Dict[str, Set[str]]:
        found: Dict[str, Set[str]] = {}
        for name in wanted:
            found.setdefault(item_stem(name) or "", set()).add(name)
        return found

    return await in_thread_if(len(wanted) > LONG_HISTORY, sorted_out)


def is_reference(item: AnyItem) -> bool:
    """An ``item_reference``; the SDKs may leave its type out."""
    return (
        item.get("type") == "item_reference"
        or "type" not in item
        and "role" not in item
        and isinstance(item.get("id"), str)
    )
