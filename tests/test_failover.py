"""Several providers for a model, several keys for a provider: who is asked, who is left alone, and who
answered.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import List

import pytest
from scripted import KEY, ScriptedProvider, error, free_port, running, say, served
from tornado.httpclient import AsyncHTTPClient

from rproxy.config.schema import Provider
from rproxy.errors import ApiError
from rproxy.json_codec import encode_json
from rproxy.providers.provider_errors import provider_error
from rproxy.upstream.failover import FIRST_PAUSE, MAX_PAUSE, QUOTA_PAUSE, Failover

BROKEN = provider_error(503, {}, b"busy", "x")
POOR = provider_error(402, {}, b'{"error":{"message":"Insufficient Balance"}}', "x")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def provider(name: str, weight: object = None) -> Provider:
    return Provider(base_url=f"http://{name}:1", name=name, weight=weight)  # type: ignore[arg-type]


def names(providers: List[Provider]) -> str:
    return "".join(p.name for p in providers)


def test_without_weights_the_order_is_that_of_the_file() -> None:
    assert {names(Failover(Clock()).order([provider("a"), provider("b")], str(i))) for i in range(20)} == {
        "ab"
    }


def test_weights_share_conversations_and_each_stays_where_it_began() -> None:
    failover, providers = Failover(Clock()), [provider("a", 3), provider("b", 1)]
    first = {str(i): names(failover.order(providers, str(i)))[0] for i in range(400)}
    assert 240 < Counter(first.values())["a"] < 360
    assert first == {str(i): names(failover.order(list(reversed(providers)), str(i)))[0] for i in range(400)}


def test_the_keys_of_one_provider_share_turns_but_do_not_overtake_another_provider() -> None:
    providers = [provider("a")] + [replace(provider(name, 1), group="b") for name in ("b", "c")]
    assert {names(Failover(Clock()).order(providers, str(i))) for i in range(40)} == {"abc", "acb"}


def test_a_failure_sends_a_provider_to_the_end_and_one_probe_brings_it_back() -> None:
    clock = Clock()
    failover, providers = Failover(clock), [provider("a"), provider("b")]
    failover.failed(providers[0], BROKEN)
    assert names(failover.order(providers, "")) == "ba"
    clock.now += FIRST_PAUSE
    assert names(failover.order(providers, "")) == "ab"  # the probe
    assert names(failover.order(providers, "")) == "ba"  # the others still pass it by
    failover.failed(providers[0], BROKEN)
    clock.now += FIRST_PAUSE
    assert names(failover.order(providers, "")) == "ba"  # the pause has doubled
    clock.now += FIRST_PAUSE
    assert names(failover.order(providers, "")) == "ab"
    failover.succeeded(providers[0])
    assert names(failover.order(providers, "")) == names(failover.order(providers, "")) == "ab"


def test_a_provider_that_is_down_for_days_rests_no_longer_than_the_longest_pause() -> None:
    clock, down, other = Clock(), provider("a"), provider("b")
    failover = Failover(clock)
    for _ in range(2000):
        failover.failed(down, BROKEN)
    assert names(failover.order([down, other], "")) == "ba"
    clock.now = MAX_PAUSE
    assert names(failover.order([down, other], "")) == "ab"


def test_a_probe_that_neither_fails_nor_succeeds_does_not_block_the_next_one() -> None:
    clock = Clock()
    failover, providers = Failover(clock), [provider("a"), provider("b")]
    failover.failed(providers[0], BROKEN)
    clock.now += FIRST_PAUSE
    failover.order(providers, "")
    failover.released(providers[0])
    failover.released(providers[1])
    assert names(failover.order(providers, "")) == "ab"


def test_an_empty_purse_rests_longer() -> None:
    clock = Clock()
    failover, providers = Failover(clock), [provider("a"), provider("b")]
    failover.failed(providers[0], POOR)
    clock.now += QUOTA_PAUSE - 1
    assert names(failover.order(providers, "")) == "ba"


@pytest.mark.parametrize(
    "failure,elsewhere",
    [
        (BROKEN, True),
        (POOR, True),
        (provider_error(429, {}, b"", "x"), True),
        (provider_error(401, {}, b"", "x"), True),
        (ApiError(400, "wrong"), False),
    ],
)
def test_which_failures_are_worth_another_provider(failure: ApiError, elsewhere: bool) -> None:
    assert failure.elsewhere is elsewhere


CONFIG = """
server: {{listen_addr: "127.0.0.1:{port}", retries: 0}}
models:
  - model: m
    provider:
      - {{name: first, base_url: "{base_url}", api_key: $SCRIPTED_KEY}}
      - {{name: second, base_url: "{second}", api_keys: [wrong-key, $SCRIPTED_KEY]}}
