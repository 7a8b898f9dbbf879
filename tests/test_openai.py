"""The real `openai` package on rproxy: create, stream helper, tool round trip, continuation."""

from __future__ import annotations

from typing import Any, AsyncIterator, Dict, Tuple

import pytest
from scripted import ScriptedProvider, call, error, finish, say, served, think

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.timeout(seconds=60)

WEATHER: Dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


class Lab:
    """A provider, rproxy before it, and a client."""

    def __init__(self) -> None:
        self.provider = ScriptedProvider()

    async def __aenter__(self) -> Tuple[ScriptedProvider, Any]:
        self._running = served(self.provider.base_url)
        base_url = await self._running.__aenter__()
        self.client = openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0)
        return self.provider, self.client

    async def __aexit__(self, *exc: Any) -> None:
        await self.client.close()
        await self._running.__aexit__(*exc)
        await self.provider.close()
        assert self.provider.refusals == []


async def collected(stream: AsyncIterator[Any]) -> Any:
    return [event async for event in stream]


async def test_create() -> None:
    async with Lab() as (provider, client):
        provider.turns += [[think("Simple."), say("Four.")]]
        response = await client.responses.create(model="gpt-5.5", input="2+2?", instructions="Be brief.")
        assert response.output_text == "Four."
        assert response.usage.input_tokens_details.cached_tokens == 20
        assert response._request_id
        assert [m["role"] for m in provider.requests[0]["messages"]] == ["system", "user"]
        assert "stream" not in provider.requests[0]


async def test_the_stream_helper_accumulates_what_the_final_response_says() -> None:
    async with Lab() as (provider, client):
        provider.turns += [[think("A poem."), say("Roses are red, "), say("\u00fcber 文 \U0001f600.")]]
        async with client.responses.stream(
            model="gpt-5.5", input="Write", reasoning={"summary": "auto"}
        ) as stream:
            events = await collected(stream)
            final = await stream.get_final_response()
        text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        assert text == final.output_text == "Roses are red, \u00fcber 文 \U0001f600."
        assert final.output[0].summary[0].text == "A poem."
        assert provider.requests[0]["stream"] is True and provider.requests[0]["stream_options"] == {
            "include_usage": True
        }


async def test_a_tool_round_trip_with_full_history() -> None:
    async with Lab() as (provider, client):
        provider.turns += [
            [
                think("Two cities."),
                call("get_weather", "c1", 0, city="Oslo"),
                call("get_weather", "c2", 1, city="Rome"),
            ],
            [say("Cold and warm.")],
        ]
        history = [{"role": "user", "content": "Weather in Oslo and Rome?"}]
        first = await client.responses.create(model="gpt-5.5", input=history, tools=[WEATHER])
        calls = [item for item in first.output if item.type == "function_call"]
        assert [(c.call_id, c.arguments) for c in calls] == [
            ("c1", '{"city": "Oslo"}'),
            ("c2", '{"city": "Rome"}'),
        ]
        history += [item.model_dump(exclude_none=True) for item in first.output]
        history += [
            {"type": "function_call_output", "call_id": c.call_id, "output": "3 degrees"} for c in calls
        ]
        second = await client.responses.create(model="gpt-5.5", input=history, tools=[WEATHER])
        assert second.output_text == "Cold and warm."
        messages = provider.requests[1]["messages"]
        assert messages[1]["reasoning_content"] == "Two cities." and len(messages[1]["tool_calls"]) == 2
        assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool"]


async def test_previous_response_id_continues_with_thinking_and_forks() -> None:
    async with Lab() as (provider, client):
        provider.turns += [
            [think("Call it."), call("get_weather", "c1", 0, city="Oslo")],
            [say("Cold.")],
            [say("Other.")],
        ]
        first = await client.responses.create(
            model="gpt-5.5", input="Weather?", tools=[WEATHER], instructions="Only the first time."
        )
        output = [{"type": "function_call_output", "call_id": "c1", "output": "3 degrees"}]
        second = await client.responses.create(
            model="gpt-5.5", previous_response_id=first.id, input=output, tools=[WEATHER]
        )
        assert (second.output_text, second.previous_response_id) == ("Cold.", first.id)
        fork = await client.responses.create(
            model="gpt-5.5", previous_response_id=first.id, input=output, tools=[WEATHER]
        )
        assert fork.output_text == "Other."
        for request in provider.requests[1:]:
            assert [m["role"] for m in request["messages"]] == [
                "user",
                "assistant",
                "tool",
            ]  # instructions are not inherited
            assert request["messages"][1]["reasoning_content"] == "Call it."


async def test_a_client_that_drops_the_thinking_still_gets_through() -> None:
    async with Lab() as (provider, client):
        provider.turns += [[think("Secret."), call("get_weather", "c7", 0, city="Oslo")], [say("Cold.")]]
        await client.responses.create(model="gpt-5.5", input="Weather?", tools=[WEATHER])
        bare = [
            {"role": "user", "content": "Weather?"},
            {
                "type": "function_call",
                "call_id": "c7",
                "name": "get_weather",
                "arguments": '{"city": "Oslo"}',
            },
            {"type": "function_call_output", "call_id": "c7", "output": "3 degrees"},
        ]
        response = await client.responses.create(model="gpt-5.5", input=bare, tools=[WEATHER])
        assert response.output_text == "Cold."
        assert provider.requests[1]["messages"][1]["reasoning_content"] == "Secret."


async def test_a_cut_answer_is_incomplete() -> None:
    async with Lab() as (provider, client):
        provider.turns += [[say("The first part"), finish("length")]]
        response = await client.responses.create(model="gpt-5.5", input="Write", max_output_tokens=20)
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert provider.requests[0]["max_tokens"] == 20


async def test_errors_are_the_exceptions_of_the_sdk() -> None:
    async with Lab() as (provider, client):
        provider.turns += [[error(402, "Insufficient Balance")]]
        with pytest.raises(openai.RateLimitError) as quota:
            await client.responses.create(model="gpt-5.5", input="hi")
        assert quota.value.code == "insufficient_quota" and "Insufficient Balance" in str(quota.value)
        with pytest.raises(openai.NotFoundError, match="no-such-model"):
            await client.responses.create(model="no-such-model", input="hi")
        with pytest.raises(openai.BadRequestError, match="resp_nobody"):
            await client.responses.create(model="gpt-5.5", input="hi", previous_response_id="resp_nobody")
        assert [model.id async for model in client.models.list()] == ["gpt-5.5", "deepseek-v4-pro"]
