"""The demo provider: strict as DeepSeek, and a good sport in everything else."""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest
from tornado.httpclient import AsyncHTTPClient

from rproxy.cli.demo.rules import MISSING_OUTPUTS, MISSING_REASONING, STRAY_OUTPUT, refusal
from rproxy.cli.demo.script import instance, script
from rproxy.cli.demo.server import make_demo_app, serve_demo

SHELL = {
    "type": "function",
    "function": {
        "name": "exec_command",
        "parameters": {
            "type": "object",
            "properties": {"cmd": {"type": "string"}, "timeout": {"type": "integer"}},
            "required": ["cmd"],
        },
    },
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
OFF = {"type": "disabled"}


def user(text: str, **more: Any) -> Dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], **more}


def call(reasoning: Any = "hm", id: str = "c1") -> Dict[str, Any]:
    message = {
        "role": "assistant",
        "content": None,
        "reasoning_content": reasoning,
        "tool_calls": [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    return {k: v for k, v in message.items() if k == "content" or v is not None}


def output(text: Any = "done", id: str = "c1") -> Dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": text}


CODE = {
    "type": "function",
    "function": {
        "name": "exec",
        "description": "Run JavaScript code to orchestrate tool calls",
        "parameters": {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]},
    },
}
ASK = {"role": "user", "content": "hi"}
REFUSED = {
    "no object": ([], "expected an object"),
    "no model": ({"messages": [ASK]}, "missing field `model`"),
    "no messages": ({"model": "m"}, "missing field `messages`"),
    "empty messages": ({"model": "m", "messages": []}, "Empty input messages"),
    "developer role": (
        {"model": "m", "messages": [{"role": "developer", "content": "x"}]},
        "unknown variant `developer`",
    ),
    "lone surrogate": (user("\ud83d"), "Failed to parse the request body as JSON"),
    "null content": ({"model": "m", "messages": [{"role": "user", "content": None}]}, "expected a string"),
    "image": (
        user("x", messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
        "unknown variant `image_url`",
    ),
    "list in a tool message": (
        user("x", messages=[ASK, call(), output([{"type": "text", "text": "x"}])]),
        "expected a string",
    ),
    "nothing said": (
        user("x", messages=[ASK, {"role": "assistant", "content": None}, ASK]),
        "content or tool_calls must be set",
    ),
    "empty calls": (
        user("x", messages=[ASK, {"role": "assistant", "content": "x", "tool_calls": []}, ASK]),
        "empty array",
    ),
    "reasoning lost": (user("x", messages=[ASK, call(None), output()]), MISSING_REASONING),
    "reasoning null": (
        user("x", messages=[ASK, dict(call(), reasoning_content=None), output()]),
        MISSING_REASONING,
    ),
    "output missing": (user("x", messages=[ASK, call(), ASK]), MISSING_OUTPUTS),
    "output missing at the end": (user("x", messages=[ASK, call()]), MISSING_OUTPUTS),
    "output twice": (user("x", messages=[ASK, call(), output(), output()]), STRAY_OUTPUT),
    "output without call": (user("x", messages=[ASK, output()]), STRAY_OUTPUT),
    "assistant last": (user("x", messages=[ASK, {"role": "assistant", "content": "x"}]), "last message"),
    "no tools": (user("x", tools=[]), "Invalid 'tools'"),
    "too many tools": (user("x", tools=[SHELL] * 129), "Invalid 'tools'"),
    "custom tool": (user("x", tools=[{"type": "custom", "custom": {"name": "x"}}]), "expected `function`"),
    "dot in a name": (user("x", tools=[{"type": "function", "function": {"name": "a.b"}}]), "function.name"),
    "schema without type": (
        user("x", tools=[{"type": "function", "function": {"name": "a", "parameters": {}}}]),
        "Invalid schema",
    ),
    "same name twice": (user("x", tools=[SHELL, SHELL]), "unique"),
    "choice without tools": (user("x", tool_choice="auto"), "only allowed when 'tools'"),
    "choice while thinking": (
        user("x", tools=[SHELL], tool_choice="required"),
        "does not support this tool_choice",
    ),
    "unknown choice": (
        user("x", tools=[SHELL], tool_choice="any", thinking=OFF),
        "tool_choice: unknown variant",
    ),
    "json_schema": (user("json", response_format={"type": "json_schema"}), "unavailable now"),
    "json unmentioned": (user("x", response_format={"type": "json_object"}), "must contain the word 'json'"),
    "effort minimal": (user("x", reasoning_effort="minimal"), "unknown variant `minimal`"),
    "effort none": (user("x", reasoning_effort="none"), "unknown variant `none`"),
    "thinking unclear": (user("x", thinking={"type": "on"}), "thinking.type"),
    "temperature": (user("x", temperature=3), "temperature"),
    "max_tokens": (user("x", max_tokens=0), "max_tokens"),
    "stream_options alone": (user("x", stream_options={"include_usage": True}), "stream = true"),
    "wrong types deep inside": (user("x", tools=[{"type": "function", "function": 7}]), "invalid type"),
}
ACCEPTED = {
    "plain": user("hi"),
    "several parts": user(
        "x",
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        ],
    ),
    "tool loop": user(
        "x",
        messages=[ASK, call(), output(), call("", "c2"), output(id="c2")],
        tools=[SHELL],
        tool_choice="auto",
    ),
    "tool loop without thinking": user("x", messages=[ASK, call(None), output()], thinking=OFF),
    "forced without thinking": user(
        "x", tools=[SHELL], tool_choice={"type": "function", "function": {"name": "x"}}, thinking=OFF
    ),
    "json": user("as JSON please", response_format={"type": "json_object"}),
    "knobs": user(
        "x",
        temperature=0,
        top_p=1,
        max_tokens=10,
        reasoning_effort="high",
        stream=True,
        stream_options={"include_usage": True},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_deepseek_refuses(name: str) -> None:
    body, text = REFUSED[name]
    problem = refusal(body)
    assert problem is not None and text in problem


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts_what_deepseek_accepts(name: str) -> None:
    assert refusal(ACCEPTED[name]) is None


@pytest.mark.parametrize(
    "text, tools, name, arguments",
    [
        ("list the files", [WEATHER, SHELL], "exec_command", {"cmd": "ls"}),
        ("please run `git status`", [SHELL], "exec_command", {"cmd": "git status"}),
        (
            'run `echo "hi"`',
            [CODE],
            "exec",
            {"input": 'text((await tools.exec_command({cmd: "echo \\"hi\\""})).output)'},
        ),
        ("What is the weather in New York?", [SHELL, WEATHER], "get_weather", {"city": "New York"}),
        ("use get_weather", [SHELL, WEATHER], "get_weather", {"city": "use get_weather"}),
    ],
)
def test_calls_the_tool_that_is_asked_for(text: str, tools: List[Any], name: str, arguments: Any) -> None:
    said = script(user(text, tools=tools))
    assert (said.tool, json.loads("".join(said.arguments)), said.finish) == (name, arguments, "tool_calls")
    assert said.reasoning and not said.text


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tools": [WEATHER]},
        {"tools": [SHELL], "tool_choice": "none"},
        {
            "tools": [SHELL],
            "tool_choice": {"type": "function", "function": {"name": "gone"}},
            "thinking": OFF,
        },
    ],
)
def test_answers_when_no_tool_fits(more: Any) -> None:
    said = script(user("run the tests", **more))
    assert said.tool is None and "run the tests" in "".join(said.text)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_obeys_a_forced_choice(choice: Any) -> None:
    assert (
        script(user("hello", tools=[WEATHER, SHELL], tool_choice=choice, thinking=OFF)).tool == "get_weather"
    )


def test_commands_in_backticks_are_run_one_a_round() -> None:
    body = user("run `date`, then `ls`", tools=[SHELL])
    seen = []
    for n in range(3):
        said = script(body)
        if said.tool:
            seen.append(json.loads("".join(said.arguments))["cmd"])
            body["messages"] += [call(id=f"c{n}"), output(f"output {n}", f"c{n}")]
    assert seen == ["date", "ls"]
    assert "".join(said.text) == "The tool answered:\n\noutput 1"


def test_sums_json_and_switched_off_thinking() -> None:
    assert "".join(script(user("What is 2+2? Reply with just the number.")).text) == "4"
    assert json.loads("".join(script(user("json: 3*4", response_format={"type": "json_object"})).text)) == {
        "answer": "12"
    }
    assert not script(user("2+2", thinking=OFF)).reasoning
    form = {
        "type": "object",
        "properties": {"sum": {"type": "string"}, "sure": {"type": "boolean"}},
        "required": ["sum", "sure"],
    }
    for told, expected in ((json.dumps(form), {"sum": "4", "sure": False}), ("none", {"answer": "4"})):
        asked = user("json: 2+2", response_format={"type": "json_object"})
        asked["messages"].insert(0, {"role": "system", "content": "Obey this JSON Schema:\n" + told})
        assert json.loads("".join(script(asked).text)) == expected


@pytest.mark.parametrize("limit", [1, 3, 9, 1000])
def test_max_tokens_cuts_thinking_first(limit: int) -> None:
    whole, said = (
        script(user("run it", tools=[SHELL])),
        script(user("run it", tools=[SHELL], max_tokens=limit)),
    )
    assert said.tokens == min(limit, whole.tokens)
    assert said.finish == ("tool_calls" if limit >= whole.tokens else "length")
    assert list(said.reasoning) == list(whole.reasoning[:limit])


@pytest.mark.parametrize(
    "schema, value",
    [
        (None, "v"),
        ({"type": "string"}, "v"),
        ({"enum": ["a", "b"]}, "a"),
        ({"const": 7}, 7),
        ({"type": ["integer", "null"]}, 1),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, False),
        ({"type": "null"}, None),
        ({"type": "number", "minimum": 2.5}, 2.5),
        ({"type": "array", "items": {"type": "string"}}, ["v"]),
        ({"properties": {"a": {}, "b": {}}}, {"a": "v"}),
        ({"type": "object"}, {}),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "object", "properties": {"path": {"type": "string"}}}},
                "required": ["a", "z"],
            },
            {"a": {"path": "."}, "z": "v"},
        ),
    ],
)
def test_arguments_fit_the_schema(schema: Any, value: Any) -> None:
    assert instance(schema, "v") == value


