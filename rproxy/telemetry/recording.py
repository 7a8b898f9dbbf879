"""A recording: everything about one turn, to be played again (``rproxy replay``).

In memory it is a list of parts in the order of time; as a file it is JSON lines (UTF-8), an object for each
part.  Every object has ``kind`` and ``at``, the milliseconds since the turn began:

=============  ========================================================================================
``recording``  the first line: ``version`` of this format, ``rproxy``, ``started`` (ISO 8601, UTC), ``turn``
               (request_id, key, remote, transport, codex, model, route, downstream_model, response_id,
               created_at, conversation, first) and ``settings`` (what of the configuration shapes events)
``request``    what the client sent: ``headers``, ``body``; ``history``: the items that came before;
               ``items`` and ``inherited`` where they are not those of the body
``attempt``    one request to a provider: ``attempt`` (1, 2, ...), ``provider``, ``base_url``, ``url``,
               ``wire``, ``profile``, ``headers``, ``body``
``head``       its answer begins: ``attempt``, ``status``, ``headers``
``data``       bytes of its body as they were read: ``attempt``, and ``text``, or ``base64`` where the bytes
               are not UTF-8 by themselves
``end``        it is over: ``attempt``, ``how`` (complete, stopped by rproxy, failed, cancelled), ``error``
``events``     the ``events`` that the client got, or, in JSON mode, that its answer was folded of
``call``       a call of a hosted tool begins, see :class:`~rproxy.hosted.kind.HostedCall`: ``call`` (1, 2,
               ...), ``item``, ``function``, ``held``, ``pauses``
``outcome``    what came of it: ``call``, ``item``, ``sources``, ``error``; what the model read is in the next
               attempt
``round``      the calls of a round begin; the next attempt is one of the next round
``hosted``     the hosted tools of the turn: ``types`` of their entries, ``items``, ``functions``, ``sources``
               that were known before, ``max_rounds``, ``max_calls``; of several the last one counts
``turn_end``   the last line: ``status``, ``error``, ``truncated``, ``turn`` (the fields of the log's line)
=============  ========================================================================================

A reader ignores kinds and keys that it does not know; ``version`` changes when old readers would go wrong.

Keys, authorization and the secrets of the configuration are masked (:func:`rproxy.log.mask`) when parts
become lines; the content stays, but for what is nested too deep to be written.
"""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import asdict
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from .. import __version__
from ..config.schema import Provider
from ..errors import ApiError
from ..json_codec import MAX_DEPTH, tamed
from ..log import MASK, mask, names_credential
from ..types import Event, Json

VERSION = 1
MAX_BYTES = 128 << 20  # of one answer; the rest is left out
EVENT_SIZE = 400  # bytes, about, that an event takes
_PUBLIC_NAME = re.compile("x-ratelimit-", re.I)


class Part(NamedTuple):
    """One part of a recording.

    ``at``: seconds since the turn began.  ``value``: its keys; of ``data`` a :class:`Data`, of ``events``
    the events.
    """

    at: float
    kind: str
    value: Any


class Data(NamedTuple):
    attempt: int
    data: bytes


