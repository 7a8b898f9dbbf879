"""What accompanies text: annotations and the log probabilities of its tokens, in the shapes of Responses."""

from __future__ import annotations

from typing import Any, Iterator, List, Optional, Tuple

from ...types import Json

# Types that only the Responses API has; they pass unchanged.
RESPONSES_ANNOTATIONS = ("file_citation", "container_file_citation", "file_path")


def annotation_of(raw: Any) -> Optional[Json]:
    """An annotation of Chat Completions in the shape of Responses; None for anything else.

    Chat knows only ``url_citation``, with an object inside.
    """
    if not isinstance(raw, dict):
        return None
    if raw.get("type") in RESPONSES_ANNOTATIONS:
        return raw
    found = raw.get("url_citation", raw)
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        return None
    start, end = (
        found[key] if isinstance(found.get(key), int) else 0 for key in ("start_index", "end_index")
    )
    title = found.get("title")
    return {
        "type": "url_citation",
        "url": found["url"],
        "title": title if isinstance(title, str) else "",
        "start_index": start,
        "end_index": end,
    }


def logprobs_of(entries: List[Any]) -> List[Json]:
    """Chat logprobs as Responses logprobs: the same fields, with none missing."""
    return [
        {**token, "top_logprobs": [top for _, top in _tokens(entry.get("top_logprobs"))]}
        for entry, token in _tokens(entries)
    ]


def _tokens(entries: Any) -> Iterator[Tuple[Json, Json]]:
    """Each well-formed entry, as it came and with the fields of Responses, which may be the same object."""
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        token, logprob, raw = entry.get("token"), entry.get("logprob"), entry.get("bytes")
        if isinstance(token, str) and isinstance(logprob, (int, float)):
            spelled = raw if isinstance(raw, list) else list(token.encode("utf-8", "replace"))
            if spelled is raw and len(entry) == 3:  # there may be a million: each copy is 200 bytes
                yield entry, entry
            else:
                yield entry, {"token": token, "logprob": logprob, "bytes": spelled}
