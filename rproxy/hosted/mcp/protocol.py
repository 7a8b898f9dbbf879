"""The messages to an MCP server, and the meaning of its answers, in both eras of the protocol.

From 2026-07-28 on the protocol is stateless: every request names the version, and there is no handshake.
Before that, a client starts with ``initialize``, may get a session, and has to start again when that is lost.
:func:`meet` asks a server which era it belongs to, and its :class:`Peer` remembers the answer.

The functions are generators: they yield an :class:`Exchange` and are sent its :class:`Reply`; an McpError is
thrown into them.  Sources: the specification of 2026-07-28, and those of 2025-03-26 to 2025-11-25.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Dict, Generator, Iterable, List, Mapping, NamedTuple, Optional, Sequence

from ... import __version__
from ...config.checks import is_header_name
from ...types import Json
from .messages import HTTP, INTERNAL_ERROR, INVALID_PARAMS, MAX_TEXT, PROTOCOL, McpError

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")  # the first one is requested
META = "io.modelcontextprotocol/"
CLIENT = {"name": "rproxy", "version": __version__}
UNSUPPORTED_VERSION = -32022
MODERN_CODES = (-32020, -32021, UNSUPPORTED_VERSION)  # the first two are about headers and capabilities
MAX_PAGES = 50
MAX_TOOLS = 128  # of a server
MAX_SCHEMAS = 256 << 10  # bytes of its tools, as JSON
MAX_DEPTH = 100  # of a tool, or of a structured result
MAX_VALUES = 100_000  # in the tools of a list
DEFAULT_TTL, MAX_TTL = 300.0, 3600.0  # seconds
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_ENCODED = re.compile(r"=\?base64\?.*\?=")


class Exchange(NamedTuple):
    """One message to the server.  Without an ``id`` it gets no answer."""

    message: Json
    headers: Mapping[str, str] = {}


class Reply(NamedTuple):
    """The answer to an exchange.

    ``message``: the server's answer, empty for a notification.  ``session``: from the head of an answer
    over HTTP.
    """

    message: Json
    session: str = ""


@dataclass
class Peer:
    """What is known about a server.  ``era``: ``modern``, ``legacy``, or "" while it is unknown.
    ``legacy_first``: what to try first.
    """

    legacy_first: bool = False
    era: str = ""
    version: str = ""
    session: str = ""
    last_id: int = 0


class Listed(NamedTuple):
    """The tools of a server, and for how many seconds the list is valid."""

    tools: Sequence[Json]
    ttl: float


Steps = Generator[Exchange, Reply, Any]


# ---- The handshake
def meet(peer: Peer) -> Steps:
    """Find out which era the server belongs to.

    :raises McpError: it did not answer, or speaks nothing that rproxy does
    """
    ways = (_initialize, _discover) if peer.legacy_first else (_discover, _initialize)
    try:
        yield from ways[0](peer)
    except McpError as error:
        if _is_final(error):
            raise
        try:
            yield from ways[1](peer)
        except McpError as second:
            # An old server does not know the modern request, so its answer does not matter.
            raise (error if peer.legacy_first else second) from None


def _is_final(error: McpError) -> bool:
    """Would a request of the other era get the same error?"""
    if error.kind == PROTOCOL and error.code in MODERN_CODES:
        supported = error.data.get("supported") if isinstance(error.data, dict) else None
        return isinstance(supported, list) and bool(supported) and not any(old in supported for old in LEGACY)
    return not error.answered or (
        error.kind == HTTP and (error.code in (401, 403) or 300 <= error.code < 400)
    )


def _discover(peer: Peer) -> Steps:
    """Begin as the stateless protocol does: ask for the versions that the server speaks."""
    peer.version = MODERN
    found = yield from _request(peer, "modern", "server/discover", {})
    versions = found.get("supportedVersions")
    if isinstance(versions, list) and MODERN not in versions:
        raise McpError(PROTOCOL, UNSUPPORTED_VERSION, f"it does not speak MCP {MODERN}, as rproxy does")
    peer.era = "modern"


def _initialize(peer: Peer) -> Steps:
    """Begin as the protocol with sessions does."""
    peer.session = peer.version = ""
    found = yield from _request(
        peer, "legacy", "initialize", {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": CLIENT}
    )
    version = found.get("protocolVersion")
    if version not in LEGACY:
        shown = version[:40] if isinstance(version, str) else "of no version"
        raise McpError(PROTOCOL, INVALID_PARAMS, f"it speaks MCP {shown}, which rproxy does not")
    peer.version, peer.era = str(version), "legacy"
    yield Exchange(
        {"jsonrpc": "2.0", "method": "notifications/initialized"}, _headers(peer, "legacy", "", {})
    )


# ---- Requests
def tools(peer: Peer) -> Steps:
    """The tools of the server that can be called, up to the limits above.

    :returns: :class:`Listed`
    """
    found: List[Json] = []
    room, ttl = MAX_SCHEMAS, MAX_TTL
    cursor: Any = None
    seen: List[Any] = []
    for _ in range(MAX_PAGES):
        page = yield from request(peer, "tools/list", {} if cursor is None else {"cursor": cursor})
        ttl = min(ttl, _ttl(page))
        listed = page.get("tools")
        for tool in listed if isinstance(listed, list) else []:
            if len(found) < MAX_TOOLS and is_usable(tool, found):
                room -= len(json.dumps(tool))
                if room >= 0:
                    found.append(tool)
        cursor = page.get("nextCursor")
        if not isinstance(cursor, str) or not cursor or cursor in seen or room < 0:
            break
        seen.append(cursor)
    return Listed(found, ttl)


def _ttl(page: Json) -> float:
    """For how many seconds a list may be used again."""
    given = page.get("ttlMs")
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return DEFAULT_TTL
    return max(0.0, min(given, MAX_TTL * 1000) / 1000)


def is_usable(tool: Any, others: Sequence[Json]) -> bool:
    """Can it be called by its name, with headers that can be sent?"""
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str) or not tool["name"]:
        return False
    if is_deep(tool):
        return False
    return all(map(is_header_name, _header_parameters(tool).values())) and all(
        tool["name"] != other["name"] for other in others
    )


def is_deep(value: Any) -> bool:
    """Is it nested deeper than anything meaningful, and perhaps too deep for others?"""
    return size_of(value) is None


def size_of(value: Any, most: float = math.inf) -> Optional[int]:
    """The number of values in it; None: more than ``most``, or nested deeper than anything meaningful."""
    level, size = [value], 1
    for _ in range(MAX_DEPTH):
        level = [inner for one in level for inner in _inside(one)]
        size += len(level)
        if size > most:
            return None
        if not level:
            return size
    return None


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def call(peer: Peer, tool: Json, arguments: Json) -> Steps:
    """Call a tool of the server's list.

    :returns: the result, whether the tool has succeeded or not
    """
    headers = {
        "Mcp-Param-" + header: _header_value(_scalar(arguments[key]))
        for key, header in _header_parameters(tool).items()
        if arguments.get(key) is not None
    }
    result = yield from request(peer, "tools/call", {"name": tool["name"], "arguments": arguments}, headers)
    if result.get("resultType", "complete") != "complete":
        raise McpError(PROTOCOL, INTERNAL_ERROR, "it asks for more input, which is not supported")
    return result


def request(peer: Peer, method: str, params: Json, headers: Optional[Mapping[str, str]] = None) -> Steps:
    """Send a request to a server that has been met; a lost session is replaced once.

    :returns: the result
    """
    session = peer.session
    try:
        return (yield from _request(peer, peer.era, method, params, headers))
    except McpError as error:
        if peer.era != "legacy" or not session or error.kind != HTTP or error.code != 404:
            raise
    if peer.session == session:  # and no other request has replaced it
        yield from _initialize(peer)
    return (yield from _request(peer, peer.era, method, params, headers))


def _request(
    peer: Peer, era: str, method: str, params: Json, headers: Optional[Mapping[str, str]] = None
) -> Steps:
    peer.last_id += 1
    if era == "modern":
        meta = {"protocolVersion": peer.version, "clientInfo": CLIENT, "clientCapabilities": {}}
        params = {**params, "_meta": {META + name: value for name, value in meta.items()}}
    message = {"jsonrpc": "2.0", "id": peer.last_id, "method": method, "params": params}
    sent = {**_headers(peer, era, method, params), **(headers or {} if era == "modern" else {})}
    reply = yield Exchange(message, sent)
    if reply.session and era == "legacy":
        peer.session = reply.session
    error = reply.message.get("error")
    if isinstance(error, dict):
        code, said = error.get("code"), error.get("message")
        raise McpError(
            PROTOCOL,
            code if type(code) is int else INTERNAL_ERROR,
            said[:MAX_TEXT] if isinstance(said, str) and said else "it reports an error",
            error.get("data"),
        )
    result = reply.message.get("result")
    if not isinstance(result, dict):
        raise McpError(PROTOCOL, INTERNAL_ERROR, "its answer has no result")
    return result


# ---- Headers
def _headers(peer: Peer, era: str, method: str, params: Json) -> Dict[str, str]:
    headers: Dict[str, str] = {}
    if era == "modern":
        headers["Mcp-Method"] = method
        if method == "tools/call":
            headers["Mcp-Name"] = _header_value(params["name"])
    elif peer.session:
        headers["Mcp-Session-Id"] = peer.session
    if peer.version not in ("", "2025-03-26", "2024-11-05"):  # which do not know it
        headers["MCP-Protocol-Version"] = peer.version
    return headers


def cancelled(peer: Peer, request_id: Any) -> Exchange:
    """The message that cancels a request at a server with sessions."""
    params = {"requestId": request_id, "reason": "The client has gone."}
    message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
    return Exchange(message, _headers(peer, "legacy", "", {}))


def reply_headers(peer: Peer) -> Mapping[str, str]:
    """The headers of a reply to the server's own request, and of the request that ends a session."""
    return _headers(peer, "legacy", "", {})


def _header_parameters(tool: Json) -> Dict[str, str]:
    """The arguments of a tool that are also sent as headers: argument -> the rest of the header's name."""
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return {
        name: str(about["x-mcp-header"])
        for name, about in (properties.items() if isinstance(properties, dict) else ())
        if isinstance(about, dict) and "x-mcp-header" in about
    }


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _header_value(text: str) -> str:
    """A text as the value of a header: as it is, or in base64 if that is not possible."""
    if _PLAIN.fullmatch(text) and not _ENCODED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode('ascii')}?="