class Recording:
    """What has been recorded of a turn so far.

    :param turn: see ``recording`` above
    :param settings: likewise
    :param secrets: what must not be in it, beside what looks like a key

    ``started``: seconds since the epoch.  ``size``: approximate bytes of memory.
    """

    def __init__(self, turn: Json, settings: Json, secrets: Sequence[str]) -> None:
        self.turn = turn
        self.settings = settings
        self.started = time.time()
        self.parts: List[Part] = []
        self.size = 0
        self.truncated = False
        self._secrets = secrets
        self._began = time.monotonic()
        self._attempts = 0
        self._calls = 0

    @property
    def request_id(self) -> str:
        return str(self.turn["request_id"])

    # ---- What happens
    def _add(self, kind: str, value: Any) -> None:
        self.parts.append(Part(time.monotonic() - self._began, kind, value))

    def request(self, headers: Mapping[str, str], body: Json, more: Json) -> None:
        """What the client sent.

        :param more: further keys of the part
        """
        self._add("request", {"headers": _shown(headers), "body": body, **more})

    def attempt(self, provider: Provider, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """A request to a provider.

        :returns: its number
        """
        self._attempts += 1
        self.size += len(body)
        self._add(
            "attempt",
            {
                "attempt": self._attempts,
                "provider": provider.name,
                "base_url": provider.base_url,
                "url": url,
                "wire": provider.wire,
                "profile": provider.profile,
                "headers": _shown(headers),
                "body": body,
            },
        )
        return self._attempts

    def head(self, attempt: int, status: int, headers: Mapping[str, str]) -> None:
        """Its answer begins."""
        self._add("head", {"attempt": attempt, "status": status, "headers": _shown(headers)})

    def data(self, attempt: int, data: bytes) -> None:
        """Bytes of its answer."""
        if self._has_room(len(data)):
            self._add("data", Data(attempt, data))

    def end(self, attempt: int, how: str, error: Optional[ApiError] = None) -> None:
        """It is over."""
        self._add("end", {"attempt": attempt, "how": how, "error": error_fields(error)})

    def events(self, events: Sequence[Event]) -> None:
        """Events for the client; they must not be changed later."""
        if events and self._has_room(EVENT_SIZE * len(events)):
            self._add("events", events)

    def forget_events(self) -> None:
        """In JSON mode an attempt that failed has left nothing behind."""
        self.parts = [part for part in self.parts if part.kind != "events"]

    # ---- Hosted tools
    def call(self, fields: Json) -> int:
        """A call begins.

        :returns: its number
        """
        self._calls += 1
        self._add("call", {"call": self._calls, **fields})
        return self._calls

    def outcome(self, call: int, item: Json, sources: Sequence[Any], error: Optional[ApiError]) -> None:
        """The outcome of a call."""
        value = {"call": call, "item": item, "sources": sources, "error": error_fields(error)}
        self._add("outcome", value)

    def round(self) -> None:
        """A round has ended; its calls begin."""
        self._add("round", {})

    def hosted(self, fields: Json) -> None:
        """The hosted tools of the turn."""
        self._add("hosted", fields)

    # ---- The end
    def turn_end(self, status: str, error: Optional[ApiError], fields: Json) -> None:
        """The turn has ended.

        :param fields: those of its line in the log
        """
        value = {"status": status, "error": error_fields(error), "truncated": self.truncated, "turn": fields}
        self._add("turn_end", value)

    def _has_room(self, size: int) -> bool:
        self.truncated = self.truncated or self.size + size > MAX_BYTES
        if not self.truncated:
            self.size += size
        return not self.truncated

    # ---- As lines
    def lines(self) -> Iterator[str]:
        """The lines of the file, each with its line end, masked.  For a large one call it in a thread."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.started))
        first = {
            "version": VERSION,
            "rproxy": __version__,
            "started": f"{stamp}.{int(self.started % 1 * 1000):03d}Z",
            "turn": self.turn,
            "settings": self.settings,
        }
        yield self._line("recording", 0.0, first)
        pieces = self._masked_data()
        for part in self.parts:
            if part.kind != "data":
                yield self._line(part.kind, part.at, _JSON_OF.get(part.kind, dict)(part.value))
                continue
            data = next(pieces[part.value.attempt])
            if data:
                yield self._line("data", part.at, {"attempt": part.value.attempt, **_text(data)})

    def _line(self, kind: str, at: float, value: Json) -> str:
        # With blanks after commas and colons, so that no masked text can reach from one string into the next.
        whole = {"kind": kind, "at": round(at * 1000, 3), **value}
        try:
            text = json.dumps(whole, ensure_ascii=False)
        except RecursionError:
            text = json.dumps(tamed(whole, MAX_DEPTH), ensure_ascii=False)
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "backslashreplace")
        return mask(text, self._secrets) + "\n"

    def _masked_data(self) -> Dict[int, Iterator[bytes]]:
        """Attempt -> the pieces of its answer.  A secret that is cut in two makes them one piece."""
        found: Dict[int, List[bytes]] = {}
        for part in self.parts:
            if part.kind == "data":
                found.setdefault(part.value.attempt, []).append(part.value.data)
        return {attempt: iter(self._without_secrets(pieces)) for attempt, pieces in found.items()}

    def _without_secrets(self, pieces: List[bytes]) -> List[bytes]:
        whole = b"".join(pieces)
        masked = self._masked(whole)
        if masked == whole:
            return pieces
        each = [self._masked(piece) for piece in pieces]
        return each if b"".join(each) == masked else [masked, *[b""] * (len(pieces) - 1)]

    def _masked(self, data: bytes) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        return mask(text, self._secrets).encode("utf-8", "surrogateescape")


# ---- Parts as JSON
def _text(data: bytes) -> Json:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _attempt_json(value: Json) -> Json:
    return {**value, "profile": asdict(value["profile"]), "body": _parsed(value["body"])}


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def _events_json(events: Sequence[Event]) -> Json:
    return {"events": list(events)}


_JSON_OF: Mapping[str, Any] = {"attempt": _attempt_json, "events": _events_json}


def _shown(headers: Mapping[str, str]) -> Json:
    """Headers by their names in lower case, without the values of those that hold credentials."""
    return {
        name.lower(): MASK if names_credential(name) and not _PUBLIC_NAME.match(name) else value
        for name, value in headers.items()
    }


ERROR_FIELDS = ("status", "message", "type", "code", "param", "retry_after", "stream_code", "retryable")


def error_fields(error: Optional[ApiError]) -> Optional[Json]:
    """An error as a recording has it, ready to be an argument of :class:`ApiError`; None without one."""
    return None if error is None else {name: getattr(error, name) for name in ERROR_FIELDS}
