"""From the words of a refusal to what it is about: taking it apart, cutting the client's content out, reading
it.
"""

from __future__ import annotations

import json
import time
from typing import Any, Dict, FrozenSet, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal_cases import CASES, CODEX, HI, TURN, WIRED_CASES, Case, image, user

from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import input_items, to_chat_request
from rproxy.convert.request.omit import without_refused
from rproxy.convert.request.responses import to_responses_request
from rproxy.convert.request.validate import without_nulls
from rproxy.errors import ApiError
from rproxy.providers.complaints import MAX_COMPLAINTS, Complaint, find_complaints, path_of
from rproxy.providers.diagnosis import Diagnosis, diagnose
from rproxy.providers.forms import FORMS, has_form
from rproxy.providers.profiles import choose_profile
from rproxy.providers.provider_errors import Refusal, provider_error
from rproxy.providers.redaction import RUN, Redaction, client_texts
from rproxy.providers.refusal_words import Reading, normalized

Json = Dict[str, Any]


def sent(request: Json, profile: Profile, stream: bool = True) -> Json:
    request = without_nulls({"model": "m", **request})
    conversion = to_chat_request(request, input_items(request), profile, downstream_model="m")
    return conversion.chat_request(stream)


# ---- Every case is understood
@pytest.mark.parametrize("name", CASES)
def test_a_refusal_is_understood(name: str) -> None:
    """See test_refusals for the whole way."""
    case = CASES[name]
    profile = choose_profile(case.profile, "", case.model)
    body = sent(case.request, profile, case.stream)
    error = refusal_of(case, body)
    assert isinstance(error, Refusal)
    assert diagnose(error.complaints, body, profile)


def refusal_of(case: Case, body: Json) -> ApiError:
    return provider_error(case.status, {}, json.dumps(case.answer(body)).encode(), "p")


@pytest.mark.parametrize("name", WIRED_CASES)
def test_the_other_api_is_understood_as_well(name: str) -> None:
    case = WIRED_CASES[name]
    profile = choose_profile(case.profile, "", case.model, wire="responses")
    request = without_nulls({"model": "m", **case.request})

    def made(profile: Profile, refused: FrozenSet[str]) -> Json:
        conversion = to_responses_request(
            request, input_items(request), profile, downstream_model="m", origin="http://p"
        )
        return without_refused(conversion.chat_request(True), refused)[0]

    body = made(profile, frozenset())
    assert case.breaks(body)
    error = refusal_of(case, body)
    assert isinstance(error, Refusal)
    for found in diagnose(error.complaints, body, profile):
        body = made(profile.override(found.cure.override), found.cure.refused)
    assert not case.breaks(body) and case.keep(body)


# ---- Complaints
COMPLAINTS: Dict[str, Tuple[Any, List[Complaint]]] = {
    "openai": (
        {"error": {"message": "m", "type": "t", "param": "a.b", "code": "c"}},
        [Complaint("m", "t c", ("a", "b"))],
    ),
    "a sentence in param": (
        {"error": {"code": "400", "message": "Param Incorrect", "param": "`text` is not set"}},
        [Complaint("Param Incorrect", "400"), Complaint("`text` is not set", "400")],
    ),
    "fastapi": (
        {
            "detail": [
                {"type": "t", "loc": ["body", "messages", 2, "x"], "msg": "m", "input": {"message": "no"}}
            ]
        },
        [Complaint("m", "t", ("messages", "2", "x"))],
    ),
    "fastapi inside a message": (
        {"object": "error", "message": {"detail": [{"loc": ["body", "x"], "msg": "m"}]}},
        [Complaint("m", "", ("x",))],
    ),
    "the repr of a dict": (
        {
            "error": "2 errors: {'type': 't', 'loc': ('body', 'x', 1), 'msg': \"it's m\", 'ctx': {'a': 1}}, "
            "{'loc': ['y'], 'msg': 'n'}"
        },
        [Complaint("it's m", "t", ("x", "1")), Complaint("n", "", ("y",)), Complaint("2 errors:  ,")],
    ),
    "pydantic's report": (
        "1 validation error for X\nmessages.1.role\n  Input should be 'a' [type=literal_error, "
        "input_value='b']\n",
        [
            Complaint("Input should be 'a'", "literal_error", ("messages", "1", "role")),
            Complaint("1 validation error for X"),
        ],
    ),
    "json inside a text": (
        {"error": {"message": 'Upstream: {"error": {"message": "m", "param": "p"}} (end)'}},
        [Complaint("m", "", ("p",)), Complaint("Upstream:   (end)")],
    ),
    "json inside json": (
        {"error": {"message": json.dumps({"error": {"message": json.dumps({"msg": "m", "loc": ["x"]})}})}},
        [Complaint("m", "", ("x",))],
    ),
    "google": (
        [
            {
                "error": {
                    "message": "m",
                    "details": [{"fieldViolations": [{"field": "tools[0].x", "description": "d"}]}],
                }
            }
        ],
        [Complaint("m"), Complaint("d", "", ("tools", "0", "x"))],
    ),
    "zod": (
        {"issues": [{"code": "c", "path": ["messages", 1, "content"], "message": "m"}]},
        [Complaint("m", "c", ("messages", "1", "content"))],
    ),
    "a path and no words": ({"param": "seed", "code": "c"}, [Complaint("", "c", ("seed",))]),
    "a list of words is no complaint": ({"message": 'one of ["a", "b"]'}, [Complaint('one of ["a", "b"]')]),
    "broken json": ({"message": 'x {"a": '}, [Complaint('x {"a":')]),
    "nothing": ({"error": None, "a": 1}, []),
    "a number": (7, []),
}


