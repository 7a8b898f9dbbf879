"""Several processes of rproxy on one store: an sqlite file, a real Redis; behind a real nginx; and one that
is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Iterator, List, Tuple

import pytest
from api import Api
from forkserver import REAL
from grammar import check_sse
from rawserver import until
from scripted import (
    CONFIG,
    KEY,
    ROOT,
    Running,
    ScriptedProvider,
    free_port,
    gate,
    listening,
    running,
    say,
    served,
)

from rproxy.config.load import parse_config
from rproxy.service.background import LEASE
from rproxy.service.client import Client
from rproxy.service.service import Service
from rproxy.store import open_store
from rproxy.upstream.client import Upstream

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=90)

HI: Json = {"model": "gpt-5.5", "input": "hi"}
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream rproxy {{ {servers} }}
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://rproxy; proxy_http_version 1.1; proxy_buffering off;
    proxy_set_header Connection ""; proxy_set_header Host $http_host;
  }} }}
}}
"""


@pytest.fixture
def redis_url() -> Iterator[str]:
    pytest.importorskip("redis")
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("there is no redis-server")
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(port)
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait(10)


def wait_for(port: int) -> None:
    import socket

    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The store section of a configuration that two processes share."""
    if request.param == "redis":
        return f"store: {{{{kind: redis, url: '{request.getfixturevalue('redis_url')}'}}}}\n"
    return f"store: {{{{kind: sqlite, path: '{tmp_path / 'responses.db'}'}}}}\n"


@contextlib.asynccontextmanager
async def two(folder: Path, store: str) -> AsyncIterator[Tuple[ScriptedProvider, Running, Running]]:
    """A provider and two processes."""
    provider = ScriptedProvider()
    folders = [folder / "a", folder / "b"]
    for one in folders:
        one.mkdir()
    config = CONFIG + store
    async with (
        running(folders[0], provider.base_url, config=config) as a,
        running(folders[1], provider.base_url, config=config) as b,
    ):
        yield provider, a, b
    await provider.close()


async def test_two_processes_continue_each_other(tmp_path: Path, store: str) -> None:
    async with two(tmp_path, store) as (provider, a, b):
        one, other = Api(a.base_url), Api(b.base_url)
        may_end, never = asyncio.Event(), asyncio.Event()
        provider.turns += [
            [say("first")],
            [say("second")],
            [say("third")],
            [say("slow "), gate(may_end), say("end")],
            [say("x"), gate(never)],
        ]
        first = await one("POST", "/responses", HI)
        assert await other("GET", "/responses/" + first["id"]) == first
        second = await other("POST", "/responses", {**HI, "previous_response_id": first["id"]})
        await one("POST", "/responses", {**HI, "previous_response_id": second["id"]})
        assert [m["content"] for m in provider.requests[2]["messages"]] == [
            "hi",
            "first",
            "hi",
            "second",
            "hi",
        ]
        await other("DELETE", "/responses/" + first["id"])
        await one("GET", "/responses/" + first["id"], expect=404)
        # in the background of one, seen from the other
        running_ = await one("POST", "/responses", {**HI, "background": True})
        path = "/responses/" + running_["id"]
        assert (await other("GET", path))["status"] == "in_progress"
        following = asyncio.ensure_future(other.events("GET", path + "?stream=true"))
        may_end.set()
        events = await following
        assert events[-1]["type"] == "response.completed" and events[-1]["response"] == await one("GET", path)
        stuck = await one("POST", "/responses", {**HI, "background": True})
        await until(lambda: len(provider.requests) == 5)
        cancelled = await other("POST", f"/responses/{stuck['id']}/cancel", {})
        assert cancelled["status"] == "cancelled"
        assert (await one.until(stuck["id"], "cancelled"))["id"] == stuck["id"]
        assert (await other("GET", "/responses/" + stuck["id"]))[
            "status"
        ] == "cancelled" and provider.gone == 1


async def test_a_chain_ends_where_another_process_deletes_a_response(tmp_path: Path, store: str) -> None:
    async with two(tmp_path, store) as (provider, a, b):
        one, other = Api(a.base_url), Api(b.base_url)
        provider.turns += [[say("Well.")] for _ in range(8)]
        made: List[str] = []
        for number in range(6):
            more = {"previous_response_id": made[-1]} if made else {}
            made.append((await one("POST", "/responses", {**HI, "input": str(number), **more}))["id"])
        fork = await other("POST", "/responses", {**HI, "previous_response_id": made[2], "input": "fork"})
        said = [m["content"] for m in provider.requests[-1]["messages"]]
        assert said == ["0", "Well.", "1", "Well.", "2", "Well.", "fork"]
        await other("DELETE", "/responses/" + made[3])
        for api in (one, other):
            refused = await api("POST", "/responses", {**HI, "previous_response_id": made[5]}, expect=400)
            assert refused["code"] == "previous_response_not_found"
            assert (await api("GET", f"/responses/{made[5]}/input_items"))["data"][0]["content"][0][
                "text"
            ] == "5"
        last = await one("POST", "/responses", {**HI, "previous_response_id": fork["id"], "input": "on"})
        assert [m["content"] for m in provider.requests[-1]["messages"]] == [*said, "Well.", "on"]
        assert last["previous_response_id"] == fork["id"]


async def test_behind_nginx_with_both_alive(tmp_path: Path, store: str) -> None:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        pytest.skip("there is no nginx")
    async with two(tmp_path, store) as (provider, a, b):
        port = free_port()
        (tmp_path / "nginx.conf").write_text(
            NGINX.format(
                folder=tmp_path,
                port=port,
                servers=" ".join(f"server 127.0.0.1:{one.port};" for one in (a, b)),
            )
        )
        command = [binary, "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
        nginx = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            api = Api(f"http://127.0.0.1:{port}/v1")
            last, said = None, []
            for n in range(8):
                provider.turns += [[say(f"answer {n}")]]
                last = await api(
                    "POST",
                    "/responses",
                    {**HI, "input": f"{n}", **({"previous_response_id": last["id"]} if last else {})},
                )
                said += [f"{n}", f"answer {n}"]
                for _ in range(2):  # nginx takes turns: each process sees every kind of request
                    assert await api("GET", "/responses/" + last["id"]) == last
            assert [m["content"] for m in provider.requests[-1]["messages"]] == said[:-1]
            seen, received = asyncio.Event(), bytearray()

            def on_data(data: bytes) -> None:
                received.extend(data)
                if b'"delta":"a "' in received:  # nginx does not hold it back
                    seen.set()

            provider.turns += [[say("a "), gate(seen), say("b")]]
            status, _ = await api.raw("POST", "/responses", {**HI, "stream": True}, on_data)
            assert status == 200
            assert check_sse(bytes(received))["output"][0]["content"][0]["text"] == "a b"
            for one in (a, b):
                assert "turn " in one.log.read_text(), "a process never got a request"
        finally:
            nginx.terminate()
            await nginx.wait()


async def test_a_signal_while_the_store_gets_its_last_records_is_no_abrupt_end(tmp_path: Path) -> None:
    """The process has finished its turns, and closes its store, when the second SIGTERM comes."""
    code = """
