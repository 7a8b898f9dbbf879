"""The plan of one turn, for its :class:`~rproxy.service.turn.Turn`.

The turn handles attempts, retries and events; the plan knows the providers, converts the conversation for
each of them, makes the converter of the answer, and stores the result in the end.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import Callable, Iterator, List, Mapping, Optional, Sequence, Tuple, TypeVar

from ..config.schema import Config, Provider
from ..convert.events.compaction import CompactionConverter, is_trigger, prompt_item
from ..convert.events.converter import StreamConverter
from ..convert.events.items import Watch
from ..convert.json_steps import is_large, json_blocks
from ..convert.request.chat import Conversion, to_chat_request
from ..convert.request.turns import call_keys
from ..convert.sealed import AT_ONCE, Room, TooMuchSealed
from ..cooperative import free_later, in_thread, in_thread_if
from ..errors import ApiError
from ..providers.forms import has_form
from ..telemetry.telemetry import Telemetry
from ..types import AnyItem, CachedReasoning, HostedResult, Json, Response, light_dataclass
from ..upstream.client import ChatClient
from ..upstream.failover import Failover
from ..upstream.learned_overrides import LearnedOverrides
from .answer_form import reasoning_form, wants_schema
from .client import Client
from .create_request import CreateRequest
from .file_text import FileTexts
from .history import LONG_HISTORY, History
from .reasoning_cache import ReasoningCache, Scope
from .recent_messages import RecentMessages
from .sealer import Sealers

T = TypeVar("T")

LARGE = 1 << 20  # characters, counting 16 for each entry, that are converted in a few milliseconds
LARGE_SCHEMA = 1 << 16  # the same for tools, which take longer
SMALL = 1 << 16  # bytes of JSON that are not worth measuring


@light_dataclass(frozen=True)
class TurnDeps:
    """The objects that all turns of a process share.

    ``now`` returns seconds since the epoch.
    """

    config: Config
    upstream: ChatClient
    failover: Failover
    overrides: LearnedOverrides
    reasoning: ReasoningCache
    file_texts: FileTexts
    history: History
    recent_messages: RecentMessages
    sealers: Sealers
    telemetry: Telemetry
    now: Callable[[], float]


def native_tools(provider: Provider) -> Sequence[str]:
    """The types of tools that a provider runs itself."""
    return provider.profile.native_tools if provider.wire == "responses" else ()


def is_short(request: CreateRequest, client: Client, items: Sequence[AnyItem]) -> bool:
    """Is a request converted, or searched, in a few milliseconds?  Schemas take longest.

    :param items: the history that is converted
    """
    short, before, body = len(items) <= LONG_HISTORY, request.context.size, request.body
    if client.size > SMALL or before is None or before > LARGE:
        short = (
            short
            and not is_large([*(body.get("tools") or ()), body.get("text")], LARGE_SCHEMA)
            and not is_large([item for item in items if "tools" in item], LARGE_SCHEMA)
            and not is_large([body.get("instructions"), *items], LARGE)
        )
    return short


async def for_history(items: Sequence[AnyItem], work: Callable[[], T]) -> T:
    """Call a function that examines each of these items, in a thread if there are many."""
    return await in_thread_if(len(items) > LONG_HISTORY, work)


async def converted(short: bool, convert: Callable[..., Conversion]) -> Tuple[Conversion, bool]:
    """Convert a request, in a thread if it is not short; then it is freed in steps, too.

    How much is sealed in a request shows only when it is opened: if it is too much to be opened at once, the
    conversion begins again in a thread.

    :param convert: gets the room for what is sealed
    :returns: also whether the request is short, after all
    """
    if short:
        with suppress(TooMuchSealed):
            return convert(room=Room(AT_ONCE)), True
    conversion = await in_thread(partial(convert, room=Room()))
    free_later([conversion.history], levels=1)
    return conversion, False


class TurnPlan:
    """The plan of one turn.

    :param first: the number of its first event

    ``providers`` can answer; ``model`` is the downstream model; ``first`` as above.  ``small``: is the last
    converted request known to be small?
    """

    def __init__(self, deps: TurnDeps, request: CreateRequest, client: Client, first: int = 0) -> None:
        self.providers = request.model.providers
        self.model = request.model.downstream_model
        self._deps = deps
        self._request = request
        self._client = client
        self.first = first
        self._ids = request.ids
        self._sealer = deps.sealers.of(client.owner)
        self._compacts = is_trigger(request.items)
        self._items = request.context.items + request.items + ([prompt_item()] if self._compacts else [])
        self._whole = self._items
        self.small = False
        self._note = ""  # the parts that a shortened compaction leaves out
        self._shares: Optional[Iterator[float]] = None  # shares of the history that are still to be tried

    async def reason(self, error: ApiError) -> str:
        """Why an attempt failed, for the log."""
        from ..telemetry.reason import reason_of  # loaded for failures only

        return await reason_of(error, {**self._request.body, "input": self._items})

    def conversation_key(self) -> str:
        """The same text for all turns of one conversation: the key that the client gives it, else its first
        message.
        """
        if len(self.providers) == 1:
            return ""  # there is no choice
        body = self._request.body
        given = body.get("prompt_cache_key") or body.get("conversation")
        key = given or next((item for item in self._items if item.get("role") == "user"), None)
        if is_large(key):
            return next(json_blocks(key)).decode()  # its beginning is enough
        return json.dumps(key, sort_keys=True)

    def shorten(self) -> bool:
        """Make the history of a compaction shorter, because it does not fit into the provider's window.

        Ordinary turns are never shortened: their clients decide what to leave out.

        :returns: False if there is nothing left to try
        """
        from ..convert.request.shorten import SHARES, shortened  # loaded for compactions only

        if self._shares is None:
            self._shares = iter(SHARES if self._compacts else ())
        share = next(self._shares, None)
        if share is None:
            return False
        self._items, self._note = shortened(self._whole, share)
        return True

    # ---- The request
    async def convert(self, provider: Provider) -> Conversion:
        """The request in the provider's terms.

        :raises ApiError: 400, the provider cannot be asked this
        """
        to_request: Callable[..., Conversion] = to_chat_request
        if provider.wire == "responses":
            from ..convert.request.responses import to_responses_request  # with its reader

            to_request = partial(to_responses_request, origin=provider.base_url)
        short = is_short(self._request, self._client, self._items)
        readable = await self._deps.file_texts.readable(self._items, provider.profile, short)
        self.small = readable is self._items and self._is_small()
        convert = partial(
            to_request,
            self._body(native_tools(provider)),
            readable,
            provider.profile,
            downstream_model=self.model,
            allow=self._allow(provider),
            recall=partial(self._deps.reasoning.recall, self._scope(provider)),
            resends=self._client.codex,
            sealer=self._sealer,
        )
        return (await converted(short, convert))[0]

    def _is_small(self) -> bool:
        """Is the request small, without additions such as earlier items or reasoning?"""
        context = self._request.context
        return (
            self._client.size <= SMALL
            and not (context.items or context.inherited)
            and all(item.get("type") == "message" for item in self._items)
        )

    def has_form(self, form: str, cure: Json) -> bool:
        """Does a cure change this request?

        :param form: see :mod:`rproxy.providers.forms`
        """
        return has_form(form, self._body(), self._items, cure)

    def _allow(self, provider: Provider) -> Optional[Sequence[str]]:
        """The allowed types of tools; None for the default."""
        return self._deps.config.server.tool_type_allowlist

    def _body(self, native: Sequence[str] = ()) -> Json:
        """The body, with the model's limit on the length of an answer unless the client's is lower.

        :param native: types of tools that the provider runs itself
        """
        body, limit = self._request.body, self._request.model.max_output_tokens
        if self._compacts:
            body = {**body, "tool_choice": "none"}
        if limit is not None:
            body = {**body, "max_output_tokens": min(body.get("max_output_tokens", limit), limit)}
        return body

    # ---- The answer
    def converter(
        self, conversion: Conversion, sequence: int, watch: Optional[Watch] = None
    ) -> StreamConverter:
        """The converter of the answer.

        :param sequence: the number of the first event, if that is higher than the plan's own
        :param watch: called with each item
        """
        return self._converter_kind()(
            self._request.response(),
            conversion.tools,
            ids=self._ids,
            now=self._seconds,
            reasoning=reasoning_form(
                self._deps.config.server.reasoning, self._request.body, codex=self._client.codex
            ),
            seal=self._seal(),
            reader=conversion.reader(),
            refusal_as_text=self._client.codex,
            strip_fences=conversion.strip_fences,
            phases=wants_schema(self._request.body),
            logprobs=conversion.logprobs,
            cached=self._deps.config.usage.cached_tokens,
            sequence=max(sequence, self.first),
            watch=watch,
        )

    def _converter_kind(self) -> Callable[..., StreamConverter]:
        return partial(CompactionConverter, note=self._note) if self._compacts else StreamConverter

    def _seconds(self) -> int:
        """The time, but never before the creation of the response, even if the clock was set back since."""
        return max(int(self._deps.now()), self._request.created_at)

    def _seal(self) -> Optional[Callable[[Json], str]]:
        """The function that makes ``encrypted_content``, if the client must send the reasoning or a summary
        back.
        """
        body = self._request.body
        if self._compacts:
            return partial(self._sealer.seal, "compaction")
        wanted = "reasoning.encrypted_content" in body.get("include", ()) or body.get("store") is False
        return partial(self._sealer.seal, "reasoning") if wanted else None

    # ---- The end
    async def keep(
        self, done: StreamConverter, conversion: Conversion, provider: Provider, small: bool
    ) -> List[str]:
        """Remember the response and its reasoning; called before the terminal event is sent.

        :param small: the request and its answer, as they were sent, are small
        :returns: warnings
        """
        self._remember_reasoning(done, self._answer(done), conversion, provider)
        response, last = done.response, done.sequence - 1
        hosted = self._hosted(response)
        small = small and self.small and not hosted
        return await self._deps.history.keep(self._request, self._client, response, last, hosted, small)

    def _remember_reasoning(
        self, done: StreamConverter, answer: Sequence[AnyItem], conversion: Conversion, provider: Provider
    ) -> None:
        reasoning: CachedReasoning = {
            "text": done.reasoning_text,
            "details": done.reader.reasoning_details,
            "extra_content": done.extra_content,
        }
        if any(reasoning.values()):
            keys = call_keys(self._items, answer, conversion.tools)
            self._deps.reasoning.remember(self._scope(provider), keys, reasoning)

    def _answer(self, done: StreamConverter) -> Sequence[AnyItem]:
        """The items that the last request to the provider produced."""
        return done.response["output"]

    def _hosted(self, response: Response) -> Mapping[str, HostedResult]:
        """The results of the hosted calls in a response."""
        return {}

    async def keep_unfinished(self, cut: StreamConverter) -> None:
        """Store the unfinished response, when the answer broke off or its client left."""
        if self._client.transport != "background":  # whose own task stores it
            response, last = cut.unfinished_response(), cut.sequence - 1
            hosted = self._hosted(response)
            await self._deps.history.keep_unfinished(self._request, self._client, response, last, hosted)

    def _scope(self, provider: Provider) -> Scope:
        return self._client.owner, self.model, provider.base_url
