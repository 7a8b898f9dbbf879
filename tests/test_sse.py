"""Bytes to chunks, whatever a provider sends and however it is cut; events to bytes for every client."""

from __future__ import annotations

import json
import time
from typing import Any, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.answer.decoder import ChunkDecoder
from rproxy.convert.sse import DONE, encode_sse
from rproxy.json_codec import encode_json

A, B = {"a": 1}, {"b": 2}
UNKNOWN = {"error": {"message": "The provider reported an error without a message."}}


def read(data: bytes, cuts: Tuple[int, ...] = (), limit: int = 32 << 20) -> Tuple[List[Any], bool]:
    decoder = ChunkDecoder(limit)
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    chunks = [chunk for a, b in zip(places, places[1:]) for chunk in decoder.feed(data[a:b])]
    chunks += decoder.close()
    assert decoder.close() == [] and decoder.feed(b'data: {"late": 1}\n\n') == []
    return chunks, decoder.done


def everyway(data: bytes) -> Tuple[List[Any], bool]:
    """Whole, byte by byte, and with more behind it."""
    result = read(data)
    assert read(data, tuple(range(len(data)))) == result
    if result[1]:
        assert read(data + b'\n\ndata: {"ghost": 1}\n\n' + DONE) == result
    return result


@pytest.mark.parametrize(
    "data, chunks, done",
    [
        (b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n', [A, B], True),
        (b'data:{"a":1}\r\n\r\ndata:{"b":2}\r\n\r\ndata:[DONE]', [A, B], True),
        (b'data: {"a":1}\r\rdata: {"b":2}\r\n\ndata: [DONE] \r', [A, B], True),
        (b'\xef\xbb\xbfdata: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n', [A, B], True),
        (
            b': hi\n\nid: 5\nretry: 5\nnonsense\nevent: message\ndata: {"a":1}\n\ndata:\n\ndata: \n\n',
            [A],
            False,
        ),
        (b'data: {\ndata:  "a":\n: ping\ndata: 1}\n\ndata: {"b":\n\ndata: {"b":2}', [A, B], False),
        (b'data: {"a":\n\n', [], False),
        (b'data: {"x\ndata: {"a":1}\n\ndata: {"b":2}\n\n', [A, B], False),
        (b'data: {"x\ndata: {"a":1}\ndata: [DONE]', [A], True),
        (b'data: {"a":1}{"b":2} \n\n', [A, B], False),
        (b'data: {"a":1} garbage\n\n', [A], False),
        (b'data: [{"a":1},{"b":2},5]\n\ndata: 5\n\ndata: null\n\ndata: []\n\n', [A, B], False),
        (b'data: {"a":NaN,"b":-Infinity,"c":1e999}\n\n', [{"a": None, "b": None, "c": float("inf")}], False),
        (b'data: {"a":"\xff\xe2\x82"}\n\n', [{"a": "\ufffd\ufffd"}], False),
        # errors of the framing
        (b'event: error\ndata: {"error":{"message":"m"}}\n\n', [{"error": {"message": "m"}}], False),
        (
            b'event: error\ndata: {"message":"m"}\n\ndata: {"a":1}\n\n',
            [{"error": {"message": "m"}}, A],
            False,
        ),
        (b'event: error\ndata: {"message":\ndata: "m"}\ndata: [DONE]\n', [{"error": {"message": "m"}}], True),
        (b"event:error\ndata: no way\n\n", [{"error": {"message": "no way"}}], False),
        (b"event: error\n\n", [UNKNOWN], False),
        (b'event: error\nevent: x\ndata: {"a":1}\n\n', [UNKNOWN, A], False),
        (
            b'data: {"a":1}\n\nerror: {"code":500}\nerror: text\nerror:\n',
            [A, {"error": {"code": 500}}, {"error": {"message": "text"}}],
            False,
        ),
        # no event stream
        (b'\n\n {"a":1}\n{"b":2}\n', [A, B], False),
        (b'{"a":1}\n{"x\n{"b":2}\n[DONE]\n', [A, B], True),
        (b'\n\r\n{\n"a":\n1}', [A], False),
        (b'[{"a":1},\n{"b":2}]', [A, B], False),
        (b'{\n"a":1}\n{"b":2}\n', [A, B], False),
        (b'{"x\n{"a":1}\n5', [A], False),
        (b'{"a":1}\ndata: {"b":2}\n\ndata: [DONE]\n\n', [A, B], True),
        (b': hi\n\n{"a":1}\n', [A], False),
        (b"[DONE]", [], True),
        (b'data: {"a":1}\n\ndata: "[DONE]"\n\n', [A], True),
        (b'{"a":1} {"b":2}', [A, B], False),
        (b'{\n"a":1}{"b":2} [5]\n', [A, B], False),
        (b'{"a":1} and so on\n{"b":2}', [A, B], False),
        (b'{bad}\n{"a":1}\n', [A], False),
        (b'{"a":1}\n{"x\n{"b":2}', [A, B], False),
        (b'\xef\xbb\xbf{"a":1}', [A], False),
        (b'\xef\xbb\xbf {\n"a":1}\n<html>', [A], False),
        (b'  \t{"a":1}\n data: {"b":2}\n', [A, B], False),
        (b'{"s": "}\\"}",\n"t": "\\\\"}', [{"s": '}"}', "t": "\\"}], False),
        (b"Bad Gateway\n", [], False),
        (b"", [], False),
        (b"\n\n\n", [], False),
        (b"data: " + b"[" * 100000 + b"\n\ndata: " + b"9" * 5000 + b'\n\ndata: {"a":1}\n\n', [A], False),
    ],
)
def test_bodies(data: bytes, chunks: List[Any], done: bool) -> None:
    assert everyway(data) == (chunks, done)


@pytest.mark.parametrize(
    "data, expected",
    [
        (b'{"a":1}', [A]),
        (b'\n\n{\n "a": 1\n}', [A]),
        (b'[{"a":1},\n{"b":2}]', [A, B]),
        (b'\xef\xbb\xbf{"a":1}', [A]),
        (b'{"a":1}\n{"b":2}', [A, B]),
        (b'{"a":1} {"b":2', [A]),
        (b'data: {"a":1}\n\ndata: [DONE]', [A]),
        (b"data:[DONE]", []),
        (b'{"a":1}\n[DONE]', [A]),
    ],
)
def test_what_is_complete_is_told_while_the_connection_stays_open(data: bytes, expected: List[Any]) -> None:
    whole, bytewise = ChunkDecoder(), ChunkDecoder()
    assert whole.feed(data) == expected == [chunk for byte in data for chunk in bytewise.feed(bytes([byte]))]
    assert whole.done == bytewise.done == data.endswith(b"[DONE]")


@pytest.mark.parametrize(
    "data", [b"<html>\n<body>sign in</body>", b" \n<!DOCTYPE html>", b"<html>\n\ndata: {}\n\n"]
)
def test_web_pages(data: bytes) -> None:
    (chunk,), done = everyway(data)
    assert "HTML" in chunk["error"]["message"] and not done


@pytest.mark.parametrize(
    "data",
    [
        b"data: " + b"x" * 60,
        b"data: " + b"x" * 60 + b"\n\n",
        b"data: {\n" * 60,
        b"{\n" * 60,
        b"x" * 60,
        b"event: error\n" + b"data: y\n" * 60,
        b'{"a":"' + b"x" * 60 + b'"}',
        b'{"a":\n"' + b"x" * 45 + b'"}\n',
        b"{" + b"x" * 60 + b"\n",
        b" " * 60 + b"x" * 60,
    ],
)
def test_nothing_is_held_without_limit(data: bytes) -> None:
    head = b"" if data[:1] == b"{" else b'data: {"a":1}\n\n'
    for cuts in ((), tuple(range(300))):
        chunks, done = read(head + data, cuts, limit=50)
        assert chunks[:-1] == [A] * bool(head) and not done
        assert chunks[-1]["error"]["type"] == "protocol" and "50 bytes" in chunks[-1]["error"]["message"]
    assert read(b'data: {"a":1}\n\n' * 60, limit=50)[0] == [A] * 60


LINES = [
    b"data: ",
    b"data:",
    b'{"a":1}',
    b'{"a":',
    b"1}",
    b"[DONE]",
    b"\n",
    b"\r\n",
    b"\r",
    b"\n\n",
    b": ping",
    b"event: error",
    b"event: x",
    b"error: ",
    b"<",
    b"[",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x8e\xaf",
    b"\xff",
    b" ",
    b'{"error":"m"}',
    b"[{}]",
    b"\x00",
]
BODIES = st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(LINES), max_size=25).map(b"".join))


