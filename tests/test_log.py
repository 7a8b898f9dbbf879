"""Logging: the one line of a turn, the two formats, the levels, and no keys."""

from __future__ import annotations

import io
import json
import logging
from typing import Any, Iterator

import pytest

from rproxy import log

TURN = {
    "model": "gpt-5.5",
    "downstream_model": "deepseek-v4-pro",
    "provider": "deepseek",
    "transport": "sse",
    "status": "completed",
    "input_tokens": 2000,
    "cached_tokens": 1500,
    "output_tokens": 20,
    "reasoning_tokens": 7,
    "first_event_ms": 12.6,
    "total_ms": 300,
    "retries": 0,
    "warnings": ["dropped tool web_search", "no logprobs"],
    "prompt": "secret words",
    "request_id": "",
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("rproxy")
    before = root.level, ours.level, list(root.handlers)
    yield
    root.setLevel(before[0])
    ours.setLevel(before[1])
    root.handlers[:] = before[2]


def test_turn_line() -> None:
    assert log.turn_line(log.turn_fields(TURN)) == (
        "turn model=gpt-5.5 downstream_model=deepseek-v4-pro provider=deepseek transport=sse status=completed input_tokens=2000 "
        "cached_tokens=1500 output_tokens=20 reasoning_tokens=7 cache_hit=75% first_event_ms=12 total_ms=300 retries=0 "
        'warnings="dropped tool web_search; no logprobs"'
    )


def test_only_known_fields_get_into_the_line() -> None:
    assert "secret" not in log.turn_line(log.turn_fields(TURN))
    assert (
        log.turn_line(log.turn_fields({"status": "failed", "model": 'a\nb="c"'}))
        == 'turn model="a\\nb=\\"c\\"" status=failed'
    )


@pytest.mark.parametrize(
    "text, masked",
    [
        ("key sk-0123456789abcdef refused", "key sk-*** refused"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ("AIzaSyA1234567890 and hf_abcdefghij", "AIza*** and hf_***"),
        ("the task-force is not a key", "the task-force is not a key"),
    ],
)
def test_keys_are_masked(text: str, masked: str) -> None:
    assert log.mask(text) == masked


def lines(level: str, log_format: str = "text") -> str:
    stream = io.StringIO()
    log.setup(level, log_format, stream)
    for name in ("rproxy.service", "tornado.general"):
        for number in (logging.DEBUG, logging.INFO, logging.ERROR):
            logging.getLogger(name).log(number, "%s with sk-0123456789", logging.getLevelName(number))
    return stream.getvalue()


@pytest.mark.parametrize("level, count", [("trace", 6), ("debug", 4), ("info", 3), ("warn", 2), ("error", 2)])
def test_levels(level: str, count: int, expect_log: Any) -> None:
    expect_log("ERROR with")
    assert len(lines(level).splitlines()) == count


def test_text_format(expect_log: Any) -> None:
    expect_log("ERROR with")
    ours, foreign = lines("error").splitlines()
    assert ours.endswith(" ERROR   ERROR with sk-***") and foreign.endswith(
        " ERROR   tornado.general: ERROR with sk-***"
    )


def test_json_format(expect_log: Any) -> None:
    expect_log("failed")
    stream = io.StringIO()
    log.setup("info", "json", stream)
    log.log_turn(TURN)
    try:
        raise ValueError("sk-0123456789")
    except ValueError:
        logging.getLogger("rproxy").exception("failed")
    turn, error = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (
        turn["cached_tokens"] == 1500
        and turn["cache_hit"] == 0.75
        and turn["level"] == "info"
        and "prompt" not in turn
    )
    assert error["message"] == "failed" and "ValueError: sk-***" in error["exception"]


def test_setup_again_replaces_the_handler() -> None:
    first, second = io.StringIO(), io.StringIO()
    log.setup("info", "text", first)
    log.setup("info", "text", second)
    log.log_turn({"status": "completed"})
    assert not first.getvalue() and "turn status=completed" in second.getvalue()
