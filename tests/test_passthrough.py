"""POST /chat/completions: requests that are passed through as they are, and the provider's headers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Dict, List

import pytest
from api import site
from scripted import KEY, error, gate, say
from secrets_shown import CASES, SECRETS

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=60)

CHAT: Json = {"model": "gpt-5.5", "messages": [{"role": "user", "content": "hi"}]}


async def test_chat_completions_pass_through(tmp_path: Path) -> None:
    async with site(tmp_path, process=True) as (provider, api, proxy):
        heard = asyncio.Event()
        provider.turns += [[say("Hello.")], [say("Hello."), gate(heard), say("Bye.")]]
        private = {"originator": "codex_cli_rs", "session_id": "s", "cookie": "c=1"}
        answer = await api("POST", "/chat/completions", {**CHAT, "temperature": 0.5}, **private)
        assert answer["choices"][0]["message"]["content"] == "Hello." and "usage" in answer
        assert provider.requests[0] == {**CHAT, "model": "deepseek-v4-pro", "temperature": 0.5}
        assert provider.headers[0]["Authorization"] == "Bearer " + KEY
        assert not {"Originator", "Session-Id", "Cookie"} & set(provider.headers[0])
        pieces: List[bytes] = []

        def hear(data: bytes) -> None:
            pieces.append(data)
            heard.set()

        status, _ = await api.raw("POST", "/chat/completions", {**CHAT, "stream": True}, on_data=hear)
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


HI: Json = {"model": "gpt-5.5", "input": "hi"}


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
