"""The shapes of the data that crosses package borders.

The lowest layer: it imports nothing but Python's own modules for types, and everything may import it.
TypedDicts are plain dicts at run time; they describe what rproxy makes.  What comes from outside (a client's
request and its items, a provider's chunks) is :data:`Json`, :data:`AnyItem` or :data:`AnyRecord`: read with
``get``, because it may have any shape.  Objects that are built from tables, with keys that a type checker
cannot know, get their type in the last step.

:func:`light_dataclass` is for objects that the program makes once, such as the configuration.  A type checker
sees ``dataclasses.dataclass``, which at run time compiles every method of every class: that was an eighth of
the CPU time of a start.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Dict, List, Literal, Mapping, Optional, Tuple, TypedDict, Union

if TYPE_CHECKING:
    from dataclasses import dataclass as light_dataclass
else:

    def light_dataclass(cls=None, *, frozen=False):
        """Like ``dataclasses.dataclass``, but with methods that all such classes share.

        For objects that are made once, such as the configuration: making one takes longer.
        """
        if cls is None:
            return lambda cls: light_dataclass(cls, frozen=frozen)
        cls.__doc__ = cls.__doc__ or cls.__name__  # otherwise dataclasses computes the signature for it
        cls = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
        methods = {"__init__": _init, "__repr__": _repr, "__eq__": _equal, "__hash__": None}
        if frozen:
            methods.update(__hash__=_hash, __setattr__=_refuse, __delattr__=_refuse)
        for name, method in methods.items():
            if name not in vars(cls):
                setattr(cls, name, method)
        return cls

    def _init(self, *args, **named):
        fields = dataclasses.fields(self)
        values = dict(zip((field.name for field in fields if field.init), args))
        if len(values) < len(args) or not values.keys().isdisjoint(named):
            raise TypeError(f"{type(self).__name__}() got too many positional arguments")
        values.update(named)
        for field in fields:
            name = field.name
            if name in values and field.init:
                value = values.pop(name)
            elif field.default is not dataclasses.MISSING:
                value = field.default
            elif field.default_factory is not dataclasses.MISSING:
                value = field.default_factory()
            elif field.init:
                raise TypeError(f"{type(self).__name__}() needs the argument {name!r}")
            else:
                continue  # the class sets it itself
            object.__setattr__(self, name, value)
        if values:
            raise TypeError(f"{type(self).__name__}() has no argument {min(values)!r}")
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    def _repr(self):
        names = [field.name for field in dataclasses.fields(self) if field.repr]
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({values})"

    def _values(self):
        return tuple([getattr(self, field.name) for field in dataclasses.fields(self) if field.compare])

    def _equal(self, other):
        return _values(self) == _values(other) if type(self) is type(other) else NotImplemented

    def _hash(self):
        return hash(_values(self))

    def _refuse(self, name, *value):
        raise dataclasses.FrozenInstanceError(f"cannot change the field {name!r}")


Json = Dict[str, Any]  # a JSON object whose keys are not checked
# The next two are read-only.
AnyItem = Mapping[str, Any]  # an item of a conversation, of ours or as a client has sent it
AnyRecord = Mapping[str, Any]  # a record in the store; it may be damaged, or written by another program


# ---- Deltas: what is new in a provider's answer, whatever its dialect
class CallPiece(TypedDict):
    """What is new about a tool call."""

    id: Optional[str]
    name: Optional[str]  # the whole of it so far
    arguments: str  # a fragment; may be empty
    extra_content: Optional[Json]  # Gemini: the signature of its thinking


TextKind = Literal["text", "reasoning", "refusal"]
TextDelta = Tuple[TextKind, str]
CallDelta = Tuple[Literal["call"], int, CallPiece]  # the number distinguishes the calls of an answer
ListDelta = Tuple[Literal["logprobs", "annotations"], List[Any]]  # of the text that comes with them
# Only from a provider with the Responses API.
BeginDelta = Tuple[Literal["begin"], TextKind, Json]
ItemDelta = Tuple[Literal["detail", "item"], Json]
Delta = Union[TextDelta, CallDelta, ListDelta, BeginDelta, ItemDelta]


# ---- Objects of the Responses API
class ErrorObject(TypedDict):
    message: str
    type: str
    param: Optional[str]
    code: Optional[str]


class ErrorBody(TypedDict):
    """The body of an HTTP error."""

    error: ErrorObject


class _Item(TypedDict):
    id: str
    type: str


class Item(_Item, total=False):
    """An item of an answer, or a client's item in its complete form (:mod:`rproxy.service.pagination`).

    Which of the optional fields it has depends on its type; calls have one more of their own, such as
    ``action``.
    """

    status: str
    role: str  # of a message
    content: List[Json]  # parts: of a message, of reasoning
    phase: str  # of a message
    summary: List[Json]  # of reasoning
    encrypted_content: str  # of reasoning, of a compaction
    call_id: str
    name: str
    namespace: str
    arguments: str  # of a function call
    input: str  # of a custom tool call


class CachedTokens(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


class ReasoningTokens(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    """``usage`` of a Response."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class IncompleteDetails(TypedDict):
    reason: str


