"""A turn with hosted tools: the model calls them, rproxy runs them, and the model continues.

Each round runs like a turn of its own, with retries and other providers, as long as *it* has shown nothing;
the output of earlier rounds, and the calls of their tools, are never repeated.  Between two rounds the calls
run side by side and are shown one after another, in the model's order.

**The end.**  A round without calls of hosted tools is the last; so is one that also calls the client's own
tools, because the client must answer first.  When a limit is reached, the model is asked once more to answer
with what it has, then without tools; if it still says nothing, the turn fails: a response without a message
must not look complete.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import Any, List, NamedTuple, Optional, Sequence

from ..convert.events.converter import StreamConverter
from ..convert.events.rounds import RoundCall, RoundConverter
from ..convert.request.chat import Conversion
from ..errors import ApiError, invalid
from ..hosted.kind import HostedCall, Outcome, cut
from ..hosted.limits import Budget
from ..hosted.session import CLIENTS, FREE, LAST, NO_TOOLS
from ..telemetry.records import HostedCallRecord, milliseconds
from ..types import Event, HostedResult
from .client import Client, EventSink
from .hosted import HostedTools
from .hosted_plan import HostedPlan
from .plan import TurnDeps
from .retry import RetryLoop
from .turn import Turn

log = logging.getLogger("rproxy.hosted")

AT_ONCE = 4  # calls that run side by side
STOP_TIMEOUT = 5.0  # seconds for a cancelled tool to end
LIMIT_REACHED = "\n\n(This answer may not use tools any more: answer with what you have.)"
OUT_OF_TIME = "The tool was stopped: the time for tools in one answer is used up."
NOT_ALLOWED = "The tool was not called: the request's tool_choice does not allow it."
BROKEN = "The tool failed; the reason is only in the log of the proxy."


class RunningCall(NamedTuple):
    """A call that was started at ``since`` (monotonic).

    ``asked``: the model's call; None: it is rproxy's own.
    """

    call: HostedCall
    asked: Optional[RoundCall]
    task: Optional[asyncio.Task[Outcome]]
    since: float


class HostedTurn(Turn):
    """A turn with hosted tools.

    :param hosted: remembers the results of the calls
    """

    def __init__(
        self, deps: TurnDeps, plan: HostedPlan, client: Client, sink: Optional[EventSink], hosted: HostedTools
    ) -> None:
        super().__init__(deps, plan, client, sink)
        self._rounds = plan
        self._tools = hosted
        limits = deps.config.hosted_tools
        self._max_bytes = limits.max_result_bytes
        self._budget = Budget(limits, plan.max_tool_calls)
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._more = False  # the round is not the last
        self._paused = False  # the client has to answer before the model continues
        self._note = ""  # appended to the last result of the round
        if self._budget.calls_left <= 0:
            plan.stage = CLIENTS

    async def _run_to_the_end(self) -> None:
        self.stats.rounds, self.stats.calls = 0, 0
        await self._run_before()
        while True:
            self.stats.rounds += 1
            self._more = False
            await super()._run_to_the_end()
            if not self._more:
                return
            if await self._run_round():
                return
            self.stats.retries += self._retries.state.retries
            self._retries = RetryLoop(self._deps.failover, self._deps.config.server.retries)

    # ---- Rounds
    def _goes_on(self, converter: StreamConverter) -> bool:
        if not isinstance(converter, RoundConverter) or converter.cut:
            return False
        asked = converter.hosted_calls()
        stage = self._rounds.stage
        if stage == FREE:
            self._more = bool(asked)
            return self._more
        for call in asked:
            converter.leave_out(call)
        self._more = stage != CLIENTS and not (converter.has_text or converter.calls_client)
        return self._more

    def _new_converter(self, conversion: Conversion) -> StreamConverter:
        if not self._rounds.earlier.items:
            return super()._new_converter(conversion)
        # The events so far have their numbers, even if no client reads them (JSON mode).
        sequence = self.converter.sequence if self.converter is not None else 0
        self.converter = self._plan.converter(conversion, sequence, self._watch)
        return self.converter

    async def _run_round(self) -> bool:
        """Run the calls of the model, and prepare the next round.

        :returns: whether this was the last round after all
        """
        assert self._attempt is not None and self._prepared is not None
        converter, (fitted, conversion) = self._attempt.converter, self._prepared
        assert isinstance(converter, RoundConverter)
        plan = self._rounds
        if plan.stage == FREE:
            await self._run_calls(converter)
        else:
            self._take_tools_away()
        if self._interrupted:
            await self._end(converter.interrupt())
            return True
        await self._show(converter.close_rest())
        if converter.calls_client or self._paused:
            await self._end(converter.finish())
            return True
        await plan.next_round(converter, conversion, fitted)
        left = plan.tokens_left()
        if left is not None and left <= 0:
            await self._end(converter.finish_out_of_tokens())
            return True
        return False

    @property
    def _interrupted(self) -> bool:
        return self._client.interrupt is not None and self._client.interrupt.cancelled

    def _take_tools_away(self) -> None:
        """The model called tools, or wrote nothing, although it was asked to answer with what it has.

        :raises ApiError: it had no tools left
        """
        if self._rounds.stage == NO_TOOLS:
            raise ApiError(
                502,
                "The model used up the tool calls that one response may have (hosted_tools, max_tool_calls) "
                "and gave no answer. Ask for less at a time, or raise the limits.",
                type="server_error",
                code="server_error",
                # All tools would run again; Codex must not retry that six times.
                stream_code="invalid_prompt" if self._codex else "server_error",
                retryable=False,
            )
        self._rounds.stage = NO_TOOLS

    async def _run_before(self) -> None:
        """Run and show the calls before the first request to a provider.

        :raises ApiError: 400, more calls were approved than one response may have
        """
        calls = [] if self._rounds.compacts else self._rounds.session.before()
        if not calls:
            return
        approved = sum(not call.held for call in calls)  # the others are lists of tools
        most = self._deps.config.hosted_tools.max_calls
        if approved > most:
            raise invalid(
                f"This request approves {approved} calls; one response may have {most} "
                "(hosted_tools.max_calls). Approve the others in a later request.",
                "input",
                "invalid_value",
            )
        converter = self.converter = self._rounds.before(self._watch)
        self._held = converter.start()
        await self._run_counted(converter, [self._begin(call, None) for call in calls], approved, rounds=0)
        await self._rounds.shown_before(converter)

    # ---- Calls
    async def _run_calls(self, converter: RoundConverter) -> None:
        """Run the hosted calls of a round up to the limits; the others are left out."""
        asked, left = converter.hosted_calls(), self._budget.calls_left
        for call in asked[left:]:
            converter.leave_out(call)
        asked = asked[:left]
        session = self._rounds.session
        running = [self._begin(session.call(one.function, one.arguments), one) for one in asked]
        await self._run_counted(converter, running, len(running))

    async def _run_counted(
        self, converter: RoundConverter, running: Sequence[RunningCall], calls: int, rounds: int = 1
    ) -> None:
        """Wait for calls, show them, and count them.

        :param calls: how many of them count
        :param rounds: 0 before the first round
        """
        began = time.monotonic()
        self._note = LIMIT_REACHED if self._budget.begin(calls, rounds) and calls else ""
        self.stats.calls = self._budget.calls
        await self._show_all(converter, running)
        self._budget.took(time.monotonic() - began)
        if self._budget.spent and self._rounds.stage == FREE:
            self._rounds.stage = LAST

    def _begin(self, call: HostedCall, asked: Optional[RoundCall]) -> RunningCall:
        allowed = asked is None or self._rounds.session.allows(asked.function)
        task = None if call.pauses else asyncio.ensure_future(self._run_one(call, allowed))
        return RunningCall(call, asked, task, time.monotonic())

    async def _run_one(self, call: HostedCall, allowed: bool) -> Outcome:
        async with self._at_once:
            started = time.monotonic()
            try:
                outcome = await call.run() if allowed else call.stopped(NOT_ALLOWED)
            except Exception:
                log.error("the hosted tool %s failed", call.tool, exc_info=True)
                outcome = call.stopped(BROKEN)
            self._report(call, outcome, started)
            return outcome

    def _report(self, call: HostedCall, outcome: Outcome, started: float) -> None:
        if not call.tool:
            return  # not a call of a tool
        status = "failed" if outcome.failed else "completed"
        self._deps.telemetry.hosted_call_ended(
            HostedCallRecord(self._client.request_id, call.tool, call.server, status, milliseconds(started))
        )

    async def _show_all(self, converter: RoundConverter, calls: Sequence[RunningCall]) -> None:
        """Show the calls one after another, each with its outcome.

        :raises ApiError: one of them ends the response
        """
        interrupted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._client.interrupt is not None:
            self._client.interrupt.on_cancel(partial(interrupted.set_result, True))  # which happens once
        deadline = time.monotonic() + self._budget.seconds
        try:
            for number, one in enumerate(calls, 1):
                if not one.call.held:
                    await self._show(converter.open(one.call.item, one.asked))
                outcome = Outcome({})
                if one.task is not None:
                    await _wait(one.task, interrupted, deadline - time.monotonic())
                    if self._interrupted:
                        return
                    outcome = self._outcome(one)
                await self._close(converter, one, outcome, self._note if number == len(calls) else "")
        finally:
            if self._client.interrupt is not None:
                self._client.interrupt.on_cancel(None)
            await _stop([one.task for one in calls if one.task is not None])

    def _outcome(self, one: RunningCall) -> Outcome:
        """The outcome of a call, which is stopped if it has not ended."""
        assert one.task is not None
        if one.task.done():
            return one.task.result()
        outcome = one.call.stopped(OUT_OF_TIME)
        self._report(one.call, outcome, one.since)
        return outcome

    async def _close(self, converter: RoundConverter, one: RunningCall, outcome: Outcome, note: str) -> None:
        call = one.call
        if call.held:
            if outcome.error is not None and not self._begun:
                raise outcome.error.copy()
            await self._show(converter.open(call.item, one.asked))
        self._paused = self._paused or call.pauses
        arguments = one.asked.arguments if one.asked is not None else str(call.item.get("arguments", ""))
        text = cut(outcome.text, self._max_bytes) if call.tool else outcome.text  # a list of tools is JSON
        result: HostedResult = {
            "name": call.function,
            "arguments": arguments,
            "text": text + note,
            "sources": [list(source) for source in outcome.sources],
        }
        self._rounds.session.remember(converter.open_id, result)
        self._tools.remember(self._client.owner, converter.open_id, result)
        await self._show(converter.close(outcome.item))
        if outcome.error is not None:
            raise outcome.error.copy()

    async def _show(self, events: Sequence[Event]) -> None:
        """Send events, and wait for a client that does not keep up."""
        write = self._send if self._attempt is None else self._attempt.write
        blocked = write(events) if events else None
        if blocked is not None:
            await blocked


async def _wait(task: asyncio.Task[Outcome], interrupted: asyncio.Future[bool], seconds: float) -> None:
    """Wait for the task, but not longer than ``seconds``, nor when the user interrupts."""
    waiting: List[asyncio.Future[Any]] = [task, interrupted]
    await asyncio.wait(waiting, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)


async def _stop(tasks: Sequence[asyncio.Task[Outcome]]) -> None:
    """Cancel the running tasks, and wait for them to end."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=STOP_TIMEOUT)
