"""Providers that refuse a request for a reason of their own, over real sockets: the first turn gets through
with at most two cures, the next one at once, and nothing goes that the rule does not concern.
"""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Callable, Dict, List

import pytest
from inputs import some
from refusal_cases import CASES, HI, TURN, Case, developer, image, user
from scripted import ScriptedProvider, error, say, served
from tornado.httpclient import AsyncHTTPClient

Json = Dict[str, Any]
CONFIG = """
server: {{listen_addr: "127.0.0.1:{port}", retries: 0%s}}
models: %s
"""
AUTH = ", auth: {{enabled: true, keys: [key-one-0123456789, key-two-0123456789]}}"


def config(models: List[Json], server: str = "") -> str:
    text = json.dumps(models).replace("{", "{{").replace("}", "}}").replace("BASE_URL", "{base_url}")
    return CONFIG % (server, text)


def model(name: str, **provider: Any) -> Json:
    return {"model": name, "provider": {"base_url": "BASE_URL", "api_key": "$SCRIPTED_KEY", **provider}}


class Lab:
    """A client of rproxy, and the provider behind it."""

    def __init__(self, url: str, provider: ScriptedProvider) -> None:
        self.url, self.provider = url, provider
        self._client = AsyncHTTPClient(force_instance=True)

    async def turn(self, request: Json, key: str = "none", expect: int = 200) -> List[Json]:
        """One turn. :returns: what the provider was asked for it"""
        before = len(self.provider.requests)
        answer = await self._client.fetch(
            self.url + "/responses",
            method="POST",
            body=json.dumps(request),
            headers={"Authorization": "Bearer " + key},
            raise_error=False,
        )
        body = answer.body.decode()
        assert answer.code == expect, body
        if expect == 200 and request.get("stream"):
            body = re.findall(r"^data: (\{.*)$", body, re.M)[-1]
        self.answer = json.loads(body)
        response = self.answer.get("response", self.answer)
        assert expect >= 400 or response["status"] == "completed", response
        return self.provider.requests[before:]


@asynccontextmanager
async def asking(answers: Callable[[Json], List[Json]], text: str) -> AsyncIterator[Lab]:
    """A client of an rproxy whose provider answers as ``answers`` says; ``text``: the configuration."""
    provider = ScriptedProvider(strict=False)
    provider.aside = answers
    try:
        async with served(provider.base_url, config=text) as url:
            yield Lab(url, provider)
    finally:
        await provider.close()


def refusing(case: Case, body: Json) -> List[Json]:
    if not case.breaks(body):
        return [say("fine")]
    return [{"status": case.status, "headers": {}, "body": json.dumps(case.answer(body))}]


@pytest.mark.timeout(seconds=120)
@pytest.mark.parametrize("half", [0, 1])
async def test_refusals_are_cured_and_remembered(half: int, expect_log: Any) -> None:
    """Many cases are models of one server, so that no case may spoil another one, either."""
    expect_log("override:|part of a request")
    cases = dict(some(list(CASES.items())[half::2], 40))
    models = [{**model(name, profile=case.profile), "downstream_model": name} for name, case in cases.items()]
    failed: Dict[str, str] = {}
    async with asking(lambda body: refusing(CASES[body["model"]], body), config(models)) as client:
        for name, case in cases.items():
            request = {"model": name, "stream": case.stream, **case.request}
            try:
                first = await client.turn(request)
                assert case.breaks(first[0]), "the case is none: its rule is kept from the beginning"
                assert len(first) <= 3, f"{len(first)} requests"
                assert case.keep(first[-1]), f"too much was taken away: {first[-1]}"
                again = await client.turn(request)
                assert len(again) == 1 and case.keep(again[0]), "it was not remembered"
            except AssertionError as error:
                failed[name] = str(error)[:500]
    assert failed == {}


# ---- What is learned, and for whom
REFUSED = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead."
)


