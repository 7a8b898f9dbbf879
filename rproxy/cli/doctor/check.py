"""One check of ``rproxy doctor``."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, ERROR = "ok", "warning", "error"


class Check(NamedTuple):
    """The result of a check.  ``status``: ``OK``, ``WARNING`` or ``ERROR``.  ``remedy``: what to do, or
    "".
    """

    name: str
    status: str
    message: str
    remedy: str = ""
