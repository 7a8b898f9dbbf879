"""Matches the calls of a history with their outputs."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Set

from ...types import AnyItem
from ..json_steps import json_key


class ToolCall:
    """A call of the history, with all the outputs that answer it."""

    __slots__ = ("id", "name", "arguments", "outputs")

    def __init__(self, call_id: str, name: str, arguments: str) -> None:
        self.id, self.name, self.arguments = call_id, name, arguments
        self.outputs: List[Any] = []


class OutputMatcher:
    """Matches calls and outputs, in any order.

    :param calls: all the calls that will come
    """

    def __init__(self, calls: Iterable[AnyItem]) -> None:
        # The last call of each id: some providers number the calls of every answer alike.
        self._calls: Dict[str, ToolCall] = {}
        self._stems: Dict[str, Optional[str]] = {}  # of those calls
        self._early: Dict[str, List[Any]] = {}  # outputs whose call comes later
        self._texts: Dict[int, Set[str]] = {}  # of the outputs in a list that has several, by its identity
        self._to_come: Dict[str, int] = {}  # by call id; making a Counter takes longer
        for item in calls:
            call_id = str(item["call_id"])
            self._to_come[call_id] = self._to_come.get(call_id, 0) + 1

    def repeats(self, call: ToolCall, item_stem: Optional[str]) -> bool:
        """Is this a call that is already waiting for its output, repeated by the client?"""
        known = self._calls.get(call.id)
        if known is None or known.outputs or (known.name, known.arguments) != (call.name, call.arguments):
            return False
        if item_stem is not None and self._stems[call.id] not in (None, item_stem):
            return False  # two answers of ours: the provider numbers the calls of every answer alike
        self._to_come[call.id] -= 1
        return True

    def add(self, call: ToolCall, item_stem: Optional[str]) -> None:
        """Add a call, and attach the outputs that came before it."""
        self._calls[call.id], self._stems[call.id] = call, item_stem
        self._to_come[call.id] -= 1
        call.outputs = self._early.pop(call.id, [])

    def match(self, item: AnyItem, output: Any) -> bool:
        """Attach an output to its call.

        :param item: an output item
        :param output: its content
        :returns: False if there is no such call
        """
        call_id = str(item.get("call_id"))
        if call_id in self._calls:
            outputs = self._calls[call_id].outputs
        elif self._to_come.get(call_id):
            outputs = self._early.setdefault(call_id, [])
        else:
            return False
        if self._is_new(output, outputs):  # otherwise the client repeats itself
            outputs.append(output)
        return True

    def _is_new(self, output: Any, outputs: List[Any]) -> bool:
        if not outputs:
            return True
        known = self._texts.setdefault(id(outputs), set())
        if not known:
            known.update(map(json_key, outputs))
        before = len(known)
        known.add(json_key(output))
        return len(known) > before
