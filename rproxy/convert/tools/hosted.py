"""Functions that stand for hosted tools, which rproxy runs itself.

No client sends them: the service puts them in place of the client's hosted tools.  So their type is not one
of the Responses API, and no other tool can have it.
"""

from __future__ import annotations

from ...types import Json
from .function import Function

HOSTED_TYPE = "rproxy_hosted_function"


class Hosted(Function):
    types = (HOSTED_TYPE,)
    call_type = "function_call"  # in the history


def hosted_tool(name: str, description: str, parameters: Json) -> Json:
    """The entry of ``tools`` for a function."""
    return {"type": HOSTED_TYPE, "name": name, "description": description, "parameters": parameters}
