"""Providers with one rule each, and the words in which they refuse a request that breaks it.

The words are those that users report of real providers and servers (or the like); a rule says when they come,
and ``keep`` what a cure must leave in the request.  A case has at most two cures to get a request through.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

Json = Dict[str, Any]
Rule = Callable[[Json], object]  # does the request break it?

TOOL: Json = {
    "type": "function",
    "name": "ls",
    "description": "List a folder",
    "parameters": {
        "type": "object",
        "properties": {
            "path": {"type": "string", "pattern": "^/"},
            "depth": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["path"],
        "additionalProperties": False,
    },
    "strict": True,
}
OTHER: Json = {"type": "function", "name": "read_file", "parameters": {"type": "object", "properties": {}}}
SCHEMA: Json = {
    "format": {
        "type": "json_schema",
        "name": "out",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "minimum": 0},
                "s": {"type": "string", "pattern": "^a"},
                "l": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            },
            "required": ["n"],
        },
    }
}


def user(*parts: Any) -> Json:
    content = [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"type": "message", "role": "user", "content": content}


def developer(text: str) -> Json:
    return {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": text}]}


def image(kind: str) -> Json:
    return {"type": "input_image", "image_url": f"data:image/{kind};base64,AAAA{kind}"}


LOOP: List[Json] = [
    user("list it"),
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "I should look."}]},
    {"type": "function_call", "call_id": "call_1", "name": "ls", "arguments": '{"path": "."}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "a b c"},
]
HI: Json = {"input": [user("hello there")]}
CODEX: Json = {
    "instructions": "You are a coding agent.",
    "tools": [TOOL],
    "reasoning": {"effort": "medium", "summary": "auto"},
    "input": [developer("Sandbox: read-only."), user("<environment>linux</environment>"), user("hello")],
}
TURN: Json = {"input": LOOP, "tools": [TOOL]}
AFTER: Json = {"input": [*LOOP, user("go on")], "tools": [TOOL]}
EFFORT: Json = {**HI, "reasoning": {"effort": "medium"}, "tools": [TOOL]}
FORCED: Json = {**HI, "tools": [TOOL, OTHER], "tool_choice": {"type": "function", "name": "ls"}}


class Case(NamedTuple):
    """``say``: the body of a refusal, or a function that makes it of the request."""

    request: Json
    breaks: Rule
    say: Any
    keep: Rule = lambda body: True
    profile: str = "generic"
    status: int = 400
    stream: bool = True
    model: str = "m"

    def answer(self, body: Json) -> Any:
        return self.say(body) if callable(self.say) else self.say


def openai(message: str, **more: Any) -> Json:
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}
    }


def pydantic(*loc: Any, msg: str = "Extra inputs are not permitted", type: str = "extra_forbidden") -> Json:
    return {"detail": [{"type": type, "loc": ["body", *loc], "msg": msg, "input": None}]}


# ---- Rules
def has(*keys: str) -> Rule:
    return lambda body: any(key in body for key in keys)


def has_tools(body: Json) -> bool:
    return bool(body.get("tools"))


def effort_in(*levels: Any) -> Rule:
    return lambda body: body.get("reasoning_effort") in levels


def effort_not_in(*levels: Any) -> Rule:
    return lambda body: body.get("reasoning_effort") not in levels


def role(*roles: str) -> Rule:
    return lambda body: any(m["role"] in roles for m in body["messages"])


def late_system(body: Json) -> bool:
    return any(m["role"] in ("system", "developer") for m in body["messages"][1:])


def several_systems(body: Json) -> bool:
    return sum(m["role"] in ("system", "developer") for m in body["messages"]) > 1


def same_twice(body: Json) -> bool:
    roles = [m["role"] for m in body["messages"]]
    return any(a == b != "tool" for a, b in zip(roles, roles[1:]))


def message_has(*keys: str) -> Rule:
    return lambda body: any(key in m for m in body["messages"] for key in keys)


def calls_without(key: str, values: Tuple[Any, ...]) -> Rule:
    return lambda body: any(m.get("tool_calls") and m.get(key) in values for m in body["messages"])


def written(place: str, *words: str) -> Rule:
    return lambda body: any(f'"{word}":' in json.dumps(body.get(place)) for word in words)


def choice_is(*kinds: Any) -> Rule:
    def rule(body: Json) -> bool:
        choice = body.get("tool_choice")
        return ("object" if isinstance(choice, dict) else choice) in kinds

    return rule


def format_is(*kinds: str) -> Rule:
    return lambda body: (body.get("response_format") or {}).get("type") in kinds


def parts_of(body: Json, kind: str) -> Iterator[Json]:
    for message in body["messages"]:
        content = message.get("content")
        yield from (p for p in content if p["type"] == kind) if isinstance(content, list) else ()


def has_part(kind: str, word: str = "") -> Rule:
    return lambda body: any(word in json.dumps(part) for part in parts_of(body, kind))


def both(*rules: Rule) -> Rule:
    return lambda body: all(rule(body) for rule in rules)


def lacks(rule: Rule) -> Rule:
    return lambda body: not rule(body)


def call_ids(length: int) -> Rule:
    return lambda body: any(
        len(c["id"]) > length for m in body["messages"] for c in m.get("tool_calls") or ()
    )


CASES: Dict[str, Case] = {
    # ---- Thinking: levels
    "openai: unsupported value, by param": Case(
        EFFORT,
        effort_not_in("low", "high"),
        openai(
            "Unsupported value: 'medium' is not supported with the 'gpt-5.1-codex' model. Supported values are: 'low' and 'high'.",
            param="reasoning_effort",
            code="unsupported_value",
        ),
        both(has_tools, effort_in("low", "high")),
    ),
    "copilot: unsupported value, no param": Case(
        {**EFFORT, "reasoning": {"effort": "xhigh"}},
        effort_in("xhigh"),
        {
            "error": {
                "message": "Unsupported value: 'xhigh' is not supported with the 'gpt-5-mini' model. Supported values are: "
                "'minimal', 'low', 'medium', and 'high'.",
                "code": "invalid_request_body",
            }
        },
        both(has_tools, effort_in("high")),
    ),
    "openai: does not support the level": Case(
        {**EFFORT, "reasoning": {"effort": "high"}},
        effort_not_in("medium", None),
        openai(
            "Unsupported value: 'reasoning_effort' does not support 'high' with this model. Supported values are: 'medium'.",
            param="reasoning_effort",
            code="unsupported_value",
        ),
        effort_in("medium"),
    ),
    "copilot: output_config.effort": Case(
        {**EFFORT, "reasoning": {"effort": "high"}},
        effort_in("high", "low"),
        {
            "error": {
                "message": 'output_config.effort "high" is not supported by model claude-opus-4.7; supported values: [medium]',
                "code": "invalid_reasoning_effort",
            }
        },
        effort_in("medium"),
    ),
    "serde: unknown variant": Case(
        {**EFFORT, "reasoning": {"effort": "minimal"}},
        effort_in("minimal"),
        openai(
            "Failed to deserialize the JSON body into the target type: reasoning_effort: unknown variant `minimal`, expected one "
            "of `low`, `high`, `max` at line 1 column 99"
        ),
        effort_in("low"),
    ),
    "zai: please use": Case(
        {**EFFORT, "reasoning": {"effort": "none"}},
        effort_not_in("low", "high", "max"),
        {"error": {"code": "1210", "message": "Invalid API parameter, please use low, high, or max"}},
        effort_in("low"),
    ),
    "kimi: none is not supported": Case(
        {**EFFORT, "reasoning": {"effort": "none"}},
        effort_in("none"),
        openai(
            "Unsupported value: 'reasoning_effort' does not support 'none' with this model. Supported values are: 'minimal', "
            "'low', 'medium', and 'high'."
        ),
        effort_in("minimal"),
    ),
    "pydantic: literal": Case(
        {**EFFORT, "reasoning": {"effort": "xhigh"}},
        effort_not_in("low", "medium", "high"),
        pydantic("reasoning_effort", msg="Input should be 'low', 'medium' or 'high'", type="literal_error"),
        effort_in("high"),
        status=422,
    ),
    "ollama: think value": Case(
        EFFORT,
        effort_not_in(None, "none"),
        openai('think value "medium" is not supported for this model'),
        has_tools,
        profile="ollama",
    ),
    "ollama: think value, another one goes": Case(
        EFFORT,
        effort_in("medium"),
        openai('think value "medium" is not supported for this model'),
        effort_in("low", "high"),
        profile="ollama",
    ),
    # ---- Thinking: not at all
    "ollama: does not support thinking": Case(
        CODEX,
        effort_not_in(None, "none"),
        openai('"llama3.1:8b" does not support thinking'),
        has_tools,
        profile="ollama",
    ),
    "xai: camel case": Case(
        EFFORT,
        has("reasoning_effort"),
        {
            "code": "Client specified an invalid argument",
            "error": "Model grok-4-latest does not support parameter reasoningEffort.",
        },
        has_tools,
    ),
    "copilot: was provided, but": Case(
        EFFORT,
        has("reasoning_effort"),
        openai(
            'reasoning_effort "medium" was provided, but model gpt-4o-2024-11-20 does not support reasoning effort'
        ),
        has_tools,
    ),
    "siliconflow: enable_thinking": Case(
        EFFORT,
        has("enable_thinking"),
        {
            "code": 20015,
            "message": "Value error, current model does not support parameter `enable_thinking`.",
            "data": None,
        },
        has_tools,
        profile="siliconflow",
    ),
    "vllm: mistral's tokenizer": Case(
        EFFORT,
        has("chat_template_kwargs"),
        {
            "object": "error",
            "message": "chat_template is not supported for Mistral tokenizers.",
            "type": "BadRequestError",
            "code": 400,
        },
        has_tools,
        profile="sglang",
    ),
    "transformers: kwargs": Case(
        EFFORT,
        has("reasoning_effort"),
        {
            "error": {
                "message": "Kwargs ['reasoning_effort'] are not supported by `MistralCommonTokenizer.apply_chat_template`.",
                "code": 400,
            }
        },
        has_tools,
        profile="vllm",
    ),
    "bedrock: unknown field, and a list of all": Case(
        EFFORT,
        has("thinking"),
        {
            "message": "The model returned the following errors: Failed to deserialize the JSON body into the target type: thinking: "
            "unknown field thinking, expected one of messages, model, store, reasoning_effort, metadata, max_tokens, stop, stream, "
            "stream_options, temperature, tools, tool_choice, user, functions at line 1 column 445"
        },
        both(has_tools, has("reasoning_effort"), lacks(has("thinking"))),
        profile="deepseek",
    ),
    "openai: moved": Case(
        EFFORT,
        has("reasoning_effort"),
        openai(
            "Unsupported parameter: 'reasoning_effort'. In the Responses API, this parameter has moved to 'reasoning.effort'.",
            code="unsupported_parameter",
        ),
        has_tools,
    ),
    "openai: unrecognized argument": Case(
        EFFORT,
        has("reasoning_effort"),
        openai("Unrecognized request argument supplied: reasoning_effort"),
        has_tools,
    ),
    "mistral: extra_forbidden": Case(
        EFFORT, has("reasoning_effort"), pydantic("reasoning_effort"), has_tools, status=422
    ),
    "dashscope: enable_thinking in whole answers": Case(
        EFFORT,
        lambda body: body.get("enable_thinking") and not body.get("stream"),
        openai(
            "parameter.enable_thinking must be set to false for non-streaming calls",
            code="invalid_parameter_error",
        ),
        both(has_tools, has("enable_thinking")),
        profile="siliconflow",
        stream=False,
    ),
    "openrouter: mandatory": Case(
        {**EFFORT, "reasoning": {"effort": "none"}},
        lambda body: (body.get("reasoning") or {}).get("effort") == "none",
        openai("Reasoning is mandatory for this endpoint and cannot be disabled."),
        has_tools,
        profile="openrouter",
    ),
    "a gateway: thinking is not enabled here, as 500": Case(
        EFFORT,
        has("reasoning_effort"),
        {
            "detail": "litellm.UnsupportedParamsError: m does not support parameters: ['reasoning_effort'], for model=m."
        },
        has_tools,
        status=500,
    ),
    # ---- Thinking beside tools
    "openai: function tools with effort": Case(
        CODEX,
        lambda body: body.get("tools") and body.get("reasoning_effort") != "none",
        openai(
            "Function tools with reasoning_effort are not supported for gpt-5.6-terra in /v1/chat/completions. To use function tools, "
            "use /v1/responses or set reasoning_effort to 'none'.",
            param="reasoning_effort",
        ),
        has_tools,
    ),
    "openai: even without an effort": Case(
        {**HI, "tools": [TOOL]},
        lambda body: body.get("tools") and body.get("reasoning_effort") != "none",
        openai(
            "Function tools with reasoning_effort are not supported for gpt-5.5 in /v1/chat/completions. To use function tools, "
            "use /v1/responses or set reasoning_effort to 'none'.",
            param="reasoning_effort",
        ),
        has_tools,
    ),
    "a server: tools cannot be used with thinking": Case(
        EFFORT,
        lambda body: body.get("tools") and body.get("reasoning_effort") not in (None, "none"),
        openai("Tool calling cannot be combined with reasoning for this model"),
        has_tools,
    ),
    # ---- Earlier thinking
    "groq: property of a message": Case(
        TURN,
        message_has("reasoning", "reasoning_content"),
        openai(
            "'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property 'reasoning_content' is unsupported)]"
        ),
        has_tools,
    ),
    "groq: did you mean": Case(
        TURN,
        message_has("reasoning"),
        openai(
            "'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : property 'reasoning' is unsupported, "
            "did you mean 'role'?)]"
        ),
        has_tools,
        profile="vllm",
    ),
    "groq: only the other field": Case(
        TURN,
        message_has("reasoning_content"),
        openai(
            "'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property 'reasoning_content' is unsupported)]"
        ),
        message_has("reasoning"),
    ),
    "cerebras: path twice": Case(
        TURN,
        message_has("reasoning", "reasoning_content"),
        {
            "message": "messages.1.assistant.reasoning_content: property 'messages.1.assistant.reasoning_content' is unsupported",
            "type": "invalid_request_error",
            "param": "validation_error",
            "code": "wrong_api_format",
        },
        has_tools,
    ),
    "mistral: loc of a message": Case(
        TURN,
        message_has("reasoning", "reasoning_content", "reasoning_details"),
        pydantic("messages", 1, "assistant", "reasoning_content"),
        has_tools,
        status=422,
    ),
    "mistral: loc inside a message": Case(
        TURN,
        message_has("reasoning_content"),
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "messages", 1, "assistant", "reasoning_content"],
                        "msg": "Extra inputs are not permitted",
                        "input": "x",
                    }
                ]
            },
            "type": "invalid_request_error",
        },
        has_tools,
        status=422,
    ),
    "vllm: ThinkChunk": Case(
        TURN,
        lambda body: "thinking" in json.dumps(body["messages"]),
        openai("Unexpected content chunk types in assistant message: ThinkChunk"),
        has_tools,
        profile="mistral",
    ),
    "deepseek: must be passed back": Case(
        {"input": LOOP[:1] + LOOP[2:], "tools": [TOOL]},
        calls_without("reasoning_content", (None,)),
        openai(
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
            code="invalid_request_error",
        ),
        has_tools,
    ),
    "kimi: is missing, and an empty one does not count": Case(
        {"input": LOOP[:1] + LOOP[2:], "tools": [TOOL]},
        calls_without("reasoning_content", (None, "")),
        openai(
            "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1"
        ),
        has_tools,
    ),
    "deepseek: missing field": Case(
        {"input": LOOP[:1] + LOOP[2:], "tools": [TOOL]},
        calls_without("reasoning_content", (None,)),
        openai(
            "Missing `reasoning_content` field in the assistant message at message index 1. For more information, please refer to the docs"
        ),
        has_tools,
    ),
    # ---- Roles and order
    "serde: developer": Case(
        CODEX,
        role("developer"),
        openai(
            "messages[1].role: unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool`"
        ),
        has_tools,
        profile="openai-gateway",
    ),
    "openai-like: not one of": Case(
        CODEX,
        role("developer"),
        openai(
            "'developer' is not one of ['system', 'assistant', 'user', 'tool', 'function'] - 'messages.1.role'"
        ),
        has_tools,
        profile="openai-gateway",
    ),
    "pydantic: the role's literal": Case(
        CODEX,
        role("developer"),
        pydantic(
            "messages",
            1,
            "role",
            msg="Input should be 'system', 'user', 'assistant' or 'tool'",
            type="literal_error",
        ),
        role("system"),
        profile="openai-gateway",
        status=422,
    ),
    "pydantic: a report in lines, as 500": Case(
        CODEX,
        role("developer"),
        {
            "error": "1 validation error for ChatCompletionRequest\nmessages.1.role\n  Input should be 'system', 'user' or 'assistant' "
            "[type=literal_error, input_value='developer', input_type=str]\n    For further information visit https://errors.pydantic.dev/2.9"
        },
        has_tools,
        profile="openai-gateway",
        status=500,
    ),
    "llama.cpp: jinja, as 500": Case(
        CODEX,
        late_system,
        {
            "error": {
                "code": 500,
                "message": "\n------------\nWhile executing CallExpression at line 85, column 32 in source:\n...first %}↵            {{- "
                "raise_exception('System message must be at the beginnin...\n                                           ^\nError: "
                "Jinja Exception: System message must be at the beginning.",
                "type": "server_error",
            }
        },
        has_tools,
        status=500,
    ),
    "llama.cpp: parser generation": Case(
        CODEX,
        late_system,
        {
            "error": {
                "code": 400,
                "message": "Unable to generate parser for this template. Automatic parser generation failed: \n------------\nWhile executing "
                "CallExpression at line 85, column 32 in source:\n...first %}↵            {{- raise_exception('System message must be at the "
                "beginnin...\n                                           ^\nError: Jinja Exception: System message must be at the beginning.",
                "type": "invalid_request_error",
            }
        },
        has_tools,
    ),
    "vllm: only one": Case(
        CODEX,
        several_systems,
        openai("Only one system message is allowed, and it must come first"),
        has_tools,
    ),
    "a gateway: multiple system messages": Case(
        CODEX, several_systems, openai("Multiple system messages are not supported by this model"), has_tools
    ),
    "mistral: unexpected role system": Case(
        {"input": [user("a"), developer("b"), user("c")]},
        late_system,
        {
            "object": "error",
            "message": "Unexpected role 'system' after role 'user'",
            "type": "invalid_request_message_order",
            "code": "3230",
        },
    ),
    "gemma: no system role": Case(
        CODEX,
        role("system"),
        {
            "error": {
                "code": 500,
                "message": "Jinja Exception: System role not supported",
                "type": "server_error",
            }
        },
        has_tools,
        status=500,
    ),
    "a server: only these roles": Case(
        CODEX,
        role("system", "developer"),
        openai("Invalid role: system. Only user, assistant and tool roles are supported!"),
        has_tools,
    ),
    "gemma: alternation, as 500": Case(
        CODEX,
        same_twice,
        {
            "error": {
                "code": 500,
                "message": "Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/...",
                "type": "server_error",
            }
        },
        has_tools,
        status=500,
    ),
    "devstral: alternation except for tools": Case(
        CODEX,
        same_twice,
        {
            "error": {
                "code": 500,
                "message": "\n------------\nWhile executing CallExpression at line 189, column 32 in source:\n...== 0) %}↵            {{- "
                "raise_exception('After the optional system message, con...\n      ^\nError: Jinja Exception: After the optional system message, "
                "conversation roles must alternate user and assistant roles except for tool calls and results.",
                "type": "server_error",
            }
        },
        has_tools,
        status=500,
    ),
    "perplexity: alternation": Case(
        CODEX,
        same_twice,
        openai(
            "After the (optional) system message(s), user or tool message(s) should alternate with assistant message(s).",
            type="invalid_message",
            code=400,
        ),
        has_tools,
    ),
    "mistral: user after tool": Case(
        AFTER,
        lambda body: any(
            a["role"] == "tool" and b["role"] == "user"
            for a, b in zip(body["messages"], body["messages"][1:])
        ),
        {
            "object": "error",
            "message": "Unexpected role 'user' after role 'tool'",
            "type": "invalid_request_message_order",
            "param": None,
            "code": "3230",
        },
        has_tools,
    ),
    "anthropic: prefill": Case(
        {"input": [user("hi"), {"type": "message", "role": "assistant", "content": "Sure, I"}]},
        lambda body: body["messages"][-1]["role"] == "assistant",
        openai(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        ),
    ),
    "qwen: no user query": Case(
        {"instructions": "Summarize.", "input": [developer("Do it.")]},
        lacks(role("user")),
        {
            "error": {
                "code": 500,
                "message": "Jinja Exception: No user query found in messages.",
                "type": "server_error",
            }
        },
        status=500,
    ),
    # ---- Content
    "mimo: the reason in param": Case(
        TURN,
        calls_without("content", (None, "")),
        {"error": {"code": "400", "message": "Param Incorrect", "param": "`text` is not set", "type": ""}},
        has_tools,
    ),
    "ollama: nil": Case(
        TURN, calls_without("content", (None,)), openai("invalid message content type: <nil>"), has_tools
    ),
    "llama.cpp: string or array": Case(
        TURN,
        calls_without("content", (None,)),
        {
            "error": {
                "code": 500,
                "message": "Expected 'content' to be a string or an array",
                "type": "server_error",
            }
        },
        has_tools,
        status=500,
    ),
    "lmstudio: string or objects": Case(
        TURN,
        calls_without("content", (None,)),
        {"error": "Invalid 'content': 'content' field must be a string or an array of objects."},
        has_tools,
    ),
    "openai: got null": Case(
        TURN,
        calls_without("content", (None,)),
        openai(
            "Invalid value for 'content': expected a string, got null.",
            param="messages.[1].content",
            code="invalid_value",
        ),
        has_tools,
    ),
    "kimi: text content is empty": Case(
        TURN,
        calls_without("content", (None, "")),
        openai("Invalid request: text content is empty"),
        has_tools,
    ),
    "pydantic: string type": Case(
        TURN,
        calls_without("content", (None,)),
        pydantic(
            "messages", 1, "assistant", "content", msg="Input should be a valid string", type="string_type"
        ),
        has_tools,
        status=422,
    ),
    "anthropic: non-empty content": Case(
        TURN,
        calls_without("content", (None, "")),
        openai(
            "messages.1: all messages must have non-empty content except for the optional final assistant message"
        ),
        has_tools,
    ),
    "mistral: 9 characters": Case(
        TURN,
        lambda body: any(len(c["id"]) != 9 for m in body["messages"] for c in m.get("tool_calls") or ()),
        openai("Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.", code="3280"),
        has_tools,
    ),
    "openai: a long id": Case(
        {
            "input": [LOOP[0], *({**item, "call_id": "call_" + "x" * 60} for item in LOOP[2:])],
            "tools": [TOOL],
        },
        call_ids(40),
        openai(
            "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with maximum length 40, but got a string with length 65 instead.",
            param="messages[1].tool_calls[0].id",
            code="string_above_max_length",
        ),
        has_tools,
    ),
    # ---- Images and files
    "deepseek: image_url": Case(
        {"input": [user("look", image("png"))]},
        has_part("image_url"),
        openai(
            "Failed to deserialize the JSON body into the target type: messages[0]: unknown variant `image_url`, expected `text` at line 1 column 109"
        ),
    ),
    "a model without eyes": Case(
        {"input": [user("look", image("png"))]},
        has_part("image_url"),
        openai("This model does not support image input"),
    ),
    "deepseek: untagged enum": Case(
        {"input": [user("look", image("png"))]},
        has_part("image_url"),
        openai(
            "Failed to deserialize the JSON body into the target type: messages[0]: data did not match any variant of untagged enum ChatCompletionRequestContent"
        ),
    ),
    "a format of images": Case(
        {"input": [user("look", image("png"), image("bmp"))]},
        has_part("image_url", "image/bmp"),
        openai("Unsupported image format: bmp. Only png, jpeg, gif and webp are supported."),
        has_part("image_url", "image/png"),
    ),
    "one image of several messages": Case(
        {"input": [user("look", image("png")), user("and", image("gif"))]},
        has_part("image_url", "image/gif"),
        openai("Invalid image data.", param="messages[1].content[1].image_url"),
        has_part("image_url", "image/png"),
    ),
    "files": Case(
        {
            "input": [
                user(
                    "look",
                    {
                        "type": "input_file",
                        "filename": "a.pdf",
                        "file_data": "data:application/pdf;base64,AAAA",
                    },
                )
            ]
        },
        has_part("file"),
        openai(
            "Invalid content type: file. Supported types are text and image_url.",
            param="messages[0].content[1].type",
        ),
    ),
    # ---- Formats
    "lmstudio: json_schema or text": Case(
        {**HI, "text": {"format": {"type": "json_object"}}},
        lacks(format_is("text", "json_schema")),
        {"error": "'response_format.type' must be 'json_schema' or 'text'"},
    ),
    "deepseek: unavailable": Case(
        {**HI, "text": SCHEMA},
        format_is("json_schema"),
        openai("This response_format type is unavailable now"),
        format_is("json_object"),
    ),
    "pydantic: response_format, as repr": Case(
        {**HI, "text": SCHEMA},
        format_is("json_schema"),
        openai(
            """[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': "Input should be 'text' or 'json_object'", 'input': 'json_schema'}]"""
        ),
        format_is("json_object"),
    ),
    "a gateway: no response_format at all": Case(
        {**HI, "text": SCHEMA},
        has("response_format"),
        {
            "error": {
                "message": '{"error":{"message":"Invalid input","type":"invalid_request_error","param":"response_format","code":"invalid_request_error"}}',
                "type": "invalid_request_error",
            }
        },
    ),
    "openrouter: wrapped": Case(
        {**HI, "text": {"format": {"type": "json_object"}}},
        format_is("json_object"),
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "raw": '{"error":{"message":"response_format json_object is not supported for this model","type":"invalid_request_error"}}',
                    "provider_name": "X",
                },
            }
        },
    ),
    "gemini: mime type beside tools": Case(
        {**HI, "text": SCHEMA, "tools": [TOOL]},
        has("response_format"),
        openai("Function calling with a response mime type: 'application/json' is unsupported"),
        has_tools,
    ),
    "groq: json mode beside tools": Case(
        {**HI, "text": SCHEMA, "tools": [TOOL]},
        has("response_format"),
        openai("json mode cannot be combined with tool/function calling"),
        has_tools,
    ),
    # ---- Schemas
    "cerebras: fields as a set": Case(
        {**HI, "text": SCHEMA},
        written("response_format", "minimum", "pattern"),
        {
            "message": "Unsupported JSON schema fields: {'minimum', 'pattern'}",
            "type": "invalid_request_error",
            "param": "response_format",
            "code": "wrong_api_format",
        },
        both(format_is("json_schema"), written("response_format", "required")),
    ),
    "cerebras: fields as a list": Case(
        {**HI, "text": SCHEMA},
        written("response_format", "minItems"),
        {
            "message": 'Unsupported JSON schema fields: ["minItems"]',
            "type": "invalid_request_error",
            "param": "response_format",
            "code": "wrong_api_format",
        },
        both(format_is("json_schema"), written("response_format", "pattern", "items")),
    ),
    "groq: closed objects": Case(
        {**HI, "text": SCHEMA},
        lacks(written("response_format", "additionalProperties")),
        openai(
            "invalid JSON schema for response_format: 'out': `additionalProperties:false` must be set on every object"
        ),
        format_is("json_schema"),
    ),
    "cerebras: additionalProperties is required": Case(
        {**HI, "text": SCHEMA},
        lacks(written("response_format", "additionalProperties")),
        {
            "message": "'additionalProperties' is required",
            "type": "invalid_request_error",
            "param": "response_format",
            "code": "wrong_api_format",
        },
        format_is("json_schema"),
    ),
    "openai: every key required": Case(
        {**HI, "text": SCHEMA},
        lambda body: body.get("response_format", {}).get("json_schema", {}).get("strict"),
        openai(
            "Invalid schema for response_format 'out': In context=(), 'required' is required to be supplied and to be an array including every key "
            "in properties. Missing 's'.",
            param="response_format",
            code=None,
        ),
        format_is("json_schema"),
    ),
    "gemini: unknown name": Case(
        {**HI, "tools": [TOOL]},
        written("tools", "additionalProperties"),
        [
            {
                "error": {
                    "code": 400,
                    "message": "Invalid JSON payload received. Unknown name \"additionalProperties\" at 'tools[0].function_declarations[0].parameters': Cannot find field.",
                    "status": "INVALID_ARGUMENT",
                    "details": [
                        {
                            "@type": "type.googleapis.com/google.rpc.BadRequest",
                            "fieldViolations": [
                                {
                                    "field": "tools[0].function_declarations[0].parameters",
                                    "description": "Invalid JSON payload received. Unknown name \"additionalProperties\" at 'tools[0].function_declarations[0].parameters': Cannot find field.",
                                }
                            ],
                        }
                    ],
                }
            }
        ],
        both(has_tools, written("tools", "minimum")),
    ),
    "kimi: moonshot flavored": Case(
        {
            **HI,
            "tools": [
                {**TOOL, "parameters": {"type": "object", "properties": {"source": {"description": "where"}}}}
            ],
        },
        lambda body: '"source": {"description": "where"}' in json.dumps(body),
        openai(
            "Invalid request: tools.function.parameters is not a valid moonshot flavored json schema, details: <At path 'properties.source': type is not defined>"
        ),
        has_tools,
    ),
    "llama.cpp: pattern": Case(
        {**HI, "tools": [TOOL]},
        written("tools", "pattern"),
        {
            "error": {
                "code": 400,
                "message": "JSON schema conversion failed:\nPattern must start with '^' and end with '$'",
                "type": "invalid_request_error",
            }
        },
        both(has_tools, written("tools", "minimum")),
    ),
    "llama.cpp: grammar": Case(
        {**HI, "tools": [TOOL]},
        written("tools", "pattern"),
        {
            "error": {
                "code": 400,
                "message": "Failed to initialize samplers: failed to parse grammar",
                "type": "invalid_request_error",
            }
        },
        has_tools,
    ),
    "cerebras: strict": Case(
        {**HI, "tools": [TOOL]},
        written("tools", "strict"),
        openai(
            "tools.0.function.strict: property 'tools.0.function.strict' is unsupported",
            code="wrong_api_format",
        ),
        has_tools,
    ),
    "pydantic: strict": Case(
        {**HI, "tools": [TOOL]},
        written("tools", "strict"),
        pydantic("tools", 0, "function", "strict"),
        has_tools,
        status=422,
    ),
    "kimi: one tool's name": Case(
        {**HI, "tools": [OTHER, {**TOOL, "name": "21st_magic"}]},
        lambda body: "21st_magic" in json.dumps(body["tools"]),
        openai(
            "Invalid request: function name is invalid, must start with a letter and can contain letters, numbers, underscores, and dashes, got '21st_magic'"
        ),
        lambda body: "read_file" in json.dumps(body["tools"]),
    ),
    # ---- tool_choice
    "lmstudio: object": Case(
        FORCED,
        choice_is("object"),
        {"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"},
        both(has_tools, choice_is("required")),
    ),
    "deepseek: thinking mode": Case(
        {**FORCED, "tool_choice": "required", "reasoning": {"effort": "high"}},
        choice_is("required", "object"),
        openai("Thinking mode does not support this tool_choice"),
        both(has_tools, effort_in("high")),
    ),
    "kimi: incompatible with thinking": Case(
        FORCED,
        choice_is("object", "required"),
        openai("tool_choice 'specified' is incompatible with thinking enabled"),
        has_tools,
    ),
    "dashscope: required or object": Case(
        {**FORCED, "reasoning": {"effort": "high"}},
        choice_is("object", "required"),
        openai(
            "<400> InternalError.Algo.InvalidParameter: The tool_choice parameter does not support being set to required or object in thinking mode",
            code="invalid_parameter_error",
        ),
        has_tools,
    ),
    "langchain: $.tool_choice": Case(
        FORCED,
        choice_is("object"),
        openai(
            "'$.tool_choice' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
        ),
        has_tools,
    ),
    "vllm: not implemented, as 500": Case(
        FORCED,
        choice_is("object"),
        {
            "error": "NotImplementedError: Invalid value for `tool_choice`: named tools are not supported. Only 'auto' or 'required' are supported."
        },
        both(has_tools, choice_is("required")),
        status=500,
    ),
    # ---- Single fields
    "openai: max_completion_tokens": Case(
        {**HI, "max_output_tokens": 50},
        has("max_tokens"),
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        ),
        has("max_completion_tokens"),
    ),
    "mistral: two fields at once": Case(
        {**HI, "max_output_tokens": 50, "seed": 7},
        has("max_completion_tokens", "seed"),
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "seed"],
                    "msg": "Extra inputs are not permitted",
                    "input": 7,
                },
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "max_completion_tokens"],
                    "msg": "Extra inputs are not permitted",
                    "input": 50,
                },
            ]
        },
        has("max_tokens"),
        profile="vllm",
        status=422,
    ),
    "openai: too large": Case(
        {**HI, "max_output_tokens": 64000},
        lambda body: body.get("max_tokens", 0) > 16384,
        openai(
            "max_tokens is too large: 64000. This model supports at most 16384 completion tokens, whereas you provided 64000.",
            param="max_tokens",
            code="invalid_value",
        ),
        has("max_tokens"),
    ),
    "deepseek: the valid range": Case(
        {**HI, "max_output_tokens": 64000},
        lambda body: body.get("max_tokens", 0) > 8192,
        openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
        lambda body: body.get("max_tokens") == 8192,
    ),
    "azure: extra parameters": Case(
        {**HI, "tools": [TOOL], "parallel_tool_calls": True},
        has("stream_options", "parallel_tool_calls"),
        openai(
            "Extra parameters ['stream_options', 'parallel_tool_calls'] are not allowed when extra-parameters is not set or set to be 'error'."
        ),
        has_tools,
    ),
    "cerebras: property of the body": Case(
        {**HI, "seed": 7},
        has("seed"),
        {"message": "body.seed: property 'body.seed' is unsupported", "code": "wrong_api_format"},
        status=422,
    ),
    "groq: property": Case(
        {**HI, "logit_bias": {"1": 1}},
        has("logit_bias"),
        openai("property 'logit_bias' is unsupported, did you mean 'logprobs'?"),
    ),
    "openai: the default only": Case(
        {**HI, "temperature": 0.25},
        has("temperature"),
        openai(
            "Unsupported value: 'temperature' does not support 0.25 with this model. Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        ),
    ),
    "kimi: only 1": Case(
        {**HI, "temperature": 0.25},
        has("temperature"),
        openai("invalid temperature: only 1 is allowed for this model"),
    ),
    "xai: camel case penalty": Case(
        {**HI, "presence_penalty": 0.5},
        has("presence_penalty"),
        {
            "code": "Client specified an invalid argument",
            "error": "Argument not supported on this model: presencePenalty",
        },
    ),
    "logprobs": Case(
        {**HI, "top_logprobs": 2},
        has("logprobs", "top_logprobs"),
        openai("This model does not support logprobs", param="logprobs"),
    ),
    "a user": Case({**HI, "user": "u-1"}, has("user"), pydantic("user"), status=422),
    "a value out of range": Case(
        {**HI, "temperature": 1.5},
        lambda body: body.get("temperature", 0) > 1,
        openai("temperature: range: 0..1", param="temperature"),
    ),
    "llama-cpp-python: loc as a tuple, as 500": Case(
        {**HI, "tools": [TOOL], "parallel_tool_calls": True},
        has("parallel_tool_calls"),
        {
            "error": {
                "message": "1 validation error: {'type': 'extra_forbidden', 'loc': ('body', 'parallel_tool_calls'), 'msg': 'Extra inputs are not permitted', 'input': True}",
                "type": "internal_server_error",
                "code": None,
            }
        },
        has_tools,
        status=500,
    ),
    "openai: stream options": Case(
        HI,
        has("stream_options"),
        openai("Unknown parameter: 'stream_options'.", param="stream_options", code="unknown_parameter"),
    ),
    "a server: unexpected keyword argument": Case(
        {**HI, "tools": [TOOL], "parallel_tool_calls": True},
        has("parallel_tool_calls"),
        {
            "error": {
                "message": "create() got an unexpected keyword argument 'parallel_tool_calls'",
                "code": 500,
            }
        },
        has_tools,
        status=500,
    ),
    # ---- Streams, tools
    "openai: not verified for streams": Case(
        HI,
        has("stream"),
        openai(
            "Your organization must be verified to stream this model. Please go to the settings page.",
            param="stream",
            code="unsupported_value",
        ),
    ),
    "dashscope: streams only": Case(
        HI,
        lacks(has("stream")),
        openai(
            "This model only support stream mode, please enable the stream parameter to access the model. "
        ),
        stream=False,
    ),
    "ollama: does not support tools": Case(
        {**HI, "tools": [TOOL]},
        has_tools,
        {
            "error": {
                "message": "registry.ollama.ai/library/gemma3:4b does not support tools",
                "type": "api_error",
                "param": None,
                "code": None,
            }
        },
    ),
    # ---- More of the same, in other words
    "groq: reasoning, in messages only": Case(
        TURN,
        message_has("reasoning", "reasoning_content"),
        openai("reasoning is not supported with this model"),
        has_tools,
    ),
    "openai: with this model, by param": Case(
        EFFORT,
        has("reasoning_effort"),
        openai(
            "Unsupported parameter: 'reasoning.effort' is not supported with this model.",
            param="reasoning.effort",
            code="unsupported_parameter",
        ),
        has_tools,
    ),
    "a gateway: title case": Case(
        EFFORT,
        has("reasoning_effort"),
        openai("Reasoning Effort is not available for this deployment"),
        has_tools,
    ),
    "a gateway: thinking effort": Case(
        EFFORT,
        has("reasoning_effort"),
        {"message": "Thinking effort can't be set for this model", "code": "BadRequest"},
        has_tools,
    ),
    "dashscope: chinese": Case(
        EFFORT,
        has("enable_thinking"),
        {"code": "InvalidParameter", "message": "该模型不支持思考模式"},
        has_tools,
        profile="siliconflow",
    ),
    "zai: 1210 in chinese": Case(
        {**HI, "tools": [TOOL], "temperature": 0.5},
        has("temperature"),
        {"error": {"code": "1210", "message": "API 调用参数有误，请检查 temperature 参数"}},
        has_tools,
    ),
    "kimi: required while thinking": Case(
        {**FORCED, "tool_choice": "required", "reasoning": {"effort": "high"}},
        choice_is("required", "object"),
        openai("tool_choice 'required' is incompatible with thinking enabled"),
        has_tools,
    ),
    "a server: auto only": Case(
        {**FORCED, "tool_choice": "required"},
        lacks(choice_is(None, "auto")),
        openai("Only 'auto' is supported for tool_choice", param="tool_choice"),
        has_tools,
    ),
    "pydantic: a union of choices": Case(
        FORCED,
        choice_is("object"),
        {
            "detail": [
                {
                    "type": "literal_error",
                    "loc": ["body", "tool_choice", "literal['none']"],
                    "msg": "Input should be 'none'",
                    "input": {},
                },
                {
                    "type": "literal_error",
                    "loc": ["body", "tool_choice", "literal['auto']"],
                    "msg": "Input should be 'auto'",
                    "input": {},
                },
                {
                    "type": "literal_error",
                    "loc": ["body", "tool_choice", "literal['required']"],
                    "msg": "Input should be 'required'",
                    "input": {},
                },
            ]
        },
        both(has_tools, choice_is("required")),
        status=422,
    ),
    "go: cannot unmarshal": Case(
        FORCED,
        choice_is("object"),
        {
            "error": "json: cannot unmarshal object into Go struct field ChatCompletionRequest.tool_choice of type string"
        },
        both(has_tools, choice_is("required")),
    ),
    "go: content of a message": Case(
        TURN,
        calls_without("content", (None,)),
        openai("json: cannot unmarshal null into Go struct field Message.messages.content of type string"),
        has_tools,
    ),
    "rust: missing field content": Case(
        TURN,
        calls_without("content", (None,)),
        openai(
            "Failed to deserialize the JSON body into the target type: messages[1]: missing field `content` at line 1 column 300"
        ),
        has_tools,
    ),
    "azure: content must be a string": Case(
        TURN,
        calls_without("content", (None, "")),
        {"status": 400, "title": "Bad Request", "detail": "messages[1].content must not be null or empty"},
        has_tools,
    ),
    "bedrock: blank text": Case(
        TURN,
        calls_without("content", (None, "")),
        {
            "message": "ValidationException: The text field in the ContentBlock object at messages.1.content.0 is blank. Add text to the text field, and try again."
        },
        has_tools,
    ),
    "zod: a path of steps": Case(
        {**HI, "tools": [TOOL], "parallel_tool_calls": True},
        has("parallel_tool_calls"),
        {
            "success": False,
            "error": {
                "issues": [
                    {
                        "code": "unrecognized_keys",
                        "keys": ["parallel_tool_calls"],
                        "path": [],
                        "message": "Unrecognized key(s) in object: 'parallel_tool_calls'",
                    }
                ],
                "name": "ZodError",
            },
        },
        has_tools,
    ),
    "zod: a message's content": Case(
        TURN,
        calls_without("content", (None,)),
        {
            "error": {
                "issues": [
                    {
                        "code": "invalid_type",
                        "expected": "string",
                        "received": "null",
                        "path": ["messages", 1, "content"],
                        "message": "Expected string, received null",
                    }
                ]
            }
        },
        has_tools,
    ),
    "ajv: instancePath": Case(
        {**HI, "text": SCHEMA},
        format_is("json_schema"),
        {
            "errors": [
                {
                    "instancePath": "/response_format/type",
                    "keyword": "enum",
                    "message": "must be equal to one of the allowed values",
                }
            ]
        },
    ),
    "vllm: guided decoding, as 500": Case(
        {**HI, "text": SCHEMA},
        written("response_format", "pattern"),
        {
            "object": "error",
            "message": "ValueError: The provided JSON schema contains features not supported by xgrammar: pattern",
            "type": "InternalServerError",
            "code": 500,
        },
        format_is("json_schema"),
        status=500,
    ),
    "outlines: a keyword": Case(
        {**HI, "text": SCHEMA},
        written("response_format", "minItems"),
        openai("Schema keyword 'minItems' is not permitted in response_format"),
        format_is("json_schema"),
    ),
    "gemini: a list of types": Case(
        {
            **HI,
            "tools": [
                {**TOOL, "parameters": {"type": "object", "properties": {"x": {"type": ["string", "null"]}}}}
            ],
        },
        lambda body: '["string", "null"]' in json.dumps(body["tools"]),
        openai(
            "Invalid JSON payload received. Unknown name \"type\" at 'tools[0].function_declarations[0].parameters.properties[0].value': Proto field is not repeating, cannot start list."
        ),
        has_tools,
    ),
    "kimi: references": Case(
        {
            **HI,
            "tools": [
                {
                    **TOOL,
                    "parameters": {
                        "type": "object",
                        "properties": {"x": {"$ref": "#/$defs/x"}},
                        "$defs": {"x": {"type": "string"}},
                    },
                }
            ],
        },
        written("tools", "$ref"),
        openai(
            "Invalid request: tools.function.parameters is not a valid moonshot flavored json schema, details: <At path 'properties.x.$ref': references are not allowed>"
        ),
        has_tools,
    ),
    "kimi: anyOf beside a type": Case(
        {
            **HI,
            "tools": [
                {
                    **TOOL,
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "x": {"type": "object", "anyOf": [{"properties": {}}, {"required": ["a"]}]}
                        },
                    },
                }
            ],
        },
        lambda body: '"x": {"type": "object", "anyOf"' in json.dumps(body["tools"]),
        openai(
            "tools.function.parameters is not a valid moonshot flavored json schema, details: <At path 'properties.x': when using anyOf, type should be defined in anyOf items instead of the parent schema>"
        ),
        has_tools,
    ),
    "a gateway: $schema": Case(
        {
            **HI,
            "tools": [
                {
                    **TOOL,
                    "parameters": {
                        "$schema": "http://json-schema.org/draft-07/schema#",
                        "type": "object",
                        "properties": {},
                    },
                }
            ],
        },
        written("tools", "$schema"),
        openai(
            "Invalid JSON payload received. Unknown name \"$schema\" at 'tools[0].function_declarations[0].parameters': Cannot find field."
        ),
        has_tools,
    ),
    "openai: an invalid schema of one function": Case(
        {**HI, "tools": [OTHER, TOOL]},
        written("tools", "maximum"),
        openai(
            "Invalid schema for function 'ls': In context=('properties', 'depth'), 'maximum' is not permitted.",
            param="tools[1].function.parameters",
            code="invalid_function_parameters",
        ),
        both(has_tools, written("tools", "minimum")),
    ),
    "xai: stop": Case(
        {"stop": ["END"], **HI},
        has("stop"),
        {"code": "x", "error": "Model grok-4 does not support parameter stop."},
    ),
    "a seed": Case({**HI, "seed": 3}, has("seed"), openai("Unknown field: seed")),
    "express: not allowed": Case(
        {**HI, "top_p": 0.5},
        has("top_p"),
        {"statusCode": 400, "message": ["property top_p should not exist"], "error": "Bad Request"},
    ),
    "anthropic: both samplings": Case(
        {**HI, "temperature": 0.5, "top_p": 0.5},
        both(has("temperature"), has("top_p")),
        openai("`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
    ),
    "json schema: additional properties": Case(
        {**HI, "seed": 3},
        has("seed"),
        openai("Additional properties are not allowed ('seed' was unexpected)"),
    ),
    "vllm: mistral's tokenizer, by another name": Case(
        EFFORT,
        has("chat_template_kwargs"),
        openai("Value error, chat_template_kwargs is not allowed with a mistral tokenizer", code=400),
        has_tools,
        profile="llamacpp",
        status=500,
    ),
    "a template: system only once": Case(
        CODEX,
        several_systems,
        {
            "error": {
                "code": 500,
                "message": "Jinja Exception: System role can only appear once, as the first message",
                "type": "server_error",
            }
        },
        has_tools,
        status=500,
    ),
    "a template: unexpected role": Case(
        CODEX,
        role("system"),
        {
            "error": {
                "code": 500,
                "message": "Jinja Exception: Unexpected message role: system",
                "type": "server_error",
            }
        },
        has_tools,
        status=500,
    ),
    "a template: conversation must start with a user message": Case(
        CODEX,
        lambda body: body["messages"][0]["role"] != "user",
        {
            "error": {
                "code": 500,
                "message": "Jinja Exception: Conversation must start with a user message",
                "type": "server_error",
            }
        },
        has_tools,
        status=500,
    ),
    "tgi: template error": Case(
        CODEX,
        same_twice,
        {
            "error": "Template error: invalid operation: Conversation roles must alternate user/assistant/user/assistant/... (in <string>:1)",
            "error_type": "template_error",
        },
        has_tools,
        status=422,
    ),
    "cohere: after tool": Case(
        AFTER,
        lambda body: any(
            a["role"] == "tool" and b["role"] == "user"
            for a, b in zip(body["messages"], body["messages"][1:])
        ),
        openai(
            "A user message cannot directly follow a tool message; expected role assistant after role tool"
        ),
        has_tools,
    ),
    "openai: the organization's streams, by words": Case(
        HI, has("stream"), openai("Streaming is not supported for this model.")
    ),
    "huggingface: n tools": Case(
        {**HI, "tools": [TOOL]}, has_tools, openai("Function calling is not supported for this model")
    ),
    "webp from a server": Case(
        {"input": [user("look", image("webp"), image("png"))]},
        has_part("image_url", "webp"),
        {"error": {"message": "cannot decode image: unknown format webp", "code": 500}},
        has_part("image_url", "png"),
        status=500,
    ),
    "a limit by its name in prose": Case(
        {**HI, "max_output_tokens": 9000},
        lambda body: body.get("max_tokens", 0) > 4096,
        openai("The maximum value for max tokens is 4096, but 9000 was given"),
        has("max_tokens"),
    ),
    "groq: less than or equal": Case(
        {**HI, "max_output_tokens": 90000},
        lambda body: body.get("max_tokens", 0) > 8192,
        openai(
            "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model",
            param="max_tokens",
        ),
        lambda body: body.get("max_tokens") == 8192,
    ),
    "verbosity and friends": Case(
        {**HI, "user": "me", "safety_identifier": "s"},
        has("user"),
        openai("Unrecognized request arguments supplied: user"),
    ),
    "openrouter: everything wrapped twice": Case(
        EFFORT,
        effort_in("medium"),
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "raw": '{"error":{"message":"{\\"error\\":{\\"message\\":\\"Invalid reasoning effort: medium. Supported efforts: low, high\\"}}"}}',
                    "provider_name": "Y",
                },
            }
        },
        both(has_tools, effort_in("low", "high")),
    ),
    # ---- And in words that the tables were not made for
    "more: Invalid value: medium. Supported values are: low, high.": Case(
        EFFORT,
        effort_in("medium"),
        openai("Invalid value: 'medium'. Supported values are: 'low', 'high'.", param="reasoning_effort"),
        effort_in("low", "high"),
    ),
    "more: reasoning_effort must be one of: low, high": Case(
        EFFORT,
        effort_in("medium"),
        openai("reasoning_effort must be one of: low, high"),
        effort_in("low", "high"),
    ),
    "more: The parameter reasoning_effort specified in the request is n": Case(
        EFFORT,
        effort_in("medium"),
        openai(
            "The parameter `reasoning_effort` specified in the request is not valid: unsupported value medium for this model, expected low or high.",
            code="InvalidParameter",
        ),
        effort_in("low", "high"),
    ),
    "more: The parameter thinking.type specified in the request are not": Case(
        EFFORT,
        lambda b: (b.get("thinking") or {}).get("type") == "enabled",
        openai(
            "The parameter `thinking.type` specified in the request are not valid: thinking type `enabled` is not supported by this model. Request id: 0217",
            code="InvalidParameter",
            param="thinking.type",
        ),
        has_tools,
        profile="ark",
    ),
    "more: thinking type disabled is not supported by this model": Case(
        {**EFFORT, "reasoning": {"effort": "none"}},
        lambda b: (b.get("thinking") or {}).get("type") == "disabled",
        openai("thinking type disabled is not supported by this model"),
        has_tools,
        profile="ark",
    ),
    "more: [{type: extra_forbidden, loc: (body, reasoning_effort), msg:": Case(
        EFFORT,
        has("reasoning_effort"),
        {
            "detail": "[{'type': 'extra_forbidden', 'loc': ('body', 'reasoning_effort'), 'msg': 'Extra inputs are not permitted', 'input': 'medium'}]"
        },
        has_tools,
        status=422,
    ),
    "more: Model does not support reasoning.": Case(
        EFFORT, has("reasoning_effort"), openai("Model does not support reasoning."), has_tools
    ),
    "more: reasoning is not a valid parameter for this model": Case(
        EFFORT,
        has("reasoning"),
        openai('"reasoning" is not a valid parameter for this model'),
        has_tools,
        profile="together",
    ),
    "more: Reasoning is not supported for model x": Case(
        EFFORT,
        has("reasoning"),
        openai("Reasoning is not supported for model x"),
        has_tools,
        profile="openrouter",
    ),
    "more: Unrecognized key(s) in object: reasoning_content": Case(
        TURN,
        message_has("reasoning_content", "reasoning"),
        {
            "error": {
                "issues": [
                    {
                        "code": "unrecognized_keys",
                        "keys": ["reasoning_content"],
                        "path": ["messages", 1],
                        "message": "Unrecognized key(s) in object: 'reasoning_content'",
                    }
                ]
            }
        },
        has_tools,
    ),
    "more: request param validation error, Value error, message[1] has": Case(
        TURN,
        message_has("reasoning_content", "reasoning"),
        openai(
            "request param validation error, Value error, message[1] has invalid field(s): reasoning_content"
        ),
        has_tools,
    ),
    "more: Additional properties are not allowed (reasoning_content was": Case(
        TURN,
        message_has("reasoning_content", "reasoning"),
        openai("Additional properties are not allowed ('reasoning_content' was unexpected) - 'messages.1'"),
        has_tools,
    ),
    "more: Unknown field reasoning_content in message of role assistant": Case(
        TURN,
        message_has("reasoning_content", "reasoning"),
        openai("Unknown field `reasoning_content` in message of role assistant"),
        has_tools,
    ),
    "more: Unknown parameter: messages[1].reasoning_content.": Case(
        TURN,
        message_has("reasoning_content", "reasoning"),
        openai(
            "Unknown parameter: 'messages[1].reasoning_content'.",
            param="messages[1].reasoning_content",
            code="unknown_parameter",
        ),
        has_tools,
    ),
    "more: content cannot be empty for assistant role": Case(
        TURN,
        calls_without("content", (None, "")),
        openai("content cannot be empty for assistant role"),
        has_tools,
    ),
    "more: messages with role assistant must have a non-blank content": Case(
        TURN,
        calls_without("content", (None, "")),
        openai("messages with role assistant must have a non-blank content"),
        has_tools,
    ),
    "more: invalid message: content is null": Case(
        TURN, calls_without("content", (None,)), openai("invalid message: content is null"), has_tools
    ),
    "more: can only concatenate str (not NoneType) to str": Case(
        TURN,
        calls_without("content", (None,)),
        {
            "error": {
                "message": 'can only concatenate str (not "NoneType") to str',
                "type": "TypeError",
                "code": 500,
            }
        },
        has_tools,
        status=500,
    ),
    "more: Invalid type for messages[1].content: expected one of a stri": Case(
        TURN,
        calls_without("content", (None,)),
        openai(
            "Invalid type for 'messages[1].content': expected one of a string or array of objects, but got null instead.",
            param="messages[1].content",
            code="invalid_type",
        ),
        has_tools,
    ),
    "more: Only the first message can have role system": Case(
        CODEX, late_system, openai("Only the first message can have role system"), has_tools
    ),
    "more: system role must be the first message": Case(
        CODEX, several_systems, openai("system role must be the first message"), has_tools
    ),
    "more: messages[1]: system message not supported at this position;": Case(
        CODEX,
        late_system,
        openai("messages[1]: system message not supported at this position; it must be at index 0"),
        has_tools,
    ),
    "more: role developer is not supported by this model": Case(
        CODEX,
        role("developer"),
        openai("role 'developer' is not supported by this model"),
        has_tools,
        profile="openai-gateway",
    ),
    "more: Invalid value: developer. Supported values are: system, assi": Case(
        CODEX,
        role("developer"),
        openai(
            "Invalid value: 'developer'. Supported values are: 'system', 'assistant', 'user', 'function', and 'tool'.",
            param="messages[1].role",
            code="invalid_value",
        ),
        has_tools,
        profile="openai-gateway",
    ),
    "more: invalid params, chat setting: system message should be uniqu": Case(
        CODEX,
        several_systems,
        {
            "error": {
                "message": "invalid params, chat setting: system message should be unique",
                "type": "bad_request_error",
            }
        },
        has_tools,
    ),
    "more: Invalid parameter: response_format of type json_schema is no": Case(
        {**HI, "text": SCHEMA},
        format_is("json_schema"),
        openai(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
            param="response_format",
        ),
        format_is("json_object"),
    ),
    "more: response_format.type: must be text": Case(
        {**HI, "text": SCHEMA}, lacks(format_is("text", None)), openai("response_format.type: must be text")
    ),
    "more: Value error, unsupported response_format type json_schema; o": Case(
        {**HI, "text": SCHEMA},
        format_is("json_schema"),
        openai("Value error, unsupported response_format type json_schema; only json_object is supported"),
        format_is("json_object"),
    ),
    "more: json_schema is not supported": Case(
        {**HI, "text": SCHEMA}, format_is("json_schema"), {"error": "json_schema is not supported"}
    ),
    "more: Unrecognized keyword pattern in schema at properties.s": Case(
        {**HI, "text": SCHEMA},
        written("response_format", "pattern"),
        openai('Unrecognized keyword "pattern" in schema at properties.s'),
        format_is("json_schema"),
    ),
    "more: JSON schema validation keyword(s) minimum, pattern not suppo": Case(
        {**HI, "text": SCHEMA},
        written("response_format", "pattern", "minimum"),
        openai("JSON schema validation keyword(s) 'minimum', 'pattern' not supported in strict mode"),
        format_is("json_schema"),
    ),
    "more: tools[0].function.parameters.properties.depth.minimum: unsup": Case(
        {**HI, "tools": [TOOL]},
        written("tools", "minimum"),
        openai("tools[0].function.parameters.properties.depth.minimum: unsupported keyword"),
        both(has_tools, written("tools", "pattern")),
    ),
    "more: Invalid tool schema: keyword maximum is not supported": Case(
        {**HI, "tools": [TOOL]},
        written("tools", "maximum"),
        openai("Invalid tool schema: keyword 'maximum' is not supported"),
        both(has_tools, written("tools", "pattern")),
    ),
    "more: Input should be a valid string": Case(
        FORCED,
        choice_is("object"),
        pydantic("tool_choice", msg="Input should be a valid string", type="string_type"),
        both(has_tools, choice_is("required")),
        status=422,
    ),
    "more: tool_choice must be a string, got object": Case(
        FORCED,
        choice_is("object"),
        openai("tool_choice must be a string, got object"),
        both(has_tools, choice_is("required")),
    ),
    "more: named tool_choice is not supported": Case(
        FORCED,
        choice_is("object"),
        openai("named tool_choice is not supported"),
        both(has_tools, choice_is("required")),
    ),
    "more: tool_choice=required is not supported by this model": Case(
        {**FORCED, "tool_choice": "required"},
        choice_is("required"),
        openai('tool_choice="required" is not supported by this model'),
        has_tools,
    ),
    "more: Forced function calling is not supported when thinking is on": Case(
        {**FORCED, "reasoning": {"effort": "high"}},
        choice_is("required", "object"),
        openai("Forced function calling is not supported when thinking is on"),
        both(has_tools, effort_in("high")),
    ),
    "more: stream=true is not supported": Case(HI, has("stream"), openai("stream=true is not supported")),
    "more: stream_options.include_usage is not supported": Case(
        HI, has("stream_options"), openai("stream_options.include_usage is not supported")
    ),
    "more: max_tokens should be <= 8192": Case(
        {**HI, "max_output_tokens": 9000},
        lambda b: b.get("max_tokens", 0) > 8192,
        openai("max_tokens should be <= 8192"),
        has("max_tokens"),
    ),
    "more: max_completion_tokens is not a valid parameter, use max_toke": Case(
        {**HI, "max_output_tokens": 9000},
        has("max_completion_tokens"),
        openai("`max_completion_tokens` is not a valid parameter, use `max_tokens`"),
        has("max_tokens"),
        profile="vllm",
    ),
    "more: The max_tokens parameter is illegal: at most 4,096": Case(
        {**HI, "max_output_tokens": 9000},
        lambda b: b.get("max_tokens", 0) > 4096,
        openai("The max_tokens parameter is illegal: at most 4,096"),
        has("max_tokens"),
    ),
    "more: parallel_tool_calls: must be false": Case(
        {**HI, "tools": [TOOL], "parallel_tool_calls": True},
        lambda b: b.get("parallel_tool_calls") is True,
        openai("parallel_tool_calls: must be false"),
        has_tools,
    ),
    "more: temperature must be 1 when thinking is enabled": Case(
        {**EFFORT, "temperature": 0.5},
        has("temperature"),
        openai("temperature must be 1 when thinking is enabled"),
        both(has_tools, effort_in("medium")),
    ),
    "more: temperature may only be set to 1 when thinking is enabled. P": Case(
        {**EFFORT, "temperature": 0.5},
        has("temperature"),
        openai(
            "`temperature` may only be set to 1 when thinking is enabled. Please consult our documentation"
        ),
        both(has_tools, effort_in("medium")),
    ),
    "more: Unsupported content type: image_url": Case(
        {"input": [user("look", image("png"))]},
        has_part("image_url"),
        openai("Unsupported content type: 'image_url'"),
    ),
    "more: At most 0 image(s) may be provided in one request.": Case(
        {"input": [user("look", image("png"), image("gif"))]},
        has_part("image_url"),
        openai("At most 0 image(s) may be provided in one request."),
    ),
    "more: The image data you provided does not represent a valid image": Case(
        {"input": [user("look", image("png"))]},
        has_part("image_url"),
        openai(
            "The image data you provided does not represent a valid image. Please check your input and try again with one of the supported image formats: ['image/jpeg', 'image/png', 'image/gif', 'image/webp'].",
            code="invalid_image",
        ),
    ),
    "more: tools is not supported with this model": Case(
        {**HI, "tools": [TOOL]}, has_tools, openai("tools is not supported with this model", param="tools")
    ),
    "more: This model does not support function calling": Case(
        {**HI, "tools": [TOOL]}, has_tools, openai("This model does not support function calling")
    ),
    "more: String should have at most 40 characters": Case(
        {"input": [LOOP[0], *({**i, "call_id": "call_" + "x" * 60} for i in LOOP[2:])], "tools": [TOOL]},
        call_ids(40),
        pydantic(
            "messages",
            1,
            "tool_calls",
            0,
            "id",
            msg="String should have at most 40 characters",
            type="string_too_long",
        ),
        has_tools,
        status=422,
    ),
    "more: logit_bias: Extra inputs are not permitted": Case(
        {**HI, "logit_bias": {"1": 1}},
        has("logit_bias"),
        openai("logit_bias: Extra inputs are not permitted"),
    ),
    "more: Invalid request": Case(
        {**HI, "tools": [TOOL], "parallel_tool_calls": True},
        has("parallel_tool_calls"),
        {
            "error": {
                "message": "Invalid request",
                "details": [{"field": "parallelToolCalls", "issue": "unknown property"}],
            }
        },
        has_tools,
    ),
    "more: Invalid option: expected one of low|high": Case(
        {**EFFORT},
        effort_in("medium"),
        {"errors": [{"path": "reasoning_effort", "message": 'Invalid option: expected one of "low"|"high"'}]},
        effort_in("low", "high"),
    ),
    "more: Validation error": Case(
        {**EFFORT},
        has("reasoning_effort"),
        {"error": {"message": "Validation error", "param": "reasoning_effort", "code": "400"}},
        has_tools,
    ),
    "more: messages must alternate between user and assistant roles": Case(
        CODEX,
        same_twice,
        {"error": {"message": "messages must alternate between user and assistant roles", "code": 400}},
        has_tools,
    ),
    "more: Consecutive messages with the same role (user) at index 2": Case(
        CODEX,
        same_twice,
        {"error": {"message": "Consecutive messages with the same role (user) at index 2", "code": 400}},
        has_tools,
    ),
    "more: The system role is not supported for this model": Case(
        CODEX, role("system"), openai("The system role is not supported for this model"), has_tools
    ),
    "more: Unsupported role: system": Case(
        CODEX, role("system"), openai("Unsupported role: system"), has_tools
    ),
    "more: Unknown name strict at tools[0].function: Cannot find field.": Case(
        {**HI, "tools": [TOOL]},
        written("tools", "strict"),
        openai("Unknown name \"strict\" at 'tools[0].function': Cannot find field."),
        has_tools,
    ),
    "more: Strict tools are not supported by this model": Case(
        {**HI, "tools": [TOOL]},
        written("tools", "strict"),
        openai("Strict tools are not supported by this model"),
        has_tools,
    ),
    "more: ValueError: chat_template_kwargs is not supported": Case(
        EFFORT,
        has("chat_template_kwargs"),
        {"error": {"message": "ValueError: chat_template_kwargs is not supported", "code": 500}},
        has_tools,
        profile="template",
        status=500,
    ),
    "more: Invalid reasoningEffort: medium": Case(
        EFFORT,
        effort_not_in(None, "low", "high"),
        {"message": "Invalid 'reasoningEffort': medium", "code": "bad_request"},
        has_tools,
    ),
    "more: Reasoning level high isnt available for your plan. Choose lo": Case(
        {**EFFORT, "reasoning": {"effort": "high"}},
        effort_in("high", "xhigh", "max"),
        openai("Reasoning level 'high' isn't available for your plan. Choose 'low' or 'medium'."),
        effort_in("low", "medium"),
    ),
    "more: messages[1]: content is a required property": Case(
        TURN,
        calls_without("content", (None,)),
        openai("messages[1]: content is a required property"),
        has_tools,
    ),
    "more: Invalid schema for response_format out: In context=(properti": Case(
        {**HI, "text": SCHEMA},
        written("response_format", "minItems", "pattern", "minimum"),
        openai(
            "Invalid schema for response_format 'out': In context=('properties', 'n'), 'minimum' is not permitted.",
            param="response_format",
        ),
        format_is("json_schema"),
    ),
    "more: response_format of type json_object is not supported; use js": Case(
        {**HI, "text": {"format": {"type": "json_object"}}},
        format_is("json_object"),
        openai("'response_format' of type 'json_object' is not supported; use 'json_schema'"),
        format_is("json_schema"),
    ),
    "more: Unsupported parameter(s): user": Case(
        {**HI, "user": "u"}, has("user"), openai("Unsupported parameter(s): `user`")
    ),
    "more: top_logprobs is not supported with this model": Case(
        {**HI, "top_logprobs": 2},
        has("top_logprobs"),
        openai("top_logprobs is not supported with this model"),
    ),
    "more: Unsupported parameter: stop is not supported with this model": Case(
        {**HI, "stop": ["x"]},
        has("stop"),
        openai(
            "Unsupported parameter: 'stop' is not supported with this model.",
            param="stop",
            code="unsupported_parameter",
        ),
    ),
}


