"""The types of a create request's fields."""

from __future__ import annotations

from typing import Any, Dict

import pytest
from histories import JSON
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.request.validate import FIELDS, UNSUPPORTED, check_request, without_nulls
from rproxy.errors import ApiError

Json = Dict[str, Any]

GOOD: Json = {
    "model": "m",
    "input": "hi",
    "instructions": "Be brief.",
    "previous_response_id": "resp_1",
    "conversation": "conv_1",
    "store": False,
    "stream": True,
    "background": False,
    "generate": False,
    "stream_options": {},
    "max_output_tokens": 1,
    "max_tool_calls": 0,
    "temperature": 0,
    "top_p": 0.5,
    "presence_penalty": -1,
    "frequency_penalty": 1.5,
    "top_logprobs": 0,
    "stop": "x",
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {},
    "text": {},
    "truncation": "auto",
    "metadata": {"a": "b"},
    "include": ["x"],
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "user": "u",
    "service_tier": "auto",
    "prompt_cache_options": {},
}
ALSO_GOOD = [
    ("temperature", 10**400),
    ("reasoning", {"effort": None, "summary": "auto"}),
    ("text", {"verbosity": "low"}),
    ("input", []),
    ("input", [{}]),
    ("instructions", [{}]),
    ("conversation", {"id": "conv_1"}),
    ("stop", ["x"]),
    ("tools", [{}]),
    ("tool_choice", {}),
    ("text", {"format": None}),
    ("text", {"format": {}}),
    ("metadata", {}),
    ("include", []),
]
WRONG = [
    ("model", 5, "model must be a string, not 5."),
    ("input", 5, "input must be a string or a list of items (objects), not 5."),
    ("input", ["x"], "input must be a string or a list of items (objects), not a list of something else."),
    ("input", {"role": "user"}, "input must be a string or a list of items (objects), not an object."),
    ("instructions", ["x"], None),
    ("conversation", {"id": 5}, None),
    ("conversation", 5, None),
    ("store", "yes", 'store must be a boolean, not "yes".'),
    ("store", 1, None),
    ("store", "y" * 99, "store must be a boolean, not a long string."),
    ("max_output_tokens", 0, "max_output_tokens must be a positive integer, not 0."),
    ("max_output_tokens", True, None),
    ("max_output_tokens", 1.0, None),
    ("temperature", float("inf"), "temperature must be a number, not Infinity."),
    ("reasoning", {"effort": 3}, None),
    ("reasoning", {"summary": []}, None),
    ("text", {"verbosity": 1}, None),
    ("temperature", True, "temperature must be a number, not true."),
    ("top_logprobs", "2", None),
    ("stop", [1], None),
    ("tools", ["x"], None),
    ("tool_choice", "maybe", 'tool_choice must be auto, none, required or an object, not "maybe".'),
    ("tool_choice", 5, None),
    ("text", {"format": "json"}, None),
    ("metadata", {"a": 1}, None),
    ("include", "x", None),
    ("include", [1], None),
    ("reasoning", "high", None),
]


def test_every_field_is_known_here() -> None:
    assert set(GOOD) == set(FIELDS)
    check_request(GOOD)


@pytest.mark.parametrize("field, value", ALSO_GOOD)
def test_other_forms_are_good_too(field: str, value: Any) -> None:
    check_request({**GOOD, field: value, "something_new": 5})


@pytest.mark.parametrize("field, value, message", WRONG)
def test_a_wrong_type_is_a_400_that_names_the_field(field: str, value: Any, message: Any) -> None:
    with pytest.raises(ApiError) as caught:
        check_request({**GOOD, field: value})
    assert (caught.value.status, caught.value.param, caught.value.code, caught.value.type) == (
        400,
        field,
        "invalid_type",
        "invalid_request_error",
    )
    assert message is None or caught.value.message == message


@pytest.mark.parametrize("request_", [{}, {"model": ""}])
def test_a_model_is_needed(request_: Json) -> None:
    with pytest.raises(ApiError, match="model is required") as caught:
        check_request(request_)
    assert (caught.value.param, caught.value.code) == ("model", "missing_required_parameter")


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_cannot_be_done_is_said(field: str) -> None:
    with pytest.raises(ApiError, match=f"{field} is not supported") as caught:
        check_request({"model": "m", field: {}})
    assert (caught.value.param, caught.value.code) == (field, "unsupported_parameter")


@pytest.mark.parametrize(
    "field, most, entry",
    [
        ("tools", 4096, {"type": "function", "name": "f"}),
        ("tools", 2048, {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}),
        ("include", 256, "reasoning.encrypted_content"),
        ("stop", 256, "END"),
    ],
)
def test_so_many_entries_and_no_more(field: str, most: int, entry: Any) -> None:
    check_request({"model": "m", field: [entry] * most})
    with pytest.raises(ApiError, match="Send fewer") as caught:
        check_request({"model": "m", field: [entry] * (most + 1)})
    assert (caught.value.status, caught.value.param, caught.value.code) == (
        400, field, "array_above_max_length",
    )  # fmt: skip


def test_null_means_absent() -> None:
    request = dict.fromkeys([*FIELDS, *UNSUPPORTED])
    assert without_nulls({**request, "model": "m"}) == {"model": "m"}
    check_request(without_nulls({**request, "model": "m"}))


@given(st.dictionaries(st.sampled_from([*FIELDS]), JSON))
def test_any_request_is_good_or_a_400(request: Json) -> None:
    try:
        check_request(without_nulls(request))
    except ApiError as error:
        assert error.status == 400 and error.param in FIELDS
