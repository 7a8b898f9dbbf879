"""Reasons why ``rproxy serve`` would refuse a correct configuration file: missing packages, and paths and
addresses that cannot be used.  Nothing is created or changed.
"""

from __future__ import annotations

import os
import stat
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator, List, Mapping, Optional, Sequence, Tuple

from ..config.schema import Config, Provider
from ..config.yaml_positions import load
from ..errors import AddressInUse, ApiError, ConfigError
from ..log import LONG, SHORT
from ..server.listen import check_address
from ..upstream.client import Upstream

SQLITE_HEADER = b"SQLite format 3\0"


async def errors_of(config: Config, environ: Mapping[str, str]) -> List[ConfigError]:
    """The problems to solve before a start."""
    found = [*package_errors(config), *file_errors(config)]
    found += [error for error in address_errors(config) if not isinstance(error, AddressInUse)]
    upstream = Upstream(environ=environ)
    for provider in distinct_providers(config):
        try:
            upstream.check(provider)
        except ApiError as error:
            found.append(ConfigError(error.message))
    upstream.close()
    return found


def package_errors(config: Config) -> Iterator[ConfigError]:
    """The optional packages that the configuration needs and that are not installed."""
    if config.store.kind == "redis" and find_spec("redis") is None:
        yield ConfigError("store.kind: redis needs the Python package redis: pip install redis")


def file_errors(config: Config) -> Iterator[ConfigError]:
    """The problems of the files of the store, the ledger and the pid."""
    for name, path, problem_of in (
        ("store.path", config.store.path, database_problem),
        ("usage.path", config.usage.path, database_problem),
        ("server.pid_file", config.server.pid_file, file_problem),
    ):
        problem = problem_of(path) if path is not None else ""
        if problem:
            yield ConfigError(f"{name}: cannot use {path}: {problem}")


def warnings_of(config: Config, now: float) -> Iterator[str]:
    """Possibly intended settings: an address that this very server is already using, a key that others can
    read or that has expired.

    :param now: seconds since the epoch
    """
    yield from key_warnings(config, now)
    yield from (str(error) for error in address_errors(config) if isinstance(error, AddressInUse))


def key_warnings(config: Config, now: float) -> Iterator[str]:
    """Keys that have expired, or that others can read."""
    for key in config.server.auth.keys:
        if key.expires is not None and key.expires <= now:
            yield f"server.auth.keys: the key of {key.name!r} has expired"
    path = config.path
    if path is None or os.name != "posix" or not os.stat(path).st_mode & stat.S_IROTH:
        return
    if holds_secret(Path(path), config.secrets):
        yield (
            f"{path}: every user of this machine can read the keys in this file; to prevent that: chmod o-r "
            f"{path}, or write $VAR instead of the keys"
        )


def distinct_providers(config: Config) -> List[Provider]:
    """The providers of all models, each once."""
    found: List[Tuple[object, Provider]] = []
    for model in config.models:
        for provider in model.resolved(model.model).providers:
            same = (provider.base_url, provider.api_key, provider.headers, provider.query)
            if same not in [other for other, _ in found]:
                found.append((same, provider))
    return [provider for _, provider in found]


def address_errors(config: Config) -> Iterator[ConfigError]:
    """The addresses that the server cannot listen on now."""
    for address in config.server.listen_addr:
        try:
            check_address(address)
        except ConfigError as error:
            yield error


# ---- Files
def file_problem(path: str) -> str:
    """Why a file cannot be written; "" if it can, in folders that may have to be made."""
    place = Path(path)
    if place.exists():
        if not place.is_file():
            return "it is not a file"
        return "" if os.access(place, os.R_OK | os.W_OK) else "this user may not read and write it"
    try:
        folder = next(folder for folder in place.absolute().parents if folder.exists())
    except OSError as error:
        return error.strerror or str(error)
    if not folder.is_dir():
        return f"{folder} is not a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"this user may not write in {folder}"


def database_problem(path: str) -> str:
    """The same for an sqlite file."""
    problem = file_problem(path)
    if problem or not os.path.exists(path):
        return problem
    with open(path, "rb") as file:
        head = file.read(len(SQLITE_HEADER))
    return "it is not an sqlite file" if head not in (b"", SQLITE_HEADER) else ""


def holds_secret(path: Path, secrets: Sequence[str]) -> bool:
    """Is a key written in the file, rather than ``$VAR``?"""
    known = {secret for secret in secrets if len(secret) >= SHORT}  # shorter ones are dummies
    long = {secret for secret in known if len(secret) >= LONG}
    values: List[Optional[object]] = [load(path.read_bytes(), str(path)).data]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str) and (value.strip() in known or any(s in value for s in long)):
            return True
    return False
