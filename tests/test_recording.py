"""Recordings: ``rproxy serve --record`` as a process, the files that it writes, and ``rproxy replay``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Iterator, List, Sequence, Tuple

import pytest
from api import Api
from forkserver import rproxy_command
from grammar import check_stream
from inputs import some
from mcp_double import mcp_double
from rawserver import until
from running_server import running_server
from scripted import (
    CONFIG,
    CUT,
    KEY,
    ROOT,
    ScriptedProvider,
    call,
    error,
    finish,
    free_port,
    gate,
    say,
    think,
)
from search_services import search_services
from tornado.websocket import websocket_connect
from wsclient import turn

from rproxy.errors import RproxyError
from rproxy.service.player import comparable, play
from rproxy.telemetry.recording import Recording
from rproxy.telemetry.recording_file import NoRecording, read_recording
from rproxy.telemetry.records import TurnRecord

Json = Dict[str, Any]
CLIENT_KEY = "a client's own key 0123456789"
FAKE = "sk-in-the-prompt-0123456789"
TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]


@contextlib.asynccontextmanager
async def recorded(
    tmp_path: Path, *options: str, server: str = "", more: str = ""
) -> AsyncIterator[Tuple[ScriptedProvider, Api, Path]]:
    """A provider, ``rproxy serve --record`` in front of it, a client, and the folder."""
    provider, port, folder = ScriptedProvider(), free_port(), tmp_path / "recordings"
    config, log = tmp_path / "config.yaml", tmp_path / "log"
    config.write_text((CONFIG + more).format(port=port, base_url=provider.base_url, server=server))
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *rproxy_command("serve", "--config", str(config), "--record", str(folder), *options),
            cwd=str(ROOT),
            env={**os.environ, "SCRIPTED_KEY": KEY},
            stdout=stderr,
            stderr=stderr,
        )
    try:
        await until(lambda: b"rproxy 0" in log.read_bytes(), 20)
        yield provider, Api(f"http://127.0.0.1:{port}/v1", CLIENT_KEY), folder
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await provider.close()


def parts(path: Path) -> List[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kinds(path: Path, kind: str) -> List[Json]:
    return [part for part in parts(path) if part["kind"] == kind]


def rproxy(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(rproxy_command(*argv), cwd=str(ROOT), capture_output=True, text=True, timeout=60)


async def replay(*argv: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.get_running_loop().run_in_executor(None, rproxy, "replay", *argv)


async def files(folder: Path, count: int) -> Sequence[Path]:
    """The recordings by time; each is there when its client has its answer, except after an abort."""
    await until(lambda: len(os.listdir(folder)) >= count, 10)
    names = sorted(os.listdir(folder))
    assert len(names) == count
    return [folder / name for name in names]


# ---- What is written


async def test_a_turn_is_one_file_with_everything_but_keys(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (provider, api, folder):
        provider.turns.append([think("Hm."), say("Grüße! 4"), call("look", "call_1")])
        body = {"model": "gpt-5.5", "input": f"2+2? {FAKE}", "stream": True, "tools": TOOLS}
        events = await api.events("POST", "/responses", body)
        (path,) = await files(folder, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    text = path.read_text(encoding="utf-8")
    assert KEY not in text and CLIENT_KEY not in text and FAKE not in text and "2+2? sk-***" in text
    first, *_, last = parts(path)
    assert first["kind"] == "recording" and first["version"] == 1 and first["turn"]["model"] == "gpt-5.5"
    assert last["kind"] == "turn_end" and last["status"] == "completed" and last["error"] is None
    (request,) = kinds(path, "request")
    assert (
        request["body"] == {**body, "input": "2+2? sk-***"} and request["headers"]["authorization"] == "***"
    )
    (attempt,) = kinds(path, "attempt")
    assert attempt["body"]["messages"][-1]["content"] == "2+2? sk-***"
    assert attempt["headers"]["authorization"] == "***" and attempt["url"].endswith("/chat/completions")
    data = kinds(path, "data")
    assert "".join(part["text"] for part in data).endswith("data: [DONE]\n\n")
    assert [part["at"] for part in parts(path)] == sorted(part["at"] for part in parts(path))
    written = [event for part in kinds(path, "events") for event in part["events"]]
    assert written == events  # which has no key in it
    assert kinds(path, "head")[0]["status"] == 200 and kinds(path, "end")[0]["how"] == "complete"


async def test_only_errors(tmp_path: Path) -> None:
    async with recorded(tmp_path, "--record-errors-only", server="  retries: 0\n") as (provider, api, folder):
        provider.turns += [[say("fine")], [error(400, f"no, {KEY}")], [say("also")]]
        for status in (200, 400, 200):
            await api("POST", "/responses", {"model": "gpt-5.5", "input": "x"}, expect=status)
        (path,) = await files(folder, 1)
    (end,) = kinds(path, "turn_end")
    assert end["status"] == "failed" and end["error"]["status"] == 400 and KEY not in path.read_text()
    assert kinds(path, "head")[0]["status"] == 400
    done = await replay(str(path), "--diff")
    assert done.returncode == 0, done.stdout


# ---- What is played


async def test_every_kind_of_turn_plays_to_the_same_events(tmp_path: Path) -> None:
    """JSON, SSE, WebSocket, background, a continued conversation, an answer that breaks off, a filter,
    a retry, a compaction, a client that leaves.
    """
    server = "  retries: 1\n  heartbeat_interval: 0.2\n"
    async with recorded(tmp_path, server=server) as (provider, api, folder):
        ask: Json = {"model": "gpt-5.5", "tools": TOOLS, "input": "x"}
        provider.turns.append([think("Hm."), say("one"), call("look", "call_1"), call("look", "call_2", 1)])
        first = await api("POST", "/responses", {**ask, "include": ["reasoning.encrypted_content"]})
        outputs = [
            {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
            for item in first["output"]
            if item["type"] == "function_call"
        ]
        beats = asyncio.Event()
        provider.turns.append([think("Long."), gate(beats), say("two " * 40)])
        more = {"previous_response_id": first["id"], "input": outputs, "stream": True}
        await api.listen("/responses", {**ask, **more}, beats.set)
        for steps in ([say("three"), CUT], [finish("content_filter"), say("cut")]):
            provider.turns.append(steps)
            await api.events("POST", "/responses", {**ask, "stream": True})
        provider.turns += [[error(500, "oh")], [say("after a retry")]]
        await api.events("POST", "/responses", {**ask, "stream": True})
        provider.turns.append([think("Hm."), say("summary")])
        await api("POST", "/responses/compact", ask)
        provider.turns.append([say("behind the scenes")])
        running = await api("POST", "/responses", {**ask, "background": True})
        await api.until(running["id"], "completed")
        provider.turns.append([say("on a socket")])
        ws = await websocket_connect(api.base_url.replace("http", "ws") + "/responses")
        await turn(ws, "x", model="gpt-5.5", tools=TOOLS, stream_id="a")
        ws.close()
        provider.turns.append([say("begun"), gate()])
        reader, writer = await api.post_and_keep("/responses", {**ask, "stream": True})
        await reader.readuntil(b"begun")
        writer.transport.abort()
        found = await files(folder, 9)
    for path in found:
        done = await replay(str(path), "--diff")
        assert done.returncode == 0, (path.read_text()[:300], done.stdout[:3000], done.stderr)
    statuses = [kinds(path, "turn_end")[0]["status"] for path in found]
    assert statuses.count("completed") == 6 and {"incomplete", "failed", "cancelled"} <= set(statuses)
    assert sorted(len(kinds(path, "attempt")) for path in found) == [1] * 8 + [2]
    heartbeats = kinds(found[1], "events")
    assert sum(event["type"] == "response.in_progress" for part in heartbeats for event in part["events"]) > 2


async def test_another_answer_is_a_difference(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (provider, api, folder):
        provider.turns.append([say("four")])
        events = await api.events("POST", "/responses", {"model": "gpt-5.5", "input": "x", "stream": True})
        (path,) = await files(folder, 1)
    done = await replay(str(path))
    assert done.returncode == 0 and [json.loads(line) for line in done.stdout.splitlines()] == events
    done = await replay(str(path), "--sse")
    assert done.stdout.startswith("event: response.created\ndata: {") and done.stdout.endswith(
        "data: [DONE]\n\n"
    )
    text = path.read_text()
    other = tmp_path / "other.jsonl"
    other.write_text(
        "\n".join(
            line.replace("four", "five") if '"kind": "data"' in line else line for line in text.splitlines()
        )
    )
    done = await replay(str(other), "--diff")
    assert (
        done.returncode == 1
        and "-response.output_text.delta" in done.stdout
        and "+response.output_text.delta" in done.stdout
    )


async def test_a_recording_that_breaks_off(tmp_path: Path) -> None:
    """As the inspector gives it while the turn runs: what is there is the same."""
    async with recorded(tmp_path) as (provider, api, folder):
        provider.turns.append([think("Hm."), say("one two three four")])
        await api.events("POST", "/responses", {"model": "gpt-5.5", "input": "x", "stream": True})
        (path,) = await files(folder, 1)
    whole = path.read_text().splitlines(keepends=True)
    for length in (len(whole) // 2, len(whole) // 2 + 1, len(whole) - 2):
        path.write_text("".join(whole[:length]))
        done = await replay(str(path), "--diff")
        assert done.returncode == 0 and "breaks off" in done.stderr, done.stdout


async def test_the_recording_as_a_provider(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (provider, api, folder):
        provider.turns += [[error(503, "busy", {"Retry-After": "0"})], [say("from the tape")]]
        await api("POST", "/responses", {"model": "gpt-5.5", "input": "x"})
        (path,) = await files(folder, 1)
        process = await asyncio.create_subprocess_exec(
            *rproxy_command("replay", str(path), "--serve"), cwd=str(ROOT), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
            tape = Api(url)
            assert (await tape("GET", "/models"))["data"][0]["id"] == "deepseek-v4-pro"
            refused = await tape("POST", "/chat/completions", {}, expect=503)
            assert refused["message"] == "busy"
            answer = await tape("POST", "/chat/completions", {})
            assert answer["choices"][0]["message"]["content"] == "from the tape"
        finally:
            process.kill()
            await asyncio.wait_for(process.communicate(), 20)  # until its output is closed, too


def test_what_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for text in ("", "{}", "not JSON", "[" * 100_000, '{"kind": "recording", "version": 99, "rproxy": "9"}'):
        path.write_text(text)
        done = rproxy("replay", str(path))
        assert done.returncode == 2 and done.stderr.startswith("rproxy: ") and "Traceback" not in done.stderr
    assert rproxy("replay", str(tmp_path / "none")).returncode == 2
    assert rproxy("replay").returncode == 2
    assert rproxy("serve", "--demo", "--record-errors-only").returncode == 2
    assert rproxy("serve", "--demo", "--record", str(path)).returncode == 78  # it is a file


def edits(value: Json) -> Iterator[Json]:
    """The object with one key less, or with another value."""
    for key, inner in value.items():
        yield {name: other for name, other in value.items() if name != key}
        for odd in (None, 1, "x", [], {}, [1]):
            yield {**value, key: odd}
        if key in ("turn", "settings", "body"):
            for edited in edits(inner):
                yield {**value, key: edited}


async def test_an_edited_recording_plays_or_is_refused(expect_log: Any) -> None:
    expect_log("", required=False)
    async with running_server(inspector="content") as e:
        answer = await e.fetch("/v1/responses", {"model": "m", "input": "hello", "stream": True})
        made = await e.fetch(f"/inspector/turns/{answer.headers['x-request-id']}/recording")
    lines, played = made.body.splitlines(), 0
    for number, line in enumerate(lines):
        for edited in some(list(edits(json.loads(line))), 25):
            try:
                changed = [*lines[:number], json.dumps(edited).encode(), *lines[number + 1 :]]
                comparable(await play(read_recording(changed)))
                played += 1
            except RproxyError:
                pass
    assert played > 10


# ---- Values in, values out


TURN = {
    "request_id": "req_1", "transport": "sse", "codex": False, "model": "m", "route": "m",
    "downstream_model": "m", "response_id": f"resp_{0:032}", "created_at": 0, "conversation": None,
    "first": 0,
}  # fmt: skip
SETTINGS = {"reasoning": "auto", "errors": "auto", "tool_type_allowlist": None, "cached_tokens": "hit"}


def recording(*pieces: bytes, secrets: Sequence[str] = ()) -> Recording:
    made = Recording({"request_id": "req_1"}, {}, secrets)
    for piece in pieces:
        made.data(1, piece)
    return made


def data_of(made: Recording) -> List[Json]:
    return [part for part in map(json.loads, made.lines()) if part["kind"] == "data"]


def bytes_of(part: Json) -> bytes:
    return part["text"].encode() if "text" in part else base64.b64decode(part["base64"])


def test_bytes_stay_as_they_were_cut() -> None:
    data = 'data: {"x": "Grüße ☃ http://a:1","mail":"me@example.com"}\n\n'.encode()
    for i in range(1, len(data)):
        made = recording(data[:i], data[i:], b"\xff\xfe")
        found = data_of(made)
        assert "base64" in found[-1] and b"".join(map(bytes_of, found)) == data + b"\xff\xfe"


def test_a_secret_that_is_cut_in_two_is_masked() -> None:
    secret = "known-secret-0123"
    text = f"data: {secret} and sk-abcdefghijklmnop\n\n".encode()
    for i in range(1, len(text)):
        shown = "".join(part["text"] for part in data_of(recording(text[:i], text[i:], secrets=[secret])))
        assert shown == "data: *** and sk-***\n\n"


def test_a_lone_surrogate_can_be_written() -> None:
    made = recording()
    made.events([{"type": "x", "delta": "\ud800 ☃"}])  # type: ignore[list-item]
    assert "".join(made.lines()).encode("utf-8")


def test_deep_nesting_can_be_written() -> None:
    body: Json = {}
    for _ in range(5000):
        body = {"inner": body}
    made = recording()
    made.request({}, body, {})
    assert [json.loads(line)["kind"] for line in made.lines()] == ["recording", "request"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_recorder_that_fails_does_not_fail_the_turn(stream: bool, expect_log: Any) -> None:
    class Broken:
        def begin(self, recording: Recording) -> None: ...

        async def end(self, recording: Recording, record: TurnRecord) -> None:
            raise RuntimeError("a bug")

    expect_log("cannot record req_")
    async with running_server() as e:
        e.state.service.telemetry.recorders.append(Broken())
        answer = await e.fetch("/v1/responses", {"model": "m", "input": "hello", "stream": stream})
        assert answer.code == 200 and b"response.failed" not in answer.body


def test_a_later_version_is_refused() -> None:
    with pytest.raises(NoRecording, match="version 2"):
        read_recording([b'{"kind": "recording", "version": 2, "rproxy": "9.0"}'])
    first = {"kind": "recording", "version": 1, "turn": TURN, "settings": SETTINGS}
    known = read_recording([json.dumps(first).encode(), b'{"kind": "new", "at": 1}'])
    assert comparable(known) == []


# ---- Turns with hosted tools
@pytest.mark.parametrize("stream", [True, False])
async def test_a_turn_of_several_rounds_is_recorded_and_served(tmp_path: Path, stream: bool) -> None:
    async with search_services() as services:
        search = f"search: {{{{kind: searxng, url: '{services.url}'}}}}\n"
        async with recorded(tmp_path, more=search) as (provider, api, folder):
            provider.turns += [[call("web_search", query="a")], [say("Found.")]]
            body = {"model": "gpt-5.5", "input": "x", "stream": stream, "tools": [{"type": "web_search"}]}
            status, _ = await api.raw("POST", "/responses", body)
            assert status == 200
            (path,) = await files(folder, 1)
    assert len(kinds(path, "attempt")) == 2
    events = [event for part in kinds(path, "events") for event in part["events"]]
    assert check_stream(events)["output"][0]["type"] == "web_search_call"
    played = await replay(str(path), "--diff")
    assert played.returncode == 0, (played.stdout[:3000], played.stderr)
    running = path.with_name("running.jsonl")  # as the inspector gives it while the turn runs
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    second = [number for number, line in enumerate(lines) if '"kind": "attempt"' in line][1]
    running.write_text("".join(lines[: second + 3]), encoding="utf-8")
    played = await replay(str(running), "--diff")
    assert played.returncode == 0 and "breaks off" in played.stderr, (played.stdout[:3000], played.stderr)
    older = path.with_name("older.jsonl")  # from before the tools were in it
    older.write_text("".join(line for line in lines if '"kind": "hosted"' not in line), encoding="utf-8")
    played = await replay(str(older))
    assert played.returncode != 0 and "2 rounds" in played.stderr


async def test_turns_with_hosted_tools_play_to_the_same_events(tmp_path: Path) -> None:
    """Several calls a round, calls of the client beside them, one that fails, citations, lists of tools,
    approvals, too many calls, a client that leaves.
    """
    async with search_services() as services, mcp_double(gate=asyncio.Event()) as double:
        more = (
            f"search: {{{{kind: searxng, url: '{services.url}'}}}}\n"
            f"mcp_servers: {{{{docs: {{{{url: '{double.url}'}}}}}}}}\n"
            "hosted_tools: {{max_rounds: 3}}\n"
        )
        async with recorded(tmp_path, server="  retries: 1\n", more=more) as (provider, api, folder):
            search: Json = {"type": "web_search"}
            ask: Json = {"model": "gpt-5.5", "input": "x", "stream": True, "tools": [search, *TOOLS]}
            ask["include"] = ["web_search_call.action.sources", "web_search_call.results"]

            async def send(*turns: Any, **fields: Any) -> Json:
                provider.turns += turns
                events = await api.events("POST", "/responses", {**ask, **fields})
                found: Json = events[-1]["response"]
                return found

            cited = say(f"See [this]({services.url}/page/a-1) for more.")
            await send(
                [think("Hm."), call("web_search", query="a"), call("web_search", "c2", 1, query="b")], [cited]
            )
            await send([call("web_search", query="a"), call("look", "c2", 1)])
            await send([call("web_search", query="")], [cited], tool_choice="required")
            await send(*[[call("web_search", query="a")]] * 3, [cited])
            await send([error(500, "no")], [call("web_search", query="a")], [error(500, "no")], [cited, CUT])
            later = {"type": "additional_tools", "tools": [search, *TOOLS]}
            said = [later, {"role": "user", "content": "x"}]
            await send([call("web_search", query="a")], [cited], tools=[], input=said)
            mcp: Json = {"type": "mcp", "server_label": "docs", "require_approval": "always"}

            async def approved() -> Json:
                first = await send([say("one "), call("docs__echo", text="a")], tools=[mcp])
                (asked,) = [item for item in first["output"] if item["type"] == "mcp_approval_request"]
                answer = {
                    "type": "mcp_approval_response",
                    "approval_request_id": asked["id"],
                    "approve": True,
                }
                return {"tools": [mcp], "input": [answer], "previous_response_id": first["id"]}

            assert double.gate is not None
            double.gate.set()
            await send([call("docs__echo", text="b")], [cited], **await approved(), max_tool_calls=1)
            double.gate.clear()
            mine = await approved()
            provider.turns.append([say("nobody sees this")])
            reader, writer = await api.post_and_keep("/responses", {**ask, **mine})
            await reader.readuntil(b"mcp_call.in_progress")
            writer.transport.abort()
            found = await files(folder, 10)
    for path in found:
        done = await replay(str(path), "--diff")
        assert done.returncode == 0, (kinds(path, "turn_end"), done.stdout[:3000], done.stderr)
