"""Large requests are read and written in steps, with the same result as in one go, and others get their turn
in between.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from typing import Any, Callable, Dict, Generator, List, TypeVar

import pytest
from anything import json_values, numbers_alike
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert import json_reader, json_steps
from rproxy.convert.json_reader import Bounds, NotAnObject, TooManyValues, parse_steps
from rproxy.convert.json_steps import MANY, is_large, json_contains, json_key, json_text, write_steps
from rproxy.cooperative import collect
from rproxy.errors import ApiError
from rproxy.json_codec import encode_exactly, encode_json
from rproxy.server import body
from rproxy.server.body import LARGE, BodyReader, parse_large, parse_object
from rproxy.store import encode, encode_cooperatively

Json = Dict[str, Any]
T = TypeVar("T")

ODD = ['"', "\\", "[", "]}", "\u2028", "\ud83c", "a", ""]
TEXT = st.text(max_size=3) | st.sampled_from(ODD)
VALUES = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | json_values([None, True, False, 0, -7, 1e300, *ODD], ODD, depth=4)
)
MANY_VALUES = st.lists(VALUES, min_size=1, max_size=4).map(lambda some: (some * MANY)[: MANY + len(some)])
OBJECTS = st.dictionaries(TEXT, VALUES | MANY_VALUES, max_size=4)


def refuse(word: str) -> Any:
    raise ValueError(word)


@pytest.fixture(autouse=True, params=["short steps", "long steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "short steps":
        monkeypatch.setattr(json_reader, "WINDOW", 64)
        monkeypatch.setattr(json_reader, "APART", 2)
        monkeypatch.setattr(json_steps, "STEP", 20)


def written(value: Any) -> bytes:
    pieces: List[bytes] = []
    at_once(write_steps(value, pieces))
    return b"".join(pieces)


def lowered(function: Callable[[Any], T], value: Any) -> T:
    """Call a function to which this value is a long one."""
    usual, json_steps.LONG = json_steps.LONG, 0
    try:
        return function(value)
    finally:
        json_steps.LONG = usual


def at_once(steps: Generator[None, None, T]) -> T:
    results: List[T] = []

    def walk() -> Generator[None, None, None]:
        results.append((yield from steps))

    deque(walk(), maxlen=0)
    return results[0]


@given(OBJECTS)
def test_the_stored_form_is_the_same_in_steps(value: Json) -> None:
    stored = asyncio.run(encode_cooperatively("resp_1", value))
    assert numbers_alike(stored) == numbers_alike(encode("resp_1", value))


@given(OBJECTS, st.sampled_from([None, 1]), st.booleans())
def test_reading_gives_what_json_gives(value: Json, indent: Any, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    if not value:
        return  # left to json
    assert at_once(parse_steps(" " + text + "\n", refuse)) == json.loads(text)


def test_lists_with_nothing_in_them() -> None:
    assert at_once(parse_steps('{"a": [ \n], "b": []}', refuse)) == {"a": [], "b": []}


@given(OBJECTS)
def test_writing_gives_what_encode_json_gives(value: Json) -> None:
    assert numbers_alike(written(value)) == numbers_alike(encode_json(value))


@given(OBJECTS)
def test_a_long_text_is_the_same_but_for_the_blanks(value: Json) -> None:
    usual, long = json_text(value), lowered(json_text, value)
    assert usual == json.dumps(value, ensure_ascii=False)
    assert numbers_alike(long.encode("utf-8", "surrogatepass")) == numbers_alike(
        json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    )


@given(OBJECTS, OBJECTS)
def test_equal_values_have_equal_keys(value: Json, other: Json) -> None:
    equal = json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (json_key(value) == json_key(other)) is equal
    equal = json.dumps(value) == json.dumps(other)
    assert (lowered(json_key, value) == lowered(json_key, other)) is equal
    assert len(lowered(json_key, {"a": "x" * 1000})) == 64


@pytest.mark.parametrize("before", range(45))
def test_a_word_is_found_wherever_the_pieces_are_cut(before: int) -> None:
    value = {"a": ["é" * 9, {"b": "x" * before + "jSoN" + "y" * 50}]}
    assert json_contains(value, b"json") and not json_contains(value, b"jsons")
    assert not json_contains({"a": "js", "b": "on"}, b"json")


def test_no_piece_of_a_long_value_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = []

    def counted(value: Any) -> bytes:
        longest.append(len(value))
        return encode_exactly(value)

    monkeypatch.setattr(json_steps, "encode_exactly", counted)
    for function in (json_text, json_key):
        assert lowered(function, {"a": "x" * (9 * json_steps.STEP)})
    assert len(longest) > 18 and max(longest) <= json_steps.STEP


@given(st.text(alphabet='{}[]",:1a \\\n', max_size=12))
def test_what_is_no_object_is_refused_as_ever(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=refuse)
    except ValueError:
        expected = None
    try:
        assert at_once(parse_steps(text, refuse)) == expected
    except ValueError:
        assert not expected or not isinstance(expected, dict)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2',
        '{"a": [1 2]}',
        '{"a" 1}',
        '{"a": NaN}',
        '{"a": 1} x',
        "[1]",
        "",
        '{"a": 1,}',
        "7",
        "{1: 2}",
    ],
)
async def test_the_message_is_the_same(text: str) -> None:
    with pytest.raises(ApiError) as small:
        parse_object(text)
    with pytest.raises(ApiError) as large:
        await parse_large(text)
    assert small.value.message == large.value.message


def history(megabytes: int) -> Json:
    words = 'line of output\twith "quotes" and é\n' * 30
    return {
        "model": "m",
        "input": [{"type": "message", "role": "user", "content": words} for _ in range(megabytes * 1000)],
    }


async def longest_wait(work: Any) -> float:
    """How long the loop worked without coming round while ``work`` ran, in seconds of CPU time."""
    longest, running = 0.0, asyncio.ensure_future(work)
    last = time.thread_time()
    while not running.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    return longest


async def test_others_get_their_turn_meanwhile() -> None:
    request = history(5 if json_steps.STEP > 100 else 1)
    body = encode_json(request)
    reader = BodyReader(1 << 30)
    reader.feed(body)
    assert len(body) > LARGE
    began = time.thread_time()
    waits: List[float] = [
        await longest_wait(reader.parsed()),
        await longest_wait(collect(lambda pieces: write_steps(request, pieces))),
    ]
    assert max(waits) < max(0.02, (time.thread_time() - began) / 3)  # a slow machine is slow


async def test_a_large_body_that_is_not_utf8() -> None:
    reader = BodyReader(1 << 30)
    reader.feed(b'{"model": "' + b"x" * LARGE + b'\xff"}')
    with pytest.raises(ApiError, match="not UTF-8"):
        await reader.parsed()


# ---- Steps
CHANCE = random.Random(7)
WORDS = "the words of a text, which has [few] of these signs in all that is said. " * 9
TEXTS = st.sampled_from(sorted(WORDS, key=len))
DEEP = json_values([0, -7, 10**30, True, None, *WORDS, *WORDS], WORDS, depth=4)
DEEP |= st.lists(DEEP, max_size=30) | st.dictionaries(TEXTS, DEEP, max_size=5)


@given(st.dictionaries(TEXTS, DEEP, max_size=4), st.sampled_from([None, 2]), st.booleans(), st.integers(1, 9))
def test_pieces_and_texts_of_any_length_give_the_same(
    value: Json, indent: Any, ascii_only: bool, size: int
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert at_once(parse_steps(" \n" * size + text + " " * 90, refuse)) == json.loads(text)
    assert written(value) == encode_json(value)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert at_once(parse_steps([b"\xef\xbb\xbf", *pieces], refuse)) == json.loads(text)


@given(st.dictionaries(TEXTS, DEEP, min_size=1, max_size=3), st.data())
def test_damage_is_described_as_json_describes_it(value: Json, data: st.DataObject) -> None:
    text = json.dumps(value)
    at = data.draw(st.integers(1, len(text)))
    text = (
        text[:at] + data.draw(st.sampled_from('{}[]",:x\\1 \n')) + text[at + data.draw(st.integers(0, 1)) :]
    )
    try:
        expected = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        expected = error
    try:
        found = at_once(parse_steps(text, refuse))
    except ValueError as error:
        assert isinstance(expected, ValueError)
        assert str(error).split(":")[0] == str(expected).split(":")[0] or "Extra data" in str(error)
    else:
        assert found == expected


@pytest.mark.parametrize(
    "inside",
    [
        "[" + "[]," * 50_000 + "[]]",
        "[" * 50_000,
        '"' + "\\n" * 50_000 + '"',
        "{" + '"a":[{}],' * 10_000 + '"b":0}',
        "[" + '"x,",' * 10_000 + "0]",
        "[" + "1," * 50_000 + "1]",
        "1" * 40,
        '"' + "é" * 50_000 + '"',
    ],
    ids=["lists", "depth", "escapes", "keys", "commas", "numbers", "digits", "wide"],
)
def test_no_step_is_long(inside: str) -> None:
    """Work is counted in characters: of what json gets to read at a time."""
    lengths: List[int] = []

    def counting(text: str, idx: int = 0) -> Any:
        lengths.append(len(text) - idx)
        return decoder(text, idx)

    count, text = 0, '{"a":' + inside + "}"
    reader = json_reader._Reader(json_reader._windows(text), refuse, bounds=None)
    decoder, reader._decoder.raw_decode = reader._decoder.raw_decode, counting  # type: ignore[method-assign]
    try:
        for _ in reader.read():
            count += 1
    except RecursionError:
        assert inside.startswith("[[[")
        return
    assert count >= len(text) // (2 * json_reader.WINDOW) - 1
    assert max(lengths) <= 3 * json_reader.WINDOW


def test_what_is_read_is_counted() -> None:
    for inside in ("[" + "[]," * 99 + "1]", "[" + "1," * 299 + "1]", '{"x":[' + "{}," * 98 + "1]}"):
        text = '{"a":' + inside + "}"
        with pytest.raises(TooManyValues):
            at_once(parse_steps(text, refuse, bounds=Bounds(100, 300)))
        assert at_once(parse_steps(text, refuse)) == json.loads(text)
    for inside in ("[" + "[]," * 97 + "1]", "[" + "1," * 296 + "1]"):
        assert at_once(parse_steps('{"a":' + inside + "}", refuse, bounds=Bounds(100, 300)))


async def test_a_request_with_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "USUAL", Bounds(100, 300))
    with pytest.raises(ApiError, match="request body has more than 100 objects and arrays, the limit"):
        await parse_large('{"a":[' + "[]," * 100 + "1]}")
    with pytest.raises(ApiError, match="request body has more than 300 values, the limit"):
        await parse_large('{"a":[' + "1," * 300 + "1]}")


@pytest.mark.parametrize("value", ["0", '"' + "x" * 100 + '"', "[{}]"], ids=["small", "long", "nested"])
async def test_an_object_and_an_array_have_so_many_entries_and_no_more(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setattr(json_reader, "WINDOW", 200)  # what is read at once is not looked at
    monkeypatch.setattr(json_reader, "MAX_MEMBERS", 100)
    members = [f'"k{n}":{value}' for n in range(200)]
    for outer in ("{%s}", '{"a":{%s}}', '{"a":[1,{"b":{%s}}]}'):
        with pytest.raises(
            ApiError, match="request body has an object with more than 100 members, the limit"
        ):
            await parse_large(outer % ",".join(members))
        assert await parse_large(outer % ",".join(members[:100])) == json.loads(
            outer % ",".join(members[:100])
        )
        text = outer % ",".join(members)
        assert at_once(parse_steps(text, refuse)) == json.loads(text)  # where nobody from outside has sent it
    monkeypatch.setattr(json_reader, "MAX_ENTRIES", 100)
    for outer in ('{"a":[%s]}', '{"a":[1,{"b":[[%s]]}]}'):
        with pytest.raises(ApiError, match="request body has an array with more than 100 entries, the limit"):
            await parse_large(outer % ",".join([value] * 200))
        text = outer % ",".join([value] * 100)
        assert await parse_large(text) == json.loads(text)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[" * 1000 + "1", "must be a JSON object, not an array"),
        ('"' + "x" * 100, "must be a JSON object, not a string"),
        (" " * 100, "is empty"),
        ("7" + " " * 100, "must be a JSON object"),
        ('{"a":' + "[" * 100_000, "nested too deeply"),
        ('{"a":' + '[ "' + "x" * 20 + '",' * 1, "not valid JSON"),
        ('{"a":1.' + "1" * 100_000, "not valid JSON"),
        ('{"a":"\\uxyza' + "b" * 100, "not valid JSON: Invalid"),
        ('{"a":"' + "b" * 100, "not valid JSON: Unterminated string"),
        ('{"a":"' + "b" * 100 + "\n" + '"}', "not valid JSON: Invalid control character"),
    ],
)
async def test_what_is_wrong_with_a_large_body(text: str, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        await parse_large(text)
    with pytest.raises(ApiError, match=message):
        await parse_large([text.encode()])


async def test_where_a_large_body_is_not_utf8() -> None:
    with pytest.raises(ApiError, match="invalid byte at offset 106"):
        await parse_large([b'{"a":"' + b"x" * 99, b"y\xff"])
    with pytest.raises(ApiError, match="invalid byte at offset 6"):
        await parse_large([b'{"a":"\xc3', b'"}'])


def test_an_object_is_what_is_read() -> None:
    with pytest.raises(NotAnObject):
        at_once(parse_steps("", refuse))
    assert at_once(parse_steps("{" + " " * (3 * json_reader.WINDOW) + "}", refuse)) == {}
    assert at_once(parse_steps('{"a":[' + " " * (3 * json_reader.WINDOW) + "]}", refuse)) == {"a": []}


def test_what_is_large() -> None:
    limit = json_steps.STEP
    for value in ("x" * limit, [0] * limit, {str(n): n for n in range(limit)}, {"x" * limit: 1}):
        assert is_large(value, limit) and is_large([[[value]]], limit)
    assert not is_large(["x", {"a": 1}], limit) or limit < 100


def test_each_piece_of_a_block_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0

    class Piece(bytes):
        def __len__(self) -> int:
            nonlocal counted
            counted += 1
            return super().__len__()

    monkeypatch.setattr(json_steps, "BLOCK", 1 << 16)
    monkeypatch.setattr(json_steps, "write_steps", lambda value, pieces: map(pieces.append, value))
    blocks = list(json_steps.json_blocks([Piece(b"x" * 10)] * 10_000))
    assert b"".join(blocks) == b"x" * 100_000 and len(blocks) > 1
    assert counted <= 10_000


async def test_large_pieces_are_joined() -> None:
    text = "x" * (1 << 20)
    body = await collect(lambda pieces: write_steps({"a": text}, pieces))
    assert body == encode_json({"a": text})


@pytest.mark.parametrize("before", range(18, 23))
def test_halves_of_surrogate_pairs_stay_together(before: int) -> None:
    value = {"a": "x" * before + "\ud83d\ude00" * 30}
    assert written(value) == encode_json(value)
    text = json.dumps(value)
    assert at_once(parse_steps(text, refuse)) == json.loads(text)


def test_blanks_between_the_windows() -> None:
    blanks = " " * (3 * json_reader.WINDOW)
    text = (
        "{" + blanks + '"a"' + blanks + ":" + blanks + '["x"' + blanks + "," + blanks + "[]]" + blanks + "}"
    )
    assert at_once(parse_steps(text, refuse)) == {"a": ["x", []]}
