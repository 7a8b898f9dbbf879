"""Logging to stderr as text or JSON, and the masker that keeps secrets out of logs and messages.

The lines of turns are made in :mod:`rproxy.telemetry.records`; bodies are never logged.  Every text from
outside that becomes part of an error message goes through :func:`clean`.

Every text in a line of the log, tracebacks included, is masked, then cut to ``MAX_TEXT`` characters, then
:func:`printable`: whatever a client or a provider sends, it can neither begin a line of its own nor change
how a terminal shows the others.

When systemd reads stderr (``$JOURNAL_STREAM``), lines begin with a priority (``<6>``; sd-daemon(3)) in place
of the time, which the journal has already.

The levels are those of the configuration: ``trace`` shows the debug output of rproxy, Tornado and asyncio,
``debug`` only that of rproxy.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from functools import lru_cache
from typing import Any, Mapping, Optional, Sequence, TextIO, Tuple
from urllib.parse import quote, quote_plus

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
# level of a record, or higher -> syslog's priority
PRIORITIES: Sequence[Tuple[int, int]] = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)


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
    r'|(://[^\s/:@"]*:)[^\s/@"]+(?=@)'  # the password of a URL
)
# A text without any of these has no secret; looking for them takes a fraction of the time.
_MARKS = (*(prefix.lower() for prefix in KEY_PREFIXES), "bearer", "authorization", "://")
# The names of headers, parameters and variables with credentials contain one of these.
_CREDENTIAL = re.compile("auth|key|token|secret|cookie|pass|credential", re.I)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters except tab and line feed
# Characters. A secret shorter than LONG is masked only as a whole word, one shorter than SHORT not at all.
LONG, SHORT = 8, 4


def mask(text: str, secrets: Sequence[str] = ()) -> str:
    """``text`` with ``***`` in place of ``secrets`` and of all that looks like an API key or a password.

    Works on plain text, on JSON text and on URLs; everything else stays as it is.

    :param secrets: known secrets of any form; those below ``SHORT`` characters are left alone, because
        a dummy such as "x" occurs everywhere
    """
    text = mask_known(text, secrets)
    lowered = text.lower()
    for mark in _MARKS:  # not any(), which costs a call for each mark and text
        if mark in lowered:
            break
    else:
        return text
    return _KEYS.sub(lambda match: f"{match[1] or match[2] or match[3]}{MASK}", text)


def names_credential(name: str) -> bool:
    """Does a header, parameter or variable of this name hold a credential?"""
    return _CREDENTIAL.search(name) is not None


def mask_known(text: str, secrets: Sequence[str]) -> str:
    """``text`` with ``***`` in place of ``secrets`` only: for a text in which others may show keys of their
    own, such as the documentation of an API.
    """
    for form, as_word in _forms(tuple(secrets)):
        if form in text:
            pattern = re.escape(form)
            text = re.sub(
                rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])" if as_word else pattern, lambda match: MASK, text
            )
    return text


@lru_cache(maxsize=256)  # few: the secrets of a configuration and of each of its providers
def _forms(secrets: Tuple[str, ...]) -> Sequence[Tuple[str, bool]]:
    """The spellings of the secrets, the longest first, each with whether it is masked only as a whole
    word.
    """
    forms = {}
    for secret in secrets:
        if len(secret) >= SHORT:
            spelled = (secret, json.dumps(secret)[1:-1], secret.replace("/", "\\/"), *_quoted(secret))
            forms.update(dict.fromkeys(spelled, len(secret) < LONG))
    return sorted(forms.items(), key=lambda item: -len(item[0]))


def _quoted(secret: str) -> Sequence[str]:
    plain = secret.encode("utf-8", "replace")
    return quote(plain), quote(plain, safe=""), quote_plus(plain)


def clean(text: str, secrets: Sequence[str] = ()) -> str:
    """``text`` that can be shown: masked (:func:`mask`), without control characters and lone surrogates."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return CONTROL.sub(" ", mask(text, secrets)).strip()