# ---- over the wire


@pytest.fixture
def app() -> Any:
    return make_demo_app(delay=0)


async def post(client: Any, body: Any, path: str = "/chat/completions", key: str = "sk-x") -> Any:
    data = body if isinstance(body, str) else json.dumps(body)
    return await client.fetch(
        path, method="POST", body=data, headers={"Authorization": "Bearer " + key}, raise_error=False
    )


def chunks(answer: Any) -> List[Any]:
    lines = [line[6:] for line in answer.body.decode().split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_stream_and_whole_answer_say_the_same(http_server_client: Any) -> None:
    for body in (
        user("hello"),
        user("run `ls`", tools=[SHELL]),
        user("hello", thinking=OFF),
        user("hello", max_tokens=2),
    ):
        whole = json.loads((await post(http_server_client, body)).body)
        stream = chunks(await post(http_server_client, dict(body, stream=True), "/v1/chat/completions"))
        deltas = [c["choices"][0]["delta"] for c in stream]
        message = whole["choices"][0]["message"]
        assert deltas[0] == {"role": "assistant", "content": None, "reasoning_content": ""}
        assert "".join(d.get("content") or "" for d in deltas) == message["content"]
        assert "".join(d.get("reasoning_content") or "" for d in deltas) == message.get(
            "reasoning_content", ""
        )
        fragments = [d["tool_calls"][0]["function"]["arguments"] for d in deltas if "tool_calls" in d]
        assert (
            "".join(fragments)
            == message.get("tool_calls", [{"function": {"arguments": ""}}])[0]["function"]["arguments"]
        )
        assert [c["usage"] for c in stream[:-1]] == [None] * (len(stream) - 1)
        assert stream[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
        assert stream[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


async def test_a_repeated_prefix_is_cached(http_server_client: Any) -> None:
    messages = [{"role": "system", "content": "word " * 400}, ASK]
    first = json.loads((await post(http_server_client, user("", messages=messages))).body)["usage"]
    messages += [{"role": "assistant", "content": "hello"}, ASK]
    second = json.loads((await post(http_server_client, user("", messages=messages))).body)["usage"]
    assert first["prompt_cache_hit_tokens"] == 0
    assert 0 < second["prompt_cache_hit_tokens"] < second["prompt_tokens"]
    assert second["prompt_cache_hit_tokens"] + second["prompt_cache_miss_tokens"] == second["prompt_tokens"]


async def test_errors_have_deepseeks_shape(http_server_client: Any) -> None:
    for body, key, status in (("no json {", "k", 400), (user("x", tools=[]), "k", 400), (user("x"), "", 401)):
        answer = await post(http_server_client, body, key=key)
        error = json.loads(answer.body)["error"]
        assert (
            answer.code == status and set(error) == {"message", "type", "param", "code"} and error["message"]
        )


async def test_serve_demo_listens_on_a_free_port() -> None:
    with serve_demo(delay=0) as base_url:
        answer = await AsyncHTTPClient().fetch(base_url + "/models", headers={"Authorization": "Bearer k"})
    assert "demo" in [m["id"] for m in json.loads(answer.body)["data"]]
