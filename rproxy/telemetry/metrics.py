"""What ``GET /metrics`` counts.

The values of labels come from the configuration and from tables of our own, so there are never more series
than a configuration has models, providers and keys.  ``input`` tokens include ``cached`` ones, and ``output``
tokens include ``reasoning``.
"""

from __future__ import annotations

import sys
from typing import Iterable, Optional, Sequence, Tuple, Union

from .. import __version__
from .exposition import Histogram, Metric, exposition, gauges
from .process import process_metrics
from .records import TurnRecord

# The codes of our own errors; every other one, such as a provider's, is "other".
ERROR_CODES = frozenset(
    (
        "content_filter", "context_length_exceeded", "empty_answer", "insufficient_quota",
        "invalid_api_key", "invalid_prompt", "model_not_found", "previous_response_not_found",
        "rate_limit_exceeded", "server_error",
    )
)  # fmt: skip
TOKENS: Sequence[Tuple[str, str]] = (
    ("input", "input_tokens"),
    ("cached", "cached_tokens"),
    ("output", "output_tokens"),
    ("reasoning", "reasoning_tokens"),
)
SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)  # bounds of the histograms


class Metrics:
    """Everything that is counted in one process since it started."""

    def __init__(self) -> None:
        self._turns = Metric(
            "rproxy_turns_total",
            "counter",
            "Turns that have ended.",
            ("model", "provider", "transport", "status", "error", "key"),
        )
        self._tokens = Metric(
            "rproxy_tokens_total",
            "counter",
            "Tokens of turns; input includes cached, output includes reasoning.",
            ("model", "provider", "key", "kind"),
        )
        self._cost = Metric(
            "rproxy_cost_total",
            "counter",
            "Cost of turns, by the prices of the configuration.",
            ("model", "provider", "key", "currency"),
        )
        self._requests = Metric(
            "rproxy_provider_requests_total",
            "counter",
            "Requests to providers, by HTTP status, or connect, timeout or reset where there was none.",
            ("provider", "status"),
        )
        self._refusals = Metric(
            "rproxy_refusals_total", "counter", "Requests that were refused before a turn began.", ("status",)
        )
        self._hosted = Metric(
            "rproxy_hosted_calls_total",
            "counter",
            "Calls of tools that rproxy runs itself.",
            ("tool", "server", "status"),
        )
        self._turn_seconds = Histogram(
            "rproxy_turn_seconds", "Duration of turns in seconds.", ("model",), SECONDS
        )
        self._first_event = Histogram(
            "rproxy_first_event_seconds", "Seconds until a turn's first event.", ("model",), SECONDS
        )

    # ---- What is counted
    def turn_ended(self, record: TurnRecord, cost: Optional[float], currency: str) -> None:
        """:param cost: in ``currency``; None when the model has no price"""
        model, provider, key = record.route, record.provider, record.key
        error = record.error if not record.error or record.error in ERROR_CODES else "other"
        self._turns.add(1, model, provider, record.transport, record.status, error, key)
        for kind, name in TOKENS:
            count = getattr(record, name)
            if count:
                self._tokens.add(count, model, provider, key, kind)
        if cost:
            self._cost.add(cost, model, provider, key, currency)
        self._turn_seconds.observe(record.total_ms / 1000, model)
        if record.first_event_ms is not None:
            self._first_event.observe(record.first_event_ms / 1000, model)

    def attempt_ended(self, provider: str, status: str) -> None:
        """:param status: of HTTP, or ``connect``, ``timeout``, ``reset``"""
        self._requests.add(1, provider, status)

    def hosted_calls(self, tool: str, server: str, completed: int, failed: int) -> None:
        """:param server: what the configuration calls it"""
        for status, count in (("completed", completed), ("failed", failed)):
            if count:
                self._hosted.add(count, tool, server, status)

    def refused(self, status: int) -> None:
        self._refusals.add(1, str(status))

    # ---- What is shown
    def text(self, gauges_now: Iterable[Metric]) -> str:
        """The body of ``GET /metrics``.

        :param gauges_now: what others know, as it is now
        """
        counted: Sequence[Union[Metric, Histogram]] = (
            self._turns,
            self._tokens,
            self._cost,
            self._requests,
            self._refusals,
            self._hosted,
            self._turn_seconds,
            self._first_event,
        )
        build = gauges(
            "rproxy_build_info",
            "The version, always 1.",
            ("version", "python"),
            {(__version__, sys.version.split()[0]): 1.0},
        )
        return exposition([*counted, *gauges_now, build, *process_metrics()])
