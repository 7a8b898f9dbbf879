"""What clients see of a store that is locked, frozen or damaged: the whole application in front of it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Iterator, List, Tuple

import pytest
from anything import json_values
from api import Api, site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inputs import examples
from rawserver import until
from redis_server import RedisServer, redis_server
from scripted import gate, say

import rproxy.store.redis  # which copies REQUEST_LIMIT, before a test changes it
from rproxy.store import time_limit
from rproxy.store.redis import RedisStore
from rproxy.store.write_behind import WriteBehindStore
from rproxy.types import Json

pytestmark = pytest.mark.timeout(seconds=120)

RESPONSE, TALK = "resp_" + "1" * 32, "conv_" + "1" * 32
ITEM = "msg_" + "1" * 32 + "0000"
VALUES = json_values(
    [None, True, 0, -1.5, 10**400, "", "x", "queued", RESPONSE], ["id", "status", "type", "content"]
)
SHORT = 0.8  # seconds: the limit of requests in these tests
HI: Json = {"model": "gpt-5.5", "input": "Hi"}


class Outage:
    """A store of its own, which the test can stop and let go on."""

    section = ""

    def stop(self) -> None:
        raise NotImplementedError

    def go_on(self) -> None:
        raise NotImplementedError


class LockedFile(Outage):
    def __init__(self, path: Path) -> None:
        self._path = path
        self.section = f"store: {{{{kind: sqlite, path: '{path}'}}}}\n"

    def stop(self) -> None:
        self._db = sqlite3.connect(str(self._path), isolation_level=None)
        self._db.execute("BEGIN IMMEDIATE")

    def go_on(self) -> None:
        self._db.execute("COMMIT")
        self._db.close()


class FrozenRedis(Outage):
    def __init__(self, server: RedisServer) -> None:
        self.stop, self.go_on = server.freeze, server.thaw  # type: ignore[method-assign]
        self.section = f"store: {{{{kind: redis, url: '{server.url}'}}}}\n"


@pytest.fixture(params=["sqlite", "redis"])
def outage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Outage]:
    if request.param == "sqlite":
        yield with_short_limit(LockedFile(tmp_path / "r.db"), monkeypatch)
    else:
        with redis_server() as server:
            yield with_short_limit(FrozenRedis(server), monkeypatch)


def with_short_limit(outage: Outage, monkeypatch: pytest.MonkeyPatch) -> Outage:
    """Requests wait for ``SHORT`` while the store is stopped; before and after, the machine may be busy."""
    stop, go_on, usual = outage.stop, outage.go_on, time_limit.REQUEST_LIMIT

    def limited_stop() -> None:
        monkeypatch.setattr(time_limit, "REQUEST_LIMIT", SHORT)
        stop()

    def limited_go_on() -> None:
        monkeypatch.setattr(time_limit, "REQUEST_LIMIT", usual)
        go_on()

    outage.stop, outage.go_on = limited_stop, limited_go_on  # type: ignore[method-assign]
    return outage


async def seconds(work: Awaitable[Any]) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def test_a_store_that_stops(outage: Outage, tmp_path: Path, expect_log: Callable[..., Any]) -> None:
    """Whatever a client asks, and however many do, each answer comes in the time of one."""
    expect_log("did not answer in time|store is slow|Timeout")
    expect_log("not stored yet|was not stored", required=False)
    async with site(tmp_path, more=outage.section) as (provider, api, _):
        provider.aside = lambda body: [say("Hello.")]
        first = await api("POST", "/responses", HI)
        talk = "/conversations/" + (await api("POST", "/conversations", {"items": [HI_ITEM]}))["id"]
        item = talk + "/items/" + (await api("GET", talk + "/items"))["data"][0]["id"]
        frozen = isinstance(outage, FrozenRedis)
        usual = await seconds(asyncio.gather(*(api("POST", "/responses", HI) for _ in range(3 * 11))))
        outage.stop()
        reads = 503 if frozen else 200  # a lock on the file is one for writers only
        asked: List[Tuple[str, str, Any, int]] = [
            ("POST", "/conversations", {}, 503),
            ("POST", talk, {"metadata": {}}, 503),
            ("POST", talk + "/items", {"items": [HI_ITEM]}, 503),
            ("DELETE", item, None, 503),
            ("DELETE", talk, None, 503),
            ("DELETE", "/responses/" + first["id"], None, 503),
            ("POST", "/responses", HI, 200),
            ("POST", "/responses", {**HI, "background": True}, 200),
            ("POST", "/responses", {**HI, "previous_response_id": first["id"]}, reads),
            ("GET", "/responses/" + first["id"], None, reads),
            ("GET", f"/responses/{first['id']}/input_items", None, reads),
        ]

        client = Api(api.base_url)

        async def ask(method: str, path: str, body: Any, status: int) -> None:
            got, text = await client.raw(method, path, body)
            assert got == status, (method, path, body, got, text)

        for left in reversed(range(4)):  # a machine that is busy with other things is not so each time
            alone = max([await seconds(ask(*asked[n])) for n in (2, 4, 7, 8, 10)])  # of several questions
            together = await seconds(asyncio.gather(*(ask(*one) for one in asked * 3)))
            # one limit for all that one request asks the store, and for all requests at once
            if alone < 3 * SHORT and together < 2 * usual + 4 * alone:
                break
            assert left, (usual, alone, together)
        outage.go_on()
        for _ in range(100):  # until what has waited is written
            status, _body = await api.raw("POST", talk + "/items", {"items": [HI_ITEM]})
            if status == 200:
                break
            await asyncio.sleep(0.05)
        assert status == 200


HI_ITEM: Json = {"type": "message", "role": "user", "content": "Hi"}


async def test_a_turn_is_stored_after_the_outage(
    outage: Outage, tmp_path: Path, expect_log: Callable[..., Any]
) -> None:
    async with site(tmp_path, more=outage.section) as (provider, api, _):
        provider.aside = lambda body: [say("Hello.")]
        talk = (await api("POST", "/conversations", {"items": [HI_ITEM]}))["id"]
        first = await api("POST", "/responses", {**HI, "conversation": talk})
        body = {**HI, "previous_response_id": first["id"], "input": "More"}
        answered = asyncio.Event()
        provider.aside = lambda body: [gate(answered), say("Late.")]
        running = asyncio.ensure_future(api("POST", "/responses", body))
        in_talk = asyncio.ensure_future(api("POST", "/responses", {**HI, "conversation": talk}))
        await until(lambda: len(provider.requests) == 3)
        outage.stop()
        answered.set()
        made, said = await asyncio.gather(running, in_talk)
        assert made["status"] == said["status"] == "completed"
        outage.go_on()
        for one in (made, said):
            assert await api("GET", "/responses/" + one["id"]) == one

        async def items() -> List[Json]:
            found: List[Json] = (await api("GET", f"/conversations/{talk}/items?order=asc"))["data"]
            return found

        texts: List[str] = []
        while texts != ["Hi", "Hi", "Hello.", "Hi", "Late."]:  # the test's own limit ends a long wait
            texts = [one["content"][0]["text"] for one in await items()]


async def test_what_a_turn_adds_to_a_conversation_waits_longer_than_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rproxy.store.redis, "REQUEST_LIMIT", SHORT / 2)
    with redis_server() as server:
        store = RedisStore(server.url, ttl=60)
        behind = WriteBehindStore(store)
        await behind.put(TALK, {"items": []})  # type: ignore[typeddict-item]
        server.freeze()
        monkeypatch.setattr(time_limit, "REQUEST_LIMIT", SHORT)
        kept = await behind.keep_changed(TALK, lambda record: {**record, "items": [1]})  # type: ignore
        server.thaw()
        assert kept == "not stored yet: the store is slow"
        await behind.close()
        assert (await behind.get(TALK) or {})["items"] == [1]
        await store.close()


# ---- Records that are none
async def answers(api: Api, response: str, talk: str, item: str) -> AsyncIterator[Tuple[str, int]]:
    """Everything that can be asked about a response and a conversation, and the status of the answer."""
    asked: List[Tuple[str, str, Any]] = [
        ("GET", f"/responses/{response}", None),
        ("GET", f"/responses/{response}?stream=true", None),
        ("GET", f"/responses/{response}/input_items", None),
        ("POST", f"/responses/{response}/cancel", {}),
        ("POST", "/responses", {**HI, "previous_response_id": response}),
        ("POST", "/responses", {**HI, "input": [{"type": "item_reference", "id": item}]}),
        ("POST", "/responses", {**HI, "conversation": talk}),
        ("GET", f"/conversations/{talk}", None),
        ("GET", f"/conversations/{talk}/items", None),
        ("GET", f"/conversations/{talk}/items/{item}", None),
        ("POST", f"/conversations/{talk}", {"metadata": {}}),
        ("POST", f"/conversations/{talk}/items", {"items": [HI_ITEM]}),
        ("DELETE", f"/conversations/{talk}/items/{item}", None),
        ("DELETE", f"/conversations/{talk}", None),
        ("DELETE", f"/responses/{response}", None),
    ]
    for method, path, body in asked:
        status, _ = await api.raw(method, path, body)
        yield f"{method} {path}", status


WHOLE: List[Json] = [
    {
        "response": {"id": RESPONSE, "status": "completed", "output": [], "background": True},
        "input": [HI_ITEM],
        "previous": None,
        "conversation": None,
        "last": 3,
        "owner": "",
    },
    {
        "response": {"id": RESPONSE, "status": "in_progress", "output": [{"type": "message", "id": ITEM}]},
        "input": [],
        "previous": RESPONSE,
        "conversation": TALK,
        "owner": "",
    },
    {"conversation": {"id": TALK}, "items": [{**HI_ITEM, "id": ITEM}], "owner": ""},
    {"until": 9e9},
    {"how": "delete"},
]


@st.composite
def broken(draw: Any) -> Any:
    """A record with something else somewhere in it, or without something."""
    record = json.loads(json.dumps(draw(st.sampled_from(WHOLE))))
    place: Any = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return record
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        if isinstance(place, dict) and draw(st.booleans()):
            del place[key]
        else:
            place[key] = draw(VALUES)
        return record


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(st.one_of(broken(), VALUES), min_size=4, max_size=4))
def test_whatever_is_stored_is_no_error_of_ours(
    records: List[Any], tmp_path: Path, expect_log: Callable[..., Any]
) -> None:
    expect_log("damaged and counts as missing", required=False)

    async def main() -> None:
        path = tmp_path / "r.db"
        async with site(tmp_path, more=f"store: {{{{kind: sqlite, path: '{path}'}}}}\n") as (
            provider,
            api,
            _,
        ):
            provider.aside = lambda body: [say("Hello.")]
            provider.strict = False
            db = sqlite3.connect(str(path), isolation_level=None)
            names = (RESPONSE, TALK, RESPONSE + "-alive", RESPONSE + "-stop")
            for name, record in zip(names, records):
                blob = json.dumps(record).encode()
                db.execute(
                    "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", (name, 9e9, len(blob), blob)
                )
            db.close()
            async for what, status in answers(api, RESPONSE, TALK, ITEM):
                assert status < 500, (what, status)

    asyncio.run(main())
