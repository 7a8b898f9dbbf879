"""Chunks of any Chat Completions provider to deltas: the differences between providers' answers end here.

A chunk may also be a whole completion, or a closing message that repeats what was streamed, of which only the
missing end is new.  Only an error ends the reading: usage and even text may follow a finish_reason.

A piece of text passes four stages, which exist only for providers that need them: snapshots become deltas,
reasoning in tags is taken out, tool calls that leaked into the text are taken out, and halves of surrogate
pairs are joined.  Text that a stage holds back comes with a later piece, or from :meth:`ChunkReader.end`.
Most chunks are one piece of text in a delta with one key; that path is kept short.  Nothing here raises,
whatever a chunk is.
"""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, DefaultDict, Dict, Iterable, Iterator, List, Mapping, Optional, Set

from ...types import Delta, Json, TextKind
from ..profile import AnswerForm
from ..surrogates import REPLACEMENT, mend_piece
from ..text_buffer import Received
from .fields import (
    REASONING_KEYS,
    counts_tokens,
    error_of,
    image_urls,
    pieces_of,
    sources_of,
    stronger_finish,
    text_of,
    unwrap,
)
from .reader import too_many
from .reasoning_details import ReasoningDetails
from .split import split
from .think_tags import ThinkTagFilter
from .tool_calls import MAX_CALLS, CallReader

if TYPE_CHECKING:
    from .leaked_calls import LeakedCallFilter, Piece


