"""The table of providers: one row of data for each kind, in the form of
:class:`rproxy.convert.profile.Profile`.

Besides the fields of a profile, a row has: ``match`` (hosts of base_url, as suffix or with ``*``; also
``host:port`` or ``host/path``), ``wire`` (the API for these hosts, unless the configuration names one),
``extends`` (another row), ``models`` (glob on the downstream model -> more fields; the first match wins, case
does not matter), ``responses`` (fields that differ with ``wire: responses``).  ``thinking`` replaces that of
the extended row as a whole; everything else is merged field by field.

The source of each rule is beside it: *docs* is the vendor's documentation, *error* an answer that users
report, *adapter* what the vendor's own client or several independent adapters do, *guess* none of these.  A
key that is not named here needs no rule, because reading answers is tolerant everywhere.  Never name keys
``on``/``off``/``yes``/``no``: YAML reads them as booleans.
"""

from __future__ import annotations

from typing import Dict

from .profile_openai import OPENAI
from .profile_parts import (
    DEEPSEEK_TEMPLATE,
    GPT_OSS,
    KEPT,
    NO_THINKING,
    OFF,
    QWEN,
    R1,
    TEXT_IMAGE,
    TYPED,
    Row,
    effort,
    efforts_of,
    switch,
)
from .profile_servers import SERVERS

