"""Large chunks of an answer are converted in steps, with the same outcome, and there is an end to what an
answer may hold.
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any, Dict, Iterator, List

import pytest
from grammar import check_stream
from hypothesis import given
from hypothesis import strategies as st
from stream_tools import call, converter, delta, drive, end, text, think

from rproxy.convert import json_reader, json_steps, text_buffer
from rproxy.convert.answer import decoder, reasoning_details, split, tool_calls, unparsed
from rproxy.convert.answer.chat import ChunkReader
from rproxy.convert.answer.reader import MAX_ITEMS
from rproxy.convert.answer.responses import EventReader
from rproxy.convert.answer.unparsed import Unparsed
from rproxy.convert.events import compaction, fastpath
from rproxy.convert.events import converter as events_converter
from rproxy.convert.events.fastpath import FastPath
from rproxy.convert.events.response import response_object
from rproxy.convert.json_reader import OF_ANSWER, Bounds
from rproxy.convert.profile import AnswerForm
from rproxy.convert.tools.table import ToolTable

Json = Dict[str, Any]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "TEXT", 5)
    monkeypatch.setattr(split, "CALLS", 2)
    monkeypatch.setattr(split, "PARTS", 3)
    monkeypatch.setattr(split, "CHOICES", 2)
    monkeypatch.setattr(split, "TOKENS", 2)
    monkeypatch.setattr(json_steps, "STEP", 120)
    monkeypatch.setattr(decoder, "LARGE", 150)
    monkeypatch.setattr(unparsed, "LARGE_LINE", 100)


LONG = "some words of text "
CALLS = [
    {"index": n, "id": f"c{n}", "function": {"name": "f", "arguments": '{"a": "%s"}' % LONG}}
    for n in range(5)
]
LONG_CALL = {"index": 9, "id": "c9", "function": {"name": "f", "arguments": '{"a": "%s"}' % (LONG * 20)}}
PARTS = [{"type": kind, "text": LONG} for kind in ("text", "thinking", "text", "text")]
FIELDS: Dict[str, List[Any]] = {
    "role": ["assistant"],
    "content": ["", LONG, LONG * 9, PARTS, {"text": LONG}],
    "reasoning_content": ["", LONG * 2],
    "reasoning": [LONG * 2],
    "reasoning_details": [[{"type": "reasoning.text", "text": LONG, "index": 0}]],
    "refusal": [LONG],
    "tool_calls": [
        CALLS,
        [LONG_CALL],
        [*CALLS, LONG_CALL],
        CALLS[:1],
        [{**LONG_CALL, "function": {}}],
        [{"function": CALLS[0]["function"]}] * 3,
        "x",
    ],
    "images": [[{"image_url": {"url": "https://x"}}]],
    "annotations": [[{"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}]],
}
TOKEN = {"token": "so", "logprob": -1.5, "bytes": [115, 111]}
TOP = {**TOKEN, "token": "me", "bytes": None}
LOGPROBS: List[Any] = [
    {"content": [{**TOKEN, "logprob": -n, "top_logprobs": [TOKEN, TOP]} for n in range(count)]}
    for count in (0, 1, 7)
] + [{"content": "x"}, {"refusal": []}, "x"]
DELTAS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in FIELDS.items()}
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@st.composite
def chunks(draw: st.DrawFn) -> Json:
    choice: Json = {"index": 0, draw(st.sampled_from(["delta", "message"])): draw(DELTAS)}
    if draw(st.booleans()):
        choice["finish_reason"] = draw(st.sampled_from([None, "stop", "tool_calls", "length"]))
    if draw(st.integers(0, 9)) == 0:
        choice["logprobs"] = draw(st.sampled_from(LOGPROBS))
    chunk: Json = {"object": "chat.completion.chunk", "choices": [choice]}
    if draw(st.booleans()):
        chunk["usage"] = USAGE
    if draw(st.integers(0, 9)) == 0:
        chunk["choices"] = draw(
            st.sampled_from([[], None, [choice, choice], [choice] * 5, ["x"], {"delta": None}])
        )
    return chunk


def outcome(stream: List[Json]) -> Json:
    check_stream(stream)
    response: Json = stream[-1]["response"]
    return response


def fed(chunk_list: List[Json]) -> Iterator[bytes]:
    for chunk in chunk_list:
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"


@given(st.lists(chunks(), max_size=4), st.booleans())
def test_the_parts_say_the_same(some: List[Json], cumulative: bool) -> None:
    compare(some, cumulative)


@pytest.mark.parametrize(
    "fields",
    [
        {"content": {"text": LONG * 20}},
        {"tool_calls": [{"function": CALLS[0]["function"]}] * 5},
        {"tool_calls": "x" * 300},
        {"content": LONG * 9, "tool_calls": [*CALLS, LONG_CALL]},
        {"content": "x", "annotations": FIELDS["annotations"][0] * 7, "tool_calls": CALLS},
        {
            "annotations": FIELDS["annotations"][0] * 7,
            "images": [{"image_url": {"url": f"u{n}"}} for n in range(9)],
        },
    ],
)
def test_so_do_those_of_odd_forms(fields: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "WINDOW", 64)  # so that the chunk is parsed in steps, too
    compare([{"choices": [{"index": 0, "delta": fields}]}, end()], cumulative=False)


def test_so_does_a_large_call_that_is_sent_twice() -> None:
    both = [{"choices": [{"index": 0, "delta": {"tool_calls": calls}}]} for calls in (CALLS[4:], CALLS[4:])]
    compare([*both, end()], cumulative=False)
    compare([{"choices": [{"index": 0, "delta": {"tool_calls": [LONG_CALL] * 2}}]}, end()], cumulative=False)


def test_so_do_many_whole_messages() -> None:
    compare([{"choices": [{"index": 0, "message": {"content": LONG}}] * 5}], cumulative=False)


def compare(some: List[Json], cumulative: bool) -> None:
    form = AnswerForm(cumulative=cumulative)
    whole = converter(reader=ChunkReader(form), logprobs=True)
    in_parts = FastPath(converter(reader=ChunkReader(form), logprobs=True))
    events = in_parts.converter.start()
    for data in fed(some):
        events += [event for batch in in_parts.feed(data) for event in batch]
        for batch in in_parts.later():
            events += batch
        assert not in_parts.pending
    events += in_parts.close()
    events += [event for batch in in_parts.later() for event in batch]
    events += in_parts.converter.finish()
    assert outcome(events) == outcome(drive(whole, some))


@pytest.mark.parametrize("name", ["annotations", "images"])
def test_long_lists_become_short_ones(name: str) -> None:
    entries = FIELDS[name][0] * 10
    parts = list(split.split({"choices": [{"index": 0, "delta": {"content": "x", name: entries}}]}, False))
    found = [part["choices"][0]["delta"].get(name, []) for part in parts]
    assert max(map(len, found)) == split.PARTS and sum(found, []) == entries


@pytest.mark.parametrize("content, pieces", [("x" * 40, 9), ("xyz", 3)])
def test_the_probabilities_of_many_tokens_come_with_their_text(content: str, pieces: int) -> None:
    chunk = {"choices": [{"index": 0, "message": {"content": content}, "logprobs": LOGPROBS[2]}]}
    said = [part["choices"][0] for part in split.split(chunk) if part["choices"][0]["delta"].get("content")]
    assert len(said) == pieces and "".join(choice["delta"]["content"] for choice in said) == content
    tokens = [choice.get("logprobs", {}).get("content", []) for choice in said]
    assert sum(tokens, []) == LOGPROBS[2]["content"] and max(map(len, tokens)) <= -(-7 // pieces)


def test_the_probabilities_of_a_long_answer_keep_the_bounds() -> None:
    """32,768 tokens, with twenty others for each."""
    top = {"token": "word", "logprob": -12.3456789, "bytes": [119, 111, 114, 100]}
    entry = {**top, "top_logprobs": [top] * 20}
    text = json.dumps(entry, separators=(",", ":"))
    containers, values = text.count("{") + text.count("["), text.count(",") + text.count(":")
    assert 32_768 * containers < OF_ANSWER.containers and 32_768 * values < OF_ANSWER.values
    assert 32_768 * len(text) < decoder.ChunkDecoder()._max


def test_a_large_delta_becomes_small_ones() -> None:
    stream = FastPath(converter())
    assert stream.feed(b"data: " + json.dumps(text("x" * 1000)).encode() + b"\n\n") == [] and stream.pending
    events = [event for batch in stream.later() for event in batch]
    deltas = [event["delta"] for event in events if event["type"].endswith(".delta")]
    assert "".join(deltas) == "x" * 1000 and max(map(len, deltas)) == split.TEXT


def test_what_follows_a_large_chunk_waits_for_it() -> None:
    stream = FastPath(converter())
    large, small = (b"data: " + json.dumps(text(said)).encode() for said in ("x" * 1000, "y"))
    assert stream.feed(large + b"\n\n" + small + b"\n\n" + small) == []
    assert stream.close() == []
    said = [event["delta"] for batch in stream.later() for event in batch if event["type"].endswith(".delta")]
    assert "".join(said) == "x" * 1000 + "yy"


def test_a_large_line_that_is_no_json_is_skipped() -> None:
    stream = FastPath(converter())
    stream.feed(b"data: {" + b"x" * 1000 + b"}\n\n")
    assert [event for batch in stream.later() for event in batch] == []
    assert stream.feed(b"data: " + json.dumps(text("y")).encode() + b"\n\n")


def test_a_large_delta_of_the_responses_api_becomes_small_ones() -> None:
    reader = EventReader()
    event = {"type": "response.output_text.delta", "item_id": "m", "delta": "x" * 23}
    assert [part["delta"] for part in reader.parts(event)] == ["xxxxx"] * 4 + ["xxx"]
    assert list(reader.parts({"type": "response.completed"})) == [{"type": "response.completed"}]


def test_the_converter_gets_the_text_of_the_fast_path_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a long answer would come to it all at once, in the end."""
    monkeypatch.setattr(fastpath, "MAX_UNSYNCED", 1000)
    stream = FastPath(converter())
    piece, lengths, read = b"data: " + json.dumps(text("words")).encode() + b"\n\n", [], ChunkReader.read

    def reading(self: ChunkReader, chunk: Json) -> Any:
        lengths.append(len(json.dumps(chunk)))
        return read(self, chunk)

    monkeypatch.setattr(ChunkReader, "read", reading)
    for _ in range(500):
        stream.feed(piece)
    assert max(lengths) < 1500 and len(lengths) < 100
    assert stream.converter.feed(end()) == [] and "words" * 500 in str(stream.converter.finish()[-1])


