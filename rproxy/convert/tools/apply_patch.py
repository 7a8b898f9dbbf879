"""``apply_patch`` as a tool kind of its own: one operation on one file. (Codex sends it as ``custom`` or
``function``.)
"""

from __future__ import annotations

from typing import Any

from ...types import AnyItem, Json
from ..json_steps import json_text
from .kind import Offer, ToolKind, loads_object

PARAMETERS: Json = {
    "type": "object",
    "required": ["type", "path"],
    "additionalProperties": False,
    "properties": {
        "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
        "path": {"type": "string"},
        "diff": {"type": "string", "description": "The V4A diff of the file; not for delete_file."},
    },
}


class ApplyPatch(ToolKind):
    types = ("apply_patch",)
    call_type = "apply_patch_call"
    output_type = "apply_patch_call_output"
    prefix = "apc"

    def tool_name(self, tool: Json) -> str:
        return "apply_patch"

    def function(self, tool: Json) -> Json:
        return {"description": "Create, update or delete one file.", "parameters": PARAMETERS}

    def describe(self, offer: Offer, item: Json) -> None:
        item["operation"] = {}

    def finish(self, item: AnyItem, whole: str) -> Json:
        return dict(item, status="completed", operation=loads_object(whole))

    def call_name(self, item: AnyItem) -> str:
        return "apply_patch"

    def call_arguments(self, item: AnyItem) -> str:
        return json_text(item.get("operation") or {})

    def output(self, item: AnyItem) -> Any:
        return f"{item.get('status') or 'completed'}\n{item.get('output') or ''}"
