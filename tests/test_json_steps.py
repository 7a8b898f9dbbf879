"""Large requests are read and written in steps, with the same result as in one go, and others get their turn
in between.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from typing import Any, Dict, Generator, List, TypeVar

import pytest
from anything import json_values
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.json_steps import MANY, encode_steps, parse_steps
from rproxy.convert.sse import encode_json
from rproxy.cooperative import run_cooperatively
from rproxy.errors import ApiError
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


def at_once(steps: Generator[None, None, T]) -> T:
    results: List[T] = []

    def walk() -> Generator[None, None, None]:
        results.append((yield from steps))

    deque(walk(), maxlen=0)
    return results[0]


@given(OBJECTS)
def test_the_stored_form_is_the_same_in_steps(value: Json) -> None:
    assert asyncio.run(encode_cooperatively("resp_1", value)) == encode("resp_1", value)


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
    assert at_once(encode_steps(value)) == encode_json(value)


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
    """How long the loop did not come round while ``work`` ran, in seconds."""
    longest, running = 0.0, asyncio.ensure_future(work)
    last = time.monotonic()
    while not running.done():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


async def test_others_get_their_turn_meanwhile() -> None:
    request = history(5)
    body = encode_json(request)
    reader = BodyReader(1 << 30)
    reader.feed(body)
    assert len(body) > LARGE
    began = time.monotonic()
    waits: List[float] = [
        await longest_wait(reader.parsed()),
        await longest_wait(run_cooperatively(encode_steps(request))),
    ]
    assert max(waits) < max(0.02, (time.monotonic() - began) / 3)  # a slow machine is slow


async def test_a_large_body_that_is_not_utf8() -> None:
    reader = BodyReader(1 << 30)
    reader.feed(b'{"model": "' + b"x" * LARGE + b'\xff"}')
    with pytest.raises(ApiError, match="not UTF-8"):
        await reader.parsed()
