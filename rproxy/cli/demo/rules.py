"""What the demo provider refuses: the rules of DeepSeek's chat API, as data and small functions.

Strictness is the point: a request that is accepted here would be accepted by DeepSeek, so the demo and the
tests find a wrong translation before it costs money.  Each rule looks at the whole request and returns the
text of the refusal, or None; every refusal has status 400.  Sources: DeepSeek's API reference, and error
texts that its users have reported.
"""

from __future__ import annotations

import re
from typing import Any, Callable, List, Optional, Sequence, Tuple

from ...types import Json

Rule = Callable[[Json], Optional[str]]

ROLES = ("system", "user", "assistant", "tool", "latest_reminder")
EFFORTS = ("low", "medium", "high", "xhigh", "max")
FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
MAX_TOKENS = 393216
MAX_TOOLS = 128
RANGES = (
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("top_logprobs", 0, 20),
)

MISSING_REASONING = "The `reasoning_content` in the thinking mode must be passed back to the API."
MISSING_OUTPUTS = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
    "'tool_call_id'. (insufficient tool messages following tool_calls message)"
)
STRAY_OUTPUT = "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'"


def _unreadable(reason: str) -> str:
    return f"Failed to deserialize the JSON body into the target type: {reason}"


def thinking(body: Json) -> bool:
    """Does the model think? It does unless ``thinking.type`` is ``disabled``."""
    return (body.get("thinking") or {}).get("type") != "disabled"


def refusal(body: Any) -> Optional[str]:
    """Why DeepSeek would refuse this chat request (status 400), or None."""
    if not isinstance(body, dict):
        return _unreadable("expected an object")
    try:
        return next((problem for problem in (rule(body) for rule in RULES) if problem), None)
    except (AttributeError, KeyError, TypeError) as exc:  # the rules assume correct types
        return _unreadable(f"invalid type: {exc}")


def _shape(body: Json) -> Optional[str]:
    messages, tools, choice = body.get("messages"), body.get("tools"), body.get("thinking")
    if not isinstance(body.get("model"), str) or not body["model"]:
        return _unreadable("missing field `model`")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return _unreadable("missing field `messages`")
    if not messages:
        return "Empty input messages"
    if tools is not None and not (isinstance(tools, list) and all(isinstance(t, dict) for t in tools)):
        return _unreadable("tools: expected a sequence")
    if choice is not None and not (
        isinstance(choice, dict) and choice.get("type") in ("enabled", "disabled")
    ):
        return _unreadable("thinking.type: expected `enabled` or `disabled`")
    return None


def _text(body: Json) -> Optional[str]:
    """A lone surrogate cannot be written in UTF-8."""
    try:
        all_text(body).encode("utf-8")
    except UnicodeEncodeError as exc:
        return f"Failed to parse the request body as JSON: unexpected end of hex escape at column {exc.start}"
    return None


