"""The tools of one request: what the model is offered, and what its calls stand for.

There is one table per turn, ``chat name -> Offer``, of all tools: those of the request's ``tools``, and
in the history those of ``additional_tools`` items (Codex's Responses Lite) and ``tool_search_output`` items.
They are in the order of their appearance, so later turns only append, and the provider's prompt cache stays
valid.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from ...errors import ApiError, invalid_value
from ...json_codec import SharedList
from ...types import AnyItem, Json
from ..profile import Profile
from ..request.schema import repaired
from .kind import MAX_NAME, Offer, ToolKind, flat_form, flatten, hashed, marks_encrypted, plain
from .kinds import FUNCTION, TOOL_KINDS
from .tool_lists import ToolList

DEFAULT_ALLOW = ("function", "custom", "namespace", "tool_search")
CHOICE_KEYS = ("type", "name", "namespace")  # what identifies an entry of tool_choice
TOOL_ITEMS = ("additional_tools", "tool_search_output")  # items of the history that define tools


class ToolTable:
    """The tools that may be called in one turn.

    ``chat_tools`` are the entries of the chat request, ``chat_tool_choice`` its ``tool_choice`` or None,
    ``warnings`` the tools that were left out.
    """

    def __init__(self) -> None:
        self.chat_tools: List[Json] = []
        self.chat_tool_choice: Any = None
        self.warnings: List[str] = []
        self._offers: Dict[str, Offer] = {}  # by chat name
        self._names: Dict[Tuple[Optional[str], str], str] = {}  # (namespace, name) -> chat name
        self._by_name: Dict[str, List[str]] = {}  # bare name -> chat names
        self._by_namespace: Dict[Optional[str], List[str]] = {}  # namespace -> chat names
        self._hosted: Set[str] = set()  # hosted tools as JSON
        self._types: Set[str] = set()  # of all chat_tools

    @classmethod
    def build(
        cls,
        request: Mapping[str, Any],
        items: Iterable[AnyItem],
        profile: Profile,
        allow: Optional[Sequence[str]] = None,
    ) -> ToolTable:
        """The table of a request whose whole history is ``items``.

        :param allow: the allowed types of Responses tools; None for :data:`DEFAULT_ALLOW`
        :raises ApiError: 400 for tools or a tool_choice that make no sense
        """
        tools, allowed = request.get("tools"), tuple(DEFAULT_ALLOW if allow is None else allow)
        if isinstance(tools, ToolList):
            key = allowed, profile.schema, profile.drop_keywords.tools, profile.strict_tools
            table = tools.made(key, lambda: cls._of_request(tools, allowed, profile, SharedList()))._copy()
        else:
            table = cls._of_request(tools, allowed, profile, [])
        later = later_tools(items)
        if later:
            table.chat_tools = list(table.chat_tools)
            table._add_all(later, allowed, profile)
        table._choose(request.get("tool_choice"))
        return table

    @classmethod
    def _of_request(
        cls, tools: Any, allow: Sequence[str], profile: Profile, chat_tools: List[Json]
    ) -> ToolTable:
        """The table of a request's own tools.

        :param chat_tools: an empty list
        """
        _check_names(tools, allow)
        table = cls()
        table.chat_tools = chat_tools
        table._add_all(tools, allow, profile)
        return table

    def _copy(self) -> ToolTable:
        """A table that may be changed, except for the list of ``chat_tools``."""
        table = ToolTable()
        table.chat_tools = self.chat_tools
        table.warnings = list(self.warnings)
        table._offers = dict(self._offers)
        table._names = dict(self._names)
        table._by_name = {name: list(found) for name, found in self._by_name.items()}
        table._by_namespace = {name: list(found) for name, found in self._by_namespace.items()}
        table._hosted = set(self._hosted)
        table._types = set(self._types)
        return table

    # ---- Building
    def _add_all(self, tools: Any, allow: Sequence[str], profile: Profile) -> None:
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict):
                self._add(flat_form(tool), allow, profile)

    def _add(self, tool: Json, allow: Sequence[str], profile: Profile) -> None:
        tool_type = str(tool.get("type"))
        kind = TOOL_KINDS.get(tool_type)
        if tool_type not in allow:
            self.warnings.append(f"tool {tool_type[:40]} dropped (not in tool_type_allowlist)")
        elif kind is None:
            # A hosted tool that the provider has, according to the configuration.
            text = json.dumps(tool, sort_keys=True)
            if text not in self._hosted:
                self._hosted.add(text)
                self._types.add(tool_type)
                self.chat_tools.append(tool)
        else:
            for namespace, member in kind.members(tool):
                of = kind if member is tool else TOOL_KINDS.get(str(member.get("type")))
                if of is not None and of.call_type and member.get("type") in allow:
                    self._offer(of, plain(namespace), member, profile)
                else:
                    member_type = str(member.get("type"))[:40]
                    self.warnings.append(
                        f"tool {member_type} in a namespace dropped (not in tool_type_allowlist)"
                    )

    def _offer(self, kind: ToolKind, namespace: Optional[str], tool: Json, profile: Profile) -> None:
        name = kind.tool_name(tool)
        if not name:
            self.warnings.append(f"tool {tool['type']} without a usable name dropped")
            return
        if (namespace, name) in self._names:
            return  # a repetition later in the history
        function = kind.function(tool)
        function["parameters"] = repaired(function["parameters"], profile.schema, profile.drop_keywords.tools)
        if profile.strict_tools == "omit":
            function.pop("strict", None)
        chat_name = flatten(namespace, name)
        if chat_name in self._offers:
            chat_name = hashed(f"{namespace} {name}")
        self._names[namespace, name] = chat_name
        self._by_name.setdefault(name, []).append(chat_name)
        self._by_namespace.setdefault(namespace, []).append(chat_name)
        self._offers[chat_name] = Offer(
            chat_name, kind, name, namespace, function["parameters"], marks_encrypted(tool)
        )
        self.chat_tools.append({"type": "function", "function": dict({"name": chat_name}, **function)})

    def _choose(self, choice: Any) -> None:
        """Fit ``tools`` and ``tool_choice`` of the chat request to the client's ``tool_choice``."""
        if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
            tools = choice.get("tools")
            allowed = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
            once = {tuple(str(tool.get(key)) for key in CHOICE_KEYS): tool for tool in allowed}
            keys = {key for tool in once.values() for key in self._chosen(tool)}
            self.chat_tools = [tool for tool in self.chat_tools if _chat_key(tool) in keys]
            choice = choice.get("mode") or "auto"
        elif isinstance(choice, dict):
            names = [name for chat_type, name in self._chosen(choice) if chat_type == "function"]
            choice = {"type": "function", "function": {"name": names[0]}} if len(names) == 1 else "auto"
        if not self.chat_tools:
            if choice == "required":
                self.warnings.append("tool_choice required ignored: no tool is left")
        elif choice in ("none", "required") or isinstance(choice, dict):
            self.chat_tool_choice = choice

    def _chosen(self, choice: Json) -> List[Tuple[str, Optional[str]]]:
        """The keys (see :func:`_chat_key`) of the tools that an entry of tool_choice selects: ``{type,
        name}``, or a whole namespace.

        :raises ApiError: 400, for a tool that is not among the request's tools
        """
        if not choice:
            self.warnings.append("an empty tool_choice ignored")
            return []
        choice = flat_form(choice)
        tool_type = str(choice.get("type"))
        kind = TOOL_KINDS.get(tool_type)
        if kind is None:  # a hosted tool
            if tool_type not in self._types:
                self.warnings.append(f"tool_choice {tool_type[:40]} ignored")
            return [(tool_type, None)]
        name = kind.tool_name(dict(choice, execution="client"))
        if kind.call_type:
            chat_name = self._names.get((plain(choice.get("namespace")), name)) or self._unique(name)
            found = [chat_name] if chat_name else []
        else:
            found = self._by_namespace.get(plain(name), [])
        if not found:
            raise invalid_value(
                f"tool_choice names the tool {name[:MAX_NAME]!r}, which is not among the request's tools.",
                "tool_choice",
            )
        return [("function", chat_name) for chat_name in found]

    # ---- Using
    def offer(self, chat_name: str) -> Offer:
        """What a call of ``chat_name`` stands for; for an unknown name, a function with that name.  Models
        drop or misspell the namespace: a bare or dotted name means a tool if it can mean only that one.
        Servers that parse OpenAI's harmony format leave its markers behind (``ls<|channel|>commentary``).
        """
        if chat_name not in self._offers:
            chat_name = chat_name.partition("<|")[0].strip() or chat_name
        for name in (chat_name, chat_name.replace(".", "__"), self._unique(chat_name.rpartition(".")[2])):
            if name in self._offers:
                return self._offers[name]
        return Offer(chat_name, FUNCTION, chat_name)

    def _unique(self, name: str) -> str:
        names = self._by_name.get(name, ())
        return names[0] if len(names) == 1 else ""

    def chat_name(self, kind: ToolKind, item: AnyItem) -> str:
        """The function name of an earlier call in the history."""
        name, namespace = kind.call_name(item), plain(item.get("namespace"))
        return self._names.get((namespace, name)) or flatten(namespace, name)