@pytest.mark.parametrize("at_once", [True, False], ids=["in one delta", "one by one"])
def test_an_answer_with_too_many_calls_fails(at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_calls, "MAX_CALLS", 30)
    fragments = [{"index": n, "id": f"c{n}", "function": {"name": "f", "arguments": "{}"}} for n in range(50)]
    for count, status in ((30, "completed"), (31, "failed"), (50, "failed")):
        some = fragments[:count]
        sent = [delta(tool_calls=some)] if at_once else [delta(tool_calls=[one]) for one in some]
        response = outcome(drive(converter(), [*sent, end("tool_calls")]))
        assert response["status"] == status and len(response["output"]) <= 31
    message = {"choices": [{"message": {"content": "x", "tool_calls": fragments}, "finish_reason": "stop"}]}
    stream = converter()
    assert outcome(drive(stream, [text("x"), message]))["status"] == "failed"
    assert stream.reader.error is not None and "more than 1024 tool calls" in stream.reader.error["message"]


def test_many_calls_are_looked_at_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}, *[{"index": 0}] * 99]
    monkeypatch.setattr(split, "LOOKED_AT", 10)
    parts = list(split.split({"choices": [{"delta": {"tool_calls": calls}}]}))
    assert parts[:10] == [None] * 10 and None not in parts[10:]
    last: List[Any] = [*calls, {"function": {"arguments": "}"}}]  # which only its place tells apart
    parts = list(split.split({"choices": [{"delta": {"tool_calls": last}}]}))
    assert parts[:10] == [None] * 10 and parts[10] == {"choices": [{"delta": {"tool_calls": last}}]}


