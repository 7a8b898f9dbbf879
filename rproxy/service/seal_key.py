"""The source of the seal key: the configuration, or a file or record that is created once and outlives the
process.

It must be the same for all processes that share a store, and after a restart; otherwise the blobs that
clients hold could not be opened.  So it is kept beside an sqlite file, in Redis, or, for the memory store, in
the user's state folder.  The scheme is kept with it: processes with and without the package ``cryptography``
must not seal differently.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Mapping, Optional

from ..config.load import state_folder
from ..config.schema import Config
from ..errors import StoreError
from ..store import Store
from ..store.time_limit import REQUEST_LIMIT
from .sealer import AES_GCM, HMAC, SealKey, can_encrypt

log = logging.getLogger("rproxy.seal")

SIZE = 32  # bytes


async def load_seal_key(config: Config, store: Store, environ: Mapping[str, str] = os.environ) -> SealKey:
    """The key of this installation; made, and kept with mode 0600, at the first start.

    If it can be neither read nor stored, it is valid for this process only, with a warning.
    """
    if config.server.seal_key:
        return SealKey(bytes.fromhex(config.server.seal_key), _best_scheme())
    try:
        if config.store.kind == "redis":
            made = _to_text(new_seal_key())
            from ..store.redis import RedisStore

            assert isinstance(store, RedisStore)
            kept = await asyncio.wait_for(store.shared_value("seal_key", made), REQUEST_LIMIT)
            where, key = "Redis", _from_text(kept)
        else:
            path = _path(config, environ)
            where, key = str(path), _from_file(path)
    except (OSError, StoreError, ValueError, asyncio.TimeoutError) as error:
        log.warning(
            "no seal key can be kept (%s), so after a restart the reasoning and the summaries that clients "
            "hold cannot be read. Set server.seal_key to 64 hex digits",
            error,
        )
        return new_seal_key()
    if key.scheme == AES_GCM and not can_encrypt():
        log.warning(
            "the seal key in %s is for encryption, and the package cryptography is missing here: what was "
            "sealed with it cannot be opened (pip install cryptography)",
            where,
        )
    return key


def _best_scheme() -> str:
    return AES_GCM if can_encrypt() else HMAC


def new_seal_key() -> SealKey:
    """A random key with the best available scheme."""
    return SealKey(secrets.token_bytes(SIZE), _best_scheme())


def _path(config: Config, environ: Mapping[str, str]) -> Path:
    if config.store.path:
        return Path(config.store.path + ".seal_key")
    return state_folder(environ) / "seal_key"


def _from_file(path: Path) -> SealKey:
    """The key in the file.  Several processes may start at once: the first to link its file there wins."""
    found = _read(path)
    if found is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(_to_text(new_seal_key()) + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
    finally:
        draft.unlink()
    made = _read(path)
    if made is None:
        raise ValueError(f"{path} vanished")
    return made


def _read(path: Path) -> Optional[SealKey]:
    try:
        return _from_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _to_text(key: SealKey) -> str:
    return json.dumps({"scheme": key.scheme, "key": key.secret.hex()})


def _from_text(text: str) -> SealKey:
    """:raises ValueError: the text is not a key"""
    try:
        found = json.loads(text)
        scheme, secret = str(found["scheme"]), bytes.fromhex(found["key"])
    except (TypeError, KeyError, ValueError):
        raise ValueError("the stored seal key is damaged") from None
    if scheme not in (AES_GCM, HMAC) or len(secret) != SIZE:
        raise ValueError("the stored seal key is damaged")
    return SealKey(secret, scheme)
