"""Sealers with a key, and where the key comes from: nobody else's blobs, no tampering, the same text every
time.
"""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rproxy.config.load import parse_config
from rproxy.config.schema import Config
from rproxy.convert.profile import Profile
from rproxy.convert.request.chat import to_chat_request
from rproxy.convert.sealed import CHECKSUM, DAMAGED, FOREIGN, Room, TooMuchSealed
from rproxy.errors import ApiError, ConfigError
from rproxy.service import sealer as sealer_module
from rproxy.service.seal_key import load_seal_key
from rproxy.service.sealer import (
    AES_GCM,
    HMAC,
    NO_PACKAGE,
    NOT_YOURS,
    UNSEALED,
    KeyedSealer,
    RecentlyOpened,
    Sealers,
    SealKey,
)
from rproxy.store.memory import MemoryStore

SECRET = bytes(range(32))
SCHEMES = pytest.mark.parametrize("scheme", [AES_GCM, HMAC])
PAYLOAD = {"text": "Hm. ü", "details": [{"n": 1}]}


def sealer(
    scheme: str,
    owner: str = "ann",
    secret: bytes = SECRET,
    old: bool = False,
    recent: Optional[RecentlyOpened] = None,
) -> KeyedSealer:
    if scheme == AES_GCM:
        pytest.importorskip("cryptography")
    return KeyedSealer(SealKey(secret, scheme), owner, old, recent or RecentlyOpened())


@SCHEMES
def test_what_is_sealed_is_opened_and_equal_content_gives_equal_text(scheme: str) -> None:
    blob = sealer(scheme).seal("reasoning", PAYLOAD)
    assert sealer(scheme).open(blob)[:2] == ("reasoning", PAYLOAD) and blob == sealer(scheme).seal(
        "reasoning", PAYLOAD
    )
    assert blob != sealer(scheme).seal("compaction", PAYLOAD)
    assert (b"Hm" in blob.encode()) is False


@SCHEMES
def test_another_owner_another_key_and_any_change_open_nothing(scheme: str) -> None:
    blob = sealer(scheme).seal("compaction", PAYLOAD)
    assert sealer(scheme, "bob").open(blob).problem == NOT_YOURS
    assert sealer(scheme, secret=bytes(32)).open(blob).problem == NOT_YOURS
    for place in range(9, len(blob), 7):
        swapped = "A" if blob[place] != "A" else "B"
        opened = sealer(scheme).open(blob[:place] + swapped + blob[place + 1 :])
        assert opened.problem in (NOT_YOURS, DAMAGED) and not opened.kind
    for cut in (blob[:9], blob[:20], blob[:-3], blob + "!"):
        assert sealer(scheme).open(cut).problem in (NOT_YOURS, DAMAGED)


@given(
    blob=st.one_of(st.none(), st.integers(), st.text(), st.from_regex(r"rproxy2[ah]\.[\w-]*", fullmatch=True))
)
def test_anything_else_is_refused_without_a_word_raised(blob: Any) -> None:
    for scheme in (AES_GCM, HMAC):
        assert sealer(scheme).open(blob).problem


def test_foreign_and_old_blobs() -> None:
    old = CHECKSUM.seal("reasoning", PAYLOAD)
    assert sealer(HMAC).open("gAAAAABother").problem == FOREIGN
    assert sealer(HMAC).open(old).problem == UNSEALED
    assert sealer(HMAC, old=True).open(old).payload == PAYLOAD


def test_without_the_package_encrypted_blobs_are_told_and_new_ones_are_authenticated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blob = sealer(AES_GCM).seal("compaction", PAYLOAD)
    monkeypatch.setattr(sealer_module, "aes_gcm", lambda: None)
    alone = KeyedSealer(SealKey(SECRET, AES_GCM), "ann", False, RecentlyOpened())
    assert alone.open(blob).problem == NO_PACKAGE and "cryptography" in NO_PACKAGE
    assert alone.open(alone.seal("reasoning", PAYLOAD)).payload == PAYLOAD


@SCHEMES
def test_a_request_with_what_cannot_be_opened(scheme: str) -> None:
    mine, other = sealer(scheme), sealer(scheme, "bob")
    hi = {"role": "user", "content": "hi"}
    thought = {"type": "reasoning", "summary": [], "encrypted_content": other.seal("reasoning", PAYLOAD)}
    conversion = to_chat_request({}, [hi, thought, hi], Profile(), downstream_model="m", sealer=mine)
    assert any("reasoning left out" in warning for warning in conversion.warnings)
    for blob in (other.seal("compaction", PAYLOAD), "gAAAAABother", mine.seal("reasoning", PAYLOAD), None):
        item = {"type": "compaction", "encrypted_content": blob}
        with pytest.raises(ApiError, match="cannot be opened") as caught:
            to_chat_request({}, [item, hi], Profile(), downstream_model="m", sealer=mine)
        assert (caught.value.status, caught.value.code) == (400, "invalid_encrypted_content")


