"""Responses after their request: read, listed, replayed, deleted; and those that run in the background.

Real processes and sockets.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any, Dict, List, cast

import pytest
from api import AUTH, Api, site, valid
from grammar import check_stream, parse_sse
from rawserver import until
from scripted import CONFIG, KEY, ScriptedProvider, call, error, gate, say, think

from rproxy.config.load import parse_config
from rproxy.convert.ids import input_item_id
from rproxy.convert.request.turns import check_orphans
from rproxy.convert.request.validate import check_request
from rproxy.errors import ApiError
from rproxy.service import compact, create_request
from rproxy.service import service as service_module
from rproxy.service.client import Client
from rproxy.service.create_request import ConversationContext
from rproxy.service.history import LONG_HISTORY, History
from rproxy.service.plan import LARGE
from rproxy.service.service import Service
from rproxy.store.memory import MemoryStore
from rproxy.store.write_behind import WriteBehindStore
from rproxy.upstream.client import Upstream

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=60)

MODEL = "gpt-5.5"
HI: Json = {"model": MODEL, "input": "hi"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


def sdk() -> Any:
    pytest.importorskip("openai")
    from openai.types import responses

    return responses


# ---- stored responses
async def test_read_and_delete(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[think("Hm."), say("Hello.")]]
        made = await api("POST", "/responses", HI)
        assert (
            await api("GET", "/responses/{}?include[]=reasoning.encrypted_content".format(made["id"])) == made
        )
        valid(sdk().Response, made)
        assert await api("DELETE", "/responses/" + made["id"]) == {
            "id": made["id"],
            "object": "response",
            "deleted": True,
        }
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/input_items"),
            ("GET", "?stream=true"),
            ("POST", "/cancel"),
        ):
            refused = await api(
                method, "/responses/" + made["id"] + path, None if method != "POST" else {}, expect=404
            )
            assert made["id"] in refused["message"]
        assert (await api("POST", "/responses", {**HI, "previous_response_id": made["id"]}, 400))[
            "code"
        ] == "previous_response_not_found"


NOWHERE = ("resp_nobody", "..%2F..%2Fetc", "x" * 300, "resp_1-alive", "conv_1", "a%00b", "*", "%F0%9F%8E%AF")


async def test_ids_that_lead_nowhere(tmp_path: Path) -> None:
    async with site(tmp_path, more="store: {{kind: sqlite, path: '%s'}}\n" % (tmp_path / "r.db")) as (
        _,
        api,
        _p,
    ):
        for name in NOWHERE:
            for method in ("GET", "DELETE"):
                assert (await api(method, "/responses/" + name, expect=404))[
                    "type"
                ] == "invalid_request_error"
                assert (await api(method, "/conversations/" + name, expect=404))[
                    "type"
                ] == "invalid_request_error"
            await api("POST", "/responses", {**HI, "previous_response_id": name}, expect=400)


async def test_store_false_leaves_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[say("Hello.")]]
        made = await api("POST", "/responses", {**HI, "store": False})
        assert made["store"] is False
        await api("GET", "/responses/" + made["id"], expect=404)
        refused = await api("POST", "/responses", {**HI, "previous_response_id": made["id"]}, expect=400)
        assert refused["code"] == "previous_response_not_found"
        reference = {"type": "item_reference", "id": made["output"][0]["id"]}
        assert (
            "not found"
            in (await api("POST", "/responses", {**HI, "input": [reference]}, expect=404))["message"]
        )


class CountedItem(Dict[str, Any]):
    """Counts how often items are looked at."""

    looks = 0

    def get(self, *args: Any) -> Any:
        type(self).looks += 1
        return super().get(*args)


class CountedStore(MemoryStore):
    reads = 0

    async def _read(self, record_id: str) -> Any:
        self.reads += 1
        return await super()._read(record_id)


async def test_the_work_for_references_grows_with_them_and_the_history() -> None:
    store = CountedStore(100, 1 << 24, 3600.0, time.time)
    history = History(WriteBehindStore(store), *cast(Any, (None, None)))
    count, stem = 500, "a" * 32
    past = [CountedItem(id=f"msg_{n}", type="message", content=f"past {n}") for n in range(count)]
    given: List[Any] = [{"role": "user", "content": str(n)} for n in range(count)]
    response = {"id": f"resp_{stem}", "status": "completed", "output": []}
    record = {"owner": "o", "input": given, "response": response}
    await store.put(f"resp_{stem}", cast(Any, record))
    wanted = [f"msg_{n}" for n in range(count)][::-1] + [input_item_id("msg", stem, n) for n in range(count)]
    references: List[Any] = [{"type": "item_reference", "id": name} for name in wanted]
    found: Any = await history.resolved(references, ConversationContext(cast(Any, past)), "o")
    assert [item["content"] for item in found[:count]] == [f"past {n}" for n in range(count)][::-1]
    assert [item["content"][0]["text"] for item in found[count:]] == [str(n) for n in range(count)]
    assert CountedItem.looks <= 3 * count and store.reads == 1


@pytest.mark.parametrize("count", [1, LONG_HISTORY + 1])
async def test_a_long_history_is_compared_in_a_thread(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: List[threading.Thread] = []

    def compared(past: Any, items: Any) -> None:
        threads.append(threading.current_thread())
        check_orphans(past, items)

    monkeypatch.setattr(service_module, "check_orphans", compared)
    config = parse_config(
        CONFIG.format(port=0, base_url="http://127.0.0.1:9", server="").encode(), "c", {"SCRIPTED_KEY": KEY}
    )
    upstream, store = Upstream(), MemoryStore(10, 1 << 20, 3600.0, time.time)
    service = Service(config, upstream, store)
    body = {"model": MODEL, "input": [{"role": "user", "content": "x"}] * count}
    counted = await service.input_tokens(body, Client(None, False, "json", "req_1", {}))
    assert counted["input_tokens"] >= count
    assert [thread is threading.main_thread() for thread in threads] == [count == 1]
    await service.close()
    upstream.close()


@pytest.mark.parametrize("size", [LARGE, LARGE + 1])
async def test_a_large_request_is_checked_in_a_thread(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: List[threading.Thread] = []

    def checked(body: Any) -> None:
        threads.append(threading.current_thread())
        check_request(body)

    for module in (create_request, compact):
        monkeypatch.setattr(module, "check_request", checked)
    config = parse_config(
        CONFIG.format(port=0, base_url="http://127.0.0.1:9", server="").encode(), "c", {"SCRIPTED_KEY": KEY}
    )
    upstream, store = Upstream(), MemoryStore(10, 1 << 20, 3600.0, time.time)
    service = Service(config, upstream, store)
    client = Client(None, False, "json", "req_1", {}, size=size)
    await service.input_tokens({"model": MODEL, "input": "hello"}, client)
    with pytest.raises(ApiError, match="input must be"):
        await service.compact({"model": MODEL, "input": [1]}, client)
    assert [thread is threading.main_thread() for thread in threads] == [size == LARGE] * 2
    await service.close()
    upstream.close()


async def test_what_one_key_made_is_not_there_for_another(tmp_path: Path) -> None:
    async with site(tmp_path, server=AUTH) as (provider, api, _):
        one, two = Api(api.base_url, "key-one-0123456789"), Api(api.base_url, "key-two-0123456789")
        may_end = asyncio.Event()
        provider.turns += [[say("Hello.")], [say("one two "), gate(may_end), say("three")]]
        made = await one("POST", "/responses", HI)
        running = await one("POST", "/responses", {**HI, "background": True})
        talk = await one("POST", "/conversations", {})
        for name in (made["id"], running["id"]):
            for method, path in (
                ("GET", ""),
                ("GET", "?stream=true"),
                ("GET", "/input_items"),
                ("POST", "/cancel"),
                ("DELETE", ""),
            ):
                await two(method, f"/responses/{name}{path}", {} if method == "POST" else None, expect=404)
        await two("GET", "/conversations/" + talk["id"], expect=404)
        await two("POST", "/conversations/{}/items".format(talk["id"]), {"items": []}, expect=404)
        await two("POST", "/responses", {**HI, "conversation": talk["id"]}, expect=404)
        await two("POST", "/responses", {**HI, "previous_response_id": made["id"]}, expect=400)
        await two(
            "POST",
            "/responses",
            {**HI, "input": [{"type": "item_reference", "id": made["output"][0]["id"]}]},
            expect=404,
        )
        await Api(api.base_url, "wrong")("GET", "/responses/" + made["id"], expect=401)
        assert (await one("GET", "/responses/" + made["id"]))["id"] == made["id"]
        may_end.set()
        assert (await one.until(running["id"], "completed"))["output"][0]["content"][0][
            "text"
        ] == "one two three"


async def test_input_items_are_the_whole_past_in_pages(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[think("Call."), call("f", "c1")], [say("Done.")]]
        said = [
            {"role": "user", "content": "Do it"},
            {"role": "assistant", "content": "What?"},
            {"role": "user", "content": [{"type": "input_text", "text": "This"}]},
        ]
        first = await api("POST", "/responses", {"model": MODEL, "input": said, "tools": [TOOL]})
        second = await api(
            "POST",
            "/responses",
            {
                "model": MODEL,
                "tools": [TOOL],
                "previous_response_id": first["id"],
                "input": [{"type": "function_call_output", "call_id": "c1", "output": "ok"}],
            },
        )
        listed = await api("GET", "/responses/{}/input_items?order=asc".format(second["id"]))
        valid(sdk().ResponseItemList, listed)
        kinds = [(item["type"], item.get("role")) for item in listed["data"]]
        assert kinds == [
            ("message", "user"),
            ("message", "assistant"),
            ("message", "user"),
            ("reasoning", None),
            ("function_call", None),
            ("function_call_output", None),
        ]
        ids = [item["id"] for item in listed["data"]]
        assert len(set(ids)) == 6 and ids[3:5] == [item["id"] for item in first["output"]]
        path, pages, after = "/responses/{}/input_items?limit=4".format(second["id"]), [], ""
        for _ in range(2):
            page = await api("GET", path + after)
            pages.append([item["id"] for item in page["data"]])
            after = "&after=" + page["last_id"]
            assert (page["first_id"], page["last_id"]) == (pages[-1][0], pages[-1][-1])
        assert pages == [ids[:1:-1], ids[1::-1]] and page["has_more"] is False
        assert [i["id"] for i in (await api("GET", path + "&before=" + ids[4]))["data"]] == [ids[5]]
        for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=nobody"):
            assert (await api("GET", "/responses/{}/input_items?{}".format(second["id"], query), expect=400))[
                "param"
            ] == query.split("=")[0]
        # an item of the input can be referred to by the id that it got
        provider.turns += [[say("Yes.")]]
        await api("POST", "/responses", {"model": MODEL, "input": [{"id": ids[0]}]})
        assert provider.requests[-1]["messages"] == [{"role": "user", "content": "Do it"}]


async def test_the_events_of_a_stored_response(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [
            [think("Both."), say("I look.\n\u00fc"), call("f", "c1", 0, a="x" * 40), call("f", "c2", 1)]
        ]
        live = await api.events(
            "POST", "/responses", {**HI, "tools": [TOOL], "stream": True, "reasoning": {"summary": "auto"}}
        )
        response = check_stream(live)
        path = "/responses/{}?stream=true".format(response["id"])
        again = await api.events("GET", path)
        assert check_stream(again) == response
        for event in again:
            valid(sdk().ResponseStreamEvent, event)
        assert {e["type"] for e in again} == {e["type"] for e in live} and len(again) < len(live)
        # the numbers of the first stream were others: who comes back in the middle of it gets its end, and
        # who has the end nothing
        last = live[-1]["sequence_number"]
        assert await api.events("GET", path + "&starting_after=5") == [{**again[-1], "sequence_number": last}]
        assert await api.events("GET", path + f"&starting_after={last}") == []
        assert (await api("GET", path + "&starting_after=soon", expect=400))["param"] == "starting_after"


# ---- turns that do not come to their end
async def aborted(api: Api, provider: Any, body: Json) -> List[Json]:
    """Stream until the first text has come, then leave. :returns: the events so far"""
    reader, writer = await api.post_and_keep("/responses", {**body, "stream": True})
    heard = b""
    while b"response.output_text.delta" not in heard:
        heard += await reader.read(65536)
    writer.close()
    return [
        json.loads(line[6:])
        for line in heard.split(b"\n")
        if line.startswith(b"data: {") and line.endswith(b"}")
    ]


async def stored_as(api: Api, response_id: str, status: str) -> Json:
    while True:
        code, raw = await api.raw("GET", "/responses/" + response_id)
        if code == 200:
            found: Json = json.loads(raw)
            assert found["status"] == status
            return found
        await asyncio.sleep(0.02)


async def test_a_turn_whose_client_leaves_is_stored_as_far_as_it_came(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[think("Hm."), say("PART ONE "), gate()], [say("ok")], [say("ok")]]
        events = await aborted(api, provider, HI)
        response_id = events[0]["response"]["id"]
        found = await stored_as(api, response_id, "incomplete")
        assert [item["type"] for item in found["output"]] == ["reasoning", "message"]
        message = found["output"][1]
        assert message["status"] == "incomplete" and message["content"][0]["text"] == "PART ONE "
        valid(sdk().Response, found)
        await api("POST", "/responses", {**HI, "previous_response_id": response_id})
        assert "PART ONE" in json.dumps(provider.requests[1]["messages"])
        reference = {"type": "item_reference", "id": message["id"]}
        await api("POST", "/responses", {**HI, "input": [reference, {"role": "user", "content": "on"}]})
        assert "PART ONE" in json.dumps(provider.requests[2]["messages"])


async def test_a_turn_that_fails_in_mid_stream_is_stored_as_failed(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[say("PART ONE "), {"cut": True}]]
        events = await api.events("POST", "/responses", {**HI, "stream": True})
        assert events[-1]["type"] == "response.failed" and events[-1]["response"]["output"] == []
        found = await stored_as(api, events[-1]["response"]["id"], "failed")
        assert found["output"][0]["content"][0]["text"] == "PART ONE "
        assert "broke off" in found["error"]["message"] or "truncated" in found["error"]["message"]


async def test_an_aborted_turn_that_nobody_wants_stored_is_not(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[say("PART ONE "), gate()]]
        events = await aborted(api, provider, {**HI, "store": False})
        await until(lambda: provider.gone)
        await api("GET", "/responses/" + events[0]["response"]["id"], expect=404)


# ---- background
async def test_a_response_in_the_background(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        may_end = asyncio.Event()
        provider.turns += [[think("Slow."), say("one two "), gate(may_end), say("three")], [say("Next.")]]
        made = await api("POST", "/responses", {**HI, "background": True})
        assert (made["status"], made["background"], made["output"]) == ("queued", True, [])
        valid(sdk().Response, made)
        refused = await api("POST", "/responses", {**HI, "previous_response_id": made["id"]}, expect=400)
        assert refused["code"] == "response_not_completed"
        seen = await api.until(made["id"], "in_progress")
        valid(sdk().Response, seen)
        may_end.set()
        done = await api.until(made["id"], "completed")
        assert (
            done["output"][-1]["content"][0]["text"] == "one two three"
            and done["created_at"] == made["created_at"]
        )
        follower = await api("POST", "/responses", {**HI, "previous_response_id": made["id"]})
        assert (
            follower["output"][0]["content"][0]["text"] == "Next."
            and len(provider.requests[1]["messages"]) == 3
        )
        assert (await api("POST", "/responses/{}/cancel".format(made["id"]), {}))["status"] == "completed"
        assert (
            "background"
            in (await api("POST", "/responses/{}/cancel".format(follower["id"]), {}, expect=400))["message"]
        )


def well_formed(events: List[Json], status: str = "completed") -> Json:
    """A background stream: queued before it is in progress, numbered without gaps, one end."""
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    assert [e["type"] for e in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [e["response"]["status"] for e in events[:3]] == ["queued", "queued", "in_progress"]
    assert not any(e["type"] == "response.created" for e in events[1:])
    response: Json = events[-1]["response"]
    assert response["status"] == status
    for event in events:
        valid(sdk().ResponseStreamEvent, event)
    return response


async def test_a_background_stream_is_resumed_where_it_broke_off(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        may_end = asyncio.Event()
        provider.turns += [[say("one "), say("two "), gate(may_end), say("three")]]
        got = b""
        reader, writer = await api.post_and_keep("/responses", {**HI, "background": True, "stream": True})
        while b"two" not in got:
            got += await reader.read(65536)
        writer.transport.abort()  # the connection is lost
        first = [line for line in got.split(b"\n") if line.startswith(b"data: {")]
        response_id = got.split(b'"id":"')[1].split(b'"')[0].decode()
        path = f"/responses/{response_id}?stream=true"
        following = asyncio.ensure_future(api.events("GET", path + f"&starting_after={len(first) - 1}"))
        pieces: List[bytes] = []
        reading = asyncio.ensure_future(api.raw("GET", path, on_data=pieces.append))
        await until(lambda: b"two" in b"".join(pieces))
        may_end.set()
        rest, _ = await asyncio.gather(following, reading)
        whole = parse_sse(b"".join(pieces))
        response = well_formed(whole)
        assert rest == whole[len(first) :] and len(provider.requests) == 1 and provider.gone == 0
        assert response["output"][0]["content"][0]["text"] == "one two three"
        assert await api.events("GET", path) == whole  # also when it has ended
        assert await api("GET", "/responses/" + response_id) == response


async def test_a_client_that_leaves_at_once_leaves_nothing_queued(tmp_path: Path) -> None:
    async with site(tmp_path, process=True) as (provider, api, proxy):
        provider.turns += [[say("x")]] * 20
        for n in range(10):
            reader, writer = await api.post_and_keep("/responses", {**HI, "background": True, "stream": True})
            if n % 2:
                await reader.read(1)
            writer.transport.abort()
        await until(lambda: len(provider.requests) >= 5)

        def all_ended() -> bool:
            ended = proxy.log.read_text().count("transport=background status=completed")
            return bool(ended == len(provider.requests))

        await until(all_ended)


async def test_cancel_and_delete_end_the_turn(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[say("Once"), gate()], [say("Twice"), gate()]]
        first = await api("POST", "/responses", {**HI, "background": True})
        pieces: List[bytes] = []
        path = "/responses/{}?stream=true".format(first["id"])
        stream = asyncio.ensure_future(api.raw("GET", path, on_data=pieces.append))
        await until(lambda: b"Once" in b"".join(pieces))
        cancelled = await Api(api.base_url)("POST", "/responses/{}/cancel".format(first["id"]), {})
        valid(sdk().Response, cancelled)
        assert cancelled["status"] == "cancelled"
        await until(lambda: provider.gone == 1)
        await stream
        events = parse_sse(b"".join(pieces))
        assert well_formed(events, "cancelled") == cancelled and events[-1]["type"] == "response.incomplete"
        assert await api("GET", "/responses/" + first["id"]) == cancelled
        assert await api("POST", "/responses/{}/cancel".format(first["id"]), {}) == cancelled
        second = await api("POST", "/responses", {**HI, "background": True})
        await until(lambda: len(provider.requests) == 2)
        await api("DELETE", "/responses/" + second["id"])
        await api("GET", "/responses/" + second["id"], expect=404)
        await until(lambda: provider.gone == 2)


@pytest.mark.parametrize("step", [1, -1000])
async def test_a_background_response_keeps_the_time_of_its_request(step: int) -> None:
    provider = ScriptedProvider()
    config = parse_config(
        CONFIG.format(port=0, base_url=provider.base_url, server="").encode(), "c", {"SCRIPTED_KEY": KEY}
    )
    upstream, store = Upstream(), MemoryStore(1000, 1 << 28, 3600.0, time.time)
    service = Service(
        config, upstream, store, now=count(1790000000, step).__next__
    )  # whenever it looks, time has passed, or the clock was set back
    running = await service.background({**HI, "background": True}, Client(None, False, "json", "req_1", {}))
    await running.task
    assert running.response["status"] == "completed"
    created, completed = running.response["created_at"], running.response["completed_at"]
    assert created == running.queued["created_at"]
    assert created < completed if step > 0 else created == completed
    await service.close()
    upstream.close()
    await provider.close()


async def test_a_background_turn_that_fails(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[error(402, "Insufficient Balance")]]
        made = await api("POST", "/responses", {**HI, "background": True})
        failed = await api.until(made["id"], "failed")
        assert (
            failed["error"]["code"] == "insufficient_quota"
            and "Insufficient Balance" in failed["error"]["message"]
        )
        assert (await api.events("GET", "/responses/{}?stream=true".format(made["id"])))[-1][
            "type"
        ] == "response.failed"
        for wrong, param in (
            ({"store": False}, "store"),
            ({"input": 5}, "input"),
            ({"input": None}, "input"),
            ({"model": ""}, "model"),
            ({"input": [{"type": "message", "role": "nobody", "content": "Hi"}]}, "input"),
            ({"tools": [{"type": "function"}]}, "tools[0].name"),
            ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ):
            assert (await api("POST", "/responses", {**HI, "background": True, **wrong}, expect=400))[
                "param"
            ] == param


async def test_what_runs_when_the_server_stops_is_told_as_failed(tmp_path: Path) -> None:
    more = "store: {{kind: sqlite, path: '%s'}}\n" % (tmp_path / "r.db")
    async with site(tmp_path, server="  drain_timeout: 0\n", more=more) as (provider, api, _):
        provider.turns += [[say("Once"), gate()]]
        made = await api("POST", "/responses", {**HI, "background": True})
        await api.until(made["id"], "in_progress")
    async with site(tmp_path, more=more) as (provider, api, _):
        failed = await api("GET", "/responses/" + made["id"])
        assert failed["status"] == "failed" and "stopped" in failed["error"]["message"]


# ---- counting, limits
async def test_input_tokens(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        counts = []
        for text in ("Say hello.", "word " * 1000, "\u6587" * 1000):
            counted = await api("POST", "/responses/input_tokens", {"model": MODEL, "input": text})
            valid(sdk().InputTokenCountResponse, counted)
            counts.append(counted["input_tokens"])
        assert api.headers["x-rproxy-estimate"] == "input_tokens"
        assert 3 <= counts[0] <= 20 and 900 <= counts[1] <= 1400 and 500 <= counts[2] <= 1100
        more = await api(
            "POST",
            "/responses/input_tokens",
            {"input": "Say hello.", "tools": [TOOL], "instructions": "Be brief."},
        )
        assert more["input_tokens"] > counts[0]
        assert (await api("POST", "/responses/input_tokens", {"model": "nobody", "input": 5}, expect=400))[
            "param"
        ] == "input"
        assert provider.requests == []


BAD_METADATA = [
    ({str(n): "v" for n in range(17)}, "16 pairs"),
    ({"k" * 65: "v"}, "64"),
    ({"k": "v" * 513}, "512"),
    ({"k": 1}, "strings"),
    (["k"], "object"),
]


async def test_metadata_is_bounded(tmp_path: Path) -> None:
    async with site(tmp_path) as (_, api, _p):
        for metadata, says in BAD_METADATA:
            for path, body in (("/responses", HI), ("/conversations", {})):
                refused = await api("POST", path, {**body, "metadata": metadata}, expect=400)
                assert refused["param"] == "metadata" and says in refused["message"]


# ---- the real SDK
async def test_the_sdk_polls_resumes_and_keeps_a_conversation(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    async with (
        site(tmp_path) as (provider, api, _),
        openai.AsyncOpenAI(base_url=api.base_url, api_key="any", max_retries=0) as client,
    ):
        left = asyncio.Event()
        provider.turns += [[say("one "), say("two "), gate(left), say("three")]]
        provider.turns += [[say("Hi Ann.")], [say("Ann.")], [say("x"), gate()]]
        seen: List[Any] = []
        stream = await client.responses.create(model=MODEL, input="hi", background=True, stream=True)
        while len(seen) < 6:
            seen.append(await stream.__anext__())
        await stream.close()  # the rest comes from a second one
        response_id, last = seen[0].response.id, seen[-1].sequence_number
        async for event in await client.responses.retrieve(response_id, stream=True, starting_after=last):
            seen.append(event)
            left.set()
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert (
            "".join(event.delta for event in seen if event.type == "response.output_text.delta")
            == "one two three"
        )
        assert (await client.responses.retrieve(response_id)).output_text == "one two three"
        talk = await client.conversations.create(
            items=[{"type": "message", "role": "user", "content": "I am Ann."}], metadata={"a": "b"}
        )
        await client.responses.create(model=MODEL, input="Hello", conversation=talk.id)
        response = await client.responses.create(model=MODEL, input="Who am I?", conversation=talk.id)
        assert response.conversation.id == talk.id and response.output_text == "Ann."
        items = [item async for item in client.conversations.items.list(talk.id, limit=2, order="asc")]
        assert [item.content[0].text for item in items] == [
            "I am Ann.",
            "Hello",
            "Hi Ann.",
            "Who am I?",
            "Ann.",
        ]
        assert [item.id async for item in client.responses.input_items.list(response.id, limit=3)] == [
            item.id for item in items[-2::-1]
        ]
        assert (await client.conversations.delete(talk.id)).deleted
        running = await client.responses.create(model=MODEL, input="hi", background=True)
        assert (
            running.status == "queued" and (await client.responses.cancel(running.id)).status == "cancelled"
        )
        await client.responses.delete(running.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(running.id)