def later_tools(items: Iterable[AnyItem]) -> List[Json]:
    """The tools that items of a history define."""
    lists = [item.get("tools") for item in items if item.get("type") in TOOL_ITEMS]
    return [tool for tools in lists if isinstance(tools, list) for tool in tools if isinstance(tool, dict)]


def _chat_key(tool: Json) -> Tuple[str, Optional[str]]:
    """The identity of an entry of the chat request's tools: the name of a function, the type of a hosted
    tool.
    """
    return tool["type"], tool["function"]["name"] if tool["type"] == "function" else None


def _check_names(tools: Any, allow: Sequence[str]) -> None:
    """Refuse a tool of the request that cannot be called because it has no name.

    In a history such a tool is only left out: the client can no longer correct it.

    :raises ApiError: 400 that names the place
    """
    for number, tool in enumerate(tools if isinstance(tools, list) else []):
        kind = TOOL_KINDS.get(str(flat_form(tool).get("type"))) if isinstance(tool, dict) else None
        for place, (_, member) in enumerate(kind.members(flat_form(tool)) if kind else ()):
            of = TOOL_KINDS.get(str(member.get("type")))
            if of is not None and of.needs_name and member["type"] in allow and not of.tool_name(member):
                inside = "" if of is kind else f".tools[{place}]"
                raise ApiError(
                    400,
                    f"tools[{number}]{inside}.name is required: a {member['type']} tool is called by name.",
                    code="missing_required_parameter",
                    param=f"tools[{number}]{inside}.name",
                )
