"""The kind of a failure, by a table of statuses, codes and words.

The first matching row of ``ROWS`` names the kind.  Numbers and words in the rows come from the providers'
documentation and from recorded answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Container, List, NamedTuple, Optional, Pattern, Sequence, Tuple

from .complaints import Complaint
from .provider_errors import MAX_SCANNED


class Finding(NamedTuple):
    """What a provider's error means.

    ``kind``: a key of :data:`rproxy.providers.provider_errors.FAILURE_KINDS`.
    """

    kind: str
    status: Optional[int]  # of the answer; None inside a stream
    text: str  # the provider's own words; may be empty
    code: Optional[str] = None  # the provider's code, unless it is a number
    param: Optional[str] = None
    retry_after: Optional[float] = None  # seconds
    shape: str = "json"  # json, text, html, empty
    location: str = ""  # the target of a redirect
    complaints: Tuple[Complaint, ...] = ()  # about the form of the request


@dataclass
class ErrorFacts:
    """Everything that the rows can test."""

    status: Optional[int] = None
    codes: List[str] = field(default_factory=list)  # codes, types, reasons of all levels
    texts: List[str] = field(default_factory=list)  # messages of all levels, the outermost first
    statuses: List[int] = field(default_factory=list)  # HTTP statuses inside the object
    delays: List[float] = field(default_factory=list)  # seconds
    code: Optional[str] = None
    param: Optional[str] = None
    details: str = ""  # the whole object as JSON
    shape: str = "json"
    raw: Any = None  # the whole object, or the whole text


# ---- Patterns
def _any(*parts: str) -> Pattern[str]:
    return re.compile("|".join(parts), re.I)


def _codes(words: str) -> Pattern[str]:
    return re.compile("^(?:{})$".format("|".join(words.split())), re.I)


# Their subject must be the prompt or the context: "max_tokens 70000 exceeds the limit of 65536" is about a
# wrong parameter, and a shorter history would not help.
CONTEXT = _any(
    r"maximum (?:context|prompt|input|model|sequence) length",
    r"context[_ ](?:length|window)[_ ]exceeded",
    r"(?:exceed|overflow|surpass|longer than|larger than|greater than|beyond)\w{0,3}"
    r"[^\n]{0,60}\bcontext[ _-]?(?:window|length|size|limit)\b",
    r"context[ _-](?:window|length|size|limit) (?:is |was |has been )?exceed",
    r"(?:prompt|input|messages|request|conversation|history)(?: \w{1,20})?(?: is| are| was)? "
    r"too (?:long|large|big)\b",
    r"\b(?:prompt|input|request|messages?)[ _(-]+(?:tokens?|length|\d+)"
    r"(?:(?!max_\w{0,12}tokens|output|completion)[^\n]){0,60}"
    r"(?:exceed|longer than|greater than|larger than|more than)",
    r"prompt exceeds max",
    r"exceeded model token limit",
    r"range of input length should be",
    r"max_seq_len",
    r"n_keep \(?\d+\)? ?>=? ?n_ctx",
    r"reduce the length of (?:the |your )?(?:messages|prompt|input)",
    r"too many (?:total |input |prompt )?tokens",
    r"tokens of image and text exceed",
    r"token limit exceeded",
    r"requested token count exceeds",
    r"request body too large for",
    r"`inputs` (?:tokens \+|must have less than)",
    r"exceed\w{0,3} (?:the )?(?:max(?:imum)? )?(?:message|prompt|input) tokens",
    r"(?:上下文|输入|提示词)[^。\n]{0,16}(?:超出|超过|超长|过长)",
    r"(?:超出|超过)[^。\n]{0,20}(?:上下文|输入长度)",
)
CONTEXT_CODES = _codes(
    "context_length_exceeded context_window_exceeded model_context_window_exceeded exceed_context_size_error "
    "3051 1261 model_max_prompt_tokens_exceeded prompt_too_long request_too_large tokens_limit_reached"
)
LIMITS = _any(
    r"rate[ _-]?limit",
    r"throttl",
    r"\bquota\b",
    r"per[ -](?:minute|second|hour|day)\b",
    r"too many requests",
    r"please wait",
)
QUOTA_CODES = _codes(
    r"insufficient_(?:quota|balance|credits?|funds|user_quota) exceeded_current_quota_error "
    r"AccountOverdueError 402 1113 13(?:0[489]|1\d|2[01]) base_resp:(?:1008|2056) billing_\w+ "
    r"payment_required Arrearage AllocationQuota\.FreeTierOnly InsufficientBalance SetLimitExceeded "
    r"usage_limit_reached CreditsError pre_consume_token_quota_failed QuotaExceeded quota_exceeded "
    r"\w*BillOverdue"
)
# These are unambiguous, whatever else the text says ...
QUOTA = _any(
    r"insufficient[ _](?:\w{1,20} )?(?:balance|credits?|funds|quota)",
    r"(?:balance|credits?|funds)(?: \w{1,20}){0,2} "
    r"(?:insufficient|exhausted|not enough|depleted|too low)",
    r"not enough (?:balance|credits?|funds)",
    r"requires more credits",
    r"out of credits",
    r"overdue (?:balance|payment|bill)",
    r"in arrears",
    r"used all (?:available|your) credits",
    r"spending limit",
    r"usage limit (?:reached|exceeded)",
    r"(?:reached|hit|exceeded) your (?:\w{1,20} )?usage limit",
    r"free-models-per-day",
    r"PerDay",
    r"payment required",
    r"余额不足",
    r"欠费",
    r"额度已?(?:不足|用尽|用完)",
    r"使用上限",
)
# ... these also occur in the advice at the end of a rate limit's message.
QUOTA_WEAK = _any(
    r"billing",
    r"exceeded your (?:current )?(?:\w{1,20} )?quota",
    r"quota (?:is |has been |was )?(?:exceeded|exhausted)",
    r"monthly (?:limit|quota)",
    r"recharge",
    r"top up",
    r"payment method",
    r"充值",
)
KEY_CODES = _codes(
    r"(?:invalid|incorrect)_api_key invalid_authentication_error authentication_error AuthenticationError "
    r"401 100[0-4] base_resp:(?:1004|2049) InvalidApiKey API_KEY_INVALID UNAUTHENTICATED"
)
KEY = _any(
    r"(?:invalid|incorrect|wrong|missing|unknown|expired) (?:\w{1,20} )?"
    r"(?:api[ _-]?key|access token|auth\w{0,12} token|bearer token)",
    r"api[ _-]?key[^\n]{0,40}(?:not valid|invalid|incorrect|expired|missing|revoked|required)",
    r"invalid authentication",
    r"authentication (?:fails|failed|error|required)",
    r"no auth credentials",
    r"身份验证失败",
)
LIMIT_CODES = _codes(r"130[23] base_resp:(?:1002|1039|1041)")
RATE_CODES = _codes(
    r"429 \w*rate_?limit\w* too_many_requests TooManyRequests\w* Throttling\S* RequestBurstTooFast"
)
RATE = _any(
    r"rate[ _-]?limit",
    r"too many requests",
    r"max(?:imum)? concurren",
    r"concurrency limit",
    r"throttl",
    r"too many tokens, please wait",
    r"(?:requests|tokens) per (?:minute|second|hour|day)",
    r"请求过于频繁",
    r"并发",
)
COMES_BACK = _any(r"retry in \d")
MODEL_CODES = _codes(
    r"model_not_(?:found|available|exist) ModelNotFound\w* ModelNotOpen model_decommissioned invalid_model "
    r"InvalidEndpointOrModel\S* 1211"
)
MODEL = _any(
    r"\bmodel\b(?:(?!tool|message|param|image|file|field)[^\n]){0,100}?"
    r"(?:does not exist|not exist|not found|is not available|has been (?:decommissioned|retired)|"
    r"end of life)",
    r"not a valid model",
    r"(?:unknown|invalid|no such) model\b(?! \w{0,20}(?:param|input|output))",
    r"模型不存在",
    r"does not have access to (?:the )?model",
)
FILTER_CODES = _codes(
    r"content_filter content_policy_violation data_?inspection_?failed 1301 base_resp:102[67] "
    r"ResponsibleAIPolicyViolation \w*SensitiveContentDetected\S*"
)
OVERLOAD_CODES = _codes(
    r"1305 503 529 \w*overloaded\w* service_?unavailable\w* unavailable(?:_error)? slow_down "
    r"insufficient_system_resource"
)
OVERLOAD = re.compile(
    r"(?i:overloaded|\bbusy\b|(?:at|over) capacity|insufficient_system_resource|temporarily unavailable|"
    r"loading model|访问量过大|繁忙)|DEGRADED|ResourceExhausted"
)
VALIDATION = _any(r"\bvalidation errors?:\s*\{", r"'loc': \('body'")
# A 5xx with such a text is a refusal, by a server's own validation or by the model's template.
REFUSED = _any(
    r"\bjinja|\btemplate|raise_exception|validation|pydantic|['\"]loc['\"]|deseriali[sz]e|unmarshal|schema|invalid_request",
    r"(?:Value|Type|Key|Attribute|NotImplemented|UnsupportedParams|BadRequest|InvalidParameter)Error|Invalid(?:Parameter|Request)",
    r"unexpected keyword|unsupported|not supported|does(?:n't| not) support|unknown "
    r"(?:field|format|name|parameter|variant)",
    r"\bmust (?:be|alternate|start|end|have|not)\b|expected .{1,60} to be|not (?:allowed|permitted)|invalid "
    r"(?:value|type|role)",
)
BAD_CODES = _codes(
    r"invalid_request\w* bad_?request\w* invalid_?(?:parameter|argument|value)\S* "
    r"unsupported_(?:parameter|value) base_resp:2013 121[04] validation_error"
)


class Row(NamedTuple):
    """A rule; all conditions that are not None or False must hold."""

    kind: str
    statuses: Optional[Container[Optional[int]]] = None  # contains the status
    codes: Optional[Pattern[str]] = None  # matches one of the codes
    text: Optional[Pattern[str]] = None  # is found in the texts
    unless: Optional[Pattern[str]] = None  # is not found in the texts
    details: Optional[Pattern[str]] = None  # is found in the whole object
    empty: bool = False  # the answer has no body


# ---- Rows
# The status inside a stream is None, unless the error object names one.
REQUEST = (400, 404, 410, 422, 500, None)  # statuses with which providers report an invalid request
LIMITED = (400, 403, 429, 500, None)
ACCOUNT = (400, 401, 403, 429, None)
FAILING = (400, 500, 502, 504, None)

ROWS: Sequence[Row] = (
    Row("redirect", range(300, 400)),
    Row("context", (413,)),  # with a rate limit's code, too: the request is too large for the plan (Groq)
    Row("quota", (402,)),
    Row("quota", codes=QUOTA_CODES),
    # a QuotaFailure of Gemini; the same object has the delay of a retry
    Row("quota", (429,), details=re.compile("PerDay")),
    Row("rate", (429, None), details=re.compile("RetryInfo|PerMinute")),
    Row("tool_call", codes=_codes("tool_use_failed")),
    Row("context", (400,), empty=True),  # Cerebras
    Row("context", codes=CONTEXT_CODES),
    Row("filter", (400, 422, 451, None), codes=FILTER_CODES),
    Row("overload", codes=_codes("1305")),  # a 429 although no limit of the account was reached (Zhipu)
    Row("quota", text=QUOTA),
    Row("rate", codes=LIMIT_CODES),
    Row("rate", LIMITED, codes=RATE_CODES),
    Row("rate", LIMITED, text=RATE),
    Row("rate", (429,), text=COMES_BACK),
    Row("quota", ACCOUNT, text=QUOTA_WEAK),
    Row("rate", (429,)),
    Row("key", (401,)),
    Row("context", (*REQUEST, 503), text=CONTEXT, unless=LIMITS),
    Row("key", (*REQUEST, 403), codes=KEY_CODES),
    Row("key", (*REQUEST, 403), text=KEY),
    Row("model", (404,)),
    Row("model", (*REQUEST, 403), codes=MODEL_CODES),
    Row("model", REQUEST, text=MODEL),
    Row("forbidden", (403,)),
    Row("request", (500,), text=VALIDATION),  # llama-cpp-python
    Row("gateway", (529,)),  # Anthropic and Cloudflare; a 503 would be retried too soon
    Row("overload", (503,)),
    Row("overload", FAILING, codes=OVERLOAD_CODES),
    Row("overload", FAILING, text=OVERLOAD),
    Row("timeout", (408, 504, 599)),
    Row("request", range(400, 500)),
    Row("internal", (500,)),
    Row("request", (None,), codes=BAD_CODES),
)


def classify(facts: ErrorFacts) -> str:
    """The kind of the first matching row; without one, ``gateway``."""
    text = "" if facts.shape == "html" else "\n".join(facts.texts[:12])[:MAX_SCANNED]
    return next((row.kind for row in ROWS if _matches(row, facts, text)), "gateway")


def _matches(row: Row, facts: ErrorFacts, text: str) -> bool:
    return (
        (row.statuses is None or facts.status in row.statuses)
        and (row.codes is None or any(row.codes.match(code) for code in facts.codes))
        and (row.text is None or row.text.search(text) is not None)
        and (row.unless is None or row.unless.search(text) is None)
        and (row.details is None or row.details.search(facts.details) is not None)
        and (not row.empty or facts.shape == "empty")
    )
