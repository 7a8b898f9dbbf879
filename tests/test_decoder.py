"""The decoder reads the same bytes the same way wherever they are cut.

Recorded answers, with bytes exchanged, inserted and left out, are read whole, byte by byte, and cut in two.
The alphabet of the changes is what means something to the decoder.
"""

from __future__ import annotations

import json
from typing import Any, Iterable, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import examples
from provider_cases import our_own, recorded
from test_fastpath import cut, same

from rproxy.convert.answer.decoder import ChunkDecoder
from rproxy.convert.json_end import JsonEnd

BODIES = sorted({case["body"] for case in {**recorded(), **our_own()}.values() if case.get("body")})
ALPHABET = [
    *(bytes([byte]) for byte in b'{}[]"\\\n\r \t:,<\x0b\x1c\xef\xbb\xff'),
    b"\r\n", b"\n\n", b"data:", b"[DONE]", b"data: [DONE]", b" data: ", b"\xef\xbb\xbf", b'"[DONE]"',
    b"event: error\n", b'error: {"a":1}\n', b'{"b":2}', b'{"b":2\\}', b'[{"x":1}]', b"\xe2\x80\xa8", b" " * 9,
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n',
]  # fmt: skip
LIMITS = st.sampled_from([1 << 20, 1 << 20, 5, 9, 20, 60])


def read(pieces: Iterable[bytes], limit: int = 1 << 20) -> Tuple[str, bool]:
    decoder = ChunkDecoder(limit)
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    return json.dumps(chunks + decoder.close()), decoder.done


def check_cuts(body: bytes, limit: int = 1 << 20, first: int = 1, step: int = 1) -> None:
    """Whole, byte by byte, and in two pieces cut at every ``step``-th place from ``first`` on."""
    whole = read([body], limit)
    assert read([body[i : i + 1] for i in range(len(body))], limit) == whole
    for i in range(first, len(body), step):
        assert read([body[:i], body[i:]], limit) == whole, i


@st.composite
def changed_bodies(draw: Any) -> bytes:
    """A stretch of a recorded answer with some changes."""
    body = draw(st.sampled_from(BODIES))
    begin = draw(st.integers(0, max(0, len(body) - 200)))
    body = body[begin : begin + 200]
    for _ in range(draw(st.integers(0, 3))):
        at, lost = draw(st.integers(0, len(body))), draw(st.sampled_from([0, 0, 1, 1, 2, 5]))
        body = body[:at] + draw(st.sampled_from(ALPHABET)) + body[at + lost :]
    return bytes(body)


@given(
    st.lists(st.sampled_from(ALPHABET), max_size=12).map(b"".join) | changed_bodies(),
    LIMITS,
    st.integers(1, 4),
)
@settings(max_examples=examples(300))
def test_any_bytes_mean_the_same_wherever_they_are_cut(body: bytes, limit: int, first: int) -> None:
    check_cuts(body, limit, first, step=4)


@pytest.mark.parametrize(
    "body, limit",
    [
        (b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n{"b":2\\}\t[DONE]', 1 << 20),
        (b'{"b":2\\}{[{"x":1}]\revent: error\n\xff:"\r', 1 << 20),
        (b"data: [DONE] and more", 9),
    ],
)
def test_these_bytes_mean_the_same_wherever_they_are_cut(body: bytes, limit: int) -> None:
    check_cuts(body, limit)


@pytest.mark.parametrize("part", range(4))
def test_recorded_answers_mean_the_same_wherever_they_are_cut(part: int) -> None:
    for body in BODIES[part::4]:
        whole = read([body])
        for i in range(1, len(body), 1 + len(body) // examples(60)):
            assert read([body[:i], body[i:]]) == whole, (body, i)


def test_a_backslash_outside_of_a_string_hides_nothing() -> None:
    body = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n{"b":2\\}\t[DONE]'
    chunks, done = read([body])
    assert done and json.loads(chunks)[0]["choices"][0]["delta"] == {"content": "Hi"}


@given(st.lists(st.sampled_from(['{"a":', '"', "\\", "x", "{", "}", "[", "]", "\\\\", "\\}"]), max_size=12))
def test_the_end_of_a_value_does_not_depend_on_the_pieces(pieces: List[str]) -> None:
    """Also of tool arguments, which :meth:`JsonEnd.feed` reads."""
    text = "{" + "".join(pieces)
    whole, parts, empty = JsonEnd(), JsonEnd(), JsonEnd()
    whole.feed(text)
    for character in text:
        parts.feed(character)
        empty.feed(character)
        empty.feed("")
    assert whole.reached == parts.reached == empty.reached
    found, split = JsonEnd().find(text), JsonEnd()
    ends = [at for at in range(len(text)) if split.find(text[at]) >= 0]
    assert (ends[0] + 1 if ends else -1) == found


@given(changed_bodies(), st.lists(st.integers(1, 80), max_size=8))
def test_the_fast_path_reads_changed_answers_as_the_decoder_does(body: bytes, sizes: List[int]) -> None:
    same(cut(body, sizes))


def test_a_line_end_in_two_reads_is_one_line_end() -> None:
    pieces = [b'data: {"a":\r', b"\ndata: 1}\r", b"\n\r", b'\ndata: {"b": 2}\r', b'data: {"c": 3}\r']
    assert read(pieces) == read([b"".join(pieces)])
    assert read(pieces)[0].count("{") == 3