class _ResponseError(TypedDict):
    code: str
    message: str


class ResponseError(_ResponseError, total=False):
    """``error`` of a Response."""

    type: str
    param: Optional[str]


class ConversationId(TypedDict):
    id: str


class _Response(TypedDict):
    id: str
    object: str
    created_at: int  # seconds since the epoch, like all times here
    completed_at: Optional[int]
    status: str
    error: Optional[ResponseError]
    incomplete_details: Optional[IncompleteDetails]
    output: List[Item]
    usage: Optional[Usage]
    service_tier: str
    background: bool


class Response(_Response, total=False):
    """A Response object.

    It also repeats most fields of its request, see :mod:`rproxy.convert.events.response`.
    """

    conversation: ConversationId


class Compaction(TypedDict):
    """The answer of ``/responses/compact``."""

    id: str
    object: str
    created_at: int
    output: List[Item]
    usage: Optional[Usage]


class Conversation(TypedDict):
    id: str
    object: str
    created_at: int
    metadata: Dict[str, str]


class ItemPage(TypedDict):
    """A part of a list of items."""

    object: str
    data: List[Item]
    first_id: Optional[str]
    last_id: Optional[str]
    has_more: bool


class Deleted(TypedDict):
    id: str
    object: str
    deleted: bool


class _Event(TypedDict):
    type: str
    sequence_number: int


class Event(_Event, total=False):
    """An event of a stream; which of the optional fields it has depends on its type."""

    response: Response
    output_index: int  # the place of the item in the output
    item_id: str
    item: Item
    content_index: int  # the place of the part in the item
    summary_index: int
    part: Json
    delta: str
    text: str
    logprobs: List[Json]
    annotation_index: int
    annotation: Json
    code: Optional[str]  # this and the next three are fields of the event "error"
    message: str
    param: Optional[str]
    error: ErrorObject


# ---- Records of the store, and what is remembered of turns
class HostedResult(TypedDict):
    """What is remembered of a hosted call, because its item does not have everything.

    ``sources``: address and title of what may be cited.
    """

    name: str  # of the function
    arguments: str  # as the model wrote them
    text: str  # what the model read
    sources: List[List[str]]


class _ResponseRecord(TypedDict):
    response: Response
    input: List[AnyItem]
    previous: Optional[str]  # the id of the response that this one continues
    conversation: Optional[str]  # the id of the conversation that it belongs to
    owner: str  # see rproxy.service.client.Client


class ResponseRecord(_ResponseRecord, total=False):
    """A response, under its id."""

    last: int  # the sequence_number of its last event
    hosted: Dict[str, HostedResult]  # by item id: the calls that rproxy has run itself
    approved: List[str]  # its mcp_approval_requests whose calls have been run


class ConversationRecord(TypedDict):
    """A conversation, under its id."""

    conversation: Conversation
    items: List[Item]  # oldest first
    owner: str


class Lease(TypedDict):
    """The sign of life of a process that works on a response."""

    until: float  # seconds since the epoch


class StopRequest(TypedDict):
    """What another process has asked for, for a response that runs in the background."""

    how: str  # cancel, delete


Record = Union[ResponseRecord, ConversationRecord, Lease, StopRequest]


class LocalRecord(TypedDict):
    """What a WebSocket connection remembers of a response, so that a turn can continue it."""

    items: List[AnyItem]  # the whole history, with the response's own output
    inherited: Json  # see rproxy.service.create_request.ConversationContext


class CachedReasoning(TypedDict, total=False):
    """What a provider wants back with the calls of a turn."""

    text: str  # the reasoning
    details: List[Json]  # reasoning_details
    extra_content: Dict[str, Json]  # by call id
