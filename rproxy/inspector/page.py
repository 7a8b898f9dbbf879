"""The page, and the headers that limit what a browser may do with it.

The page is one file.  Its script and its style have a nonce that is new in every answer, so text from a turn
in the page can never run; the page may connect only to its own server, and no other page may frame it.
"""

from __future__ import annotations

import pkgutil
import secrets
from functools import lru_cache
from typing import Dict, Tuple

NONCE = "{{nonce}}"  # its placeholder in the file
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@lru_cache(maxsize=1)
def _file() -> str:
    data = pkgutil.get_data(__package__, "page.html")
    assert data is not None
    return data.decode("utf-8")


def page() -> Tuple[bytes, Dict[str, str]]:
    """The page with a new nonce, and its headers."""
    nonce = secrets.token_urlsafe(18)
    text = _file().replace(NONCE, nonce)
    return text.encode("utf-8"), {**HEADERS, "Content-Security-Policy": POLICY.format(nonce=nonce)}


def asks_for_html(accept: str) -> bool:
    """Does a client want a page rather than JSON?  It does if it names HTML, as browsers do.

    :param accept: the header of that name
    """
    wanted = dict(map(_media_range, accept.split(",")))
    html = max(wanted.get("text/html", 0.0), wanted.get("application/xhtml+xml", 0.0))
    return html > 0 and html >= wanted.get("application/json", 0.0)


def _media_range(text: str) -> Tuple[str, float]:
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return kind, float(parameter[2:])
            except ValueError:
                return kind, 0.0
    return kind, 1.0
