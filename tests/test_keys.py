"""Named keys: how they are written, which models they see, and their limits."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional, Tuple

import pytest
from rawserver import until
from running_server import RunningServer, error_of, running_server
from tornado.httpclient import HTTPResponse
from tornado.httputil import HTTPHeaders

from rproxy.config.load import parse_config
from rproxy.config.schema import Config, Key
from rproxy.errors import ApiError, ConfigError
from rproxy.server.access import Access
from rproxy.service.catalog import Catalog
from rproxy.service.quota import Quotas
from rproxy.telemetry.records import TurnRecord

Json = Dict[str, Any]
SECRET = "sk-anns-key-0123456789"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
HELLO: Json = {"model": "m", "input": "hello"}
CODEX = {"originator": "codex_cli_rs"}
NOON = datetime(2026, 11, 30, 12, tzinfo=timezone.utc).timestamp()


def parse(keys: str, models: str = "[{model: m, provider: {base_url: http://h:1}}]") -> Config:
    text = f"server: {{auth: {{keys: {keys}}}}}\nmodels: {models}\n"
    return parse_config(text.encode(), "c.yaml", {"ANN": SECRET})


def key_of(keys: str) -> Key:
    return parse(keys).server.auth.keys[0]


# ---- How they are written
def test_keys_have_a_name_and_limits() -> None:
    limits = "models: ['gpt-*', fast], turns_per_minute: 3, tokens_per_day: 9"
    auth = parse(f"[$ANN, {{name: bob, key_sha256: '{'AB' * 32}', {limits}}}, b]").server.auth
    assert auth.enabled and [key.name for key in auth.keys] == ["key1", "bob", "key3"]
    assert auth.keys[1] == Key("bob", "", "ab" * 32, ("gpt-*", "fast"), 3, 9, None)
    assert SECRET not in repr(auth)
    assert parse("[$ANN]").secrets == (SECRET,)


def test_a_key_and_its_digest_have_the_same_owner() -> None:
    plain, named = key_of("[$ANN]"), key_of(f"[{{name: ann, key_sha256: '{DIGEST}'}}]")
    assert plain.owner == named.owner == DIGEST[:32]
    for key in (plain, named):
        found = Access([key], (), ()).key(HTTPHeaders({"Authorization": "Bearer " + SECRET}))
        assert found is key


@pytest.mark.parametrize(
    "written, moment",
    [
        ("2026-12-31", "2027-01-01T00:00"),
        ("20261231", "2027-01-01T00:00"),
        ("'2026-12-31T18:00'", "2026-12-31T18:00"),
        ("'2026-12-31 18:00:30.5Z'", "2026-12-31T18:00:30"),
        ("2026-12-31T18:00+01:00", "2026-12-31T17:00"),
        ("2026-12-31T18-0130", "2026-12-31T19:30"),
        ("2026-12-31T00:00", "2026-12-31T00:00"),
    ],
)
def test_expires_is_a_date_or_a_time(written: str, moment: str) -> None:
    expected = datetime.fromisoformat(moment).replace(tzinfo=timezone.utc).timestamp()
    key = key_of(f"[{{name: a, key: k, expires: {written}}}]")
    assert key.expires == expected
    headers = HTTPHeaders({"Authorization": "Bearer k"})
    assert Access([key], (), (), lambda: expected - 1).key(headers) is key
    with pytest.raises(ApiError) as caught:
        Access([key], (), (), lambda: expected).key(headers)
    assert caught.value.status == 401 and "'a' expired at " + moment[:10] in caught.value.message


@pytest.mark.parametrize(
    "keys, complaint",
    [
        ("[{name: a}]", "keys[0]: needs either 'key' or 'key_sha256'"),
        ("[{name: a, key: k, key_sha256: %s}]" % ("ab" * 32), "keys[0]: needs either"),
        ("[{key: k}]", "'name' is missing"),
        ("[{name: a, key_sha256: abc}]", "keys[0].key_sha256: must be the SHA-256 digest"),
        ("[{name: a, key: k, models: []}]", "keys[0].models: must have at least 1 entry"),
        ("[{name: a, key: k, turns_per_minute: 0}]", "keys[0].turns_per_minute: must be at least 1"),
        ("[{name: a, key: k, expires: soon}]", "keys[0].expires: must be a date or a time of ISO 8601"),
        ("[{name: a, key: k, expires: 2026-02-30}]", "keys[0].expires: is not a date"),
        ("[{name: a, key: k, expires: 2026-02-03T25:00}]", "keys[0].expires: is not a date"),
        ("[{name: a, key: k, model: m}]", "unknown key 'model'"),
        ('[{name: "a\\nb", key: k}]', "keys[0].name: must have at most 64 characters"),
        ("[{name: a, key: k}, {name: a, key: j}]", "keys[1]: the name 'a' is that of the entry in line 1"),
        ("[k, {name: a, key: k}]", "keys[1]: this key is that of the entry in line 1"),
        ("[{name: key2, key: k}, j]", "keys[1]: the name 'key2' is that of the entry"),
    ],
)
def test_keys_that_are_wrong(keys: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(keys)
    assert complaint in str(caught.value)


def test_a_plain_key_that_is_there_twice_counts_once() -> None:
    assert [key.name for key in parse("[k, k, j]").server.auth.keys] == ["key1", "key3"]


def test_keys_switch_auth_on_unless_it_is_off() -> None:
    text = "models: [{model: m, provider: {base_url: http://h:1}}]\nserver:\n  auth: {%s}\n"

    def auth(inside: str) -> Tuple[bool, Tuple[str, ...]]:
        found = parse_config((text % inside).encode(), "c.yaml", {})
        return found.server.auth.enabled, found.warnings

    assert auth("keys: [k]") == (True, ()) and auth("keys: []") == (False, ())
    assert auth("keys: [k], enabled: null") == (True, ())
    enabled, warnings = auth("keys: [k], enabled: false")
    assert not enabled and warnings[0].startswith("c.yaml:3:30: server.auth.enabled: is false")


def test_a_model_that_no_key_can_find_is_a_warning() -> None:
    assert parse("[{name: ann, key: k, models: [m, fast, 'g*']}]").warnings == (
        "c.yaml: server.auth.keys: 'ann' may use 'fast', but no model of that name is configured",
        "c.yaml: server.auth.keys: 'ann' may use 'g*', but no model of that name is configured",
    )
    assert (
        parse(
            "[{name: ann, key: k, models: [x]}]", '[{model: "*", provider: {base_url: "http://h"}}]'
        ).warnings
        == ()
    )


# ---- Which models they see
MODELS = """[{model: smart, provider: {base_url: "http://h:1"}}, {model: fast, provider: {base_url: "http://h:1"}},
    {model: "deepseek-*", provider: {base_url: "http://h:1"}}]"""


def seen(models: Tuple[str, ...], name: str, configured: str = MODELS) -> Optional[str]:
    """Which model answers a key that is limited to ``models``."""
    view = Catalog(parse("[k]", configured)).of(Key("a", "k", models=models))
    try:
        return view.find(name).model
    except ApiError as error:
        assert error.status == 404 and error.code == "model_not_found"
        shown = {m["id"] for m in view.body["data"]}
        for hidden in {"smart", "fast"} - shown - {name}:
            assert hidden not in error.message
        return None


@pytest.mark.parametrize(
    "models, name, answers",
    [
        (("fast",), "fast", "fast"),
        (("fast",), "smart", None),
        (("fast",), "deepseek-v4-pro", None),
        (("deepseek-v4-*",), "deepseek-v4-pro", "deepseek-*"),
        (("deepseek-v4-*",), "deepseek-r1", None),
        (("*",), "smart", "smart"),
        (("fast",), "gpt-9", "fast"),  # what stands in for unknown names is allowed itself
        (("fast",), "codex-auto-review", "fast"),
        (("gpt-*",), "gpt-9", None),
        (("nothing",), "gpt-9", None),
        ((), "gpt-9", "smart"),
    ],
)
def test_a_key_has_its_own_models(models: Tuple[str, ...], name: str, answers: Optional[str]) -> None:
    assert seen(models, name) == answers


def test_no_glob_and_no_stand_in_leads_around_the_limits_of_a_key() -> None:
    models = 'model: "gpt-5.5", provider: &p {base_url: "http://h:1"}', "model: fast, provider: *p"
    everything = f'[{{{models[0]}}}, {{{models[1]}}}, {{model: "*", provider: *p}}]'
    assert seen(("fast",), "gpt-5.5", everything) is None  # it is configured, and not for this key
    assert seen(("fast",), "gpt-9", everything) == "fast"
    assert seen(("fast",), "anything", everything) is None
    assert seen(("fast", "any*"), "anything", everything) == "*"


def test_every_view_has_its_own_etag() -> None:
    catalog = Catalog(parse("[k]", MODELS))
    views = [catalog.of(key) for key in (None, Key("a", "k"), Key("b", "j", models=("fast",)))]
    assert views[0].etag == views[1].etag != views[2].etag
    assert (
        [m["slug"] for m in views[2].body["models"]] == ["fast"] == [m["id"] for m in views[2].body["data"]]
    )


# ---- Limits
class Now:
    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> float:
        return self.time


def refusal(quotas: Quotas, key: Key) -> ApiError:
    with pytest.raises(ApiError) as caught:
        quotas.begin_turn(key)
    assert (caught.value.status, caught.value.type) == (429, "rate_limit_error")
    return caught.value


def used(given: Optional[int], taken: Optional[int], upstream_status: Optional[int] = 200) -> TurnRecord:
    """The record of a turn with these tokens of input and output."""
    return TurnRecord(
        "req_1", "ann", "", "m", "m", "lab", "sse", "completed", upstream_status=upstream_status,
        input_tokens=given, output_tokens=taken,
    )  # fmt: skip


def test_the_minute_slides() -> None:
    now = Now()
    quotas, key = Quotas(now), Key("ann", "k", turns_per_minute=2)
    quotas.begin_turn(key)
    now.time += 20
    quotas.begin_turn(key)
    now.time += 10
    error = refusal(quotas, key)
    assert "'ann'" in error.message and "2 turns" in error.message and error.message.endswith("again in 30s.")
    assert error.headers() == {"Retry-After": "30"}
    now.time += 29.9
    refusal(quotas, key)
    now.time += 0.2  # the first turn is more than a minute old, and refused ones do not count
    quotas.begin_turn(key)
    refusal(quotas, key)
    now.time -= 3600  # somebody sets the clock
    quotas.begin_turn(key)


def test_the_day_is_that_of_utc() -> None:
    now = Now()
    quotas, key = Quotas(now), Key("ann", "k", tokens_per_day=100)
    quotas.begin_turn(key)
    quotas.end_turn(key, used(60, 39), {})
    quotas.begin_turn(key)
    quotas.end_turn(key, used(1, 0), {})
    error = refusal(quotas, key)
    assert "'ann'" in error.message and "100 tokens a day" in error.message
    assert error.message.endswith("It resets at 2026-12-01 00:00 UTC.")
    assert error.headers() == {"Retry-After": "43200"} and error.answer_headers == {"x-should-retry": "false"}
    now.time += 43_199
    refusal(quotas, key)
    now.time += 1
    quotas.begin_turn(key)


def test_counters_go_by_name_and_owner_and_survive_other_limits() -> None:
    quotas = Quotas(Now())
    key, wider = Key("ann", "k", tokens_per_day=10), Key("ann", "k", tokens_per_day=20)
    quotas.end_turn(key, used(10, 5), {})
    refusal(quotas, key)
    quotas.begin_turn(wider)
    quotas.begin_turn(Key("bob", "k", tokens_per_day=10))
    quotas.begin_turn(Key("ann", "another", tokens_per_day=10))
    quotas.begin_turn(None)
    quotas.end_turn(None, used(5, 5), {})


def test_input_that_no_provider_has_counted_is_estimated() -> None:
    sent = {"messages": [{"role": "user", "content": "word " * 100}]}
    for record, body, limit in (
        (used(None, None), sent, 100),  # the client has left before the first token
        (used(None, 7), sent, 100),
        (used(None, 7), {"input": "word " * 100}, 100),  # a request of another form
        (used(3, 97), sent, 100),
    ):
        quotas, key = Quotas(Now()), Key("ann", "k", tokens_per_day=limit)
        quotas.end_turn(key, record, body)
        refusal(quotas, key)
    for record in (used(None, None, None), used(None, None, 429), used(1, 98)):
        quotas.end_turn(Key("bob", "k"), record, sent)
        quotas.begin_turn(Key("bob", "k", tokens_per_day=100))


async def test_a_large_one_is_estimated_while_others_go_on() -> None:
    quotas, key = Quotas(Now()), Key("ann", "k", tokens_per_day=100)
    sent = {"messages": [{"role": "user", "content": "word " * 1000}]}
    quotas.end_turn(key, replace(used(None, None), request_bytes=1 << 20), sent)
    quotas.begin_turn(key)  # it is not known yet
    await until(lambda: quotas._used_by(key).tokens)
    refusal(quotas, key)


# ---- The server
def limited(**limits: Any) -> Dict[str, List[Any]]:
    return {"keys": [Key("ann", "k", **limits), "other"]}


def bearer(key: str = "k", **more: str) -> Dict[str, str]:
    return {"Authorization": "Bearer " + key, **more}


async def post(e: RunningServer, path: str, body: Json, key: str = "k", **headers: str) -> HTTPResponse:
    return await e.fetch(path, body, headers=bearer(key, **headers))


CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


async def test_no_endpoint_is_a_back_door_to_other_models() -> None:
    async with running_server(**limited(models=("org/*",))) as e:
        for path, body in (
            ("/v1/responses", HELLO),
            ("/v1/responses", {**HELLO, "stream": True}),
            ("/v1/responses", {**HELLO, "background": True}),
            ("/v1/responses", {**HELLO, "generate": False}),
            ("/v1/responses/compact", HELLO),
            ("/v1/responses/input_tokens", HELLO),
            ("/v1/chat/completions", CHAT),
        ):
            answer = await post(e, path, body)
            assert answer.code == 404 and error_of(answer)["code"] == "model_not_found", path
            assert "org/m" in error_of(answer)["message"]
        assert (await e.fetch("/v1/models/m", headers=bearer())).code == 404
        assert e.provider.requests == []
        # The model that it may use, also where none is named.
        counted = await post(e, "/v1/responses/input_tokens", {"input": "hello"})
        assert counted.code == 200
        stand_in = await post(e, "/v1/responses", {**HELLO, "model": "gpt-9"})
        assert stand_in.code == 200 and e.provider.requests[-1]["model"] == "org/m"
        chat = await post(e, "/v1/chat/completions", {**CHAT, "model": "org/m", "models": ["m"]})
        assert chat.code == 400 and error_of(chat)["param"] == "models"
        assert (await post(e, "/v1/chat/completions", {**CHAT, "models": ["m"]}, "other")).code == 200


async def test_each_key_has_its_list_of_models_and_its_etag() -> None:
    async with running_server(**limited(models=("org/*",))) as e:
        mine = await e.fetch("/v1/models", headers=bearer(**CODEX))
        whole = await e.fetch("/v1/models", headers=bearer("other", **CODEX))
        assert [m["id"] for m in json.loads(mine.body)["data"]] == ["org/m"]
        assert [m["id"] for m in json.loads(whole.body)["data"]] == ["m", "org/m"]
        for answer in (mine, whole):
            assert answer.headers["ETag"] == answer.headers["x-models-etag"]
        assert mine.headers["ETag"] != whole.headers["ETag"]


async def test_a_websocket_has_the_limits_of_its_key() -> None:
    async with running_server(**limited(models=("org/*",), turns_per_minute=1)) as e:
        ws = await e.ws(headers=bearer())
        for body, status, code in (
            (HELLO, 404, "model_not_found"),
            ({**HELLO, "model": "org/m", "generate": False}, None, None),
            ({**HELLO, "model": "org/m"}, None, None),
            ({**HELLO, "model": "org/m", "generate": False}, None, None),  # warm-ups do not count
            ({**HELLO, "model": "org/m"}, 429, "rate_limit_exceeded"),
        ):
            await ws.write_message(json.dumps({"type": "response.create", **body}))
            event = await last_event(ws)
            assert event.get("status") == status, event
            if status is not None:
                assert event["error"]["code"] == code
        assert event["error"]["type"] == "rate_limit_error" and int(event["headers"]["retry-after"]) > 50


async def last_event(ws: Any) -> Json:
    while True:
        event: Json = json.loads(str(await asyncio.wait_for(ws.read_message(), 10)))
        if event["type"] in ("error", "response.completed", "response.failed"):
            return event


async def test_a_key_that_expires_ends_the_turns_of_its_websocket() -> None:
    now = Now()
    async with running_server(keys=[Key("ann", "k", expires=NOON + 10)]) as e:
        e.state.access = Access(e.state.config.server.auth.keys, (), (), now)
        ws = await e.ws(headers=bearer())
        await ws.write_message(json.dumps({"type": "response.create", **HELLO}))
        assert (await last_event(ws))["type"] == "response.completed"
        now.time += 10
        await ws.write_message(json.dumps({"type": "response.create", **HELLO}))
        event = await last_event(ws)
        assert event["status"] == 401 and "expired" in event["error"]["message"]
        assert len(e.provider.requests) == 1


@pytest.mark.parametrize(
    "path, body",
    [
        ("/v1/responses", HELLO),
        ("/v1/responses", {**HELLO, "stream": True}),
        ("/v1/responses", {**HELLO, "background": True}),
        ("/v1/responses/compact", HELLO),
        ("/v1/chat/completions", CHAT),
    ],
)
async def test_every_turn_counts(path: str, body: Json) -> None:
    async with running_server(**limited(turns_per_minute=1)) as e:
        assert (await post(e, path, body)).code == 200
        refused = await post(e, path, body)
        assert refused.code == 429 and 50 < int(refused.headers["Retry-After"]) <= 60
        assert "turns_per_minute" in error_of(refused)["message"]
        assert (await post(e, path, body, "other")).code == 200
        assert (await e.fetch("/v1/models", headers=bearer())).code == 200
        assert (await post(e, "/v1/responses/input_tokens", HELLO)).code == 200


@pytest.mark.parametrize(
    "path, body",
    [
        ("/v1/responses", HELLO),
        ("/v1/responses", {**HELLO, "stream": True}),
        ("/v1/responses/compact", HELLO),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
    ],
)
async def test_the_tokens_of_every_turn_count(path: str, body: Json) -> None:
    async with running_server(**limited(tokens_per_day=1)) as e:
        assert (await post(e, "/v1/responses", {**HELLO, "generate": False})).code == 200
        assert (await post(e, path, body)).code == 200
        for other in (path, "/v1/responses", "/v1/chat/completions"):
            refused = await post(e, other, CHAT if "chat" in other else HELLO)
            assert refused.code == 429 and refused.headers["x-should-retry"] == "false"
            assert "tokens_per_day" in error_of(refused)["message"]
        assert (await post(e, "/v1/responses", {**HELLO, "generate": False})).code == 200
        assert len(e.provider.requests) == 1


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_a_client_that_leaves_has_used_tokens(path: str) -> None:
    messages = {"messages": [{"role": "user", "content": "begin"}]}
    body = json.dumps({"model": "m", "stream": True, **(messages if "chat" in path else {"input": "begin"})})
    async with running_server(**limited(tokens_per_day=1)) as e:
        client = await e.raw()
        client.send(
            f"POST {path} HTTP/1.1", "Host: x", "Authorization: Bearer k", f"Content-Length: {len(body)}",
            body=body.encode(),
        )  # fmt: skip
        assert (await client.head())[0] == 200
        client.cut()
        await until(lambda: not e.state.turns)
        assert (await post(e, "/v1/responses", HELLO)).code == 429


async def test_what_is_refused_for_another_reason_does_not_count() -> None:
    async with running_server(**limited(turns_per_minute=1)) as e:
        for wrong in ({"model": "m"}, {**HELLO, "model": "none"}, {**HELLO, "input": 5}):
            assert (await post(e, "/v1/responses", wrong)).code in (400, 404)
        assert (await post(e, "/v1/responses", {**HELLO, "generate": False})).code == 200
        assert (await post(e, "/v1/responses", HELLO)).code == 200


async def test_codex_waits_for_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Codex loses the text of an HTTP 429; in a stream it shows the text, waits, and tries again."""
    caplog.set_level("INFO", "rproxy.refusal")
    async with running_server(**limited(turns_per_minute=1)) as e:
        assert (await post(e, "/v1/responses", HELLO)).code == 200
        told = await post(e, "/v1/responses", {**HELLO, "stream": True}, **CODEX)
        assert told.code == 200 and b'"code":"rate_limit_exceeded"' in told.body
        assert b"turns_per_minute). Please try again in " in told.body and b"response.created" in told.body
        assert len(e.provider.requests) == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert "key=ann" in line and "status=429" in line and "turns_per_minute" in line


async def test_codex_does_not_wait_for_a_day(caplog: pytest.LogCaptureFixture) -> None:
    """Codex would wait in silence for as long as Retry-After says."""
    caplog.set_level("INFO", "rproxy.refusal")
    async with running_server(**limited(tokens_per_day=1)) as e:
        assert (await post(e, "/v1/responses", HELLO)).code == 200
        for stream in (False, True):
            refused = await post(e, "/v1/responses", {**HELLO, "stream": stream}, **CODEX)
            assert refused.code == 400 and error_of(refused)["code"] == "invalid_prompt"
            assert "tokens_per_day" in error_of(refused)["message"] and "Retry-After" not in refused.headers
        await until(lambda: len(caplog.records) == 2)
        ws = await e.ws(headers=bearer(**CODEX))
        await ws.write_message(json.dumps({"type": "response.create", **HELLO}))
        assert (await last_event(ws))["status"] == 400
        await until(lambda: len(caplog.records) == 3)
    assert all("status=429" in record.getMessage() for record in caplog.records)
