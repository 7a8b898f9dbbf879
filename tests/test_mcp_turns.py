"""The tool ``mcp`` in the life of a turn: every transport, limits, secrets, and servers that do harm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
from api import Api
from forkserver import REAL
from grammar import check_response, check_stream
from mcp_double import mcp_double, text, tool
from mcp_lab import ALWAYS, NEVER, approving, asking, echo, mcp_lab, of_type
from rawserver import until
from scripted import CONFIG, ScriptedProvider, call, error, running, say, served, think
from tornado.websocket import websocket_connect
from wsclient import hear_until

from rproxy.hosted.mcp.results import FRAME
from rproxy.service import turn as turn_module
from rproxy.service.mcp_credentials import without_credentials

Json = Dict[str, Any]
TOKEN = "s3cret-0123456789"
HERE = "mcp_hosts: [127.0.0.1]"


# ---- Transports
async def test_background_its_replay_and_an_approval() -> None:
    async with mcp_lab() as lab:
        lab.provider.turns += [[think("Hm."), echo("a")], [say("It is so.")]]
        begun = await lab.api("POST", "/responses", asking(background=True, tools=[ALWAYS]))
        first = await lab.api.until(begun["id"], "completed")
        body = asking(
            background=True, tools=[ALWAYS], previous_response_id=first["id"], input=approving(first)
        )
        begun = await lab.api("POST", "/responses", body)
        done = await lab.api.until(begun["id"], "completed")
        assert [item["type"] for item in done["output"]] == ["mcp_call", "message"]
        path = f"/responses/{begun['id']}?stream=true"
        whole = await lab.api.events("GET", path)
        assert whole[-1]["response"]["output"] == done["output"]
        assert "response.mcp_call_arguments.delta" in [event["type"] for event in whole]
        assert await lab.api.events("GET", path + "&starting_after=3") == whole[4:]
        assert len(lab.double.calls) == 1


async def test_a_stored_response_is_streamed_again() -> None:
    async with mcp_lab() as lab:
        lab.provider.turns += [[echo("a"), call("docs__fail", index=1)], [say("Yes.")]]
        first = await lab.stream()
        final = check_stream(first)
        again = await lab.api.events("GET", f"/responses/{final['id']}?stream=true")
        assert check_stream(again) == final
        assert [event["type"] for event in again] == [event["type"] for event in first]


async def test_cancelling_a_background_response_ends_the_call() -> None:
    async with mcp_lab(gate=asyncio.Event()) as lab:
        lab.provider.turns += [[echo("a")], [say("Never.")]]
        begun = await lab.api("POST", "/responses", asking(background=True))
        await until(lambda: lab.double.calls)
        gone = lab.double.gone
        cancelled = await lab.api("POST", f"/responses/{begun['id']}/cancel", {})
        assert cancelled["status"] == "cancelled"
        await until(lambda: lab.double.gone > gone)
        assert len(lab.provider.requests) == 1


@pytest.mark.parametrize("eras", [["modern"], ["legacy"]], ids=["modern", "legacy"])
async def test_a_client_that_leaves_ends_the_call(eras: List[str]) -> None:
    async with mcp_lab(gate=asyncio.Event(), eras=eras, sessions=True) as lab:
        lab.provider.turns += [[echo("a")], [say("Never.")]]
        reader, writer = await lab.api.post_and_keep("/responses", asking(stream=True))
        await reader.readuntil(b"mcp_call_arguments.done")
        await until(lambda: lab.double.calls)
        gone = lab.double.gone
        writer.transport.abort()
        await until(lambda: lab.double.gone > gone)
        if eras == ["legacy"]:
            await until(lambda: "notifications/cancelled" in lab.double.methods)
        assert len(lab.provider.requests) == 1


async def test_the_model_learns_of_a_call_that_was_interrupted() -> None:
    async with mcp_lab(gate=asyncio.Event()) as lab:
        lab.provider.turns += [[echo("a")], [say("I see.")]]
        reader, writer = await lab.api.post_and_keep("/responses", asking(stream=True))
        data = await reader.readuntil(b"mcp_call_arguments.done")
        await until(lambda: lab.double.calls)
        gone = lab.double.gone
        writer.transport.abort()
        await until(lambda: lab.double.gone > gone)
        name = "resp_" + data.decode().partition('"resp_')[2].partition('"')[0]
        for _ in range(500):  # until it is stored
            if (await lab.api.raw("GET", f"/responses/{name}"))[0] == 200:
                break
            await asyncio.sleep(0.01)
        await lab.whole(previous_response_id=name, input="And?")
        assert "may have had an effect" in lab.messages(1)[2]["content"]


async def test_a_client_that_leaves_an_approved_call_does_not_run_it_again() -> None:
    async with mcp_lab(gate=asyncio.Event()) as lab:
        lab.provider.turns += [[echo("a")], [say("Hm.")]]
        first = await lab.whole(tools=[ALWAYS])
        body = {"tools": [ALWAYS], "previous_response_id": first["id"], "input": approving(first)}
        reader, writer = await lab.api.post_and_keep("/responses", asking(stream=True, **body))
        await reader.readuntil(b"mcp_call_arguments.done")
        await until(lambda: lab.double.calls)
        gone = lab.double.gone
        writer.transport.abort()
        await until(lambda: lab.double.gone > gone)
        again = await lab.streamed(**body)
        assert "may have had an effect" in of_type(again, "mcp_call")[0]["error"]["message"]
        assert len(lab.double.calls) == 1


async def test_signs_of_life_while_a_call_takes_long() -> None:
    async with mcp_lab(server="  heartbeat_interval: 0.1\n", gate=asyncio.Event()) as lab:
        lab.provider.turns += [[echo("a")], [say("Done.")]]
        assert lab.double.gate is not None
        after = "response.mcp_call_arguments.done"
        check_stream(await lab.api.listen("/responses", asking(stream=True), lab.double.gate.set, after))


async def test_a_list_that_fails_after_the_stream_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "COMMIT_AFTER", 0.1)
    async with mcp_lab(server="  heartbeat_interval: 0.05\n", list_gate=asyncio.Event()) as lab:
        task = asyncio.ensure_future(lab.stream())
        await until(lambda: "tools/list" in lab.double.methods)
        reader, writer = await lab.api.post_and_keep("/responses", asking(stream=True))
        await reader.readuntil(b"response.in_progress")
        writer.close()
        lab.double.status = 500
        assert lab.double.list_gate is not None
        lab.double.list_gate.set()
        events = await task
        names = [event["type"] for event in events]
        assert names[-1] == "response.failed" and "response.mcp_list_tools.failed" in names
        final = check_stream(events)
        assert "Error retrieving tool list from MCP server: 'docs'" in final["error"]["message"]
        assert lab.provider.requests == []


async def test_websocket_with_an_approval_and_an_interrupt() -> None:
    async with mcp_lab() as lab:
        ws = await websocket_connect(lab.api.base_url.replace("http", "ws") + "/responses")
        lab.provider.turns += [[echo("a")], [say("First.")], [echo("b")]]
        ask = {"type": "response.create", **asking(store=False, tools=[ALWAYS])}
        ws.write_message(json.dumps(ask))
        first = check_stream(await hear_until(ws, "response.completed"))
        ask.update(previous_response_id=first["id"], input=approving(first))
        ws.write_message(json.dumps(ask))
        second = check_stream(await hear_until(ws, "response.completed"))
        assert [item["type"] for item in second["output"]] == ["mcp_call", "message"]
        assert lab.messages(1)[: len(lab.messages(0))] == lab.messages(0)
        lab.double.gate = asyncio.Event()
        ask.update(previous_response_id=second["id"], input="More.", tools=[NEVER])
        ws.write_message(json.dumps(ask))
        events = await hear_until(ws, "response.mcp_call_arguments.done")
        await until(lambda: len(lab.double.calls) == 2)
        response_id = events[0]["response"]["id"]
        gone = lab.double.gone
        ws.write_message(json.dumps({"type": "response.interrupt", "response_id": response_id}))
        events += await hear_until(ws, "response.incomplete")
        assert check_stream(events)["incomplete_details"] == {"reason": "interrupted"}
        await until(lambda: lab.double.gone > gone)
        assert len(lab.provider.requests) == 3
        ws.close()


async def test_a_conversation() -> None:
    async with mcp_lab() as lab:
        lab.provider.turns += [[echo("a")], [say("1")], [echo("b")], [say("2")]]
        conversation = (await lab.api("POST", "/conversations", {}))["id"]
        first = await lab.whole(tools=[ALWAYS], conversation=conversation)
        second = await lab.whole(tools=[ALWAYS], conversation=conversation, input=approving(first))
        assert [item["type"] for item in second["output"]] == ["mcp_call", "message"]
        await lab.whole(conversation=conversation, input="More.")
        assert lab.messages(2)[: len(lab.messages(1))] == lab.messages(1)
        assert lab.double.methods.count("tools/list") == 1


async def test_compaction_and_token_counts_run_nothing() -> None:
    async with mcp_lab() as lab:
        lab.provider.turns += [[echo("a")], [say("1")], [echo("b")], [say("A summary.")]]
        first = await lab.whole()
        second = await lab.whole(tools=[ALWAYS], previous_response_id=first["id"])
        items = [
            {"role": "user", "content": "Hello."},
            *first["output"],
            *second["output"],
            *approving(second),
        ]
        asked = len(lab.double.asked)
        counted = await lab.api("POST", "/responses/input_tokens", asking(tools=[ALWAYS], input=items))
        assert counted["input_tokens"] > 100
        compact = await lab.api("POST", "/responses/compact", {"model": "gpt-5.5", "input": items})
        assert compact["output"][-1]["type"] == "compaction"
        lab.provider.turns += [[say("A summary.")]]
        trigger = {"type": "compaction_trigger"}  # as Codex sends it, with all its tools
        last = await lab.api("POST", "/responses", asking(input=[items[0], trigger]))
        assert [item["type"] for item in last["output"]] == ["compaction"]
        assert len(lab.double.asked) == asked


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # old ones know texts only
async def test_the_openai_package() -> None:
    openai = pytest.importorskip("openai")
    async with mcp_lab() as lab:
        client = openai.AsyncOpenAI(base_url=lab.api.base_url, api_key="any", max_retries=0)
        lab.provider.turns += [[think("Hm."), echo("a"), call("docs__fail", index=1)], [say("Done.")]]
        async with client.responses.stream(model="gpt-5.5", input="Hello.", tools=[NEVER]) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert kinds.count("response.mcp_call.completed") == kinds.count("response.mcp_call.failed") == 1
        listed, _, good, bad, _ = final.output
        assert listed.tools[1].annotations == {"readOnlyHint": True} and good.output == "a"
        failure = bad.error if isinstance(bad.error, dict) else bad.error.model_dump()
        assert failure["content"][0]["text"] == "the disk is full" and bad.status == "failed"
        lab.provider.turns += [[echo("b")], [say("Approved.")]]
        asked = await client.responses.create(
            model="gpt-5.5", input="Again.", tools=[ALWAYS], previous_response_id=final.id
        )
        (request,) = asked.output
        answer = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
        done = await client.responses.create(
            model="gpt-5.5", input=[answer], tools=[ALWAYS], previous_response_id=asked.id
        )
        assert done.output[0].approval_request_id == request.id and done.output_text == "Approved."
        await lab.double.close()
        with pytest.raises(openai.APIStatusError) as caught:
            lists = [{**NEVER, "server_label": "down", "server_url": lab.double.url}]
            await client.responses.create(model="gpt-5.5", input="Hello.", tools=lists)
        assert caught.value.status_code == 400  # its host is not allowed
        await client.close()


# ---- Limits and attempts
async def test_max_tool_calls() -> None:
    async with mcp_lab() as lab:
        lab.provider.turns += [[echo("a", 0), echo("b", 1), echo("c", 2)], [say("Enough.")]]
        final = await lab.streamed(max_tool_calls=1)
        assert len(of_type(final, "mcp_call")) == 1 == len(lab.double.calls)
        assert lab.provider.requests[1]["tool_choice"] == "none"


async def test_an_approved_call_counts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rproxy")
    async with mcp_lab() as lab:
        lab.provider.turns += [[echo("a")], [echo("b")], [say("Enough.")]]
        first = await lab.whole(tools=[ALWAYS])
        body = {"previous_response_id": first["id"], "input": approving(first), "max_tool_calls": 1}
        second = await lab.whole(**body)
        assert [item["type"] for item in second["output"]] == ["mcp_call", "message"]
        assert [one.get("tool_choice") for one in lab.provider.requests] == [None, "none", None]
        assert len(lab.double.calls) == 1
        assert "answer with what you have" in lab.messages(1)[-1]["content"]
    assert "rounds=2 calls=1" in caplog.text


async def test_another_attempt_at_a_round_calls_no_tool_again() -> None:
    async with mcp_lab() as lab:
        lab.provider.turns += [[echo("a")], [error(503, "busy", {"Retry-After": "0"})], [say("Done.")]]
        final = await lab.streamed()
        assert final["status"] == "completed" and len(lab.double.calls) == 1
        assert [item["type"] for item in final["output"]] == ["mcp_list_tools", "mcp_call", "message"]


async def test_a_result_is_cut_and_a_huge_one_refused() -> None:
    big = tool("big")
    async with mcp_lab(hosted="max_result_bytes: 2000", tools=[big]) as lab:
        lab.double.results["big"] = lambda given: text("x" * 50_000)
        lab.provider.turns += [[call("docs__big")], [say("Long.")], [call("docs__big")], [say("Too long.")]]
        (item,) = of_type(await lab.streamed(), "mcp_call")
        assert len(item["output"]) < 2000 and item["output"].count("left out") == 1
        assert lab.messages(1)[-1]["content"] == FRAME + item["output"]
        lab.double.results["big"] = lambda given: text("x" * 5_000_000)
        (item,) = of_type(await lab.streamed(), "mcp_call")
        assert item["error"]["message"] == "its answer is longer than 1048576 bytes"


async def test_descriptions_are_cut() -> None:
    async with mcp_lab(tools=[tool("x", "y" * 9000)]) as lab:
        lab.provider.turns += [[say("Hi.")]]
        await lab.whole()
        assert len(lab.provider.requests[0]["tools"][0]["function"]["description"]) == 2000


async def test_the_allowlist_is_obeyed_to_the_letter() -> None:
    only = "  tool_type_allowlist: [function, custom, namespace, tool_search]\n"
    async with mcp_lab(server=only) as lab:
        lab.provider.turns += [[say("Hi.")]]
        final = await lab.whole()
        assert lab.functions() == [] and lab.double.asked == [] and len(final["output"]) == 1


async def test_a_provider_that_calls_servers_by_itself() -> None:
    """``native_tools`` wins: the tool goes to a provider with the Responses API as it is."""
    async with mcp_lab() as inner:
        outer = """