ROWS: Dict[str, Row] = {
    "generic": {"models": {"*deepseek-r1*": R1, "*gpt-oss*": GPT_OSS}},
    "deepseek": {
        "match": ["api.deepseek.com"],
        "developer_role": "system",  # error: unknown variant `developer`
        # docs: on by default; low, high and max exist, medium means high. error: minimal is refused
        "thinking": effort("low low high high high max", True, *TYPED),
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
        # docs: ignored, always or while thinking
        "drop": [
            "parallel_tool_calls",
            "service_tier",
            "seed",
            "logit_bias",
            "store",
            "metadata",
            "prompt_cache_key",
            "verbosity",
        ],
        "drop_thinking": ["temperature", "presence_penalty", "frequency_penalty", "top_p"],
        "user_field": "user_id",  # docs
        "empty_answer": "error",  # adapter (the vendor's own): an empty stop is retried
        "modalities": ["text"],  # docs: images only for the vision models
        "context_window": 1_000_000,  # docs
        # docs
        "responses": {
            "response_format": ["text", "json_object", "json_schema"],
            "native_tools": ["web_search"],
        },
        "models": {"deepseek-r1*": {**R1, "context_window": 128_000}, "*vision*": {"modalities": TEXT_IMAGE}},
    },
    "moonshot": {
        "match": ["api.moonshot.ai", "api.moonshot.cn", "api.kimi.com"],
        "max_tokens": {"field": "max_completion_tokens"},  # docs
        "thinking": switch(*TYPED, default=True),  # adapter (the vendor's own)
        # error: thinking is enabled but reasoning_content is missing; "" counts as present
        "reasoning": {"replay": "always", "required_on_tool_calls": ""},
        # error: tool_choice 'required' (or 'specified') is incompatible with thinking enabled
        "tool_choice": {"thinking": ["auto", "none"]},
        "strict_tools": "omit",
        # adapter (the vendor's own): every property needs a type
        "schema": ["inline_refs", "add_types", "drop_schema_key"],
        "optional_fields": ["prompt_cache_key", "safety_identifier"],  # docs
        # error: sampling is fixed
        "drop": ["parallel_tool_calls", "service_tier", "store", "verbosity", "top_p", "temperature"],
        "modalities": TEXT_IMAGE,
        "context_window": 256_000,  # model pages
        "models": {
            # docs: always on; low, high, max (the default). measured: `required` is taken, a name is not
            "*k3*": {
                "thinking": effort("low low high high max max"),
                "tool_choice": {"any": ["auto", "none", "required"], "thinking": None},
                "context_window": 1_000_000,
            },
            "*k2.7*": {"thinking": switch({}, None, default=True)},  # docs: always on, no effort
        },
    },
    "zai": {  # base_url ends in /v4
        "match": ["api.z.ai", "open.bigmodel.cn"],
        "thinking": switch(KEPT, TYPED[1], default=True),
        "reasoning": {"replay": "always"},
        "extra": {"tool_stream": True},  # docs: else a call's arguments arrive in one piece
        "tool_choice": {"any": ["auto", "none"]},  # docs; guess for 5.x
        "strict_tools": "omit",
        "response_format": ["text", "json_object"],  # docs
        "schema": ["inline_refs"],  # error: nested arguments become text where a schema has $ref
        "user_message": "required",  # error: 1214 where no message is the user's
        "context_window": 200_000,  # an answer that overflowed counted 202752 tokens
        "models": {
            "glm-5.3*": {  # error: cannot be switched off
                "thinking": effort("low low high high max max", True, KEPT),
                "context_window": 1_000_000,
            },
            "glm-5.2*": {"thinking": effort("high high high high max max", True, KEPT, TYPED[1])},
        },
    },
    "dashscope": {
        "match": [
            "dashscope.aliyuncs.com",
            "dashscope-intl.aliyuncs.com",
            "dashscope-us.aliyuncs.com",
            "maas.aliyuncs.com",
        ],
        "thinking": switch(*QWEN),  # docs
        "reasoning": {"replay": "never"},  # docs: ignored
        "non_stream": "force_stream",  # error: enable_thinking must be set to false for non-streaming calls
        "tool_choice": {"thinking": ["auto", "none"]},  # error: required or object in thinking mode
        "strict_tools": "omit",
        "modalities": TEXT_IMAGE,  # error: file parts are refused
        "models": {
            "*qwen3.8-max*": {"thinking": effort("low low medium high high max", None, *QWEN)},  # docs
            **{  # docs: earlier thinking is read where it is asked for
                f"*qwen{version}*": {
                    "thinking": switch({**QWEN[0], "preserve_thinking": True}, QWEN[1]),
                    "reasoning": {"replay": "always"},
                }
                for version in ("3.6", "3.7")
            },
        },
    },
    "minimax": {
        "match": ["api.minimax.io", "api.minimaxi.com"],
        "max_tokens": {"field": "max_completion_tokens"},  # docs
        "system_position": "first",  # error: 2013, invalid chat setting
        "thinking": switch({"reasoning_split": True}, None, default=True),  # docs: M2 cannot be switched off
        # docs: complete, or the answers get worse
        "reasoning": {"field": "reasoning_details", "replay": "always"},
        "answer": {"think_tags": True, "cumulative": True},  # docs: the sample code slices snapshots
        "response_format": ["text"],  # docs
        "context_window": 200_000,  # model pages: 204800
        "models": {
            # model pages: low to max, cannot be switched off; the field's name is a guess
            "*m3.1*": {
                "thinking": effort("low low medium high high max", True, {"reasoning_split": True}),
                "context_window": 1_000_000,
            },
            "*m3*": {  # docs
                "thinking": switch(
                    {"reasoning_split": True, "thinking": {"type": "adaptive"}}, TYPED[1], True
                ),
                "context_window": 1_000_000,
            },
        },
    },
    "openrouter": {
        "match": ["openrouter.ai"],
        # docs: one parameter for all upstreams
        "thinking": {
            "default": None,
            "enable": {},
            "disable": {"reasoning": {"effort": "none"}},
            "effort": "reasoning.effort",
            "efforts": efforts_of("minimal low medium high xhigh max"),
        },
        "reasoning": {"field": "reasoning_details", "replay": "always"},  # docs: unmodified, in order
        # docs: what a model's own provider does not know is ignored
        "optional_fields": ["verbosity", "prompt_cache_key", "service_tier", "metadata", "prediction"],
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
        "thinking": effort(
            "low low medium high high high", None, {"reasoning_format": "parsed"}, OFF
        ),  # docs
        "reasoning": {"field": "reasoning", "replay": "tool_turns"},
        "drop": ["logprobs", "top_logprobs", "logit_bias", "store"],  # docs: 400
        "optional_fields": ["service_tier"],  # docs
        "modalities": TEXT_IMAGE,
        "models": {
            "*qwen3*": {  # docs: none, default
                "thinking": effort(" ".join(["default"] * 6), True, {"reasoning_format": "parsed"}, OFF)
            },
            # docs: no reasoning_format, no off
            "*gpt-oss*": {"thinking": effort("low low medium high high high", True)},
            **{  # error: property 'reasoning' is unsupported, in messages too
                pattern: {"thinking": NO_THINKING, "reasoning": {"replay": "never"}}
                for pattern in ("*llama*", "*kimi*")
            },
        },
    },
    "mistral": {
        "match": ["api.mistral.ai"],
        "system_position": "first",
        "assistant_after_tool": True,  # error: Unexpected role 'user' after role 'tool'
        "tool_call_id": "alnum9",  # error: must be a-z, A-Z, 0-9, with a length of 9
        "tool_choice": {"rename": {"required": "any"}},  # docs
        "thinking": switch({}, {}),  # by model
        "reasoning": {"field": "mistral_parts", "replay": "tool_turns"},  # docs: parts of the content
        "include_usage": False,  # docs: not in the schema; usage comes anyway
        "optional_fields": ["prediction"],  # docs
        # error: extra_forbidden, with the path in `loc`
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
        ],
        # docs name the parameter; the values none and high are a guess
        "models": {"mistral-small*": {"thinking": effort(" ".join(["high"] * 6), None, {}, OFF)}},
    },
    "gemini": {
        "match": ["generativelanguage.googleapis.com"],
        "thinking": effort("minimal low medium high high high", True, {}, OFF),  # docs
        "keep_extra_content": True,  # error: Function call is missing a thought_signature
        "strict_tools": "omit",  # docs: a subset of JSON schema
        "context_window": 1_000_000,  # model pages
    },
    "xai": {
        "match": ["api.x.ai"],
        "max_tokens": {"field": "max_completion_tokens"},
        "thinking": effort("low low medium high high high"),  # docs: by model, no switch
        "reasoning": {"replay": "never"},  # docs
        "drop_thinking": [
            "presence_penalty",
            "frequency_penalty",
            "stop",
        ],  # docs: refused by reasoning models
        "context_window": 256_000,  # model pages
        "models": {  # model pages
            "*non-reasoning*": {"thinking": NO_THINKING},  # error: does not support parameter reasoningEffort
            "grok-4.3*": {
                "thinking": effort("low low medium high high high", True, {}, OFF),
                "context_window": 1_000_000,
            },
            "grok-4.5*": {"context_window": 500_000},
            **{
                f"grok-4.{minor}*": {
                    "thinking": effort("low low medium high xhigh xhigh"),
                    "context_window": 500_000,
                }
                for minor in (6, 7)
            },
        },
    },
    "together": {
        "match": ["api.together.ai", "api.together.xyz"],
        "thinking": switch({"reasoning": {"enabled": True}}, {"reasoning": {"enabled": False}}),  # docs
        "reasoning": {"field": "reasoning", "replay": "tool_turns"},
        "models": {
            "*deepseek-r1*": R1,
            # adapter: no forced choice
            "*deepseek-v4*": {"tool_choice": {"any": ["auto", "none"]}, "strict_tools": "omit"},
            "*glm-5.3*": {
                "thinking": effort("low low high high max max")
            },  # model page: cannot be switched off
        },
    },
    "fireworks": {
        "match": ["api.fireworks.ai"],
        "thinking": effort("low low medium high high max", None, {}, OFF),  # adapter
        "reasoning": {"replay": "always"},
        "optional_fields": ["prediction"],  # docs
        "models": {"*deepseek-r1*": R1},
    },
    "cerebras": {
        "match": ["api.cerebras.ai"],
        "max_tokens": {"field": "max_completion_tokens"},
        # error: 400
        "drop": [
            "frequency_penalty",
            "presence_penalty",
            "logit_bias",
            "service_tier",
            "store",
            "parallel_tool_calls",
        ],
        "thinking": effort("low low medium high high high"),  # docs: gpt-oss has no off
        "reasoning": {"field": "reasoning", "replay": "tool_turns"},
        "response_schema": ["close_objects"],  # error: 'additionalProperties' is required
        "modalities": ["text"],
    },
    "nvidia": {
        "match": ["integrate.api.nvidia.com"],
        "headers": {"NVCF-POLL-SECONDS": "3600"},  # docs: the gateway's own timeout is short
        "strict_tools": "omit",
        # adapter
        "drop": ["store", "metadata", "parallel_tool_calls", "service_tier", "prompt_cache_key", "verbosity"],
        "models": {"*deepseek-r1*": R1, "*deepseek*": DEEPSEEK_TEMPLATE, "*gpt-oss*": GPT_OSS},
    },
    "huggingface": {
        "match": ["router.huggingface.co"],
        "models": {"*deepseek-r1*": R1, "*gpt-oss*": GPT_OSS},
    },
    "copilot": {
        "match": ["githubcopilot.com"],
        # adapter: the gateway wants to know which client asks
        "headers": {
            "Copilot-Integration-Id": "vscode-chat",
            "Editor-Version": "vscode/1.104.1",
            "Editor-Plugin-Version": "copilot-chat/0.31.1",
        },
        "max_tokens": {"field": "max_completion_tokens"},  # error
        "thinking": effort("low low medium high high high", None, {}, {}),  # error: not for every model
        "reasoning": {"replay": "never"},  # adapter: only with a signature that does not come back
        "user_message": "last",  # error: This model does not support assistant message prefill
        "drop": ["store", "metadata", "service_tier", "prompt_cache_key", "safety_identifier"],  # guess
        "modalities": TEXT_IMAGE,
    },
    "bedrock": {  # base_url ends in /openai/v1 for the Responses API, in /v1 for gpt-oss
        "match": ["bedrock-runtime*.amazonaws.com", "bedrock-mantle*.api.aws"],
        "max_tokens": {"field": "max_completion_tokens"},  # error: the list of known fields
        "thinking": effort("low low medium high high high"),  # model card
        "reasoning": {"replay": "never"},  # guess: unknown fields are refused
        "modalities": TEXT_IMAGE,
    },
    **OPENAI,
    "anthropic": {
        "match": ["api.anthropic.com"],
        "thinking": NO_THINKING,  # docs: thinking does not come back in this API
        "reasoning": {"replay": "never"},
        "user_message": "last",  # error: This model does not support assistant message prefill
        # docs: ignored
        "drop": ["seed", "logit_bias", "presence_penalty", "frequency_penalty", "response_format"],
        "strict_tools": "omit",  # docs: ignored
        "context_window": 1_000_000,  # model pages, since Opus 4.6 and Sonnet 5
        "models": {  # error: no forced choice
            pattern: {"tool_choice": {"any": ["auto", "none"]}} for pattern in ("*opus-5-5*", "*fable-5-1*")
        },
    },
    "ark": {  # base_url ends in /api/v3
        "match": ["volces.com", "byteplus.com"],
        # docs; error: high with disabled is refused
        "thinking": effort("low low medium high high high", True, *TYPED),
        "reasoning": {"replay": "tool_turns"},  # guess
        "context_window": 256_000,  # model pages
        "models": {  # model pages: none to max
            pattern: {"thinking": effort("minimal low medium high xhigh max", True, {}, OFF)}
            for pattern in ("*seed-2*mini*", "*seed-2*lite*")
        },
    },
    "stepfun": {
        "match": ["api.stepfun.com", "api.stepfun.ai"],
        "thinking": effort("low low high high high high"),  # model catalogue: some know low and high only
        "reasoning": {"field": "reasoning", "replay": "tool_turns"},  # guess
    },
    "siliconflow": {
        "match": ["api.siliconflow.cn", "api.siliconflow.com"],
        "thinking": switch(*QWEN),  # guess
        "reasoning": {"replay": "always", "required_on_tool_calls": ""},  # error: as DeepSeek itself
        "models": {"*deepseek-r1*": R1},
    },
    "xiaomi": {
        "match": ["xiaomimimo.com"],
        "thinking": switch(*TYPED, default=True),  # adapter
        "reasoning": {"replay": "always", "required_on_tool_calls": ""},  # adapter
        "empty_content": " ",  # error: `text` is not set, also for ""
    },
    **SERVERS,
}
