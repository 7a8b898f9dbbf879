"""The section ``hosted_tools``: what the tools that rproxy runs itself may do for one response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Tuple

from ..types import light_dataclass
from . import checks as c
from .checks import key

if TYPE_CHECKING:
    from .mcp_schema import McpHost


@light_dataclass(frozen=True)
class HostedLimits:
    """The limits on hosted tools, for one response."""

    max_rounds: int = key(c.whole(1, 100), 8, "rounds: the model calls tools and continues with the results")
    max_calls: int = key(c.whole(1), 20, "calls; a client may set a lower limit (max_tool_calls)")
    max_seconds: float = key(c.seconds(), 300.0, "seconds that tools may run, together")
    max_result_bytes: int = key(
        c.whole(1000), 102_400, "bytes of one result; the middle of a longer one is left out"
    )
    mcp_hosts: Tuple[McpHost, ...] = key(
        c.list_of(c.later("mcp_schema", "mcp_host"), "a list of hosts"),
        (),
        "hosts whose MCP servers clients may name by server_url; default: none",
    )
