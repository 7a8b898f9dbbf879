"""Checks of this machine: the port, the store, the packages, and the clock."""

from __future__ import annotations

import email.utils
import time
from contextlib import suppress
from importlib.util import find_spec
from typing import Iterator, List, Optional, Sequence

from ...config.addresses import ListenAddress
from ...config.schema import Config
from ...errors import AddressInUse, ConfigError, StoreError
from ...server.listen import check_address
from ...store import open_store
from ...upstream.client import Upstream
from ...upstream.web import WebError, WebRequest
from ..check import EXPOSED
from ..preflight import file_errors, package_errors
from ..version import EXTRAS
from .check import ERROR, OK, WARNING, Check

ASKING = 2.0  # seconds for a running rproxy to answer
SMALL = 1 << 16  # bytes
SKEW = 60.0  # seconds that the clock may be off


# ---- The port
async def port_checks(config: Config, upstream: Upstream) -> List[Check]:
    """Can the server listen on its addresses, or does it do so already?"""
    found = [await _port_check(address, config, upstream) for address in config.server.listen_addr]
    if config.server.is_open:
        found.append(Check("port", WARNING, EXPOSED, "set server.auth, or listen on 127.0.0.1"))
    return found


async def _port_check(address: ListenAddress, config: Config, upstream: Upstream) -> Check:
    try:
        check_address(address)
    except AddressInUse as error:
        if not address.path and await _is_rproxy(address.url(config.server.tls is not None), upstream):
            return Check("port", OK, f"rproxy serves on {address} already")
        return Check(
            "port", ERROR, str(error), "stop the other program, or use another port: rproxy serve --listen"
        )
    except ConfigError as error:
        return Check("port", ERROR, str(error), "change server.listen_addr, or use rproxy serve --listen")
    return Check("port", OK, f"{address} is free")


async def _is_rproxy(url: str, upstream: Upstream) -> bool:
    with suppress(WebError):
        answer = await upstream.fetch(WebRequest(url + "/health", ASKING, SMALL))
        return answer.status == 200 and answer.headers.get("x-request-id", "").startswith("req_")
    return False


# ---- The store
async def store_checks(config: Config) -> List[Check]:
    """Can the store, the ledger and the pid file be used?"""
    right = "give this user the right to write there, or change the path"
    found = [
        *(Check("store", ERROR, str(error), "pip install redis") for error in package_errors(config)),
        *(Check("store", ERROR, str(error), right) for error in file_errors(config)),
    ]
    return found or [await _store_check(config)]


async def _store_check(config: Config) -> Check:
    kept = config.store
    if kept.kind != "redis":
        where = f"the file {kept.path}" if kept.path else "memory, until the server stops"
        return Check("store", OK, f"responses are kept in {where}")
    store = open_store(kept.kind, kept.path, kept.url, max_responses=1, max_bytes=SMALL, ttl=kept.ttl)
    try:
        await store.get("doctor")
    except StoreError as error:
        return Check("store", ERROR, str(error), "start Redis, or correct store.url")
    finally:
        await store.close()
    return Check("store", OK, "Redis answers")


# ---- Packages
def extras_check() -> Check:
    """Which optional packages are installed?"""
    there = {extra: all(map(find_spec, packages)) for extra, packages in EXTRAS.items()}
    installed = ", ".join(extra for extra, found in there.items() if found) or "none"
    missing = ", ".join(extra for extra, found in there.items() if not found)
    return Check("extras", OK, f"installed: {installed}" + (f"; not installed: {missing}" if missing else ""))


# ---- The clock
def clock_check(dates: Sequence[Optional[str]], now: float) -> Check:
    """Is the clock right?

    :param dates: the ``Date`` headers of providers
    :param now: seconds since the epoch
    """
    skews = sorted((now - stamp for stamp in _stamps(dates)), key=abs)
    if not skews:
        shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
        return Check("clock", OK, f"it is {shown}; no provider sent a date to compare it with")
    if abs(skews[0]) <= SKEW:
        return Check("clock", OK, "it agrees with the providers'")
    way = "ahead of" if skews[0] > 0 else "behind"
    return Check(
        "clock",
        WARNING,
        f"it is {abs(skews[0]):.0f} s {way} the providers'; certificates and keys that expire go by it",
        "set the time, for example: sudo timedatectl set-ntp true",
    )


def _stamps(dates: Sequence[Optional[str]]) -> Iterator[float]:
    for date in dates:
        with suppress(ValueError, TypeError):
            yield email.utils.parsedate_to_datetime(date or "").timestamp()
