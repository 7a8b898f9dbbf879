"""One ``mcp`` entry of a request's ``tools``: the server that it means, and which tools may be called.

A server is either one of the configuration, to which the client refers by ``server_label``, or one at a
``server_url`` that ``hosted_tools.mcp_hosts`` allows.  The ``authorization`` and ``headers`` of a client go
to its own ``server_url`` only; a server of the configuration gets those of the configuration.
"""

from __future__ import annotations

from typing import AbstractSet, Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ..config import checks as c
from ..config.mcp_schema import LABEL, MAX_SERVERS, McpHost, McpServer, host_for, is_own_header
from ..convert.profile import suggestion
from ..errors import ApiError, invalid
from ..log import printable
from ..types import Json
from .addresses import MAX_URL, PORTS
from .mcp.servers import McpServers

MAX_HEADERS, MAX_HEADER = 32, 8192  # how many; characters of one
MAX_NAMES = 4096  # of tools in a list


class Filter(NamedTuple):
    """Some of a server's tools: those with one of the names that are read-only, or are not; None: any."""

    names: Optional[AbstractSet[str]] = None
    read_only: Optional[bool] = None

    def has(self, tool: Json) -> bool:
        """:param tool: as the server lists it"""
        notes = tool.get("annotations")
        reads = isinstance(notes, dict) and notes.get("readOnlyHint") is True
        return (self.names is None or tool["name"] in self.names) and self.read_only in (None, reads)


class Entry(NamedTuple):
    """One ``mcp`` entry.

    ``named``: the server is one of the configuration.  ``always`` and ``never``: the tools whose calls
    must be approved, and those whose calls need not be; those of all others must.
    """

    label: str
    server: McpServer
    named: bool
    allowed: Filter
    always: Optional[Filter]
    never: Optional[Filter]

    def allows(self, tool: Json) -> bool:
        """May this tool be used?"""
        names = self.server.allowed_tools
        return self.allowed.has(tool) and (names is None or tool["name"] in names)

    def asks(self, tool: Json) -> bool:
        """Must a call of this tool be approved?"""
        if self.server.require_approval == "always" or (self.always is not None and self.always.has(tool)):
            return True
        return self.never is None or not self.never.has(tool)


def read_entries(tools: Sequence[Any], servers: McpServers, hosts: Sequence[McpHost]) -> Dict[str, Entry]:
    """The ``mcp`` entries of ``tools``, by label.

    :raises ApiError: 400, what is wrong with one
    """
    found: Dict[str, Entry] = {}
    for number, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") != "mcp":
            continue
        place = _Place(f"tools[{number}]", tool)
        entry = _entry(place, servers, hosts)
        if entry.label in found:
            raise place.error("server_label", f"'{entry.label}' names two servers; each needs its own label.")
        found[entry.label] = entry
    if len(found) > MAX_SERVERS:
        raise invalid(f"tools has {len(found)} MCP servers; it may have at most {MAX_SERVERS}.", "tools")
    return found


class _Place(NamedTuple):
    """An entry, and where it is in the request."""

    path: str
    tool: Json

    def error(self, field: str, text: str) -> ApiError:
        return invalid(text, f"{self.path}.{field}", "invalid_value")

    def text(self, field: str) -> str:
        """A field that must be a string; "" if it is missing.

        :raises ApiError: 400, it is something else
        """
        value = self.tool.get(field)
        if value is not None and not isinstance(value, str):
            raise invalid(f"{self.path}.{field} must be a string.", f"{self.path}.{field}", "invalid_type")
        return value or ""


def _entry(place: _Place, servers: McpServers, hosts: Sequence[McpHost]) -> Entry:
    label = place.text("server_label")
    if not LABEL.fullmatch(label):
        raise place.error(
            "server_label", f"{place.path}.server_label must be a name of up to 64 letters, digits, - and _."
        )
    for field in ("connector_id", "tunnel_id"):
        if place.tool.get(field) is not None:
            raise place.error(
                field,
                f"{field} names a service of OpenAI that rproxy does not have; send a server_url instead.",
            )
    server, named = _server(place, label, servers, hosts)
    always, never = _approvals(place, server)
    return Entry(label, server, named, _allowed(place), always, never)


