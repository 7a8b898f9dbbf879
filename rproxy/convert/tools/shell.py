"""``shell``: several commands at a time, each with its own output and outcome."""

from __future__ import annotations

from typing import Any

from ...types import AnyItem, Json
from ..json_steps import json_text
from .kind import Offer, ToolKind, loads_object

PARAMETERS: Json = {
    "type": "object",
    "required": ["commands"],
    "additionalProperties": False,
    "properties": {
        "commands": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Shell commands, run one after another.",
        },
        "timeout_ms": {"type": "integer"},
        "max_output_length": {"type": "integer"},
    },
}


class Shell(ToolKind):
    types = ("shell",)
    call_type = "shell_call"
    output_type = "shell_call_output"
    prefix = "sh"

    def tool_name(self, tool: Json) -> str:
        return "shell"

    def function(self, tool: Json) -> Json:
        return {"description": "Run shell commands and return their output.", "parameters": PARAMETERS}

    def describe(self, offer: Offer, item: Json) -> None:
        item["action"] = {"commands": [], "timeout_ms": None, "max_output_length": None}

    def finish(self, item: AnyItem, whole: str) -> Json:
        return dict(item, status="completed", action=dict(item["action"], **loads_object(whole)))

    def call_name(self, item: AnyItem) -> str:
        return "shell"

    def call_arguments(self, item: AnyItem) -> str:
        action = item.get("action")
        return json_text(
            {k: v for k, v in action.items() if v is not None} if isinstance(action, dict) else {}
        )

    def output(self, item: AnyItem) -> Any:
        output = item.get("output")
        return output if isinstance(output, str) else json_text(output)
