"""Assigns the fragments of tool calls to the calls that they belong to.

Fragments identify their call in different ways: by an index or not; with an id once, never, in each fragment,
or a different one in each; with the name in the first fragment, in all, or in pieces.
:meth:`CallReader._find` holds the rules.  They use only the fragments themselves, and are tested with answers
of DeepSeek, Qwen, Mistral, Gemini, Groq, Ollama, OpenRouter and others.

Arguments are complete only when the provider has stopped: ``{}`` and ``1`` are JSON already, but may
continue.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Union

from ...json_codec import encode_json, mend
from ...types import CallPiece, Delta, Json
from ..json_end import JsonEnd
from ..surrogates import REPLACEMENT, mend_piece

Index = Union[int, str, None]


class Fragment(NamedTuple):
    """The fields of a fragment; "" or None: not in it."""

    id: str
    name: str
    arguments: str
    extra_content: Optional[Json]


_NO_ID = ("null", "None", "none")  # written by templates that have no id
MAX_CALLS = 1024  # in an answer; providers allow 128 at a time
MAX_NAME = 1000  # characters of a name; more in further pieces is garbage
_LEGACY = "function_call"  # the one call of the deprecated field, as an index


class _Call:
    """What is known about one call."""

    __slots__ = ("number", "index", "id", "name", "parts", "size", "half", "_end", "_unread")

    def __init__(self, number: int, index: Index) -> None:
        self.number = number
        self.index = index
        self.id = ""
        self.name = ""
        self.parts: List[str] = []
        self.size = 0  # characters in parts
        self.half = ""  # the first half of a surrogate pair
        self._end = JsonEnd()
        self._unread: List[str] = []  # not yet scanned for the end: that takes time, and is seldom needed

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

    Appends ``call`` deltas to a list: the number counts the calls in the order of their first appearance; id,
    name and extra_content are None unless they are new.

    :param cumulative: fragments of arguments may repeat everything before them
    """

    def __init__(self, cumulative: bool = False) -> None:
        self._cumulative = cumulative
        self._calls: List[_Call] = []
        self._by_index: Dict[Index, _Call] = {}
        self._by_id: Dict[str, _Call] = {}

    @property
    def any(self) -> bool:
        """Was there a call?"""
        return bool(self._calls)

    @property
    def too_many(self) -> bool:
        """Does the answer have too many calls?  Further ones are not read."""
        return len(self._calls) > MAX_CALLS

    def repeats(self, fragment: Json) -> bool:
        """Is a fragment about a call whose arguments are complete already?"""
        call = self._by_id.get(_word(fragment.get("id"))) or self._by_index.get(_index(fragment.get("index")))
        return call is not None and call.complete()

    def read(self, fragments: Any, out: List[Delta]) -> None:
        """The ``tool_calls`` of a delta, or of a message when there were no calls before."""
        for place, fragment in enumerate(fragments if type(fragments) is list else [fragments]):
            if type(fragment) is dict:
                self._read(fragment, _index(fragment.get("index")), place, out)
                if self.too_many:
                    return

    def read_legacy(self, function_call: Any, out: List[Delta]) -> None:
        """The deprecated ``function_call`` of a delta or message."""
        if type(function_call) is dict:
            self._read({"function": function_call}, _LEGACY, 0, out)

    def read_closing(self, calls: Any, out: List[Delta]) -> None:
        """The ``tool_calls`` of a message that repeats what was streamed: add what is missing."""
        known = len(self._calls)
        for place, fragment in enumerate(calls if type(calls) is list else [calls]):
            if type(fragment) is not dict:
                continue
            whole = _parsed(fragment)
            call = self._by_id.get(whole.id)
            if call is None and place < known and self._calls[place].name in (whole.name, ""):
                call = self._calls[place]
            if call is None:
                self._update(self._new(None), whole, out, first=True)
                if self.too_many:
                    return
            else:
                arguments = whole.arguments
                more = len(arguments) > call.size and arguments.startswith(call.text())
                rest = arguments[call.size :] if more else ""
                self._update(call, whole._replace(arguments=rest), out)

    def whole(self, name: str, arguments: str, out: List[Delta]) -> None:
        """A complete call that was found elsewhere."""
        self._update(self._new(None), Fragment("", name, arguments, None), out, first=True)

    def end(self, out: List[Delta]) -> None:
        """Release text that was held back, now that the answer is over."""
        for call in self._calls:
            if call.half:
                call.half = ""
                self._emit(call, out, arguments=REPLACEMENT)

    # ---- Which call is it?
    def _read(self, fragment: Json, index: Index, place: int, out: List[Delta]) -> None:
        function, call = fragment.get("function"), self._by_index.get(index)
        if call is not None and type(function) is dict and len(function) == 1 and len(fragment) == 2:
            # {"index", "function": {"arguments"}}: nearly all are like this
            arguments = function.get("arguments")
            if arguments and type(arguments) is str:
                arguments = self._arguments(call, arguments)
                if arguments:
                    self._emit(call, out, arguments=arguments)
                return
        parsed = _parsed(fragment)
        call = self._find(parsed, index, place)
        if call is None:
            self._update(self._new(index), parsed, out, first=True)
        else:
            self._update(call, parsed, out)

    def _find(self, fragment: Fragment, index: Index, place: int) -> Optional[_Call]:
        """The call that a fragment continues; None: it begins a new one."""
        id, name, arguments, _ = fragment
        known = self._by_id.get(id)
        if known and not (index is not None and known.index not in (None, index) and known.complete()):
            return known  # else two calls have the same id
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

    # ---- What is new about it?
    def _update(self, call: _Call, fragment: Fragment, out: List[Delta], first: bool = False) -> None:
        id, name, arguments, extra = fragment
        new_id = None
        if id and id not in self._by_id:
            self._by_id[id] = call
            if not call.id:
                call.id = new_id = id
        new_name = self._name(call, name) if name else None
        if arguments:
            arguments = self._arguments(call, arguments)
        if arguments or new_id or new_name or extra or first:
            self._emit(call, out, new_id, new_name, arguments, extra)

    def _name(self, call: _Call, name: str) -> Optional[str]:
        """The whole name, if it is new.

        Some providers send it in pieces, some send a longer one each time, some repeat it in each fragment.
        """
        if not name or name == call.name or (call.name and call.parts) or len(call.name) > MAX_NAME:
            return None
        call.name = name if name.startswith(call.name) else call.name + name
        return call.name

    def _arguments(self, call: _Call, text: str) -> str:
        """The new part of a fragment: some providers repeat everything at the end."""
        if call.half or not text.isascii():
            text, call.half = mend_piece(call.half + text)
        if call.parts and len(text) >= call.size:
            whole = call.text()
            if self._cumulative and text.startswith(whole) or text == whole and call.complete():
                text = text[len(whole) :]
        if text:
            call.add(text)
        return text

    def _emit(
        self,
        call: _Call,
        out: List[Delta],
        id: Optional[str] = None,
        name: Optional[str] = None,
        arguments: str = "",
        extra: Optional[Json] = None,
    ) -> None:
        piece: CallPiece = {"id": id, "name": name, "arguments": arguments, "extra_content": extra}
        out.append(("call", call.number, piece))


def _parsed(fragment: Json) -> Fragment:
    function = fragment.get("function")
    if type(function) is not dict:
        function = fragment  # flat
    arguments = function.get("arguments")
    if type(arguments) is not str:
        arguments = "" if arguments is None else encode_json(arguments).decode()
    extra = fragment.get("extra_content")
    id = _word(fragment.get("id"))
    return Fragment(
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
