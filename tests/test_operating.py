"""What an operator sees of the whole application: lines of the log, metrics, the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from pathlib import Path
from typing import Any, AsyncIterator, Dict, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import examples
from rawserver import until
from running_server import RunningServer, running_server
from scripted import CONFIG, ScriptedProvider, error, finish, running, say, served, tokens
from tornado.httpclient import AsyncHTTPClient
from wsclient import begin, hear

from rproxy.cli.main import main
from rproxy.telemetry.usage import usage

PROMPT = "the rent of my flat in Nowhere Street 7 is four hundred and two crowns"


class Lines:
    """The lines of turns, attempts, refusals and cool-downs."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        caplog.set_level("DEBUG", "rproxy")

    def of(self, logger: str) -> List[logging.LogRecord]:
        return [record for record in self._caplog.records if record.name == "rproxy." + logger]

    async def last(self, logger: str, count: int = 1) -> logging.LogRecord:
        """The last one when there are ``count``."""
        await until(lambda: len(self.of(logger)) >= count)
        return self.of(logger)[-1]

    @property
    def text(self) -> str:
        return "\n".join(record.getMessage() for record in self._caplog.records)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    return Lines(caplog)


def fields(record: logging.LogRecord) -> Dict[str, Any]:
    return dict(record.fields)  # type: ignore[attr-defined]


class Lab:
    def __init__(self, url: str, provider: ScriptedProvider) -> None:
        self.url, self.provider = url, provider
        self.http = AsyncHTTPClient(force_instance=True)

    async def post(self, path: str = "/responses", **body: Any) -> Any:
        text = json.dumps({"model": "gpt-5.5", **body})
        return await self.http.fetch(self.url + path, method="POST", body=text, raise_error=False)


@contextlib.asynccontextmanager
async def lab(server: str = "", more: str = "") -> AsyncIterator[Lab]:
    provider = ScriptedProvider(strict=False)
    async with served(provider.base_url, server, CONFIG + more) as url:
        one = Lab(url, provider)
        yield one
        one.http.close()
    await provider.close()


# ---- Turns
@pytest.mark.parametrize("stream", [False, True])
async def test_the_line_of_a_failed_turn_says_why_but_not_what_was_asked(lines: Lines, stream: bool) -> None:
    async with lab() as one:
        message = f"Cannot tokenize {PROMPT!r} or {json.dumps(PROMPT)}: too many crowns"
        one.provider.turns.append([error(400, message)])
        answer = await one.post(input=PROMPT, stream=stream)
        record = await lines.last("turn")
    known = fields(record)
    assert record.levelno == logging.WARNING and known["status"] == "failed"
    assert known["upstream_status"] == 400 and known["attempts"] == 1
    assert known["reason"].endswith("too many crowns") and "Cannot tokenize" in known["reason"]
    assert "Nowhere" not in lines.text and "Nowhere" in answer.body.decode()
    assert answer.headers["x-request-id"] == known["request_id"]
    assert (
        len([line for line in lines.text.splitlines() if known["request_id"] in line and "reason" in line])
        == 1
    )


async def test_a_refused_connection(lines: Lines) -> None:
    async with served("http://127.0.0.1:1", "  retries: 0\n") as url:
        http = AsyncHTTPClient(force_instance=True)
        body = json.dumps({"model": "gpt-5.5", "input": "hi"})
        await http.fetch(url + "/responses", method="POST", body=body, raise_error=False)
        http.close()
        known = fields(await lines.last("turn"))
    assert "connection was refused" in known["reason"] and "upstream_status" not in known
    assert "status=connect" in lines.of("attempt")[0].getMessage()


async def test_a_filtered_turn_is_a_warning(lines: Lines) -> None:
    async with lab() as one:
        one.provider.turns.append([say("no"), finish("content_filter")])
        await one.post(input="hi")
        record = await lines.last("turn")
    assert record.levelno == logging.WARNING
    assert fields(record)["error"] == "content_filter" and "content filter" in fields(record)["reason"]


