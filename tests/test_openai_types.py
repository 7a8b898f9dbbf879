"""Everything the `openai` package may get from rproxy is of the package's own types, by their strict rules,
and its helpers work on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any, AsyncIterator, Dict, List, Optional, Tuple

import pytest
from rawserver import until
from scripted import CUT, ScriptedProvider, call, error, finish, gate, head_gate, say, served, think

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")
types = pytest.importorskip("openai.types.responses")
pytestmark = pytest.mark.timeout(seconds=60)

MODEL = "gpt-5.5"
RESPONSE = pydantic.TypeAdapter(types.Response)
EVENT = pydantic.TypeAdapter(types.ResponseStreamEvent)
ITEM = pydantic.TypeAdapter(types.ResponseItem)
WEATHER: Dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
SCHEMA: Dict[str, Any] = {"type": "json_schema", "name": "person", "schema": {"type": "object"}}
ASK: Dict[str, Any] = {"model": MODEL, "input": "go"}

Turn = List[Dict[str, Any]]
# title: (what the provider does, what is asked for beside model and input, how it ends)
PATHS: Dict[str, Any] = {
    "text": ([say("Hi"), say(" there.")], {}, "completed"),
    "raw thinking": ([think("Hm. "), think("Yes."), say("Hi.")], {}, "completed"),
    "a summary of thinking": (
        [think("Hm."), say("Hi.")],
        {"reasoning": {"effort": "low", "summary": "auto"}},
        "completed",
    ),
    "sealed thinking": (
        [think("Hm."), say("Hi.")],
        {"include": ["reasoning.encrypted_content"], "store": False},
        "completed",
    ),
    "a call": ([think("Look."), call("get_weather", "c1", city="Oslo")], {"tools": [WEATHER]}, "completed"),
    "calls after text": (
        [
            say("Let me see."),
            call("get_weather", "c1", 0, city="Oslo"),
            call("get_weather", "c2", 1, city="Rome"),
        ],
        {"tools": [WEATHER]},
        "completed",
    ),
    "a custom tool": (
        [call("sql", "c1", input="SELECT 1")],
        {"tools": [{"type": "custom", "name": "sql"}]},
        "completed",
    ),
    "a schema": ([say('{"name": "Ann"}')], {"text": {"format": SCHEMA, "verbosity": "low"}}, "completed"),
    "a schema that is not there": ([say("{}")], {"text": {"format": {"type": "json_schema"}}}, "completed"),
    "a refusal": ([{"delta": {"refusal": "I will not."}}], {}, "completed"),
    "too long": ([say("The first part"), finish("length")], {"max_output_tokens": 16}, "incomplete"),
    "filtered": ([say("The first"), finish("content_filter")], {}, "incomplete"),
    "every field": (
        [say("Hi.")],
        {
            "instructions": "Be brief.",
            "metadata": {"a": "b"},
            "temperature": 0.5,
            "top_p": 0.5,
            "top_logprobs": 0,
            "max_tool_calls": 3,
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "k",
            "service_tier": "auto",
            "truncation": "auto",
            "parallel_tool_calls": False,
            "tools": [WEATHER],
            "tool_choice": "auto",
            "store": False,
        },
        "completed",
    ),
}


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Tuple[ScriptedProvider, Any]]:
    """A provider, rproxy before it in this process, and a client."""
    provider = ScriptedProvider()
    async with (
        served(provider.base_url) as url,
        openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client,
    ):
        yield provider, client
    await provider.close()
    assert provider.refusals == []


async def events_of(client: Any, **request: Any) -> List[Any]:
    """The events of a stream, each checked as it is on the wire."""
    events: List[Any] = []
    async with client.responses.with_streaming_response.create(stream=True, **request) as answer:
        async for line in answer.iter_lines():
            if line.startswith("data: {"):
                events.append(EVENT.validate_json(line[6:], strict=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


@pytest.mark.parametrize("title", PATHS)
async def test_objects_and_events_are_of_the_sdks_types(title: str) -> None:
    turn, more, status = PATHS[title]
    async with site() as (provider, client):
        provider.turns += [list(turn), list(turn)]
        raw = await client.responses.with_raw_response.create(**ASK, **more)
        whole = RESPONSE.validate_json(raw.http_response.text, strict=True)
        events = await events_of(client, **ASK, **more)
        streamed = events[-1].response
        assert (events[-1].type, whole.status) == ("response." + status, status)
        assert [item.type for item in streamed.output] == [item.type for item in whole.output]
        assert streamed.output_text == whole.output_text
        assert set(json.loads(raw.http_response.text)) == set(
            streamed.model_dump(exclude_unset=True)
        )  # one object, two ways


async def test_what_was_stored_is_of_the_sdks_types() -> None:
    async with site() as (provider, client):
        provider.turns += [[think("Look."), call("get_weather", "c1", city="Oslo")], [say("Cold.")]]
        first = await client.responses.create(**ASK, tools=[WEATHER])
        output = {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [{"type": "input_text", "text": "3 degrees"}],
        }
        new = [output, {"role": "user", "content": "Well?"}]
        last = await client.responses.create(model=MODEL, input=new, previous_response_id=first.id)
        stored = await client.responses.with_raw_response.retrieve(last.id)
        assert RESPONSE.validate_json(stored.http_response.text, strict=True).output_text == "Cold."
        items = json.loads(
            (
                await client.responses.input_items.with_raw_response.list(last.id, order="asc")
            ).http_response.text
        )["data"]
        assert [ITEM.validate_json(json.dumps(item), strict=True).type for item in items] == [
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "message",
        ]
        async with client.responses.with_streaming_response.retrieve(last.id, stream=True) as answer:
            lines = [line async for line in answer.iter_lines() if line.startswith("data: {")]
        assert [EVENT.validate_json(line[6:], strict=True).type for line in lines][-1] == "response.completed"


class Person(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    name: str
    nick: Optional[str]


PERSON = '{"name": "Ann", "nick": null}'


async def test_parse_and_the_stream_helper_make_objects() -> None:
    async with site() as (provider, client):
        fenced = [say("```json\n"), say(PERSON), say("\n```")]
        provider.turns += [fenced, [think("Hm."), *fenced], [{"delta": {"refusal": "I will not."}}]]
        parsed = await client.responses.parse(**ASK, text_format=Person)
        assert parsed.output_parsed == Person(name="Ann", nick=None)
        async with client.responses.stream(**ASK, text_format=Person) as stream:
            done = [event async for event in stream if event.type == "response.output_text.done"]
            assert (await stream.get_final_response()).output_parsed == done[0].parsed == parsed.output_parsed
        async with client.responses.stream(**ASK, text_format=Person) as stream:
            final = await (await stream.until_done()).get_final_response()
        assert final.output_parsed is None and final.output[0].content[0].refusal == "I will not."


@pytest.mark.parametrize("turn", [[say("The first"), CUT], [say("The first"), finish("error")]])
async def test_a_stream_that_breaks_raises_whichever_way_it_is_read(turn: Turn) -> None:
    async with site() as (provider, client):
        provider.turns += [list(turn) for _ in range(9)]
        with pytest.raises(openai.APIError):
            async for _ in await client.responses.create(**ASK, stream=True):
                pass
        with pytest.raises(openai.APIError):
            async with client.responses.stream(**ASK) as stream:
                await stream.until_done()


async def test_the_helper_takes_a_response_up_again_by_its_id() -> None:
    async with site() as (provider, client):
        resumed = asyncio.Event()
        provider.turns += [[say("one "), gate(resumed), say("two "), say("three")]]
        async with await client.responses.create(**ASK, background=True, stream=True) as first:
            seen = [await first.__anext__() for _ in range(5)]
        async with client.responses.stream(
            response_id=seen[0].response.id, starting_after=seen[-1].sequence_number
        ) as stream:
            rest = []
            async for event in stream:
                rest.append(event)
                resumed.set()
            assert (await stream.get_final_response()).output_text == "one two three"
        assert [event.sequence_number for event in rest] == list(range(5, 5 + len(rest)))


async def test_timeouts_and_retries() -> None:
    async with site() as (provider, client):
        provider.turns += [
            [head_gate(), say("Late.")],
            [error(429, "Slow down.", {"Retry-After": "1"})],
            [say("Hi.")],
        ]
        begun = time.monotonic()
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=0.5).responses.create(**ASK)
        response = await client.with_options(max_retries=2).responses.create(**ASK)
        assert response.output_text == "Hi." and time.monotonic() - begun > 1
        assert (len(provider.requests), provider.gone) == (3, 1)


async def test_many_at_once() -> None:
    async with site() as (provider, client):
        all_asked = asyncio.Event()
        provider.turns += [[gate(all_asked), say("Hi.")] for _ in range(24)]
        asking = asyncio.gather(*(client.responses.create(model=MODEL, input=f"turn {i}") for i in range(24)))
        await until(lambda: len(provider.requests) == 24)
        all_asked.set()
        answers = await asking
        assert {answer.output_text for answer in answers} == {"Hi."} and len(
            {answer.id for answer in answers}
        ) == 24
