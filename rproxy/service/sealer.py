"""Sealers with a key: blobs that clients keep for us, which only rproxy can have written, and only for that
client.

With the package ``cryptography`` a blob is encrypted (AES-256-GCM, ``rproxy2a.``); without it, it is
authenticated (HMAC-SHA256, ``rproxy2h.``), and its text can be read by everybody who has it.  Every client
(the owner of an API key) has keys of its own, derived from the one seal key.  The nonce is derived from key
and content, so equal content gives equal blobs, which the provider's prompt cache needs; a nonce is never
used for two contents.

Clients send all reasoning of a conversation with every turn, so the JSON of recently opened blobs is
remembered, up to a number of bytes.
"""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any, Callable, NamedTuple, Optional, Tuple

from ..convert.sealed import (
    CHECKSUM,
    DAMAGED,
    FOREIGN,
    Opened,
    Room,
    Sealer,
    from_text,
    inflate,
    pack,
    read_plain,
    to_text,
)
from ..types import Json

AES_GCM, HMAC = "aes-gcm", "hmac"  # the schemes
AES_PREFIX, HMAC_PREFIX = "rproxy2a.", "rproxy2h."
NOT_YOURS = "it was made with another key, for another client, or was tampered with"
NO_PACKAGE = (
    "it is encrypted, and the Python package cryptography is not installed here (pip install cryptography)"
)
UNSEALED = "it was made by an older rproxy without a seal (server.accept_unsealed accepts these for now)"
MAX_OPENED = 8 << 20  # bytes of recently opened JSON
_NONCE, _MAC = 12, 32  # bytes


def can_encrypt() -> bool:
    """Is the package ``cryptography`` installed?"""
    return find_spec("cryptography") is not None


@cache
def aes_gcm() -> Optional[Callable[[bytes], Any]]:
    """The cipher of ``cryptography``; None if the package is missing.

    It is loaded when the first blob is sealed or opened, because it takes 6 MB.
    """
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        return None
    return AESGCM


class SealKey(NamedTuple):
    """The secret of an installation, which all its processes share, and their common scheme."""

    secret: bytes
    scheme: str


class RecentlyOpened:
    """The JSON of recently opened blobs, by the key that opened them.  Thread-safe.

    :param max_bytes: of all of it, with the blobs
    """

    def __init__(self, max_bytes: int = MAX_OPENED) -> None:
        self._room = max_bytes
        self._found: OrderedDict[Tuple[bytes, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes, blob: str) -> Optional[bytes]:
        """The JSON in a blob, if it was recently opened with this key."""
        with self._lock:
            plain = self._found.get((key, blob))
            if plain is not None:
                self._found.move_to_end((key, blob))
            return plain

    def put(self, key: bytes, blob: str, plain: bytes) -> None:
        """Remember the JSON in a blob."""
        with self._lock:
            if (key, blob) not in self._found:
                self._found[key, blob] = plain
                self._room -= len(blob) + len(plain)
            while self._room < 0:
                (_, old), content = self._found.popitem(last=False)
                self._room += len(old) + len(content)


class KeyedSealer:
    """Seals for one owner.

    :param accept_unsealed: also open blobs of older versions, which anybody can write
    :param recent: shared with the sealers of other owners
    """

    def __init__(self, key: SealKey, owner: str, accept_unsealed: bool, recent: RecentlyOpened) -> None:
        self._mac_key, self._aes_key, self._nonce_key = (
            hmac.digest(key.secret, f"{use}\0{owner}".encode(), "sha256") for use in ("mac", "aes", "nonce")
        )
        self._encrypts = key.scheme == AES_GCM
        self._recent = recent
        self._accept_unsealed = accept_unsealed

    def seal(self, kind: str, payload: Json) -> str:
        packed = pack(kind, payload)
        cipher = aes_gcm() if self._encrypts else None
        if cipher is None:
            return to_text(HMAC_PREFIX, hmac.digest(self._mac_key, packed, "sha256") + packed)
        nonce = hmac.digest(self._nonce_key, packed, "sha256")[:_NONCE]
        sealed: bytes = cipher(self._aes_key).encrypt(nonce, packed, None)
        return to_text(AES_PREFIX, nonce + sealed)

    def open(self, blob: Any, room: Optional[Room] = None) -> Opened:
        room = room or Room()
        if not isinstance(blob, str):
            return Opened(problem=FOREIGN)
        if blob.startswith(CHECKSUM.prefix):
            return CHECKSUM.open(blob, room) if self._accept_unsealed else Opened(problem=UNSEALED)
        if not blob.startswith((AES_PREFIX, HMAC_PREFIX)):
            return Opened(problem=FOREIGN)
        plain = self._recent.get(self._mac_key, blob)
        if plain is not None:
            room.take(len(plain))
            return _content(plain)
        encrypted = blob.startswith(AES_PREFIX)
        packed, problem = self._decrypted(blob) if encrypted else self._authenticated(blob)
        if problem:
            return Opened(problem=problem)
        plain = inflate(packed, room)
        opened = _content(plain)
        if not opened.problem:
            self._recent.put(self._mac_key, blob, plain)
        return opened

    def _authenticated(self, blob: str) -> Tuple[bytes, str]:
        """:returns: what was sealed, and what is wrong with it (empty: nothing)"""
        raw = from_text(HMAC_PREFIX, blob) or b""
        mac, packed = raw[:_MAC], raw[_MAC:]
        good = hmac.compare_digest(mac, hmac.digest(self._mac_key, packed, "sha256"))
        return packed, "" if good else NOT_YOURS

    def _decrypted(self, blob: str) -> Tuple[bytes, str]:
        """:returns: what was sealed, and what is wrong with it (empty: nothing)"""
        raw, cipher = from_text(AES_PREFIX, blob), aes_gcm()
        if cipher is None:
            return b"", NO_PACKAGE
        if raw is None:
            return b"", DAMAGED
        try:
            return cipher(self._aes_key).decrypt(raw[:_NONCE], raw[_NONCE:], None), ""
        except Exception:  # InvalidTag, or ValueError for a blob that is too short: it is not ours
            return b"", NOT_YOURS


def _content(plain: bytes) -> Opened:
    content = read_plain(plain)
    return Opened(problem=DAMAGED) if content is None else Opened(*content)


class Sealers:
    """The sealer of each owner."""

    def __init__(self, key: SealKey, accept_unsealed: bool = False) -> None:
        recent = RecentlyOpened()
        self.of: Callable[[str], Sealer] = lru_cache(maxsize=1024)(
            lambda owner: KeyedSealer(key, owner, accept_unsealed, recent)
        )
