"""What a client or a provider sends is read in linear time: four times as much takes about four times as
long, however it is made.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List

import pytest

from rproxy.convert.answer.leaked_calls import LeakedCallFilter
from rproxy.convert.answer.responses import EventReader
from rproxy.convert.answer.tool_calls import CallReader
from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import to_chat_request
from rproxy.convert.request.pairing import with_call_ids, without_repeats
from rproxy.convert.request.schema import REPAIRS, function_schema

Json = Dict[str, Any]
QUADRATIC = 9  # times as long for four times as much: between 4 and 16


def _call(number: int, **more: Any) -> Json:
    return {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}", **more}


def _output(number: int, **more: Any) -> Json:
    return {"type": "function_call_output", "call_id": f"c{number}", "output": str(number), **more}


def _user(number: int) -> Json:
    return {"type": "message", "role": "user", "content": f"{number}"}


def _converted(items: Callable[[int], List[Json]], **fields: Callable[[int], Any]) -> Callable[[int], Any]:
    def work(size: int) -> Any:
        request = {name: make(size) for name, make in fields.items()}
        return to_chat_request(
            request,
            items(size),
            Profile(),
            downstream_model="m",
            allow=("function", "web_search", "namespace"),
        )

    return work


def _alternatives(size: int) -> Json:
    large = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(size)}}
    return {"$defs": {"a": large}, "anyOf": [{"$ref": "#/$defs/a"}] * size}


def _fan(size: int) -> Json:
    defs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 8} for n in range(size)}
    return {"type": "object", "$defs": defs, "properties": {"p": {"$ref": "#/$defs/d0"}}}


def _leaked(text: str) -> Callable[[int], Any]:
    def work(size: int) -> Any:
        reader = LeakedCallFilter({"f": {}})
        opens, _, closes = text.partition("*")
        inside = opens.rpartition("|")[2]
        return reader.feed(opens.replace("|", "") + inside * size + closes), reader.close()

    return work


def _last_event(size: int) -> Any:
    reader = EventReader()
    items = [{"type": "message", "id": f"m{n}", "content": []} for n in range(size)]
    for item in items:
        reader.read({"type": "response.output_item.added", "item": item})
    output = [{**item, "id": f"x{item['id']}"} for item in items]
    return reader.read({"object": "response", "status": "completed", "output": output})


def _names(size: int) -> Any:
    out: List[Any] = []
    CallReader().read([{"index": 0, "function": {"name": f"n{n}"}} for n in range(size)], out)
    return out


def _tools(size: int) -> List[Json]:
    return [{"type": "function", "name": f"f{n}", "parameters": {}} for n in range(size)]


CASES: Dict[str, Any] = {
    "alternatives": (200, lambda n: function_schema(_alternatives(n))),
    "fan": (20, lambda n: REPAIRS["inline_refs"](function_schema(_fan(n)))),
    "calls before outputs": (600, _converted(lambda n: [*map(_call, range(n)), *map(_output, range(n))])),
    "one call, many outputs": (
        1500,
        _converted(
            lambda n: [
                _call(0),
                *(_output(0, output=[{"type": "input_text", "text": str(k)}]) for k in range(n)),
            ]
        ),
    ),
    "messages in between": (
        500,
        _converted(lambda n: [*map(_call, range(n)), *map(_user, range(n)), *map(_output, range(n))]),
    ),
    "configuration updates": (
        500,
        _converted(
            lambda n: [
                _user(0),
                *({"type": "configuration_update", "reasoning": {f"k{k}": 1}} for k in range(n)),
            ]
        ),
    ),
    "hosted tools": (
        800,
        _converted(lambda n: [_user(0)], tools=lambda n: [{"type": "web_search", "n": k} for k in range(n)]),
    ),
    "allowed tools": (
        300,
        _converted(
            lambda n: [_user(0)],
            tools=_tools,
            tool_choice=lambda n: {
                "type": "allowed_tools",
                "tools": [{"type": "function", "name": f"f{k}"} for k in range(n)],
            },
        ),
    ),
    "outputs without ids": (
        2000,
        lambda n: with_call_ids([*map(_call, range(n)), *(_output(k, call_id=None) for k in range(n))]),
    ),
    "calls of one id": (
        2000,
        lambda n: with_call_ids(
            [_call(0) for _ in range(n)] + [_output(0) for _ in range(n)] + [_output(0, call_id=None)]
        ),
    ),
    "repeated outputs": (
        1500,
        lambda n: without_repeats(
            [_output(0, output=str(k)) for k in range(n)], [_output(0, output=f"x{k}") for k in range(n)]
        ),
    ),
    "leaked: invoke": (3000, _leaked('<｜DSML｜tool_calls>|<｜DSML｜invoke name="f">*</｜DSML｜tool_calls>')),
    "leaked: parameter": (4000, _leaked("<function=f>|<parameter=a>*</function>")),
    "leaked: lines": (40_000, _leaked("x|\n*")),
    "the last event": (1000, _last_event),
    "names in pieces": (4000, _names),
}


def _seconds(work: Callable[[int], Any], size: int) -> float:
    """CPU time of the fastest of three runs."""
    taken = []
    for _ in range(3):
        begin = time.process_time()
        work(size)
        taken.append(time.process_time() - begin)
    return max(min(taken), 1e-4)


@pytest.mark.parametrize("name", CASES)
def test_it_takes_linear_time(name: str) -> None:
    size, work = CASES[name]
    for _ in range(3):  # another process may have spoilt the caches
        ratio = _seconds(work, 4 * size) / _seconds(work, size)
        if ratio < QUADRATIC:
            return
    raise AssertionError(f"four times as much took {ratio:.1f} times as long")