import asyncio, os, signal, sys
from rproxy.cli.main import main
from rproxy.service.service import Service
close = Service.close
async def slow(self):
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.05)
    await close(self)
    print("closed", flush=True)
Service.close = slow
sys.exit(main(["serve", "--demo", "--listen", "127.0.0.1:0"]))
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=str(ROOT), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    process.terminate()
    rest, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0 and b"closed" in rest


async def test_kill_9_loses_no_response_that_was_acknowledged(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    provider.turns += [[say("x" * 2000)] for _ in range(2000)]
    store = f"store: {{{{kind: sqlite, path: '{tmp_path / 'r.db'}'}}}}\n"
    acknowledged: List[Json] = []
    for _ in range(3):
        port = free_port()
        (tmp_path / "c.yaml").write_text(
            (CONFIG + store).format(port=port, base_url=provider.base_url, server="")
        )
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "rproxy",
                "serve",
                "--config",
                str(tmp_path / "c.yaml"),
                cwd=str(ROOT),
                env=dict(os.environ, SCRIPTED_KEY=KEY),
                stdout=log,
                stderr=log,
            )
        await listening(port, process)
        stuck = await Api(f"http://127.0.0.1:{port}/v1")("POST", "/responses", {**HI, "background": True})
        acknowledged.append(stuck)

        async def many(port: int = port) -> None:
            api = Api(f"http://127.0.0.1:{port}/v1")
            while True:
                acknowledged.append(await api("POST", "/responses", HI))

        goal = len(acknowledged) + 40
        clients = [asyncio.ensure_future(many()) for _n in range(8)]
        await until(lambda goal=goal: len(acknowledged) >= goal, 15)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await asyncio.gather(*clients, return_exceptions=True)  # each has found its connection cut
    assert len(acknowledged) > 3 * 40
    async with running(tmp_path, provider.base_url, config=CONFIG + store) as proxy:
        api = Api(proxy.base_url)
        for response in acknowledged:
            found = await api("GET", "/responses/" + response["id"])
            assert found == response or response["background"]
    await provider.close()