async def test_a_turn_that_its_client_left_is_no_warning_and_its_output_is_estimated(lines: Lines) -> None:
    async with running_server() as e:
        ws = await e.ws()
        await begin(ws, "begin")
        ws.close()
        record = await lines.last("turn")
    known = fields(record)
    assert record.levelno == logging.INFO and known["status"] == "cancelled"
    assert known["output_tokens"] >= 1 and known["usage"] == "estimated" and "reason" not in known
    assert known["transport"] == "ws" and known["remote"] == "127.0.0.1"


async def test_failover_shows(lines: Lines) -> None:
    more = """  - model: two
    provider:
      - {{base_url: "http://127.0.0.1:1", name: cheap}}
      - {{base_url: "{base_url}", name: dear, api_key: $SCRIPTED_KEY}}
"""
    async with lab(more=more) as one:
        one.provider.turns.append([say("hi"), finish("stop")])
        await one.post(model="two", input=PROMPT)
        known = fields(await lines.last("turn"))
        assert known["provider"] == "dear" and known["attempts"] == 2 and known["upstream_status"] == 200
        cooling = (await lines.last("failover")).getMessage()
        assert re.match(r"provider cheap cools down for 5 s: .*connection was refused", cooling)
        assert [fields(record)["provider"] for record in lines.of("attempt")] == ["cheap", "dear"]


async def test_the_return_of_a_provider_shows(lines: Lines) -> None:
    async with lab("  retries: 0\n") as one:
        one.provider.turns += [[error(503, f"down, {PROMPT}")], [say("hi"), finish("stop")]]
        await one.post(input=PROMPT)
        await one.post(input=PROMPT)
        cooling, back = [await lines.last("failover", 2), *lines.of("failover")][1:]
    assert cooling.levelno == logging.WARNING and "down, " in cooling.getMessage()
    assert back.levelno == logging.INFO and "answers again" in back.getMessage()
    assert "Nowhere" not in lines.text


async def test_chat_completions_are_turns(lines: Lines) -> None:
    async with lab() as one:
        one.provider.turns += [[say("hello"), finish("stop")], [error(400, f"bad {PROMPT}")]]
        messages = [{"role": "user", "content": PROMPT}]
        await one.post("/chat/completions", messages=messages)
        known = fields(await lines.last("turn"))
        assert known["transport"] == "chat" and known["status"] == "completed" and known["output_tokens"]
        await one.post("/chat/completions", messages=messages)
        record = await lines.last("turn", 2)
    assert record.levelno == logging.WARNING and fields(record)["upstream_status"] == 400
    assert "Nowhere" not in lines.text


# ---- Refusals
@pytest.mark.parametrize(
    "path, body, headers, status, says",
    [
        ("/v1/responses", {"model": "m", "input": "x", "tool_choice": PROMPT}, {}, 400, "tool_choice"),
        ("/v1/responses", {"model": "m", "input": "x", "text": {"format": {"type": PROMPT}}}, {}, 400, ""),
        ("/v1/responses", b'{"model": "' + PROMPT.encode(), {}, 400, "not valid JSON"),
        ("/v1/responses", {"model": PROMPT, "input": "x"}, {}, 404, "is not configured"),
        (
            "/v1/responses",
            {"model": "m", "input": "x"},
            {"Authorization": "Bearer nope-nope"},
            401,
            "API key",
        ),
        ("/v1/responses", {"model": "m", "input": "x"}, {"Origin": "https://x.example"}, 403, "x.example"),
        ("/v1/responses", {"model": "m", "input": "x" * 3000}, {}, 413, ""),
        ("/v1/nowhere", None, {}, 404, "not found"),
        ("/v1/conversations", {"items": [PROMPT]}, {}, 400, ""),
    ],
)
async def test_each_refusal_is_one_line(
    lines: Lines, path: str, body: Any, headers: Dict[str, str], status: int, says: str
) -> None:
    async with running_server(keys=["k-1"], max_body_size=2000) as e:
        answer = await e.fetch(path, body, headers={"Authorization": "Bearer k-1", **headers})
        record = await lines.last("refusal")
        known = fields(record)
    assert answer.code == known["status"] == status, answer.body
    assert says in known["reason"] and known["remote"] == "127.0.0.1"
    assert known["request_id"] == answer.headers["x-request-id"]
    assert known.get("key") == (None if status in (401, 403) or path == "/v1/nowhere" else "key1")
    assert len(lines.of("refusal")) == 1 and not lines.of("turn")
    assert "Nowhere" not in lines.text and "nope-nope" not in lines.text


