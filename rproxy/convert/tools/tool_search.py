"""``tool_search`` with ``execution: client``: Codex looks up deferred tools itself and returns their
definitions.

The call carries an argument object, not a string; the result names the tools that are offered from then on.
"""

from __future__ import annotations

import json
from typing import Any, Iterator, Tuple

from ...types import AnyItem, Json
from ..request.schema import function_schema
from .kind import Offer, ToolKind, described, flatten, loads_object, plain


class ToolSearch(ToolKind):
    types = ("tool_search",)
    call_type = "tool_search_call"
    output_type = "tool_search_output"
    prefix = "tsc"

    def tool_name(self, tool: Json) -> str:
        # One that OpenAI itself would run cannot be run here.
        return "tool_search" if tool.get("execution") == "client" else ""

    def function(self, tool: Json) -> Json:
        return {
            "description": described(tool) or "Search for tools.",
            "parameters": function_schema(tool.get("parameters")),
        }

    def describe(self, offer: Offer, item: Json) -> None:
        item.update(execution="client", arguments={})

    def finish(self, item: AnyItem, whole: str) -> Json:
        return dict(item, status="completed", arguments=loads_object(whole))

    def call_name(self, item: AnyItem) -> str:
        return "tool_search"

    def output(self, item: AnyItem) -> Any:
        """The names by which the tools that were found can be called; their definitions are among the
        request's tools.
        """
        found = [(plain(space), tool.get("name")) for space, tool in _found(item)]
        return json.dumps({"tools": [flatten(space, name) for space, name in found if isinstance(name, str)]})


def _found(item: AnyItem) -> Iterator[Tuple[Any, Json]]:
    """(namespace, tool) for each tool of a result."""
    entries = item.get("tools")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            members = entry.get("tools")
            if isinstance(members, list):
                yield from ((entry.get("name"), member) for member in members if isinstance(member, dict))
            else:
                yield None, entry
