"""The hosted tools at work for one response: all kinds together.

The conversion of a request knows no hosted tools: the client's entries of ``tools`` become functions
(:mod:`rproxy.convert.tools.hosted`), and their items in the history become function calls and outputs.  So
the rules for providers also apply to hosted tools, and the request of a later round, or of a later turn,
begins with the same bytes as the first.

Items of the history may also define tools (``additional_tools``); the hosted ones among them count as the
last entries of ``tools``.
"""

from __future__ import annotations

from typing import (
    AbstractSet,
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    cast,
)

from ..convert.tools.hosted import HOSTED_TYPE, hosted_tool
from ..convert.tools.kind import flat_form, flatten, plain
from ..convert.tools.table import DEFAULT_ALLOW, TOOL_ITEMS, later_tools
from ..convert.tools.tool_lists import ToolLists
from ..types import AnyItem, HostedResult, Json
from .citations import Citations
from .kind import HostedCall, HostedFunction, HostedKind, HostedRequest, KindSession

# What the model may call in a round: any tool, only the client's own, none (but it sees them), none at all.
FREE, CLIENTS, LAST, NO_TOOLS = "free", "clients", "last", "none"


class HostedSession:
    """The hosted tools of one response.

    :param kinds: those of which the request has tools, or its history has items
    :param lists: remembers what was made of recurring lists of tools
    """

    def __init__(self, kinds: Sequence[HostedKind], request: HostedRequest, lists: ToolLists) -> None:
        self._lists = lists
        self._sessions: List[KindSession] = []
        self._by_type: Dict[str, KindSession] = {}  # by the types of the request's tools
        self._by_choice: Dict[str, KindSession] = {}  # by every type that tool_choice may name them by
        self._items = [item for kind in kinds for item in kind.items]
        self._permitted = request.permitted
        self._later = _later_hosted(request)  # those that items of the history define
        self._results = {**request.known}  # by item id: of earlier calls, and of those of this response
        tools = [*request.tools, *self._later]
        request = request._replace(body={**request.body, "tools": tools}, known=self._results)
        types = {str(tool.get("type")) for tool in request.tools}
        for kind in kinds:
            session = kind.session(request)
            self._sessions.append(session)
            own = types.intersection(kind.types)
            self._by_type.update(dict.fromkeys(own, session))
            self._by_choice.update(dict.fromkeys(kind.types if own else (), session))
        self._functions: Dict[str, HostedFunction] = {}
        self._allowed: Optional[AbstractSet[str]] = None  # names, by the choice of tools; None: all

    def before(self) -> List[HostedCall]:
        """The calls that are run and shown before the provider is asked."""
        return [call for session in self._sessions for call in session.before()]

    def call(self, name: str, arguments: str) -> HostedCall:
        """The call of a function that the model was offered."""
        return self._functions[name].call(arguments)

    def allows(self, name: str) -> bool:
        """May this function be called?  A model can call one that was not offered this time."""
        return self._allowed is None or name in self._allowed

    def history(self, items: Sequence[AnyItem]) -> List[AnyItem]:
        """The items, with those of hosted tools as function calls and outputs."""
        for session in self._sessions:
            items = session.history(items)
        return [self._without_hosted(item) if item.get("type") in TOOL_ITEMS else item for item in items]

    def _without_hosted(self, item: AnyItem) -> AnyItem:
        """An item that defines tools, without those that are handled like entries of ``tools``."""
        tools: Any = item.get("tools")
        if not isinstance(tools, list):
            return item
        left = [
            tool
            for tool in tools
            if not isinstance(tool, dict) or str(tool.get("type")) not in self._permitted
        ]
        changed: Any = {**item, "tools": left}
        return cast(AnyItem, changed)

    def citations(self) -> Citations:
        """Finds citations of everything that was found in this conversation."""
        return Citations(self.sources())

    def sources(self) -> Iterator[List[str]]:
        """Address and title of everything that was found in this conversation."""
        return (source for result in self._results.values() for source in result["sources"])

    def remember(self, item_id: str, result: HostedResult) -> None:
        """Keep the result of a call of this response."""
        self._results[item_id] = result

    def results(self, item_ids: Iterable[str]) -> Mapping[str, HostedResult]:
        """The results of calls, by item id, as far as they are known."""
        return {item_id: self._results[item_id] for item_id in item_ids if item_id in self._results}

    def described(self) -> Json:
        """The tools as a recording keeps them: enough to convert the same requests without them."""
        functions = [function[:3] for function in self._functions.values()]
        return {"types": [*self._by_choice], "items": self._items, "functions": functions}

    # ---- The request
    @staticmethod
    def allow(types: Optional[Sequence[str]], native: Sequence[str] = ()) -> Sequence[str]:
        """The types of tools that pass, with the functions of hosted tools.

        :param types: what the operator allows; None: the default
        :param native: types of tools that the provider runs itself
        """
        return (*((*DEFAULT_ALLOW, *native) if types is None else types), HOSTED_TYPE)

    def first_body(self, body: Json) -> Json:
        """The body of the first round, for a provider that runs no tools itself."""
        return self.body(body, (), FREE, True)

    def body(self, body: Json, native: Sequence[str], stage: str, first: bool) -> Json:
        """The body with functions in place of hosted tools.

        :param native: types of tools that the provider runs itself
        :param stage: ``FREE``, ``CLIENTS``, ``LAST`` or ``NO_TOOLS``
        :param first: is this the first round?  Only there is a choice of tools forced
        """
        body = {key: value for key, value in body.items() if key != "max_tool_calls"}
        if stage == NO_TOOLS:
            body.pop("tools", None)
            return {**body, "tool_choice": "none"}  # for those that items of the history define
        done: List[int] = []
        tools: List[Json] = []
        for tool in [*(body.get("tools") or ()), *self._later]:
            session = _of_type(self._by_type, tool, native)
            if session is None:
                tools += [tool] if tool.get("type") != HOSTED_TYPE else []
            elif id(session) not in done and stage != CLIENTS:
                done.append(id(session))
                tools += self._offered(session)
        if tools or "tools" in body:
            body["tools"] = self._lists.of(tools)
        theirs = (*native, *self._by_choice) if stage == CLIENTS else native
        choice = "none" if stage == LAST else self._choice(body.get("tool_choice"), theirs, first)
        body.pop("tool_choice", None)
        return body if choice is None else {**body, "tool_choice": choice}

    def _offered(self, session: KindSession) -> List[Json]:
        functions = session.functions()
        self._functions.update((function.name, function) for function in functions)
        return [hosted_tool(one.name, one.description, one.parameters) for one in functions]

    def _choice(self, choice: Any, native: Sequence[str], first: bool) -> Any:
        if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
            listed = choice.get("tools")
            tools = [tool for tool in listed if isinstance(tool, dict)] if isinstance(listed, list) else []
            allowed = [one for tool in tools for one in self._chosen(tool, native, False)]
            self._allowed = {str(one.get("name")) for one in allowed if one.get("type") == HOSTED_TYPE}
            mode = choice.get("mode") if first else "auto"
            return {**choice, "tools": allowed, "mode": mode}
        if not first:
            return choice if choice == "none" else None
        if not isinstance(choice, dict):
            return choice
        chosen = self._chosen(choice, native, True)
        if len(chosen) == 1:
            return chosen[0]
        return {"type": "allowed_tools", "mode": "required", "tools": chosen}

    def _chosen(self, choice: Json, native: Sequence[str], forced: bool) -> List[Json]:
        session = _of_type(self._by_choice, choice, native)
        if session is None:
            return [choice]
        return [{"type": HOSTED_TYPE, "name": name} for name in session.chosen(choice, forced)]


