"""pydantic-ai on the Responses API: turns, a stream, a tool round, a web search, an MCP server.

Run by the Python of an environment that has it: ``client_pydantic.py BASE_URL MODEL MCP_URL``.  What the
provider answers is in :mod:`frameworks`, in this order.
"""

from __future__ import annotations

import asyncio
import sys

from pydantic_ai import Agent
from pydantic_ai.capabilities import NativeTool
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.native_tools import MCPServerTool, WebSearchTool
from pydantic_ai.providers.openai import OpenAIProvider


async def main(base_url: str, model_name: str, mcp_url: str) -> None:
    model = OpenAIResponsesModel(model_name, provider=OpenAIProvider(base_url=base_url, api_key="any"))
    plain = Agent(model)
    assert (await plain.run("Say hello.")).output == "Hello."
    print("ok turn")

    async with plain.run_stream("Count.") as streamed:
        texts = [text async for text in streamed.stream_text(delta=True, debounce_by=None)]
    assert "".join(texts) == "one two three", texts
    print("ok stream")

    with_tool = Agent(model)

    @with_tool.tool_plain
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"cold in {city}"

    first = await with_tool.run("The weather in Oslo?")
    assert first.output == "It is cold.", first.output
    print("ok tool round")

    second = await with_tool.run("And tomorrow?", message_history=first.all_messages())
    assert second.output == "Colder.", second.output
    print("ok second turn")

    searching = Agent(model, capabilities=[NativeTool(WebSearchTool())])
    async with searching.run_stream("Any news?") as streamed:
        assert await streamed.get_output() == "Found."
        history = streamed.all_messages()
    print("ok search")

    second = await searching.run("Sure?", message_history=history)
    assert second.output == "Yes.", second.output
    print("ok second turn after a search")

    settings = OpenAIResponsesModelSettings(openai_send_reasoning_ids=True)  # else it leaves the calls out
    asking = Agent(
        model, capabilities=[NativeTool(MCPServerTool(id="docs", url=mcp_url))], model_settings=settings
    )
    async with asking.run_stream("What does the server say?") as streamed:
        assert await streamed.get_output() == "It says hi."
        history = streamed.all_messages()
    print("ok MCP server")

    second = await asking.run("Sure?", message_history=history)
    assert second.output == "Yes.", second.output
    print("ok second turn after an MCP server")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
