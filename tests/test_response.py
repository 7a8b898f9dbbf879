"""The Response object and its usage."""

from __future__ import annotations

from typing import Any, Dict

import pytest
from anything import json_values
from grammar import check_response, check_usage
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.events.response import response_object, shared_response, usage_object, write_response

Json = Dict[str, Any]


def response(request: Json) -> Json:
    return check_response(response_object(request, id="resp_1", created_at=1790000000))


DEFAULTS: Json = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1790000000,
    "completed_at": None,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "output": [],
    "usage": None,
    "service_tier": "default",
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "m",
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}


def test_defaults() -> None:
    assert response({"model": "m"}) == DEFAULTS


def test_null_is_the_default() -> None:
    assert response({**dict.fromkeys(DEFAULTS), "model": "m"}) == DEFAULTS


def test_only_the_json_of_a_shared_response_is_made_ahead() -> None:
    plain = response_object({"model": "m"}, id="resp_1", created_at=1)
    both: Any = (plain, shared_response(plain))
    for one in both:
        write_response(one)
    assert not hasattr(plain, "written") and both[1].written


def test_two_responses_share_nothing() -> None:
    response({"model": "m"})["metadata"]["a"] = "b"
    response({"model": "m"})["tools"].append({})
    assert response({"model": "m"}) == DEFAULTS


ECHOED: Json = {
    "instructions": "Be brief.",
    "max_output_tokens": 100,
    "max_tool_calls": 3,
    "model": "deepseek-v4",
    "parallel_tool_calls": False,
    "previous_response_id": "resp_0",
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "store": False,
    "temperature": 0,
    "tool_choice": "required",
    "top_logprobs": 2,
    "top_p": 0.5,
    "presence_penalty": 1.5,
    "frequency_penalty": -1.5,
    "truncation": "auto",
    "user": "u",
    "metadata": {"a": "b"},
    "reasoning": {"effort": "max", "summary": "auto"},
}


@pytest.mark.parametrize("name", sorted(ECHOED))
def test_the_request_is_repeated(name: str) -> None:
    assert response({"model": "m", name: ECHOED[name]})[name] == ECHOED[name]


def test_tools_are_repeated_in_the_form_of_this_api() -> None:
    function = {"name": "f", "parameters": {}}
    whole = {"type": "function", "description": None, "strict": True, **function}
    for given_tool in (function, {"type": "function", "function": function}, {"type": None, **function}):
        assert response({"model": "m", "tools": [given_tool, {"type": "web_search"}]})["tools"] == [
            whole,
            {"type": "web_search"},
        ]


def test_what_is_not_repeated() -> None:
    assert set(
        response(
            {"model": "m", "input": "secret", "client_metadata": {}, "include": [], "service_tier": "flex"}
        )
    ) == set(DEFAULTS)
    assert response({"model": "m", "service_tier": "flex"})["service_tier"] == "default"


@pytest.mark.parametrize(
    "given_, expected",
    [
        ({"effort": "low"}, {"effort": "low", "summary": None}),
        ({"generate_summary": "concise"}, {"effort": None, "summary": "concise"}),
        ({"summary": "auto", "generate_summary": "concise"}, {"effort": None, "summary": "auto"}),
    ],
)
def test_reasoning(given_: Json, expected: Json) -> None:
    assert response({"model": "m", "reasoning": given_})["reasoning"] == expected


