"""Sealers with a key: what a client keeps for us, only we can have written, and only for that client.

With the package ``cryptography`` a blob is encrypted (AES-256-GCM, ``rproxy2a.``); without it, it is
authenticated (HMAC-SHA256, ``rproxy2h.``), and its text can be read by whoever holds it.  Every client (the
owner of an API key) has keys of its own, derived from the one seal key.  The nonce is derived from key and
content, so equal content makes equal blobs, which the provider's prompt cache needs; a nonce never meets two
contents.
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import Any, Callable, NamedTuple, Optional

from ..convert.sealed import CHECKSUM, DAMAGED, FOREIGN, Opened, Sealer, from_text, pack, to_text, unpack
from ..types import Json

AES_GCM, HMAC = "aes-gcm", "hmac"  # the schemes
AES_PREFIX, HMAC_PREFIX = "rproxy2a.", "rproxy2h."
NOT_YOURS = "it was made with another key, for another client, or was tampered with"
NO_PACKAGE = (
    "it is encrypted, and the Python package cryptography is not installed here (pip install cryptography)"
)
UNSEALED = "it was made by an older rproxy without a seal (server.accept_unsealed takes such ones for now)"
_NONCE, _MAC = 12, 32  # bytes


def aes_gcm() -> Optional[Callable[[bytes], Any]]:
    """The cipher of ``cryptography``, None where the package is missing."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        return None
    return AESGCM


class SealKey(NamedTuple):
    """The secret of an installation, which all its processes share, and the scheme they all seal with."""

    secret: bytes
    scheme: str


class KeyedSealer:
    """Seals for one owner.

    :param accept_unsealed: also open blobs of older versions, which anybody can write
    """

    def __init__(self, key: SealKey, owner: str, accept_unsealed: bool) -> None:
        self._mac_key, self._aes_key, self._nonce_key = (
            hmac.digest(key.secret, f"{use}\0{owner}".encode(), "sha256") for use in ("mac", "aes", "nonce")
        )
        self._cipher = aes_gcm()
        self._encrypts = key.scheme == AES_GCM and self._cipher is not None
        self._accept_unsealed = accept_unsealed

    def seal(self, kind: str, payload: Json) -> str:
        packed = pack(kind, payload)
        if not self._encrypts or self._cipher is None:
            return to_text(HMAC_PREFIX, hmac.digest(self._mac_key, packed, "sha256") + packed)
        nonce = hmac.digest(self._nonce_key, packed, "sha256")[:_NONCE]
        sealed: bytes = self._cipher(self._aes_key).encrypt(nonce, packed, None)
        return to_text(AES_PREFIX, nonce + sealed)

    def open(self, blob: Any) -> Opened:
        if not isinstance(blob, str):
            return Opened(problem=FOREIGN)
        if blob.startswith(AES_PREFIX):
            return self._decrypted(from_text(AES_PREFIX, blob))
        if blob.startswith(HMAC_PREFIX):
            raw = from_text(HMAC_PREFIX, blob) or b""
            mac, packed = raw[:_MAC], raw[_MAC:]
            good = hmac.compare_digest(mac, hmac.digest(self._mac_key, packed, "sha256"))
            return _content(packed if good else None)
        if blob.startswith(CHECKSUM.prefix):
            return CHECKSUM.open(blob) if self._accept_unsealed else Opened(problem=UNSEALED)
        return Opened(problem=FOREIGN)

    def _decrypted(self, raw: Optional[bytes]) -> Opened:
        if self._cipher is None:
            return Opened(problem=NO_PACKAGE)
        if raw is None:
            return Opened(problem=DAMAGED)
        try:
            return _content(self._cipher(self._aes_key).decrypt(raw[:_NONCE], raw[_NONCE:], None))
        except (
            Exception
        ):  # InvalidTag, or ValueError for a piece that is too short: it is not ours in any case
            return Opened(problem=NOT_YOURS)


def _content(packed: Optional[bytes]) -> Opened:
    if packed is None:
        return Opened(problem=NOT_YOURS)
    content = unpack(packed)
    return Opened(problem=DAMAGED) if content is None else Opened(*content)


class Sealers:
    """The sealer of each owner."""

    def __init__(self, key: SealKey, accept_unsealed: bool = False) -> None:
        self.of: Callable[[str], Sealer] = lru_cache(maxsize=1024)(
            lambda owner: KeyedSealer(key, owner, accept_unsealed)
        )