@given(BODIES, st.lists(st.integers(0, 200), max_size=8), st.sampled_from([20, 32 << 20]))
def test_cutting_changes_nothing(data: bytes, cuts: List[int], limit: int) -> None:
    result = read(data, limit=limit)
    assert read(data, tuple(cuts), limit) == result
    assert read(data, tuple(range(len(data))), limit) == result
    assert all(type(chunk) is dict for chunk in result[0])


def cost_of_single_bytes(count: int) -> float:
    """CPU seconds for an event that comes byte by byte."""
    decoder = ChunkDecoder()
    begin = time.process_time()
    assert decoder.feed(b'data: {"a":"') == []
    for _ in range(count):
        decoder.feed(b"x")
    assert len(decoder.feed(b'"}\n')[0]["a"]) == count
    for _ in range(count // 4):
        decoder.feed(b"data: {\n")
    return time.process_time() - begin


def test_single_bytes_take_linear_time() -> None:
    """Eight times as many cost eight times as much, not 64 times."""
    assert cost_of_single_bytes(160_000) < 24 * max(cost_of_single_bytes(20_000), 0.005)


# ---- writing
def test_events() -> None:
    events = [{"type": "response.x", "text": "é\u2028🎯\r\n"}, {"type": "y", "n": [1, None]}]
    assert encode_sse(events).decode() == (
        'event: response.x\ndata: {"type":"response.x","text":"é\u2028🎯\\r\\n"}\n\n'
        'event: y\ndata: {"type":"y","n":[1,null]}\n\n'
    )
    assert encode_sse([]) == b""
    assert (
        encode_sse([{"type": "x", "text": "\ud83c"}]).decode()
        == 'event: x\ndata: {"type":"x","text":"\ufffd"}\n\n'
    )


def test_json_that_any_parser_takes() -> None:
    odd = {"\ud83c": ["\ud83c\udfaf", "\udfaf\ud83c", float("nan"), float("-inf"), 1.5, (1, True)]}
    assert json.loads(encode_json(odd)) == {"\ufffd": ["🎯", "\ufffd\ufffd", None, None, 1.5, [1, True]]}
    assert encode_json({"é": 1}) == '{"é":1}'.encode()
    with pytest.raises(TypeError):
        encode_json({"a": object()})


def test_json_without_bottom() -> None:
    deep: Any = []
    for _ in range(100000):
        deep = [deep]
    assert encode_json(deep).startswith(b"[[[")
    while deep:
        deep = deep.pop()
    loop: List[Any] = []
    loop.append(loop)
    assert b"null" in encode_json(loop)


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters())),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters()), inner)),
    max_leaves=10,
)


@given(anything)
def test_all_json_goes_through_the_decoder_again(value: Any) -> None:
    data = encode_sse([{"type": "t", "value": value}])
    assert encode_sse(read(data)[0]) == data


def test_values_that_are_nested_too_deeply_become_null() -> None:
    value: Any = float("nan")
    for _ in range(100_000):
        value = [value]
    assert encode_json(value).strip(b"[]") == b"null"
    while value:  # freed one by one: the interpreter would do it by recursion
        value = value[0] if isinstance(value, list) else None
