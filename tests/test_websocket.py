"""The WebSocket endpoint, over real sockets: handshakes, turns, channels, errors, interrupts, the memory."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, List

import pytest
from rawserver import until
from running_server import error_of, response_id, running_server
from tornado.httpclient import HTTPClientError
from wsclient import (
    TERMINAL,
    begin,
    create,
    hear,
    hear_until,
    masked,
    open_raw,
    read_frame,
    refusal,
    say,
    turn,
    types_until,
)

from rproxy.server import local_responses
from rproxy.server.local_responses import KEPT, ChannelResponses, LocalResponses, Remembered


@pytest.mark.parametrize("path", ["/responses", "/v1/responses", "/v1/responses/"])
async def test_turns_one_after_another(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rproxy.turn")
    async with running_server() as e:
        ws = await e.ws(path)
        for number in (1, 2):
            events = await turn(ws, "count 3", stream=False, background=True)  # the connection decides that
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            assert [e["type"] for e in events].count("response.output_text.delta") == 3
            assert events[-1]["response"]["id"] == response_id(number) and "stream_id" not in events[-1]
            assert e.provider.requests[-1]["messages"][-1]["content"] == "count 3"
        logged = [record.getMessage() for record in caplog.records if record.name == "rproxy.turn"]
        assert all("transport=ws" in line for line in logged)
        assert len({re.findall("req_[0-9a-f]{32}", line)[0] for line in logged}) == 2
        assert (await turn(ws, generate=False))[-1]["response"]["output"] == []
        assert len(e.provider.requests) == 2  # that was a warm-up


@pytest.mark.parametrize(
    "wrong, param",
    [
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": [{"type": "message", "role": "nobody", "content": "x"}]}, "input"),
        ({"text": {"format": {"type": "nothing"}}}, "text.format.type"),
    ],
)
async def test_a_warm_up_is_checked_like_a_turn(wrong: Dict[str, Any], param: str) -> None:
    """Else what is wrong with it would be the error of the turn that continues it."""
    async with running_server() as e:
        ws = await e.ws()
        for fields in ({"generate": False}, {"prompt_cache_options": {"prewarm": True}}, {}):
            error = (await turn(ws, **{**wrong, **fields}))[-1]
            assert (error["type"], error["status"], error["error"]["param"]) == ("error", 400, param)
        for nothing in ({}, {"input": []}, {"tools": [], "input": ""}):
            last = (await turn(ws, generate=False, **nothing))[-1]
            assert last["response"]["status"] == "completed"
        assert not e.provider.requests


async def test_the_handshake_is_guarded_like_post() -> None:
    async with running_server(keys=["k"]) as e:
        foreign = {"Authorization": "Bearer k", "Origin": "https://evil.example"}
        for headers, status in (({}, 401), ({"Authorization": "Bearer x"}, 401), (foreign, 403)):
            with pytest.raises(HTTPClientError) as caught:
                await e.ws(headers=headers)
            assert caught.value.code == status
            assert caught.value.response is not None and "WWW" not in caught.value.response.headers
            error_of(caught.value.response)
        ws = await e.ws(headers={"Authorization": "Bearer k", "Origin": "http://localhost:1234"})
        made = (await turn(ws))[-1]["response"]["id"]
        seen = await e.fetch("/v1/responses/" + made, headers={"Authorization": "Bearer k"})
        assert seen.code == 200  # the same owner
    async with running_server() as e:
        with pytest.raises(HTTPClientError) as caught:
            await e.ws(headers={"Host": "rebound.example.com"})
        assert caught.value.code == 403


@pytest.mark.parametrize(
    "lines, status",
    [
        (["Upgrade: websocket", "Sec-WebSocket-Version: 13"], 400),
        (["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"], 400),
        (
            [
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Key: eA==",
                "Sec-WebSocket-Version: 8",
            ],
            400,
        ),
        (["Upgrade: h2c", "Connection: Upgrade"], 426),
    ],
)
async def test_bad_handshakes_get_json(lines: List[str], status: int) -> None:
    async with running_server() as e:
        raw = await e.raw()
        raw.send("GET /v1/responses HTTP/1.1", "Host: localhost", *lines)
        got, headers, body = await raw.answer()
        assert (
            got == status
            and set(body["error"]) == {"message", "type", "param", "code"}
            and headers["x-request-id"]
        )


@pytest.mark.parametrize(
    "message, status, says",
    [
        ("{nope", 400, "not valid JSON"),
        ("", 400, "empty"),
        ("[]", 400, "not an array"),
        ('{"type": "response.dance"}', 400, "response.dance"),
        ("{}", 400, "response.create"),
        ('{"type": "response.create", "stream_id": ""}', 400, "stream_id"),
        ('{"type": "response.create", "stream_id": 5}', 400, "stream_id"),
        ('{"type": "response.create", "stream_id": null}', 400, "stream_id"),
        ('{"type": "response.create", "stream_id": "a b"}', 400, "stream_id"),
        ('{"type": "response.create", "stream_id": "a\\n"}', 400, "stream_id"),
        (f'{{"type": "response.create", "stream_id": "{"x" * 257}"}}', 400, "stream_id"),
        ('{"type": "response.create", "model": "m", "input": "refuse"}', 429, "Slow down"),
        ('{"type": "response.create", "model": "m", "previous_response_id": "resp_none"}', 400, "resp_none"),
        (b"\x00\x01", 400, "Binary"),
    ],
)
async def test_errors_keep_the_socket(message: Any, status: int, says: str) -> None:
    async with running_server() as e:
        ws = await e.ws()
        ws.write_message(message, binary=isinstance(message, bytes))
        event = await hear(ws)
        assert says in refusal(event, status)
        if status == 429:
            assert event["headers"] == {"retry-after": "60"}
        assert (await turn(ws))[-1]["type"] == "response.completed"


async def test_codex_gets_errors_it_understands() -> None:
    async with running_server() as e:
        ws = await e.ws(headers={"originator": "codex_exec"})
        ws.write_message("{")
        refusal(await hear(ws), 400, "invalid_prompt")


@pytest.mark.parametrize("word", ["crash", "crash-late"])
async def test_an_internal_failure_ends_only_the_turn(word: str, expect_log: Callable[..., Any]) -> None:
    expect_log("failed")
    async with running_server() as e:
        ws = await e.ws()
        events = await turn(ws, word)
        last = events[-1]
        assert "secret" not in json.dumps(last)
        if word == "crash":
            refusal(last, 500)
        else:
            assert (last["type"], last["response"]["id"]) == ("response.failed", response_id(1))
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert (await turn(ws))[-1]["type"] == "response.completed"


# ---- Channels
async def test_a_channel_is_first_in_first_out() -> None:
    async with running_server() as e:
        ws = await e.ws()
        for number in range(5):
            say(ws, f"count {number}")
        events = await hear_until(ws, *TERMINAL, times=5)
        ids = [event["response"]["id"] for event in events if event["type"] in TERMINAL]
        assert ids == [response_id(n) for n in range(1, 6)] and e.provider.most == 1


async def test_channels_run_side_by_side_and_echo_their_name() -> None:
    async with running_server() as e:
        ws = await e.ws()
        begun = await begin(ws, "gate", stream_id="a.1")
        assert all(event["stream_id"] == "a.1" for event in begun)
        assert all(event["stream_id"] == "b_2" for event in await turn(ws, "count 2", stream_id="b_2"))
        assert all("stream_id" not in event for event in await turn(ws, "count 2"))
        refusal((await turn(ws, "refuse", stream_id="b_2"))[-1], 429)
        e.provider.gate.set()
        rest = await hear_until(ws, *TERMINAL)
        assert rest[-1]["type"] == "response.completed"
        assert all(event["stream_id"] == "a.1" for event in rest)
        numbers = [event["sequence_number"] for event in begun + rest]
        assert numbers == list(range(len(numbers)))


async def test_at_most_32_names_and_16_turns_at_once() -> None:
    async with running_server(max_queue=100) as e:
        ws = await e.ws()
        for number in range(32):
            say(ws, "gate", stream_id=f"channel-{number}")
        await until(lambda: e.provider.running == 16)
        say(ws, stream_id="one-more")
        error = (await hear_until(ws, "error"))[-1]
        assert (
            "(32)" in refusal(error, 400, "websocket_stream_limit_reached")
            and error["stream_id"] == "one-more"
        )
        say(ws, "gate", stream_id="channel-0")  # a known name is welcome
        e.provider.gate.set()
        events = await hear_until(ws, "response.completed", times=33)
        assert not any(event["type"] == "error" for event in events) and e.provider.most == 16


async def test_the_queue_is_bounded() -> None:
    async with running_server(max_queue=3) as e:
        ws = await e.ws()
        await begin(ws, "gate")
        for _ in range(4):
            say(ws)
        assert "max_queue" in refusal(await hear(ws), 429, "rate_limit_exceeded")
        e.provider.gate.set()
        assert not any(e["type"] == "error" for e in await hear_until(ws, "response.completed", times=4))


async def test_32_channels_in_one_burst_are_16_that_run_and_16_that_wait() -> None:
    async with running_server() as e:
        raw = await open_raw(e)
        raw.writer.write(b"".join(masked(create("hello", stream_id=f"channel-{n}")) for n in range(32)))
        types = await types_until(raw, 32)
        assert types.count("response.completed") == 32 and e.provider.most <= 16


async def test_a_burst_beyond_the_free_slots_counts_as_waiting() -> None:
    """Of 32 channels 16 start at once, so that with room for 10 only 6 are refused."""
    async with running_server(max_queue=10) as e:
        raw = await open_raw(e)
        raw.writer.write(b"".join(masked(create("gate", stream_id=f"channel-{n}")) for n in range(32)))
        refused: List[Any] = []
        while len(refused) < 6:  # those that run begin in between
            event = json.loads((await read_frame(raw))[1])
            refused += [event] if event["type"] == "error" else []
        assert [event["stream_id"] for event in refused] == [f"channel-{n}" for n in range(26, 32)]
        await until(lambda: e.provider.running == 16)
        e.provider.gate.set()
        assert (await types_until(raw, 26)).count("response.completed") == 26 and e.provider.most == 16


async def test_a_burst_in_one_channel() -> None:
    async with running_server(max_queue=16) as e:
        raw = await open_raw(e)
        raw.writer.write(masked(create("hello")) * 18)
        types = await types_until(raw, 18)
        assert types.count("response.completed") == 17 and types.count("error") == 1


# ---- Interrupt, cancel, steer
@pytest.mark.parametrize(
    "message",
    [
        {"type": "response.interrupt", "response_id": response_id(1), "mode": "discard_partial_items"},
        {"type": "response.cancel", "response_id": response_id(1)},
        {"type": "response.cancel"},
    ],
)
async def test_interrupt(message: Dict[str, Any]) -> None:
    async with running_server() as e:
        ws = await e.ws()
        await begin(ws, "gate")
        ws.write_message(json.dumps({"type": "response.interrupt", "response_id": "resp_of_yesterday"}))
        ws.write_message(json.dumps({"type": "response.cancel", "stream_id": "another"}))
        ws.write_message(json.dumps({"type": "response.steer"}))
        assert (await hear(ws))["type"] == "response.steer.failed"  # so the others were read, too
        assert e.provider.running == 1
        ws.write_message(json.dumps(message))
        end = (await hear_until(ws, *TERMINAL))[-1]
        assert end["response"]["incomplete_details"] == {"reason": "interrupted"}
        ws.write_message(json.dumps(message))  # too late, and harmless
        assert (await turn(ws))[-1]["type"] == "response.completed"


async def test_steering_is_declined() -> None:
    async with running_server() as e:
        ws = await e.ws()
        ws.write_message(
            json.dumps(
                {"type": "response.steer", "previous_response_id": "resp_1", "input": [], "stream_id": "s"}
            )
        )
        event = await hear(ws)
        assert event["type"] == "response.steer.failed" and event["error"]["code"] == "steering_not_supported"
        assert event["steer"] == {"previous_response_id": "resp_1", "input": []} and event["stream_id"] == "s"


# ---- What the connection remembers
async def test_the_connection_remembers_and_forgets_with_it() -> None:
    async with running_server() as e:
        ws = await e.ws()
        first = (await turn(ws, store=False))[-1]["response"]["id"]
        for fields in ({}, {"stream_id": "fork"}):
            again = await turn(ws, previous_response_id=first, store=False, **fields)
            assert again[-1]["type"] == "response.completed"
            assert len(e.provider.requests[-1]["messages"]) == 3
        other = await e.ws()
        refusal((await turn(other, previous_response_id=first))[-1], 400, "previous_response_not_found")


def test_local_responses_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_responses, "KEPT_BYTES", 100)
    local, found = LocalResponses(Remembered()), []
    for number, size in enumerate((40, 40, 40, 101, 10)):
        channel = ChannelResponses(local, f"channel-{number}")
        channel.begin(None, None, size)
        channel[f"r{number}"] = number
        found.append([*local.records])
    assert found == [["r0"], ["r0", "r1"], ["r1", "r2"], ["r3"], ["r4"]]


def test_local_responses_are_bounded() -> None:
    local = LocalResponses(Remembered())
    main, fork = ChannelResponses(local, None), ChannelResponses(local, "fork")
    for number in range(5):
        main[f"m{number}"] = number
    fork["f"] = "fork"
    assert dict(main) == dict(fork) == {"m3": 3, "m4": 4, "f": "fork"} and len(main) == 3
    main["m3"] = "again"
    assert list(main) == ["m4", "f", "m3"]
    assert fork.pop("m3", None) == "again" and "m3" in main  # another channel's record stays
    assert main.pop("m3", None) == "again" and "m3" not in main
    assert main.pop("m3", None) is None
    for number in range(40):
        channel = ChannelResponses(local, f"channel-{number}")
        channel[f"a{number}"] = channel[f"b{number}"] = number
    assert len(local.records) == KEPT and "m4" not in main and "b39" in main
