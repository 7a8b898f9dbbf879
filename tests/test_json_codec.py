"""The two implementations of JSON agree: what one writes and reads, the other writes and reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from typing import Any, Callable, Dict, List, Optional, Type

import pytest
from anything import json_values, numbers_alike
from hypothesis import given
from hypothesis import strategies as st

from rproxy import json_codec
from rproxy.convert import json_steps
from rproxy.convert.events.converter import StreamConverter
from rproxy.convert.events.response import response_object
from rproxy.convert.sse import encode_sse
from rproxy.json_codec import (
    MAX_DEPTH,
    Fast,
    SharedDict,
    SharedList,
    SharedText,
    Standard,
    encode_exactly,
    encode_json,
    mend,
    parser,
)
from rproxy.server.speedups import packages_in_use

needs_orjson = pytest.mark.skipif(json_codec.orjson is None, reason="orjson is not in use")
BOTH = [Standard, pytest.param(Fast, marks=needs_orjson)]

LARGEST = 2**64
ODD = ['"', "\\", "\u2028", "\x00\x1f\x7f", "\ud83c", "\udfaf", "é", "1" * 30, "\0shared\0"]
NUMBERS = [LARGEST, LARGEST - 1, -LARGEST // 2, -LARGEST // 2 - 1, 10**18, 10**30, -0.0, 1e-7, 1e16, 5e-324]
SCALARS = [None, True, False, 0, -7, float("nan"), float("inf"), *NUMBERS, *ODD]
VALUES = st.integers() | st.floats() | st.text() | json_values(SCALARS, ODD, depth=4)
EXACT = [number for number in NUMBERS if type(number) is int]


def refuse(word: str) -> Any:
    raise ValueError(f"{word} is refused")


def null(word: str) -> Any:
    return None


def outcome(function: Callable[[Any], Any], value: Any) -> Any:
    """The result, spelled so that 1 and 1.0 differ, or what was raised."""
    try:
        return repr(function(value))
    except (TypeError, ValueError, RecursionError) as error:
        return type(error).__name__, str(error)


# ---- Writing


@needs_orjson
@given(VALUES)
def test_they_write_the_same(value: Any) -> None:
    for way in ("encode", "encode_exactly"):
        fast, standard = getattr(Fast, way)(value), getattr(Standard, way)(value)
        assert numbers_alike(fast) == numbers_alike(standard)


@needs_orjson
@given(json_values([None, True, 0, -7, *EXACT, *ODD], ODD, depth=4))
def test_without_floats_every_byte_is_the_same(value: Any) -> None:
    assert Fast.encode(value) == Standard.encode(value)
    assert Fast.encode_exactly(value) == Standard.encode_exactly(value)


@needs_orjson
@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize("leaf", [1, float("nan")])
def test_deep_nesting(depth: int, leaf: Any) -> None:
    value = leaf
    for _ in range(depth):
        value = [value]
    assert Fast.encode(value) == Standard.encode(value)
    while isinstance(value, list):
        value = value.pop()


class Text(str):
    """A class that only :mod:`json` takes for its base."""


@pytest.mark.parametrize("codec", BOTH)
@pytest.mark.parametrize(
    "value, text",
    [
        ({1: Text("a"), None: (1, True), 2.5: {}}, '{"1":"a","null":[1,true],"2.5":{}}'),
        ([float("nan"), float("-inf"), {"a": float("inf")}], '[null,null,{"a":null}]'),
        ({Text("a"): LARGEST, "b": -LARGEST}, '{"a":%d,"b":%d}' % (LARGEST, -LARGEST)),
        ("\ud83c\udfaf\ud83c", '"🎯\ufffd"'),
    ],
)
def test_what_json_writes(codec: Type[Standard], value: Any, text: str) -> None:
    assert codec.encode(value).decode() == text


@pytest.mark.parametrize("codec", BOTH)
def test_what_json_cannot_express(codec: Type[Standard]) -> None:
    import dataclasses
    import datetime

    @dataclasses.dataclass
    class Row:
        a: int

    for value in (object(), {1, 2}, b"x", Row(1), datetime.date(2026, 1, 1), {(1,): 2}):
        for encode in (codec.encode, codec.encode_exactly):
            with pytest.raises(TypeError):
                encode({"a": value})


def test_without_the_c_encoder() -> None:
    value = {"a": [1, "é"]}
    assert "".join(json_codec._encoder(None)(value, 0)) == "".join(json_codec._pieces(value, 0))


@pytest.mark.parametrize("codec", BOTH)
def test_surrogates_are_kept_for_ourselves(codec: Type[Standard]) -> None:
    data = codec.encode_exactly({"a": "\ud83c", "b": float("nan")})
    assert json.loads(data.decode("utf-8", "surrogatepass")) == {"a": "\ud83c", "b": None}


# ---- Reading

TEXTS = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent),
    VALUES,
    st.booleans(),
    st.sampled_from([None, 1]),
)
DAMAGED = st.text(alphabet='{}[]",:1-.eE0atrufn \n\\', max_size=12)


@needs_orjson
@given(TEXTS | DAMAGED | st.tuples(TEXTS, DAMAGED).map("".join))
def test_they_read_the_same(text: str) -> None:
    for constant in (refuse, null, float):
        assert outcome(Fast.parser(constant), text) == outcome(Standard.parser(constant), text)


@needs_orjson
@pytest.mark.parametrize(
    "text",
    [
        *(f"{sign}{number + more}" for sign in ("", "-") for number in EXACT[:4] for more in (-1, 0, 1)),
        *(" " * n + "[" + "9" * (19 + more) + "]" for n in range(5) for more in (-1, 0, 1)),
        f"0.{'1' * 30}",
        f"{'1' * 30}e5",
        "1e400",
        "-1e400",
        "-0",
        "-0.0",
        "1e-400",
        f'"{"1" * 40}"',
        '{"a": 1, "b": 2, "a": 3}',
        '"\\ud83c"',
        '"\\ud83c\\udfaf"',
        '"\ud83c"',
        "\ufeff{}",
        "{}\ufeff",
        "NaN",
        "[Infinity, -Infinity]",
        '"\x01"',
        '"\x7f"',
        "",
        " ",
        "01",
        "[1,]",
        "\x0b1",
        "[" * 100_000,
    ],
    ids=lambda text: repr(text[:24]),
)
def test_the_edges_of_json(text: str) -> None:
    for constant in (refuse, null):
        assert outcome(Fast.parser(constant), text) == outcome(Standard.parser(constant), text)


@needs_orjson
def test_large_integers_stay_whole() -> None:
    """Wherever the sample of :func:`_has_long_number` falls."""
    for before in range(8):
        for digits in range(19, 25):
            text = '{"a":' + " " * before + "9" * digits + "}"
            assert Fast.parser(refuse)(text)["a"] == int("9" * digits)


def test_nesting_of_what_clients_send_is_limited_or_harmless() -> None:
    """Neither implementation hands out what nobody can write."""
    for depth in (200, 900, 1020):
        text = '{"a":' * depth + "1" + "}" * depth
        try:
            value = parser(refuse)(text)
        except RecursionError:
            continue
        assert encode_json(value).startswith(b'{"a":{"a":')


# ---- What is written several times

LISTS = st.lists(VALUES, min_size=1, max_size=3)


@given(st.text() | st.sampled_from(ODD), LISTS, VALUES)
def test_a_shared_value_is_written_as_any_other(text: str, values: List[Any], other: Any) -> None:
    plain = {"type": "t", "response": {"instructions": text, "b": other, "tools": values}, "n": other}

    def response() -> Dict[str, Any]:
        return {**plain["response"], "instructions": SharedText(text), "tools": SharedList(values)}  # type: ignore[dict-item]

    made = (
        ({**plain, "response": response()}, plain),
        ({**plain, "response": SharedDict(response())}, plain),
        (SharedDict(response()), plain["response"]),
        (response(), plain["response"]),
    )
    for (one, expected), size in product(made, (1, json_steps.STEP)):
        assert one == expected
        data = encode_json(expected)
        for _ in range(2):  # without and with the JSON of the shared values
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(json_steps, "STEP", size)
                pieces: List[bytes] = []
                for _ in json_steps.write_steps(one, pieces):
                    pass
            assert numbers_alike(b"".join(pieces)) == numbers_alike(data)
            assert numbers_alike(encode_json(one)) == numbers_alike(data)
        stored = mend(encode_exactly(one).decode("utf-8", "surrogatepass")).encode()
        assert numbers_alike(stored) == numbers_alike(data)
    event: Any = made[0][0]
    assert numbers_alike(encode_sse([event])) == numbers_alike(encode_sse([plain]))  # type: ignore[typeddict-item]


@pytest.mark.parametrize("codec", BOTH)
def test_a_shared_value_is_written_once(codec: Type[Standard]) -> None:
    inner = SharedText("text"), SharedList([1]), SharedDict({"a": 1})
    for value, data in zip(inner, (b'"(text)"', b'["(list)"]', b'{"a":"(object)"}')):
        value._json, value.written = data, True
    expected = {"instructions": "(text)", "tools": ["(list)"], "response": {"a": "(object)"}}
    values = dict(zip(expected, inner))
    for encode in (codec.encode, codec.encode_exactly):
        assert json.loads(encode(values)) == expected
        event = {"type": "response.created", "response": values, "tools": inner[1]}
        assert json.loads(encode(event)) == {**event, "response": expected, "tools": ["(list)"]}


def test_a_turn_makes_the_json_of_its_response_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for the first two events, once for the last event and the record."""
    made: List[Any] = []
    encode = json_codec.encode_json
    monkeypatch.setattr(json_codec, "encode_json", lambda value: made.append(value) or encode(value))
    request = {"model": "m", "instructions": "Be brief.", "tools": [{"type": "function", "name": "look"}]}
    response = response_object(request, id="resp_1", created_at=1)
    stream = StreamConverter.empty(response, now=lambda: 2)
    encode_sse([*stream.start(), *stream.finish()])
    encode_exactly({"response": stream.response, "input": []})
    assert [type(value) for value in made] == [dict, str, list, dict]


