"""Cures for messages: roles and their order, content, ids, images and files."""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, Sequence

from ...types import Json
from ..refusal_words import Reading, normalized
from ..sent import Sent
from .ladder import Cure, blames, objects, says, without


# ---- Roles and order
def developer(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("system", {"developer_role": "system"})


def system(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """One system message at the head, then neighbours merged, then system messages as user messages."""
    if objects(readings, "order") or not objects(readings, "unsupported"):
        yield Cure("first", {"developer_role": "system", "system_position": "first"})
        yield Cure("merged", {"system_position": "first", "merge_same_role": True})
    yield Cure("as the user", {"system_position": "user"})
    yield Cure("merged", {"system_position": "user", "merge_same_role": True})


def alternation(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    position = "first" if sent.profile.system_position == "keep" else sent.profile.system_position
    yield Cure("merged", {"merge_same_role": True, "system_position": position})
    yield Cure("as the user", {"merge_same_role": True, "system_position": "user"})


def after_tool(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("answered", {"assistant_after_tool": True})


def first_message(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("as the user", {"system_position": "user"})


def last_message(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("a user at the end", {"user_message": "last"})


def user_message(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    yield Cure("a user", {"user_message": "required"})


# ---- Ids and content
def call_id(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    if not says(readings, r"\b9\b|nine"):
        yield Cure("of 40", {"tool_call_id": "max40"})
    yield Cure("of 9", {"tool_call_id": "alnum9"})


def content(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """An empty text instead of null, then a blank; for a list of parts, without those that are not text."""
    if sent.has_empty_content:
        for text in ("", " ")[0 if sent.profile.empty_content is None else 1 :]:
            yield Cure(f"at least {text!r}", {"empty_content": text})
    if any(sent.media(sent.message(reading.path)) for reading in readings if sent.message(reading.path)):
        yield from media(sent, readings)


MEDIA_WORDS = {
    "image": r"image|vision|picture|visual|图",
    "file": r"\bfiles?\b|pdf|document|文件",
    "audio": r"audio|音",
}


def media(sent: Sent, readings: Sequence[Reading]) -> Iterator[Cure]:
    """Without the images or files that the refusal may mean: those of one format, those of the message that
    it names, or all.
    """
    for kind, parts in _media_meant(sent, readings).items():
        of_format = [part for part in parts if blames(readings, rf"\b{_format(part)}\b")]
        if of_format:
            yield without(f"{kind} of a format", "part", of_format)
        yield without(kind, "part", parts)
    everything = [part for parts in sent.media().values() for part in parts]
    if everything:
        yield without("all of them", "part", everything)


def _media_meant(sent: Sent, readings: Sequence[Reading]) -> Dict[str, List[Json]]:
    """The media parts by kind: of the message that is named, or else of all; of the kinds that are named, or
    else of all.
    """
    messages = [message for message in (sent.message(reading.path) for reading in readings) if message]
    there = next(filter(None, map(sent.media, messages)), sent.media())
    return {kind: parts for kind, parts in there.items() if says(readings, MEDIA_WORDS[kind])} or there


def _format(part: Json) -> str:
    """A pattern for the format of a data URL or an address, such as ``bmp``; without a format, one that never
    matches.
    """
    value = part.get("image_url") or (part.get("file") or part).get("file_data") or ""
    url = str(value.get("url") if isinstance(value, dict) else value)
    found = re.match(r"data:\w+/([\w.+-]+)", url) or re.search(r"\.(\w{2,5})(?:\?|\Z)", url[-20:])
    return re.escape(normalized(found[1])) if found else r"\Z\b"
