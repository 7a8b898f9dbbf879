"""Reads a provider's error response: its messages, its codes, and when to try again.

There is no common form.  There are OpenAI's ``{"error": {...}}``, the same as an array (Gemini), flat objects
(SiliconFlow, Mistral), problem+json (NVIDIA), FastAPI's ``detail`` lists, ``base_resp`` (MiniMax), JSON
inside strings (OpenRouter), plain text, web pages and nothing at all.  ``_gather`` walks any of them and
collects :class:`~rproxy.providers.failures.ErrorFacts`: codes, texts and delays, outermost first.
Nothing here raises, whatever the bytes are.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any, Dict, List, Mapping, Optional

from ..convert.json_steps import is_large
from ..json_codec import UNREADABLE
from .complaints import find_complaints
from .failure_text import HTML, bounded, delay_in_text, duration, header_delay, without_tags
from .failures import REFUSED, ErrorFacts, Finding, classify
from .provider_errors import MAX_SCANNED

MAX_DEPTH = 6  # of objects inside objects
MAX_ENTRIES = 20  # that are read of a list or a large object
MAX_PARAM = 200  # characters

CODE_KEYS = ("code", "error_code", "Code", "type", "status", "error_type", "reason", "__type")
TEXT_KEYS = (
    "message", "msg", "error_msg", "error_message", "errmsg", "error_description", "detail", "Message", "raw",
)  # fmt: skip
INNER_KEYS = ("error", "errors", "metadata", "innererror", "details", "failed")
STATUS_KEYS = ("code", "status", "status_code", "statusCode", "http_code", "http_status")
DELAY_KEYS = {
    "retrydelay": 1.0,
    "retry_delay": 1.0,
    "retryafter": 1.0,
    "retry_after": 1.0,
    "retry_after_seconds": 1.0,
    "retry_after_ms": 0.001,
}
NO_CODES = ("error", "")  # {"type": "error"} says nothing more
WORD = re.compile(r"[A-Za-z][\w.\-]{0,63}\Z")
# an event stream that is an error from the start
FRAME = re.compile(r"(?:event:[^\n]*\n)?(?:data|error):\s*(.*)\Z", re.S)


def read_answer(status: int, headers: Mapping[str, str], body: bytes, now: float = 0.0) -> Finding:
    """Read a complete response whose status is not 2xx.

    :param headers: names in any case
    :param now: seconds since the epoch; 0: not known
    """
    known = {str(name).lower(): str(value) for name, value in headers.items()}
    facts = _body_facts(body)
    facts.status = status if not 200 <= status < 300 else next(iter(facts.statuses), None)
    delays = [header_delay(known, now), *facts.delays]
    return _finding(facts, next((d for d in delays if d is not None), None), known.get("location", ""))


def read_object(raw: Any) -> Finding:
    """Read an error object from a 2xx response; the status is the one in the object, if any."""
    facts, raw = ErrorFacts(), _short(raw) if is_large(raw) else raw
    _gather(raw, facts, 0)
    facts.raw, facts.details = raw, _dump(raw)
    facts.shape = "json" if facts.texts or facts.codes else "empty"
    facts.status = next(iter(facts.statuses), None)
    return _finding(facts, next(iter(facts.delays), None), "")


def _finding(facts: ErrorFacts, delay: Optional[float], location: str) -> Finding:
    if delay is None:
        delay = next((d for d in map(delay_in_text, facts.texts) if d is not None), None)
    kind, text = classify(facts), _joined(facts)
    about_form = (
        kind == "request"
        or kind in ("internal", "gateway")
        and REFUSED.search((facts.details or text)[:MAX_SCANNED])
    )
    complaints = find_complaints(facts.raw) if about_form and facts.shape != "html" else ()
    return Finding(
        kind, facts.status, text, facts.code, facts.param, delay, facts.shape, location, complaints
    )


def _body_facts(body: bytes) -> ErrorFacts:
    facts = ErrorFacts()
    text = body.decode("utf-8-sig", "replace").replace("\0", "").strip()
    framed = FRAME.match(text)
    parsed = _parsed(framed.group(1) if framed else text)
    facts.raw = text if parsed is None else parsed
    if not text:
        facts.shape = "empty"
    elif parsed is not None:
        _gather(parsed, facts, 0)
        facts.details = text[:MAX_SCANNED]
        if not facts.texts:
            facts.texts.append(text)
    else:
        facts.shape = "html" if text[:1] == "<" and HTML.match(text) else "text"
        facts.texts.append(text)
    return facts


def _parsed(text: str) -> Any:
    """The object, array or string in the JSON ``text``; None for anything else."""
    if text[:1] not in ("{", "[", '"'):
        return None
    try:
        return json.loads(text)
    except UNREADABLE:
        return None


def _short(raw: Any, depth: int = 0) -> Any:
    """The beginning of a large error, so that reading it does not take long."""
    if isinstance(raw, str):
        return raw[:MAX_SCANNED]
    if depth > MAX_DEPTH or not isinstance(raw, (dict, list)):
        return None if isinstance(raw, (dict, list)) else raw
    if isinstance(raw, list):
        return [_short(entry, depth + 1) for entry in raw[:MAX_ENTRIES]]
    return {key: _short(value, depth + 1) for key, value in islice(raw.items(), MAX_ENTRIES)}


def _dump(raw: Any) -> str:
    try:
        return json.dumps(raw, default=str)[:MAX_SCANNED]
    except (ValueError, TypeError, RecursionError):
        return ""


def _gather(raw: Any, facts: ErrorFacts, depth: int) -> None:
    """Collect the facts in ``raw``, down to ``MAX_DEPTH``."""
    if depth > MAX_DEPTH:
        return
    if isinstance(raw, str):
        _gather_text(raw, facts, depth)
    elif isinstance(raw, dict):
        _gather_dict(raw, facts, depth)
    elif isinstance(raw, list):
        for entry in raw[:MAX_ENTRIES]:
            _gather(entry, facts, depth + 1)


def _gather_text(text: str, facts: ErrorFacts, depth: int) -> None:
    inner = _parsed(text.strip())
    if inner is not None:
        _gather(inner, facts, depth + 1)
    elif text.strip():
        facts.texts.append(text.strip())


def _gather_dict(raw: Dict[str, Any], facts: ErrorFacts, depth: int) -> None:
    place = ".".join(str(step) for step in raw["loc"]) if isinstance(raw.get("loc"), list) else ""
    if place and isinstance(raw.get("msg"), str):  # one entry of FastAPI's detail list (pydantic)
        facts.texts.append(f"{place}: {raw['msg']}")
        return
    _gather_codes(raw, facts)
    _gather_delays(raw, facts)
    if isinstance(raw.get("error"), str):
        _gather_text(raw["error"], facts, depth)
    for key in TEXT_KEYS:
        _gather(raw.get(key), facts, depth + 1)
    for key in INNER_KEYS:
        if not isinstance(raw.get(key), str):
            _gather(raw.get(key), facts, depth + 1)
    if isinstance(raw.get("provider_name"), str):  # OpenRouter: its upstream provider
        facts.texts.append(f"(served by {raw['provider_name']})")
    if not facts.texts and isinstance(raw.get("title"), str):
        facts.texts.append(raw["title"])
    base = raw.get("base_resp")
    if isinstance(base, dict):  # MiniMax; its numbers mean other things elsewhere
        facts.codes.append(f"base_resp:{base.get('status_code')}")
        _gather(base.get("status_msg"), facts, depth + 1)


def _gather_codes(raw: Dict[str, Any], facts: ErrorFacts) -> None:
    for key in CODE_KEYS:
        value = raw.get(key)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value)[:200] not in NO_CODES:
            facts.codes.append(str(value)[:200])
    for key in STATUS_KEYS:
        value = raw.get(key)
        if re.match(r"[45]\d\d\Z", str(value)):
            facts.statuses.append(int(str(value)))
    word = raw.get("code") or raw.get("error_code")
    if facts.code is None and isinstance(word, str) and WORD.match(word):
        facts.code = word
    param = raw.get("param")
    if facts.param is None and isinstance(param, str) and 0 < len(param) <= MAX_PARAM:
        facts.param = param  # a longer one is not the path of a field


def _gather_delays(raw: Dict[str, Any], facts: ErrorFacts) -> None:
    places = [raw, raw["headers"]] if isinstance(raw.get("headers"), dict) else [raw]
    for place in places:
        for key, value in place.items():
            unit = DELAY_KEYS.get(str(key).lower().replace("-", "_"))
            delay = None if unit is None else duration(str(value)[:100])
            if delay is not None:
                facts.delays.append(bounded(delay * (unit or 1.0)))


def _joined(facts: ErrorFacts) -> str:
    """The texts of all levels in one line, without repetitions."""
    texts: List[str] = []
    for text in facts.texts[:12]:
        if not any(text in earlier for earlier in texts):
            texts.append(text)
    joined = "; ".join(texts)
    return without_tags(joined) if HTML.match(joined) else joined