# The same of providers that serve the Responses API; one cure each.
WIRED_CASES: Dict[str, Case] = {
    "summary": Case(
        {**EFFORT, "reasoning": {"effort": "medium", "summary": "auto"}},
        lambda b: "summary" in b.get("reasoning", {}),
        openai("Unsupported parameter: 'reasoning.summary'", param="reasoning.summary"),
        lambda b: b["reasoning"]["effort"] == "medium",
    ),
    "summary words": Case(
        {**EFFORT, "reasoning": {"effort": "medium", "summary": "auto"}},
        lambda b: "summary" in b.get("reasoning", {}),
        openai("Argument not supported: reasoning.summary"),
        lambda b: b["reasoning"]["effort"] == "medium",
    ),
    "effort": Case(
        EFFORT,
        lambda b: "effort" in b.get("reasoning", {}),
        openai(
            "Unsupported parameter: 'reasoning.effort' is not supported with this model.",
            param="reasoning.effort",
            code="unsupported_parameter",
        ),
        has_tools,
    ),
    "level": Case(
        EFFORT,
        lambda b: b.get("reasoning", {}).get("effort") == "medium",
        openai(
            "Unsupported value: 'medium' is not supported with the 'x' model. Supported values are: 'low' and 'high'.",
            param="reasoning.effort",
        ),
        lambda b: b["reasoning"]["effort"] in ("low", "high"),
    ),
    "developer": Case(
        CODEX,
        lambda b: any(i.get("role") == "developer" for i in b["input"]),
        openai(
            "Invalid value: 'developer'. Supported values are: 'system' and 'user'.", param="input[0].role"
        ),
        has_tools,
        profile="openai-gateway",
    ),
    "format": Case(
        {**HI, "text": SCHEMA},
        lambda b: (b.get("text", {}).get("format") or {}).get("type") == "json_schema",
        openai("Invalid value: 'json_schema'. Supported values are: 'text'.", param="text.format.type"),
    ),
    "include": Case(HI, has("include"), openai("Unknown parameter: 'include'.", param="include")),
    "store": Case(HI, has("store"), pydantic("store"), status=422),
    "image": Case(
        {"input": [user("look", image("png"))]},
        lambda b: "input_image" in json.dumps(b),
        openai("Image inputs are not supported by this model", param="input"),
    ),
    "strict": Case(
        {**HI, "tools": [TOOL]},
        lambda b: "strict" in json.dumps(b["tools"]),
        openai("Unknown parameter: 'tools[0].strict'", param="tools[0].strict"),
        has_tools,
    ),
    "keyword": Case(
        {**HI, "tools": [TOOL]},
        lambda b: "minimum" in json.dumps(b["tools"]),
        openai("Invalid schema for function 'ls': 'minimum' is not permitted", param="tools[0].parameters"),
        has_tools,
    ),
    "reasoning items": Case(
        TURN,
        lambda b: any(i.get("type") == "reasoning" for i in b["input"]),
        openai("input[1]: unknown variant `reasoning`, expected one of `message`, `function_call`"),
        has_tools,
    ),
    "verbosity": Case(
        {**HI, "text": {"verbosity": "low"}},
        lambda b: "verbosity" in b.get("text", {}),
        openai("Unsupported parameter: 'text.verbosity'", param="text.verbosity"),
    ),
    "system": Case(
        CODEX,
        lambda b: any(i.get("role") in ("system", "developer") for i in b["input"]),
        {"error": "Jinja Exception: System message must be at the beginning."},
        has_tools,
        status=500,
    ),
    "limit": Case(
        {**HI, "max_output_tokens": 9000},
        lambda b: b.get("max_output_tokens", 0) > 4096,
        openai("max_output_tokens must be at most 4096", param="max_output_tokens"),
        has("max_output_tokens"),
    ),
    "tool_choice": Case(
        FORCED,
        lambda b: isinstance(b.get("tool_choice"), dict),
        openai("tool_choice: object is not supported, use 'auto' or 'required'"),
        lambda b: b["tool_choice"] == "required",
    ),
}
