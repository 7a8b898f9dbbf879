"""Calls and outputs of clients that are careless with ids, or repeat items that the server already has.

Chat Completions pairs a call and its output by id alone, so every call and every output needs one.  Some
clients send ``"call_id": null`` (and ``tool_search`` items that a service ran carry none): such an output
answers the oldest open call before it.  Others send a whole turn again together with ``previous_response_id``
(:func:`without_repeats`).
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Dict, List, Optional, Sequence, Set, Tuple

from ...types import AnyItem
from ..json_steps import json_key
from ..tools.kinds import CALL_KINDS, OUTPUT_KINDS


def is_call(item: AnyItem) -> bool:
    """Is the item a call of the model? Unknown kinds are recognised by a name and a call_id."""
    item_type = item.get("type")
    if item_type == "message" or not isinstance(item_type, str):  # as most are
        return False
    return item_type in CALL_KINDS or item_type.endswith("_call") and isinstance(item.get("call_id"), str)


def is_output(item: AnyItem) -> bool:
    """Is the item the output of a call?"""
    item_type = item.get("type")
    if item_type == "message" or not isinstance(item_type, str):
        return False
    return (
        item_type in OUTPUT_KINDS
        or item_type.endswith("_call_output")
        and isinstance(item.get("call_id"), str)
    )


def with_call_ids(items: Sequence[AnyItem]) -> List[AnyItem]:
    """The items, each call and each output with a ``call_id``.

    A call without one uses its own id (``local_shell_call`` of old clients), else by its number among such
    calls, which stays the same as the history grows.  An output without one belongs to the oldest open call
    of the last run of calls before it, else to the last open call; if there is none, it stays as it is.
    """
    for item in items:
        call_id = item.get("call_id")
        if not (call_id and isinstance(call_id, str)) and (is_call(item) or is_output(item)):
            return _paired(items)
    return list(items)


def _paired(items: Sequence[AnyItem]) -> List[AnyItem]:
    paired: List[AnyItem] = []
    calls = _OpenCalls()
    nameless = 0
    for item in items:
        call_id = _call_id(item)
        if is_call(item):
            if not call_id:
                call_id = item["id"] if isinstance(item.get("id"), str) and item["id"] else ""
                if not call_id:
                    call_id, nameless = f"call_{nameless}", nameless + 1
                item = {**item, "call_id": call_id}
            calls.add(call_id)
        elif is_output(item):
            oldest = calls.oldest()
            if not call_id and oldest is not None:
                call_id = oldest
                item = {**item, "call_id": call_id}
            calls.close(call_id)
        elif item.get("type") != "reasoning" and item.get("role") != "assistant":
            calls.end_run()
        paired.append(item)
    return paired


class _OpenCalls:
    """The calls without an output so far; those with nothing but assistant items between them form a run."""

    def __init__(self) -> None:
        self._runs: List[Dict[int, str]] = []  # the number of a call -> its id
        self._numbers: Dict[str, Dict[int, Deque[int]]] = {}  # id -> place of a run -> numbers
        self._in_run = False
        self._count = 0

    def add(self, call_id: str) -> None:
        if not self._in_run:
            self._runs.append({})
            self._in_run = True
        self._count += 1
        self._runs[-1][self._count] = call_id
        places = self._numbers.setdefault(call_id, {})
        places.setdefault(len(self._runs) - 1, deque()).append(self._count)

    def oldest(self) -> Optional[str]:
        """The first open call of the last run that has one."""
        while self._runs and not self._runs[-1]:
            self._runs.pop()
        return next(iter(self._runs[-1].values())) if self._runs else None

    def close(self, call_id: str) -> None:
        """An output has come: for the first call of that id in each run."""
        self.end_run()
        left: Dict[int, Deque[int]] = {}
        for place, numbers in self._numbers.pop(call_id, {}).items():
            del self._runs[place][numbers.popleft()]
            if numbers:
                left[place] = numbers
        if left:
            self._numbers[call_id] = left

    def end_run(self) -> None:
        self._in_run = False


def without_repeats(history: Sequence[AnyItem], new_items: Sequence[AnyItem]) -> List[AnyItem]:
    """``new_items`` without the calls and outputs that ``history`` already has.

    A call is a repetition when the last call of its id has the same name and arguments; an output when that
    call has this very output.  Some providers number the calls of every answer alike, so an older call does
    not count.

    :param history: the items of the conversation that the server already has
    :param new_items: what the client sent beside ``previous_response_id`` or ``conversation``
    """
    calls: Dict[str, Tuple[object, ...]] = {}
    outputs: Dict[str, List[AnyItem]] = {}
    for item in history:
        call_id = _call_id(item)
        if is_call(item):
            calls[call_id], outputs[call_id] = _meaning(item), []
        elif is_output(item):
            outputs.setdefault(call_id, []).append(item)
    known: Dict[str, Set[str]] = {}
    kept: List[AnyItem] = []
    for item in new_items:
        call_id = _call_id(item)
        if is_call(item) and calls.get(call_id) == _meaning(item):
            continue
        if is_output(item) and call_id in outputs:
            if call_id not in known:
                known[call_id] = set(map(_output, outputs[call_id]))
            if _output(item) in known[call_id]:
                continue
        kept.append(item)
    return kept


def _call_id(item: AnyItem) -> str:
    call_id = item.get("call_id")
    return call_id if isinstance(call_id, str) else ""


def _output(item: AnyItem) -> str:
    return json_key(item.get("output"))


def _meaning(item: AnyItem) -> Tuple[object, ...]:
    """The content of a call, without its ids and its status."""
    return tuple(item.get(key) for key in ("type", "namespace", "name", "arguments", "input", "action"))
