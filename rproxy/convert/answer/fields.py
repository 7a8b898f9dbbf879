"""Reads the fields that differ between providers: errors, finish reasons, usage, nested texts."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional, Tuple

from ...types import Json, TextKind

# Events of a provider with the Responses API that come before any content, and may be repeated.
_OPENING = ("response.created", "response.queued", "response.in_progress")
# The meanings of finish_reason; any other word is a normal end.  These are the words of OpenAI, DeepSeek,
# Zhipu, Moonshot, Mistral, Anthropic, Gemini, Cohere, vLLM and SGLang.
_FINISH = {
    "length": (
        "length",
        "max_tokens",
        "max_output_tokens",
        "max_completion_tokens",
        "model_length",
        "max_length",
    ),
    "content_filter": (
        "content_filter",
        "content_filtered",
        "sensitive",
        "safety",
        "recitation",
        "blocklist",
        "prohibited_content",
        "spii",
        "refusal",
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call", "function_calls"),
    "context": ("model_context_window_exceeded", "context_window_exceeded", "context_length_exceeded"),
    "error": (
        "error",
        "network_error",
        "insufficient_system_resource",
        "abort",
        "aborted",
        "repetition_truncation",
    ),
}
# Gemini's words for a call that it could not use, and what gateways make of them
# ("function_call_filter: MALFORMED_FUNCTION_CALL").
_BROKEN_CALL = re.compile(r"malformed|unexpected_tool|invalid_tool|too_many_tool_calls|function_call_filter")
_WORDS = {word: meaning for meaning, words in _FINISH.items() for word in words}
_STRENGTH = {None: 0, "stop": 1, "tool_calls": 2, "content_filter": 3, "length": 4, "context": 5, "error": 6}

# Codes of flat objects that are not errors.  An object without a code, only {"message": "..."}, is one.
_FINE = (0, 200, "0", "200", "", "ok", "OK", "success")
# Keys of a delta with reasoning; the first one that is not empty counts.
REASONING_KEYS = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
_TEXT_KEYS = ("text", "content", "thinking", "summary", "reasoning", "refusal", "value")
_PART_KINDS: Dict[str, TextKind] = {
    "thinking": "reasoning",
    "reasoning": "reasoning",
    "reasoning_text": "reasoning",
    "refusal": "refusal",
}
_MAX_DEPTH = 5  # of texts inside texts


def stronger_finish(old: Optional[str], word: Any) -> Optional[str]:
    """The stronger of ``old`` and a raw finish_reason.

    Several may come: some providers send ``stop`` in the first chunk, others another one with the usage.

    :returns: stop, tool_calls, content_filter, length, context or error, from weak to strong; None: there was
        no finish_reason
    """
    if type(word) is not str or not word.strip():
        return old
    word = word.strip().lower()
    new = _WORDS.get(word) or ("error" if _BROKEN_CALL.search(word) else "stop")
    return new if _STRENGTH[new] > _STRENGTH[old] else old


def counts_tokens(usage: Any) -> bool:
    """Is it a usage block with at least one token?  Providers send null and zeros as placeholders."""
    if type(usage) is dict:
        for key, value in usage.items():
            if "token" in key and _not_zero(value):
                return True
    return False


def _not_zero(value: Any) -> bool:
    if type(value) is str:
        return value[:1].isdigit() and value.strip("0. ") != ""
    return type(value) in (int, float) and value != 0


def is_keep_alive(chunk: Json) -> bool:
    """Is a chunk that made no deltas only a keep-alive, without any part of the answer, even usage?

    It may still have begun something that a later chunk completes.
    """
    type_ = chunk.get("type")
    if type(type_) is str and type_.startswith("response."):
        return type_ in _OPENING
    choices = chunk.get("choices")
    return not counts_tokens(chunk.get("usage")) and not any(
        map(_says, choices if type(choices) is list else [choices])
    )


def _says(choice: Any) -> bool:
    """Does a choice have anything but labels?"""
    if type(choice) is not dict:
        return False
    delta = choice.get("delta")
    parts = {**choice, "delta": None, **(delta if type(delta) is dict else {})}
    return any(value for name, value in parts.items() if name not in ("index", "role"))


def text_of(value: Any, depth: int = _MAX_DEPTH) -> str:
    """The text of a string, of a list of parts, or of an object with a text under a usual key."""
    if type(value) is str:
        return value
    if not value or depth == 0:
        return ""
    if type(value) is list:
        return "".join([text_of(part, depth - 1) for part in value])
    if type(value) is dict:
        return next(filter(None, (text_of(value.get(key), depth - 1) for key in _TEXT_KEYS)), "")
    return ""


def pieces_of(content: Any) -> List[Tuple[TextKind, str]]:
    """A message's content as ``(kind, text)``; no text is empty."""
    if type(content) is str:
        return [("text", content)] if content else []
    pieces: List[Tuple[TextKind, str]] = []
    for part in content if type(content) is list else [content]:
        type_ = part.get("type") if type(part) is dict else None
        kind: TextKind = _PART_KINDS.get(type_, "text") if type(type_) is str else "text"
        text = text_of(part)
        if text:
            pieces.append((kind, text))
    return pieces


def image_urls(images: Any) -> List[str]:
    """The addresses in a message's ``images`` (OpenRouter): of strings, or of parts in the form of Chat."""
    found = []
    for image in images if type(images) is list else ():
        if type(image) is dict:
            image = image.get("image_url", image.get("url"))
        if type(image) is dict:
            image = image.get("url")
        if type(image) is str and image:
            found.append(image)
    return found


def sources_of(chunk: Json) -> Dict[str, str]:
    """The sources that a provider names beside its answer (Perplexity and others): address -> title.

    ``citations`` are addresses, ``search_results`` objects; both may repeat in every chunk.
    """
    found: Dict[str, str] = {}
    for key in ("citations", "search_results"):
        entries = chunk.get(key)
        for entry in entries if type(entries) is list else ():
            url, title = (entry.get("url"), entry.get("title")) if type(entry) is dict else (entry, None)
            if type(url) is str and url:
                found[url] = title if type(title) is str and title else found.get(url, "")
    return found


def unwrap(chunk: Json) -> Json:
    """The chunk inside an envelope ``{"data": {...}}`` (Cline's gateway), or the chunk itself."""
    inner = chunk.get("data")
    if type(inner) is not dict or chunk.get("choices") or chunk.get("error"):
        return chunk
    return inner if inner.get("choices") or inner.get("error") else chunk


def error_of(chunk: Json) -> Optional[Json]:
    """The error that a chunk is or contains, as an object; None if there is none.  A truthy ``error`` key is
    one; so are the flat forms of vLLM (``object: error``), MiniMax (``base_resp``), SiliconFlow (``code,
    message``), FastAPI (``detail``) and problem+json (``status, title``).
    """
    error = chunk.get("error")
    if error:
        return error if type(error) is dict else _rest(chunk)
    base = chunk.get("base_resp")
    if type(base) is dict and base.get("status_code") not in (0, "0", "", None):
        return _rest(chunk)
    if chunk.get("object") == "error" or chunk.get("type") == "error":
        return _rest(chunk)
    if not chunk.get("choices") and _is_flat_error(chunk):
        return _rest(chunk)
    return None


def _is_flat_error(chunk: Json) -> bool:
    if chunk.get("detail") or (chunk.get("title") and chunk.get("status")):
        return True
    message = chunk.get("message") or chunk.get("msg")
    return type(message) is str and chunk.get("code") not in _FINE and not chunk.get("usage")


def _rest(chunk: Json) -> Json:
    return {key: value for key, value in chunk.items() if key != "choices"}
