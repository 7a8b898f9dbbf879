"""The response parser: every case whole, byte by byte, and with trailing data; then arbitrary cuts and
arbitrary bytes.
"""

from __future__ import annotations

import gzip
import tracemalloc
from typing import List, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import examples

from rproxy.upstream.parser import MAX_HEAD, MAX_INFLATED, GzipDecoder, Head, ProtocolError, ResponseParser

Parsed = Tuple[Optional[Head], bytes, bool, bool]


def parse(pieces: List[bytes], method: str = "GET", eof: bool = False) -> Parsed:
    parser = ResponseParser(method)
    body = b"".join([parser.feed(piece) for piece in pieces])
    if eof:
        parser.feed_eof()
    return parser.head, body, parser.done, parser.reusable


def bytewise(data: bytes) -> List[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = [
    # name, method, raw, status, body, reusable
    ("length", "POST", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
    (
        "length twice the same",
        "GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\ncontent-length: 2\r\n\r\nok",
        200,
        b"ok",
        True,
    ),
    ("empty", "GET", b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", 429, b"", True),
    (
        "chunked",
        "GET",
        CHUNKED + b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
        200,
        b"hello0123456789",
        True,
    ),
    ("chunked, leading zeros", "GET", CHUNKED + b"0005 \r\nhello\r\n000\r\n\r\n", 200, b"hello", True),
    (
        "chunk data that looks like framing",
        "GET",
        CHUNKED + b"4\r\n\r\n\r\n\r\n2\r\n0\r\r\n0\r\n\r\n",
        200,
        b"\r\n\r\n0\r",
        True,
    ),
    ("trailers", "GET", CHUNKED + b"1\r\na\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n", 200, b"a", True),
    (
        "bare LF",
        "GET",
        b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
        200,
        b"hello",
        True,
    ),
    (
        "1xx first",
        "GET",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\n"
        b"Content-Length: 1\r\n\r\nx",
        200,
        b"x",
        True,
    ),
    ("204", "GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    ("304 with a length", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    ("HEAD", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 200, b"", True),
    ("CONNECT", "CONNECT", b"HTTP/1.1 200 Connection established\r\n\r\n", 200, b"", True),
    ("CONNECT refused", "CONNECT", b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno", 407, b"no", True),
    ("no reason", "GET", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    (
        "asks to close",
        "GET",
        b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        False,
    ),
    ("HTTP/1.0", "GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    (
        "chunked and a length",
        "GET",
        CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        200,
        b"ok",
        False,
    ),
]


@pytest.mark.parametrize("name,method,raw,status,body,reusable", GOOD, ids=[case[0] for case in GOOD])
def test_good_answers(name: str, method: str, raw: bytes, status: int, body: bytes, reusable: bool) -> None:
    for pieces in ([raw], bytewise(raw)):
        head, got, done, again = parse(pieces, method)
        assert head is not None and head.status == status
        assert (got, done, again) == (body, True, reusable)
    head, got, done, again = parse([raw + b"HTTP/1.1 200 OK\r\n"], method)
    assert (got, done, again) == (body, True, False), "bytes after the end: never reuse"
    assert parse(bytewise(raw) + [b"!"], method)[1:] == (body, True, False)
    with pytest.raises(ProtocolError) as caught:
        parse([raw[:-1]], method, eof=True)
    assert caught.value.truncated


def test_until_close() -> None:
    raw = b"HTTP/1.1 200 OK\r\n\r\nhello"
    assert parse([raw])[1:] == (b"hello", False, False)
    assert parse([raw], eof=True)[1:] == parse(bytewise(raw), eof=True)[1:] == (b"hello", True, False)


def test_headers() -> None:
    raw = (
        b"HTTP/1.1 200 Fine \xe9\r\nA : 1\r\nB:2  \r\n  more\r\n\tyet\r\nC:\r\nD: a:b\xff\r\na: 3\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    head = parse([raw])[0]
    assert head is not None and (head.version, head.status, head.reason) == ("HTTP/1.1", 200, "Fine \xe9")
    assert head.headers == [
        ("A", "1"),
        ("B", "2 more yet"),
        ("C", ""),
        ("D", "a:b\xff"),
        ("a", "3"),
        ("Content-Length", "0"),
    ]
    assert head.values("a") == ["1", "3"]


BAD = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/2 200 OK\r\n",
    b"HTTP/1.1 20 OK\r\n",
    b"HTTP/1.1 2000 OK\r\n",
    b"\r\n",
    b"<html>\n",
    b"HTTP/1.1 200 O\x00K\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n",
    b"HTTP/1.1 200 OK\r\n: x\r\n",
    b"HTTP/1.1 200 OK\r\nA b: x\r\n",
    b"HTTP/1.1 200 OK\r\n folded\r\n",
    b"HTTP/1.1 200 OK\r\nA: \rb\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    CHUNKED + b"zz\r\n",
    CHUNKED + b"0x5\r\nhello\r\n",
    CHUNKED + b"-5\r\nhello\r\n",
    CHUNKED + b"5\r\nhelloo\r\n",
    CHUNKED + b"5\r\nhello\r5\r\n",
    CHUNKED + b"\r\n",
    CHUNKED + b"1" * 16 + b"\r\n",
    CHUNKED + b"1;" + b"x" * 5000,
    CHUNKED + b"0\r\n" + b"X: y\r\n" * 20000,
]


@pytest.mark.parametrize("raw", BAD, ids=range(len(BAD)))
def test_bad_answers(raw: bytes) -> None:
    for pieces in ([raw], bytewise(raw)):
        with pytest.raises(ProtocolError) as caught:
            parse(pieces)
        assert not caught.value.truncated and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "raw,where",
    [
        (b"", "without"),
        (b"HTTP/1.1 2", "head"),
        (b"HTTP/1.1 200 OK\r\n", "head"),
        (CHUNKED, "response"),
        (CHUNKED + b"5\r\nhell", "response"),
    ],
)
def test_early_end(raw: bytes, where: str) -> None:
    with pytest.raises(ProtocolError, match=where) as caught:
        parse([raw], eof=True)
    assert caught.value.truncated


def test_memory_is_bounded_on_an_endless_line() -> None:
    block = b"x" * 65536
    for start in (b"", b"HTTP/1.1 200 OK\r\nA: ", CHUNKED + b"5;", CHUNKED + b"0\r\nT: "):
        parser = ResponseParser()
        tracemalloc.start()
        with pytest.raises(ProtocolError):
            parser.feed(start)
            for _ in range((1 << 30) // len(block)):
                parser.feed(block)
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_HEAD
        tracemalloc.stop()


def test_many_1xx_answers_end() -> None:
    with pytest.raises(ProtocolError, match="longer than"):
        parse([b"HTTP/1.1 102 Processing\r\n\r\n"] * 10000)


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_any_cut_gives_the_same(case: Tuple[str, str, bytes, int, bytes, bool], data: st.DataObject) -> None:
    _, method, raw, _, _, _ = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0] + cuts, cuts + [len(raw)])]
    assert parse(pieces, method) == parse([raw], method)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.integers(1, 40))
def test_any_body_survives_chunking(chunks: List[bytes], size: int) -> None:
    raw = CHUNKED + b"".join([b"%x\r\n%b\r\n" % (len(c), c) for c in chunks]) + b"0\r\n\r\n"
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert parse(pieces)[1:] == (b"".join(chunks), True, True)


GARBAGE = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.0 404 \n",
                b"\r\n",
                b"\n",
                b"Content-Length: 3\r\n",
                CHUNKED,
                b"5\r\nhello\r\n",
                b"0\r\n",
                b":",
                b" ",
            ]
        ),
    ),
    max_size=8,
)


