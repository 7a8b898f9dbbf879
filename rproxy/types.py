"""The shapes of the data that crosses the borders between packages.

The lowest layer: it imports nothing but ``typing``, and everything may import it.
"""

from __future__ import annotations

from typing import Any, Dict, List, Literal, Optional, Tuple, TypedDict, Union

Json = Dict[str, Any]  # a JSON object whose keys nobody here checks


# ---- Deltas: what is new in a provider's answer, whatever its dialect
class CallPiece(TypedDict):
    """What is new about a tool call."""

    id: Optional[str]
    name: Optional[str]  # the whole of it so far
    arguments: str  # a fragment; may be empty
    extra_content: Optional[Json]  # Gemini: the signature of its thinking


TextKind = Literal["text", "reasoning", "refusal"]
TextDelta = Tuple[TextKind, str]
CallDelta = Tuple[Literal["call"], int, CallPiece]  # the number tells the calls of an answer apart
ListDelta = Tuple[Literal["logprobs", "annotations"], List[Any]]  # of the text that comes with them
# Only a provider with the Responses API knows items.
BeginDelta = Tuple[Literal["begin"], TextKind, Json]
ItemDelta = Tuple[Literal["detail", "item"], Json]
Delta = Union[TextDelta, CallDelta, ListDelta, BeginDelta, ItemDelta]


# ---- Records
class Thought(TypedDict, total=False):
    """What a provider wants back with the calls of a turn."""

    text: str  # the reasoning
    details: List[Json]  # reasoning_details
    extra_content: Dict[str, Json]  # by call id


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
