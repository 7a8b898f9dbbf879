"""Removes from a request the parts that a provider refused before: single images and files, tools, values of
fields.

A refused part is known by its :func:`fingerprint`, so that nothing else is removed.  A note takes its place,
so that the model knows of it and the history keeps its shape.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Container, List, Tuple

from ...types import Json

WHOLE = ("messages", "input", "tools", "model", "instructions")  # fields that are never left out as a whole
NAMES = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "file": "file",
    "input_file": "file",
}


def fingerprint(field: str, value: Any) -> str:
    """The identity of a part of a request; ``field`` is "part", "tool" or the key of a value."""
    text = json.dumps([field, value], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def without_refused(body: Json, refused: Container[str]) -> Tuple[Json, List[str]]:
    """A copy of a request without the parts whose fingerprints are in ``refused``.

    :returns: the copy, and a warning for each thing that is left out
    """
    values = [key for key in body if key not in WHOLE and fingerprint(key, body[key]) in refused]
    warnings = [_left_out(key) for key in values]
    body = {key: value for key, value in body.items() if key not in values}
    for key in ("messages", "input"):
        if isinstance(body.get(key), list):
            body[key] = [_message(message, refused, warnings) for message in body[key]]
    if "tools" in body:
        _drop_tools(body, refused, warnings)
    return body, list(dict.fromkeys(warnings))


def _left_out(what: str) -> str:
    return f"{what} left out: the provider refused it"


def _message(message: Json, refused: Container[str], warnings: List[str]) -> Json:
    for key in ("content", "output"):
        parts = message.get(key)
        if isinstance(parts, list):
            kept = [_part(part, refused, warnings) for part in parts]
            if kept != parts:
                return {**message, key: _flat(kept)}
    return message


def _part(part: Any, refused: Container[str], warnings: List[str]) -> Any:
    name = NAMES.get(str(part.get("type"))) if isinstance(part, dict) else None
    if name is None or fingerprint("part", part) not in refused:
        return part
    warnings.append(_left_out(name))
    kind = "input_text" if part["type"] in ("input_image", "input_file") else "text"
    return {"type": kind, "text": f"[{name} omitted: the provider refused it]"}


def _flat(parts: List[Any]) -> Any:
    """Text alone as a string: some servers accept nothing else."""
    texts = [part.get("text") if part.get("type") in ("text", "input_text") else None for part in parts]
    return parts if None in texts else "\n".join(map(str, texts))


def _drop_tools(body: Json, refused: Container[str], warnings: List[str]) -> None:
    kept = []
    for tool in body["tools"]:
        if fingerprint("tool", tool) in refused:
            name = (tool.get("function") or tool).get("name") or tool.get("type")
            warnings.append(_left_out(f"tool {str(name)[:64]}"))
            if _chosen(body.get("tool_choice")) == name:
                del body["tool_choice"]
        else:
            kept.append(tool)
    body["tools"] = kept
    if not kept:
        for key in ("tools", "tool_choice", "parallel_tool_calls"):
            body.pop(key, None)


def _chosen(choice: Any) -> Any:
    return (choice.get("function") or choice).get("name") if isinstance(choice, dict) else None
