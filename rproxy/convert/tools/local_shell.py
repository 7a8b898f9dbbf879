"""``local_shell``: the shell tool of older Codex versions; its call carries an action object."""

from __future__ import annotations

from ...types import AnyItem, Json
from ..json_steps import json_text
from .kind import Offer, ToolKind, loads_object

PARAMETERS: Json = {
    "type": "object",
    "required": ["command"],
    "additionalProperties": False,
    "properties": {
        "command": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The program and its arguments.",
        },
        "working_directory": {"type": "string"},
        "timeout_ms": {"type": "integer"},
        "env": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


class LocalShell(ToolKind):
    types = ("local_shell",)
    call_type = "local_shell_call"
    output_type = "local_shell_call_output"
    prefix = "lsh"

    def tool_name(self, tool: Json) -> str:
        return "local_shell"

    def function(self, tool: Json) -> Json:
        return {
            "description": "Run a command on the user's machine and return its output.",
            "parameters": PARAMETERS,
        }

    def describe(self, offer: Offer, item: Json) -> None:
        item["action"] = {"type": "exec", "command": [], "env": {}}

    def finish(self, item: AnyItem, whole: str) -> Json:
        return dict(
            item,
            status="completed",
            action=dict({"type": "exec", "command": [], "env": {}}, **loads_object(whole)),
        )

    def call_name(self, item: AnyItem) -> str:
        return "local_shell"

    def call_arguments(self, item: AnyItem) -> str:
        action = item.get("action")
        return json_text({k: v for k, v in action.items() if k != "type"} if isinstance(action, dict) else {})
