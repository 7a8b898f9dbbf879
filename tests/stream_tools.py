"""Short words for the stream tests: chunks in, a checked stream out."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional

from grammar import check_stream

from rproxy.convert.answer.chat import ChunkReader
from rproxy.convert.events.converter import StreamConverter
from rproxy.convert.events.response import response_object
from rproxy.convert.ids import Ids
from rproxy.convert.profile import Profile
from rproxy.convert.tools.table import ToolTable

Json = Dict[str, Any]

CREATED, COMPLETED = 1790000000, 1790000009
STEM = "0123456789abcdef" * 2


# ---- chunks
def delta(finish: Optional[str] = None, **fields: Any) -> Json:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": fields, "finish_reason": finish}],
    }


def text(content: str, **more: Any) -> Json:
    return delta(content=content, **more)


def think(content: str, **more: Any) -> Json:
    return delta(reasoning_content=content, **more)


def call(
    index: int,
    arguments: Optional[str] = None,
    id: Optional[str] = None,
    name: Optional[str] = None,
    **more: Any,
) -> Json:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    entry: Json = {"index": index, "function": function, **more}
    if id is not None:
        entry["id"] = id
    return delta(tool_calls=[entry])


def end(finish: Optional[str] = "stop", usage: Optional[Json] = None) -> Json:
    chunk = delta(finish)
    if usage is not None:
        chunk["usage"] = usage
    return chunk


# ---- conversion
def converter(
    request: Optional[Json] = None, *, allow: Optional[List[str]] = None, **options: Any
) -> StreamConverter:
    """:param options: of StreamConverter; ``answer``: how the provider writes its answers, for its reader"""
    if "answer" in options:
        options["reader"] = ChunkReader(options.pop("answer"))
    request = {"model": "m", **(request or {})}
    ids = Ids(STEM)
    tools = ToolTable.build(request, [], Profile(), allow)
    response = response_object(request, id=ids.response, created_at=CREATED)
    return StreamConverter(response, tools, ids=ids, now=lambda: COMPLETED, **options)


def drive(stream: StreamConverter, chunks: Iterable[Json], done: bool = True) -> List[Json]:
    """All the events of a turn, as the service gets them."""
    events = stream.start()
    for chunk in chunks:
        events += stream.feed(chunk)
    failure = stream.failure(done)
    events += stream.finish() if failure is None else stream.fail(failure.code, failure.message)
    return events


class Turn:
    """One answer, converted and checked: ``events``, ``final`` (the terminal response)."""

    def __init__(
        self, *chunks: Json, done: bool = True, request: Optional[Json] = None, **options: Any
    ) -> None:
        self.stream = converter(request, **options)
        self.events = drive(self.stream, chunks, done)
        self.final = check_stream(self.events)
        assert self.final == self.stream.response

    @property
    def output(self) -> List[Json]:
        output: List[Json] = self.final["output"]
        return output

    @property
    def kinds(self) -> List[str]:
        return [item["type"] for item in self.output]

    def named(self, type_: str) -> List[Json]:
        return [event for event in self.events if event["type"] == type_]

    def script(self) -> List[str]:
        """The events as lines ``type`` or ``type text``, without the first two and the terminal one."""
        lines = []
        for event in self.events[2:-1]:
            said = event.get(
                "delta", event.get("text", event.get("refusal", event.get("arguments", event.get("input"))))
            )
            lines.append(event["type"][len("response.") :] + ("" if said is None else " " + said))
        return lines


def texts(output: Iterable[Json]) -> List[Any]:
    """An output in short: (type, what it says) for each item."""
    short: List[Any] = []
    for item in output:
        said = "".join(
            part.get("text", part.get("refusal", ""))
            for part in item.get("content", []) + item.get("summary", [])
        )
        short.append((item["type"], item.get("arguments", item.get("input", said))))
    return short