server: {{listen_addr: "127.0.0.1:{port}"}}
models:
  - model: "*"
    provider: {{base_url: "{base_url}", api_key: any, wire: responses, override: {{native_tools: [mcp]}}}}
mcp_servers: {{docs: {{url: "http://127.0.0.1:1"}}}}
"""
        inner.provider.turns += [[echo("a")], [say("Found.")]]
        async with served(inner.api.base_url, config=outer) as url:
            response = await Api(url)("POST", "/responses", asking())
        assert [item["type"] for item in response["output"]] == ["mcp_list_tools", "mcp_call", "message"]
        assert len(inner.double.calls) == 1


async def test_without_servers_nothing_changes() -> None:
    provider = ScriptedProvider()
    provider.turns += [[say("Hi.")]] * 2
    async with served(provider.base_url) as url:
        response = check_response(await Api(url)("POST", "/responses", asking()))
        assert [item["type"] for item in response["output"]] == ["message"] and response["tools"] == [NEVER]
        mine = {**NEVER, "authorization": TOKEN, "headers": {"X-Secret": TOKEN}}
        response = await Api(url)("POST", "/responses", asking(tools=[mine]))
        assert response["tools"] == [{**NEVER, "headers": None}]
        assert TOKEN not in json.dumps(await Api(url)("GET", f"/responses/{response['id']}"))
    assert not any("tools" in request for request in provider.requests)
    await provider.close()


# ---- Secrets
async def test_credentials_reach_their_server_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with mcp_double(token=TOKEN) as own:
        store = f"store: {{{{kind: sqlite, path: '{tmp_path}/r.db'}}}}\n"
        hosts = f"mcp_hosts: ['127.0.0.1:{own.port}']"
        async with mcp_lab(more=store, hosted=hosts) as lab:
            mine = {
                "type": "mcp", "server_label": "own", "server_url": own.url + "?key=q-" + TOKEN,
                "authorization": TOKEN, "headers": {"X-Secret": "h-" + TOKEN}, "require_approval": "never",
            }  # fmt: skip
            own.results["echo"] = lambda given: text("you said " + TOKEN)
            lab.provider.turns += [[call("own__echo", text="x"), echo("y", 1)], [say("Done.")], [say("Bye.")]]
            events = await lab.stream(tools=[mine, NEVER])
            final = check_stream(events)
            stored = await lab.api("GET", f"/responses/{final['id']}")
            inputs = await lab.api("GET", f"/responses/{final['id']}/input_items")
            shown = [events, stored, inputs, lab.provider.requests, caplog.text]
            headers = own.asked[-1].http.headers
            assert headers["Authorization"] == f"Bearer {TOKEN}" and headers["X-Secret"] == "h-" + TOKEN
            assert not any(TOKEN in str(asked.http.headers) for asked in lab.double.asked)
            assert of_type(final, "mcp_call")[0]["output"] == "you said ***"
            own.token = "another"
            lists = [{**mine, "authorization": "x-" + TOKEN}]
            shown.append(await lab.api("POST", "/responses", asking(tools=lists), 424))
            # nor does it go to a server of the configuration
            lab.provider.turns.clear()
            lab.provider.turns += [[echo("z")], [say("Bye.")]]
            await lab.whole(tools=[{**NEVER, "authorization": TOKEN, "headers": {"X-Secret": TOKEN}}])
            assert not any(TOKEN in str(asked.http.headers) for asked in lab.double.asked)
        assert TOKEN not in json.dumps(shown)
    with contextlib.closing(sqlite3.connect(tmp_path / "r.db")) as base:
        base.execute("VACUUM")
    assert not holders(tmp_path, TOKEN)


def test_an_entry_is_repeated_without_the_credentials_in_its_address() -> None:
    tool = {"type": "mcp", "server_label": "a", "server_url": f"https://u:{TOKEN}@a.example/x?key={TOKEN}"}
    assert without_credentials(tool) == {**tool, "server_url": "https://a.example/x"}


async def test_a_server_that_an_item_of_the_history_defines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with mcp_double(token=TOKEN) as own:
        store = f"store: {{{{kind: sqlite, path: '{tmp_path}/r.db'}}}}\n"
        hosts = f"mcp_hosts: ['127.0.0.1:{own.port}']"
        async with mcp_lab(more=store, hosted=hosts) as lab:
            mine = {
                "type": "mcp", "server_label": "own", "server_url": own.url + "?key=q-" + TOKEN,
                "authorization": TOKEN, "headers": {"X-Secret": "h-" + TOKEN}, "require_approval": "never",
            }  # fmt: skip
            item = {"type": "additional_tools", "role": "developer", "tools": [mine]}
            conversation = (await lab.api("POST", "/conversations", {"items": [item]}))["id"]
            said = [
                {"type": "additional_tools", "role": "developer", "tools": [mine, NEVER]},
                {"role": "user", "content": "Hello."},
            ]
            lab.provider.turns += [[call("own__echo", text="x"), echo("y", 1)], [say("Done.")], [say("Bye.")]]
            events = await lab.stream(tools=[], input=said, conversation=conversation)
            final = check_stream(events)
            kinds = [item["type"] for item in final["output"]]
            assert kinds == ["mcp_list_tools"] * 2 + ["mcp_call"] * 2 + ["message"]
            # The lists of the conversation are used again, without credentials.
            await lab.whole(tools=[], input="More.", conversation=conversation)
            assert lab.functions(2) == lab.functions(0) and len(own.calls) == 1
            inputs = await lab.api("GET", f"/responses/{final['id']}/input_items")
            past = await lab.api("GET", f"/conversations/{conversation}/items")
            assert TOKEN not in json.dumps([events, inputs, past, lab.provider.requests, caplog.text])
    with contextlib.closing(sqlite3.connect(tmp_path / "r.db")) as base:
        base.execute("VACUUM")
    assert not holders(tmp_path, TOKEN)


async def test_recordings_have_no_credentials(tmp_path: Path) -> None:
    async with mcp_double(token="short1") as own:
        provider = ScriptedProvider()
        config = CONFIG + "hosted_tools: {{mcp_hosts: [127.0.0.1]}}\n"
        options = ("--record", str(tmp_path / "rec"))
        async with running(tmp_path, provider.base_url, config=config, options=options) as one:
            provider.turns += [[call("own__echo", text="x")], [say("Done.")]]
            mine = {
                "type": "mcp", "server_label": "own", "server_url": own.url + "?key=longer-one",
                "authorization": "short1", "headers": {"X-Key": "short2"}, "require_approval": "never",
            }  # fmt: skip
            await Api(one.base_url)("POST", "/responses", asking(tools=[mine]))
        await provider.close()
    assert holders(tmp_path / "rec", "own__echo") and not holders(
        tmp_path / "rec", "short1", "short2", "longer-one"
    )


def holders(folder: Path, *texts: str) -> List[Path]:
    """The files that hold one of these texts."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(text.encode() in path.read_bytes() for text in texts)]


