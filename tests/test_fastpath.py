"""The fast path gives the same events as the plain path, whatever the bytes are and however they are cut."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

import pytest
from grammar import check_stream
from hypothesis import given
from hypothesis import strategies as st
from stream_tools import call, converter, delta, end, text, think

from rproxy.convert.answer.decoder import ChunkDecoder
from rproxy.convert.events.fastpath import MAX_CANDIDATES, MAX_HELD, TOGETHER, DeltaBatch, FastPath
from rproxy.convert.profile import AnswerForm
from rproxy.convert.sse import DONE, encode_sse

Json = Dict[str, Any]
HEAD = delta(role="assistant", content="")
Spelling = Tuple[bool, Tuple[str, str], bytes]  # ensure_ascii, separators, line end


def spelled(
    chunk: Json, ascii_only: bool = True, separators: Tuple[str, str] = (",", ":"), newline: bytes = b"\n"
) -> bytes:
    line = json.dumps(chunk, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "surrogatepass")
    return b"data: " + line + newline * 2


def plain_path(reads: List[bytes], options: Json) -> Tuple[List[Json], Json, Any]:
    """The reference: decoder and converter alone."""
    decoder, stream = ChunkDecoder(), converter(**options)
    events = stream.start()
    for data in reads:
        for chunk in decoder.feed(data):
            events += stream.feed(chunk)
    for chunk in decoder.close():
        events += stream.feed(chunk)
    seen = (stream.reader.chunks, stream.reader.finish, stream.reasoning_text)
    return events + stream.finish(), stream.response, seen


class Fast:
    """The same with the fast path; ``used`` counts the deltas that took it."""

    def __init__(self, reads: List[bytes], options: Json, beats: bool = False) -> None:
        self.path = FastPath(converter(**options))
        self.used = 0
        self.events = self.path.converter.start()
        for data in reads:
            for batch in self.path.feed(data):
                assert len(batch) > 0
                self.used += len(batch) if isinstance(batch, DeltaBatch) else 0
                self.events += batch
            for batch in self.path.later():
                self.events += batch
            if beats:
                self.events += self.path.converter.heartbeat()
        self.events += self.path.close()
        stream = self.path.converter
        self.seen = (stream.reader.chunks, stream.reader.finish, stream.reasoning_text)
        self.events += stream.finish()
        self.response = stream.response


def same(reads: List[bytes], **options: Any) -> Fast:
    """Compare both paths."""
    fast = Fast(reads, options)
    assert (fast.events, fast.response, fast.seen) == plain_path(reads, options)
    return fast


def cut(data: bytes, sizes: List[int]) -> List[bytes]:
    reads, begin = [], 0
    for size in sizes:
        reads.append(data[begin : begin + size])
        begin += size
    return [*reads, data[begin:]]


# ---- any stream, cut anywhere
CHARACTERS = st.sampled_from(
    [
        '"',
        "\\",
        "/",
        "\n",
        "\t",
        "\x00",
        "\x1f",
        "\x7f",
        "é",
        "中",
        "\u2028",
        "\ufeff",
        "\ue000",
        "\ud83c",
        "\udf89",
        "😀",
        "a",
        "}",
    ]
)
WORDS = st.text(CHARACTERS, max_size=3) | st.sampled_from(
    ["one", " two", "<think>", "```json\n", "assistant", "chatcmpl-1", "data: "]
)
NORMAL = st.builds(text, WORDS) | st.builds(think, WORDS)
STRANGE = (
    st.builds(lambda word: delta(content=word, reasoning_content=word), WORDS)
    | st.builds(lambda word: {**text(word), "usage": {"prompt_tokens": 3, "completion_tokens": 4}}, WORDS)
    | st.builds(lambda word: {**text(word), "created": len(word)}, WORDS)
    | st.builds(lambda word: delta(refusal=word), WORDS)
    | st.builds(lambda word: text(word, annotations=[{"url_citation": {"url": "u"}}]), WORDS)
    | st.builds(lambda word: think(word, reasoning_details=[{"type": "reasoning.text", "text": word}]), WORDS)
    | st.builds(lambda word: call(0, word, id="c1", name="f"), WORDS)
    | st.sampled_from(
        [
            end("stop"),
            end(None, {"prompt_tokens": 1, "completion_tokens": 1}),
            {"error": {"message": "no"}},
            HEAD,
            {"choices": []},
        ]
    )
)
RUNS = (
    st.builds(lambda chunk, count: [chunk] * count, NORMAL, st.integers(1, 4))
    | st.lists(NORMAL, max_size=6)
    | st.lists(STRANGE, max_size=1)
)
SPELLINGS = st.tuples(
    st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")]), st.sampled_from([b"\n", b"\r\n"])
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "reasoning": st.sampled_from(["summary", "content"]),
        "seal": st.just(json.dumps),
        "strip_fences": st.booleans(),
        "logprobs": st.booleans(),
        "answer": st.builds(AnswerForm, think_tags=st.booleans(), cumulative=st.booleans()),
    },
)


@given(
    st.lists(RUNS, max_size=5),
    SPELLINGS,
    st.lists(st.integers(1, 400), max_size=20),
    OPTIONS,
    st.sampled_from([DONE, b"", b": wait\n\n" + DONE]),
)
def test_any_stream_cut_anywhere(
    runs: List[List[Json]], how: Spelling, sizes: List[int], options: Json, tail: bytes
) -> None:
    body = b"".join(spelled(chunk, *how) for run in runs for chunk in run) + tail
    same(cut(body, sizes), **options)


@given(st.lists(WORDS, min_size=1, max_size=20), st.booleans(), st.lists(st.integers(1, 20), max_size=20))
def test_events_together_in_one_read(words: List[str], ascii_only: bool, counts: List[int]) -> None:
    pieces = [spelled(text(word), ascii_only) for word in words]
    reads = [b"".join(group) for group in cut_list(pieces, counts)]
    same([spelled(HEAD) + spelled(text("first")), *reads, spelled(end()) + DONE])


def cut_list(pieces: List[bytes], counts: List[int]) -> List[List[bytes]]:
    groups, begin = [], 0
    for count in counts:
        groups.append(pieces[begin : begin + count])
        begin += count
    return [group for group in [*groups, pieces[begin:]] if group]


# ---- that it is used, and when not
@pytest.mark.parametrize("make", [text, think])
@pytest.mark.parametrize("word", [" word", "中文", 'say "hi"\\\n', "\u00e9"])
def test_all_but_the_first_delta_take_the_fast_path(make: Any, word: str) -> None:
    for ascii_only in (True, False):
        reads = [spelled(HEAD)] + [spelled(make(word), ascii_only)] * 50 + [spelled(end()) + DONE]
        assert same(reads).used == 49


def test_a_burst_takes_it_too_wherever_it_is_cut() -> None:
    body = spelled(HEAD) + spelled(text(" word")) * 1000 + spelled(end()) + DONE
    assert same([body[i : i + 4096] for i in range(0, len(body), 4096)]).used > 900


def test_a_long_read_teaches_itself() -> None:
    body = spelled(HEAD) + spelled(think("hm")) * 200 + spelled(text(" word")) * 400 + spelled(end()) + DONE
    assert same([body]).used > 550


@given(
    st.lists(st.tuples(NORMAL | STRANGE, st.integers(1, 150)), min_size=1, max_size=4),
    SPELLINGS,
    OPTIONS,
    st.integers(0, 400),
)
def test_any_long_reads(runs: List[Tuple[Json, int]], how: Spelling, options: Json, missing: int) -> None:
    body = b"".join(spelled(chunk, *how) * count for chunk, count in runs) + DONE
    same(cut(body, [len(body) // 2, len(body) // 2 - missing]), **options)


def test_a_run_ends_where_an_event_of_another_form_begins() -> None:
    other = text(" c")
    other["choices"][0]["native_finish_reason"] = "none"
    one = spelled(text(" word"))
    assert same([one, one * 3 + spelled(other) + one * 2, DONE]).used == 3


def test_many_chunks_that_all_differ_are_converted_in_several_steps() -> None:
    read = b"".join(spelled({**text(" word"), "n": n}) for n in range(3 * TOGETHER))
    path = FastPath(converter())
    assert sum(len(batch) for batch in path.feed(read)) < 2 * TOGETHER
    assert [len(events) for events in path.later()][:-1] == [TOGETHER + 1]
    same([read, DONE])


def test_thinking_then_text_learns_twice() -> None:
    reads = [spelled(think("hm"))] * 20 + [spelled(text("so"))] * 20 + [spelled(end()) + DONE]
    assert same(reads).used == 38


@pytest.mark.parametrize(
    "options",
    [
        {"answer": AnswerForm(think_tags=True)},
        {"answer": AnswerForm(cumulative=True)},
        {"strip_fences": True},
        {"logprobs": True},
    ],
)
def test_not_while_text_is_looked_at(options: Json) -> None:
    assert same([spelled(text("one"))] * 10 + [DONE], **options).used == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[{"delta":{"content":"a"}}]}\n',
        b'event: x\ndata: {"choices":[{"delta":{"content":"a"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"}}]}\n',
        b'data: {"choices":[{"delta":{"content":"a"}}]}\r\r',
        b'data: {"choices":[{"delta":{"content":"a","content":"a"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a","content":"b"}}]}\n\n',
        b'data: {"choices":{"delta":{"content":"a"}}}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"},"logprobs":NaN}]}\n\n',
        b'data: {"choices":[{"message":{"content":"a"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a\\/b"}}]}\n\n',
        b'data: {"choices":[7,{"delta":{"content":"a"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}\n\n',
    ],
)
def test_other_framings_and_shapes_stay_on_the_plain_path_or_are_the_same(body: bytes) -> None:
    same([body] * 10 + [DONE])


def test_chunks_that_all_differ_are_learned_a_few_times_only() -> None:
    reads = [spelled({**text(" word"), "obfuscation": "x" * (i % 7), "n": i}) for i in range(100)]
    fast = same([*reads, DONE])
    assert (fast.used, fast.path._candidates_left) == (0, 0)


def test_a_field_that_changes_now_and_then_is_learned_each_time() -> None:
    reads = [spelled({**text(" word"), "created": i // 20}) for i in range(20 * MAX_CANDIDATES * 2)]
    assert same([*reads, DONE]).used == 19 * MAX_CANDIDATES * 2


def test_what_is_illegal_in_a_string_is_left_to_the_plain_path() -> None:
    good = spelled(text(" word"))
    for bad in (
        b"\xff",
        b"\x01",
        b"\0",
        b"a\0b",
        b"\\x",
        b"\\u12",
        b"\\ud83c",
        b'","content":"',
        b'"}},{"delta":{"content":"x',
    ):
        same([good, good.replace(b" word", bad), good, good + good.replace(b" word", bad) + good, DONE])


def test_an_event_that_never_ends_is_not_held_here() -> None:
    path = FastPath(converter())
    path.feed(spelled(text(" word")))
    begun = spelled(text("x" * MAX_HELD))[:-200]
    assert path.feed(begun[:1000]) == []
    assert len(path._held) == 1000
    path.feed(begun[1000:] + b"x" * 400)
    assert path._held == b""


def test_an_event_is_sent_before_its_blank_line_has_come() -> None:
    event = spelled(text(" word"))
    path = FastPath(converter())
    path.feed(event)
    assert [len(batch) for batch in path.feed(event[:-1])] == [1]
    assert path.feed(b"\n") == []
    for tail in (b"data: [DONE]", b": comment", b"\r\n"):
        assert path.feed(tail) == []
    assert path.done


def test_nothing_is_read_after_done() -> None:
    event = spelled(text(" word"))
    assert same([event, event, event + DONE + event, event]).used == 2
    assert (
        same([event + DONE + event, event]).used == 0
    )  # the last event in the read looks like the last chunk


def test_the_last_event_may_lack_its_line_end() -> None:
    event = spelled(text(" word"))
    for missing in (1, 2, 3, 9):
        same([event, event, event[:-missing]])
        same([event, event + event[:-missing]])
        same([event[:-missing]])


def test_heartbeats_in_between_are_numbered_in_order() -> None:
    reads = [spelled(text(" word"))] * 5 + [DONE]
    fast = Fast(reads, {}, beats=True)
    check_stream(fast.events)
    assert fast.used and fast.response["output"][0]["content"][0]["text"] == " word" * 5


def test_the_converter_is_up_to_date_whenever_it_is_asked() -> None:
    path = FastPath(converter())
    for n in range(1, 9):
        path.feed(spelled(think(" word")))
        assert path.converter.reasoning_text == " word" * n
        assert path.converter.reader.chunks == n


def test_a_batch_is_a_sequence_of_events() -> None:
    path = FastPath(converter())
    event = spelled(text(' "é"'), False)
    path.feed(event)
    batch: Optional[Any] = path.feed(event * 3)[0]
    assert isinstance(batch, DeltaBatch)
    assert len(batch) == 3 and batch[-1] == list(batch)[2] and batch[:2] == list(batch)[:2]
    assert batch.after == batch[-1]["sequence_number"] + 1
    assert batch.sse() == encode_sse(list(batch))
    one = path.feed(event)[0]
    assert isinstance(one, DeltaBatch) and one.sse() == encode_sse(list(one))
    assert [json.loads(payload) for payload in batch.payloads()] == list(batch)