"""


@pytest.mark.timeout(seconds=30)
async def test_the_second_provider_answers_when_the_first_is_poor_and_then_keeps_the_turn() -> None:
    first, second = ScriptedProvider(strict=False), ScriptedProvider(strict=False)
    first.turns += [[error(402, "Insufficient Balance")]]
    second.turns += [[say("From the second.")], [say("Again.")]]
    client = AsyncHTTPClient(force_instance=True)
    async with served(first.base_url, config=CONFIG.replace("{second}", second.base_url)) as base_url:
        for expected in ("From the second.", "Again."):
            body = encode_json({"model": "m", "input": "hi"})
            answer = await client.fetch(base_url + "/responses", method="POST", body=body, raise_error=False)
            assert expected.encode() in answer.body
            assert answer.headers["x-rproxy-provider"].startswith("second#")
    assert len(first.requests) == 1
    client.close()
    await first.close()
    await second.close()


@pytest.mark.timeout(seconds=30)
async def test_nobody_listens_at_the_first(tmp_path: Path) -> None:
    second = ScriptedProvider(strict=False)
    second.turns += [[say("Here.")]]
    client = AsyncHTTPClient(force_instance=True)
    config = CONFIG.replace("{second}", second.base_url).replace("wrong-key, ", "")
    async with running(tmp_path, f"http://127.0.0.1:{free_port()}", config=config) as rproxy:
        body = encode_json({"model": "m", "input": "hi", "stream": True})
        answer = await client.fetch(rproxy.base_url + "/responses", method="POST", body=body)
        assert b"Here." in answer.body and answer.headers["x-rproxy-provider"] == "second#1"
        assert "second#1" in rproxy.log.read_text() and KEY.encode() not in answer.body
    client.close()
    await second.close()


def test_repetitions_have_a_budget_that_time_and_successes_refill() -> None:
    clock = Clock()
    failover = Failover(clock)
    assert [failover.may_repeat() for _ in range(25)] == [True] * 20 + [False] * 5
    clock.now += 25  # seconds
    assert [failover.may_repeat() for _ in range(4)] == [True, True, False, False]
    for _ in range(4):
        failover.succeeded(provider("a"))
    assert [failover.may_repeat(), failover.may_repeat()] == [True, False]
    clock.now += 10_000
    assert sum(failover.may_repeat() for _ in range(100)) == 20


async def test_a_call_that_the_server_could_not_read_is_asked_for_once_more() -> None:
    upstream = ScriptedProvider()
    failed = [
        error(400, "Failed to call a function.", code="tool_use_failed", failed_generation="<function=ls>")
    ]
    upstream.turns += [failed, [say("Well.")], failed, failed, [say("Too late.")]]
    async with served(upstream.base_url) as base_url:
        client = AsyncHTTPClient(force_instance=True)
        statuses = []
        for _ in range(2):
            answer = await client.fetch(
                base_url + "/responses",
                method="POST",
                headers={"Content-Type": "application/json"},
                body=encode_json({"model": "gpt-5.5", "input": "go"}),
                raise_error=False,
            )
            statuses.append(answer.code)
        client.close()
    await upstream.close()
    assert statuses == [200, 400] and len(upstream.requests) == 4
