"""Chat requests that continue an earlier one.

The chat request of a turn begins with the messages of the previous turn; otherwise no provider could use its
prompt cache.  So the JSON of messages is kept, and only new messages are encoded.
"""

from __future__ import annotations

import marshal
from contextlib import suppress
from itertools import takewhile
from typing import Any, List, NamedTuple, Union

from ..convert.json_steps import MANY, Steps, is_large, write_steps
from ..json_codec import encode_json
from ..types import Json
from .owner_cache import OwnerCache, text_memory

MAX_BYTES = 32 << 20  # of memory for all messages
MAX_BYTES_OF_OWNER = MAX_BYTES // 2
MAX_NEW = 1 << 20  # characters of new messages; larger ones are not kept

_NAMES = ("messages", "input")  # of the fields with the messages, in either API
_VERSION = 2  # of marshal: equal values have equal bytes


class _Part(NamedTuple):
    """Some messages that follow each other.

    ``key``: the messages, or their bytes if they contain more than texts: 1 equals True, but has other JSON.
    ``json``: their JSON, without brackets.  ``size``: in memory; 0: they are not to be kept.
    """

    length: int
    key: Union[List[Json], bytes]
    json: bytes
    size: int

    @classmethod
    def of(cls, messages: List[Json], written: bytes) -> _Part:
        """:param written: the JSON"""
        key: Union[List[Json], bytes] = messages
        try:
            size = text_memory(messages, len(written)) + len(written)
            if not _only_texts(messages):
                key = marshal.dumps(messages, _VERSION)
        except ValueError:  # they are nested too deeply, or there are many small values
            size = 0
        return cls(len(messages), key, written, size)

    def stands_for(self, messages: List[Json]) -> bool:
        with suppress(RecursionError, ValueError):  # deeply nested messages were not kept
            return self.key == (messages if type(self.key) is list else marshal.dumps(messages, _VERSION))
        return False


class _History:
    """The messages of one request."""

    def __init__(self, parts: List[_Part]) -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)

    def begin_of(self, messages: List[Json]) -> List[_Part]:
        """The parts that ``messages`` begins with."""
        at = 0
        for number, part in enumerate(self.parts):
            if not part.stands_for(messages[at : at + part.length]):
                return self.parts[:number]
            at += part.length
        return self.parts


class RecentMessages:
    """The most recently encoded messages, by the owner of the key that came with their turn."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_bytes_of_owner: int = MAX_BYTES_OF_OWNER) -> None:
        self._histories: OwnerCache[_History] = OwnerCache(max_bytes, max_bytes_of_owner)

    def write(self, owner: str, request: Json, pieces: List[bytes]) -> Steps:
        """:func:`~rproxy.convert.json_steps.write_large` for the request of a turn."""
        before = b"{"
        for key, value in request.items():
            pieces.append(b"%b%b:" % (before, encode_json(key)))
            before = b","
            if key in _NAMES and type(value) is list:
                yield from self._write_messages(owner, value, pieces)
            else:
                yield from write_steps(value, pieces)
        pieces.append(b"}")

    def _write_messages(self, owner: str, messages: List[Json], pieces: List[bytes]) -> Steps:
        begun = [(history, history.begin_of(messages)) for history in self._histories.of(owner)]
        history, known = max(begun, key=lambda one: len(one[1]), default=(None, []))
        rest = messages[sum(part.length for part in known) :]
        if is_large(rest, MAX_NEW):
            return (yield from write_steps(messages, pieces))
        parts = [*known]
        for at in range(0, len(rest), MANY):
            written: List[bytes] = []
            yield from write_steps(rest[at : at + MANY], written)
            parts.append(_Part.of(rest[at : at + MANY], b"".join(written)[1:-1]))
            yield
        pieces += [b"[", b",".join([part.json for part in parts]), b"]"]
        if history is not None and len(known) == len(history.parts):
            self._histories.forget(owner, [history])  # the new one continues it
        new = _History([*takewhile(lambda part: part.size, parts)])
        if new.parts:
            self._histories.keep(owner, [(new, new, new.size)])


def _only_texts(values: List[Any]) -> bool:
    """Do the messages contain only texts?"""
    found = [*values]
    for value in found:
        if type(value) is dict:
            found += value.values()
        elif type(value) is list:
            found += value
        elif type(value) is not str and value is not None:
            return False
    return True
