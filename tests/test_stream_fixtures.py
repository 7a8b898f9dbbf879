"""What real providers sent, as exact bytes, and what a client must see of it; and our own cases in the same
form (see provider_cases.py).

Each answer is read in four ways, all of which must tell the same.
"""

from __future__ import annotations

import json
import random
from typing import Any, Dict, List, Tuple

import pytest
from grammar import check_sse, check_stream
from provider_cases import our_own, recorded
from stream_tools import converter

from rproxy.convert.answer.chat import ChunkReader
from rproxy.convert.answer.decoder import ChunkDecoder
from rproxy.convert.events.converter import StreamConverter
from rproxy.convert.sse import DONE, encode_sse
from rproxy.providers.profiles import choose_profile
from rproxy.providers.provider_errors import provider_error, stream_error

Json = Dict[str, Any]

CASES = {**recorded(), **our_own()}
ANSWERS = [name for name, case in CASES.items() if "expect" in case]
REFUSALS = [name for name, case in CASES.items() if "expect_http" in case]


def pieces(data: bytes, play: str) -> List[bytes]:
    if play == "whole":
        return [data]
    if play == "bytes":
        return [data[i : i + 1] for i in range(len(data))]
    if play == "lines":
        return data.splitlines(keepends=True)
    chance = random.Random(len(data))
    cuts = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(8))})
    return [data[a:b] for a, b in zip(cuts, cuts[1:])]


def convert(case: Json, play: str, **options: Any) -> Tuple[StreamConverter, List[Json]]:
    """The service in small: bytes in, events out."""
    profile = choose_profile(
        case.get("config", {}).get("provider", {}).get("profile", "generic"), "http://127.0.0.1", "m"
    )
    stream, decoder = converter(reader=ChunkReader(profile.answer), **options), ChunkDecoder()
    events = stream.start()
    for piece in pieces(case["body"], play):
        for chunk in decoder.feed(piece):
            events += stream.feed(chunk)
    for chunk in decoder.close():
        events += stream.feed(chunk)
    failure = stream.failure(decoder.done)
    if failure is None:
        return stream, events + stream.finish()
    code, message = failure.code, failure.message
    if failure.raw is not None:
        error = stream_error(failure.raw, "provider")
        code, message = error.stream_code, error.failed_message()
    return stream, events + stream.fail(code, message)


def clean(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def told(events: List[Json], kind: str) -> str:
    """What the deltas of one kind said, finished or not."""
    return "".join(event["delta"] for event in events if event["type"] == f"response.{kind}.delta")


@pytest.mark.parametrize("name", ANSWERS)
def test_answer(name: str) -> None:
    for play in ("whole", "bytes", "lines", "random"):
        _, events = convert(CASES[name], play)
        check_answer(events, CASES[name]["expect"])


def check_answer(events: List[Json], expect: Json) -> None:
    final = check_stream(events)
    assert final["status"] == expect["outcome"], final["error"]
    assert (final["incomplete_details"] or {}).get("reason") == expect["incomplete_reason"]
    assert told(events, "output_text") == clean(expect["text"])
    assert told(events, "refusal") == expect.get("refusal", "")
    assert told(events, "reasoning_summary_text") == clean(expect["reasoning"])
    calls = [item for item in final["output"] if item["type"] == "function_call"]
    assert [call["name"] for call in calls] == [call["name"] for call in expect["tool_calls"]]
    read = json.loads if expect.get("arguments_as_json") else str
    assert [read(call["arguments"]) for call in calls] == [
        read(call["arguments"]) for call in expect["tool_calls"]
    ]
    assert [call["call_id"] for call in calls] == [
        want["call_id"] or call["call_id"] for call, want in zip(calls, expect["tool_calls"])
    ]
    if "items" in expect:
        assert [item["type"] for item in final["output"]] == expect["items"]
    if final["status"] == "failed":
        assert final["error"]["code"] == expect["error_code"]
        assert " ".join(expect.get("error_message_contains", "").split()) in " ".join(
            final["error"]["message"].split()
        )
    usage = final["usage"]
    if usage is not None:
        figures = {
            "input_tokens": usage["input_tokens"],
            "cached_tokens": usage["input_tokens_details"]["cached_tokens"],
            "output_tokens": usage["output_tokens"],
            "reasoning_tokens": usage["output_tokens_details"]["reasoning_tokens"],
            "total_tokens": usage["total_tokens"],
        }
        assert figures == (expect["usage"] or dict.fromkeys(figures, 0))


FORMS: List[Json] = [
    {"reasoning": "content"},
    {"seal": json.dumps},
    {"refusal_as_text": True, "strip_fences": True},
]


@pytest.mark.parametrize("name", ANSWERS)
def test_answer_in_other_forms(name: str) -> None:
    for options in FORMS:
        _, events = convert(CASES[name], "whole", **options)
        assert check_sse(encode_sse(events) + DONE)["status"] == CASES[name]["expect"]["outcome"], options


def test_the_reasoning_of_a_turn_can_go_back() -> None:
    stream, events = convert(CASES["a21_openrouter_reasoning_details"], "whole", seal=json.dumps)
    output = check_stream(events)["output"]
    assert [item["type"] for item in output] == ["reasoning", "function_call"]
    assert json.loads(output[0]["encrypted_content"]) == {
        "text": "Need ls.",
        "details": stream.reader.reasoning_details,
    }
    assert len(stream.reader.reasoning_details) == 2


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name: str) -> None:
    case = CASES[name]
    expect = case["expect_http"]
    error = provider_error(case["http_status"], case["headers"], case["body"], "provider", "http://127.0.0.1")
    assert error.status == expect["http_status"]
    assert error.code == expect["code"]
    low, high = (
        expect["retry_after"]
        if isinstance(expect.get("retry_after"), list)
        else [expect.get("retry_after")] * 2
    )
    if error.status == 429:
        pause = error.headers().get("Retry-After")
        assert pause is None and low is None or low <= int(pause or 0) <= high
    assert " ".join(expect.get("message_contains", "").split()) in " ".join(error.message.split())
