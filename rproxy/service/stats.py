"""What is reported of a turn when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Mapping, Optional, Set, Tuple

from ..log import log_turn
from ..types import Json
from .client import Client
from .create_request import CreateRequest

MOST_GIVEN = 1000  # models may have any name


@dataclass
class TurnStats:
    """What a turn counts; the turn alone writes it.

    ``provider`` and ``request_bytes`` are those of the last attempt, ``answer_bytes`` the sum of all;
    ``first_event`` is in seconds after the start; ``left_out`` names the client's optional fields that the
    provider did not get.
    """

    provider: str = ""
    retries: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    first_event: Optional[float] = None
    warnings: List[str] = field(default_factory=list)
    left_out: List[str] = field(default_factory=list)


class FieldWarnings:
    """Warnings about optional fields that a provider did not get, once for each provider and model.

    Clients send such fields in every request, so a warning for every turn would be noise.
    """

    def __init__(self) -> None:
        self._given: Set[Tuple[str, str, str]] = set()

    def of(self, stats: TurnStats, downstream_model: str) -> List[str]:
        """The warnings of a turn that were not given yet."""
        keys = [(stats.provider, downstream_model, name) for name in stats.left_out]
        new = [key for key in keys if key not in self._given]
        if len(self._given) > MOST_GIVEN:
            self._given.clear()
        self._given.update(new)
        return [f"{name} left out: the provider does not know it" for _, _, name in new]


def log_end(
    request: CreateRequest,
    client: Client,
    stats: TurnStats,
    response: Mapping[str, object],
    seconds: float,
    field_warnings: FieldWarnings,
) -> None:
    """Write the log line of a turn.

    :param response: the Response object, or as much of it as there is: at least ``status``
    :param seconds: how long the turn took
    """
    usage = _object(response, "usage")
    log_turn(
        {
            "model": request.body["model"],
            "downstream_model": request.model.downstream_model,
            "provider": stats.provider,
            "transport": client.transport,
            "status": response["status"],
            "error": _object(response, "error").get("code"),
            "request_id": client.request_id,
            "request_bytes": stats.request_bytes,
            "answer_bytes": stats.answer_bytes,
            "input_tokens": usage.get("input_tokens"),
            "cached_tokens": _object(usage, "input_tokens_details").get("cached_tokens"),
            "output_tokens": usage.get("output_tokens"),
            "reasoning_tokens": _object(usage, "output_tokens_details").get("reasoning_tokens"),
            "first_event_ms": None if stats.first_event is None else round(stats.first_event * 1000),
            "total_ms": round(seconds * 1000),
            "retries": stats.retries,
            "warnings": stats.warnings + field_warnings.of(stats, request.model.downstream_model),
        }
    )


def _object(holder: Mapping[str, object], key: str) -> Json:
    value = holder.get(key)
    return value if isinstance(value, dict) else {}
