"""``/health`` and ``/ready``: what supervisors and balancers are told."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import pytest
from api import Api
from running_server import running_server
from scripted import CONFIG, ScriptedProvider, free_port, served

Json = Dict[str, Any]
Log = Callable[..., Any]


async def asked(api: Api, path: str = "/ready") -> Tuple[int, Json]:
    status, body = await api.raw("GET", path)
    return status, json.loads(body)


@pytest.mark.parametrize("path", ["/health", "/ready", "/ready?for=balancer", "/v1/ready/"])
async def test_they_are_open_to_everybody(path: str) -> None:
    for keys in (["k"], None):
        async with running_server(keys=keys) as e:
            for method in ("GET", "HEAD"):
                answer = await e.fetch(path, method=method, headers={"Host": "anything.example"})
                assert answer.code == 200
                assert method == "HEAD" or json.loads(answer.body) == {"status": "ok"}
            assert (await e.fetch(path, b"{}")).code == 405


async def test_a_model_whose_providers_all_cool_down() -> None:
    async with running_server(retries=0) as e:
        answer = await e.fetch("/v1/responses", {"model": "m", "input": "refuse"})
        assert answer.code == 429
        for path, status in (("/ready", 503), ("/ready?for=balancer", 200), ("/health", 200)):
            assert (await e.fetch(path)).code == status
        told = (await e.fetch("/ready")).body.decode()
        assert json.loads(told)["status"] == "providers" and "lab" not in told and "127.0.0.1" not in told


async def test_a_model_with_another_provider_is_ready() -> None:
    provider = ScriptedProvider()
    provider.aside = lambda body: [{"status": 500, "headers": {}, "body": {}}]
    one, other = (
        f"{{name: {name}, base_url: '{provider.base_url}', api_key: $SCRIPTED_KEY}}" for name in "ab"
    )
    both = f"[{one}, {other}]"
    config = CONFIG[: CONFIG.index("models:")] + "models: [{{model: m, provider: PROVIDERS}}]\n"
    for providers, status in ((both, 200), (one, 503)):
        text = config.replace("PROVIDERS", providers.replace("{", "{{").replace("}", "}}"))
        answered = 0

        def aside(body: Json) -> Any:
            nonlocal answered
            answered += 1
            return [{"status": 500, "headers": {}, "body": {}}] if answered == 1 else None

        provider.aside = aside
        async with served(provider.base_url, server="  retries: 0\n", config=text) as base_url:
            api = Api(base_url)
            await api.raw("POST", "/responses", {"model": "m", "input": "hi"})
            assert (await asked(api))[0] == status
    await provider.close()


async def test_an_sqlite_file_that_is_out_of_reach(tmp_path: Path, expect_log: Log) -> None:
    expect_log("rproxy.ready: not ready: .*sqlite")
    folder = tmp_path / "kept"
    config = CONFIG + f"store: {{{{kind: sqlite, path: '{folder}/responses.db'}}}}\n"
    async with served("http://127.0.0.1:1", config=config) as base_url:
        api = Api(base_url)
        assert await asked(api) == (200, {"status": "ok"})
        folder.rename(tmp_path / "moved")
        folder.write_text("in the way")
        await reached(api, 503)
        status, told = await asked(api)
        assert (status, told["status"]) == (503, "store") and str(tmp_path) not in json.dumps(told)
        assert (await asked(api, "/ready?for=balancer"))[0] == 200
        folder.unlink()
        (tmp_path / "moved").rename(folder)
        await reached(api, 200)


async def reached(api: Api, status: int) -> None:
    for _ in range(200):
        if (await asked(api))[0] == status:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never {status}")


async def test_redis_is_asked_once_a_second_by_however_many(expect_log: Log) -> None:
    pytest.importorskip("redis")
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("there is no redis-server")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(str(binary), *options)
        for _ in range(200):
            if await lookups(port) is not None:
                return process
            await asyncio.sleep(0.05)
        raise AssertionError("Redis does not start")

    expect_log("rproxy.ready: not ready: .*redis")
    redis = await start()
    config = CONFIG + f"store: {{{{kind: redis, url: 'redis://127.0.0.1:{port}/0'}}}}\n"
    async with served("http://127.0.0.1:1", config=config) as base_url:
        apis = [Api(base_url) for _ in range(40)]
        for _ in range(2):
            assert {status for status, _ in await asyncio.gather(*map(asked, apis))} == {200}
        asked_for = await lookups(port)
        assert asked_for is not None and 1 <= asked_for < 10
        redis.terminate()
        await redis.wait()
        await reached(apis[0], 503)
        assert (await asked(apis[0]))[1]["status"] == "store"
        redis = await start()
        await reached(apis[0], 200)
    redis.terminate()
    await redis.wait()


async def lookups(port: int) -> Any:
    """How often Redis was asked for a record; None while it does not answer."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    writer.write(b"INFO commandstats\r\n")
    size = int((await reader.readline())[1:])
    stats = (await reader.readexactly(size)).decode()
    writer.close()
    found = [line for line in stats.splitlines() if line.startswith("cmdstat_get:calls=")]
    return int(found[0].split("=")[1].split(",")[0]) if found else 0