@pytest.mark.parametrize("title", COMPLAINTS)
def test_a_refusal_is_taken_apart(title: str) -> None:
    answer, complaints = COMPLAINTS[title]
    assert sorted(find_complaints(answer)) == sorted(complaints)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text() | st.sampled_from(["loc", "msg", "error", "message", "param", "detail"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_a_provider_says_it_can_be_read(answer: Any) -> None:
    complaints = find_complaints(answer)
    assert len(complaints) <= MAX_COMPLAINTS
    profile = Profile()
    diagnose(complaints, sent(CODEX, profile), profile)


def test_a_refusal_without_end_has_one() -> None:
    nested: Json = {"message": "m"}
    for _ in range(1000):
        nested = {"error": nested}
    assert find_complaints(nested) == ()
    assert len(find_complaints([{"message": str(n)} for n in range(1000)])) <= MAX_COMPLAINTS
    assert len(find_complaints("{'loc': ('a',)} " * 500)) <= MAX_COMPLAINTS + 1
    assert find_complaints("{" * 5000 + "'loc': ['x']")[0].path == ("x",)
    assert len(find_complaints("x" * 100_000)[0].text) < 5000


@pytest.mark.parametrize(
    "value, steps",
    [
        ("messages[1].content", ("messages", "1", "content")),
        ("/messages/0/content", ("messages", "0", "content")),
        ("$.messages[0].role", ("messages", "0", "role")),
        ("messages.[3].content", ("messages", "3", "content")),
        ("body.tools.0.function", ("tools", "0", "function")),
        (["body", "tool_choice", "literal['none']"], ("tool_choice", "literal['none']")),
        ("`text` is not set", ()),
        ("a" * 50 + "!", ()),
        ({"a": 1}, ()),
        (None, ()),
    ],
)
def test_a_path_is_read_in_every_spelling(value: Any, steps: Tuple[str, ...]) -> None:
    assert path_of(value) == steps


HOSTILE = (
    "(" * 4000, "reasoning effort " * 300, "must be 'a' " * 400, "messages.1.content " * 250, "'a', " * 1000,
    "aB" * 2000, "a_" * 2000, "a.b" * 1500, "user " * 900, "'loc': ['a'], " * 300, "{" * 4000, '{"a":' * 700,
    "only " * 900,
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:12] for text in HOSTILE])
def test_hostile_refusals_are_read_quickly(text: str) -> None:
    profile = Profile()
    history = [user(f"lorem ipsum dolor sit amet {n}" * 20) for n in range(200)]
    body = sent({**RICH, "input": [*RICH["input"], *history]}, profile)
    began = time.process_time()
    diagnose(find_complaints([{"message": f"{text}{n}"} for n in range(60)]), body, profile)
    assert time.process_time() - began < 3.0


# ---- The client's content
QUOTED = "Please explain what stream_options and response_format do when tools are unsupported."


