"""Records of what happened, and their lines in the log.

A line consists of ``key=value`` pairs, and the fields of a record are the table of its keys: nothing else of
a request can get into a line.  In JSON format the fields are keys of their own.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, fields
from typing import Any, Callable, Mapping, Optional, Sequence, Union

from ..types import Json, light_dataclass
from .spans import Span

MAX_WARNINGS = 20  # in the line of a turn
_PLAIN = re.compile(r"[^\s\"=]+\Z")


def milliseconds(since: float) -> float:
    """The milliseconds since then, as records have them.

    :param since: monotonic seconds
    """
    return round((time.monotonic() - since) * 1000, 3)


@dataclass
class TurnRecord:
    """A turn that has ended.  Sizes are in bytes; the provider and ``request_bytes`` are those of the last
    attempt, ``answer_bytes`` is the sum over all attempts.

    ``model`` is what the client asked for, ``route`` the configured name that answers for it.  ``key`` is the
    name of the client's key, "" without authentication.  ``cached_tokens`` are hits, whatever
    ``usage.cached_tokens`` says.  ``rounds`` counts the answers of a turn with hosted tools, ``calls`` the
    calls of these tools; None without any.  ``retries`` are the rounds after the first one, ``attempts`` all
    requests to providers.  ``owner`` and ``spans`` are for the inspector only.
    """

    request_id: str
    key: str
    remote: str
    model: str
    downstream_model: str
    provider: str
    transport: str  # json, sse, ws, background, or chat (passthrough)
    status: str  # completed, incomplete, failed or cancelled
    error: str = ""  # the code
    upstream_status: Optional[int] = None  # the HTTP status of the last attempt, if there was one
    reason: str = ""  # why the turn failed; see rproxy.telemetry.reason
    request_bytes: int = 0
    answer_bytes: int = 0
    input_tokens: Optional[int] = None
    cached_tokens: Optional[int] = None
    output_tokens: Optional[int] = None
    reasoning_tokens: Optional[int] = None
    usage: str = ""  # "estimated" when the provider sent none
    first_event_ms: Optional[float] = None
    total_ms: float = 0.0
    attempts: int = 0
    retries: int = 0
    rounds: Optional[int] = None
    calls: Optional[int] = None
    warnings: Sequence[str] = ()
    route: str = ""
    owner: str = ""  # a digest of the client's key
    spans: Sequence[Span] = ()

    @property
    def total_tokens(self) -> int:
        """Input and output tokens, as far as they are known."""
        return (self.input_tokens or 0) + (self.output_tokens or 0)

    @property
    def worrying(self) -> bool:
        """Is it worth a warning?  A turn that its client cancelled is not."""
        return self.status == "failed" or self.error == "content_filter"


@dataclass
class AttemptRecord:
    """One request to a provider that has ended.

    ``status``: of HTTP; connect, timeout or reset when there was no answer; "" when it was cancelled before.
    """

    request_id: str
    provider: str
    status: str
    request_bytes: int
    answer_bytes: int
    total_ms: float


@light_dataclass(frozen=True)
class SearchRecord:
    """A search of Codex that has ended, without its query.

    ``server``: the kind of the search service.  ``completed`` and ``failed``: its searches and pages.
    """

    request_id: str
    key: str
    remote: str
    server: str
    completed: int
    failed: int
    total_ms: float


@light_dataclass(frozen=True)
class HostedCallRecord:
    """A call of a hosted tool that has ended.

    ``server``: who did the work, as the configuration calls it.  ``status``: completed or failed.
    """

    request_id: str
    tool: str
    server: str
    status: str
    total_ms: float


@light_dataclass(frozen=True)
class RefusalRecord:
    """A request that was refused before a turn began."""

    request_id: str
    key: str
    remote: str
    method: str  # of HTTP; WS for a message on a WebSocket
    path: str
    status: int
    error: str
    reason: str


# ---- Lines
def _number(value: Any) -> str:
    return f"{int(value)}"


def _text(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.match(text) else json.dumps(text, ensure_ascii=False)


def _list(value: Any) -> str:
    return _text("; ".join(value))


# The fields of a turn's line in their order -> how each is written.
TURN_FIELDS: Mapping[str, Callable[[Any], str]] = {
    "request_id": _text,
    "key": _text,
    "remote": _text,
    "model": _text,
    "downstream_model": _text,
    "provider": _text,
    "transport": _text,
    "status": _text,
    "error": _text,
    "upstream_status": _number,
    "reason": _text,
    "request_bytes": _number,
    "answer_bytes": _number,
    "input_tokens": _number,
    "cached_tokens": _number,
    "output_tokens": _number,
    "reasoning_tokens": _number,
    "usage": _text,
    "cache_hit": lambda value: f"{100 * value:.0f}%",  # share of the input tokens; computed here
    "first_event_ms": _number,
    "total_ms": _number,
    "attempts": _number,
    "retries": _number,
    "rounds": _number,
    "calls": _number,
    "warnings": _list,
}


def _fields_of(record: type) -> Mapping[str, Callable[[Any], str]]:
    """All fields of a record, in their order."""
    return {field.name: _text if field.type == "str" else _number for field in fields(record)}


ATTEMPT_FIELDS = _fields_of(AttemptRecord)
SEARCH_FIELDS = _fields_of(SearchRecord)
HOSTED_CALL_FIELDS = _fields_of(HostedCallRecord)
REFUSAL_FIELDS = _fields_of(RefusalRecord)


def first_warnings(warnings: Sequence[str]) -> Sequence[str]:
    """At most ``MAX_WARNINGS`` warnings, and how many more there are."""
    more = len(warnings) - MAX_WARNINGS
    return warnings if more <= 0 else [*warnings[:MAX_WARNINGS], f"and {more} more"]


def turn_fields(record: TurnRecord) -> Json:
    """The fields that have a value, in the order of the table, and the cache hit ratio (0 to 1)."""
    known: Json = dict(vars(record))
    if record.input_tokens and record.cached_tokens is not None:
        known["cache_hit"] = round(record.cached_tokens / record.input_tokens, 3)
    if len(record.warnings) > MAX_WARNINGS:
        known["warnings"] = first_warnings(record.warnings)
    return {name: known[name] for name in TURN_FIELDS if known.get(name) not in (None, "", [], ())}


def plain_fields(record: Union[RefusalRecord, AttemptRecord, HostedCallRecord, SearchRecord]) -> Json:
    """The fields that have a value, in the order of the table."""
    return {name: value for name, value in vars(record).items() if value not in (None, "")}


def line(kind: str, known: Json, table: Mapping[str, Callable[[Any], str]]) -> str:
    """The text of a line: ``kind`` and the ``key=value`` pairs.

    :param known: what :func:`turn_fields` or :func:`plain_fields` returns
    """
    return " ".join([kind, *(f"{name}={table[name](value)}" for name, value in known.items())])
