"""The fragments of tool calls, put together to the calls they belong to.

What a fragment says about its call differs: an index or none; an id once, never, in each fragment, or another
one in each; the name in the first fragment, in all, or in pieces.  :meth:`CallReader._find` holds the rules.
They only use what the fragments say about each other, and are tested with answers of DeepSeek, Qwen, Mistral,
Gemini, Groq, Ollama, OpenRouter and others.

Arguments are only complete when the provider has ended: ``{}`` and ``1`` are JSON already and may go on.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple, Union

from ...types import Json
from ..json_end import JsonEnd
from ..sse import encode_json
from ..surrogates import REPLACEMENT, mend, mend_piece

Delta = Tuple[Any, ...]
Index = Union[int, str, None]

Said = Tuple[
    str, str, str, Optional[Json]
]  # id, name, arguments, extra_content of a fragment; "" or None: it does not say

_NO_ID = ("null", "None", "none")  # written by templates that have no id
_LEGACY = "function_call"  # the one call of the deprecated field, as an index


class _Call:
    """What is known of one call."""

    __slots__ = ("key", "index", "id", "name", "parts", "size", "half", "_end", "_unread")

    def __init__(self, key: int, index: Index) -> None:
        self.key = key
        self.index = index
        self.id = ""
        self.name = ""
        self.parts: List[str] = []
        self.size = 0  # characters in parts
        self.half = ""  # the first half of a surrogate pair
        self._end = JsonEnd()
        self._unread: List[str] = []  # what the end was not looked for in; that costs, and is seldom needed

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.size += len(text)
        self._unread.append(text)

    def text(self) -> str:
        self.parts = ["".join(self.parts)]
        return self.parts[0]

    def complete(self) -> bool:
        """Are the arguments a whole JSON object?"""
        if self._unread:
            self._end.feed("".join(self._unread))
            self._unread.clear()
        return self._end.reached


class CallReader:
    """All calls of one answer.

    Writes deltas ``("call", key, {"id", "name", "arguments", "extra_content"})``: the key counts the calls in
    the order of their first appearance; id, name and extra_content are None unless they are news, the name is
    the whole name so far, arguments is a fragment.

    :param cumulative: fragments of arguments may repeat everything before them
    """

    def __init__(self, cumulative: bool = False) -> None:
        self._cumulative = cumulative
        self._calls: List[_Call] = []
        self._by_index: Dict[Index, _Call] = {}
        self._by_id: Dict[str, _Call] = {}

    @property
    def any(self) -> bool:
        return bool(self._calls)

    def read(self, fragments: Any, out: List[Delta]) -> None:
        """The ``tool_calls`` of a delta, or of a message when there were no calls before."""
        for place, fragment in enumerate(fragments if type(fragments) is list else [fragments]):
            if type(fragment) is dict:
                self._read(fragment, _index(fragment.get("index")), place, out)

    def read_legacy(self, function_call: Any, out: List[Delta]) -> None:
        """The deprecated ``function_call`` of a delta or message."""
        if type(function_call) is dict:
            self._read({"function": function_call}, _LEGACY, 0, out)

    def read_closing(self, calls: Any, out: List[Delta]) -> None:
        """The ``tool_calls`` of a message that repeats what was streamed before: add what is missing."""
        known = len(self._calls)
        for place, fragment in enumerate(calls if type(calls) is list else [calls]):
            if type(fragment) is not dict:
                continue
            said = id, name, arguments, extra = _said(fragment)
            call = self._by_id.get(id)
            if call is None and place < known and self._calls[place].name in (name, ""):
                call = self._calls[place]
            if call is None:
                self._update(self._new(None), said, out, first=True)
            else:
                more = len(arguments) > call.size and arguments.startswith(call.text())
                self._update(call, (id, name, arguments[call.size :] if more else "", extra), out)

    def whole(self, name: str, arguments: str, out: List[Delta]) -> None:
        """A call that was found elsewhere, complete."""
        self._update(self._new(None), ("", name, arguments, None), out, first=True)

    def end(self, out: List[Delta]) -> None:
        """The answer is over: what was held back."""
        for call in self._calls:
            if call.half:
                call.half = ""
                self._tell(call, out, arguments=REPLACEMENT)

    # ---- which call?
    def _read(self, fragment: Json, index: Index, place: int, out: List[Delta]) -> None:
        function, call = fragment.get("function"), self._by_index.get(index)
        if call is not None and type(function) is dict and len(function) == 1 and len(fragment) == 2:
            arguments = function.get(
                "arguments"
            )  # {"index", "function": {"arguments"}}: almost all are like this
            if arguments and type(arguments) is str:
                arguments = self._arguments(call, arguments)
                if arguments:
                    self._tell(call, out, None, None, arguments)
                return
        said = _said(fragment)
        call = self._find(said, index, place)
        if call is None:
            self._update(self._new(index), said, out, first=True)
        else:
            self._update(call, said, out)

    def _find(self, said: Said, index: Index, place: int) -> Optional[_Call]:
        """The call that a fragment continues; None: it begins a new one."""
        id, name, arguments, _ = said
        known = self._by_id.get(id)
        if known and not (index is not None and known.index not in (None, index) and known.complete()):
            return known  # otherwise two calls got the same id
        call = self._by_index.get(index) if index is not None else self._calls[-1] if self._calls else None
        if call is None or not name:
            return call
        again = name == call.name and (
            not arguments or not call.size or len(arguments) == call.size and arguments == call.text()
        )
        if id and not known:
            if call.id or (index is None and call.name and not again):
                return None
        elif index is None and place:
            return None  # a neighbour in the same list
        return None if call.complete() and not again else call

    def _new(self, index: Index) -> _Call:
        call = _Call(len(self._calls), index)
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    # ---- what is new about it?
    def _update(self, call: _Call, said: Said, out: List[Delta], first: bool = False) -> None:
        id, name, arguments, extra = said
        new_id = None
        if id and id not in self._by_id:
            self._by_id[id] = call
            if not call.id:
                call.id = new_id = id
        name_now = self._name(call, name) if name else None
        if arguments:
            arguments = self._arguments(call, arguments)
        if arguments or new_id or name_now or extra or first:
            self._tell(call, out, new_id, name_now, arguments, extra)

    def _name(self, call: _Call, name: str) -> Optional[str]:
        """The whole name, if it is news.

        Some send it in pieces, some longer each time, some again and again.
        """
        if not name or name == call.name or (call.name and call.parts):
            return None
        call.name = name if name.startswith(call.name) else call.name + name
        return call.name

    def _arguments(self, call: _Call, text: str) -> str:
        """What is new in a fragment: some providers send everything again at the end."""
        if call.half or not text.isascii():
            text, call.half = mend_piece(call.half + text)
        if call.parts and len(text) >= call.size:
            whole = call.text()
            if self._cumulative and text.startswith(whole) or text == whole and call.complete():
                text = text[len(whole) :]
        if text:
            call.add(text)
        return text

    def _tell(
        self,
        call: _Call,
        out: List[Delta],
        id: Optional[str] = None,
        name: Optional[str] = None,
        arguments: str = "",
        extra: Optional[Json] = None,
    ) -> None:
        out.append(
            ("call", call.key, {"id": id, "name": name, "arguments": arguments, "extra_content": extra})
        )


def _said(fragment: Json) -> Said:
    function = fragment.get("function")
    if type(function) is not dict:
        function = fragment  # flat
    arguments = function.get("arguments")
    if type(arguments) is not str:
        arguments = "" if arguments is None else encode_json(arguments).decode()
    extra = fragment.get("extra_content")
    id = _word(fragment.get("id"))
    return (
        "" if id in _NO_ID else id,
        _word(function.get("name")),
        arguments,
        extra if extra and type(extra) is dict else None,
    )


def _word(value: Any) -> str:
    return mend(value.strip()) if value and type(value) is str else ""


def _index(value: Any) -> Index:
    if type(value) is str and value.isdecimal() and len(value) < 10:
        return int(value)
    return value if type(value) is int else None
