"""The service: the interface for the edges, and the only place where a request meets configuration, store and
provider.

:meth:`Service.create` is one turn: read the request (check it, find its model, collect its history), plan the
turn, run the :class:`~rproxy.service.turn.Turn`, write one log line.  Everything that the service needs from
outside is passed in.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from ..config.schema import Config, Model, Provider
from ..convert.events.converter import StreamConverter
from ..convert.ids import Ids
from ..convert.request.chat import to_chat_request
from ..convert.request.pairing import without_repeats
from ..convert.request.turns import check_orphans
from ..convert.request.validate import without_nulls
from ..convert.tools.tool_lists import ToolLists
from ..cooperative import free_later, in_thread, in_thread_if
from ..errors import ApiError, StoreError, invalid
from ..store import Store
from ..store.write_behind import WriteBehindStore
from ..telemetry.exposition import Metric, gauge, gauges
from ..telemetry.records import RefusalRecord, turn_fields
from ..telemetry.telemetry import Telemetry
from ..types import Compaction, Json, Response
from ..upstream.client import Upstream
from ..upstream.failover import Failover
from ..upstream.learned_overrides import LearnedOverrides
from .background import Background, Running
from .catalog import Catalog
from .client import Client, EventSink, TurnResult
from .codex_errors import for_codex, uses_codex_form
from .compact import compaction_object, compaction_request
from .conversations import Conversations, conversation_id
from .create_request import CreateRequest, checked_input, need_input
from .file_text import FileTexts
from .history import LONG_HISTORY, History
from .hosted import HostedTools
from .make_turn import check_turn, make_turn
from .mcp_credentials import has_servers, stored
from .pagination import listed
from .passthrough import Passthrough
from .plan import LARGE, TurnDeps, converted, for_history, is_short
from .quota import Quotas
from .readiness import Readiness, provider_states
from .reasoning_cache import ReasoningCache
from .recent_messages import RecentMessages
from .retrieval import ResponseRetrieval
from .running_turns import RunningTurns
from .seal_key import new_seal_key
from .sealer import Sealers, SealKey
from .search import SearchEndpoint
from .stats import FieldWarnings, running_record, turn_record
from .token_estimate import estimate
from .turn import SENT_IN_STREAM, Turn

if TYPE_CHECKING:
    from ..hosted.mcp.servers import McpServers


class Service:
    """Everything that rproxy does, independent of HTTP.

    :param seal_key: protects what clients keep for us; None: a key of this process
    :param quotas: the quotas with the use so far; None: nothing was used
    :param stem: makes the 32 hex digits of a response's id
    :param now: seconds since the epoch
    """

    def __init__(
        self,
        config: Config,
        upstream: Upstream,
        store: Store,
        *,
        telemetry: Optional[Telemetry] = None,
        seal_key: Optional[SealKey] = None,
        quotas: Optional[Quotas] = None,
        hosted: Optional[HostedTools] = None,
        stem: Callable[[], str] = lambda: secrets.token_hex(16),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._upstream = upstream
        self._store = WriteBehindStore(store)
        self._stem = stem
        self._now = now
        self.telemetry = telemetry or Telemetry()
        self._quotas = quotas or Quotas(now)
        self._running = RunningTurns(config.server, self._quotas)
        self._failover = Failover(time.monotonic)
        self._readiness = Readiness(store, self._failover)
        self.conversations = Conversations(self._store, stem, now)
        self._background = Background(self._store, now)
        self._history = History(self._store, self.conversations, self._background)
        self.retrieval = ResponseRetrieval(self._store, self._history, self._background)
        self._file_texts = FileTexts()
        self._tool_lists = ToolLists()
        self._recent_messages = RecentMessages()
        self._seal_key = seal_key or new_seal_key()
        self._field_warnings = FieldWarnings()
        self._overrides = LearnedOverrides(time.monotonic)
        self._reasoning = ReasoningCache()
        self._connecting: Set[asyncio.Task[None]] = set()
        self._mcp_servers: Optional[McpServers] = None  # they survive a reload
        self.search = SearchEndpoint(upstream, self._running, self.telemetry, now)
        self._hosted = hosted or HostedTools(upstream, self._history, now)
        self._begin_with(config)

    def configure(self, config: Config) -> None:
        """Use ``config`` for everything that begins from now on; running turns keep theirs."""
        server = config.server
        self._upstream.configure(
            connect_timeout=server.connect_timeout,
            first_byte_timeout=server.first_byte_timeout,
            idle_timeout=server.request_timeout,
        )
        self._overrides.clear()
        self._begin_with(config)

    def _begin_with(self, config: Config) -> None:
        self.config = config
        self.telemetry.configure(config.server.inspector)
        self._running.limits = config.server
        self.catalog = Catalog(config)
        self._configure_mcp(config)
        self.search.configure(config, self._mcp_servers)
        self._hosted.configure(config, self._mcp_servers)
        self._sealers = Sealers(self._seal_key, config.server.accept_unsealed)
        self.passthrough = Passthrough(
            self.catalog,
            self._running,
            self._quotas,
            self._upstream,
            self._failover,
            self.telemetry,
            config.secrets,
        )
        self._deps = TurnDeps(
            config=config,
            upstream=self._upstream,
            failover=self._failover,
            overrides=self._overrides,
            reasoning=self._reasoning,
            file_texts=self._file_texts,
            history=self._history,
            recent_messages=self._recent_messages,
            sealers=self._sealers,
            telemetry=self.telemetry,
            now=self._now,
        )

    def _configure_mcp(self, config: Config) -> None:
        """Configure the MCP servers; their modules are loaded only if there are any."""
        if not config.has_mcp and self._mcp_servers is None:
            return
        from ..hosted.mcp.servers import McpServers

        if self._mcp_servers is None:
            self._mcp_servers = McpServers(self._upstream)
        self._mcp_servers.configure(config.mcp_servers, config.hosted_tools.max_result_bytes)

    # ---- The small endpoints
    async def obstacle(self) -> Optional[str]:
        """Why new turns would fail; see :meth:`rproxy.service.readiness.Readiness.obstacle`."""
        return await self._readiness.obstacle(self.config.models)

    async def gauges(self) -> List[Metric]:
        """The present state of providers, connections and the store, as metrics."""
        providers = [provider for model in self.config.models for provider in model.providers]
        up: Dict[Tuple[str, ...], float] = {}
        for provider in providers:  # an endpoint that is up makes its name up
            up[(provider.name,)] = max(
                up.get((provider.name,), 0.0), float(not self._failover.cools_down(provider))
            )
        found = [
            gauges("rproxy_provider_up", "Whether a provider is asked; 0: it cools down.", ("provider",), up),
            gauges(
                "rproxy_upstream_connections",
                "Open connections to providers.",
                ("provider", "state"),
                self._upstream.connections(providers),
            ),
        ]
        with suppress(StoreError):
            items, size = await self._store.size()
            found.append(gauge("rproxy_store_items", "Records in the store.", items))
            found.append(gauge("rproxy_store_bytes", "Bytes of the records in the store.", size))
        return found

    def provider_states(self, models: Sequence[Model]) -> List[Json]:
        """The providers of some models; see :func:`rproxy.service.readiness.provider_states`."""
        return provider_states(models, self._failover, self._now())

    async def input_tokens(self, body: Json, client: Client) -> Json:
        """POST /responses/input_tokens: an estimate; see :mod:`rproxy.service.token_estimate`."""
        request = await self._read(
            {"model": self.catalog.of(client.key).first, **without_nulls(body)}, client
        )
        profile = request.model.providers[0].profile
        items, body = request.context.items + request.items, request.body
        allow: Optional[Sequence[str]] = self.config.server.tool_type_allowlist
        session = await self._hosted.session(request, client)
        if session is not None:
            items = await for_history(items, partial(session.history, items))
            body, allow = session.first_body(body), session.allow(allow)
        short = is_short(request, client, items)
        readable = await self._file_texts.readable(items, profile, short)

        convert = partial(
            to_chat_request,
            body,
            readable,
            profile,
            downstream_model=request.model.downstream_model,
            allow=allow,
            sealer=self._sealers.of(client.owner),
        )
        conversion, short = await converted(short, convert)
        counted = await in_thread_if(not short, partial(estimate, conversion.body))
        return {"object": "response.input_tokens", "input_tokens": counted}

    async def compact(self, body: Json, client: Client) -> Tuple[Compaction, Mapping[str, str]]:
        """POST /responses/compact; see :mod:`rproxy.service.compact`.

        :returns: the answer, and headers for it
        """
        begin = partial(compaction_request, without_nulls(body))
        items, request = await in_thread_if(client.size > LARGE, begin)
        response, headers = await self.create(request, client, None)
        make = partial(compaction_object, items, response, self._stem)
        if client.size <= LARGE:
            return make(), headers
        compaction = await in_thread(make)
        free_later([compaction["output"]], levels=1)
        return compaction, headers

    async def close(self) -> None:
        """Stop background responses, and wait until the store has everything."""
        await self._background.close()
        if self._mcp_servers is not None:
            await self._mcp_servers.close()
        await self._store.close()

    # ---- A turn
    async def create(self, body: Json, client: Client, sink: Optional[EventSink]) -> TurnResult:
        """Run one turn.

        :param body: the body of a create request
        :param sink: takes the events; None: only the result counts
        :returns: the final Response object, and headers for an answer that is JSON
        :raises ApiError: the turn failed before ``sink.begin`` was called, or, without a sink, at all
        """
        try:
            request = await self._read(body, client)
            if request.warms_up:
                return await self._warm_up(request, client, sink)
            try:
                end = self._running.begin(client.key)
            except ApiError as error:
                refused = self._refused(error, request, client, sink)
                if refused is None:
                    raise
                return refused
            try:
                return await self.run(request, body, client, sink)
            finally:
                end()
        except ApiError:
            if client.local is not None:  # a chain that failed cannot be continued
                client.local.pop(str(body.get("previous_response_id")), None)
            raise

    async def background(self, body: Json, client: Client) -> Running:
        """Begin a turn that runs independently of its client.

        :raises ApiError: what is wrong with the request
        """
        if body.get("store") is False:
            raise invalid("background: true needs store: true, because the answer is fetched later.", "store")
        request = await self._read(body, client)
        await check_turn(self._deps, self._hosted, request, client)
        end = self._running.begin(client.key)
        away = client._replace(transport="background", local=None, interrupt=None)
        response = request.response()

        async def run(running: Running) -> Response:
            return (await self.run(request, body, away, running, first=1)).response

        record = request.record(client.owner, response)
        return await self._background.start(response, record, run, end)

    async def _read(self, body: Json, client: Client) -> CreateRequest:
        """Check a create request and find everything that it refers to.

        :raises ApiError: 400, 404, 503
        """
        body, large = without_nulls(body), client.size > LARGE
        given = await in_thread_if(large, partial(checked_input, body))
        if "tools" in body and not large:
            body["tools"] = self._tool_lists.of(body["tools"])
        model, ids = self.catalog.of(client.key).find(body["model"]), Ids(self._stem())
        conversation = conversation_id(body)
        context = await self._history.context(body, conversation, client)
        body = {**context.inherited, **body}
        items = await self._history.resolved(given, context, client.owner)
        request = CreateRequest(body, model, context, items, ids, conversation, self._seconds())
        long = len(context.items) + len(items) > LONG_HISTORY
        request = await in_thread_if(long, partial(_completed, request))
        if long and conversation is not None:
            free_later([request.items], levels=2)  # they were made here
        return self._hosted.shown(request)

    def _refused(
        self, error: ApiError, request: CreateRequest, client: Client, sink: Optional[EventSink]
    ) -> Optional[TurnResult]:
        """Refuse a turn that must wait: for Codex with a response that says so.

        :returns: None: ``error`` is to be raised
        """
        shown = for_codex(error)
        in_form = uses_codex_form(self.config.server.errors, client.codex)
        if sink is None or not in_form or shown.stream_code not in SENT_IN_STREAM:
            return None
        if self.telemetry.count_refusal(error.status):
            self.telemetry.log_refusal(
                RefusalRecord(
                    request_id=client.request_id,
                    key=client.key_name,
                    remote=client.remote,
                    method="WS" if client.transport == "ws" else "POST",
                    path="",
                    status=error.status,
                    error=str(error.code),
                    reason=error.message,
                )
            )
        converter = StreamConverter.empty(request.response(), now=self._seconds)
        sink.begin(converter.response, {})
        events = converter.start()
        sink.send(events + converter.fail(shown.stream_code, shown.failed_message(), type=shown.type))
        return TurnResult(converter.response, {})

    async def run(
        self, request: CreateRequest, body: Json, client: Client, sink: Optional[EventSink], first: int = 0
    ) -> TurnResult:
        """Make a turn of a request, and run it.

        :param body: as the client has sent it
        :param first: the number of the first event
        """
        started = time.monotonic()
        turn = await make_turn(self._deps, self._hosted, request, body, client, sink, first)
        with self.telemetry.running(partial(running_record, request, client, turn.stats, started)):
            return await self._run_to_the_end(request, client, turn, started)

    async def _run_to_the_end(
        self, request: CreateRequest, client: Client, turn: Turn, started: float
    ) -> TurnResult:
        """Run the turn, and report it.

        :param started: monotonic seconds
        """
        response: Mapping[str, Any] = {"status": "failed", "error": {"code": "server_error"}}
        try:
            result = await turn.run()
            response = result.response
            return result
        except asyncio.CancelledError:
            response = {"status": "cancelled"}
            raise
        except ApiError as error:
            # If no provider was called, the request was wrong, which the edge reports unless the client has
            # gone.
            error.reported = turn.stats.attempts > 0 or client.transport == "background"
            response = {"status": "failed", "error": {"code": error.code or error.stream_code}}
            raise
        finally:
            await self._report(request, client, turn, response, time.monotonic() - started)

    async def _report(
        self, request: CreateRequest, client: Client, turn: Turn, response: Mapping[str, Any], seconds: float
    ) -> None:
        """Report a turn that has ended; if it failed, with the reason."""
        error, turn.stats.error = turn.stats.error, None  # it refers to this turn: so both are freed at once
        warnings = self._field_warnings.of(turn.stats, request.model.downstream_model)
        record = turn_record(request, client, turn.stats, response, turn.converter, seconds, warnings)
        if error is None or error.reported or turn.stats.attempts:
            self._quotas.end_turn(client.key, record, turn.sent)
            if error is not None:
                with suppress(asyncio.CancelledError):  # then the client has left, or the process ends
                    reason = await turn.reason(error)
                    record = replace(record, reason=reason)
            self.telemetry.turn_ended(record, request.model.price)
        if turn.recording is not None:
            turn.recording.turn_end(record.status, error, turn_fields(record))
            await self.telemetry.keep(turn.recording, record)

    # ---- A warm-up
    async def _warm_up(self, request: CreateRequest, client: Client, sink: Optional[EventSink]) -> TurnResult:
        """``generate: false``: remember the input, without calling a provider."""
        await check_turn(self._deps, self._hosted, request, client)
        converter = StreamConverter.empty(request.response(), now=self._seconds)
        begun, events = converter.response, converter.start() + converter.finish()
        connecting = asyncio.ensure_future(self._preconnect(request.model.providers[0]))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        await self._history.keep(request, client, converter.response, converter.sequence - 1)
        if sink is not None:
            sink.begin(begun, {})
            sink.send(events)
        return TurnResult(converter.response, {})

    async def _preconnect(self, provider: Provider) -> None:
        """Have a connection ready for the turn that follows a warm-up.

        If that is not possible, the turn will report it.
        """
        with suppress(ApiError):
            await self._upstream.preconnect(provider)

    def _seconds(self) -> int:
        return int(self._now())


def _completed(request: CreateRequest) -> CreateRequest:
    """The request without items that repeat its history, and in a conversation with an id for each item.

    :raises ApiError: 400, it has no input, or only answers calls that were never made
    """
    items, past = request.items, request.context.items
    if past:
        items = without_repeats(past, items)
    if request.conversation is not None:
        items = [*listed(items, request.ids.stem)]
    if not request.warms_up:
        need_input(request.body, "conversation")
        check_orphans(past, items)
    if has_servers(items):
        return request._replace(items=items, shown_items=stored(items))
    return request if items is request.items else request._replace(items=items)
