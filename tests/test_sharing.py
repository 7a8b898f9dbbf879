"""Requests that come again while their turn runs; and requests that are passed through as they are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Dict, List

import pytest
from api import Api, site
from grammar import check_stream
from scripted import KEY, error, say, sleep
from secrets_shown import CASES, SECRETS

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=60)

HI: Json = {"model": "gpt-5.5", "input": "hi"}
SLOW = [say("one "), sleep(0.6), say("two")]


async def later(api: Api, seconds: float, method: str, path: str, body: Json, **headers: str) -> Any:
    await asyncio.sleep(seconds)
    return await (api.events if body.get("stream") else api)(method, path, body, **headers)


# (headers of the first request, of the second, whether they share a turn)
REPEATS = [
    ({"Idempotency_Key": "k1"}, {"Idempotency_Key": "k1"}, True),
    ({"Idempotency_Key": "k2"}, {"Idempotency_Key": "k3"}, False),
    ({"X_Stainless_Retry_Count": "0"}, {"X_Stainless_Retry_Count": "1"}, True),
    ({"X_Stainless_Retry_Count": "0"}, {"X_Stainless_Retry_Count": "0"}, False),
    ({}, {"X_Stainless_Retry_Count": "1"}, False),
    ({}, {}, False),
]


async def test_a_repeated_request_shares_the_turn(tmp_path: Path) -> None:
    async with site(tmp_path, server="  heartbeat_interval: 0.2\n") as (provider, api, _):
        for stream in (False, True):
            for first, second, shared in REPEATS:
                provider.turns += [SLOW] * (1 if shared else 2)
                asked = len(provider.requests)
                body = {**HI, "stream": stream}
                answers: List[Any] = await asyncio.gather(
                    later(api, 0, "POST", "/responses", body, **first),
                    later(Api(api.base_url), 0.3, "POST", "/responses", body, **second),
                )
                assert len(provider.requests) - asked == (1 if shared else 2), (stream, first, second)
                one, two = [check_stream(answer) for answer in answers] if stream else answers
                assert (one == two) is shared and one["output"][0]["content"][0]["text"] == "one two"


async def test_another_body_or_another_time_is_another_turn(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [SLOW, SLOW, [say("again")]]
        await asyncio.gather(
            later(api, 0, "POST", "/responses", HI, Idempotency_Key="k"),
            later(api, 0.2, "POST", "/responses", {**HI, "input": "ho"}, Idempotency_Key="k"),
        )
        assert (await api("POST", "/responses", HI, Idempotency_Key="k"))["output"][0]["content"][0][
            "text"
        ] == "again"


async def test_the_turn_ends_with_the_last_who_waits(tmp_path: Path) -> None:
    async with site(tmp_path, process=True) as (provider, api, proxy):
        provider.turns += [[say("one"), sleep(1.0), say(" two")], [say("x"), sleep(30)]]
        _, first = await api.post_and_keep("/responses", HI, Idempotency_Key="k")
        stays = asyncio.ensure_future(later(api, 0.3, "POST", "/responses", HI, Idempotency_Key="k"))
        await asyncio.sleep(0.6)
        first.transport.abort()
        assert (await stays)["output"][0]["content"][0]["text"] == "one two"
        assert (len(provider.requests), provider.gone) == (1, 0)
        both = [(await api.post_and_keep("/responses", HI, Idempotency_Key="k"))[1] for _ in range(2)]
        await asyncio.sleep(0.3)
        for writer in both:
            assert provider.gone == 0
            writer.transport.abort()
            await asyncio.sleep(0.3)
        assert (len(provider.requests), provider.gone) == (2, 1)


async def test_an_error_is_shared_too(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[sleep(0.5), say("x"), {"cut": True}]] * 3
        body = {**HI, "stream": True}
        one, two = await asyncio.gather(
            *(a.raw("POST", "/responses", body, Idempotency_Key="k") for a in (api, Api(api.base_url)))
        )
        assert b"response.failed" in one[1] and b"response.failed" in two[1] and len(provider.requests) == 1


async def test_a_background_response_is_begun_once(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [SLOW]
        one = await api("POST", "/responses", {**HI, "background": True}, Idempotency_Key="k")
        two = await api("POST", "/responses", {**HI, "background": True}, Idempotency_Key="k")
        assert (
            one["id"] == two["id"]
            and (await api.until(one["id"], "completed"))
            and len(provider.requests) == 1
        )


# ---- POST /chat/completions
CHAT: Json = {"model": "gpt-5.5", "messages": [{"role": "user", "content": "hi"}]}


async def test_chat_completions_pass_through(tmp_path: Path) -> None:
    async with site(tmp_path, process=True) as (provider, api, proxy):
        provider.turns += [[say("Hello.")], [say("Hello."), sleep(0.4), say("Bye.")]]
        private = {"originator": "codex_cli_rs", "session_id": "s", "cookie": "c=1"}
        answer = await api("POST", "/chat/completions", {**CHAT, "temperature": 0.5}, **private)
        assert answer["choices"][0]["message"]["content"] == "Hello." and "usage" in answer
        assert provider.requests[0] == {**CHAT, "model": "deepseek-v4-pro", "temperature": 0.5}
        assert provider.headers[0]["Authorization"] == "Bearer " + KEY
        assert not {"Originator", "Session-Id", "Cookie"} & set(provider.headers[0])
        pieces: List[bytes] = []
        status, _ = await api.raw(
            "POST", "/chat/completions", {**CHAT, "stream": True}, on_data=pieces.append
        )
        assert status == 200 and api.headers["content-type"] == "text/event-stream"
        told = b"".join(pieces)
        chunks = [json.loads(line[6:]) for line in told.split(b"\n\n") if line.startswith(b"data: {")]
        assert "".join(
            c["choices"][0]["delta"].get("content") or "" for c in chunks
        ) == "Hello.Bye." and told.endswith(b"data: [DONE]\n\n")
        assert len(pieces) > 1 and b"Bye" not in pieces[0]
        assert "transport=chat status=completed" in proxy.log.read_text()


async def test_chat_completions_take_a_responses_body(tmp_path: Path) -> None:
    flat = {"type": "function", "name": "ls", "parameters": {"type": "object", "properties": {}}}
    nested = {"type": "function", "function": {key: flat[key] for key in ("name", "parameters")}}
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[say("Hello.")], [say("Hello.")]]
        mixed = {"model": "gpt-5.5", "instructions": "Be brief.", "input": "hi", "tools": [flat]}
        answer = await api("POST", "//chat//completions", mixed)
        assert answer["choices"][0]["message"]["content"] == "Hello."
        asked = provider.requests[0]
        assert [message["role"] for message in asked["messages"]] == ["system", "user"]
        assert asked["tools"][0]["function"]["name"] == "ls" and "input" not in asked
        await api(
            "POST",
            "/chat/completions",
            {**CHAT, "tools": [flat], "thinking": {"type": "disabled"}, "tool_choice": flat},
        )
        assert provider.requests[1]["tools"] == [nested] == [provider.requests[1]["tool_choice"]]
        refused = await api("POST", "/chat/completions", {"model": "gpt-5.5", "input": 5}, expect=400)
        assert refused["param"] == "input"


async def test_chat_completions_that_fail(tmp_path: Path) -> None:
    limits = {
        "Retry-After": "7",
        "x-ratelimit-remaining-requests": "0",
        "x-request-id": "up-1",
        "Set-Cookie": "a=b",
    }
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[error(429, f"Slow down, {KEY}", limits)], [say("x"), {"cut": True}]]
        refused = await api("POST", "/chat/completions", CHAT, expect=429)
        assert refused["message"] == "Slow down, ***"
        wanted = {
            "retry-after": "7",
            "x-ratelimit-remaining-requests": "0",
            "x-upstream-request-id": "up-1",
            "set-cookie": None,
        }
        assert {name: api.headers.get(name) for name in wanted} == wanted
        assert api.headers["x-request-id"].startswith("req_")
        reader, writer = await api.post_and_keep("/chat/completions", {**CHAT, "stream": True})
        told = await reader.read()
        writer.close()
        assert b'"content": "x"' in told and not told.endswith(
            b"\r\n0\r\n\r\n"
        )  # cut, as the provider's answer was
        assert (await api("POST", "/chat/completions", {"messages": []}, expect=400))["param"] == "model"
        assert (await api("POST", "/chat/completions", {**CHAT, "model": ""}, expect=400))["param"] == "model"


async def test_chat_completions_show_no_secrets(tmp_path: Path) -> None:
    cases = [(text, shown) for text, shown in CASES if not any(s and s in text for s in SECRETS)]
    async with site(tmp_path) as (provider, api, _):
        provider.turns.append([error(400, " | ".join(text for text, _ in cases) + " \u00e9\x1b")])
        refused = await api("POST", "/chat/completions", CHAT, expect=400)
        assert refused["message"] == " | ".join(shown for _, shown in cases) + " \u00e9\x1b"


async def test_the_limits_of_the_provider_are_told_in_every_mode(tmp_path: Path) -> None:
    limits = {"x-ratelimit-remaining-tokens": "5", "x-request-id": "up-2", "x-secret": "s"}
    async with site(tmp_path) as (provider, api, _):
        for body in (HI, {**HI, "stream": True}):
            provider.turns += [[error(400, "no", limits)]]
            await api("POST", "/responses", body, expect=400)
            assert (api.headers["x-ratelimit-remaining-tokens"], api.headers["x-upstream-request-id"]) == (
                "5",
                "up-2",
            )
            assert "x-secret" not in api.headers
