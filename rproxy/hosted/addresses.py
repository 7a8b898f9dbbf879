"""Which addresses may be shown and opened.

A page is opened only if it has a web address: http or https, no user name, and no private host except that of
the configured search service.  The addresses of a host name are checked when rproxy connects to it
(:mod:`rproxy.upstream.web`).
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator, Sequence, Tuple
from urllib.parse import quote, urlsplit, urlunsplit

from ..config.addresses import is_loopback, is_public_address
from ..types import Json

MAX_URL = 2048  # characters
PORTS = {"http": 80, "https": 443}  # the default ones
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f\ud800-\udfff<>\"\\]")
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_URL = re.compile(r"https?://[^\s<>\"\\^`{|}]{1,2048}")
_AFTER = ".,;:!?'*_~"  # punctuation after an address
_WORD = re.compile(r"[^\s<>\"'`()\[\]{}|]+")
MAX_USER_TEXT = 200_000  # characters that are searched for addresses


def host_of(url: str) -> str:
    """The host of a web address, in lower case; "" for anything else."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in PORTS or parts.username is not None or (parts.port or 1) < 1:
            return ""
    except ValueError:
        return ""
    if len(url) > MAX_URL or _NOT_IN_URL.search(url):
        return ""
    return (parts.hostname or "").rstrip(".")


def in_ascii(url: str) -> str:
    """The address as it is sent: other characters in its path and query are escaped."""
    parts = urlsplit(url)
    path, query = (quote(part, safe=_ASCII) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def origin(url: str) -> Sequence[Any]:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return (parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme))


def refusal(url: str, service_url: str) -> str:
    """Why an address is not opened; "" if it may be.

    :param service_url: of the search service
    """
    host = host_of(url)
    if not host:
        return "it is not an http or https address that can be opened"
    if origin(url) == origin(service_url):
        return ""
    try:
        private = not is_public_address(host)
    except ValueError:  # a name
        # No domain ends with a number, but some resolvers read 127.1 and 0x7f.1 as addresses.
        private = is_loopback(host) or "." not in host or not re.search(r"\.[^.]*[a-z-][^.]*\Z", host)
        private = private or bool(re.fullmatch("0x[0-9a-f]*", host.rpartition(".")[2]))
    return "it is not on the internet" if private else ""


def within(host: str, domains: Iterable[str]) -> bool:
    """Is this host one of the domains, or a subdomain of one?"""
    return any(host == domain or host.endswith("." + domain) for domain in domains)


def domain_of(text: str) -> str:
    """The plain form of a domain as people write it (``https://Example.com/x``, ``*.example.com``)."""
    text = text.strip().lower().partition("://")[2] or text.strip().lower()
    return re.split(r"[/:?#]", text, maxsplit=1)[0].lstrip("*.").rstrip(".")


def urls_in(text: str) -> Iterator[Tuple[int, str]]:
    """Position and address for each address in a text, without the punctuation of the sentence around it."""
    for match in _URL.finditer(text):
        yield match.start(), _without_closing(match[0])


def _without_closing(address: str) -> str:
    """The address without unmatched closing brackets and punctuation at its end."""
    for opening, closing in ("()", "[]"):
        depth = 0
        if closing not in address:
            continue
        for place, char in enumerate(address):
            depth += (char == opening) - (char == closing)
            if depth < 0:
                address = address[:place]
                break
    return address.rstrip(_AFTER)


def named_by_user(url: str, items: Any) -> bool:
    """Has the user written this address, with or without its scheme?

    :param items: of the conversation
    """
    wanted = _without_scheme(url)
    words = (word.rstrip(".,;:!?") for text in user_texts(items) for word in _WORD.findall(text))
    return any(_without_scheme(word) == wanted for word in words)


def user_texts(items: Any) -> Iterator[str]:
    """What the user has written in these items."""
    room = MAX_USER_TEXT
    for item in reversed(items) if isinstance(items, list) else ():
        if not isinstance(item, dict) or item.get("role") != "user":
            continue
        for text in _texts(item):
            yield text[:room]
            room -= len(text)
            if room <= 0:
                return


def _texts(item: Json) -> Iterator[str]:
    content = item.get("content")
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def _without_scheme(url: str) -> str:
    return re.sub(r"^https?://(www\.)?", "", url.partition("#")[0], flags=re.I).rstrip("/")
