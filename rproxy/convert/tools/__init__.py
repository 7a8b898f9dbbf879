"""The tools of one request: what the model is offered, and what its calls stand for.

One table per turn, ``chat name -> Offer``, built from all the places tools come from: the request's ``tools``, and in the history
``additional_tools`` items (Codex' Responses Lite) and ``tool_search_output`` items.  The order is that of appearance, so that a later
turn only ever appends and the provider's prompt cache stays valid.
"""
from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from ...errors import ApiError
from ..profile import Profile
from ..schema import repaired
from .kind import Json, Kind, Offer, flatten, hashed

DEFAULT_ALLOW = ("function", "custom", "namespace", "tool_search")
TOOL_ITEMS = ("additional_tools", "tool_search_output")      # items of the history that bring tools


def _discover() -> List[Kind]:
    modules = (importlib.import_module("%s.%s" % (__name__, info.name)) for info in pkgutil.iter_modules(__path__))
    return [module.KIND for module in modules if hasattr(module, "KIND")]


KINDS: Dict[str, Kind] = {kind_type: kind for kind in _discover() for kind_type in kind.types}
CALLS: Dict[str, Kind] = {kind.call_type: kind for kind in KINDS.values() if kind.call_type}
OUTPUTS: Dict[str, Kind] = {kind.output_type: kind for kind in KINDS.values() if kind.output_type}
FUNCTION = KINDS["function"]


class ToolTable:
    """What may be called in one turn.

    ``chat_tools`` are the entries of the chat request, ``chat_tool_choice`` its ``tool_choice`` or None, ``warnings`` what was left out.
    """

    def __init__(self) -> None:
        self.chat_tools: List[Json] = []
        self.chat_tool_choice: Any = None
        self.warnings: List[str] = []
        self._offers: Dict[str, Offer] = {}                          # by chat name
        self._names: Dict[Tuple[Optional[str], str], str] = {}       # (namespace, name) -> chat name

    @classmethod
    def build(cls, request: Mapping[str, Any], items: Iterable[Json], profile: Profile, allow: Optional[Sequence[str]] = None) -> ToolTable:
        """The table of a request whose whole history is ``items``.

        :arg allow: the kinds of Responses tools that pass; None for :data:`DEFAULT_ALLOW`
        :raises ApiError: 400 for tools or a tool_choice that make no sense
        """
        table = cls()
        allowed = DEFAULT_ALLOW if allow is None else allow
        for tool in _all_tools(request, items):
            table._add(tool, allowed, profile)
        table._choose(request.get("tool_choice"))
        return table

    # ---- building
    def _add(self, tool: Json, allow: Sequence[str], profile: Profile) -> None:
        tool_type = str(tool.get("type"))
        kind = KINDS.get(tool_type)
        if tool_type not in allow:
            self.warnings.append("tool %s dropped (not in tool_type_allowlist)" % tool_type)
        elif kind is None:
            if tool not in self.chat_tools:
                self.chat_tools.append(tool)                         # a hosted tool that the provider is said to know
        else:
            for namespace, member in kind.members(tool):
                if namespace is None:
                    self._offer(kind, None, member, profile)
                elif member.get("type") in allow and member.get("type") in KINDS:
                    self._offer(KINDS[member["type"]], namespace, member, profile)
                else:
                    self.warnings.append("tool %s in a namespace dropped (not in tool_type_allowlist)" % member.get("type"))

    def _offer(self, kind: Kind, namespace: Optional[str], tool: Json, profile: Profile) -> None:
        name = kind.tool_name(tool)
        if not name:
            self.warnings.append("tool %s without a usable name dropped" % tool.get("type"))
            return
        if (namespace, name) in self._names:
            return                                                   # said again later in the history
        function = kind.function(tool)
        function["parameters"] = repaired(function["parameters"], profile.schema)
        if profile.strict_tools == "omit":
            function.pop("strict", None)
        chat_name = flatten(namespace, name)
        if chat_name in self._offers:
            chat_name = hashed("%s %s" % (namespace, name))
        self._names[namespace, name] = chat_name
        self._offers[chat_name] = Offer(chat_name, kind, name, namespace, function["parameters"])
        self.chat_tools.append({"type": "function", "function": dict({"name": chat_name}, **function)})

    def _choose(self, choice: Any) -> None:
        if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
            wanted = {self._chosen(tool) for tool in choice.get("tools") or [] if isinstance(tool, dict)}
            self.chat_tools = [t for t in self.chat_tools if t.get("type") != "function" or t["function"]["name"] in wanted]
            choice = choice.get("mode") or "auto"
        if isinstance(choice, dict):
            name = self._chosen(choice)
            choice = {"type": "function", "function": {"name": name}} if name else "auto"
        if self.chat_tools and choice in ("none", "required") or isinstance(choice, dict):
            self.chat_tool_choice = choice
        elif choice == "required":
            self.warnings.append("tool_choice required ignored: no tool is left")

    def _chosen(self, choice: Json) -> Optional[str]:
        """The chat name that a ``{type, name}`` of tool_choice means; None for a hosted tool.

        :raises ApiError: 400, for a tool that is not among the request's tools
        """
        kind = KINDS.get(str(choice.get("type")))
        if kind is None:
            self.warnings.append("tool_choice %s ignored" % choice.get("type"))
            return None
        name = kind.tool_name(dict(choice, execution="client"))
        chat_name = self._names.get((choice.get("namespace"), name)) or self._unique(name)
        if chat_name is None:
            raise ApiError(400, "tool_choice names the tool %r, which is not among the tools of this request." % name, param="tool_choice")
        return chat_name

    # ---- using
    def offer(self, chat_name: str) -> Offer:
        """What a call of ``chat_name`` stands for; for a name that was not offered, a function of that name.

        Models drop or misspell the namespace: a bare or dotted name that can mean only one tool means that one.
        """
        found = self._offers.get(chat_name) or self._offers.get(chat_name.replace(".", "__"))
        if found is None:
            unique = self._unique(chat_name.rpartition(".")[2])
            found = self._offers[unique] if unique else Offer(chat_name, FUNCTION, chat_name)
        return found

    def _unique(self, name: str) -> Optional[str]:
        names = [offer.chat_name for offer in self._offers.values() if offer.name == name]
        return names[0] if len(names) == 1 else None

    def chat_name(self, kind: Kind, item: Json) -> str:
        """The function name under which an earlier call stands in the history."""
        name, namespace = kind.call_name(item), item.get("namespace")
        return self._names.get((namespace, name)) or self._names.get((None, name)) or flatten(namespace, name)


def _all_tools(request: Mapping[str, Any], items: Iterable[Json]) -> Iterator[Json]:
    lists: List[Any] = [request.get("tools")] + [item.get("tools") for item in items if item.get("type") in TOOL_ITEMS]
    for tools in lists:
        for tool in tools if isinstance(tools, list) else []:
            if isinstance(tool, dict):
                yield tool