def test_a_million_calls_cost_what_the_first_thousand_do(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, made = converter(), []
    monkeypatch.setattr(tool_calls.CallReader, "_new", _counting(made))
    for number in range(1_000_000):
        stream.feed(call(number, "{}", id=f"c{number}", name="f"))
        if stream.reader.error is not None:
            break
    assert len(made) == tool_calls.MAX_CALLS + 1 and number == tool_calls.MAX_CALLS


def _counting(made: List[int]) -> Any:
    new = tool_calls.CallReader._new

    def counting(self: Any, index: Any) -> Any:
        made.append(index)
        return new(self, index)

    return counting


def test_an_answer_with_too_many_items_fails() -> None:
    reader = EventReader()
    for number in range(MAX_ITEMS + 1):
        assert reader.error is None
        item = {"type": "message", "id": f"m{number}", "content": []}
        reader.read({"type": "response.output_item.added", "item": item})
    assert reader.error is not None and reader.over


def test_thinking_is_not_told_twice() -> None:
    chunk = think(LONG * 20)
    chunk["choices"][0]["delta"]["reasoning"] = LONG * 20
    stream = FastPath(converter())
    stream.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    said = [event.get("delta", "") for batch in stream.later() for event in batch]
    assert "".join(said) == LONG * 20


@pytest.mark.parametrize("count", [2, 3, 5])
def test_many_choices(count: int) -> None:
    choices = [{"index": n, "delta": {"content": f"{n} "}} for n in range(count)]
    chunk = {"choices": choices, "usage": USAGE, "padding": "x" * 200}
    stream = FastPath(converter())
    stream.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    said = [event.get("delta", "") for batch in stream.later() for event in batch]
    assert "".join(said) == "".join(f"{n} " for n in range(count))
    assert stream.converter.reader.usage == USAGE


@pytest.mark.parametrize(
    "calls",
    [
        [CALLS[0], LONG_CALL, CALLS[1]],
        [LONG_CALL],
        [LONG_CALL, CALLS[0]],
        CALLS,
        [
            {**LONG_CALL, "function": None},
            {"id": "c1", "function": {"name": "f", "arguments": {"a": LONG * 20}}},
        ],
    ],
)
def test_calls_of_any_length(calls: List[Json]) -> None:
    chunk = {
        "choices": [{"delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}],
        "padding": "x" * 200,
    }
    stream = FastPath(converter())
    events = stream.converter.start() + [
        event for data in fed([chunk]) for batch in [*stream.feed(data), *stream.later()] for event in batch
    ]
    events += stream.converter.finish()
    assert outcome(events) == outcome(drive(converter(), [chunk]))


# ---- Large pieces are not parsed at once
CHUNK = '{"choices":[{"index":0,"delta":{"content":"%s"}}]}' % (LONG * 12)
BODIES = {
    "list": f"data: [{CHUNK},1,{CHUNK}]\n\n",
    "blank": f"   data:  {CHUNK}  \n\n",
    "two-lines": f"data: {CHUNK[:200]}\ndata: {CHUNK[200:]}\n\n",
    "damaged-line": f"data: x{CHUNK}\ndata: {CHUNK}\n\ndata: {CHUNK}\n\n",
    "small-after-damaged": 'data: x{}\ndata: {{"choices":[]}}\ndata: {}\n\n'.format("y" * 200, "z" * 200),
    "two-values": f"data: {CHUNK}{CHUNK}\n\n",
    "two-members": f'data: {CHUNK},"a":{CHUNK}\n\n',
    "values-in-lines": 'data: x{}\ndata: {{"choices":[]}}  {{"usage":1}}\n\n'.format("y" * 200),
    "lines-of-json": f"{CHUNK}\n{CHUNK}\n",
    "values": f"{CHUNK} {CHUNK}{CHUNK}{{",
    "document": json.dumps(json.loads(CHUNK), indent=1),
    "document-end": json.dumps(json.loads(CHUNK), indent=1) + "\n" + CHUNK + "\n",
    "string": 'data: "%s"\n\n' % (LONG * 12),
    "garbage": f"data: {LONG * 12}\n\ndata: [DONE]\n\n",
    "field": f"retry: {LONG * 12}\n\n" + f"data: {CHUNK}\n\n",
    "error-line": 'error: {"message":"no"}\n' + f"data: {CHUNK}\n\n",
    "nested": "data: " + "[" * 500 + "]" * 500 + "\n\n",
    "bracket": "data: {%s}}\n\n" % (LONG * 12),
    "carriage-returns": f"data: {CHUNK}\r\n\r\n",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_large_pieces_are_the_same_chunks(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    body = BODIES[name].encode()
    found = decoded(body, size)
    monkeypatch.setattr(decoder, "LARGE", 1 << 30)
    expected = decoded(body, size)
    if name in ("two-values", "two-members"):  # which nobody has ever sent
        expected = []
    assert found == expected


def decoded(body: bytes, size: int) -> List[Json]:
    chunks = decoder.ChunkDecoder()
    found = [
        chunk for begin in range(0, len(body), size) for chunk in chunks.feed(body[begin : begin + size])
    ]
    return [one for chunk in found + chunks.close() for one in whole(chunk)]


def whole(chunk: Json) -> List[Json]:
    return at_once(chunk.steps()) if isinstance(chunk, Unparsed) else [chunk]


def at_once(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_large_error_is_shown_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "MAX_ERROR", 60)
    for body in (b'event: error\ndata: {"message":"%b"}\n\n', b'error: {"message":"%b"}\n\n'):
        (chunk,) = decoded(body % (b"no" * 100), 1000)
        assert chunk["error"]["message"].startswith('{"message":"nono')
        assert len(chunk["error"]["message"]) <= 60


def test_a_chunk_of_too_many_values_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unparsed, "OF_ANSWER", Bounds(100, 1000))
    monkeypatch.setattr(unparsed, "MAX_CHUNKS", 10)
    for body in (b'data: {"a":[%b]}\n\n' % b",".join([b"[]"] * 200), b"data: x\n" + b"data: {}\n" * 200):
        assert [chunk["error"]["type"] for chunk in decoded(body, 1000)[-1:]] == ["protocol"]


@pytest.mark.parametrize("head", [b"data: ", b"", b'data: {"choices":[\ndata: ', b"[\n"])
def test_a_large_line_is_not_copied(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "LARGE", 1 << 18)
    chunks, piece = decoder.ChunkDecoder(), b"x" * 65536
    chunks.feed(head)
    chunks.feed(b'{"a":"')
    for _ in range(128):
        chunks.feed(piece)
    tracemalloc.start()
    try:
        chunks.feed(b'"}\n')
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 128 * len(piece) * (
        1.3 if b"\n" in head else 0.3
    )  # those of several lines are held once more


def test_what_is_not_utf_8_is_replaced_in_large_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"data: " + CHUNK.encode().replace(b"words", b"w\xffords\xe2\x82") + b"\n\n"
    found = decoded(body, 50)
    monkeypatch.setattr(decoder, "LARGE", 1 << 30)
    assert found == decoded(body, 50) and "\ufffd" in str(found)


# ---- There is an end
def test_values_without_line_ends_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "MAX_VALUES", 10)
    assert decoded(b"{}" * 25, 8) == [{}] * 25
    assert "10 JSON values" in decoded(b"{}" * 25 + b"\n{}\n", 100)[-1]["error"]["message"]


def test_only_so_many_pieces_of_a_chunk_are_reasoning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning_details, "MAX_PIECES", 3)
    pieces = [{"type": "reasoning.encrypted", "data": "x", "id": str(n)} for n in range(5)]
    stream = converter()
    stream.feed(delta(reasoning_details=pieces))
    assert stream.reader.reasoning_details == pieces[:3]


def test_what_was_parsed_in_steps_is_there_to_be_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "WINDOW", 64)
    for limit, error in ((1000, False), (20, True)):
        monkeypatch.setattr(unparsed, "OF_ANSWER", Bounds(limit, 1000))
        path = FastPath(converter())
        path.feed(b'data: {"choices":[%b]}\n\n' % b",".join([b'{"delta":{}}'] * 50))
        for _ in path.later():
            pass
        assert (path.converter.reader.error is not None) == error
        assert len(json.dumps(path.spent)) > 200


def test_an_answer_of_too_many_items_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_converter, "MAX_ITEMS", 5)
    stream = converter()
    found = drive(stream, [one for _ in range(3) for one in (text("a"), think("b"))] + [end()])
    assert "more than 5 items" in str(stream.reader.error)
    assert found[-1]["type"] == "response.failed"


