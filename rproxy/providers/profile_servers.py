"""The rows of servers that people run themselves; see :mod:`.profile_table`."""

from __future__ import annotations

from typing import Dict

from .profile_parts import GPT_OSS, OFF, R1, TEXT_IMAGE, Row, effort, switch

# Templates call the switch enable_thinking (Qwen, GLM) or thinking (DeepSeek); what a template does not know
# is ignored.
_BY_TEMPLATE = switch(
    {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
    {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
)

SERVERS: Dict[str, Row] = {
    "vllm": {
        "max_tokens": {"field": "max_completion_tokens"},  # docs: max_tokens is the old name
        "system_position": "first",  # error: System message must be at the beginning
        "merge_same_role": True,  # error: Conversation roles must alternate user/assistant
        # source: since 0.32 the template's switches are derived from it; a Mistral tokenizer refuses
        # chat_template_kwargs
        "thinking": effort("low low medium high high high", None, {}, OFF),
        # docs: both are read; its schema of a reasoning item demands an id
        "reasoning": {"field": "reasoning", "replay": "always", "also": ["reasoning_content"], "ids": True},
        "modalities": TEXT_IMAGE,
        "models": {
            "*deepseek-r1*": R1,
            "*gpt-oss*": GPT_OSS,
            "*stral*": {
                "reasoning": {"replay": "never", "also": []}
            },  # error: Unexpected content chunk types
        },
    },
    "sglang": {
        "extends": "vllm",
        "thinking": _BY_TEMPLATE,
        "reasoning": {"field": "reasoning_content", "also": []},
    },
    "template": {  # an open model behind a chat template, the server is not known;
        "extends": "vllm",  # every one of them takes max_tokens, and not every one reasoning_effort
        "max_tokens": {"field": "max_tokens"},
        "thinking": _BY_TEMPLATE,
    },
    "llamacpp": {
        # error, as HTTP 500: Jinja Exception: System message must be at the beginning
        "system_position": "first",
        "thinking": switch(
            {"chat_template_kwargs": {"enable_thinking": True}},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
        "reasoning": {"replay": "always"},
        "modalities": TEXT_IMAGE,
        "models": {"*deepseek-r1*": R1},
    },
    "ollama": {
        "match": ["localhost:11434", "127.0.0.1:11434", "[::1]:11434", "ollama.com"],
        "thinking": effort(
            "low low medium high high max", None, {}, OFF
        ),  # source: unknown words are refused
        "reasoning": {"field": "reasoning", "replay": "always"},  # source
        "empty_content": "",  # error: invalid message content type: <nil>
        "tool_choice": {"any": ["auto", "none"]},
        # source: ignored
        "drop": ["parallel_tool_calls", "tool_choice", "store", "metadata", "service_tier"],
        "modalities": TEXT_IMAGE,
        "models": {"*deepseek-r1*": R1, "*gpt-oss*": GPT_OSS},
    },
    "lmstudio": {
        "match": ["localhost:1234", "127.0.0.1:1234", "[::1]:1234"],
        "system_position": "first",  # the model's template
        "empty_content": "",  # error: 'content' field must be a string or an array of objects
        "thinking": switch({}, {}),  # by model
        "tool_choice": {"any": ["auto", "none", "required"]},  # error: Invalid tool_choice type: 'object'
        "response_format": ["text", "json_schema"],  # error: must be 'json_schema' or 'text'
        "modalities": TEXT_IMAGE,
        "models": {"*deepseek-r1*": R1},
    },
}