async def test_refusals_on_a_websocket(lines: Lines) -> None:
    async with running_server(keys=["k-1"]) as e:
        ws = await e.ws(headers={"Authorization": "Bearer k-1"})
        for number, message in enumerate(
            ({"type": "nonsense"}, {"type": "response.create", "model": PROMPT, "input": "x"}), 1
        ):
            await ws.write_message(json.dumps(message))
            assert (await hear(ws))["type"] == "error"
            known = fields(await lines.last("refusal", number))
            assert known["method"] == "WS" and known["key"] == "key1" and known["path"] == "/v1/responses"
        assert known["status"] == 404 and "Nowhere" not in lines.text
        with contextlib.suppress(Exception):
            await e.ws(headers={"Authorization": "Bearer wrong"})
        assert fields(await lines.last("refusal", 3))["status"] == 401


TEXT = st.text(st.sampled_from('ab "\\\né'), min_size=24, max_size=60)


@settings(max_examples=examples(25))
@given(TEXT, st.sampled_from(["model", "format", "id", "input"]))
def test_no_prompt_gets_into_a_line(text: str, place: str) -> None:
    shown: List[logging.LogRecord] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shown.append(record)

    async def refused() -> None:
        body: Dict[str, Any] = {"model": "m", "input": "refuse"}
        if place == "model":
            body["model"] = text
        elif place == "format":
            body["text"] = {"format": {"type": text}}
        elif place == "id":
            body["input"] = [{"type": "item_reference", "id": text}]
        else:
            body["input"] = [text]
        async with running_server() as e:
            assert (await e.fetch("/v1/responses", body)).code >= 400
            await until(lambda: not e.state.reports)

    ours, handler = logging.getLogger("rproxy"), Collect()
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel("INFO")
    try:
        asyncio.run(refused())
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
    assert len(shown) == 1 and shown[0].getMessage().startswith("refused")
    # In the line itself they are escaped once more, which makes long runs of a few backslashes.
    said = "\n".join(map(str, fields(shown[0]).values()))
    for form in (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        for i in range(len(form) - 23):
            assert form[i : i + 24] not in said


# ---- Metrics
async def metrics(e: RunningServer, **headers: str) -> Any:
    return await e.fetch("/metrics", headers=headers)


async def test_metrics_of_a_server(lines: Lines) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    async with running_server() as e:
        await e.fetch("/v1/responses", {"model": "m", "input": "hello"})
        await e.fetch("/v1/responses", {"model": "m", "input": "refuse"})
        await e.fetch("/v1/responses", {"model": "invented", "input": "hello"})
        await e.ws()
        await until(lambda: not e.state.reports)
        answer = await metrics(e)
        assert answer.code == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        samples: Dict[str, Any] = {}
        for family in parser.text_string_to_metric_families(answer.body.decode()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample)
    turns = {s.labels["status"]: s for s in samples["rproxy_turns_total"]}
    assert turns["completed"].value == 1 and turns["completed"].labels["model"] == "m"
    assert set(turns["failed"].labels) == {"model", "provider", "transport", "status", "error", "key"}
    assert {s.labels["status"]: s.value for s in samples["rproxy_refusals_total"]} == {"404": 1}
    assert {s.labels["status"] for s in samples["rproxy_provider_requests_total"]} == {"200", "429"}
    for name, value in (
        ("rproxy_websockets_open", 1),
        ("rproxy_turns_running", 0),
        ("rproxy_store_items", 1),
        ("rproxy_provider_up", 0),
    ):
        assert samples[name][0].value == value, name
    for name in ("rproxy_event_loop_lag_seconds", "rproxy_build_info", "rproxy_upstream_connections"):
        assert name in samples
    assert "invented" not in answer.body.decode()


@pytest.mark.parametrize(
    "mode, keys, headers, status",
    [
        ("auto", None, {}, 200),
        ("auto", None, {"X-Forwarded-For": "203.0.113.9"}, 404),
        ("auto", None, {"X-Forwarded-Proto": "https"}, 404),
        ("auto", None, {"Forwarded": "for=1.2.3.4"}, 404),
        ("auto", None, {"Via": "1.1 proxy"}, 404),
        ("auto", None, {"Host": "llm.example.com"}, 404),
        ("auto", ["k-1"], {}, 200),
        ("auto", ["k-1"], {"X-Forwarded-For": "203.0.113.9"}, 401),
        ("auto", ["k-1"], {"X-Forwarded-For": "203.0.113.9", "Authorization": "Bearer k-1"}, 200),
        ("on", None, {"X-Forwarded-For": "203.0.113.9", "Host": "llm.example.com"}, 200),
        ("off", None, {}, 404),
        ("off", ["k-1"], {"Authorization": "Bearer k-1"}, 404),
    ],
)
async def test_who_may_read_the_metrics(mode: str, keys: Any, headers: Dict[str, str], status: int) -> None:
    async with running_server(metrics=mode, **({"keys": keys} if keys else {})) as e:
        assert (await metrics(e, **headers)).code == status


# ---- The ledger of a process
async def test_odd_names_and_counts_do_not_end_the_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = iter([10**30, 10**400])
    provider = ScriptedProvider(strict=False)
    provider.aside = lambda body: [say("hello"), finish("stop"), tokens(next(counts, 1))]
    config = CONFIG.replace("model: gpt-5.5", 'model: "*"', 1)
    config += f"usage: {{{{path: {tmp_path / 'usage.db'}}}}}\n"
    http = AsyncHTTPClient(force_instance=True)
    async with running(tmp_path, provider.base_url, "", config) as one:
        for model in ("one", "two", "half of a pair: \ud800", "\0", "\x1b[2J\u202elast"):
            body = json.dumps({"model": model, "input": "hi"})
            url = f"http://127.0.0.1:{one.port}/v1/responses"
            answer = await http.fetch(url, method="POST", body=body, raise_error=False)
            assert answer.code == 200
        await until(
            lambda: sum(entry["turns"] for entry in usage(str(tmp_path / "usage.db"), 0, ["model"])) == 5
        )
    entries = usage(str(tmp_path / "usage.db"), 0, ["model"])
    assert {entry["model"] for entry in entries} == {
        "one",
        "two",
        "half of a pair: \ufffd",
        "\0",
        "\x1b[2J\u202elast",
    }
    # The operator's terminal obeys none of them.
    assert main(["usage", "--path", str(tmp_path / "usage.db")]) == 0
    printed = capsys.readouterr().out
    assert "\\u001b[2J\\u202elast" in printed and all(map(str.isprintable, printed.splitlines()))
    http.close()
    await provider.close()


async def test_a_turn_gets_into_the_ledger_and_limits_survive_a_restart(tmp_path: Path) -> None:
    provider = ScriptedProvider(strict=False)
    provider.aside = lambda body: [say("hello"), finish("stop")]
    config = CONFIG.replace(
        "downstream_model: deepseek-v4-pro",
        "downstream_model: deepseek-v4-pro\n    price: {{input: 1, output: 2, currency: EUR}}",
        1,
    )
    config += f"usage: {{{{path: {tmp_path / 'usage.db'}}}}}\n"
    keys = "  auth: {keys: [{name: ann, key: ann-key-123456, tokens_per_day: 5}]}\n"
    body = json.dumps({"model": "gpt-5.5", "input": "hi"})
    http = AsyncHTTPClient(force_instance=True)

    async def turn(port: int) -> int:
        url = f"http://127.0.0.1:{port}/v1/responses"
        headers = {"Authorization": "Bearer ann-key-123456"}
        return (await http.fetch(url, method="POST", body=body, headers=headers, raise_error=False)).code

    async with running(tmp_path, provider.base_url, keys, config) as one:
        assert await turn(one.port) == 200
        await until(lambda: usage(str(tmp_path / "usage.db"), 0, ["key"]))
    entry = usage(str(tmp_path / "usage.db"), 0, ["key", "model"])[0]
    assert entry["key"] == "ann" and entry["model"] == "gpt-5.5" and entry["turns"] == 1
    assert entry["input"] > 0 and entry["cost"] > 0 and entry["currency"] == "EUR"
    async with running(tmp_path, provider.base_url, keys, config) as one:
        assert await turn(one.port) == 429
    http.close()
    await provider.close()
