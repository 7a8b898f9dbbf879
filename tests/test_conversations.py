"""Conversations, with the openai package's types as a judge."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Dict

import pytest
from api import site, valid
from scripted import call, error, say, think

Json = Dict[str, Any]
pytestmark = pytest.mark.timeout(seconds=60)

MODEL = "gpt-5.5"


def sdk() -> Any:
    pytest.importorskip("openai")
    from openai.types import conversations

    return conversations


async def test_life_of_a_conversation(tmp_path: Path) -> None:
    async with site(tmp_path) as (_, api, _p):
        made = await api(
            "POST",
            "/conversations",
            {"metadata": {"topic": "demo"}, "items": [{"role": "user", "content": "Hello!"}]},
        )
        valid(sdk().Conversation, made)
        path = "/conversations/" + made["id"]
        assert await api("GET", path) == made and made["metadata"] == {"topic": "demo"}
        assert (await api("POST", path, {"metadata": {"topic": "other"}}))["metadata"] == {"topic": "other"}
        assert (await api("POST", path, {}, expect=400))["param"] == "metadata"
        more: Json = {
            "items": [
                {"type": "message", "role": "assistant", "content": "Hi."},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_text", "text": "ok"}],
                },
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}],
                },
            ]
        }
        added = await api("POST", path + "/items", more)
        valid(sdk().ConversationItemList, added)
        listed = await api("GET", path + "/items?order=asc")
        valid(sdk().ConversationItemList, listed)
        assert [item["type"] for item in listed["data"]] == [
            "message",
            "message",
            "function_call",
            "function_call_output",
            "message",
        ]
        assert listed["data"][1:] == added["data"] and len({item["id"] for item in listed["data"]}) == 5
        page = await api("GET", path + "/items?limit=2")
        assert [i["id"] for i in page["data"]] == [i["id"] for i in listed["data"][:2:-1]] and page[
            "has_more"
        ]
        item = path + "/items/" + listed["data"][0]["id"]
        assert await api("GET", item) == listed["data"][0]
        assert (await api("DELETE", item))["id"] == made["id"]
        await api("GET", item, expect=404)
        await api("DELETE", item, expect=404)
        assert len((await api("GET", path + "/items"))["data"]) == 4
        for body, param in (
            ({}, "items"),
            ({"items": "x"}, "items"),
            ({"items": [{}] * 21}, "items"),
            ({"items": [{"type": "item_reference", "id": "x"}]}, "items"),
        ):
            assert (await api("POST", path + "/items", body, expect=400))["param"] == param
        assert await api("DELETE", path) == {
            "id": made["id"],
            "object": "conversation.deleted",
            "deleted": True,
        }
        for method, tail in (("GET", ""), ("DELETE", ""), ("GET", "/items"), ("GET", "/items/x")):
            await api(method, path + tail, expect=404)
        assert (await api("GET", "/conversations", expect=405))["code"] == "method_not_allowed"
        empty = await api("POST", "/conversations")
        assert await api("GET", "/conversations/{}/items".format(empty["id"])) == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }


async def test_turns_in_a_conversation(tmp_path: Path) -> None:
    async with site(tmp_path) as (provider, api, _):
        talk = (await api("POST", "/conversations", {"items": [{"role": "user", "content": "I am Ann."}]}))[
            "id"
        ]
        provider.turns += [
            [say("Hi Ann.")],
            [think("She asks."), call("f", "c1")],
            [say("Ann.")],
            [error(400, "no")],
            [say("Fork.")],
        ]
        tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
        first = await api("POST", "/responses", {"model": MODEL, "input": "Hello", "conversation": talk})
        assert first["conversation"] == {"id": talk} and first["previous_response_id"] is None
        await api.events(
            "POST",
            "/responses",
            {
                "model": MODEL,
                "input": "Who am I?",
                "conversation": {"id": talk},
                "tools": [tool],
                "stream": True,
            },
        )
        output = [{"type": "function_call_output", "call_id": "c1", "output": "Ann"}]
        third = await api(
            "POST", "/responses", {"model": MODEL, "input": output, "conversation": talk, "tools": [tool]}
        )
        await api("POST", "/responses", {"model": MODEL, "input": "fail", "conversation": talk}, expect=400)
        for earlier, later in zip(
            provider.requests, provider.requests[1:3]
        ):  # the prompt cache of the provider
            assert later["messages"][: len(earlier["messages"])] == earlier["messages"]
        assert [m["role"] for m in provider.requests[2]["messages"]] == [
            "user",
            "user",
            "assistant",
            "user",
            "assistant",
            "tool",
        ]
        assert provider.requests[2]["messages"][4]["reasoning_content"] == "She asks."
        items = (await api("GET", f"/conversations/{talk}/items?order=asc"))["data"]
        assert [item["type"] for item in items] == ["message"] * 4 + [
            "reasoning",
            "function_call",
            "function_call_output",
            "message",
        ]
        assert items[-1] == third["output"][-1]
        # a response of a conversation can be continued by its id; what came later in the conversation is not
        # its past
        await api(
            "POST", "/responses", {"model": MODEL, "input": "And?", "previous_response_id": first["id"]}
        )
        assert [m["content"] for m in provider.requests[4]["messages"]] == [
            "I am Ann.",
            "Hello",
            "Hi Ann.",
            "And?",
        ]
        seen = await api("GET", "/responses/{}/input_items?order=asc".format(third["id"]))
        assert [item["id"] for item in seen["data"]] == [item["id"] for item in items[:-1]]
        both = {"model": MODEL, "input": "x", "conversation": talk, "previous_response_id": first["id"]}
        assert (await api("POST", "/responses", both, expect=400))["param"] == "conversation"
        nowhere = {"model": MODEL, "input": "x", "conversation": "conv_nobody"}
        assert "conv_nobody" in (await api("POST", "/responses", nowhere, expect=404))["message"]


async def test_nothing_is_lost_when_many_add_at_once(tmp_path: Path) -> None:
    more = "store: {{kind: sqlite, path: '%s'}}\n" % (tmp_path / "r.db")
    (tmp_path / "other").mkdir()
    async with (
        site(tmp_path, more=more) as (_, api, _p),
        site(tmp_path / "other", more=more) as (_q, other, _r),
    ):
        path = "/conversations/{}/items".format((await api("POST", "/conversations"))["id"])
        await asyncio.gather(
            *(
                one("POST", path, {"items": [{"role": "user", "content": f"{n}"}]})
                for n in range(20)
                for one in (api, other)
            )
        )
        items = (await other("GET", path + "?limit=100"))["data"]
        assert sorted(item["content"][0]["text"] for item in items) == sorted(2 * [f"{n}" for n in range(20)])


@pytest.mark.parametrize("kind", [["message"], {"a": 1}, 5, True])
async def test_a_type_that_is_no_text(tmp_path: Path, kind: Any) -> None:
    """No turn could use such an item, so that it would spoil the conversation; a part is left to the turn."""
    wrong = {"type": kind, "role": "user", "content": "Hi"}
    message = {"type": "message", "role": "user", "content": [{"type": kind, "text": "Hi"}]}
    async with site(tmp_path) as (_, api, _p):
        assert (await api("POST", "/conversations", {"items": [wrong]}, expect=400))["param"] == "items"
        made = await api("POST", "/conversations", {"items": [message]})
        path = f"/conversations/{made['id']}/items"
        assert (await api("POST", path, {"items": [wrong]}, expect=400))["param"] == "items"
        (item,) = (await api("GET", path))["data"]
        assert item["content"] == [{"type": kind, "text": "Hi"}]
        body = {"model": MODEL, "input": [wrong], "background": True}
        assert (await api("POST", "/responses", body, expect=400))["param"] == "input"
