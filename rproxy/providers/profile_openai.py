"""The rows of OpenAI and of others that serve its models; see :mod:`.profile_table`."""

from __future__ import annotations

from typing import Dict

from .profile_parts import NO_THINKING, NO_TOOLS_WITH_THINKING, OFF, Row, effort, switch

OPENAI: Dict[str, Row] = {
    "openai": {
        "match": ["api.openai.com"],
        "wire": "responses",  # error: the newer models take no tools while they think, through the other API
        "max_tokens": {"field": "max_completion_tokens"},  # error: unsupported_parameter max_tokens
        "developer_role": "developer",  # docs
        "thinking": effort("minimal low medium high xhigh xhigh", None, {}, OFF),  # docs
        "reasoning": {"replay": "never"},  # error: unknown keys of a message are refused
        # docs: not for reasoning models
        "drop_thinking": [
            "temperature",
            "top_p",
            "presence_penalty",
            "frequency_penalty",
            "logprobs",
            "top_logprobs",
            "logit_bias",
        ],
        "tool_call_id": "max40",  # error: string too long
        # docs; metadata is refused without store (error)
        "optional_fields": [
            "verbosity",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "prediction",
        ],
        "context_window": 272_000,  # model pages: the input's share of 400000
        # docs
        "responses": {
            "native_tools": [
                "custom",
                "web_search",
                "file_search",
                "code_interpreter",
                "image_generation",
                "mcp",
            ]
        },
        "models": {  # docs: no reasoning_effort
            "gpt-3.5*": {"thinking": NO_THINKING, "context_window": 16_000},
            "gpt-4.1*": {"thinking": NO_THINKING, "context_window": 1_000_000},
            "gpt-4*": {"thinking": NO_THINKING, "context_window": 128_000},
            "chatgpt-*": {"thinking": NO_THINKING, "context_window": 128_000},
            **{f"gpt-5.{minor}*": NO_TOOLS_WITH_THINKING for minor in (4, 5, 6)},
        },
    },
    "azure": {
        "match": ["openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com"],
        "extends": "openai",
        "auth_header": "api-key",  # docs
        "models": {  # Foundry's other models. error: Extra parameters ['stream_options']
            name + "*": {
                "max_tokens": {"field": "max_tokens"},
                "developer_role": "system",
                "thinking": switch({}, {}),
                "reasoning": {"replay": "tool_turns"},
                "include_usage": False,
                "optional_fields": [],
                "tool_choice": {"any": ["auto", "none", "required"]},
            }
            for name in ("deepseek", "mistral", "llama", "kimi", "grok", "phi")
        },
    },
    "openai-gateway": {  # OpenAI's models behind somebody else's door: the newest keys are
        "extends": "openai",  # often refused there, and none of them is needed. guess
        "optional_fields": [],
        "drop": [
            "store",
            "metadata",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "verbosity",
        ],
        "models": {"gpt-5*": {}},  # a gateway may well ask through the other API
    },
}