@pytest.mark.parametrize(
    "text, contents, left",
    [
        (f"flagged: {QUOTED}", [QUOTED], "flagged: … "),
        (f"flagged: {QUOTED[5:40]}...", [QUOTED], "flagged: … ..."),
        (f"flagged: {QUOTED[5:25]}", [QUOTED], f"flagged: {QUOTED[5:25]}"),  # too short a run of it
        (json.dumps(QUOTED + "\n"), [QUOTED], '" … \\n"'),
        ("flagged: 'list it' now", ["list it"], "flagged: ' … ' now"),
        ("the enlistment", ["list"], "the enlistment"),  # a part of a word
        ("hi there, this is hidden", ["hi"], "hi there, this is hidden"),
        ("`tools` are not supported", ["tools"], "`tools` are not supported"),  # a word of the API
        ("x" * 23, ["x" * 200], "x" * 23),
        ("x" * 24, ["x" * 200], " … "),
        ("", [QUOTED], ""),
    ],
)
def test_content_is_cut_out(text: str, contents: List[str], left: str) -> None:
    texts = [content for content in contents if len(content) >= 4]
    assert Redaction([text], texts, {"tools", "text"}).cut(text).split() == left.split()


def test_what_is_content() -> None:
    body = {
        "model": "a-model-name",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look here"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "ls", "arguments": '{"a": 1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "some output"},
        ],
        "metadata": {"team": "blue"},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "list_it",
                    "description": "Lists things",
                    "parameters": {"type": "object", "properties": {"kind": {"enum": ["files", "dirs"]}}},
                },
            }
        ],
        "reasoning_effort": "medium",
    }
    assert client_texts(body) == [
        "be brief",
        "look here",
        '{"a": 1}',
        "some output",
        "blue",
        "Lists things",
        "files",
        "dirs",
    ]


# Words that would steer a diagnosis, if a provider said them.
STEERING = [
    "Unsupported parameter: 'temperature'",
    "This response_format type is unavailable now",
    "reasoning_effort is not supported",
    "System message must be at the beginning.",
    "m does not support tools",
    "property 'reasoning_content' is unsupported",
    "`text` is not set",
    "does not support image input",
]
RICH: Json = {
    **CODEX,
    "temperature": 0.5,
    "text": {"format": {"type": "json_object"}},
    "input": [*CODEX["input"], *TURN["input"], user("look", image("png"))],
}


@given(
    st.lists(st.sampled_from(STEERING), min_size=1, max_size=3),
    st.text(max_size=40),
    st.text(max_size=40),
    st.booleans(),
)
def test_long_content_never_steers(steering: List[str], before: str, after: str, escaped: bool) -> None:
    content = f"{before} {' '.join(steering)} {after}".strip()
    assert len(content) >= RUN or len(content) >= len(STEERING[-2])
    profile = Profile()
    body = sent({**RICH, "input": [*RICH["input"], _user(content)]}, profile)
    quoted = json.dumps(content) if escaped else f"'{content}'"
    assert (
        diagnose(find_complaints({"error": {"message": f"Blocked by policy: {quoted}"}}), body, profile) == []
    )


@given(st.text(max_size=3), st.sampled_from(STEERING))
def test_short_content_changes_nothing(content: str, said: str) -> None:
    profile = Profile()
    plain, more = (
        sent({**RICH, "input": items}, profile)
        for items in (RICH["input"], [*RICH["input"], _user(content or "x")])
    )
    complaints = find_complaints({"error": {"message": said}})
    assert names(diagnose(complaints, plain, profile)) == names(diagnose(complaints, more, profile)) != []


def _user(text: str) -> Json:
    return {"type": "message", "role": "user", "content": text}


def names(found: List[Diagnosis]) -> List[Tuple[str, str]]:
    return [(one.subject, one.cure.rung) for one in found]


# ---- Reading
@pytest.mark.parametrize(
    "text, words",
    [
        ("reasoningEffort", "reasoning effort"),
        ("reasoning_effort", "reasoning effort"),
        ("Reasoning-Effort", "reasoning effort"),
        ("reasoning.effort", "reasoning effort"),
        ("maxCompletionTokens", "max completion tokens"),
        ("gpt-5.6-terra, 0.25", "gpt 5.6 terra, 0.25"),
        ("ThinkChunk", "think chunk"),
    ],
)
def test_words_have_one_spelling(text: str, words: str) -> None:
    assert normalized(text) == words


