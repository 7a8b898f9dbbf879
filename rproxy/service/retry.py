"""The step after a failed attempt: another form of the request, another provider, a pause and a new round, or
the end.

:func:`after_failure` decides.  It is a pure function from a :class:`RetryState`, which holds what is left of
each, to the next one, so its rules can be read and tested as a table.  :class:`RetryLoop` carries the
decisions out: it asks :class:`~rproxy.upstream.failover.Failover` for the order of the providers, reports the
result of each one to it, and sleeps. It is the one failover loop: turns and the passthrough both run in it.

Nothing is tried again once the client has seen a part of the answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import NamedTuple, Optional, Protocol, Sequence, Tuple

from ..config.schema import Provider
from ..errors import ApiError
from ..providers.provider_errors import Refusal
from ..upstream.failover import Failover

log = logging.getLogger("rproxy.failover")

PAUSES = (0.5, 2.0)  # seconds before the first new round, and before each later one
SPREAD = (0.8, 1.2)  # each pause is multiplied by a random factor, so that clients do not return all at once
# Seconds, for all pauses together that providers request; beyond that, the client gets the error instead.
MAX_PAUSE = 10.0
# Codes of failures by chance: the model wrote a call that its server could not parse; Codex would get an
# empty answer.
ONCE = ("tool_use_failed", "empty_answer")
MAX_CURES = 2  # requests in another form within one turn


class Retryable(Protocol):
    """A request that can be sent to several providers, and more than once."""

    @property
    def providers(self) -> Sequence[Provider]:
        """The providers that can answer, in the order of the configuration."""

    @property
    def visible(self) -> bool:
        """Has the client seen a part of the answer?"""

    def conversation_key(self) -> str:
        """The same text for all requests of one conversation; see :meth:`Failover.order`."""

    async def attempt(self, provider: Provider) -> None:
        """Send the request to one provider and pass its answer on.

        :raises ApiError: there was no complete answer
        """

    async def reason(self, error: ApiError) -> str:
        """Why an attempt failed, without any content of the request."""

    async def cure(self, refusal: Refusal) -> bool:
        """Find another form for the request that the last attempt's provider has refused.

        :returns: whether the next attempt will differ from the refused one
        """


class RetryState(NamedTuple):
    """The state of a request.

    ``line``: the providers of this round that are still to be tried, the next one first; empty: a new round
    begins.  ``retries``: the rounds after the first so far; ``asked``: seconds of the pauses so far that
    providers requested.
    """

    line: Tuple[Provider, ...]
    retries_left: int
    cures_left: int = MAX_CURES
    retries: int = 0
    asked: float = 0.0


class Retry(NamedTuple):
    """Go on with ``state`` after ``pause`` seconds."""

    state: RetryState
    pause: float = 0.0


def may_cure(state: RetryState, visible: bool) -> bool:
    """Should another form of a refused request be sought?"""
    return not visible and state.cures_left > 0


def after_failure(
    state: RetryState, error: ApiError, *, visible: bool = False, cured: bool = False, spread: float = 1.0
) -> Optional[Retry]:
    """Decide what follows a failed attempt at the first provider of ``state.line``.

    :param error: why it failed
    :param visible: the client has seen a part of the answer
    :param cured: another form of the request was found
    :param spread: the factor for a pause that the provider has not requested
    :returns: the next step; None: ``error`` is final
    """
    if visible:
        return None
    if cured:
        return Retry(state._replace(cures_left=state.cures_left - 1))
    if error.elsewhere and len(state.line) > 1:
        return Retry(state._replace(line=state.line[1:]))
    if not state.retries_left or not (error.retryable or error.code in ONCE and state.retries == 0):
        return None
    asked = state.asked + (error.retry_after or 0.0)
    if asked > MAX_PAUSE:
        return None
    pause = error.retry_after
    if pause is None:
        pause = PAUSES[min(state.retries, len(PAUSES) - 1)] * spread
    left, retries = state.retries_left - 1, state.retries + 1
    return Retry(state._replace(line=(), retries_left=left, retries=retries, asked=asked), pause)


class RetryLoop:
    """The attempts of one request.

    :param retries: how many rounds may follow the first one
    """

    def __init__(self, failover: Failover, retries: int = 0) -> None:
        self._failover = failover
        self.state = RetryState((), retries)

    async def run(self, request: Retryable) -> None:
        """Attempt ``request`` until one attempt succeeds.

        :raises ApiError: the last error, when no attempt did
        """
        while True:
            if not self.state.line:
                order = self._failover.order(request.providers, request.conversation_key())
                self.state = self.state._replace(line=tuple(order))
            try:
                await self._attempt(request, self.state.line[0])
                return
            except ApiError as error:
                pause = await self._go_on(request, error)
                if pause is None:
                    raise
            if pause:
                await asyncio.sleep(pause)

    async def _attempt(self, request: Retryable, provider: Provider) -> None:
        """One attempt, with a report on the provider's health."""
        try:
            await request.attempt(provider)
        except ApiError as error:
            if error.elsewhere and not error.ours:
                pause = self._failover.failed(provider, error)
                if pause:
                    reason = await request.reason(error)
                    log.warning("provider %s cools down for %.0f s: %s", provider.name, pause, reason)
            else:
                self._failover.released(provider)
            raise
        except BaseException:
            self._failover.released(provider)
            raise
        if self._failover.succeeded(provider):
            log.info("provider %s answers again", provider.name)

    async def _go_on(self, request: Retryable, error: ApiError) -> Optional[float]:
        """:returns: seconds to wait before the next attempt; None: ``error`` is final"""
        visible = request.visible
        cured = isinstance(error, Refusal) and may_cure(self.state, visible) and await request.cure(error)
        retry = after_failure(self.state, error, visible=visible, cured=cured, spread=random.uniform(*SPREAD))
        if retry is None or not retry.state.line and not self._failover.may_repeat():
            return None
        self.state = retry.state
        return retry.pause
