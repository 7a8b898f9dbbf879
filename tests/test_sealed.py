"""encrypted_content: comes back as it went, and nothing else does."""

from __future__ import annotations

import base64
import hmac
import json
import re
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import to_chat_request
from rproxy.convert.request.responses import to_responses_request
from rproxy.convert.sealed import AT_ONCE, CHECKSUM, MAX_SEALED, Room, TooMuchSealed, seal, unseal

HI = {"role": "user", "content": "hi"}
PAYLOAD = {"text": "I think é 🎯", "details": [{"type": "reasoning.encrypted", "data": "CiQB"}]}


# What earlier versions sealed.
OLD = (
    "rproxy1.z0hJKoXHJUr-OmNTCwRFRXici1YqSk0szs_LzEtX0qlWKkmtKFGyUvJUKMnIzMtWOLxS4cP8vvVKOkopqS"
    "WJmTnFSlbRQEWVBalARXCNeql5yUWVBSWpKSCFiSWJQEnnzEAnpdrY2lgAxjciug"
)


def test_there_and_back() -> None:
    blob = seal("reasoning", PAYLOAD)
    assert unseal(blob) == ("reasoning", PAYLOAD)
    assert re.fullmatch(r"rproxy1\.[A-Za-z0-9_-]+", blob)
    assert blob == seal("reasoning", PAYLOAD)


def test_blobs_of_earlier_versions_stay_readable() -> None:
    assert unseal(OLD) == ("reasoning", PAYLOAD)


def test_long_texts_become_short() -> None:
    assert len(seal("reasoning", {"text": "and so on " * 10000})) < 1000


def test_damage_is_found() -> None:
    blob = seal("compaction", {"text": "abc"})
    for place in range(len(blob)):
        for letter in "A!~\u00e9":
            damaged = blob[:place] + letter + blob[place + 1 :]
            # the last letter of base64 may have bits that do not count
            assert unseal(damaged) is None or damaged == blob or place == len(blob) - 1
        assert unseal(blob[:place]) is None
    assert unseal(blob + "A") is None
    assert unseal(blob + "AAAA") is None


def packed(data: bytes) -> str:
    return (
        "rproxy1."
        + base64.urlsafe_b64encode(hmac.digest(b"", data, "sha256")[:16] + data).rstrip(b"=").decode()
    )


@pytest.mark.parametrize(
    "content", [5, [], ["reasoning"], ["reasoning", 5], [5, {}], {"a": 1, "b": 2}, "ab", ["reasoning", {}, 1]]
)
def test_our_form_with_strange_content(content: Any) -> None:
    assert unseal(packed(zlib.compress(json.dumps(content).encode()))) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zlib",
        zlib.compress(b"no json"),
        zlib.compress(b"[" * 100000),
        zlib.compress(b"\xff\xff"),
        zlib.compress(b'["a",{}]')[:-1],
        zlib.compress(b'["a",{}]') + b"more",
    ],
)
def test_our_form_without_content(data: bytes) -> None:
    assert unseal(packed(data)) is None


def test_a_bomb_does_not_go_off() -> None:
    bomb = zlib.compress(b'["reasoning", {"text": "' + b"x" * (32 << 20) + b'"}]', 1)
    assert unseal(packed(bomb)) is None
    assert unseal(seal("reasoning", {"text": "x" * (17 << 20)})) is None
    assert unseal(seal("reasoning", {"text": "x" * (15 << 20)})) is not None


def test_many_small_bombs_do_not_go_off_either() -> None:
    """They are counted together, in any kind of item, before they are in memory."""
    summary = {"type": "compaction", "encrypted_content": seal("compaction", {"text": "x" * (1 << 20)})}
    thought = {"type": "reasoning", "encrypted_content": seal("reasoning", {"text": "x" * (1 << 20)})}
    assert len(summary["encrypted_content"]) < 7000
    for items in ([summary] * 300, [thought] * 300, [summary, thought] * 8):
        tracemalloc.start()
        with pytest.raises(TooMuchSealed) as caught:
            to_chat_request({}, [*items, HI], Profile(), downstream_model="m")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 40 << 20, peak
        error = caught.value
        assert (error.status, error.code, error.param) == (400, "invalid_encrypted_content", "input")
        assert str(MAX_SEALED) in error.message and "start a new conversation" in error.message
    for items in ([summary] * 15, [thought] * 15):
        messages = to_chat_request({}, [*items, HI], Profile(), downstream_model="m").body["messages"]
        assert messages[-1]["content"] == "hi"
    with pytest.raises(TooMuchSealed):
        to_responses_request({}, [summary, HI], Profile(), downstream_model="m", room=Room(AT_ONCE))


def test_room_is_exact() -> None:
    plain = len(b'["reasoning",{"text":"abc"}]')
    blob, room = seal("reasoning", {"text": "abc"}), Room(2 * plain)
    for left in (plain, 0):
        assert CHECKSUM.open(blob, room).kind == "reasoning" and room.left == left
    with pytest.raises(TooMuchSealed):
        CHECKSUM.open(blob, room)


def test_a_large_one_is_read_in_steps_and_may_not_have_too_many_values() -> None:
    large = {"text": "é" * AT_ONCE, "details": [{"n": 1.5, "big": [*range(1000)]}]}
    assert unseal(seal("reasoning", large)) == ("reasoning", large)
    for inside in (b"[" + b"[]," * 600_000 + b"[]]", b'"' + b"x" * (1 << 20)):
        assert unseal(packed(zlib.compress(b'["reasoning",{"details":' + inside + b"}]"))) is None


@pytest.mark.parametrize(
    "foreign",
    [None, 5, b"rproxy1.AAAA", "", "gAAAAABn", "rproxy1.", "rproxy2.AAAA", "rproxy1.\ud83c", "rproxy1.===="],
)
def test_foreign_blobs(foreign: Any) -> None:
    assert unseal(foreign) is None


@given(st.text(max_size=80))
def test_never_raises(text: str) -> None:
    assert unseal(text) is None
    assert unseal("rproxy1." + text) is None


VALUES = st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()))


@given(st.text(max_size=10), st.dictionaries(st.text(max_size=5), VALUES))
def test_everything_comes_back(kind: str, payload: Any) -> None:
    assert unseal(seal(kind, payload)) == (kind, payload)
