"""A turn that is recorded: the same turn, with taps on both of its sides.

It calls its providers through a :class:`~rproxy.telemetry.recorder.RecordingUpstream`, and its events pass a
:class:`RecordingSink`.  An ordinary turn has neither, so recording costs nothing while it is off.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Awaitable, Mapping, Optional, Sequence

from ..config.schema import Config
from ..convert.events.converter import StreamConverter
from ..convert.request.chat import Conversion, input_items
from ..convert.request.validate import without_nulls
from ..convert.tools.table import later_tools
from ..telemetry.recorder import RecordingUpstream
from ..telemetry.recording import Recording
from ..types import Event, Json, Response
from .client import Client, EventSink
from .create_request import CreateRequest
from .mcp_credentials import credentials
from .plan import TurnDeps, TurnPlan
from .turn import Turn


class RecordingSink:
    """Records the events on their way to another sink."""

    def __init__(self, sink: EventSink, recording: Recording) -> None:
        self._sink = sink
        self._recording = recording

    @property
    def blocked(self) -> bool:
        return self._sink.blocked

    def begin(self, response: Response, headers: Mapping[str, str]) -> None:
        self._sink.begin(response, headers)

    def send(self, events: Sequence[Event]) -> Optional[Awaitable[None]]:
        self._recording.events(events)
        return self._sink.send(events)

    async def send_large(self, events: Sequence[Event]) -> None:
        self._recording.events(events)
        await self._sink.send_large(events)


class RecordingTurn(Turn):
    """A turn that is recorded.

    :class:`~rproxy.service.turn.Turn`, recorded.
    """

    recording: Recording

    def __init__(
        self,
        deps: TurnDeps,
        plan: TurnPlan,
        client: Client,
        sink: Optional[EventSink],
        recording: Recording,
        *more: Any,  # parameters of another kind of turn, see recording_hosted_turn
    ) -> None:
        tapped = replace(deps, upstream=RecordingUpstream(deps.upstream, recording))
        recorded = None if sink is None else RecordingSink(sink, recording)
        super().__init__(tapped, plan, client, recorded, *more)
        self.recording = recording

    # In JSON mode there is no sink: the events are those of the last attempt.
    def _new_converter(self, conversion: Conversion) -> StreamConverter:
        converter = super()._new_converter(conversion)
        if self._sink is None and not converter.shown:
            self.recording.forget_events()
            self.recording.events(self._held)
        return converter

    def _send(self, events: Sequence[Event]) -> Optional[Awaitable[None]]:
        if self._sink is None:
            self.recording.events(events)
        return super()._send(events)


def begin_recording(
    request: CreateRequest, body: Json, client: Client, first: int, config: Config
) -> Recording:
    """The recording of a turn that begins.

    :param body: as the client has sent it
    :param first: the number of the first event
    """
    later = later_tools(request.context.items + request.items)
    recording = Recording(
        {
            "request_id": client.request_id,
            "key": client.key_name,
            "remote": client.remote,
            "transport": client.transport,
            "codex": client.codex,
            "model": request.body["model"],
            "route": request.model.model,
            "downstream_model": request.model.downstream_model,
            "response_id": request.ids.response,
            "created_at": request.created_at,
            "conversation": request.conversation,
            "first": first,
        },
        {
            "reasoning": config.server.reasoning,
            "errors": config.server.errors,
            "tool_type_allowlist": config.server.tool_type_allowlist,
            "cached_tokens": config.usage.cached_tokens,
        },
        (*config.secrets, *credentials([*(request.body.get("tools") or ()), *later])),
    )
    more: Json = {}
    if request.context.items:
        more["history"] = request.context.items
    if request.context.inherited:
        more["inherited"] = request.context.inherited
    if request.items != input_items({**request.context.inherited, **without_nulls(body)}):
        more["items"] = request.items
    if request.shown_tools is not None and "tools" in body:
        body = {**body, "tools": request.shown_tools}  # hosted ones, which may have credentials
    recording.request(client.headers, body, more)
    return recording
