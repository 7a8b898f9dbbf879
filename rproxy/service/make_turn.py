"""The turn for a request: an ordinary one, one with hosted tools, one that is recorded, or both.

The modules of the rarer kinds are loaded only when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ..types import AnyItem, Json
from .client import Client, EventSink
from .create_request import CreateRequest
from .hosted import HostedTools
from .plan import TurnDeps, TurnPlan
from .turn import Turn

if TYPE_CHECKING:
    from ..telemetry.recording import Recording

# For the turns after a warm-up.
LATER_INPUT: AnyItem = {"type": "message", "role": "user", "content": "."}


async def make_turn(
    deps: TurnDeps,
    hosted: HostedTools,
    request: CreateRequest,
    body: Json,
    client: Client,
    sink: Optional[EventSink],
    first: int,
) -> Turn:
    """Make a turn; see :class:`Turn` for the parameters.

    :param body: as the client has sent it
    :param first: the number of the first event
    :raises ApiError: 400, a hosted tool is wrong; 503, earlier calls cannot be read
    """
    session = await hosted.session(request, client)
    recording = _recording(deps, request, body, client, first) if deps.telemetry.recorders else None
    if session is not None:
        from .hosted_plan import HostedPlan
        from .hosted_turn import HostedTurn

        hosted_plan = HostedPlan(deps, request, client, first, session)
        await hosted_plan.write()
        if recording is None:
            return HostedTurn(deps, hosted_plan, client, sink, hosted)
        from .recording_hosted_turn import RecordingHostedTurn

        return RecordingHostedTurn(deps, hosted_plan, client, sink, recording, hosted)
    plan = TurnPlan(deps, request, client, first)
    if recording is None:
        return Turn(deps, plan, client, sink)
    from .recording_turn import RecordingTurn

    return RecordingTurn(deps, plan, client, sink, recording)


async def check_turn(deps: TurnDeps, hosted: HostedTools, request: CreateRequest, client: Client) -> None:
    """Check a request for which no provider is called yet.

    An error now is better than a failed response later.

    :raises ApiError: as the turn would
    """
    if request.warms_up:
        request = request._replace(items=[*request.items, LATER_INPUT])
    if await hosted.session(request, client) is None:
        await TurnPlan(deps, request, client).convert(request.model.providers[0])


def _recording(deps: TurnDeps, request: CreateRequest, body: Json, client: Client, first: int) -> Recording:
    from .recording_turn import begin_recording

    recording = begin_recording(request, body, client, first, deps.config)
    for recorder in deps.telemetry.recorders:
        recorder.begin(recording)
    return recording