class ChunkReader:
    """The state of one answer; see :class:`~rproxy.convert.answer.reader.AnswerReader`.

    :param answer: how the provider writes its answers
    :param tools: the functions that were offered, name -> JSON Schema; needed only for calls that leak into
        the text

    The last of ``reasoning_details`` is complete when something other than reasoning has come, or after
    :meth:`end`.
    """

    over = False

    def __init__(self, answer: AnswerForm, tools: Mapping[str, Json] = MappingProxyType({})) -> None:
        self.chunks = 0
        self.finish: Optional[str] = None
        self.error: Optional[Json] = None
        self.usage: Optional[Json] = None
        self._details = ReasoningDetails(answer.cumulative)
        self.reasoning_details: List[Json] = self._details.entries
        self._calls = CallReader(answer.cumulative)
        self._think_tags = ThinkTagFilter() if answer.think_tags else None
        self._leaked_calls = _leaked_calls(tools) if answer.heal_tool_text and tools else None
        self._snapshots: Dict[TextKind, str] = (
            {"text": "", "reasoning": "", "refusal": ""} if answer.cumulative else {}
        )
        # The text as it came, but without what snapshots repeat.
        self._received: DefaultDict[TextKind, Received] = defaultdict(Received)
        self._halves: Dict[TextKind, str] = {}  # first halves of surrogate pairs
        self._begun = False  # there was a delta before this chunk
        self._tagged = False  # reasoning came in tags
        self._annotated = False
        self._shown: Set[str] = set()  # images: a closing message repeats them
        self._cited: Dict[str, str] = {}  # sources that came beside the answer: address -> title

    @property
    def transparent(self) -> bool:
        return not (
            self._think_tags
            or self._leaked_calls
            or self._snapshots
            or self._halves
            or self.finish
            or self.error
        )

    def read(self, chunk: Json) -> List[Delta]:
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
                self._begun = bool(out or self._received["text"])
            if self._calls.too_many:
                self.error = too_many("tool calls", MAX_CALLS)
        if "x_groq" in chunk and type(chunk["x_groq"]) is dict:
            self._count(chunk["x_groq"].get("usage"))
        if chunk.get("usage"):
            self._count(chunk["usage"])
        if "citations" in chunk or "search_results" in chunk:
            self._cited.update(sources_of(chunk))
        return out

    def parts(self, chunk: Json) -> Iterator[Optional[Json]]:
        return iter([chunk]) if self._snapshots else split(chunk, self._begun, self._calls.repeats)

    def end(self) -> List[Delta]:
        out: List[Delta] = []
        self._release(out)
        self._calls.end(out)
        if self._cited and not self._annotated:
            sources = [
                {"type": "url_citation", "url": url, "title": title} for url, title in self._cited.items()
            ]
            out.append(("annotations", sources))
        self._cited = {}
        self._received.clear()  # frees the pieces
        return out

    def _count(self, usage: Any) -> None:
        if counts_tokens(usage):
            self.usage = usage

    # ---- The shape of a chunk
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
                self._closing_message(message, out)
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
                self._text("text", content, out)
            return
        reasoning = self._reasoning(delta)
        if reasoning:
            self._text("reasoning", reasoning, out)
        if content:
            for kind, text in pieces_of(content):
                self._text(kind, text, out)
        if delta.get("refusal"):
            refusal = text_of(delta["refusal"])
            if refusal:
                self._text("refusal", refusal, out)
        if delta.get("annotations") and type(delta["annotations"]) is list:
            self._annotated = True
            out.append(("annotations", delta["annotations"]))
        if delta.get("images"):
            self._images(delta["images"], out)
        if delta.get("tool_calls"):
            self._release(out)
            self._calls.read(delta["tool_calls"], out)
        elif delta.get("function_call"):
            self._release(out)
            self._calls.read_legacy(delta["function_call"], out)

    def _images(self, images: Any, out: List[Delta]) -> None:
        """Images that the model made: items if their bytes came with them, else links in the text."""
        for url in image_urls(images):
            if url in self._shown:
                continue
            self._shown.add(url)
            self._release(out)
            head, found, data = url.partition(";base64,")
            if found and head.startswith("data:image/"):
                made = {"type": "image_generation_call", "status": "completed", "result": data}
                out.append(("item", {**made, "output_format": head[len("data:image/") :]}))
            else:
                self._emit("text", f"![image]({url})", out)

    def _reasoning(self, delta: Json) -> str:
        details = delta.get("reasoning_details")
        detailed = self._details.read(details) if details and type(details) is list else ""
        for key in REASONING_KEYS:
            text = text_of(delta.get(key))
            if text:
                return text
        return detailed

    def _closing_message(self, message: Json, out: List[Delta]) -> None:
        """A message that repeats its own deltas."""
        wholes: Dict[TextKind, str] = {
            "reasoning": "",
            "text": "",
            "refusal": text_of(message.get("refusal")),
        }
        for kind, text in pieces_of(message.get("content")):
            wholes[kind] += text
        if not self._tagged:
            known = {**message, "reasoning_details": None} if self.reasoning_details else message
            wholes["reasoning"] = self._reasoning(known) or wholes["reasoning"]
        for kind, whole in wholes.items():
            more = self._received[kind].more(whole)
            if more:
                self._new_text(kind, more, out)
        if not self._annotated and type(message.get("annotations")) is list:
            self._delta({"annotations": message["annotations"]}, out)
        if message.get("images"):
            self._images(message["images"], out)
        if message.get("tool_calls"):
            self._release(out)
            self._calls.read_closing(message["tool_calls"], out)
        elif message.get("function_call") and not self._calls.any:
            self._delta({"function_call": message["function_call"]}, out)

    def _logprobs(self, choice: Json, out: List[Delta]) -> None:
        """Only those of text: some providers include the reasoning."""
        logprobs, source = choice["logprobs"], choice.get("delta") or choice.get("message")
        if type(logprobs) is dict and type(source) is dict and source.get("content"):
            entries = logprobs.get("content")
            if entries and type(entries) is list:
                out.append(("logprobs", entries))

    # ---- The stages of a text
    def _text(self, kind: TextKind, text: str, out: List[Delta]) -> None:
        """A piece of text as it arrived; not empty."""
        if self._snapshots:
            text = self._beyond_snapshot(kind, text)
            if not text:
                return
        self._new_text(kind, text, out)

    def _beyond_snapshot(self, kind: TextKind, text: str) -> str:
        """What a snapshot adds to the previous one.  A stream that turns out to send deltas is left alone
        from then on.
        """
        before = self._snapshots.get(kind)
        if before is None:
            return text
        if not text.startswith(before):
            del self._snapshots[kind]
            return text
        self._snapshots[kind] = text
        return text[len(before) :]

    def _new_text(self, kind: TextKind, text: str, out: List[Delta]) -> None:
        self._received[kind].append(text)
        if kind != "reasoning":
            self._details.complete()
        if kind != "text" or self._think_tags is None:
            self._untagged(kind, text, out)
            return
        for part, piece in self._think_tags.feed(text):
            self._tagged_piece(part, piece, out)

    def _tagged_piece(self, kind: TextKind, text: str, out: List[Delta]) -> None:
        """Reasoning in tags is dropped when it is a copy of what came in a field of its own."""
        if kind == "reasoning":
            if self._received["reasoning"]:
                return
            self._tagged = True
        self._untagged(kind, text, out)

    def _untagged(self, kind: TextKind, text: str, out: List[Delta]) -> None:
        if kind == "text" and self._leaked_calls is not None:
            self._without_calls(self._leaked_calls.feed(text), out)
        else:
            self._emit(kind, text, out)

    def _without_calls(self, pieces: Iterable[Piece], out: List[Delta]) -> None:
        for piece in pieces:
            if piece[0] == "call":
                self._give_up_halves(out)
                self._calls.whole(*piece[1], out)
            else:
                self._emit("text", piece[1], out)

    def _emit(self, kind: TextKind, text: str, out: List[Delta]) -> None:
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
        """Something other than text follows, so nothing may be held back any longer."""
        self._details.complete()
        if self._think_tags is not None:
            for kind, text in self._think_tags.close():
                self._tagged_piece(kind, text, out)
        if self._leaked_calls is not None:
            self._without_calls(self._leaked_calls.close(), out)
        self._give_up_halves(out)


def _leaked_calls(tools: Mapping[str, Json]) -> LeakedCallFilter:
    from .leaked_calls import LeakedCallFilter  # few providers need it

    return LeakedCallFilter(tools)
