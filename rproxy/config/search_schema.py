"""The section ``search``: the service that answers web searches."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Iterable, Optional, Sequence, Tuple
from urllib.parse import parse_qsl, urlsplit

from ..convert.profile import suggestion
from ..log import LONG
from ..providers.search_table import MCP_RESULTS, SEARCH_SERVICES, SearchService
from ..types import light_dataclass
from . import addresses
from . import checks as c
from .checks import REQUIRED, Place, key, secret
from .provider_schema import Provider

MCP = "mcp"  # as ``kind``
_MCP_ONLY = ("mcp", "tool", "query")
_NOT_MCP = ("url", "api_key")


@light_dataclass(frozen=True)
class Search:
    """The service that answers web searches."""

    kind: str = key(
        c.one_of(*SEARCH_SERVICES, MCP),
        REQUIRED,
        f"the service: {', '.join(SEARCH_SERVICES)}, or {MCP} for a tool of an MCP server",
    )
    url: str = key(
        addresses.base_url, "", "its base address, without the path; default: that of the service; or $VAR"
    )
    api_key: Optional[str] = secret(
        c.header_value,
        None,
        "its key, preferably $VAR; default for deepseek: that of the provider at api.deepseek.com",
    )
    max_results: int = key(c.whole(1), 8, "results of a search; a client may ask for half or double")
    open_pages: bool = key(c.boolean, False, "may the model read pages that a search has found?")
    cached: bool = key(
        c.boolean, True, "also search for clients that ask for cached results (external_web_access: false)"
    )
    timeout: float = key(c.seconds(), 20.0, "seconds for one search or one page")
    mcp: str = key(c.text, "", "mcp: the name of the server in mcp_servers")
    tool: str = key(c.text, "", "mcp: its tool that searches")
    query: str = key(c.text, "query", "mcp: the argument of the tool that takes the query")

    @property
    def service(self) -> SearchService:
        """The API of services of this kind."""
        return SEARCH_SERVICES.get(self.kind, MCP_RESULTS)

    @cached_property
    def secrets(self) -> Tuple[str, ...]:
        """Texts that no message and no log may contain: the key, and long parameters of the address."""
        values = [value for _, value in parse_qsl(urlsplit(self.url).query) if len(value) >= LONG]
        return (*filter(None, [self.api_key]), *values)


def read_search(place: Place) -> Search:
    values = c.values_of(Search, place)
    search = Search(**values)
    for name in _NOT_MCP if search.kind == MCP else _MCP_ONLY:
        if name in values:
            meant = f"{name!r} is {'not ' if search.kind == MCP else ''}for kind {MCP}"
            raise place.step(name).error(meant, key=True)
    if search.kind == MCP:
        for name in ("mcp", "tool"):
            if not getattr(search, name):
                raise place.error(f"kind {MCP} needs {name!r}")
        return search
    url = search.url or search.service.url
    if not url:
        raise place.error(f"'url' is missing: {search.kind} has no public address, so name that of your own")
    parts = urlsplit(url)
    if parts.scheme == "http" and search.api_key and addresses.is_public(parts.hostname or ""):
        place.step("url").warn("the key travels unencrypted; use https://")
    return replace(search, url=url)


def completed(search: Search, providers: Iterable[Provider], servers: Sequence[str], place: Place) -> Search:
    """The section with its key; a search service of a provider takes the key of its chat API.

    :param servers: the names in ``mcp_servers``
    :raises ConfigError: the service needs a key, and there is none (at another address, such as that of a
        gateway, it may do without), or there is no such MCP server
    """
    if search.kind == MCP:
        if search.mcp not in servers:
            known = f"it has {', '.join(servers)}" if servers else "it has none"
            raise place.step("mcp").error(
                f"there is no server {search.mcp!r} in mcp_servers ({known}){suggestion(search.mcp, servers)}"
            )
        return search
    if search.api_key is not None or not search.service.needs_key:
        return search
    host = urlsplit(search.service.url).hostname
    shared = [p.api_key for p in providers if p.api_key and urlsplit(p.base_url).hostname == host]
    if shared and search.service.shares_key:
        return replace(search, api_key=shared[0])
    if urlsplit(search.url).hostname != host:
        return search
    if search.service.shares_key:
        raise place.error(f"'api_key' is missing, and no provider at {host} has one")
    raise place.error(f"'api_key' is missing: {search.kind} requires one")
