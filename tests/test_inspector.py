"""The JSON of the inspector, who may see it, and the page as an answer; :mod:`test_inspector_page` looks at
the page in a browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import subprocess
import sys
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any, AsyncIterator, Dict, List, Optional

import pytest
from api import site
from forkserver import rproxy_command
from rawserver import until
from running_server import RunningServer, config, error_of, running_server
from scripted import call, error, say, think
from tornado.httpclient import AsyncHTTPClient

from rproxy.config.load import parse_config
from rproxy.config.schema import Key
from rproxy.errors import ConfigError
from rproxy.inspector.page import asks_for_html
from rproxy.inspector.summary import BUCKETS, MAX_GROUPS, summary_steps
from rproxy.server.inspector import entries
from rproxy.telemetry.contents import Contents
from rproxy.telemetry.recent import RecentTurns
from rproxy.telemetry.recording import Recording
from rproxy.telemetry.records import MAX_WARNINGS, TurnRecord
from rproxy.telemetry.spans import MAX_SPANS, Timeline

Json = Dict[str, Any]
HELLO = {"model": "m", "input": "hello"}
ANN = Key("ann", "sk-ann-0123456789")
BEN = Key("ben", "sk-ben-0123456789")
GUEST = Key("guest", "sk-guest-0123456789", models=("m",))
PATHS = ["/inspector/turns", "/inspector/turns/req_1", "/inspector/turns/req_1/recording"]
PATHS += ["/inspector/stream", "/inspector/summary"]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def bearer(key: Optional[Key]) -> Dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key.value}"}


async def ask(
    e: RunningServer, path: str, key: Optional[Key] = None, status: int = 200, **headers: str
) -> Json:
    answer = await e.fetch(path, headers={**bearer(key), **headers})
    assert answer.code == status, answer.body
    if status != 200:
        return error_of(answer)
    found: Json = json.loads(answer.body)
    return found


async def turn(e: RunningServer, key: Optional[Key] = None, text: str = "hello", **more: Any) -> str:
    """Run a turn; gives its request id."""
    body = {"model": "m", "input": text, **more}
    answer = await e.fetch("/v1/responses", body, headers=bearer(key))
    return str(answer.headers["x-request-id"])


def record(number: int = 1, **fields: Any) -> TurnRecord:
    known: Json = {
        "request_id": f"req_{number}",
        "key": "ann",
        "remote": "10.0.0.7",
        "model": "gpt-5.5",
        "route": "*",
        "downstream_model": "gpt-5.5",
        "provider": "lab",
        "transport": "sse",
        "status": "completed",
    }
    return TurnRecord(**{**known, **fields})


# ---- The list, a turn
async def test_a_turn_with_all_that_is_known_of_it(tmp_path: Any) -> None:
    async with site(tmp_path) as (provider, api, _):
        base, api.base_url = api.base_url, api.base_url.replace("/v1", "")
        provider.turns.append(
            [think("Look."), say("I look."), call("ls", path="."), call("cat", index=1, f="a")]
        )
        api_headers = await api("POST", "/v1/responses", {"model": "gpt-5.5", "input": "List the files."})
        request_id = api.headers["x-request-id"]
        assert api_headers["status"] == "completed" and base.endswith("/v1")
        found = await api("GET", "/inspector/turns")
        assert set(found) == {"process", "running", "turns", "has_more"}
        assert found["running"] == [] and found["has_more"] is False
        (shown,) = found["turns"]
        wanted = {
            "id": request_id, "number": 1, "key": "", "remote": "127.0.0.1", "model": "gpt-5.5",
            "route": "gpt-5.5", "downstream_model": "deepseek-v4-pro", "transport": "json",
            "status": "completed", "error": "", "reason": "", "upstream_status": 200, "input_tokens": 30,
            "cached_tokens": 20, "output_tokens": 12, "reasoning_tokens": 4, "cache_hit": 0.667, "cost": None,
            "tool_calls": 2, "warnings": [], "attempts": 1, "retries": 0,
        }  # fmt: skip
        assert {name: shown[name] for name in wanted} == wanted
        one = await api("GET", "/inspector/turns/" + request_id)
        assert one.pop("process") == found["process"]
        assert one == {**shown, "recording": None, "content": None}
        kinds = sorted(span["kind"] for span in shown["spans"])
        assert kinds == ["attempt", "connect", "first_byte", "queue", "text", "thinking", "tool", "tool"]
        assert [span["label"] for span in shown["spans"] if span["kind"] == "tool"] == ["ls", "cat"]
        assert all(0 <= span["start"] <= span["end"] for span in shown["spans"])
        attempt = next(span for span in shown["spans"] if span["kind"] == "attempt")
        assert attempt["label"].endswith(" 200")
        missing = await api("GET", "/inspector/turns/req_0", expect=404)
        assert "another process" in missing["message"]


async def test_steps_of_a_streamed_turn_follow_each_other(tmp_path: Any) -> None:
    async with site(tmp_path) as (provider, api, _):
        gate = asyncio.Event()
        provider.turns.append([think("Hm."), {"gate": gate}, say("Yes.")])
        running = asyncio.ensure_future(
            api.events("POST", "/responses", {"model": "gpt-5.5", "input": "Well?", "stream": True})
        )
        root = api.base_url.replace("/v1", "")
        http = AsyncHTTPClient(force_instance=True)

        async def turns() -> Json:
            found: Json = json.loads((await http.fetch(root + "/inspector/turns")).body)
            return found

        await until(lambda: len(provider.requests) == 1)
        (shown,) = (await turns())["running"]
        assert (shown["status"], shown["number"], shown["model"]) == ("in_progress", None, "gpt-5.5")
        same = json.loads((await http.fetch(f"{root}/inspector/turns/{shown['id']}")).body)
        assert same["id"] == shown["id"] and same["status"] == "in_progress"
        while "thinking" not in {span["kind"] for span in same["spans"]}:  # a step that goes on
            same = json.loads((await http.fetch(f"{root}/inspector/turns/{shown['id']}")).body)
        assert {"queue", "attempt", "connect", "first_byte"} <= {span["kind"] for span in same["spans"]}
        assert all(span["end"] <= same["total_ms"] + 1000 for span in same["spans"])
        gate.set()
        await running
        after = await turns()
        assert after["running"] == [] and after["turns"][0]["id"] == shown["id"]
        spans = {span["kind"]: span for span in after["turns"][0]["spans"]}
        order = ["queue", "connect", "first_byte", "thinking", "text"]
        for before, behind in zip(order, order[1:]):
            assert spans[before]["end"] <= spans[behind]["start"] + 0.11, (before, behind)
        assert spans["attempt"]["start"] <= spans["connect"]["start"]
        assert after["turns"][0]["first_event_ms"] is not None


async def test_a_turn_that_waits_on_a_websocket_shows_it() -> None:
    async with running_server() as e:
        socket, opened = await e.ws(), time.monotonic()
        await until(lambda: time.monotonic() > opened + 0.3)
        sent = time.monotonic()
        for text in ("gate", "hello"):
            await socket.write_message(json.dumps({"type": "response.create", "model": "m", "input": text}))
        (session,) = e.state.sessions
        await until(lambda: e.provider.sent == 1 and session.waiting() == 1)  # type: ignore[attr-defined]
        waiting = time.monotonic()
        await until(lambda: time.monotonic() > waiting + 0.02)
        e.provider.gate.set()
        ended = 0
        while ended < 2:
            ended += "response.completed" in str(await socket.read_message())
        second, first = (await ask(e, "/inspector/turns"))["turns"]
        assert first["transport"] == second["transport"] == "ws" and first["id"] != second["id"]
        (queue,) = [span for span in second["spans"] if span["kind"] == "queue"]
        assert queue["start"] == 0 and 20 <= queue["end"] <= (time.monotonic() - sent) * 1000


async def test_attempts_and_the_pauses_between_them(tmp_path: Any) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[error(503, "Busy.", {"Retry-After": "0"})], [say("Yes.")]]
        await api("POST", "/responses", {"model": "gpt-5.5", "input": "Well?"})
        api.base_url = api.base_url.replace("/v1", "")
        shown = (await api("GET", "/inspector/turns"))["turns"][0]
        labels = [span["label"] for span in shown["spans"] if span["kind"] == "attempt"]
        assert [label.split()[-1] for label in labels] == ["503", "200"]
        assert sum(span["kind"] == "pause" for span in shown["spans"]) == 1 and shown["attempts"] == 2


async def test_lists_are_cut_and_filtered() -> None:
    async with running_server() as e:
        ids = [await turn(e) for _ in range(3)]
        failed = await turn(e, text="refuse")
        found = await ask(e, "/inspector/turns?limit=2")
        assert [one["id"] for one in found["turns"]] == [failed, ids[2]] and found["has_more"]
        rest = await ask(e, f"/inspector/turns?before={found['turns'][-1]['number']}")
        assert [one["id"] for one in rest["turns"]] == [ids[1], ids[0]] and not rest["has_more"]
        found = await ask(e, "/inspector/turns?status=failed&model=m")
        assert [one["id"] for one in found["turns"]] == [failed]
        assert found["turns"][0]["reason"] and found["turns"][0]["error"] == "rate_limit_exceeded"
        assert (await ask(e, "/inspector/turns?status=failed&model=x"))["turns"] == []
        for bad in ("limit=0", "limit=x", "limit=1001", "before=-1", "limit=%C2%B2", "limit=" + "9" * 40):
            assert (await ask(e, "/inspector/turns?" + bad, status=400))["type"] == "invalid_request_error"


async def test_chat_requests_are_turns_as_well() -> None:
    async with running_server() as e:
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        answer = await e.fetch("/v1/chat/completions", body)
        (shown,) = (await ask(e, "/inspector/turns"))["turns"]
        assert (shown["id"], shown["transport"]) == (answer.headers["x-request-id"], "chat")
        assert {"queue", "attempt", "connect", "first_byte"} == {span["kind"] for span in shown["spans"]}


# ---- What is kept
def test_so_many_turns_are_kept_and_no_more() -> None:
    recent = RecentTurns(most=3)
    for number in range(5):
        recent.add(record(number), None, "")
    assert [one.number for one in recent.turns] == [3, 4, 5] and recent.find("req_0") is None
    assert [one.number for one in recent.since(3)] == [5, 4]
    recent.add(record(9, warnings=[str(n) for n in range(4000)]), None, "")
    assert len(recent.turns[-1].record.warnings) == MAX_WARNINGS + 1


def test_a_timeline_is_bounded() -> None:
    timeline = Timeline(0.0)
    for _ in range(2000):
        timeline.watch({"type": "function_call", "name": "x" * 500}, False)
        timeline.watch({"type": "function_call"}, True)
    assert len(timeline.spans) == MAX_SPANS and max(len(label) for *_, label in timeline.spans) == 80


def test_tools_between_two_attempts_are_steps_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]  # seconds; a clock that stands still while the test does not pass time
    monkeypatch.setattr("rproxy.telemetry.spans.time", SimpleNamespace(monotonic=lambda: now[0]))

    class TimedAttempt:
        sent: Optional[float] = None
        answered: Optional[float] = None

        def __init__(self) -> None:
            self.started = now[0]

    def pass_time() -> None:
        now[0] += 0.002

    timeline = Timeline(now[0])
    for round_ in range(2):
        pass_time()
        timeline.begin_attempt(TimedAttempt())
        pass_time()
        timeline.end_attempt("round", str(round_))
        if round_ == 0:
            call = {"type": "mcp_call", "name": "read", "server_label": "files"}
            timeline.watch(call, False)
            pass_time()
            assert ("tool", "files.read") in [(kind, label) for kind, _, _, label in timeline.so_far()]
            timeline.watch(call, True)
    steps = sorted(timeline.spans, key=lambda span: (span[1], -span[2]))
    kinds = [(kind, label) for kind, _, _, label in steps]
    first, last = ([("queue", ""), ("attempt", f"round {n}"), ("connect", "")] for n in (0, 1))
    assert kinds == [*first, ("tool", "files.read"), *last]


def test_sums() -> None:
    recent = RecentTurns(now=lambda: 1000.0)
    for number, ms in enumerate([10, 20, 30, 40], 1):
        more = {"status": "failed", "error": "x"} if number == 4 else {"first_event_ms": ms / 2}
        recent.add(record(number, total_ms=ms, input_tokens=100, cached_tokens=50, **more), 0.5, "EUR")
    recent.now = lambda: 1.0
    recent.add(record(9, model="old"), None, "")
    recent.turns.rotate(1)  # the oldest
    steps = summary_steps(list(reversed(recent.turns)), 1000.0, 300.0)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found = end.value
            break
    total = found["total"]
    assert (total["turns"], total["error_rate"], total["cost"], found["currency"]) == (4, 0.25, 2.0, "EUR")
    assert total["input_tokens"] == 400 and total["cache_hit"] == 0.5
    assert total["total_ms"] == {"p50": 20, "p95": 40} and total["first_event_ms"] == {"p50": 10, "p95": 15}
    assert [one["name"] for one in found["models"]] == ["gpt-5.5"] and found["keys"][0]["name"] == "ann"
    lines = total["sparklines"]
    assert set(lines) == {"turns", "failed", "tokens", "cost", "total_ms"}
    assert {len(line) for line in lines.values()} == {BUCKETS}
    assert sum(lines["turns"]) == 4 and sum(lines["failed"]) == 1 and sum(lines["cost"]) == 2.0
    assert lines["total_ms"][-1] == 20 and lines["total_ms"][0] is None


def test_sums_of_any_number_of_names_are_bounded() -> None:
    recent = RecentTurns(now=lambda: 1000.0)
    for number in range(1000):
        recent.add(record(number, model=f"model-{number}"), None, "")
    steps = summary_steps(list(reversed(recent.turns)), 1000.0, 300.0)
    with pytest.raises(StopIteration) as end:
        while True:
            next(steps)
    models = end.value.value["models"]
    assert len(models) == MAX_GROUPS + 1 and sum(one["turns"] for one in models) == 1000


async def test_the_summary_names_providers_and_their_cool_downs() -> None:
    async with running_server(retries=0) as e:
        await turn(e)
        found = await ask(e, "/inspector/summary")
        assert found["total"]["turns"] == 1 and found["running"] == 0
        (lab,) = found["providers"]
        assert (lab["name"], lab["state"], lab["until"], lab["models"]) == ("lab", "up", None, ["m", "org/m"])
        assert "sk-lab" not in json.dumps(found)
        await turn(e, text="refuse")
        (lab,) = (await ask(e, "/inspector/summary"))["providers"]
        assert lab["state"] == "cooling" and lab["until"] > found["since"]
        assert (await ask(e, "/inspector/summary?window=60"))["total"]["turns"] == 2
        assert (
            "another process" not in found["process"]["scope"]
            and "each shows its own" in found["process"]["scope"]
        )


# ---- The stream
class Stream:
    """A client of the stream."""

    def __init__(self) -> None:
        self.text = ""

    @property
    def events(self) -> List[Any]:
        """Kind and data of each so far."""
        blocks = [block for block in self.text.split("\n\n")[:-1] if "data: " in block]
        return [
            (block.partition("event: ")[2].split("\n")[0], json.loads(block.partition("data: ")[2]))
            for block in blocks
        ]

    @property
    def last_id(self) -> str:
        return self.text.rpartition("id: ")[2].split("\n")[0]

    def of(self, kind: str) -> List[Json]:
        return [data for found, data in self.events if found == kind]


@contextlib.asynccontextmanager
async def following(e: RunningServer, query: str = "", key: Optional[Key] = None) -> AsyncIterator[Stream]:
    """Read the stream while the context lasts; afterwards nothing is left of it."""
    stream, raw = Stream(), await e.raw()

    async def read() -> None:
        while data := await raw.reader.read(1 << 16):
            stream.text += data.decode()

    fields = [f"{name}: {value}" for name, value in bearer(key).items()]
    raw.send(f"GET /inspector/stream{query} HTTP/1.0", "Host: 127.0.0.1", *fields)
    status, headers = await raw.head()
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    reading = asyncio.ensure_future(read())
    recent = e.state.service.telemetry.recent
    assert recent is not None
    try:
        yield stream
    finally:
        reading.cancel()
        raw.cut()
        await until(lambda: not recent.listeners)


async def test_the_stream_tells_of_turns_as_they_begin_and_end() -> None:
    async with running_server() as e:
        old = await turn(e)
        async with following(e) as stream:
            await until(lambda: stream.of("providers"))
            assert stream.of("hello")[0]["content"] is False and stream.of("turns") == stream.of("turn") == []
            running = asyncio.ensure_future(turn(e, text="gate", stream=True))
            await until(lambda: stream.of("turn"))
            assert stream.of("turn")[0]["status"] == "in_progress"
            e.provider.gate.set()
            new = await running
            await until(lambda: len(stream.of("turn")) == 2)
            first, last = stream.of("turn")
            assert first["id"] == last["id"] == new != old and last["status"] == "completed"
            await until(lambda: stream.of("gone") == [{"id": new}])
        async with following(e, "?after=" + stream.last_id) as again:
            await until(lambda: again.of("providers"))
            third = await turn(e)
            await until(lambda: [one["id"] for one in again.of("turn") if one["number"]] == [third])
        async with following(e, "?after=0") as whole:
            await until(lambda: len(whole.of("turn")) == 3)
            assert [one["id"] for one in whole.of("turn")] == [old, new, third]


async def test_many_turns_come_in_few_events() -> None:
    async with running_server() as e:
        recent = e.state.service.telemetry.recent
        assert recent is not None
        for number in range(250):
            recent.add(record(number), None, "")
        async with following(e, f"?after={recent.id}-10") as stream:
            await until(lambda: stream.last_id == f"{recent.id}-250")
            batches = [batch["turns"] for batch in stream.of("turns")]
            assert [len(batch) for batch in batches] == [100, 100, 40] and not stream.of("turn")
            assert [one["number"] for batch in batches for one in batch] == list(range(250, 10, -1))
        async with following(e, f"?after={recent.id}-" + "9" * 5000) as odd:
            await until(lambda: odd.last_id == f"{recent.id}-250")
        async with following(e, "?after=00000000-200") as other:  # of another process: from the beginning
            await until(lambda: other.last_id == f"{recent.id}-250")
            assert sum(len(batch["turns"]) for batch in other.of("turns")) == 250


@pytest.mark.parametrize("change", ["key", "off", "content"])
async def test_a_stream_ends_when_its_key_or_the_inspector_goes(change: str) -> None:
    async with running_server(keys=[ANN]) as e, following(e, key=ANN) as stream:
        await until(lambda: stream.of("hello"))
        server = e.state.config.server
        if change == "key":
            server = dataclasses.replace(server, auth=dataclasses.replace(server.auth, keys=(BEN,)))
        else:
            server = dataclasses.replace(server, inspector=change)
        recent = e.state.service.telemetry.recent
        assert recent is not None
        e.state.configure(dataclasses.replace(e.state.config, server=server))
        await turn(e, BEN if change == "key" else ANN)
        await until(lambda: not recent.listeners)
        assert stream.of("turn") == [] and e.state.service.telemetry.recent is (
            None if change == "off" else recent
        )


# ---- Content
async def test_content_is_kept_only_where_it_is_wanted(tmp_path: Any) -> None:
    for mode in ("on", "content"):
        async with site(tmp_path, server=f"  inspector: {mode}\n") as (provider, api, _):
            provider.turns.append([say("Tangerines, please.")])
            body = {"model": "gpt-5.5", "input": "Which fruit, pomegranates?", "stream": True}
            await api.events("POST", "/responses", body)
            request_id, api.base_url = api.headers["x-request-id"], api.base_url.replace("/v1", "")
            listed = json.dumps(await api("GET", "/inspector/turns"))
            assert "omegranates" not in listed and "angerines" not in listed
            one = await api("GET", "/inspector/turns/" + request_id)
            status, recording = await api.raw("GET", f"/inspector/turns/{request_id}/recording")
            if mode == "on":
                assert one["content"] is None and status == 404 and b"inspector: content" in recording
                continue
            assert status == 200 and api.headers["content-type"] == "application/jsonl"
            assert f'filename="{one["recording"]}"' in api.headers["content-disposition"]
            lines = [json.loads(line) for line in recording.splitlines()]
            assert lines == one["content"] and "sk-scripted" not in recording.decode()
            kinds = [line["kind"] for line in lines]
            assert kinds[:3] == ["recording", "request", "attempt"] and {"data", "events"} <= set(kinds)
            assert lines[1]["body"] == body and lines[2]["body"]["messages"][-1]["content"] == body["input"]
            path = tmp_path / one["recording"]
            path.write_bytes(recording)
            replay = await asyncio.create_subprocess_exec(
                *rproxy_command("replay", str(path), "--diff"), stdout=asyncio.subprocess.PIPE
            )
            assert (await replay.communicate(), replay.returncode) == ((b"", None), 0)


async def test_content_can_be_read_while_the_turn_runs() -> None:
    async with running_server(inspector="content") as e:
        running = asyncio.ensure_future(turn(e, text="gate", stream=True))
        await until(lambda: e.provider.sent == 1)
        (shown,) = (await ask(e, "/inspector/turns"))["running"]
        content = (await ask(e, "/inspector/turns/" + shown["id"]))["content"]
        assert content[1]["body"]["input"] == "gate" and content[-1]["kind"] != "turn_end"
        e.provider.gate.set()
        assert await running == shown["id"]
        contents = e.state.service.telemetry.contents
        assert contents is not None and contents.size > 0
        after = await ask(e, "/inspector/turns/" + shown["id"])
        assert after["content"][-1]["kind"] == "turn_end"
        server = dataclasses.replace(e.state.config.server, inspector="on")
        e.state.configure(dataclasses.replace(e.state.config, server=server))
        assert e.state.service.telemetry.recorders == []
        assert (await ask(e, "/inspector/turns/" + shown["id"]))["content"] is None


async def test_content_is_for_the_key_that_asked() -> None:
    async with running_server(keys=[ANN, BEN], inspector="content") as e:
        anns = await turn(e, ANN, text="hello secret pomegranate")
        for path in (f"/inspector/turns/{anns}", f"/inspector/turns/{anns}/recording"):
            assert b"pomegranate" in (await e.fetch(path, headers=bearer(ANN))).body
            other = await e.fetch(path, headers=bearer(BEN))
            assert b"pomegranate" not in other.body and other.code in (200, 404)
        assert (await ask(e, "/inspector/turns/" + anns, BEN))["content"] is None


async def test_content_is_bounded_in_bytes() -> None:
    contents, kept = Contents(most=2000), []
    for number in range(5):
        recording = Recording({"request_id": f"req_{number}"}, {}, [])
        recording.request({}, {"input": random.Random(number).randbytes(300).hex()}, {})
        contents.begin(recording)
        assert f"req_{number}" in contents
        await contents.end(recording, record(number))
        assert 0 < contents.size <= 2000
        kept.append([f"req_{n}" for n in range(5) if f"req_{n}" in contents])
    assert kept[-1] != [] and "req_0" not in kept[-1] and "req_4" in kept[-1]
    huge = Recording({"request_id": "huge"}, {}, [])
    huge.request({}, {"input": random.Random(9).randbytes(5000).hex()}, {})
    contents.begin(huge)
    await contents.end(huge, record(9))
    assert contents.size == 0 and await contents.content("huge") is None


async def test_readers_of_a_large_recording_share_what_is_packed() -> None:
    """Fifty that have begun to read take no more than one piece each, not the whole each."""
    contents = Contents()
    recording = Recording({"request_id": "large", "text": "hello " * 2_000_000}, {}, [])
    lines = "".join(recording.lines()).encode()
    readers = []
    tracemalloc.start()
    try:
        for ended in (False, True):
            contents.begin(recording) if not ended else await contents.end(recording, record(1))
            found = await contents.content("large")
            assert found is not None
            assert b"".join(found.pieces()) == lines
            assert max(map(len, found.pieces())) <= 1 << 16
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(50):
                one = await contents.content("large") if ended else found
                assert one is not None
                readers.append(one.pieces())
                next(readers[-1])
            assert tracemalloc.get_traced_memory()[1] - before < len(lines)
    finally:
        tracemalloc.stop()


def test_recorded_lines_are_entries_wherever_they_are_cut() -> None:
    lines = b'{"a": 1}\n{"b": 2}\n{"c": "x\\n"}\n'
    for size in range(1, len(lines) + 1):
        pieces = [*entries(lines[at : at + size] for at in range(0, len(lines), size))]
        assert b"".join(pieces) == b'{"a": 1},{"b": 2},{"c": "x\\n"}'
        assert all(pieces)  # an empty one would end the body


# ---- Who may see what
@pytest.mark.parametrize(
    "path", ["/inspector/turns", "/inspector/turns/req_1", "/inspector/stream", "/inspector/summary"]
)
async def test_without_keys_it_is_for_this_machine_only(path: str) -> None:
    async with running_server() as e:
        for headers in (
            {"X-Forwarded-For": "10.0.0.1"}, {"Via": "1.1 x"}, {"Forwarded": "for=1.2.3.4"},
            {"X-Real-IP": "10.0.0.1"}, {"Host": "127.0.0.1.evil.example"}, {"X-Forwarded-Host": "a"},
        ):  # fmt: skip
            assert (await e.fetch(path, headers=headers)).code in (403, 404), headers
            assert (await e.fetch("/", headers={**headers, "Accept": BROWSER})).code in (403, 404), headers


@pytest.mark.parametrize(
    "path", ["/inspector/turns", "/inspector/turns/req_1", "/inspector/stream", "/inspector/summary"]
)
async def test_with_keys_the_data_need_one(path: str) -> None:
    async with running_server(keys=[ANN]) as e:
        assert (await e.fetch(path)).code == 401
        assert (await e.fetch(path, headers=bearer(BEN))).code == 401
        assert (await e.fetch(path + "?key=" + ANN.value)).code == 401
        page = await e.fetch("/", headers={"Accept": BROWSER, "X-Forwarded-For": "10.0.0.1"})
        assert page.code == 200 and b"<!doctype html>" in page.body


async def test_a_key_with_limits_sees_its_own_turns_only() -> None:
    async with running_server(
        keys=[ANN, BEN, GUEST, Key("few", "sk-few-0123456789", turns_per_minute=9)]
    ) as e:
        anns, guests = await turn(e, ANN), await turn(e, GUEST)
        everything = [anns, guests]

        async def seen(key: Key) -> List[str]:
            return [one["id"] for one in reversed((await ask(e, "/inspector/turns", key))["turns"])]

        assert await seen(ANN) == await seen(BEN) == everything
        assert await seen(GUEST) == [guests]
        few = e.state.config.server.auth.keys[3]
        assert await seen(few) == []
        await ask(e, "/inspector/turns/" + anns, GUEST, status=404)
        assert (await ask(e, "/inspector/turns/" + guests, GUEST))["key"] == "guest"
        summary = await ask(e, "/inspector/summary", GUEST)
        assert summary["total"]["turns"] == 1 and [one["name"] for one in summary["keys"]] == ["guest"]
        assert [one["models"] for one in summary["providers"]] == [["m"]]
        async with following(e, "?after=0", GUEST) as stream:
            await until(lambda: stream.of("turn"))
            await turn(e, ANN)
            last = await turn(e, GUEST)
            await until(lambda: any(one["id"] == last and one["number"] for one in stream.of("turn")))
            assert {one["key"] for one in stream.of("turn")} == {"guest"} and anns not in stream.text


async def test_no_other_site_gets_at_it() -> None:
    async with running_server(allowed_origins=("*",)) as e:
        for method, path in (("GET", "/inspector/turns"), ("OPTIONS", PATHS[0]), ("GET", PATHS[-1])):
            answer = await e.fetch(path, method=method, headers={"Origin": "https://evil.example"})
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer.headers["Cache-Control"] == "no-store"
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
            headers = {"Sec-Fetch-Site": site}  # all that a browser says of an image or a script
            assert (await e.fetch("/inspector/turns", headers=headers)).code == status
            assert (await e.fetch("/", headers={**headers, "Accept": "text/html"})).code == 200  # a link


async def test_it_only_reads() -> None:
    async with running_server() as e:
        for path in PATHS:
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                answer = await e.fetch(path, b"{}", method=method)
                assert answer.code == 405 and "GET" in answer.headers["Allow"], (path, method)


# ---- The page
@pytest.mark.parametrize(
    "accept, html",
    [
        (BROWSER, True), ("text/html", True), ("application/xhtml+xml", True), ("TEXT/HTML;q=0.5", True),
        ("", False), ("*/*", False), ("text/*", False), ("application/json", False), ("text/html;q=0", False),
        ("application/json, text/html;q=0.5", False), ("text/html;q=x", False), ("text/event-stream", False),
    ],
)  # fmt: skip
def test_who_asks_for_html(accept: str, html: bool) -> None:
    assert asks_for_html(accept) is html


async def test_the_page_and_its_policy() -> None:
    async with running_server() as e:
        first, second = [await e.fetch("/", headers={"Accept": BROWSER}) for _ in range(2)]
        assert first.code == 200 and first.headers["Content-Type"] == "text/html; charset=utf-8"
        rules = first.headers["Content-Security-Policy"].split(";")
        policy = dict(rule.strip().split(" ", 1) for rule in rules)
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        nonce = policy["script-src"][len("'nonce-") : -1]
        assert policy["script-src"] == policy["style-src"] == f"'nonce-{nonce}'" and len(nonce) >= 22
        text = first.body.decode()
        assert text.count(f'nonce="{nonce}"') == 2 and nonce not in second.body.decode()
        assert first.headers["X-Content-Type-Options"] == "nosniff"
        assert " on" + "click=" not in text and "innerHTML" not in text and "style=" not in text
        head = await e.fetch("/", method="HEAD", headers={"Accept": BROWSER})
        assert head.code == 200 and head.body == b""


async def test_clients_of_the_api_keep_their_404() -> None:
    async with running_server() as e:
        for method, headers in (("GET", {}), ("GET", {"Accept": "*/*"}), ("POST", {"Accept": BROWSER})):
            answer = await e.fetch("/", b"" if method == "POST" else None, method=method, headers=headers)
            assert answer.code == 404 and "Responses API server" in error_of(answer)["message"]


def test_nothing_of_it_is_loaded_before_somebody_looks() -> None:
    code = (
        "import sys, rproxy.server.app; from rproxy.telemetry.telemetry import Telemetry; "
        "Telemetry().configure('on'); print([m for m in sys.modules if 'inspector.' in m or 'contents' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_it_can_be_switched_off() -> None:
    async with running_server(inspector="off") as e:
        await turn(e)
        assert e.state.service.telemetry.recent is None
        for path in ("/", *PATHS):
            answer = await e.fetch(path, headers={"Accept": BROWSER})
            assert answer.code == 404 and "Responses API server" in error_of(answer)["message"]


@pytest.mark.parametrize(
    "text, value",
    [("on", "on"), ("off", "off"), ("true", "on"), ("no", "off"), ("content", "content"), ('"on"', "on")],
)
def test_the_key_of_the_configuration(text: str, value: str) -> None:
    yaml = f"server: {{inspector: {text}}}\nmodels: [{{model: m, provider: {{base_url: http://x}}}}]\n"
    assert parse_config(yaml.encode(), "test.yaml", {}).server.inspector == value
    assert config().server.inspector == "on"
    with pytest.raises(ConfigError, match="on, off, content"):
        parse_config(yaml.replace(text, "all").encode(), "test.yaml", {})
