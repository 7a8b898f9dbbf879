"""What a provider objects to, piece by piece: its words, its code, and the path into the request that it
names.

One refusal may hold several complaints (FastAPI's ``detail``, Google's ``fieldViolations``, zod's
``issues``), and one complaint may be repeated, wrapped by each gateway on the way.  They are found wherever
they are: in objects at any depth, in JSON inside a text, in the repr of a Python dict, in pydantic's own
report.  What is left of a text without them is a complaint of its own.  Nothing here raises.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterator, List, NamedTuple, Tuple

from ..types import Json

MAX_DEPTH = 10  # of objects inside objects, and of JSON inside texts
MAX_COMPLAINTS = 50
MAX_TEXT = 4000  # characters of one text that are read: its beginning and its end
MAX_ALL = 16_000  # characters of all texts

TEXTS = (
    "message", "msg", "error", "error_msg", "error_message", "errmsg", "error_description", "detail",
    "description", "Message", "raw", "reason", "issue", "title", "status_msg",
)  # fmt: skip
PATHS = ("loc", "path", "param", "field", "pointer", "instancePath", "parameter")
CODES = ("type", "code", "error_code", "keyword")
PATH = re.compile(r"[$/]?[\w$]+(?:[./\[\]'\"\-]+[\w$]+)*\]?")

REPR_LOC = re.compile(r"['\"]loc['\"]\s*:\s*[\[(]([^\])]*)[\])]")
REPR_TEXT = re.compile(r"['\"](msg|type)['\"]\s*:\s*(?:'([^']*)'|\"([^\"]*)\")")
REPORT = re.compile(r"^([\w$.\-\[\]]+)\n +(.+?) \[type=(\w+)[^\n]*$", re.M)  # pydantic's, in lines


class Complaint(NamedTuple):
    """One objection of a provider.

    ``text``: in the provider's words. ``path``: keys and indexes into the request, the outermost first.
    """

    text: str
    code: str = ""
    path: Tuple[str, ...] = ()


def find_complaints(body: Any) -> Tuple[Complaint, ...]:
    """All complaints of an answer.

    :param body: its JSON, or its text
    """
    return tuple(dict.fromkeys(_Collector().collect(body, 0)))


class _Collector:
    """Collects complaints, and stops after a number of them."""

    def __init__(self) -> None:
        self._left, self._room = MAX_COMPLAINTS, MAX_ALL

    def collect(self, value: Any, depth: int) -> Iterator[Complaint]:
        if depth > MAX_DEPTH or self._left <= 0 or self._room <= 0:
            return
        if isinstance(value, str):
            yield from self._text(value, Complaint(""), depth)
        elif isinstance(value, dict):
            yield from self._object(value, depth)
        elif isinstance(value, list):
            for entry in value:
                yield from self.collect(entry, depth + 1)

    def _object(self, value: Json, depth: int) -> Iterator[Complaint]:
        paths = [path_of(value[key]) for key in PATHS if value.get(key)]
        code = " ".join(value[key] for key in CODES if isinstance(value.get(key), str))
        shell = Complaint("", code[:200], next((path for path in paths if path), ()))
        texts = [value[key] for key in TEXTS if isinstance(value.get(key), str) and value[key].strip()]
        # Some providers put a sentence where the path belongs.
        texts += [value[key] for key in PATHS if isinstance(value.get(key), str) and not path_of(value[key])]
        for text in texts:
            yield from self._text(text, shell, depth)
        if shell.path and not texts:
            yield from self._found(shell)
        for key, inner in value.items():
            if isinstance(inner, (dict, list)) and key not in ("input", "ctx", *PATHS):
                yield from self.collect(inner, depth + 1)

    def _text(self, text: str, shell: Complaint, depth: int) -> Iterator[Complaint]:
        """The complaints in a text, and in the JSON or reprs inside it."""
        text = text if len(text) <= MAX_TEXT else text[: MAX_TEXT // 2] + " … " + text[-MAX_TEXT // 2 :]
        for match in REPORT.finditer(text):
            yield from self._found(Complaint(match[2], match[3], path_of(match[1])))
        text = REPORT.sub(" ", text)
        text, packed = _unpacked(text)
        for value in packed:
            yield from self.collect(value, depth + 1)
        text, complaints = _of_reprs(text)
        for complaint in complaints:
            yield from self._found(complaint)
        if re.search(r"[^\W\d_]", text):
            yield from self._found(shell._replace(text=text.strip()))

    def _found(self, complaint: Complaint) -> Iterator[Complaint]:
        if self._left > 0 and self._room > 0:
            self._left -= 1
            self._room -= len(complaint.text)
            yield complaint


def path_of(value: Any) -> Tuple[str, ...]:
    """The steps of a path: ``messages[1].content``, ``/messages/1``, ``$.a.b``, ``["body", "a", 0]``; () for
    anything else.
    """
    if isinstance(value, (list, tuple)):
        steps = [str(step) for step in value if isinstance(step, (str, int))]
    elif isinstance(value, str) and PATH.fullmatch(value):
        steps = re.findall(r"[\w$\-]+", value)
    else:
        return ()
    while steps and steps[0] in ("body", "$", "request", "root", ""):
        steps = steps[1:]
    return tuple(steps)


def _of_reprs(text: str) -> Tuple[str, List[Complaint]]:
    """The text without the Python dicts that have a ``loc``, and the complaints in these."""
    complaints: List[Complaint] = []
    found = REPR_LOC.search(text)
    while found is not None and len(complaints) < MAX_COMPLAINTS:
        start = max(text.rfind("{", 0, found.start()), 0)
        end = max(_end_of_dict(text, start), found.end())
        steps = [step.strip().strip("'\"") for step in found[1].split(",")]
        words = {match[1]: match[2] or match[3] or "" for match in REPR_TEXT.finditer(text, start, end)}
        path = path_of(list(filter(None, steps)))
        complaints.append(Complaint(words.get("msg", ""), words.get("type", ""), path))
        text = text[:start] + " " + text[end:]
        found = REPR_LOC.search(text)
    return text, complaints


def _end_of_dict(text: str, start: int) -> int:
    """The position behind the brace that closes the one at ``start``."""
    depth = 0
    for place in re.finditer(r"[{}]", text[start:]):
        depth += 1 if place[0] == "{" else -1
        if depth == 0:
            return start + place.end()
    return len(text)


def _unpacked(text: str) -> Tuple[str, List[Any]]:
    """The text without the JSON in it, and that JSON."""
    packed: List[Any] = []
    decoder, start = json.JSONDecoder(), 0
    for _ in range(20):
        match = re.compile(r"[\[{]\s*[\"{\[]").search(text, start)
        if match is None:
            break
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            start = match.end()
            continue
        if _is_answer(value):
            packed.append(value)
            text = text[: match.start()] + " " + text[end:]
            start = match.start()
        else:
            start = end
    return text, packed


def _is_answer(value: Any) -> bool:
    """Is it an object with a message, rather than a list of allowed words?"""
    return isinstance(value, dict) or isinstance(value, list) and any(isinstance(v, dict) for v in value)
