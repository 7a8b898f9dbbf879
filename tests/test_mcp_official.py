"""rproxy's MCP client with servers of the official package ``mcp``: the newest, and one of the former era.

The newest is the one in the tests' own venv; ``$RPROXY_OLD_MCP`` names a Python that has an older one (mcp
1.12.4, which speaks 2025-06-18).  Without them the tests are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Tuple

import pytest
from tornado.testing import bind_unused_port

from rproxy.config.mcp_schema import McpServer
from rproxy.hosted.mcp.messages import McpError
from rproxy.hosted.mcp.servers import McpServers
from rproxy.upstream.client import Upstream

SCRIPT = str(Path(__file__).with_name("mcp_official.py"))
PYTHONS = {"newest": sys.executable, "old": os.environ.get("RPROXY_OLD_MCP", "")}
HTTP: Dict[str, Dict[str, Any]] = {
    "sessions": {},
    "json": {"json_response": True},
    "stateless": {"stateless_http": True},
}
MODES = ["stdio", "sse", *HTTP]


@cache
def has_mcp(python: str) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('mcp') is None)"
    return bool(python) and subprocess.run([python, "-c", code]).returncode == 0


def command(python: str, mode: str, port: int) -> Tuple[str, ...]:
    transport = "streamable-http" if mode in HTTP else mode
    return (python, SCRIPT, transport, str(port), json.dumps(HTTP.get(mode, {})))


@contextlib.asynccontextmanager
async def official(python: str, mode: str) -> AsyncIterator[McpServer]:
    """A server that runs, or is started by our client."""
    if mode == "stdio":
        yield McpServer(command=command(python, mode, 0), name="official")
        return
    sock, port = bind_unused_port()
    sock.close()
    process = await asyncio.create_subprocess_exec(*command(python, mode, port), stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        path = "sse" if mode == "sse" else "mcp"
        yield McpServer(url=f"http://127.0.0.1:{port}/{path}", name="official")
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("release", PYTHONS)
async def test_official_servers(release: str, mode: str) -> None:
    python = PYTHONS[release]
    if not has_mcp(python):
        pytest.skip(
            "no package mcp here"
            if release == "newest"
            else "$RPROXY_OLD_MCP names no Python with an old mcp"
        )
    upstream = Upstream()
    servers = McpServers(upstream)
    try:
        async with official(python, mode) as server:
            tools = {tool["name"]: tool for tool in await servers.tools(server, "o")}
            assert list(tools) == ["add", "fail", "picture", "slow"]
            assert tools["add"]["inputSchema"]["required"] == ["a", "b"]

            async def call(name: str, **arguments: Any) -> Any:
                return await servers.call(server, "o", tools[name], arguments)

            assert (await call("add", a=20, b=22)).text == "42"
            results = await asyncio.gather(*(call("add", a=n, b=0) for n in range(5)))
            assert [result.text for result in results] == list("01234")
            assert (await call("slow")).text == "done"
            failure = await call("fail")
            assert failure.failed and "Error executing tool fail" in failure.text
            assert (await call("add", a="x")).failed
            assert (await call("picture")).text == "[image, image/png]"
            with contextlib.suppress(McpError):  # which of the two it is depends on the release
                assert (await servers.call(server, "o", {"name": "nope"}, {})).failed
            await servers.close()
    finally:
        await servers.close()
        upstream.close()
