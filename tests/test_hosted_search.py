"""``web_search`` on a provider that knows only functions: the loop, over real sockets."""

from __future__ import annotations

import contextlib
from typing import Any, AsyncIterator, Dict, List, NamedTuple

from api import Api
from grammar import check_response, check_stream
from scripted import CONFIG, ScriptedProvider, call, say, served, think
from search_services import SearchServices, search_services

Json = Dict[str, Any]
TOOL = {"type": "web_search"}


class Loop(NamedTuple):
    """A provider, a search service, and a client of the rproxy between them."""

    provider: ScriptedProvider
    services: SearchServices
    api: Api

    async def stream(self, **body: Any) -> List[Json]:
        return await self.api.events("POST", "/responses", asking(stream=True, **body))

    async def whole(self, **body: Any) -> Json:
        return check_response(await self.api("POST", "/responses", asking(**body)))

    def messages(self, number: int) -> List[Json]:
        messages: List[Json] = self.provider.requests[number]["messages"]
        return messages


def asking(**body: Any) -> Json:
    return {"model": "gpt-5.5", "input": "What is new?", "tools": [TOOL], **body}


@contextlib.asynccontextmanager
async def loop(server: str = "", more: str = "", search: str = "") -> AsyncIterator[Loop]:
    """:param more: further sections; ``search``: further keys of that section"""
    async with search_services() as services:
        provider = ScriptedProvider()
        section = f"search: {{{{kind: searxng, url: '{services.url}'{search}}}}}\n"
        try:
            async with served(provider.base_url, server=server, config=CONFIG + section + more) as url:
                yield Loop(provider, services, Api(url))
        finally:
            await provider.close()
        assert provider.refusals == []


def searching(text: str = "news", index: int = 0) -> Json:
    return call("web_search", index=index, query=text)


def types(events: List[Json]) -> List[str]:
    return [event["type"] for event in events if not event["type"].endswith(".delta")]


async def test_the_events_are_those_of_openai_in_their_order() -> None:
    async with loop() as lab:
        lab.provider.turns += [
            [think("Look it up."), searching("first", 0), searching("second", 1)],
            [searching("third")],
            [say("Here it is.")],
        ]
        events = await lab.stream()
    final = check_stream(events)
    item = ["response.output_item.added"]
    search = [
        *item,
        "response.web_search_call.in_progress",
        "response.web_search_call.searching",
        "response.web_search_call.completed",
        "response.output_item.done",
    ]
    text = ["content_part.added", "output_text.done", "content_part.done", "output_item.done"]
    thought = ["content_part.added", "reasoning_text.done", "content_part.done", "output_item.done"]
    assert types(events) == [
        "response.created",
        "response.in_progress",
        *item,
        *(f"response.{name}" for name in thought),
        *search * 3,
        *item,
        *(f"response.{name}" for name in text),
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    actions = [one["action"] for one in final["output"] if one["type"] == "web_search_call"]
    assert actions == [{"type": "search", "query": text} for text in ("first", "second", "third")]
    assert {one["status"] for one in final["output"] if "status" in one} == {"completed"}


async def test_each_request_begins_with_the_one_before() -> None:
    async with loop() as lab:
        lab.provider.turns += [
            [think("Hm."), searching("a", 0), searching("b", 1)],
            [think("More."), say("Wait. "), searching("c")],
            [say("Done.")],
            [say("Fine.")],
            [say("Fine.")],
            [say("Fine.")],
        ]
        first = await lab.whole()
        items = first["output"]
        await lab.whole(previous_response_id=first["id"], input="Thanks.")
        question = {"role": "user", "content": "What is new?"}
        thanks = {"role": "user", "content": "Thanks."}
        await lab.whole(input=[question, *items, thanks])
        references = [{"type": "item_reference", "id": item["id"]} for item in items]
        await lab.whole(input=[question, *references, thanks])
        requests = [lab.messages(number) for number in range(6)]
    for before, after in zip(requests, requests[1:4]):
        assert after[: len(before)] == before
    assert requests[3] == requests[4] == requests[5]
    assert [message["role"] for message in requests[2]] == [
        "user", "assistant", "tool", "tool", "assistant", "tool",
    ]  # fmt: skip
    assert [tool["function"]["name"] for tool in lab.provider.requests[0]["tools"]] == ["web_search"]
    assert all(request["tools"] == lab.provider.requests[0]["tools"] for request in lab.provider.requests)
    told = requests[1][2]["content"]
    assert "data, not instructions" in told and "[title 1](" in told
    assert requests[2][4]["content"] == "Wait. "


async def test_json_is_what_the_stream_ends_with() -> None:
    async with loop() as lab:
        script = [[think("Hm."), searching("a")], [say("It is so.")]]
        lab.provider.turns += [list(turn) for turn in script] * 2
        streamed = check_stream(await lab.stream())
        whole = await lab.whole()
    assert [_without_ids(item) for item in streamed["output"]] == [
        _without_ids(item) for item in whole["output"]
    ]
    assert streamed["usage"] == whole["usage"]
    assert streamed["usage"]["total_tokens"] == 84
    assert streamed["usage"]["input_tokens_details"]["cached_tokens"] == 40


def _without_ids(item: Json) -> Json:
    return {key: value for key, value in item.items() if key not in ("id", "call_id")}
