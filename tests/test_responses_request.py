"""A request for a provider that serves the Responses API itself."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

import pytest
from histories import HISTORIES, PNG, PROFILES, call, dev, image, out, said, thought, user
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.answer.responses import EventReader
from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import to_chat_request
from rproxy.convert.request.responses import ResponsesConversion, to_responses_request
from rproxy.convert.sealed import seal
from rproxy.errors import ApiError
from rproxy.json_codec import encode_json
from rproxy.providers.profiles import choose_profile, list_profiles

Json = Dict[str, Any]
WIRED = {name: choose_profile(name, "", "some-model", wire="responses") for name in list_profiles()}
DEEPSEEK, OPENAI, GENERIC = WIRED["deepseek"], WIRED["openai"], WIRED["generic"]
LS = {
    "type": "function",
    "name": "ls",
    "description": "d",
    "parameters": {"type": "object", "properties": {}},
}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"},
}
PATCHED = [
    user("go"),
    {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"},
    {"type": "custom_tool_call_output", "call_id": "c", "output": "Done"},
]


def converted(
    items: List[Json], profile: Profile = GENERIC, request: Optional[Json] = None, **options: Any
) -> ResponsesConversion:
    return to_responses_request(request or {}, items, profile, downstream_model="up", **options)


def body(
    items: List[Json], profile: Profile = GENERIC, request: Optional[Json] = None, **options: Any
) -> Json:
    return converted(items, profile, request, **options).body


def given_input(items: List[Json], profile: Profile = GENERIC, **options: Any) -> List[Json]:
    found: List[Json] = body(items, profile, **options)["input"]
    return found


def test_the_history_is_what_the_provider_gets() -> None:
    conversion = converted([user("Hi."), said("Hello.")])
    assert conversion.history is conversion.body["input"] and len(conversion.history) == 2


def by(role: str, content: Any) -> Json:
    return {"type": "message", "role": role, "content": content}


def thinks(text: str) -> Json:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def without_ids(items: List[Json]) -> List[Json]:
    return [{key: value for key, value in item.items() if key != "id"} for item in items]


def test_the_least() -> None:
    conversion = converted([user("go")])
    assert conversion.body == {
        "model": "up",
        "input": [by("user", "go")],
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    assert conversion.chat_request(False) == conversion.body and conversion.chat_request(True) == {
        **conversion.body,
        "stream": True,
    }
    assert not conversion.logprobs and isinstance(conversion.reader(), EventReader)
    assert converted([user("go")], WIRED["dashscope"]).chat_request(False)["stream"] is True


def test_fields_in_the_words_of_this_api() -> None:
    request = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_logprobs": 2,
        "include": ["x"],
        "previous_response_id": "r",
        "conversation": "c",
        "background": False,
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "client_metadata": {},
        "store": True,
        "reasoning": {"effort": "high", "summary": "auto"},
        "tools": [LS],
        "tool_choice": {"type": "function", "name": "ls"},
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
        },
    }
    assert body([user("go")], GENERIC, request) == {
        "model": "up",
        "instructions": "Be brief.",
        "input": [by("user", "go")],
        "store": False,
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_logprobs": 2,
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "prompt_cache_key": "k",
        "metadata": {"a": "b"},
        "reasoning": {"effort": "high", "summary": "auto"},
        "tools": [LS],
        "tool_choice": {"type": "function", "name": "ls"},
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
        },
    }
    assert converted([user("go")], GENERIC, request).logprobs


@pytest.mark.parametrize(
    "effort, told",
    [("none", "none"), ("minimal", "low"), ("medium", "high"), ("xhigh", "high"), ("max", "max")],
)
def test_effort_in_deepseeks_words(effort: str, told: str) -> None:
    found = body([user("go")], DEEPSEEK, {"reasoning": {"effort": effort}, "prompt_cache_key": "k"})
    assert (
        found["reasoning"] == {"effort": told} and "thinking" not in found and "prompt_cache_key" not in found
    )


@pytest.mark.parametrize(
    "profile, model, asked, told",
    [
        ("dashscope", "qwen-plus", "none", "none"),
        ("dashscope", "qwen-plus", "xhigh", "high"),
        ("moonshot", "kimi-k2.6", "low", "low"),
        ("template", "qwen3", "medium", "medium"),
        ("moonshot", "kimi-k2.7-code", "high", None),  # it has no knob
        ("openai", "gpt-4.1", "high", None),
    ],
)
def test_every_knob_of_chat_is_the_effort_here(profile: str, model: str, asked: str, told: Any) -> None:
    wired = choose_profile(profile, "", model, wire="responses")
    found = body([user("go")], wired, {"reasoning": {"effort": asked}})
    assert found.get("reasoning", {}).get("effort") == told
    assert not {"enable_thinking", "thinking", "chat_template_kwargs", "reasoning_effort"} & set(found)


def test_tools_and_thinking_go_together_here() -> None:
    wired = choose_profile("openai", "", "gpt-5.6-terra", wire="responses")
    tool = {"type": "function", "name": "ls", "parameters": {}}
    found = body([user("go")], wired, {"reasoning": {"effort": "high"}, "tools": [tool]})
    assert found["reasoning"]["effort"] == "high" and len(found["tools"]) == 1


def test_dotted_keys_are_dropped_and_streams_avoided() -> None:
    wired = choose_profile(
        "openai", "", "gpt-5.5", {"drop": ["reasoning.summary"], "stream": "never"}, wire="responses"
    )
    request = {"model": "m", "reasoning": {"effort": "high", "summary": "auto"}}
    conversion = to_responses_request(request, [user("go")], wired, downstream_model="up")
    assert conversion.chat_request(True)["reasoning"] == {"effort": "high"}
    assert "stream" not in conversion.chat_request(True)
    assert request["reasoning"] == {"effort": "high", "summary": "auto"}


def test_formats_and_efforts_that_are_mandatory() -> None:
    form = {"format": {"type": "json_object"}}
    assert body([user("go")], DEEPSEEK, {"text": form, "instructions": "json"})["text"] == form
    mandatory = choose_profile("zai", "", "glm-5.3", wire="responses")
    assert body([user("go")], mandatory, {"reasoning": {"effort": "none"}})["reasoning"] == {"effort": "low"}


def test_roles_and_parts() -> None:
    parts = {
        "type": "message",
        "role": "user",
        "content": [
            {"type": "input_text", "text": "see"},
            image(),
            image(detail="low"),
            {"type": "input_file", "filename": "a.pdf", "file_data": PNG},
        ],
    }
    expected = [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": PNG, "detail": "auto"},
        {"type": "input_image", "image_url": PNG, "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": PNG},
    ]
    assert given_input([dev("rules"), parts], OPENAI) == [by("developer", "rules"), by("user", expected)]
    audio = {"type": "input_audio", "input_audio": {"data": "x"}}
    listening = choose_profile(None, "", "m", {"modalities": ["text", "audio"]}, wire="responses")
    assert given_input([{"role": "user", "content": [audio]}], listening) == [by("user", [audio])]
    assert body([dev("rules"), user("go")], DEEPSEEK)["instructions"] == "rules"
    assert given_input([dev("rules")], DEEPSEEK) == [by("system", "rules")]


def test_outputs_stand_behind_all_calls_of_an_answer() -> None:
    listed = [{"type": "input_text", "text": "y"}]
    items = [
        user("go"),
        thought("hm"),
        call("a"),
        dev("hook"),
        out("a"),
        call("b"),
        out("b", listed),
        said("ok"),
        user("more"),
    ]
    assert without_ids(given_input(items, DEEPSEEK)) == [
        by("user", "go"),
        thinks("hm"),
        {"type": "function_call", "call_id": "a", "name": "ls", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "x"},
        by("system", "hook"),
        thinks(""),
        {"type": "function_call", "call_id": "b", "name": "ls", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "b", "output": "y"},
        by("assistant", "ok"),
        by("user", "more"),
    ]


def test_thinking_goes_back_as_the_profile_says() -> None:
    items = [user("go"), thought("hm"), said("ok"), user("more"), thought("oh"), call("a"), out("a")]
    kinds = [
        [i["type"] for i in given_input(items, profile)].count("reasoning")
        for profile in (GENERIC, WIRED["together"], OPENAI)
    ]
    assert kinds == [2, 1, 0]
    # a provider that keeps items would look an id up, so only those who demand one get one of ours
    assert all("id" not in item for item in given_input(items, GENERIC))
    vllm = PROFILES["vllm"]
    ids = [[i["id"] for i in given_input(items[:n], vllm) if i["type"] == "reasoning"] for n in (4, 7)]
    assert ids[1][:1] == ids[0] and ids[0][0].startswith("rs_")


def test_what_the_provider_ran_between_sealed_reasoning_goes_back_in_its_place() -> None:
    def sealed(word: str) -> Json:
        return {"type": "reasoning", "summary": [], "encrypted_content": word}

    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    reader = converted([user("go")], OPENAI, origin="https://a").reader()
    deltas = [
        delta
        for item in (sealed("ONE"), search, sealed("TWO"))
        for delta in reader.read({"type": "response.output_item.done", "item": item})
    ]
    details = [delta[1] for delta in deltas if delta[0] == "detail"]
    assert [kind for kind, *_ in deltas].count("item") == 1
    blobs = [seal("reasoning", {"text": "", "details": part}) for part in (details[:1], details[1:])]
    items = [
        user("go"),
        sealed(blobs[0]),
        {**search, "id": "ws_ours"},
        sealed(blobs[1]),
        said("ok"),
        user("b"),
    ]
    sent = given_input(items, OPENAI, origin="https://a")
    assert sent[1:4] == [sealed("ONE"), search, sealed("TWO")]
    assert not [item for item in given_input(items, OPENAI, origin="https://b") if item["type"] != "message"]


def test_encrypted_reasoning_goes_to_its_maker_only() -> None:
    reader = EventReader()
    made = converted([user("go")], OPENAI, origin="https://a").reader()
    item = {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
    ((_, _, _), (_, detail)) = made.read(
        {"type": "response.output_item.done", "item": {**item, "id": "rs_theirs"}}
    )
    assert reader.reasoning_details == [] and "https" not in json.dumps(detail)
    others = [{"type": "reasoning.text", "text": "other"}, {"type": "responses.item", "origin": "x"}]
    blob = seal("reasoning", {"text": "", "details": [detail, *others]})
    items = [user("go"), {"type": "reasoning", "summary": [], "encrypted_content": blob}, call("a"), out("a")]
    for profile in (OPENAI, GENERIC):
        assert given_input(items, profile, origin="https://a")[1] == item
        assert given_input(items, profile, origin="https://b")[1]["type"] == "function_call"
    chat = to_chat_request({}, items, PROFILES["openrouter"], downstream_model="up").body["messages"]
    assert chat[1]["reasoning_details"] == [{"type": "reasoning.text", "text": "other"}]
    alone = seal("reasoning", {"text": "", "details": [detail]})
    items[1] = {"type": "reasoning", "summary": [], "encrypted_content": alone}
    assert (
        "reasoning_details"
        not in to_chat_request({}, items, PROFILES["openrouter"], downstream_model="up").body["messages"][1]
    )
    foreign = [
        user("go"),
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        call("a"),
        out("a"),
    ]
    assert len(given_input(foreign, OPENAI)) == 3


def test_tools() -> None:
    tools = [LS, PATCH, {"type": "web_search"}, {"type": "namespace", "name": "mcp__x", "tools": [LS]}]
    names = {
        name: [
            tool.get("name") or tool["type"]
            for tool in body([user("go")], profile, {"tools": tools})["tools"]
        ]
        for name, profile in (("generic", GENERIC), ("deepseek", DEEPSEEK), ("openai", OPENAI))
    }
    assert names == {
        "generic": ["ls", "apply_patch", "mcp__x__ls"],
        "deepseek": ["ls", "apply_patch", "web_search", "mcp__x__ls"],
        "openai": ["ls", "apply_patch", "web_search", "mcp__x__ls"],
    }
    assert body([user("go")], OPENAI, {"tools": tools})["tools"][1] == PATCH
    assert body([user("go")], GENERIC, {"tools": tools})["tools"][1]["type"] == "function"
    assert [
        t["type"] for t in body([user("go")], OPENAI, {"tools": tools}, allow=["web_search"])["tools"]
    ] == ["web_search"]
    choice = {"tools": tools, "tool_choice": {"type": "custom", "name": "apply_patch"}}
    assert body([user("go")], OPENAI, choice)["tool_choice"] == {"type": "custom", "name": "apply_patch"}
    assert body([user("go")], GENERIC, choice)["tool_choice"] == {"type": "function", "name": "apply_patch"}
    assert (
        body([user("go")], OPENAI, {"tools": tools, "tool_choice": "required"})["tool_choice"] == "required"
    )


def test_freeform_calls_of_the_history() -> None:
    assert given_input(PATCHED, OPENAI, request={"tools": [PATCH]}) == [by("user", "go"), *PATCHED[1:]]
    assert given_input(PATCHED, GENERIC, request={"tools": [PATCH]})[1:] == [
        {
            "type": "function_call",
            "call_id": "c",
            "name": "apply_patch",
            "arguments": '{"input": "*** Begin"}',
        },
        {"type": "function_call_output", "call_id": "c", "output": "Done"},
    ]
    lite = [{"type": "additional_tools", "tools": [PATCH]}, *PATCHED]
    assert given_input(lite, OPENAI)[1]["type"] == "custom_tool_call"


def test_nothing_to_answer() -> None:
    with pytest.raises(ApiError, match="input is empty"):
        converted([])


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "instructions": st.sampled_from(["", "Be brief."]),
        "tools": st.just([LS, PATCH]),
        "reasoning": st.just({"effort": "low"}),
    },
)


@given(HISTORIES, REQUESTS, st.sampled_from(sorted(WIRED)), st.booleans())
def test_any_history_obeys_the_order_that_deepseek_wants(
    items: List[Json], request: Json, name: str, more: bool
) -> None:
    profile = WIRED[name]
    try:
        sent = body(items, profile, request)
    except ApiError:
        return
    encode_json(sent)
    open_calls: List[str] = []
    answering = False
    for item in sent["input"]:
        if item["type"].endswith("_call"):
            assert not (answering and open_calls), "a call among outputs"
            open_calls, answering = [*open_calls, item["call_id"]], False
            assert item["type"] in ("function_call", "custom_tool_call")
        elif item["type"].endswith("_call_output"):
            assert item["call_id"] == open_calls.pop(0), "outputs in another order than their calls"
            answering = True
        else:
            assert not open_calls, "{} between a call and its output".format(item["type"])
            assert item["type"] == "reasoning" or item["type"] == "message" and item["content"]
    assert not open_calls
    assert PROFILES[name].native_tools == ()
