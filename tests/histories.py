"""Random and recorded histories for the request tests, and every profile to try them on."""

from __future__ import annotations

from typing import Any, Dict, List

from anything import json_values
from hypothesis import strategies as st

from rproxy.convert.profile import Profile
from rproxy.providers.profiles import choose_profile, list_profiles

Json = Dict[str, Any]

PROFILES: Dict[str, Profile] = {name: choose_profile(name, "", "some-model") for name in list_profiles()}
PROFILES["deepseek-r1"] = choose_profile("deepseek", "", "deepseek-r1")
PROFILES["azure-deepseek"] = choose_profile("azure", "", "deepseek-v4")
PROFILES["openrouter-deepseek"] = choose_profile("openrouter", "", "deepseek/deepseek-v4")
PROFILES["tags"] = choose_profile("minimax", "", "m", {"reasoning": {"field": "think_tags"}})

PNG = "data:image/png;base64,AA=="


# ---- items in short
def msg(role: str, *texts: str, **more: Any) -> Json:
    kind = "output_text" if role == "assistant" else "input_text"
    return {
        "type": "message",
        "role": role,
        "content": [{"type": kind, "text": text} for text in texts],
        **more,
    }


def user(*texts: str, **more: Any) -> Json:
    return msg("user", *texts, **more)


def dev(*texts: str, **more: Any) -> Json:
    return msg("developer", *texts, **more)


def said(*texts: str, **more: Any) -> Json:
    return msg("assistant", *texts, **more)


def thought(text: str = "r", **more: Any) -> Json:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}], **more}


def call(call_id: str = "c1", name: str = "ls", arguments: str = "{}", **more: Any) -> Json:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, **more}


def out(call_id: str = "c1", output: Any = "x", **more: Any) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": output, **more}


def image(url: str = PNG, **more: Any) -> Json:
    return {"type": "input_image", "image_url": url, **more}


def ours(prefix: str, response: int, item: int) -> str:
    """The id of an item of one of our responses."""
    return f"{prefix}_{response:032x}{item:04x}"


# ---- histories that clients send
TEXTS = st.sampled_from(["", " ", "a", "b\nc", "\ud83d", "json", "{}"])
CALL_IDS = st.sampled_from(["c1", "c2", "c3", "call_0", "Ab3dE6gH9", "functions.ls:0", "x" * 60])
NAMES = st.sampled_from(["ls", "apply_patch", "mcp.add", "", "werkzeug-für-alles", "n" * 80])
IDS = st.one_of(
    st.none(), st.builds(ours, st.sampled_from(["msg", "rs", "fc"]), st.integers(1, 3), st.integers(0, 9))
)
CONTENT = st.one_of(
    TEXTS,
    st.lists(
        st.one_of(
            st.builds(lambda text: {"type": "input_text", "text": text}, TEXTS),
            st.just(image()),
            st.just({"type": "input_image", "image_url": PNG, "detail": "original"}),
            st.just({"type": "input_file", "filename": "a.txt", "file_data": "aGk="}),
            st.just({"type": "refusal", "refusal": "no"}),
        ),
        max_size=3,
    ),
)


def _item(**fields: Any) -> Any:
    return st.fixed_dictionaries(
        {
            key: value if isinstance(value, st.SearchStrategy) else st.just(value)
            for key, value in fields.items()
        }
    )


ITEMS = st.one_of(
    _item(
        type="message",
        role=st.sampled_from(["system", "developer", "user", "assistant"]),
        content=CONTENT,
        id=IDS,
    ),
    _item(
        type="reasoning",
        summary=st.just([]),
        content=st.lists(_item(type="reasoning_text", text=TEXTS), max_size=2),
        id=IDS,
    ),
    _item(
        type="function_call",
        call_id=CALL_IDS,
        name=NAMES,
        arguments=st.sampled_from(["{}", "", "{bad", '{"a": 1}']),
        id=IDS,
        namespace=st.sampled_from([None, "functions", "mcp__x"]),
    ),
    _item(type="custom_tool_call", call_id=CALL_IDS, name=NAMES, input=TEXTS),
    _item(type="tool_search_call", call_id=CALL_IDS, arguments=st.just({"query": "q"}), execution="client"),
    _item(type="local_shell_call", call_id=CALL_IDS, action=st.just({"type": "exec", "command": ["ls"]})),
    _item(type="strange_call", call_id=CALL_IDS, payload=st.just(1)),
    _item(
        type=st.sampled_from(["function_call_output", "custom_tool_call_output", "strange_call_output"]),
        call_id=CALL_IDS,
        output=CONTENT,
    ),
    _item(
        type="tool_search_output",
        call_id=CALL_IDS,
        execution="client",
        tools=st.just(
            [
                {
                    "type": "namespace",
                    "name": "mcp__x",
                    "tools": [{"type": "function", "name": "add", "parameters": {}}],
                }
            ]
        ),
    ),
    _item(
        type=st.sampled_from(
            ["web_search_call", "compaction", "compaction_trigger", "additional_tools", "something_new"]
        )
    ),
)
HISTORIES: Any = st.lists(ITEMS, max_size=14)

# ---- anything at all
JSON: Any = json_values(
    [
        None,
        True,
        False,
        0,
        -7,
        1 << 70,
        0.5,
        -1e300,
        "",
        "a",
        "\0",
        "\ud800",
        "\u2028",
        "文 \U0001f600",
        "x" * 30,
    ],
    ["", "a", "type", "text", "name", "\ud800"],
)
_CALLS = [
    "function_call",
    "custom_tool_call",
    "tool_search_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "x_call",
]
_TYPES = [
    "message",
    "reasoning",
    "additional_tools",
    "compaction",
    "configuration_update",
    "tool_search_output",
    *_CALLS,
    *(kind + "_output" for kind in _CALLS),
]
_KEYS = [
    "role",
    "content",
    "call_id",
    "id",
    "name",
    "namespace",
    "arguments",
    "input",
    "output",
    "action",
    "operation",
    "status",
    "summary",
    "encrypted_content",
    "tools",
    "reasoning",
    "text",
    "execution",
]
_WORDS = st.sampled_from(
    ["function", "custom", "namespace", "tool_search", "input_text", "input_image", "input_file"]
)
_PARTS = st.lists(
    st.dictionaries(
        st.sampled_from(["type", "name", "text", "tools", "image_url", "file_data"]), st.one_of(JSON, _WORDS)
    )
)
_VALUES = st.one_of(JSON, CONTENT, CALL_IDS, _PARTS)
WILD_ITEMS: Any = st.builds(
    lambda kind, rest: {"type": kind, **rest},
    st.one_of(st.sampled_from(_TYPES), JSON),
    st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=5),
)
WILD_HISTORIES: Any = st.lists(WILD_ITEMS, max_size=6)


def names(messages: List[Json]) -> List[str]:
    """The roles of messages, ``assistant+`` for one with calls."""
    return [message["role"] + ("+" if "tool_calls" in message else "") for message in messages]