def outcome(pieces: List[bytes], method: str = "GET") -> Tuple[Parsed, bool]:
    """What came before the first error, and whether there was one."""
    parser, body, failed = ResponseParser(method), b"", False
    try:
        for piece in pieces:
            body += parser.feed(piece)
        parser.feed_eof()
    except ProtocolError:
        body, failed = body + parser.take_body(), True
    return (parser.head, body, parser.done, parser.reusable), failed


@settings(max_examples=examples(500), deadline=None)
@given(
    st.binary(min_size=1, max_size=300),
    st.sampled_from(["%x", "0%x", "%X", "%x;e", "%xno", "?%x"]),
    st.sampled_from([0, 0, 0, 1, -1, 16]),
    st.sampled_from([b"\r\n", b"\r\n", b"\n", b"xx", b"\r\n0\r\n\r\n"]),
)
def test_a_chunk_in_a_read_of_its_own(body: bytes, line: str, more: int, end: bytes) -> None:
    """The quick way for it says what the long way says."""
    piece = (line % (len(body) + more)).encode() + b"\r\n" + body + end
    assert outcome([CHUNKED, piece, b"0\r\n\r\n"]) == outcome([CHUNKED, *bytewise(piece + b"0\r\n\r\n")])


@pytest.mark.parametrize("length", range(1, 40))
def test_a_read_of_any_length_that_is_no_chunk(length: int) -> None:
    for text in (b"no such chunk", b"?" * 40, b"x"):
        assert outcome([CHUNKED, (text + b"y" * 40)[: max(length - 2, 0)] + b"\r\n"])[1]


@settings(max_examples=examples(1000), deadline=None)
@given(GARBAGE, st.sampled_from(["GET", "HEAD", "CONNECT"]))
def test_any_garbage_gives_the_same_however_it_is_cut(pieces: List[bytes], method: str) -> None:
    whole = b"".join(pieces)
    assert outcome(pieces, method) == outcome([whole], method) == outcome(bytewise(whole), method)


# gzip


def inflate(pieces: List[bytes]) -> bytes:
    decoder = GzipDecoder()
    plain = b"".join([decoder.feed(piece) for piece in pieces])
    decoder.close()
    return plain


def test_gzip() -> None:
    raw = gzip.compress(b"hello ") + gzip.compress(b"world")
    assert inflate([raw]) == inflate(bytewise(raw)) == b"hello world"
    assert inflate([]) == inflate([b""]) == b""


def test_gzip_failures() -> None:
    raw = gzip.compress(b"hello")
    bomb = gzip.compress(b"\0" * (MAX_INFLATED + 1))
    for pieces in ([b"plain text"], [raw[:-1]], [raw + b"junk"], [raw[:-6] + b"123456"], [bomb]):
        with pytest.raises(ProtocolError):
            inflate(pieces)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_gzip_garbage(pieces: List[bytes]) -> None:
    try:
        inflate(pieces)
    except ProtocolError:
        pass
