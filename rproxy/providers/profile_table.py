"""The table of providers: one row of data for each kind, in the shape of
:class:`rproxy.convert.profile.Profile`.

Besides a profile's own fields a row has: ``match`` (hosts of base_url, as suffix; also ``host:port`` or
``host/path``), ``extends`` (another row), ``models`` (glob on the downstream model -> more fields; the first
that fits, case does not matter), ``responses`` (fields that are different with ``wire: responses``).
``thinking`` replaces what it extends as a whole, everything else is merged field by field.

Where a rule comes from stands beside it: *docs* is the vendor's documentation, *error* an answer that users
report, *adapter* what the vendor's own client or several independent adapters do, *guess* none of these.  A
key that is not named here needs no rule: reading answers is tolerant everywhere.  Never name keys
``on``/``off``/``yes``/``no``: YAML reads them as booleans.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

Row = Mapping[str, Any]


def _efforts(words: str) -> Dict[str, str]:
    """What the six levels minimal, low, medium, high, xhigh, max are called: ``"low low medium high high
    high"``."""
    return dict(zip(("minimal", "low", "medium", "high", "xhigh", "max"), words.split()))


def _effort(words: str, default: Any = True, enable: Any = None, disable: Any = None) -> Dict[str, Any]:
    """Thinking that is measured out by ``reasoning_effort``."""
    return {
        "default": default,
        "enable": enable or {},
        "disable": disable,
        "effort": "reasoning_effort",
        "efforts": _efforts(words),
    }


def _switch(enable: Any, disable: Any, default: Any = None) -> Dict[str, Any]:
    """Thinking that is only switched."""
    return {"default": default, "enable": enable, "disable": disable}


