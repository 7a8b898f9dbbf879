"""Building blocks for the rows of the profile tables: ways to control thinking, and parts that several rows
share.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping

from ..convert.profile import EFFORTS

Row = Mapping[str, Any]


def efforts_of(words: str) -> Dict[str, str]:
    """The provider's words for the six levels from minimal to max: ``"low low medium high high high"``."""
    return dict(zip(EFFORTS[1:], words.split()))


def effort(words: str, default: Any = True, enable: Any = None, disable: Any = None) -> Dict[str, Any]:
    """Thinking that is controlled by ``reasoning_effort``."""
    return {
        "default": default,
        "enable": enable or {},
        "disable": disable,
        "effort": "reasoning_effort",
        "efforts": efforts_of(words),
    }


def switch(enable: Any, disable: Any, default: Any = None) -> Dict[str, Any]:
    """Thinking that can only be switched on and off."""
    return {"default": default, "enable": enable, "disable": disable}


NO_THINKING = switch({}, {}, default=False)
TYPED = ({"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}})
# Z.ai, docs: earlier thinking stays, and has to come back unmodified
KEPT = {"thinking": {"type": "enabled", "clear_thinking": False}}
QWEN = ({"enable_thinking": True}, {"enable_thinking": False})
OFF = {"reasoning_effort": "none"}
TEXT_IMAGE = ["text", "image"]

# R1 must not get its own thinking back (docs: 400 if it does)
R1: Row = {"reasoning": {"replay": "never", "required_on_tool_calls": None, "also": []}}
# every server of gpt-oss takes low, medium and high, and thinking has no switch (model card)
GPT_OSS: Row = {"thinking": effort("low low medium high high high")}
# DeepSeek on servers that run its template: thinking is switched there (adapter)
DEEPSEEK_TEMPLATE: Row = {
    "thinking": switch(
        {"chat_template_kwargs": {"thinking": True}}, {"chat_template_kwargs": {"thinking": False}}
    ),
    "reasoning": {"field": "reasoning_content", "required_on_tool_calls": ""},
}
# OpenAI's models from gpt-5.4 on take no tools while they think, through Chat Completions (error)
NO_TOOLS_WITH_THINKING: Row = {
    "thinking": {**effort("minimal low medium high xhigh xhigh", None, {}, OFF), "with_tools": False}
}
