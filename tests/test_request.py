"""A Responses request in, a chat request out."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import pytest
from chat_rules import differences, problems

from rproxy.convert.request import to_chat_request
from rproxy.convert.sse import encode_json
from rproxy.convert.validate import check_request, without_nulls
from rproxy.history import input_items
from rproxy.profiles import choose_profile

Json = Dict[str, Any]
CASES = sorted((Path(__file__).parent / "fixtures" / "providers").glob("req_*.json"))


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_the_recorded_cases_arrive_at_the_provider_as_they_should(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    config = case.get("config") or {}
    profile = choose_profile((config.get("provider") or {}).get("profile"), "http://127.0.0.1:1/v1", config.get("downstream_model", "up"))
    request = without_nulls({"model": "m", "input": case["responses_input"], **case.get("request", {})})
    check_request(request)
    conversion = to_chat_request(request, input_items(request), profile, downstream_model="up")
    body = json.loads(encode_json(conversion.chat_request(stream=True)))
    names: Dict[str, str] = {}
    assert differences(case["expect_messages"], body["messages"], names) == []
    assert differences({"$has": case.get("expect_request", {})}, body, names) == []
    assert problems(body, profile) == []