# ---- Which one is in use


def version(pure: Optional[str], **more: str) -> List[str]:
    environ = {**os.environ, **more}
    environ.pop("RPROXY_PURE", None)
    if pure is not None:
        environ["RPROXY_PURE"] = pure
    code = (
        "from rproxy import json_codec; from rproxy.cli.version import version_text; "
        "from rproxy.server.speedups import event_loops, packages_in_use; "
        "print(json_codec.encode_json.__self__.__name__, event_loops().__name__, packages_in_use()); "
        "print(version_text())"
    )
    command = (sys.executable, "-c", code)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@needs_orjson
@pytest.mark.parametrize("pure, used", [(None, True), ("0", True), ("", True), ("1", False)])
def test_the_switch(pure: Optional[str], used: bool) -> None:
    lines = version(pure)
    extras = next(line for line in lines if line.startswith("extras: "))
    assert lines[0].startswith("Fast " if used else "Standard asyncio []")
    assert ("orjson" in lines[0]) is used and "fast (orjson 3." in extras
    assert ("; not used: RPROXY_PURE" in extras) is not used


def test_without_the_packages(tmp_path: Any) -> None:
    for package in ("orjson", "uvloop"):
        (tmp_path / f"{package}.py").write_text("raise ImportError")
    lines = version(None, PYTHONPATH=str(tmp_path))
    assert lines[0] == "Standard asyncio []"


def test_the_packages_in_use_are_those_installed() -> None:
    assert ("orjson" in packages_in_use()) is (json_codec.orjson is not None)
