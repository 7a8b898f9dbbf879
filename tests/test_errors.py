"""Errors: recorded failures of providers, whole families of wordings, and the forms that clients get."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from email.utils import formatdate
from pathlib import Path
from re import search
from typing import Any, Dict, List, Optional

import pytest
from anything import json_values
from hypothesis import given
from hypothesis import strategies as st

from rproxy import errors
from rproxy.errors import ApiError
from rproxy.providers.failure_text import delay_in_text, duration
from rproxy.providers.provider_errors import broken, provider_error, stream_error
from rproxy.service.codex_errors import for_codex
from rproxy.upstream.os_errors import connect_error
from rproxy.upstream.transport import TransportError

FIXTURES = Path(__file__).parent / "fixtures" / "errors"
CASES = sorted(FIXTURES.glob("*.expect.json"))
NOW = 1790000000.0
# code -> the other things that must then hold
TYPES = {
    "context_length_exceeded": ("invalid_request_error", "context_length_exceeded"),
    "insufficient_quota": ("insufficient_quota", "insufficient_quota"),
    "invalid_api_key": ("authentication_error", "invalid_api_key"),
    "rate_limit_exceeded": ("rate_limit_error", "rate_limit_exceeded"),
    "model_not_found": ("invalid_request_error", "model_not_found"),
    "permission_denied": ("permission_error", "invalid_prompt"),
    "server_error": ("server_error", "server_error"),
}


def answer(status: int, body: Any, headers: Optional[Dict[str, str]] = None, **more: Any) -> ApiError:
    raw = (
        body
        if isinstance(body, bytes)
        else json.dumps(body).encode()
        if not isinstance(body, str)
        else body.encode()
    )
    return provider_error(status, headers or {}, raw, "acme", **more)


def said(message: str, **more: Any) -> Dict[str, Any]:
    return {"error": {"message": message, **more}}


# ---- recorded answers
@pytest.mark.parametrize("path", CASES, ids=lambda p: p.name.split(".")[0])
def test_recorded_answer(path: Path) -> None:
    case = json.loads(path.read_text())
    want = case["expect_http"]
    error = provider_error(
        case["http_status"], case["headers"], (path.parent / case["file"]).read_bytes(), "acme", now=NOW
    )
    assert (error.status, error.code) == (want["http_status"], want["code"])
    assert (error.type, error.stream_code) == TYPES.get(
        want["code"], ("invalid_request_error", "invalid_prompt")
    )
    assert " ".join(want.get("message_contains", "").split()) in " ".join(error.message.split())
    assert error.message.startswith(f"acme ({case['http_status']}): ")
    low, high = (
        want["retry_after"] if isinstance(want.get("retry_after"), list) else [want.get("retry_after")] * 2
    )
    after = error.headers().get("Retry-After")
    assert (after is None) if low is None else (after is not None and low <= int(after) <= high)
    if error.code == "rate_limit_exceeded":
        assert f"try again in {low or 0}" in error.failed_message().lower() or high != low


# ---- families
OVERFLOWS = [
    "This model's maximum context length is 131072 tokens. However, you requested 140021 tokens (139021 in "
    "the messages, 1000 in the completion). Please reduce the length of the messages or completion.",
    "prompt is too long: 213462 tokens > 200000 maximum",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "Please reduce the length of the messages or completion.",
    "This endpoint's maximum context length is 32768 tokens. However, you requested about 40000 tokens.",
    "the request exceeds the available context size, try increasing it",
    "The number of tokens to keep from the initial prompt is greater than the context length.",
    "Cannot truncate prompt with n_keep (15028) >= n_ctx (7424)",
    "prompt too long; exceeded max context length by 4 tokens",
    "Input is too long for requested model.",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "The input (40000 tokens) is longer than the model's context length (32768 tokens).",
    "Requested token count exceeds the model's maximum context length of 131072 tokens.",
    "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
    "`inputs` must have less than 4095 tokens. Given: 5000",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens "
    "and 20 `max_new_tokens`",
    "Total tokens of image and text exceed max message tokens",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081",
    "The prompt is too long: 140000, model maximum context length: 131071",
    "Requested tokens (5000) exceed context window of 2048",
    "Prompt length 5000 is greater than max_seq_len 4096",
    "Request body too large for gpt-4o model. Max size: 8000 tokens.",
    "Context window exceeded",
    "context_length_exceeded",
    "Invalid request: conversation is too long",
    "Prompt exceeds max length",
    "输入内容超过模型最大长度限制",
    "请求超出模型上下文长度",
]
NOT_OVERFLOWS = [
    "max_tokens 70000 exceeds the limit of 65536",
    "max_tokens is too large: 50000. This model supports at most 16384 completion tokens",
    "Invalid input: max_tokens 70000 exceeds the limit of 65536",
    "Range of max_tokens should be [1, 8192]",
    "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the "
    "`context_window` for this model",
    "Invalid 'tools': array too long. Expected an array with maximum length 128, but got 200",
    "The input image exceeds the maximum size of 20MB",
    "Invalid 'messages[3].name': string too long. Expected a string with maximum length 64",
    "tool name is too long: prompts",
    "Input should be 'none', 'low' or 'high'",
    "n exceeds the limit of 4",
]
QUOTAS = [
    (
        429,
        said(
            "You exceeded your current quota, please check your plan and billing details.",
            type="insufficient_quota",
            code="insufficient_quota",
        ),
    ),
    (403, said("Your team has either used all available credits or reached its monthly spending limit.")),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}),
    (
        401,
        {
            "type": "error",
            "error": {"type": "CreditsError", "message": "Insufficient balance. Manage your billing here"},
        },
    ),
    (
        400,
        {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."},
    ),
    (403, said("The free tier of the model has been exhausted.", code="AllocationQuota.FreeTierOnly")),
    (429, said("余额不足或无可用资源包,请充值。", code="1113")),
    (429, said("Usage limit reached for 5 hour.", code="1308")),
    (429, said("Weekly limit", code=1310)),
    (403, said("用户额度不足", code="insufficient_user_quota")),
    (402, ""),
    (402, "Payment Required"),
    (429, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    (
        429,
        [
            {
                "error": {
                    "code": 429,
                    "status": "RESOURCE_EXHAUSTED",
                    "message": "You exceeded your current quota.",
                    "details": [
                        {
                            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                            "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
                        },
                        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "31s"},
                    ],
                }
            }
        ],
    ),
    (
        429,
        said(
            "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per "
            "day",
            code=429,
        ),
    ),
]
RATES = [
    (
        429,
        said(
            "Rate limit reached for m on tokens per min (TPM): Limit 30000. Please try again in 11.054s. You "
            "can increase your rate limit by adding a payment method at https://x.example/account/billing.",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        11,
    ),
    (
        429,
        said(
            "Requests have exceeded token rate limit of your S0 pricing tier. Please retry after 6 seconds.",
            code="429",
        ),
        6,
    ),
    (
        429,
        said("Rate limit reached on tokens per day (TPD): Limit 100000. Please try again in 7m12.5s."),
        433,
    ),
    (
        429,
        [
            {
                "error": {
                    "code": 429,
                    "status": "RESOURCE_EXHAUSTED",
                    "message": "You exceeded your current quota, please check your plan and billing details.",
                    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "14.2s"}],
                }
            }
        ],
        15,
    ),
    (429, said("You exceeded your current quota. Please retry in 14.5s."), 15),
    (429, said("Resource has been exhausted (e.g. check quota)."), 5),
    (429, said("并发数过高", code="1302"), 5),
    (429, "", 5),
    (429, "<html><h1>429 Too Many Requests</h1></html>", 5),
    (429, "slow down", 5),
    (429, {"error": "Too many requests"}, 5),
    (403, said("API rate limit exceeded"), 5),
    (400, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, 5),
    (500, said("litellm.RateLimitError: provider said no"), 5),
    (429, said("x", metadata={"headers": {"Retry-After": "9"}}), 9),
    (429, said("x", retry_after=3.5), 4),
    (429, {"retry_after_ms": 7000000}, 3600),
    (429, {"message": "Try again in 350 milliseconds"}, 1),
    (
        429,
        said(
            "Request too large on tokens per min (TPM): Limit 10000, Requested 12000. "
            "Visit /account/rate-limits"
        ),
        5,
    ),
]
OTHERS = [
    (401, "", "invalid_api_key"),
    (401, "<html>denied</html>", "invalid_api_key"),
    (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid. Please pass a valid API key.",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"reason": "API_KEY_INVALID"}],
                }
            }
        ],
        "invalid_api_key",
    ),
    (400, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, "invalid_api_key"),
    (400, said("身份验证失败", code="1000"), "invalid_api_key"),
    (
        400,
        said("Model Not Exist", type="invalid_request_error", code="invalid_request_error"),
        "model_not_found",
    ),
    (400, said("The model `gpt-9.5` does not exist"), "model_not_found"),
    (400, said("x is not a valid model ID", code=400), "model_not_found"),
    (400, said("模型不存在", code="1211"), "model_not_found"),
    (403, said("Project does not have access to model m", code="model_not_found"), "model_not_found"),
    (404, "404 page not found", "model_not_found"),
    (404, "", "model_not_found"),
    (400, said("gone", code="model_decommissioned"), "model_not_found"),
    (400, said("The model called a tool that was not found", code="bad_tool"), "bad_tool"),
    (405, "Method Not Allowed", "invalid_request_error"),
    (409, {"detail": "conflict"}, "invalid_request_error"),
    (415, "", "invalid_request_error"),
    (422, {"detail": "nope"}, "invalid_request_error"),
    (400, said("no", code=20015), "invalid_request_error"),
    (400, said("no", code="3230"), "invalid_request_error"),
    (400, said("no", code="server_error"), "invalid_request_error"),
    (400, {"errors": [{"code": 7003, "message": "Could not route"}]}, "invalid_request_error"),
    (400, "{}", "invalid_request_error"),
    (400, "   ", "context_length_exceeded"),
    (413, "<html>Too Large</html>", "context_length_exceeded"),
    (
        400,
        said("filtered", code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}),
        "content_filter",
    ),
    (
        400,
        said("Input data may contain inappropriate content.", code="data_inspection_failed"),
        "content_filter",
    ),
    (400, said("bad call", code="tool_use_failed", failed_generation="{}"), "tool_use_failed"),
    (403, "<html>no</html>", "permission_denied"),
    (
        403,
        {
            "error": {
                "code": 403,
                "message": "Flagged",
                "metadata": {"reasons": ["violence"], "flagged_input": "..."},
            }
        },
        "permission_denied",
    ),
    (400, said("Function id: DEGRADED function cannot be invoked"), "server_error"),
    (429, said("该模型当前访问量过大", code="1305"), "server_error"),
    (500, said("The engine is currently overloaded"), "server_error"),
    (520, "", "server_error"),
    (599, "", "server_error"),
    (302, "", "server_error"),
    (500, said("This model's maximum context length is 4096 tokens"), "context_length_exceeded"),
    (204, "", "server_error"),
]


@pytest.mark.parametrize("text", OVERFLOWS)
def test_overflow(text: str) -> None:
    for status in (400, 422, 500):
        error = answer(status, said(text, type="invalid_request_error"))
        assert (error.status, error.code, error.stream_code) == (
            400,
            "context_length_exceeded",
            "context_length_exceeded",
        ), status
    assert answer(400, text).code == stream_error(text, "acme").stream_code == "context_length_exceeded"


@pytest.mark.parametrize("text", NOT_OVERFLOWS)
def test_no_overflow(text: str) -> None:
    assert answer(400, said(text)).code == "invalid_request_error"


@pytest.mark.parametrize("status,body", QUOTAS)
def test_quota(status: int, body: Any) -> None:
    error = answer(status, body, {"Retry-After": "30"})
    assert (error.status, error.code, error.type, error.headers()) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
        {},
    )


@pytest.mark.parametrize("status,body,after", RATES)
def test_rate(status: int, body: Any, after: int) -> None:
    error = answer(status, body)
    assert (error.status, error.code, error.headers()) == (
        429,
        "rate_limit_exceeded",
        {"Retry-After": str(after)},
    )


@pytest.mark.parametrize("status,body,code", OTHERS)
def test_other(status: int, body: Any, code: str) -> None:
    error = answer(status, body)
    assert error.code == code
    assert (error.type, error.stream_code) == TYPES.get(code, ("invalid_request_error", "invalid_prompt"))


@pytest.mark.parametrize(
    "status,told",
    [
        (500, 500),
        (501, 502),
        (502, 502),
        (503, 503),
        (504, 504),
        (520, 502),
        (524, 502),
        (529, 502),
        (599, 504),
        (408, 504),
    ],
)
def test_server_errors_keep_their_status_where_clients_know_it(status: int, told: int) -> None:
    error = answer(status, "<html><title>x</title></html>", {"Retry-After": "3"})
    assert (error.status, error.code, error.retryable, error.headers()) == (
        told,
        "server_error",
        True,
        {"Retry-After": "3"},
    )


# ---- delays
@pytest.mark.parametrize(
    "headers,after",
    [
        ({"retry-after-ms": "1800"}, "2"),
        ({"Retry-After": "7"}, "7"),
        ({"RETRY-AFTER": "0"}, "1"),
        ({"Retry-After": "99999"}, "3600"),
        ({"Retry-After": "soon"}, "5"),
        ({"Retry-After": "nan"}, "5"),
        ({"Retry-After": "-3"}, "5"),
        ({"Retry-After": "14s"}, "14"),
        ({"Retry-After": formatdate(NOW + 30, usegmt=True)}, "30"),
        ({"Retry-After": formatdate(NOW - 30, usegmt=True)}, "1"),
        ({"Retry-After": formatdate(50, usegmt=True), "Date": formatdate(30, usegmt=True)}, "20"),
        ({"Retry-After": "Wed, 99 Foo 2026"}, "5"),
    ],
)
def test_retry_after(headers: Dict[str, str], after: str) -> None:
    assert answer(429, "", headers, now=NOW).headers() == {"Retry-After": after}


def test_a_date_without_any_clock_is_one_second() -> None:
    assert answer(429, "", {"Retry-After": formatdate(NOW, usegmt=True)}).headers() == {"Retry-After": "1"}


@pytest.mark.parametrize(
    "text,seconds",
    [
        ("14s", 14.0),
        ("7m12.5s", 432.5),
        ("1h 2m", 3720.0),
        ("350 ms", 0.35),
        ("2", 2.0),
        ("2026-11-22", None),
        ("", None),
    ],
)
def test_duration(text: str, seconds: Optional[float]) -> None:
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_delay_in_text() -> None:
    assert delay_in_text("Please wait for 20 seconds before you go on") == 20
    assert delay_in_text("please retry shortly") is None


# ---- messages
def test_inner_message_of_a_provider_behind_the_provider() -> None:
    raw = json.dumps({"error": {"message": "inner words", "code": "unsupported_value"}})
    error = answer(
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": raw, "provider_name": "Deep"},
            }
        },
    )
    assert error.message == "acme (400): Provider returned error; inner words; (served by Deep)"
    assert error.code == "unsupported_value"


def test_json_inside_strings() -> None:
    inner = json.dumps(said("deep inside", code="insufficient_quota"))
    for body in (
        said(inner),
        {"message": inner},
        {"error": inner},
        json.dumps(inner),
        "event: error\ndata: " + inner,
        "data: " + inner,
    ):
        error = answer(400, body)
        assert (error.code, "deep inside" in error.message, "{" in error.message) == (
            "insufficient_quota",
            True,
            False,
        ), body


def test_web_page_becomes_text() -> None:
    page = (
        "<!DOCTYPE html><html><head><style>p {x}</style><title>502 Bad &amp; Worse</title></head>"
        "<body><script>a<b</script><p>nginx</p></body></html>"
    )
    assert answer(502, page).message == "acme (502): 502 Bad & Worse nginx"
    assert answer(502, said(page)).message == "acme (502): 502 Bad & Worse nginx"


def test_next_steps() -> None:
    assert "check provider.api_key of acme in the config" in answer(401, said("no")).message
    lost = answer(404, "404 page not found", base_url="https://u:pw@h.example/api").message
    assert lost == (
        "acme (404): 404 page not found. Check base_url (https://h.example/api): it may need /v1 at its end."
    )
    assert answer(404, "x", base_url="https://h.example/v1").message.endswith(
        "Check base_url (https://h.example/v1)."
    )
    assert "https://h.example/new" in answer(301, "", {"location": "https://h.example/new"}).message
    assert answer(400, "").message.startswith("acme (400): Bad Request")
    assert answer(777, "").message == "acme (777): The provider failed without an error message"


def test_keys_are_masked() -> None:
    key = "sk-proj-abcdefgh12345678"
    body = said(f"Incorrect key {key} or Bearer abcdef123 or my-own-secret-of-acme or tiny7; latest")
    text = answer(401, body, secrets=["my-own-secret-of-acme", "tiny7", "t", "test", ""]).message
    assert (
        "abcdef" not in text
        and "my-own" not in text
        and "tiny7" not in text
        and text.count("***") == 4
        and "latest" in text
    )
    assert "tiny7" not in str(connect_error(OSError("cannot use tiny7"), "acme", secrets=["tiny7"]).message)
    assert "****abcd" in answer(401, said("Your api key: ****abcd is invalid")).message


def test_length_and_characters() -> None:
    error = answer(401, said("x" * 5000 + "\ud800", code="y"))
    assert len(error.message) <= 2000 and error.message.endswith("in the config.")
    text = answer(400, b'{"error":{"message":"a\\ud83d\\ude00b\\ud800c\\u0000\\u001bd"}}').message
    assert text == "acme (400): a\U0001f600b\ufffdc  d"
    json.dumps(text, ensure_ascii=False).encode()


# ---- inside a 200
STREAM = [
    (
        {
            "error": {
                "code": 429,
                "message": "Rate limit exceeded",
                "metadata": {"error_type": "rate_limit_exceeded"},
            },
            "choices": [],
        },
        "rate_limit_exceeded",
    ),
    (
        {
            "message": "Failed to call a function",
            "type": "invalid_request_error",
            "code": "tool_use_failed",
            "status_code": 400,
        },
        "invalid_prompt",
    ),
    (
        {"message": "The server had an error", "type": "server_error", "param": None, "code": None},
        "server_error",
    ),
    ({"code": 500, "message": "slot was lost", "type": "server_error"}, "server_error"),
    ({"message": "Rate limit reached, please slow down", "type": "rate_limit_error"}, "rate_limit_exceeded"),
    (
        {
            "message": "Provider returned error",
            "code": 429,
            "metadata": {"raw": "m is temporarily rate-limited upstream"},
        },
        "rate_limit_exceeded",
    ),
    (
        {
            "id": "05",
            "choices": None,
            "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"},
        },
        "insufficient_quota",
    ),
    (
        {"base_resp": {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit"}},
        "context_length_exceeded",
    ),
    ({"base_resp": {"status_code": 1039, "status_msg": "TPM"}}, "rate_limit_exceeded"),
    ({"error": {"code": "1113", "message": "x"}}, "insufficient_quota"),
    ({"detail": "Not Found"}, "server_error"),
    ("engine died", "server_error"),
    (None, "server_error"),
    (7, "server_error"),
    ({}, "server_error"),
    (
        {
            "object": "error",
            "message": "maximum context length is 4096 tokens",
            "type": "BadRequestError",
            "code": 400,
        },
        "context_length_exceeded",
    ),
    ({"message": "bad role", "type": "invalid_request_error"}, "invalid_prompt"),
    ({"code": "404", "message": "no such"}, "model_not_found"),
    ({"status": 500, "title": "Internal"}, "server_error"),
    ([{"error": {"code": 429, "message": "x"}}], "rate_limit_exceeded"),
    ({"code": "insufficient_system_resource"}, "server_error"),
    ({"code": 401, "message": "who"}, "invalid_api_key"),
]


@pytest.mark.parametrize("raw,code", STREAM)
def test_error_inside_a_stream(raw: Any, code: str) -> None:
    error = stream_error(raw, "acme")
    assert error.stream_code == code
    assert error.message.startswith("acme")
    assert code != "rate_limit_exceeded" or "try again in 5s" in error.failed_message()


def test_an_object_that_contains_itself() -> None:
    raw: Dict[str, Any] = {"message": "round and round", "code": 429}
    raw["error"] = raw
    assert stream_error(raw, "acme").message == "acme (429): round and round"


# ---- connecting
@pytest.mark.parametrize(
    "exc,status,words,retryable",
    [
        (ConnectionRefusedError(111, "Connection refused"), 502, "refused", True),
        (socket.gaierror(-2, "Name or service not known"), 502, "resolved", True),
        (ssl.SSLCertVerificationError("self signed"), 502, "not trusted", False),
        (ssl.SSLError("bad record"), 502, "TLS", True),
        (asyncio.TimeoutError(), 504, "in time", True),
        (
            TransportError("reset", "x", real_error=ConnectionResetError(104, "reset")),
            502,
            "cannot reach.*cut",
            True,
        ),
        (TransportError("protocol", "not HTTP"), 502, "failed .not HTTP", True),
        (OSError(113, "No route to host"), 502, "reached", True),
        (ValueError("odd"), 502, "odd", True),
    ],
)
def test_connect_error(exc: BaseException, status: int, words: str, retryable: bool) -> None:
    error = connect_error(exc, "acme", "https://user:pw@api.example:8443/v1")
    assert (error.status, error.code, error.retryable) == (status, "server_error", retryable)
    assert (
        search(words, error.message)
        and "acme" in error.message
        and "api.example:8443" in error.message
        and "pw" not in error.message
    )


# ---- the forms
# provider's status, body -> status, code, Retry-After, code of response.failed for Codex
CODEX = [
    (401, said("no key"), 400, "invalid_prompt", None, "invalid_prompt"),
    (403, said("no"), 400, "invalid_prompt", None, "invalid_prompt"),
    (402, said("Insufficient Balance"), 400, "invalid_prompt", None, "invalid_prompt"),
    (422, said("bad"), 400, "invalid_prompt", None, "invalid_prompt"),
    (429, said("quota", code="insufficient_quota"), 400, "invalid_prompt", None, "invalid_prompt"),
    (400, said("lab says no"), 400, "invalid_prompt", None, "invalid_prompt"),
    (400, said("f", code="content_filter"), 400, "invalid_prompt", None, "invalid_prompt"),
    (404, said("no model"), 404, "model_not_found", None, "model_not_found"),
    (413, "", 400, "context_length_exceeded", None, "context_length_exceeded"),
    (429, said("slow"), 429, "rate_limit_exceeded", "5", "rate_limit_exceeded"),
    (500, said("boom"), 503, "server_error", "2", "server_error"),
    (503, said("busy"), 503, "server_error", "2", "server_error"),
    (502, "", 503, "server_error", "2", "server_error"),
]


@pytest.mark.parametrize("status,body,told,code,after,stream_code", CODEX)
def test_codex_repeats_only_what_can_help(
    status: int, body: Any, told: int, code: str, after: Optional[str], stream_code: str
) -> None:
    plain = answer(status, body)
    error = for_codex(plain)
    assert (error.status, error.code, error.headers().get("Retry-After"), error.stream_code) == (
        told,
        code,
        after,
        stream_code,
    )
    assert error.message == plain.message and error.retryable == plain.retryable


def test_codex_keeps_delays_and_the_codes_it_recovers_from() -> None:
    assert for_codex(answer(429, "", {"Retry-After": "1"})).headers() == {"Retry-After": "1"}
    assert for_codex(answer(503, "", {"Retry-After": "9"})).headers() == {"Retry-After": "9"}
    lost = for_codex(errors.previous_response_not_found("resp_1"))
    assert (lost.status, lost.code, lost.param) == (
        400,
        "previous_response_not_found",
        "previous_response_id",
    )
    assert for_codex(errors.unauthorized("who are you")).status == 400


def test_body_headers_and_frames() -> None:
    error = ApiError(400, "no", param="input[0]")
    assert error.body() == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "input[0]", "code": None}
    }
    assert error.headers() == {} and error.failed_message() == "no" and str(error) == "no"
    assert errors.ws_error(error) == {
        "type": "error",
        "status": 400,
        "error": {
            "message": "no",
            "type": "invalid_request_error",
            "param": "input[0]",
            "code": "invalid_prompt",
        },
    }
    limit = ApiError(429, "slow", type="rate_limit_error", code="rate_limit_exceeded", retry_after=1.2)
    frame = errors.ws_error(limit, "lane")
    assert (frame["headers"], frame["stream_id"], frame["status"]) == ({"retry-after": "2"}, "lane", 429)
    assert limit.failed_message() == "slow. Please try again in 2s."
    assert errors.error_event(limit, 4) == {
        "type": "error",
        "sequence_number": 4,
        "code": "rate_limit_exceeded",
        "message": "slow",
        "param": None,
        "error": {
            "message": "slow",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        },
    }


def test_helpers() -> None:
    made: List[ApiError] = [
        errors.invalid("m", "p", "c"),
        errors.unauthorized("m"),
        errors.forbidden("m"),
        errors.not_found("m", "p"),
        errors.model_not_found("x", ["a"] * 11),
        errors.previous_response_not_found("r"),
        errors.too_large("m"),
        errors.unavailable("m"),
        errors.internal(),
        broken("acme", "it ended"),
    ]
    assert [e.status for e in made] == [400, 401, 403, 404, 404, 400, 413, 503, 500, 502]
    assert all(set(e.body()["error"]) == {"message", "type", "param", "code"} and e.message for e in made)
    assert errors.model_not_found("x").message == "The model 'x' is not configured."
    assert made[-1].retryable and made[-1].message == "acme: it ended"
    assert (
        ApiError(500, "x").stream_code == "server_error"
        and ApiError(429, "x").stream_code == "rate_limit_exceeded"
    )


class BrokenOff(ConnectionResetError):
    """A connection that broke behind the first bytes of an answer."""

    response = object()


def test_an_answer_that_breaks_off_does_not_send_the_user_to_the_configuration() -> None:
    error = connect_error(BrokenOff(104, "reset"), "acme", "https://api.example/v1")
    assert error.status == 502 and error.retryable and "broke off" in error.message
    assert not any(words in error.message for words in ("base_url", "cannot reach", "api.example"))


# ---- nothing raises
RAW = json_values(
    [None, True, 0, -7, 429, 1.5, float("nan"), float("inf"), "", "a", "error", "\ud800", "\0", "x" * 20],
    [
        "error",
        "message",
        "code",
        "type",
        "detail",
        "loc",
        "msg",
        "details",
        "metadata",
        "raw",
        "base_resp",
        "status",
        "title",
        "status_code",
        "status_msg",
        "retryDelay",
        "retry_after",
        "headers",
        "param",
        "provider_name",
        "errors",
        "",
        "x",
    ],
)
bodies = (
    st.binary(max_size=200)
    | RAW.map(lambda v: json.dumps(v).encode())
    | st.text(max_size=100).map(lambda t: t.encode("utf-8", "replace"))
)
header_maps = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after-ms", "Date", "Location", "X"]),
    st.text(max_size=40),
    max_size=4,
)


def check_form(error: ApiError) -> None:
    for told in (error, for_codex(error)):
        assert 400 <= told.status < 600 and 0 < len(told.message) <= 2000 and told.stream_code
        assert isinstance(told.code, str) and told.code
        json.dumps(told.body(), ensure_ascii=False).encode("utf-8")
        assert (told.status == 429 and told.code != "insufficient_quota") <= ("Retry-After" in told.headers())
        assert int(told.headers().get("Retry-After", "1")) in range(1, 3601)
        assert errors.ws_error(told)["error"]["code"] and errors.error_event(told, 0)["message"]
        told.failed_message()


@given(
    st.integers(-1, 1000),
    header_maps,
    bodies,
    st.text(max_size=10),
    st.lists(st.text(max_size=15), max_size=2),
)
def test_any_answer_gives_an_error(
    status: int, headers: Dict[str, str], body: bytes, url: str, secrets: List[str]
) -> None:
    check_form(provider_error(status, headers, body, "acme", url, NOW, secrets))


KEY_TEXTS = st.tuples(
    st.sampled_from(["", "sk-", "gsk_", "ark-"]), st.text("abcXYZ019", min_size=16, max_size=40)
).map("".join)


def echoes(key: str) -> Any:
    """JSON that has the key anywhere: as a word, within words, as a key, in JSON inside of a string."""
    texts = st.sampled_from(
        [key, f"Incorrect API key: {key}. Find yours", f"a{key}b", "Bearer " + key, f"<b>{key}</b>", "x"]
    )
    words = st.sampled_from(
        [
            "error",
            "message",
            "code",
            "type",
            "param",
            "detail",
            "metadata",
            "raw",
            "msg",
            "status",
            "loc",
            "title",
            "error_code",
            "base_resp",
            "status_msg",
            "provider_name",
            key,
        ]
    )
    values = st.recursive(
        texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
        max_leaves=8,
    )
    return values | values.map(json.dumps)


@given(st.data(), KEY_TEXTS, st.sampled_from([302, 400, 401, 403, 404, 422, 429, 500, 503, 529]))
def test_whatever_a_provider_echoes_the_key_is_not_told(data: st.DataObject, key: str, status: int) -> None:
    raw = data.draw(echoes(key))
    headers = {"Location": "https://elsewhere/?key=" + key, "Retry-After": key}
    body = data.draw(
        st.sampled_from([json.dumps(raw), f"<html><p>{key}</p></html>", "data: " + json.dumps(raw), key])
    ).encode()
    url = f"https://user:{key}@host/v1"
    told = [
        provider_error(status, headers, body, "acme", url, NOW, [key]),
        stream_error(raw, "acme", url, [key]),
        connect_error(OSError("no route for " + key), "acme", url, [key]),
    ]
    for error in told + [for_codex(error) for error in told]:
        said_to_client = [
            error.message,
            error.failed_message(),
            error.body(),
            error.headers(),
            error.stream_code,
            errors.ws_error(error),
        ]
        assert key not in json.dumps(said_to_client)


@given(RAW)
def test_any_object_gives_an_error(raw: Any) -> None:
    check_form(stream_error(raw, "acme"))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100000,
        b'{"a":' * 50000,
        b"exceed" * 50000,
        b"<script>" * 50000,
        b"<!--" * 50000,
        b"wait 1 " * 50000,
        b"model " * 50000,
        b"9" * 500000,
        b'{"error":{"message":"' + b"prompt 1 exceed" * 20000 + b'"}}',
        b"input is " * 50000,
        b"api key " * 50000,
        b'{"message":%s}' % (b'"\\ud800' * 3),
        b"<a " * 100000,
        b"retry in 1" + b"1" * 100000,
        b"quota " * 50000,
        b"sk-" * 100000,
        b"Bearer " * 50000,
        b'{"detail":[' + b'{"loc":["a"],"msg":"b"},' * 9999 + b"1]}",
    ],
)
def test_hostile_answers_are_read_quickly(body: bytes) -> None:
    began = time.process_time()
    for status in (400, 429, 500):
        check_form(provider_error(status, {}, body, "acme", secrets=["secret-secret-secret", "abcd"]))
    assert time.process_time() - began < 2.0


def test_of_a_large_error_the_beginning_is_read() -> None:
    deep: Any = "x"
    for _ in range(9):
        deep = {"a": deep}
    raw = {
        "message": "the prompt is too long, " * 100_000,
        "code": "context_length_exceeded",
        "more": [[{"x": 1}]] * 100_000,
        "deep": deep,
    }
    error = stream_error(raw, "acme")
    assert error.stream_code == "context_length_exceeded" and len(error.message) < 100_000
