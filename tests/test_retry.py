"""What follows a failed attempt: the rules as a table, the loop that obeys them, and a provider that asks for
too much.
"""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path
from typing import List, Optional, Sequence

import pytest
from api import site
from scripted import error, say

from rproxy.config.schema import Provider
from rproxy.errors import ApiError
from rproxy.providers.provider_errors import Refusal, provider_error
from rproxy.service.retry import MAX_PAUSE, PAUSES, RetryLoop, RetryState, after_failure, may_cure
from rproxy.upstream.failover import RESERVE, Failover
from rproxy.upstream.os_errors import connect_error

A, B = (Provider(base_url=f"http://{name}:1", name=name) for name in "ab")


def failure(status: int, body: bytes = b"", **headers: str) -> ApiError:
    return provider_error(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, body, "p"
    )


BUSY = failure(503)
BUSY_FOR = {seconds: failure(503, retry_after=str(seconds)) for seconds in (0, 3, 10, 11, 60)}
POOR = failure(402, b'{"error":{"message":"Insufficient Balance"}}')
RATE = failure(429)
RATE_FOR = {seconds: failure(429, retry_after=str(seconds)) for seconds in (1, 60)}
WRONG = failure(400, b'{"error":{"message":"nonsense"}}')
UNREADABLE_CALL = failure(400, b'{"error":{"message":"Failed to call a function.","code":"tool_use_failed"}}')
UNTRUSTED = ApiError(502, "its TLS certificate is not trusted", type="server_error")

START = RetryState((A,), retries_left=2, cures_left=2)
PAIR = START._replace(line=(A, B))

# state, error, the client has seen something, another form was found -> the next state (None: the end), the
# pause
TABLE = [
    # a new round, after a pause
    (START, BUSY, False, False, RetryState((), 1, 2, 1), PAUSES[0]),
    (RetryState((A,), 1, 2, 1), BUSY, False, False, RetryState((), 0, 2, 2), PAUSES[1]),
    (RetryState((A,), 5, 2, 7), BUSY, False, False, RetryState((), 4, 2, 8), PAUSES[1]),
    (RetryState((A,), 0, 2, 2), BUSY, False, False, None, 0),
    # the pause that the provider asks for, if it is short
    (START, BUSY_FOR[0], False, False, RetryState((), 1, 2, 1), 0),
    (START, BUSY_FOR[3], False, False, RetryState((), 1, 2, 1, 3.0), 3),
    (START, BUSY_FOR[10], False, False, RetryState((), 1, 2, 1, 10.0), 10),
    (START, BUSY_FOR[11], False, False, None, 0),
    (START, BUSY_FOR[60], False, False, None, 0),
    (START, RATE_FOR[1], False, False, RetryState((), 1, 2, 1, 1.0), 1),
    (START, RATE_FOR[60], False, False, None, 0),
    (START, RATE, False, False, RetryState((), 1, 2, 1, 5.0), 5),  # what clients are told, too
    # ... and short in all
    (RetryState((A,), 1, 2, 1, 7.0), BUSY_FOR[3], False, False, RetryState((), 0, 2, 2, 10.0), 3),
    (RetryState((A,), 1, 2, 1, 8.0), BUSY_FOR[3], False, False, None, 0),
    (RetryState((A,), 1, 2, 1, 10.0), BUSY, False, False, RetryState((), 0, 2, 2, 10.0), PAUSES[1]),
    # another provider, at once
    (PAIR, BUSY, False, False, PAIR._replace(line=(B,)), 0),
    (PAIR, BUSY_FOR[60], False, False, PAIR._replace(line=(B,)), 0),
    (PAIR, POOR, False, False, PAIR._replace(line=(B,)), 0),
    (PAIR, RATE, False, False, PAIR._replace(line=(B,)), 0),
    (PAIR, UNTRUSTED, False, False, PAIR._replace(line=(B,)), 0),
    # what a pause does not heal
    (START, POOR, False, False, None, 0),
    (START, UNTRUSTED, False, False, None, 0),
    (PAIR, WRONG, False, False, None, 0),
    # bad luck, once
    (START, UNREADABLE_CALL, False, False, RetryState((), 1, 2, 1), PAUSES[0]),
    (RetryState((A,), 1, 2, 1), UNREADABLE_CALL, False, False, None, 0),
    # another form of the request, at once and at the same provider
    (START, WRONG, False, True, START._replace(cures_left=1), 0),
    (PAIR, WRONG, False, True, PAIR._replace(cures_left=1), 0),
    # nothing, once the client has seen something
    (PAIR, BUSY, True, False, None, 0),
    (PAIR, WRONG, True, True, None, 0),
]


@pytest.mark.parametrize("state, error, visible, cured, expected, pause", TABLE)
def test_what_follows(
    state: RetryState,
    error: ApiError,
    visible: bool,
    cured: bool,
    expected: Optional[RetryState],
    pause: float,
) -> None:
    retry = after_failure(state, error, visible=visible, cured=cured)
    assert (retry and retry.state) == expected
    assert retry is None or retry.pause == pause


def test_only_pauses_that_the_provider_did_not_name_are_spread() -> None:
    spread = after_failure(START, BUSY, spread=1.2)
    named = after_failure(START, BUSY_FOR[3], spread=1.2)
    assert spread is not None and spread.pause == pytest.approx(PAUSES[0] * 1.2)
    assert named is not None and named.pause == 3


