"""The client's side of a turn: the client, its event sink, and the result."""

from __future__ import annotations

from typing import Awaitable, Mapping, MutableMapping, NamedTuple, Optional, Protocol, Sequence

from ..config.schema import Key
from ..types import Event, LocalRecord, Response
from ..upstream.client import CancelToken


class Client(NamedTuple):
    """The client of a request.

    ``key`` is None when authentication is off.  ``remote`` is the client's address.  ``size`` is the length
    of the request's JSON in bytes.  ``local`` holds the responses of a WebSocket connection.  ``interrupt``
    is cancelled when the user wants to say something.  ``arrived`` is when the request came, in monotonic
    seconds.
    """

    key: Optional[Key]
    codex: bool
    transport: str  # json, sse, ws
    request_id: str
    headers: Mapping[str, str]
    remote: str = ""
    size: int = 0
    local: Optional[MutableMapping[str, LocalRecord]] = None
    interrupt: Optional[CancelToken] = None
    arrived: Optional[float] = None

    @property
    def key_name(self) -> str:
        """The name of the key, "" without one."""
        return self.key.name if self.key is not None else ""

    @property
    def owner(self) -> str:
        """The owner of the stored responses that it may read: a digest of the key, or ""."""
        return self.key.owner if self.key is not None else ""


class EventSink(Protocol):
    """Where the events of a turn go."""

    @property
    def blocked(self) -> bool:
        """Is output still waiting for a client that does not keep up?  Then heartbeats would only pile up."""

    def begin(self, response: Response, headers: Mapping[str, str]) -> None:
        """Commit: the answer is a stream of events.

        :param response: the Response object as far as it is known
        :param headers: for the head of the answer, if that is HTTP
        """

    def send(self, events: Sequence[Event]) -> Optional[Awaitable[None]]:
        """Write whole events in one go.

        :returns: something to wait for when the client does not keep up
        """

    async def send_large(self, events: Sequence[Event]) -> None:
        """Write events that are too large to be encoded as a whole: piece by piece, as the client takes them.

        Nothing else may be sent before this returns.
        """


class TurnResult(NamedTuple):
    """The final Response object, and headers for the head of an answer that is JSON."""

    response: Response
    headers: Mapping[str, str]
