"""The service: what the edges call, and the only place where a request meets configuration, store and
provider.

:meth:`Service.create` is one turn: check the request, find the model's route, put the history together, run
the :class:`~rproxy.service.turn.Turn`, keep the response, write one log line.  Everything it needs from
outside comes in as an argument.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Set

from .. import __version__
from ..config.schema import Config, Model, Provider
from ..convert.events.compaction import CompactionConverter, is_trigger, prompt_item
from ..convert.events.converter import StreamConverter
from ..convert.events.response import response_object
from ..convert.ids import Ids
from ..convert.request.chat import Conversion, input_items, to_chat_request
from ..convert.request.content import parts_of
from ..convert.request.pairing import without_repeats
from ..convert.request.responses import to_responses_request
from ..convert.request.turns import call_keys, check_orphans
from ..convert.request.validate import check_request, without_nulls
from ..convert.sealed import seal
from ..errors import ApiError, invalid, model_not_found
from ..log import log_turn
from ..store import Store
from ..store.write_behind import WriteBehindStore
from ..types import Json
from ..upstream.client import Upstream
from ..upstream.failover import Failover
from ..upstream.learned_overrides import LearnedOverrides
from .background import Background, Running
from .catalog import etag, models_body
from .client import Client, EventSink, TurnResult
from .conversations import Conversations, check_metadata, conversation_id
from .file_text import FileTexts
from .history import ConversationContext, History, new_record
from .pagination import listed
from .passthrough import Passthrough
from .reasoning_cache import ReasoningCache, Scope
from .retrieval import ResponseRetrieval
from .token_estimate import estimate
from .turn import Turn, TurnDeps, TurnPlan, TurnStats

log = logging.getLogger("rproxy.turn")

LONG_HISTORY = 500  # items that are converted in 5 ms


class CreateRequest(NamedTuple):
    """A create request, ready for its turn.

    ``new``: its own input items; ``conversation``: the id of the one it belongs to.
    """

    request: Json
    model: Model
    past: ConversationContext
    new: List[Json]
    ids: Ids
    conversation: Optional[str]

    @property
    def warms_up(self) -> bool:
        """Shall nobody be asked?"""
        return self.request.get("generate") is False or bool(
            (self.request.get("prompt_cache_options") or {}).get("prewarm")
        )


class Service:
    """:arg stem: makes the 32 hex digits of a response's id. :arg now: seconds since the epoch"""

    def __init__(
        self,
        config: Config,
        upstream: Upstream,
        store: Store,
        *,
        stem: Callable[[], str] = lambda: secrets.token_hex(16),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._deps = TurnDeps(upstream, config.server, Failover(time.monotonic), LearnedOverrides())
        self.passthrough = Passthrough(config, self._deps)
        self._store = WriteBehindStore(store)
        self._history = History(self._store)
        self._background = Background(self._store, now)
        self.retrieval = ResponseRetrieval(self._store, self._history, self._background)
        self.conversations = Conversations(self._store, stem, now)
        self._models = models_body(config)
        self.models_etag = etag(self._models)
        self._stem = stem
        self._now = now
        self._reasoning_cache = ReasoningCache()
        self._file_texts = FileTexts()
        self._connecting: Set[asyncio.Task[None]] = set()

    # ---- the small endpoints
    def models(self) -> Json:
        """The body of GET /models: the OpenAI list, and Codex' catalog beside it."""
        return self._models

    @property
    def catalog_headers(self) -> Dict[str, str]:
        """What tells Codex to fetch its catalog anew: it compares this with the ``ETag`` of GET /models."""
        return {"x-models-etag": self.models_etag}

    def health(self) -> Json:
        return {"status": "ok", "version": __version__}

    # ---- a turn
    async def create(self, request: Json, client: Client, out: Optional[EventSink]) -> TurnResult:
        """Run one turn.

        :arg request: the body of a create request
        :arg out: gets the events; None: only the result counts
        :returns: the final Response object, and headers for an answer that is JSON
        :raises ApiError: when the turn failed before ``out.begin`` was called, or, without ``out``, whenever
            it failed
        """
        try:
            asked = await self._asked(request, client)
            return await (
                self._warm_up(asked, client, out) if asked.warms_up else self._turn(asked, client, out)
            )
        except ApiError:
            if client.local is not None:
                client.local.pop(
                    str(request.get("previous_response_id")), None
                )  # a chain that failed cannot be continued
            raise

    async def background(self, request: Json, client: Client) -> Running:
        """Begin a turn that goes on without its client. :raises ApiError: what is wrong with the request"""
        if request.get("store") is False:
            raise invalid("background: true needs store: true, for the answer is fetched later.", "store")
        asked = await self._asked(request, client)
        away = replace(client, transport="background", local=None, interrupt=None)
        response = self._response(asked, self._seconds())
        record = new_record(client.owner, asked.request, asked.new, asked.conversation, response)

        async def run(running: Running) -> Json:
            return (await self._turn(asked, away, running, first=1)).response

        return await self._background.start(response, record, run)

    async def input_tokens(self, request: Json, client: Client) -> Json:
        """POST /responses/input_tokens: an estimate of what the provider would count; see
        :mod:`rproxy.service.token_estimate`."""
        asked = await self._asked({"model": self.config.models[0].model, **without_nulls(request)}, client)
        provider = asked.model.providers[0]
        conversion = to_chat_request(
            asked.request,
            await self._file_texts.readable(asked.past.items + asked.new, provider.profile),
            provider.profile,
            downstream_model=asked.model.downstream_model,
            allow=self.config.server.tool_type_allowlist,
        )
        return {"object": "response.input_tokens", "input_tokens": estimate(conversion.body)}

    async def close(self) -> None:
        """Let the store have what it has not got yet."""
        await self._background.close()
        await self._store.close()

    async def _asked(self, request: Json, client: Client) -> CreateRequest:
        """The request with its model and its history. :raises ApiError: 400, 404"""
        request = without_nulls(request)
        check_request(request)
        check_metadata(request)
        model, ids, conversation = self.route(request["model"]), Ids(self._stem()), conversation_id(request)
        if conversation is not None:
            past = ConversationContext(await self.conversations.past(conversation, client.owner))
        else:
            past = await self._history.past(request, client.owner, client.local)
        request = {**past.inherited, **request}
        new = without_repeats(
            past.items, await self._history.resolved(input_items(request), past, client.owner)
        )
        asked = CreateRequest(
            request,
            model,
            past,
            listed(new, ids.response[len("resp_") :]) if conversation else new,
            ids,
            conversation,
        )
        if not asked.warms_up:
            _need_input(request, "conversation")
            check_orphans(past.items, new)
        return asked

    async def compact(self, request: Json, client: Client) -> TurnResult:
        """POST /responses/compact: the conversation as one sealed item, beside the user's own messages."""
        request = without_nulls(request)
        check_request(request)
        _need_input(request)
        items = input_items(request)
        names = ("model", "instructions", "previous_response_id", "prompt_cache_key")
        wanted: Json = {key: request[key] for key in names if key in request}
        response, headers = await self.create(
            {**wanted, "input": items + [{"type": "compaction_trigger"}], "store": False}, client, None
        )
        said = [
            {
                "id": f"msg_{self._stem()}{i:04x}",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": parts_of(item.get("content")),
            }
            for i, item in enumerate(items)
            if item.get("role") == "user"
        ]
        compaction = {
            "id": response["id"],
            "object": "response.compaction",
            "created_at": response["created_at"],
            "output": said + response["output"],
            "usage": response["usage"],
        }
        return TurnResult(compaction, headers)

    def route(self, name: str) -> Model:
        """The model of that name. :raises ApiError: 404"""
        model = self.config.route(name)
        if model is None:
            raise model_not_found(name, [m.model for m in self.config.models])
        return model

    async def _warm_up(self, asked: CreateRequest, client: Client, out: Optional[EventSink]) -> TurnResult:
        """``generate: false``: remember the input, ask nobody."""
        converter = StreamConverter.empty(self._response(asked, self._seconds()), now=self._seconds)
        begun, events = converter.response, converter.start() + converter.finish()
        connecting = asyncio.ensure_future(self._preconnect(asked.model.providers[0]))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        await self._keep(asked, client, converter)
        if out is not None:
            out.begin(begun, {})
            out.send(events)
        return TurnResult(converter.response, {})

    async def _preconnect(self, provider: Provider) -> None:
        """Have a connection ready for the turn that follows a warm-up.

        If that is not possible, the turn will say so.
        """
        with suppress(ApiError):
            await self._deps.upstream.preconnect(provider)

    async def _keep(self, asked: CreateRequest, client: Client, done: StreamConverter) -> List[str]:
        """Remember a response that has ended, as far as the client wants that. :returns: warnings"""
        request, response = asked.request, done.response
        warnings: List[Optional[str]] = []
        if client.local is not None:
            self._history.keep_local(client.local, request, asked.past, asked.new, response)
        if request.get("store", True) and response["status"] != "failed":
            record = new_record(client.owner, request, asked.new, asked.conversation, response)
            warnings.append(await self._history.keep({**record, "last": done.sequence - 1}))
        if asked.conversation is not None and response["status"] != "failed":
            warnings.append(
                await self.conversations.append(
                    asked.conversation, asked.new + response["output"], client.owner
                )
            )
        return [warning for warning in warnings if warning]

    async def _turn(
        self, asked: CreateRequest, client: Client, out: Optional[EventSink], first: int = 0
    ) -> TurnResult:
        """:arg first: the number of the first event"""
        started, ids = time.monotonic(), asked.ids
        request, model = asked.request, asked.model
        compacting = is_trigger(asked.new)
        items = asked.past.items + asked.new + ([prompt_item()] if compacting else [])
        chat = _limited(
            {**request, "tool_choice": "none"} if compacting else request, model.max_output_tokens
        )
        began = self._seconds()

        def scope(provider: Provider) -> Scope:
            return client.owner, model.downstream_model, provider.base_url

        async def convert(provider: Provider) -> Conversion:
            to_request = (
                partial(to_responses_request, origin=provider.base_url)
                if provider.wire == "responses"
                else to_chat_request
            )
            converted = partial(
                to_request,
                chat,
                await self._file_texts.readable(items, provider.profile),
                provider.profile,
                downstream_model=model.downstream_model,
                allow=self.config.server.tool_type_allowlist,
                recall=partial(self._reasoning_cache.recall, scope(provider)),
                resends=client.codex,
            )
            if len(items) <= LONG_HISTORY:
                return converted()
            return await asyncio.get_running_loop().run_in_executor(
                None, converted
            )  # it lets others run every few milliseconds

        def converter(conversion: Conversion, sequence: int) -> StreamConverter:
            return (CompactionConverter if compacting else StreamConverter)(
                self._response(asked, began),
                conversion.tools,
                ids=ids,
                now=self._seconds,
                reasoning=self._reasoning_form(request, client),
                seal=_seal_reasoning if _wants_sealed(request) else None,
                reader=conversion.reader(),
                refusal_as_text=client.codex,
                strip_fences=conversion.strip_fences,
                phases=_wants_schema(request),
                logprobs=conversion.logprobs,
                cached=self.config.usage.cached_tokens,
                sequence=max(sequence, first),
            )

        async def keep(done: StreamConverter, conversion: Conversion, provider: Provider) -> List[str]:
            thought = {
                "text": done.reasoning_text,
                "details": done.reader.reasoning_details,
                "extra_content": done.extra_content,
            }
            if any(thought.values()):
                self._reasoning_cache.remember(
                    scope(provider), call_keys(items, done.response["output"], conversion.tools), thought
                )
            return await self._keep(asked, client, done)

        job = TurnPlan(
            model.providers,
            model.downstream_model,
            partial(_conversation, request, items),
            convert,
            converter,
            keep,
        )
        turn = Turn(self._deps, job, client, out)
        ended: Json = {"status": "cancelled"}
        try:
            result = await turn.run()
            ended = result.response
            return result
        except ApiError as error:
            ended = {"status": "failed", "error": {"code": error.code or error.stream_code}}
            raise
        finally:
            self._log(request, client, model, turn.stats, ended, time.monotonic() - started)

    def _response(self, asked: CreateRequest, created_at: int) -> Json:
        response = response_object(asked.request, id=asked.ids.response, created_at=created_at)
        return (
            {**response, "conversation": {"id": asked.conversation}}
            if asked.conversation is not None
            else response
        )

    def _seconds(self) -> int:
        return int(self._now())

    def _reasoning_form(self, request: Json, client: Client) -> str:
        """``summary`` or ``content``; Codex shows summaries only, other clients ask for them when they want
        them."""
        form = self.config.server.reasoning
        if form != "auto":
            return form
        asked = request.get("reasoning") or {}
        return (
            "summary" if client.codex or asked.get("summary") or asked.get("generate_summary") else "content"
        )

    def _log(
        self,
        request: Json,
        client: Client,
        model: Model,
        stats: TurnStats,
        ended: Mapping[str, Any],
        seconds: float,
    ) -> None:
        usage = ended.get("usage") or {}
        into, out_of = usage.get("input_tokens_details") or {}, usage.get("output_tokens_details") or {}
        log_turn(
            {
                "model": request["model"],
                "downstream_model": model.downstream_model,
                "provider": stats.provider,
                "transport": client.transport,
                "status": ended["status"],
                "error": (ended.get("error") or {}).get("code"),
                "request_id": client.request_id,
                "request_bytes": stats.request_bytes,
                "answer_bytes": stats.answer_bytes,
                "input_tokens": usage.get("input_tokens"),
                "cached_tokens": into.get("cached_tokens"),
                "output_tokens": usage.get("output_tokens"),
                "reasoning_tokens": out_of.get("reasoning_tokens"),
                "first_event_ms": None if stats.first_event is None else round(stats.first_event * 1000),
                "total_ms": round(seconds * 1000),
                "retries": stats.retries,
                "warnings": stats.warnings + stats.cures,
            }
        )


def _need_input(request: Json, *instead: str) -> None:
    """:arg instead: fields that may stand in for it, beside previous_response_id. :raises ApiError: 400"""
    if not any(name in request for name in ("input", "previous_response_id", *instead)):
        raise invalid(
            "input is required: a string or a list of items.", "input", "missing_required_parameter"
        )


def _limited(request: Json, most: Optional[int]) -> Json:
    """The request with the model's limit on the length of an answer, when the client names none, or a higher
    one."""
    return (
        request
        if most is None
        else {**request, "max_output_tokens": min(request.get("max_output_tokens", most), most)}
    )


def _conversation(request: Json, items: List[Json]) -> str:
    """What the turns of one conversation have in common: the key that the client gives it, else how it
    begins."""
    given = request.get("prompt_cache_key") or request.get("conversation")
    return json.dumps(
        given or next((item for item in items if item.get("role") == "user"), None), sort_keys=True
    )


def _wants_schema(request: Json) -> bool:
    form = (request.get("text") or {}).get("format") or {}
    return form.get("type") == "json_schema"


def _wants_sealed(request: Json) -> bool:
    return "reasoning.encrypted_content" in request.get("include", ()) or request.get("store") is False


def _seal_reasoning(payload: Json) -> str:
    return seal("reasoning", payload)