def printable(text: str) -> str:
    """``text`` with JSON's escape in place of every character that does not show as itself.

    These are control characters, line ends included, formatting characters such as those that turn the
    direction of writing, unassigned ones, and all separators but the blank.
    """
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else json.dumps(char)[1:-1] for char in text])


def without_login(url: str) -> str:
    """A URL without user name and password."""
    return re.sub(r"^([\w+.\-]*://)[^/@\s]*@", r"\1", url)


# ---- Formats and setup
MAX_TEXT = 8192  # characters of one text in a line, before they are escaped
MAX_ENTRY = 400  # ... of a text in a list


def _shown(text: str, secrets: Sequence[str], limit: int = MAX_TEXT) -> str:
    """A text for a log line: masked and cut, without lone surrogates."""
    # Cut twice: masking a text of megabytes takes long, and a secret must not be cut into an unknown one.
    text = text[: 8 * MAX_TEXT].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = mask(text, secrets).strip()
    return text if len(text) <= limit else text[:limit] + "…"


class TextFormatter(logging.Formatter):
    """Lines for people.

    ``2026-11-22 09:00:00+0100 INFO message``; the loggers of other programs are named.

    A message is one line.  The lines of a traceback are indented, so that none looks like a log line.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S%z")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        source = "" if record.name.startswith("rproxy") else record.name + ": "
        text = _shown(source + record.getMessage(), self._secrets)
        lines = [self.heading(record) + text]
        # record.exc_text was made by another formatter, which masks nothing
        more = [self.formatException(record.exc_info)] if record.exc_info else []
        more += [record.stack_info] if record.stack_info else []
        lines += ["    " + line for text in more for line in _shown(text, self._secrets).split("\n")]
        return "\n".join(map(printable, lines))

    def heading(self, record: logging.LogRecord) -> str:
        """The beginning of the first line."""
        return f"{self.formatTime(record, self.datefmt)} {record.levelname:7} "


class JournalFormatter(TextFormatter):
    """``<6>message`` for systemd's journal, which adds the time itself; each line has its priority."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(value for level, value in PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))

    def heading(self, record: logging.LogRecord) -> str:
        return ""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message.

    A record of :mod:`rproxy.telemetry` has its fields in place of the message.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: Json = {"time": stamp, "level": record.levelname.lower(), "logger": record.name}
        fields = getattr(record, "fields", None)
        line.update(fields if fields is not None else {"message": record.getMessage()})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps({key: self._value(value) for key, value in line.items()}, ensure_ascii=False)
        return printable(text)

    def _value(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, (list, tuple)):
            return [_shown(str(entry), self._secrets, MAX_ENTRY) for entry in value]
        return _shown(str(value), self._secrets)


class LineLimit:
    """Lets so many lines of one kind into the log in a span of time.

    :param most: lines
    :param seconds: the span

    ``left_out`` counts the other lines; whoever reports their number sets it to 0.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._room = 0
        self._until = -math.inf  # the end of the span, in monotonic seconds
        self.left_out = 0

    def admits(self) -> bool:
        """May there be another line now?  Then it counts."""
        now = time.monotonic()
        if now >= self._until:
            self._until, self._room = now + self._seconds, self._most
        if not self._room:
            self.left_out += 1
            return False
        self._room -= 1
        return True


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
    :param secrets: texts to mask; short ones are ignored, because a dummy key may be a common word ("ollama")
    :raises KeyError: for an unknown level
    """
    ours, others = LEVELS[level]
    long = [secret for secret in secrets if len(secret) >= LONG]
    stream = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(stream)
    handler.set_name("rproxy")
    text_format = JournalFormatter if is_journal(stream) else TextFormatter
    handler.setFormatter(JsonFormatter(long) if log_format == "json" else text_format(long))
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == "rproxy"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(others)
    logging.getLogger("rproxy").setLevel(ours)
    # Neither format shows them, and records are cheaper without.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def is_journal(stream: TextIO) -> bool:
    """Does systemd's journal read this stream?  ``$JOURNAL_STREAM`` names its device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