def all_text(value: Any) -> str:
    """All strings of a JSON value, joined by line ends."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    return "\n".join(all_text(part) for part in value) if isinstance(value, list) else ""


def _roles(body: Json) -> Optional[str]:
    for n, message in enumerate(body["messages"]):
        role = message.get("role")
        if role not in ROLES:
            return _unreadable(f"messages[{n}].role: {_unknown(role, ROLES)}")
    return None


def _unknown(value: Any, known: Sequence[str]) -> str:
    return f"unknown variant `{value}`, expected one of {', '.join(f'`{word}`' for word in known)}"


def _contents(body: Json) -> Optional[str]:
    for n, message in enumerate(body["messages"]):
        problem = _content(message)
        if problem:
            return _unreadable(f"messages[{n}].content: {problem}")
        if (
            message["role"] == "assistant"
            and message.get("content") is None
            and not message.get("tool_calls")
        ):
            return "Invalid assistant message: content or tool_calls must be set"
        if message.get("tool_calls") == []:
            return f"Invalid 'messages[{n}].tool_calls': empty array. Expected an array with minimum length 1"
    return None


def _content(message: Json) -> Optional[str]:
    content = message.get("content")
    if isinstance(content, str) or (content is None and message["role"] == "assistant"):
        return None
    if not isinstance(content, list) or message["role"] == "tool":
        return f"invalid type: {type(content).__name__}, expected a string"
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            found = part.get("type") if isinstance(part, dict) else part
            return f"unknown variant `{found}`, expected `text`"
    return None


def _order(body: Json) -> Optional[str]:
    """Tool outputs directly follow their calls: one for each call, and none without a call."""
    waiting: List[Any] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                return STRAY_OUTPUT
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return MISSING_OUTPUTS
        waiting = [call.get("id") for call in message.get("tool_calls") or ()]
    if waiting:
        return MISSING_OUTPUTS
    if body["messages"][-1]["role"] == "assistant":
        return "The last message must be a user message, or an assistant message with prefix mode turned on"
    return None


def _reasoning(body: Json) -> Optional[str]:
    lost = any(
        m.get("tool_calls") and not isinstance(m.get("reasoning_content"), str) for m in body["messages"]
    )
    return MISSING_REASONING if lost and thinking(body) else None


def _tools(body: Json) -> Optional[str]:
    tools = body.get("tools")
    if tools is None:
        return None
    if not 1 <= len(tools) <= MAX_TOOLS:
        return f"Invalid 'tools': {len(tools)} tools. Expected an array with 1 to {MAX_TOOLS} elements"
    names = [t.get("function", {}).get("name") for t in tools]
    for n, tool in enumerate(tools):
        if tool.get("type") != "function":
            return _unreadable(f"tools[{n}].type: unknown variant `{tool.get('type')}`, expected `function`")
        if not isinstance(names[n], str) or not FUNCTION_NAME.match(names[n]):
            return (
                f"Invalid 'tools[{n}].function.name': string does not match pattern. Expected "
                "'^[a-zA-Z0-9_-]+$'"
            )
        schema = tool["function"].get("parameters")
        if schema is not None and (not isinstance(schema, dict) or schema.get("type") != "object"):
            found = schema.get("type") if isinstance(schema, dict) else schema
            return (
                f"Invalid schema for function '{names[n]}': schema must be a JSON Schema of 'type: "
                f"\"object\"', got '{found}'"
            )
    return "Tool names must be unique" if len(set(names)) < len(names) else None


def _tool_choice(body: Json) -> Optional[str]:
    choice = body.get("tool_choice")
    if choice is None:
        return None
    if choice != "none" and not body.get("tools"):
        return "'tool_choice' is only allowed when 'tools' are specified"
    if thinking(body) and choice not in ("auto", "none"):
        return "Thinking mode does not support this tool_choice"
    known = choice in ("auto", "none", "required") or (
        isinstance(choice, dict) and isinstance(choice.get("function"), dict)
    )
    return None if known else _unreadable("tool_choice: unknown variant")


def _format(body: Json) -> Optional[str]:
    kind = (body.get("response_format") or {}).get("type", "text")
    if kind not in ("text", "json_object"):
        return "This response_format type is unavailable now"
    if kind == "json_object" and "json" not in all_text([m.get("content") for m in body["messages"]]).lower():
        return (
            "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."
        )
    return None


def _effort(body: Json) -> Optional[str]:
    effort = body.get("reasoning_effort")
    if effort is None or effort in EFFORTS:
        return None
    return _unreadable(f"reasoning_effort: {_unknown(effort, EFFORTS)}")


def _numbers(body: Json) -> Optional[str]:
    for key, low, high in (*RANGES, ("max_tokens", 1, MAX_TOKENS)):
        value = body.get(key)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high
        ):
            return f"Invalid {key} value, the valid range of {key} is [{low}, {high}]"
    if body.get("stream_options") is not None and not body.get("stream"):
        return "stream_options should be set along with stream = true"
    return None


RULES: Tuple[Rule, ...] = (
    _shape,
    _text,
    _roles,
    _contents,
    _order,
    _reasoning,
    _tools,
    _tool_choice,
    _format,
    _effort,
    _numbers,
)