@pytest.mark.parametrize(
    "cures_left, visible, expected", [(1, False, True), (0, False, False), (1, True, False)]
)
def test_when_another_form_is_looked_for(cures_left: int, visible: bool, expected: bool) -> None:
    assert may_cure(START._replace(cures_left=cures_left), visible) is expected


@pytest.mark.parametrize(
    "error, expected",
    [
        (WRONG, True),
        (failure(422, b'{"detail":[{"loc":["body","seed"],"msg":"Extra inputs are not permitted"}]}'), True),
        (failure(500, b'{"error":"Jinja Exception: System message must be at the beginning."}'), True),
        (failure(502, b"1 validation error for ChatCompletionRequest"), True),
        (failure(500, b'{"error":"something broke"}'), False),
        (failure(503, b'{"error":"unsupported load, busy"}'), False),
        (failure(400, b""), False),
        (failure(400, b"<html><body>unsupported</body></html>"), False),
        (BUSY, False),
        (POOR, False),
    ],
)
def test_which_failures_are_about_the_form_of_the_request(error: ApiError, expected: bool) -> None:
    assert isinstance(error, Refusal) is expected


class Played:
    """A request whose attempts end as the test says: with an error, or well (None)."""

    def __init__(self, providers: Sequence[Provider], *endings: Optional[ApiError], cures: int = 0) -> None:
        self.providers = providers
        self.visible = False
        self.asked: List[str] = []
        self._endings = list(endings)
        self._cures = cures

    def conversation_key(self) -> str:
        return ""

    async def attempt(self, provider: Provider) -> None:
        self.asked.append(provider.name)
        ending = self._endings.pop(0)
        if ending is not None:
            raise ending

    async def reason(self, error: ApiError) -> str:
        return error.message

    async def cure(self, refusal: Refusal) -> bool:
        self._cures -= 1
        return self._cures >= 0


async def test_the_loop_goes_through_providers_and_rounds() -> None:
    failover = Failover(lambda: 0.0)
    request = Played([A, B], WRONG, POOR, BUSY_FOR[0], BUSY, None, cures=1)
    loop = RetryLoop(failover, retries=2)
    await loop.run(request)
    assert request.asked == ["a", "a", "b", "b", "a"]  # b is up again before the poor one
    assert loop.state.retries == 1 and loop.state.cures_left == 1
    assert [p.name for p in failover.order([A, B], "")] == ["a", "b"]


async def test_a_lack_of_our_own_does_not_let_a_provider_cool_down() -> None:
    failover = Failover(lambda: 0.0)
    error = connect_error(OSError(errno.EMFILE, "Too many open files"), "a")
    await RetryLoop(failover, retries=1).run(Played([A, B], error, None))
    assert not failover.cools_down(A)
    await RetryLoop(failover).run(Played([A, B], connect_error(ConnectionRefusedError(), "a"), None))
    assert failover.cools_down(A)


async def test_the_last_error_comes_out_and_the_budget_of_all_turns_bounds_the_rounds() -> None:
    failover = Failover(lambda: 0.0)
    for _ in range(int(RESERVE) - 1):
        assert failover.may_repeat()
    request = Played([A], BUSY_FOR[0], BUSY_FOR[0], BUSY_FOR[3])
    with pytest.raises(ApiError) as raised:
        await RetryLoop(failover, retries=5).run(request)
    assert raised.value is BUSY_FOR[0] and request.asked == ["a", "a"]


async def test_a_cancelled_attempt_says_nothing_about_the_provider() -> None:
    now = [0.0]
    failover = Failover(lambda: now[0])
    failover.failed(A, BUSY)
    now[0] = 100.0  # the next one is a probe

    class Endless(Played):
        async def attempt(self, provider: Provider) -> None:
            await asyncio.Event().wait()

    task = asyncio.ensure_future(RetryLoop(failover).run(Endless([A, B])))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert [p.name for p in failover.order([A, B], "")] == ["a", "b"]  # another probe may follow


@pytest.mark.parametrize("status", [429, 503])
async def test_a_provider_that_asks_for_a_minute_is_not_waited_for(tmp_path: Path, status: int) -> None:
    assert MAX_PAUSE == 10
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[error(status, "lab is busy", {"Retry-After": "60"})], [say("Too late.")]]
        before = time.monotonic()
        answer = await asyncio.wait_for(
            api("POST", "/responses", {"model": "gpt-5.5", "input": "hi"}, expect=status), 9
        )
        assert "lab is busy" in answer["message"] and api.headers["retry-after"] == "60"
        assert time.monotonic() - before < 5 and len(provider.requests) == 1


@pytest.mark.parametrize("status, stream", [(429, False), (429, True), (503, False)])
async def test_a_provider_that_asks_for_a_second_is_waited_for(
    tmp_path: Path, status: int, stream: bool
) -> None:
    async with site(tmp_path) as (provider, api, _):
        provider.turns += [[error(status, "lab is busy", {"Retry-After": "1"})], [say("Here.")]]
        before = time.monotonic()
        status, answer = await api.raw(
            "POST", "/responses", {"model": "gpt-5.5", "input": "hi", "stream": stream}
        )
        assert status == 200 and b"Here." in answer
        assert time.monotonic() - before >= 1 and len(provider.requests) == 2
