"""``namespace``: a named group of tools (an MCP server, sub-agents), flattened to ``namespace__name``.

The members are tools of other kinds, and come back as those kinds, with the bare name and the namespace
beside it.
"""

from __future__ import annotations

from typing import List, Optional, Tuple

from ...types import Json
from .kind import ToolKind, described, flat_form

MAX_REPEATED = 1 << 20  # characters of a description in all members together


class Namespace(ToolKind):
    types = ("namespace",)

    def members(self, tool: Json) -> List[Tuple[Optional[str], Json]]:
        name, about = self.tool_name(tool), described(tool)
        tools = tool.get("tools")
        if not isinstance(tools, list) or not tools:
            return []
        about = about[: MAX_REPEATED // len(tools)]
        return [(name, _introduced(flat_form(member), about)) for member in tools if isinstance(member, dict)]


def _introduced(member: Json, about: str) -> Json:
    """The member with its namespace's description in front: a flat list of functions has no other place for
    it.
    """
    if not about:
        return member
    return dict(member, description=(f"{about}\n\n{described(member)}").strip())
