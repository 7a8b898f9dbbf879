"""The table of the tool kinds.  A new kind is a module of this package and a row in :data:`ALL`."""

from __future__ import annotations

from typing import Dict, Tuple

from .apply_patch import ApplyPatch
from .custom import Custom
from .function import Function
from .hosted import Hosted
from .kind import ToolKind
from .local_shell import LocalShell
from .namespace import Namespace
from .shell import Shell
from .tool_search import ToolSearch

FUNCTION = Function()  # a call of an unknown name counts as one of these
HOSTED = Hosted()  # is offered, but its calls become items of rproxy's own making
ALL: Tuple[ToolKind, ...] = (
    FUNCTION,
    Custom(),
    Namespace(),
    ToolSearch(),
    ApplyPatch(),
    Shell(),
    LocalShell(),
)

# By type of tool, of call item and of output item.
TOOL_KINDS: Dict[str, ToolKind] = {name: kind for kind in (*ALL, HOSTED) for name in kind.types}
CALL_KINDS: Dict[str, ToolKind] = {kind.call_type: kind for kind in ALL if kind.call_type}
OUTPUT_KINDS: Dict[str, ToolKind] = {kind.output_type: kind for kind in ALL if kind.output_type}
