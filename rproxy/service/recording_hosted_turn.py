"""A turn with hosted tools that is recorded, with their calls and outcomes."""

from __future__ import annotations

from typing import Dict, Optional

from ..convert.events.rounds import RoundCall, RoundConverter
from ..hosted.kind import HostedCall, Outcome
from .hosted_turn import HostedTurn, RunningCall
from .recording_turn import RecordingTurn


class RecordingHostedTurn(RecordingTurn, HostedTurn):
    """A turn that is both; the constructor has the parameters of the first base class, then those of the
    second.
    """

    async def _run_to_the_end(self) -> None:
        session, limits = self._rounds.session, self._deps.config.hosted_tools
        self._numbers: Dict[HostedCall, int] = {}
        sources = [*session.sources()]
        self._known = {"sources": sources, "max_rounds": limits.max_rounds, "max_calls": limits.max_calls}
        try:
            await super()._run_to_the_end()
        finally:
            self._describe()

    def _describe(self) -> None:
        """Record the tools, which are known once the first round was asked for."""
        self.recording.hosted({**self._rounds.session.described(), **self._known})

    async def _run_round(self) -> bool:
        self._describe()  # for a reader of the recording before the turn has ended
        self.recording.round()
        return await super()._run_round()

    def _begin(self, call: HostedCall, asked: Optional[RoundCall]) -> RunningCall:
        fields = {"function": call.function, "held": call.held, "pauses": call.pauses}
        self._numbers[call] = self.recording.call({"item": call.item, **fields})
        return super()._begin(call, asked)

    async def _close(self, converter: RoundConverter, one: RunningCall, outcome: Outcome, note: str) -> None:
        self.recording.outcome(self._numbers[one.call], outcome.item, outcome.sources, outcome.error)
        await super()._close(converter, one, outcome, note)
