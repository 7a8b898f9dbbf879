"""The interface of the readers of all dialects.

A reader takes the chunks of one answer and gives deltas (:data:`rproxy.types.Delta`)::

    ("text", str)  ("reasoning", str)  ("refusal", str)
    ("call", number, piece)    a piece of a tool call, see :class:`rproxy.types.CallPiece`
    ("logprobs", list)         of the tokens of the text that comes with them
    ("annotations", list)      of the text before

Three more come from providers that serve the Responses API themselves::

    ("begin", kind, keys)      text of this kind begins a new item, which has these further keys
    ("detail", object)         belongs to the reasoning item before it; it is sent back to the provider
    ("item", item)             a complete item of a kind that rproxy does not know
"""

from __future__ import annotations

from typing import Iterator, List, Optional, Protocol

from ...types import Delta, Json

MAX_ITEMS = 4096  # of an answer


def too_many(what: str, most: int) -> Json:
    """The error object for an answer that is too long."""
    return {"message": f"The answer has more than {most} {what}.", "type": "protocol"}


class AnswerReader(Protocol):
    """The state of one answer.

    .. attribute:: chunks             how many were read
    .. attribute:: finish             the strongest finish_reason so far, in the words of
                                      :func:`~rproxy.convert.answer.fields.stronger_finish`
    .. attribute:: error              the provider's error object, after which nothing is read
    .. attribute:: usage              the last block with numbers, as it came
    .. attribute:: reasoning_details  what the provider wants back with its thinking
    .. attribute:: over               the rest of the answer does not matter
    """

    chunks: int
    finish: Optional[str]
    error: Optional[Json]
    usage: Optional[Json]
    reasoning_details: List[Json]
    over: bool

    @property
    def transparent(self) -> bool:
        """Does text pass through unchanged until something else comes?"""

    def read(self, chunk: Json) -> List[Delta]:
        """The new deltas in a chunk.  Raises nothing, whatever the chunk is."""

    def parts(self, chunk: Json) -> Iterator[Optional[Json]]:
        """A large chunk as equivalent smaller ones, for :meth:`read`; None is a step without a chunk."""

    def end(self) -> List[Delta]:
        """The deltas that were held back, now that the provider has stopped.  A second call returns
        nothing.
        """
