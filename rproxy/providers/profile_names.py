"""The names of the profiles: a line about each, aliases, and the model names that select one."""

from __future__ import annotations

from typing import Dict, Tuple

# One line about each.
ABOUT: Dict[str, str] = {
    "generic": "any other server: what most of them take",
    "deepseek": "DeepSeek's own API",
    "moonshot": "Moonshot AI: Kimi",
    "zai": "Z.ai and BigModel: GLM",
    "dashscope": "Alibaba Cloud Model Studio: Qwen",
    "minimax": "MiniMax",
    "openrouter": "OpenRouter",
    "copilot": "GitHub Copilot",
    "bedrock": "Amazon Bedrock, its OpenAI endpoints",
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

# Other names that `profile:` accepts.
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
    "github-copilot": "copilot",
    "aws": "bedrock",
    "llama.cpp": "llamacpp",
    "lm-studio": "lmstudio",
}

# Downstream model on an unknown host -> row; the first matching glob wins, case does not matter.
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
