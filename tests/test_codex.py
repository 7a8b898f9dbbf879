"""The real Codex CLI on rproxy: `CODEX_BIN` names its native binary; without it these tests are skipped."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, AsyncIterator, Dict, List, Optional, Sequence, Tuple

import pytest
from scripted import ScriptedProvider, call, error, running, say, think, tokens

Json = Dict[str, Any]
CODEX = os.environ.get("CODEX_BIN", "")
pytestmark = [pytest.mark.skipif(not CODEX, reason="CODEX_BIN is not set"), pytest.mark.timeout(seconds=90)]

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
MCP = 'mcp_servers.demo={{command="{}",args=["{}"]}}'.format(
    sys.executable, Path(__file__).with_name("mcp_demo.py")
)
QUIET = (
    "features.plugins=false",
    "features.apps=false",
    "analytics.enabled=false",
    "check_for_update_on_startup=false",
)


class Run:
    """What one `codex exec --json` said."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr
        self.events: List[Json] = [
            json.loads(line) for line in stdout.splitlines() if line.startswith('{"type"')
        ]

    def items(self, kind: str) -> List[Json]:
        return [e["item"] for e in self.events if e["type"] == "item.completed" and e["item"]["type"] == kind]

    @property
    def said(self) -> List[str]:
        return [str(item["text"]) for item in self.items("agent_message")]

    @property
    def usage(self) -> Json:
        return next(e["usage"] for e in self.events if e["type"] == "turn.completed")

    @property
    def errors(self) -> str:
        return "\n".join(e.get("message", "") for e in self.events if e["type"] == "error")


async def codex(
    folder: Path,
    base_url: str,
    prompt: str,
    *,
    ws: bool,
    model: str = "gpt-5.5",
    command: Sequence[str] = ("exec",),
    args: Sequence[str] = (),
    settings: Sequence[str] = (),
    provider: str = "",
) -> Run:
    """Run Codex in ``folder``/work.

    ``settings``: further ``-c`` settings; ``provider``: further keys of the provider's inline table
    """
    for name in ("home", "tmp", "work"):
        (folder / name).mkdir(exist_ok=True)
    table = (
        f'{{name="rproxy",base_url="{base_url}",wire_api="responses",env_key="RP_KEY",supports_websockets={str(ws).lower()},'
        f"request_max_retries=0,stream_max_retries=0,stream_idle_timeout_ms=20000{provider}}}"
    )
    argv = [
        *command[:1],
        "--ignore-user-config",
        "--skip-git-repo-check",
        "--json",
        "--color",
        "never",
        "-C",
        str(folder / "work"),
        *(("-m", model) if model else ()),
    ]
    for setting in ('model_provider="rp"', "model_providers.rp=" + table, *QUIET, *settings):
        argv += ["-c", setting]
    argv += ["--dangerously-bypass-approvals-and-sandbox", *args, *command[1:]]
    return await started(folder, [*argv, prompt] if prompt else argv)


