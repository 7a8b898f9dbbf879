"""Why something failed, in words that may go into a log.

A provider may quote the request that it refuses, and our own messages quote the value that is wrong.  So that
no prompt gets into a log, every run of ``RUN`` or more characters that also occurs in the request is cut out,
whether the message quotes it decoded or as JSON.
"""

from __future__ import annotations

import json
from typing import Any, Generator, Iterator, List, Set

from ..convert.json_steps import write_steps
from ..cooperative import run_cooperatively
from ..errors import ApiError
from ..log import mask
from ..providers.redaction import RUN, shared_runs, without_runs
from ..types import Json

MOST_READ = 4000  # characters of a message
LONGEST = 300  # characters of a reason
WINDOW = 1 << 17  # characters of a request in one step, a millisecond or two


async def reason_of(error: ApiError, request: Json) -> str:
    """The message of an error without what it quotes of the request; see :func:`reason_steps`.

    It is remembered with the error.
    """
    if error.reason is None:
        error.reason = await run_cooperatively(reason_steps(error.message, request))
    return error.reason


def reason_steps(message: str, request: Json) -> Generator[None, None, str]:
    """``message`` without what it quotes, and at most ``LONGEST`` characters of it.

    A generator that yields between its steps; see :mod:`rproxy.cooperative`.

    :param request: the body of the client's request, with its history
    """
    message = mask(message[:MOST_READ])
    if len(message) >= RUN:
        runs: Set[str] = set()
        pieces: List[bytes] = []
        yield from write_steps(request, pieces)
        for text in _overlapping(pieces):
            runs |= shared_runs([message], [text])
            yield
        for texts in _batches(_spellings(request)):
            runs |= shared_runs([message], texts)
            yield
        message = without_runs(message, runs)
    message = " ".join(message.split())
    return message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"


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
    """Texts in lists of about ``WINDOW`` characters."""
    batch: List[str] = []
    size = 0
    for text in texts:
        for window in _windows(text):
            batch.append(window)
            size += len(window) + RUN
        if size >= WINDOW:
            yield batch
            batch, size = [], 0
    yield batch


def _spellings(value: Any) -> Iterator[str]:
    """The texts of a request in the forms in which they do not stand in its JSON; "" between long stretches
    of other values.
    """
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += value.keys()
            todo += value.values()
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, str) and value:
            escaped = json.dumps(value)
            if len(escaped) != len(value) + 2 and len(escaped) >= RUN:
                yield value
                yield escaped
        else:
            yield ""
