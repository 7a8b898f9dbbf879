"""Passes records on to the log, the metrics, and the ledger if there is one."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Callable, ContextManager, List, Optional, Set

from ..config.schema import Price
from ..log import LineLimit
from .metrics import Metrics
from .recent import RecentTurns, RunningTurn
from .records import (
    ATTEMPT_FIELDS,
    HOSTED_CALL_FIELDS,
    REFUSAL_FIELDS,
    SEARCH_FIELDS,
    TURN_FIELDS,
    AttemptRecord,
    HostedCallRecord,
    RefusalRecord,
    SearchRecord,
    TurnRecord,
    line,
    plain_fields,
    turn_fields,
)
from .spans import Timeline

if TYPE_CHECKING:
    from .contents import Contents  # loaded only where content is kept
    from .ledger import Ledger  # loaded only where it is used, as it loads sqlite3
    from .recorder import Recorder  # loaded only where turns are recorded
    from .recording import Recording

turns = logging.getLogger("rproxy.turn")
attempts = logging.getLogger("rproxy.attempt")
refusals = logging.getLogger("rproxy.refusal")
searches = logging.getLogger("rproxy.search")
recordings = logging.getLogger("rproxy.recording")

MAX_LINES, LINE_SPAN = 50, 1.0  # lines about refused requests in so many seconds

_NOTHING: ContextManager[None] = nullcontext()


class Telemetry:
    """What one process reports.

    ``recent`` is what the inspector shows; None: it is off.  ``contents``: requests and answers; None: they
    are not kept.  ``recorders``: they record turns; without any, recording costs nothing.

    :param ledger: None: none is kept
    """

    def __init__(self, ledger: Optional[Ledger] = None) -> None:
        self.metrics = Metrics()
        self.recent: Optional[RecentTurns] = None
        self.contents: Optional[Contents] = None
        self.recorders: List[Recorder] = []
        self._keeping: Set[asyncio.Task[None]] = set()
        self._ledger = ledger
        self._refusal_lines = LineLimit(MAX_LINES, LINE_SPAN)

    def configure(self, inspector: str) -> None:
        """:param inspector: ``server.inspector``"""
        if inspector == "off":
            if self.recent is not None:
                self.recent.changed()  # for its viewers
            self.recent = None
        elif self.recent is None:
            self.recent = RecentTurns()
        if inspector == "content" and self.contents is None:
            from .contents import Contents

            self.contents = Contents()
            self.recorders.append(self.contents)
        elif inspector != "content" and self.contents is not None:
            self.recorders.remove(self.contents)
            self.contents = None

    def timeline(self, arrived: Optional[float]) -> Optional[Timeline]:
        """The timeline of a new turn, if the inspector is on.

        :param arrived: when its request came, in monotonic seconds; None: now
        """
        if self.recent is None:
            return None
        return Timeline(time.monotonic() if arrived is None else arrived)

    def running(self, view: Callable[[], TurnRecord]) -> ContextManager[None]:
        """A turn runs while the context lasts.

        :param view: makes its record as it is now
        """
        return _NOTHING if self.recent is None else RunningTurn(self.recent, view)

    def turn_ended(self, record: TurnRecord, price: Optional[Price] = None) -> None:
        """Report a turn.

        :param price: that of its model
        """
        level = logging.WARNING if record.worrying else logging.INFO
        if turns.isEnabledFor(level):
            known = turn_fields(record)
            turns.log(level, "%s", line("turn", known, TURN_FIELDS), extra={"fields": known})
        cost = None if price is None else _cost(price, record)
        currency = price.currency if price is not None else ""
        self.metrics.turn_ended(record, cost, currency)
        if self._ledger is not None:
            self._ledger.add(record, cost, currency)
        if self.recent is not None:
            self.recent.add(record, cost, currency)

    def attempt_ended(self, record: AttemptRecord) -> None:
        """Report one request to a provider."""
        if record.status:
            self.metrics.attempt_ended(record.provider, record.status)
        if attempts.isEnabledFor(logging.DEBUG):
            known = plain_fields(record)
            attempts.debug("%s", line("attempt", known, ATTEMPT_FIELDS), extra={"fields": known})

    def hosted_call_ended(self, record: HostedCallRecord) -> None:
        """Report one call of a hosted tool."""
        failed = int(record.status == "failed")
        self.metrics.hosted_calls(record.tool, record.server, 1 - failed, failed)
        if searches.isEnabledFor(logging.DEBUG):
            known = plain_fields(record)
            searches.debug("%s", line("hosted_call", known, HOSTED_CALL_FIELDS), extra={"fields": known})

    def searched(self, record: SearchRecord) -> None:
        """Report a search of Codex."""
        self.metrics.hosted_calls("web_search", record.server, record.completed, record.failed)
        if searches.isEnabledFor(logging.INFO):
            known = plain_fields(record)
            searches.info("%s", line("search", known, SEARCH_FIELDS), extra={"fields": known})

    def count_refusal(self, status: int) -> bool:
        """Count a request that was refused before its turn.

        A client can provoke thousands in a second, so not all of them have a line in the log.

        :returns: may this one have a line?
        """
        self.metrics.refused(status)
        if not refusals.isEnabledFor(logging.INFO):
            return False
        if self._refusal_lines.admits():
            return True
        if self._refusal_lines.left_out == 1:
            asyncio.get_running_loop().call_later(LINE_SPAN, self._tell_left_out)
        return False

    def log_refusal(self, record: RefusalRecord) -> None:
        """Write the line of a refusal that may have one."""
        known = plain_fields(record)
        refusals.info("%s", line("refused", known, REFUSAL_FIELDS), extra={"fields": known})

    def _tell_left_out(self) -> None:
        left_out, self._refusal_lines.left_out = self._refusal_lines.left_out, 0
        if left_out:
            refusals.info("%d more requests were refused and have no line of their own", left_out)

    async def keep(self, recording: Recording, record: TurnRecord) -> None:
        """Hand the complete recording of a turn to all recorders, even if the client leaves meanwhile."""
        keeping = asyncio.ensure_future(self._keep(recording, record))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        await asyncio.shield(keeping)

    async def _keep(self, recording: Recording, record: TurnRecord) -> None:
        for recorder in tuple(self.recorders):  # a reload may change them meanwhile
            try:
                await recorder.end(recording, record)
            except OSError as error:
                recordings.warning("cannot write the recording of %s: %s", record.request_id, error)
            except Exception:  # a bug: it must not fail a turn that has succeeded
                recordings.exception("cannot record %s", record.request_id)

    async def close(self) -> None:
        self._tell_left_out()
        if self._keeping:
            await asyncio.wait(self._keeping)
        if self._ledger is not None:
            await self._ledger.close()


def _cost(price: Price, record: TurnRecord) -> float:
    return price.cost(record.input_tokens or 0, record.cached_tokens or 0, record.output_tokens or 0)