# ---- The server
def _server(
    place: _Place, label: str, servers: McpServers, hosts: Sequence[McpHost]
) -> Tuple[McpServer, bool]:
    url = place.text("server_url")
    configured = servers.get(label)
    if configured is not None and url in ("", configured.url):
        return configured, True
    if configured is not None:
        raise place.error(
            "server_url",
            f"The MCP server '{label}' has another address in the configuration: leave out server_url, or "
            "use another server_label.",
        )
    if not url:
        names = servers.names
        known = f"It has {', '.join(names)}" if names else "It has none"
        raise place.error(
            "server_label",
            f"There is no MCP server '{label}' in mcp_servers of the configuration. {known}"
            f"{suggestion(label, names)}.",
        )
    host = _allowed_host(place, url, hosts)
    headers = _headers(place)
    token = place.text("authorization")
    if token:
        headers["Authorization"] = token if " " in token.strip() else f"Bearer {token.strip()}"
        _check_header(place, "authorization", headers["Authorization"])
    return McpServer(url=url, headers=headers, name=label, public=not host.is_local), False


def _allowed_host(place: _Place, url: str, hosts: Sequence[McpHost]) -> McpHost:
    """The entry of ``hosted_tools.mcp_hosts`` that allows the address.

    :raises ApiError: 400, there is none
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if not port or parts.scheme not in PORTS or not parts.hostname or not _is_sendable(url):
        raise place.error("server_url", f"{place.path}.server_url must be a URL with https:// and a host.")
    if parts.username is not None or parts.fragment:
        raise place.error(
            "server_url",
            f"{place.path}.server_url must not have a user, a password or a #; send authorization instead.",
        )
    host = host_for(hosts, parts.hostname.rstrip("."), port)
    shown = printable(parts.hostname)[:100]
    if host is None:
        raise place.error(
            "server_url",
            f"MCP servers at '{shown}' are not allowed. The operator can allow them with "
            "hosted_tools.mcp_hosts, or name this server in mcp_servers.",
        )
    if parts.scheme != "https" and not host.is_local:
        raise place.error("server_url", f"The MCP server at '{shown}' needs https://.")
    return host


def _is_sendable(url: str) -> bool:
    return c.is_sendable(url) and " " not in url and len(url) <= MAX_URL


def _headers(place: _Place) -> Dict[str, str]:
    given = place.tool.get("headers")
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise place.error("headers", f"{place.path}.headers must be an object of strings.")
    if len(given) > MAX_HEADERS:
        raise place.error("headers", f"{place.path}.headers has more than {MAX_HEADERS} entries.")
    for name, value in given.items():
        if not c.is_header_name(name) or is_own_header(name):
            raise place.error(
                "headers", f"{place.path}.headers: '{printable(name)[:60]}' is not a header that can be set."
            )
        _check_header(place, "headers", value)
    return dict(given)


def _check_header(place: _Place, field: str, value: str) -> None:
    """:raises ApiError: 400, the value cannot be sent; the text does not show it"""
    if not c.is_sendable(value) or len(value) > MAX_HEADER:
        raise place.error(field, f"{place.path}.{field} {c.NOT_SENDABLE}, or is too long.")


# ---- Tools and approvals
def _allowed(place: _Place) -> Filter:
    given = place.tool.get("allowed_tools")
    if given is None:
        return Filter()
    if isinstance(given, list):
        return Filter(_names(place, "allowed_tools", given))
    return _filter(place, "allowed_tools", given)


def _filter(place: _Place, field: str, given: Any) -> Filter:
    if not isinstance(given, dict):
        raise place.error(field, f"{place.path}.{field} must be a list of names, or an object.")
    names, read_only = given.get("tool_names"), given.get("read_only")
    if read_only is not None and not isinstance(read_only, bool):
        raise place.error(field, f"{place.path}.{field}.read_only must be true or false.")
    return Filter(None if names is None else _names(place, field, names), read_only)


def _names(place: _Place, field: str, given: Any) -> AbstractSet[str]:
    if isinstance(given, list) and len(given) > MAX_NAMES:
        raise place.error(field, f"{place.path}.{field} has more than {MAX_NAMES} names.")
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise place.error(field, f"{place.path}.{field} must be a list of tool names.")
    return frozenset(given)


def _approvals(place: _Place, server: McpServer) -> Tuple[Optional[Filter], Optional[Filter]]:
    """The tools whose calls must always be approved, and those whose calls never need to be."""
    given = place.tool.get("require_approval")
    if given is None:
        given = server.require_approval
    if given in (None, "always"):
        return Filter(), None
    if given == "never":
        return None, Filter()
    if not isinstance(given, dict) or not given or set(given) - {"always", "never"}:
        raise place.error(
            "require_approval",
            f"{place.path}.require_approval must be 'always', 'never', or an object with these keys.",
        )
    filters: Mapping[str, Filter] = {
        name: _filter(place, f"require_approval.{name}", value)
        for name, value in given.items()
        if value is not None
    }
    return filters.get("always"), filters.get("never")