@SCHEMES
def test_what_was_opened_lately_is_not_opened_again(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recent, opened = RecentlyOpened(), []
    anns, bobs = (sealer(scheme, owner, recent=recent) for owner in ("ann", "bob"))
    inflate = sealer_module.inflate
    monkeypatch.setattr(sealer_module, "inflate", lambda *given: opened.append(1) or inflate(*given))
    blob = anns.seal("reasoning", PAYLOAD)
    first = anns.open(blob)
    first.payload["text"] = "changed"  # what others do with it changes nothing
    assert anns.open(blob)[:2] == ("reasoning", PAYLOAD) and len(opened) == 1
    assert bobs.open(blob).problem == NOT_YOURS  # nobody gets what another owner has opened
    assert anns.open(blob[:-4] + "AAAA").problem == NOT_YOURS


@SCHEMES
def test_what_was_opened_lately_takes_room_again(scheme: str) -> None:
    anns, room, size = sealer(scheme), Room(100), len('["reasoning",{"text":""}]')
    blob = anns.seal("reasoning", {"text": "x" * (40 - size)})
    for _ in range(2):
        assert anns.open(blob, room).kind == "reasoning"
    assert room.left == 20
    with pytest.raises(TooMuchSealed, match="more than 100 bytes"):
        anns.open(blob, room)


def test_what_is_remembered_of_blobs_is_bounded() -> None:
    recent = RecentlyOpened(100)
    for number in range(6):
        recent.put(b"k", f"blob {number}", b"x" * 14)  # 20 bytes
        recent.put(b"k", f"blob {number}", b"x" * 14)
        recent.get(b"k", "blob 0")
    found = [number for number in range(6) if recent.get(b"k", f"blob {number}")]
    assert found == [0, 2, 3, 4, 5]  # the one that nobody has asked for goes
    recent.put(b"k", "large", b"x" * 100)
    assert recent.get(b"k", "large") is None


def test_one_sealer_for_each_owner() -> None:
    sealers = Sealers(SealKey(SECRET, HMAC))
    assert sealers.of("a") is sealers.of("a") and sealers.of("a") is not sealers.of("b")


# ---- The key
def config(more: str = "") -> Config:
    text = "models: [{model: m, provider: {base_url: 'http://127.0.0.1:1', api_key: k}}]\n" + more
    return parse_config(text.encode(), "config.yaml", {})


def load(settings: Config, environ: Dict[str, str]) -> SealKey:
    store = MemoryStore(1, 1000, 60.0, lambda: 0.0)
    return asyncio.run(load_seal_key(settings, store, environ))


def test_the_key_of_the_memory_store_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    key = load(config(), {"XDG_STATE_HOME": str(tmp_path / "state")})
    file = tmp_path / "state" / "rproxy" / "seal_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and list(file.parent.iterdir()) == [file]
    assert load(config(), {"XDG_STATE_HOME": str(tmp_path / "state")}) == key
    assert load(config(), {"HOME": str(tmp_path)}) != key
    assert (tmp_path / ".local" / "state" / "rproxy" / "seal_key").exists()


def test_the_key_of_an_sqlite_file_lies_beside_it(tmp_path: Path) -> None:
    settings = config(f"store: {{kind: sqlite, path: {tmp_path}/r.db}}\n")
    assert load(settings, {}) == load(settings, {}) and (tmp_path / "r.db.seal_key").exists()


def test_the_key_of_the_configuration() -> None:
    assert load(config("server: {seal_key: '%s'}\n" % ("0a" * 32)), {}).secret == b"\n" * 32
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        config("server: {seal_key: secret}\n")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"scheme": "rot13", "key": "00"}', '{"scheme": "hmac", "key": "0"}']
)
def test_a_key_that_cannot_be_used_is_one_of_this_process_and_a_warning(
    tmp_path: Path, expect_log: Callable[..., Any], text: str
) -> None:
    expect_log("no seal key can be kept")
    (tmp_path / "rproxy").mkdir()
    (tmp_path / "rproxy" / "seal_key").write_text(text)
    assert load(config(), {"XDG_STATE_HOME": str(tmp_path)}) != load(
        config(), {"XDG_STATE_HOME": str(tmp_path)}
    )


def test_nowhere_to_write_is_a_warning(tmp_path: Path, expect_log: Callable[..., Any]) -> None:
    expect_log("no seal key can be kept")
    (tmp_path / "file").write_text("")
    assert len(load(config(), {"XDG_STATE_HOME": str(tmp_path / "file")}).secret) == 32


def test_processes_that_start_at_once_get_one_key(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load(config(), {"XDG_STATE_HOME": str(tmp_path)}), range(16)))
    assert len(keys) == 1


def test_a_key_for_encryption_where_the_package_is_missing_is_a_warning(
    tmp_path: Path, expect_log: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("cryptography is missing")
    (tmp_path / "rproxy").mkdir()
    (tmp_path / "rproxy" / "seal_key").write_text('{"scheme": "aes-gcm", "key": "%s"}' % ("00" * 32))
    monkeypatch.setattr("rproxy.service.seal_key.can_encrypt", lambda: False)
    assert load(config(), {"XDG_STATE_HOME": str(tmp_path)}).scheme == AES_GCM
