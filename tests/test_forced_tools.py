"""``tool_choice`` on providers that do not take it: structured output of many clients is a forced call."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from histories import PROFILES

from rproxy.convert.request.chat import to_chat_request
from rproxy.errors import ApiError

Json = Dict[str, Any]
TOOL: Json = {"type": "function", "name": "ls", "parameters": {"type": "object", "properties": {}}}
LS: Json = {"type": "function", "name": "ls"}
ASK: Json = {"type": "message", "role": "user", "content": "go"}
CALL: List[Json] = [
    {"type": "function_call", "call_id": "c1", "name": "ls", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "a.txt"},
]


def convert(profile: str, items: List[Json], choice: Any, **more: Any) -> Json:
    request = {"tools": [TOOL], "tool_choice": choice, **more}
    return to_chat_request(request, items, PROFILES[profile], downstream_model="up").body


def text(message: Json) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


@pytest.mark.parametrize(
    "choice, sent", [("required", "required"), (LS, {"type": "function", "function": {"name": "ls"}})]
)
def test_a_forced_call_is_worth_more_than_thinking_that_nobody_asked_for(choice: Any, sent: Any) -> None:
    body = convert("deepseek", [ASK], choice, reasoning={"summary": "auto"}, temperature=0.5)
    assert body["tool_choice"] == sent
    assert body["thinking"] == {"type": "disabled"} and "reasoning_effort" not in body
    assert body["temperature"] == 0.5  # it counts again
    assert [message["content"] for message in body["messages"]] == ["go"]


def test_a_choice_that_thinking_allows_leaves_thinking_alone() -> None:
    assert convert("deepseek", [ASK], "none")["tool_choice"] == "none"
    assert "thinking" not in convert("deepseek", [ASK], "none")
    assert "thinking" not in convert("generic", [ASK], "required")


@pytest.mark.parametrize(
    "profile, choice, words",
    [
        ("deepseek", "required", "Answer by calling one of the tools."),
        ("deepseek", LS, "Answer by calling the tool ls."),
        ("moonshot", LS, "Answer by calling the tool ls."),
    ],
)
@pytest.mark.parametrize("content", ["go", [{"type": "input_text", "text": "go"}]])
def test_where_it_cannot_be_sent_the_users_message_says_it(
    profile: str, choice: Any, words: str, content: Any
) -> None:
    items = [dict(ASK, content=content)]
    body = convert(profile, items, choice, reasoning={"effort": "high"})
    assert "tool_choice" not in body and body["thinking"] == {"type": "enabled"}
    assert text(body["messages"][-1]) == "go\n" + words
    assert items == [dict(ASK, content=content)]  # the history itself is not touched


def test_after_a_tool_result_it_is_a_message_of_its_own() -> None:
    messages = convert("deepseek", [ASK, *CALL], "required", reasoning={"effort": "high"})["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "system"]
    assert text(messages[0]) == "go" and text(messages[-1]) == "Answer by calling one of the tools."


def test_words_alone_are_no_input() -> None:
    with pytest.raises(ApiError, match="nothing to answer"):
        convert("moonshot", [], "required")