async def started(folder: Path, argv: Sequence[str]) -> Run:
    env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    env.update(
        CODEX_HOME=str(folder / "home"), HOME=str(folder / "home"), TMPDIR=str(folder / "tmp"), RP_KEY="any"
    )
    process = await asyncio.create_subprocess_exec(
        CODEX,
        *argv,
        env=env,
        start_new_session=True,
        cwd=str(folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return Run(process.returncode or 0, out.decode(), err.decode())


@contextlib.asynccontextmanager
async def lab(folder: Path, *turns: List[Json]) -> AsyncIterator[Tuple[ScriptedProvider, str]]:
    """A provider that plays ``turns``, and rproxy as a process in front of it."""
    provider = ScriptedProvider()
    provider.turns += turns
    try:
        async with running(folder, provider.base_url) as rproxy:
            yield provider, rproxy.base_url
    finally:
        await provider.close()
    assert provider.refusals == []


def offered(request: Json) -> List[str]:
    return [tool["function"]["name"] for tool in request.get("tools", ())]


def stable(requests: List[Json]) -> None:
    """Each request begins with the one before it: the provider's cache lives on that."""
    for earlier, later in zip(requests, requests[1:]):
        assert (
            later["messages"][: len(earlier["messages"])] == earlier["messages"]
            and later["tools"] == earlier["tools"]
        )


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
    assert (run.usage["input_tokens"], run.usage["cached_input_tokens"], run.usage["output_tokens"]) == (
        30,
        20,
        12,
    )
    assert (
        provider.refusals == [] and len(provider.requests) == 1
    )  # the warm-up of the WebSocket asked nobody
    await provider.close()


async def test_a_shell_loop_of_three_rounds_replays_the_thinking(tmp_path: Path, ws: bool) -> None:
    provider = ScriptedProvider()
    rounds = ["one", "two", "three"]
    provider.turns += [[think(f"Round {n}."), call("exec_command", cmd=f"echo round-{n}")] for n in rounds]
    provider.turns += [[think("Enough."), say("Done.")]]
    async with running(tmp_path, provider.base_url) as rproxy:
        run = await codex(tmp_path, rproxy.base_url, "Go on", ws=ws)
    assert run.code == 0, run.stderr
    assert [item["text"] for item in run.items("agent_message")] == ["Done."]
    assert [
        f"round-{n}" in item["aggregated_output"] for n, item in zip(rounds, run.items("command_execution"))
    ] == [True] * 3
    assert provider.refusals == []
    last = provider.requests[-1]["messages"]
    assert [m["reasoning_content"] for m in last if m["role"] == "assistant"] == [
        f"Round {n}." for n in rounds
    ]
    for earlier, later in zip(provider.requests, provider.requests[1:]):
        assert (
            later["messages"][: len(earlier["messages"])] == earlier["messages"]
            and later["tools"] == earlier["tools"]
        )
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


# ---- loops


async def test_thirty_rounds(tmp_path: Path, ws: bool) -> None:
    rounds = [[think(f"Round {i}."), call("exec_command", cmd=f"echo r{i}")] for i in range(30)]
    async with lab(tmp_path, *rounds, [say("Enough.")]) as (provider, url):
        run = await codex(tmp_path, url, "Go on", ws=ws)
    assert (run.code, run.said) == (0, ["Enough."]), run.stderr
    assert [
        i for i, item in enumerate(run.items("command_execution")) if f"r{i}" in item["aggregated_output"]
    ] == list(range(30))
    stable(provider.requests)


async def test_code_mode_keeps_its_tools_on_a_chain(tmp_path: Path, ws: bool) -> None:
    """The default model, which is not configured: its tools come once, in an item, and its `exec` takes
    JavaScript.
    """
    script = "text((await tools.exec_command({cmd: 'echo from-%s'})).output)"
    turns = [
        [think("1"), call("exec", input=script % "one")],
        [think("2"), call("exec", input=script % "two")],
        [say("Coded.")],
    ]
    async with lab(tmp_path, *turns) as (provider, url):
        run = await codex(tmp_path, url, "Go on", ws=ws, model="gpt-6.1-sol")
    assert (run.code, run.said) == (0, ["Coded."]), run.stderr
    assert [item["aggregated_output"].strip() for item in run.items("command_execution")] == [
        "from-one",
        "from-two",
    ]
    assert all("exec" in offered(request) for request in provider.requests)
    stable(provider.requests)


async def test_mcp_tools_by_their_namespace(tmp_path: Path, ws: bool) -> None:
    def add(body: Json) -> Optional[List[Json]]:
        name = next(name for name in offered(body) if name.endswith("add"))
        return [think("Add."), call(name, a=3, b=4)] if body["messages"][-1]["role"] == "user" else None

    async with lab(tmp_path, [say("Seven.")]) as (provider, url):
        provider.aside = add
        run = await codex(tmp_path, url, "Add them", ws=ws, model="deepseek-v4-pro", settings=[MCP])
    assert (run.code, run.said) == (0, ["Seven."]), run.stderr
    assert [(item["tool"], item["status"]) for item in run.items("mcp_tool_call")] == [("add", "completed")]
    assert "add says 7" in provider.requests[-1]["messages"][-1]["content"]


async def test_mcp_tools_behind_tool_search(tmp_path: Path, ws: bool) -> None:
    def add(body: Json) -> Optional[List[Json]]:
        found = [name for name in offered(body) if name.endswith("add")]
        return (
            [think("Found."), call(found[0], a=3, b=4)]
            if found and "add says" not in json.dumps(body)
            else None
        )

    async with lab(
        tmp_path, [think("Search."), call("tool_search", query="add numbers")], [say("Seven.")]
    ) as (provider, url):
        provider.aside = add
        run = await codex(tmp_path, url, "Add them", ws=ws, settings=[MCP])
    assert (run.code, run.said) == (0, ["Seven."]), run.stderr
    first, second, third = (set(offered(request)) for request in provider.requests)
    assert len(second - first) == 1 and third == second
    assert "add says 7" in provider.requests[-1]["messages"][-1]["content"]


async def test_sub_agents_in_parallel(tmp_path: Path, ws: bool) -> None:
    def sub(body: Json) -> Optional[List[Json]]:
        if any("spawn_agent" in json.dumps(m.get("tool_calls")) for m in body["messages"]):
            return None
        task = next(
            (
                m["content"][-1]
                for m in reversed(body["messages"])
                if m["role"] == "user" and "SUBTASK" in m["content"]
            ),
            None,
        )
        done = body["messages"][-1]["role"] == "tool"
        return task and (
            [say(f"Result {task}.")]
            if done
            else [think("sub"), call("exec_command", cmd="sleep 0.2; echo " + task)]
        )

    def wait_for(body: Json) -> Optional[List[Json]]:
        ids = re.findall(r'agent_id\\*":\s*\\*"([^"\\]+)', json.dumps(body["messages"]))
        done = {letter for letter in "AB" if f"Result {letter}." in json.dumps(body["messages"])}
        spawn, wait = (
            next(n for n in offered(body) if n.endswith(name)) for name in ("spawn_agent", "wait_agent")
        )
        if not ids:
            return [
                think("Two."),
                call(spawn, "c1", message="SUBTASK A"),
                call(spawn, "c2", 1, message="SUBTASK B"),
            ]
        return None if len(done) == 2 else [think("Wait."), call(wait, targets=ids, timeout_ms=10000)]

    async with lab(tmp_path, [say("All done.")]) as (provider, url):
        provider.aside = lambda body: sub(body) or wait_for(body)
        run = await codex(tmp_path, url, "Delegate", ws=ws, model="deepseek-v4-pro")
    assert (run.code, run.said[-1]) == (0, "All done."), run.stderr
    assert 7 <= len(provider.requests) <= 9  # each agent asks twice; the results come together or one by one


# ---- sessions


async def test_compaction_by_us_and_going_on(tmp_path: Path, ws: bool) -> None:
    def summary(body: Json) -> Optional[List[Json]]:
        asked = (
            re.search("(?i)summar|hand-?off|compact", body["messages"][-1]["content"])
            and body["messages"][-1]["role"] == "user"
        )
        return (
            [think("Sum."), say("MARKER: echo one was run.")]
            if asked and "MARKER" not in json.dumps(body)
            else None
        )

    turns = [
        [think("w"), call("exec_command", cmd="echo one"), tokens(300_000)],
        [think("d"), say("Done after it.")],
    ]
    async with lab(tmp_path, *turns) as (provider, url):
        provider.aside = summary
        run = await codex(tmp_path, url, "run it", ws=ws, provider=',capabilities={remote_compaction="v2"}')
    assert (run.code, run.said) == (0, ["Done after it."]), run.stderr
    after = json.dumps(provider.requests[-1]["messages"])
    assert len(provider.requests) == 3 and "MARKER: echo one was run." in after and "run it" in after


async def test_resume_after_a_restart(tmp_path: Path, ws: bool) -> None:
    async with lab(
        tmp_path, [think("Before."), call("exec_command", cmd="echo first-run")], [say("First.")]
    ) as (provider, url):
        await codex(tmp_path, url, "first question", ws=ws)
    async with lab(tmp_path, [say("Second.")]) as (provider, url):
        run = await codex(tmp_path, url, "second question", ws=ws, command=("exec", "resume", "--last"))
    assert (run.code, run.said) == (0, ["Second."]), run.stderr
    messages = provider.requests[0]["messages"]
    assert [m["reasoning_content"] for m in messages if m.get("tool_calls")] == ["Before."]
    assert (
        any(m["role"] == "tool" and "first-run" in m["content"] for m in messages)
        and messages[-1]["content"] == "second question"
    )


# ---- forms of input and output


async def test_an_image_for_a_model_that_cannot_see(tmp_path: Path) -> None:
    (tmp_path / "px.png").write_bytes(PNG)
    async with lab(tmp_path, [say("I see none.")]) as (provider, url):
        run = await codex(
            tmp_path, url, "", ws=True, args=["-i", str(tmp_path / "px.png"), "--", "look at this"]
        )
    assert (run.code, run.said) == (0, ["I see none."]), run.stderr
    asked = json.dumps(provider.requests[0])
    assert "image_url" not in asked and "iVBORw0" not in asked and "look at this" in asked


async def test_output_schema(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    async with lab(tmp_path, [think("t"), say('```json\n{"answer":"42"}\n```')]) as (provider, url):
        run = await codex(
            tmp_path, url, "Answer", ws=False, args=["--output-schema", str(tmp_path / "schema.json")]
        )
    assert (run.code, [json.loads(text) for text in run.said]) == (0, [{"answer": "42"}]), run.stderr
    asked = provider.requests[0]
    assert asked["response_format"] == {"type": "json_object"} and '"answer"' in json.dumps(
        asked["messages"]
    ).replace("\\", "")


async def test_review(tmp_path: Path) -> None:
    findings = {
        "findings": [
            {
                "title": "[P1] Bad",
                "body": "It is bad",
                "confidence_score": 0.9,
                "priority": 1,
                "code_location": {"absolute_file_path": "/a.txt", "line_range": {"start": 1, "end": 2}},
            }
        ],
        "overall_correctness": "patch is incorrect",
        "overall_explanation": "because",
        "overall_confidence_score": 0.8,
    }
    (tmp_path / "work").mkdir()
    git = (
        "git init -q . && git -c user.email=a@b -c user.name=n commit -q --allow-empty -m i && echo b > a.txt"
    )
    assert await (await asyncio.create_subprocess_shell(git, cwd=tmp_path / "work")).wait() == 0
    async with lab(
        tmp_path, [think("r"), call("exec_command", cmd="cat a.txt")], [say(json.dumps(findings))]
    ) as (provider, url):
        run = await codex(tmp_path, url, "", ws=True, command=("exec", "review", "--uncommitted"))
    assert run.code == 0 and "[P1] Bad" in run.said[-1], run.stderr


# ---- the catalog


async def test_the_catalog_gives_codex_our_models_and_a_prompt(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    async with running(tmp_path, provider.base_url) as rproxy:
        (tmp_path / "home").mkdir()
        url = rproxy.base_url
        table = f'name="rproxy",base_url="{url}",wire_api="responses",env_key="RP_KEY"'
        settings = ('model_provider="rp"', f'model_providers.rp={{{table},model_catalog_url="{url}/models"}}')
        run = await started(
            tmp_path, ["debug", "models", *(part for setting in settings for part in ("-c", setting))]
        )
    models = {model["slug"]: model for model in json.loads(run.stdout)["models"]}
    assert set(models) == {"gpt-5.5", "deepseek-v4-pro"}
    assert models["deepseek-v4-pro"]["apply_patch_tool_type"] == "freeform"
    assert len(models["deepseek-v4-pro"]["base_instructions"]) > 1000
    await provider.close()


async def test_the_catalog_alone_is_enough_for_a_turn(tmp_path: Path) -> None:
    """No model is named: Codex takes the first of the catalog, with its effort, its prompt and its tools, and
    warns of nothing.
    """
    async with lab(tmp_path, [think("t"), say("Hello.")]) as (provider, url):
        run = await codex(
            tmp_path, url, "Say hello", ws=False, model="", provider=f',model_catalog_url="{url}/models"'
        )
    assert (run.code, run.said, run.items("error")) == (0, ["Hello."], []), run.stderr
    asked = provider.requests[0]
    assert (
        asked["messages"][0]["content"].startswith("You are a coding agent.")
        and asked["reasoning_effort"] == "high"
    )
    assert {"exec_command", "apply_patch", "tool_search"} <= set(
        offered(asked)
    ) and "web_search" not in offered(asked)


@pytest.mark.parametrize("ws", [False, True])
async def test_a_day_without_tokens_is_told_at_once(tmp_path: Path, ws: bool) -> None:
    """Codex shows the sentence, and neither waits for midnight nor asks again."""
    provider = ScriptedProvider()
    provider.turns += [[say("One.")], [say("Two.")]]
    auth = "  auth: {keys: [{name: ann, key: any, tokens_per_day: 1}]}\n"
    try:
        async with running(tmp_path, provider.base_url, auth) as rproxy:
            assert (await codex(tmp_path, rproxy.base_url, "one", ws=ws)).said == ["One."]
            refused = await codex(tmp_path, rproxy.base_url, "two", ws=ws)
            assert refused.code == 1 and "'ann' has reached its limit of 1 tokens a day" in refused.errors
            assert len(provider.requests) == 1
            assert rproxy.log.read_text().count("tokens_per_day") == 1
    finally:
        await provider.close()
