"""The shapes of the data that crosses the borders between packages.

The lowest layer: it imports nothing but ``typing``, and everything may import it.
"""

from __future__ import annotations

from typing import Any, Dict

Json = Dict[str, Any]  # a JSON object whose keys nobody here checks