async def test_a_background_response_whose_process_was_killed_fails_after_its_lease(
    tmp_path: Path, store: str
) -> None:
    provider, config = ScriptedProvider(), CONFIG + store
    provider.turns += [[say("x"), gate(asyncio.Event())]]
    with contextlib.suppress(ProcessLookupError):  # running() stops it once more
        async with running(tmp_path, provider.base_url, config=config, command=REAL) as proxy:
            made = await Api(proxy.base_url)("POST", "/responses", {**HI, "background": True})
            proxy.process.kill()
            await proxy.process.wait()
    async with running(tmp_path, provider.base_url, config=config) as proxy:
        api, more = Api(proxy.base_url), {**HI, "previous_response_id": made["id"]}
        assert (await api("GET", "/responses/" + made["id"]))["status"] == "in_progress"  # who knows?
        assert (await api("POST", "/responses", more, expect=400))["code"] == "response_not_completed"
    text = config.format(port=0, base_url=provider.base_url, server="")
    parsed = parse_config(text.encode(), "c.yaml", {"SCRIPTED_KEY": KEY})
    kept = parsed.store
    opened = open_store(kept.kind, kept.path, kept.url, max_responses=1000, max_bytes=1 << 28, ttl=3600.0)
    service = Service(
        parsed,
        Upstream(connect_timeout=1, first_byte_timeout=1, idle_timeout=1),
        opened,
        now=lambda: time.time() + LEASE,
    )
    lost = await service.retrieval.retrieve(made["id"], "")
    assert (lost["status"], lost["error"]["code"]) == ("failed", "server_error") and "died" in lost["error"][
        "message"
    ]
    assert [batch async for batch in service.retrieval.events(made["id"], -1, "")][-1][-1][
        "type"
    ] == "response.failed"
    assert await service.retrieval.cancel(made["id"], "") == lost
    provider.turns += [[say("again")]]  # it can be continued like any other that has failed
    again, _ = await service.create(more, Client(None, False, "json", "req_1", {}), None)
    assert again["status"] == "completed" and len(provider.requests[-1]["messages"]) == 2
    assert (await service.retrieval.delete(made["id"], ""))["deleted"]
    await service.close()
    await opened.close()
    await provider.close()


async def test_what_a_slow_store_has_not_got_yet_is_stored_before_the_process_ends(redis_url: str) -> None:
    provider, port = ScriptedProvider(), int(redis_url.split(":")[2].split("/", maxsplit=1)[0])
    provider.turns += [[say("one")]]
    config = CONFIG + f"store: {{{{kind: redis, url: '{redis_url}'}}}}\n"
    async with served(provider.base_url, config=config) as base_url:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"CLIENT PAUSE 3000 WRITE\r\n")
        assert await reader.readline() == b"+OK\r\n"
        made = await Api(base_url)("POST", "/responses", HI)  # the client does not wait for the store
        writer.write(b"EXISTS " + made["id"].encode() + b"\r\n")
        assert await reader.readline() == b":0\r\n"
        writer.close()
    async with served(provider.base_url, config=config) as base_url:
        assert await Api(base_url)("GET", "/responses/" + made["id"]) == made
    await provider.close()


async def test_a_broken_store_costs_a_warning_and_no_answer(tmp_path: Path, redis_url: str) -> None:
    provider = ScriptedProvider()
    provider.turns += [[say("one")], [say("two")], [say("three")]]
    store = f"store: {{{{kind: redis, url: 'redis://127.0.0.1:{free_port()}/0'}}}}\n"  # nobody listens there
    async with running(tmp_path, provider.base_url, config=CONFIG + store) as proxy:
        api = Api(proxy.base_url)
        began = time.perf_counter()
        made = await api("POST", "/responses", HI)
        assert (
            check_sse((await api.raw("POST", "/responses", {**HI, "stream": True}))[1])["status"]
            == "completed"
        )
        assert time.perf_counter() - began < 8 and "not stored" in proxy.log.read_text()
        assert (await api("GET", "/responses/" + made["id"], expect=503))["code"] == "server_error"
        assert "Retry-After".lower() in api.headers
        for more in (
            {"previous_response_id": made["id"]},
            {"input": [{"type": "item_reference", "id": made["output"][0]["id"]}]},
        ):
            told = await api(
                "POST", "/responses", {**HI, **more}, expect=503
            )  # a "not found" would make the client give it up
            assert "store" in told["message"] and int(api.headers["retry-after"]) >= 1
        await api("POST", "/conversations", {}, expect=503)
        gone = await api("POST", "/responses", {**HI, "background": True})
        assert (await api.until(gone["id"], "completed"))["output"][0]["content"][0]["text"] == "three"
    await provider.close()
