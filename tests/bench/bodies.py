"""The requests that clients send.

``plain`` has 55 bytes; ``codex`` has 33 KB, with the instructions and 15 tools of a coding agent;
``history`` has 500 KB of conversation as well, which are a working day.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List

Json = Dict[str, Any]

INSTRUCTIONS = 'You are a coding agent. Read before you write, and say "done" when the tests pass.\n' * 85
WORK = 'def area(self):\n\treturn self.width * self.height  # "square" units\n' * 60


def plain(said: str) -> Json:
    return {"input": said}


def codex(said: str) -> Json:
    user = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}
    return {
        "instructions": INSTRUCTIONS,
        "input": [user],
        "tools": [tool(f"tool_{number}") for number in range(15)],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "bench",
        "store": False,
    }


def tool(name: str) -> Json:
    about = "The path of what is meant, relative to the folder that the session works in."
    properties = {f"path_{number}": {"type": "string", "description": about} for number in range(11)}
    parameters = {"type": "object", "properties": properties, "required": ["path_0"]}
    text = "Reads, changes or finds files of the project. " * 4
    return {
        "type": "function",
        "name": name,
        "description": text,
        "strict": False,
        "parameters": {**parameters, "additionalProperties": False},
    }


def history(said: str) -> Json:
    body = codex(said)
    past: List[Json] = []
    for number in range(110):
        text, call = "I look at the next file now.", f"call_{number}"
        arguments = json.dumps({"path_0": f"src/file_{number}.py"})
        past += [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
            {"type": "function_call", "call_id": call, "name": "tool_1", "arguments": arguments},
            {"type": "function_call_output", "call_id": call, "output": WORK},
        ]
    body["input"] = past + body["input"]
    return body


BODIES: Dict[str, Callable[[str], Json]] = {"plain": plain, "codex": codex, "history": history}
