"""Chunks of any provider -> plain deltas: the place where the differences of their answers end.

Deltas are tuples, the kind first::

    ("text", str)  ("reasoning", str)  ("refusal", str)
    ("call", key, {"id", "name", "arguments", "extra_content"})     see calls.py
    ("logprobs", list)          of the tokens of the text that follows
    ("annotations", list)

A chunk may also be a whole completion, or a closing message that repeats what was streamed; of that only the
missing end is news. Nothing ends the reading but an error: usage and even text come after a finish_reason.

A piece of text passes four stations, each there only for providers that need it: snapshots become deltas,
thinking in tags is taken out, so are calls that leaked into the text, halves of surrogate pairs are joined.
What a station holds back comes with a later piece, or from :meth:`ChunkReader.end`. Most chunks are one piece
of text in a delta with one key; that path is kept short.  Nothing here raises, whatever a chunk is.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ...types import Json
from ..profile import Answer
from ..surrogates import REPLACEMENT, mend_piece
from .fields import counts_tokens, error_of, pieces_of, stronger_finish, text_of, unwrap
from .leaked_calls import LeakedCallFilter
from .reasoning_details import Details
from .think_tags import ThinkTagFilter
from .tool_calls import CallReader

Delta = Tuple[Any, ...]

_REASONING_KEYS = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
)  # the first that is not empty counts


class ChunkReader:
    """The state of one answer.

    :param answer: how the provider writes its answers
    :param tools: the functions that were offered, name -> JSON Schema; only for calls that leaked into the
        text

    ``chunks``: how many were read.  ``model``: the provider's name of it.  ``finish``: the strongest
    finish_reason so far, one of stop, tool_calls, content_filter, length, context, error, or None.
    ``error``: the error object, after which nothing is read. ``usage``: the last block with numbers, raw.
    ``reasoning_details``: for the way back to the provider; the last one is complete when something else than
    reasoning has come, or after :meth:`end`.
    """

    over = False

    def __init__(self, answer: Answer, tools: Mapping[str, Json] = MappingProxyType({})) -> None:
        self.chunks = 0
        self.model: Optional[str] = None
        self.finish: Optional[str] = None
        self.error: Optional[Json] = None
        self.usage: Optional[Json] = None
        self._details = Details(answer.cumulative)
        self.reasoning_details: List[Json] = self._details.entries
        self._calls = CallReader(answer.cumulative)
        self._filter = ThinkTagFilter() if answer.think_tags else None
        self._healer = LeakedCallFilter(tools) if answer.heal_tool_text and tools else None
        self._snapshots: Dict[str, str] = (
            dict.fromkeys(("text", "reasoning", "refusal"), "") if answer.cumulative else {}
        )
        self._raw: Dict[str, List[str]] = {
            "text": [],
            "reasoning": [],
            "refusal": [],
        }  # as it came, without snapshots
        self._halves: Dict[str, str] = {}
        self._begun = False  # something came before this chunk
        self._tagged = False  # thinking came in tags
        self._annotated = False

    @property
    def transparent(self) -> bool:
        """Does text pass unchanged, until something else comes?"""
        return not (
            self._filter or self._healer or self._snapshots or self._halves or self.finish or self.error
        )

    def read(self, chunk: Json) -> List[Delta]:
        """What is new in a chunk."""
        out: List[Delta] = []
        self.chunks += 1
        if self.error is not None:
            return out
        choices = chunk.get("choices")
        if (
            not choices
            or chunk.get("error")
            or chunk.get("base_resp")
            or chunk.get("object") == "error"
            or chunk.get("type") == "error"
        ):
            chunk = unwrap(chunk)
            self.error = error_of(chunk)
            if self.error is not None:
                return out
            choices = chunk.get("choices")
        if choices:
            for choice in choices if type(choices) is list else [choices]:
                if type(choice) is dict:
                    self._choice(choice, chunk, out)
            if not self._begun:
                self._begun = bool(out or self._raw["text"])
        if not self.model and type(chunk.get("model")) is str:
            self.model = chunk["model"]
        if "x_groq" in chunk and type(chunk["x_groq"]) is dict:
            self._count(chunk["x_groq"].get("usage"))
        if chunk.get("usage"):
            self._count(chunk["usage"])
        return out

    def end(self) -> List[Delta]:
        """The provider has stopped: what was held back. Calling it again gives nothing more."""
        out: List[Delta] = []
        self._release(out)
        self._calls.end(out)
        return out

    def _count(self, usage: Any) -> None:
        if counts_tokens(usage):
            self.usage = usage

    # ---- the shape of a chunk
    def _choice(self, choice: Json, chunk: Json, out: List[Delta]) -> None:
        delta, finish = choice.get("delta"), choice.get("finish_reason")
        if choice.get("logprobs"):
            self._logprobs(choice, out)
        if delta and type(delta) is dict:
            self._delta(delta, out)
        if "message" in choice and type(choice["message"]) is dict:
            message = choice["message"]
            self._count(message.get("usage"))
            if delta or self._begun and (finish or chunk.get("object") != "chat.completion.chunk"):
                self._closing(message, out)
            else:
                self._delta(message, out)
        if finish:
            self.finish = stronger_finish(self.finish, finish)
        if "usage" in choice:
            self._count(choice["usage"])
        if choice.get("error"):
            self.error = error_of(choice)

    def _delta(self, delta: Json, out: List[Delta]) -> None:
        content = delta.get("content")
        if type(content) is str and len(delta) == 1:
            if content:
                self._prose("text", content, out)
            return
        reasoning = self._reasoning(delta)
        if reasoning:
            self._prose("reasoning", reasoning, out)
        if content:
            for kind, text in [("text", content)] if type(content) is str else pieces_of(content):
                self._prose(kind, text, out)
        if delta.get("refusal"):
            refusal = text_of(delta["refusal"])
            if refusal:
                self._prose("refusal", refusal, out)
        if delta.get("annotations") and type(delta["annotations"]) is list:
            self._annotated = True
            out.append(("annotations", delta["annotations"]))
        if delta.get("tool_calls"):
            self._release(out)
            self._calls.read(delta["tool_calls"], out)
        elif delta.get("function_call"):
            self._release(out)
            self._calls.read_legacy(delta["function_call"], out)

    def _reasoning(self, delta: Json) -> str:
        details = delta.get("reasoning_details")
        detailed = self._details.read(details) if details and type(details) is list else ""
        for key in _REASONING_KEYS:
            text = text_of(delta.get(key))
            if text:
                return text
        return detailed

    def _closing(self, message: Json, out: List[Delta]) -> None:
        """A message after its own deltas."""
        wholes = {"reasoning": "", "text": "", "refusal": text_of(message.get("refusal"))}
        for kind, text in pieces_of(message.get("content")):
            wholes[kind] += text
        if not self._tagged:
            known = {**message, "reasoning_details": None} if self.reasoning_details else message
            wholes["reasoning"] = self._reasoning(known) or wholes["reasoning"]
        for kind, whole in wholes.items():
            raw = self._raw[kind] = ["".join(self._raw[kind])]
            if len(whole) > len(raw[0]) and whole.startswith(raw[0]):
                self._pass(kind, whole[len(raw[0]) :], out)
        if not self._annotated and type(message.get("annotations")) is list:
            self._delta({"annotations": message["annotations"]}, out)
        if message.get("tool_calls"):
            self._release(out)
            self._calls.read_closing(message["tool_calls"], out)
        elif message.get("function_call") and not self._calls.any:
            self._delta({"function_call": message["function_call"]}, out)

    def _logprobs(self, choice: Json, out: List[Delta]) -> None:
        """Only those of text: some providers count the thinking, too."""
        logprobs, said = choice["logprobs"], choice.get("delta") or choice.get("message")
        if type(logprobs) is dict and type(said) is dict and said.get("content"):
            entries = logprobs.get("content")
            if entries and type(entries) is list:
                out.append(("logprobs", entries))

    # ---- the stations of a text
    def _prose(self, kind: str, text: str, out: List[Delta]) -> None:
        """A piece of text as it came; not empty."""
        if self._snapshots:
            text = self._news(kind, text)
            if not text:
                return
        self._pass(kind, text, out)

    def _news(self, kind: str, text: str) -> str:
        """What a snapshot adds to the one before.

        A stream that turns out to send deltas is left alone from then on.
        """
        before = self._snapshots.get(kind)
        if before is None:
            return text
        if not text.startswith(before):
            del self._snapshots[kind]
            return text
        self._snapshots[kind] = text
        return text[len(before) :]

    def _pass(self, kind: str, text: str, out: List[Delta]) -> None:
        self._raw[kind].append(text)
        if kind != "reasoning":
            self._details.settle()
        if kind != "text" or self._filter is None:
            self._tell(kind, text, out)
            return
        for part, piece in self._filter.feed(text):
            self._sift(part, piece, out)

    def _sift(self, kind: str, text: str, out: List[Delta]) -> None:
        """Thinking in tags is dropped when it is a copy of what came in a field of its own."""
        if kind == "reasoning":
            if self._raw["reasoning"]:
                return
            self._tagged = True
        self._tell(kind, text, out)

    def _tell(self, kind: str, text: str, out: List[Delta]) -> None:
        if kind == "text" and self._healer is not None:
            self._heal(self._healer.feed(text), out)
        else:
            self._emit(kind, text, out)

    def _heal(self, pieces: List[Tuple[str, Any]], out: List[Delta]) -> None:
        for kind, piece in pieces:
            if kind == "call":
                self._give_up_halves(out)
                self._calls.whole(piece[0], piece[1], out)
            else:
                self._emit(kind, piece, out)

    def _emit(self, kind: str, text: str, out: List[Delta]) -> None:
        if self._halves or not text.isascii():
            half = self._halves.pop(kind, "")
            self._give_up_halves(out)
            text, half = mend_piece(half + text)
            if half:
                self._halves[kind] = half
        if text:
            out.append((kind, text))

    def _give_up_halves(self, out: List[Delta]) -> None:
        """The other half never came."""
        for kind in self._halves:
            out.append((kind, REPLACEMENT))
        self._halves.clear()

    def _release(self, out: List[Delta]) -> None:
        """Something else than text follows: nothing may wait any longer."""
        self._details.settle()
        if self._filter is not None:
            for kind, text in self._filter.close():
                self._sift(kind, text, out)
        if self._healer is not None:
            self._heal(self._healer.close(), out)
        self._give_up_halves(out)
