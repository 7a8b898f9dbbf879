"""The interface of a kind of hosted tool: a tool that rproxy runs itself, between two requests to the
provider.

The model gets ordinary functions; each call becomes an item of the response, and its result goes back to the
model in the next request (:mod:`rproxy.service.hosted_turn` is the loop).  There is one :class:`HostedKind`
per configuration, and one :class:`KindSession` per response.  The events of an item follow from its type
(:mod:`rproxy.convert.events.hosted_items`), so a kind only makes items and texts.
"""

from __future__ import annotations

from typing import AbstractSet, Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..convert.ids import hosted_call_id
from ..errors import ApiError
from ..types import AnyItem, HostedResult, Json

_PREFIX = "hosted_"  # of a function whose name is taken by one of the client's own


class HostedRequest(NamedTuple):
    """What the kinds get of a request.

    ``items``: the whole history with the request's own input.  ``known``: what is remembered of the hosted
    calls in it, by item id.  ``taken``: names of the client's own functions.  ``native``: types of tools that
    the provider runs itself.  ``permitted``: types of hosted tools that the operator allows.
    """

    body: Json
    items: Sequence[AnyItem]
    owner: str
    known: Mapping[str, HostedResult]
    taken: AbstractSet[str] = frozenset()
    native: AbstractSet[str] = frozenset()
    permitted: AbstractSet[str] = frozenset()

    @property
    def tools(self) -> List[Json]:
        """The entries of ``tools``."""
        return [tool for tool in self.body.get("tools") or () if isinstance(tool, dict)]

    @property
    def include(self) -> Sequence[str]:
        """The ``include`` of the request."""
        return self.body.get("include") or ()

    def name(self, wanted: str) -> str:
        """The name by which the model knows a function; it stays the same as long as the client's own
        functions do.
        """
        while wanted in self.taken:
            wanted = _PREFIX + wanted
        return wanted


class Outcome(NamedTuple):
    """The outcome of a call.

    ``item``: the keys of the finished item that were not known before, with ``status`` if the item has one.
    ``text``: what the model reads.  ``sources``: addresses and titles that it may cite.  ``error``: ends the
    response.
    """

    item: Json
    text: str = ""
    sources: Sequence[Tuple[str, str]] = ()
    error: Optional[ApiError] = None

    @property
    def failed(self) -> bool:
        """Has the call failed?"""
        return self.error is not None or self.item.get("status") == "failed"


class HostedCall:
    """One item that rproxy makes: a call that it runs, a list of tools, a question to the user.

    ``item``: the keys that are known before it runs, without id and status.  ``function``: the name of its
    function, as it was before :meth:`HostedRequest.name`.  ``tool`` and ``server``: its labels in the
    metrics, which count it only if it has a ``tool``.  ``held``: it is shown after it has run, because its
    failure is better reported as an HTTP error.  ``pauses``: the response ends here, and the client must
    answer.
    """

    function = ""
    tool = ""
    server = ""
    held = False
    pauses = False
    item: Json

    async def run(self) -> Outcome:
        """Run it.  Errors are part of the outcome; the turn cancels the call when its client has left."""
        raise NotImplementedError

    def stopped(self, reason: str) -> Outcome:
        """The outcome when it was stopped.

        :param reason: a sentence for the model
        """
        return Outcome({"status": "failed"}, reason)


class HostedFunction(NamedTuple):
    """A function that the model may call.

    ``name``: as :meth:`HostedRequest.name` gives it.  ``call`` makes the call of its arguments, which are
    what the model wrote.
    """

    name: str
    description: str
    parameters: Json
    call: Callable[[str], HostedCall]


class KindSession:
    """One kind of hosted tools at work for one response."""

    def before(self) -> Sequence[HostedCall]:
        """The calls that are run and shown before the provider is asked for the first time."""
        return ()

    def functions(self) -> Sequence[HostedFunction]:
        """The functions that the model may call; used after the calls of :meth:`before` have run."""
        return ()

    def chosen(self, choice: Json, forced: bool) -> Sequence[str]:
        """The names of the functions that an entry of ``tool_choice`` refers to.

        :param forced: the model must call one of them; otherwise it may
        """
        raise NotImplementedError

    def history(self, items: Sequence[AnyItem]) -> List[AnyItem]:
        """The items, with those of this kind as function calls and outputs."""
        raise NotImplementedError


class HostedKind:
    """One kind of hosted tool.

    ``types``: of its entries in ``tools``.  ``items``: types of its items in a history.
    """

    types: Tuple[str, ...] = ()
    items: Tuple[str, ...] = ()

    def echo(self, tool: Json) -> Json:
        """An entry of ``tools`` as the response repeats it."""
        return tool

    def session(self, request: HostedRequest) -> KindSession:
        """The session for one response.

        :raises ApiError: 400, what is wrong with the tools of this kind
        """
        raise NotImplementedError


# ---- Histories
def function_call(item: AnyItem, name: str, arguments: str, text: str, number: int) -> List[AnyItem]:
    """The item of a hosted call as a function call and its output, which is how the model knows it.

    :param number: of the call in its history, for an item without an id
    """
    call_id = hosted_call_id(item.get("id"), number)
    call: Dict[str, Any] = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    if isinstance(item.get("id"), str):
        call["id"] = item["id"]
    return [call, {"type": "function_call_output", "call_id": call_id, "output": text}]


# ---- Results
def cut(text: str, max_bytes: int) -> str:
    """The text; if it is longer as UTF-8, its beginning and its end with a note between them."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text
    note = f"\n[... {len(data) - max_bytes} bytes left out ...]\n"
    half = max(0, max_bytes - len(note)) // 2
    head = data[:half].decode("utf-8", "ignore")
    tail = data[len(data) - half :].decode("utf-8", "ignore")
    return head + note + tail
