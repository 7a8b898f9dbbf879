"""What happened, as an operator sees it: reasons without prompts, metrics, the usage ledger, addresses."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional

import hypothesis.strategies as st
import pytest
from hypothesis import given
from rawserver import until

from rproxy.config.schema import Price
from rproxy.errors import ApiError, ConfigError
from rproxy.server.remote import TrustedProxies
from rproxy.telemetry.exposition import Histogram, Metric, exposition
from rproxy.telemetry.ledger import DAY, Ledger
from rproxy.telemetry.metrics import Metrics
from rproxy.telemetry.reason import MAX_REASON, reason_of, reason_steps
from rproxy.telemetry.records import TURN_FIELDS, TurnRecord, line, turn_fields
from rproxy.telemetry.usage import tokens_by_key, usage

RUN = 24


def record(**fields: Any) -> TurnRecord:
    known: Dict[str, Any] = {
        "request_id": "req_1",
        "key": "ann",
        "remote": "10.0.0.7",
        "model": "gpt-5.5",
        "route": "gpt-*",
        "downstream_model": "deepseek-v4-pro",
        "provider": "deepseek",
        "transport": "sse",
        "status": "completed",
    }
    return TurnRecord(**{**known, **fields})


def reason(message: str, request: Any) -> str:
    steps = reason_steps(message, request)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return str(end.value)


# ---- Lines
def test_the_line_of_a_turn() -> None:
    turn = record(
        input_tokens=2000,
        cached_tokens=1500,
        output_tokens=20,
        first_event_ms=12.6,
        total_ms=300,
        attempts=2,
        warnings=["dropped tool web_search", "no logprobs"],
    )
    assert line("turn", turn_fields(turn), TURN_FIELDS) == (
        "turn request_id=req_1 key=ann remote=10.0.0.7 model=gpt-5.5 downstream_model=deepseek-v4-pro "
        "provider=deepseek transport=sse status=completed request_bytes=0 answer_bytes=0 "
        "input_tokens=2000 cached_tokens=1500 output_tokens=20 cache_hit=75% first_event_ms=12 total_ms=300 "
        'attempts=2 retries=0 warnings="dropped tool web_search; no logprobs"'
    )


def test_a_value_cannot_pass_for_another_field() -> None:
    text = line("turn", turn_fields(record(model='a\nb="c"', status="failed")), TURN_FIELDS)
    assert 'model="a\\nb=\\"c\\"" ' in text and "\n" not in text


# ---- Reasons
TEXT = st.text(st.sampled_from('ab cé"\\\n\t😀/'), max_size=60)


@given(
    st.lists(TEXT, min_size=1, max_size=4), TEXT, TEXT, st.sampled_from(["plain", "json", "ascii", "whole"])
)
def test_no_run_of_the_request_gets_into_a_reason(
    texts: List[str], before: str, after: str, form: str
) -> None:
    request = {"model": "m", "input": [{"role": "user", "content": text} for text in texts]}
    quoted = {
        "plain": "".join(texts),
        "json": json.dumps(texts[-1], ensure_ascii=False),
        "ascii": json.dumps(texts[-1]),
        "whole": json.dumps(request, ensure_ascii=False, separators=(",", ":")),
    }[form]
    shown = reason(f"{before} {quoted} {after}", request)
    standing = [*texts, json.dumps(request, ensure_ascii=False, separators=(",", ":"))]
    standing += [json.dumps(text, ensure_ascii=True) for text in texts]
    for i in range(len(shown) - RUN + 1):
        assert not any(shown[i : i + RUN] in text for text in standing)
    assert len(shown) <= MAX_REASON


def test_short_texts_are_cut_out_where_they_occur_as_a_whole() -> None:
    request = {"model": "gpt-5.5", "input": [{"type": "message", "role": "user", "content": "tangerine"}]}
    assert reason("gpt-5.5: bad message of the user: 'tangerine' (tangerines)", request) == (
        "gpt-5.5: bad message of the user: '…' (tangerines)"
    )


def test_what_the_request_does_not_say_stays() -> None:
    request = {"input": [{"content": "the quick brown fox jumps over the lazy dog"}]}
    message = (
        "quota exceeded for 'the quick brown fox jumps over the lazy cat'; see https://x.example/billing"
    )
    assert reason(message, request) == ("quota exceeded for ' … cat'; see https://x.example/billing")
    assert reason("key sk-0123456789abcdef is wrong", {}) == "key sk-*** is wrong"
    assert len(reason("word " * 200, {})) == MAX_REASON


@pytest.mark.parametrize("size", [200_000, 131_072, 131_060])
def test_a_run_anywhere_in_a_long_request_is_found(size: int) -> None:
    secret = "my doctor says I must not eat cheese"
    filler = "".join(chr(97 + (i * 7 + i // 26) % 26) for i in range(size))
    for request in (
        {"input": filler + secret + filler},
        {"input": [filler, {"a\nb": filler + "\n" + secret}]},
    ):
        assert "doctor" not in reason(f"I refuse: {secret}", request)


async def test_a_large_request_does_not_hold_the_loop() -> None:
    request = {"input": [{"content": f"{i} " * 10_000} for i in range(400)]}
    looks = 0

    async def others() -> None:
        nonlocal looks
        while True:
            looks += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(others())
    error = ApiError(400, "something that the request does not say at all")
    assert await reason_of(error, request) == error.message
    task.cancel()
    assert looks > 10


# ---- Addresses
@pytest.mark.parametrize(
    "peer, forwarded, client",
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["1.2.3.4, 203.0.113.9"], "203.0.113.9"),  # the client made the first up
        ("127.0.0.1", ["203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9", "10.1.2.3"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["evil\nline, unknown, 10.0.0.1"], "10.0.0.1"),
        ("::ffff:10.0.0.2", ["203.0.113.9"], "203.0.113.9"),
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),  # not a proxy that is trusted
        ("unix", ["203.0.113.9"], "203.0.113.9"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_the_client_behind_proxies(peer: str, forwarded: List[str], client: str) -> None:
    assert TrustedProxies(["127.0.0.1", "10.0.0.0/8", "unix"]).client(peer, forwarded) == client


def test_nobody_is_believed_by_default() -> None:
    assert TrustedProxies([]).client("127.0.0.1", ["203.0.113.9"]) == "127.0.0.1"
    assert TrustedProxies(["127.0.0.1"]).client("unix", ["203.0.113.9"]) == "unix"


# ---- Metrics
def parsed(text: str) -> Dict[str, Dict[str, float]]:
    """Name -> labels as they are written -> value, with ``prometheus_client`` as the judge of the format."""
    parser = pytest.importorskip("prometheus_client.parser")
    found: Dict[str, Dict[str, float]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_a_turn_in_the_metrics() -> None:
    metrics = Metrics()
    turn = record(input_tokens=100, cached_tokens=60, output_tokens=20, reasoning_tokens=5, total_ms=250.0)
    metrics.turn_ended(turn, 0.25, "EUR")
    metrics.turn_ended(record(status="failed", error="whatever a provider says", key=""), None, "")
    metrics.attempt_ended("deepseek", "timeout")
    metrics.refused(429)
    found = parsed(metrics.text([]))
    turns = found["rproxy_turns_total"]
    base = "model=gpt-*,provider=deepseek"
    assert turns[f"error=,key=ann,{base},status=completed,transport=sse"] == 1
    assert turns[f"error=other,key=,{base},status=failed,transport=sse"] == 1
    assert found["rproxy_tokens_total"] == {
        f"key=ann,kind={kind},{base}": value
        for kind, value in (("input", 100), ("cached", 60), ("output", 20), ("reasoning", 5))
    }
    assert found["rproxy_cost_total"] == {f"currency=EUR,key=ann,{base}": 0.25}
    assert found["rproxy_provider_requests_total"] == {"provider=deepseek,status=timeout": 1}
    assert found["rproxy_refusals_total"] == {"status=429": 1}
    assert found["rproxy_turn_seconds_count"] == {"model=gpt-*": 2}
    assert found["rproxy_turn_seconds_bucket"]["le=0.25,model=gpt-*"] == 2
    assert found["process_resident_memory_bytes"][""] > 1e6 and found["process_start_time_seconds"][""] > 1e9


def test_the_text_format() -> None:
    counter = Metric("c_total", "counter", "Counts.", ("name",))
    counter.add(1, 'a"b\\c\nd')
    counter.add(1.5, 'a"b\\c\nd')
    histogram = Histogram("h", "Times.", (), (0.5, 1.0))
    for value in (0.5, 0.6, 7):
        histogram.observe(value)
    assert exposition([counter, histogram]) == (
        "# HELP c_total Counts.\n# TYPE c_total counter\n"
        'c_total{name="a\\"b\\\\c\\nd"} 2.5\n'
        "# HELP h Times.\n# TYPE h histogram\n"
        'h_bucket{le="0.5"} 1\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 3\nh_sum 8.1\nh_count 3\n'
    )


# ---- The ledger
class Clock:
    def __init__(self) -> None:
        self.time = 1_764_374_400.0  # 2025-11-29, midnight UTC

    def __call__(self) -> float:
        return self.time


async def written(
    path: Path, *turns: TurnRecord, cost: Optional[float] = None, clock: Optional[Clock] = None
) -> None:
    ledger = Ledger(str(path), 400 * DAY, clock or Clock())
    for turn in turns:
        ledger.add(turn, cost, "USD")
    await ledger.close()


async def test_the_ledger_sums_up(tmp_path: Path) -> None:
    path, clock = tmp_path / "deep" / "usage.db", Clock()
    await written(path, record(input_tokens=100, cached_tokens=40, output_tokens=5), cost=0.5, clock=clock)
    await written(path, record(input_tokens=1), record(key="bob", input_tokens=10), clock=clock)
    clock.time += DAY
    await written(path, record(key="bob", model="fast", status="failed"), clock=clock)
    ann = {
        "turns": 2,
        "input": 101,
        "cached": 40,
        "output": 5,
        "reasoning": 0,
        "cost": 0.5,
        "currency": "USD",
    }
    nothing = {"turns": 1, "cached": 0, "output": 0, "reasoning": 0, "cost": None, "currency": None}
    assert usage(str(path), 0, ["key", "model"]) == [
        {"key": "ann", "model": "gpt-5.5", **ann},
        {"key": "bob", "model": "gpt-5.5", **nothing, "input": 10},
        {"key": "bob", "model": "fast", **nothing, "input": 0},
    ]
    assert [entry["day"] for entry in usage(str(path), 0, ["day"])] == ["2025-11-29", "2025-11-30"]
    assert usage(str(path), clock.time, ["provider"]) == [{"provider": "deepseek", **nothing, "input": 0}]
    assert tokens_by_key(str(path), 0) == {"ann": 106, "bob": 10}
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


async def test_rows_are_written_within_a_second_and_wait_while_the_file_is_locked(
    tmp_path: Path, expect_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rproxy.telemetry.ledger.LOCK_TIMEOUT", 0.01)
    expect_log("cannot write the usage ledger .*locked")
    path = tmp_path / "usage.db"
    ledger = Ledger(str(path), DAY, Clock())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.add(record(), None, "")
    await until(lambda: ledger._complained)
    ledger.add(record(), None, "")
    other.execute("COMMIT")
    await until(lambda: sum(entry["turns"] for entry in usage(str(path), 0, ["key"])) == 2)
    await ledger.close()
    assert usage(str(path), 0, ["key"])[0]["turns"] == 2  # and not written twice
    other.close()


async def test_old_rows_go(tmp_path: Path) -> None:
    path, clock = tmp_path / "usage.db", Clock()
    await written(path, record(), clock=clock)
    clock.time += 401 * DAY
    await written(path, record(key="bob"), clock=clock)
    assert [entry["key"] for entry in usage(str(path), 0, ["key"])] == ["bob"]


def test_a_ledger_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "usage.db").write_bytes(b"this is not a database file, but it is long enough to be one" * 20)
    for path in (tmp_path / "usage.db", tmp_path):
        with pytest.raises(ConfigError, match="usage.path: cannot use"):
            Ledger(str(path), DAY, Clock())


def test_the_cost_of_a_turn() -> None:
    assert Price(input=2.0, output=10.0, cached=0.5).cost(1_000_000, 400_000, 100_000) == pytest.approx(2.4)
    assert Price(input=2.0, output=10.0).cost(1_000_000, 400_000, 0) == pytest.approx(2.0)


# ---- What is shipped for Prometheus and Grafana
ETC = Path(__file__).resolve().parent.parent / "etc"
GAUGES = (
    "rproxy_provider_up", "rproxy_turns_running", "rproxy_websockets_open", "rproxy_upstream_connections",
    "rproxy_store_items", "rproxy_store_bytes", "rproxy_event_loop_lag_seconds",
)  # fmt: skip


@pytest.mark.parametrize("name", ["prometheus-alerts.yml", "grafana-dashboard.json"])
def test_alerts_and_dashboard_name_metrics_that_exist(name: str) -> None:
    metrics = Metrics()
    metrics.turn_ended(record(first_event_ms=1.0), None, "")
    known = set(re.findall(r"^([a-z_]+)[ {]", metrics.text([]), re.M)) | set(GAUGES)
    known |= set(re.findall(r"^# TYPE ([a-z_]+)", metrics.text([]), re.M))
    text = (ETC / name).read_text(encoding="utf-8")
    used = set(re.findall(r"\b(?:rproxy|process)_[a-z_]+\b", text))
    assert used and used <= known, used - known


def test_the_dashboard_is_json_and_its_panels_do_not_overlap() -> None:
    dashboard = json.loads((ETC / "grafana-dashboard.json").read_text(encoding="utf-8"))
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(dashboard["panels"])


def test_promtool_accepts_the_alerts_and_the_metrics() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    alerts = subprocess.run(
        [promtool, "check", "rules", str(ETC / "prometheus-alerts.yml")], capture_output=True
    )
    assert alerts.returncode == 0, alerts.stdout + alerts.stderr
    metrics = Metrics()
    metrics.turn_ended(record(input_tokens=1, first_event_ms=1.0), 0.1, "USD")
    metrics.attempt_ended("deepseek", "200")
    metrics.refused(401)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=metrics.text([]).encode(), capture_output=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