def test_reasoning_that_is_too_long_is_not_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_converter, "MAX_SEALED", 100)
    for size, sealed in ((10, True), (200, False)):
        stream = converter(seal=lambda payload: "sealed")
        items = outcome(drive(stream, [think("x" * size), text("a"), end()]))["output"]
        assert ("encrypted_content" in items[0]) == sealed


def test_a_text_that_is_repeated_is_compared_at_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_buffer, "REMEMBERED", 8)
    for whole, expected in ((LONG * 3 + "!", LONG * 3 + "!"), ("no" + LONG * 3, LONG * 3), ("x", LONG * 3)):
        message = {"choices": [{"message": {"role": "assistant", "content": whole}, "finish_reason": "stop"}]}
        (item,) = outcome(drive(converter(), [text(LONG)] * 3 + [message]))["output"]
        assert item["content"][0]["text"] == expected


@given(st.lists(st.text(max_size=5)), st.integers(0, 9))
def test_a_text_grows(pieces: List[str], enough: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_buffer, "ENOUGH", enough)
        buffer = text_buffer.TextBuffer()
        for number, piece in enumerate(pieces, 1):
            buffer.append(piece)
            assert number % 3 or buffer.text() == "".join(pieces[:number])
        assert buffer.text() == "".join(pieces)
        assert bool(buffer) == any(pieces) or not buffer.text()


def test_a_summary_that_is_too_long_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MAX_SEALED", 100)
    stream = compaction.CompactionConverter(
        response_object({"model": "m"}, id="resp_1", created_at=1),
        ToolTable(),
        ids=lambda prefix: prefix,
        now=lambda: 1,
    )
    for _ in range(6):
        stream.feed(text(LONG))
    stream.feed(end())
    failure = stream.failure(True)
    assert failure is not None and failure.code == "server_error"
    assert "more than 100 characters" in failure.message