def _of_type(sessions: Mapping[str, KindSession], tool: Json, native: Sequence[str]) -> Optional[KindSession]:
    type_ = str(tool.get("type"))
    return None if type_ in native else sessions.get(type_)


def _later_hosted(request: HostedRequest) -> List[Json]:
    """The hosted tools that items of the history define: the newest of equal ones, without those that
    ``tools`` has.
    """
    found = {
        _key(tool): tool for tool in later_tools(request.items) if str(tool.get("type")) in request.permitted
    }
    own = {_key(tool) for tool in request.tools}
    return [tool for key, tool in found.items() if key not in own]


def _key(tool: Json) -> Tuple[str, str]:
    return str(tool.get("type")), str(tool.get("server_label"))


def own_names(tools: Iterable[Any], items: Iterable[AnyItem]) -> AbstractSet[str]:
    """The names of the functions that the client's own tools become."""
    names: Set[str] = set()
    for tool in [*tools, *later_tools(items)]:
        if isinstance(tool, dict):
            names.update(_names(flat_form(tool)))
    return names


def _names(tool: Mapping[str, Any]) -> List[str]:
    name, members = tool.get("name"), tool.get("tools")
    if not isinstance(name, str):
        return []
    if not isinstance(members, list):
        return [flatten(None, name)]
    inner = [member.get("name") for member in members if isinstance(member, dict)]
    return [flatten(plain(name), one) for one in inner if isinstance(one, str)]
