"""rproxy as a client of MCP servers: of both eras, on every transport, with the faults that there are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, AsyncIterator, List, Optional

import pytest
from mcp_double import MODERN, McpDouble, mcp_double, text, tool
from rawserver import RawServer, standstill, until

from rproxy.config.mcp_schema import McpServer
from rproxy.hosted.addresses import origin
from rproxy.hosted.mcp.messages import EventDecoder, LineDecoder, McpError, MessageReader, ServerEvent
from rproxy.hosted.mcp.protocol import Listed, Peer, Reply, tools
from rproxy.hosted.mcp.results import EMPTY, ToolResult, read_result
from rproxy.hosted.mcp.servers import McpServers
from rproxy.upstream.client import Upstream

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
DEMO = (sys.executable, str(Path(__file__).with_name("mcp_demo.py")))


class Lab:
    """Our client, and how it is asked."""

    def __init__(self) -> None:
        self.upstream = Upstream()
        self.servers = McpServers(self.upstream)

    async def list(self, server: McpServer, owner: str = "o") -> List[str]:
        return [tool["name"] for tool in await self.servers.tools(server, owner)]

    async def call(self, server: McpServer, name: str, owner: str = "o", **arguments: Any) -> ToolResult:
        listed = await self.servers.tools(server, owner)
        found = next((tool for tool in listed if tool["name"] == name), {"name": name})
        return await self.servers.call(server, owner, found, arguments)

    async def failure(self, server: McpServer, name: str = "", **arguments: Any) -> McpError:
        """The error of a call, or of asking for the list."""
        with pytest.raises(McpError) as caught:
            await (self.call(server, name, **arguments) if name else self.list(server))
        return caught.value


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[Lab]:
    lab = Lab()
    try:
        yield lab
    finally:
        await lab.servers.close()
        lab.upstream.close()


def at(double: McpDouble, **more: Any) -> McpServer:
    return McpServer(url=double.url, name="double", **more)


# ---- Eras and transports
ERAS = (["modern"], ["legacy"], ["modern", "legacy"])


@pytest.mark.parametrize("eras", ERAS, ids="-".join)
@pytest.mark.parametrize("events", [False, True], ids=["json", "events"])
@pytest.mark.parametrize(
    "more", [{}, {"sessions": True, "noise": True, "fault": "open"}], ids=["plain", "noisy"]
)
async def test_both_eras_with_json_and_events(eras: List[str], events: bool, more: Any) -> None:
    async with mcp_double(eras=eras, events=events, **more) as double, client() as lab:
        assert await lab.list(at(double)) == ["echo", "add", "fail", "crash"]
        assert await lab.call(at(double), "echo", text="grüß") == ToolResult("grüß", False)
        assert await lab.call(at(double), "add", a=1, b=2) == ToolResult('{"sum": 3}', False)
        modern = "modern" in eras
        begin = (
            ["server/discover"] if modern else ["server/discover", "initialize", "notifications/initialized"]
        )
        said = [method for method in double.methods if method != "POST"]  # our answers to its pings
        assert said == [*begin, "tools/list", "tools/call", "tools/call"]
        last = [asked for asked in double.asked if asked.method == "tools/call"][-1]
        headers = last.http.headers
        assert headers["Accept"] == "application/json, text/event-stream"
        if modern:
            assert headers["Mcp-Method"] == "tools/call" and headers["Mcp-Name"] == "add"
            assert headers["MCP-Protocol-Version"] == MODERN and "Mcp-Session-Id" not in headers
        else:
            assert headers["MCP-Protocol-Version"] == "2025-11-25" and "Mcp-Method" not in headers
            assert headers.get("Mcp-Session-Id") == ("session-0" if double.sessions else None)
        if not modern and more and events:
            await until(lambda: "POST" in double.methods)
            answer = next(asked.rpc for asked in double.asked if "result" in asked.rpc)
            assert answer == {"jsonrpc": "2.0", "id": 77, "result": {}}
    if not modern and double.sessions:
        assert double.methods[-1] == "DELETE"


async def test_a_lost_session_is_begun_anew_and_the_call_repeated_once() -> None:
    async with mcp_double(eras=["legacy"], sessions=True) as double, client() as lab:
        await lab.call(at(double), "echo", text="a")
        double.known.append("restarted")
        assert (await lab.call(at(double), "echo", text="b")).text == "b"
        assert double.methods[-4:] == ["tools/call", "initialize", "notifications/initialized", "tools/call"]
        double.status = 404
        assert (await lab.failure(at(double), "echo", text="c")).code == 404


async def test_the_transport_of_2024_11_05() -> None:
    async with mcp_double(old_transport=True, token="t0ken") as double, client() as lab:
        server = at(double, headers={"Authorization": "Bearer t0ken"})
        assert await lab.list(server) == ["echo", "add", "fail", "crash"]
        assert (await lab.call(server, "echo", text="old")).text == "old"
        double.stream.request.connection.stream.close()  # type: ignore[union-attr]
        with contextlib.suppress(McpError):  # the client may not have noticed, and does not send it twice
            await lab.call(server, "echo", text="perhaps")
        assert (await lab.call(server, "echo", text="again")).text == "again"
        assert all(asked.http.headers.get("Authorization") == "Bearer t0ken" for asked in double.asked)
    assert double.methods.count("initialize") == 3  # the first is refused, since it is a POST to /sse


async def test_messages_for_the_old_transport_go_to_the_same_server_only() -> None:
    async with mcp_double() as other, client() as lab:
        async with mcp_double(old_transport=True, endpoint=other.url) as double:
            error = await lab.failure(at(double))
        assert error.code == 405 and not other.asked


async def test_lists_in_pages_and_tools_that_cannot_be_called() -> None:
    tools = [tool(f"t{n}") for n in range(7)]
    bad = tool("bad", x={"type": "string", "x-mcp-header": "No Name"})
    async with (
        mcp_double(tools=[*tools, bad, tool("t3"), {"name": ""}, {}], page=2) as double,
        client() as lab,
    ):
        assert await lab.list(at(double)) == [f"t{n}" for n in range(7)]


async def test_a_long_list_is_cut() -> None:
    async with client() as lab:
        async with mcp_double(tools=[tool(f"t{n}") for n in range(500)]) as double:
            assert len(await lab.list(at(double))) == 128
        async with mcp_double(tools=[tool(f"t{n}", "x" * 60_000) for n in range(9)]) as double:
            assert len(await lab.list(at(double))) == 4


def nested(levels: int) -> Any:
    value: Any = {"type": "object"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"a": value}}
    return value


async def test_what_is_nested_too_deep_is_left_out() -> None:
    tools = [{"name": f"t{levels}", "inputSchema": nested(levels)} for levels in (10, 60, 300)]
    async with mcp_double(tools=tools) as double, client() as lab:
        assert await lab.list(at(double)) == ["t10"]
        double.results["t10"] = lambda given: {"content": [], "structuredContent": nested(300)}
        assert (await lab.call(at(double), "t10")).text == EMPTY


async def test_arguments_that_are_headers_too() -> None:
    where = tool("where", region={"type": "string", "x-mcp-header": "Region"}, n={"x-mcp-header": "N"})
    async with (
        mcp_double(tools=[where], results={"where": lambda given: text("ok")}) as double,
        client() as lab,
    ):
        await lab.call(at(double), "where", region="Zürich", n=7)
        headers = double.asked[-1].http.headers
    assert headers["Mcp-Param-Region"] == "=?base64?WsO8cmljaA==?=" and headers["Mcp-Param-N"] == "7"


async def test_a_list_is_kept_as_long_as_the_server_says_and_for_the_same_credentials() -> None:
    async with mcp_double() as double, client() as lab:
        for owner in ("a", "a", "b"):
            await lab.list(at(double), owner)
        assert double.methods.count("tools/list") == 1
        await lab.list(at(double, headers={"X-Team": "other"}))
        assert double.methods.count("tools/list") == 2
        double.ttl = 0
        for _ in range(2):
            await lab.list(at(double, headers={"X-Team": "third"}))
        assert double.methods.count("tools/list") == 4


async def test_owners_do_not_share_a_session() -> None:
    async with mcp_double(eras=["legacy"]) as double, client() as lab:
        await lab.call(at(double), "echo", "a", text="x")
        await lab.call(at(double), "echo", "b", text="x")
        # and what is known of the server is known
        assert double.methods.count("initialize") == 2 and double.methods.count("server/discover") == 1


# ---- Failures
async def test_failures_of_tools_are_told_apart() -> None:
    async with mcp_double() as double, client() as lab:
        assert await lab.call(at(double), "fail") == ToolResult("the disk is full", True)
        error = await lab.failure(at(double), "crash")
        assert (error.kind, error.code, str(error)) == (
            "mcp_protocol_error", -32603, "Internal error: out of luck",
        )  # fmt: skip


@pytest.mark.parametrize("fault, events, words", [
    ("garbage", False, "has no result"), ("cut", True, "broke off"),
])  # fmt: skip
@pytest.mark.parametrize("eras", ERAS[:2], ids="-".join)
async def test_answers_that_are_none(fault: str, events: bool, words: str, eras: List[str]) -> None:
    async with mcp_double(fault=fault, events=events, eras=eras) as double, client() as lab:
        error = await lab.failure(at(double), "echo", text="x")
        assert (error.kind, error.code) == ("http_error", 424) and words in str(error)
        assert len(double.calls) == 1


async def test_a_broken_stream_of_a_session_is_resumed() -> None:
    async with mcp_double(fault="resume", events=True, eras=["legacy"]) as double, client() as lab:
        assert (await lab.call(at(double), "echo", text="x")).text == "x"
        assert double.methods[-2:] == ["tools/call", "GET"]


async def test_nobody_listens() -> None:
    async with mcp_double() as double, client() as lab:
        server = at(double)
        await double.close()
        error = await lab.failure(server)
        assert (error.code, str(error), error.answered) == (424, "the connection was refused", False)


async def test_a_redirect_is_not_followed() -> None:
    async with mcp_double() as target, client() as lab:
        async with mcp_double(status=307, headers={"Location": target.url}) as double:
            error = await lab.failure(at(double))
        assert error.code == 307 and "redirect" in str(error) and not target.asked
        assert len(double.asked) == 1


async def test_credentials_are_sent_and_never_shown() -> None:
    async with mcp_double(token="s3cret") as double, client() as lab:
        error = await lab.failure(at(double, headers={"Authorization": "Bearer wrong-s3cret"}))
        assert error.code == 401 and "s3cret" not in str(error) and double.methods == ["server/discover"]
        server = at(double, headers={"Authorization": "Bearer s3cret", "X-Key": "key-0123456789"})
        double.results["echo"] = lambda given: text("you have sent key-0123456789")
        assert (await lab.call(server, "echo", text="")).text == "you have sent ***"
        assert "s3cret" not in repr(server) and "key-0123456789" not in repr(server)


async def test_a_list_that_repeats_the_credentials() -> None:
    key = "key-0123456789"
    tools = [tool("leak", f"Uses {key}.", **{key: {"enum": [key, 1]}}), tool("plain")]
    async with mcp_double(tools=tools) as double, client() as lab:
        listed = await lab.servers.tools(at(double, headers={"X-Key": key}), "o")
        assert [one["name"] for one in listed] == ["leak", "plain"] and listed[1] == tools[1]
        assert listed[0] == tool("leak", "Uses ***.", **{"***": {"enum": ["***", 1]}})


PING = b'data: {"jsonrpc":"2.0","id":1,"method":"ping"}\n\n'


@pytest.mark.parametrize("old", [False, True], ids=["answer", "event-stream"])
async def test_a_server_that_asks_without_end_gets_few_answers_at_a_time(old: bool) -> None:
    """Each answer may need a connection, and a server need not take any."""
    waiting: List[bytes] = []

    async def script(peer: Any) -> None:
        first, _, body = await peer.request()
        message = json.loads(body or b"{}")
        method = message.get("method")
        if old and method:
            return await peer.send(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
        if old and first.startswith("GET") or method == "tools/list":
            begin = b"event: endpoint\ndata: /m\n\n" if old else b""
            await peer.send(EVENTS + begin, *[PING * 100] * 10)
            return await peer.wait_gone()
        if method is None:
            waiting.append(body)
            return await peer.wait_gone()
        answer = json.dumps(
            {"jsonrpc": "2.0", "id": message["id"], "result": {"supportedVersions": [MODERN]}}
        )
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
        await peer.send((head + answer).encode())

    server = RawServer(script)
    async with server.running(), client() as lab:
        asking = asyncio.ensure_future(lab.failure(McpServer(url=server.url + "/mcp", name="flood")))
        await until(lambda: waiting)
        await standstill(lambda: len(server.peers))
        assert len(waiting) == 8 and len(server.peers) < 16
        asking.cancel()
        await asyncio.wait({asking})


async def test_values_of_odd_sizes_and_types_are_no_bugs() -> None:
    async with mcp_double(ttl=10**400) as double, client() as lab:
        assert len(await lab.list(at(double))) == 4
        deep: Any = "x"
        for _ in range(500):
            deep = [deep]
        for odd in (deep, 7, None, {"a": 1}):
            double.results["echo"] = lambda given, odd=odd: {"content": [{"type": "text", "text": odd}]}
            assert (await lab.call(at(double), "echo")).text == EMPTY


async def test_a_long_answer_is_refused_and_a_long_result_cut() -> None:
    async with mcp_double(tools=[tool("big")]) as double, client() as lab:
        double.results["big"] = lambda given: text("x" * 5_000_000)
        assert "longer than 1048576 bytes" in str(await lab.failure(at(double), "big"))
        double.results["big"] = lambda given: text("é" * 100_000)
        result = await lab.call(at(double), "big")
        assert 102_000 < len(result.text.encode()) < 103_000 and "left out" in result.text


async def test_a_slow_server_is_given_up() -> None:
    async with mcp_double(gate=asyncio.Event(), eras=["legacy"]) as double, client() as lab:
        error = await lab.failure(at(double, timeout=0.2), "echo", text="x")
        assert str(error) == "it did not answer in time"
        await until(lambda: "notifications/cancelled" in double.methods)


@pytest.mark.parametrize("eras, old", [(["modern"], False), (["legacy"], False), (["legacy"], True)])
async def test_a_call_that_is_cancelled_is_cancelled_at_the_server(eras: List[str], old: bool) -> None:
    gate = asyncio.Event()
    async with mcp_double(gate=gate, eras=eras, old_transport=old) as double, client() as lab:
        task = asyncio.ensure_future(lab.call(at(double), "echo", text="x"))
        await until(lambda: double.calls)
        gone = double.gone
        task.cancel()
        if not old:
            await until(lambda: double.gone > gone)
        if eras == ["legacy"]:
            await until(lambda: "notifications/cancelled" in double.methods)
            cancelled = double.asked[double.methods.index("notifications/cancelled")].rpc
            called = double.asked[double.methods.index("tools/call")].rpc
            assert cancelled["params"]["requestId"] == called["id"]


async def test_a_server_of_a_client_has_to_be_on_the_internet() -> None:
    async with mcp_double() as double, client() as lab:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            server = McpServer(url=f"http://{host}:{double.port}/mcp", name="x", public=True)
            assert str(await lab.failure(server)) == "its address is not on the internet"
        assert not double.asked


async def test_a_call_is_not_sent_on_a_kept_connection_which_could_send_it_twice() -> None:
    async with mcp_double() as double, client() as lab:
        for _ in range(3):
            await lab.call(at(double), "echo", text="x")
        ports = [asked.http.connection.context.address[1] for asked in double.asked]  # type: ignore[union-attr]
        assert len(set(ports[-3:])) == 3


# ---- Processes
def demo(path: Path, first: str = "") -> McpServer:
    """A server that is a process, which writes its number into a file."""
    script = f"echo $$ > {path}/pid; {first} exec {DEMO[0]} {DEMO[1]}"
    return McpServer(command=("sh", "-c", script), name="demo")


def pid_in(path: Path) -> int:
    return int((path / "pid").read_text())


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


async def test_a_process_is_started_shared_restarted_and_ended(tmp_path: Path) -> None:
    server = demo(tmp_path)
    async with client() as lab:
        assert await lab.list(server) == ["add"]
        first = pid_in(tmp_path)
        results = await asyncio.gather(*(lab.call(server, "add", str(n), a=n, b=1) for n in range(5)))
        assert [result.text for result in results] == [f"add says {n + 1}" for n in range(5)]
        assert pid_in(tmp_path) == first
        os.kill(first, signal.SIGKILL)
        await until(lambda: not alive(first))
        assert (await lab.call(server, "add", a=1, b=1)).text == "add says 2"
        second = pid_in(tmp_path)
        assert second != first
    assert not alive(second)


async def test_a_process_that_the_configuration_no_longer_has_ends(tmp_path: Path) -> None:
    server = demo(tmp_path)
    async with client() as lab:
        lab.servers.configure([server])
        await lab.list(server)
        pid = pid_in(tmp_path)
        lab.servers.configure([server])
        assert alive(pid)
        lab.servers.configure([])
        await until(lambda: not alive(pid))


async def test_what_a_process_has_started_ends_with_it(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; trap '' TERM; {DEMO[0]} {DEMO[1]}; sleep 1000"
    async with client() as lab:
        await lab.list(McpServer(command=("sh", "-c", script), name="demo"))
        child = int((tmp_path / "pid").read_text())
        assert alive(child)
    await until(lambda: not alive(child))


async def test_a_process_gets_no_keys_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-0123456789")
    server = replace(demo(tmp_path, f"env > {tmp_path}/env;"), env={"TOKEN": "t"})
    async with client() as lab:
        await lab.list(server)
    environment = (tmp_path / "env").read_text()
    assert "sk-0123456789" not in environment and "TOKEN=t\n" in environment and "PATH=" in environment


@pytest.mark.parametrize("command, words", [
    (("/nonexistent",), "cannot be started: No such file or directory"),
    (("false",), "its process"),
    (("yes",), "its answer is longer"),
    (("sh", "-c", "head -c 3000000 /dev/zero; cat"), "its answer is longer"),
])  # fmt: skip
async def test_programs_that_are_no_servers(command: Any, words: str) -> None:
    async with client() as lab:
        assert words in str(await lab.failure(McpServer(command=command, name="x")))


async def test_a_process_that_keeps_ending_is_not_started_all_the_time(tmp_path: Path) -> None:
    server = McpServer(command=("sh", "-c", f"echo x >> {tmp_path}/starts; exit 3"), name="x")
    async with client() as lab:
        errors = [str(await lab.failure(server)) for _ in range(5)]
    assert len((tmp_path / "starts").read_text().split()) == 2
    assert "is started again in" in errors[-1]


# ---- The pure part
STREAM = (
    b"\xef\xbb\xbf: hi\r\nevent: endpoint\rdata: /a\n\nid: 7\nretry: 20\ndata: one\ndata:two\n\n"
    b"event: nothing\n\ndata\n\ndata: cut"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_however_they_are_cut(size: int) -> None:
    decoder = EventDecoder(1000)
    found = [e for n in range(0, len(STREAM), size) for e in decoder.feed(STREAM[n : n + size])]
    assert found == [
        ServerEvent("endpoint", "/a"),
        ServerEvent("message", "one\ntwo"),
        ServerEvent("message", ""),
    ]
    assert (decoder.last_id, decoder.retry) == ("7", 0.02)


@pytest.mark.parametrize("data", [b"x" * 2000, b"data: x\n" * 600, b"data: " + b"x" * 2000 + b"\n"])
def test_an_event_has_a_limit(data: bytes) -> None:
    with pytest.raises(McpError, match="longer than 1000 bytes"):
        EventDecoder(1000).feed(data)


def test_lines_of_a_process() -> None:
    decoder = LineDecoder(100)
    data = b'starting...\n{"jsonrpc": "2.0", "id": 1, "result": {}}\n\n{"jsonrpc"'
    assert decoder.feed(data) == [{"jsonrpc": "2.0", "id": 1, "result": {}}]
    assert decoder.feed(b': "2.0", "method": "m"}\n') == [{"jsonrpc": "2.0", "method": "m"}]
    with pytest.raises(McpError):
        decoder.feed(b"noise noise\n" * 20)


@pytest.mark.parametrize("body, answer", [
    ('{"jsonrpc": "2.0", "id": 5, "result": {"a": 1}}', {"a": 1}),
    ('[{"jsonrpc": "2.0", "method": "n"}, {"jsonrpc": "2.0", "id": 5, "result": {}}]', {}),
    ('{"jsonrpc": "2.0", "id": null, "error": {"code": 1}}', None),
    ('{"jsonrpc": "2.0", "id": 6, "result": {}}', "none"),
    ('{"jsonrpc": "2.0", "id": true, "result": {}}', "none"),
    ('{"id": 5, "result": {}}', "none"), ("[[[", "none"), ("[" * 5000, "none"), ("", "none"), ("7", "none"),
])  # fmt: skip
def test_the_answer_is_the_message_with_our_id(body: str, answer: Optional[Any]) -> None:
    reader = MessageReader(5, False, 10_000)
    reader.feed(body.encode())
    reader.close()
    assert (reader.answer.get("result") if reader.answer is not None else "none") == answer


@pytest.mark.parametrize("content, expected", [
    ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
    ([{"type": "resource", "resource": {"uri": "file:///x", "text": "inside"}}], "inside"),
    ([{"type": "resource", "resource": {"uri": "file:///x", "blob": "A"}}], "[resource file:///x, not text]"),
    ([{"type": "resource_link", "name": "n", "uri": "https://x/"}], "[resource n: https://x/]"),
    ([{"type": "audio", "data": "AA==", "mimeType": "audio/wav"}], "[audio, audio/wav]"),
    ([{"type": "image", "data": "AA==", "mimeType": "image/png"}], "[image, image/png]"),
    ([7, None], EMPTY), (None, EMPTY), ("text", EMPTY), ([{"type": "text", "text": "\ud800"}], "\ufffd"),
])  # fmt: skip
def test_results_as_text(content: Any, expected: str) -> None:
    assert read_result({"content": content}, 1000).text == expected


@pytest.mark.parametrize(
    "ttl, seconds", [(600_000, 600.0), (10**400, 3600.0), (-1, 0.0), (None, 300.0), (True, 300.0)]
)
def test_how_long_a_list_may_be_used(ttl: Any, seconds: float) -> None:
    steps = tools(Peer(era="modern"))
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.send(Reply({"result": {"tools": [], "ttlMs": ttl}}))
    assert stop.value.value == Listed([], seconds)


def test_the_default_port_makes_no_other_origin() -> None:
    assert origin("https://a.example/sse") == origin("https://a.example:443/messages")
    assert origin("https://a.example") != origin("http://a.example:443")


def test_the_pure_part_loads_nothing_that_does_input_or_output() -> None:
    import subprocess

    code = (
        "import sys, rproxy.hosted.mcp.protocol, rproxy.hosted.mcp.results;"
        "print(sorted({'asyncio', 'ssl', 'socket', 'tornado', 'subprocess'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