@pytest.mark.parametrize(
    "text, blamed, allowed",
    [
        (
            "unknown field thinking, expected one of a, reasoning_effort",
            "unknown field thinking, ",
            ["a", "reasoning_effort"],
        ),
        ("Use 'b' instead of 'a'", "use 'b' instead of 'a'", ["b", "a"]),
        ("'abc' must be 'b' or 'c'", "'abc' ", ["b", "c"]),
        ("'b' is expected to be 'c'", "'b' is expected to be 'c'", ["c"]),
        ("Invalid x: 'a'. Supported string values: b, c", "invalid x: 'a'. ", ["b", "c"]),
        ("a is broken", "a is broken", []),
    ],
)
def test_what_is_blamed_and_what_is_allowed(text: str, blamed: str, allowed: List[str]) -> None:
    reading = Reading(Complaint(text), text)
    assert reading.blamed == blamed
    assert reading.allowed(["a", "b", "c", "reasoning_effort"]) == allowed or sorted(
        allowed
    ) == reading.allowed(["a", "b", "c", "reasoning_effort"])


def test_what_was_tried_is_not_tried_again() -> None:
    profile = Profile()
    body = sent({**HI, "reasoning": {"effort": "high"}}, profile)
    complaints = find_complaints({"error": {"message": "reasoning_effort 'high' is not supported"}})
    tried: List[Tuple[str, str]] = []
    while diagnose(complaints, body, profile, tried):
        tried += names(diagnose(complaints, body, profile, tried))
    assert tried == [("thinking", "another level"), ("thinking", "no keys")]


# ---- Forms
@pytest.mark.parametrize(
    "form, request_, cure, expected",
    [
        ("thinking", {"reasoning": {"effort": "low"}}, {}, True),
        ("thinking", {"reasoning": {"effort": None}}, {}, False),
        ("thinking", {"tools": [1]}, {"thinking": {"with_tools": False}}, True),
        ("history", TURN, {}, True),
        ("history", HI, {}, False),
        ("system", {"instructions": "x"}, {}, True),
        ("system", CODEX, {}, True),
        ("system", HI, {}, False),
        ("messages", HI, {}, True),
        (
            "format",
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": ["text", "json_schema"]},
            True,
        ),
        (
            "format",
            {"text": {"format": {"type": "json_schema"}}},
            {"response_format": ["text", "json_schema"]},
            False,
        ),
        ("format", {}, {}, False),
        (
            "tool_choice",
            {"tool_choice": {"type": "function"}},
            {"tool_choice": {"any": ["auto", "required"]}},
            True,
        ),
        ("tool_choice", {"tool_choice": "required"}, {"tool_choice": {"any": ["auto", "required"]}}, False),
        ("tool_choice", {}, {}, False),
        ("schema", {"tools": [1]}, {"drop_keywords": {"tools": ["x"]}}, True),
        ("schema", {"tools": [1]}, {"drop_keywords": {"response_format": ["x"]}}, False),
        ("schema", {"text": {"format": {"type": "json_schema"}}}, {"response_schema": []}, True),
        ("limit", {"max_output_tokens": 9}, {"max_tokens": {"most": 5}}, True),
        ("limit", {"max_output_tokens": 5}, {"max_tokens": {"most": 5}}, False),
        ("limit", {"max_output_tokens": 5}, {"max_tokens": {"field": "max_tokens"}}, True),
        ("limit", {}, {}, False),
        ("fields", {"temperature": 1}, {"drop": ["temperature"]}, True),
        ("fields", {"safety_identifier": "x"}, {"drop": ["user"]}, True),
        ("fields", {"temperature": 1}, {"drop": ["seed", "reasoning.summary"]}, False),
        ("fields", {}, {"include_usage": False}, True),
        ("whole", {"stream": True}, {}, False),
        ("content", HI, {}, False),
    ],
)
def test_which_requests_a_cure_concerns(form: str, request_: Json, cure: Json, expected: bool) -> None:
    assert has_form(form, request_, request_.get("input", ()), cure) is expected


def test_every_subject_has_a_form() -> None:
    from rproxy.providers.subjects import FIELDS, SUBJECTS, TOOL

    assert {subject.form for subject in (*SUBJECTS, FIELDS, TOOL)} <= set(FORMS)
