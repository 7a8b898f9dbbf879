"""Request bodies: limits, encodings, and messages that say what is wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import zlib
from typing import Any, List

import pytest
from running_server import running_server

from rproxy import cooperative, json_codec
from rproxy.errors import ApiError
from rproxy.server import body as bodies
from rproxy.server.body import LARGE, BodyReader, is_dense, parse_object
from rproxy.types import Json

LIMIT = 1 << 20
HELLO = {"model": "m", "input": "héllo"}


def read(data: bytes, encoding: str = "", step: int = 0, limit: int = LIMIT) -> Any:
    reader = BodyReader(limit, str(len(data)), encoding)
    for at in range(0, len(data), step or max(1, len(data))):
        reader.feed(data[at : at + (step or len(data))])
    return asyncio.run(reader.parsed())


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("encoding", ["", "identity", "gzip", "x-gzip", " GZIP "])
def test_plain_and_gzip(encoding: str, step: int) -> None:
    data = json.dumps(HELLO).encode()
    assert read(gzip.compress(data) if "gz" in encoding.lower() else data, encoding, step) == HELLO


def test_gzip_of_two_members_and_a_byte_order_mark() -> None:
    data = b"\xef\xbb\xbf" + json.dumps(HELLO).encode()
    assert read(gzip.compress(data[:9]) + gzip.compress(data[9:]), "gzip") == HELLO


@pytest.mark.parametrize(
    "data, says",
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b'{"model": ', "not valid JSON"),
        (b"{} x", "not valid JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"[1,2]", "not an array"),
        (b"null", "not null"),
        (b'"x"', "not a string"),
        (b"true", "not a boolean"),
        (b"5", "not a number"),
        (b"0.5", "not a number"),
        (b'{"a": "\xff"}', "not UTF-8: invalid byte at offset 7"),
        (b"[" * 200000, "nested too deeply"),
    ],
)
def test_what_is_wrong_with_it(data: bytes, says: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(data)
    assert caught.value.status == 400 and says in caught.value.message


def test_a_huge_number_is_no_internal_error() -> None:
    try:
        parse_object(b'{"a": ' + b"9" * 100000 + b"}")
    except ApiError as error:
        assert error.status == 400


def test_the_declared_length_is_refused_before_the_body() -> None:
    with pytest.raises(ApiError) as caught:
        BodyReader(10, "11")
    assert (
        caught.value.status == 413
        and "10 bytes" in caught.value.message
        and "max_body_size" in caught.value.message
    )
    BodyReader(10, "10")
    BodyReader(10, "nonsense")


def test_a_body_without_length_is_counted() -> None:
    reader = BodyReader(10)
    reader.feed(b"x" * 10)
    with pytest.raises(ApiError) as caught:
        reader.feed(b"x")
    assert caught.value.status == 413


def test_a_bomb_is_stopped_by_its_decompressed_size() -> None:
    with pytest.raises(ApiError) as caught:
        read(gzip.compress(b" " * (50 << 20)), "gzip")
    assert caught.value.status == 413 and "decompressed" in caught.value.message


@pytest.mark.parametrize("data", [b"no gzip at all", gzip.compress(b"{}" * 100, mtime=0)[:-9], b"\x1f\x8b"])
def test_damaged_gzip(data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        read(data, "gzip")
    assert caught.value.status == 400 and "not valid gzip" in caught.value.message


def test_an_unknown_encoding_is_415() -> None:
    with pytest.raises(ApiError) as caught:
        BodyReader(LIMIT, "5", "br")
    assert caught.value.status == 415 and "gzip" in caught.value.message


def test_zstd_without_a_library_tells_how_to_switch_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ApiError) as caught:
        read(b"\x28\xb5\x2f\xfd", "zstd")
    error = caught.value
    assert (error.status, error.code) == (400, "invalid_prompt")
    assert "[features] enable_request_compression = false" in error.message


def zstd_module() -> Any:
    for name in ("compression.zstd", "zstandard"):
        try:
            return bodies.import_module(name)
        except ImportError:
            continue
    pytest.skip("no zstd library here")


def test_zstd() -> None:
    zstd = zstd_module()
    data = json.dumps(HELLO).encode()
    assert read(zstd.compress(data), "zstd") == HELLO
    for bad in (b"junk", zstd.compress(data)[:-5]):
        with pytest.raises(ApiError) as caught:
            read(bad, "zstd")
        assert caught.value.status == 400
    with pytest.raises(ApiError) as caught:
        read(zstd.compress(b" " * (50 << 20)), "zstd")
    assert caught.value.status == 413


def test_deflate_is_not_offered() -> None:
    with pytest.raises(ApiError):
        read(zlib.compress(b"{}"), "deflate")


async def test_others_get_their_turn_while_a_large_body_is_digested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooperative, "SLICE", 0.0)
    reader, turns = BodyReader(LIMIT), 0
    for _ in range(50):
        reader.feed(b"x" * 1000)
    digest = asyncio.ensure_future(reader.digest())
    while not digest.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 50
    again = BodyReader(LIMIT)
    again.feed(b"x" * 50_000)
    assert await again.digest() == digest.result()


# ---- JSON that is full of values
DENSE = {"lists": "[],", "numbers": "1.5,", "objects": '{"a":"1"},', "nested": "[[[[[[0]]]]]],"}
WORDS = "the words of a text, which has [few] of these signs in all that is said. " * 9
USUAL_TEXT = '{"type":"message","role":"user","content":"%s"},' % WORDS


@pytest.mark.parametrize("text", [*DENSE.values(), USUAL_TEXT], ids=[*DENSE, "usual"])
async def test_what_is_full_of_values_is_read_in_steps(text: str) -> None:
    data = b'{"a":[%b0]}' % (text.encode() * ((LARGE - 100) // len(text)))
    assert is_dense(data) is (text != USUAL_TEXT) and not is_dense(data[: LARGE // 5])
    at_once: List[int] = []

    def parse(data: bytes) -> Json:
        at_once.append(len(data))
        return parse_object(data)

    reader = BodyReader(LARGE)
    reader.feed(data)
    assert await reader.parsed(parse) == json.loads(data)
    assert bool(at_once) is (text == USUAL_TEXT)


async def test_less_than_a_megabyte_may_hold_any_values() -> None:
    members = {f"k{number}": 0 for number in range(75_000)}
    data = json.dumps(members, separators=(",", ":")).encode()
    assert is_dense(data)
    reader = BodyReader(LARGE)
    reader.feed(data)
    assert await reader.parsed() == members


async def test_what_a_response_repeats_of_a_large_request_is_written_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once: List[int] = []
    encode = json_codec.encode_json

    def counted(value: Any) -> bytes:
        data = encode(value)
        if type(value) is list:
            at_once.append(len(data))
        return data

    monkeypatch.setattr(json_codec, "encode_json", counted)
    properties = {f"p{number}": {"type": "string", "description": "x" * 99} for number in range(9000)}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": properties}}
    async with running_server() as e:
        for tools in ([tool], [{**tool, "parameters": {"type": "object"}}]):
            answer = await e.fetch("/responses", {"model": "m", "input": "hello", "tools": tools})
            (echo,) = json.loads(answer.body)["tools"]
            assert echo["parameters"] == tools[0]["parameters"]
    assert len(json.dumps(properties)) > LARGE > 200 * max(at_once)  # the small one