def when(breaks: Callable[[Json], object], *refusal: Any, **more: Any) -> Callable[[Json], List[Json]]:
    """A provider with one rule."""
    return lambda body: [error(*refusal, **more)] if breaks(body) else [say("fine")]


def first_refuses(*answers: Json) -> Any:
    """The provider's answers in turn, then good ones."""
    left = list(answers)
    return lambda body: [left.pop(0)] if left else [say("fine")]


async def test_two_cures_and_then_the_providers_own_words() -> None:
    def answers(body: Json) -> List[Json]:
        named = [*sorted(set(body) & {"seed", "top_p", "user"}), "nonsense"]
        return [error(400, f"Unsupported parameter: '{named[0]}'")]

    request = {"model": "m", **HI, "seed": 1, "top_p": 0.5, "user": "me"}
    async with asking(answers, config([model("m")])) as client:
        assert len(await client.turn(request, expect=400)) == 3
        assert "Unsupported parameter: 'user'" in client.answer["error"]["message"]
        assert len(await client.turn({"model": "m", **HI, "seed": 1}, expect=400)) == 2  # nothing was kept


async def test_two_cures_that_help_are_both_kept(expect_log: Any) -> None:
    expect_log(r'm \(the limit.*override: {"max_tokens": {"field": "max_completion_tokens"}}')
    expect_log(r'm \(a field\).*override: {"drop": \["seed"\]}')
    answers = first_refuses(error(400, REFUSED), error(400, "Unknown field: seed"))
    request = {"model": "m", **HI, "max_output_tokens": 50, "seed": 7}
    async with asking(answers, config([model("m"), model("other")])) as client:
        assert len(await client.turn(request)) == 3
        [again] = await client.turn(request)
        assert again["max_completion_tokens"] == 50 and "seed" not in again and "max_tokens" not in again
        [other] = await client.turn({**request, "model": "other"})
        assert other["max_tokens"] == 50 and other["seed"] == 7


async def test_a_cure_that_does_not_help_is_taken_back(expect_log: Any) -> None:
    """The same words again: so it was not that."""
    expect_log(r'override: {"empty_content": " "}')
    answers = when(
        lambda body: any(m.get("content") in (None, "") for m in body["messages"]),
        400,
        "text content is empty",
    )
    async with asking(answers, config([model("m")])) as client:
        assert len(await client.turn({"model": "m", **TURN})) == 3


async def test_every_turn_that_a_cure_changes_says_so(expect_log: Any, caplog: Any) -> None:
    expect_log("override:")
    caplog.set_level("INFO")
    answers = first_refuses(error(400, REFUSED))
    async with asking(answers, config([model("m")])) as client:
        said = []
        for request in ({**HI, "max_output_tokens": 50}, {**HI, "max_output_tokens": 60}, HI):
            caplog.clear()
            await client.turn({"model": "m", **request})
            said.append([line.getMessage() for line in caplog.records if line.name == "rproxy.turn"][-1])
    assert "the limit of the answer changed (max_completion_tokens)" in said[0]
    assert "the limit of the answer changed" in said[1] and "max_completion_tokens" in said[1]
    assert "changed" not in said[2]


def only_png(body: Json) -> List[Json]:
    bad = [m for m in body["messages"] if "image/bmp" in json.dumps(m)]
    return [error(400, "Unsupported image format: bmp")] if bad else [say("fine")]


async def test_one_clients_image_costs_no_other_client_his(expect_log: Any) -> None:
    expect_log("part of a request")
    answers = only_png
    one, two = "key-one-0123456789", "key-two-0123456789"
    bmp = {"model": "m", "input": [user("look", image("bmp"))]}
    png = {"model": "m", "input": [user("look", image("png"))]}
    async with asking(answers, config([model("m")], AUTH)) as client:
        assert len(await client.turn(bmp, one)) == 2
        [again] = await client.turn(bmp, one)  # the very same part
        assert "image omitted" in json.dumps(again)
        [other] = await client.turn(png, one)  # another part of the same client
        assert "image/png" in json.dumps(other)
        [foreign] = await client.turn(png, two)  # another client
        assert "image/png" in json.dumps(foreign)
        assert len(await client.turn(bmp, two)) == 2  # who has to find out by himself


