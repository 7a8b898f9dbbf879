"""Logging to stderr as text or JSON, and the masker that keeps secrets out of logs and messages.

A turn's log line is built from the table ``TURN_FIELDS``, so nothing else of a request can get into it, and
bodies are not logged at any level.  Every finished line, tracebacks included, goes through :func:`clean`, as
does every text from outside that becomes part of an error message.

The levels are those of the configuration: ``trace`` shows the debug output of rproxy, Tornado and asyncio,
``debug`` only that of rproxy.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any, Callable, Mapping, Optional, Sequence, TextIO, Tuple

from .types import Json

# level of the configuration -> level of rproxy's loggers, level of all others
LEVELS: Mapping[str, Tuple[int, int]] = {
    "trace": (logging.DEBUG, logging.DEBUG),
    "debug": (logging.DEBUG, logging.WARNING),
    "info": (logging.INFO, logging.WARNING),
    "warn": (logging.WARNING, logging.WARNING),
    "warning": (logging.WARNING, logging.WARNING),
    "error": (logging.ERROR, logging.ERROR),
}
turns = logging.getLogger("rproxy.turn")


# ---- Secrets
MASK = "***"
# How API keys begin: OpenAI and many others, Cerebras, Perplexity, xAI, NVIDIA, Tavily, Google, Groq,
# Hugging Face, Replicate, Together, GitHub (four kinds).
KEY_PREFIXES = (
    "sk-", "csk-", "pplx-", "xai-", "nvapi-", "tvly-", "AIza", "gsk_", "hf_", "r8_", "tgp_v1_", "ghp_",
    "gho_", "ghs_", "github_pat_",
)  # fmt: skip
# A key starts a word. In JSON that is not decoded, the word may follow an escape such as \n.
_WORD_START = r"(?:(?<![A-Za-z0-9_])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4}))"
_KEYS = re.compile(
    rf"({_WORD_START}(?:{'|'.join(KEY_PREFIXES)}))(?:[A-Za-z0-9_~+/=-]|\.(?=[A-Za-z0-9_])){{8,}}"
    # "bearer token required" names no key
    r"|((?i:\bbearer|\bauthorization\W{1,6}(?:basic|token))\s+)(?!(?i:tokens?|auth\w*)\b)[^\s\"',;\\]{4,}"
    r"|(://[^\s/:@]*:)[^\s/@]+(?=@)"  # the password of a URL
)
# Without one of these there is nothing to find, and looking for them takes a fraction of the time.
_MARKS = (*(prefix.lower() for prefix in KEY_PREFIXES), "bearer", "authorization", "://")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LONG, SHORT = 12, 4  # characters; a short secret is masked as a word only, a shorter one is a dummy


def mask(text: str, secrets: Sequence[str] = ()) -> str:
    """``text`` with ``***`` in place of ``secrets`` and of all that looks like an API key or a password.

    Works on plain text and on JSON text; everything else stays as it is.

    :param secrets: known secrets of any form; those below ``SHORT`` characters are left alone, for a dummy
        such as "x" occurs everywhere
    """
    for secret in secrets:
        for form in {secret, json.dumps(secret)[1:-1], secret.replace("/", "\\/")}:
            if len(secret) >= LONG:
                text = text.replace(form, MASK)
            elif len(secret) >= SHORT:
                text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])", MASK, text)
    lowered = text.lower()
    if not any(mark in lowered for mark in _MARKS):
        return text
    return _KEYS.sub(lambda match: f"{match[1] or match[2] or match[3]}{MASK}", text)


def clean(text: str, secrets: Sequence[str] = ()) -> str:
    """``text`` that can be shown: masked (:func:`mask`), without control characters and lone surrogates."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _CONTROL.sub(" ", mask(text, secrets)).strip()


def without_login(url: str) -> str:
    """A URL without user name and password."""
    return re.sub(r"^([\w+.\-]*://)[^/@\s]*@", r"\1", url)


# ---- The line of a turn
_PLAIN = re.compile(r"[^\s\"=]+\Z")


def _number(value: Any) -> str:
    return f"{int(value)}"


def _text(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.match(text) else json.dumps(text, ensure_ascii=False)


def _list(value: Any) -> str:
    return _text("; ".join(value))


# The fields of a line in their order -> how each is written. Nothing else ever gets into a line.
TURN_FIELDS: Mapping[str, Callable[[Any], str]] = {
    "request_id": _text,
    "model": _text,
    "downstream_model": _text,
    "provider": _text,
    "transport": _text,  # json, sse, ws or chat (passthrough)
    "status": _text,  # completed, incomplete, failed, cancelled, or the HTTP status of a refusal
    "error": _text,  # the code, not the text
    "request_bytes": _number,  # sent to the provider
    "answer_bytes": _number,  # read from the provider
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
    """The known fields that have a value, in the order of the table, and the cache hit ratio (0 to 1).

    Numbers are tokens, bytes and milliseconds; ``warnings`` is a sequence of short texts without any prompt.
    """
    known = dict(fields)
    if fields.get("input_tokens") and fields.get("cached_tokens") is not None:
        known["cache_hit"] = round(fields["cached_tokens"] / fields["input_tokens"], 3)
    return {key: known[key] for key in TURN_FIELDS if known.get(key) not in (None, "", [], ())}


def turn_line(fields: Mapping[str, Any]) -> str:
    """The log line of a turn: ``key=value`` pairs.

    :param fields: what :func:`turn_fields` returns
    """
    return "turn " + " ".join([f"{key}={TURN_FIELDS[key](value)}" for key, value in fields.items()])


def log_turn(fields: Mapping[str, Any]) -> None:
    """Write the one line of a finished turn; in JSON format its fields are keys of their own."""
    if turns.isEnabledFor(logging.INFO):
        known = turn_fields(fields)
        turns.info("%s", turn_line(known), extra={"turn": known})


# ---- Formats and setup
class TextFormatter(logging.Formatter):
    """``2026-11-22 09:00:00 INFO message``; the loggers of other programs are named."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(source)s%(message)s", "%Y-%m-%d %H:%M:%S")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        record.source = "" if record.name.startswith("rproxy") else record.name + ": "
        return clean(super().format(record), self._secrets)

    def formatMessage(self, record: logging.LogRecord) -> str:
        # Further lines are indented, so that no text from outside can pass for a line of the log.
        return super().formatMessage(record).replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message; a turn's fields instead of its message."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: Json = {"time": stamp, "level": record.levelname.lower(), "logger": record.name}
        turn = getattr(record, "turn", None)
        line.update(turn if turn is not None else {"message": record.getMessage()})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return clean(json.dumps(line, ensure_ascii=False, default=str), self._secrets)


def setup(
    level: str = "info",
    log_format: str = "text",
    stream: Optional[TextIO] = None,
    secrets: Sequence[str] = (),
) -> None:
    """Send all logging to ``stream``; may be called again.

    :param level: a key of ``LEVELS``
    :param log_format: ``text`` or ``json``
    :param stream: stderr if None
    :param secrets: texts to mask; short ones are ignored, for a dummy key such as "ollama" is a common word
    :raises KeyError: for an unknown level
    """
    ours, others = LEVELS[level]
    long = [secret for secret in secrets if len(secret) >= LONG]
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.set_name("rproxy")
    handler.setFormatter(JsonFormatter(long) if log_format == "json" else TextFormatter(long))
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == "rproxy"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(others)
    logging.getLogger("rproxy").setLevel(ours)
    # Neither format shows them, and records are cheaper without.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
