"""Reads delays and web pages in the text of an error.

Pure functions over strings.  Providers spell a delay in many ways ("14s", "7m12.5s", "try again after 1
seconds", a date in a header); all of them become seconds here, never more than an hour.
"""

from __future__ import annotations

import html
import re
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Mapping, Optional

from .provider_errors import MAX_SCANNED

MAX_DELAY = 3600.0  # seconds

# ---- Delays
UNITS = (("ms", 0.001), ("mil", 0.001), ("m", 60.0), ("h", 3600.0), ("", 1.0))  # by the beginning of the unit
UNIT = r"(?:milliseconds?|ms|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)"
AMOUNT = rf"(\d{{1,12}}(?:\.\d{{1,9}})?)\s{{0,3}}({UNIT})(?![a-z])"
AMOUNTS = re.compile(AMOUNT, re.I)
DURATION = re.compile(rf"(?:{AMOUNT}[ ,]{{0,3}}){{1,6}}\Z", re.I)
NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,15})?\Z")
AGAIN = re.compile(
    r"(?:try(?:ing)? again|retry(?:ing)?|wait)(?: \w{1,20}){0,2}? (?:(?:in|after|for) )?"
    rf"((?:{AMOUNT}[ ,]{{0,3}}){{1,6}})",
    re.I,
)


def bounded(delay: float) -> float:
    """A delay in seconds that is neither negative nor longer than MAX_DELAY."""
    return min(max(delay, 0.0), MAX_DELAY)


def duration(text: str) -> Optional[float]:
    """Seconds of ``"14s"``, ``"7m12.5s"``, ``"350 ms"``, ``"2"``; None for anything else."""
    text = text.strip()
    if NUMBER.match(text):
        return float(text)
    if not DURATION.match(text):
        return None
    return sum(
        float(amount) * next(seconds for name, seconds in UNITS if unit.lower().startswith(name))
        for amount, unit in AMOUNTS.findall(text)
    )


def delay_in_text(text: str) -> Optional[float]:
    """Seconds of "try again in 11.054s", "after 1 seconds", "retry in 7m12s"; None without such words."""
    match = AGAIN.search(text[:MAX_SCANNED])
    delay = duration(match.group(1)) if match else None
    return None if delay is None else bounded(delay)


def header_delay(headers: Mapping[str, str], now: float) -> Optional[float]:
    """Seconds of ``retry-after-ms`` (OpenAI, Azure) or ``Retry-After`` (RFC 9110: seconds or a date).

    :param headers: names in lower case
    :param now: seconds since the epoch, for answers without ``Date``; 0: not known
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        delay = duration(headers.get(name, ""))
        if delay is not None:
            return bounded(delay * unit)
    then, sent = _date(headers.get("retry-after", "")), _date(headers.get("date", ""))
    if then is None:
        return None
    start = sent or now  # better the provider's clock than ours
    return bounded(then - start) if start else 0.0


def _date(text: str) -> Optional[float]:
    try:
        when = parsedate_to_datetime(text)
        return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


# ---- Web pages
HTML = re.compile(r"\s*<(?:!doctype|!--|\?xml|/?[a-z][\w:-]*[\s/>])", re.I)
TAGS = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<[a-z/!?][^<>]*>", re.I | re.S)


def without_tags(text: str) -> str:
    """The text of a web page, in one line."""
    return " ".join(html.unescape(TAGS.sub(" ", text[:MAX_SCANNED])).split())