@pytest.mark.parametrize(
    "prompt",
    [
        "Which value does stream_options take, and is it an unsupported parameter?",
        "Unsupported parameter: 'stream_options'",
        "x\nUnknown field: stream_options\ny",
        "is tools=[] not supported?",
    ],
)
async def test_what_a_client_writes_teaches_nothing(prompt: str) -> None:
    """An error that quotes the prompt must not change what others get."""
    answers = first_refuses(error(400, f"Your request was flagged: {json.dumps(prompt)}"))
    tool = {"type": "function", "name": "ls", "parameters": {"type": "object", "properties": {}}}
    request = {"model": "m", "stream": True, "input": [user("hello"), user(prompt)], "tools": [tool]}
    async with asking(answers, config([model("m")])) as client:
        assert len(await client.turn(request, expect=400)) == 1
        [other] = await client.turn({**request, "input": [user("hello")]})
        assert other["stream_options"] == {"include_usage": True} and len(other["tools"]) == 1


async def test_a_value_that_is_refused_goes_and_other_values_stay(expect_log: Any) -> None:
    expect_log("part of a request")
    answers = when(
        lambda body: body.get("temperature", 0) > 1, 400, "temperature: range: 0..1", param="temperature"
    )
    async with asking(answers, config([model("m")])) as client:
        assert len(await client.turn({"model": "m", **HI, "temperature": 1.5})) == 2
        [cool] = await client.turn({"model": "m", **HI, "temperature": 0.5})
        [hot] = await client.turn({"model": "m", **HI, "temperature": 1.5})
    assert cool["temperature"] == 0.5 and "temperature" not in hot


async def test_a_form_is_bound_to_what_was_refused(expect_log: Any) -> None:
    expect_log("override:")
    answers = when(
        lambda body: isinstance(body.get("tool_choice"), dict),
        400,
        "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
    )
    tool = {"type": "function", "name": "ls", "parameters": {"type": "object", "properties": {}}}
    named = {"type": "function", "name": "ls"}
    async with asking(answers, config([model("m")])) as client:
        sent = [
            (await client.turn({"model": "m", **HI, "tools": [tool], "tool_choice": choice}))[-1]
            for choice in (named, "required", "none", named)
        ]
    assert [body["tool_choice"] for body in sent] == ["required", "required", "none", "required"]


async def test_a_template_error_is_cured_before_it_is_tried_again(expect_log: Any) -> None:
    expect_log("override:")
    answers = when(
        lambda body: any(m["role"] == "system" for m in body["messages"][1:]),
        500,
        "Jinja Exception: System message must be at the beginning.",
    )
    request = {"model": "m", "instructions": "x", "input": [developer("y"), user("hello")]}
    text = config([model("m")]).replace("retries: 0", "retries: 2")
    async with asking(answers, text) as client:
        assert len(await client.turn(request)) == 2


async def test_a_tool_that_the_client_insists_on_is_not_taken_away() -> None:
    answers = when(lambda body: True, 400, "m does not support tools")
    tool = {"type": "function", "name": "ls", "parameters": {"type": "object", "properties": {}}}
    request = {"model": "m", **HI, "tools": [tool], "tool_choice": "required"}
    async with asking(answers, config([model("m")])) as client:
        assert len(await client.turn(request, expect=400)) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        "Something else is wrong",
        "Unsupported parameter: 'messages'",
        "Unknown field: model",
        "invalid params, invalid chat setting (2013)",
        "No tool output found for function call call_1.",
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
        "'tool_call_id'.",
    ],
)
async def test_other_refusals_reach_the_client_at_once(refusal: str) -> None:
    answers = when(lambda body: True, 400, refusal)
    async with asking(answers, config([model("m")])) as client:
        assert len(await client.turn({"model": "m", **TURN}, expect=400)) == 1
        assert refusal[:20] in client.answer["error"]["message"]
