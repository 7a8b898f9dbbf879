"""An MCP server, a provider that knows only functions, and a client of the rproxy between them."""

from __future__ import annotations

import contextlib
from typing import Any, AsyncIterator, Dict, List, NamedTuple

from api import Api
from grammar import check_response, check_stream
from mcp_double import McpDouble, mcp_double
from scripted import CONFIG, ScriptedProvider, call, served

Json = Dict[str, Any]
NEVER: Json = {"type": "mcp", "server_label": "docs", "require_approval": "never"}
ALWAYS: Json = {"type": "mcp", "server_label": "docs"}


class Lab(NamedTuple):
    """``double``: the server that the configuration names ``docs``."""

    provider: ScriptedProvider
    double: McpDouble
    api: Api

    async def stream(self, **body: Any) -> List[Json]:
        return await self.api.events("POST", "/responses", asking(stream=True, **body))

    async def streamed(self, **body: Any) -> Json:
        """The final response of a stream that is well-formed."""
        return check_stream(await self.stream(**body))

    async def whole(self, **body: Any) -> Json:
        return check_response(await self.api("POST", "/responses", asking(**body)))

    def messages(self, number: int) -> List[Json]:
        messages: List[Json] = self.provider.requests[number]["messages"]
        return messages

    def functions(self, number: int = 0) -> List[str]:
        return [tool["function"]["name"] for tool in self.provider.requests[number].get("tools", [])]


def asking(**body: Any) -> Json:
    return {"model": "gpt-5.5", "input": "Hello.", "tools": [NEVER], **body}


@contextlib.asynccontextmanager
async def mcp_lab(
    server: str = "", more: str = "", docs: str = "", hosted: str = "", **attributes: Any
) -> AsyncIterator[Lab]:
    """:param server: further keys of that section; ``docs``: of the MCP server, ``hosted``: of hosted_tools
    :param more: further sections
    :param attributes: of the MCP server
    """
    async with mcp_double(**attributes) as double:
        provider = ScriptedProvider()
        section = f"mcp_servers: {{{{docs: {{{{url: '{double.url}'{docs}}}}}}}}}\n"
        if hosted:
            section += f"hosted_tools: {{{{{hosted}}}}}\n"
        try:
            async with served(provider.base_url, server=server, config=CONFIG + section + more) as url:
                yield Lab(provider, double, Api(url))
        finally:
            await provider.close()
        assert provider.refusals == []


def echo(text: str = "hi", index: int = 0) -> Json:
    return call("docs__echo", index=index, text=text)


def of_type(response: Json, kind: str) -> List[Json]:
    return [item for item in response["output"] if item["type"] == kind]


def approving(response: Json, approve: bool = True, **more: Any) -> List[Json]:
    """The answer to all that a response asks for."""
    return [
        {"type": "mcp_approval_response", "approval_request_id": item["id"], "approve": approve, **more}
        for item in of_type(response, "mcp_approval_request")
    ]
