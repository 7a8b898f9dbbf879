"""Recordings as they are read back from a file; :mod:`.recording` describes the format."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, List, Mapping, Optional, Tuple

from ..config.provider_schema import WIRES
from ..config.schema import Provider
from ..errors import ApiError, ConfigError, RproxyError
from ..json_codec import UNREADABLE
from ..providers.profiles import profile_of
from ..types import Event, Json
from .recording import ERROR_FIELDS, VERSION


class NoRecording(RproxyError):
    """A file is not a recording, or has another version; the text says which."""


@dataclass
class RecordedAttempt:
    """One request to a provider.  ``pieces``: milliseconds since the turn began, and the bytes read then.
    ``status``: None when no answer began.  ``how``: see ``end``; "" when the file breaks off.
    """

    provider: Provider
    body: Any
    status: Optional[int] = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: List[Tuple[float, bytes]] = field(default_factory=list)
    how: str = ""
    error: Optional[ApiError] = None
    at: float = 0.0
    round: int = 0


@dataclass
class RecordedCall:
    """A call of a hosted tool; the fields are those of :class:`~rproxy.hosted.kind.HostedCall`.  ``outcome``:
    None when it did not end.  ``round``: 0 before the provider was asked.
    """

    item: Json
    function: str
    held: bool
    pauses: bool
    round: int
    outcome: Optional[Json] = None
    error: Optional[ApiError] = None


@dataclass
class RecordedTurn:
    """A whole recording; ``status`` and ``error`` are those of the turn.  ``rounds``: how many it had, if it
    had hosted tools; ``hosted``: which, see ``hosted`` in :mod:`.recording`.
    """

    turn: Json
    settings: Json
    request: Json = field(default_factory=dict)
    attempts: List[RecordedAttempt] = field(default_factory=list)
    events: List[Event] = field(default_factory=list)
    status: str = ""
    error: Optional[ApiError] = None
    truncated: bool = False
    rounds: Optional[int] = None
    calls: List[RecordedCall] = field(default_factory=list)
    hosted: Optional[Json] = None
    rounds_ended: int = 0


def read_recording(lines: Iterable[bytes]) -> RecordedTurn:
    """Read a recording.

    :param lines: those of the file
    :raises NoRecording: it is not one
    """
    recorded: Optional[RecordedTurn] = None
    for number, line in enumerate(lines, 1):
        try:
            part = json.loads(line)
            if recorded is None:
                recorded = _begin(part)
            elif part["kind"] in _ADD:
                _check(part, _KEYS.get(part["kind"], {}))
                _ADD[part["kind"]](recorded, part)
        except (*UNREADABLE, LookupError, TypeError, AttributeError, ConfigError) as error:
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise NoRecording(f"line {number} is not one of a recording: {missing}") from None
    if recorded is None:
        raise NoRecording("the file is empty")
    return recorded


# The keys that parts must have to be played, and their types, values or keys.
_KEYS: Mapping[str, Mapping[str, Any]] = {
    "recording": {
        "turn": {
            "request_id": str,
            "transport": str,
            "codex": bool,
            "model": str,
            "route": str,
            "downstream_model": str,
            "response_id": str,
            "created_at": int,
            "conversation": (str, type(None)),
            "first": int,
        },
        "settings": {
            "reasoning": frozenset(("auto", "summary", "content")),
            "errors": frozenset(("auto", "openai", "codex")),
            "tool_type_allowlist": (list, type(None)),
            "cached_tokens": frozenset(("hit", "sum")),
        },
    },
    "request": {"body": {"model": str}},
    "attempt": {"provider": str, "base_url": str, "wire": frozenset(WIRES), "profile": {}},
    "head": {"attempt": int, "status": int, "headers": {}},
    "data": {"attempt": int, "at": (int, float)},
    "end": {"attempt": int, "how": str},
    "events": {"events": list},
    "call": {"item": {}, "function": str},
    "outcome": {"call": int},
    "turn_end": {"status": str, "turn": {}},
}


def _check(value: Any, keys: Mapping[str, Any]) -> None:
    """:raises ValueError: a key has another type
    :raises KeyError: a key is missing
    """
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    for name, kind in keys.items():
        if isinstance(kind, dict):
            _check(value[name], kind)
        elif isinstance(kind, frozenset):
            if value[name] not in kind:
                raise ValueError(f"{name!r} is not one of {', '.join(sorted(kind))}")
        elif not isinstance(value[name], kind):
            raise ValueError(f"{name!r} is of another type")


def _begin(part: Json) -> RecordedTurn:
    if part["kind"] != "recording":
        raise ValueError("the first line has another kind")
    if part["version"] != VERSION:
        raise NoRecording(
            f"the recording has the version {part['version']} (rproxy {part.get('rproxy')}); this rproxy "
            f"reads the version {VERSION}"
        )
    _check(part, _KEYS["recording"])
    return RecordedTurn(part["turn"], part["settings"])


# ---- The kinds of parts
def _request(recorded: RecordedTurn, part: Json) -> None:
    recorded.request = part


def _attempt(recorded: RecordedTurn, part: Json) -> None:
    profile = profile_of(part["profile"])
    provider = Provider(base_url=part["base_url"], name=part["provider"], wire=part["wire"], profile=profile)
    attempt = RecordedAttempt(provider, part["body"], at=part["at"], round=recorded.rounds_ended)
    recorded.attempts.append(attempt)


def _head(recorded: RecordedTurn, part: Json) -> None:
    attempt = recorded.attempts[part["attempt"] - 1]
    attempt.status, attempt.headers = part["status"], part["headers"]


def _data(recorded: RecordedTurn, part: Json) -> None:
    recorded.attempts[part["attempt"] - 1].pieces.append((part["at"], _bytes(part)))


def _end(recorded: RecordedTurn, part: Json) -> None:
    attempt = recorded.attempts[part["attempt"] - 1]
    attempt.how, attempt.error = part["how"], _error(part["error"])


def _events(recorded: RecordedTurn, part: Json) -> None:
    for event in part["events"]:
        _check(event, {"type": str, "sequence_number": int})
    recorded.events += part["events"]


def _call(recorded: RecordedTurn, part: Json) -> None:
    known = {name: part[name] for name in ("item", "function", "held", "pauses")}
    recorded.calls.append(RecordedCall(**known, round=recorded.rounds_ended))


def _outcome(recorded: RecordedTurn, part: Json) -> None:
    call = recorded.calls[part["call"] - 1]
    call.outcome, call.error = part, _error(part["error"])


def _round(recorded: RecordedTurn, part: Json) -> None:
    recorded.rounds_ended += 1


def _hosted(recorded: RecordedTurn, part: Json) -> None:
    recorded.hosted = part


def _turn_end(recorded: RecordedTurn, part: Json) -> None:
    recorded.status, recorded.error = part["status"], _error(part["error"])
    recorded.truncated, recorded.rounds = part["truncated"], part["turn"].get("rounds")


_ADD: Mapping[str, Callable[[RecordedTurn, Json], None]] = {
    "request": _request,
    "attempt": _attempt,
    "head": _head,
    "data": _data,
    "end": _end,
    "events": _events,
    "call": _call,
    "outcome": _outcome,
    "round": _round,
    "hosted": _hosted,
    "turn_end": _turn_end,
}


def _bytes(part: Json) -> bytes:
    return base64.b64decode(part["base64"]) if "base64" in part else str(part["text"]).encode()


def _error(fields: Optional[Json]) -> Optional[ApiError]:
    if fields is None:
        return None
    more = {name: fields[name] for name in ERROR_FIELDS if name not in ("status", "message")}
    return ApiError(fields["status"], fields["message"], **more)
