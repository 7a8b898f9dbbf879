"""Why something failed, in a form that may go into a log.

A provider may quote the request that it refuses, and our own messages quote the value that is wrong.  So that
no prompt gets into a log, every run of ``RUN`` or more characters that also occurs in the request is cut out,
whether the message quotes it decoded or as JSON.  Shorter texts of the request are cut out where they occur
as a whole, except names of the API and of the configuration.
"""

from __future__ import annotations

import json
import re
from typing import Any, Generator, Iterator, List, Set

from ..convert.json_steps import write_steps
from ..cooperative import run_cooperatively
from ..errors import ApiError
from ..log import mask
from ..providers.redaction import CUT, MIN_TEXT, RUN, STRUCTURE, shared_runs, without_runs
from ..types import Json

MAX_READ = 4000  # characters of a message
MAX_REASON = 300  # characters of a reason
MAX_ESCAPE = 12  # characters, as in \ud83d\ude00
WINDOW = 1 << 17  # characters of a request in one step, a millisecond or two
BATCH = 1 << 14  # the same of single texts, which take longer


async def reason_of(error: ApiError, request: Json) -> str:
    """An error's message without quotations from the request; see :func:`reason_steps`.

    It is remembered with the error.
    """
    if error.reason is None:
        error.reason = await run_cooperatively(reason_steps(error.message, request))
    return error.reason


def reason_steps(message: str, request: Json) -> Generator[None, None, str]:
    """``message`` without its quotations, cut to ``MAX_REASON`` characters.

    A generator that yields between its steps; see :mod:`rproxy.cooperative`.

    :param request: the body of the client's request, with its history
    """
    message = mask(message[:MAX_READ])
    runs: Set[str] = set()
    quoted: Set[str] = set()
    if len(message) >= RUN:
        pieces: List[bytes] = []
        yield from write_steps(request, pieces)
        for text in _overlapping(pieces):
            runs |= shared_runs([message], [text])
            yield
    for texts in _batches(_texts(request)):
        quoted.update(text for text in texts if MIN_TEXT <= len(text) < RUN and text in message)
        runs |= shared_runs([message], [form for text in texts for form in _other_spellings(text)])
        yield
    message = without_runs(message, runs)
    for text in sorted(quoted, key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", CUT.strip(), message)
    message = " ".join(message.split())
    return message if len(message) <= MAX_REASON else message[: MAX_REASON - 1] + "…"


def _windows(text: str) -> Iterator[str]:
    """Pieces of a long text that overlap, so that none cuts a run in two."""
    for start in range(0, max(len(text) - RUN, 0) + 1, WINDOW):
        yield text[start : start + WINDOW + RUN]


def _overlapping(pieces: List[bytes]) -> Iterator[str]:
    """Windows of a text in pieces."""
    text = ""
    for piece in pieces:
        text += piece.decode("utf-8", "replace")
        if len(text) > WINDOW:
            yield text
            text = text[-RUN:]
    yield text


def _batches(texts: Iterator[str]) -> Iterator[List[str]]:
    """Texts in lists of about ``BATCH`` characters."""
    batch: List[str] = []
    size = 0
    for text in texts:
        for window in _windows(text) if len(text) > WINDOW else (text,):
            batch.append(window)
            size += len(window) + RUN
            if size >= BATCH:
                yield batch
                batch, size = [], 0
    yield batch


def _other_spellings(text: str) -> List[str]:
    """The forms of a text in which it does not occur in the JSON of the request."""
    if len(text) * MAX_ESCAPE < RUN:
        return []
    escaped = json.dumps(text)
    return [text, escaped] if len(escaped) != len(text) + 2 and len(escaped) >= RUN else []


def _texts(request: Json) -> Iterator[str]:
    """The texts of a request, except names; "" in place of other values, so that long stretches of them are
    steps, too.
    """
    todo: List[Any] = [request]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                todo.append("" if key in STRUCTURE and isinstance(inner, str) and len(inner) < RUN else inner)
                if len(key) >= RUN:
                    todo.append(key)
        elif isinstance(value, list):
            todo += value
        else:
            yield value if isinstance(value, str) else ""