@pytest.mark.parametrize(
    "given_, expected",
    [
        ({"verbosity": "low"}, {"format": {"type": "text"}, "verbosity": "low"}),
        ({"format": {"type": "json_object"}, "verbosity": None}, {"format": {"type": "json_object"}}),
        (
            {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": None}},
            {
                "format": {
                    "type": "json_schema",
                    "name": "n",
                    "schema": {},
                    "strict": False,
                    "description": None,
                }
            },
        ),
        (
            {"format": {"type": "json_schema"}},
            {
                "format": {
                    "type": "json_schema",
                    "name": "response",
                    "schema": {},
                    "strict": False,
                    "description": None,
                }
            },
        ),
        (
            {
                "format": {
                    "type": "json_schema",
                    "name": "n",
                    "schema": {},
                    "strict": True,
                    "description": "d",
                }
            },
            {
                "format": {
                    "type": "json_schema",
                    "name": "n",
                    "schema": {},
                    "strict": True,
                    "description": "d",
                }
            },
        ),
    ],
)
def test_text(given_: Json, expected: Json) -> None:
    assert response({"model": "m", "text": given_})["text"] == expected


def test_tools_are_repeated_and_functions_filled() -> None:
    custom = {"type": "custom", "name": "c"}
    full = {
        "type": "function",
        "name": "g",
        "description": "d",
        "parameters": {"type": "object"},
        "strict": False,
    }
    tools = response({"model": "m", "tools": [{"type": "function", "name": "f"}, custom, full]})["tools"]
    assert tools == [
        {"type": "function", "name": "f", "description": None, "parameters": None, "strict": True},
        custom,
        full,
    ]


# ---- usage
def figures(usage: Json) -> Any:
    check_usage(usage)
    return (
        usage["input_tokens"],
        usage["input_tokens_details"]["cached_tokens"],
        usage["output_tokens"],
        usage["output_tokens_details"]["reasoning_tokens"],
        usage["total_tokens"],
    )


DEEPSEEK = {
    "prompt_tokens": 339,
    "completion_tokens": 83,
    "total_tokens": 422,
    "prompt_tokens_details": {"cached_tokens": 320},
    "completion_tokens_details": {"reasoning_tokens": 39},
    "prompt_cache_hit_tokens": 320,
    "prompt_cache_miss_tokens": 19,
}


@pytest.mark.parametrize(
    "raw, expected",
    [
        (None, (0, 0, 0, 0, 0)),
        ({}, (0, 0, 0, 0, 0)),
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, (1, 0, 2, 0, 3)),
        (DEEPSEEK, (339, 320, 83, 39, 422)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}, (9, 8, 1, 0, 10)),
        ({"prompt_tokens": 19, "completion_tokens": 13, "cached_tokens": 16}, (19, 16, 13, 0, 32)),  # Kimi
        (
            {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53, "cache_read_input_tokens": 40},
            (50, 40, 3, 0, 53),
        ),
        # xAI: the total shows that completion_tokens leave the thinking out
        (
            {
                "prompt_tokens": 307,
                "completion_tokens": 26,
                "total_tokens": 560,
                "completion_tokens_details": {"reasoning_tokens": 227},
            },
            (307, 0, 253, 227, 560),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "reasoning_tokens": 4},
            (10, 0, 5, 4, 15),
        ),
        (
            {
                "input_tokens": 4,
                "output_tokens": 5,
                "input_tokens_details": {"cached_tokens": 3},
                "output_tokens_details": {"reasoning_tokens": 2},
            },
            (4, 3, 5, 2, 9),
        ),
        # odd types
        (
            {
                "prompt_tokens": 12.0,
                "completion_tokens": "3",
                "total_tokens": 15.0,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            (12, 0, 3, 0, 15),
        ),
        (
            {
                "prompt_tokens": True,
                "completion_tokens": -4,
                "prompt_tokens_details": [1],
                "cached_tokens": "many",
            },
            (0, 0, 0, 0, 0),
        ),
        ({"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, (0, 0, 0, 0, 0)),
        ({"prompt_tokens": 10**400, "completion_tokens": "1e300"}, (0, 0, 0, 0, 0)),
    ],
)
def test_usage(raw: Any, expected: Any) -> None:
    assert figures(usage_object(raw)) == expected


def test_cached_tokens_as_responses_proxy_counted_them() -> None:
    assert figures(usage_object(DEEPSEEK, "sum"))[1] == 339
    assert (
        figures(usage_object({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}, "sum"))[1]
        == 4
    )


@pytest.mark.parametrize(
    "raw", [{"prompt_tokens_details": {"cache_write_tokens": 7}}, {"cache_creation_input_tokens": 7}]
)
def test_cache_write_tokens(raw: Json) -> None:
    assert usage_object(raw)["input_tokens_details"]["cache_write_tokens"] == 7


JSON = json_values(
    [None, True, False, 0, 1, -5, 7, 1 << 70, 0.5, float("nan"), float("inf"), "", "5", "x"],
    ["cached_tokens", "reasoning_tokens", "x"],
)
KEYS = st.sampled_from(
    [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "prompt_cache_hit_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "input_tokens_details",
    ]
)


@given(st.dictionaries(KEYS, JSON), st.sampled_from(["hit", "sum"]))
def test_any_usage_gives_numbers_that_add_up(raw: Json, cached: str) -> None:
    check_usage(usage_object(raw, cached))
