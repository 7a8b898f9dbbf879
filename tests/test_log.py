"""Logging: the one line of a turn, the two formats, the levels, and no keys."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secrets_shown import CASES, SECRETS

from rproxy import log
from rproxy.providers.provider_errors import provider_error
from rproxy.telemetry.records import TURN_FIELDS, TurnRecord, line, turn_fields
from rproxy.upstream.os_errors import connect_error

FIELDS = {"status": "completed", "cached_tokens": 1500}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("rproxy")
    before = root.level, ours.level, list(root.handlers)
    yield
    root.setLevel(before[0])
    ours.setLevel(before[1])
    root.handlers[:] = before[2]


@pytest.mark.parametrize("text, shown", CASES)
def test_secrets_on_every_path(text: str, shown: str, expect_log: Any) -> None:
    assert log.mask(text, SECRETS) == shown and log.mask(shown, SECRETS) == shown
    body = json.dumps({"error": {"message": text}}).encode()
    assert provider_error(400, {}, body, "acme", secrets=SECRETS).message.startswith("acme (400): " + shown)
    assert f"({shown})" in connect_error(OSError(text), "acme", secrets=SECRETS).message
    # what nobody has decoded, as when a chat answer is passed through
    assert json.loads(log.mask(body.decode(), SECRETS))["error"]["message"] == shown


@pytest.mark.parametrize(
    "text, shown", [case for case in CASES if "tiny" not in case[0] and "test" not in case[0]]
)
def test_secrets_in_the_log(text: str, shown: str, expect_log: Any) -> None:
    """Short secrets are not masked here: a dummy key such as "ollama" may be a word of every line."""
    expect_log(".")
    as_text, as_json = io.StringIO(), io.StringIO()
    for log_format, stream in (("text", as_text), ("json", as_json)):
        log.setup("info", log_format, stream, SECRETS)
        logging.getLogger("rproxy").warning("%s", text)
        logging.getLogger("rproxy").warning("turn", extra={"fields": {"warnings": [text]}})
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("rproxy").exception("failed")
    message, turn, failed = map(json.loads, as_json.getvalue().splitlines())
    assert message["message"] == shown and turn["warnings"] == [shown] and shown in failed["exception"]
    lines = as_text.getvalue()
    assert shown.replace("\n", "\\n") in lines
    assert "ValueError: " + shown.replace("\n", "\n    ") in lines


FORMATTERS = pytest.mark.parametrize("formatter", [log.TextFormatter(), log.JsonFormatter()])
FORMATTING = ("Cc", "Cf", "Zl", "Zp")
NASTY = st.text(
    st.characters(categories=FORMATTING)
    | st.characters(categories=("C", "Z"), exclude_characters=" ")
    | st.characters(),
    max_size=20,
)


def record(text: str, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("rproxy", logging.INFO, "x.py", 1, "%s", (text,), exc_info)


def turn(**fields: Any) -> logging.LogRecord:
    """The line of a turn."""
    names = ("request_id", "key", "remote", "model", "downstream_model", "provider", "transport", "status")
    known = turn_fields(TurnRecord(**{**dict.fromkeys(names, ""), **fields}))
    message = record(line("turn", known, TURN_FIELDS))
    message.fields = known
    return message


def check_plain(line: str) -> None:
    assert not [char for char in line if not char.isprintable()]
    line.encode()


@FORMATTERS
@given(NASTY)
def test_no_hidden_character_reaches_a_line(formatter: logging.Formatter, text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        first, *rest = formatter.format(record(text, sys.exc_info())).split("\n")
    check_plain(first)
    for more in rest:
        check_plain(more)
        assert more.startswith("    ")  # cannot pass for a line of the log
    check_plain(formatter.format(turn(request_id=text, model=text, error=text, warnings=[text, "more"])))


@FORMATTERS
def test_every_formatting_character_is_escaped(formatter: logging.Formatter) -> None:
    formatting = [char for char in map(chr, range(0x110000)) if unicodedata.category(char) in FORMATTING]
    for begin in range(0, len(formatting), 100):
        check_plain(formatter.format(record("".join(formatting[begin : begin + 100]))))


def test_escapes_can_be_read_back() -> None:
    text = "a\x1b[2Jb\u2028c\u202ed\x85e\U000e0001f\ng\th"
    line = log.JsonFormatter().format(record(text))
    assert json.loads(line)["message"] == text
    assert (
        log.TextFormatter()
        .format(record(text))
        .endswith(r"a\u001b[2Jb\u2028c\u202ed\u0085e\udb40\udc01f\ng\th")
    )


@FORMATTERS
def test_lines_are_bounded(formatter: logging.Formatter) -> None:
    secret = "q7-secret-of-somebody"
    for size in (log.MAX_TEXT - 5, 8 * log.MAX_TEXT - 5, 3_000_000):
        formatter._secrets = [secret]  # type: ignore[attr-defined]
        try:
            raise ValueError("x" * size + secret)
        except ValueError:
            line = formatter.format(record("x" * size + secret, sys.exc_info()))
        assert len(line) < 5 * log.MAX_TEXT and "q7-" not in line
    message = turn(warnings=["w" * 100_000] * 1000, model="m" * 1_000_000)
    assert len(formatter.format(message)) < 5 * log.MAX_TEXT


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
    logging.getLogger("rproxy.turn").info("turn", extra={"fields": FIELDS})
    try:
        raise ValueError("sk-0123456789")
    except ValueError:
        logging.getLogger("rproxy").exception("failed")
    turn, error = (json.loads(line) for line in stream.getvalue().splitlines())
    assert turn.items() >= FIELDS.items() and turn["level"] == "info" and "message" not in turn
    assert error["message"] == "failed" and "ValueError: sk-***" in error["exception"]


def test_setup_again_replaces_the_handler() -> None:
    first, second = io.StringIO(), io.StringIO()
    log.setup("info", "text", first)
    log.setup("info", "text", second)
    logging.getLogger("rproxy").info("once")
    assert not first.getvalue() and second.getvalue().count("once") == 1


def test_times_have_a_zone() -> None:
    stream = io.StringIO()
    log.setup("info", "text", stream)
    logging.getLogger("rproxy").info("hello")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} INFO    hello\n", stream.getvalue())


def test_under_systemd_lines_have_priorities_and_no_time(
    tmp_path: Path, monkeypatch: Any, expect_log: Any
) -> None:
    expect_log("two")
    with open(tmp_path / "stderr", "w+", encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log.setup("debug", "text", stream)
        for level, text in ((logging.DEBUG, "x"), (logging.INFO, "one"), (logging.ERROR, "two\nlines")):
            logging.getLogger("rproxy").log(level, text)
        stream.seek(0)
        assert stream.read() == "<7>x\n<6>one\n<3>two\\nlines\n"
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        assert not log.is_journal(stream)


def test_a_limit_of_lines_counts_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: now[0]))
    limit, admitted = log.LineLimit(2, 10.0), []
    for now[0] in (100.0, 109.0, 109.5, 110.0, 111.0, 119.9, 120.0):
        admitted.append(limit.admits())
    assert admitted == [True, True, False, True, True, False, True] and limit.left_out == 2