_TYPED = ({"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}})
_KEPT = {
    "thinking": {"type": "enabled", "clear_thinking": False}
}  # Z.ai, docs: earlier thinking stays, and has to come back unmodified
_QWEN = ({"enable_thinking": True}, {"enable_thinking": False})
_OFF = {"reasoning_effort": "none"}
_TEXT_IMAGE = ["text", "image"]

# R1 must not get its own thinking back (docs: 400 if it does)
_R1: Row = {"reasoning": {"replay": "never", "required_on_tool_calls": None, "also": []}}
# every server of gpt-oss takes low, medium and high, and thinking has no switch (model card)
_GPT_OSS: Row = {"thinking": _effort("low low medium high high high")}
# DeepSeek on servers that run its template: thinking is switched there (adapter)
_DEEPSEEK_TEMPLATE: Row = {
    "thinking": _switch(
        {"chat_template_kwargs": {"thinking": True}}, {"chat_template_kwargs": {"thinking": False}}
    ),
    "reasoning": {"field": "reasoning_content", "required_on_tool_calls": ""},
}

ROWS: Dict[str, Row] = {
    "generic": {"models": {"*deepseek-r1*": _R1, "*gpt-oss*": _GPT_OSS}},
    "deepseek": {
        "match": ["api.deepseek.com"],
        "developer_role": "system",  # error: unknown variant `developer`
        # docs: on by default; low, high and max exist, medium means high. error: minimal is refused
        "thinking": _effort("low low high high high max", True, *_TYPED),
        # docs and error: turns with tool calls must carry their thinking for ever, an empty one if there was
        # none; adapter (the vendor's own): so does every other turn, and an answer of thinking alone has
        # content ""
        "reasoning": {"replay": "always", "required_on_tool_calls": "", "reasoning_only": "keep"},
        "empty_content": "",  # error: content or tool_calls must be set
        "tool_choice": {
            "thinking": ["auto", "none"]
        },  # error: Thinking mode does not support this tool_choice
        "strict_tools": "omit",  # docs: only under /beta, and then every tool must be strict
        "response_format": ["text", "json_object"],  # error: This response_format type is unavailable now
        "drop": [
            "parallel_tool_calls",
            "service_tier",
            "seed",
            "logit_bias",
            "store",
            "metadata",
            "prompt_cache_key",
            "verbosity",
        ],  # docs: ignored
        "drop_thinking": [
            "temperature",
            "presence_penalty",
            "frequency_penalty",
            "top_p",
        ],  # docs: ignored while thinking
        "user_field": "user_id",  # docs
        "empty_answer": "error",  # adapter (the vendor's own): an empty stop is retried
        "modalities": ["text"],  # docs: images only for the vision models
        "context_window": 1_000_000,  # docs
        "responses": {
            "response_format": ["text", "json_object", "json_schema"],
            "native_tools": ["web_search"],
        },  # docs
        "models": {
            "deepseek-r1*": {**_R1, "context_window": 128_000},
            "*vision*": {"modalities": _TEXT_IMAGE},
        },
    },
    "moonshot": {
        "match": ["api.moonshot.ai", "api.moonshot.cn", "api.kimi.com"],
        "max_tokens": {"field": "max_completion_tokens"},  # docs
        "thinking": _switch(*_TYPED, default=True),  # adapter (the vendor's own)
        # error: thinking is enabled but reasoning_content is missing; "" counts as present
        "reasoning": {"replay": "always", "required_on_tool_calls": ""},
        "tool_choice": {"any": ["auto", "none"]},  # adapter: no `required`
        "strict_tools": "omit",
        "schema": [
            "inline_refs",
            "add_types",
            "drop_schema_key",
        ],  # adapter (the vendor's own): every property needs a type
        "drop": [
            "parallel_tool_calls",
            "service_tier",
            "store",
            "verbosity",
            "top_p",
            "temperature",
        ],  # error: sampling is fixed
        "modalities": _TEXT_IMAGE,
        "context_window": 256_000,  # model pages
        "models": {
            "*k3*": {"thinking": _effort("low low high high max max")},  # docs: always on; low, high, max
            "*k2.7*": {"thinking": _switch({}, None, default=True)},  # docs: always on, no effort
        },
    },
    "zai": {  # base_url ends in /v4
        "match": ["api.z.ai", "open.bigmodel.cn"],
        "thinking": _switch(_KEPT, _TYPED[1], default=True),
        "reasoning": {"replay": "always"},
        "extra": {"tool_stream": True},  # docs: else a call's arguments arrive in one piece
        "tool_choice": {"any": ["auto", "none"]},  # docs; guess for 5.x
        "strict_tools": "omit",
        "response_format": ["text", "json_object"],  # docs
        "schema": ["inline_refs"],  # error: nested arguments become text where a schema has $ref
        "context_window": 200_000,  # an answer that overflowed counted 202752 tokens
        "models": {
            "glm-5.3*": {
                "thinking": _effort("low low high high max max", True, _KEPT)
            },  # error: cannot be switched off
            "glm-5.2*": {"thinking": _effort("high high high high max max", True, _KEPT, _TYPED[1])},
        },
    },
    "dashscope": {
        "match": [
            "dashscope.aliyuncs.com",
            "dashscope-intl.aliyuncs.com",
            "dashscope-us.aliyuncs.com",
            "maas.aliyuncs.com",
        ],
        "thinking": _switch(*_QWEN),  # docs
        "reasoning": {"replay": "never"},  # docs: ignored
        "non_stream": "force_stream",  # error: enable_thinking must be set to false for non-streaming calls
        "tool_choice": {"thinking": ["auto", "none"]},  # error: required or object in thinking mode
        "strict_tools": "omit",
        "modalities": _TEXT_IMAGE,  # error: file parts are refused
    },
    "minimax": {
        "match": ["api.minimax.io", "api.minimaxi.com"],
        "max_tokens": {"field": "max_completion_tokens"},  # docs
        "thinking": _switch({"reasoning_split": True}, None, default=True),  # docs: M2 cannot be switched off
        "reasoning": {
            "field": "reasoning_details",
            "replay": "always",
        },  # docs: complete, or the answers get worse
        "answer": {"think_tags": True, "cumulative": True},  # docs: the sample code slices snapshots
        "response_format": ["text"],  # docs
        "context_window": 200_000,  # model pages: 204800
    },
    "openrouter": {
        "match": ["openrouter.ai"],
        # docs: one parameter for all upstreams
        "thinking": {
            "default": None,
            "enable": {},
            "disable": {"reasoning": {"effort": "none"}},
            "effort": "reasoning.effort",
            "efforts": _efforts("minimal low medium high xhigh max"),
        },
        "reasoning": {"field": "reasoning_details", "replay": "always"},  # docs: unmodified, in order
        "models": {
            "*deepseek-r1*": {"reasoning": {"replay": "never"}},
            "deepseek/*": {
                "reasoning": {
                    "field": "reasoning_content",
                    "required_on_tool_calls": "",
                    "also": ["reasoning_details"],
                }
            },
        },
    },
    "groq": {
        "match": ["api.groq.com"],
        "max_tokens": {"field": "max_completion_tokens"},  # docs
        "thinking": _effort(
            "low low medium high high high", None, {"reasoning_format": "parsed"}, _OFF
        ),  # docs
        "reasoning": {"field": "reasoning", "replay": "tool_turns"},
        "drop": ["logprobs", "top_logprobs", "logit_bias", "store"],  # docs: 400
        "modalities": _TEXT_IMAGE,
        "models": {
            "*qwen3*": {
                "thinking": _effort(" ".join(["default"] * 6), True, {"reasoning_format": "parsed"}, _OFF)
            },  # docs: none, default
            "*gpt-oss*": {
                "thinking": _effort("low low medium high high high", True)
            },  # docs: no reasoning_format, no off
            "*llama*": {"thinking": _switch({}, {}, default=False)},
        },
    },
    "mistral": {
        "match": ["api.mistral.ai"],
        "system_position": "first",
        "assistant_after_tool": True,  # error: Unexpected role 'user' after role 'tool'
        "tool_call_id": "alnum9",  # error: must be a-z, A-Z, 0-9, with a length of 9
        "tool_choice": {"rename": {"required": "any"}},  # docs
        "thinking": _switch({}, {}),  # by model
        "reasoning": {"field": "mistral_parts", "replay": "tool_turns"},  # docs: parts of the content
        "include_usage": False,  # docs: not in the schema; usage comes anyway
        "drop": [
            "store",
            "metadata",
            "user",
            "service_tier",
            "logprobs",
            "top_logprobs",
            "stream_options",
            "prompt_cache_key",
            "verbosity",
        ],  # error: extra_forbidden
    },
    "gemini": {
        "match": ["generativelanguage.googleapis.com"],
        "thinking": _effort("minimal low medium high high high", True, {}, _OFF),  # docs
        "keep_extra_content": True,  # error: Function call is missing a thought_signature
        "strict_tools": "omit",  # docs: a subset of JSON schema
        "context_window": 1_000_000,  # model pages
    },
    "xai": {
        "match": ["api.x.ai"],
        "max_tokens": {"field": "max_completion_tokens"},
        "thinking": _effort("low low medium high high high"),  # docs: by model, no switch
        "reasoning": {"replay": "never"},  # docs
        "drop_thinking": [
            "presence_penalty",
            "frequency_penalty",
            "stop",
        ],  # docs: refused by reasoning models
        "context_window": 256_000,  # model pages
    },
    "together": {
        "match": ["api.together.ai", "api.together.xyz"],
        "thinking": _switch({"reasoning": {"enabled": True}}, {"reasoning": {"enabled": False}}),  # docs
        "reasoning": {"field": "reasoning", "replay": "tool_turns"},
        "models": {
            "*deepseek-r1*": _R1,
            "*deepseek-v4*": {
                "tool_choice": {"any": ["auto", "none"]},
                "strict_tools": "omit",
            },  # adapter: no forced choice
        },
    },
    "fireworks": {
        "match": ["api.fireworks.ai"],
        "thinking": _effort("low low medium high high max", None, {}, _OFF),  # adapter
        "reasoning": {"replay": "always"},
        "models": {"*deepseek-r1*": _R1},
    },
    "cerebras": {
        "match": ["api.cerebras.ai"],
        "max_tokens": {"field": "max_completion_tokens"},
        "drop": [
            "frequency_penalty",
            "presence_penalty",
            "logit_bias",
            "service_tier",
            "store",
            "parallel_tool_calls",
        ],  # error: 400
        "thinking": _effort("low low medium high high high"),  # docs: gpt-oss has no off
        "reasoning": {"field": "reasoning", "replay": "tool_turns"},
        "modalities": ["text"],
    },
    "nvidia": {
        "match": ["integrate.api.nvidia.com"],
        "headers": {"NVCF-POLL-SECONDS": "3600"},  # docs: the gateway's own timeout is short
        "strict_tools": "omit",
        "drop": [
            "store",
            "metadata",
            "parallel_tool_calls",
            "service_tier",
            "prompt_cache_key",
            "verbosity",
        ],  # adapter
        "models": {"*deepseek-r1*": _R1, "*deepseek*": _DEEPSEEK_TEMPLATE, "*gpt-oss*": _GPT_OSS},
    },
    "huggingface": {
        "match": ["router.huggingface.co"],
        "models": {"*deepseek-r1*": _R1, "*gpt-oss*": _GPT_OSS},
    },
    "openai": {
        "match": ["api.openai.com"],
        "max_tokens": {"field": "max_completion_tokens"},  # error: unsupported_parameter max_tokens
        "developer_role": "developer",  # docs
        "thinking": _effort("minimal low medium high xhigh xhigh", None, {}, _OFF),  # docs
        "reasoning": {"replay": "never"},  # error: unknown keys of a message are refused
        "drop_thinking": [
            "temperature",
            "top_p",
            "presence_penalty",
            "frequency_penalty",
            "logprobs",
            "top_logprobs",
            "logit_bias",
        ],  # docs: not for reasoning models
        "tool_call_id": "max40",  # error: string too long
        "context_window": 272_000,  # model pages: the input's share of 400000
        "responses": {
            "native_tools": [
                "custom",
                "web_search",
                "file_search",
                "code_interpreter",
                "image_generation",
                "mcp",
            ]
        },  # docs
        "models": {  # docs: no reasoning_effort
            "gpt-3.5*": {"thinking": _switch({}, {}, default=False), "context_window": 16_000},
            "gpt-4.1*": {"thinking": _switch({}, {}, default=False), "context_window": 1_000_000},
            "gpt-4*": {"thinking": _switch({}, {}, default=False), "context_window": 128_000},
            "chatgpt-*": {"thinking": _switch({}, {}, default=False), "context_window": 128_000},
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
                "thinking": _switch({}, {}),
                "reasoning": {"replay": "tool_turns"},
                "include_usage": False,
                "tool_choice": {"any": ["auto", "none", "required"]},
            }
            for name in ("deepseek", "mistral", "llama", "kimi", "grok", "phi")
        },
    },
    "openai-gateway": {  # OpenAI's models behind somebody else's door: the newest keys are
        "extends": "openai",  # often refused there, and none of them is needed. guess
        "drop": [
            "store",
            "metadata",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "verbosity",
        ],
    },
    "anthropic": {
        "match": ["api.anthropic.com"],
        "thinking": _switch({}, {}, default=False),  # docs: thinking does not come back in this API
        "reasoning": {"replay": "never"},
        "drop": [
            "seed",
            "logit_bias",
            "presence_penalty",
            "frequency_penalty",
            "response_format",
        ],  # docs: ignored
        "strict_tools": "omit",  # docs: ignored
        "context_window": 200_000,  # model pages
    },
    "ark": {  # base_url ends in /api/v3
        "match": ["volces.com", "byteplus.com"],
        "thinking": _effort(
            "low low medium high high high", True, *_TYPED
        ),  # docs; error: high with disabled is refused
        "reasoning": {"replay": "tool_turns"},  # guess
    },
    "stepfun": {
        "match": ["api.stepfun.com", "api.stepfun.ai"],
        "thinking": _effort("low low high high high high"),  # model catalogue: some know low and high only
        "reasoning": {"field": "reasoning", "replay": "tool_turns"},  # guess
    },
    "siliconflow": {
        "match": ["api.siliconflow.cn", "api.siliconflow.com"],
        "thinking": _switch(*_QWEN),  # guess
        "reasoning": {"replay": "always", "required_on_tool_calls": ""},  # error: as DeepSeek itself
        "models": {"*deepseek-r1*": _R1},
    },
    "xiaomi": {
        "match": ["api.xiaomimimo.com"],
        "thinking": _switch(*_TYPED, default=True),  # adapter
        "reasoning": {"replay": "always", "required_on_tool_calls": ""},  # adapter
    },
    "vllm": {
        "max_tokens": {"field": "max_completion_tokens"},  # docs: max_tokens is the old name
        "system_position": "first",  # error: System message must be at the beginning
        "merge_same_role": True,  # error: Conversation roles must alternate user/assistant
        # templates call the switch enable_thinking (Qwen, GLM) or thinking (DeepSeek); what a template does
        # not know is ignored
        "thinking": _switch(
            {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        ),
        "reasoning": {
            "field": "reasoning",
            "replay": "always",
            "also": ["reasoning_content"],
        },  # docs: both are read
        "modalities": _TEXT_IMAGE,
        "models": {"*deepseek-r1*": _R1, "*gpt-oss*": _GPT_OSS},
    },
    "sglang": {"extends": "vllm", "reasoning": {"field": "reasoning_content", "also": []}},
    "template": {  # an open model behind a chat template, the server is not known;
        "extends": "vllm",  # every one of them takes max_tokens
        "max_tokens": {"field": "max_tokens"},
    },
    "llamacpp": {
        "system_position": "first",  # the model's template
        "thinking": _switch(
            {"chat_template_kwargs": {"enable_thinking": True}},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
        "reasoning": {"replay": "always"},
        "modalities": _TEXT_IMAGE,
        "models": {"*deepseek-r1*": _R1},
    },
    "ollama": {
        "match": ["localhost:11434", "127.0.0.1:11434", "[::1]:11434", "ollama.com"],
        "thinking": _effort(
            "low low medium high high max", None, {}, _OFF
        ),  # source: unknown words are refused
        "reasoning": {"field": "reasoning", "replay": "always"},  # source
        "empty_content": "",  # error: invalid message content type: <nil>
        "tool_choice": {"any": ["auto", "none"]},
        "drop": [
            "parallel_tool_calls",
            "tool_choice",
            "store",
            "metadata",
            "service_tier",
        ],  # source: ignored
        "modalities": _TEXT_IMAGE,
        "models": {"*deepseek-r1*": _R1, "*gpt-oss*": _GPT_OSS},
    },
    "lmstudio": {
        "match": ["localhost:1234", "127.0.0.1:1234", "[::1]:1234"],
        "system_position": "first",  # the model's template
        "thinking": _switch({}, {}),  # by model
        "modalities": _TEXT_IMAGE,
        "models": {"*deepseek-r1*": _R1},
    },
}

# What each one is, in a line.
ABOUT: Dict[str, str] = {
    "generic": "any other server: what most of them take",
    "deepseek": "DeepSeek's own API",
    "moonshot": "Moonshot AI: Kimi",
    "zai": "Z.ai and BigModel: GLM",
    "dashscope": "Alibaba Cloud Model Studio: Qwen",
    "minimax": "MiniMax",
    "openrouter": "OpenRouter",
    "groq": "Groq",
    "mistral": "Mistral AI",
    "gemini": "Google Gemini, its OpenAI endpoint",
    "xai": "xAI: Grok",
    "together": "Together AI",
    "fireworks": "Fireworks AI",
    "cerebras": "Cerebras",
    "nvidia": "NVIDIA NIM, the hosted one",
    "huggingface": "Hugging Face Inference Providers",
    "openai": "OpenAI's own API",
    "azure": "Azure OpenAI and AI Foundry",
    "openai-gateway": "OpenAI's models behind somebody else's gateway",
    "anthropic": "Anthropic's OpenAI endpoint",
    "ark": "Volcengine Ark, BytePlus: Doubao",
    "stepfun": "StepFun",
    "siliconflow": "SiliconFlow",
    "xiaomi": "Xiaomi MiMo",
    "vllm": "a vLLM server",
    "sglang": "an SGLang server",
    "template": "an open model behind a server that is not known",
    "llamacpp": "a llama.cpp server",
    "ollama": "Ollama",
    "lmstudio": "LM Studio",
}

# Other names that `profile:` takes.
ALIASES = {
    "kimi": "moonshot",
    "glm": "zai",
    "zhipu": "zai",
    "bigmodel": "zai",
    "qwen": "dashscope",
    "aliyun": "dashscope",
    "google": "gemini",
    "grok": "xai",
    "doubao": "ark",
    "volcengine": "ark",
    "mimo": "xiaomi",
    "nim": "nvidia",
    "llama.cpp": "llamacpp",
    "lm-studio": "lmstudio",
}

# A downstream model on a host that no row knows -> row; the first glob that fits, case does not matter.
MODEL_NAMES: Tuple[Tuple[str, str], ...] = (
    ("deepseek-ai/*", "template"),  # the names of model files: a server of one's own
    ("deepseek-*", "deepseek"),
    ("kimi-*", "moonshot"),
    ("moonshot-*", "moonshot"),
    ("glm-*", "zai"),
    ("qwen*-max*", "dashscope"),
    ("qwen*-plus*", "dashscope"),
    ("qwen*-turbo*", "dashscope"),
    ("qwen*-flash*", "dashscope"),  # not open
    ("qwen*", "template"),
    ("qwq*", "template"),
    ("gemma*", "template"),
    ("google/gemma*", "template"),
    ("minimax-*", "minimax"),
    ("*gpt-oss*", "generic"),
    ("gpt-*", "openai-gateway"),
    ("chatgpt-*", "openai-gateway"),
    ("codex-*", "openai-gateway"),
    ("o1*", "openai-gateway"),
    ("o3*", "openai-gateway"),
    ("o4*", "openai-gateway"),
    ("mistral-*", "mistral"),
    ("magistral-*", "mistral"),
    ("codestral-*", "mistral"),
    ("devstral-*", "mistral"),
    ("ministral-*", "mistral"),
    ("gemini-*", "gemini"),
    ("grok-*", "xai"),
    ("doubao-*", "ark"),
    ("step-*", "stepfun"),
    ("mimo-*", "xiaomi"),
)
