"""langchain-openai on the Responses API: turns, a stream, a tool round, a web search, an MCP server.

Run by the Python of an environment that has it: ``client_langchain.py BASE_URL MODEL MCP_URL``.  What the
provider answers is in :mod:`frameworks`, in this order.
"""

from __future__ import annotations

import sys

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"cold in {city}"


def main(base_url: str, model_name: str, mcp_url: str) -> None:
    model = ChatOpenAI(
        model=model_name, base_url=base_url, api_key="any", use_responses_api=True, max_retries=0
    )
    answer = model.invoke("Say hello.")
    assert answer.text == "Hello.", answer
    print("ok turn")

    whole = AIMessageChunk(content="")
    texts = []
    for chunk in model.stream("Count."):
        texts.append(chunk.text)
        whole = whole + chunk
    assert "".join(texts) == whole.text == "one two three", (texts, whole)
    assert whole.usage_metadata and whole.usage_metadata["total_tokens"] > 0, whole.usage_metadata
    print("ok stream")

    messages = [HumanMessage("The weather in Oslo?")]
    with_tool = model.bind_tools([get_weather])
    asked = with_tool.invoke(messages)
    assert isinstance(asked, AIMessage), asked
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Oslo"}), call
    messages += [asked, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
    answer = with_tool.invoke(messages)
    assert answer.text == "It is cold.", answer
    print("ok tool round")

    messages += [answer, HumanMessage("And tomorrow?")]
    assert with_tool.invoke(messages).text == "Colder."
    print("ok second turn")

    searching = model.bind_tools([{"type": "web_search"}])
    messages = [HumanMessage("Any news?")]
    whole = AIMessageChunk(content="")
    for chunk in searching.stream(messages):
        whole = whole + chunk
    assert whole.text == "Found.", whole
    print("ok search")

    assert searching.invoke([*messages, whole, HumanMessage("Sure?")]).text == "Yes."
    print("ok second turn after a search")

    docs = {"type": "mcp", "server_label": "docs", "server_url": mcp_url, "require_approval": "never"}
    asking = model.bind_tools([docs])
    messages = [HumanMessage("What does the server say?")]
    whole = AIMessageChunk(content="")
    for chunk in asking.stream(messages):
        whole = whole + chunk
    assert whole.text == "It says hi.", whole
    print("ok MCP server")

    assert asking.invoke([*messages, whole, HumanMessage("Sure?")]).text == "Yes."
    print("ok second turn after an MCP server")


if __name__ == "__main__":
    main(*sys.argv[1:])
