"""Plays a recorded turn again: the bytes of its provider go through the converter of this rproxy.

The turn runs as usual (:meth:`rproxy.service.service.Service.run`), but with a recording as its provider, and
without a client.  Of each round only the last attempt is played: the client saw nothing of the earlier ones.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Any, Callable, List, Mapping, Optional, Sequence

from ..config.hosted_schema import HostedLimits
from ..config.schema import Config, Model, Provider, Server, UsageConfig
from ..convert.ids import Ids, response_stem
from ..convert.request.chat import input_items
from ..convert.request.validate import check_request, without_nulls
from ..convert.sealed import CHECKSUM
from ..errors import ApiError
from ..store.memory import MemoryStore
from ..telemetry.recording import Recording
from ..telemetry.recording_file import RecordedAttempt, RecordedTurn, read_recording
from ..telemetry.records import TurnRecord
from ..telemetry.telemetry import Telemetry
from ..types import AnyItem, Event, Json, Response
from ..upstream.client import CancelToken, OnData, Result, StopReading, Upstream
from .client import Client
from .create_request import ConversationContext, CreateRequest
from .hosted import HostedTools
from .service import Service

MAX_BYTES, LIFETIME = 1 << 20, 60.0  # of a store that is never read
SEALED = "(sealed)"  # a placeholder for what only the recording rproxy could seal


class PlayedUpstream(Upstream):
    """Answers each request as the recorded provider did.

    :param attempts: one a round
    :param interrupt: cancelled where the recorded client interrupted the last answer
    """

    def __init__(self, attempts: Sequence[RecordedAttempt], interrupt: Optional[CancelToken]) -> None:
        super().__init__(environ={})
        self._attempts = [*attempts]
        self._interrupt = interrupt

    async def chat(
        self,
        provider: Provider,
        body: bytes,
        *,
        on_head: Callable[[int, Any], object],
        on_data: OnData,
        on_sent: Optional[Callable[[], object]] = None,
        path: str = "/chat/completions",
        stop: Optional[CancelToken] = None,
    ) -> Result:
        if not self._attempts:
            raise ApiError(502, "this rproxy sends the provider one request more than the recording one did")
        attempt = self._attempts.pop(0)
        status = attempt.status
        pieces = [piece for _, piece in attempt.pieces]
        if on_sent is not None:
            on_sent()
        if status is not None and not 200 <= status < 300:
            return Result(status, attempt.headers, b"".join(pieces))
        if status is not None:
            on_head(status, attempt.headers)
        with suppress(StopReading):
            for piece in pieces:
                if stop is not None and stop.cancelled:
                    break
                waiting = on_data(piece)
                if waiting is not None:
                    await waiting
        if self._interrupt is not None and not self._attempts:
            self._interrupt.cancel()
        elif attempt.error is not None:
            raise attempt.error
        elif attempt.how in ("cancelled", ""):  # "": the recording breaks off
            raise asyncio.CancelledError
        return Result(status or 599, attempt.headers, b"")


class _Nobody:
    """Discards events, which the recorder has seen on their way."""

    blocked = False

    def begin(self, response: Response, headers: Mapping[str, str]) -> None: ...

    def send(self, events: Sequence[Event]) -> None: ...

    async def send_large(self, events: Sequence[Event]) -> None: ...


class _Collector:
    """Keeps the one recording."""

    recording: Recording

    def begin(self, recording: Recording) -> None:
        self.recording = recording

    async def end(self, recording: Recording, record: TurnRecord) -> None: ...


async def play(recorded: RecordedTurn) -> RecordedTurn:
    """Run a recorded turn again.

    :returns: the turn as this rproxy runs it
    :raises ApiError: it cannot be run: no provider was asked, the outcomes of its tools are not known, or
        the request is wrong
    """
    if recorded.hosted is None and (recorded.rounds or 0) > 1:
        raise ApiError(
            400,
            f"the turn had {recorded.rounds} rounds, and the recording, which an older rproxy made, lacks "
            "the results of the tools between them. Use --serve, which plays its provider, round by round",
        )
    if not recorded.attempts and not recorded.calls:
        raise recorded.error or ApiError(400, "no provider was called, so there is nothing to play")
    if not recorded.request:
        raise ApiError(400, "the recording has no request, so there is nothing to play")
    turn, collector = recorded.turn, _Collector()
    last_of_rounds = {attempt.round: attempt for attempt in recorded.attempts}
    interrupted = any(event["type"] == "response.interrupt.accepted" for event in recorded.events)
    interrupt = CancelToken() if interrupted else None
    unfinished = any(call.outcome is None for call in recorded.calls)
    upstream = PlayedUpstream([*last_of_rounds.values()], None if unfinished else interrupt)
    telemetry = Telemetry()
    telemetry.recorders.append(collector)
    nobody = Provider(base_url="http://127.0.0.1", name="nobody")
    request = _request(recorded, recorded.attempts[-1].provider if recorded.attempts else nobody)
    service = Service(
        _config(recorded, request.model),
        upstream,
        MemoryStore(1, MAX_BYTES, LIFETIME, time.monotonic),
        telemetry=telemetry,
        hosted=_tools(recorded, interrupt),
        now=lambda: _completed_at(recorded) or turn["created_at"],
    )
    client = Client(None, turn["codex"], turn["transport"], turn["request_id"], {}, interrupt=interrupt)
    sink = None if turn["transport"] == "json" else _Nobody()
    try:
        with suppress(ApiError, asyncio.CancelledError):
            await service.run(request, recorded.request["body"], client, sink, turn["first"])
    finally:
        await service.close()
        upstream.close()
    return read_recording(line.encode() for line in collector.recording.lines())


def _tools(recorded: RecordedTurn, interrupt: Optional[CancelToken]) -> Optional[HostedTools]:
    if recorded.hosted is None:
        return None
    from .played_tools import PlayedTools  # loaded only here, as it loads the hosted tools

    return PlayedTools(recorded.hosted, recorded.calls, interrupt)


def _completed_at(recorded: RecordedTurn) -> Any:
    response = recorded.events[-1].get("response") if recorded.events else None
    return response.get("completed_at") if response else None


def _config(recorded: RecordedTurn, model: Model) -> Config:
    settings, hosted = recorded.settings, recorded.hosted or {}
    limits = {name: hosted[name] for name in ("max_rounds", "max_calls") if name in hosted}
    allow = settings["tool_type_allowlist"]
    server = Server(
        reasoning=settings["reasoning"],
        errors=settings["errors"],
        tool_type_allowlist=None if allow is None else tuple(allow),
        accept_unsealed=True,
        retries=0,
        content_timeout=0.0,
        heartbeat_interval=0.0,
    )
    usage = UsageConfig(cached_tokens=settings["cached_tokens"])
    return Config((model,), server=server, usage=usage, hosted_tools=HostedLimits(**limits))


def _request(recorded: RecordedTurn, provider: Provider) -> CreateRequest:
    """The request as it was after the turn had read it."""
    turn, request = recorded.turn, recorded.request
    inherited = request.get("inherited", {})
    body = {**inherited, **without_nulls(request["body"])}
    check_request(body)
    items: List[AnyItem] = request.get("items", input_items(body))
    context = ConversationContext(_openable(request.get("history", [])), inherited)
    model = Model(model=turn["route"], providers=(provider,), downstream_model=turn["downstream_model"])
    ids = Ids(response_stem(turn["response_id"]))
    return CreateRequest(
        body, model, context, _openable(items), ids, turn["conversation"], turn["created_at"]
    )


def _openable(items: Sequence[AnyItem]) -> List[AnyItem]:
    """The items, with summaries that can be opened here; their content does not matter for the answer."""
    blob = CHECKSUM.seal("compaction", {"text": SEALED})
    return [
        {**item, "encrypted_content": blob} if item.get("type") == "compaction" else item for item in items
    ]


# ---- Comparison
def comparable(turn: RecordedTurn) -> List[Json]:
    """The events of a turn without the parts that differ from run to run: heartbeats, the numbers that they
    take, and sealed content.  If a turn failed without an event of its own, its error is the last one.
    """
    progress = [i for i, event in enumerate(turn.events) if event["type"] == "response.in_progress"]
    heartbeats = set(progress[1:])
    events = [event for i, event in enumerate(turn.events) if i not in heartbeats]
    first = events[0]["sequence_number"] if events else 0
    shown = [{**event, "sequence_number": number} for number, event in enumerate(events, first)]
    text = json.dumps(shown)
    found: List[Json] = json.loads(text, object_hook=_without_seal)
    if turn.error is not None and not _failed(events):
        found.append({"type": "error", "status": turn.error.status, "message": turn.error.message})
    return found


def _failed(events: Sequence[Event]) -> bool:
    return bool(events) and events[-1]["type"] == "response.failed"


def _without_seal(found: Json) -> Json:
    return {**found, "encrypted_content": SEALED} if found.get("encrypted_content") else found
