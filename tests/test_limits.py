"""Limits of what clients may keep in memory and may run at the same time: sealed and waiting bytes, turns,
names.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from typing import Any, Dict, List, Tuple

import pytest
from rawserver import until
from running_server import Raw, RunningServer, error_of, running_server
from wsclient import begin, create, hear, masked, open_raw, read_frame, refusal, say, turn

from rproxy.config.schema import Key
from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import Conversion
from rproxy.convert.sealed import AT_ONCE, MAX_SEALED, Room, seal
from rproxy.convert.tools.table import ToolTable
from rproxy.errors import ApiError
from rproxy.server import local_responses
from rproxy.server.pending import FULL_BUDGETS, ByteBudget
from rproxy.service.owner_cache import memory_of
from rproxy.service.plan import converted
from rproxy.telemetry.telemetry import MAX_LINES

Json = Dict[str, Any]
MIB = 1 << 20
LIMIT = "max_pending_bytes"


# ---- What is sealed
def summaries(count: int) -> List[Json]:
    """So many MiB in a few kilobytes."""
    item = {"type": "compaction", "encrypted_content": seal("compaction", {"text": "w" * MIB})}
    return [item] * count


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/compact", "/v1/responses/input_tokens"])
async def test_what_is_sealed_in_a_request_is_bounded(path: str) -> None:
    hello = {"role": "user", "content": "hello"}
    async with running_server(accept_unsealed=True) as e:
        body = {"model": "m", "input": [*summaries(20), hello]}
        response = await e.fetch(path, body)
        assert (response.code, error_of(response)["code"]) == (400, "invalid_encrypted_content")
        assert "more than 16777216 bytes" in error_of(response)["message"] and not e.provider.requests
        assert (await e.fetch(path, {"model": "m", "input": [*summaries(15), hello]})).code == 200


async def test_what_is_sealed_is_bounded_over_a_whole_chain() -> None:
    async with running_server(accept_unsealed=True) as e:
        first = await e.fetch("/v1/responses", {"model": "m", "input": [*summaries(10)]})
        more = {"previous_response_id": json.loads(first.body)["id"]}
        response = await e.fetch("/v1/responses", {"model": "m", "input": [*summaries(10)], **more})
        assert (response.code, error_of(response)["code"]) == (400, "invalid_encrypted_content")
        ws = await e.ws()
        ws.write_message(json.dumps({"type": "response.create", "model": "m", "input": summaries(20)}))
        refusal(await hear(ws), 400, "invalid_encrypted_content")


async def test_much_that_is_sealed_is_opened_in_a_thread() -> None:
    """However short the request is."""
    asked: List[Any] = []

    def convert(room: Room) -> Conversion:
        asked.append((threading.get_ident() == here, room.left))
        room.take(AT_ONCE + large)
        return Conversion({"messages": []}, ToolTable(), Profile())

    here = threading.get_ident()
    for large in (0, 1):
        _, short = await converted(True, convert)
        assert short is not bool(large)
    assert asked == [(True, AT_ONCE), (True, AT_ONCE), (False, MAX_SEALED)]


# ---- Messages that are refused
MANY = 2000


def refusals(e: RunningServer) -> int:
    """How many requests and messages were refused so far."""
    text = e.state.service.telemetry.metrics.text([])
    return sum(map(int, re.findall(r'rproxy_refusals_total\{status="\d+"\} (\d+)', text)))


async def flooded(e: RunningServer, data: bytes, times: int = MANY) -> Tuple[Raw, List[int]]:
    """Send the same message many times at once.

    :returns: the connection, and how many messages were refused during each request of another client
    """
    raw, during = await open_raw(e), []
    await e.fetch("/health")
    raw.writer.write(masked(data) * times)
    await until(lambda: refusals(e) > 0)
    while refusals(e) < times and len(during) < 20:
        before = refusals(e)
        assert (await e.fetch("/health")).code == 200
        during.append(refusals(e) - before)
    return raw, during


@pytest.mark.parametrize(
    "message", [b"{}", b"[", create("hello", model="unknown"), create("hello", generate=False, model=5)]
)
async def test_between_refused_messages_others_have_their_turn(message: bytes) -> None:
    async with running_server(max_queue=64) as e:
        raw, during = await flooded(e, message)
        assert len(during) == 20 and sorted(during)[-2] < 40, during
        raw.cut()
        await until(lambda: not e.state.sessions)
        ended = refusals(e)
        for _ in range(5):
            await e.fetch("/health")
        assert ended == refusals(e) < MANY  # what has arrived is not even looked at


@pytest.mark.parametrize("message", [b'{"type":"response.interrupt"}', b'{"type":"response.steer"}'])
async def test_between_messages_that_begin_no_turn_others_have_theirs(message: bytes) -> None:
    async with running_server() as e:
        raw, served = await open_raw(e), 0
        raw.writer.write(masked(message) * MANY + masked(b"{}"))
        while not refusals(e) and served < 20:
            assert (await e.fetch("/health")).code == 200
            served += 1
        assert served == 20


async def test_a_flood_of_refusals_has_few_lines_and_their_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rproxy")
    async with running_server() as e:
        raw, most = await open_raw(e), 0
        raw.writer.write(masked(b"{}") * MANY)
        for _ in range(MANY):
            assert json.loads((await read_frame(raw))[1])["type"] == "error"
            most = max(most, len(e.state.reports))
        assert most <= MAX_LINES
        await until(lambda: not e.state.reports)
        await e.state.service.telemetry.close()  # which tells of the last ones
    lines = [record.getMessage() for record in caplog.records if record.name == "rproxy.refusal"]
    told = [int(line.split(" more requests")[0]) for line in lines if " more requests" in line]
    assert sum(told) > MANY / 2 and len(lines) - len(told) + sum(told) == MANY == refusals(e)


# ---- Bytes that wait
def warm(ws: Any, size: int, **fields: Any) -> Any:
    return turn(ws, "w" * size, generate=False, **fields)


async def test_warm_ups_are_bounded_in_bytes() -> None:
    async with running_server(max_pending_bytes=4 * MIB) as e:
        ws = await e.ws()
        ends = [(await warm(ws, MIB, stream_id=f"c{n}", store=False))[-1] for n in range(6)]
        assert [end["type"] for end in ends] == ["response.completed"] * 3 + ["error"] * 3
        assert LIMIT in refusal(ends[-1], 429, "rate_limit_exceeded") and ends[-1]["headers"] == {
            "retry-after": "1"
        }
        assert e.state.pending.used <= 4 * MIB
        # the connection stays: turns go on, also those that continue a warm-up
        again = await turn(ws, stream_id="c0", previous_response_id=ends[0]["response"]["id"], store=False)
        assert again[-1]["type"] == "response.completed"
        assert len(e.provider.requests[-1]["messages"][0]["content"]) == MIB
        assert (await turn(ws, "hello " + "x" * 6 * MIB))[-1]["type"] == "response.completed"
        # what a channel forgets does not count any more
        for _ in range(2):
            assert (await turn(ws, stream_id="c0"))[-1]["type"] == "response.completed"
        assert (await warm(ws, MIB, stream_id="c0"))[-1]["type"] == "response.completed"
        ws.close()
        await until(lambda: e.state.pending.used == 0)


async def test_a_warm_up_that_fails_does_not_count() -> None:
    async with running_server(max_pending_bytes=4 * MIB) as e:
        ws = await e.ws()
        for _ in range(6):
            refusal((await warm(ws, MIB, model="unknown"))[-1], 404)
        assert e.state.pending.used == 0


async def test_a_chain_of_warm_ups_counts_as_a_whole() -> None:
    """The last one holds the input of all."""
    async with running_server(max_pending_bytes=4 * MIB) as e:
        ws, fields, kinds = await e.ws(), {}, []  # type: ignore[var-annotated]
        for _ in range(5):
            end = (await warm(ws, MIB, store=False, **fields))[-1]
            kinds.append(end["type"])
            if end["type"] != "error":
                fields = {"previous_response_id": end["response"]["id"]}
        assert kinds == ["response.completed"] * 3 + ["error"] * 2


async def test_turns_that_wait_are_bounded_in_bytes() -> None:
    async with running_server(max_pending_bytes=4 * MIB) as e:
        ws = await e.ws()
        await begin(ws, "gate " + "x" * 6 * MIB)  # starts at once, and does not count
        assert e.state.pending.used == 0
        for _ in range(5):
            say(ws, "hello " + "x" * MIB)
        for _ in range(2):
            assert LIMIT in refusal(await hear(ws), 429, "rate_limit_exceeded")
        assert 3 * MIB < e.state.pending.used <= 4 * MIB
        e.provider.gate.set()
        done = 0
        while done < 4:
            done += (await hear(ws))["type"] == "response.completed"
        assert e.state.pending.used == 0
        assert (await turn(ws))[-1]["type"] == "response.completed"


async def test_connections_share_four_times_as_much() -> None:
    async with running_server(max_pending_bytes=2 * MIB) as e:
        sockets = [await e.ws() for _ in range(7)]
        kinds = [(await warm(ws, 3 * MIB // 2, store=False))[-1]["type"] for ws in sockets]
        assert kinds == ["response.completed"] * 5 + ["error"] * 2
        sockets[0].close()
        await until(lambda: e.state.pending.used < 7 * MIB)
        assert (await warm(sockets[6], 3 * MIB // 2))[-1]["type"] == "response.completed"


async def test_a_connection_that_leaves_gives_all_back() -> None:
    async with running_server(max_pending_bytes=4 * MIB) as e:
        ws = await e.ws()
        await begin(ws, "begin")
        for _ in range(3):
            say(ws, "hello " + "x" * MIB)
        await warm(ws, 1000, stream_id="other")
        await until(lambda: e.state.pending.used > 3 * MIB)
        ws.close()
        await until(lambda: e.state.pending.used == 0)


def test_a_budget_gives_back_once() -> None:
    parent = ByteBudget(10)
    budget = ByteBudget(8, parent)
    charge = budget.take(6)
    with pytest.raises(ApiError):
        budget.take(3)
    with pytest.raises(ApiError):
        ByteBudget(8, parent).take(5)
    charge.release()
    charge.release()
    assert budget.used == parent.used == 0 and FULL_BUDGETS == 4
    kept = budget.take(8)
    budget.close()
    kept.release()
    assert parent.used == 0


# ---- Turns at the same time
BODY: Json = {"model": "m", "input": "gate"}
CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "gate"}]}
FORMS = {
    "json": ("/responses", BODY),
    "sse": ("/responses", {**BODY, "stream": True}),
    "background": ("/responses", {**BODY, "background": True}),
    "chat": ("/chat/completions", {**CHAT, "stream": True}),
}


def post(e: RunningServer, form: str, key: str = "") -> asyncio.Future[Any]:
    path, body = FORMS[form]
    return asyncio.ensure_future(
        e.fetch(path, body, headers={"Authorization": "Bearer " + key} if key else {})
    )


async def refused(e: RunningServer, form: str, name: str, key: str = "") -> None:
    answer = await post(e, form, key)
    error = error_of(answer)
    assert answer.code == 429 and error["code"] == "rate_limit_exceeded" and name in error["message"]
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("form", FORMS)
async def test_turns_are_bounded_in_every_form(form: str) -> None:
    async with running_server(max_turns=2) as e:
        ws = await e.ws()
        running = [post(e, form), post(e, "json")]
        await until(lambda: e.provider.running == 2)
        for other in FORMS:
            await refused(e, other, "server.max_turns")
        assert "max_turns" in refusal((await turn(ws))[-1], 429, "rate_limit_exceeded")
        assert (await warm(ws, 10))[-1]["type"] == "response.completed"  # asks nobody
        e.provider.gate.set()
        assert [(await answer).code for answer in running] == [200, 200]
        await until(lambda: e.provider.running == 0)
        for _ in range(3):
            assert (await turn(ws))[-1]["type"] == "response.completed"
        assert len(e.provider.requests) == 5


async def test_turns_over_websocket_count() -> None:
    async with running_server(max_turns=1) as e:
        ws = await e.ws()
        await begin(ws, "begin")
        await refused(e, "json", "server.max_turns")
        ws.close()
        await until(lambda: e.provider.running == 0)
        e.provider.gate.set()
        assert (await post(e, "json")).code == 200


async def test_turns_of_one_key_are_bounded() -> None:
    keys = [Key(name=name, value=f"{name}-0123456789abcdef") for name in ("one", "two")]
    async with running_server(max_turns_per_key=1, max_turns=3, keys=keys) as e:
        one, two = (key.value for key in keys)
        running = [post(e, "sse", one)]
        await until(lambda: e.provider.running == 1)
        await refused(e, "json", "server.max_turns_per_key", one)
        running.append(post(e, "background", two))
        await until(lambda: e.provider.running == 2)
        await refused(e, "chat", "server.max_turns_per_key", two)
        e.provider.gate.set()
        assert [(await answer).code for answer in running] == [200, 200]
        await until(lambda: e.provider.running == 0)
        assert (await post(e, "json", one)).code == (await post(e, "json", two)).code == 200


async def test_codex_is_told_in_the_stream() -> None:
    async with running_server(max_turns=1) as e:
        ws = await e.ws(headers={"originator": "codex_cli_rs"})
        running = post(e, "json")
        await until(lambda: e.provider.running == 1)
        end = (await turn(ws))[-1]
        assert end["type"] == "response.failed" and end["response"]["error"]["code"] == "rate_limit_exceeded"
        assert "try again in" in end["response"]["error"]["message"]
        e.provider.gate.set()
        assert (await running).code == 200


async def test_requests_that_share_a_turn_count_once() -> None:
    async with running_server(max_turns=1) as e:
        headers = {"Idempotency-Key": "k"}
        both = [asyncio.ensure_future(e.fetch("/responses", BODY, headers=headers)) for _ in range(2)]
        await until(lambda: e.provider.running == 1 and len(e.state.turns) == 2)
        e.provider.gate.set()
        assert [(await answer).code for answer in both] == [200, 200]


# ---- Names
@pytest.mark.parametrize(
    "path", ["/responses", "/chat/completions", "/responses/input_tokens", "/responses/compact"]
)
async def test_names_of_models_have_a_limit(path: str) -> None:
    async with running_server() as e:
        for size, status in ((256, 404), (257, 400), (1_000_000, 400)):
            answer = await e.fetch(path, {"model": "x" * size, "input": "hi", "messages": []})
            error = error_of(answer)
            assert answer.code == status and error["param"] == "model" and len(error["message"]) < 600
            if status == 400:
                assert "256" in error["message"]


async def test_there_is_no_limit_on_turns_by_default() -> None:
    async with running_server() as e:
        running: List[Any] = [post(e, "json") for _ in range(40)]
        await until(lambda: e.provider.running == 40)
        e.provider.gate.set()
        assert {(await answer).code for answer in running} == {200}
        assert json.loads((await running[0]).body)["status"] == "completed"


# ---- What messages hold, not what was sent
EMPTY_ITEMS = [{}] * 17_000  # 51 KB, which count for 3 MB of memory


async def test_what_waits_counts_with_the_memory_that_it_takes() -> None:
    async with running_server(max_pending_bytes=8 * MIB) as e:
        ws = await e.ws()
        await begin(ws, "gate", stream_id="running")
        for number in range(4):
            say(ws, stream_id="running", metadata={"n": str(number)}, tools=EMPTY_ITEMS)
        for _ in range(2):
            assert LIMIT in refusal(await hear(ws), 429, "rate_limit_exceeded")
        assert 6 * MIB < e.state.pending.used <= 8 * MIB
        e.provider.gate.set()
        await until(lambda: e.state.pending.used == 0)


def test_the_memory_of_a_value_is_not_underestimated() -> None:
    """Not even when it is made of what takes much."""
    texts: List[str] = [
        json.dumps({"a": [value] * 1000}) for value in ({}, [], {"b": 500}, [[1.5]], "xy", 1.5)
    ]
    for value in map(json.loads, [*texts, json.dumps({str(n): {"n": n} for n in range(1000)})]):
        found, size = [value], 0
        for inner in found:
            size += sys.getsizeof(inner)
            found += inner.values() if type(inner) is dict else inner if type(inner) is list else ()
        assert 0.9 * size < memory_of(value) < 5 * size


# ---- What connections remember
async def test_connections_remember_so_much_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that remembers most forgets its oldest response; answers and histories count."""
    monkeypatch.setattr(local_responses, "KEPT_BYTES_IN_ALL", 4 * MIB)
    async with running_server() as e:
        small, large = await e.ws(), await e.ws()
        kept = (await turn(small, "x" * MIB, store=False))[-1]["response"]["id"]
        names = [(await turn(large, "y" * MIB, store=False))[-1]["response"]["id"]]
        names += [(await turn(large, previous_response_id=names[0], store=False))[-1]["response"]["id"]]
        await until(lambda: 3 * MIB < e.state.remembered.size < 4 * MIB)  # a history counts
        names += [(await turn(large, "y" * MIB, store=False, stream_id="c"))[-1]["response"]["id"]]
        await until(lambda: 3 * MIB < e.state.remembered.size < 4 * MIB)
        left = {name for connection in e.state.remembered.connections for name in connection.records}
        assert left == {kept, *names[1:]}
        gone = await turn(large, previous_response_id=names[0], store=False)
        refusal(gone[-1], 400, "previous_response_not_found")
        assert (await turn(small, previous_response_id=kept, store=False))[-1]["type"] == "response.completed"
        for ws in (small, large):
            ws.close()
        await until(lambda: not e.state.remembered.connections)
        assert e.state.remembered.size == 0


async def test_what_a_response_adds_counts_once() -> None:
    async with running_server() as e:
        ws, fields = await e.ws(), {}  # type: ignore[var-annotated]
        for word in ("x" * MIB, "hello", "hello"):
            end = (await turn(ws, word, store=False, **fields))[-1]
            fields = {"previous_response_id": end["response"]["id"]}
        (connection,) = e.state.remembered.connections

        def sizes() -> List[int]:
            return [kept.size for kept in connection.records.values()]

        # a question and an answer take a kilobyte as objects, though the message had a hundred bytes
        await until(lambda: sizes()[1] - sizes()[0] > 1000)
        assert MIB < sizes()[0] < sizes()[1] < MIB + 20_000
        assert sum(sizes()) == connection.size == e.state.remembered.size
