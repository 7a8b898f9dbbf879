"""A large chunk of a chat answer as several small ones that mean the same.

A provider may send a whole answer in one chunk.  What is made of it should not be one long step either: a
text of megabytes becomes many deltas, and so do many tool calls.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, List, Optional, Tuple

from ...types import Json
from ..json_steps import is_large
from .fields import REASONING_KEYS

TEXT = 1 << 15  # characters of a piece
CALLS = 16  # tool calls of a piece
LOOKED_AT = 5000  # tool calls that are looked at in one step
CHOICES = 100  # choices of a piece
PARTS = 500  # content parts of a piece
TOKENS = 100  # tokens with their probabilities, and with twenty others, of a piece
_LISTS = ("annotations", "images")
_TEXTS = (*REASONING_KEYS, "content", "refusal")  # in the order in which they are read


def split(
    chunk: Json, begun: bool = False, repeats: Callable[[Json], bool] = lambda call: False
) -> Iterator[Optional[Json]]:
    """The chunks that say the same, in order; the chunk itself if it is of a form that must stay whole.

    None is a step without a chunk.

    :param begun: something came before it, so that a whole message repeats it
    :param repeats: may a call repeat one that is complete, which only its whole arguments tell?  It is asked
        when what comes before the call has been read
    """
    choices = chunk.get("choices")
    if type(choices) is list and len(choices) > CHOICES and not any(map(_is_whole, choices)):
        for some in _pieces(choices, CHOICES):
            yield {"choices": some}
        chunk = {**chunk, "choices": [{}]}
        choices = []
    choice = choices[0] if type(choices) is list and len(choices) == 1 else None
    if type(choice) is not dict or chunk.get("error"):
        yield chunk
        return
    source = "delta" if choice.get("delta") else "message"
    fields = choice.get(source)
    whole_message = source == "message" and begun or source == "delta" and "message" in choice
    if type(fields) is not dict or whole_message or fields.get("reasoning_details"):
        yield chunk
        return
    small = dict(fields)
    texts: List[Any] = []  # keys and values
    reasoned = next((key for key in REASONING_KEYS if fields.get(key)), None)
    for key in _TEXTS:
        value = small.pop(key, None)
        if value and (key not in REASONING_KEYS or key == reasoned):
            texts.append((key, value))
    lists = [(key, small.pop(key)) for key in _LISTS if type(small.get(key)) is list]
    calls = small.pop("tool_calls", None)
    later = {key: choice[key] for key in ("finish_reason", "usage") if key in choice}
    rest = {key: value for key, value in choice.items() if key not in (*later, source, "logprobs")}
    head = {key: value for key, value in chunk.items() if key not in ("usage", "x_groq")}
    for key, value in texts:
        for piece, tokens in _with_tokens(value, choice.get("logprobs") if key == "content" else None):
            logprobs = {"logprobs": {"content": tokens}} if tokens else {}
            yield {"choices": [{"delta": {key: piece}, **logprobs}]}
    if small or rest:
        yield {**head, "choices": [{**rest, "delta": small}]}
    for key, entries in lists:
        for some in _pieces(entries, PARTS):
            yield {"choices": [{"delta": {key: some}}]}
    yield from _of_calls(calls, repeats)
    over = {key: value for key, value in chunk.items() if key != "choices"}
    yield {**over, "choices": [{**later, "delta": {}}]}


def _is_whole(choice: Any) -> bool:
    """A whole message would count as a repetition of those in the pieces before it."""
    return type(choice) is dict and "message" in choice


def split_event(event: Json) -> Iterator[Json]:
    """An event of the Responses API as several, if it is a large delta."""
    delta = event.get("delta")
    if type(delta) is not str or not str(event.get("type")).endswith(".delta"):
        yield event
        return
    for piece in _pieces(delta):
        yield {**event, "delta": piece}


def _of_calls(calls: Any, repeats: Callable[[Json], bool]) -> Iterator[Optional[Json]]:
    """The chunks of tool calls; None is a step without a chunk."""
    for some in _lists(calls):
        if some is None:
            yield None
        else:
            for fragments in _call_pieces(some, repeats):
                yield {"choices": [{"delta": {"tool_calls": fragments}}]}


def _lists(calls: Any) -> Iterator[Any]:
    """Tool calls in several lists, a long call alone; in one list if their places may tell them apart.

    None is a step without calls.
    """
    if type(calls) is not list:
        if calls:
            yield calls
        return
    for looked_at in _pieces(calls, LOOKED_AT):
        if not all(map(_has_place, looked_at)):
            yield calls
            return
        yield None
    some: List[Any] = []
    for call in calls:
        if len(some) == CALLS or is_large(call):
            yield from [some] if some else []
            some = []
        if is_large(call):
            yield [call]
        else:
            some.append(call)
    yield from [some] if some else []


def _has_place(call: Any) -> bool:
    return type(call) is dict and (type(call.get("index")) is int or bool(call.get("id")))


def _call_pieces(calls: Any, repeats: Callable[[Json], bool]) -> Iterator[Any]:
    """Tool calls as fragments whose arguments are not long."""
    function = calls[0].get("function") if type(calls) is list and type(calls[0]) is dict else None
    arguments = function.get("arguments") if type(function) is dict else None
    if type(function) is not dict or type(arguments) is not str or len(calls) > 1 or repeats(calls[0]):
        yield calls
        return
    head, place = calls[0], {key: calls[0][key] for key in ("index", "id") if key in calls[0]}
    for number, piece in enumerate(_pieces(arguments)):
        yield [
            {**(place if number else head), "function": {**({} if number else function), "arguments": piece}}
        ]


def _with_tokens(value: Any, logprobs: Any) -> Iterator[Tuple[Any, Optional[List[Any]]]]:
    """The pieces of a text, each with about as many of its tokens' probabilities as it is long."""
    tokens = logprobs.get("content") if type(logprobs) is dict else None
    if type(tokens) is not list or type(value) is not str:
        for number, piece in enumerate(_pieces(value)):
            yield piece, None if number else tokens
        return
    count = min(max(len(tokens) // TOKENS, len(value) // TEXT) + 1, len(value))
    cuts = [(len(value) * number // count, len(tokens) * number // count) for number in range(count + 1)]
    for (begin, first), (end, last) in zip(cuts, cuts[1:]):
        yield value[begin:end], tokens[first:last]


def _pieces(value: Any, size: int = PARTS) -> Iterator[Any]:
    """The pieces of a text, or of a list."""
    if type(value) is not str and type(value) is not list:
        yield value
        return
    size = TEXT if type(value) is str else size
    for begin in range(0, len(value), size):
        yield value[begin : begin + size]
