"""What clients send beside model and input, through the whole process: every field has its treatment, and
nothing harmless is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import pytest
from api import Api, site
from grammar import check_response, check_sse
from scripted import error, say, think

from rproxy.convert.request.validate import FIELDS, UNSUPPORTED

Json = Dict[str, Any]
HI: Json = {"model": "gpt-5.5", "input": "hi"}
USER: Json = {"role": "user", "content": "hi"}
FENCED = '```json\n{"city": "Rome", "degrees": 21}\n```'
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

# accepted, and without any effect on what the provider is asked
IGNORED: List[Json] = [
    {name: None for name in [*FIELDS, *UNSUPPORTED] if name not in HI},
    {
        "client_metadata": {"a": "b"},
        "something_new": [1],
        "moderation": {"x": 1},
        "image": {},
        "access_programs": [],
    },
    {
        "context_management": [{"type": "compaction", "compact_threshold": 1000}],
        "truncation": "auto",
        "service_tier": "flex",
    },
    {
        "stream_options": {"include_obfuscation": True},
        "background": False,
        "max_tool_calls": 3,
        "prompt_cache_retention": "24h",
    },
    {
        "include": ["file_search_call.results", "message.input_image.image_url"],
        "metadata": {"a": "b"},
        "background_options": {},
    },
    {"reasoning": {"context": "auto", "mode": "pro"}, "text": {"verbosity": "low", "format": None}},
]


@pytest.mark.parametrize("stream", [False, True])
async def test_fields_without_an_effect_are_harmless(tmp_path: Path, stream: bool) -> None:
    async with site(tmp_path) as (provider, api, _):
        await ask(api, stream, HI)
        for fields in IGNORED:
            response = await ask(api, stream, {**fields, **HI})
            assert response["status"] == "completed" and response["metadata"] == (
                fields.get("metadata") or {}
            )
            sent = provider.requests[-1]
            assert {k: v for k, v in sent.items() if k != "thinking"} == {
                k: v for k, v in provider.requests[0].items() if k != "thinking"
            }


async def ask(api: Api, stream: bool, body: Json) -> Json:
    if not stream:
        return check_response(await api("POST", "/responses", body))
    return check_sse((await api.raw("POST", "/responses", {**body, "stream": True}))[1])


async def test_what_is_asked_is_echoed(tmp_path: Path) -> None:
    asked: Json = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "max_tool_calls": 3,
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "store": False,
        "truncation": "auto",
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "tool_choice": "none",
        "metadata": {"a": "b"},
        "user": "u",
        "reasoning": {"effort": "low", "summary": "auto"},
    }
    async with site(tmp_path) as (_, api, _proxy):
        response = await ask(api, False, {**HI, **asked})
        assert {name: response[name] for name in asked} == asked and response["service_tier"] == "default"


async def test_a_warm_up_over_http_asks_nobody_and_can_be_continued(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        for fields in ({"generate": False}, {"prompt_cache_options": {"prewarm": True}}):
            warm = await ask(api, False, {**HI, **fields, "input": "first"})
            assert (warm["status"], warm["output"], warm["usage"]["total_tokens"]) == ("completed", [], 0)
            assert (await ask(api, True, {**HI, **fields}))["output"] == [] and provider.requests == []
            await ask(api, False, {**HI, "previous_response_id": warm["id"]})
            assert [message["content"] for message in provider.requests.pop()["messages"]] == ["first", "hi"]


async def test_an_error_of_a_stream_that_has_not_begun_is_an_http_error(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        for fields, status in (
            ({"model": "nobody"}, 404),
            ({"input": 5}, 400),
            ({"previous_response_id": "resp_0"}, 400),
        ):
            assert (await api("POST", "/responses", {**HI, "stream": True, **fields}, expect=status))[
                "message"
            ]
        provider.turns += [[error(402, "Insufficient Balance")]]
        assert (
            "Insufficient Balance"
            in (await api("POST", "/responses", {**HI, "stream": True}, expect=429))["message"]
        )


HISTORIES: List[List[Json]] = [
    [
        USER,
        *(
            {"role": "assistant", "content": "a", "phase": phase}
            for phase in ("commentary", "final_answer", None)
        ),
        USER,
    ],
    [
        {"type": "message", "role": "system", "content": "Be."},
        {"role": "developer", "content": [{"type": "text", "text": "."}]},
        USER,
    ],
    [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "See"},
                {"type": "input_image", "image_url": PNG, "detail": None},
            ],
        }
    ],
    [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": None,
            "encrypted_content": "gAAAA-of-somebody-else",
        },
        USER,
    ],
    [
        USER,
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "7"}]},
    ],
    [USER, {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}, USER],
    [
        USER,
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "program", "id": "p"},
        {"type": "of_tomorrow"},
        USER,
    ],
]


async def test_histories_of_all_clients_are_accepted_by_a_strict_provider(tmp_path: Path) -> None:
    async with site(tmp_path) as (_, api, _proxy):
        for history in HISTORIES:
            assert (await ask(api, False, {**HI, "input": history}))["status"] == "completed", history


@pytest.mark.parametrize("stream", [False, True])
async def test_structured_output_of_a_provider_that_knows_no_schemas(tmp_path: Path, stream: bool) -> None:
    openai, pydantic = pytest.importorskip("openai"), pytest.importorskip("pydantic")
    weather = pydantic.create_model("Weather", city=(str, ...), degrees=(int, ...))
    async with (
        site(tmp_path) as (provider, api, _),
        openai.AsyncOpenAI(base_url=api.base_url, api_key="any", max_retries=0) as client,
    ):
        provider.turns += [[think("JSON."), say(FENCED)]]
        if stream:
            async with client.responses.stream(
                model="gpt-5.5", input="Weather?", text_format=weather
            ) as events:
                response = await events.get_final_response()
        else:
            response = await client.responses.parse(model="gpt-5.5", input="Weather?", text_format=weather)
        assert response.output_parsed == weather(city="Rome", degrees=21)
        sent = provider.requests[0]
        assert (
            sent["response_format"] == {"type": "json_object"} and "degrees" in sent["messages"][0]["content"]
        )


async def test_a_conversation_is_compacted_and_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[say("They said hi.")]]
        compact = await api(
            "POST", "/responses/compact", {"model": "gpt-5.5", "input": [USER], "prompt_cache_key": "k"}
        )
        assert (compact["object"], [item["type"] for item in compact["output"]]) == (
            "response.compaction",
            ["message", "compaction"],
        )
        await ask(api, False, {**HI, "input": [*compact["output"], {"role": "user", "content": "more"}]})
        assert "They said hi." in str(provider.requests[1]["messages"])
        for wrong, param in (
            ({"input": [USER]}, "model"),
            ({"model": "gpt-5.5"}, "input"),
            ({**HI, "input": 5}, "input"),
        ):
            assert (await api("POST", "/responses/compact", wrong, expect=400))["param"] == param
        assert len(provider.requests) == 2


async def test_a_long_history_is_converted_beside_the_loop(tmp_path: Path) -> None:
    """In a thread: the provider gets the same, and mistakes are told as always."""
    said = [{"role": "user" if i % 2 == 0 else "assistant", "content": f"line {i}"} for i in range(701)]
    async with site(tmp_path) as (provider, api, _):
        await ask(api, True, {**HI, "input": said})
        assert [message["content"] for message in provider.requests[-1]["messages"]] == [
            item["content"] for item in said
        ]
        status, answer = await api.raw(
            "POST", "/responses", {**HI, "input": [*said, {"role": "nobody", "content": "x"}]}
        )
        assert status == 400 and b"role must be one of" in (
            answer if isinstance(answer, bytes) else answer.encode()
        )
