"""The real Codex CLI on rproxy: `CODEX_BIN` names its native binary; without it these tests are skipped."""
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any, Dict, List

import pytest
from scripted import ScriptedProvider, call, error, running, say, think

Json = Dict[str, Any]
CODEX = os.environ.get("CODEX_BIN", "")
pytestmark = [pytest.mark.skipif(not CODEX, reason="CODEX_BIN is not set"), pytest.mark.timeout(seconds=90)]

QUIET = ("features.plugins=false", "features.apps=false", "analytics.enabled=false", "check_for_update_on_startup=false")


class Run:
    """What one `codex exec --json` said."""

    def __init__(self, code: int, lines: List[str], stderr: str) -> None:
        self.code, self.stderr = code, stderr
        self.events: List[Json] = [json.loads(line) for line in lines if line.startswith("{")]

    def items(self, kind: str) -> List[Json]:
        return [e["item"] for e in self.events if e["type"] == "item.completed" and e["item"]["type"] == kind]

    @property
    def usage(self) -> Json:
        return next(e["usage"] for e in self.events if e["type"] == "turn.completed")

    @property
    def errors(self) -> str:
        return "\n".join(e.get("message", "") for e in self.events if e["type"] == "error")


async def codex(folder: Path, base_url: str, prompt: str, *, ws: bool, model: str = "gpt-5.5") -> Run:
    for name in ("home", "tmp", "work"):
        (folder / name).mkdir(exist_ok=True)
    provider = ('{name="rproxy",base_url="%s",wire_api="responses",env_key="RP_KEY",supports_websockets=%s,'
                'request_max_retries=0,stream_max_retries=0,stream_idle_timeout_ms=20000}' % (base_url, str(ws).lower()))
    settings = ('model_provider="rp"', "model_providers.rp=" + provider) + QUIET
    argv = ["exec", "--ignore-user-config", "--ephemeral", "--skip-git-repo-check", "--json", "--color", "never", "-C", str(folder / "work"), "-m", model]
    for setting in settings:
        argv += ["-c", setting]
    env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    env.update(CODEX_HOME=str(folder / "home"), HOME=str(folder / "home"), TMPDIR=str(folder / "tmp"), RP_KEY="any")
    process = await asyncio.create_subprocess_exec(CODEX, *argv, "--dangerously-bypass-approvals-and-sandbox", prompt, env=env, start_new_session=True,
                                                   stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 24)
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return Run(process.returncode or 0, out.decode().splitlines(), err.decode())


@pytest.fixture(params=[False, True], ids=["http", "websocket"])
def ws(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_hello_with_visible_thinking_and_usage(tmp_path: Path, ws: bool) -> None:
    provider = ScriptedProvider()
    provider.turns += [[think("I greet."), say("Hello from the script.")]]
    async with running(tmp_path, provider.base_url) as rproxy:
        run = await codex(tmp_path, rproxy.base_url, "Say hello", ws=ws)
    assert run.code == 0, run.stderr
    assert [item["text"] for item in run.items("agent_message")] == ["Hello from the script."]
    assert [item["text"] for item in run.items("reasoning")] == ["I greet."]
    assert (run.usage["input_tokens"], run.usage["cached_input_tokens"], run.usage["output_tokens"]) == (30, 20, 12)
    assert provider.refusals == [] and len(provider.requests) == 1       # the warm-up of the WebSocket asked nobody
    await provider.close()


async def test_a_shell_loop_of_three_rounds_replays_the_thinking(tmp_path: Path, ws: bool) -> None:
    provider = ScriptedProvider()
    rounds = ["one", "two", "three"]
    provider.turns += [[think("Round %s." % n), call("exec_command", cmd="echo round-%s" % n)] for n in rounds] + [[think("Enough."), say("Done.")]]
    async with running(tmp_path, provider.base_url) as rproxy:
        run = await codex(tmp_path, rproxy.base_url, "Go on", ws=ws)
    assert run.code == 0, run.stderr
    assert [item["text"] for item in run.items("agent_message")] == ["Done."]
    assert ["round-%s" % n in item["aggregated_output"] for n, item in zip(rounds, run.items("command_execution"))] == [True] * 3
    assert provider.refusals == []
    last = provider.requests[-1]["messages"]
    assert [m["reasoning_content"] for m in last if m["role"] == "assistant"] == ["Round %s." % n for n in rounds]
    for earlier, later in zip(provider.requests, provider.requests[1:]):
        assert later["messages"][:len(earlier["messages"])] == earlier["messages"] and later["tools"] == earlier["tools"]
    await provider.close()


async def test_apply_patch_comes_back_as_the_freeform_tool_it_is(tmp_path: Path, ws: bool) -> None:
    provider = ScriptedProvider()
    patch = "*** Begin Patch\n*** Add File: hello.txt\n+hello\n+w\u00f6rld \U0001f600\n*** End Patch\n"
    provider.turns += [[think("A file."), call("apply_patch", input=patch)], [say("Written.")]]
    async with running(tmp_path, provider.base_url) as rproxy:
        run = await codex(tmp_path, rproxy.base_url, "Write it", ws=ws)
    assert run.code == 0, run.stderr
    assert (tmp_path / "work" / "hello.txt").read_text(encoding="utf-8") == "hello\nw\u00f6rld \U0001f600\n"
    assert provider.refusals == []
    await provider.close()


async def test_a_refused_key_costs_one_request_and_says_so(tmp_path: Path, ws: bool) -> None:
    provider = ScriptedProvider()
    provider.turns += [[error(401, "Authentication Fails (governor)")]]
    async with running(tmp_path, provider.base_url) as rproxy:
        run = await codex(tmp_path, rproxy.base_url, "Say hello", ws=ws)
    assert run.code == 1
    assert "Authentication Fails (governor)" in run.errors
    assert len(provider.requests) == 1
    await provider.close()


async def test_the_catalog_gives_codex_our_models_and_a_prompt(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    async with running(tmp_path, provider.base_url) as rproxy:
        (tmp_path / "home").mkdir()
        settings = ('model_provider="rp"', 'model_providers.rp={name="rproxy",base_url="%s",wire_api="responses",env_key="RP_KEY",model_catalog_url="%s/models"}'
                    % (rproxy.base_url, rproxy.base_url))
        argv = [part for setting in settings for part in ("-c", setting)]
        env = dict(os.environ, CODEX_HOME=str(tmp_path / "home"), HOME=str(tmp_path / "home"), RP_KEY="any")
        process = await asyncio.create_subprocess_exec(CODEX, "debug", "models", *argv, env=env, stdin=asyncio.subprocess.DEVNULL,
                                                       stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 24)
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    models = {model["slug"]: model for model in json.loads(out)["models"]}
    assert set(models) == {"gpt-5.5", "deepseek-v4-pro"}
    assert models["deepseek-v4-pro"]["apply_patch_tool_type"] == "freeform"
    assert len(models["deepseek-v4-pro"]["base_instructions"]) > 1000
    await provider.close()
