"""The provider's side: one request out, the bytes of its response back.

Tornado is loaded here.  Its log module uses curses, if available, to colour the output on a terminal.  rproxy
has its own log formatters, and curses would take half a megabyte in every server.
"""

from __future__ import annotations

import sys
from importlib import import_module

if "tornado.log" not in sys.modules and "curses" not in sys.modules:
    sys.modules["curses"] = None  # type: ignore[assignment]  # so that to import it fails
    try:
        import_module("tornado.log")
    finally:
        del sys.modules["curses"]
