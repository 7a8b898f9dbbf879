"""Logging: to stderr, readable or as JSON, one line for each turn, and never a key.

Three precautions keep secrets out.  A turn's line is built from the table ``TURN_FIELDS``, so nothing else of
a request can get into it.  Every finished line, tracebacks included, has what looks like a key masked.  And
bodies are not logged at any level.

Levels are those of the configuration: ``trace`` shows rproxy's debug output and that of Tornado and asyncio,
``debug`` only rproxy's.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any, Callable, Mapping, Optional, TextIO, Tuple

from .types import Json

# level of the configuration -> level of rproxy's loggers, level of everybody else's
LEVELS: Mapping[str, Tuple[int, int]] = {
    "trace": (logging.DEBUG, logging.DEBUG),
    "debug": (logging.DEBUG, logging.WARNING),
    "info": (logging.INFO, logging.WARNING),
    "warn": (logging.WARNING, logging.WARNING),
    "warning": (logging.WARNING, logging.WARNING),
    "error": (logging.ERROR, logging.ERROR),
}
FORMATS = ("text", "json")

KEYS = re.compile(r"\b(Bearer\s+|(?:sk|gsk|xai|nvapi)-|(?:gsk|hf)_|AIza)[\w.~+/=-]{8,}", re.IGNORECASE)


PLAIN = re.compile(r"[^\s\"=]+\Z")
turns = logging.getLogger("rproxy.turn")


def mask(text: str) -> str:
    """The text with everything that looks like an API key replaced."""
    return KEYS.sub(lambda match: match.group(1) + "***", text)


def _number(value: Any) -> str:
    return f"{int(value)}"


def _text(value: Any) -> str:
    text = str(value)
    return text if PLAIN.match(text) else json.dumps(text, ensure_ascii=False)


def _list(value: Any) -> str:
    return _text("; ".join(value))


# key of the fields -> how it is written; in this order. Only these keys ever get into a line.
TURN_FIELDS: Mapping[str, Callable[[Any], str]] = {
    "request_id": _text,
    "response_id": _text,
    "model": _text,
    "downstream_model": _text,
    "provider": _text,
    "transport": _text,  # json, sse or ws
    "status": _text,  # completed, incomplete, failed, cancelled, or the HTTP status of a refusal
    "error": _text,  # the code, not the text
    "request_bytes": _number,
    "answer_bytes": _number,  # sent to the provider, read from it
    "input_tokens": _number,
    "cached_tokens": _number,
    "output_tokens": _number,
    "reasoning_tokens": _number,
    "cache_hit": lambda value: f"{100 * value:.0f}%",  # share of the input tokens; computed here
    "first_event_ms": _number,
    "total_ms": _number,
    "retries": _number,
    "warnings": _list,
}


def turn_fields(fields: Mapping[str, Any]) -> Json:
    """The known fields that have a value, in the order of the table, with the cache hit ratio (0 to 1) added.

    Numbers are tokens, bytes and milliseconds; ``warnings`` is a sequence of short texts without any prompt.
    """
    known = dict(fields)
    if fields.get("input_tokens") and fields.get("cached_tokens") is not None:
        known["cache_hit"] = round(fields["cached_tokens"] / fields["input_tokens"], 3)
    return {key: known[key] for key in TURN_FIELDS if known.get(key) not in (None, "", [], ())}


def turn_line(fields: Mapping[str, Any]) -> str:
    """The log line of a turn: ``key=value`` pairs. ``fields``: see :func:`turn_fields`."""
    return "turn " + " ".join([f"{key}={TURN_FIELDS[key](value)}" for key, value in fields.items()])


def log_turn(fields: Mapping[str, Any]) -> None:
    """Write the one line of a finished turn; in JSON format its fields are keys of their own."""
    if turns.isEnabledFor(logging.INFO):
        known = turn_fields(fields)
        turns.info("%s", turn_line(known), extra={"turn": known})


class TextFormatter(logging.Formatter):
    """``2026-11-22 09:00:00 INFO message``; other programs' loggers are named."""

    def format(self, record: logging.LogRecord) -> str:
        record.source = "" if record.name.startswith("rproxy") else record.name + ": "
        return mask(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message; a turn's fields instead of its message."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: Json = {"time": stamp, "level": record.levelname.lower(), "logger": record.name}
        turn = getattr(record, "turn", None)
        line.update(turn if turn is not None else {"message": record.getMessage()})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return mask(json.dumps(line, ensure_ascii=False, default=str))


def setup(level: str = "info", log_format: str = "text", stream: Optional[TextIO] = None) -> None:
    """Send all logging to ``stream`` (stderr).

    Raises KeyError for a level that is not in ``LEVELS``; may be called again.
    """
    ours, others = LEVELS[level]
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.set_name("rproxy")
    handler.setFormatter(
        JsonFormatter()
        if log_format == "json"
        else TextFormatter("%(asctime)s %(levelname)-7s %(source)s%(message)s", "%Y-%m-%d %H:%M:%S")
    )
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == "rproxy"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(others)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = (
        False  # no format here shows them
    )
    logging.getLogger("rproxy").setLevel(ours)
