"""``rproxy check --live``: does every provider answer, and does it accept the key?

Each is asked for its models.  Any answer shows that the provider is there, even one without such a list; some
give the list to everybody, with any key.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import List, Mapping, NamedTuple, Optional, Sequence, TextIO

from ..config.schema import Config, Provider
from ..errors import ApiError
from ..json_codec import UNREADABLE
from ..log import printable
from ..providers.provider_errors import provider_error
from ..upstream.client import Result, Upstream
from .command import Environ, counted
from .exit_status import OK, REFUSED, UNAVAILABLE
from .preflight import distinct_providers

TIMEOUT = 20.0  # seconds
NO_LIST = (400, 404, 405, 501)  # the provider has no list of models
KEY_ACCEPTED = (402, 429)  # the key is known


class ProviderCheck(NamedTuple):
    """What a provider answered.  ``status``: an exit status.  ``http``: the HTTP status, and ``date``: the
    ``Date`` header; None without an answer.
    """

    provider: Provider
    status: int
    text: str
    http: Optional[int] = None
    date: Optional[str] = None


async def ask_all(config: Config, environ: Environ) -> List[ProviderCheck]:
    """Ask all providers at the same time."""
    upstream = probing_upstream(config, environ)
    try:
        providers = distinct_providers(config)
        return list(await asyncio.gather(*(ask(upstream, provider) for provider in providers)))
    finally:
        upstream.close()


def probing_upstream(config: Config, environ: Environ) -> Upstream:
    """A client with the time limits ``TIMEOUT``; the caller closes it."""
    return Upstream(
        connect_timeout=config.server.connect_timeout,
        first_byte_timeout=TIMEOUT,
        idle_timeout=TIMEOUT,
        environ=environ,
    )


async def ask(upstream: Upstream, provider: Provider) -> ProviderCheck:
    """Ask one provider for its models."""
    started, result = time.monotonic(), None
    try:
        result = await upstream.get(provider, "/models")
        status, text = judge(provider, result)
    except ApiError as error:
        status, text = UNAVAILABLE, error.message
    text = f"{round((time.monotonic() - started) * 1000)} ms, {text}"
    if result is None:
        return ProviderCheck(provider, status, text)
    return ProviderCheck(provider, status, text, result.status, result.headers.get("Date"))


def judge(provider: Provider, result: Result) -> tuple[int, str]:
    """The exit status for an answer, and a text about it."""
    if 200 <= result.status < 300:
        return OK, _models(result.body)
    if result.status in NO_LIST:
        return OK, f"answers (HTTP {result.status} to GET /models)"
    error = provider_error(
        result.status, result.headers, result.body, provider.name, provider.base_url, secrets=provider.secrets
    )
    if result.status in (401, 403):
        return REFUSED, error.message
    return OK if result.status in KEY_ACCEPTED else UNAVAILABLE, error.message


def _models(body: bytes) -> str:
    try:
        data = json.loads(body)
        return counted(len(data["data"] if isinstance(data, dict) else data), "model")
    except (*UNREADABLE, LookupError, TypeError):
        return "answers, but not with a list of models"


def lines(answers: Sequence[ProviderCheck]) -> List[str]:
    """One line for each provider: ✓ or ✗, or words where the terminal has no such characters."""
    marks = marks_for(sys.stdout)
    width = max(len(answer.provider.name) for answer in answers)
    return [
        f"  {marks['ok' if one.status == OK else 'error']} {one.provider.name:{width}}  {printable(one.text)}"
        for one in answers
    ]


def marks_for(stream: TextIO) -> Mapping[str, str]:
    """ok, warning and error as signs, or as words where the stream has no such characters."""
    signs = {"ok": "✓", "warning": "⚠", "error": "✗"}
    try:
        "".join(signs.values()).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return {"ok": "ok    ", "warning": "WARN  ", "error": "FAILED"}
    return signs


def exit_status(answers: Sequence[ProviderCheck]) -> int:
    """The status of the worst answer; a refused key is worse than a provider that cannot be reached."""
    return max((answer.status for answer in answers), default=OK)
