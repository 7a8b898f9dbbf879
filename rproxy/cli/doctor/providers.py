"""The way to each provider, step by step: its key, the proxy, DNS, the connection with TLS, ``GET /models``.

The first step that fails is reported; the ones after it would only fail, too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from typing import List, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from ...config.schema import Provider
from ...errors import ApiError, ConfigError
from ...upstream.client import Upstream, endpoint
from ...upstream.proxy import Proxy, find_proxy
from .. import exit_status, live
from ..command import Environ
from ..missing_keys import missing_variables
from ..models import MISSING_KEY, NO_KEY, state_of
from .check import ERROR, OK, WARNING, Check

DNS_TIMEOUT = 10.0  # seconds for DNS


class Examined(NamedTuple):
    """The results of the steps.  ``date``: the ``Date`` header of the provider's answer.  ``usable``: turns
    can be tried at the provider.
    """

    checks: List[Check]
    date: Optional[str] = None
    usable: bool = False


async def examine(provider: Provider, upstream: Upstream, environ: Environ) -> Examined:
    """All steps for one provider."""
    key = key_check(provider)
    checks = [key]
    url = endpoint(provider, "/models")
    try:
        proxy = find_proxy(url, environ, provider.http_proxy)
    except ConfigError as error:
        remedy = "correct the proxy's URL: http://user:password@host:port"
        return Examined([*checks, Check(f"{provider.name}: proxy", ERROR, str(error), remedy)])
    text = "none; the provider is reached directly" if proxy is None else f"through {proxy}"
    checks.append(Check(f"{provider.name}: proxy", OK, text))
    checks += await _dns_check(provider, url, proxy)
    if checks[-1].status != ERROR:
        checks.append(await _connection_check(provider, url, proxy, upstream))
    if ERROR in (checks[-1].status, key.status):  # without the key, the provider would only refuse
        return Examined(checks)
    answer = await live.ask(upstream, provider)
    if answer.status == exit_status.REFUSED:
        remedy = "make a new key at the provider, and check that its variable has the right one"
        checks[0] = Check(key.name, ERROR, f"not accepted: {answer.text}", remedy)
        return Examined(checks, answer.date)
    if provider.api_key and answer.http == 200:
        checks[0] = key._replace(message=f"{key.message}, and accepted")
    checks.append(models_check(answer))
    return Examined(checks, answer.date, answer.status == exit_status.OK)


def key_check(provider: Provider) -> Check:
    """Is there a key?  The request to the provider will show whether it is accepted."""
    name, state = f"{provider.name}: key", state_of(provider)
    if state == MISSING_KEY:
        variable = ", ".join("$" + one for one in missing_variables(provider))
        remedy = f"export {missing_variables(provider)[0]}=..."
        return Check(name, ERROR, f"{variable} is not set", remedy)
    if state == NO_KEY:
        return Check(name, WARNING, "none is configured", "set api_key: $VARIABLE, if the provider wants one")
    return Check(name, OK, "present" if provider.secrets else "none, and none is expected at this address")


async def _dns_check(provider: Provider, url: str, proxy: Optional[Proxy]) -> List[Check]:
    """One check; none where there is no name to resolve."""
    name, (host, port) = f"{provider.name}: DNS", _first_hop(url, proxy)
    if not host or _is_address(host):
        return []
    loop = asyncio.get_running_loop()
    try:
        found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), DNS_TIMEOUT)
    except (OSError, asyncio.TimeoutError) as error:
        reason = getattr(error, "strerror", None) or f"no answer within {DNS_TIMEOUT:.0f} s"
        remedy = "check the name in base_url (or of the proxy), and this machine's DNS server"
        return [Check(name, ERROR, f"{host} cannot be resolved: {reason}", remedy)]
    return [Check(name, OK, f"{host} is {found[0][4][0]}")]


def _first_hop(url: str, proxy: Optional[Proxy]) -> Tuple[str, int]:
    """The host and port to connect to; "" for a Unix socket."""
    if proxy is not None:
        return proxy.host, proxy.port
    parts = urlsplit(url)
    if parts.scheme == "http+unix":
        return "", 0
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return False


async def _connection_check(
    provider: Provider, url: str, proxy: Optional[Proxy], upstream: Upstream
) -> Check:
    encrypted = urlsplit(url).scheme == "https"
    name = f"{provider.name}: {'TLS' if encrypted else 'connection'}"
    try:
        await upstream.preconnect(provider)
    except ApiError as error:
        return Check(name, ERROR, error.message, _connection_remedy(error, proxy))
    return Check(
        name, OK, "the certificate is trusted" if encrypted else "it accepts connections, without TLS"
    )


def _connection_remedy(error: ApiError, proxy: Optional[Proxy]) -> str:
    failure = error.__cause__
    reason = getattr(failure, "real_error", None) or getattr(failure, "__cause__", None)
    if isinstance(reason, ssl.SSLError) or "certificate" in str(reason):
        return "check the clock; for a certificate of your own, set ca_file; behind a proxy, its certificate"
    if proxy is not None:
        return "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or http_proxy of the provider"
    return "check base_url, that the provider (or the local server) runs, and firewalls on the way"


def models_check(answer: live.ProviderCheck) -> Check:
    """The provider's answer to ``GET /models``."""
    name = f"{answer.provider.name}: models"
    if answer.http in live.KEY_ACCEPTED:
        return Check(name, WARNING, answer.text, "wait, or look at the account's balance and limits")
    if answer.status != exit_status.OK:
        return Check(name, ERROR, answer.text, "check base_url, or try again when the provider is up")
    return Check(name, OK, answer.text)
