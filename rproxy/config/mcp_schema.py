"""The section ``mcp_servers``, and which other MCP servers clients may name (``hosted_tools.mcp_hosts``)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from functools import cached_property
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import parse_qsl, urlsplit

from ..types import light_dataclass
from . import addresses
from . import checks as c
from .checks import Place, key, secret
from .provider_schema import secret_forms

MAX_SERVERS = 16
LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
APPROVALS = ("always", "never")
# Headers that the transport makes; a second one would contradict it.
OWN_HEADERS = frozenset(
    (
        "accept", "accept-encoding", "connection", "content-length", "content-type", "expect", "host",
        "last-event-id", "te", "trailer", "transfer-encoding", "upgrade",
    )
)  # fmt: skip
_HOST = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


def is_own_header(name: str) -> bool:
    """Does rproxy send this header itself?"""
    return name.lower() in OWN_HEADERS or name.lower().startswith("mcp-")


def _url(place: Place) -> str:
    value = c.sendable(c.reference(place), place)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise place.error(f"is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in value or port == 0:
        raise place.error("must be a URL such as https://mcp.example.com/mcp (for a program, use command)")
    if parts.username is not None or parts.fragment:
        raise place.error("must not have a user, a password or a #; credentials belong in headers")
    return value


def _headers(place: Place) -> Mapping[str, str]:
    headers = c.text_map(header_names=True)(place)
    for name in headers:
        if is_own_header(name):
            raise place.step(name).error(f"rproxy makes the header {name!r} itself", key=True)
    return headers


@light_dataclass(frozen=True)
class McpServer:
    """An MCP server.

    ``name``: its key in the section, which clients send as ``server_label``.  ``public``: a client has named
    it, and it has to be on the internet.
    """

    url: str = key(_url, "", "its address; or $VAR")
    command: Tuple[str, ...] = key(
        c.list_of(c.reference, "a list: the program and its arguments", at_least=1),
        (),
        "instead of url: a program that speaks MCP on stdin and stdout, and its arguments",
    )
    env: Mapping[str, str] = secret(
        c.text_map(header_names=False), {}, "variables for the command; it gets none of rproxy's keys"
    )
    cwd: Optional[str] = key(c.file_path, None, "the command's working directory; default: rproxy's")
    headers: Mapping[str, str] = secret(_headers, {}, "headers of every request to it; $VAR works")
    allowed_tools: Optional[Tuple[str, ...]] = key(
        c.list_of(c.text, "a list of tool names"), None, "the tools that may be used; default: all"
    )
    require_approval: Optional[str] = key(
        c.one_of(*APPROVALS),
        None,
        "always: whatever the client says; never: unless the client asks for it; default: as the client says",
    )
    timeout: float = key(c.seconds(), 60.0, "seconds for one call")
    name: str = ""
    public: bool = False

    def within(self, seconds: float) -> McpServer:
        """The same server with at most ``seconds`` for a call."""
        return replace(self, timeout=min(self.timeout, seconds))

    @cached_property
    def secrets(self) -> Tuple[str, ...]:
        """Texts that no message and no log may contain."""
        query = parse_qsl(urlsplit(self.url).query)
        named: List[Tuple[str, str]] = [*self.headers.items(), *self.env.items(), *query]
        return tuple(dict.fromkeys(form for name, value in named for form in secret_forms(name, value)))


def read_mcp_servers(place: Place) -> Tuple[McpServer, ...]:
    """The servers of the section, in its order."""
    if not isinstance(place.value, dict):
        raise place.expected("a mapping of names to servers")
    if len(place.value) > MAX_SERVERS:
        raise place.error(f"has {len(place.value)} servers; at most {MAX_SERVERS} are possible")
    mistakes, servers = c.Mistakes(), []
    for name in place.value:
        with mistakes.collected():
            if not LABEL.fullmatch(str(name)):
                raise place.step(name).error(
                    f"{name!r} cannot be the name of a server: use up to 64 letters, digits, - and _",
                    key=True,
                )
            servers.append(_server(str(name), place.step(name)))
    mistakes.check()
    return tuple(servers)


def _server(name: str, place: Place) -> McpServer:
    server = replace(c.section(McpServer)(place), name=name)
    if bool(server.url) == bool(server.command):
        raise place.error("needs 'url' or 'command'" + (", not both" if server.url else ""))
    for field, other in (("headers", "url"), ("env", "command"), ("cwd", "command")):
        if getattr(server, field) and not getattr(server, other):
            raise place.step(field).error(f"{field!r} is for a server with {other!r}", key=True)
    parts = urlsplit(server.url)
    if parts.scheme == "http" and server.headers and addresses.is_public(parts.hostname or ""):
        place.step("url").warn("the headers travel unencrypted; use https://")
    return server


# ---- Servers that clients name
class McpHost(NamedTuple):
    """A host whose MCP servers clients may name.

    ``host``: in lower case; ``*.example.com`` stands for all hosts below it.  ``port``: None for all.
    """

    host: str
    port: Optional[int] = None

    @property
    def is_local(self) -> bool:
        """Is it this machine, by its name or its address?"""
        return addresses.is_loopback(self.host)

    def matches(self, host: str, port: int) -> bool:
        if self.port not in (None, port):
            return False
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def mcp_host(place: Place) -> McpHost:
    """``HOST`` or ``HOST:PORT``."""
    text = c.reference(place).lower().rstrip(".")
    match = _HOST_AND_PORT.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else None
    host = match["host"].strip("[]").rstrip(".") if match else ""
    literal = _literal(host)
    if match is None or not (literal or _HOST.fullmatch(host)) or not (port is None or 0 < port < 65536):
        raise place.error(
            f"{text!r} is not a host; write mcp.example.com, mcp.example.com:8443 or *.example.com"
        )
    if literal is not None and not addresses.is_loopback(host) and not addresses.is_public_address(host):
        raise place.error(f"{host} is a private address: name the server in mcp_servers instead")
    return McpHost(host, port)


def _literal(host: str) -> Any:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def host_for(hosts: Sequence[McpHost], host: str, port: int) -> Optional[McpHost]:
    """The entry that allows a server, or None."""
    return next((entry for entry in hosts if entry.matches(host, port)), None)