# ---- Addresses
@pytest.mark.standard_loop  # whose name resolution can be replaced
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_an_allowed_host_that_is_in_the_private_network(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "mcp.example.com":
            return real(host, port, *args, **kwargs)
        if kwargs.get("flags"):
            raise socket.gaierror
        asked.append(host)
        return real(address, port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with mcp_lab(hosted="mcp_hosts: [mcp.example.com]") as lab:
        entry = {**NEVER, "server_label": "x", "server_url": "https://mcp.example.com/mcp"}
        refused = await lab.api("POST", "/responses", asking(tools=[entry]), 424)
        assert "its address is not on the internet" in refused["message"] and asked == ["mcp.example.com"]


async def test_a_redirect_of_an_allowed_host_leads_nowhere() -> None:
    async with mcp_double() as inside, mcp_double(status=307) as own, mcp_lab(hosted=HERE) as lab:
        own.headers["Location"] = inside.url
        entry = {**NEVER, "server_label": "x", "server_url": own.url}
        refused = await lab.api("POST", "/responses", asking(tools=[entry]), 424)
        assert "a redirect, which is not followed" in refused["message"] and inside.asked == []


# ---- Reports
async def test_metrics_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rproxy")
    async with mcp_double() as own, mcp_lab(server="  metrics: on\n", hosted=HERE) as lab:
        lab.provider.turns += [
            [echo("secret words"), call("docs__fail", index=1), call("own__echo", index=2, text="x")],
            [say("Yes.")],
        ]
        await lab.whole(tools=[NEVER, {**NEVER, "server_label": "own", "server_url": own.url}])
        _, content = await Api(lab.api.base_url[: -len("/v1")]).raw("GET", "/metrics")
    log = "\n".join(record.getMessage() for record in caplog.records)
    assert "rounds=2 calls=3" in log and "secret words" not in log
    metrics = content.decode()
    for server, status in (("docs", "completed"), ("docs", "failed"), ("other", "completed")):
        assert f'rproxy_hosted_calls_total{{tool="mcp",server="{server}",status="{status}"}} 1' in metrics


# ---- Programs
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_program_ends_with_rproxy(number: signal.Signals, tmp_path: Path) -> None:
    demo = Path(__file__).with_name("mcp_demo.py")
    command = f"[sh, -c, 'echo $$ > {tmp_path}/pid; exec {sys.executable} {demo}']"
    provider = ScriptedProvider()
    provider.turns += [[call("docs__add", a=1, b=2)], [say("3")]]
    config = CONFIG + f"mcp_servers: {{{{docs: {{{{command: {command}}}}}}}}}\n"
    with contextlib.suppress(ProcessLookupError):
        async with running(tmp_path, provider.base_url, config=config, command=REAL) as one:
            response = await Api(one.base_url)("POST", "/responses", asking())
            assert of_type(response, "mcp_call")[0]["output"] == "add says 3"
            pid = int((tmp_path / "pid").read_text())
            if number is signal.SIGKILL:
                one.process.kill()
                await one.process.wait()
    await until(lambda: not alive(pid))
    await provider.close()


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
