"""The service: what the edges call, and the only place where a request meets configuration, store and provider.

:meth:`Service.create` is one turn: check the request, find the model's route, put the history together, run the
:class:`~rproxy.turn.Turn`, keep the response, write one log line.  Everything it needs from outside comes in as an argument.
"""
from __future__ import annotations

import json
import logging
import secrets
import time
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, Optional

from . import __version__
from .catalog import etag, models_body
from .config import Config, Model, Provider
from .convert.compaction import CompactionConverter, is_trigger, prompt_item
from .convert.ids import Ids
from .convert.messages import call_keys, check_orphans
from .convert.request import Conversion, to_chat_request
from .convert.response import response_object
from .convert.sealed import seal
from .convert.stream import StreamConverter
from .convert.validate import check_request, without_nulls
from .errors import ApiError, invalid, model_not_found
from .failover import Failover
from .history import History, Past, Records, input_items
from .log import turn_line
from .repairs import Repairs
from .thoughts import Scope, Thoughts
from .turn import Client, Facts, Job, Means, Out, Turn
from .upstream import Upstream

Json = Dict[str, Any]
log = logging.getLogger("rproxy.turn")


class Service:
    """:arg stem: makes the 32 hex digits of a response's id. :arg now: seconds since the epoch"""

    def __init__(self, config: Config, upstream: Upstream, store: Records, *,
                 stem: Callable[[], str] = lambda: secrets.token_hex(16), now: Callable[[], float] = time.time) -> None:
        self.config = config
        self._means = Means(upstream, config.server, Failover(time.monotonic), Repairs())
        self._history = History(store)
        self._models = models_body(config)
        self.models_etag = etag(self._models)
        self._stem = stem
        self._now = now
        self._thoughts = Thoughts()

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
    async def create(self, request: Json, client: Client, out: Optional[Out]) -> Json:
        """Run one turn.

        :arg request: the body of a create request
        :arg out: gets the events; None: only the result counts
        :returns: the final Response object
        :raises ApiError: when the turn failed before ``out.begin`` was called, or, without ``out``, whenever it failed
        """
        request = without_nulls(request)
        check_request(request)
        model = self._route(request["model"])
        try:
            past = await self._history.past(request, client.owner, client.local)
            request = {**past.inherited, **request}
            new = await self._history.resolved(input_items(request), past, client.owner)
            if request.get("generate") is False or (request.get("prompt_cache_options") or {}).get("prewarm"):
                return self._warm_up(request, client, out, past, new)
            if "input" not in request and "previous_response_id" not in request:
                raise invalid("input is required: a string or a list of items.", "input", "missing_required_parameter")
            check_orphans(past.items, new)
            return await self._turn(request, client, out, model, past, new)
        except ApiError:
            if client.local is not None:
                client.local.pop(request.get("previous_response_id", ""), None)      # a chain that failed cannot be continued
            raise

    async def compact(self, request: Json, client: Client) -> Json:
        """POST /responses/compact: the conversation as one sealed item, beside the user's own messages."""
        request = without_nulls(request)
        check_request(request)
        items = input_items(request)
        wanted: Json = {key: request[key] for key in ("model", "instructions", "previous_response_id", "prompt_cache_key") if key in request}
        response = await self.create({**wanted, "input": items + [{"type": "compaction_trigger"}], "store": False}, client, None)
        said = [{"id": "msg_%s%04x" % (self._stem(), i), "type": "message", "status": "completed", "role": "user",
                 "content": [{"type": "input_text", "text": item["content"]}] if isinstance(item.get("content"), str) else item.get("content")}
                for i, item in enumerate(items) if item.get("role") == "user"]
        return {"id": response["id"], "object": "response.compaction", "created_at": response["created_at"],
                "output": said + response["output"], "usage": response["usage"]}

    def _route(self, name: str) -> Model:
        model = self.config.route(name)
        if model is None:
            raise model_not_found(name, [m.model for m in self.config.models])
        return model

    def _warm_up(self, request: Json, client: Client, out: Optional[Out], past: Past, new: List[Json]) -> Json:
        """``generate: false``: remember the input, ask nobody."""
        converter = StreamConverter.empty(self._response(request, Ids(self._stem())), now=self._seconds)
        begun, events = converter.response, converter.start() + converter.finish()
        if client.local is not None:
            self._history.keep_local(client.local, request, past, new, converter.response)
        if out is not None:
            out.begin(begun, {})
            out.send(events)
        return converter.response

    async def _turn(self, request: Json, client: Client, out: Optional[Out], model: Model, past: Past, new: List[Json]) -> Json:
        started, facts, ids = time.monotonic(), Facts(), Ids(self._stem())
        compacting = is_trigger(new)
        items = past.items + new + ([prompt_item()] if compacting else [])
        asked = {**request, "tool_choice": "none"} if compacting else request
        response = self._response(request, ids)

        def scope(provider: Provider) -> Scope:
            return client.owner, model.downstream_model, provider.base_url

        def convert(provider: Provider) -> Conversion:
            return to_chat_request(asked, items, provider.profile, downstream_model=model.downstream_model,
                                   allow=self.config.server.tool_type_allowlist, recall=partial(self._thoughts.recall, scope(provider)))

        def converter(conversion: Conversion, sequence: int) -> StreamConverter:
            return (CompactionConverter if compacting else StreamConverter)(
                response, conversion.tools, ids=ids, now=self._seconds, reasoning=self._reasoning_form(request, client),
                seal=_seal_reasoning if _wants_sealed(request) else None, answer=conversion.profile.answer, refusal_as_text=client.codex,
                strip_fences=conversion.strip_fences, logprobs="logprobs" in conversion.body, cached=self.config.usage.cached_tokens,
                sequence=sequence)

        async def keep(done: StreamConverter, conversion: Conversion, provider: Provider) -> None:
            thought = {"text": done.reasoning_text, "details": done.reader.reasoning_details, "extra_content": done.extra_content}
            if any(thought.values()):
                self._thoughts.remember(scope(provider), call_keys(items, done.response["output"], conversion.tools), thought)
            if client.local is not None:
                self._history.keep_local(client.local, request, past, new, done.response)
            if request.get("store", True) and done.response["status"] != "failed":
                warning = await self._history.keep(client.owner, request, new, done.response)
                facts.warnings += [warning] if warning else []

        job = Job(model.providers, model.downstream_model, _conversation(request, items), convert, converter, keep)
        turn = Turn(self._means, job, client, out, facts)
        ended: Json = {"status": "cancelled"}
        try:
            ended = await turn.run()
        except ApiError as error:
            ended = {"status": "failed", "error": {"code": error.code or error.stream_code}}
            raise
        finally:
            self._log(request, client, model, facts, ended, time.monotonic() - started)
        return ended

    def _response(self, request: Json, ids: Ids) -> Json:
        return response_object(request, id=ids.response, created_at=self._seconds())

    def _seconds(self) -> int:
        return int(self._now())

    def _reasoning_form(self, request: Json, client: Client) -> str:
        """``summary`` or ``content``; Codex shows summaries only, other clients ask for them when they want them."""
        form = self.config.server.reasoning
        if form != "auto":
            return form
        asked = request.get("reasoning") or {}
        return "summary" if client.codex or asked.get("summary") or asked.get("generate_summary") else "content"

    def _log(self, request: Json, client: Client, model: Model, facts: Facts, ended: Mapping[str, Any], seconds: float) -> None:
        usage = ended.get("usage") or {}
        log.info("%s", turn_line({
            "model": request["model"], "downstream_model": model.downstream_model, "provider": facts.provider, "transport": client.transport,
            "status": ended["status"], "error": (ended.get("error") or {}).get("code"), "request_id": client.request_id,
            "request_bytes": facts.request_bytes, "answer_bytes": facts.answer_bytes,
            "input_tokens": usage.get("input_tokens"), "cached_tokens": (usage.get("input_tokens_details") or {}).get("cached_tokens"),
            "output_tokens": usage.get("output_tokens"), "reasoning_tokens": (usage.get("output_tokens_details") or {}).get("reasoning_tokens"),
            "first_event_ms": None if facts.first_event is None else round(facts.first_event * 1000), "total_ms": round(seconds * 1000),
            "retries": facts.retries, "warnings": facts.warnings + facts.learned}))


def _conversation(request: Json, items: List[Json]) -> str:
    """What the turns of one conversation have in common: the key that the client gives it, else how it begins."""
    given = request.get("prompt_cache_key") or request.get("conversation")
    return json.dumps(given or next((item for item in items if item.get("role") == "user"), None), sort_keys=True)


def _wants_sealed(request: Json) -> bool:
    return "reasoning.encrypted_content" in request.get("include", ()) or request.get("store") is False


def _seal_reasoning(payload: Json) -> str:
    return seal("reasoning", payload)
