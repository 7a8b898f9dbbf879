"""Checks of our own for frameworks that no judge knows: what they get, and what the provider is asked."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, List

from judges import Result
from mcp_double import mcp_double
from scripted import ScriptedProvider, call, running, say, think
from search_services import search_services

Json = Dict[str, Any]
HERE = Path(__file__).resolve().parent
CLIENT_TIME = 120  # seconds
MODEL = "gpt-5.5"
# The clients print "ok" and the step.
STEPS = (
    "turn",
    "stream",
    "tool round",
    "second turn",
    "search",
    "second turn after a search",
    "MCP server",
    "second turn after an MCP server",
)
REQUESTS = 11
SECOND_TURNS = (4, 7, 10)  # the requests that must hold a whole conversation
CONFIG = """
server:
  listen_addr: "127.0.0.1:{port}"
{server}models:
  - model: "*"
    downstream_model: deepseek-v4-pro
    provider: {{base_url: "{base_url}", api_key: $SCRIPTED_KEY, profile: deepseek}}
search: {{kind: searxng, url: "SEARCH"}}
mcp_servers: {{docs: {{url: "MCP"}}}}
"""


async def check_framework(python: Path, script: str) -> Result:
    """Run a client in front of rproxy and a provider that is as strict as DeepSeek.

    :param python: that of the environment with the framework
    :param script: its file here
    """
    provider = ScriptedProvider()
    provider.turns += [
        [say("Hello.")],
        [say("one "), say("two "), say("three")],
        [think("Look it up."), call("get_weather", "call_1", city="Oslo")],
        [say("It is cold.")],
        [say("Colder.")],
        [think("Search."), call("web_search", "call_2", query="news")],
        [say("Found.")],
        [say("Yes.")],
        [think("Ask."), call("docs__echo", "call_3", text="hi")],
        [say("It says hi.")],
        [say("Yes.")],
    ]
    try:
        with tempfile.TemporaryDirectory(prefix="rproxy-newest-") as folder:
            async with search_services() as services, mcp_double() as docs:
                config = CONFIG.replace("SEARCH", services.url).replace("MCP", docs.url)
                async with running(Path(folder), provider.base_url, "  retries: 0\n", config) as rproxy:
                    output, errors = await _client(python, HERE / script, rproxy.base_url, MODEL, docs.url)
    finally:
        await provider.close()
    done = [step for step in STEPS if f"ok {step}" in output.splitlines()]
    notes = [f"FAIL {script}: {line}" for line in errors.strip().splitlines()[-1:] if len(done) < len(STEPS)]
    wrong = [f"FAIL {script}, the provider: {text}" for text in wrong_requests(provider)]
    return Result(len(done), len(STEPS) - len(done) + len(wrong), (*notes, *wrong))


async def _client(python: Path, script: Path, *arguments: str) -> List[str]:
    """:returns: what it wrote to stdout and stderr"""
    environ = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(script),
        *arguments,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        found = await asyncio.wait_for(process.communicate(), CLIENT_TIME)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        return ["", f"no end within {CLIENT_TIME} s"]
    return [text.decode("utf-8", "replace") for text in found]


def wrong_requests(provider: ScriptedProvider) -> List[str]:
    """What is wrong with what the provider was asked: second turns must hold the whole conversation."""
    wrong = [f"it refused: {text}" for text in provider.refusals]
    if len(provider.requests) != REQUESTS:
        return [*wrong, f"{len(provider.requests)} requests instead of {REQUESTS}"]
    for number in SECOND_TURNS:
        roles = [message["role"] for message in provider.requests[number]["messages"]]
        if roles != ["user", "assistant", "tool", "assistant", "user"]:
            wrong.append(f"a second turn holds {roles}")
    return wrong
