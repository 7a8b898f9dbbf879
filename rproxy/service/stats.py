"""The statistics of a turn, and its record."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, List, Mapping, Optional, Set, Tuple

from ..convert.events.converter import StreamConverter
from ..errors import ApiError
from ..telemetry.records import TurnRecord
from ..telemetry.spans import Timeline
from ..types import Json, Usage
from .client import Client
from .create_request import CreateRequest
from .token_estimate import estimate_output

MAX_GIVEN = 1000  # models may have any name
FILTERED = "The provider's content filter stopped the answer."


@dataclass
class TurnStats:
    """The statistics of a turn; only the turn writes them.

    ``provider``, ``upstream_status`` and ``request_bytes`` are those of the last attempt, ``answer_bytes``
    the sum of all; ``first_event`` is in seconds after the start; ``rounds`` and ``calls`` count those of
    hosted tools, if there are any; ``left_out`` names the client's optional fields that the provider did not
    get; ``error`` is why the turn failed; ``timeline`` has the times of its steps, if they are wanted.
    """

    provider: str = ""
    upstream_status: Optional[int] = None
    attempts: int = 0
    retries: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    first_event: Optional[float] = None
    rounds: Optional[int] = None
    calls: Optional[int] = None
    warnings: List[str] = field(default_factory=list)
    left_out: List[str] = field(default_factory=list)
    error: Optional[ApiError] = None
    timeline: Optional[Timeline] = None


class FieldWarnings:
    """Warnings about optional fields that a provider did not get, once for each provider and model.

    Clients send such fields in every request, so a warning for every turn would be noise.
    """

    def __init__(self) -> None:
        self._given: Set[Tuple[str, str, str]] = set()

    def of(self, stats: TurnStats, downstream_model: str) -> List[str]:
        """The warnings of a turn that were not given yet."""
        if not stats.left_out:
            return []
        keys = [(stats.provider, downstream_model, name) for name in stats.left_out]
        new = [key for key in keys if key not in self._given]
        if len(self._given) > MAX_GIVEN:
            self._given.clear()
        self._given.update(new)
        return [f"{name} left out: the provider does not know it" for _, _, name in new]


def turn_record(
    request: CreateRequest,
    client: Client,
    stats: TurnStats,
    response: Mapping[str, Any],
    converter: Optional[StreamConverter],
    seconds: float,
    warnings: List[str],
) -> TurnRecord:
    """The record of a turn that has ended, without the reason of a failure.

    :param response: the Response object or a part of it, at least ``status``
    :param converter: of the last attempt
    :param seconds: how long the turn took
    """
    filtered = (response.get("incomplete_details") or {}).get("reason") == "content_filter"
    error = (response.get("error") or {}).get("code") or ""
    return TurnRecord(
        request_id=client.request_id,
        key=client.key_name,
        remote=client.remote,
        model=request.body["model"],
        downstream_model=request.model.downstream_model,
        provider=stats.provider,
        transport=client.transport,
        status=response["status"],
        error="content_filter" if filtered else error,
        upstream_status=stats.upstream_status,
        reason=FILTERED if filtered else "",
        request_bytes=stats.request_bytes,
        answer_bytes=stats.answer_bytes,
        **(_tokens(converter) if converter is not None else {}),
        first_event_ms=None if stats.first_event is None else round(stats.first_event * 1000, 3),
        total_ms=round(seconds * 1000, 3),
        attempts=stats.attempts,
        retries=stats.retries,
        rounds=stats.rounds,
        calls=stats.calls,
        warnings=stats.warnings + warnings,
        route=request.model.model,
        owner=client.owner,
        spans=stats.timeline.spans if stats.timeline is not None else (),
    )


def running_record(request: CreateRequest, client: Client, stats: TurnStats, started: float) -> TurnRecord:
    """The present record of a running turn.

    :param started: monotonic seconds
    """
    response = {"status": "in_progress"}
    record = turn_record(request, client, stats, response, None, time.monotonic() - started, [])
    return record if stats.timeline is None else replace(record, spans=stats.timeline.so_far())


def _tokens(converter: StreamConverter) -> Json:
    """The tokens that a provider has counted so far, or an estimate of those of its answer."""
    counted = converter.counted
    if counted is not None:
        return usage_fields(counted)
    output = converter.unfinished_response()["output"]
    return {"output_tokens": estimate_output(output), "usage": "estimated"} if output else {}


def usage_fields(usage: Usage) -> Json:
    """``usage`` as fields of a :class:`TurnRecord`."""
    return {
        "input_tokens": usage["input_tokens"],
        "cached_tokens": usage["input_tokens_details"]["cached_tokens"],
        "output_tokens": usage["output_tokens"],
        "reasoning_tokens": usage["output_tokens_details"]["reasoning_tokens"],
    }
